//! The highest rate a server sustains: doubled until it fails, then bisected. Pure: a probe is an argument.

/// The result of a probe at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub asked_per_s: f64,
    /// Requests due within the window, per second: Poisson arrivals differ from the requested rate.
    pub due_per_s: f64,
    pub reached_per_s: f64,
    pub p99_us: f64,
    pub errors: u64,
}

/// The definition of "sustains".
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// p99 from the intended send time.
    pub p99_us_max: f64,
    /// Share of the due requests that may be missing.
    pub behind_max: f64,
    /// Where doubling stops.
    pub rate_max: f64,
    /// Bisection ends when the rates differ by this share.
    pub tolerance: f64,
}

/// Share that may be missing while a server still "keeps up": one in a hundred.
pub const BEHIND_MAX: f64 = 0.01;

impl Bounds {
    #[must_use]
    pub fn sustained(&self, step: &Step) -> bool {
        step.errors == 0
            && step.p99_us <= self.p99_us_max
            && step.reached_per_s >= step.due_per_s * (1.0 - self.behind_max)
    }
}

/// The result of the search, with all probes.
#[derive(Debug, Clone)]
pub struct Knee {
    /// The highest rate that was sustained; `None` when even the first was not.
    pub best: Option<Step>,
    /// The lowest that was not; `None` when `rate_max` was reached.
    pub failed: Option<Step>,
    pub steps: Vec<Step>,
}

/// Searches from `start` on. A rate has failed when it fails twice: on a shared machine one bad second is not a knee.
///
/// # Errors
/// The probe's, at once.
pub fn search<E>(start: f64, bounds: &Bounds, mut probe: impl FnMut(f64) -> Result<Step, E>) -> Result<Knee, E> {
    let mut knee = Knee { best: None, failed: None, steps: Vec::new() };
    let mut rate = start.min(bounds.rate_max);
    loop {
        let mut step = probe(rate)?;
        knee.steps.push(step);
        if !bounds.sustained(&step) {
            step = probe(rate)?;
            knee.steps.push(step);
        }
        if bounds.sustained(&step) {
            knee.best = Some(step);
        } else {
            knee.failed = Some(step);
        }
        rate = match (&knee.best, &knee.failed) {
            (Some(best), None) if best.asked_per_s >= bounds.rate_max => return Ok(knee),
            (Some(best), None) => (best.asked_per_s * 2.0).min(bounds.rate_max),
            (None, Some(_)) => return Ok(knee),
            (Some(best), Some(failed)) => {
                if failed.asked_per_s - best.asked_per_s <= bounds.tolerance * failed.asked_per_s {
                    return Ok(knee);
                }
                f64::midpoint(best.asked_per_s, failed.asked_per_s)
            }
            (None, None) => unreachable!("a step is one or the other"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const BOUNDS: Bounds = Bounds { p99_us_max: 1000.0, behind_max: BEHIND_MAX, rate_max: 1e9, tolerance: 0.02 };

    /// One server with exponential service times: p99 of the time in it is ln(100) / (capacity - rate).
    fn simulated(capacity: f64, rate: f64) -> Step {
        let p99_us = if rate < capacity { 100f64.ln() / (capacity - rate) * 1e6 } else { 1e7 };
        Step { asked_per_s: rate, due_per_s: rate, reached_per_s: rate.min(capacity), p99_us, errors: 0 }
    }

    fn found(start: f64, bounds: &Bounds, probe: impl FnMut(f64) -> Result<Step, Infallible>) -> Knee {
        search(start, bounds, probe).unwrap()
    }

    #[test]
    fn the_knee_of_a_simulated_server_is_where_its_p99_crosses_the_bound() {
        for capacity in [9_000.0, 50_000.0, 123_456.0] {
            let expected = capacity - 100f64.ln() * 1000.0;
            let knee = found(1000.0, &BOUNDS, |rate| Ok(simulated(capacity, rate)));
            let best = knee.best.unwrap().asked_per_s;
            assert!(best <= expected && best >= expected * 0.975, "{capacity}: {best} of {expected}");
            assert!(knee.failed.unwrap().asked_per_s > expected);
            assert!(knee.steps.len() < 30, "{}", knee.steps.len());
        }
    }

    #[test]
    fn a_server_that_falls_behind_with_short_latencies_has_a_knee_too() {
        // It sheds load: what it answers it answers quickly.
        let shed = |rate: f64| Step { p99_us: 10.0, ..simulated(20_000.0, rate) };
        let best = found(1000.0, &BOUNDS, |rate| Ok(shed(rate))).best.unwrap().asked_per_s;
        assert!((19_700.0..=20_300.0).contains(&best), "{best}");
    }

    #[test]
    fn one_bad_second_is_not_a_knee_and_errors_are_never_sustained() {
        let mut calls = 0;
        let flaky = found(1000.0, &Bounds { rate_max: 8000.0, ..BOUNDS }, |rate| {
            calls += 1;
            Ok(Step { p99_us: if calls % 2 == 1 { 1e6 } else { 10.0 }, ..simulated(1e9, rate) })
        });
        assert_eq!((flaky.best.unwrap().asked_per_s, flaky.failed), (8000.0, None));
        let failing = found(1000.0, &BOUNDS, |rate| Ok(Step { errors: 1, ..simulated(1e9, rate) }));
        assert!(failing.best.is_none() && failing.steps.len() == 2);
    }

    #[test]
    fn a_probe_that_cannot_run_ends_the_search() {
        assert_eq!(search(1.0, &BOUNDS, |_| Err("no server")).unwrap_err(), "no server");
    }
}
