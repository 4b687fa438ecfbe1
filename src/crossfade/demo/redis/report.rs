//! The results of the Redis demo as text, and whether it passed.

use std::fmt::Write as _;
use std::time::Duration;

use base::model::FeedKind;

/// One change of authority.
#[derive(Debug, Clone)]
pub struct FlipSeen {
    pub to: String,
    /// `None` when the API did not know.
    pub pause_us: Option<u64>,
}

/// One filter in force.
#[derive(Debug, Clone)]
pub struct PolicySeen {
    pub slot: String,
    pub filter: String,
    pub mode: String,
    pub calls: u64,
    pub memo_hits: u64,
    pub faults: u64,
}

/// The rollback started by the policy.
#[derive(Debug)]
pub struct AutomaticRollback {
    pub reason: String,
    /// From slowing the target until the policy had decided, and until clients were served by the source again.
    pub decided: Duration,
    pub back: Duration,
}

#[derive(Debug, Default)]
pub struct Report {
    pub source: String,
    pub target: String,
    pub seed: u64,
    pub took: Duration,
    /// What kept both sides in step, and why that.
    pub feed: String,
    pub feed_reason: String,
    pub keys_loaded: u64,
    pub keys_moved: u64,
    pub bytes_moved: u64,
    pub keys_per_second: f64,
    pub flips: Vec<FlipSeen>,
    pub requests_checker: u64,
    pub requests_benchmark: u64,
    pub writes_acknowledged: u64,
    pub longest_wait_us: u64,
    pub client_errors: u64,
    pub wrong_replies: u64,
    pub keys_compared: [u64; 2],
    pub digests: [u128; 2],
    pub divergences: Vec<String>,
    pub items_read_back: u64,
    pub lost: u64,
    pub surplus: u64,
    pub reads_compared: u64,
    pub reads_equivalent: u64,
    pub read_divergences: u64,
    pub policies: Vec<PolicySeen>,
    /// Only in the variant with an automatic rollback.
    pub automatic_rollback: Option<AutomaticRollback>,
    /// The reasons for everything above that should be zero and is not.
    pub notes: Vec<String>,
}

/// Number of flips: there, back, there again.
const FLIPS_EXPECTED: usize = 3;
/// Number of flips with an automatic rollback: there and back.
const FLIPS_JUDGED: usize = 2;
/// Mirror, compare and rollback run as WebAssembly, by default; only the lane asks what is a difference.
const SLOTS_EXPECTED: [&str; 3] = ["mirror", "compare", "rollback"];
const SLOT_OF_THE_LANE: &str = "compare";

