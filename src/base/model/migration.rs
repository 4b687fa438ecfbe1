//! The choices an operator makes for a migration, their values, and the operators' approvals and waivers.
//!
//! Not the record itself: that has a phase, which only `workflow` and the layers above it know. Crosses threads.

use std::fmt;

use super::authority::{Epoch, Side};
use super::ids::Timestamp;
use super::key_pattern::KeyPattern;
use super::limits;
use super::plan::PlanMode;

/// Why a value was refused: names the decision, what was given, and what may be written instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionError(String);

impl fmt::Display for DecisionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecisionError {}

impl DecisionError {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }
}

/// Makes `BlueGreen`, `blue-green` and `blue_green` the same word.
pub(super) fn folded(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

macro_rules! decision {
    ($(#[$doc:meta])* $type:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $name:literal $(| $synonym:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$vdoc])* $variant),+ }

        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The snake_case name, as printed and stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Reads snake_case, PascalCase and the listed synonyms.
            ///
            /// # Errors
            /// [`DecisionError`] listing the values.
            pub fn parse(text: &str) -> Result<Self, $crate::model::migration::DecisionError> {
                let folded = $crate::model::migration::folded;
                let given = folded(text);
                $(if [$name $(, $synonym)*].iter().any(|name| folded(name) == given) { return Ok(Self::$variant); })+
                let values = Self::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(", ");
                let given: String = text.chars().take(60).collect();
                Err($crate::model::migration::DecisionError::new(format!("{} {given:?} is unknown: use one of {values}", $what)))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use decision;

decision!(
    /// How traffic moves to the target.
    Strategy, "strategy", {
        /// Full sync, then all at once, with an instant rollback.
        BlueGreen = "blue_green",
        /// All at once.
        BigBang = "big_bang",
        Canary = "canary",
        ShadowTraffic = "shadow_traffic",
        TimeWindow = "time_window",
        FeatureFlag = "feature_flag",
        Geographic = "geographic",
        RollingUpdate = "rolling_update",
        StranglerFig = "strangler_fig",
    }
);

decision!(
    /// What becomes of keys that the target holds before the first copy.
    ConflictPolicy, "conflict_policy", {
        /// The target must be empty before the first copy.
        Fail = "fail",
        /// The target keeps what it holds: those keys are not moved.
        Skip = "skip" | "none",
        /// The target becomes an exact copy of the source: keys only the target has are removed.
        Replace = "replace",
        Merge = "merge",
        /// Keys that match the patterns of the decision `exclude` are not moved; of others the target must hold none.
        Exclude = "exclude",
    }
);

decision!(
    DataMovement, "data_movement", {
        Copy = "copy",
        BidirectionalRepair = "bidirectional_repair",
        None = "none",
    }
);

decision!(
    /// What a write's success means in dual operation.
    WriteConsistency, "write_consistency", {
        Source = "source" | "old_authoritative",
        Target = "target" | "new_authoritative",
        /// The reply comes when the shadow has the write in memory too.
        Both = "both" | "both_required",
        Either = "either" | "best_effort",
    }
);

decision!(
    ReadRouting, "read_routing", {
        Authority = "authority",
        Ratio = "ratio",
        FallbackOnMiss = "fallback_on_miss",
        Replicated = "replicated",
    }
);

decision!(
    FailureHandling, "failure_handling", {
        RollbackAll = "rollback_all",
        RetryThenAll = "retry_then_all",
        AllowPartial = "allow_partial",
    }
);

decision!(
    /// The phase from which the target is kept in step.
    ShadowFrom, "shadow_from", {
        Compare = "compare",
        Migrate = "migrate",
    }
);

decision!(
    /// What keeps the shadow in step: the *feed*.
    FeedKind, "feed", {
        /// The authority's own replication stream.
        Replication = "replication",
        /// The effects of the writes that pass the interlay, in one ordered connection.
        Lane = "lane",
    }
);

decision!(
    /// Which feed a migration is to use.
    FeedChoice, "feed", {
        /// Replication wherever both servers offer it, otherwise the lane.
        Auto = "auto",
        Replication = "replication",
        Lane = "lane",
    }
);

impl FeedKind {
    /// Whether it can tell that the shadow has a write that the authority has answered.
    #[must_use]
    pub fn confirms_writes(self) -> bool {
        self == Self::Replication
    }

    /// What the cores do while this feed keeps the shadow in step.
    #[must_use]
    pub fn plan_mode(self) -> PlanMode {
        match self {
            Self::Replication => PlanMode::Followed,
            Self::Lane => PlanMode::Dual,
        }
    }
}

impl FeedChoice {
    /// `None`: the best there is.
    #[must_use]
    pub fn kind(self) -> Option<FeedKind> {
        match self {
            Self::Auto => None,
            Self::Replication => Some(FeedKind::Replication),
            Self::Lane => Some(FeedKind::Lane),
        }
    }
}

decision!(
    MigrationStatus, "status", {
        /// Created; the checks of `pre-test` have not all passed.
        Pending = "pending",
        /// The checks of `pre-test` have passed; it has not been started.
        Ready = "ready",
        Running = "running",
        Paused = "paused",
        Completed = "completed",
        Failed = "failed",
        RollingBack = "rolling_back",
        RolledBack = "rolled_back",
    }
);

decision!(
    /// What an approval opens.
    ApprovalScope, "approval", {
        Migrate = "migrate",
        Flip = "flip",
        Commit = "commit",
    }
);

decision!(
    /// How far a run advances automatically.
    AutoThrough, "through", {
        /// Every step is an explicit `advance`.
        Nothing = "nothing",
        /// Up to and including the flip inside `migrate`; `commit` stays explicit.
        Flip = "flip",
        Commit = "commit",
    }
);

/// Everything an operator decides when creating a migration. `Default` is the first value of each list in the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    pub strategy: Strategy,
    pub conflict_policy: ConflictPolicy,
    /// Keys that are not moved; only with [`ConflictPolicy::Exclude`].
    pub exclude: Vec<KeyPattern>,
    pub data_movement: DataMovement,
    pub write_consistency: WriteConsistency,
    pub read_routing: ReadRouting,
    pub ttl_preservation: bool,
    pub failure_handling: FailureHandling,
    pub retry_count: u32,
    pub manual_approval: bool,
    pub hold_before_flip: bool,
    pub shadow_from: ShadowFrom,
    pub feed: FeedChoice,
    pub thresholds: Thresholds,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            strategy: Strategy::BlueGreen,
            conflict_policy: ConflictPolicy::Fail,
            exclude: Vec::new(),
            data_movement: DataMovement::Copy,
            write_consistency: WriteConsistency::Source,
            read_routing: ReadRouting::Authority,
            ttl_preservation: true,
            failure_handling: FailureHandling::RollbackAll,
            retry_count: 0,
            manual_approval: true,
            hold_before_flip: false,
            shadow_from: ShadowFrom::Compare,
            feed: FeedChoice::Auto,
            thresholds: Thresholds::default(),
        }
    }
}

/// The numbers gates are measured against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    pub analyze_min_commands: u64,
    pub analyze_min_seconds: u64,
    pub compare_min_reads: u64,
    pub soak_seconds: u64,
    /// Keys that may be dirty when a fence begins; the fence itself drains them to none.
    pub dirty_before_fence_max: u64,
    pub fence_budget_ms: u64,
    pub ttl_grace_ms: u64,
    /// How slow the slowest hundredth of the source's answers may be while it is copied; 0: no bound.
    pub source_p99_ms: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            analyze_min_commands: limits::ANALYZE_MIN_COMMANDS_DEFAULT,
            analyze_min_seconds: limits::ANALYZE_MIN_SECONDS_DEFAULT,
            compare_min_reads: limits::COMPARE_MIN_READS_DEFAULT,
            soak_seconds: 0,
            dirty_before_fence_max: limits::DIRTY_BEFORE_FENCE_MAX,
            fence_budget_ms: limits::FENCE_BUDGET_DEFAULT_MS,
            ttl_grace_ms: limits::TTL_GRACE_DEFAULT_MS,
            source_p99_ms: limits::SOURCE_P99_DEFAULT_MS,
        }
    }
}

