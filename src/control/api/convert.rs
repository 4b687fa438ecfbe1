//! Converts between the control loop's views and the API's own types. Makes no decisions.

mod filters;
pub mod findings;
pub mod gates;
pub mod sessions;

pub use filters::*;
pub use findings::finding;
use gates::gate;
pub use sessions::*;

use super::problem::Failure;
use super::types as api;
use crate::reconcile::views::{
    self, ConflictPolicy, CoreCounters, DataMovement, DecisionError, EndpointName, EndpointView, FailureHandling,
    FeedChoice, InterlayName, InterlayView, MigrationId, MigrationView, PassKind, ReadRouting, ReportView, ShadowFacts,
    ShadowFrom, StatusView, Strategy, WriteConsistency,
};
use crate::reconcile::{CreateRequest, JournalEntry};

pub fn event(from: &JournalEntry) -> api::Event {
    api::Event {
        version: 1,
        number: from.number,
        at: from.at.0,
        kind: from.kind.clone(),
        migration: from.migration.as_ref().map(ToString::to_string),
        interlay: from.interlay.as_ref().map(ToString::to_string),
        text: from.text.clone(),
    }
}

fn lane(from: &ShadowFacts) -> api::Lane {
    api::Lane {
        position: from.position,
        reached: from.reached,
        pass: from.pass,
        uncopied: from.behind.uncopied,
        dirty: from.behind.dirty,
        in_flight: from.behind.in_flight,
        shadow_queue_bytes: from.behind.queue_bytes,
        shadow_lag_us: from.behind.lag_us,
        copied_keys: from.applied.copied_keys,
        copied_bytes: from.applied.copied_bytes,
        effects: from.applied.effects,
        dirtied: from.applied.dirtied,
        reads_compared: from.reads.compared,
        reads_equivalent: from.reads.equivalent,
        excluded: api::Excluded {
            kept: from.excluded.kept,
            keys: from.excluded.keys,
            commands: from.excluded.commands,
            mixed: from.excluded.mixed,
        },
        source_p99_us: from.source.p99_us,
        throttled_to: from.source.throttled_to,
        losses: from.losses,
        altered: from.applied.altered,
        reads_not_comparable: from.reads.not_comparable,
        reads_inconclusive: from.reads.inconclusive,
        read_divergences: from.reads.divergent,
        at_ms: from.at_ms,
        authority_connected: from.authority_connected,
        shadow_connected: from.shadow_connected,
    }
}

pub fn interlay(from: &InterlayView) -> api::Interlay {
    api::Interlay {
        name: from.name.clone(),
        kind: from.kind.to_owned(),
        listen: from.listen.clone(),
        authority: from.authority.to_string(),
        authority_endpoint: from.authority_endpoint.clone(),
        authority_address: from.authority_address.clone(),
        epoch: from.epoch,
        mode: if from.dual { "dual" } else { "pass_through" }.to_owned(),
        generation: from.generation,
        unacked_cores: from.unacked_cores.clone(),
        source: from.source.clone(),
        target: from.target.clone(),
        migration: from.migration.as_ref().map(|(id, _)| id.clone()),
        phase: from.migration.as_ref().map(|(_, phase)| phase.to_string()),
        pause: pause(from.pause),
        pauses: from.pauses,
        pause_failures: from.pause_failures,
    }
}

fn facts(from: &views::EndpointFacts) -> api::Facts {
    let keys = |(database, keys, keys_with_expiry): &(u32, u64, u64)| api::DatabaseKeys {
        database: *database,
        keys: *keys,
        keys_with_expiry: *keys_with_expiry,
    };
    api::Facts {
        server: from.server.clone(),
        version: from.version.clone(),
        role: from.role.clone(),
        databases: from.databases.iter().map(keys).collect(),
        used_memory_bytes: from.used_memory_bytes,
        maxmemory_bytes: from.maxmemory_bytes,
        maxmemory_policy: from.maxmemory_policy.clone(),
        cluster_enabled: from.cluster_enabled,
        commands: u64::try_from(from.commands.len()).unwrap_or(u64::MAX),
        modules: from.modules.clone(),
        acl_users: from.acl_users.clone(),
        ping_us: from.ping_us,
        clock_skew_ms: from.clock_skew_ms,
    }
}

