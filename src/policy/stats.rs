//! The statistics and notes of a filter in its seat. Cross in reports.

use base::model::{FilterName, PolicySlot};
use base::stdx::histogram::Histogram;

/// What went wrong in one call (ABI.md, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Trap,
    Deadline,
    BadVerdict,
}

impl FaultKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::BadVerdict => "bad_verdict",
        }
    }
}

/// Faults by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    pub trap: u64,
    pub deadline: u64,
    pub bad_verdict: u64,
}

impl FaultCounts {
    #[must_use]
    pub fn total(self) -> u64 {
        self.trap + self.deadline + self.bad_verdict
    }
}

/// Statistics of one filter in one slot, since the seat was created.
#[derive(Debug, Clone)]
pub struct SeatStats {
    pub slot: PolicySlot,
    pub filter: FilterName,
    pub calls: u64,
    pub call_ns: Histogram,
    /// Commands answered from the memo, without a call.
    pub memo_hits: u64,
    pub faults: FaultCounts,
    /// Calls answered as `on_fault` says because the instance waits to be replaced.
    pub absent: u64,
    pub memory_bytes: u64,
    /// Counts of verdicts by word, without those that did not occur.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Verdicts that would have stopped something but did not, because of the mode.
    pub restrained: u64,
    /// The guest's own counters.
    pub counters: Vec<(String, u64)>,
    pub dropped: u64,
}

impl SeatStats {
    /// Adds the statistics of another core, or of a predecessor, of the same filter in the same slot.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.call_ns.add(&other.call_ns);
        self.memo_hits += other.memo_hits;
        self.faults.trap += other.faults.trap;
        self.faults.deadline += other.faults.deadline;
        self.faults.bad_verdict += other.faults.bad_verdict;
        self.absent += other.absent;
        self.memory_bytes += other.memory_bytes;
        for &(word, count) in &other.verdicts {
            match self.verdicts.iter_mut().find(|(known, _)| *known == word) {
                Some((_, total)) => *total += count,
                None => self.verdicts.push((word, count)),
            }
        }
        self.restrained += other.restrained;
        for (id, count) in &other.counters {
            match self.counters.iter_mut().find(|(known, _)| known == id) {
                Some((_, total)) => *total += count,
                None => self.counters.push((id.clone(), *count)),
            }
        }
        self.dropped += other.dropped;
    }
}

/// Something about a filter that is reported to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyNote {
    pub slot: PolicySlot,
    pub kind: NoteKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// One fault. `spent`: the instance must be replaced.
    Fault { kind: FaultKind, text: String, spent: bool },
    /// A verdict that would have stopped something, in mode `warn`. At most a few per second.
    Warned { text: String },
    /// A line of the guest's log.
    Log { level: u8, text: String },
}
