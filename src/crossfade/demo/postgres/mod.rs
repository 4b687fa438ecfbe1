//! `crossfade demo postgres`: a temporary PostgreSQL behind an interlay, live clients, pauses that really wait, and a report.
//!
//! Lives on the main thread of its own process, as the Redis demo does. Nothing moves to another server: that is not supported yet.

mod client;
mod ledger;
mod pauses;
mod pgbench;
mod report;
mod rig;
mod server;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::client::{Login, Sql};
use self::ledger::{Known, Ledger};
use self::pauses::{HELD_OPEN, Outcome, Pauser, SHORT_DEADLINE};
use self::pgbench::{Pgbench, ROUND_SECONDS, ROUNDS, TpcB};
use self::report::{BenchmarkSums, PAUSES, Report, analysis_in_short};
use self::rig::{AGAIN, INTERLAY, Rig};
use self::server::{DATABASE, Server};
use super::options::DemoOptions;
use super::process::{WorkDir, rest, stop_requested};
use super::screen::Screen;
use control::api::types::Analysis;

/// Length of the load by default, and at least.
const SECONDS_DEFAULT: u64 = 20;
const SECONDS_MIN: u64 = 12;
/// Part of the load reserved for the failed pause, the start and the end.
const SECONDS_ASIDE: u64 = 6;
/// How long pgbench may take until all its clients are connected.
const UNDER_WAY_PATIENCE: Duration = Duration::from_secs(20);
/// Attempts at one pause: on a busy machine a drain may take longer than the deadline.
const ATTEMPTS: usize = 3;
/// A token that no worker of the ledger uses.
const HELD_OPEN_TOKEN: i64 = 1 << 50;

