//! A histogram of durations: buckets that grow by an eighth to a quarter, so that a percentile is right to within 25 %. One thread.
//!
//! The owner chooses the unit; the name of the field says which (`latency_us`, `call_ns`).

/// Buckets per doubling.
const STEPS: u64 = 4;
/// Up to 2^40: twelve days of microseconds; longer ones count there.
const BUCKETS: usize = 40 * STEPS as usize;

/// Weighted values.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0, sum: 0, max: 0 }
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
    /// Adds the values of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *own += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// What was recorded since `before`, an earlier copy of this one. The maximum is that of the bucket the largest fell into.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut past = Self::default();
        for (at, (now, then)) in self.buckets.iter().zip(before.buckets.iter()).enumerate() {
            let new = now.saturating_sub(*then);
            past.buckets[at] = new;
            past.count += new;
            if new > 0 {
                past.max = upper(at).min(self.max);
            }
        }
        past.sum = self.sum.saturating_sub(before.sum);
        past
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts a value `weight` times.
    pub fn record(&mut self, value: u64, weight: u64) {
        self.buckets[bucket(value)] += weight;
        self.count += weight;
        self.sum += u128::from(value) * u128::from(weight);
        self.max = self.max.max(value);
    }

    #[must_use]
    pub fn sum(&self) -> u128 {
        self.sum
    }

    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// 0 when nothing was recorded.
    #[must_use]
    pub fn mean(&self) -> u64 {
        u64::try_from(self.sum / u128::from(self.count.max(1))).unwrap_or(u64::MAX)
    }

    /// The value that `per_hundred` of a hundred do not exceed, rounded up to its bucket's end; 0 when nothing was recorded.
    #[must_use]
    pub fn percentile(&self, per_hundred: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(per_hundred.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return upper(at).min(self.max);
            }
        }
        self.max
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
    fn since_returns_only_what_was_recorded_later() {
        let mut times = Histogram::default();
        times.record(1000, 5);
        let before = times.clone();
        times.record(10, 3);
        let since = times.since(&before);
        assert_eq!((since.count(), since.sum(), since.percentile(99)), (3, 30, 11));
        let mut both = before;
        both.add(&since);
        assert_eq!((both.count(), both.sum()), (times.count(), times.sum()));
    }

    #[test]
    fn percentiles_follow_the_weights() {
        let mut times = Histogram::default();
        assert_eq!((times.mean(), times.percentile(99), times.max()), (0, 0, 0));
        times.record(100, 98);
        times.record(10_000, 2);
        assert_eq!((times.mean(), times.max()), (298, 10_000));
        assert!((100..=125).contains(&times.percentile(50)), "{}", times.percentile(50));
        assert_eq!(times.percentile(99), 10_000);
    }
}
