//! Drives the migration of the demo through the admin API while clients run, and records what it sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::super::screen::Screen;
use super::report::{FlipSeen, PolicySeen, Report};
use super::rig::{INTERLAY, Rig};
use super::workload::Tally;
use base::model::limits;
use movers::{compare_servers, digest_server};

pub const MIGRATION: &str = "demo";
/// Much longer than any step of a healthy demo.
const STEP_PATIENCE: Duration = Duration::from_secs(60);
/// Time of traffic between two flips.
pub const BETWEEN_FLIPS: Duration = Duration::from_secs(3);
/// Deadlines of the two sides differ by the grace, and by the time a reply takes.
const TTL_TOLERANCE_MS: u64 = limits::TTL_GRACE_DEFAULT_MS + 1000;

/// Drives the migration while clients run.
pub struct Director<'a> {
    pub rig: &'a mut Rig,
    pub screen: &'a mut Screen,
    pub tally: Arc<Tally>,
    pub benchmark: Arc<AtomicU64>,
    /// Minimum time of comparing reads.
    pub compare: Duration,
    /// What is to keep the target in step.
    pub feed: String,
}

pub fn on(side: &'static str) -> impl Fn(&Json) -> bool {
    move |now| now["authority"] == side
}

impl Director<'_> {
    pub fn create(&mut self) -> Result<(), String> {
        self.screen.step("pre-test");
        let create = json!({
            "id": MIGRATION,
            "interlay": INTERLAY,
            "strategy": "blue_green",
            "manual_approval": false,
            "feed": self.feed,
        });
        let (status, answer) = self.rig.admin.post("/api/v1/migrations", &create)?;
        if !(200..300).contains(&status) {
            return Err(format!("creating the migration: {status} {answer}"));
        }
        Ok(())
    }

    /// Advances to `migrate`, where the flip happens automatically.
    pub fn advance_through(&mut self, report: &mut Report) -> Result<(), String> {
        for (phase, next) in
            [("analyze", "analyze"), ("compare and first copy", "compare"), ("test", "test"), ("migrate", "migrate")]
        {
            self.post("advance", &json!({ "to": next }))?;
            if next == "test" {
                // When `compare` is left, the first copy has just ended.
                report.keys_per_second = last_rate(&self.rig.admin.migration(MIGRATION)?);
            }
            self.screen.step(phase);
            if next == "compare" && !self.compare.is_zero() {
                self.linger(self.compare)?;
            }
        }
        Ok(())
    }

    pub fn phases(&mut self, report: &mut Report) -> Result<(), String> {
        self.create()?;
        self.advance_through(report)?;
        let now = self.wait("authority on the target", on("target"))?;
        self.show_flip(&now);
        self.linger(BETWEEN_FLIPS)?;

        self.screen.step("rollback");
        self.post("rollback", &json!({ "reason": "the demo shows a rollback" }))?;
        let now = self.wait("authority back on the source", on("source"))?;
        self.show_flip(&now);
        self.linger(BETWEEN_FLIPS)?;

        self.screen.step("migrate again");
        self.post("advance", &json!({ "to": "migrate" }))?;
        let now = self.wait("authority on the target again", on("target"))?;
        self.show_flip(&now);
        Ok(())
    }

    pub fn show_flip(&mut self, now: &Json) {
        if let Some(flip) = flips(now).last() {
            let pause =
                flip.pause_us.map_or("an unknown time".to_owned(), |us| format!("{:.2} ms", us as f64 / 1000.0));
            self.screen.say(&format!("authority: {}; writes were held for {pause}", flip.to));
        }
    }

    pub fn post(&mut self, verb: &str, body: &Json) -> Result<(), String> {
        let (screen, tally, benchmark) = (&mut *self.screen, &self.tally, &self.benchmark);
        let deadline = Instant::now() + STEP_PATIENCE;
        self.rig
            .admin
            .post_when_possible(MIGRATION, verb, body, deadline, &mut |now| show(screen, tally, benchmark, now))
    }

    pub fn wait(&mut self, what: &str, done: impl Fn(&Json) -> bool) -> Result<Json, String> {
        let (screen, tally, benchmark) = (&mut *self.screen, &self.tally, &self.benchmark);
        let deadline = Instant::now() + STEP_PATIENCE + self.compare;
        self.rig.admin.wait(MIGRATION, what, deadline, &mut |now| show(screen, tally, benchmark, now), done)
    }

    /// Waits while traffic runs.
    pub fn linger(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        self.wait("traffic", move |_| Instant::now() >= until).map(drop)
    }

    pub fn drained(&mut self) -> Result<(), String> {
        let nothing = |field: &Json| matches!(field, Json::Bool(false)) || field.as_u64() == Some(0);
        // A status is up to 100 ms old: only a status from after the last write counts.
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.wait("a shadow that has everything", |now| {
            now["lane"]["at_ms"].as_u64().is_some_and(|at| at > since)
                && nothing(&now["dirty"])
                && nothing(&now["in_flight"])
                && nothing(&now["uncopied"])
        })
        .map(drop)
    }

    /// Compares both servers while no client writes and the shadow has everything.
    pub fn compare(&mut self, report: &mut Report) -> Result<(), String> {
        self.screen.step("typed digest of both servers");
        let [source, target] = self.rig.endpoints()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("runtime: {error}"))?;
        let found = runtime.block_on(async {
            let divergences = compare_servers(&source, &target, TTL_TOLERANCE_MS).await?;
            let digests = tokio::try_join!(digest_server(&source), digest_server(&target))?;
            Ok::<_, movers::JobError>((divergences, digests))
        });
        let (divergences, (first, second)) = found.map_err(|error| format!("comparing the servers: {error}"))?;
        report.keys_compared = [first.keys, second.keys];
        report.digests = [first.digest, second.digest];
        report.divergences = divergences
            .iter()
            .map(|d| format!("db {} {}: {}: {} / {}", d.database, d.key.escape_ascii(), d.class, d.source, d.target))
            .collect();
        Ok(())
    }

    pub fn commit(&mut self, report: &mut Report) -> Result<(), String> {
        self.screen.step("commit");
        let before = self.rig.admin.migration(MIGRATION)?;
        self.post("commit", &json!({ "reason": "the demo is over" }))?;
        let now = self.wait("commit", |now| now["phase"] == "commit" && now["status"] == "completed")?;
        self.summarise(&before, report);
        report.flips = flips(&now);
        Ok(())
    }

    /// Reads a migration's figures while both sides are still kept in step.
    pub fn summarise(&self, before: &Json, report: &mut Report) {
        report.flips = flips(before);
        let word = |name: &str| before[name].as_str().unwrap_or("unknown").to_owned();
        (report.feed, report.feed_reason) = (word("feed"), word("feed_reason"));
        let lane = &before["lane"];
        report.keys_moved = lane["copied_keys"].as_u64().unwrap_or(0);
        report.bytes_moved = lane["copied_bytes"].as_u64().unwrap_or(0);
        let count = |name: &str| lane[name].as_u64().unwrap_or(0);
        report.reads_compared = count("reads_compared");
        report.reads_equivalent = count("reads_equivalent");
        report.read_divergences = count("read_divergences");
    }

    /// The filters in force, and the statistics of each.
    pub fn policies(&mut self, report: &mut Report) -> Result<(), String> {
        let (status, answer) = self.rig.admin.get(&format!("/api/v1/interlays/{INTERLAY}/policies"))?;
        if status != 200 {
            return Err(format!("the policies of the interlay: {status} {answer}"));
        }
        report.policies = policies_seen(&answer);
        Ok(())
    }

    pub fn count(&self, report: &mut Report) {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        report.requests_checker = read(&self.tally.requests);
        report.requests_benchmark = read(&self.benchmark);
        report.writes_acknowledged = read(&self.tally.writes_acknowledged);
        report.longest_wait_us = read(&self.tally.longest_wait_us);
        report.client_errors += read(&self.tally.errors);
        report.wrong_replies = read(&self.tally.wrong);
    }
}

