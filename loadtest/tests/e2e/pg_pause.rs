//! Pauses: they really wait, name the sessions they wait for, let nothing through, and clients notice nothing but the delay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossfade_loadtest::ledger::{self, Known, Ledger};
use crossfade_loadtest::pg_rig::{PG_INTERLAY, PgRig, without_proxy};
use crossfade_loadtest::postgres::{Version, versions};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;
use serde_json::Value as Json;

use crate::pg_bench::{assert_balanced, initialise, judge};

const PATIENCE: Duration = Duration::from_secs(60);
const CYCLES: usize = 100;
const CLIENTS: usize = 10;

fn pause(rig: &PgRig, deadline_ms: u64) -> (u16, Json) {
    rig.post(&format!("/api/v1/interlays/{PG_INTERLAY}/pause"), &format!("{{\"deadline_ms\":{deadline_ms}}}"))
}

fn resume(rig: &PgRig) -> Json {
    let (status, body) = rig.post(&format!("/api/v1/interlays/{PG_INTERLAY}/resume"), "{}");
    assert_eq!(status, 200, "{body}\n{}", rig.proxy_says());
    body
}

fn assert_whole(rig: &PgRig, known: &[Known]) {
    let lost = ledger::losses(&rig.direct(), known);
    assert!(lost.is_empty(), "{lost:#?}");
    let said: Vec<&String> = known.iter().flat_map(|client| &client.messages).collect();
    assert!(said.is_empty(), "clients saw errors: {said:?}\n{}", rig.proxy_says());
    assert!(known.iter().all(|client| client.unknown.is_empty() && !client.acknowledged.is_empty()), "{known:#?}");
}

/// The workload without a pause, so that a failure below is the pause's.
#[test]
fn the_workloads_agree_when_nothing_pauses() {
    for version in versions() {
        let rig = PgRig::start(version);
        initialise(&rig.direct(), 2);
        ledger::prepare(&rig.direct(), CLIENTS);
        let clients = Ledger::start(&rig.through(), CLIENTS);
        let ran = rig.through().pgbench(&["-n", "-c", "16", "-j", "2", "-T", "2", "-M", "prepared"]);
        judge(&ran, "TPC-B");
        clients.progress(200);
        assert_whole(&rig, &clients.finish());
        assert_balanced(&rig.server);
    }
}

#[test]
fn a_hundred_pauses_under_load_lose_nothing_and_no_client_sees_an_error() {
    if without_proxy() {
        skip!("PG_DIRECT: nothing to pause");
    }
    for version in versions() {
        let rig = PgRig::start(version);
        initialise(&rig.direct(), 2);
        ledger::prepare(&rig.direct(), CLIENTS);
        let clients = Ledger::start(&rig.through(), CLIENTS);
        let login = rig.through();
        // Runs of a few seconds until the pauses are through, because pgbench cannot be told to end; so there are log-ins as well.
        let done = Arc::new(AtomicBool::new(false));
        let enough = Arc::clone(&done);
        let bench = std::thread::spawn(move || {
            let mut runs = Vec::new();
            while runs.is_empty() || !enough.load(Ordering::Relaxed) {
                // A thread for each client: pgbench prepares with a blocking call, so that a client held at its first statement would
                // keep its thread from ending the transactions of the others, for which the pause waits.
                runs.push(login.pgbench(&["-n", "-c", "16", "-j", "16", "-T", "3", "-M", "prepared"]));
            }
            runs
        });
        let (mut waits, mut holds) = (Vec::new(), Vec::new());
        for cycle in 0..CYCLES {
            let began = Instant::now();
            if cycle % 10 == 0 {
                // As an operator would type it.
                let ran = rig.cli(&["interlay", "pause", PG_INTERLAY, "--deadline", "10s"]);
                assert_eq!(ran.code, 0, "cycle {cycle}: {ran:?}\n{}", rig.proxy_says());
                waits.push(began.elapsed());
                let ran = rig.cli(&["interlay", "resume", PG_INTERLAY]);
                assert_eq!(ran.code, 0, "cycle {cycle}: {ran:?}");
            } else {
                let (status, body) = pause(&rig, 10_000);
                assert_eq!(status, 200, "cycle {cycle}: {body}\n{}", rig.proxy_says());
                waits.push(began.elapsed());
                let told = resume(&rig);
                let known = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("no {name}: {told}"));
                assert!(known("longest_hold_us") <= known("paused_for_us") + 1_000_000, "{told}");
                let _ = known("held_clients");
                holds.push(known("paused_for_us"));
            }
            clients.progress(20);
        }
        done.store(true, Ordering::Relaxed);
        let runs = bench.join().expect("pgbench");
        let transactions: u64 = runs.iter().map(|run| judge(run, "TPC-B across pauses")).sum();
        assert_whole(&rig, &clients.finish());
        assert_balanced(&rig.server);
        waits.sort_unstable();
        holds.sort_unstable();
        eprintln!(
            "PostgreSQL {}: {CYCLES} pauses, {transactions} TPC-B transactions; until closed: median {:?}, longest {:?}; paused: median {} us, longest {} us",
            version.number(),
            waits[waits.len() / 2],
            waits[waits.len() - 1],
            holds[holds.len() / 2],
            holds[holds.len() - 1]
        );
    }
}

