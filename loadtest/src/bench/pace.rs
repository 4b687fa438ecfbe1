//! When requests are due. Pure: a seed and a rate give due times in nanoseconds from the start; this file does
//! not know whether replies keep up, which is what makes the loop open.

/// How arrivals are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Independent arrivals with exponential gaps, like those of many independent users.
    Poisson,
    /// Equal gaps.
    Uniform,
}

/// A small generator (xorshift64*): reproducible, and cheap beside a request.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The state must not be zero, and similar seeds must not give similar numbers.
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(mixed | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In `0..limit`; `limit` is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }
}

/// An endless series of due times.
#[derive(Debug, Clone)]
pub struct Pacer {
    spacing: Spacing,
    gap_ns: f64,
    next_ns: f64,
    random: Random,
}

impl Pacer {
    /// `per_second` arrivals, the first one gap after `start_ns`.
    ///
    /// # Panics
    /// When the rate is not positive.
    #[must_use]
    pub fn new(spacing: Spacing, per_second: f64, start_ns: u64, seed: u64) -> Self {
        assert!(per_second > 0.0, "a rate is positive, not {per_second}");
        let mut pacer = Self { spacing, gap_ns: 1e9 / per_second, next_ns: start_ns as f64, random: Random::new(seed) };
        pacer.step();
        pacer
    }

    /// The next due time that has not been taken.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Takes the next due time if it is not after `now_ns` and before `end_ns`.
    pub fn take(&mut self, now_ns: u64, end_ns: u64) -> Option<u64> {
        let due = self.due_ns();
        if due > now_ns || due >= end_ns {
            return None;
        }
        self.step();
        Some(due)
    }

    fn step(&mut self) {
        self.next_ns += match self.spacing {
            Spacing::Uniform => self.gap_ns,
            // 1 - u is in (0, 1]: the logarithm is finite.
            Spacing::Poisson => -(1.0 - self.random.unit()).ln() * self.gap_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pacer: &mut Pacer, end: u64) -> Vec<u64> {
        std::iter::from_fn(|| pacer.take(u64::MAX, end)).collect()
    }

    #[test]
    fn equal_gaps_are_equal_and_do_not_drift() {
        let times = all(&mut Pacer::new(Spacing::Uniform, 3.0, 500, 1), 100_000_000_000);
        assert_eq!(times.len(), 299);
        assert!(times.windows(2).all(|pair| (333_333_333..=333_333_334).contains(&(pair[1] - pair[0]))), "{times:?}");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_poisson_arrivals() {
        let times = all(&mut Pacer::new(Spacing::Poisson, 50_000.0, 0, 7), 4_000_000_000);
        let count = times.len() as f64;
        assert!((count - 200_000.0).abs() < 5.0 * 200_000f64.sqrt(), "{count} arrivals in 4 s");
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{}", variance.sqrt() / mean);
        assert!(times.is_sorted());
    }

    #[test]
    fn nothing_is_given_before_it_is_due_and_all_that_is_overdue_at_once() {
        let mut pacer = Pacer::new(Spacing::Uniform, 1000.0, 0, 1);
        assert_eq!(pacer.take(999_999, u64::MAX), None);
        assert_eq!(pacer.take(1_000_000, u64::MAX), Some(1_000_000));
        assert_eq!(pacer.take(1_000_000, u64::MAX), None);
        // After a stall of 10 ms ten requests are due, each with its own due time.
        let owed: Vec<u64> = std::iter::from_fn(|| pacer.take(11_000_000, u64::MAX)).collect();
        assert_eq!(owed.len(), 10);
        assert_eq!((owed[0], owed[9]), (2_000_000, 11_000_000));
        assert_eq!(pacer.take(u64::MAX, 12_000_000), None, "nothing is due at or after the end");
    }

    #[test]
    fn numbers_are_spread_and_reproducible() {
        let mut random = Random::new(3);
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[random.below(10) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(Random::new(3).number(), Random::new(3).number());
        assert_ne!(Random::new(3).number(), Random::new(4).number());
    }
}
