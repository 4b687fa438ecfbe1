//! What filters have done, in the Prometheus text format.

use super::{head, line};
use crate::reconcile::views::{MetricsView, SeatStats};

/// (name, kind, help, value) of one filter in one place.
type PolicyMetric = (&'static str, &'static str, &'static str, fn(&SeatStats) -> u64);

const POLICY_METRICS: &[PolicyMetric] = &[
    ("policy_calls_total", "counter", "Calls of a filter's hook", |s| s.calls),
    ("policy_memo_hits_total", "counter", "Commands answered from what a filter said before", |s| s.memo_hits),
    ("policy_absent_total", "counter", "Answered as on_fault says while an instance was replaced", |s| s.absent),
    ("policy_restrained_total", "counter", "Verdicts not carried out because of the mode", |s| s.restrained),
    ("policy_dropped_total", "counter", "Lines of log and counters dropped for their limits", |s| s.dropped),
    ("policy_memory_bytes", "gauge", "Linear memory of all instances", |s| s.memory_bytes),
];

pub fn render(out: &mut String, view: &MetricsView) {
    let all: Vec<_> =
        view.policies.iter().flat_map(|(interlay, all)| all.iter().map(move |one| (of(interlay, one), one))).collect();
    for (name, kind, help, value) in POLICY_METRICS {
        head(out, name, kind, help);
        for (labels, stats) in &all {
            line(out, name, labels, value(stats));
        }
    }
    head(out, "policy_faults_total", "counter", "Faults of a filter by kind");
    for (labels, stats) in &all {
        let faults = stats.faults;
        for (kind, count) in [("trap", faults.trap), ("deadline", faults.deadline), ("bad_verdict", faults.bad_verdict)]
        {
            line(out, "policy_faults_total", &format!("{labels},kind=\"{kind}\""), count);
        }
    }
    head(out, "policy_verdicts_total", "counter", "Verdicts of a filter by word");
    for (labels, stats) in &all {
        for (verdict, count) in &stats.verdicts {
            line(out, "policy_verdicts_total", &format!("{labels},verdict=\"{verdict}\""), *count);
        }
    }
    head(out, "policy_call_nanoseconds", "summary", "Time of a hook call, one call in 64 measured");
    for (labels, stats) in &all {
        for (quantile, per_hundred) in [("0.5", 50), ("0.99", 99)] {
            let labels = format!("{labels},quantile=\"{quantile}\"");
            line(out, "policy_call_nanoseconds", &labels, stats.call_ns.percentile(per_hundred));
        }
        let sum = u64::try_from(stats.call_ns.sum()).unwrap_or(u64::MAX);
        line(out, "policy_call_nanoseconds_sum", labels, sum);
        line(out, "policy_call_nanoseconds_count", labels, stats.call_ns.count());
    }
    head(out, "policy_guest_counter", "counter", "Counters of the filters themselves");
    for (labels, stats) in &all {
        for (id, count) in &stats.counters {
            line(out, "policy_guest_counter", &format!("{labels},id=\"{id}\""), *count);
        }
    }
}

/// Names and ids are checked when they are made: no character in them needs escaping.
fn of(interlay: &str, stats: &SeatStats) -> String {
    format!("interlay=\"{interlay}\",slot=\"{}\",filter=\"{}\"", stats.slot, stats.filter)
}

#[cfg(test)]
mod tests {
    use super::super::render as whole;
    use super::*;
    use crate::reconcile::views::{CoreCounters, FilterName, PolicySlot, StatusView, Timestamp};

    #[test]
    fn what_a_filter_has_done_is_shown_by_place_and_filter() {
        let mut stats = SeatStats {
            slot: PolicySlot::Mirror,
            filter: FilterName::new("mine").unwrap(),
            calls: 7,
            call_ns: Default::default(),
            memo_hits: 5,
            faults: Default::default(),
            absent: 1,
            memory_bytes: 65_536,
            verdicts: vec![("mirror_compare", 6)],
            restrained: 2,
            counters: vec![("seen".to_owned(), 9)],
            dropped: 0,
        };
        stats.call_ns.record(100, 16);
        stats.faults.trap = 3;
        let status = StatusView {
            version: "0",
            driver: String::new(),
            cores: 1,
            started: Timestamp(0),
            now: Timestamp(0),
            interlays: Vec::new(),
            migrations: Vec::new(),
            counters: CoreCounters::default(),
        };
        let text =
            whole(&MetricsView { status, cores: Vec::new(), policies: vec![("orders".to_owned(), vec![stats])] });
        let labels = "interlay=\"orders\",slot=\"mirror\",filter=\"mine\"";
        for (name, more, value) in [
            ("calls_total", "", 7),
            ("memo_hits_total", "", 5),
            ("absent_total", "", 1),
            ("restrained_total", "", 2),
            ("faults_total", ",kind=\"trap\"", 3),
            ("faults_total", ",kind=\"deadline\"", 0),
            ("verdicts_total", ",verdict=\"mirror_compare\"", 6),
            ("call_nanoseconds", ",quantile=\"0.99\"", 100),
            ("call_nanoseconds_sum", "", 1600),
            ("call_nanoseconds_count", "", 16),
            ("memory_bytes", "", 65_536),
            ("guest_counter", ",id=\"seen\"", 9),
        ] {
            let line = format!("\ncrossfade_policy_{name}{{{labels}{more}}} {value}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
