//! Many random histories beside a replication feed, and many kills of the proxy, the source and the target: `make soak`. One line for each seed; exits 1 when one failed.
//!
//! `SEEDS` (20) and `SECONDS_EACH` (30) say how much; `CROSSFADE_SEED` is the first seed.

use std::process::ExitCode;
use std::time::Duration;

use crossfade_loadtest::feed_faults::{kills_of_the_proxy, kills_of_the_source, kills_of_the_target};
use crossfade_loadtest::feed_history::{Plan, history, what};
use crossfade_loadtest::server::Kind;

const PROXY_KILLS: usize = 50;
const SERVER_KILLS: usize = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

type Kills = fn(u64) -> String;

/// # Panics
/// When something is lost that both had to have.
fn of_the_source(seed: u64, consistency: &'static str) -> String {
    let found = kills_of_the_source(seed, SERVER_KILLS, consistency);
    let (lost, written) = found.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert!(consistency == "source" || lost == 0, "{lost} of {written} acknowledged writes are not on the target");
    format!("{SERVER_KILLS}; {lost} of {written} acknowledged writes are not on the target")
}

fn of_the_target(seed: u64, consistency: &'static str) -> String {
    kills_of_the_target(seed, SERVER_KILLS, consistency);
    format!("{SERVER_KILLS}; nothing lost, nothing copied again")
}

fn main() -> ExitCode {
    let (first, seeds) = (number("CROSSFADE_SEED", 1), number("SEEDS", 20));
    let duration = Duration::from_secs(number("SECONDS_EACH", 30));
    let valkey = Kind::Valkey.binary().is_ok();
    let mut failed = 0;
    for seed in first..first + seeds {
        let target = if valkey && seed % 4 == 3 { Kind::Valkey } else { Kind::Redis };
        let plan = Plan { seed, target, duration, kills: seed % 2 == 0 };
        // In a thread of its own, with which its servers end.
        let outcome = std::thread::spawn(move || history(plan)).join().unwrap_or_else(|panic| Err(what(&*panic)));
        let how = if plan.kills { "with kills" } else { "calm" };
        match outcome {
            Ok(figures) => println!("seed {seed}, to {target:?}, {how}: {figures}"),
            Err(why) => {
                failed += 1;
                println!("seed {seed}, to {target:?}, {how}: FAILED: {why}");
            }
        }
    }
    let kills: [(&str, Kills); 5] = [
        ("of the proxy", |seed| format!("{} before the authority had changed", kills_of_the_proxy(seed, PROXY_KILLS))),
        ("of proxy and source", |seed| of_the_source(seed, "source")),
        ("of proxy and source, write_consistency both", |seed| of_the_source(seed, "both")),
        ("of the target", |seed| of_the_target(seed, "source")),
        ("of the target, write_consistency both", |seed| of_the_target(seed, "both")),
    ];
    for (which, kill) in kills {
        match std::thread::spawn(move || kill(first)).join() {
            Ok(figures) => println!("seed {first}: kills {which}: {figures}"),
            Err(panic) => {
                failed += 1;
                println!("seed {first}: kills {which}: FAILED: {}", what(&*panic));
            }
        }
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
