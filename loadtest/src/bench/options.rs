//! The command line of `loadgen`. Pure: words in, settings or a sentence out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::bench::engine::{Drive, Settings};
use crate::bench::knee::{BEHIND_MAX, Bounds};
use crate::bench::pace::Spacing;

pub const HELP: &str = "loadgen --port PORT [options]: GET and SET at due times; one JSON object on standard output.
  --rate N             open loop: requests per second over all connections (default: closed loop)
  --spacing S          poisson (default) or uniform
  --find-knee          open loop: doubles the rate from --rate, then bisects, until p99 or the reached rate breaks a bound
  --p99-bound-us N     of --find-knee (1000)        --rate-max N    where doubling stops (10000000)
  --idle N             opens N connections, one PING on each, reports it, holds them until its standard input ends or --hold passes
  --hold SECONDS       of --idle (600)
  --until-eof          ends the run, not only --idle, when standard input ends
  --fill               writes all keys first, not measured
  --connections N (50) --threads N (1) --pipeline N (1) --keys N (100000) --value-bytes N (64) --read-share 0..1 (1)
  --duration SECONDS (5) --warmup SECONDS (1) --seed N (1) --host ADDRESS (127.0.0.1)";

/// What to do.
#[derive(Debug, Clone)]
pub enum Task {
    Run,
    FindKnee { start: f64, bounds: Bounds },
    Idle { connections: usize, hold: Duration },
    Help,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub task: Task,
    pub settings: Settings,
    pub fill: bool,
    pub until_eof: bool,
}

/// # Errors
/// What is wrong with the arguments.
pub fn parse(words: &[String]) -> Result<Options, String> {
    let mut raw = Raw::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--fill" => raw.fill = true,
            "--until-eof" => raw.until_eof = true,
            "--find-knee" => raw.find_knee = true,
            "--help" | "-h" => raw.help = true,
            name if name.starts_with("--") => {
                let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
                raw.set(name, value)?;
            }
            other => return Err(format!("unknown argument {other:?}: see --help")),
        }
    }
    raw.finish()
}

struct Raw {
    host: String,
    port: Option<u16>,
    rate: Option<f64>,
    spacing: Spacing,
    p99_us_max: f64,
    rate_max: f64,
    idle: Option<usize>,
    hold: f64,
    fill: bool,
    until_eof: bool,
    find_knee: bool,
    help: bool,
    connections: usize,
    threads: usize,
    pipeline: usize,
    keys: u64,
    value_bytes: usize,
    read_share: f64,
    duration: f64,
    warmup: f64,
    seed: u64,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: None,
            rate: None,
            spacing: Spacing::Poisson,
            p99_us_max: 1000.0,
            rate_max: 1e7,
            idle: None,
            hold: 600.0,
            fill: false,
            until_eof: false,
            find_knee: false,
            help: false,
            connections: 50,
            threads: 1,
            pipeline: 1,
            keys: 100_000,
            value_bytes: 64,
            read_share: 1.0,
            duration: 5.0,
            warmup: 1.0,
            seed: 1,
        }
    }
}

fn number<T: std::str::FromStr + PartialOrd>(name: &str, text: &str, least: T, most: T) -> Result<T, String> {
    let value = text.parse::<T>().map_err(|_| format!("{name}: {text:?} is not a valid number"))?;
    if value >= least && value <= most { Ok(value) } else { Err(format!("{name}: {text} is out of range")) }
}

