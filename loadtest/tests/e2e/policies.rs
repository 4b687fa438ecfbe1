//! Policy filters under traffic: loaded, replaced, broken, acting. Real modules, real servers, the command line.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossfade_loadtest::crossfade::{Crossfade, INTERLAY};
use crossfade_loadtest::process::TempDir;
use crossfade_loadtest::reader::Readers;
use crossfade_loadtest::rig::{MIGRATION, Rig, STEP, Writers, fill, losses};
use crossfade_loadtest::server::{Kind, RealServer, repository, run, try_run};
use crossfade_loadtest::skip;
use crossfade_loadtest::slow::SlowProxy;
use crossfade_loadtest::wait::until;
use serde_json::Value as Json;

fn dist(name: &str) -> String {
    repository().join("filters/dist").join(format!("{name}.wasm")).display().to_string()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `interlay policies NAME --output json`.
fn policies(proxy: &Crossfade) -> Json {
    let ran = proxy.must(&["--output", "json", "interlay", "policies", INTERLAY]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

/// Waits for a value of a filter's own counters: the cores report once a second.
fn counted(proxy: &Crossfade, slot: &str, filter: &str, id: &str, enough: impl Fn(u64) -> bool) {
    until(&format!("{id} of {filter}"), STEP, || {
        let seen = stats(proxy, slot, filter);
        if enough(seen["counters"][id].as_u64().unwrap_or(0)) { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// The statistics of one filter in one slot.
fn stats(proxy: &Crossfade, slot: &str, filter: &str) -> Json {
    let all = policies(proxy);
    let found = all["stats"].as_array().into_iter().flatten().find(|s| s["slot"] == slot && s["filter"] == filter);
    found.cloned().unwrap_or(Json::Null)
}

fn choose(proxy: &Crossfade, slot: &str, args: &[&str]) {
    proxy.must(&[&["migration", "policy", MIGRATION, slot], args].concat());
}

/// A migration in `compare`, with everything copied and some traffic.
fn comparing(rounds: usize) -> Rig {
    let rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), rounds);
    rig.create();
    let mut client = rig.proxy.connection();
    for n in 0..20 {
        let _: Option<String> = run(&mut client, &format!("GET string:{n}"));
    }
    rig.advance_to("compare");
    rig.drained();
    rig
}

fn resident_kb(proxy: &Crossfade) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid().expect("running"))).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// Round trips of one client until stopped.
fn latencies(port: u16, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    std::thread::spawn(move || {
        let mut connection = crossfade_loadtest::server::connect(port);
        let mut all = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            run::<Option<String>>(&mut connection, "GET string:1");
            all.push(started.elapsed());
        }
        all
    })
}

fn percentiles(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |share: usize| all[(all.len() - 1) * share / 1000];
    format!("{} round trips, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}", all.len(), at(500), at(990), at(999), at(1000))
}

fn measured(port: u16, during: impl FnOnce()) -> String {
    let stop = Arc::new(AtomicBool::new(false));
    let client = latencies(port, Arc::clone(&stop));
    during();
    stop.store(true, Ordering::Relaxed);
    percentiles(client.join().expect("a client"))
}

#[test]
fn a_filter_is_replaced_under_load_without_a_client_error() {
    let replacements = number("POLICY_REPLACEMENTS", 60);
    let rig = comparing(300);
    let proxy = &rig.proxy;
    proxy.must(&["filter", "load", "mine", &dist("mirror_reads")]);
    choose(proxy, "mirror", &["--filter", "mine"]);
    let (writers, readers) = (Writers::start(proxy.port, 2), Readers::start(proxy.port, 2, 300));
    // The same number of command lines that change nothing: they take the processor from the proxy too.
    let quiet = measured(proxy.port, || {
        for _ in 0..replacements {
            proxy.must(&["filter", "show", "mine"]);
        }
    });
    let mut before = 0;
    let replaced = measured(proxy.port, || {
        for nth in 0..replacements {
            let module = if nth % 2 == 0 { "sample_percent" } else { "mirror_reads" };
            proxy.must(&["filter", "load", "mine", &dist(module)]);
            if nth == replacements / 5 {
                before = resident_kb(proxy);
            }
        }
    });
    let after = resident_kb(proxy);
    eprintln!(
        "with {replacements} looks: {quiet}\nwith {replacements} replacements: {replaced}\nresident: {before} kB, {after} kB"
    );
    assert_eq!(readers.finish(), Vec::<String>::new());
    let known = writers.finish();
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    assert!(after < before + 16 * 1024, "memory grew from {before} to {after} kB");
    let listed = proxy.must(&["--output", "json", "filter", "show", "mine"]);
    let listed: Json = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["generation"], replacements + 1);
    let seen = stats(proxy, "mirror", "mine");
    assert!(seen["calls"].as_u64() > Some(0) && seen["faults"]["trap"] == 0, "{seen}");
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
}

/// Name and outcome of each guest, from the table of the suite.
fn conformance() -> Vec<(String, String)> {
    let table = std::fs::read_to_string(repository().join("filters/conformance/README.md")).expect("the table");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        let must = cells.nth(1)?.trim().to_owned();
        Some((name, must))
    });
    rows.collect()
}

