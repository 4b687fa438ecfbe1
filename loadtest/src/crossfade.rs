//! The real binary: the proxy as a child process, and the command line as an operator types it.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value as Json;

use crate::process::{Running, TempDir, free_port};
use crate::server::{repository, try_connect};
use crate::wait::until;

const START_PATIENCE: Duration = Duration::from_secs(15);

/// `CROSSFADE_BIN`, or the newer of the release and the debug build.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CROSSFADE_BIN") {
        return PathBuf::from(path);
    }
    let target = repository().join("target");
    let built = ["release", "debug"].map(|profile| target.join(profile).join("crossfade"));
    let modified = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = built.into_iter().filter(|path| path.is_file()).max_by_key(modified);
    newest.expect("no crossfade binary: cargo build --release, or set CROSSFADE_BIN")
}

/// The outcome of one command line.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs the binary to its end.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run_binary(args: &[&str]) -> Ran {
    Command::new(binary()).args(args).output().expect("the crossfade binary runs").into()
}

/// How to check that a proxy is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Redis,
    Postgres,
}

/// A proxy with one interlay; stopped when dropped.
#[derive(Debug)]
pub struct Crossfade {
    process: Option<Running>,
    pub port: u16,
    pub admin_port: u16,
    config: PathBuf,
    speaks: Speaks,
    directory: TempDir,
}

pub const INTERLAY: &str = "orders";

impl Crossfade {
    /// In front of two servers; endpoints are called `old` and `new`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(source_url: &str, target_url: Option<&str>) -> Self {
        Self::start_with(TempDir::make("proxy"), source_url, target_url, "")
    }

    /// As [`Self::start`], with more lines at the end of the configuration, in the interlay's table.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_with(directory: TempDir, source_url: &str, target_url: Option<&str>, more: &str) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let target =
            target_url.map_or(String::new(), |url| format!("[endpoints.new]\nkind = \"redis\"\nurl = \"{url}\"\n"));
        let target_line = if target_url.is_some() { "target = \"new\"\n" } else { "" };
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[data]\ndir = \"{}\"\n\
             [endpoints.old]\nkind = \"redis\"\nurl = \"{source_url}\"\n{target}\
             [interlays.{INTERLAY}]\nkind = \"redis\"\nlisten = \"127.0.0.1:{port}\"\nsource = \"old\"\n{target_line}{more}",
            directory.path().join("data").display()
        );
        let config = directory.path().join("crossfade.toml");
        std::fs::write(&config, text).expect("configuration written");
        let mut proxy = Self { process: None, port, admin_port, config, speaks: Speaks::Redis, directory };
        proxy.up();
        proxy
    }

    /// Starts with this configuration, whose only interlay speaks PostgreSQL on `port`; `directory` holds its files.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_postgres(directory: TempDir, text: &str, port: u16, admin_port: u16) -> Self {
        let config = directory.path().join("crossfade.toml");
        std::fs::write(&config, text).expect("configuration written");
        let mut proxy = Self { process: None, port, admin_port, config, speaks: Speaks::Postgres, directory };
        proxy.up();
        proxy
    }

    /// Starts it (again) on its ports with its data directory.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(&mut self) {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--config").arg(&self.config).current_dir(self.directory.path());
        let log = self.directory.path().join("crossfade.log");
        self.process = Some(Running::start(command, &log).expect("the crossfade binary runs"));
        let port = self.port;
        until("the proxy to answer", START_PATIENCE, || {
            let process = self.process.as_mut().expect("just started");
            if let Some(status) = process.ended() {
                panic!("the proxy ended at once ({status}): {}", process.log_tail(10));
            }
            let answered = match self.speaks {
                Speaks::Redis => try_connect(port)
                    .and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection))
                    .map(drop)
                    .map_err(|error| error.to_string()),
                Speaks::Postgres => crate::pg_wire::answers(port).map_err(|error| error.to_string()),
            };
            answered.map_err(|error| format!("{error}: {}", process.log_tail(3)))
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// SIGTERM and the exit status.
    ///
    /// # Panics
    /// When it is not running or does not end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        self.process.take().expect("running").terminate(Duration::from_secs(15))
    }

    /// Process id of the running process, for /proc.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Whether it is still running.
    pub fn alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.as_ref().map_or(String::new(), |process| process.log_tail(lines))
    }

    #[must_use]
    pub fn connection(&self) -> redis::Connection {
        crate::server::connect(self.port)
    }

    /// Runs a command line against this proxy.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> Ran {
        let admin = format!("http://127.0.0.1:{}", self.admin_port);
        run_binary(&[&["--admin", &admin], args].concat())
    }

    /// Runs a command line that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, args: &[&str]) -> Ran {
        let ran = self.cli(args);
        assert_eq!(ran.code, 0, "crossfade {}: {} {}\n{}", args.join(" "), ran.stdout, ran.stderr, self.log_tail(10));
        ran
    }

    /// `migration show ID --output json`.
    ///
    /// # Panics
    /// When it fails or gives no JSON.
    #[must_use]
    pub fn show(&self, id: &str) -> Json {
        let ran = self.must(&["--output", "json", "migration", "show", id]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
    }

    /// Repeats `show` until `done`.
    pub fn wait(&self, id: &str, what: &str, patience: Duration, done: impl Fn(&Json) -> bool) -> Json {
        until(what, patience, || {
            let now = self.show(id);
            if done(&now) { Ok(now) } else { Err(brief(&now)) }
        })
    }

    /// Repeats a command line while gates refuse it.
    pub fn when_possible(&self, args: &[&str], patience: Duration) {
        until(&args.join(" "), patience, || {
            let ran = self.cli(args);
            if ran.code == 0 { Ok(()) } else { Err(format!("{} {}\n{}", ran.stdout, ran.stderr, self.log_tail(5))) }
        });
    }
}

/// Phase, authority and unmet gates of a shown migration.
#[must_use]
pub fn brief(now: &Json) -> String {
    let gates = now["gates"].as_array().map_or(&[][..], Vec::as_slice);
    let unmet: Vec<String> = gates
        .iter()
        .filter(|gate| gate["met"] != true)
        .map(|gate| format!("{}: {}", gate["name"], gate["measured"]))
        .collect();
    format!("{} {} {} {}", now["phase"], now["status"], now["authority"], unmet.join("; "))
}
