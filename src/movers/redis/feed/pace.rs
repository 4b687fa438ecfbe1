//! How fast a snapshot is read, so that the source's answers to others stay quick. Pure: time is an argument.
//!
//! The source is asked for nothing (PING) again and again on a connection of its own. When the slowest hundredth of the answers takes longer than
//! the bound, half as much of the snapshot is read in a second; when they are well within it, a quarter more. Reading slower is what relieves the
//! source: it copies less to the socket, and a shadow on the same machine has less to do.

use std::collections::VecDeque;
use std::time::Duration;

use base::model::limits;

/// See the head of this file.
#[derive(Debug)]
pub struct Pace {
    /// 0: none.
    bound_us: u64,
    /// Bytes in a second; `None`: as fast as they come.
    rate: Option<u64>,
    /// The last answers, the newest behind.
    took_us: VecDeque<u64>,
    /// How many of them came since the last decision.
    fresh: usize,
    /// When the next piece may be read.
    due: Duration,
}

impl Pace {
    #[must_use]
    pub fn new(bound_us: u64) -> Self {
        Self { bound_us, rate: None, took_us: VecDeque::new(), fresh: 0, due: Duration::ZERO }
    }

    /// The source has answered.
    pub fn answered(&mut self, took_us: u64) {
        if self.took_us.len() >= limits::PACE_ANSWERS_MAX {
            self.took_us.pop_front();
        }
        self.took_us.push_back(took_us);
        self.fresh = (self.fresh + 1).min(self.took_us.len());
    }

    /// Of the last answers; 0 before the first.
    #[must_use]
    pub fn p99_us(&self) -> u64 {
        p99(self.took_us.iter().copied().collect())
    }

    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Decides anew, each [`limits::PACE_STEP`]. `waiting_us`: how long an answer is being waited for; `read`: bytes read in the last second.
    pub fn decide(&mut self, waiting_us: u64, read: u64) {
        if self.bound_us == 0 {
            return;
        }
        let slowest = p99(self.took_us.iter().rev().take(self.fresh).copied().collect()).max(waiting_us);
        let nothing_known = self.fresh == 0 && waiting_us == 0;
        self.fresh = 0;
        if nothing_known {
            return;
        }
        if slowest > self.bound_us {
            let half = self.rate.map_or(read, |rate| rate.min(read.max(limits::PACE_RATE_MIN))) / 2;
            self.rate = Some(half.max(limits::PACE_RATE_MIN));
        } else if slowest <= self.bound_us / 4 * 3 {
            // What is not used up is no limit.
            self.rate = self.rate.map(|rate| rate + rate / 4).filter(|rate| *rate / 4 <= read);
        }
    }

    /// So many bytes were read; how long to wait before the next.
    pub fn pause(&mut self, now: Duration, bytes: u64) -> Duration {
        let Some(rate) = self.rate else {
            self.due = now;
            return Duration::ZERO;
        };
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1));
        self.due = self.due.max(now) + takes;
        self.due - now
    }
}

fn p99(mut took_us: Vec<u64>) -> u64 {
    took_us.sort_unstable();
    let at = (took_us.len() * 99).div_ceil(100).saturating_sub(1);
    took_us.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND_US: u64 = 25_000;
    const FAST: u64 = 100 * 1024 * 1024;

    fn answers(pace: &mut Pace, count: usize, took_us: u64) {
        (0..count).for_each(|_| pace.answered(took_us));
    }

    #[test]
    fn a_slow_source_is_read_half_as_fast_and_then_faster_again() {
        let mut pace = Pace::new(BOUND_US);
        answers(&mut pace, 50, 1000);
        pace.decide(0, FAST);
        assert_eq!((pace.rate(), pace.p99_us()), (None, 1000));
        answers(&mut pace, 50, BOUND_US + 1);
        pace.decide(0, FAST);
        assert_eq!(pace.rate(), Some(FAST / 2));
        answers(&mut pace, 50, BOUND_US + 1);
        pace.decide(0, FAST / 2);
        assert_eq!(pace.rate(), Some(FAST / 4));
        // Between the bound and three quarters of it nothing changes.
        answers(&mut pace, 50, BOUND_US - 1);
        pace.decide(0, FAST / 4);
        assert_eq!(pace.rate(), Some(FAST / 4));
        answers(&mut pace, 50, 1000);
        pace.decide(0, FAST / 4);
        assert_eq!(pace.rate(), Some(FAST / 4 + FAST / 16));
        // A rate that is not used up is forgotten.
        answers(&mut pace, 50, 1000);
        pace.decide(0, FAST / 64);
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn a_source_that_does_not_answer_at_all_is_slow_and_it_is_never_left_alone() {
        let mut pace = Pace::new(BOUND_US);
        for _ in 0..40 {
            pace.decide(BOUND_US * 10, FAST);
        }
        assert_eq!(pace.rate(), Some(limits::PACE_RATE_MIN));
        // Without any answer there is nothing to decide on.
        pace.decide(0, FAST);
        assert_eq!(pace.rate(), Some(limits::PACE_RATE_MIN));
    }

    #[test]
    fn one_slow_answer_in_a_hundred_is_no_slow_source() {
        let mut pace = Pace::new(BOUND_US);
        answers(&mut pace, 199, 500);
        pace.answered(BOUND_US * 4);
        pace.decide(0, FAST);
        assert_eq!((pace.rate(), pace.p99_us()), (None, 500));
    }

    #[test]
    fn without_a_bound_it_is_only_measured() {
        let mut pace = Pace::new(0);
        answers(&mut pace, 10, 9_000_000);
        pace.decide(9_000_000, FAST);
        assert_eq!((pace.rate(), pace.p99_us()), (None, 9_000_000));
        assert_eq!(pace.pause(Duration::from_secs(1), FAST), Duration::ZERO);
    }

    #[test]
    fn pieces_are_spread_over_time() {
        let mut pace = Pace::new(BOUND_US);
        answers(&mut pace, 1, BOUND_US * 2);
        pace.decide(0, 20 * limits::PACE_RATE_MIN);
        assert_eq!(pace.rate(), Some(10 * limits::PACE_RATE_MIN));
        let second = Duration::from_secs(1);
        assert_eq!(pace.pause(second, limits::PACE_RATE_MIN), second / 10);
        assert_eq!(pace.pause(second, limits::PACE_RATE_MIN), second / 5, "the first is still being waited for");
        assert_eq!(pace.pause(second * 9, limits::PACE_RATE_MIN), second / 10, "no credit for the time between");
    }
}