/// What the server knows of the clients' statements: how many run, when the last began, how many transactions ended.
fn activity(rig: &PgRig) -> String {
    rig.server.superuser("postgres").sql(
        "SELECT count(*) FILTER (WHERE state <> 'idle'), max(query_start), max(xact_start), max(state_change) FROM pg_stat_activity \
         WHERE usename = 'app' AND backend_type = 'client backend'",
    )
}

#[test]
fn while_paused_no_statement_reaches_the_server() {
    if without_proxy() {
        skip!("PG_DIRECT: nothing to pause");
    }
    for version in versions() {
        let rig = PgRig::start(version);
        ledger::prepare(&rig.direct(), CLIENTS);
        let clients = Ledger::start(&rig.through(), CLIENTS);
        clients.progress(200);
        let began = Instant::now();
        let (status, body) = pause(&rig, 10_000);
        assert_eq!(status, 200, "{body}\n{}", rig.proxy_says());
        let before = activity(&rig);
        assert!(before.starts_with("0|"), "the server still works: {before}");
        let written = || rig.server.superuser("app").sql("SELECT count(*) FROM ledger_tokens");
        let tokens = written();
        for _ in 0..40 {
            assert_eq!(activity(&rig), before, "a statement reached the server during the pause");
            assert_eq!(written(), tokens);
        }
        let hold = began.elapsed();
        // The interlay is paused, and its state says so.
        let sessions = rig.cli_json(&["interlay", "sessions", PG_INTERLAY]);
        assert!(sessions.to_string().contains("\"held\""), "{sessions}");
        let told = resume(&rig);
        assert_eq!(told["held_clients"].as_u64(), Some(CLIENTS as u64), "{told}");
        let paused_us = told["paused_for_us"].as_u64().expect("paused_for_us");
        assert!(paused_us >= 1_000 && u128::from(paused_us) <= began.elapsed().as_micros(), "{told} after {hold:?}");
        clients.progress(200);
        let known = clients.finish();
        assert_whole(&rig, &known);
        // Clients saw nothing but latency.
        assert!(known.iter().all(|client| client.latency_max >= hold / 4), "{hold:?}: {known:?}");
    }
}

#[test]
fn an_open_transaction_makes_the_pause_fail_and_is_named() {
    if without_proxy() {
        skip!("PG_DIRECT: nothing to pause");
    }
    for version in versions() {
        let rig = PgRig::start(version);
        ledger::prepare(&rig.direct(), CLIENTS);
        let clients = Ledger::start(&rig.through(), CLIENTS);
        clients.progress(50);
        let mut forgetful = rig.through().with("PGAPPNAME", "month end report").terminal();
        assert_eq!(forgetful.ask("BEGIN;\nSELECT 7;"), "7");

        let began = Instant::now();
        let ran = rig.cli(&["interlay", "pause", PG_INTERLAY, "--deadline", "1s"]);
        let took = began.elapsed();
        let said = ran.stdout.clone() + &ran.stderr;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
        for word in ["month end report", "app", "idle in transaction"] {
            assert!(said.contains(word), "{word:?} is missing: {ran:?}");
        }
        // Traffic continues without a resume.
        clients.progress(200);
        assert_eq!(forgetful.ask("SELECT 8;"), "8");

        let (status, body) = pause(&rig, 500);
        assert_eq!(status, 409, "{body}");
        let session = body["sessions"].as_array().and_then(|all| all.first()).unwrap_or_else(|| panic!("{body}"));
        assert_eq!(body["sessions"].as_array().map(Vec::len), Some(1), "{body}");
        assert_eq!(
            (&session["user"], &session["database"], &session["application"], &session["state"]),
            (&"app".into(), &"app".into(), &"month end report".into(), &"idle in transaction".into()),
            "{body}"
        );
        assert!(session["age_ms"].as_u64().is_some_and(|age| age >= 400) && !session["id"].is_null(), "{body}");
        assert!(session["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{body}");

        // If the transaction ends while the pause waits, the pause succeeds.
        let deciding = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pause(&rig, 20_000));
            assert_eq!(forgetful.ask("COMMIT;"), "");
            waiting.join().expect("the pause")
        });
        assert_eq!(deciding.0, 200, "{}", deciding.1);
        let _told = resume(&rig);
        clients.progress(200);
        assert_whole(&rig, &clients.finish());
    }
}

