//! Targets that hold keys of their own: what becomes of them under each conflict policy, through changes of authority and kills.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossfade_loadtest::crossfade::{Crossfade, INTERLAY};
use crossfade_loadtest::rig::{MIGRATION, REPLICATION, Rig, STEP, Writers, losses};
use crossfade_loadtest::server::{Kind, RealServer, connect, run};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;

/// Runs a body for each pair of servers there is.
fn with_each(body: impl Fn(Rig)) {
    let mut pairs = vec![(Kind::Redis, Kind::Redis)];
    match Kind::Valkey.binary() {
        Ok(_) => pairs.extend([(Kind::Redis, Kind::Valkey), (Kind::Valkey, Kind::Redis)]),
        Err(why) => eprintln!("*** SKIPPED with Valkey: {why}"),
    }
    for (source, target) in pairs {
        eprintln!("{source:?} to {target:?}");
        let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let rig = Rig::of(RealServer::start_with(source, &options), RealServer::start_with(target, &options));
        body(Rig { feed: REPLICATION, ..rig });
    }
}

fn create(rig: &Rig, more: &[&str]) {
    let all = ["--analyze-min-commands", "10", "--analyze-min-seconds", "1", "--compare-min-reads", "10"];
    let who = ["migration", "create", "--id", MIGRATION, "--interlay", INTERLAY, "--feed", "auto"];
    rig.proxy.must(&[&who, &all[..], more].concat());
}

fn get(server: &RealServer, key: &str) -> String {
    run::<Option<String>>(&mut server.connection(), &format!("GET {key}")).unwrap_or_else(|| "-".to_owned())
}

/// What Crossfade has left on a server.
fn own_keys(server: &RealServer) -> Vec<String> {
    run(&mut server.connection(), "KEYS __crossfade:*")
}

