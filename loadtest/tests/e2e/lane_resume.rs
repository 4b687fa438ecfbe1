//! Killed with -9 and started again beside a lane: what is not known to be on the shadow is copied again, nothing else, and nothing acknowledged is lost.

use std::time::Duration;

use crossfade_loadtest::feed_faults::journal;
use crossfade_loadtest::feed_history::{full_copies, server};
use crossfade_loadtest::history::seed;
use crossfade_loadtest::lane_faults::{gone_on, kept_by_lane, kills_of_the_proxy, kills_with_a_late_shadow};
use crossfade_loadtest::rig::{MIGRATION, Writers};
use crossfade_loadtest::server::Kind;

#[test]
fn kill_9_of_the_proxy_copies_only_what_is_in_doubt() {
    let copied = kills_of_the_proxy(seed(), 4);
    eprintln!("values copied after each kill: {copied:?}");
}

#[test]
fn kill_9_of_the_proxy_beside_a_late_shadow_knows_what_it_has_missed() {
    let doubts = kills_with_a_late_shadow(seed(), 5, Duration::from_millis(60));
    eprintln!("keys in doubt after each kill: {doubts:?}");
    assert!(doubts.iter().any(|doubts| *doubts > 10), "the shadow was not late: {doubts:?}");
}

/// What the log does not know of is copied: another process of a server, a log that is gone or damaged.
#[test]
fn what_the_log_cannot_cover_costs_a_full_pass_and_says_why() {
    let mut rig = kept_by_lane(server(Kind::Redis, true), server(Kind::Redis, true));
    rig.advance_to("compare");
    rig.drained();
    let writers = Writers::start(rig.proxy.port, 2);
    let log = rig.proxy.data().join("intents/orders");
    let damage = |at: usize| {
        let mut bytes = std::fs::read(&log).expect("an intent log");
        bytes[at..at + 8].fill(0xff);
        std::fs::write(&log, bytes).expect("an intent log");
    };
    let begin: usize = 8 * 2;
    let reasons: [(&str, &dyn Fn()); 4] = [
        ("there is none", &|| std::fs::remove_file(&log).expect("an intent log")),
        ("bytes and not", &|| std::fs::write(&log, b"short").expect("an intent log")),
        ("it is no intent log", &|| damage(0)),
        ("it ends at", &|| damage(begin)),
    ];
    for (count, (reason, act)) in reasons.into_iter().enumerate() {
        writers.progress(100);
        rig.proxy.kill();
        act();
        rig.proxy.up();
        writers.progress(100);
        gone_on(&rig);
        let journal = journal(&rig);
        assert!(journal.contains(reason), "{reason}: {journal}");
        assert_eq!(full_copies(&journal), 2 + count, "{journal}");
    }
    writers.progress(100);
    rig.proxy.kill();
    rig.target.down();
    rig.target.up();
    rig.proxy.up();
    writers.progress(100);
    drop(writers.finish());
    rig.drained();
    rig.assert_equal();
    let journal = journal(&rig);
    assert!(journal.contains("the target is another server process than before"), "{journal}");
}

/// What scripts write to keys that they do not declare, the lane does not see: neither way may the authority change until a comparison that began after
/// their last run was clean.
#[test]
fn going_back_waits_for_what_scripts_wrote_undeclared() {
    const ADD: &str = "redis.call('HSET',ARGV[1],'data','payload');redis.call('RPUSH',KEYS[1],ARGV[1])";
    let rig = kept_by_lane(server(Kind::Redis, false), server(Kind::Redis, false));
    let add = |jobs: std::ops::Range<u32>| {
        let mut client = rig.proxy.connection();
        for n in jobs {
            let _: () = redis::cmd("EVAL")
                .arg(ADD)
                .arg(1)
                .arg("queue")
                .arg(format!("job:{n}"))
                .query(&mut client)
                .expect("added");
        }
    };
    rig.advance_to("compare");
    rig.drained();
    add(0..20);
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.make_a_flip_due(&rig.proxy.show(MIGRATION));
    rig.authority("target");
    add(20..40);
    rig.rollback();
    rig.authority("source");
    let mut source = rig.source.connection();
    for n in 0..40 {
        let data: Option<String> =
            redis::cmd("HGET").arg(format!("job:{n}")).arg("data").query(&mut source).expect("HGET");
        assert_eq!(data.as_deref(), Some("payload"), "job:{n} after going back");
    }
}
