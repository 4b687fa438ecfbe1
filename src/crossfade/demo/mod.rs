//! `crossfade demo`: the main job on throw-away real servers, with a workload that knows what it was acknowledged. This file: Redis.
//!
//! Lives on the main thread of its own process; the proxy is a child process, driven through its admin API like any other.
//! Leaves no process and no file behind. Not a test of crashes: nothing is killed here.

mod admin;
mod background;
mod brake;
mod connection;
mod dataset;
mod judged;
mod model;
mod postgres;
mod process;
mod random;
mod readback;
mod report;
mod screen;
mod stage;
mod workload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use self::background::Background;
use self::process::stop_requested;
use self::report::{FlipSeen, PolicySeen, Report};
use self::screen::Screen;
use self::stage::{INTERLAY, Stage};
use self::workload::{Tally, Workload};
use base::model::limits;
use movers::{compare_servers, digest_server};

/// What the command line asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// "redis" or "postgres"; others are not carried yet.
    pub kind: String,
    /// Stay after the report until Ctrl-C, for a look around.
    pub keep: bool,
    /// Traffic runs at least this long.
    pub seconds: Option<u64>,
    /// The target is Valkey; Redis only.
    pub valkey: bool,
    /// The target is slowed after the move, and the rollback policy has to notice; Redis only.
    pub auto_rollback: bool,
    /// Time to stay in `compare`, where every read is compared; Redis only.
    pub compare_seconds: u64,
}

const MIGRATION: &str = "demo";
const WORKERS: usize = 4;
/// No step of a healthy demo comes near this.
const STEP_PATIENCE: Duration = Duration::from_secs(60);
/// Traffic between two flips.
const BETWEEN_FLIPS: Duration = Duration::from_secs(3);
/// Deadlines of the two sides differ by the grace, and by the time a reply takes.
const TTL_TOLERANCE_MS: u64 = limits::TTL_GRACE_DEFAULT_MS + 1000;

/// Runs the demo; the exit code of the process.
#[must_use]
pub fn run(options: &DemoOptions) -> i32 {
    let carried: fn(&DemoOptions) -> i32 = match options.kind.as_str() {
        "redis" => run_redis,
        "postgres" if options.valkey || options.auto_rollback => {
            eprintln!("demo: --valkey and --auto-rollback belong to the demo of redis");
            return 2;
        }
        "postgres" => postgres::run,
        other => {
            eprintln!("demo: {other} is not carried yet: redis and postgres work now");
            return 2;
        }
    };
    if let Err(error) = process::catch_signals() {
        eprintln!("demo: signals cannot be caught: {error}");
        return 1;
    }
    carried(options)
}

fn run_redis(options: &DemoOptions) -> i32 {
    match drive(options) {
        Ok(report) => {
            let failures = report.failures();
            let course = if options.auto_rollback {
                "and, when that was slow, back by itself"
            } else {
                "and back and there again"
            };
            println!("\nCrossfade demo: a live {} moved to {} {course}", report.source, report.target);
            print!("{}", report.render());
            if failures.is_empty() {
                println!("\nPASSED: nothing lost, nothing divergent, no client error.");
                0
            } else {
                println!("\nFAILED: {}.", failures.join(", "));
                1
            }
        }
        Err(why) => {
            eprintln!("\ndemo: FAILED: {why}");
            1
        }
    }
}

fn drive(options: &DemoOptions) -> Result<Report, String> {
    let started = Instant::now();
    let mut screen = Screen::new();
    let seed = u64::from(std::process::id());
    screen.step("two servers");
    let (directory, source, target) = Stage::start_servers(options.valkey)?;
    screen.step("history into the source");
    let total = dataset::keys() as u64;
    dataset::load(source.port, seed, |done| screen.update(done as u64, total, "keys"))
        .map_err(|error| format!("loading the source: {error}"))?;
    screen.step("proxy in front");
    let mut stage = Stage::start_proxy(directory, source, target, options.auto_rollback)?;
    let mut report = Report {
        source: stage.source.version.clone(),
        target: stage.target.version.clone(),
        seed,
        keys_loaded: total,
        ..Report::default()
    };
    let result = passage(&mut stage, &mut screen, options, &mut report);
    report.took = started.elapsed();
    if let Some(status) = stage.proxy.ended() {
        return Err(format!("the proxy ended by itself ({status}):\n{}", stage.proxy.log_tail(30)));
    }
    result.map_err(|why| format!("{why}\nlast lines of the proxy:\n{}", stage.proxy.log_tail(10)))?;
    drop(screen);
    if options.keep {
        keep(&stage, &report);
    }
    Ok(report)
}

