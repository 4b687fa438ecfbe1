//! Random histories on a hot keyspace, kept in step by the replication feed: see `crossfade_loadtest::feed_history`. `make soak` runs more of them.

use std::time::Duration;

use crossfade_loadtest::feed_history::{Plan, history};
use crossfade_loadtest::history::seed;
use crossfade_loadtest::server::Kind;

const DURATION: Duration = Duration::from_secs(15);

fn play(kills: bool) {
    let plan = Plan { seed: seed(), target: Kind::Redis, duration: DURATION, kills };
    let figures = history(plan).unwrap_or_else(|why| panic!("{why}"));
    eprintln!("{figures}");
}

#[test]
fn random_commands_through_flips_and_lags_leave_both_servers_equal() {
    play(false);
}

#[test]
fn random_commands_through_flips_lags_and_kills_leave_both_servers_equal() {
    play(true);
}