fn show(screen: &mut Screen, tally: &Tally, benchmark: &AtomicU64, now: &Json) {
    let requests = tally.requests.load(Ordering::Relaxed) + benchmark.load(Ordering::Relaxed);
    screen.migration(now, requests, tally.errors.load(Ordering::Relaxed));
}

pub fn last_rate(now: &Json) -> f64 {
    now["backfill"]["rate_per_second"].as_f64().unwrap_or(0.0)
}

fn flips(now: &Json) -> Vec<FlipSeen> {
    let flips = now["flips"].as_array().map_or(&[][..], Vec::as_slice);
    let seen = |flip: &Json| FlipSeen {
        to: flip["to"].as_str().unwrap_or("?").to_owned(),
        pause_us: flip["pause_us"].as_u64(),
    };
    flips.iter().map(seen).collect()
}

fn policies_seen(answer: &Json) -> Vec<PolicySeen> {
    let list = |name: &str| answer[name].as_array().map_or(&[][..], Vec::as_slice);
    let text = |of: &Json| of.as_str().unwrap_or_default().to_owned();
    let seen = |slot: &Json| {
        let same = |stats: &&Json| stats["slot"] == slot["slot"] && stats["filter"] == slot["policy"]["filter"];
        let stats = list("stats").iter().find(same).unwrap_or(&Json::Null);
        PolicySeen {
            slot: text(&slot["slot"]),
            filter: text(&slot["policy"]["filter"]),
            mode: text(&slot["policy"]["mode"]),
            calls: stats["calls"].as_u64().unwrap_or(0),
            memo_hits: stats["memo_hits"].as_u64().unwrap_or(0),
            faults: stats["faults"].as_object().map_or(0, |kinds| kinds.values().filter_map(Json::as_u64).sum()),
        }
    };
    list("slots").iter().filter(|slot| slot["policy"]["filter"] != "none").map(seen).collect()
}