/// Runs the demo; the exit code of the process.
pub fn run(options: &DemoOptions) -> i32 {
    match drive(options) {
        Ok(report) => {
            let failures = report.failures();
            println!("\nCrossfade demo: {} behind an interlay, paused and resumed under load", report.server);
            print!("{}", report.render());
            if failures.is_empty() {
                println!("\nPASSED: nothing lost, nothing doubled, no client error.");
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
    screen.step("a server");
    let directory = WorkDir::make().map_err(|error| format!("temporary directory: {error}"))?;
    let server = Server::start(directory.path())?;
    screen.say(&format!("{} on port {}, log-in by SCRAM-SHA-256 only", server.version, server.port));
    screen.step("proxy in front");
    let mut rig = Rig::start_proxy(directory, server)?;
    screen.say(&format!(
        "users.txt holds the verifier the server itself stores ({}...); the application's password is stored nowhere",
        rig.server.verifier.split(':').next().unwrap_or_default()
    ));
    let mut report =
        Report { server: rig.server.version.clone(), seed: u64::from(std::process::id()), ..Report::default() };
    let result = passage(&rig, &mut screen, options, &mut report);
    report.took = started.elapsed();
    if let Some(status) = rig.proxy.ended() {
        return Err(format!("the proxy ended unexpectedly ({status}):\n{}", rig.proxy.log_tail(30)));
    }
    if let Some(status) = rig.server.process.ended() {
        return Err(format!("PostgreSQL ended unexpectedly ({status}):\n{}", rig.server.process.log_tail(30)));
    }
    result.map_err(|why| format!("{why}\nlast lines of the proxy:\n{}", rig.proxy.log_tail(10)))?;
    screen.step("stopping everything");
    drop(screen);
    if options.keep {
        keep(&rig, &report);
    }
    Ok(report)
}

/// Everything from creating the tables to the final sums.
fn passage(rig: &Rig, screen: &mut Screen, options: &DemoOptions, report: &mut Report) -> Result<(), String> {
    let pgbench = Pgbench { programs: &rig.server.programs, directory: rig.directory.path() };
    let through = rig.through();
    let direct = Sql::open(&rig.server.superuser, "demo")?;
    screen.step("creating tables, through the interlay");
    pgbench.initialise(&through, screen)?;
    ledger::prepare(&through)?;
    measure(&pgbench, &rig.server.application, &through, screen, report)?;

    screen.step("load");
    let seconds = options.seconds.unwrap_or(SECONDS_DEFAULT).max(SECONDS_MIN);
    let ledger = Ledger::start(&through, report.seed)?;
    let load = pgbench.tpc_b(&through, seconds)?;
    let pauser = Pauser { admin: &rig.admin, direct: &direct, violations: Vec::new() };
    let mut director = Director { screen, report, ledger, load, pauser, through, seconds };
    director.run()?;
    let Director { ledger, load, pauser, screen, report, .. } = director;

    screen.step("stopping clients");
    let outcome = load.finish()?;
    report.violations = pauser.violations;
    report.client_errors = ledger.tally.errors.load(Ordering::Relaxed) + outcome.errors;
    report.benchmark_transactions = outcome.transactions;
    report.benchmark_tps = outcome.tps;
    report.notes.extend(outcome.notes);
    let mut known = ledger.finish()?;
    known.acknowledged.extend(report.failed_pause.as_ref().map(|failed| failed.token));
    report.notes.append(&mut known.notes);
    screen.step("counting everything");
    count(rig, &known, report)
}

/// Measures both ways in turns, alternating which comes first.
fn measure(
    pgbench: &Pgbench<'_>,
    direct: &Login,
    through: &Login,
    screen: &mut Screen,
    report: &mut Report,
) -> Result<(), String> {
    screen.step("pgbench -S, direct and through the interlay");
    let total = 2 * ROUNDS as u64;
    // The first access to every page counts for neither side.
    pgbench.measure(direct)?;
    for round in 0..ROUNDS {
        let mut sides = [(direct, &mut report.tps_direct), (through, &mut report.tps_through)];
        if round % 2 == 1 {
            sides.reverse();
        }
        for (at, (login, tps)) in sides.into_iter().enumerate() {
            screen.update((2 * round + at) as u64, total, &format!("rounds of {ROUND_SECONDS} s"));
            tps.push(pgbench.measure(login)?);
        }
        let (direct, through) = (report.tps_direct[round], report.tps_through[round]);
        screen.say(&format!("{direct:.0} tps direct, {through:.0} through: {:.2}", through / direct));
    }
    screen.say("a ratio on one machine, shared by client, proxy and server");
    Ok(())
}

/// Pauses while clients run.
struct Director<'a> {
    screen: &'a mut Screen,
    report: &'a mut Report,
    ledger: Ledger,
    load: TpcB,
    pauser: Pauser<'a>,
    through: Login,
    seconds: u64,
}

impl Director<'_> {
    fn run(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + UNDER_WAY_PATIENCE;
        while !self.load.under_way()? {
            if Instant::now() > deadline {
                return Err("pgbench's clients did not connect in time".to_owned());
            }
            self.show(0);
            rest(Duration::from_millis(100))?;
        }
        self.pauses()?;
        self.failed_pause()?;
        self.screen.step("interlay analyze");
        let analysis = self.analysis()?;
        for line in analysis_in_short(&analysis) {
            self.screen.say(&line);
        }
        self.report.analysis = Some(analysis);
        Ok(())
    }

    /// Pauses at fixed times during the load: after a slow pause the next one follows sooner.
    fn pauses(&mut self) -> Result<(), String> {
        self.screen.step("pauses under load");
        self.report.begun_without_a_pause = self.pauser.look_without_a_pause()?;
        self.report.longest_wait_unpaused_us = self.longest_wait_us();
        let window = Duration::from_secs(self.seconds.saturating_sub(SECONDS_ASIDE));
        let began = Instant::now();
        for number in 0..PAUSES {
            self.show(number);
            self.one_pause()?;
            let next = began + window.mul_f64((number + 1) as f64 / PAUSES as f64);
            while Instant::now() < next {
                self.show(number + 1);
                rest(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)))?;
            }
        }
        self.report.longest_wait_us = self.longest_wait_us();
        let longest = self.report.pauses.iter().map(|pause| pause.drained_in_us).max().unwrap_or(0);
        self.screen.say(&format!(
            "{PAUSES} pauses; the longest drained in {:.1} ms; no client waited longer than {:.1} ms",
            longest as f64 / 1000.0,
            self.report.longest_wait_us as f64 / 1000.0
        ));
        Ok(())
    }

    fn one_pause(&mut self) -> Result<(), String> {
        for attempt in 1..=ATTEMPTS {
            match self.pauser.pause_and_resume()? {
                Outcome::Held(seen) => {
                    self.report.pauses.push(seen);
                    return Ok(());
                }
                Outcome::HeldUp(detail, sessions) => {
                    self.report.pauses_given_up += 1;
                    self.screen.say(&format!(
                        "a pause failed at its deadline, attempt {attempt}, {} sessions: {detail}",
                        sessions.len()
                    ));
                    self.report.notes.push(detail);
                    rest(Duration::from_millis(200))?;
                }
            }
        }
        Ok(())
    }

    fn failed_pause(&mut self) -> Result<(), String> {
        self.screen.step("a pause that must fail");
        let short = SHORT_DEADLINE.as_millis();
        self.screen.say(&format!("{HELD_OPEN} leaves a transaction open; pause with a deadline of {short} ms:"));
        let failed = self.pauser.held_up_on_purpose(&self.through, &self.ledger.tally, HELD_OPEN_TOKEN)?;
        self.screen.say(&failed.detail);
        self.report.failed_pause = Some(failed);
        self.report.longest_wait_failed_pause_us = self.longest_wait_us();
        self.screen.say("the transaction has ended with COMMIT; the same pause again:");
        self.one_pause()?;
        let again = self.longest_wait_us();
        self.report.longest_wait_us = self.report.longest_wait_us.max(again);
        if let Some(seen) = self.report.pauses.last() {
            self.screen.say(&format!("paused, drained in {:.1} ms, resumed", seen.drained_in_us as f64 / 1000.0));
        }
        Ok(())
    }

    /// The longest wait since the last call.
    fn longest_wait_us(&self) -> u64 {
        self.ledger.tally.longest_wait_us.swap(0, Ordering::Relaxed)
    }

    fn analysis(&self) -> Result<Analysis, String> {
        let path = format!("/api/v1/interlays/{INTERLAY}/analysis?target={AGAIN}&limit=10");
        let (status, answer) = self.pauser.admin.get(&path)?;
        if status != 200 {
            return Err(format!("analysis: {status} {answer}"));
        }
        serde_json::from_value(answer).map_err(|error| format!("analysis: {error}"))
    }

    fn show(&mut self, done: usize) {
        let tally = &self.ledger.tally;
        let message = format!(
            "pauses  | pgbench: {}  | ledger: {} transactions, {} errors",
            self.load.progress(),
            tally.acknowledged.load(Ordering::Relaxed),
            tally.errors.load(Ordering::Relaxed)
        );
        self.screen.update(done as u64, PAUSES as u64, &message);
    }
}

