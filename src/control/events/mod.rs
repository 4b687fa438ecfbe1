//! What happens, typed: an enum per subject, each kind with what it is about, its name and its text in one place.
//!
//! The store and the API keep an event as its kind and its text, so journals of older versions stay readable. Kinds never change;
//! programs read kind and number, not the text. Pure: numbers and times are given elsewhere.

mod interlay;
mod migration;
mod policies;
mod process;
mod shadow;

use std::fmt;

pub use interlay::{InterlayEvent, PauseEnd};
pub use migration::MigrationEvent;
pub use policies::PolicyEvent;
pub use process::{ProcessEvent, Stop};
pub use shadow::{FailedJob, RunningJob, ShadowEvent};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Process(ProcessEvent),
    Migration(MigrationEvent),
    Shadow(ShadowEvent),
    Interlay(InterlayEvent),
    Policy(PolicyEvent),
}

impl Event {
    /// As journals, the API and its stream of events name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Process(event) => event.kind(),
            Self::Migration(event) => event.kind(),
            Self::Shadow(event) => event.kind(),
            Self::Interlay(event) => event.kind(),
            Self::Policy(event) => event.kind(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(event) => event.fmt(f),
            Self::Migration(event) => event.fmt(f),
            Self::Shadow(event) => event.fmt(f),
            Self::Interlay(event) => event.fmt(f),
            Self::Policy(event) => event.fmt(f),
        }
    }
}

macro_rules! from_subjects {
    ($($subject:ident($event:ident)),+ $(,)?) => {
        $(impl From<$event> for Event {
            fn from(event: $event) -> Self {
                Self::$subject(event)
            }
        })+
    };
}

from_subjects!(
    Process(ProcessEvent),
    Migration(MigrationEvent),
    Shadow(ShadowEvent),
    Interlay(InterlayEvent),
    Policy(PolicyEvent),
);
