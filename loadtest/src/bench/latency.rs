//! The outcome of requests: an HDR histogram of latencies from the intended send time, and counts. Pure.

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

/// Longest latency recorded: an hour; longer ones count as an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Nanoseconds in, microseconds out.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NS, SIGNIFICANT_DIGITS).expect("bounds of a histogram"))
    }
}

impl Latencies {
    /// Records a request that was due at `due_ns` and answered at `now_ns`.
    pub fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.0.saturating_record(now_ns.saturating_sub(due_ns).max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("same bounds");
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// `quantile` in 0..=1; 0 when nothing was recorded.
    #[must_use]
    pub fn us(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1000.0 }
    }

    #[must_use]
    pub fn max_us(&self) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.max() as f64 / 1000.0 }
    }

    #[must_use]
    pub fn summary(&self) -> Json {
        json!({
            "count": self.count(), "mean": round(self.0.mean() / 1000.0), "p50": round(self.us(0.5)), "p90": round(self.us(0.9)),
            "p99": round(self.us(0.99)), "p999": round(self.us(0.999)), "max": round(self.max_us()),
        })
    }

    /// Points of the percentile curve: `[quantile, microseconds, requests up to here]`, denser towards 1.
    #[must_use]
    pub fn curve(&self) -> Json {
        let mut upto = 0;
        let points = self.0.iter_quantiles(4).map(|step| {
            upto += step.count_since_last_iteration();
            json!([step.quantile_iterated_to(), round(step.value_iterated_to() as f64 / 1000.0), upto])
        });
        Json::Array(points.collect())
    }
}

/// Rounded to nanoseconds, the histogram's unit.
fn round(us: f64) -> f64 {
    (us * 1000.0).round() / 1000.0
}

/// The outcome of one run, or of one of its threads, in the measured window.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Seconds measured.
    pub seconds: f64,
    /// Requests due within the window.
    pub due: u64,
    /// Replies that arrived within the window, errors included.
    pub answered: u64,
    /// Of requests due within the window, from the intended send time. Requests without a reply count with the time waited.
    pub latencies: Latencies,
    /// From the intended to the actual hand-over to the kernel: the generator's own delay, and waiting for a full socket.
    pub lateness: Latencies,
    pub errors: u64,
    pub first_error: Option<String>,
    /// GETs of keys that do not exist.
    pub misses: u64,
    /// Due within the window and not answered when the run gave up.
    pub unanswered: u64,
    pub connections_lost: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.due += other.due;
        self.answered += other.answered;
        self.latencies.add(&other.latencies);
        self.lateness.add(&other.lateness);
        self.errors += other.errors;
        self.misses += other.misses;
        self.unanswered += other.unanswered;
        self.connections_lost += other.connections_lost;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }

    #[must_use]
    pub fn due_per_second(&self) -> f64 {
        self.due as f64 / self.seconds
    }

    #[must_use]
    pub fn reached_per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }

    #[must_use]
    pub fn json(&self) -> Json {
        json!({
            "measured_s": self.seconds, "due": self.due, "answered": self.answered,
            "due_per_s": self.due_per_second().round(), "reached_per_s": self.reached_per_second().round(),
            "errors": self.errors, "first_error": self.first_error, "misses": self.misses, "unanswered": self.unanswered,
            "connections_lost": self.connections_lost,
            "latency_us": self.latencies.summary(), "lateness_us": self.lateness.summary(), "curve": self.latencies.curve(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that stalls for a second answers all that were due in it at its end. Counted from the actual send of a client that
    /// waits, one request in 1001 was slow and p99 is 1 ms; from the intended times half of them waited.
    #[test]
    fn a_stall_is_seen_by_all_that_were_due_in_it() {
        let mut latencies = Latencies::default();
        for millisecond in 0..2000u64 {
            let due = millisecond * 1_000_000;
            let answered = if millisecond < 1000 { 1_000_000_000 } else { due + 1_000_000 };
            latencies.record(due, answered);
        }
        assert!((latencies.us(0.5) - 1_000.0).abs() < 2_000.0, "{}", latencies.us(0.5));
        assert!((latencies.us(0.75) - 500_000.0).abs() < 2_000.0, "{}", latencies.us(0.75));
        assert!((latencies.us(0.99) - 980_000.0).abs() < 2_000.0, "{}", latencies.us(0.99));
        assert!((latencies.max_us() - 1_000_000.0).abs() < 1_000.0);
    }

    #[test]
    fn nothing_recorded_is_zero_and_a_clock_that_goes_back_does_not_panic() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.us(0.99), latencies.max_us()), (0.0, 0.0));
        latencies.record(10, 5);
        latencies.record(0, u64::MAX);
        assert_eq!(latencies.count(), 2);
    }

    #[test]
    fn the_curve_ends_with_everything() {
        let mut latencies = Latencies::default();
        (1..=1000u64).for_each(|n| latencies.record(0, n * 1000));
        let curve = latencies.curve();
        let last = curve.as_array().unwrap().last().unwrap();
        assert_eq!((last[0].as_f64(), last[2].as_u64()), (Some(1.0), Some(1000)));
    }

    #[test]
    fn outcomes_of_threads_add_up() {
        let (mut a, mut b) = (Outcome { seconds: 2.0, due: 10, answered: 8, ..Outcome::default() }, Outcome::default());
        b.seconds = 2.0;
        b.answered = 4;
        b.first_error = Some("x".to_owned());
        a.add(&b);
        assert_eq!((a.answered, a.reached_per_second(), a.first_error.as_deref()), (12, 6.0, Some("x")));
    }
}
