//! `pgbench` as a user would run it: creates the tables, measures, and provides the load during the pauses.

use std::path::Path;
use std::time::Duration;

use super::super::process::Running;
use super::super::screen::Screen;
use super::client::Login;
use super::server::{Programs, wait_for_end};

pub const SCALE: &str = "10";
const CLIENTS: &str = "16";
const THREADS: &str = "2";
/// Rounds of a measurement, and the length of each side of a round.
pub const ROUNDS: usize = 3;
pub const ROUND_SECONDS: u64 = 2;
/// Time allowed beyond the requested duration.
const PATIENCE: Duration = Duration::from_secs(60);

/// `pgbench` for one login.
#[derive(Debug)]
pub struct Pgbench<'a> {
    pub programs: &'a Programs,
    pub directory: &'a Path,
}

impl Pgbench<'_> {
    fn start(&self, name: &str, login: &Login, arguments: &[&str]) -> Result<Running, String> {
        let mut command = self.programs.client("pgbench");
        command.args(["-h", "127.0.0.1", "-p", &login.port.to_string(), "-U", &login.user]).args(arguments);
        command.arg(&login.database).env("PGPASSWORD", &login.password);
        Running::start(command, name, self.directory).map_err(|error| format!("pgbench: {error}"))
    }

    /// Creates the four tables.
    pub fn initialise(&self, login: &Login, screen: &mut Screen) -> Result<(), String> {
        let name = "pgbench-i";
        let mut running = self.start(name, login, &["-i", "-s", SCALE])?;
        let ended = wait_for_end(&mut running, "pgbench -i", PATIENCE, &mut |log| {
            let (done, total) = rows_done(log).unwrap_or_default();
            screen.update(done, total, "rows of pgbench_accounts");
        });
        ended.map_err(|why| format!("{why}\n{}", running.log_tail(5)))
    }

    /// Reads single rows by prepared statements as fast as possible. Returns transactions per second.
    pub fn measure(&self, login: &Login) -> Result<f64, String> {
        let seconds = ROUND_SECONDS.to_string();
        let arguments = ["-n", "-S", "-M", "prepared", "-c", CLIENTS, "-j", THREADS, "-T", &seconds];
        let mut running = self.start("pgbench-S", login, &arguments)?;
        let ended = wait_for_end(&mut running, "pgbench -S", PATIENCE, &mut |_| ());
        let text = std::fs::read_to_string(&running.log).unwrap_or_default();
        ended.map_err(|why| format!("{why}\n{}", running.log_tail(5)))?;
        Outcome::read(&text).map(|outcome| outcome.tps).ok_or_else(|| format!("pgbench printed no tps:\n{text}"))
    }

    /// TPC-B in the background.
    pub fn tpc_b(&self, login: &Login, seconds: u64) -> Result<TpcB, String> {
        let length = seconds.to_string();
        let arguments = ["-n", "-M", "prepared", "-c", CLIENTS, "-j", THREADS, "-P", "1", "-T", &length];
        let running = self.start("pgbench-tpcb", login, &arguments)?;
        Ok(TpcB { running, seconds })
    }
}

/// The load; stopped when dropped.
#[derive(Debug)]
pub struct TpcB {
    running: Running,
    seconds: u64,
}

impl TpcB {
    /// "812.0 tps", as last reported by pgbench.
    pub fn progress(&self) -> String {
        let log = self.running.log_tail(1);
        log.split(", ").find(|part| part.ends_with(" tps")).unwrap_or("starting").to_owned()
    }

    /// True once pgbench has reported progress: all its clients are connected.
    pub fn under_way(&mut self) -> Result<bool, String> {
        match self.running.ended() {
            Some(status) => Err(format!("pgbench ended early ({status})\n{}", self.running.log_tail(5))),
            None => Ok(self.progress().ends_with(" tps")),
        }
    }

    /// Waits for its end. A failure means that its clients met errors: counted, but not an error of the demo.
    pub fn finish(mut self) -> Result<Outcome, String> {
        let patience = Duration::from_secs(self.seconds) + PATIENCE;
        let ended = wait_for_end(&mut self.running, "pgbench", patience, &mut |_| ());
        let text = std::fs::read_to_string(&self.running.log).unwrap_or_default();
        let mut outcome = Outcome::read(&text).unwrap_or_default();
        if let Err(why) = ended {
            outcome.errors = outcome.errors.max(1);
            outcome.notes.push(why);
        }
        Ok(outcome)
    }
}

/// The summary of one run of pgbench.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub tps: f64,
    pub transactions: u64,
    /// Number of error messages and failed transactions.
    pub errors: u64,
    pub notes: Vec<String>,
}

impl Outcome {
    /// `None` when the output has no summary.
    fn read(text: &str) -> Option<Self> {
        let number = |start: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
            rest.split([' ', '/']).next()?.parse::<f64>().ok()
        };
        let complaints = text.lines().filter(|line| line.contains("error:") || line.contains("ERROR"));
        let notes: Vec<String> = complaints.map(|line| line.trim().to_owned()).collect();
        // Before PostgreSQL 15 there is no such line: a client that met a failure stopped with an error.
        let failed = number("number of failed transactions: ").unwrap_or(0.0);
        Some(Self {
            tps: number("tps = ")?,
            transactions: number("number of transactions actually processed: ")? as u64,
            errors: notes.len() as u64 + failed as u64,
            notes,
        })
    }
}

/// "300000 of 1000000 tuples (30%) done ..."
fn rows_done(log: &str) -> Option<(u64, u64)> {
    let line = log.rsplit(['\n', '\r']).find(|line| line.contains(" tuples ("))?;
    let mut words = line.split(' ');
    let done = words.next()?.parse().ok()?;
    Some((done, words.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "pgbench (15.18)\nprogress: 1.0 s, 901.9 tps, lat 17.4 ms stddev 9.0, 0 failed\n\
        transaction type: <builtin: TPC-B (sort of)>\nnumber of transactions actually processed: 1812\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 17.6 ms\n\
        tps = 905.123456 (without initial connection time)\n";

    #[test]
    fn a_summary_is_understood() {
        let good = Outcome { tps: 905.123_456, transactions: 1812, errors: 0, notes: vec![] };
        assert_eq!(Outcome::read(SUMMARY), Some(good));
        let failed = SUMMARY.replace("transactions: 0 (", "transactions: 3 (");
        assert_eq!(Outcome::read(&failed).expect("a summary").errors, 3);
        let complained = format!("pgbench: error: client 3 aborted\n{SUMMARY}");
        assert_eq!(Outcome::read(&complained).expect("a summary").notes, ["pgbench: error: client 3 aborted"]);
        assert_eq!(Outcome::read("pgbench: error: no server"), None);
    }

    #[test]
    fn progress_of_the_tables_is_understood() {
        let log = "creating tables...\n100000 of 1000000 tuples (10%) done (elapsed 0.1 s)\r200000 of 1000000 tuples (20%) done";
        assert_eq!(rows_done(log), Some((200_000, 1_000_000)));
        assert_eq!(rows_done("vacuuming..."), None);
    }
}
