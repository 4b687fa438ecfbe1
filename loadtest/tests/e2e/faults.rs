//! Killed, slow, restarted: clients see at most what Redis itself would show, nothing hangs, nothing acknowledged is lost.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossfade_loadtest::crossfade::Crossfade;
use crossfade_loadtest::rig::{MIGRATION, Rig, STEP, Writers, fill, losses};
use crossfade_loadtest::server::{Kind, RealServer, run, try_run};
use crossfade_loadtest::slow::SlowProxy;
use crossfade_loadtest::wait::until;

#[test]
fn kill_9_of_the_proxy_in_dual_operation_loses_nothing_and_converges() {
    let mut rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 300);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 3);
    rig.advance_to("compare");
    for _ in 0..3 {
        writers.progress(300);
        rig.proxy.kill();
        rig.proxy.up();
    }
    writers.progress(300);
    let known = writers.finish();
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
    let now = rig.proxy.show(MIGRATION);
    assert_eq!((&now["phase"], &now["authority"]), (&"compare".into(), &"source".into()), "{now}");
}

#[test]
fn kill_9_of_the_proxy_after_the_flip_keeps_the_authority() {
    let mut rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 100);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("migrate");
    rig.authority("target");
    writers.progress(200);
    rig.proxy.kill();
    rig.proxy.up();
    writers.progress(200);
    let known = writers.finish();
    let now = rig.drained();
    assert_eq!(now["authority"], "target", "{now}");
    rig.assert_equal();
    assert_eq!(losses(&mut rig.target.connection(), &known), Vec::<String>::new());
}

/// The proxy is killed while it flips, there and back, at random points of the procedure.
#[test]
fn kill_9_in_the_middle_of_flips_loses_nothing() {
    let mut rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 100);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 3);
    rig.advance_to("migrate");
    rig.authority("target");
    let (mut sides, mut kills) = (Vec::new(), 0);
    for round in 0..6u64 {
        // Wait until a flip can be due, then ask for it and kill a few writes later, each round a little further on.
        let now = rig.in_step();
        rig.make_a_flip_due(&now);
        writers.progress(1 + round * 25);
        rig.proxy.kill();
        rig.proxy.up();
        kills += 1;
        sides.push(rig.proxy.show(MIGRATION)["authority"].to_string());
    }
    writers.progress(200);
    let known = writers.finish();
    let now = rig.drained();
    rig.assert_equal();
    let mut authority = if now["authority"] == "target" { rig.target.connection() } else { rig.source.connection() };
    assert_eq!(
        losses(&mut authority, &known),
        Vec::<String>::new(),
        "authorities after each of {kills} kills: {sides:?}"
    );
    eprintln!("authorities after each kill: {sides:?}");
}

/// Both servers are reached through proxies that can be slowed, so that a flip must wait for the shadow while it holds writes. The
/// process is killed in that wait: seen from outside as writers that wait although both servers answer.
#[test]
fn kill_9_while_a_flip_holds_writes_loses_nothing() {
    // The lag must stay below half of the budget of a hold.
    const DELAY: Duration = Duration::from_millis(100);
    let (source, target) = (RealServer::start(Kind::Redis), RealServer::start(Kind::Redis));
    let (slow_source, slow_target) = (SlowProxy::start(source.port), SlowProxy::start(target.port));
    let url = |port: u16| format!("redis://127.0.0.1:{port}/0");
    let proxy = Crossfade::start(&url(slow_source.port), Some(&url(slow_target.port)));
    let mut rig = Rig::behind(proxy, source, target);
    fill(&mut rig.source.connection(), 50);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 3);
    rig.advance_to("compare");
    let (mut in_hold, mut tries) = ([0, 0], 0);
    while in_hold.contains(&0) {
        tries += 1;
        assert!(tries <= 16, "no kill hit a hold in each direction: {in_hold:?}");
        let before = rig.in_step();
        let to_source = before["authority"] == "target";
        let wanted = in_hold[usize::from(to_source)] == 0;
        rig.make_a_flip_due(&before);
        let shadow = if to_source { &slow_source } else { &slow_target };
        if wanted {
            shadow.delay(DELAY);
            let held = stands_still(&writers, DELAY / 3);
            rig.proxy.kill();
            shadow.delay(Duration::ZERO);
            rig.proxy.up();
            // Writes were held and the authority did not change: the process died between the beginning of the hold and its end.
            let same = rig.proxy.show(MIGRATION)["authority"] == before["authority"];
            in_hold[usize::from(to_source)] += usize::from(held && same);
            writers.progress(50);
        } else {
            rig.authority(if to_source { "source" } else { "target" });
        }
    }
    let known = writers.finish();
    let now = rig.drained();
    rig.assert_equal();
    let mut authority = if now["authority"] == "target" { rig.target.connection() } else { rig.source.connection() };
    assert_eq!(losses(&mut authority, &known), Vec::<String>::new());
    eprintln!("kills in a hold, to the target and back: {in_hold:?}, in {tries} tries");
}

