//! Targets that hold keys of their own: what becomes of them under each conflict policy, through changes of authority and kills.

use crossfade_loadtest::crossfade::INTERLAY;
use crossfade_loadtest::rig::{MIGRATION, REPLICATION, Rig, STEP};
use crossfade_loadtest::server::{Kind, RealServer, run};
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
