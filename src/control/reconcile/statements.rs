//! Statements that passed an interlay, by fingerprint: counts, latencies, kinds. Lives on the control thread.
//!
//! Samples come from the cores with their literals; they wait here for a moment, are fingerprinted a few at a time and dropped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::Notify;

use super::clock::now;
use super::fingerprint::{Print, fingerprint};
use base::model::{InterlayName, StatementSample, Timestamp, limits};
use base::stdx::histogram::Histogram;

/// Statements of all interlays since the process started.
#[derive(Debug, Default)]
pub struct Analyst {
    waiting: RefCell<VecDeque<(InterlayName, StatementSample)>>,
    rung: Notify,
    interlays: RefCell<BTreeMap<InterlayName, Statements>>,
    dropped: Cell<u64>,
}

/// Weighted counts of a group of statements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub count: u64,
    pub failed: u64,
    pub time_us: u128,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.time_us += other.time_us;
    }
}

#[derive(Debug)]
struct Known {
    kind: &'static str,
    text: String,
    totals: Totals,
    latency: Histogram,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

/// Statements of one interlay.
#[derive(Debug, Default)]
struct Statements {
    known: HashMap<u64, Known>,
    kinds: BTreeMap<&'static str, Totals>,
    all: Totals,
    samples: u64,
    /// Fingerprints that were too rare to keep.
    others: Totals,
    evicted: u64,
}

impl Statements {
    fn note(&mut self, print: Print, sample: &StatementSample, at: Timestamp) {
        let weight = u64::from(sample.weight.max(1));
        let totals = Totals {
            count: weight,
            failed: if sample.failed { weight } else { 0 },
            time_us: u128::from(sample.latency_us) * u128::from(weight),
        };
        self.samples += 1;
        self.all.add(totals);
        self.kinds.entry(print.kind).or_default().add(totals);
        if !self.known.contains_key(&print.number) && self.known.len() >= limits::FINGERPRINTS_MAX {
            self.evict();
        }
        let known = self.known.entry(print.number).or_insert_with(|| Known {
            kind: print.kind,
            text: print.text,
            totals: Totals::default(),
            latency: Histogram::default(),
            first_seen: at,
            last_seen: at,
        });
        known.totals.add(totals);
        known.latency.record(sample.latency_us, weight);
        known.last_seen = at;
    }

    /// The smallest goes to the others.
    fn evict(&mut self) {
        let smallest = self.known.iter().min_by_key(|(number, known)| (known.totals.count, known.last_seen, **number));
        let Some(number) = smallest.map(|(number, _)| *number) else { return };
        if let Some(known) = self.known.remove(&number) {
            self.others.add(known.totals);
            self.evicted += 1;
        }
    }
}

#[derive(Debug, Clone)]
pub struct FingerprintView {
    pub number: u64,
    pub kind: &'static str,
    pub text: String,
    pub totals: Totals,
    pub latency_mean_us: u64,
    pub latency_p50_us: u64,
    pub latency_p99_us: u64,
    pub latency_max_us: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
}

#[derive(Debug, Clone)]
pub struct KindView {
    pub kind: &'static str,
    pub totals: Totals,
}

/// Statements of one interlay since the process started.
#[derive(Debug, Clone)]
pub struct StatementsView {
    pub all: Totals,
    pub samples: u64,
    /// Over all interlays.
    pub samples_dropped: u64,
    /// Largest first.
    pub kinds: Vec<KindView>,
    /// Largest first; at most as many as asked for.
    pub fingerprints: Vec<FingerprintView>,
    /// All that are known by name.
    pub fingerprints_known: u64,
    pub others: Totals,
    pub others_fingerprints: u64,
}

impl Analyst {
    /// Fingerprints what waits, a few at a time, for as long as the thread lives.
    pub async fn fingerprint_forever(&self) {
        loop {
            while self.turn() {
                tokio::task::yield_now().await;
            }
            self.rung.notified().await;
        }
    }

    /// Queues samples; what does not fit is counted and dropped.
    pub fn take(&self, interlay: &InterlayName, samples: Vec<StatementSample>) {
        let mut waiting = self.waiting.borrow_mut();
        let room = limits::FINGERPRINT_QUEUE_LEN.saturating_sub(waiting.len());
        let dropped = samples.len().saturating_sub(room);
        self.dropped.set(self.dropped.get() + u64::try_from(dropped).unwrap_or(u64::MAX));
        waiting.extend(samples.into_iter().take(room).map(|sample| (interlay.clone(), sample)));
        self.rung.notify_one();
    }

