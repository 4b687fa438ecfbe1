//! Tables for the terminal. JSON output does not use this module.

mod filters;
mod sessions;
mod table;

use control::api::types::{Divergences, Endpoint, Event, Interlay, Migration, Status, pause_in_words};
use filters::policies;
pub use filters::{checked_filters, filter, filter_bench, filter_test, filters, interlay_policies, unloaded};
pub use sessions::{analysis, paused, resumed, session_table, sessions};
use sessions::{pause_line, postgres, state};
pub use table::findings;
use table::{table, yes};

fn authority_line(interlay: &Interlay) -> String {
    format!(
        "{}: the {} is authoritative: {} ({}), epoch {}",
        interlay.name,
        interlay.authority.to_uppercase(),
        interlay.authority_endpoint,
        interlay.authority_address,
        interlay.epoch
    )
}

pub fn status(status: &Status) -> String {
    let mut parts: Vec<String> = status.interlays.iter().map(authority_line).collect();
    parts.extend(status.interlays.iter().filter_map(pause_line));
    parts.push(interlays(&status.interlays));
    let live: Vec<_> = status.migrations.iter().filter(|migration| migration.ended.is_none()).cloned().collect();
    if live.is_empty() {
        parts.push("No migration is under way.".to_owned());
    } else {
        parts.push(migrations(&live));
    }
    let counters = &status.counters;
    parts.push(table(
        ["connections", "commands", "reads", "writes", "lane", "error replies", "refused", "upstreams"],
        [[
            counters.connections_open.to_string(),
            counters.commands.to_string(),
            counters.commands_read.to_string(),
            counters.commands_write.to_string(),
            counters.commands_lane.to_string(),
            counters.replies_error.to_string(),
            counters.replies_refused.to_string(),
            counters.upstream_connections.to_string(),
        ]],
    ));
    parts.push(format!(
        "version {}, {} cores, {}, up {} s",
        status.version, status.cores, status.driver, status.uptime_seconds
    ));
    parts.join("\n")
}

pub fn interlays(interlays: &[Interlay]) -> String {
    let row = |interlay: &Interlay| {
        [
            interlay.name.clone(),
            interlay.listen.clone(),
            format!("{} ({})", interlay.authority, interlay.authority_endpoint),
            interlay.mode.clone(),
            state(interlay),
            match (&interlay.migration, &interlay.phase) {
                (Some(id), Some(phase)) => format!("{id}: {phase}"),
                (_, _) => "none".to_owned(),
            },
        ]
    };
    table(["interlay", "listen", "authority", "mode", "state", "migration"], interlays.iter().map(row))
}

pub fn migrations(migrations: &[Migration]) -> String {
    let row = |migration: &Migration| {
        let open = migration.gates.iter().filter(|gate| !gate.met).count();
        [
            migration.id.clone(),
            migration.phase.clone(),
            migration.status.clone(),
            format!("{} ({})", migration.authority, migration.authority_endpoint),
            migration.feed.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{}/{}", migration.backfill.done, migration.backfill.total),
            migration.dirty.to_string(),
            migration.lane.as_ref().map_or_else(|| "-".to_owned(), |lane| format!("{} us", lane.shadow_lag_us)),
            migration.divergences.to_string(),
            open.to_string(),
        ]
    };
    table(
        ["migration", "phase", "status", "authority", "feed", "backfill", "dirty", "lag", "divergences", "gates unmet"],
        migrations.iter().map(row),
    )
}

pub fn migration(migration: &Migration) -> String {
    let mut parts = vec![format!(
        "{}: the {} is authoritative: {} ({}), epoch {}",
        migration.id,
        migration.authority.to_uppercase(),
        migration.authority_endpoint,
        migration.authority_address,
        migration.epoch
    )];
    let ended = match (&migration.ended, &migration.ended_reason) {
        (Some(how), Some(why)) => format!(", {how}: {why}"),
        (Some(how), None) => format!(", {how}"),
        (None, _) => String::new(),
    };
    parts.push(format!(
        "phase {}, {}, run {}, {} from {} to {}{ended}",
        migration.phase, migration.status, migration.run, migration.strategy, migration.source, migration.target
    ));
    parts.push(feed(migration));
    if !migration.policies.is_empty() {
        parts.push(policies(&migration.policies));
    }
    if !migration.gates.is_empty() {
        let row = |gate: &control::api::types::Gate| {
            [gate.name.clone(), gate.measured.clone(), gate.threshold.clone(), yes(gate.met)]
        };
        parts.push(table(["gate of the next step", "measured", "needs", "met"], migration.gates.iter().map(row)));
    }
    let backfill = &migration.backfill;
    parts.push(table(
        ["backfill", "rate", "dirty", "in flight", "uncopied", "divergences", "reads compared", "lag"],
        [[
            format!("{} of {}", backfill.done, backfill.total),
            format!("{:.0} keys/s", backfill.rate_per_second),
            migration.dirty.to_string(),
            migration.in_flight.to_string(),
            yes(migration.uncopied),
            migration.divergences.to_string(),
            migration.lane.as_ref().map_or_else(|| "-".to_owned(), |lane| lane.reads_compared.to_string()),
            migration.lane.as_ref().map_or_else(|| "-".to_owned(), |lane| format!("{} us", lane.shadow_lag_us)),
        ]],
    ));
    parts.extend(copying(migration));
    parts.extend(excluded(migration));
    for flip in &migration.flips {
        let pause = pause_in_words(flip.pause_us);
        parts.push(format!("authority changed to the {} (epoch {}), writes held: {pause}", flip.to, flip.epoch));
    }
    if !migration.findings.is_empty() {
        parts.push(findings(&migration.findings));
    }
    parts.join("\n")
}

