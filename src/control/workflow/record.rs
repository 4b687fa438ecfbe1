//! The record of one migration: what was decided, where it stands, what people and checks have said so far.
//!
//! Plain data. Everything here is durable; what is only measured lives in [`super::Evidence`].

use super::phase::Phase;
use base::model::{
    Approval, Authority, AutoThrough, Decisions, EndpointName, FeedKind, Flip, InterlayName, MigrationId,
    MigrationStatus, PolicySettings, Timestamp, Waiver,
};

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct NewMigration {
    pub id: MigrationId,
    pub interlay: InterlayName,
    pub source: EndpointName,
    pub target: EndpointName,
    pub decisions: Decisions,
    pub policies: PolicySettings,
}

/// A hold and release that changed nothing, to know the pause before it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    pub at: Timestamp,
    pub pause_us: u64,
}

/// The smoke checks on reserved keys of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmokeResult {
    pub at: Timestamp,
    pub checks: u32,
    /// One line per check that did not pass.
    pub failed: Vec<String>,
}

/// The first copy of everything the source held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstCopy {
    pub began_at: Timestamp,
    pub finished_at: Timestamp,
    pub keys: u64,
    pub bytes: u64,
}

/// How a migration ended. The interlay is free for another one from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Committed { at: Timestamp, forced: Option<String> },
    Abandoned { at: Timestamp, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationRecord {
    pub id: MigrationId,
    pub interlay: InterlayName,
    pub source: EndpointName,
    pub target: EndpointName,
    pub decisions: Decisions,
    /// The policies chosen for this migration; the others are the interlay's.
    pub policies: PolicySettings,
    pub phase: Phase,
    pub status: MigrationStatus,
    pub authority: Authority,
    /// Counts guided passages: 1 at first, one more after each rollback. Approvals hold for one run.
    pub run: u32,
    pub auto: AutoThrough,
    pub created_at: Timestamp,
    pub phase_since: Timestamp,
    /// When the target was first kept in step. Before that its own keys are judged by the conflict policy.
    pub dual_since: Option<Timestamp>,
    /// What keeps both sides in step, in both directions. Chosen when dual operation begins, never changed.
    pub feed: Option<FeedKind>,
    /// Why it was chosen; unknown of what older versions began.
    pub feed_reason: Option<String>,
    pub first_copy: Option<FirstCopy>,
    pub approvals: Vec<Approval>,
    pub waivers: Vec<Waiver>,
    pub rehearsal: Option<Rehearsal>,
    pub smoke: Option<SmokeResult>,
    pub flips: Vec<Flip>,
    pub rollback_reason: Option<String>,
    pub ended: Option<Ended>,
}

impl MigrationRecord {
    /// A new migration. `authority` continues the epochs of the interlay, so that no epoch is used twice.
    #[must_use]
    pub fn new(asked: NewMigration, authority: Authority, now: Timestamp) -> Self {
        assert!(Phase::PreTest.allows(authority.side), "a migration begins with its source authoritative");
        Self {
            id: asked.id,
            interlay: asked.interlay,
            source: asked.source,
            target: asked.target,
            decisions: asked.decisions,
            policies: asked.policies,
            phase: Phase::PreTest,
            status: MigrationStatus::Pending,
            authority,
            run: 1,
            auto: AutoThrough::Nothing,
            created_at: now,
            phase_since: now,
            dual_since: None,
            feed: None,
            feed_reason: None,
            first_copy: None,
            approvals: Vec::new(),
            waivers: Vec::new(),
            rehearsal: None,
            smoke: None,
            flips: Vec::new(),
            rollback_reason: None,
            ended: None,
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}
