//! Every metric: its name without the prefix, its kind, its labels, its meaning. `docs/METRICS.md` is generated from this table.

use crate::reconcile::views::{CoreCounters, MigrationView, SeatStats, Side};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only increases while the process runs.
    Counter,
    Gauge,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

type CoreMetric = (Metric, fn(&CoreCounters) -> u64);
type MigrationMetric = (Metric, fn(&MigrationView) -> Option<u64>);
type PolicyMetric = (Metric, fn(&SeatStats) -> u64);

const CORE: &[&str] = &["core"];
const INTERLAY: &[&str] = &["interlay"];
const MIGRATION: &[&str] = &["migration", "interlay"];
const FILTER: &[&str] = &["interlay", "slot", "filter"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

pub const BUILD_INFO: Metric = gauge("build_info", &["version", "driver"], "Version and input/output driver");
/// The metrics of one core, with how each value is read.
pub const CORE_METRICS: &[CoreMetric] = &[
    (counter("connections_accepted_total", CORE, "Client connections accepted"), |c| c.connections_accepted),
    (gauge("connections_open", CORE, "Open client connections"), |c| c.connections_open),
    (counter("connections_refused_total", CORE, "Client connections refused"), |c| c.connections_refused),
    (counter("commands_total", CORE, "Commands from clients"), |c| c.commands),
    (counter("commands_read_total", CORE, "Commands that only read"), |c| c.commands_read),
    (counter("commands_write_total", CORE, "Commands that write"), |c| c.commands_write),
    (counter("commands_lane_total", CORE, "Commands that went through the lane"), |c| c.commands_lane),
    (counter("commands_pinned_total", CORE, "Commands on pinned connections"), |c| c.commands_pinned),
    (counter("replies_error_total", CORE, "Error replies of the authority"), |c| c.replies_error),
    (counter("replies_refused_total", CORE, "Commands refused by the proxy"), |c| c.replies_refused),
    (counter("protocol_errors_total", CORE, "Client streams that were not the protocol of their interlay"), |c| {
        c.protocol_errors
    }),
    (gauge("upstream_connections", CORE, "Open connections to servers"), |c| c.upstream_connections),
    (counter("upstream_connects_total", CORE, "Connections to servers made"), |c| c.upstream_connects),
    (counter("upstream_losses_total", CORE, "Connections to servers lost"), |c| c.upstream_losses),
    (counter("bytes_from_clients_total", CORE, "Bytes read from clients"), |c| c.bytes_from_clients),
    (counter("bytes_to_clients_total", CORE, "Bytes written to clients"), |c| c.bytes_to_clients),
];
pub const COMMANDS_BY_NAME: Metric =
    counter("commands_by_name_total", &["core", "command"], "Commands from clients by name");
pub const INTERLAY_DUAL: Metric = gauge("interlay_dual", INTERLAY, "1 while both sides are kept in step");
pub const INTERLAY_PAUSED: Metric = gauge("interlay_paused", INTERLAY, "1 while clients are held by a pause");
pub const PAUSES: Metric = counter("pauses_total", INTERLAY, "Pauses that succeeded");
pub const PAUSE_FAILURES: Metric =
    counter("pause_failures_total", INTERLAY, "Pauses that failed because sessions did not drain before the deadline");
pub const MIGRATION_FEED: Metric =
    gauge("migration_feed", &["migration", "interlay", "feed"], "1 for what keeps both sides in step now, else 0");
pub const MIGRATION_PHASE: Metric =
    gauge("migration_phase", &["migration", "interlay", "phase"], "1 for the phase the migration is in");
/// The metrics of one migration, with how each value is read; without a value there is no line.
pub const MIGRATION_METRICS: &[MigrationMetric] = &[
    (gauge("migration_authority_target", MIGRATION, "1 when the target is authoritative"), |m| {
        Some(u64::from(m.record.authority.side == Side::Target))
    }),
    (gauge("migration_epoch", MIGRATION, "Epoch of the authority record"), |m| Some(m.record.authority.epoch.0)),
    (
        gauge(
            "migration_position",
            MIGRATION,
            "Position of the authority's writes: places in the lane, or bytes of the replication stream",
        ),
        |m| m.shadow.as_ref().ok().map(|l| l.position),
    ),
    (
        gauge(
            "migration_position_reached",
            MIGRATION,
            "Position up to which the shadow has everything, where it is known",
        ),
        |m| m.shadow.as_ref().ok().and_then(|l| l.reached),
    ),
    (
        gauge(
            "migration_shadow_behind_bytes",
            MIGRATION,
            "Bytes of the replication stream that the shadow does not have yet",
        ),
        |m| m.shadow.as_ref().ok().and_then(|l| Some(l.position.saturating_sub(l.reached?))),
    ),
    (counter("migration_keys_total", MIGRATION, "Keys copied to the shadow, in both directions"), |m| {
        m.shadow.as_ref().ok().map(|l| l.applied.copied_keys)
    }),
    (counter("migration_bytes_total", MIGRATION, "Bytes copied to the shadow, in both directions"), |m| {
        m.shadow.as_ref().ok().map(|l| l.applied.copied_bytes)
    }),
    (
        gauge(
            "migration_backfill_total_keys",
            MIGRATION,
            "Keys that the present pass is to reach, as far as it is known",
        ),
        |m| m.backfill.pass.map(|_| m.backfill.total),
    ),
    (gauge("migration_backfill_done_keys", MIGRATION, "Keys that the present pass has reached"), |m| {
        m.backfill.pass.map(|_| m.backfill.done)
    }),
    (
        gauge("migration_backfill_eta_seconds", MIGRATION, "Until the present pass has copied everything, at its rate"),
        |m| m.backfill.eta_seconds,
    ),
    (gauge("migration_first_copy_keys", MIGRATION, "Keys of the migration's first copy, once it has ended"), |m| {
        m.record.first_copy.map(|copy| copy.keys)
    }),
    (gauge("migration_first_copy_bytes", MIGRATION, "Bytes of the migration's first copy, once it has ended"), |m| {
        m.record.first_copy.map(|copy| copy.bytes)
    }),
    (
        gauge(
            "migration_source_p99_microseconds",
            MIGRATION,
            "Slowest hundredth of the authority's answers while a snapshot of it was read last",
        ),
        |m| m.shadow.as_ref().ok().map(|l| l.source.p99_us).filter(|us| *us > 0),
    ),
    (
        gauge(
            "migration_throttled_bytes_per_second",
            MIGRATION,
            "Bytes of a snapshot read in a second, while that is throttled to keep the authority quick",
        ),
        |m| m.shadow.as_ref().ok().and_then(|l| l.source.throttled_to),
    ),
    (counter("migration_losses_total", MIGRATION, "Values that the shadow cannot hold as the authority does"), |m| {
        m.shadow.as_ref().ok().map(|l| l.losses)
    }),
    (counter("migration_excluded_commands_total", MIGRATION, "Commands on excluded keys that were not applied"), |m| {
        m.shadow.as_ref().ok().map(|l| l.excluded.commands)
    }),
    (
        counter(
            "migration_mixed_commands_total",
            MIGRATION,
            "Commands on excluded and other keys; the others were copied",
        ),
        |m| m.shadow.as_ref().ok().map(|l| l.excluded.mixed),
    ),
    (gauge("migration_dirty_keys", MIGRATION, "Keys that must be copied again"), |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.dirty)
    }),
    (gauge("migration_in_flight", MIGRATION, "Entries the shadow has not answered"), |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.in_flight)
    }),
    (gauge("migration_uncopied", MIGRATION, "1 while some key may be uncopied"), |m| {
        m.shadow.as_ref().ok().map(|l| u64::from(l.behind.uncopied))
    }),
    (
        gauge("migration_shadow_lag_microseconds", MIGRATION, "Age of the oldest entry the shadow has not answered"),
        |m| m.shadow.as_ref().ok().map(|l| l.behind.lag_us),
    ),
    (gauge("migration_shadow_queue_bytes", MIGRATION, "Bytes waiting for the shadow"), |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.queue_bytes)
    }),
    (counter("migration_reads_compared_total", MIGRATION, "Reads compared on both sides"), |m| {
        m.shadow.as_ref().ok().map(|l| l.reads.compared)
    }),
    (
        counter(
            "migration_reads_inconclusive_total",
            MIGRATION,
            "Reads whose two answers could not be told to be of one moment",
        ),
        |m| m.shadow.as_ref().ok().map(|l| l.reads.inconclusive),
    ),
    (counter("migration_divergences_found_total", MIGRATION, "Keys proven different"), |m| Some(m.divergences_found)),
    (gauge("migration_divergences_unresolved", MIGRATION, "Keys proven different and not yet equal again"), |m| {
        Some(m.divergences_found.saturating_sub(m.divergences_resolved))
    }),
    (counter("migration_flips_total", MIGRATION, "Changes of authority"), |m| u64::try_from(m.record.flips.len()).ok()),
    (
        gauge("migration_last_flip_pause_microseconds", MIGRATION, "How long the last change of authority held writes"),
        |m| m.record.flips.last().and_then(|flip| flip.pause_us),
    ),
    (gauge("migration_gates_unmet", MIGRATION, "Gates of the next step that are not met"), |m| {
        u64::try_from(m.gates.iter().filter(|gate| !gate.met).count()).ok()
    }),
];
/// The metrics of one filter in one slot, with how each value is read.
pub const POLICY_METRICS: &[PolicyMetric] = &[
    (counter("policy_calls_total", FILTER, "Calls of a filter's hook"), |s| s.calls),
    (counter("policy_memo_hits_total", FILTER, "Commands decided by a filter's remembered answer"), |s| s.memo_hits),
    (counter("policy_absent_total", FILTER, "Calls answered as on_fault says while an instance was replaced"), |s| {
        s.absent
    }),
    (counter("policy_restrained_total", FILTER, "Verdicts not carried out because of the mode"), |s| s.restrained),
    (counter("policy_dropped_total", FILTER, "Log lines and counters dropped because of their limits"), |s| s.dropped),
    (gauge("policy_memory_bytes", FILTER, "Linear memory of all instances"), |s| s.memory_bytes),
];
pub const POLICY_FAULTS: Metric =
    counter("policy_faults_total", &["interlay", "slot", "filter", "kind"], "Faults of a filter by kind");
