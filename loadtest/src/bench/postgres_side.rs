//! Starts the contestants on PostgreSQL: the server, Crossfade, PgBouncer in two modes, pgpool-II. All ask for SCRAM on both sides.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::bench::contestants::{Program, find};
use crate::pg_client::Login;
use crate::postgres::{Postgres, SUPERUSER, SUPERUSER_PASSWORD, Settings, Version};
use crate::process::{TempDir, free_port};

const DATABASE: &str = "app";
/// pgbench's accounts are this times 100 000.
const SCALE: &str = "10";

/// A PostgreSQL 15 with pgbench's tables. The settings here differ from the default; no flushes, because the disk is not
/// what is compared.
#[derive(Debug)]
pub struct Server(Postgres);

impl Server {
    /// # Errors
    /// When there is none or its tables cannot be made.
    pub fn start() -> Result<Self, String> {
        Version::V15.find()?;
        let settings = Settings { more: vec!["shared_buffers=256MB".to_owned()], ..Settings::default() };
        let server = Self(Postgres::start_with(Version::V15, settings));
        let made = login(server.0.port).run("pgbench", &["-i", "-q", "-s", SCALE]);
        if made.code == 0 { Ok(server) } else { Err(format!("pgbench -i: {}", made.stderr)) }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Process id of the postmaster, whose children serve the clients.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(self.0.directory().join("data/postmaster.pid")).unwrap_or_default();
        text.lines().next().and_then(|line| line.trim().parse().ok()).unwrap_or(u32::MAX)
    }

    /// Starts a contestant in front of the server.
    ///
    /// # Errors
    /// Why it is absent.
    pub fn contestant(&self, name: &str, binary: &Path) -> Result<Program, String> {
        match name {
            "crossfade" => self.crossfade(binary),
            "pgbouncer-session" => self.pgbouncer("session"),
            "pgbouncer-transaction" => self.pgbouncer("transaction"),
            "pgpool" => self.pgpool(),
            other => Err(format!("{other} cannot be started here")),
        }
    }

    fn crossfade(&self, binary: &Path) -> Result<Program, String> {
        let (directory, port, admin) = (TempDir::make("crossfade"), free_port(), free_port());
        let users = directory.path().join("users.txt");
        self.0.users_file(&[SUPERUSER], &users);
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:{admin}\"\n[data]\ndir = \"{}\"\n[cores]\ncount = 1\n[endpoints.server]\nkind = \"postgres\"\n\
             url = \"{}\"\n[interlays.bench]\nkind = \"postgres\"\nlisten = \"127.0.0.1:{port}\"\nsource = \"server\"\n\
             [interlays.bench.auth]\nmode = \"scram\"\nauth_file = \"{}\"\n",
            directory.path().join("data").display(),
            self.0.url(DATABASE),
            users.display()
        );
        let file = directory.path().join("crossfade.toml");
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let mut command = Command::new(binary);
        command.args(["serve", "--config"]).arg(file);
        Program::start(command, directory, (port, admin), libc::SIGTERM, answers)
    }

    fn pgbouncer(&self, mode: &str) -> Result<Program, String> {
        let binary = find("pgbouncer")?;
        let (directory, port) = (TempDir::make("pgbouncer"), free_port());
        let users = directory.path().join("users.txt");
        self.0.users_file(&[SUPERUSER], &users);
        let text = format!(
            "[databases]\n{DATABASE} = host=127.0.0.1 port={} dbname={DATABASE}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 60\n\
             max_client_conn = 200\nlog_connections = 0\nlog_disconnections = 0\n",
            self.0.port,
            users.display()
        );
        let file = directory.path().join("pgbouncer.ini");
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let mut command = Command::new(binary);
        command.arg("-q").arg(file);
        let command = as_postgres(command, &directory)?;
        Program::start(command, directory, (port, 0), libc::SIGINT, answers)
    }

    fn pgpool(&self) -> Result<Program, String> {
        let binary = find("pgpool")?;
        let (directory, port, pcp) = (TempDir::make("pgpool"), free_port(), free_port());
        let place = directory.path().display();
        let text = format!(
            "backend_clustering_mode = 'raw'\nlisten_addresses = '127.0.0.1'\nport = {port}\nsocket_dir = '{place}'\npcp_listen_addresses = '127.0.0.1'\n\
             pcp_port = {pcp}\npcp_socket_dir = '{place}'\nwd_ipc_socket_dir = '{place}'\npid_file_name = '{place}/pgpool.pid'\nlogdir = '{place}'\n\
             backend_hostname0 = '127.0.0.1'\nbackend_port0 = {}\nbackend_weight0 = 1\nbackend_flag0 = 'DISALLOW_TO_FAILOVER'\n\
             enable_pool_hba = on\npool_passwd = '{place}/pool_passwd'\nnum_init_children = 40\nmax_pool = 1\nload_balance_mode = off\n\
             sr_check_period = 0\nhealth_check_period = 0\n",
            self.0.port
        );
        let files = [
            ("pgpool.conf", text),
            ("pool_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n".to_owned()),
            ("pool_passwd", format!("{SUPERUSER}:TEXT{SUPERUSER_PASSWORD}\n")),
            ("pcp.conf", String::new()),
        ];
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).map_err(|error| error.to_string())?;
        }
        let mut command = Command::new(binary);
        command.arg("-n");
        for (option, name) in [("-f", "pgpool.conf"), ("-a", "pool_hba.conf"), ("-F", "pcp.conf")] {
            command.arg(option).arg(directory.path().join(name));
        }
        let command = as_postgres(command, &directory)?;
        Program::start(command, directory, (port, 0), libc::SIGINT, answers)
    }
}

/// The user that pgbench logs in as.
#[must_use]
pub fn login(port: u16) -> Login {
    Login::new(port, SUPERUSER, SUPERUSER_PASSWORD, DATABASE)
}

fn answers(port: u16) -> Result<(), String> {
    let ran = login(port).psql(&["-Atc", "SELECT 1"]);
    if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
}

/// PgBouncer and pgpool refuse root, as PostgreSQL does: when run as root, they run as `postgres`, which gets their directory.
fn as_postgres(mut command: Command, directory: &TempDir) -> Result<Command, String> {
    // SAFETY: takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(command);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).ok_or("there is no user postgres")?;
    let numbers: Vec<u32> = line.split(':').skip(2).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, group] = numbers[..] else { return Err(format!("/etc/passwd: {line}")) };
    let failed = |error: std::io::Error| format!("{}: {error}", directory.path().display());
    for entry in std::fs::read_dir(directory.path()).map_err(failed)?.flatten() {
        chown(entry.path(), Some(user), Some(group)).map_err(failed)?;
    }
    chown(directory.path(), Some(user), Some(group)).map_err(failed)?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    command.uid(user).gid(group).current_dir("/");
    Ok(command)
}