pub fn endpoint(from: &EndpointView) -> api::Endpoint {
    let (health, checked_at, problem, seen) = match &from.last {
        None => ("unknown", None, None, None),
        Some(Ok((seen, at))) => ("up", Some(at.0), None, Some(seen)),
        Some(Err(why)) => ("down", None, Some(why.clone()), None),
    };
    api::Endpoint {
        name: from.name.clone(),
        kind: from.kind.to_owned(),
        address: from.address.clone(),
        database: from.database,
        dbname: from.dbname.clone(),
        user: from.user.clone(),
        health: health.to_owned(),
        checked_at,
        problem,
        facts: seen.and_then(redis),
        postgres: seen.and_then(postgres),
    }
}

pub fn redis(from: &views::ServerFacts) -> Option<api::Facts> {
    match from {
        views::ServerFacts::Redis(seen) => Some(facts(seen)),
        views::ServerFacts::Postgres(_) => None,
    }
}

pub fn postgres(from: &views::ServerFacts) -> Option<api::PostgresFacts> {
    match from {
        views::ServerFacts::Redis(_) => None,
        views::ServerFacts::Postgres(seen) => Some(postgres_facts(seen)),
    }
}

pub fn counters(from: &CoreCounters) -> api::Counters {
    api::Counters {
        connections_accepted: from.connections_accepted,
        connections_open: from.connections_open,
        connections_refused: from.connections_refused,
        commands: from.commands,
        commands_read: from.commands_read,
        commands_write: from.commands_write,
        commands_lane: from.commands_lane,
        commands_pinned: from.commands_pinned,
        replies_error: from.replies_error,
        replies_refused: from.replies_refused,
        protocol_errors: from.protocol_errors,
        upstream_connections: from.upstream_connections,
        upstream_connects: from.upstream_connects,
        upstream_losses: from.upstream_losses,
        bytes_from_clients: from.bytes_from_clients,
        bytes_to_clients: from.bytes_to_clients,
    }
}

pub fn status(from: &StatusView) -> api::Status {
    api::Status {
        version: from.version.to_owned(),
        driver: from.driver.clone(),
        cores: u64::try_from(from.cores).unwrap_or(u64::MAX),
        uptime_seconds: from.now.0.saturating_sub(from.started.0) / 1000,
        interlays: from.interlays.iter().map(interlay).collect(),
        migrations: from.migrations.iter().map(migration).collect(),
        counters: counters(&from.counters),
    }
}

fn decisions(from: &views::Decisions) -> api::Decisions {
    api::Decisions {
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
        analyze_min_commands: from.thresholds.analyze_min_commands,
        analyze_min_seconds: from.thresholds.analyze_min_seconds,
        compare_min_reads: from.thresholds.compare_min_reads,
        soak_seconds: from.thresholds.soak_seconds,
        dirty_before_fence_max: from.thresholds.dirty_before_fence_max,
        fence_budget_ms: from.thresholds.fence_budget_ms,
        ttl_grace_ms: from.thresholds.ttl_grace_ms,
        source_p99_ms: from.thresholds.source_p99_ms,
    }
}

fn backfill(from: &views::BackfillView, record: &views::MigrationRecord) -> api::Backfill {
    let kind = |kind: PassKind| match kind {
        PassKind::Full => "full".to_owned(),
        PassKind::Volatile => "volatile".to_owned(),
    };
    api::Backfill {
        pass: from.pass.map(|(number, _, _)| number),
        kind: from.pass.map(|(_, pass, _)| kind(pass)),
        complete: from.pass.is_some_and(|(_, _, complete)| complete),
        done: from.done,
        total: from.total,
        bytes: from.bytes,
        rate_per_second: from.rate_per_second,
        eta_seconds: from.eta_seconds,
        waiting_bytes: from.waiting_bytes,
        first_copy: record.first_copy.map(|copy| api::FirstCopy {
            began_at: copy.began_at.0,
            finished_at: copy.finished_at.0,
            keys: copy.keys,
            bytes: copy.bytes,
        }),
    }
}