pub const POLICY_VERDICTS: Metric =
    counter("policy_verdicts_total", &["interlay", "slot", "filter", "verdict"], "Verdicts of a filter by word");
pub const POLICY_CALL_TIME: Metric = gauge(
    "policy_call_nanoseconds",
    &["interlay", "slot", "filter", "quantile"],
    "Time of a hook call, one call in 64 measured: the 0.5 and 0.99 quantiles",
);
pub const POLICY_CALL_TIME_SUM: Metric =
    counter("policy_call_nanoseconds_sum", FILTER, "Time of all hook calls, estimated from the measured ones");
pub const POLICY_CALL_TIME_COUNT: Metric =
    counter("policy_call_nanoseconds_count", FILTER, "Hook calls included in the sum");
pub const POLICY_GUEST_COUNTER: Metric =
    counter("policy_guest_counter", &["interlay", "slot", "filter", "id"], "Counters that filters define themselves");

/// All metrics, in the order of the page.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    const BEGIN: &[Metric] = &[BUILD_INFO];
    const MIDDLE: &[Metric] =
        &[COMMANDS_BY_NAME, INTERLAY_DUAL, INTERLAY_PAUSED, PAUSES, PAUSE_FAILURES, MIGRATION_PHASE, MIGRATION_FEED];
    const END: &[Metric] = &[
        POLICY_FAULTS,
        POLICY_VERDICTS,
        POLICY_CALL_TIME,
        POLICY_CALL_TIME_SUM,
        POLICY_CALL_TIME_COUNT,
        POLICY_GUEST_COUNTER,
    ];
    BEGIN
        .iter()
        .chain(CORE_METRICS.iter().map(|(metric, _)| metric))
        .chain(MIDDLE)
        .chain(MIGRATION_METRICS.iter().map(|(metric, _)| metric))
        .chain(POLICY_METRICS.iter().map(|(metric, _)| metric))
        .chain(END)
}
