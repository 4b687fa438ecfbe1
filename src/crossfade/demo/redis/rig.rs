//! Two real servers and the proxy as child processes in one temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::admin::Admin;
use super::super::process::{Running, WorkDir, free_port};
use super::connection::Connection;
use super::slow_proxy::SlowProxy;
use base::model::{Address, ClientTls, Endpoint, EndpointName, EndpointProtocol};

const START_PATIENCE: Duration = Duration::from_secs(10);
/// Where `scripts/install-test-servers.sh` installs Valkey, relative to the top of the repository.
const VALKEY_SERVER: &str = ".tools/valkey-server";

/// A real server.
#[derive(Debug)]
pub struct Server {
    pub process: Running,
    pub port: u16,
    /// "redis 7.0.15"
    pub version: String,
}

/// Fields are dropped in this order: the proxy first, the directory last.
#[derive(Debug)]
pub struct Rig {
    pub proxy: Running,
    pub proxy_port: u16,
    pub admin: Admin,
    /// In front of the target, in the variant that slows it.
    pub slow_proxy: Option<SlowProxy>,
    pub target: Server,
    pub source: Server,
    pub directory: WorkDir,
}

/// The shipped rollback policy, allowed to act, with thresholds low enough for a demonstration.
const ROLLBACK_POLICY: &str = "[interlays.demo.policies.rollback]\nfilter = \"builtin:rollback-threshold\"\nmode = \"block\"\n\
                               config = { window_s = 5, trip_s = 3, p99_ratio = 4, p99_floor_us = 30000 }\n";

pub const INTERLAY: &str = "demo";

/// Starts a server without persistence.
fn start_server(name: &str, binary: &Path, directory: &Path) -> Result<Server, String> {
    let explain = |error: std::io::Error| format!("{name} ({}): {error}", binary.display());
    let port = free_port().map_err(explain)?;
    let mut command = Command::new(binary);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(directory);
    let mut process = Running::start(command, name, directory).map_err(|error| {
        format!("{}: is it installed? run scripts/install-test-servers.sh from the repository", explain(error))
    })?;
    let up = Connection::open_when_up(port, START_PATIENCE, || process.ended().is_none());
    let mut connection = up.map_err(|error| format!("{}\n{}", explain(error), process.log_tail(5)))?;
    let info = connection.call(&[b"INFO", b"server"]).map_err(explain)?;
    let info = String::from_utf8_lossy(info.bytes().unwrap_or_default()).into_owned();
    let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)).map(str::to_owned);
    let version = match (field("valkey_version:"), field("redis_version:")) {
        (Some(version), _) => format!("valkey {version}"),
        (None, version) => format!("redis {}", version.unwrap_or_default()),
    };
    Ok(Server { process, port, version })
}

fn valkey_binary() -> Result<PathBuf, String> {
    let path = match std::env::var_os("CROSSFADE_VALKEY_SERVER") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(VALKEY_SERVER),
    };
    path.canonicalize().map_err(|error| {
        format!(
            "valkey-server {}: {error}: run scripts/install-test-servers.sh, or set CROSSFADE_VALKEY_SERVER",
            path.display()
        )
    })
}

impl Rig {
    /// Starts the servers first, so that data can be loaded before the proxy starts.
    pub fn start_servers(valkey: bool) -> Result<(WorkDir, Server, Server), String> {
        let target_binary = if valkey { valkey_binary()? } else { PathBuf::from("redis-server") };
        let directory = WorkDir::make().map_err(|error| format!("temporary directory: {error}"))?;
        let source = start_server("source", Path::new("redis-server"), directory.path())?;
        let target = start_server("target", &target_binary, directory.path())?;
        Ok((directory, source, target))
    }

    /// `slowable`: the proxy reaches the target through a [`SlowProxy`], and its rollback policy may act.
    pub fn start_proxy(directory: WorkDir, source: Server, target: Server, slowable: bool) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("proxy: {error}");
        let slow_proxy = slowable.then(|| SlowProxy::start(target.port)).transpose().map_err(io)?;
        let target_port = slow_proxy.as_ref().map_or(target.port, |proxy| proxy.port);
        let (proxy_port, admin_port) = (free_port().map_err(io)?, free_port().map_err(io)?);
        let config = directory.path().join("crossfade.toml");
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[data]\ndir = \"{}\"\n\
             [endpoints.source]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{}/0\"\n\
             [endpoints.target]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{}/0\"\n\
             [interlays.{INTERLAY}]\nkind = \"redis\"\nlisten = \"127.0.0.1:{proxy_port}\"\n\
             source = \"source\"\ntarget = \"target\"\n{}",
            directory.path().join("data").display(),
            source.port,
            target_port,
            if slowable { ROLLBACK_POLICY } else { "" }
        );
        std::fs::write(&config, text).map_err(io)?;
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.arg("serve").arg("--config").arg(&config);
        let mut proxy = Running::start(command, "crossfade", directory.path()).map_err(io)?;
        let admin = Admin::new(admin_port);
        let up = admin.wait_until_up(Instant::now() + START_PATIENCE, || proxy.ended().is_none());
        let up = up.and_then(|()| {
            let alive = || proxy.ended().is_none();
            Connection::open_when_up(proxy_port, START_PATIENCE, alive).map(drop).map_err(|error| error.to_string())
        });
        up.map_err(|error| format!("the proxy did not come up: {error}\n{}", proxy.log_tail(15)))?;
        Ok(Self { proxy, proxy_port, admin, slow_proxy, target, source, directory })
    }

    /// The two servers as endpoints for the digest.
    pub fn endpoints(&self) -> Result<[Endpoint; 2], String> {
        let endpoint = |name: &str, port: u16| {
            Ok::<_, String>(Endpoint {
                name: EndpointName::new(name).map_err(|error| error.to_string())?,
                protocol: EndpointProtocol::Redis { database: 0 },
                address: Address::Tcp { host: "127.0.0.1".to_owned(), port },
                credentials: None,
                tls: ClientTls::disabled(),
            })
        };
        Ok([endpoint("source", self.source.port)?, endpoint("target", self.target.port)?])
    }
}