pub fn migration(from: &MigrationView) -> api::Migration {
    let record = &from.record;
    let status = from.shadow.as_ref().ok();
    let waived = |name: &str| record.waivers.iter().any(|waiver| waiver.finding == name);
    let findings = from.findings.as_ref();
    let (ended, ended_reason) = match &record.ended {
        None => (None, None),
        Some(views::Ended::Committed { forced, .. }) => (Some("committed".to_owned()), forced.clone()),
        Some(views::Ended::Abandoned { reason, .. }) => (Some("abandoned".to_owned()), Some(reason.clone())),
    };
    api::Migration {
        id: record.id.to_string(),
        interlay: record.interlay.to_string(),
        phase: record.phase.to_string(),
        status: record.status.to_string(),
        authority: record.authority.side.to_string(),
        authority_endpoint: from.authority_endpoint.clone(),
        authority_address: from.authority_address.clone(),
        epoch: record.authority.epoch.0,
        source: record.source.to_string(),
        target: record.target.to_string(),
        strategy: record.decisions.strategy.to_string(),
        decisions: decisions(&record.decisions),
        policies: policies(&record.policies),
        run: record.run,
        auto: record.auto.to_string(),
        dual: from.dual,
        feed: record.feed.map(|feed| feed.to_string()),
        feed_reason: from.feed_reason.clone(),
        created_at: record.created_at.0,
        phase_since: record.phase_since.0,
        gates: from.gates.iter().map(gate).collect(),
        backfill: backfill(&from.backfill, record),
        dirty: status.map_or(0, |status| status.behind.dirty),
        in_flight: status.map_or(0, |status| status.behind.in_flight),
        // Without fresh facts of the shadow in dual operation, keys may be uncopied.
        uncopied: status.map_or(from.dual, |status| status.behind.uncopied),
        divergences: from.divergences_found.saturating_sub(from.divergences_resolved),
        divergences_found: from.divergences_found,
        divergences_resolved: from.divergences_resolved,
        flips: record.flips.iter().map(flip).collect(),
        fences_expired: from.fences_expired,
        lane: status.map(lane),
        lane_problem: from.shadow.as_ref().err().cloned(),
        findings: findings.map_or_else(
            |_| Vec::new(),
            |findings| findings.iter().map(|from| finding(from, waived(&from.name))).collect(),
        ),
        findings_problem: from.findings.as_ref().err().cloned(),
        verification: from.verification.as_ref().map(verification),
        verifying: from.verifying.map(|(done, total)| api::JobProgress { done, total }),
        approvals: approvals(record),
        waivers: waivers(record),
        rehearsal_pause_us: record.rehearsal.as_ref().map(|rehearsal| rehearsal.pause_us),
        smoke_failed: record.smoke.as_ref().map(|smoke| smoke.failed.clone()),
        rollback_reason: record.rollback_reason.clone(),
        ended,
        ended_reason,
    }
}

fn flip(from: &views::Flip) -> api::Flip {
    api::Flip { at: from.at.0, to: from.to.to_string(), epoch: from.epoch.0, pause_us: from.pause_us }
}

fn verification(from: &views::Verification) -> api::Verification {
    api::Verification {
        started_at: from.started_at.0,
        finished_at: from.finished_at.0,
        epoch: from.epoch.0,
        keys: from.keys,
        divergent: from.divergent,
        inconclusive: from.inconclusive,
    }
}

fn approvals(record: &views::MigrationRecord) -> Vec<api::Approval> {
    let approval = |from: &views::Approval| api::Approval {
        scope: from.scope.to_string(),
        by: from.by.clone(),
        reason: from.reason.clone(),
        at: from.at.0,
        run: from.run,
    };
    record.approvals.iter().map(approval).collect()
}

