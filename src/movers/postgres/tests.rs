//! Against real PostgreSQL 15 servers on sockets and ports the system chose; and the judgement of facts alone.
//!
//! Needs the binaries in /usr/lib/postgresql/15/bin and, as root, the user `postgres` (they refuse root): Debian's package `postgresql-15`.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::facts::PostgresFacts;
use super::facts::check;
use super::findings::{compatibility, judge};
use crate::postgres::client::PostgresClient;
use crate::{JobError, ServerError, ServerFault, Severity};
use base::model::{Endpoint, EndpointName, ProtocolKind};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const MISSING: &str = "PostgreSQL 15 is needed in /usr/lib/postgresql/15/bin: apt-get install postgresql-15";

struct Server {
    child: Child,
    directory: PathBuf,
    port: u16,
}

/// Runs as `postgres` when we are root.
fn as_postgres(program: &Path) -> Command {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect(MISSING);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, ca.crt, and a certificate of it for "localhost", server.crt.
fn certificates(directory: &Path) {
    let at = |name: &str| directory.join(name).display().to_string();
    let (ca, ca_key, own, own_key) = (at("ca.crt"), at("ca.key"), at("server.crt"), at("server.key"));
    let new = ["req", "-new", "-x509", "-days", "2", "-nodes"];
    run(as_postgres(Path::new("openssl")).args(new).args(["-subj", "/CN=authority", "-keyout", &ca_key, "-out", &ca]));
    let signed = ["-extensions", "usr_cert", "-addext", "subjectAltName=DNS:localhost", "-CA", &ca, "-CAkey", &ca_key];
    let files = ["-subj", "/CN=localhost", "-keyout", &own_key, "-out", &own];
    run(as_postgres(Path::new("openssl")).args(new).args(signed).args(files));
}

impl Server {
    /// `initdb` and `postgres` options.
    fn start(initdb: &[&str], options: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("crossfade-pg-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        run(as_postgres(&Path::new(BIN).join("initdb"))
            .arg("-D")
            .arg(&directory)
            .args(["-U", "owner", "-A", "trust"])
            .args(["--no-sync", "--no-instructions"])
            .args(initdb));
        certificates(&directory);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = as_postgres(&Path::new(BIN).join("postgres"));
        command.arg("-D").arg(&directory).arg("-k").arg(&directory).args(["-p", &port.to_string(), "-F"]);
        command.args(options).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let server = Self { child: command.spawn().expect(MISSING), directory, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut ready = Command::new(Path::new(BIN).join("pg_isready"));
        ready.arg("-q").arg("-h").arg(&server.directory).args(["-p", &port.to_string()]);
        while !ready.status().expect(MISSING).success() {
            assert!(Instant::now() < deadline, "postgres did not come up in {}", server.directory.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn endpoint(&self, name: &str, rest: &str) -> Endpoint {
        let directory = self.directory.display().to_string().replace('/', "%2F");
        read(name, &format!("postgres://owner@{directory}:{}/{rest}", self.port))
    }

    fn tcp(&self, login: &str, host: &str, rest: &str) -> Endpoint {
        read("tcp", &format!("postgres://{login}@{host}:{}/{rest}", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // "Immediate" shutdown by the postmaster itself: it takes its children with it. The first line of its file is its number.
        let file = std::fs::read_to_string(self.directory.join("postmaster.pid")).unwrap_or_default();
        if let Some(Ok(pid)) = file.lines().next().map(str::parse::<libc::pid_t>) {
            // SAFETY: kill takes no pointer; the process is the postmaster this test started.
            unsafe { libc::kill(pid, libc::SIGQUIT) };
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn read(name: &str, url: &str) -> Endpoint {
    Endpoint::from_url(EndpointName::new(name).unwrap(), ProtocolKind::Postgres, url).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn names(findings: &[crate::Finding], severity: Severity) -> Vec<&str> {
    findings.iter().filter(|one| one.severity == severity).map(|one| one.name.as_str()).collect()
}

#[test]
fn two_real_servers_are_looked_at_and_compared() {
    let source = Server::start(&["-E", "UTF8", "--locale", "C.UTF-8"], &["-c", "wal_level=logical"]);
    let target = Server::start(
        &["-E", "LATIN1", "--locale", "C"],
        &["-c", "standard_conforming_strings=off", "-c", "max_connections=20", "-c", "TimeZone=Asia/Tokyo"],
    );
    block_on(async {
        let from = source.endpoint("old", "postgres");
        let sql = "CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE b (x int); CREATE UNLOGGED TABLE c (id int PRIMARY KEY); \
                   SELECT lo_create(0); CREATE ROLE app LOGIN PASSWORD 'hunter2'; CREATE ROLE only_here LOGIN";
        let client = PostgresClient::connect(&from).await.unwrap();
        client.rows(sql).await.unwrap();
        let to = target.endpoint("new", "postgres");
        PostgresClient::connect(&to).await.unwrap().rows("CREATE ROLE app LOGIN PASSWORD 'hunter2'").await.unwrap();

        let facts = check(&from).await.unwrap();
        assert!(facts.version.starts_with("15.") && facts.version_number / 10_000 == 15, "{}", facts.version);
        assert_eq!(
            (facts.database.as_str(), facts.encoding.as_str(), facts.user.as_str()),
            ("postgres", "UTF8", "owner")
        );
        assert_eq!((facts.setting("wal_level"), facts.max_connections()), ("logical", 100));
        assert_eq!((facts.tables, facts.unlogged_tables, facts.sequences, facts.large_objects), (3, 1, 1, 1));
        assert_eq!(
            (facts.tables_without_identity, facts.superuser, facts.in_recovery, facts.tls),
            (1, true, false, false)
        );
        assert!(facts.database_bytes > 1_000_000 && facts.system_identifier.is_some() && facts.ping_us > 0);
        assert!(facts.clock_skew_ms.abs() < 1000, "{}", facts.clock_skew_ms);
        assert!(facts.extensions.contains_key("plpgsql") && facts.login_roles.contains(&"app".to_owned()));
        assert!(!format!("{facts:?}").contains("SCRAM-SHA-256$"), "verifiers are never shown");

        let findings = compatibility(&from, &to).await.unwrap();
        let critical = names(&findings, Severity::Critical);
        for name in [
            "encoding-differs",
            "locale-differs",
            "setting-standard-conforming-strings",
            "roles-missing-on-target",
            "verifiers-differ",
        ] {
            assert!(critical.contains(&name), "{name}: {critical:?}");
        }
        let warnings = names(&findings, Severity::Warning);
        for name in [
            "setting-timezone",
            "setting-max-connections",
            "large-objects",
            "unlogged-tables",
            "tables-without-identity",
        ] {
            assert!(warnings.contains(&name), "{name}: {warnings:?}");
        }
        assert!(names(&findings, Severity::Info).contains(&"sequences"));
        assert!(!findings.iter().any(|one| one.detail.contains("hunter2") || one.detail.contains("SCRAM-SHA-256$")));
        let same = compatibility(&from, &from).await.unwrap();
        assert_eq!(names(&same, Severity::Critical), ["same-server"]);
    });
}

#[test]
fn log_in_and_tls_are_as_the_url_says() {
    let server = Server::start(&["--locale", "C"], &["-c", "ssl=on", "-c", "listen_addresses=127.0.0.1"]);
    block_on(async {
        let owner = server.endpoint("e", "postgres");
        let client = PostgresClient::connect(&owner).await.unwrap();
        client.rows("CREATE ROLE app LOGIN PASSWORD 'hunter2'").await.unwrap();
        let hba = "local all all trust\nhostssl all app 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(server.directory.join("pg_hba.conf"), hba).unwrap();
        client.rows("SELECT pg_reload_conf()").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let no_tls = server.tcp("app:hunter2", "127.0.0.1", "postgres?sslmode=disable");
        while PostgresClient::connect(&no_tls).await.is_ok() {
            assert!(Instant::now() < deadline, "pg_hba.conf is not taken up");
        }
        let ca = server.directory.join("ca.crt").display().to_string();
        let own = server.directory.join("server.crt").display().to_string();
        for (host, rest, tls) in [
            ("127.0.0.1", "postgres", true),
            ("127.0.0.1", "postgres?sslmode=require", true),
            ("127.0.0.1", &*format!("postgres?sslmode=verify-ca&sslrootcert={ca}"), true),
            ("localhost", &*format!("postgres?sslmode=verify-full&sslrootcert={ca}"), true),
            ("localhost", &*format!("postgres?sslmode=verify-full&sslrootcert={own}"), true),
        ] {
            let facts =
                check(&server.tcp("app:hunter2", host, rest)).await.unwrap_or_else(|error| panic!("{rest}: {error}"));
            assert_eq!((facts.tls, facts.superuser, facts.verifiers), (tls, false, None), "{rest}");
        }
        let strict = format!("postgres?sslmode=verify-full&sslrootcert={own}");
        assert!(
            check(&server.tcp("app:hunter2", "127.0.0.1", &strict)).await.is_err(),
            "the name is looked at all the same"
        );
        let other = std::env::temp_dir().join(format!("crossfade-ca-{}.pem", std::process::id()));
        run(Command::new("openssl")
            .args(["req", "-new", "-x509", "-nodes", "-subj", "/CN=stranger", "-keyout", "/dev/null", "-out"])
            .arg(&other));
        let cases = [
            ("app:wrong-hunter2", "127.0.0.1", "postgres".to_owned(), "look at user and password"),
            ("app:hunter2", "127.0.0.1", "nowhere".to_owned(), "existing database"),
            ("app:hunter2", "127.0.0.1", "postgres?sslmode=disable".to_owned(), "no pg_hba.conf entry"),
            (
                "app:hunter2",
                "127.0.0.1",
                format!("postgres?sslmode=verify-full&sslrootcert={ca}"),
                "sslmode and sslrootcert",
            ),
            (
                "app:hunter2",
                "localhost",
                format!("postgres?sslmode=verify-ca&sslrootcert={}", other.display()),
                "sslmode and sslrootcert",
            ),
        ];
        for (login, host, rest, words) in cases {
            let error = check(&server.tcp(login, host, &rest)).await.expect_err(&rest).to_string();
            assert!(
                error.contains("endpoint tcp") && error.contains(words) && !error.contains("hunter2"),
                "{rest}: {error}"
            );
        }
        let _ = std::fs::remove_file(other);
    });
}

#[test]
fn jobs_of_one_kind_refuse_servers_of_the_other() {
    block_on(async {
        let postgres = read("pg", "postgres://u@127.0.0.1:9/db");
        let redis =
            Endpoint::from_url(EndpointName::new("r").unwrap(), ProtocolKind::Redis, "redis://127.0.0.1:9").unwrap();
        for error in [
            crate::redis::facts::check_endpoint(&postgres).await.map(drop).expect_err("redis only"),
            crate::redis::smoke::smoke(&postgres).await.map(drop).expect_err("redis only"),
        ] {
            assert!(error.to_string().contains("on Redis servers only"), "{error}");
        }
        let error = check(&redis).await.expect_err("postgres only");
        assert!(error.to_string().contains("on PostgreSQL servers only"), "{error}");
        let probe = crate::WriteProbe::Forbidden;
        let error = crate::compatibility(&redis, &postgres, probe).await.expect_err("kinds differ");
        assert!(
            matches!(&error, JobError::Server(ServerError::Unusable { cause: ServerFault::Kind(why), .. }) if why.contains("nothing moves")),
            "{error}"
        );
        let error = check(&postgres).await.expect_err("nothing listens").to_string();
        assert!(error.contains("endpoint pg (127.0.0.1:9): cannot connect"), "{error}");
    });
}

#[test]
fn what_differs_is_judged_by_what_it_would_do() {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let source = PostgresFacts {
        version_number: 150_004,
        settings: [
            setting("max_connections", "100"),
            setting("wal_level", "replica"),
            setting("max_prepared_transactions", "5"),
        ]
        .into(),
        extensions: [setting("postgis", "3.10"), setting("hstore", "1.8"), setting("pg_trgm", "1.6")].into(),
        client_connections: 60,
        ..PostgresFacts::default()
    };
    let target = PostgresFacts {
        version_number: 140_010,
        in_recovery: true,
        settings: [setting("max_connections", "50")].into(),
        extensions: [setting("postgis", "3.9")].into(),
        extensions_available: [setting("hstore", "1.8"), setting("postgis", "3.9")].into(),
        ..PostgresFacts::default()
    };
    let findings = judge(&source, &target);
    let expected = [
        "target-is-standby",
        "target-older",
        "extensions-missing-on-target",
        "extensions-older-on-target",
        "setting-max-connections",
    ];
    assert_eq!(names(&findings, Severity::Critical), expected);
    let expected = ["source-wal-level", "extensions-not-created", "setting-max-prepared-transactions"];
    assert_eq!(names(&findings, Severity::Warning), expected);
    let calm = PostgresFacts {
        settings: [setting("wal_level", "logical")].into(),
        verifiers: Some([].into()),
        ..PostgresFacts::default()
    };
    assert_eq!(judge(&calm, &calm), Vec::new());
}
