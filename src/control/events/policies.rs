//! Events of policies and of the filters that make their decisions.

use std::fmt;

use base::model::{CoreId, FilterName, InterlayName, PolicySlot};
use policy::FaultKind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyEvent {
    Changed {
        generation: u64,
        why: String,
        rows: Vec<String>,
    },
    Lagging {
        generation: u64,
        cores: Vec<u16>,
        after_s: u64,
    },
    /// No set was made, because records would have passed no policy.
    NotMade {
        interlay: InterlayName,
        why: String,
    },
    Warning {
        text: String,
    },
    Fault {
        slot: PolicySlot,
        filter: FilterName,
        generation: u64,
        core: Option<CoreId>,
        kind: FaultKind,
        text: String,
    },
    /// A filter was taken out of its place for its faults.
    Stopped {
        slot: PolicySlot,
        why: String,
    },
    /// A filter refused to be instantiated for its place.
    Lost {
        slot: PolicySlot,
        interlay: InterlayName,
        why: String,
    },
    /// The rollback policy holds every step forward.
    Holds {
        why: String,
    },
    NoLongerHolds,
    FilterLoaded {
        filter: FilterName,
        file: String,
        bytes: usize,
        digest: String,
        cases: Option<usize>,
    },
    FilterUnloaded {
        filter: FilterName,
        left: String,
    },
    /// A filter of the store does not load any more.
    FilterFailed {
        text: String,
    },
}

impl PolicyEvent {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "policies_changed",
            Self::Lagging { .. } | Self::NotMade { .. } => "policies_lagging",
            Self::Warning { .. } => "policy_warning",
            Self::Fault { .. } => "policy_fault",
            Self::Stopped { .. } | Self::Lost { .. } => "policy_unloaded",
            Self::Holds { .. } => "policy_holds",
            Self::NoLongerHolds => "policy_goes_on",
            Self::FilterLoaded { .. } => "filter_loaded",
            Self::FilterUnloaded { .. } => "filter_unloaded",
            Self::FilterFailed { .. } => "filter_failed",
        }
    }
}

impl fmt::Display for PolicyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { generation, why, rows } => write!(f, "set {generation} ({why}): {}", rows.join("; ")),
            Self::Lagging { generation, cores, after_s } => {
                let cores: Vec<_> = cores.iter().map(ToString::to_string).collect();
                write!(f, "set {generation} of filters is not in force on core {} after {after_s} s", cores.join(", "))
            }
            Self::NotMade { interlay, why } => write!(
                f,
                "interlay {interlay}: no set was made, those in force go on: records would pass no policy: {why}"
            ),
            Self::Warning { text } | Self::FilterFailed { text } => f.write_str(text),
            Self::Fault { slot, filter, generation, core, kind, text } => {
                let place = core.map_or_else(|| "the control thread".to_owned(), |core| format!("core {}", core.0));
                write!(f, "{slot}: {filter} generation {generation} on {place}: {}: {text}", kind.as_str())
            }
            Self::Stopped { slot, why } => {
                let becomes = match slot {
                    PolicySlot::Records => "no record is copied",
                    PolicySlot::Mirror | PolicySlot::Compare | PolicySlot::Rollback => {
                        "the built-in default is used instead"
                    }
                };
                write!(f, "{slot}: {why}; {becomes} until a filter is loaded or chosen again")
            }
            Self::Lost { slot, interlay, why } => write!(f, "{slot} of interlay {interlay} has lost its filter: {why}"),
            Self::Holds { why } => f.write_str(why),
            Self::NoLongerHolds => f.write_str("the rollback policy no longer holds"),
            Self::FilterLoaded { filter, file, bytes, digest, cases } => {
                let cases =
                    cases.map_or_else(|| "no recorded cases".to_owned(), |cases| format!("{cases} cases passed"));
                write!(f, "filter {filter} from {file}: {bytes} bytes, digest {digest}, {cases}")
            }
            Self::FilterUnloaded { filter, left } => write!(f, "filter {filter}: {left}"),
        }
    }
}
