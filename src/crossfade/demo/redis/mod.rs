//! The demo of Redis: a live server moves to another and back while clients read and write, and every acknowledged write is read back.

mod auto_rollback;
mod background;
mod connection;
mod dataset;
mod director;
mod model;
mod readback;
mod report;
mod rig;
mod slow_proxy;
mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::background::Background;
use self::director::{BETWEEN_FLIPS, Director};
use self::report::Report;
use self::rig::Rig;
use self::workload::Workload;
use super::options::DemoOptions;
use super::process::stop_requested;
use super::screen::Screen;
use base::model::limits;

const WORKERS: usize = 4;

/// Runs the demo; the exit code of the process.
pub fn run(options: &DemoOptions) -> i32 {
    match move_there_and_back(options) {
        Ok(report) => {
            let failures = report.failures();
            let course = if options.auto_rollback {
                "and, when that became slow, automatically back"
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

fn move_there_and_back(options: &DemoOptions) -> Result<Report, String> {
    let started = Instant::now();
    let mut screen = Screen::new();
    let seed = u64::from(std::process::id());
    screen.step("two servers");
    let (directory, source, target) = Rig::start_servers(options.valkey)?;
    screen.step("loading data into the source");
    let total = dataset::keys() as u64;
    dataset::load(source.port, seed, |done| screen.update(done as u64, total, "keys"))
        .map_err(|error| format!("loading the source: {error}"))?;
    screen.step("proxy in front");
    let mut rig = Rig::start_proxy(directory, source, target, options.auto_rollback)?;
    let mut report = Report {
        source: rig.source.version.clone(),
        target: rig.target.version.clone(),
        seed,
        keys_loaded: total,
        ..Report::default()
    };
    let result = passage(&mut rig, &mut screen, options, &mut report);
    report.took = started.elapsed();
    if let Some(status) = rig.proxy.ended() {
        return Err(format!("the proxy ended unexpectedly ({status}):\n{}", rig.proxy.log_tail(30)));
    }
    result.map_err(|why| format!("{why}\nlast lines of the proxy:\n{}", rig.proxy.log_tail(10)))?;
    drop(screen);
    if options.keep {
        keep(&rig, &report);
    }
    Ok(report)
}

/// Everything from the first client to the last read.
fn passage(rig: &mut Rig, screen: &mut Screen, options: &DemoOptions, report: &mut Report) -> Result<(), String> {
    let io = |error: std::io::Error| format!("clients: {error}");
    let traffic_since = Instant::now();
    let workload = Workload::start(rig.proxy_port, WORKERS, report.seed, limits::TTL_GRACE_DEFAULT_MS).map_err(io)?;
    let background = Background::start(rig.proxy_port).map_err(io)?;
    let requests = Arc::clone(&background.requests);
    let compare = Duration::from_secs(options.compare_seconds);
    let tally = Arc::clone(&workload.tally);
    let feed = options.feed.clone().unwrap_or_else(|| DemoOptions::FEED.to_owned());
    let mut director = Director { rig, screen, tally, benchmark: requests, compare, feed };

    if options.auto_rollback {
        director.phases_with_automatic_rollback(report)?;
    } else {
        director.phases(report)?;
    }
    let least = Duration::from_secs(options.seconds.unwrap_or(0)).saturating_sub(traffic_since.elapsed());
    director.linger(BETWEEN_FLIPS.max(least))?;

    director.screen.step("stopping clients, waiting for the shadow");
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

    director.screen.step("reading everything back");
    let (retired, whole): (Vec<_>, Vec<_>) = finished.iter().partition(|finished| finished.retired);
    let models: Vec<_> = whole.iter().map(|finished| &finished.model).collect();
    if !retired.is_empty() {
        report.notes.push(format!(
            "{} of {WORKERS} checkers met an error and stopped: their keys are not checked",
            retired.len()
        ));
    }
    let read = readback::read_back(director.rig.proxy_port, &models, retired.is_empty())
        .map_err(|error| format!("read back: {error}"))?;
    director.count(report);
    report.notes.extend(finished.iter().flat_map(|finished| finished.notes.iter().cloned()));
    report.items_read_back = read.checked;
    report.lost = read.lost;
    report.surplus = read.surplus;
    report.notes.extend(read.notes);
    Ok(())
}

/// Leaves everything running until Ctrl-C.
fn keep(rig: &Rig, report: &Report) {
    print!("{}", report.render());
    println!("\nStill running (Ctrl-C stops everything and removes {}):", rig.directory.path().display());
    println!("  proxy    redis-cli -p {}", rig.proxy_port);
    println!(
        "  source   redis-cli -p {}   ({}, pid {})",
        rig.source.port,
        rig.source.version,
        rig.source.process.pid()
    );
    println!(
        "  target   redis-cli -p {}   ({}, pid {})",
        rig.target.port,
        rig.target.version,
        rig.target.process.pid()
    );
    println!("  admin    crossfade --admin {} status   (pid {})", rig.admin.base(), rig.proxy.pid());
    println!("  log      {}", rig.proxy.log.display());
    while !stop_requested() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