#[test]
fn every_guest_that_breaks_a_rule_is_refused_or_contained_under_traffic() {
    let mut rig = comparing(50);
    let (writers, readers) = (Writers::start(rig.proxy.port, 1), Readers::start(rig.proxy.port, 1, 50));
    let folder = repository().join("filters/conformance");
    let generated = TempDir::make("guests");
    let made = std::process::Command::new("sh").arg(folder.join("large.sh")).output().expect("sh");
    assert!(made.status.success(), "the large guest is generated");
    std::fs::write(generated.path().join("too_large.wat"), made.stdout).expect("written");
    let mut tried = 0;
    for (name, must) in conformance() {
        let of = |folder: PathBuf| folder.join(format!("{name}.wat"));
        let found = [of(folder.clone()), of(generated.path().to_owned())];
        let file = found.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("{name} has no file"));
        let proxy = &rig.proxy;
        let loaded = proxy.cli(&["filter", "load", &name, &file.display().to_string()]);
        let chosen = (loaded.code == 0)
            .then(|| proxy.cli(&["migration", "policy", MIGRATION, "mirror", "--filter", &name, "--mode", "block"]));
        // Faults while a module is instantiated and configured appear when it is put in a slot.
        let refused = loaded.code != 0 || chosen.as_ref().is_some_and(|ran| ran.code != 0);
        if must.starts_with("refused") {
            assert!(refused, "{name}: {must}, but it was loaded: {}", loaded.stdout);
            let said = if loaded.code != 0 { &loaded } else { chosen.as_ref().expect("tried") };
            // A refusal names the module and the broken rule; a refusal by one of the API's limits names the field.
            let named = said.stderr.contains(&name) || said.stderr.contains("module");
            let ruled = said.stderr.trim().len() > "crossfade: ".len() + name.len();
            assert!(named && ruled && !said.stderr.contains("panicked"), "{name}: {}", said.stderr);
        } else if !refused {
            let started = Instant::now();
            let _ = try_run::<redis::Value>(&mut proxy.connection(), "GET string:1");
            assert!(started.elapsed() < Duration::from_secs(2), "{name}: one command took {:?}", started.elapsed());
            if let Some(kind) = must.strip_prefix("fault ") {
                let kind = kind.split_whitespace().next().unwrap_or_default();
                until(&format!("a fault {kind} of {name}"), STEP, || {
                    let seen = stats(proxy, "mirror", &name);
                    if seen["faults"][kind].as_u64() > Some(0) { Ok(()) } else { Err(format!("{seen}")) }
                });
            }
        }
        choose(proxy, "mirror", &["--inherit"]);
        if loaded.code == 0 {
            proxy.must(&["filter", "unload", &name]);
        }
        tried += 1;
    }
    assert!(tried >= 60, "only {tried} guests");
    let wrong = readers.finish();
    // A guest may refuse commands: its text arrives as an error. Any other error of Crossfade is a failure.
    let wrong: Vec<_> =
        wrong.into_iter().filter(|text| text.contains("Crossfade") || !text.starts_with("ResponseError")).collect();
    assert_eq!(wrong, Vec::<String>::new());
    let known = writers.finish();
    assert!(rig.proxy.alive());
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
}

