//! What control has measured, as plain values, for the gates to judge. Unknown is a state of its own.

use base::model::{Epoch, Timestamp};

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Not evaluated, and why. Never counts as passed.
    Unknown(String),
    Failed(String),
    Passed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One compatibility finding; `name` is what a waiver refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub severity: Severity,
    pub detail: String,
}

/// The newest status of the lane, only what gates read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneFacts {
    pub uncopied: bool,
    pub dirty: u64,
    pub in_flight: u64,
    pub reads_compared: u64,
    /// Keys that a records policy has changed or left out.
    pub altered: u64,
    pub authority_connected: bool,
    pub shadow_connected: bool,
}

/// A full comparison of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// The authority's epoch while it ran.
    pub epoch: Epoch,
    pub keys: u64,
    pub divergent: u64,
    pub inconclusive: u64,
}

impl Verification {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.divergent == 0 && self.inconclusive == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub source_reachable: Check,
    pub target_reachable: Check,
    pub target_exercised: Check,
    pub commands_observed: u64,
    pub seconds_observed: u64,
    /// `Err`: why it is not known.
    pub findings: Result<Vec<Finding>, String>,
    /// Keys the target holds. `Err`: why it is not known.
    pub target_keys: Result<u64, String>,
    /// `Err`: why there is no fresh status.
    pub lane: Result<LaneFacts, String>,
    /// The last pass the lane began under the present epoch has been named completely. `Err`: how far it is.
    pub pass_done: Result<(), String>,
    pub divergences_unresolved: u64,
    /// The newest full comparison since the lane last began a full pass.
    pub verification: Option<Verification>,
    /// Since when every full comparison of this epoch was clean.
    pub clean_since: Option<Timestamp>,
    /// What the rollback policy said of the last window: `Err` with its reason to hold. `None`: there is no such policy.
    pub rollback_policy: Option<Result<(), String>>,
}

impl Default for Evidence {
    /// Nothing measured yet.
    fn default() -> Self {
        let unknown = || "not measured yet".to_owned();
        Self {
            source_reachable: Check::Unknown(unknown()),
            target_reachable: Check::Unknown(unknown()),
            target_exercised: Check::Unknown(unknown()),
            commands_observed: 0,
            seconds_observed: 0,
            findings: Err(unknown()),
            target_keys: Err(unknown()),
            lane: Err(unknown()),
            pass_done: Err(unknown()),
            divergences_unresolved: 0,
            verification: None,
            clean_since: None,
            rollback_policy: None,
        }
    }
}
