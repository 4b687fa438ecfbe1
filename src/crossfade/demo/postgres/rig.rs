//! The set-up of the PostgreSQL demo: one real server and the proxy in front of it, as child processes in one temporary directory.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::admin::Admin;
use super::super::process::{Running, WorkDir, free_port};
use super::client::Login;
use super::server::{APPLICATION_USER, Server};

const START_PATIENCE: Duration = Duration::from_secs(10);

pub const INTERLAY: &str = "shop";
/// The same server under another name: what `analyze` compares the source with.
pub const AGAIN: &str = "source-again";

/// Fields are dropped in this order: the proxy first, the directory last.
#[derive(Debug)]
pub struct Rig {
    pub proxy: Running,
    pub proxy_port: u16,
    pub admin: Admin,
    pub server: Server,
    pub directory: WorkDir,
}

impl Rig {
    pub fn start_proxy(directory: WorkDir, server: Server) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("proxy: {error}");
        let (proxy_port, admin_port) = (free_port().map_err(io)?, free_port().map_err(io)?);
        let users = directory.path().join("users.txt");
        write_private(&users, &format!("\"{APPLICATION_USER}\" \"{}\"\n", server.verifier)).map_err(io)?;
        let config = directory.path().join("crossfade.toml");
        let monitor = &server.monitor;
        let url = format!(
            "postgres://{}:{}@127.0.0.1:{}/{}?sslmode=disable",
            monitor.user, monitor.password, monitor.port, monitor.database
        );
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[data]\ndir = \"{}\"\n\
             [endpoints.source]\nkind = \"postgres\"\nurl = \"{url}\"\n\
             [endpoints.{AGAIN}]\nkind = \"postgres\"\nurl = \"{url}\"\n\
             [interlays.{INTERLAY}]\nkind = \"postgres\"\nlisten = \"127.0.0.1:{proxy_port}\"\nsource = \"source\"\n\
             [interlays.{INTERLAY}.auth]\nmode = \"scram\"\nauth_file = \"{}\"\n",
            directory.path().join("data").display(),
            users.display()
        );
        write_private(&config, &text).map_err(io)?;
        let mut command = Command::new(std::env::current_exe().map_err(io)?);
        command.arg("serve").arg("--config").arg(&config);
        let mut proxy = Running::start(command, "crossfade", directory.path()).map_err(io)?;
        let admin = Admin::new(admin_port);
        let up = admin.wait_until_up(Instant::now() + START_PATIENCE, || proxy.ended().is_none());
        up.map_err(|error| format!("the proxy did not come up: {error}\n{}", proxy.log_tail(15)))?;
        Ok(Self { proxy, proxy_port, admin, server, directory })
    }

    /// The application's login through the interlay.
    pub fn through(&self) -> Login {
        Login { port: self.proxy_port, ..self.server.application.clone() }
    }
}

/// Only this user may read the file.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
