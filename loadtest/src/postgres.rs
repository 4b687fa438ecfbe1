//! A real PostgreSQL on a free port, in a directory of its own. It refuses to run as root, so root's tests run it as `postgres`.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::pg_client::Login;
use crate::process::{Running, TempDir, free_port};
use crate::server::repository;
use crate::wait::until;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    V15,
    V17,
    V18,
}

impl Version {
    pub const ALL: [Self; 3] = [Self::V15, Self::V17, Self::V18];

    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// Where `bin` and `lib` are: `CROSSFADE_POSTGRES_17` and so on, or where scripts/install-test-servers.sh puts them.
    #[must_use]
    pub fn home(self) -> PathBuf {
        let named = std::env::var_os(format!("CROSSFADE_POSTGRES_{}", self.number())).map(PathBuf::from);
        named.unwrap_or_else(|| match self {
            Self::V15 => PathBuf::from("/usr/lib/postgresql/15"),
            Self::V17 | Self::V18 => repository().join(format!(".tools/postgres-{}", self.number())),
        })
    }

    /// Whether it is installed, or how to install it.
    ///
    /// # Errors
    /// A sentence.
    pub fn find(self) -> Result<PathBuf, String> {
        let server = self.home().join("bin/postgres");
        if server.is_file() {
            return Ok(self.home().canonicalize().unwrap_or_else(|_| self.home()));
        }
        Err(format!("no PostgreSQL {} at {}: run scripts/install-test-servers.sh", self.number(), server.display()))
    }
}

/// The versions a test runs on: 15 always, so that a machine without it fails; the others are reported when they are missing.
/// `PG_VERSIONS=15,18` chooses.
///
/// # Panics
/// When PostgreSQL 15 is not there.
#[must_use]
pub fn versions() -> Vec<Version> {
    let chosen = std::env::var("PG_VERSIONS").ok();
    let wanted = |version: &Version| {
        chosen.as_ref().is_none_or(|list| list.split(',').any(|word| word.trim() == version.number().to_string()))
    };
    Version::ALL
        .into_iter()
        .filter(wanted)
        .filter(|version| match version.find() {
            Ok(_) => true,
            Err(why) if *version == Version::V15 => panic!("{why}"),
            Err(why) => {
                eprintln!("SKIPPED: the part on PostgreSQL {}: {why}", version.number());
                false
            }
        })
        .collect()
}

pub const SUPERUSER: &str = "postgres";
pub const SUPERUSER_PASSWORD: &str = "secret";
/// An ordinary user, who owns the database of the same name.
pub const USER: &str = "app";
/// A password that a careless split at `:` or `"` would break.
pub const PASSWORD: &str = "app:\"secret\" é";
/// As [`USER`], but the server keeps only its md5 hash and asks for md5.
pub const MD5_USER: &str = "oldtimer";
pub const MD5_PASSWORD: &str = "old-secret";
/// A user that the server accepts without a password.
pub const TRUSTED_USER: &str = "trusted";

const HBA: &str = "local all all scram-sha-256\n\
    host all oldtimer 127.0.0.1/32 md5\n\
    host all trusted 127.0.0.1/32 trust\n\
    host all all 127.0.0.1/32 scram-sha-256\n\
    host replication all 127.0.0.1/32 scram-sha-256\n";

const FIRST_SQL: &str = "CREATE ROLE app LOGIN PASSWORD :'app';\n\
    SET password_encryption = 'md5';\n\
    CREATE ROLE oldtimer LOGIN PASSWORD :'old';\n\
    RESET password_encryption;\n\
    CREATE ROLE trusted LOGIN;\n\
    CREATE DATABASE app OWNER app;\n\
    GRANT app TO oldtimer, trusted;\n";

/// How a server differs from the default one.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The server offers TLS with a certificate of its own CA.
    pub tls: bool,
    /// It flushes to disk before it answers: only where a crash of the machine is what is tested. A crash of the server alone loses
    /// nothing either way.
    pub durable: bool,
    /// `name=value`, as with `postgres -c`.
    pub more: Vec<String>,
}