/// From the first client to the last read.
fn passage(stage: &mut Stage, screen: &mut Screen, options: &DemoOptions, report: &mut Report) -> Result<(), String> {
    let io = |error: std::io::Error| format!("clients: {error}");
    let traffic_since = Instant::now();
    let workload = Workload::start(stage.proxy_port, WORKERS, report.seed, limits::TTL_GRACE_DEFAULT_MS).map_err(io)?;
    let background = Background::start(stage.proxy_port).map_err(io)?;
    let requests = Arc::clone(&background.requests);
    let compare = Duration::from_secs(options.compare_seconds);
    let tally = Arc::clone(&workload.tally);
    let mut director = Director { stage, screen, tally, benchmark: requests, compare };

    if options.auto_rollback {
        director.judged(report)?;
    } else {
        director.phases(report)?;
    }
    let least = Duration::from_secs(options.seconds.unwrap_or(0)).saturating_sub(traffic_since.elapsed());
    director.linger(BETWEEN_FLIPS.max(least))?;

    director.screen.step("clients stop, lane drains");
    if let Err(why) = background.finish() {
        report.client_errors += 1;
        report.notes.push(why);
    }
    let finished = workload.finish()?;
    director.drained()?;
    director.compare(report)?;
    director.policies(report)?;
    if options.auto_rollback {
        director.abandon(report)?;
    } else {
        director.commit(report)?;
    }

    director.screen.step("everything is read back");
    let (retired, whole): (Vec<_>, Vec<_>) = finished.iter().partition(|finished| finished.retired);
    let models: Vec<_> = whole.iter().map(|finished| &finished.model).collect();
    if !retired.is_empty() {
        report.notes.push(format!(
            "{} of {WORKERS} checkers met an error and stopped: their keys are not judged",
            retired.len()
        ));
    }
    let read = readback::read_back(director.stage.proxy_port, &models, retired.is_empty())
        .map_err(|error| format!("read back: {error}"))?;
    director.count(report);
    report.notes.extend(finished.iter().flat_map(|finished| finished.notes.iter().cloned()));
    report.items_read_back = read.checked;
    report.lost = read.lost;
    report.surplus = read.surplus;
    report.notes.extend(read.notes);
    Ok(())
}

/// Drives the migration while clients run.
struct Director<'a> {
    stage: &'a mut Stage,
    screen: &'a mut Screen,
    tally: Arc<Tally>,
    benchmark: Arc<AtomicU64>,
    /// How long reads are compared at least.
    compare: Duration,
}

fn on(side: &'static str) -> impl Fn(&Json) -> bool {
    move |now| now["authority"] == side
}

