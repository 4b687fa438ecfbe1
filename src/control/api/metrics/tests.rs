//! The contents of the page, and that `docs/METRICS.md` names all of them.

use std::fmt::Write as _;

use super::*;
use crate::reconcile::views::{
    CoreCounters, FilterName, MigrationRecord, PolicySlot, ShadowFacts, StatusView, Timestamp,
};
use crate::workflow::NewMigration;
use base::model::{Authority, Decisions, EndpointName, InterlayName, MigrationId, PolicySettings};

fn status(migrations: Vec<MigrationView>) -> StatusView {
    StatusView {
        version: "0",
        driver: String::new(),
        cores: 1,
        started: Timestamp(0),
        now: Timestamp(0),
        interlays: Vec::new(),
        migrations,
        counters: CoreCounters::default(),
    }
}

#[test]
fn what_keeps_both_sides_in_step_is_shown_with_its_position() {
    let new = NewMigration {
        id: MigrationId::new("m").unwrap(),
        interlay: InterlayName::new("orders").unwrap(),
        source: EndpointName::new("old").unwrap(),
        target: EndpointName::new("new").unwrap(),
        decisions: Decisions::default(),
        policies: PolicySettings::default(),
    };
    let record = MigrationRecord::new(new, Authority::initial(), Timestamp(1));
    let facts = ShadowFacts { position: 1000, reached: Some(970), ..ShadowFacts::default() };
    let view = |feed, shadow: Result<ShadowFacts, String>| MigrationView {
        dual: shadow.is_ok(),
        feed_reason: None,
        authority_endpoint: String::new(),
        authority_address: String::new(),
        gates: Vec::new(),
        backfill: Default::default(),
        shadow,
        findings: Ok(Vec::new()),
        verification: None,
        verifying: None,
        divergences_found: 0,
        divergences_resolved: 0,
        fences_expired: 0,
        record: MigrationRecord { feed, ..record.clone() },
    };
    let page = |view| render(&MetricsView { status: status(vec![view]), cores: Vec::new(), policies: Vec::new() });
    let line = |name: &str, more: &str, value: u64| {
        format!("\ncrossfade_migration_{name}{{migration=\"m\",interlay=\"orders\"{more}}} {value}\n")
    };
    let text = page(view(Some(FeedKind::Replication), Ok(facts)));
    for line in [
        line("feed", ",feed=\"replication\"", 1),
        line("feed", ",feed=\"lane\"", 0),
        line("position", "", 1000),
        line("position_reached", "", 970),
        line("shadow_behind_bytes", "", 30),
    ] {
        assert!(text.contains(&line), "{line}{text}");
    }
    let text = page(view(Some(FeedKind::Lane), Ok(ShadowFacts { reached: None, ..facts })));
    assert!(text.contains(&line("feed", ",feed=\"lane\"", 1)) && text.contains(&line("position", "", 1000)), "{text}");
    assert!(!text.contains("migration_position_reached{") && !text.contains("shadow_behind_bytes{"), "{text}");
    let text = page(view(Some(FeedKind::Lane), Err("over".to_owned())));
    assert!(text.contains(&line("feed", ",feed=\"lane\"", 0)), "nothing keeps them in step any more: {text}");
}

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
    let status = status(Vec::new());
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