#[test]
fn an_endless_loop_costs_a_deadline_a_second_and_is_then_unloaded() {
    let mut rig = comparing(50);
    let file = repository().join("filters/conformance/loops.wat").display().to_string();
    rig.proxy.must(&["filter", "load", "loops", &file]);
    choose(&rig.proxy, "mirror", &["--filter", "loops"]);
    let started = Instant::now();
    let readers = Readers::start(rig.proxy.port, 1, 50);
    let seen = until("the fifth fault", Duration::from_secs(30), || {
        let seen = stats(&rig.proxy, "mirror", "loops");
        if seen["faults"]["deadline"].as_u64() >= Some(5) { Ok(seen) } else { Err(seen.to_string()) }
    });
    let took = started.elapsed();
    let slot = until("the slot to be empty", STEP, || {
        let all = policies(&rig.proxy);
        let mirror = all["slots"].as_array().into_iter().flatten().find(|slot| slot["slot"] == "mirror").cloned();
        let mirror = mirror.unwrap_or_default();
        if mirror["absent"].is_string() { Ok(mirror) } else { Err(mirror.to_string()) }
    });
    assert!(slot["absent"].as_str().unwrap_or_default().contains("deadline"), "{slot}");
    // With one core a new instance comes each second; with more, each core has its own.
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let windows = took.as_secs() + 2;
    let faults = seen["faults"]["deadline"].as_u64().expect("a number");
    assert!(faults <= windows * cores, "{faults} deadlines in {took:?} on {cores} cores");
    assert!(seen["absent"].as_u64() > Some(0), "commands between were answered without it: {seen}");
    let answered = readers.answered.load(Ordering::Relaxed);
    until("traffic to go on", STEP, || {
        let now = readers.answered.load(Ordering::Relaxed);
        if now > answered + 100 { Ok(()) } else { Err(format!("{now}")) }
    });
    assert_eq!(readers.finish(), Vec::<String>::new());
    assert!(rig.proxy.alive());
    let events = rig.proxy.must(&["migration", "events", MIGRATION]).stdout;
    assert!(events.contains("policy_unloaded") && events.contains("loops"), "{events}");
}

