//! The shapes on disk, version 4, and their translation to and from the program's own types.
//!
//! Separate from the program's types on purpose: those may change, these may not without a new version. Values are JSON.

mod misread;
mod policies;

use misread::{Misread, misread};
pub(super) use policies::DiskFilter;
use policies::DiskPolicies;
use serde::{Deserialize, Serialize};

use crate::store::JournalEntry;
use crate::workflow::{Ended, FirstCopy, MigrationRecord, Phase, Rehearsal, SmokeResult};
use base::model::{
    Approval, ApprovalScope, Authority, AutoThrough, ConflictPolicy, DataMovement, Decisions, EndpointName, Epoch,
    FailureHandling, FeedChoice, FeedKind, Flip, InterlayName, KeyPattern, Ledger, LedgerEntry, MigrationId,
    MigrationStatus, ReadRouting, ShadowFrom, Side, Strategy, Thresholds, Timestamp, Waiver, WriteConsistency,
};

#[derive(Debug, Serialize, Deserialize)]
struct DiskThresholds {
    analyze_min_commands: u64,
    analyze_min_seconds: u64,
    compare_min_reads: u64,
    soak_seconds: u64,
    dirty_before_fence_max: u64,
    fence_budget_ms: u64,
    ttl_grace_ms: u64,
    /// Absent from versions that read as fast as they could.
    #[serde(default = "source_p99_ms")]
    source_p99_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskDecisions {
    strategy: String,
    conflict_policy: String,
    /// Absent from versions that moved every key.
    #[serde(default)]
    exclude: Vec<String>,
    data_movement: String,
    write_consistency: String,
    read_routing: String,
    ttl_preservation: bool,
    failure_handling: String,
    retry_count: u32,
    manual_approval: bool,
    hold_before_flip: bool,
    shadow_from: String,
    /// Absent from versions that knew the lane only.
    #[serde(default = "lane")]
    feed: String,
    thresholds: DiskThresholds,
}

fn source_p99_ms() -> u64 {
    Thresholds::default().source_p99_ms
}

fn lane() -> String {
    FeedKind::Lane.to_string()
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskApproval {
    scope: String,
    by: String,
    reason: String,
    at_ms: u64,
    run: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskWaiver {
    finding: String,
    by: String,
    reason: String,
    at_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskFlip {
    at_ms: u64,
    to: String,
    epoch: u64,
    pause_us: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskRehearsal {
    at_ms: u64,
    pause_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskFirstCopy {
    began_at_ms: u64,
    finished_at_ms: u64,
    keys: u64,
    bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskSmoke {
    at_ms: u64,
    checks: u32,
    failed: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
enum DiskEnded {
    Committed { at_ms: u64, forced: Option<String> },
    Abandoned { at_ms: u64, reason: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DiskMigration {
    id: String,
    interlay: String,
    source: String,
    target: String,
    decisions: DiskDecisions,
    #[serde(default)]
    policies: DiskPolicies,
    phase: String,
    status: String,
    authority: String,
    epoch: u64,
    run: u32,
    auto: String,
    created_at_ms: u64,
    phase_since_ms: u64,
    dual_since_ms: Option<u64>,
    /// Absent before dual operation, and from versions that knew the lane only.
    #[serde(default)]
    feed: Option<String>,
    #[serde(default)]
    feed_reason: Option<String>,
    #[serde(default)]
    first_copy: Option<DiskFirstCopy>,
    approvals: Vec<DiskApproval>,
    waivers: Vec<DiskWaiver>,
    rehearsal: Option<DiskRehearsal>,
    smoke: Option<DiskSmoke>,
    flips: Vec<DiskFlip>,
    rollback_reason: Option<String>,
    ended: Option<DiskEnded>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DiskJournal {
    at_ms: u64,
    kind: String,
    migration: Option<String>,
    interlay: Option<String>,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct DiskDivergence {
    database: u32,
    key: Vec<u8>,
    class: String,
    source: String,
    target: String,
    first_seen_ms: u64,
    last_seen_ms: u64,
    resolved_at_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DiskLedger {
    found: u64,
    resolved: u64,
    entries: Vec<DiskDivergence>,
}

fn side(text: &str) -> Result<Side, Misread> {
    match text {
        "source" => Ok(Side::Source),
        "target" => Ok(Side::Target),
        other => Err(format!("authority {other:?} is neither source nor target")),
    }
}

impl From<&Decisions> for DiskDecisions {
    fn from(from: &Decisions) -> Self {
        let thresholds = &from.thresholds;
        Self {
            strategy: from.strategy.to_string(),
            conflict_policy: from.conflict_policy.to_string(),
            exclude: from.exclude.iter().map(ToString::to_string).collect(),
            data_movement: from.data_movement.to_string(),
            write_consistency: from.write_consistency.to_string(),
            read_routing: from.read_routing.to_string(),
            ttl_preservation: from.ttl_preservation,
            failure_handling: from.failure_handling.to_string(),
            retry_count: from.retry_count,
            manual_approval: from.manual_approval,
            hold_before_flip: from.hold_before_flip,
            shadow_from: from.shadow_from.to_string(),
            feed: from.feed.to_string(),
            thresholds: DiskThresholds {
                analyze_min_commands: thresholds.analyze_min_commands,
                analyze_min_seconds: thresholds.analyze_min_seconds,
                compare_min_reads: thresholds.compare_min_reads,
                soak_seconds: thresholds.soak_seconds,
                dirty_before_fence_max: thresholds.dirty_before_fence_max,
                fence_budget_ms: thresholds.fence_budget_ms,
                ttl_grace_ms: thresholds.ttl_grace_ms,
                source_p99_ms: thresholds.source_p99_ms,
            },
        }
    }
}

impl DiskDecisions {
    fn read(self) -> Result<Decisions, Misread> {
        Ok(Decisions {
            strategy: Strategy::parse(&self.strategy).map_err(misread)?,
            conflict_policy: ConflictPolicy::parse(&self.conflict_policy).map_err(misread)?,
            exclude: self
                .exclude
                .iter()
                .map(|text| KeyPattern::new(text).map_err(misread))
                .collect::<Result<_, _>>()?,
            data_movement: DataMovement::parse(&self.data_movement).map_err(misread)?,
            write_consistency: WriteConsistency::parse(&self.write_consistency).map_err(misread)?,
            read_routing: ReadRouting::parse(&self.read_routing).map_err(misread)?,
            ttl_preservation: self.ttl_preservation,
            failure_handling: FailureHandling::parse(&self.failure_handling).map_err(misread)?,
            retry_count: self.retry_count,
            manual_approval: self.manual_approval,
            hold_before_flip: self.hold_before_flip,
            shadow_from: ShadowFrom::parse(&self.shadow_from).map_err(misread)?,
            feed: FeedChoice::parse(&self.feed).map_err(misread)?,
            thresholds: Thresholds {
                analyze_min_commands: self.thresholds.analyze_min_commands,
                analyze_min_seconds: self.thresholds.analyze_min_seconds,
                compare_min_reads: self.thresholds.compare_min_reads,
                soak_seconds: self.thresholds.soak_seconds,
                dirty_before_fence_max: self.thresholds.dirty_before_fence_max,
                fence_budget_ms: self.thresholds.fence_budget_ms,
                ttl_grace_ms: self.thresholds.ttl_grace_ms,
                source_p99_ms: self.thresholds.source_p99_ms,
            },
        })
    }
}

impl From<&Approval> for DiskApproval {
    fn from(from: &Approval) -> Self {
        Self {
            scope: from.scope.to_string(),
            by: from.by.clone(),
            reason: from.reason.clone(),
            at_ms: from.at.0,
            run: from.run,
        }
    }
}

impl DiskApproval {
    fn read(self) -> Result<Approval, Misread> {
        let scope = ApprovalScope::parse(&self.scope).map_err(misread)?;
        Ok(Approval { scope, by: self.by, reason: self.reason, at: Timestamp(self.at_ms), run: self.run })
    }
}

impl From<&Flip> for DiskFlip {
    fn from(from: &Flip) -> Self {
        Self { at_ms: from.at.0, to: from.to.to_string(), epoch: from.epoch.0, pause_us: from.pause_us }
    }
}

impl DiskFlip {
    fn read(self) -> Result<Flip, Misread> {
        let to = side(&self.to)?;
        Ok(Flip { at: Timestamp(self.at_ms), to, epoch: Epoch(self.epoch), pause_us: self.pause_us })
    }
}

impl From<&MigrationRecord> for DiskMigration {
    fn from(from: &MigrationRecord) -> Self {
        let waiver = |from: &Waiver| DiskWaiver {
            finding: from.finding.clone(),
            by: from.by.clone(),
            reason: from.reason.clone(),
            at_ms: from.at.0,
        };
        Self {
            id: from.id.to_string(),
            interlay: from.interlay.to_string(),
            source: from.source.to_string(),
            target: from.target.to_string(),
            decisions: (&from.decisions).into(),
            policies: (&from.policies).into(),
            phase: from.phase.to_string(),
            status: from.status.to_string(),
            authority: from.authority.side.to_string(),
            epoch: from.authority.epoch.0,
            run: from.run,
            auto: from.auto.to_string(),
            created_at_ms: from.created_at.0,
            phase_since_ms: from.phase_since.0,
            dual_since_ms: from.dual_since.map(|at| at.0),
            feed: from.feed.map(|feed| feed.to_string()),
            feed_reason: from.feed_reason.clone(),
            first_copy: from.first_copy.map(|copy| DiskFirstCopy {
                began_at_ms: copy.began_at.0,
                finished_at_ms: copy.finished_at.0,
                keys: copy.keys,
                bytes: copy.bytes,
            }),
            approvals: from.approvals.iter().map(Into::into).collect(),
            waivers: from.waivers.iter().map(waiver).collect(),
            rehearsal: from.rehearsal.as_ref().map(|r| DiskRehearsal { at_ms: r.at.0, pause_us: r.pause_us }),
            smoke: from.smoke.as_ref().map(|s| DiskSmoke { at_ms: s.at.0, checks: s.checks, failed: s.failed.clone() }),
            flips: from.flips.iter().map(Into::into).collect(),
            rollback_reason: from.rollback_reason.clone(),
            ended: from.ended.as_ref().map(|ended| match ended {
                Ended::Committed { at, forced } => DiskEnded::Committed { at_ms: at.0, forced: forced.clone() },
                Ended::Abandoned { at, reason } => DiskEnded::Abandoned { at_ms: at.0, reason: reason.clone() },
            }),
        }
    }
}

impl DiskMigration {
    pub(super) fn read(self) -> Result<MigrationRecord, Misread> {
        let phase = Phase::parse(&self.phase).ok_or_else(|| format!("phase {:?} is unknown", self.phase))?;
        let authority = Authority { side: side(&self.authority)?, epoch: Epoch(self.epoch) };
        if !phase.allows(authority.side) {
            return Err(format!("phase {phase} with the {} authoritative cannot be", authority.side));
        }
        let waiver = |from: DiskWaiver| Waiver {
            finding: from.finding,
            by: from.by,
            reason: from.reason,
            at: Timestamp(from.at_ms),
        };
        let feed = match (&self.feed, self.dual_since_ms) {
            (Some(feed), _) => Some(FeedKind::parse(feed).map_err(misread)?),
            (None, Some(_)) => Some(FeedKind::Lane),
            (None, None) => None,
        };
        Ok(MigrationRecord {
            id: MigrationId::new(&self.id).map_err(misread)?,
            interlay: InterlayName::new(&self.interlay).map_err(misread)?,
            source: EndpointName::new(&self.source).map_err(misread)?,
            target: EndpointName::new(&self.target).map_err(misread)?,
            decisions: self.decisions.read()?,
            policies: self.policies.read()?,
            phase,
            status: MigrationStatus::parse(&self.status).map_err(misread)?,
            authority,
            run: self.run,
            auto: AutoThrough::parse(&self.auto).map_err(misread)?,
            created_at: Timestamp(self.created_at_ms),
            phase_since: Timestamp(self.phase_since_ms),
            dual_since: self.dual_since_ms.map(Timestamp),
            feed,
            feed_reason: self.feed_reason,
            first_copy: self.first_copy.map(|copy| FirstCopy {
                began_at: Timestamp(copy.began_at_ms),
                finished_at: Timestamp(copy.finished_at_ms),
                keys: copy.keys,
                bytes: copy.bytes,
            }),
            approvals: self.approvals.into_iter().map(DiskApproval::read).collect::<Result<_, _>>()?,
            waivers: self.waivers.into_iter().map(waiver).collect(),
            rehearsal: self.rehearsal.map(|r| Rehearsal { at: Timestamp(r.at_ms), pause_us: r.pause_us }),
            smoke: self.smoke.map(|s| SmokeResult { at: Timestamp(s.at_ms), checks: s.checks, failed: s.failed }),
            flips: self.flips.into_iter().map(DiskFlip::read).collect::<Result<_, _>>()?,
            rollback_reason: self.rollback_reason,
            ended: self.ended.map(|ended| match ended {
                DiskEnded::Committed { at_ms, forced } => Ended::Committed { at: Timestamp(at_ms), forced },
                DiskEnded::Abandoned { at_ms, reason } => Ended::Abandoned { at: Timestamp(at_ms), reason },
            }),
        })
    }
}

impl From<&JournalEntry> for DiskJournal {
    fn from(from: &JournalEntry) -> Self {
        Self {
            at_ms: from.at.0,
            kind: from.kind.clone(),
            migration: from.migration.as_ref().map(ToString::to_string),
            interlay: from.interlay.as_ref().map(ToString::to_string),
            text: from.text.clone(),
        }
    }
}

impl DiskJournal {
    pub(super) fn read(self, number: u64) -> Result<JournalEntry, Misread> {
        Ok(JournalEntry {
            number,
            at: Timestamp(self.at_ms),
            kind: self.kind,
            migration: self.migration.map(|id| MigrationId::new(&id)).transpose().map_err(misread)?,
            interlay: self.interlay.map(|name| InterlayName::new(&name)).transpose().map_err(misread)?,
            text: self.text,
        })
    }
}

impl From<&Ledger> for DiskLedger {
    fn from(from: &Ledger) -> Self {
        let entry = |from: &LedgerEntry| DiskDivergence {
            database: from.database,
            key: from.key.clone(),
            class: from.class.clone(),
            source: from.source.clone(),
            target: from.target.clone(),
            first_seen_ms: from.first_seen.0,
            last_seen_ms: from.last_seen.0,
            resolved_at_ms: from.resolved_at.map(|at| at.0),
        };
        Self { found: from.found, resolved: from.resolved, entries: from.entries.iter().map(entry).collect() }
    }
}

impl DiskLedger {
    pub(super) fn read(self) -> Ledger {
        let entry = |from: DiskDivergence| LedgerEntry {
            database: from.database,
            key: from.key,
            class: from.class,
            source: from.source,
            target: from.target,
            first_seen: Timestamp(from.first_seen_ms),
            last_seen: Timestamp(from.last_seen_ms),
            resolved_at: from.resolved_at_ms.map(Timestamp),
        };
        Ledger { found: self.found, resolved: self.resolved, entries: self.entries.into_iter().map(entry).collect() }
    }
}
