//! The evidence report as Markdown, for an auditor or a change board.

use std::fmt::Write as _;

use super::types::{Endpoint, Event, Migration, Report, pause_in_words};

/// Milliseconds since the epoch as `YYYY-MM-DD HH:MM:SS.mmm` UTC (civil-from-days, Howard Hinnant's algorithm).
pub fn utc(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}", ms % 1000)
}

/// A cell of a table: no pipes, no line breaks.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let migration = &report.migration;
    summary(&mut out, report);
    servers(&mut out, [&report.source, &report.target]);
    gates(&mut out, migration);
    people(&mut out, migration);
    movement(&mut out, report);
    flips(&mut out, migration);
    journal(&mut out, &report.journal);
    out
}

fn summary(out: &mut String, report: &Report) {
    let migration = &report.migration;
    let _ = writeln!(out, "# Migration {}: {} to {}\n", migration.id, migration.source, migration.target);
    let _ = writeln!(
        out,
        "**Authoritative now: the {}, {} ({}), epoch {}.**\n",
        migration.authority, migration.authority_endpoint, migration.authority_address, migration.epoch
    );
    let _ = writeln!(out, "| | |\n|---|---|");
    let ended = match (&migration.ended, &migration.ended_reason) {
        (Some(how), Some(why)) => format!("{how}: {why}"),
        (Some(how), None) => how.clone(),
        (None, _) => "no".to_owned(),
    };
    let rows = [
        ("written (UTC)", utc(report.written_at)),
        ("Crossfade", report.crossfade_version.clone()),
        ("interlay", migration.interlay.clone()),
        ("phase", migration.phase.clone()),
        ("status", migration.status.clone()),
        ("strategy", migration.strategy.clone()),
        ("run", migration.run.to_string()),
        ("created (UTC)", utc(migration.created_at)),
        ("conflict policy", migration.decisions.conflict_policy.clone()),
        ("keys not moved", not_moved(migration)),
        ("feed", feed(migration)),
        ("write consistency", migration.decisions.write_consistency.clone()),
        ("manual approval", migration.decisions.manual_approval.to_string()),
        ("rollback reason", migration.rollback_reason.clone().unwrap_or_else(|| "never rolled back".to_owned())),
        ("ended", ended),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {} |", cell(&value));
    }
}

/// Which keys the conflict policy leaves where they are.
fn not_moved(migration: &Migration) -> String {
    match migration.decisions.conflict_policy.as_str() {
        "skip" => "what the target held before the first copy".to_owned(),
        "exclude" => format!("what matches {}", migration.decisions.exclude.join(" ")),
        _ => "none".to_owned(),
    }
}

/// What keeps the two sides in step and why.
fn feed(migration: &Migration) -> String {
    let asked = &migration.decisions.feed;
    let why = migration.feed_reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    match &migration.feed {
        Some(feed) => format!("{feed}{why} (asked for: {asked})"),
        None => format!("not chosen (asked for: {asked}){why}"),
    }
}

fn servers(out: &mut String, servers: [&Endpoint; 2]) {
    let _ = writeln!(
        out,
        "\n## Servers\n\n| side | name | address | server | keys at the last check |\n|---|---|---|---|---|"
    );
    for (side, endpoint) in ["source", "target"].into_iter().zip(servers) {
        let (server, keys) = match &endpoint.facts {
            Some(facts) => {
                let keys: u64 = facts.databases.iter().map(|database| database.keys).sum();
                (format!("{} {}", facts.server, facts.version), keys.to_string())
            }
            None => (
                endpoint.problem.clone().unwrap_or_else(|| "not checked since the start".to_owned()),
                "unknown".to_owned(),
            ),
        };
        let _ =
            writeln!(out, "| {side} | {} | {} | {} | {keys} |", endpoint.name, cell(&endpoint.address), cell(&server));
    }
}

fn gates(out: &mut String, migration: &Migration) {
    if !migration.gates.is_empty() {
        let _ = writeln!(out, "\n## Gates of the next step\n\n| gate | measured | needs | met |\n|---|---|---|---|");
        for gate in &migration.gates {
            let met = if gate.met { "yes" } else { "no" };
            let _ = writeln!(out, "| {} | {} | {} | {met} |", gate.name, cell(&gate.measured), cell(&gate.threshold));
        }
    }
    if !migration.findings.is_empty() {
        let _ =
            writeln!(out, "\n## Compatibility findings\n\n| finding | severity | waived | detail |\n|---|---|---|---|");
        for finding in &migration.findings {
            let waived = if finding.waived { "yes" } else { "no" };
            let _ = writeln!(out, "| {} | {} | {waived} | {} |", finding.name, finding.severity, cell(&finding.detail));
        }
    }
}