fn waivers(record: &views::MigrationRecord) -> Vec<api::Waiver> {
    let waiver = |from: &views::Waiver| api::Waiver {
        finding: from.finding.clone(),
        by: from.by.clone(),
        reason: from.reason.clone(),
        at: from.at.0,
    };
    record.waivers.iter().map(waiver).collect()
}

pub fn divergences(from: &views::DivergencesView) -> api::Divergences {
    let entry = |from: &views::LedgerEntry| api::Divergence {
        database: from.database,
        key: from.key.escape_ascii().to_string(),
        class: from.class.clone(),
        source: from.source.clone(),
        target: from.target.clone(),
        first_seen: from.first_seen.0,
        last_seen: from.last_seen.0,
        resolved_at: from.resolved_at.map(|at| at.0),
    };
    api::Divergences {
        found: from.ledger.found,
        resolved: from.ledger.resolved,
        unresolved: from.ledger.unresolved(),
        entries: from.ledger.entries.iter().map(entry).collect(),
    }
}

pub fn report(from: &ReportView) -> api::Report {
    let mut report = api::Report {
        crossfade_version: from.version.to_owned(),
        written_at: from.written_at.0,
        migration: migration(&from.migration),
        source: endpoint(&from.source),
        target: endpoint(&from.target),
        keys_verified: from.keys_verified,
        verifications: from.verifications,
        bytes_copied: from.bytes_copied,
        lane: from.shadow.as_ref().map(lane),
        journal: from.journal.iter().map(event).collect(),
        markdown: String::new(),
    };
    report.markdown = super::report::markdown(&report);
    report
}

/// The operator's request, with the defaults filled in.
pub fn create(from: api::CreateMigration) -> Result<CreateRequest, Failure> {
    let word = |error: DecisionError| Failure::invalid(error.to_string());
    let name = |error: views::NameError| Failure::invalid(error.to_string());
    let mut decisions = views::Decisions::default();
    macro_rules! take {
        ($($field:ident: $type:ident),+ $(,)?) => {
            $(if let Some(text) = &from.$field { decisions.$field = $type::parse(text).map_err(word)?; })+
        };
    }
    take!(
        strategy: Strategy,
        conflict_policy: ConflictPolicy,
        data_movement: DataMovement,
        write_consistency: WriteConsistency,
        read_routing: ReadRouting,
        failure_handling: FailureHandling,
        shadow_from: ShadowFrom,
        feed: FeedChoice,
    );
    let pattern = |text: &String| views::KeyPattern::new(text).map_err(|error| Failure::invalid(error.to_string()));
    decisions.exclude = from.exclude.iter().map(pattern).collect::<Result<_, _>>()?;
    macro_rules! copy {
        ($($from:ident => $to:expr),+ $(,)?) => { $(if let Some(value) = from.$from { $to = value; })+ };
    }
    copy!(
        ttl_preservation => decisions.ttl_preservation,
        retry_count => decisions.retry_count,
        manual_approval => decisions.manual_approval,
        hold_before_flip => decisions.hold_before_flip,
        analyze_min_commands => decisions.thresholds.analyze_min_commands,
        analyze_min_seconds => decisions.thresholds.analyze_min_seconds,
        compare_min_reads => decisions.thresholds.compare_min_reads,
        soak_seconds => decisions.thresholds.soak_seconds,
        dirty_before_fence_max => decisions.thresholds.dirty_before_fence_max,
        fence_budget_ms => decisions.thresholds.fence_budget_ms,
        ttl_grace_ms => decisions.thresholds.ttl_grace_ms,
        source_p99_ms => decisions.thresholds.source_p99_ms,
    );
    let end = |text: Option<String>| text.map(|text| EndpointName::new(&text)).transpose().map_err(name);
    Ok(CreateRequest {
        id: MigrationId::new(&from.id).map_err(name)?,
        interlay: InterlayName::new(&from.interlay).map_err(name)?,
        source: end(from.source)?,
        target: end(from.target)?,
        decisions,
        policies: policies_given(from.policies)?,
    })
}