/// A running statement and a COPY hold a pause up as a transaction does; idle sessions with state do not.
#[test]
fn what_holds_a_pause_up_and_what_does_not() {
    if without_proxy() {
        skip!("PG_DIRECT: nothing to pause");
    }
    let rig = PgRig::start(Version::V15);
    rig.direct().execute("CREATE TABLE t (n int)");
    // An idle session with state does not hold a pause up.
    let mut keeper = rig.through().with("PGAPPNAME", "keeper").terminal();
    keeper.ask("LISTEN news;\nCREATE TEMP TABLE mine (n int);\nPREPARE p AS SELECT 1;\nSELECT pg_advisory_lock(7);\nSET my.own = 'x';");
    let (status, body) = pause(&rig, 5_000);
    assert_eq!(status, 200, "{body}");
    // A client that only waits for notifications still gets them.
    rig.direct().execute("NOTIFY news, 'during the pause'");
    let mut late = rig.through().with("PGAPPNAME", "late").terminal();
    late.type_line("SELECT 'late but right';");
    let _told = resume(&rig);
    late.expect("late but right", PATIENCE);
    until("the notification", PATIENCE, || {
        let heard = keeper.ask("SELECT 1;");
        if heard.contains("during the pause") { Ok(()) } else { Err(heard) }
    });
    for (line, end, state) in [
        ("SELECT 'slow' || pg_sleep(60);", None, "active"),
        ("COPY t FROM STDIN;", Some("1\n\\."), "copy in"),
        ("BEGIN;\nSELECT 1/0;", Some("ROLLBACK;"), "idle in failed transaction"),
    ] {
        let mut holder = rig.through().with("PGAPPNAME", "holder").terminal();
        holder.type_line(line);
        until(state, PATIENCE, || {
            let sessions = rig.cli_json(&["interlay", "sessions", PG_INTERLAY]).to_string();
            if sessions.contains(&format!("\"{state}\"")) { Ok(()) } else { Err(sessions) }
        });
        let (status, body) = pause(&rig, 300);
        assert_eq!(status, 409, "{line}: {body}");
        let text = body["sessions"].to_string();
        assert!(text.contains("holder") && text.contains(state) && !text.contains("keeper"), "{line}: {body}");
        match end {
            Some(end) => holder.type_line(end),
            None => holder.interrupt(),
        }
        let (status, body) = pause(&rig, 10_000);
        assert_eq!(status, 200, "after {line}: {body}");
        let _told = resume(&rig);
    }
}

/// A pause without a resume ends automatically; both commands can be repeated.
#[test]
fn a_pause_ends_automatically_and_commands_can_be_repeated() {
    if without_proxy() {
        skip!("PG_DIRECT: nothing to pause");
    }
    let rig = PgRig::start(Version::V15);
    let ran = rig.cli(&["interlay", "pause", PG_INTERLAY, "--deadline", "2s", "--hold", "1s"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let began = Instant::now();
    assert_eq!(rig.through().sql("SELECT 1"), "1");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // A resume without a pause gives an error message, and traffic continues.
    let ran = rig.cli(&["interlay", "resume", PG_INTERLAY]);
    assert!(ran.code == 0 || !ran.stderr.is_empty(), "{ran:?}");
    assert_eq!(rig.through().sql("SELECT 1"), "1");
    let ran = rig.cli(&["interlay", "pause", "nobody", "--deadline", "1s"]);
    assert!(ran.code == 1 && ran.stderr.contains("nobody"), "{ran:?}");
    let (status, body) = rig.post(&format!("/api/v1/interlays/{PG_INTERLAY}/pause"), "{\"deadline_ms\":\"soon\"}");
    assert!((400..500).contains(&status), "{body}");
    assert_eq!(rig.through().sql("SELECT 1"), "1");
}
