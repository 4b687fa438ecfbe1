//! Tables for the terminal: pauses, sessions, the analysis of statements, facts of a PostgreSQL server.

use comfy_table::{ContentArrangement, Table, presets};

use super::table::{findings, table, yes};
use control::api::types::{
    Analysis, Fingerprint, Interlay, Paused, PostgresFacts, Resumed, Session, SessionState, Sessions, StatementKind,
};

pub fn paused(paused: &Paused) -> String {
    let hold = paused.resumes_at.saturating_sub(paused.paused_at) / 1000;
    format!(
        "{} is PAUSED: nothing is outstanding at the server (drained in {} us); it resumes automatically in {hold} s, or with `crossfade interlay resume {}`",
        paused.interlay, paused.drained_in_us, paused.interlay
    )
}

pub fn resumed(resumed: &Resumed) -> String {
    format!(
        "{} is resumed: it was paused for {} us; {} clients were held, the longest for {} us",
        resumed.interlay, resumed.paused_for_us, resumed.held_clients, resumed.longest_hold_us
    )
}

/// The state of an interlay in one word, for lists of interlays.
pub fn state(interlay: &Interlay) -> String {
    match &interlay.pause {
        None => "open".to_owned(),
        Some(pause) => pause.state.clone(),
    }
}

/// A line about an interlay's pause; `None` when it is not paused.
pub fn pause_line(interlay: &Interlay) -> Option<String> {
    let pause = interlay.pause.as_ref()?;
    Some(match pause.resumes_at {
        Some(at) => format!(
            "{}: PAUSED; it resumes automatically at {at} ms since 1970, or with `crossfade interlay resume {0}`",
            interlay.name
        ),
        None => format!("{}: {}", interlay.name, pause.state),
    })
}

pub fn sessions(all: &Sessions) -> String {
    let missing = match all.cores_missing {
        0 => String::new(),
        cores => format!("; {cores} cores did not answer, their sessions are missing"),
    };
    let listed = u64::try_from(all.sessions.len()).unwrap_or(u64::MAX);
    let shown = if listed < all.total { format!("; {listed} are shown") } else { String::new() };
    let counts =
        format!("{}: {} sessions, {} inside a unit of work{shown}{missing}", all.interlay, all.total, all.busy);
    if all.sessions.is_empty() { counts } else { format!("{counts}\n{}", session_table(&all.sessions)) }
}

pub fn session_table(sessions: &[Session]) -> String {
    let row = |session: &Session| {
        [
            session.id.to_string(),
            session.user.clone(),
            session.database.clone(),
            session.application.clone(),
            session.peer.clone().unwrap_or_else(|| "-".to_owned()),
            session.state.clone(),
            format!("{:.1} s", session.age_ms as f64 / 1000.0),
            session.keeps.join(", "),
        ]
    };
    table(["id", "user", "database", "application", "peer", "state", "for", "keeps"], sessions.iter().map(row))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub fn analysis(found: &Analysis) -> String {
    let mut parts = vec![format!(
        "{}: about {} statements seen ({} failed), estimated from {} samples; {} different ones known",
        found.interlay, found.statements, found.failed, found.samples, found.fingerprints_known
    )];
    if found.samples_dropped > 0 {
        parts.push(format!("{} samples were dropped because the control thread was busy", found.samples_dropped));
    }
    if !found.kinds.is_empty() {
        let row = |kind: &StatementKind| {
            [kind.kind.clone(), kind.count.to_string(), percent(kind.share), kind.failed.to_string()]
        };
        parts.push(table(["kind", "count", "share", "failed"], found.kinds.iter().map(row)));
        parts.push(fingerprints(&found.fingerprints));
    }
    if found.others.count > 0 {
        parts.push(format!(
            "{} rarer ones together: {} statements, {}",
            found.others.fingerprints,
            found.others.count,
            percent(found.others.share)
        ));
    }
    if found.session_states.is_empty() {
        parts.push("No session has kept any state beyond its transactions.".to_owned());
    } else {
        let row = |state: &SessionState| {
            let movable = state.movable.map_or_else(|| "unknown".to_owned(), yes);
            [state.state.clone(), state.sessions.to_string(), movable, state.meaning.clone()]
        };
        parts.push(table(["session state", "sessions", "movable", "meaning"], found.session_states.iter().map(row)));
    }
    parts.push(match (&found.target, &found.findings, &found.findings_problem) {
        (Some(target), Some(all), _) if all.is_empty() => format!("No findings against {target}."),
        (Some(target), Some(all), _) => format!("Findings against {target}:\n{}", findings(all)),
        (Some(target), None, Some(why)) => format!("Not compared with {target}: {why}"),
        (Some(_) | None, _, _) => "No target to compare with: name one with --target.".to_owned(),
    });
    parts.join("\n")
}

fn fingerprints(all: &[Fingerprint]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["fingerprint", "share", "of time", "count", "failed", "p50 us", "p99 us", "max us", "statement"]);
    for one in all {
        table.add_row([
            one.fingerprint.clone(),
            percent(one.share),
            percent(one.time_share),
            one.count.to_string(),
            one.failed.to_string(),
            one.latency_us.p50.to_string(),
            one.latency_us.p99.to_string(),
            one.latency_us.max.to_string(),
            one.text.clone(),
        ]);
    }
    table.to_string()
}

