//! Many random histories beside a replication feed, many kills of the proxy, the source and the target, and a source with ten million keys: `make soak`. One
//! line for each; exits 1 when one failed.
//!
//! `SEEDS` (20) and `SECONDS_EACH` (30) say how much; `CROSSFADE_SEED` is the first seed. `PARTS` (histories,kills,large) says which of them; `KEYS` (10 million)
//! and `ELEMENTS` (5 million) how large.

use std::process::ExitCode;
use std::time::Duration;

use crossfade_loadtest::feed_faults::{kills_of_the_proxy, kills_of_the_source, kills_of_the_target};
use crossfade_loadtest::feed_history::{Plan, history, what};
use crossfade_loadtest::large::{Size, large};
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
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "histories,kills,large".to_owned());
    let wanted = |part: &str| parts.split(',').any(|one| one == part);
    let first = number("CROSSFADE_SEED", 1);
    let mut failed = 0;
    if wanted("histories") {
        failed += histories(first);
    }
    if wanted("kills") {
        failed += kills(first);
    }
    if wanted("large") {
        let size = Size { keys: number("KEYS", 10_000_000), elements: number("ELEMENTS", 5_000_000) };
        failed += told("large", std::thread::spawn(move || large(size).to_string()).join());
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many failed.
fn histories(first: u64) -> usize {
    let duration = Duration::from_secs(number("SECONDS_EACH", 30));
    let valkey = Kind::Valkey.binary().is_ok();
    let mut failed = 0;
    for seed in first..first + number("SEEDS", 20) {
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
    failed
}

fn kills(first: u64) -> usize {
    let kinds: [(&str, Kills); 5] = [
        ("of the proxy", |seed| format!("{} before the authority had changed", kills_of_the_proxy(seed, PROXY_KILLS))),
        ("of proxy and source", |seed| of_the_source(seed, "source")),
        ("of proxy and source, write_consistency both", |seed| of_the_source(seed, "both")),
        ("of the target", |seed| of_the_target(seed, "source")),
        ("of the target, write_consistency both", |seed| of_the_target(seed, "both")),
    ];
    let run = |(which, kill): (&str, Kills)| {
        told(&format!("seed {first}: kills {which}"), std::thread::spawn(move || kill(first)).join())
    };
    kinds.into_iter().map(run).sum()
}

/// Tells an outcome; 1 if it failed.
fn told(which: &str, outcome: std::thread::Result<String>) -> usize {
    match outcome {
        Ok(figures) => println!("{which}: {figures}"),
        Err(panic) => {
            println!("{which}: FAILED: {}", what(&*panic));
            return 1;
        }
    }
    0
}
