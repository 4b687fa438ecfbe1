//! Who is authoritative: whose replies the clients see and whose state is the truth.

use std::fmt;

/// The two ends of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Source,
    Target,
}

impl Side {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts changes of authority. Entries of epoch `e` are void once the record of `e + 1` is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The authority record (invariant I1: one per migration, changed only by a durable write).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    pub side: Side,
    pub epoch: Epoch,
}

impl Authority {
    /// Where every migration begins.
    #[must_use]
    pub fn initial() -> Self {
        Self { side: Side::Source, epoch: Epoch(1) }
    }

    /// The record after a flip.
    #[must_use]
    pub fn flipped(self) -> Self {
        Self { side: self.side.other(), epoch: self.epoch.next() }
    }
}
