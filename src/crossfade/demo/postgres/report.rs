//! The results of the PostgreSQL demo as text, and whether it passed.

use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::Audit;
use super::pauses::{FailedPause, PauseSeen, SHORT_DEADLINE};
use control::api::types::Analysis;

/// Pauses that must succeed.
pub const PAUSES: usize = 20;

/// pgbench's own invariant: the sums of accounts, tellers, branches and history are equal.
#[derive(Debug, Default)]
pub struct BenchmarkSums {
    pub accounts: i64,
    pub tellers: i64,
    pub branches: i64,
    pub history: i64,
    pub history_rows: i64,
}

impl BenchmarkSums {
    fn are_equal(&self) -> bool {
        [self.tellers, self.branches, self.history] == [self.accounts; 3]
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub server: String,
    pub seed: u64,
    pub took: Duration,
    /// Transactions per second of each round.
    pub tps_direct: Vec<f64>,
    pub tps_through: Vec<f64>,
    /// The pauses that succeeded, including the one after the failed one.
    pub pauses: Vec<PauseSeen>,
    /// Pauses that missed their deadline because the machine was busy, and were retried.
    pub pauses_given_up: u64,
    pub violations: Vec<String>,
    /// Transactions seen in the same time without a pause.
    pub begun_without_a_pause: u64,
    pub failed_pause: Option<FailedPause>,
    /// The longest wait during the pauses that succeeded.
    pub longest_wait_us: u64,
    /// The longest wait before the first pause, while pgbench's clients log in.
    pub longest_wait_unpaused_us: u64,
    pub longest_wait_failed_pause_us: u64,
    pub benchmark_transactions: u64,
    pub benchmark_tps: f64,
    pub client_errors: u64,
    pub tokens_acknowledged: u64,
    pub ledger: Audit,
    pub sums: BenchmarkSums,
    pub analysis: Option<Analysis>,
    /// The reasons for everything above that is wrong.
    pub notes: Vec<String>,
}

fn ms(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}

fn mean(all: &[f64]) -> f64 {
    all.iter().sum::<f64>() / all.len().max(1) as f64
}

impl Report {
    /// Throughput through the interlay divided by direct, over the whole run.
    fn ratio(&self) -> f64 {
        mean(&self.tps_through) / mean(&self.tps_direct)
    }