/// Stopped when dropped, also on a panic, and by the kernel when the test's thread is killed.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Running>,
    pub port: u16,
    pub version: Version,
    settings: Settings,
    pub certificates: Option<Certificates>,
    directory: TempDir,
}

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

impl Postgres {
    #[must_use]
    pub fn start(version: Version) -> Self {
        Self::start_with(version, Settings::default())
    }

    /// # Panics
    /// When the server does not come up.
    #[must_use]
    pub fn start_with(version: Version, settings: Settings) -> Self {
        let directory = TempDir::make("postgres");
        open_to_all(directory.path());
        give_to_runner(directory.path());
        let certificates = settings.tls.then(|| Certificates::make(directory.path()));
        copy(&template(version), &directory.path().join("data"));
        let mut server = Self { process: None, port: free_port(), version, settings, certificates, directory };
        server.up();
        server
    }

    /// Starts it (again) on its port with its files.
    ///
    /// # Panics
    /// When the server does not come up.
    pub fn up(&mut self) {
        let data = self.directory.path().join("data");
        // A killed server leaves this file, and would refuse to start if its process id is in use again.
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
        let mut settings = vec![
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
            "password_encryption=scram-sha-256".to_owned(),
            "wal_level=logical".to_owned(),
            "log_line_prefix=%m [%p] %u@%d ".to_owned(),
        ];
        if !self.settings.durable {
            settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
        }
        if let Some(made) = &self.certificates {
            let key = self.directory.path().join("server-owned.key");
            std::fs::copy(&made.server_key, &key).expect("the key is copied");
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("chmod");
            give_to_runner(&key);
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", made.server.display()));
            settings.push(format!("ssl_key_file={}", key.display()));
        }
        settings.extend(self.settings.more.iter().cloned());
        let mut command = program(self.version, "postgres");
        command.arg("-D").arg(&data);
        for setting in &settings {
            command.arg("-c").arg(setting);
        }
        let log = self.log();
        // SIGQUIT and not SIGKILL when the test dies: the postmaster then takes its children along.
        let started = Running::start_dying_by(command, &log, libc::SIGQUIT);
        self.process = Some(started.expect("postgres: run scripts/install-test-servers.sh"));
        let login = self.login_as(SUPERUSER, SUPERUSER_PASSWORD, "postgres");
        until("PostgreSQL to answer", START_PATIENCE, || {
            let process = self.process.as_mut().expect("just started");
            if let Some(status) = process.ended() {
                panic!("PostgreSQL ended at once ({status}): {}", process.log_tail(10));
            }
            let ran = login.psql(&["-Atc", "SELECT 1"]);
            if ran.code == 0 { Ok(()) } else { Err(format!("{} {}", ran.stderr, process.log_tail(3))) }
        });
    }

    /// Immediate shutdown: the same as a crash for its clients and its files.
    pub fn down(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(libc::SIGQUIT);
        let deadline = Instant::now() + STOP_PATIENCE;
        while process.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `postgres://postgres:secret@127.0.0.1:PORT/DATABASE?sslmode=disable`, or verify-full with the CA.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let tls = match &self.certificates {
            Some(made) => format!("sslmode=verify-full&sslrootcert={}", made.ca.display()),
            None => "sslmode=disable".to_owned(),
        };
        format!("postgres://{SUPERUSER}:{SUPERUSER_PASSWORD}@127.0.0.1:{}/{database}?{tls}", self.port)
    }

    /// A client that speaks to this server directly.
    #[must_use]
    pub fn login_as(&self, user: &str, password: &str, database: &str) -> Login {
        let login = Login::new(self.port, user, password, database);
        match &self.certificates {
            Some(made) => login.verifying(&made.ca),
            None => login,
        }
    }

    #[must_use]
    pub fn superuser(&self, database: &str) -> Login {
        self.login_as(SUPERUSER, SUPERUSER_PASSWORD, database)
    }

    /// The ordinary user in its database.
    #[must_use]
    pub fn login(&self) -> Login {
        self.login_as(USER, PASSWORD, "app")
    }

    /// `pg_authid.rolpassword`.
    ///
    /// # Panics
    /// When there is no such role.
    #[must_use]
    pub fn verifier(&self, user: &str) -> String {
        let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
        let found = self.superuser("postgres").sql(&sql);
        assert!(!found.is_empty(), "no verifier of {user}");
        found
    }

