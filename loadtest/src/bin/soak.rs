//! Many random histories beside a replication feed, and many kills of the proxy: `make soak`. One line for each seed; exits 1 when one failed.
//!
//! `SEEDS` (20) and `SECONDS_EACH` (30) say how much; `CROSSFADE_SEED` is the first seed.

use std::process::ExitCode;
use std::time::Duration;

use crossfade_loadtest::feed_faults::kills_of_the_proxy;
use crossfade_loadtest::feed_history::{Plan, history, what};
use crossfade_loadtest::server::Kind;

const PROXY_KILLS: usize = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
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
    match std::thread::spawn(move || kills_of_the_proxy(first, PROXY_KILLS)).join() {
        Ok(before) => {
            println!("seed {first}: {PROXY_KILLS} kills of the proxy, {before} before the authority had changed")
        }
        Err(panic) => {
            failed += 1;
            println!("seed {first}: {PROXY_KILLS} kills of the proxy: FAILED: {}", what(&*panic));
        }
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