    /// What is wrong; empty when the demo succeeded.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        };
        check(self.ledger.lost, "acknowledged tokens lost");
        check(self.ledger.doubled, "tokens inserted twice");
        check(self.ledger.surplus, "unacknowledged tokens found");
        check(self.client_errors, "client errors");
        check(self.ledger.balances_wrong, "accounts that do not match the acknowledged transfers");
        check(self.violations.len() as u64, "pauses during which the server was busy");
        let mut claim = |holds: bool, what: &str| {
            if !holds {
                failures.push(what.to_owned());
            }
        };
        claim(self.ledger.balance_sum == self.ledger.balance_sum_expected, "the ledger's sum has changed");
        claim(self.sums.are_equal(), "pgbench's sums are not equal");
        claim(
            self.sums.history_rows == i64::try_from(self.benchmark_transactions).unwrap_or(i64::MAX),
            "pgbench's history does not match its acknowledged transactions",
        );
        claim(self.pauses.len() > PAUSES, "not every pause succeeded");
        claim(
            self.failed_pause.as_ref().is_some_and(FailedPause::is_right),
            "the failed pause did not name the session that was left open",
        );
        claim(self.tokens_acknowledged > 0 && self.benchmark_transactions > 0, "the clients did nothing");
        claim(self.analysis.as_ref().is_some_and(|found| found.statements > 0), "the analysis found no statements");
        failures
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {name:<32} {value}");
        };
        row("server", format!("{} (temporary, so fsync is off)", self.server));
        row("time", format!("{:.1} s (seed {})", self.took.as_secs_f64(), self.seed));
        row("log-in", "SCRAM-SHA-256 on both sides; the application's password is stored nowhere".to_owned());
        self.render_speed(&mut row);
        self.render_pauses(&mut row);
        self.render_ledger(&mut row);
        self.render_analysis(&mut out);
        for line in self.violations.iter().take(5).chain(self.notes.iter().take(20)) {
            let _ = writeln!(out, "    {line}");
        }
        out
    }

    fn render_speed(&self, row: &mut dyn FnMut(&str, String)) {
        row("pgbench -S direct", format!("{:.0} transactions/s", mean(&self.tps_direct)));
        row("pgbench -S through Crossfade", format!("{:.0} transactions/s", mean(&self.tps_through)));
        let rounds: Vec<String> = self
            .tps_through
            .iter()
            .zip(&self.tps_direct)
            .map(|(through, direct)| format!("{:.2}", through / direct))
            .collect();
        let build = if cfg!(debug_assertions) { "; a debug build, so the figure means little" } else { "" };
        row(
            "ratio",
            format!(
                "{:.2} (rounds: {}); client, proxy and server share this machine{build}",
                self.ratio(),
                rounds.join(", ")
            ),
        );
    }

    fn render_pauses(&self, row: &mut dyn FnMut(&str, String)) {
        let mut drains: Vec<u64> = self.pauses.iter().map(|pause| pause.drained_in_us).collect();
        drains.sort_unstable();
        let median = drains.get(drains.len() / 2).copied().unwrap_or(0);
        let again = match self.pauses_given_up {
            0 => String::new(),
            count => format!("; {count} more failed at their deadline, and traffic continued"),
        };
        row("pauses", format!("{}{again}", self.pauses.len()));
        row("  drained in", format!("{} median, {} longest", ms(median), ms(drains.last().copied().unwrap_or(0))));
        let paused = self.pauses.iter().map(|pause| pause.paused_for_us).max().unwrap_or(0);
        let held = self.pauses.iter().map(|pause| pause.held_clients).max().unwrap_or(0);
        let hold = self.pauses.iter().map(|pause| pause.longest_hold_us).max().unwrap_or(0);
        row(
            "  paused for, longest",
            format!("{}; up to {held} clients were held, none for more than {}", ms(paused), ms(hold)),
        );
        let rest = match self.violations.len() {
            0 => format!(
                "nothing, by pg_stat_activity, next transaction id and xact_commit; {} transactions in the same time before",
                self.begun_without_a_pause
            ),
            count => format!("BUSY in {count} of them"),
        };
        row("  run by the server meanwhile", rest);
        row(
            "longest a client waited",
            format!("{} with pauses, {} before the first", ms(self.longest_wait_us), ms(self.longest_wait_unpaused_us)),
        );
        let Some(failed) = &self.failed_pause else { return };
        row(
            "pause that must fail",
            format!(
                "failed after {} (deadline {}); clients waited {} at most and continued",
                ms(u64::try_from(failed.took.as_micros()).unwrap_or(u64::MAX)),
                ms(SHORT_DEADLINE.as_millis() as u64 * 1000),
                ms(self.longest_wait_failed_pause_us)
            ),
        );
        row(
            "  it named",
            failed.named.as_ref().map_or("NOT the session that was left open".to_owned(), |session| {
                format!(
                    "id {}, user {}, application {}, {}, for {:.1} s{}",
                    session.id,
                    session.user,
                    session.application,
                    session.state,
                    session.age_ms as f64 / 1000.0,
                    if failed.others > 0 { format!(" (and {} others)", failed.others) } else { String::new() }
                )
            }),
        );
    }

    fn render_ledger(&self, row: &mut dyn FnMut(&str, String)) {
        row("errors seen by clients", self.client_errors.to_string());
        row(
            "tokens",
            format!(
                "{} acknowledged, {} found, {} lost, {} doubled",
                self.tokens_acknowledged, self.ledger.found, self.ledger.lost, self.ledger.doubled
            ),
        );
        row(
            "ledger's balances",
            format!(
                "sum {} of {}; {} accounts wrong",
                self.ledger.balance_sum, self.ledger.balance_sum_expected, self.ledger.balances_wrong
            ),
        );
        row(
            "pgbench TPC-B",
            format!(
                "{} acknowledged, {} in the history ({:.0}/s, pauses included)",
                self.benchmark_transactions, self.sums.history_rows, self.benchmark_tps
            ),
        );
        let sums = &self.sums;
        row(
            "pgbench's sums",
            format!(
                "accounts {}, tellers {}, branches {}, history {}: {}",
                sums.accounts,
                sums.tellers,
                sums.branches,
                sums.history,
                if sums.are_equal() { "equal" } else { "NOT EQUAL" }
            ),
        );
    }

    fn render_analysis(&self, out: &mut String) {
        if let Some(found) = &self.analysis {
            for line in analysis_in_short(found) {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
}

/// Statements shown.
pub const STATEMENTS_SHOWN: usize = 5;
/// Characters of a statement shown.
const STATEMENT_WIDTH: usize = 84;

/// `interlay analyze`, without its tables.
pub fn analysis_in_short(found: &Analysis) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let kinds: Vec<String> =
        found.kinds.iter().take(8).map(|kind| format!("{} {}", kind.kind, percent(kind.share))).collect();
    let mut lines = vec![
        format!(
            "{:<32} about {} statements, {} failed; estimated from {} samples",
            "interlay analyze", found.statements, found.failed, found.samples
        ),
        format!("  {:<30} {}", "mix", kinds.join(", ")),
    ];
    for (at, one) in found.fingerprints.iter().take(STATEMENTS_SHOWN).enumerate() {
        let text: String = one.text.chars().take(STATEMENT_WIDTH).collect();
        let name = if at == 0 { "top statements" } else { "" };
        lines.push(format!("  {name:<30} {:>6}, p50 {} us  {text}", percent(one.share), one.latency_us.p50));
    }
    let states: Vec<String> = found
        .session_states
        .iter()
        .map(|state| {
            let movable = match state.movable {
                Some(true) => "can follow a move",
                Some(false) => "cannot follow a move",
                None => "not known whether it can follow a move",
            };
            format!("{}: {} sessions, {movable}", state.state, state.sessions)
        })
        .collect();
    let states = if states.is_empty() { "none".to_owned() } else { states.join("; ") };
    lines.push(format!("  {:<30} {states}", "session state"));
    let target = found.target.as_deref().unwrap_or("no target");
    let findings = match (&found.findings, &found.findings_problem) {
        (Some(findings), _) if findings.is_empty() => "none".to_owned(),
        (Some(findings), _) => findings.iter().map(|one| one.name.clone()).collect::<Vec<_>>().join(", "),
        (None, Some(why)) => format!("not compared: {why}"),
        (None, None) => "not compared".to_owned(),
    };
    lines.push(format!("  {:<30} {findings}", format!("findings against {target}")));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Report {
        let analysis = json!({"interlay": "shop", "at": 1, "statements": 100, "failed": 0, "samples": 10, "samples_dropped": 0,
            "kinds": [{"kind": "SELECT", "count": 90, "share": 0.9, "failed": 0}],
            "fingerprints": [{"fingerprint": "00ff", "kind": "SELECT", "text": "SELECT ?", "count": 90, "share": 0.9, "time_share": 0.5,
                "failed": 0, "latency_us": {"mean": 1, "p50": 2, "p99": 3, "max": 4}, "first_seen": 1, "last_seen": 2}],
            "fingerprints_known": 1, "others": {"fingerprints": 0, "count": 0, "share": 0.0, "failed": 0},
            "session_states": [{"state": "prepared", "sessions": 2, "movable": true, "meaning": "a prepared statement"}],
            "target": "again", "findings": [], "findings_problem": null});
        let session = json!({"id": 12, "user": "shop", "database": "shop", "application": "held-open", "peer": null,
            "state": "idle in transaction", "age_ms": 1200, "keeps": []});
        Report {
            pauses: vec![
                PauseSeen {
                    drained_in_us: 900,
                    paused_for_us: 51_000,
                    held_clients: 20,
                    longest_hold_us: 50_000
                };
                PAUSES + 1
            ],
            failed_pause: Some(FailedPause {
                detail: String::new(),
                took: Duration::from_millis(301),
                named: Some(serde_json::from_value(session).expect("a session")),
                others: 0,
                token: 1,
            }),
            benchmark_transactions: 5,
            sums: BenchmarkSums { history_rows: 5, ..BenchmarkSums::default() },
            tokens_acknowledged: 3,
            analysis: Some(serde_json::from_value(analysis).expect("an analysis")),
            ..Report::default()
        }
    }

    #[test]
    fn any_loss_error_or_unequal_sum_fails_the_demo() {
        assert_eq!(good().failures(), Vec::<String>::new());
        let breaks: [fn(&mut Report); 15] = [
            |r| r.ledger.lost = 1,
            |r| r.ledger.doubled = 1,
            |r| r.ledger.surplus = 1,
            |r| r.ledger.balances_wrong = 1,
            |r| r.ledger.balance_sum = 1,
            |r| r.client_errors = 1,
            |r| r.violations.push("busy".into()),
            |r| r.sums.tellers = 1,
            |r| r.sums.history = 1,
            |r| r.sums.history_rows = 4,
            |r| r.pauses.truncate(PAUSES),
            |r| r.failed_pause = None,
            |r| r.failed_pause.as_mut().expect("one").named = None,
            |r| r.tokens_acknowledged = 0,
            |r| r.analysis = None,
        ];
        for change in breaks {
            let mut report = good();
            change(&mut report);
            assert_eq!(report.failures().len(), 1, "{report:?}");
            assert!(!report.render().is_empty());
        }
    }

    #[test]
    fn the_report_names_who_was_in_the_way_and_what_passes() {
        let text = good().render();
        for words in ["held-open", "idle in transaction", "for 1.2 s", "SELECT 90.0 %", "can follow a move"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