impl Report {
    /// What is wrong; empty when the demo succeeded.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |count: u64, what: &str| {
            if count > 0 {
                failures.push(format!("{count} {what}"));
            }
        };
        check(self.lost, "acknowledged writes lost");
        check(self.surplus, "unacknowledged writes found");
        check(self.divergences.len() as u64, "divergent keys");
        check(self.read_divergences, "reads answered differently by the two servers");
        check(self.client_errors, "client errors");
        check(self.wrong_replies, "wrong replies");
        check(self.policies.iter().map(|policy| policy.faults).sum(), "policy faults");
        let flips = if self.automatic_rollback.is_some() { FLIPS_JUDGED } else { FLIPS_EXPECTED };
        if self.flips.len() != flips {
            failures.push(format!("{} flips instead of {flips}", self.flips.len()));
        }
        let asked = |slot: &&str| *slot != SLOT_OF_THE_LANE || self.feed == FeedKind::Lane.as_str();
        for slot in SLOTS_EXPECTED.into_iter().filter(asked) {
            if !self.policies.iter().any(|policy| policy.slot == slot && policy.calls > 0) {
                failures.push(format!("no filter was called in slot {slot}"));
            }
        }
        if self.automatic_rollback.as_ref().is_some_and(|judged| !judged.reason.contains("the rollback policy: p99")) {
            failures.push("the rollback was not started by the policy".to_owned());
        }
        if self.reads_compared == 0 {
            failures.push("no read was compared".to_owned());
        }
        if self.writes_acknowledged == 0 || self.requests_benchmark == 0 {
            failures.push("the clients did nothing".to_owned());
        }
        failures
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {name:<32} {value}");
        };
        row("source", self.source.clone());
        row("target", self.target.clone());
        row("time", format!("{:.1} s (seed {})", self.took.as_secs_f64(), self.seed));
        row("feed", format!("{}: {}", self.feed, self.feed_reason));
        row("keys loaded beforehand", self.keys_loaded.to_string());
        row("keys copied, all passes", format!("{} ({:.1} MB)", self.keys_moved, self.bytes_moved as f64 / 1e6));
        row("first copy", format!("{:.0} keys/s", self.keys_per_second));
        for (at, flip) in self.flips.iter().enumerate() {
            let pause = flip.pause_us.map_or("unknown".to_owned(), |us| format!("{:.2} ms", us as f64 / 1000.0));
            row(&format!("flip {} to {}", at + 1, flip.to), format!("writes held for {pause}"));
        }
        if let Some(judged) = &self.automatic_rollback {
            row("rolled back by", judged.reason.clone());
            let (decided, back) = (judged.decided.as_secs_f64(), judged.back.as_secs_f64());
            row(
                "after the target was slowed",
                format!("decided in {decided:.1} s, clients back on the source in {back:.1} s"),
            );
        }
        row(
            "reads compared on both",
            format!(
                "{}; {} equivalent in other bytes, {} different",
                self.reads_compared, self.reads_equivalent, self.read_divergences
            ),
        );
        for policy in &self.policies {
            let PolicySeen { slot, filter, mode, calls, memo_hits, faults } = policy;
            row(
                &format!("policy {slot}"),
                format!("{filter} (WebAssembly, {mode}): {calls} calls, {memo_hits} from memory, {faults} faults"),
            );
        }
        row(
            "client requests",
            format!("{} checked, {} by redis-benchmark", self.requests_checker, self.requests_benchmark),
        );
        row("client errors", self.client_errors.to_string());
        row("wrong replies", self.wrong_replies.to_string());
        row("longest a client waited", format!("{:.1} ms", self.longest_wait_us as f64 / 1000.0));
        let digests =
            if self.digests[0] == self.digests[1] { "equal" } else { "differ by keys within the expiry tolerance" };
        let digests = if self.divergences.is_empty() { digests } else { "differ" };
        row("keys compared before commit", format!("{} and {}", self.keys_compared[0], self.keys_compared[1]));
        row("typed digests", format!("{digests} ({:032x}, {:032x})", self.digests[0], self.digests[1]));
        row("divergences", self.divergences.len().to_string());
        row(
            "acknowledged writes",
            format!("{}; {} items read back after commit", self.writes_acknowledged, self.items_read_back),
        );
        row("acknowledged writes lost", self.lost.to_string());
        row("writes applied twice", self.surplus.to_string());
        for line in self.divergences.iter().take(10).chain(self.notes.iter().take(20)) {
            let _ = writeln!(out, "    {line}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let flip = FlipSeen { to: "target".into(), pause_us: Some(900) };
        let policy = |slot: &&str| PolicySeen {
            slot: (*slot).to_owned(),
            filter: "builtin:x".into(),
            mode: "observe".into(),
            calls: 1,
            memo_hits: 0,
            faults: 0,
        };
        let policies = SLOTS_EXPECTED.iter().map(policy).collect();
        Report {
            feed: FeedKind::Lane.to_string(),
            flips: vec![flip; 3],
            writes_acknowledged: 1,
            requests_benchmark: 1,
            reads_compared: 1,
            policies,
            ..Report::default()
        }
    }

    #[test]
    fn any_loss_divergence_or_error_fails_the_demo() {
        assert_eq!(good().failures(), Vec::<String>::new());
        let breaks: [fn(&mut Report); 11] = [
            |r| r.reads_compared = 0,
            |r| r.read_divergences = 1,
            |r| r.policies[0].calls = 0,
            |r| r.policies[1].faults = 1,
            |r| r.lost = 1,
            |r| r.surplus = 1,
            |r| r.divergences.push("k".into()),
            |r| r.client_errors = 1,
            |r| r.wrong_replies = 1,
            |r| drop(r.flips.pop()),
            |r| r.writes_acknowledged = 0,
        ];
        for change in breaks {
            let mut report = good();
            change(&mut report);
            assert_eq!(report.failures().len(), 1, "{report:?}");
            assert!(!report.render().is_empty());
        }
    }

    #[test]
    fn only_the_lane_asks_what_is_a_difference() {
        for (feed, failures) in [(FeedKind::Lane, 1), (FeedKind::Replication, 0)] {
            let mut report = Report { feed: feed.to_string(), ..good() };
            report.policies.retain(|policy| policy.slot != SLOT_OF_THE_LANE);
            assert_eq!(report.failures().len(), failures, "{feed}");
        }
    }
}
