//! The seven phases and their order. Known only from here upwards: a core never learns one.

use std::fmt;

use base::model::Side;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    PreTest,
    Analyze,
    Compare,
    Test,
    Migrate,
    Rollback,
    Commit,
}

impl Phase {
    pub const ALL: [Self; 7] =
        [Self::PreTest, Self::Analyze, Self::Compare, Self::Test, Self::Migrate, Self::Rollback, Self::Commit];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreTest => "pre-test",
            Self::Analyze => "analyze",
            Self::Compare => "compare",
            Self::Test => "test",
            Self::Migrate => "migrate",
            Self::Rollback => "rollback",
            Self::Commit => "commit",
        }
    }

    /// Reads `pre-test`, `pre_test` and `PreTest` alike.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let given: String = text.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect();
        Self::ALL.into_iter().find(|phase| phase.as_str().replace('-', "") == given)
    }

    /// Where a plain `advance` leads; a run that was rolled back is retried from `compare`.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::PreTest => Some(Self::Analyze),
            Self::Analyze | Self::Rollback => Some(Self::Compare),
            Self::Compare => Some(Self::Test),
            Self::Test => Some(Self::Migrate),
            Self::Migrate => Some(Self::Commit),
            Self::Commit => None,
        }
    }

    /// Phases in which the target may be kept in step.
    #[must_use]
    pub fn may_be_dual(self) -> bool {
        match self {
            Self::Compare | Self::Test | Self::Migrate | Self::Rollback => true,
            Self::PreTest | Self::Analyze | Self::Commit => false,
        }
    }

    /// Whether this side may be authoritative in this phase. Everything else is a fault of this program.
    #[must_use]
    pub fn allows(self, side: Side) -> bool {
        match self {
            Self::PreTest | Self::Analyze | Self::Compare | Self::Test => side == Side::Source,
            Self::Migrate | Self::Rollback => true,
            Self::Commit => side == Side::Target,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
