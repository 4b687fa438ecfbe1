//! A temporary PostgreSQL in the demo's directory: created, started, and given an application user with a SCRAM verifier only.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::process::{Ending, Running, free_port, rest};
use super::client::{Login, Sql};

const START_PATIENCE: Duration = Duration::from_secs(30);
const MAKE_PATIENCE: Duration = Duration::from_secs(60);
const NEEDED: [&str; 3] = ["postgres", "initdb", "pgbench"];

pub const APPLICATION_USER: &str = "shop";
pub const DATABASE: &str = "shop";
/// Crossfade's own user: it may monitor the server, and owns nothing.
pub const MONITOR_USER: &str = "crossfade";

/// Every connection must log in by SCRAM.
const HBA: &str = "host all all 127.0.0.1/32 scram-sha-256\n";

/// A real server.
#[derive(Debug)]
pub struct Server {
    pub process: Running,
    pub port: u16,
    /// "PostgreSQL 15.18"
    pub version: String,
    pub programs: Programs,
    pub superuser: Login,
    /// The login on the server itself; through the interlay only the port differs.
    pub application: Login,
    pub monitor: Login,
    /// The verifier that the server stores for the application user.
    pub verifier: String,
}

/// Where PostgreSQL's programs are, and the user its server runs as.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    /// User and group; `None` = those of this process.
    runner: Option<(u32, u32)>,
}

impl Programs {
    /// # Errors
    /// What to install.
    pub fn find() -> Result<Self, String> {
        let has_all = |folder: &PathBuf| NEEDED.iter().all(|name| folder.join(name).is_file());
        let Some(folder) = candidates().into_iter().find(has_all) else {
            return Err(format!(
                "no PostgreSQL here: {} are needed in one folder, and neither /usr/lib/postgresql/*/bin, nor `pg_config --bindir`, nor PATH has \
                 them: sudo apt-get install postgresql",
                NEEDED.join(", ")
            ));
        };
        Ok(Self { folder, runner: runner()? })
    }

    /// A client program, without this user's settings for PostgreSQL.
    pub fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// A server program, which refuses to run as root.
    fn server(&self, name: &str) -> Command {
        let mut command = self.client(name);
        if let Some((user, group)) = self.runner {
            command.uid(user).gid(group);
        }
        command
    }
}

/// Folders that may contain the programs, the newest version of Debian's first.
fn candidates() -> Vec<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    let mut folders: Vec<PathBuf> = debian.into_iter().rev().map(|(_, folder)| folder).collect();
    if let Ok(answer) = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim()));
    }
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders
}

/// The user `postgres` when this process runs as root.
fn runner() -> Result<Option<(u32, u32)>, String> {
    let ourselves = std::fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?.uid();
    if ourselves != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.unwrap_or_default().split(':').skip(2).map_while(|field| field.parse::<u32>().ok());
    match (fields.next(), fields.next()) {
        (Some(user), Some(group)) => Ok(Some((user, group))),
        _ => Err("PostgreSQL refuses to run as root, and there is no user postgres to run it as: \
                  sudo apt-get install postgresql, or run the demo as an ordinary user"
            .to_owned()),
    }
}

/// 128 random bits in letters and digits.
fn random_password() -> Result<String, String> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    let mut source = std::fs::File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
    source.read_exact(&mut bytes).map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

impl Server {
    /// Creates and starts a server below `directory`.
    pub fn start(directory: &Path) -> Result<Self, String> {
        let programs = Programs::find()?;
        let io = |error: std::io::Error| format!("{}: {error}", directory.display());
        // The server's user must be able to enter the directory, independently of the umask.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).map_err(io)?;
        let home = directory.join("postgres");
        std::fs::create_dir(&home).map_err(io)?;
        let superuser_password = random_password()?;
        let password_file = home.join("password");
        std::fs::write(&password_file, &superuser_password).map_err(io)?;
        if let Some((user, group)) = programs.runner {
            for path in [&home, &password_file] {
                chown(path, Some(user), Some(group)).map_err(io)?;
            }
        }
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        let data = home.join("data");
        let mut initdb = programs.server("initdb");
        initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres"]);
        initdb.arg("--pwfile").arg(&password_file).arg("-D").arg(&data);
        let mut initdb = Running::start(initdb, "initdb", directory).map_err(io)?;
        let ended = wait_for_end(&mut initdb, "initdb", MAKE_PATIENCE, &mut |_| ());
        ended.map_err(|why| format!("{why}\n{}", initdb.log_tail(10)))?;
        std::fs::remove_file(&password_file).map_err(io)?;
        std::fs::write(data.join("pg_hba.conf"), HBA).map_err(io)?;

        let port = free_port().map_err(io)?;
        let login = |user: &str, password: String, database: &str| Login {
            port,
            user: user.to_owned(),
            password,
            database: database.to_owned(),
        };
        let superuser = login("postgres", superuser_password, "postgres");
        let mut process = start_postmaster(&programs, &data, port, directory)?;
        let sql = wait_until_up(&mut process, &superuser)?;
        let application = login(APPLICATION_USER, random_password()?, DATABASE);
        let monitor = login(MONITOR_USER, random_password()?, DATABASE);
        for login in [&application, &monitor] {
            sql.rows(&format!("CREATE ROLE {} LOGIN PASSWORD '{}'", login.user, login.password))?;
        }
        sql.rows(&format!("GRANT pg_monitor TO {MONITOR_USER}"))?;
        sql.rows(&format!("CREATE DATABASE {DATABASE} OWNER {APPLICATION_USER}"))?;
        let text = |query: &str| {
            sql.rows(query)?.pop().and_then(|mut row| row.pop()).ok_or_else(|| format!("no row for {query}"))
        };
        let verifier = text(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{APPLICATION_USER}'"))?;
        let version = text("SHOW server_version")?;
        let version = format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default());
        Ok(Self { process, port, version, programs, superuser, application, monitor, verifier })
    }
}

fn start_postmaster(programs: &Programs, data: &Path, port: u16, directory: &Path) -> Result<Running, String> {
    let mut command = programs.server("postgres");
    command.arg("-D").arg(data);
    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "password_encryption=scram-sha-256".to_owned(),
        // Nothing here outlives the demo, so no durability is needed.
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
        // Its transactions would be counted as the application's.
        "autovacuum=off".to_owned(),
    ];
    for setting in &settings {
        command.arg("-c").arg(setting);
    }
    Running::start_with(Ending::POSTMASTER, command, "postgresql", directory)
        .map_err(|error| format!("postgres: {error}"))
}

fn wait_until_up(process: &mut Running, login: &Login) -> Result<Sql, String> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        match Sql::open(login, "demo") {
            Ok(sql) => return Ok(sql),
            Err(why) if process.ended().is_some() || Instant::now() > deadline => {
                return Err(format!("PostgreSQL did not come up: {why}\n{}", process.log_tail(10)));
            }
            Err(_) => rest(Duration::from_millis(50))?,
        }
    }
}

/// Waits until `child` has ended successfully; `watch` gets its output so far.
pub fn wait_for_end(
    child: &mut Running,
    name: &str,
    patience: Duration,
    watch: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    loop {
        match child.ended() {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("{name} failed ({status})")),
            None if Instant::now() > deadline => {
                return Err(format!("{name} did not end within {} s", patience.as_secs()));
            }
            None => {}
        }
        watch(&child.log_tail(3));
        rest(Duration::from_millis(50))?;
    }
}
