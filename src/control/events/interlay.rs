//! Events of an interlay that an operator pauses and resumes.

use std::fmt;
use std::time::Duration;

/// Why a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseEnd {
    Resumed,
    TimeRanOut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterlayEvent {
    Paused { drained_in_us: u64, hold: Duration },
    Resumed { why: PauseEnd, paused_for_us: u64, held: u64, longest_hold_us: u64 },
    PauseFailed { refusal: String, held: u64, longest_hold_us: u64 },
}

impl InterlayEvent {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "interlay_paused",
            Self::Resumed { .. } => "interlay_resumed",
            Self::PauseFailed { .. } => "pause_failed",
        }
    }
}

impl fmt::Display for InterlayEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { drained_in_us, hold } => {
                write!(
                    f,
                    "paused; drained in {drained_in_us} us; resumes automatically after {:.1} s",
                    hold.as_secs_f64()
                )
            }
            Self::Resumed { why, paused_for_us, held, longest_hold_us } => {
                let why = match why {
                    PauseEnd::Resumed => "resumed",
                    PauseEnd::TimeRanOut => "its time ran out",
                };
                write!(
                    f,
                    "{why}: paused for {paused_for_us} us, {held} clients had been held, the longest for {longest_hold_us} us"
                )
            }
            Self::PauseFailed { refusal, held, longest_hold_us } => {
                write!(f, "{refusal} ({held} clients had been held, the longest for {longest_hold_us} us)")
            }
        }
    }
}
