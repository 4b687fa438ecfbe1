//! A histogram of durations: buckets that grow by an eighth to a quarter, so that a percentile is right to within 25 %. One thread.

/// Buckets per doubling.
const STEPS: u64 = 4;
/// Up to 2^40 microseconds, twelve days; longer ones count there.
const BUCKETS: usize = 40 * STEPS as usize;

/// Microseconds, weighted.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum_us: u128,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, sum_us: 0, max_us: 0 }
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return usize::try_from(value).unwrap_or(0);
    }
    let octave = u64::from(value.ilog2());
    // The two bits after the leading one choose the step.
    let step = (value >> (octave - 2)) & (STEPS - 1);
    usize::try_from((octave - 1) * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (octave, step) = (bucket / STEPS + 1, bucket % STEPS);
    ((STEPS + step + 1) << (octave - 2)) - 1
}

impl Histogram {
    /// Counts a value as many times as it stands for.
    pub fn record(&mut self, value_us: u64, weight: u64) {
        self.buckets[bucket(value_us)] += weight;
        self.count += weight;
        self.sum_us += u128::from(value_us) * u128::from(weight);
        self.max_us = self.max_us.max(value_us);
    }

    #[must_use]
    pub fn sum_us(&self) -> u128 {
        self.sum_us
    }

    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// 0 when nothing was recorded.
    #[must_use]
    pub fn mean_us(&self) -> u64 {
        u64::try_from(self.sum_us / u128::from(self.count.max(1))).unwrap_or(u64::MAX)
    }

    /// The value that `per_hundred` of a hundred do not exceed, rounded up to its bucket's end; 0 when nothing was recorded.
    #[must_use]
    pub fn percentile_us(&self, per_hundred: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(per_hundred.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return upper(at).min(self.max_us);
            }
        }
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_not_much_larger() {
        let mut value = 0_u64;
        while value < 1 << 39 {
            let end = upper(bucket(value));
            assert!(end >= value && end - value <= value / 4, "{value} {end}");
            assert!(bucket(value) <= bucket(value + 1) && bucket(end + 1) == bucket(value) + 1);
            value = value * 9 / 8 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_follow_the_weights() {
        let mut times = Histogram::default();
        assert_eq!((times.mean_us(), times.percentile_us(99), times.max_us()), (0, 0, 0));
        times.record(100, 98);
        times.record(10_000, 2);
        assert_eq!((times.mean_us(), times.max_us()), (298, 10_000));
        assert!((100..=125).contains(&times.percentile_us(50)), "{}", times.percentile_us(50));
        assert_eq!(times.percentile_us(99), 10_000);
    }
}
