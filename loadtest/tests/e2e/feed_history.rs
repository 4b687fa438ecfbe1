//! A random history on a hot keyspace, kept in step by the replication feed: see `crossfade_loadtest::feed_history`. `make soak` runs more of them, longer, and
//! with kills.

use std::time::Duration;

use crossfade_loadtest::feed_history::{Plan, history};
use crossfade_loadtest::history::seed;
use crossfade_loadtest::server::Kind;

const DURATION: Duration = Duration::from_secs(15);

#[test]
fn random_commands_through_flips_and_lags_leave_both_servers_equal() {
    let plan = Plan { seed: seed(), target: Kind::Redis, duration: DURATION, kills: false };
    let figures = history(plan).unwrap_or_else(|why| panic!("{why}"));
    eprintln!("{figures}");
}