fn people(out: &mut String, migration: &Migration) {
    let _ =
        writeln!(out, "\n## Approvals and waivers\n\n| what | by | reason | run | at (UTC) |\n|---|---|---|---|---|");
    for approval in &migration.approvals {
        let (by, reason) = (cell(&approval.by), cell(&approval.reason));
        let _ = writeln!(out, "| {} | {by} | {reason} | {} | {} |", approval.scope, approval.run, utc(approval.at));
    }
    for waiver in &migration.waivers {
        let (by, reason) = (cell(&waiver.by), cell(&waiver.reason));
        let _ = writeln!(out, "| waives {} | {by} | {reason} | | {} |", cell(&waiver.finding), utc(waiver.at));
    }
}

/// Durable, unlike the counts.
fn first_copy(migration: &Migration) -> String {
    migration.backfill.first_copy.as_ref().map_or_else(
        || "not ended".to_owned(),
        |copy| {
            let took_ms = copy.finished_at.saturating_sub(copy.began_at);
            format!(
                "{} keys, {} bytes, ended {} (UTC) after {took_ms} ms",
                copy.keys,
                copy.bytes,
                utc(copy.finished_at)
            )
        },
    )
}

fn movement(out: &mut String, report: &Report) {
    let migration = &report.migration;
    let lane = report.lane.clone().unwrap_or_default();
    let _ = writeln!(out, "\n## Data\n\nCounts are since the process started.\n\n| | |\n|---|---|");
    let smoke = match &migration.smoke_failed {
        None => "not run".to_owned(),
        Some(failed) if failed.is_empty() => "all passed".to_owned(),
        Some(failed) => failed.join("; "),
    };
    let rehearsal = migration.rehearsal_pause_us.map_or_else(|| "not run".to_owned(), |us| pause_in_words(Some(us)));
    let slowest =
        if lane.source_p99_us == 0 { "not measured".to_owned() } else { format!("{} us", lane.source_p99_us) };
    let rows = [
        ("first copy", first_copy(migration)),
        ("keys copied to the shadow, in both directions", lane.copied_keys.to_string()),
        ("values that the shadow cannot hold as the authority does", lane.losses.to_string()),
        ("slowest hundredth of the source's answers during the last copy", slowest),
        ("bytes copied by the backfill", report.bytes_copied.to_string()),
        ("effects applied", lane.effects.to_string()),
        ("keys kept by the target (conflict policy skip)", lane.excluded.kept.to_string()),
        ("excluded keys not copied", lane.excluded.keys.to_string()),
        ("commands on excluded keys not applied", lane.excluded.commands.to_string()),
        ("commands on excluded and other keys, the others copied", lane.excluded.mixed.to_string()),
        ("reads compared", lane.reads_compared.to_string()),
        ("reads inconclusive", lane.reads_inconclusive.to_string()),
        ("full comparisons", report.verifications.to_string()),
        ("keys compared in them", report.keys_verified.to_string()),
        ("divergences found", migration.divergences_found.to_string()),
        ("divergences resolved", migration.divergences_resolved.to_string()),
        ("smoke checks", smoke),
        ("rollback rehearsal", rehearsal),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {} |", cell(&value));
    }
}

fn flips(out: &mut String, migration: &Migration) {
    let _ = writeln!(out, "\n## Changes of authority\n\n| at (UTC) | to | epoch | writes held |\n|---|---|---|---|");
    for flip in &migration.flips {
        let pause = pause_in_words(flip.pause_us);
        let _ = writeln!(out, "| {} | {} | {} | {pause} |", utc(flip.at), flip.to, flip.epoch);
    }
}

fn journal(out: &mut String, journal: &[Event]) {
    let _ = writeln!(out, "\n## Journal\n\n| number | at (UTC) | what | |\n|---|---|---|---|");
    for event in journal {
        let _ = writeln!(out, "| {} | {} | {} | {} |", event.number, utc(event.at), event.kind, cell(&event.text));
    }
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_written_as_calendar_dates() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_709_210_096_789, "2024-02-29 12:34:56.789"),
            (4_107_542_399_999, "2100-02-28 23:59:59.999"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }
}