    /// Writes an `auth_file` in PgBouncer's format that holds what the server itself holds, and no password.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn users_file(&self, users: &[&str], path: &Path) {
        let lines: Vec<String> = users.iter().map(|user| format!("\"{user}\" \"{}\"\n", self.verifier(user))).collect();
        std::fs::write(path, lines.concat()).expect("the auth_file is written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    }

    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.as_ref().map_or(String::new(), |process| process.log_tail(lines))
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}

/// The user servers run as when the tests run as root.
fn runner() -> Option<(u32, u32)> {
    // SAFETY: takes nothing and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.expect("root cannot run PostgreSQL and there is no user postgres").split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok()).expect("a line of /etc/passwd");
    Some((number(), number()))
}

fn give_to_runner(path: &Path) {
    let Some((user, group)) = runner() else { return };
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    let changed = unsafe { libc::chown(name.as_ptr(), user, group) };
    assert_eq!(changed, 0, "chown {}: {}", path.display(), std::io::Error::last_os_error());
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A server-side program, as the user servers run as.
fn program(version: Version, name: &str) -> Command {
    let home = version.find().unwrap_or_else(|why| panic!("{why}"));
    let mut command = Command::new(home.join("bin").join(name));
    command.current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("LD_LIBRARY_PATH");
    if version != Version::V15 {
        command.env("LD_LIBRARY_PATH", home.join("lib"));
    }
    if let Some((user, group)) = runner() {
        command.uid(user).gid(group);
    }
    command
}

fn must_run(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().expect("a program of PostgreSQL runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    must_run(command);
}

/// A data directory with the users and databases above, made once per build of the server and machine: initdb takes seconds where
/// many tests share few cores, a copy a tenth of that.
fn template(version: Version) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut asked = program(version, "postgres");
    let answer = asked.arg("--version").output().expect("postgres --version");
    let release: String = String::from_utf8_lossy(&answer.stdout)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let recipe = crate::pg_client::fnv1a(&[HBA, FIRST_SQL, PASSWORD, MD5_PASSWORD, SUPERUSER_PASSWORD]);
    let user = runner().map_or(0, |(user, _)| user);
    let name = format!("crossfade-e2e-template-{}-{user}-{recipe:016x}", release.trim_matches('-'));
    let ready = std::env::temp_dir().join(name);
    if ready.join("PG_VERSION").is_file() {
        return ready;
    }
    let work = TempDir::make("initdb");
    open_to_all(work.path());
    give_to_runner(work.path());
    let data = work.path().join("data");
    let password = work.path().join("password");
    std::fs::write(&password, SUPERUSER_PASSWORD).expect("the password file is written");
    let mut initdb = program(version, "initdb");
    initdb.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--username", SUPERUSER]);
    initdb.arg("--pwfile").arg(&password).arg("-D").arg(&data);
    must_run(initdb);
    std::fs::write(data.join("pg_hba.conf"), HBA).expect("pg_hba.conf is written");
    let port = free_port();
    let options = format!("-p {port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off");
    let control = |action: &[&str]| {
        let mut command = program(version, "pg_ctl");
        command.args(["-w", "-s", "-l"]).arg(work.path().join("log")).arg("-D").arg(&data).args(action);
        must_run_detached(command);
    };
    control(&["-o", &options, "start"]);
    let login = Login::new(port, SUPERUSER, SUPERUSER_PASSWORD, "postgres");
    let (app, old) = (format!("app={PASSWORD}"), format!("old={MD5_PASSWORD}"));
    let ran = login.psql_with_input(&["-v", "ON_ERROR_STOP=1", "-v", &app, "-v", &old], FIRST_SQL);
    control(&["-m", "fast", "stop"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    // Another process may have been first; its directory is as good.
    if std::fs::rename(&data, &ready).is_err() {
        assert!(ready.join("PG_VERSION").is_file(), "{} cannot be made", ready.display());
    }
    ready
}

/// As [`must_run`], without pipes: a started server would keep them open.
fn must_run_detached(mut command: Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
}
