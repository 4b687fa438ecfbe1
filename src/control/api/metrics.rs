//! `/metrics`: the counters there are, in the Prometheus text format, prefix `crossfade_`.

mod policies;

use std::fmt::Write as _;

use crate::reconcile::views::{CoreCounters, InterlayView, MetricsView, MigrationView, Phase, Side};

/// (name, kind, help, value) of one core.
type CoreMetric = (&'static str, &'static str, &'static str, fn(&CoreCounters) -> u64);

const CORE_METRICS: &[CoreMetric] = &[
    ("connections_accepted_total", "counter", "Client connections accepted", |c| c.connections_accepted),
    ("connections_open", "gauge", "Client connections open", |c| c.connections_open),
    ("connections_refused_total", "counter", "Client connections refused", |c| c.connections_refused),
    ("commands_total", "counter", "Commands from clients", |c| c.commands),
    ("commands_read_total", "counter", "Commands that only read", |c| c.commands_read),
    ("commands_write_total", "counter", "Commands that write", |c| c.commands_write),
    ("commands_lane_total", "counter", "Commands that went through the lane", |c| c.commands_lane),
    ("commands_pinned_total", "counter", "Commands on pinned connections", |c| c.commands_pinned),
    ("replies_error_total", "counter", "Error replies of the authority", |c| c.replies_error),
    ("replies_refused_total", "counter", "Commands refused by the proxy", |c| c.replies_refused),
    ("protocol_errors_total", "counter", "Client streams that were not RESP", |c| c.protocol_errors),
    ("upstream_connections", "gauge", "Connections to servers open", |c| c.upstream_connections),
    ("upstream_connects_total", "counter", "Connections to servers made", |c| c.upstream_connects),
    ("upstream_losses_total", "counter", "Connections to servers lost", |c| c.upstream_losses),
    ("bytes_from_clients_total", "counter", "Bytes read from clients", |c| c.bytes_from_clients),
    ("bytes_to_clients_total", "counter", "Bytes written to clients", |c| c.bytes_to_clients),
];

/// (name, kind, help, value) of one migration; no value, no line.
type MigrationMetric = (&'static str, &'static str, &'static str, fn(&MigrationView) -> Option<u64>);

const MIGRATION_METRICS: &[MigrationMetric] = &[
    ("migration_authority_target", "gauge", "1 when the target is authoritative", |m| {
        Some(u64::from(m.record.authority.side == Side::Target))
    }),
    ("migration_epoch", "gauge", "Epoch of the authority record", |m| Some(m.record.authority.epoch.0)),
    ("migration_keys_total", "counter", "Keys the lane copied", |m| {
        m.shadow.as_ref().ok().map(|l| l.applied.copied_keys)
    }),
    ("migration_bytes_total", "counter", "Bytes the lane copied", |m| {
        m.shadow.as_ref().ok().map(|l| l.applied.copied_bytes)
    }),
    ("migration_dirty_keys", "gauge", "Keys that must be copied again", |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.dirty)
    }),
    ("migration_in_flight", "gauge", "Entries the shadow has not answered", |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.in_flight)
    }),
    ("migration_uncopied", "gauge", "1 while some key may be uncopied", |m| {
        m.shadow.as_ref().ok().map(|l| u64::from(l.behind.uncopied))
    }),
    ("migration_shadow_lag_microseconds", "gauge", "Age of the oldest entry the shadow has not answered", |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.lag_us)
    }),
    ("migration_shadow_queue_bytes", "gauge", "Bytes waiting for the shadow", |m| {
        m.shadow.as_ref().ok().map(|l| l.behind.queue_bytes)
    }),
    ("migration_reads_compared_total", "counter", "Reads compared on both sides", |m| {
        m.shadow.as_ref().ok().map(|l| l.reads.compared)
    }),
    ("migration_divergences_found_total", "counter", "Keys proven different", |m| Some(m.divergences_found)),
    ("migration_divergences_unresolved", "gauge", "Keys proven different and not yet equal again", |m| {
        Some(m.divergences_found.saturating_sub(m.divergences_resolved))
    }),
    ("migration_flips_total", "counter", "Changes of authority", |m| u64::try_from(m.record.flips.len()).ok()),
    ("migration_last_flip_pause_microseconds", "gauge", "How long the last change of authority held writes", |m| {
        m.record.flips.last().and_then(|flip| flip.pause_us)
    }),
    ("migration_gates_unmet", "gauge", "Gates of the next step that are not met", |m| {
        u64::try_from(m.gates.iter().filter(|gate| !gate.met).count()).ok()
    }),
];

pub fn render(view: &MetricsView) -> String {
    let mut out = String::new();
    head(&mut out, "build_info", "gauge", "Version and input/output driver");
    let driver: String = view.status.driver.chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect();
    line(&mut out, "build_info", &format!("version=\"{}\",driver=\"{driver}\"", view.status.version), 1);
    for (name, kind, help, value) in CORE_METRICS {
        head(&mut out, name, kind, help);
        for (core, counters) in &view.cores {
            line(&mut out, name, &format!("core=\"{core}\""), value(counters));
        }
    }
    head(&mut out, "commands_by_name_total", "counter", "Commands from clients by name");
    for (core, counters) in &view.cores {
        for (name, count) in &counters.commands_by_name {
            line(&mut out, "commands_by_name_total", &format!("core=\"{core}\",command=\"{name}\""), *count);
        }
    }
    head(&mut out, "interlay_dual", "gauge", "1 while both sides are kept in step");
    for interlay in &view.status.interlays {
        line(&mut out, "interlay_dual", &format!("interlay=\"{}\"", interlay.name), u64::from(interlay.dual));
    }
    type InterlayMetric = (&'static str, &'static str, &'static str, fn(&InterlayView) -> u64);
    let pauses: [InterlayMetric; 3] = [
        ("interlay_paused", "gauge", "1 while clients are held by a pause", |i| {
            u64::from(super::convert::gate_is_closed(i))
        }),
        ("pauses_total", "counter", "Pauses that held", |i| i.pauses),
        ("pause_failures_total", "counter", "Pauses that sessions held up beyond their deadline", |i| i.pause_failures),
    ];
    for (name, kind, help, value) in pauses {
        head(&mut out, name, kind, help);
        for interlay in &view.status.interlays {
            line(&mut out, name, &format!("interlay=\"{}\"", interlay.name), value(interlay));
        }
    }
    head(&mut out, "migration_phase", "gauge", "1 for the phase the migration is in");
    for migration in &view.status.migrations {
        for phase in Phase::ALL {
            let labels = format!("{},phase=\"{phase}\"", of(migration));
            line(&mut out, "migration_phase", &labels, u64::from(migration.record.phase == phase));
        }
    }
    for (name, kind, help, value) in MIGRATION_METRICS {
        head(&mut out, name, kind, help);
        for migration in &view.status.migrations {
            if let Some(value) = value(migration) {
                line(&mut out, name, &of(migration), value);
            }
        }
    }
    policies::render(&mut out, view);
    out
}

/// Names are checked when they are made: no character in them needs escaping.
fn of(migration: &MigrationView) -> String {
    format!("migration=\"{}\",interlay=\"{}\"", migration.record.id, migration.record.interlay)
}

// Writing to a String cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP crossfade_{name} {help}.\n# TYPE crossfade_{name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "crossfade_{name}{{{labels}}} {value}");
}
