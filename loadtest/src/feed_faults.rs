//! Kills of the proxy, of the source and of the target beside a replication feed, at instants chosen by a seed, while writers count.

use crate::feed_history::{full_copies, server};
use crate::history::Random;
use crate::rig::{MIGRATION, REPLICATION, Rig, Writers, fill, losses};
use crate::server::{Kind, RealServer};

/// A rig whose target is kept in step by a replication feed, with something in the source.
#[must_use]
pub fn followed(source: RealServer, target: RealServer) -> Rig {
    followed_with(source, target, "source")
}

/// The same with this `write_consistency`.
#[must_use]
pub fn followed_with(source: RealServer, target: RealServer, consistency: &'static str) -> Rig {
    let rig = Rig { feed: REPLICATION, consistency, ..Rig::of(source, target) };
    fill(&mut rig.source.connection(), 300);
    rig.create();
    rig
}

/// What the journal says of a migration.
#[must_use]
pub fn journal(rig: &Rig) -> String {
    rig.proxy.cli(&["migration", "events", MIGRATION]).stdout
}

/// Asks for a flip, kills the proxy somewhere on the way, and waits for it to be done by itself; so often. How often the kill came before the
/// authority had changed.
///
/// # Panics
/// When something acknowledged is lost, the servers differ, or a key is copied again.
#[must_use]
pub fn kills_of_the_proxy(seed: u64, kills: usize) -> usize {
    let mut random = Random(seed);
    let mut rig = followed(server(Kind::Redis, true), server(Kind::Redis, true));
    let writers = Writers::start(rig.proxy.port, 3);
    rig.advance_to("compare");
    // From here on nothing may be copied again.
    rig.in_step();
    let mut before_the_change = 0;
    for _ in 0..kills {
        let before = rig.proxy.show(MIGRATION);
        let side = if before["authority"] == "target" { "source" } else { "target" };
        rig.make_a_flip_due(&before);
        // Soon after it is due, or when it may be under way or done.
        let span = random.pick(&[300, 3000, 10_000]);
        writers.progress(1 + random.below(span));
        rig.proxy.kill();
        rig.proxy.up();
        before_the_change += usize::from(rig.proxy.show(MIGRATION)["authority"] != side);
        writers.progress(10);
        rig.authority(side);
    }
    assert_continued(&rig, writers);
    before_the_change
}

/// Nothing acknowledged is lost, the servers are equal, no comparison has found a difference, and only the first copy was of every key. What the journal
/// says.
///
/// # Panics
/// When that is not so.
pub fn assert_continued(rig: &Rig, writers: Writers) -> String {
    writers.progress(100);
    let known = writers.finish();
    let now = rig.drained();
    rig.assert_equal();
    let authority = if now["authority"] == "target" { &rig.target } else { &rig.source };
    assert_eq!(losses(&mut authority.connection(), &known), Vec::<String>::new());
    assert_eq!(now["divergences_found"], 0, "{now}");
    let journal = journal(rig);
    assert_eq!(full_copies(&journal), 1, "only the first copy is of every key: {journal}");
    journal
}

/// Kills the proxy and the source together and for ever, so often, each time others, while writers count: what the proxy had received and not passed
/// on is lost too. Of each time how many acknowledged writes the target does not
/// have, and how many it has.
///
/// # Panics
/// When the rig does not come up.
#[must_use]
pub fn kills_of_the_source(seed: u64, kills: usize, consistency: &'static str) -> Vec<(usize, usize)> {
    let mut random = Random(seed);
    let mut found = Vec::new();
    for _ in 0..kills {
        let mut rig = followed_with(server(Kind::Redis, false), server(Kind::Redis, false), consistency);
        rig.advance_to("compare");
        rig.drained();
        let writers = Writers::start(rig.proxy.port, 8);
        writers.progress(500 + random.below(3000));
        rig.proxy.kill();
        rig.source.down();
        let known = writers.finish();
        let written = known.iter().map(|writer| writer.tokens.len()).sum();
        found.push((losses(&mut rig.target.connection(), &known).len(), written));
    }
    found
}

/// Kills the target, which syncs every write, so often, and starts it again, while writers count.
///
/// # Panics
/// When something acknowledged is lost, the servers differ, or a key is copied again.
pub fn kills_of_the_target(seed: u64, kills: usize, consistency: &'static str) {
    let mut random = Random(seed);
    let mut rig = followed_with(server(Kind::Redis, true), server(Kind::Redis, true), consistency);
    let writers = Writers::start(rig.proxy.port, 3);
    rig.advance_to("compare");
    rig.in_step();
    for _ in 0..kills {
        writers.progress(1 + random.below(1000));
        rig.target.down();
        // With `both` nobody is answered before it is back.
        if consistency == "source" {
            writers.progress(1 + random.below(300));
        }
        rig.target.up();
        writers.progress(10);
    }
    let known = writers.finish();
    let now = rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.target.connection(), &known), Vec::<String>::new());
    assert_eq!(now["divergences_found"], 0, "{now}");
    let journal = journal(&rig);
    assert_eq!(full_copies(&journal), 1, "nothing is copied again: {journal}");
}
