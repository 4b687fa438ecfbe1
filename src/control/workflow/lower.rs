//! Lowering: from a record to the orders of its interlay, in which no choice is left.

use super::phase::Phase;
use super::record::{Ended, MigrationRecord};
use base::model::{Authority, CompareReads, Endpoint, FeedKind, Generation, PlanMode, RoutePlan, ShadowFrom, Side};

/// All comparable reads.
const EVERY_READ: CompareReads = CompareReads { sample_per_ten_thousand: 10_000 };
const NO_READ: CompareReads = CompareReads { sample_per_ten_thousand: 0 };

/// What keeps both sides in step now; `None`: nothing does.
#[must_use]
pub fn feed_in_use(record: &MigrationRecord) -> Option<FeedKind> {
    let in_step = record.ended.is_none() && record.phase.may_be_dual() && record.dual_since.is_some();
    record.feed.filter(|_| in_step)
}

/// Whether both sides are kept in step now.
#[must_use]
pub fn is_dual(record: &MigrationRecord) -> bool {
    feed_in_use(record).is_some()
}

/// The plan that follows from a record. The endpoints are those the record names.
#[must_use]
pub fn plan(record: &MigrationRecord, source: &Endpoint, target: &Endpoint, generation: Generation) -> RoutePlan {
    assert_eq!((&source.name, &target.name), (&record.source, &record.target), "the endpoints of this record");
    assert!(record.phase.allows(record.authority.side), "phase {} with {}", record.phase, record.authority.side);
    let mode = feed_in_use(record).map_or(PlanMode::PassThrough, FeedKind::plan_mode);
    RoutePlan {
        interlay: record.interlay.clone(),
        generation,
        authority: authority(record),
        source: source.clone(),
        target: Some(target.clone()),
        mode,
        compare: if mode.is_dual() { compare(record) } else { NO_READ },
        ttl_grace_ms: record.decisions.thresholds.ttl_grace_ms,
    }
}

fn authority(record: &MigrationRecord) -> Authority {
    match &record.ended {
        Some(Ended::Abandoned { .. }) => assert_eq!(record.authority.side, Side::Source, "abandoned on the source"),
        Some(Ended::Committed { .. }) => assert_eq!(record.authority.side, Side::Target, "committed on the target"),
        None => {}
    }
    record.authority
}

fn compare(record: &MigrationRecord) -> CompareReads {
    match record.phase {
        Phase::Compare | Phase::Test => EVERY_READ,
        // With late shadowing the reads that `compare` could not compare are compared here, before the flip.
        Phase::Migrate => match (record.decisions.shadow_from, record.authority.side) {
            (ShadowFrom::Migrate, Side::Source) => EVERY_READ,
            (ShadowFrom::Migrate, Side::Target) | (ShadowFrom::Compare, _) => NO_READ,
        },
        Phase::PreTest | Phase::Analyze | Phase::Rollback | Phase::Commit => NO_READ,
    }
}
