//! Starts the contestants on Redis: the server itself, Crossfade in several configurations, HAProxy, twemproxy. All on free loopback
//! ports, in a directory each, stopped when dropped. A peer that is not installed is not an error: it is absent, with a reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::process::{Running, TempDir, free_port};
use crate::server::connect;

const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A program with its directory. When dropped it is asked to stop, then killed.
#[derive(Debug)]
pub struct Program {
    process: Running,
    stop_signal: i32,
    pub port: u16,
    /// Port of the admin API, for Crossfade.
    pub admin_port: u16,
    directory: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.process.signal(self.stop_signal);
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.process.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Program {
    /// Starts `command`, which must listen on `port`, and waits until `ready`.
    ///
    /// # Errors
    /// Why it does not come up, with the end of its log.
    pub fn start(
        command: Command,
        directory: TempDir,
        (port, admin_port): (u16, u16),
        stop_signal: i32,
        ready: impl Fn(u16) -> Result<(), String>,
    ) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = directory.path().join("log");
        // The kernel stops it when this process dies, for any reason.
        let process =
            Running::start_dying_by(command, &log, stop_signal).map_err(|error| format!("{name}: {error}"))?;
        let mut program = Self { process, stop_signal, port, admin_port, directory };
        let deadline = Instant::now() + START_PATIENCE;
        while let Err(why) = ready(port) {
            let ended = program.process.ended();
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("{name} does not come up ({ended:?}): {why}\n{}", program.process.log_tail(8)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a Crossfade command line against this program.
    ///
    /// # Errors
    /// What it said.
    pub fn cli(&self, binary: &Path, args: &[&str]) -> Result<String, String> {
        let admin = format!("http://127.0.0.1:{}", self.admin_port);
        let output = Command::new(binary).args(["--admin", &admin]).args(args).output();
        let output = output.map_err(|error| format!("{}: {error}", binary.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(format!("crossfade {}: {} {}", args.join(" "), text(&output.stdout), text(&output.stderr)))
    }

    /// GET of Crossfade's admin API: starting a program for each request would itself be a load.
    ///
    /// # Errors
    /// When there is no answer or it is no JSON.
    pub fn admin(&self, path: &str) -> Result<Json, String> {
        get_json(self.admin_port, path).map_err(|error| format!("GET {path}: {error}"))
    }
}

fn get_json(port: u16, path: &str) -> Result<Json, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).ok_or_else(|| format!("not HTTP: {answer:.80}"))?;
    serde_json::from_str(body).map_err(|error| format!("{error}: {body:.200}"))
}

/// The first of these that exists: Debian installs servers in folders that are not in every PATH.
///
/// # Errors
/// That it is not installed.
pub fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).map(|place| Path::new(place).join(name));
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| format!("{name} is not installed"))
}