/// Reads the results from the server directly, after all clients have stopped.
fn count(rig: &Rig, known: &Known, report: &mut Report) -> Result<(), String> {
    let login = Login { database: DATABASE.to_owned(), ..rig.server.superuser.clone() };
    let direct = Sql::open(&login, "demo")?;
    report.tokens_acknowledged = known.acknowledged.len() as u64;
    report.ledger = ledger::audit(&direct, known)?;
    let sums = direct.numbers(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
         (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT count(*) FROM pgbench_history)",
    )?;
    let [accounts, tellers, branches, history, history_rows] = sums[..] else {
        return Err(format!("pgbench's sums: {sums:?}"));
    };
    report.sums = BenchmarkSums { accounts, tellers, branches, history, history_rows };
    Ok(())
}

/// Leaves everything running until Ctrl-C.
fn keep(rig: &Rig, report: &Report) {
    print!("{}", report.render());
    println!("\nStill running (Ctrl-C stops everything and removes {}):", rig.directory.path().display());
    let psql = |login: &Login| {
        format!(
            "PGPASSWORD={} psql -h 127.0.0.1 -p {} -U {} {}",
            login.password, login.port, login.user, login.database
        )
    };
    let admin = rig.admin.base();
    println!("  proxy    {}", psql(&rig.through()));
    println!(
        "  server   {}   ({}, pid {})",
        psql(&rig.server.application),
        rig.server.version,
        rig.server.process.pid()
    );
    println!("  pause    crossfade --admin {admin} interlay pause {INTERLAY} --deadline 2s");
    println!("  resume   crossfade --admin {admin} interlay resume {INTERLAY}");
    println!("  list     crossfade --admin {admin} interlay sessions {INTERLAY}");
    println!("           crossfade --admin {admin} interlay analyze {INTERLAY} --target {AGAIN}");
    println!("  admin    crossfade --admin {admin} status   (pid {})", rig.proxy.pid());
    println!("  log      {}", rig.proxy.log.display());
    while !stop_requested() {
        std::thread::sleep(Duration::from_millis(100));
    }
}