pub fn postgres(facts: &PostgresFacts) -> String {
    let mut rights: Vec<&str> = Vec::new();
    let all = [
        (facts.superuser, "superuser"),
        (facts.replication, "replication"),
        (facts.createdb, "createdb"),
        (facts.createrole, "createrole"),
    ];
    rights.extend(all.iter().filter(|(has, _)| *has).map(|(_, name)| *name));
    let rights = if rights.is_empty() { "no special rights".to_owned() } else { rights.join(", ") };
    let extensions: Vec<_> = facts.extensions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let server = table(
        ["role", "wal_level", "connections", "tls", "ping", "clock skew"],
        [[
            if facts.in_recovery { "standby" } else { "primary" }.to_owned(),
            facts.wal_level.clone(),
            format!("{} of {}", facts.client_connections, facts.max_connections),
            yes(facts.tls),
            format!("{} us", facts.ping_us),
            format!("{} ms", facts.clock_skew_ms),
        ]],
    );
    let database = table(
        ["database", "bytes", "encoding", "locale", "tables", "sequences", "large objects", "extensions"],
        [[
            facts.database.clone(),
            facts.database_bytes.to_string(),
            facts.encoding.clone(),
            format!("{}/{} ({})", facts.collate, facts.ctype, facts.locale_provider),
            facts.tables.to_string(),
            facts.sequences.to_string(),
            facts.large_objects.to_string(),
            extensions.join(", "),
        ]],
    );
    format!("logged in as {}: {rights}\n{server}\n{database}", facts.user)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sessions_that_hold_a_pause_up_are_shown_as_a_table() {
        let session = json!({"id": 12, "user": "app", "database": "db", "application": "psql", "peer": null,
            "state": "idle in transaction", "age_ms": 3200, "keeps": ["listen", "set"]});
        let sessions: Vec<Session> = serde_json::from_value(json!([session])).unwrap();
        let text = session_table(&sessions);
        for word in ["12", "app", "psql", "idle in transaction", "3.2 s", "listen, set"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn an_analysis_shows_what_is_unknown() {
        let mut value = json!({"interlay": "shop", "at": 1, "statements": 100, "failed": 1, "samples": 10, "samples_dropped": 3,
            "kinds": [{"kind": "SELECT", "count": 90, "share": 0.9, "failed": 0}],
            "fingerprints": [{"fingerprint": "00ff", "kind": "SELECT", "text": "SELECT ?", "count": 90, "share": 0.9, "time_share": 0.5,
                "failed": 0, "latency_us": {"mean": 1, "p50": 2, "p99": 3, "max": 4}, "first_seen": 1, "last_seen": 2}],
            "fingerprints_known": 1, "others": {"fingerprints": 7, "count": 10, "share": 0.1, "failed": 0},
            "session_states": [{"state": "temp table", "sessions": 2, "movable": false, "meaning": "not movable"}],
            "target": null, "findings": null, "findings_problem": null});
        let text = analysis(&serde_json::from_value(value.clone()).unwrap());
        for words in [
            "90.0 %",
            "50.0 %",
            "SELECT ?",
            "3 samples were dropped",
            "7 rarer ones",
            "temp table",
            "name one with --target",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        value["target"] = json!("new");
        value["findings_problem"] = json!("endpoint new: no answer");
        assert!(
            analysis(&serde_json::from_value(value).unwrap())
                .contains("Not compared with new: endpoint new: no answer")
        );
    }
}
