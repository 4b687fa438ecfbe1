//! What control has measured, as plain values, for the gates to judge. Unknown is a state of its own, and the default.

use base::model::{Epoch, Timestamp};
use movers::{Check, Feeds, Finding, OwnGate, ShadowFacts};

/// What passed the interlay since the phase began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub commands: u64,
    pub seconds: u64,
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

/// What the rollback policy said of the last second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyWord {
    /// There is no such policy: it has no gate.
    NoPolicy,
    /// One was chosen and gives no word; why.
    Unknown(String),
    GoesOn,
    Holds(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub source_reachable: Check,
    pub target_reachable: Check,
    pub target_exercised: Check,
    /// `Err`: why it is not known.
    pub workload: Result<Workload, String>,
    /// `Err`: why it is not known.
    pub findings: Result<Vec<Finding>, String>,
    /// When the comparison that found them began.
    pub findings_at: Option<Timestamp>,
    /// What can keep the two servers in step, with the policies that are chosen. `Err`: why it is not known.
    pub feeds: Result<Feeds, String>,
    /// Keys the target holds. `Err`: why it is not known.
    pub target_keys: Result<u64, String>,
    /// `Err`: why there are no fresh facts.
    pub shadow: Result<ShadowFacts, String>,
    /// The last pass that began under the present epoch has reached everything. `Err`: how far it is.
    pub pass_done: Result<(), String>,
    /// Divergences that are not resolved. `Err`: nothing has been compared.
    pub divergences: Result<u64, String>,
    /// What the database's own mover wants to be true before the authority changes.
    pub own_gates: Vec<OwnGate>,
    /// The newest full comparison since the last full pass began; `None`: there is none.
    pub verification: Option<Verification>,
    /// A full comparison found differences while something ran that may write what the feed does not see.
    pub strayed: bool,
    /// Since when every full comparison of this epoch was clean.
    pub clean_since: Option<Timestamp>,
    pub rollback_policy: PolicyWord,
}

impl Default for Evidence {
    /// Nothing measured yet.
    fn default() -> Self {
        fn unknown<T>() -> Result<T, String> {
            Err("not measured yet".to_owned())
        }
        let unknown_check = || Check::Unknown("not measured yet".to_owned());
        Self {
            source_reachable: unknown_check(),
            target_reachable: unknown_check(),
            target_exercised: unknown_check(),
            workload: unknown(),
            findings: unknown(),
            findings_at: None,
            feeds: unknown(),
            target_keys: unknown(),
            shadow: unknown(),
            pass_done: unknown(),
            divergences: unknown(),
            own_gates: Vec::new(),
            verification: None,
            strayed: false,
            clean_since: None,
            rollback_policy: PolicyWord::Unknown("not measured yet".to_owned()),
        }
    }
}