/// Whether writers stop being acknowledged for `long` within a few seconds.
fn stands_still(writers: &Writers, long: Duration) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut last, mut since) = (writers.acknowledged.load(Ordering::Relaxed), Instant::now());
    while Instant::now() < deadline {
        let now = writers.acknowledged.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= long {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn a_target_that_goes_down_harms_no_client_and_catches_up() {
    let mut rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 200);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("compare");
    rig.in_step();
    rig.target.down();
    writers.progress(500);
    // It comes back empty: no key may be assumed to be there.
    rig.target.up();
    writers.progress(200);
    let known = writers.finish();
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    rig.drained();
    until("both sides to agree", STEP, || {
        let keys: usize = try_run(&mut rig.target.connection(), "DBSIZE").map_err(|error| error.to_string())?;
        let wanted: usize = run(&mut rig.source.connection(), "DBSIZE");
        if keys == wanted { Ok(()) } else { Err(format!("{keys} of {wanted}")) }
    });
    rig.drained();
    rig.assert_equal();
}

#[test]
fn a_slow_target_does_not_slow_clients() {
    let (source, target) = (RealServer::start(Kind::Redis), RealServer::start(Kind::Redis));
    let slow = SlowProxy::start(target.port);
    let proxy = Crossfade::start(&source.url(), Some(&format!("redis://127.0.0.1:{}/0", slow.port)));
    let rig = Rig::behind(proxy, source, target);
    fill(&mut rig.source.connection(), 50);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("compare");
    rig.in_step();
    slow.delay(Duration::from_millis(300));
    let mut connection = rig.proxy.connection();
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let started = Instant::now();
        run::<String>(&mut connection, &format!("SET quick:{n} v"));
        longest = longest.max(started.elapsed());
    }
    assert!(longest < Duration::from_millis(250), "a client waited {longest:?} for a slow target");
    slow.delay(Duration::ZERO);
    let known = writers.finish();
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    rig.drained();
    rig.assert_equal();
}

#[test]
fn a_restarted_source_shows_clients_a_lost_connection_and_no_more() {
    let source = RealServer::start_with(Kind::Redis, &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut rig = Rig::of(source, RealServer::start(Kind::Redis));
    fill(&mut rig.source.connection(), 100);
    rig.create();
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("compare");
    writers.progress(100);
    rig.source.down();
    // A server that is down is reported at once, not after a timeout: as fast as Redis' own clients notice a dead server.
    let started = Instant::now();
    let answer = crossfade_loadtest::server::try_connect(rig.proxy.port)
        .and_then(|mut connection| try_run::<String>(&mut connection, "GET string:1"));
    assert!(answer.is_err(), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
    rig.source.up();
    writers.progress(200);
    let known = writers.finish();
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
}

#[test]
fn without_a_migration_a_restarted_server_is_served_again() {
    let mut server = RealServer::start_with(Kind::Redis, &["--appendonly", "yes", "--appendfsync", "always"]);
    let mut proxy = Crossfade::start(&server.url(), None);
    run::<String>(&mut proxy.connection(), "SET k v");
    server.down();
    server.up();
    let value = until("the server through the proxy", STEP, || {
        let mut connection = crossfade_loadtest::server::try_connect(proxy.port).map_err(|error| error.to_string())?;
        try_run::<String>(&mut connection, "GET k").map_err(|error| error.to_string())
    });
    assert_eq!(value, "v");
    assert!(proxy.alive());
}