    /// One turn: false when nothing is left.
    fn turn(&self) -> bool {
        for _ in 0..limits::FINGERPRINTS_PER_TURN {
            let Some((interlay, sample)) = self.waiting.borrow_mut().pop_front() else { return false };
            let print = fingerprint(&sample.text, sample.cut);
            self.interlays.borrow_mut().entry(interlay).or_default().note(print, &sample, now());
        }
        true
    }
}

impl Analyst {
    /// What is known of one interlay, with at most so many fingerprints.
    pub fn view(&self, interlay: &InterlayName, limit: usize) -> StatementsView {
        let interlays = self.interlays.borrow();
        let none = Statements::default();
        let statements = interlays.get(interlay).unwrap_or(&none);
        let mut kinds: Vec<_> =
            statements.kinds.iter().map(|(kind, totals)| KindView { kind, totals: *totals }).collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.totals.count));
        let mut known: Vec<_> = statements.known.iter().collect();
        known.sort_by_key(|(number, known)| (std::cmp::Reverse(known.totals.count), **number));
        let fingerprints = known.iter().take(limit).map(|(number, known)| FingerprintView {
            number: **number,
            kind: known.kind,
            text: known.text.clone(),
            totals: known.totals,
            latency_mean_us: known.latency.mean(),
            latency_p50_us: known.latency.percentile(50),
            latency_p99_us: known.latency.percentile(99),
            latency_max_us: known.latency.max(),
            first_seen: known.first_seen,
            last_seen: known.last_seen,
        });
        StatementsView {
            all: statements.all,
            samples: statements.samples,
            samples_dropped: self.dropped.get(),
            kinds,
            fingerprints: fingerprints.collect(),
            fingerprints_known: u64::try_from(statements.known.len()).unwrap_or(u64::MAX),
            others: statements.others,
            others_fingerprints: statements.evicted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str, weight: u32) -> StatementSample {
        StatementSample { text: text.into(), cut: false, latency_us: 100, weight, failed: weight == 3 }
    }

    #[test]
    fn statements_are_counted_by_form_and_the_rare_ones_together() {
        let (analyst, name) = (Analyst::default(), InterlayName::new("shop").unwrap());
        analyst.take(&name, vec![sample("select 1", 5), sample("select 'hunter2'", 3), sample("delete from t", 1)]);
        assert!(!analyst.turn());
        let view = analyst.view(&name, 1);
        assert_eq!((view.all.count, view.all.failed, view.samples, view.fingerprints_known), (9, 3, 3, 2));
        assert_eq!((view.fingerprints[0].text.as_str(), view.fingerprints[0].totals.count), ("SELECT ?", 8));
        assert_eq!((view.kinds[0].kind, view.kinds[1].kind), ("SELECT", "DELETE"));
        for number in 0..limits::FINGERPRINTS_MAX + 10 {
            analyst.take(&name, vec![sample(&format!("select a{number}"), 2)]);
            analyst.turn();
        }
        let view = analyst.view(&name, usize::MAX);
        assert_eq!(view.fingerprints.len(), limits::FINGERPRINTS_MAX);
        assert!(view.others_fingerprints >= 10 && view.fingerprints[0].text == "SELECT ?");
        let shown: u64 = view.fingerprints.iter().map(|one| one.totals.count).sum();
        assert_eq!(shown + view.others.count, view.all.count, "nothing is lost");
        assert!(!format!("{view:?}").contains("hunter2"));
    }

    #[test]
    fn a_flood_of_samples_is_dropped_and_counted() {
        let (analyst, name) = (Analyst::default(), InterlayName::new("shop").unwrap());
        analyst.take(&name, vec![sample("select 1", 1); limits::FINGERPRINT_QUEUE_LEN + 7]);
        assert_eq!(analyst.dropped.get(), 7);
        while analyst.turn() {}
        assert_eq!(analyst.view(&name, 9).all.count, limits::FINGERPRINT_QUEUE_LEN as u64);
    }
}
