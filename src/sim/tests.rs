//! Seeds, ablations, and the seeds that once found something.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ablations::Ablation;
use crate::limits;
use crate::run::{Outcome, run};

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What many seeds came to.
#[derive(Debug, Default)]
struct Played {
    seeds: u64,
    flips: usize,
    acknowledged: usize,
    operations: usize,
    lives: u64,
    /// Those that found something.
    found: Vec<(u64, Outcome)>,
}

/// Plays seeds on all processors, in order, until `enough` of them have found something.
fn play(seeds: Range<u64>, ablation: Ablation, enough: usize) -> Played {
    let next = AtomicU64::new(seeds.start);
    let played = Mutex::new(Played::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || played.lock().expect("no panic").found.len() >= enough {
                return;
            }
            let outcome = run(seed, ablation);
            let mut played = played.lock().expect("no panic");
            played.seeds += 1;
            played.flips += outcome.flips;
            played.acknowledged += outcome.acknowledged;
            played.operations += outcome.operations;
            played.lives += outcome.lives;
            if !outcome.violations.is_empty() {
                played.found.push((seed, outcome));
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    played.into_inner().expect("no panic")
}

/// `SEEDS=n`: so many. `CROSSFADE_SEED=n`: this one; with `SEEDS`, from this one on.
#[test]
fn seeds() {
    let (first, count) = (number_of("CROSSFADE_SEED"), number_of("SEEDS"));
    if let (Some(seed), None) = (first, count) {
        assert_eq!(run(seed, Ablation::Nothing).violations, Vec::<String>::new(), "CROSSFADE_SEED={seed}");
        return;
    }
    let (first, count) = (first.unwrap_or(0), count.unwrap_or(limits::SEEDS));
    let played = play(first..first + count, Ablation::Nothing, limits::FOUND_ENOUGH);
    let Played { seeds, flips, acknowledged, operations, lives, found } = played;
    found.iter().for_each(|(seed, outcome)| println!("CROSSFADE_SEED={seed}: {outcome:#?}"));
    println!("{seeds} seeds: {flips} flips, {lives} lives, {acknowledged} of {operations} operations acknowledged");
    assert!(found.is_empty(), "{} of {seeds} seeds found something", found.len());
    // A simulation in which nothing happens would find nothing.
    assert!(flips as u64 >= seeds / 2 && lives > seeds, "{flips} flips and {lives} lives in {seeds} seeds");
    assert!(acknowledged * 10 > operations * 9, "{acknowledged} of {operations} operations were acknowledged");
}

/// Seeds that found something in the product, and what it was. With other limits, or another product, a seed is another history; what is written here
/// was found by several seeds each.
const CASES: &[(u64, &str)] = &[
    (73, "SET KEEPTTL of a key that the shadow had lost behind a flip left it there without a deadline"),
    (87, "PERSIST of a key that a late shadow had lost and made anew: it was not copied again"),
    (
        109,
        "an old authority that restarted within the exchange had the new one filled anew, with deadlines of the first copy",
    ),
    (154, "PERSIST of a key that a late shadow had lost: seen when everything rests"),
    (215, "an old authority that restarted within the exchange: the other database"),
    (218, "PERSIST of a key that a late shadow had lost: seen at the next flip, and by clients behind it"),
    (316, "two clients of one core, blocked on one list, were put out of order by a flip: their connections differ"),
    (1715, "the same, on the other core"),
    (2697, "a key whose time had come at the old authority lived on at the new one: seen by a comparison"),
    (4221, "the same: behind the next flip what was written to it met what it had held before"),
    (5546, "the same: a list"),
    (
        10687,
        "an old authority that died within the exchange: what its feed had under way was executed behind what clients wrote to the new one",
    ),
];

#[test]
fn cases_that_were_repaired() {
    for (seed, what) in CASES {
        assert_eq!(run(*seed, Ablation::Nothing).violations, Vec::<String>::new(), "seed {seed}: {what}");
    }
}

/// Each part that is left out is found out, on a seed that finds nothing when it is there.
fn is_caught(ablation: Ablation) {
    let played = play(0..limits::ABLATION_SEEDS, ablation, 1);
    let found = played.found.iter().min_by_key(|(seed, _)| *seed);
    let (seed, outcome) = found.unwrap_or_else(|| panic!("{ablation:?} was not noticed in {} seeds", played.seeds));
    println!("{ablation:?} is noticed at seed {seed}: {}", outcome.violations[0]);
    assert_eq!(run(*seed, Ablation::Nothing).violations, Vec::<String>::new(), "nothing is left out, seed {seed}");
}

#[test]
fn naive_dual_write_is_caught() {
    is_caught(Ablation::NaiveDualWrite);
}

#[test]
fn deadlines_without_grace_are_caught() {
    is_caught(Ablation::NoGrace);
}

#[test]
fn a_position_outside_of_the_transaction_is_caught() {
    is_caught(Ablation::PositionApart);
}

#[test]
fn a_flip_without_a_drain_is_caught() {
    is_caught(Ablation::FlipWithoutDrain);
}

#[test]
fn a_way_back_that_begins_late_is_caught() {
    is_caught(Ablation::ReverseLate);
}

#[test]
fn a_seed_gives_one_run() {
    for seed in 0..4 {
        let [first, second] = [(); 2].map(|()| run(seed, Ablation::Nothing));
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}
