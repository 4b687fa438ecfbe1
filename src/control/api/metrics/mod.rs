//! `/metrics`: the cores' counters, merged by control, rendered by `metrics-exporter-prometheus`.
//!
//! Counts nothing itself: each request fills a new recorder from the present counters, so that removed objects are not shown.

mod catalogue;
#[cfg(test)]
mod tests;

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::convert::sessions::gate_is_closed;
use crate::reconcile::views::{FeedKind, MetricsView, MigrationView, Phase, SeatStats};
use catalogue::{Kind, Metric};

/// The prefix of every metric's name.
const PREFIX: &str = "crossfade_";

/// The page, in the text format of Prometheus.
pub fn render(view: &MetricsView) -> String {
    let page = Page { recorder: PrometheusBuilder::new().build_recorder() };
    page.describe();
    page.process(view);
    page.interlays(view);
    page.migrations(view);
    page.policies(view);
    page.recorder.handle().render()
}

struct Page {
    recorder: PrometheusRecorder,
}

impl Page {
    fn describe(&self) {
        for metric in catalogue::all() {
            let (name, help) = (format!("{PREFIX}{}", metric.name).into(), SharedString::from(metric.help));
            match metric.kind {
                Kind::Counter => self.recorder.describe_counter(name, None, help),
                Kind::Gauge => self.recorder.describe_gauge(name, None, help),
            }
        }
    }

    /// `values`: those of the metric's labels, in their order.
    fn set(&self, metric: &Metric, values: &[&str], value: u64) {
        const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        let label = |(name, value): (&&'static str, &&str)| Label::new(*name, (*value).to_owned());
        let labels: Vec<Label> = metric.labels.iter().zip(values).map(label).collect();
        let key = Key::from_parts(format!("{PREFIX}{}", metric.name), labels);
        match metric.kind {
            Kind::Counter => self.recorder.register_counter(&key, &METADATA).absolute(value),
            Kind::Gauge => self.recorder.register_gauge(&key, &METADATA).set(value as f64),
        }
    }

    fn process(&self, view: &MetricsView) {
        self.set(&catalogue::BUILD_INFO, &[view.status.version, &view.status.driver], 1);
        for (core, counters) in &view.cores {
            let core = core.to_string();
            for (metric, value) in catalogue::CORE_METRICS {
                self.set(metric, &[&core], value(counters));
            }
            for (name, count) in &counters.commands_by_name {
                self.set(&catalogue::COMMANDS_BY_NAME, &[&core, name], *count);
            }
        }
    }

    fn interlays(&self, view: &MetricsView) {
        for interlay in &view.status.interlays {
            let labels = [&*interlay.name.to_string()];
            self.set(&catalogue::INTERLAY_DUAL, &labels, u64::from(interlay.dual));
            self.set(&catalogue::INTERLAY_PAUSED, &labels, u64::from(gate_is_closed(interlay)));
            self.set(&catalogue::PAUSES, &labels, interlay.pauses);
            self.set(&catalogue::PAUSE_FAILURES, &labels, interlay.pause_failures);
        }
    }

    fn migrations(&self, view: &MetricsView) {
        for migration in &view.status.migrations {
            let (id, interlay) = names(migration);
            for phase in Phase::ALL {
                let now = u64::from(migration.record.phase == phase);
                self.set(&catalogue::MIGRATION_PHASE, &[&id, &interlay, phase.as_str()], now);
            }
            let feed = migration.record.feed.filter(|_| migration.dual);
            for kind in FeedKind::ALL {
                let now = u64::from(feed == Some(*kind));
                self.set(&catalogue::MIGRATION_FEED, &[&id, &interlay, kind.as_str()], now);
            }
            for (metric, value) in catalogue::MIGRATION_METRICS {
                if let Some(value) = value(migration) {
                    self.set(metric, &[&id, &interlay], value);
                }
            }
        }
    }

    fn policies(&self, view: &MetricsView) {
        for (interlay, all) in &view.policies {
            for stats in all {
                self.policy(interlay, stats);
            }
        }
    }

    fn policy(&self, interlay: &str, stats: &SeatStats) {
        let (slot, filter) = (stats.slot.to_string(), stats.filter.to_string());
        let of = [interlay, &slot, &filter];
        let with = |more| [interlay, &slot, &filter, more];
        for (metric, value) in catalogue::POLICY_METRICS {
            self.set(metric, &of, value(stats));
        }
        let faults = stats.faults;
        for (kind, count) in [("trap", faults.trap), ("deadline", faults.deadline), ("bad_verdict", faults.bad_verdict)]
        {
            self.set(&catalogue::POLICY_FAULTS, &with(kind), count);
        }
        for (verdict, count) in &stats.verdicts {
            self.set(&catalogue::POLICY_VERDICTS, &with(verdict), *count);
        }
        for (quantile, per_hundred) in [("0.5", 50), ("0.99", 99)] {
            self.set(&catalogue::POLICY_CALL_TIME, &with(quantile), stats.call_ns.percentile(per_hundred));
        }
        let sum = u64::try_from(stats.call_ns.sum()).unwrap_or(u64::MAX);
        self.set(&catalogue::POLICY_CALL_TIME_SUM, &of, sum);
        self.set(&catalogue::POLICY_CALL_TIME_COUNT, &of, stats.call_ns.count());
        for (id, count) in &stats.counters {
            self.set(&catalogue::POLICY_GUEST_COUNTER, &with(id), *count);
        }
    }
}

fn names(migration: &MigrationView) -> (String, String) {
    (migration.record.id.to_string(), migration.record.interlay.to_string())
}