impl Raw {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--host" => value.clone_into(&mut self.host),
            "--port" => self.port = Some(number(name, value, 1, u16::MAX)?),
            "--rate" => self.rate = Some(number(name, value, 1.0, 1e8)?),
            "--spacing" => {
                self.spacing = match value {
                    "poisson" => Spacing::Poisson,
                    "uniform" => Spacing::Uniform,
                    other => return Err(format!("--spacing: poisson or uniform, not {other:?}")),
                }
            }
            "--p99-bound-us" => self.p99_us_max = number(name, value, 1.0, 1e9)?,
            "--rate-max" => self.rate_max = number(name, value, 1.0, 1e8)?,
            "--idle" => self.idle = Some(number(name, value, 1, 60_000)?),
            "--hold" => self.hold = number(name, value, 0.0, 86_400.0)?,
            "--connections" => self.connections = number(name, value, 1, 20_000)?,
            "--threads" => self.threads = number(name, value, 1, 64)?,
            "--pipeline" => self.pipeline = number(name, value, 1, 10_000)?,
            "--keys" => self.keys = number(name, value, 1, 1_000_000_000_000)?,
            "--value-bytes" => self.value_bytes = number(name, value, 0, 64 << 20)?,
            "--read-share" => self.read_share = number(name, value, 0.0, 1.0)?,
            "--duration" => self.duration = number(name, value, 0.01, 86_400.0)?,
            "--warmup" => self.warmup = number(name, value, 0.0, 86_400.0)?,
            "--seed" => self.seed = number(name, value, 0, u64::MAX)?,
            other => return Err(format!("unknown option {other}: see --help")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Options, String> {
        let host = self.host.parse().map_err(|_| format!("--host: {:?} is not an address", self.host))?;
        let port = match self.port {
            Some(port) => port,
            None if self.help => 0,
            None => return Err("--port is needed; see --help".to_owned()),
        };
        let drive = self.rate.map_or(Drive::Closed, |per_second| Drive::Open { per_second, spacing: self.spacing });
        let task = match (self.help, self.idle, self.find_knee, self.rate) {
            (true, ..) => Task::Help,
            (_, Some(_), true, _) => return Err("--idle and --find-knee exclude each other".to_owned()),
            (_, Some(connections), ..) => Task::Idle { connections, hold: Duration::from_secs_f64(self.hold) },
            (_, _, true, None) => return Err("--find-knee needs --rate, the rate to begin with".to_owned()),
            (_, _, true, Some(start)) => {
                let bounds = Bounds {
                    p99_us_max: self.p99_us_max,
                    behind_max: BEHIND_MAX,
                    rate_max: self.rate_max,
                    tolerance: 0.03,
                };
                Task::FindKnee { start, bounds }
            }
            _ => Task::Run,
        };
        let settings = Settings {
            address: SocketAddr::new(host, port),
            connections: self.connections,
            threads: self.threads,
            drive,
            pipeline: self.pipeline,
            keys: self.keys,
            value_bytes: self.value_bytes,
            read_share: self.read_share,
            warmup: Duration::from_secs_f64(self.warmup),
            duration: Duration::from_secs_f64(self.duration),
            seed: self.seed,
            stop: Arc::default(),
        };
        Ok(Options { task, settings, fill: self.fill, until_eof: self.until_eof })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_rate_makes_the_loop_open() {
        let open = parsed("--port 6380 --rate 20000 --spacing uniform --read-share 0.9 --warmup 0.5").unwrap();
        assert_eq!(open.settings.drive, Drive::Open { per_second: 20_000.0, spacing: Spacing::Uniform });
        assert_eq!((open.settings.read_share, open.settings.warmup), (0.9, Duration::from_millis(500)));
        assert_eq!(parsed("--port 1 --pipeline 16").unwrap().settings.drive, Drive::Closed);
        assert!(matches!(parsed("--port 1 --rate 5 --find-knee").unwrap().task, Task::FindKnee { start: 5.0, .. }));
        assert!(matches!(parsed("--port 1 --idle 10000").unwrap().task, Task::Idle { connections: 10_000, .. }));
        assert!(matches!(parsed("--help").unwrap().task, Task::Help));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, word) in [
            ("", "--port"),
            ("--port 0", "--port"),
            ("--port 1 --rate", "needs a value"),
            ("--port 1 --rate fast", "--rate"),
            ("--port 1 --read-share 1.5", "--read-share"),
            ("--port 1 --duration NaN", "--duration"),
            ("--port 1 --find-knee", "--rate"),
            ("--port 1 --idle 5 --find-knee", "exclude"),
            ("--port 1 --spacing bursty", "--spacing"),
            ("--port 1 --clients 5", "--clients"),
            ("--port 1 --host nowhere", "--host"),
            ("port", "--help"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