impl Decisions {
    /// Refuses values that are known but not supported yet, and names the supported ones.
    ///
    /// # Errors
    /// [`DecisionError`] naming the decision and what to write instead.
    pub fn supported(&self) -> Result<(), DecisionError> {
        let not_yet = |what: &str, value: &str, instead: &str| {
            Err(DecisionError(format!("{what} {value:?} is not supported yet: use {instead}")))
        };
        match self.strategy {
            Strategy::BlueGreen | Strategy::BigBang => {}
            Strategy::Canary
            | Strategy::ShadowTraffic
            | Strategy::TimeWindow
            | Strategy::FeatureFlag
            | Strategy::Geographic
            | Strategy::RollingUpdate
            | Strategy::StranglerFig => return not_yet("strategy", self.strategy.as_str(), "blue_green or big_bang"),
        }
        self.conflicts_sane()?;
        match self.data_movement {
            DataMovement::Copy => {}
            DataMovement::BidirectionalRepair | DataMovement::None => {
                return not_yet("data_movement", self.data_movement.as_str(), "copy");
            }
        }
        match self.write_consistency {
            WriteConsistency::Source => {}
            WriteConsistency::Both if self.feed.kind().is_none_or(FeedKind::confirms_writes) => {}
            WriteConsistency::Both => {
                return Err(DecisionError(format!(
                    "write_consistency \"both\" needs a feed that tells what the shadow has: use feed auto or replication instead of {}",
                    self.feed.as_str()
                )));
            }
            WriteConsistency::Target | WriteConsistency::Either => {
                return not_yet("write_consistency", self.write_consistency.as_str(), "source or both");
            }
        }
        match self.read_routing {
            ReadRouting::Authority | ReadRouting::Replicated => {}
            ReadRouting::Ratio | ReadRouting::FallbackOnMiss => {
                return not_yet("read_routing", self.read_routing.as_str(), "authority or replicated");
            }
        }
        if !self.ttl_preservation {
            return not_yet("ttl_preservation", "false", "true");
        }
        self.thresholds.sane()
    }

