//! Killed and restarted beside a replication feed: what can go on exactly goes on exactly, what cannot is named, and nothing acknowledged is lost.

use crossfade_loadtest::digest::contents;
use crossfade_loadtest::feed_faults::{
    followed, journal, kills_of_the_proxy, kills_of_the_source, kills_of_the_target,
};
use crossfade_loadtest::feed_history::{full_copies, server};
use crossfade_loadtest::history::seed;
use crossfade_loadtest::rig::{MIGRATION, Rig, STEP, Writers, losses};
use crossfade_loadtest::server::Kind;
use crossfade_loadtest::wait::until;

/// What [`losses`] finds on the authority, and whether both servers are alike.
fn assert_nothing_is_lost(rig: &Rig, writers: Writers) {
    let known = writers.finish();
    let now = rig.drained();
    rig.assert_equal();
    let authority = if now["authority"] == "target" { &rig.target } else { &rig.source };
    assert_eq!(losses(&mut authority.connection(), &known), Vec::<String>::new());
}

#[test]
fn kill_9_of_the_proxy_in_flips_goes_on_where_it_was() {
    const KILLS: usize = 10;
    let before = kills_of_the_proxy(seed(), KILLS);
    eprintln!("{before} of {KILLS} kills came before the authority had changed");
}

/// With `write_consistency both` the shadow has what a client was told, whatever becomes of the source.
#[test]
fn kill_9_of_the_source_loses_nothing_that_both_had_to_have() {
    let found = kills_of_the_source(seed(), 3, "both");
    assert!(found.iter().all(|(lost, written)| *lost == 0 && *written > 100), "{found:?}");
}

/// The clients wait while it is away, and go on.
#[test]
fn kill_9_of_the_target_delays_writes_that_both_must_have() {
    kills_of_the_target(seed(), 3, "both");
}

/// In both directions: as the target, and after a flip as the source.
fn restarted_shadow(durable: bool, copies: usize) {
    let mut rig = followed(server(Kind::Redis, durable), server(Kind::Redis, durable));
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("compare");
    rig.in_step();
    writers.progress(200);
    rig.target.down();
    writers.progress(200);
    rig.target.up();
    writers.progress(200);
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.authority("target");
    writers.progress(200);
    rig.source.down();
    writers.progress(200);
    rig.source.up();
    writers.progress(200);
    rig.rollback();
    writers.progress(100);
    assert_nothing_is_lost(&rig, writers);
    let journal = journal(&rig);
    assert_eq!(full_copies(&journal), copies, "{journal}");
}

#[test]
fn a_shadow_that_comes_back_with_its_data_goes_on_exactly() {
    restarted_shadow(true, 1);
}

#[test]
fn a_shadow_that_comes_back_empty_is_filled_anew() {
    restarted_shadow(false, 3);
}

#[test]
fn a_source_that_comes_back_with_its_data_is_copied_again_and_clients_lose_connections_only() {
    let mut rig = followed(server(Kind::Redis, true), server(Kind::Redis, false));
    let writers = Writers::start(rig.proxy.port, 2);
    rig.advance_to("compare");
    rig.in_step();
    writers.progress(200);
    rig.source.down();
    rig.source.up();
    writers.progress(200);
    let known = writers.finish();
    for message in known.iter().flat_map(|writer| &writer.messages) {
        let lost = ["connection", "broken pipe", "unexpected end of file", "loading"];
        assert!(lost.iter().any(|word| message.to_lowercase().contains(word)), "a client was told: {message}");
    }
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
    let journal = journal(&rig);
    assert_eq!(full_copies(&journal), 2, "{journal}");
    assert!(journal.contains("the source is not connected"), "{journal}");
}

#[test]
fn a_source_that_comes_back_empty_does_not_empty_the_target() {
    let mut rig = followed(server(Kind::Redis, false), server(Kind::Redis, false));
    rig.advance_to("test");
    rig.drained();
    let keys = contents(&mut rig.target.connection()).len();
    rig.source.down();
    rig.source.up();
    until("the reason in the journal", STEP, || {
        let journal = journal(&rig);
        if journal.contains("lost data") { Ok(()) } else { Err(journal) }
    });
    // The approval may be refused too.
    let approve = ["migration", "approve", MIGRATION, "--scope", "migrate", "--by", "tester", "--reason", "test"];
    let _ = rig.proxy.cli(&approve);
    let _ = rig.proxy.cli(&["migration", "advance", MIGRATION, "--to", "migrate"]);
    // Looked at for as long as several attempts of the feed take: nothing may change, so there is no event to wait for.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::time::Instant::now() < end {
        let now = rig.proxy.show(MIGRATION);
        assert_eq!(now["authority"], "source", "{now}");
        let left = contents(&mut rig.target.connection()).len();
        assert!(left >= keys, "{left} of {keys} keys are left");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