impl Director<'_> {
    fn create(&mut self) -> Result<(), String> {
        self.screen.step("pre-test");
        let create = json!({
            "id": MIGRATION,
            "interlay": INTERLAY,
            "strategy": "blue_green",
            "manual_approval": false,
        });
        let (status, answer) = self.stage.admin.post("/api/v1/migrations", &create)?;
        if !(200..300).contains(&status) {
            return Err(format!("creating the migration: {status} {answer}"));
        }
        Ok(())
    }

    /// As far as `migrate`, where the flip happens by itself.
    fn advance_through(&mut self, report: &mut Report) -> Result<(), String> {
        for (phase, next) in
            [("analyze", "analyze"), ("compare and first copy", "compare"), ("test", "test"), ("migrate", "migrate")]
        {
            self.post("advance", &json!({ "to": next }))?;
            if next == "test" {
                // Leaving compare: the first copy has just ended.
                report.keys_per_second = last_rate(&self.stage.admin.migration(MIGRATION)?);
            }
            self.screen.step(phase);
            if next == "compare" && !self.compare.is_zero() {
                self.linger(self.compare)?;
            }
        }
        Ok(())
    }

    fn phases(&mut self, report: &mut Report) -> Result<(), String> {
        self.create()?;
        self.advance_through(report)?;
        let now = self.wait("authority on the target", on("target"))?;
        self.show_flip(&now);
        self.linger(BETWEEN_FLIPS)?;

        self.screen.step("rollback");
        self.post("rollback", &json!({ "reason": "the demo shows the way back" }))?;
        let now = self.wait("authority back on the source", on("source"))?;
        self.show_flip(&now);
        self.linger(BETWEEN_FLIPS)?;

        self.screen.step("migrate again");
        self.post("advance", &json!({ "to": "migrate" }))?;
        let now = self.wait("authority on the target again", on("target"))?;
        self.show_flip(&now);
        Ok(())
    }

    fn show_flip(&mut self, now: &Json) {
        if let Some(flip) = flips(now).last() {
            let pause =
                flip.pause_us.map_or("an unknown time".to_owned(), |us| format!("{:.2} ms", us as f64 / 1000.0));
            self.screen.say(&format!("authority: {}; writes were held for {pause}", flip.to));
        }
    }

    fn post(&mut self, verb: &str, body: &Json) -> Result<(), String> {
        let (screen, tally, benchmark) = (&mut *self.screen, &self.tally, &self.benchmark);
        let deadline = Instant::now() + STEP_PATIENCE;
        self.stage
            .admin
            .post_when_possible(MIGRATION, verb, body, deadline, &mut |now| show(screen, tally, benchmark, now))
    }

    fn wait(&mut self, what: &str, done: impl Fn(&Json) -> bool) -> Result<Json, String> {
        let (screen, tally, benchmark) = (&mut *self.screen, &self.tally, &self.benchmark);
        let deadline = Instant::now() + STEP_PATIENCE + self.compare;
        self.stage.admin.wait(MIGRATION, what, deadline, &mut |now| show(screen, tally, benchmark, now), done)
    }

    /// Lets traffic run.
    fn linger(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        self.wait("traffic", move |_| Instant::now() >= until).map(drop)
    }

    fn drained(&mut self) -> Result<(), String> {
        let nothing = |field: &Json| matches!(field, Json::Bool(false)) || field.as_u64() == Some(0);
        // A status is up to 100 ms old: only one from after the last write counts.
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        self.wait("a drained lane", |now| {
            now["lane"]["at_ms"].as_u64().is_some_and(|at| at > since)
                && nothing(&now["dirty"])
                && nothing(&now["in_flight"])
                && nothing(&now["uncopied"])
        })
        .map(drop)
    }

    /// Both servers are at rest: no client writes, and the lane has nothing left to do.
    fn compare(&mut self, report: &mut Report) -> Result<(), String> {
        self.screen.step("typed digest of both servers");
        let [source, target] = self.stage.endpoints()?;
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

    fn commit(&mut self, report: &mut Report) -> Result<(), String> {
        self.screen.step("commit");
        let before = self.stage.admin.migration(MIGRATION)?;
        self.post("commit", &json!({ "reason": "the demo is over" }))?;
        let now = self.wait("commit", |now| now["phase"] == "commit" && now["status"] == "completed")?;
        self.summarise(&before, report);
        report.flips = flips(&now);
        Ok(())
    }

    /// What a migration says of itself while both sides are still kept in step.
    fn summarise(&self, before: &Json, report: &mut Report) {
        report.flips = flips(before);
        let lane = &before["lane"];
        report.keys_moved = lane["copied_keys"].as_u64().unwrap_or(0);
        report.bytes_moved = lane["copied_bytes"].as_u64().unwrap_or(0);
        let count = |name: &str| lane[name].as_u64().unwrap_or(0);
        report.reads_compared = count("reads_compared");
        report.reads_equivalent = count("reads_equivalent");
        report.read_divergences = count("read_divergences");
    }

    /// The filters in force, and what each has done.
    fn policies(&mut self, report: &mut Report) -> Result<(), String> {
        let (status, answer) = self.stage.admin.get(&format!("/api/v1/interlays/{INTERLAY}/policies"))?;
        if status != 200 {
            return Err(format!("the policies of the interlay: {status} {answer}"));
        }
        report.policies = policies_seen(&answer);
        Ok(())
    }

    fn count(&self, report: &mut Report) {
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

fn last_rate(now: &Json) -> f64 {
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

/// Leaves everything running until the user has seen enough.
fn keep(stage: &Stage, report: &Report) {
    print!("{}", report.render());
    println!("\nStill running (Ctrl-C stops everything and removes {}):", stage.directory.path().display());
    println!("  proxy    redis-cli -p {}", stage.proxy_port);
    println!(
        "  source   redis-cli -p {}   ({}, pid {})",
        stage.source.port,
        stage.source.version,
        stage.source.process.pid()
    );
    println!(
        "  target   redis-cli -p {}   ({}, pid {})",
        stage.target.port,
        stage.target.version,
        stage.target.process.pid()
    );
    println!("  admin    crossfade --admin {} status   (pid {})", stage.admin.base(), stage.proxy.pid());
    println!("  log      {}", stage.proxy.log.display());
    while !stop_requested() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
