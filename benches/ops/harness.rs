//! What an operation is, and how its time is taken. Knows nothing of what is measured.

use std::time::{Duration, Instant};

/// Does everything once. Panics when a result is not as expected, because the figure would then be that of something else.
pub type Round = Box<dyn FnMut()>;

#[derive(Debug)]
pub struct Operation {
    /// `area/what`.
    pub name: &'static str,
    /// Operations in one round: many, so that the cost of the round itself is negligible.
    pub per_round: u64,
    /// Makes everything that a round needs, and checks that a round does what its name says.
    pub set_up: fn() -> Round,
    /// Why its instructions are not counted; `None`: they are.
    pub uncounted: Option<&'static str>,
}

/// What one operation costs.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub ns_median: f64,
    /// From the first quartile of the repetitions to the third, in percent of the median.
    pub spread_percent: f64,
}

const REPETITIONS: usize = 31;
const REPETITION: Duration = Duration::from_millis(10);
/// Warms up caches, branch predictors and buffers; also determines how many rounds fill a repetition.
const WARM_UP: Duration = Duration::from_millis(60);

pub fn measure(operation: &Operation) -> Measured {
    let mut round = (operation.set_up)();
    let (begun, mut warm) = (Instant::now(), 0u32);
    while begun.elapsed() < WARM_UP {
        round();
        warm += 1;
    }
    let rounds = (REPETITION * warm).div_duration_f64(WARM_UP).ceil() as u64;
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let begun = Instant::now();
            (0..rounds).for_each(|_| round());
            begun.elapsed().as_secs_f64() * 1e9 / (rounds * operation.per_round) as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let [first, median, third] = [1, 2, 3].map(|quarter| times[quarter * (REPETITIONS - 1) / 4]);
    Measured { ns_median: median, spread_percent: (third - first) / median * 100.0 }
}