    /// Whether what is to become of the target's own keys can be done.
    fn conflicts_sane(&self) -> Result<(), DecisionError> {
        let refused = |text: String| Err(DecisionError(text));
        let policy = self.conflict_policy;
        if policy == ConflictPolicy::Merge {
            return refused(
                    "conflict_policy \"merge\" is not supported: a value that only the target holds a part of would change differently on \
                     the two sides with every later command that reads it (HINCRBY, SUNIONSTORE, EVAL), and no comparison could tell \
                     that from an error. Write the target's values into the source first and use replace, or use skip or exclude"
                        .to_owned(),
                );
        }
        match (policy, self.exclude.len()) {
            (ConflictPolicy::Exclude, 0) => {
                return refused(
                    "conflict_policy \"exclude\" needs patterns of the keys that are not moved: use --exclude PATTERN"
                        .to_owned(),
                );
            }
            (ConflictPolicy::Exclude, count) if count > limits::EXCLUDE_PATTERNS_MAX => {
                let max = limits::EXCLUDE_PATTERNS_MAX;
                return refused(format!("{count} patterns are excluded: use at most {max}"));
            }
            (ConflictPolicy::Fail | ConflictPolicy::Replace | ConflictPolicy::Skip | ConflictPolicy::Merge, 1..) => {
                return refused(format!(
                    "patterns are excluded, but conflict_policy is \"{policy}\": use conflict_policy exclude"
                ));
            }
            (_, _) => {}
        }
        if self.leaves_keys_out() && self.feed == FeedChoice::Lane {
            return refused(format!(
                "conflict_policy \"{policy}\" is not supported by feed \"lane\", which moves every key: use feed auto or replication"
            ));
        }
        Ok(())
    }

    /// Whether some keys may not be moved, which only the replication feed can do.
    #[must_use]
    pub fn leaves_keys_out(&self) -> bool {
        match self.conflict_policy {
            ConflictPolicy::Fail | ConflictPolicy::Replace | ConflictPolicy::Merge => false,
            ConflictPolicy::Skip | ConflictPolicy::Exclude => true,
        }
    }
}

