//! From samples to verdicts. Pure. Values are compared within a repetition, where both were measured within seconds of each other, and
//! the median of those comparisons decides.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::bench::scenario::{Claim, How, Scenario};

/// One measurement of one contestant.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub load: String,
    pub contestant: String,
    pub alone: bool,
    pub repetition: u32,
    pub metrics: BTreeMap<String, f64>,
    pub command: String,
    /// `[quantile, microseconds, requests]` of an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curve: Option<serde_json::Value>,
    /// What went wrong; then there are no metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Median and spread of several values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub count: usize,
}

impl Spread {
    /// `None` when there are no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let median = match (count, count % 2) {
            (0, _) => return None,
            (_, 1) => sorted[count / 2],
            _ => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        };
        Some(Self { median, least: sorted[0], most: sorted[count - 1], count })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

impl Verdict {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "NOT MEASURED",
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    pub scenario: String,
    pub row: String,
    pub words: String,
    pub load: String,
    pub target: String,
    pub measured: Option<Spread>,
    pub verdict: Verdict,
    /// Why nothing was measured.
    pub why: Option<String>,
}

/// The values of a metric by repetition.
#[must_use]
pub fn series(samples: &[Sample], load: &str, contestant: &str, alone: bool, metric: &str) -> BTreeMap<u32, f64> {
    let ours = samples.iter().filter(|s| s.load == load && s.contestant == contestant && s.alone == alone);
    ours.filter_map(|sample| sample.metrics.get(metric).map(|value| (sample.repetition, *value))).collect()
}

/// Compares within each repetition.
#[must_use]
pub fn compare(how: How, of: &BTreeMap<u32, f64>, over: &BTreeMap<u32, f64>) -> Vec<f64> {
    let paired = |combine: fn(f64, f64) -> f64| {
        of.iter().filter_map(|(repetition, value)| over.get(repetition).map(|base| combine(*value, *base))).collect()
    };
    match how {
        How::Value => of.values().copied().collect(),
        How::Ratio => paired(|value, base| value / base),
        How::Difference => paired(|value, base| value - base),
    }
}

/// The verdict on every claim of a scenario; one that cannot be measured, or was left out, gives a line with the reason. `absent` says why a
/// contestant is missing.
#[must_use]
pub fn judge(
    scenario: &Scenario,
    samples: &[Sample],
    absent: &BTreeMap<String, String>,
    left_out: bool,
) -> Vec<Judged> {
    let line = |words: &str, why: &str| Judged {
        scenario: scenario.name.clone(),
        row: scenario.row.clone(),
        words: words.to_owned(),
        load: String::new(),
        target: "-".to_owned(),
        measured: None,
        verdict: Verdict::NotMeasured,
        why: Some(why.to_owned()),
    };
    if let Some(why) = &scenario.not_measured {
        return vec![line("", why)];
    }
    if left_out {
        return scenario.claim.iter().map(|claim| line(&claim.words, "left out of this run")).collect();
    }
    scenario.claim.iter().map(|claim| judge_one(scenario, claim, samples, absent)).collect()
}

fn judge_one(scenario: &Scenario, claim: &Claim, samples: &[Sample], absent: &BTreeMap<String, String>) -> Judged {
    let values_of = |contestant: &str| series(samples, &claim.load, contestant, scenario.alone, &claim.metric);
    let over = claim.over.as_deref().map(values_of).unwrap_or_default();
    let measured = Spread::of(&compare(claim.how, &values_of(&claim.of), &over));
    let verdict = match (measured, claim.at_least, claim.at_most) {
        (Some(spread), Some(least), _) if spread.median >= least => Verdict::Met,
        (Some(spread), _, Some(most)) if spread.median <= most => Verdict::Met,
        (Some(_), ..) => Verdict::Missed,
        (None, ..) => Verdict::NotMeasured,
    };
    let target = match (claim.at_least, claim.at_most) {
        (Some(least), _) => format!(">= {least}"),
        (_, Some(most)) => format!("<= {most}"),
        _ => "-".to_owned(),
    };
    let why = (verdict == Verdict::NotMeasured).then(|| why_not(claim, samples, absent));
    Judged {
        scenario: scenario.name.clone(),
        row: scenario.row.clone(),
        words: claim.words.clone(),
        load: claim.load.clone(),
        target,
        measured,
        verdict,
        why,
    }
}