fn answers_ping(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").map_err(|error| error.to_string())?;
    let mut answer = [0; 64];
    let count = stream.read(&mut answer).map_err(|error| error.to_string())?;
    let answer = &answer[..count];
    if answer.starts_with(b"+PONG") { Ok(()) } else { Err(format!("PING: {}", answer.escape_ascii())) }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A Redis without persistence.
///
/// # Errors
/// Why it does not come up.
pub fn redis() -> Result<Program, String> {
    let (directory, port) = (TempDir::make("redis"), free_port());
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    // For ten thousand idle connections; the default of 10 000 counts its own files too.
    command.args(["--maxclients", "15000", "--dir"]).arg(directory.path());
    Program::start(command, directory, (port, 0), libc::SIGTERM, answers_ping)
}

/// Crossfade passing through, with a replica of Redis' own beside the server: what any second server costs on this machine.
pub const WITH_REPLICA: &str = "crossfade-replica";

/// A Redis that is a replica of the one on `server`, and has all it has.
///
/// # Errors
/// Why it does not come up.
pub fn replica(server: u16) -> Result<Program, String> {
    let program = redis()?;
    let mut connection = client(program.port);
    let failed = |error: redis::RedisError| format!("a replica: {error}");
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(server).exec(&mut connection).map_err(failed)?;
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let told: String = redis::cmd("INFO").arg("replication").query(&mut connection).map_err(failed)?;
        if told.contains("master_link_status:up") {
            return Ok(program);
        }
        if Instant::now() > deadline {
            return Err(format!("a replica does not get everything: {told}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How Crossfade is configured.
#[derive(Debug, Clone, Copy)]
pub struct Crossfade<'a> {
    pub binary: &'a Path,
    pub cores: u32,
    pub source: u16,
    pub target: Option<u16>,
    /// More lines for the interlay's table.
    pub more: &'a str,
}

/// The interlay's name in every configuration here.
pub const INTERLAY: &str = "bench";

/// The feed of a contestant that is measured while two servers are kept in step.
#[must_use]
pub fn dual_over(name: &str) -> Option<&'static str> {
    match name {
        "crossfade-dual" => Some("replication"),
        "crossfade-dual-lane" => Some("lane"),
        _ => None,
    }
}

/// The feed of a contestant that is measured while it makes a first copy, or changes the authority.
#[must_use]
pub fn migrating_over(name: &str) -> Option<&'static str> {
    match name {
        "crossfade-migrating" => Some("replication"),
        "crossfade-migrating-lane" => Some("lane"),
        _ => None,
    }
}

impl Crossfade<'_> {
    /// # Errors
    /// Why it does not come up.
    pub fn start(self) -> Result<Program, String> {
        let (directory, port, admin) = (TempDir::make("crossfade"), free_port(), free_port());
        let endpoint = |name: &str, port: u16| {
            format!("[endpoints.{name}]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{port}/0\"\n")
        };
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin}\"\n[data]\ndir = \"{}\"\n[cores]\ncount = {}\n{}{}\
             [interlays.{INTERLAY}]\nkind = \"redis\"\nlisten = \"127.0.0.1:{port}\"\nsource = \"old\"\n{}{}",
            directory.path().join("data").display(),
            self.cores,
            endpoint("old", self.source),
            self.target.map_or(String::new(), |port| endpoint("new", port)),
            if self.target.is_some() { "target = \"new\"\n" } else { "" },
            self.more,
        );
        let file = directory.path().join("crossfade.toml");
        write(&file, &text)?;
        let mut command = Command::new(self.binary);
        command.args(["serve", "--config"]).arg(file);
        Program::start(command, directory, (port, admin), libc::SIGTERM, answers_ping)
    }
}

fn haproxy(server: u16) -> Result<Program, String> {
    let binary = find("haproxy")?;
    let (directory, port) = (TempDir::make("haproxy"), free_port());
    let text = format!(
        "global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend bench\n  bind 127.0.0.1:{port}\n  default_backend redis\nbackend redis\n  server one 127.0.0.1:{server}\n"
    );
    let file = directory.path().join("haproxy.cfg");
    write(&file, &text)?;
    let mut command = Command::new(binary);
    command.args(["-db", "-f"]).arg(file);
    Program::start(command, directory, (port, 0), libc::SIGTERM, answers_ping)
}

fn nutcracker(server: u16) -> Result<Program, String> {
    let binary = find("nutcracker")?;
    let (directory, port, stats) = (TempDir::make("nutcracker"), free_port(), free_port());
    let text = format!(
        "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  auto_eject_hosts: false\n\
         \x20 preconnect: true\n  servers:\n   - 127.0.0.1:{server}:1\n"
    );
    let file = directory.path().join("nutcracker.yml");
    write(&file, &text)?;
    let mut command = Command::new(binary);
    command.args(["-a", "127.0.0.1", "-s", &stats.to_string(), "-c"]).arg(file);
    Program::start(command, directory, (port, 0), libc::SIGTERM, answers_ping)
}

const NO_POLICIES: &str = "[interlays.bench.policies]\nmirror = \"none\"\ncompare = \"none\"\nrollback = \"none\"\n";

/// Starts a contestant in front of the Redis on `server`; not `direct` and not those in dual operation.
///
/// # Errors
/// Why it is absent.
pub fn start(name: &str, binary: &Path, server: u16) -> Result<Program, String> {
    let crossfade = Crossfade { binary, cores: 1, source: server, target: None, more: "" };
    match name {
        "crossfade" | WITH_REPLICA => crossfade.start(),
        "crossfade-2-cores" => Crossfade { cores: 2, ..crossfade }.start(),
        "crossfade-no-telemetry" => {
            let binary = std::env::var_os("CROSSFADE_NO_TELEMETRY_BIN")
                .ok_or("CROSSFADE_NO_TELEMETRY_BIN does not name a binary built with the feature without-telemetry")?;
            Crossfade { binary: Path::new(&binary), ..crossfade }.start()
        }
        "crossfade-no-policies" => Crossfade { more: NO_POLICIES, ..crossfade }.start(),
        "haproxy" => haproxy(server),
        "nutcracker" => nutcracker(server),
        other => Err(format!("{other} cannot be started here")),
    }
}

/// Connects to a running Redis.
#[must_use]
pub fn client(port: u16) -> redis::Connection {
    connect(port)
}
