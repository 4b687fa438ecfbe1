//! Why an operator's request was not done.

use std::fmt;

use crate::store::StoreError;
use crate::workflow::Refusal;
use base::model::SessionInfo;
use movers::Unsupported;

/// Why an operator's request was not done. Every text says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    NotFound(String),
    /// The workflow says no; nothing changed.
    Refused(Refusal),
    /// Does not fit what exists already; nothing changed.
    Conflict(String),
    /// A pause did not come about: these sessions were in the way. Clients go on.
    HeldUp {
        text: String,
        sessions: Vec<SessionInfo>,
    },
    Invalid(String),
    /// This version cannot do it; nothing changed.
    Unsupported(String),
    /// A filter breaks a rule, fails a case or refuses its configuration; what was loaded before stays in use.
    FilterRefused(String),
    /// Another server could not be reached or answered nonsense.
    Upstream(String),
    /// The store failed: nothing changed in this process. Whether what was being written is on disk, its text says or is not known.
    Store(String),
    /// Busy or stopping. Whether the change is made is not known: look, then try again.
    Unavailable(String),
}

impl ControlError {
    /// The store failed earlier, and nothing is changed until a restart.
    pub(super) fn since_the_store_failed(why: &str) -> Self {
        Self::Store(format!("no change is made since the store failed: {why}"))
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::HeldUp { text, .. }
            | Self::NotFound(text)
            | Self::Conflict(text)
            | Self::Invalid(text)
            | Self::Unsupported(text)
            | Self::FilterRefused(text)
            | Self::Upstream(text)
            | Self::Store(text)
            | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ControlError {}

impl From<Refusal> for ControlError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(text) => Self::Invalid(text),
            Refusal::UnmetGates { .. } | Refusal::WrongPhase(_) => Self::Refused(refusal),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<Unsupported> for ControlError {
    fn from(why: Unsupported) -> Self {
        Self::Unsupported(why.0)
    }
}