/// How the copy goes, and how the first one went.
fn copying(migration: &Migration) -> Vec<String> {
    let backfill = &migration.backfill;
    let mut lines = Vec::new();
    if backfill.pass.is_some() && !backfill.complete {
        let eta = backfill.eta_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds} s"));
        let waiting = backfill.waiting_bytes;
        lines.push(format!(
            "copying: {} bytes so far, {waiting} bytes of writes wait behind it, time left {eta}",
            backfill.bytes
        ));
    }
    if let Some(copy) = &backfill.first_copy {
        let took_ms = copy.finished_at.saturating_sub(copy.began_at);
        lines.push(format!("first copy: {} keys, {} bytes, in {took_ms} ms", copy.keys, copy.bytes));
    }
    if let Some(lane) = migration.lane.as_ref().filter(|lane| lane.source_p99_us > 0) {
        let slowed = lane
            .throttled_to
            .map_or_else(|| "read as fast as it comes".to_owned(), |rate| format!("throttled to {rate} bytes/s"));
        let bound = match migration.decisions.source_p99_ms {
            0 => "no bound".to_owned(),
            ms => format!("bound {ms} ms"),
        };
        lines.push(format!("the authority's p99 while it was copied: {} us ({bound}), {slowed}", lane.source_p99_us));
    }
    if let Some(lane) = migration.lane.as_ref().filter(|lane| lane.losses > 0) {
        lines.push(format!("the shadow cannot hold {} values as the authority does: see the events", lane.losses));
    }
    lines
}

/// What is not moved; nothing where the conflict policy moves every key.
fn excluded(migration: &Migration) -> Option<String> {
    let decisions = &migration.decisions;
    let which = match decisions.conflict_policy.as_str() {
        "skip" => "keys that the target held before the first copy".to_owned(),
        "exclude" => decisions.exclude.join(" "),
        _ => return None,
    };
    let excluded = migration.lane.as_ref().map(|lane| lane.excluded.clone()).unwrap_or_default();
    Some(format!(
        "not moved (conflict_policy {}): {which}; {} keys kept by the target, {} keys of the source not copied, {} commands not applied, {} that \
         named other keys too (those were copied)",
        decisions.conflict_policy, excluded.kept, excluded.keys, excluded.commands, excluded.mixed
    ))
}

fn feed(migration: &Migration) -> String {
    let why = migration.feed_reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    match &migration.feed {
        Some(feed) => format!("feed {feed}{why}"),
        None => format!("feed not chosen yet (asked for: {}){why}", migration.decisions.feed),
    }
}

pub fn endpoints(endpoints: &[Endpoint]) -> String {
    let row = |endpoint: &Endpoint| {
        let (server, keys) = match (&endpoint.facts, &endpoint.postgres) {
            (Some(facts), _) => {
                let keys: u64 = facts.databases.iter().map(|database| database.keys).sum();
                (format!("{} {}", facts.server, facts.version), format!("{keys} keys"))
            }
            (None, Some(facts)) => (format!("PostgreSQL {}", facts.version), format!("{} tables", facts.tables)),
            (None, None) => (endpoint.problem.clone().unwrap_or_else(|| "not checked yet".to_owned()), String::new()),
        };
        [endpoint.name.clone(), endpoint.address.clone(), endpoint.health.clone(), server, keys]
    };
    table(["endpoint", "address", "health", "server", "holds"], endpoints.iter().map(row))
}

pub fn endpoint(endpoint: &Endpoint) -> String {
    let mut parts = vec![endpoints(std::slice::from_ref(endpoint))];
    parts.extend(endpoint.postgres.as_ref().map(postgres));
    if let Some(facts) = &endpoint.facts {
        let modules = if facts.modules.is_empty() { "none".to_owned() } else { facts.modules.join(", ") };
        parts.push(table(
            ["role", "memory", "maxmemory", "policy", "cluster", "modules", "ping", "clock skew"],
            [[
                facts.role.clone(),
                facts.used_memory_bytes.to_string(),
                facts.maxmemory_bytes.to_string(),
                facts.maxmemory_policy.clone(),
                yes(facts.cluster_enabled),
                modules,
                format!("{} us", facts.ping_us),
                format!("{} ms", facts.clock_skew_ms),
            ]],
        ));
    }
    parts.join("\n")
}

pub fn divergences(found: &Divergences) -> String {
    let row = |entry: &control::api::types::Divergence| {
        let state = if entry.resolved_at.is_some() { "resolved" } else { "open" };
        [
            entry.database.to_string(),
            entry.key.clone(),
            entry.class.clone(),
            entry.source.clone(),
            entry.target.clone(),
            state.to_owned(),
        ]
    };
    let counts = format!("{} found, {} resolved, {} open", found.found, found.resolved, found.unresolved);
    if found.entries.is_empty() {
        return counts;
    }
    let rows = found.entries.iter().map(row);
    format!("{counts}\n{}", table(["db", "key", "class", "source", "target", "state"], rows))
}

pub fn event(event: &Event) -> String {
    format!("{:>8} {} {:<20} {}", event.number, event.at, event.kind, event.text)
}