/// There, back, there again and the commit, with a kill on each side. `session:1` is in both servers and is not moved.
fn excluded_keys_stay_where_they_are(rig: &mut Rig, policy: &[&str]) {
    for (server, value) in [(&rig.source, "source"), (&rig.target, "target")] {
        run::<()>(&mut server.connection(), &format!("SET session:1 {value}"));
    }
    run::<()>(&mut rig.source.connection(), "SET a source");
    create(rig, policy);
    rig.advance_to("compare");
    rig.drained();
    let mut client = rig.proxy.connection();
    for n in 0..20 {
        run::<()>(&mut client, &format!("SET session:1 source-{n}"));
        run::<Option<String>>(&mut client, "GET session:1");
    }
    run::<()>(&mut client, "MSET session:1 source-mixed b mixed");
    rig.drained();
    assert_eq!([get(&rig.target, "session:1"), get(&rig.target, "b")], ["target", "mixed"]);
    rig.proxy.kill();
    rig.proxy.up();
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.authority("target");
    let mut client = rig.proxy.connection();
    assert_eq!(run::<String>(&mut client, "GET session:1"), "target");
    run::<()>(&mut client, "SET session:1 target-later");
    run::<()>(&mut client, "SET a target");
    rig.drained();
    assert_eq!([get(&rig.source, "session:1"), get(&rig.source, "a")], ["source-mixed", "target"]);
    assert_eq!(own_keys(&rig.target), Vec::<String>::new(), "clients would see them");
    rig.proxy.kill();
    rig.proxy.up();
    run::<()>(&mut rig.proxy.connection(), "SET session:1 target-last");
    rig.drained();
    rig.rollback();
    assert_eq!(run::<String>(&mut rig.proxy.connection(), "GET session:1"), "source-mixed");
    // What is flushed is flushed on both sides, but for what is excluded.
    run::<()>(&mut rig.proxy.connection(), "FLUSHALL");
    run::<()>(&mut rig.proxy.connection(), "SET c flushed");
    rig.drained();
    let left = ["session:1", "a", "c"].map(|key| get(&rig.target, key));
    assert_eq!(left, ["target-last", "-", "flushed"]);
    rig.approve("migrate");
    rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], STEP);
    rig.authority("target");
    let now = rig.proxy.show(MIGRATION);
    assert_eq!(now["divergences_found"], 0, "{}", rig.proxy.cli(&["migration", "divergences", MIGRATION]).stdout);
    let shown = rig.proxy.must(&["migration", "show", MIGRATION]).stdout;
    assert!(shown.contains("not moved (conflict_policy"), "{shown}");
    rig.commit();
    let report = rig.proxy.must(&["migration", "report", MIGRATION]).stdout;
    assert!(report.contains("keys not moved"), "{report}");
    until("no keys of Crossfade's own", STEP, || match [own_keys(&rig.source), own_keys(&rig.target)].concat() {
        none if none.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn skip_leaves_what_the_target_held() {
    with_each(|mut rig| excluded_keys_stay_where_they_are(&mut rig, &["--conflict-policy", "skip"]));
}

#[test]
fn exclude_leaves_what_matches() {
    with_each(|mut rig| {
        let policy = ["--conflict-policy", "exclude", "--exclude", "session:*", "--exclude", "tmp:?"];
        excluded_keys_stay_where_they_are(&mut rig, &policy);
    });
}

/// The gate lets it begin, because it counts no keys; the first copy names what is in the way, and begins when that is gone.
#[test]
fn exclude_names_what_is_in_the_way_and_writes_nothing() {
    let rig = Rig { feed: REPLICATION, ..Rig::start(Kind::Redis) };
    run::<()>(&mut rig.source.connection(), "SET a source");
    run::<()>(&mut rig.target.connection(), "SET other target");
    create(&rig, &["--conflict-policy", "exclude", "--exclude", "session:*"]);
    rig.advance_to("compare");
    until("the conflict to be told", STEP, || {
        let events = rig.proxy.cli(&["migration", "events", MIGRATION]).stdout;
        if events.contains("it holds other in database 0") { Ok(()) } else { Err(events) }
    });
    assert_eq!([get(&rig.target, "other"), get(&rig.target, "a")], ["target", "-"]);
    run::<()>(&mut rig.target.connection(), "DEL other");
    rig.drained();
    assert_eq!(get(&rig.target, "a"), "source");
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_use_instead() {
    let rig = Rig::start(Kind::Redis);
    let asked = |more: &[&str]| {
        let who = ["migration", "create", "--id", MIGRATION, "--interlay", INTERLAY];
        let ran = rig.proxy.cli(&[&who[..], more].concat());
        format!("{}{}", ran.stdout, ran.stderr)
    };
    for (given, words) in [
        (&["--conflict-policy", "merge"][..], "use replace, or use skip or exclude"),
        (&["--conflict-policy", "exclude"], "use --exclude PATTERN"),
        (&["--exclude", "a*"], "use conflict_policy exclude"),
        (&["--conflict-policy", "exclude", "--exclude", "*"], "use a narrower pattern"),
        (&["--conflict-policy", "skip", "--feed", "lane"], "use feed auto or replication"),
    ] {
        let said = asked(given);
        assert!(said.contains(words), "{given:?}: {said}");
    }
}

/// A source that is slow to answer is read slowly, and no longer when it is quick again.
#[test]
fn the_first_copy_is_slowed_down_while_the_source_is_slow() {
    let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    let source = RealServer::start_with(Kind::Redis, &options);
    let rig = Rig { feed: REPLICATION, ..Rig::of(source, RealServer::start_with(Kind::Redis, &options)) };
    let fill = "math.randomseed(7) local t = {} for i = 1, 64 do for j = 1, 1024 do t[j] = string.char(math.random(0, 255)) end \
                local s = table.concat(t) for k = 1, 250 do redis.call('SET', i .. ':' .. k, s .. i .. k) end end";
    redis::cmd("EVAL").arg(fill).arg(0).exec(&mut rig.source.connection()).expect("16 MB");
    create(&rig, &["--source-p99-ms", "10"]);
    let (port, busy) = (rig.source.port, Arc::new(AtomicBool::new(true)));
    let own = Arc::clone(&busy);
    let load = std::thread::spawn(move || {
        let mut connection = connect(port);
        let spin = "local t = redis.call('TIME') local e = t[1] * 1e6 + t[2] + 30000 repeat t = redis.call('TIME') until t[1] * 1e6 + t[2] > e";
        while own.load(Ordering::Relaxed) {
            redis::cmd("EVAL").arg(spin).arg(0).exec(&mut connection).expect("EVAL");
        }
    });
    rig.advance_to("compare");
    let slow = rig.proxy.wait(MIGRATION, "a throttled copy", STEP, |now| !now["lane"]["throttled_to"].is_null());
    assert!(slow["lane"]["source_p99_us"].as_u64().is_some_and(|us| us > 10_000), "{slow}");
    assert!(slow["backfill"]["total"].as_u64().is_some_and(|keys| keys >= 16_000), "{}", slow["backfill"]);
    let shown = rig.proxy.must(&["migration", "show", MIGRATION]).stdout;
    assert!(shown.contains("throttled to") && shown.contains("bound 10 ms") && shown.contains("time left"), "{shown}");
    busy.store(false, Ordering::Relaxed);
    load.join().expect("the load");
    let now = rig.drained();
    assert!(now["lane"]["throttled_to"].is_null(), "{}", now["lane"]);
    let done = rig
        .proxy
        .wait(MIGRATION, "the figures of the first copy", STEP, |now| !now["backfill"]["first_copy"].is_null());
    assert_eq!(done["backfill"]["first_copy"]["keys"], 16_000, "{}", done["backfill"]);
}

/// What the target cannot hold is told, and the figures of the first copy outlast a change of authority and a kill.
#[test]
fn what_the_target_cannot_hold_is_told_and_the_first_copy_is_remembered() {
    if let Err(why) = Kind::Valkey.binary() {
        skip!("{why}");
    }
    let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    let source = RealServer::start_with(Kind::Valkey, &options);
    let rig = Rig::of(source, RealServer::start_with(Kind::Redis, &options));
    let mut rig = Rig { feed: REPLICATION, ..rig };
    let mut client = rig.source.connection();
    run::<()>(&mut client, "HSET fields f v g w");
    run::<()>(&mut client, "MSET a 1 b 2 c 3");
    create(&rig, &[]);
    rig.advance_to("compare");
    rig.drained();
    // Not before: Valkey gives no snapshot of such a value to a replica of an older version.
    run::<()>(&mut client, "HEXPIRE fields 5000 FIELDS 1 f");
    rig.proxy.wait(MIGRATION, "a loss", STEP, |now| now["lane"]["losses"] == 1);
    until("the event", STEP, || {
        let events = rig.proxy.cli(&["migration", "events", MIGRATION]).stdout;
        if events.contains("shadow_lacks") { Ok(()) } else { Err(events) }
    });
    let events = rig.proxy.must(&["migration", "events", MIGRATION]).stdout;
    assert!(events.contains("shadow_lacks") && events.contains("key fields of database 0"), "{events}");
    let named = |now: &serde_json::Value| {
        now["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "shadow-lacks-values"))
    };
    rig.proxy.wait(MIGRATION, "a finding", STEP, named);
    let who = ["--by", "tester", "--reason", "the field may stay"];
    rig.proxy.must(&[&["migration", "waive", MIGRATION, "--finding", "field-ttls-lost-on-target"][..], &who].concat());
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.authority("target");
    rig.proxy.kill();
    rig.proxy.up();
    rig.drained();
    let first = rig.proxy.show(MIGRATION)["backfill"]["first_copy"].clone();
    assert_eq!(first["keys"], 4, "{first}");
    let report = rig.proxy.must(&["migration", "report", MIGRATION]).stdout;
    assert!(report.contains("| first copy | 4 keys"), "{report}");
}

/// Begins the same migration by another process, which is to be refused.
fn begin_beside(second: &Crossfade) {
    // The gate would refuse the target's keys, so it is asked to replace them.
    let all = ["--analyze-min-commands", "0", "--analyze-min-seconds", "0", "--feed", "replication"];
    let who = ["migration", "create", "--id", MIGRATION, "--interlay", INTERLAY, "--conflict-policy", "replace"];
    second.must(&[&who[..], &all].concat());
    for phase in ["analyze", "compare"] {
        second.when_possible(&["migration", "advance", MIGRATION, "--to", phase], STEP);
    }
}

/// Waits until the second has named a feed of the first.
fn refused_beside(second: &Crossfade, epoch: u64) {
    let feed = format!("(feed {INTERLAY}:{epoch})");
    until("the second to be refused", STEP, || {
        let events = second.cli(&["migration", "events", MIGRATION]).stdout;
        let named = events.contains("another Crossfade, connected from 127.0.0.1:") && events.contains(&feed);
        if named { Ok(()) } else { Err(events) }
    });
}

/// The first may change the authority meanwhile, or have changed it: then its feed writes to what the second takes for the authority.
#[test]
fn a_second_crossfade_is_refused_also_after_the_first_has_changed_the_authority() {
    let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    let (source, target) =
        (RealServer::start_with(Kind::Redis, &options), RealServer::start_with(Kind::Redis, &options));
    let [waiting, late] = [(); 2].map(|()| Crossfade::start(&source.url(), Some(&target.url())));
    let rig = Rig { feed: REPLICATION, ..Rig::of(source, target) };
    create(&rig, &[]);
    rig.advance_to("compare");
    rig.in_step();
    begin_beside(&waiting);
    refused_beside(&waiting, 1);
    let writers = Writers::start(rig.proxy.port, 2);
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.authority("target");
    begin_beside(&late);
    for second in [&waiting, &late] {
        refused_beside(second, 2);
    }
    writers.progress(100);
    let known = writers.finish();
    rig.drained();
    for server in [&rig.target, &rig.source] {
        assert_eq!(losses(&mut server.connection(), &known), Vec::<String>::new());
    }
}

/// Two of them on one pair of servers: the second does not begin, names the first, and the first is not disturbed.
#[test]
fn a_second_crossfade_on_the_same_servers_is_refused() {
    let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    let (source, target) =
        (RealServer::start_with(Kind::Redis, &options), RealServer::start_with(Kind::Redis, &options));
    let second = Crossfade::start(&source.url(), Some(&target.url()));
    let rig = Rig { feed: REPLICATION, ..Rig::of(source, target) };
    run::<()>(&mut rig.source.connection(), "SET a source");
    create(&rig, &[]);
    rig.advance_to("compare");
    rig.drained();
    let (proxy, source, target) = (second, &rig.source, &rig.target);
    begin_beside(&proxy);
    refused_beside(&proxy, 1);
    run::<()>(&mut rig.proxy.connection(), "SET a later");
    rig.drained();
    assert_eq!([get(source, "a"), get(target, "a")], ["later", "later"]);
    let events = rig.proxy.must(&["migration", "events", MIGRATION]).stdout;
    assert!(!events.contains("side_lost"), "{events}");
    // The second takes over when the first is gone.
    let mut rig = rig;
    rig.proxy.kill();
    proxy.wait(MIGRATION, "the second to begin", STEP, |now| {
        now["uncopied"] == false && now["lane"]["shadow_connected"] == true
    });
}