fn ledger(proxy: &Crossfade) -> Json {
    let ran = proxy.must(&["--output", "json", "migration", "divergences", MIGRATION]);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// The ledger's entry for a key.
fn divergence(proxy: &Crossfade, key: &str) -> Option<Json> {
    ledger(proxy)["entries"].as_array().into_iter().flatten().find(|entry| entry["key"] == key).cloned()
}

#[test]
fn comparing_every_read_reports_no_false_difference_and_finds_each_kind_of_damage() {
    let seconds = number("WOLF_SECONDS", 10);
    let rounds = 400;
    let rig = comparing(rounds);
    let (writers, readers) = (Writers::start(rig.proxy.port, 2), Readers::start(rig.proxy.port, 2, rounds));
    let until_then = Instant::now() + Duration::from_secs(seconds);
    until("time to pass", Duration::from_secs(seconds + 60), || {
        let now = rig.proxy.show(MIGRATION);
        assert_eq!(now["lane"]["read_divergences"], 0, "{now}");
        if Instant::now() > until_then { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert_eq!(readers.finish(), Vec::<String>::new());
    assert!(writers.finish().iter().all(|writer| writer.messages.is_empty()));
    let calm = rig.drained();
    let lane = &calm["lane"];
    eprintln!(
        "{seconds} s: {} reads compared, {} of them equivalent, {} not comparable, {} divergent",
        lane["reads_compared"], lane["reads_equivalent"], lane["reads_not_comparable"], lane["read_divergences"]
    );
    assert!(lane["reads_compared"].as_u64() > Some(1000) && lane["reads_equivalent"].as_u64() > Some(10), "{lane}");
    assert_eq!((&lane["read_divergences"], &ledger(&rig.proxy)["found"]), (&Json::from(0), &Json::from(0)), "{calm}");

    let damage = [
        ("string:7", "SET string:7 corrupted", "GET string:7", "value"),
        ("list:8", "DEL list:8", "LRANGE list:8 0 -1", "value"),
        ("string:9", "DEL string:9", "GET string:9", "missing"),
        ("extra:1", "SET extra:1 v", "GET extra:1", "extra"),
        ("volatile:11", "PEXPIRE volatile:11 90000", "PTTL volatile:11", "ttl"),
        ("volatile:12", "PERSIST volatile:12", "TTL volatile:12", "ttl"),
        ("set:13", "SMOVE set:13 elsewhere:13 b", "SMEMBERS set:13", "count"),
        ("set:14", "SADD set:14 c", "SMEMBERS set:14", "members"),
    ];
    let mut target = rig.target.connection();
    let mut client = rig.proxy.connection();
    for (key, harm, read, class) in damage {
        let _: redis::Value = run(&mut target, harm);
        if key == "set:14" {
            let _: i64 = run(&mut target, "SREM set:14 b"); // swapped: the count is right
        }
        let _: redis::Value = run(&mut client, read);
        let found = until(&format!("{key} to be named"), STEP, || divergence(&rig.proxy, key).ok_or_else(String::new));
        eprintln!("{key}: {} ({} / {})", found["class"], found["source"], found["target"]);
        // The full comparison in the background may have been first; it uses different words for some classes.
        let classes = [class, "value", "extra", "missing", "ttl"];
        assert!(classes.iter().any(|word| found["class"] == *word), "{key}: {found}");
        assert!(!found["source"].as_str().unwrap_or_default().is_empty(), "{found}");
    }
    let _: i64 = run(&mut target, "DEL elsewhere:13");
}

#[test]
fn a_target_that_became_slow_makes_the_policy_roll_back_and_nothing_is_lost() {
    let (source, target) = (RealServer::start(Kind::Redis), RealServer::start(Kind::Redis));
    let slow = SlowProxy::start(target.port);
    let policy = "[interlays.orders.policies.rollback]\nfilter = \"builtin:rollback-threshold\"\nmode = \"block\"\n\
                  config = { window_s = 3, trip_s = 2, p99_ratio = 4, p99_floor_us = 20000, requests_min = 20 }\n";
    let url = format!("redis://127.0.0.1:{}/0", slow.port);
    let proxy = Crossfade::start_with(TempDir::make("judged"), &source.url(), Some(&url), policy);
    let rig = Rig::behind(proxy, source, target);
    fill(&mut rig.source.connection(), 200);
    let writers = Writers::start(rig.proxy.port, 4);
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    writers.progress(2000);
    slow.delay(Duration::from_millis(40));
    let now = rig.proxy.wait(MIGRATION, "the policy to act", STEP, |now| now["phase"] == "rollback");
    let reason = now["rollback_reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("the rollback policy: p99 of the target"), "{reason}");
    rig.authority("source");
    slow.delay(Duration::ZERO);
    writers.progress(500);
    let known = writers.finish();
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
}

#[test]
fn modes_decide_whether_a_refusal_is_carried_out_and_choices_survive_kill_9() {
    let mut rig = comparing(20);
    rig.proxy.must(&["filter", "load", "deny", &dist("deny_dangerous")]);
    choose(&rig.proxy, "mirror", &["--filter", "deny"]);
    let mut client = rig.proxy.connection();
    let keys: usize = run(&mut client, "DBSIZE");
    let _: redis::Value = run(&mut client, "KEYS nothing*");
    choose(&rig.proxy, "mirror", &["--mode", "block"]);
    let refused = try_run::<String>(&mut client, "FLUSHALL").expect_err("refused").to_string();
    assert!(refused.contains("FLUSHALL is switched off during the migration"), "{refused}");
    assert_eq!(run::<usize>(&mut client, "DBSIZE"), keys);
    counted(&rig.proxy, "mirror", "deny", "denied", |denied| denied >= 1);
    rig.proxy.kill();
    rig.proxy.up();
    let refused = until("the loaded filter to decide again", STEP, || {
        match try_run::<String>(&mut rig.proxy.connection(), "FLUSHALL") {
            Err(error) if error.to_string().contains("switched off") => Ok(error.to_string()),
            // FLUSHALL must not succeed: that would be the loss this test is about.
            other => Err(format!("{other:?}")),
        }
    });
    assert!(!refused.is_empty() && run::<usize>(&mut rig.proxy.connection(), "DBSIZE") >= keys);
    choose(&rig.proxy, "mirror", &["--config", r#"{"commands": ["KEYS"]}"#]);
    let mut client = rig.proxy.connection();
    assert!(try_run::<redis::Value>(&mut client, "KEYS x").is_err());
    let bad = rig.proxy.cli(&["migration", "policy", MIGRATION, "mirror", "--config", r#"{"commands": 7}"#]);
    assert!(bad.code == 1 && bad.stderr.contains("commands"), "{}", bad.stderr);
    assert!(try_run::<redis::Value>(&mut client, "KEYS x").is_err(), "the old configuration stays in force");
    choose(&rig.proxy, "mirror", &["--inherit"]);
    let _: redis::Value = run(&mut client, "KEYS nothing*");
}

/// Values that begin with `!` become `?`, keys that begin with `x` are dropped.
const REDACT: &str = r#"(module
  (func (export "cf_abi_v1"))
  (memory (export "memory") 2)
  (func (export "cf_buffer") (result i32) (i32.const 0))
  (func (export "cf_buffer_len") (result i32) (i32.const 65536))
  (func (export "cf_on_record") (param i32) (result i64)
    (if (i32.eq (i32.load8_u (i32.load (i32.const 48))) (i32.const 120)) (then (return (i64.const 0x42))))
    (if (i32.eq (i32.load8_u (i32.load (i32.const 56))) (i32.const 33)) (then
      (i32.store8 (i32.const 0) (i32.const 63))
      (return (i64.const 0x100000041))))
    (i64.const 0x40)))"#;

#[test]
fn a_records_policy_sees_every_value_before_the_target_does() {
    let rig = Rig::start(Kind::Redis);
    let folder = TempDir::make("redact");
    let file = folder.path().join("redact.wat");
    std::fs::write(&file, REDACT).expect("written");
    let mut source = rig.source.connection();
    for line in ["SET a !secret", "SET b open", "SET xray v", "RPUSH l 1 2", "HSET h f v", "ZADD z 1.5 m", "SADD s m"] {
        let _: redis::Value = run(&mut source, line);
    }
    let mut script = String::new();
    for n in 0..300 {
        let _ = writeln!(script, "SET bulk:{n} !{n}");
    }
    script.lines().for_each(|line| drop(run::<String>(&mut source, line)));
    rig.proxy.must(&["filter", "load", "redact", &file.display().to_string()]);
    rig.create();
    choose(&rig.proxy, "records", &["--filter", "redact", "--mode", "block"]);
    let writers = Writers::start(rig.proxy.port, 1);
    writers.progress(20);
    rig.advance_to("compare");
    let mut client = rig.proxy.connection();
    for line in ["SET c !late", "SET a open-now", "SET b !now", "SET xylophone v", "APPEND bulk:1 more", "DEL bulk:2"] {
        let _: redis::Value = run(&mut client, line);
    }
    let known = writers.finish();
    rig.drained();
    let mut target = rig.target.connection();
    let of = |connection: &mut redis::Connection, key: &str| run::<Option<String>>(connection, &format!("GET {key}"));
    for (key, there, here) in [
        ("a", Some("open-now"), Some("open-now")),
        ("b", Some("!now"), Some("?")),
        ("c", Some("!late"), Some("?")),
        ("xray", Some("v"), None),
        ("xylophone", Some("v"), None),
        ("bulk:1", Some("!1more"), Some("?")),
        ("bulk:2", None, None),
        ("bulk:299", Some("!299"), Some("?")),
    ] {
        let seen = (of(&mut source, key), of(&mut target, key));
        assert_eq!((seen.0.as_deref(), seen.1.as_deref()), (there, here), "{key}");
    }
    let same = |line: &str, source: &mut redis::Connection, target: &mut redis::Connection| {
        assert_eq!(run::<redis::Value>(source, line), run::<redis::Value>(target, line), "{line}");
    };
    for line in ["LRANGE l 0 -1", "HGETALL h", "ZRANGE z 0 -1 WITHSCORES", "SMEMBERS s", "LLEN tokens:0:1"] {
        same(line, &mut source, &mut target);
    }
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    let now = rig.proxy.show(MIGRATION);
    assert!(now["lane"]["altered"].as_u64() >= Some(300), "{now}");
    assert_eq!(now["lane"]["read_divergences"], 0, "what differs on purpose is not compared: {now}");
}

/// The filters that `make filters` has built by following filters/README.md exactly, in three languages.
#[test]
fn a_filter_written_from_the_guide_is_tested_loaded_and_acts() {
    let guide = repository().join("target/filter-guide");
    let languages: Vec<_> = ["Rust", "C", "AssemblyScript"]
        .into_iter()
        .filter_map(|language| {
            let file = guide.join(language).join("large_values.wasm");
            if !file.is_file() {
                eprintln!(
                    "SKIPPED: the guide's filter in {language}: {} does not exist; run `make filters`",
                    file.display()
                );
            }
            file.is_file().then(|| (language, file.display().to_string()))
        })
        .collect();
    if languages.is_empty() {
        skip!("no filter of the guide was built: run `make filters`");
    }
    let rig = comparing(20);
    let mut client = rig.proxy.connection();
    let large = "x".repeat(3000);
    for (language, file) in languages {
        let tested = crossfade_loadtest::crossfade::run_binary(&["filter", "test", &file]);
        assert_eq!(tested.code, 0, "{language}: {}{}", tested.stdout, tested.stderr);
        rig.proxy.must(&["filter", "load", language, &file]);
        let config = r#"{"max_bytes": 2000}"#;
        choose(&rig.proxy, "mirror", &["--filter", language, "--mode", "block", "--config", config]);
        let refused =
            redis::cmd("SET").arg("large").arg(&large).query::<String>(&mut client).expect_err(language).to_string();
        assert!(refused.contains("SET of 30") && refused.contains("bytes, 2000 are allowed"), "{language}: {refused}");
        run::<String>(&mut client, "SET small v");
        counted(&rig.proxy, "mirror", language, "refused", |refused| refused == 1);
    }
    choose(&rig.proxy, "mirror", &["--inherit"]);
    redis::cmd("SET").arg("large").arg(&large).query::<String>(&mut client).expect("no policy refuses it");
}