fn why_not(claim: &Claim, samples: &[Sample], absent: &BTreeMap<String, String>) -> String {
    let sides = [Some(&claim.of), claim.over.as_ref()];
    let mut reasons: BTreeSet<String> = sides.iter().flatten().filter_map(|side| absent.get(*side).cloned()).collect();
    let failed = samples.iter().filter(|s| s.load == claim.load && sides.contains(&Some(&s.contestant)));
    reasons.extend(failed.filter_map(|s| s.failed.as_ref().map(|why| format!("{}: {why}", s.contestant))));
    if reasons.is_empty() { "no value".to_owned() } else { reasons.into_iter().collect::<Vec<_>>().join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(contestant: &str, repetition: u32, value: f64) -> Sample {
        Sample {
            load: "get".to_owned(),
            contestant: contestant.to_owned(),
            alone: false,
            repetition,
            metrics: BTreeMap::from([("per_s".to_owned(), value)]),
            command: String::new(),
            curve: None,
            failed: None,
        }
    }

    fn scenario(at_least: Option<f64>, at_most: Option<f64>) -> Scenario {
        let claim = Claim {
            words: "GET".to_owned(),
            load: "get".to_owned(),
            metric: "per_s".to_owned(),
            of: "crossfade".to_owned(),
            over: Some("direct".to_owned()),
            how: How::Ratio,
            at_least,
            at_most,
        };
        Scenario {
            name: "a".to_owned(),
            row: "r".to_owned(),
            contestants: vec![],
            loads: vec![],
            alone: false,
            full_only: false,
            not_measured: None,
            claim: vec![claim],
        }
    }

    #[test]
    fn a_spread_has_the_median_of_even_and_odd_counts() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most, spread.count), (2.0, 1.0, 3.0, 3));
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN]), None);
    }

    /// The machine was twice as slow in the second repetition: the ratio within each is what counts. The ratio of the medians would be
    /// that of values from different minutes.
    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let samples = [(0, 100.0, 90.0), (1, 50.0, 45.0), (2, 80.0, 80.0)]
            .map(|(n, direct, through)| [sample("direct", n, direct), sample("crossfade", n, through)])
            .concat();
        let judged = &judge(&scenario(Some(0.9), None), &samples, &BTreeMap::new(), false)[0];
        assert_eq!(judged.verdict, Verdict::Met);
        let measured = judged.measured.unwrap();
        assert_eq!((measured.median, measured.least, measured.most), (0.9, 0.9, 1.0));
    }

    #[test]
    fn a_missed_target_is_missed_and_a_missing_peer_is_named() {
        let samples = [sample("direct", 0, 100.0), sample("crossfade", 0, 99.9)];
        assert_eq!(judge(&scenario(Some(1.0), None), &samples, &BTreeMap::new(), false)[0].verdict, Verdict::Missed);
        assert_eq!(judge(&scenario(None, Some(1.0)), &samples, &BTreeMap::new(), false)[0].verdict, Verdict::Met);
        let absent = BTreeMap::from([("direct".to_owned(), "no redis-server".to_owned())]);
        let judged = judge(&scenario(Some(1.0), None), &samples[1..], &absent, false);
        assert_eq!((judged[0].verdict, judged[0].why.as_deref()), (Verdict::NotMeasured, Some("no redis-server")));
        let mut broken = sample("direct", 0, 1.0);
        (broken.metrics, broken.failed) = (BTreeMap::new(), Some("it died".to_owned()));
        let judged = judge(&scenario(Some(1.0), None), &[broken], &BTreeMap::new(), false);
        assert_eq!(judged[0].why.as_deref(), Some("direct: it died"));
    }

    #[test]
    fn what_is_measured_alone_is_not_mixed_with_what_is_not() {
        let mut samples = vec![sample("direct", 0, 100.0), sample("crossfade", 0, 50.0)];
        samples[1].alone = true;
        assert_eq!(
            judge(&scenario(Some(0.1), None), &samples, &BTreeMap::new(), false)[0].verdict,
            Verdict::NotMeasured
        );
        let left_out = judge(&scenario(Some(0.1), None), &samples, &BTreeMap::new(), true);
        assert_eq!(left_out[0].verdict, Verdict::NotMeasured);
    }
}
