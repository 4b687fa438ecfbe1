//! Random histories: which commands there are, what each client does with them, and who checks the replies. Everything is chosen by a seed, so that
//! `CROSSFADE_SEED` repeats a history's choices.

pub mod commands;
pub mod judge;
pub mod load;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::contents;
use crate::rig::Rig;
use crate::wait::until;

/// SplitMix64: small, seeded, good enough to choose commands.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// `CROSSFADE_SEED`, or another one each time; printed.
#[must_use]
pub fn seed() -> u64 {
    let seed = std::env::var("CROSSFADE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64));
    eprintln!("CROSSFADE_SEED={seed}");
    seed
}

/// Waits until short-lived keys have expired on both servers, so that none expires between reading one and the other.
pub fn settle_deadlines(rig: &Rig) {
    const NEAR_MS: i64 = 20_000;
    until("short lives to end", Duration::from_secs(40), || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        for server in [&rig.source, &rig.target] {
            let all = contents(&mut server.connection());
            let near = all.iter().find(|(_, held)| (0..now + NEAR_MS).contains(&held.deadline_ms));
            if let Some(((database, key), held)) = near {
                let left = held.deadline_ms - now;
                return Err(format!("db {database} {} has {left} ms to live", key.escape_ascii()));
            }
        }
        Ok(())
    });
}