impl Thresholds {
    fn sane(&self) -> Result<(), DecisionError> {
        if !(limits::FENCE_BUDGET_MIN_MS..=limits::FENCE_BUDGET_MAX_MS).contains(&self.fence_budget_ms) {
            return Err(DecisionError(format!(
                "fence_budget_ms {} is out of range: use {} to {}",
                self.fence_budget_ms,
                limits::FENCE_BUDGET_MIN_MS,
                limits::FENCE_BUDGET_MAX_MS
            )));
        }
        if self.ttl_grace_ms > limits::TTL_GRACE_MAX_MS {
            return Err(DecisionError(format!(
                "ttl_grace_ms {} is out of range: use at most {}",
                self.ttl_grace_ms,
                limits::TTL_GRACE_MAX_MS
            )));
        }
        if self.source_p99_ms > limits::SOURCE_P99_MAX_MS {
            return Err(DecisionError(format!(
                "source_p99_ms {} is out of range: use at most {}, or 0 for no bound",
                self.source_p99_ms,
                limits::SOURCE_P99_MAX_MS
            )));
        }
        Ok(())
    }
}

/// An operator's approval of a step. Counts only in the run it was given in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub scope: ApprovalScope,
    pub by: String,
    pub reason: String,
    pub at: Timestamp,
    pub run: u32,
}

/// An operator's decision that one named finding is acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    pub finding: String,
    pub by: String,
    pub reason: String,
    pub at: Timestamp,
}

/// One change of authority. `pause_us` is unknown when the process ended between the durable record and the release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    pub at: Timestamp,
    pub to: Side,
    pub epoch: Epoch,
    pub pause_us: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_every_spelling_and_refused_with_the_list() {
        for text in ["blue_green", "BlueGreen", "blue-green", "BLUE_GREEN"] {
            assert_eq!(Strategy::parse(text), Ok(Strategy::BlueGreen), "{text}");
        }
        assert_eq!(WriteConsistency::parse("OldAuthoritative"), Ok(WriteConsistency::Source));
        assert_eq!(ConflictPolicy::parse("none"), Ok(ConflictPolicy::Skip));
        let error = Strategy::parse("purple").expect_err("unknown").to_string();
        assert!(error.contains("purple") && error.contains("blue_green, big_bang, canary"), "{error}");
        for value in MigrationStatus::ALL {
            assert_eq!(MigrationStatus::parse(value.as_str()), Ok(*value));
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        assert_eq!(Decisions::default().supported(), Ok(()));
        type Change = fn(&mut Decisions);
        let sessions = || vec![KeyPattern::new("session:*").unwrap()];
        let mut excluding =
            Decisions { conflict_policy: ConflictPolicy::Exclude, exclude: sessions(), ..Decisions::default() };
        assert_eq!(excluding.supported(), Ok(()));
        excluding.feed = FeedChoice::Lane;
        assert!(excluding.supported().expect_err("by the lane").to_string().contains("use feed auto or replication"));
        let cases: [(&str, Change); 10] = [
            ("canary", |d| d.strategy = Strategy::Canary),
            ("merge", |d| d.conflict_policy = ConflictPolicy::Merge),
            ("exclude", |d| d.conflict_policy = ConflictPolicy::Exclude),
            ("exclude", |d| d.exclude = vec![KeyPattern::new("session:*").unwrap()]),
            ("none", |d| d.data_movement = DataMovement::None),
            ("either", |d| d.write_consistency = WriteConsistency::Either),
            ("both", |d| (d.write_consistency, d.feed) = (WriteConsistency::Both, FeedChoice::Lane)),
            ("ratio", |d| d.read_routing = ReadRouting::Ratio),
            ("ttl_preservation", |d| d.ttl_preservation = false),
            ("fence_budget_ms", |d| d.thresholds.fence_budget_ms = 0),
        ];
        for (word, change) in cases {
            let mut decisions = Decisions::default();
            change(&mut decisions);
            let error = decisions.supported().expect_err(word).to_string();
            assert!(error.contains(word) && error.contains("use "), "{error}");
        }
    }
}
