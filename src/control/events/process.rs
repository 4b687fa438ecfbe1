//! Events of the whole process.

use std::fmt;

use base::model::{CoreId, Generation};

/// How the process stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    InOrder,
    TimedOut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    Started {
        cores: usize,
        driver: String,
    },
    Stopped(Stop),
    CoreFailed {
        core: CoreId,
        reason: String,
    },
    /// The record of an authority could not be written.
    StoreFailed {
        text: String,
    },
    PlanLagging {
        generation: Generation,
        cores: Vec<CoreId>,
        after_s: u64,
    },
}

impl ProcessEvent {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopped(_) => "stopped",
            Self::CoreFailed { .. } => "core_failed",
            Self::StoreFailed { .. } => "store_failed",
            Self::PlanLagging { .. } => "plan_lagging",
        }
    }
}

impl fmt::Display for ProcessEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { cores, driver } => {
                write!(f, "version {}, {cores} cores, {driver}", env!("CARGO_PKG_VERSION"))
            }
            Self::Stopped(Stop::InOrder) => f.write_str("every connection was closed in order"),
            Self::Stopped(Stop::TimedOut) => f.write_str("a core did not finish in time"),
            Self::CoreFailed { core, reason } => write!(f, "core {} cannot go on: {reason}", core.0),
            Self::StoreFailed { text } => f.write_str(text),
            Self::PlanLagging { generation, cores, after_s } => {
                let cores: Vec<_> = cores.iter().map(|core| core.0.to_string()).collect();
                write!(
                    f,
                    "generation {} is not acked by core {} after {after_s} s; still waiting, nothing is released",
                    generation.0,
                    cores.join(", ")
                )
            }
        }
    }
}
