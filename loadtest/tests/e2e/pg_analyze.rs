//! What an operator sees of the traffic: statements by kind and fingerprint, state that sessions keep, findings against a target.

use crossfade_loadtest::pg_rig::{Options, PG_INTERLAY, PgRig, without_proxy};
use crossfade_loadtest::postgres::{Postgres, Version, versions};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;
use serde_json::Value as Json;
use std::time::Duration;

use crate::pg_bench::initialise;

const PATIENCE: Duration = Duration::from_secs(20);

fn analysis(rig: &PgRig, more: &[&str]) -> Json {
    rig.cli_json(&[&["interlay", "analyze", PG_INTERLAY, "--limit", "200"], more].concat())
}

fn sessions_with(analysis: &Json, state: &str) -> u64 {
    let states = analysis["session_states"].as_array().expect("a list");
    states.iter().find(|one| one["state"] == state).and_then(|one| one["sessions"].as_u64()).unwrap_or(0)
}

/// What the terminal's session keeps, and no other.
const KEPT: [&str; 4] = ["set", "listen", "temp table", "advisory lock"];

#[test]
fn the_mix_the_fingerprints_and_what_sessions_keep_are_known() {
    if without_proxy() {
        skip!("PG_DIRECT: there is no proxy to analyze");
    }
    let rig = PgRig::start(Version::V15);
    initialise(&rig.direct(), 1);
    let ran = rig.through().pgbench(&["-n", "-c", "4", "-t", "50", "-M", "prepared"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut terminal = rig.through().terminal();
    for line in [
        "SET work_mem = '8MB';",
        "LISTEN jobs;",
        "CREATE TEMP TABLE scratch (secret text);",
        "SELECT pg_advisory_lock(42);",
        "SELECT 'hunter2' AS password, 1 + 1;",
    ] {
        terminal.ask(line);
    }
    assert_eq!(terminal.ask("SELECT 'there';"), "there");
    let mut found = Json::Null;
    until("the analysis of what passed", PATIENCE, || {
        found = analysis(&rig, &[]);
        let seen = found["statements"].as_u64().unwrap_or(0);
        // Seven statements in each of 200 transactions, and the terminal's six.
        // Sessions are looked at now and then, perhaps between two lines of the terminal.
        let missing: Vec<_> = KEPT.iter().filter(|state| sessions_with(&found, state) != 1).collect();
        if seen >= 1400 && missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{seen} statements, no session with {missing:?}"))
        }
    });
    let kinds = found["kinds"].as_array().expect("a list");
    let share = |kind: &str| {
        let one = kinds.iter().find(|one| one["kind"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(kind)));
        one.and_then(|one| one["share"].as_f64()).unwrap_or(0.0)
    };
    // Shares are estimated from samples: the bound is five standard deviations of a fair draw, so that only a wrong estimate fails.
    let samples = found["samples"].as_f64().expect("a number");
    assert!(samples >= 50.0, "{found:#}");
    for (kind, of_seven) in [("update", 3.0), ("insert", 1.0), ("select", 1.0)] {
        let fair: f64 = of_seven / 7.0;
        let off = (share(kind) - fair).abs();
        assert!(
            off < 5.0 * (fair * (1.0 - fair) / samples).sqrt(),
            "{kind} is {off} off {of_seven} in seven: {found:#}"
        );
    }
    let texts: Vec<&str> =
        found["fingerprints"].as_array().expect("a list").iter().filter_map(|one| one["text"].as_str()).collect();
    assert!(texts.iter().any(|text| text.to_lowercase().starts_with("update pgbench_accounts set")), "{texts:?}");
    assert!(!found.to_string().contains("hunter2"), "a literal left the normaliser: {found:#}");
    assert!(sessions_with(&found, "prepared") >= 4, "{found:#}");
    assert!(found["findings"].is_null(), "no target was named");
    let sessions = rig.cli_json(&["interlay", "sessions", PG_INTERLAY]);
    let psql = sessions["sessions"].as_array().expect("a list").iter().find(|one| one["application"] == "psql");
    let keeps = psql.expect("the terminal's session")["keeps"].to_string();
    assert!(keeps.contains("temp table") && keeps.contains("listen"), "{keeps}");
}

#[test]
fn findings_say_what_a_target_lacks() {
    if without_proxy() {
        skip!("PG_DIRECT: there is no proxy to analyze");
    }
    let Some(newest) = versions().into_iter().max_by_key(|version| version.number()).filter(|one| one.number() > 15)
    else {
        skip!("only PostgreSQL 15 is installed: there is no newer source");
    };
    let older = Postgres::start(Version::V15);
    let more_config = format!("[endpoints.older]\nkind = \"postgres\"\nurl = \"{}\"\n", older.url("postgres"));
    let rig = PgRig::with(newest, &Options { more_config, ..Options::default() });
    let found = analysis(&rig, &["--target", "older"]);
    let findings = found["findings"].as_array().unwrap_or_else(|| panic!("{found:#}"));
    let critical: Vec<_> = findings.iter().filter(|one| one["severity"] == "critical").collect();
    assert!(critical.iter().any(|one| one["name"] == "target-older"), "{findings:#?}");
    let wrong = rig.cli(&["interlay", "analyze", PG_INTERLAY, "--target", "nobody"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("nobody"), "{wrong:?}");
}
