//! The contents of the page, and that `docs/METRICS.md` names all of them.

use std::fmt::Write as _;

use super::*;
use crate::reconcile::views::{CoreCounters, FilterName, PolicySlot, StatusView, Timestamp};

#[test]
fn filter_statistics_are_shown_by_slot_and_filter() {
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
    let text = render(&MetricsView { status, cores: Vec::new(), policies: vec![("orders".to_owned(), vec![stats])] });
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

/// The text of docs/METRICS.md, generated from the catalogue.
fn page() -> String {
    let mut out = String::from(
        "# Metrics\n\n`GET /metrics` answers in the text format of Prometheus. Every name begins with `crossfade_`. Generated from \
         `src/control/api/metrics/catalogue.rs`\nby `UPDATE_DOCS=1 cargo test -p crossfade-control metrics`; a test fails when this page is stale.\n\n\
         | name | kind | labels | what it says |\n|---|---|---|---|\n",
    );
    for metric in catalogue::all() {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(out, "| `{PREFIX}{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
    }
    out
}

#[test]
fn the_page_of_metrics_names_every_metric() {
    crate::testing::document("docs/METRICS.md", &page());
}
