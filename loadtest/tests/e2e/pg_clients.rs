//! Drop-in: psycopg 3, node-postgres and tokio-postgres get the same transcript from the proxy as from the server, over TLS that is
//! verified and SCRAM, with a proxy that knows verifiers and no password.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crossfade_loadtest::crossfade::Ran;
use crossfade_loadtest::pg_client::Login;
use crossfade_loadtest::pg_rig::{Auth, Options, PgRig, ProxyTls, without_proxy};
use crossfade_loadtest::postgres::{Settings, Version, versions};
use crossfade_loadtest::server::repository;
use crossfade_loadtest::skip;

use crate::pg_psql::assert_same;
use crate::pg_rust_client;

fn tools(name: &str) -> PathBuf {
    repository().canonicalize().expect("the repository").join(".tools").join(name)
}

fn script(login: &Login, program: &str, name: &str, library: (&str, PathBuf)) -> String {
    let mut command: Command = login.command(program);
    command.arg(repository().join("loadtest/clients").join(name)).env(library.0, library.1).stdin(Stdio::null());
    let ran: Ran = command.output().unwrap_or_else(|error| panic!("{program}: {error}")).into();
    assert!(ran.code == 0 && ran.stdout.contains("== end"), "{name}: {}\n{}", ran.stdout, ran.stderr);
    ran.stdout
}

fn same_for_every_version(client: impl Fn(&Login) -> String, least_lines: usize) {
    for version in versions() {
        let rig = PgRig::with(version, &Options::tls());
        let direct = client(&rig.direct());
        assert!(direct.lines().count() >= least_lines && direct.contains("== end"), "{direct}");
        let through = client(&rig.through());
        assert_same(&through, &direct);
        eprintln!("PostgreSQL {}: {} equal lines", version.number(), direct.lines().count());
        if std::env::var_os("PG_SHOW_TRANSCRIPT").is_some() {
            eprintln!("{direct}");
        }
    }
}

#[test]
fn psycopg_gets_the_same_transcript() {
    let library = tools("py");
    if !library.join("psycopg").is_dir() {
        skip!("psycopg is not in .tools/py: run scripts/install-test-servers.sh");
    }
    same_for_every_version(|login| script(login, "python3", "pg_psycopg.py", ("PYTHONPATH", library.clone())), 150);
}

#[test]
fn node_postgres_gets_the_same_transcript() {
    let library = tools("node/node_modules");
    if !library.join("pg").is_dir() {
        skip!("node-postgres is not in .tools/node: run scripts/install-test-servers.sh");
    }
    same_for_every_version(|login| script(login, "node", "pg_node.js", ("NODE_PATH", library.clone())), 70);
}

#[test]
fn tokio_postgres_gets_the_same_transcript() {
    same_for_every_version(pg_rust_client::transcript, 40);
}

/// Two cores: the client's cancel and its other connections land on another core than the session.
#[test]
fn clients_are_served_by_several_cores() {
    let rig = PgRig::with(Version::V15, &Options { cores: 2, ..Options::default() });
    let direct = pg_rust_client::transcript(&rig.direct());
    for _ in 0..3 {
        assert_same(&pg_rust_client::transcript(&rig.through()), &direct);
    }
}

/// TLS ends at the proxy, so the binding to the server's certificate cannot be kept: it must be refused, not ignored.
#[test]
fn a_client_that_requires_channel_binding_fails_with_a_sentence() {
    if without_proxy() {
        skip!("PG_DIRECT: a server does offer channel binding");
    }
    for version in versions() {
        let rig = PgRig::with(version, &Options::tls());
        let preferring = rig.through().with("PGCHANNELBINDING", "prefer");
        assert_eq!(preferring.sql("SELECT 1"), "1");
        let ran = rig.through().with("PGCHANNELBINDING", "require").psql(&["-c", "SELECT 1"]);
        assert!(ran.code == 2 && ran.stderr.to_lowercase().contains("channel binding"), "{ran:?}");
        assert_eq!(rig.direct().with("PGCHANNELBINDING", "require").sql("SELECT 1"), "1");
    }
}

#[test]
fn tls_can_begin_without_being_asked_for() {
    let Ok(version) = Version::V18.find().map(|_| Version::V18).or_else(|_| Version::V17.find().map(|_| Version::V17))
    else {
        skip!("no libpq of 17 or later: run scripts/install-test-servers.sh");
    };
    let rig = PgRig::with(version, &Options::tls());
    let login = rig.through().libpq_of(version).unwrap().with("PGSSLNEGOTIATION", "direct");
    assert_eq!(login.sql("SELECT 1"), "1", "{}", rig.proxy_says());
    let encrypted = rig.direct().libpq_of(version).unwrap().with("PGSSLNEGOTIATION", "direct");
    assert_eq!(encrypted.sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
}

/// Protocol 3.2 has longer cancel keys; a proxy that knows less must negotiate, not break.
#[test]
fn protocol_3_2_works_and_its_cancel_keys_do() {
    if let Err(why) = Version::V18.find() {
        skip!("{why}");
    }
    for version in versions() {
        let rig = PgRig::start(version);
        for asked in ["3.2", "latest", "3.0"] {
            let newer = rig.through().libpq_of(Version::V18).unwrap();
            let login = newer.with("PGMAXPROTOCOLVERSION", asked);
            assert_eq!(login.sql("SELECT 1"), "1", "{asked}: {}", rig.proxy_says());
            let mut terminal = login.terminal();
            crate::pg_psql::assert_cancelled(&mut terminal, &rig);
        }
    }
}

/// Each side may have TLS without the other.
#[test]
fn tls_on_one_hop_only() {
    for (tls, server) in [(ProxyTls::Offered, false), (ProxyTls::None, true)] {
        let settings = Settings { tls: server, ..Settings::default() };
        let rig = PgRig::with(Version::V15, &Options { tls, server: settings, ..Options::default() });
        let mut login = rig.through();
        if without_proxy() {
            continue;
        }
        assert_eq!(login.sql("SELECT current_user"), "app", "{}", rig.proxy_says());
        let encrypted = login.sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        assert_eq!(encrypted, if server { "t" } else { "f" });
        if tls == ProxyTls::Offered {
            login.ca = None;
            assert_eq!(login.sql("SELECT 1"), "1", "offered is not required");
        }
    }
}

/// The server's own checks work when only bytes are relayed.
#[test]
fn clients_log_in_by_relay_too() {
    let rig = PgRig::with(Version::V15, &Options::auth(Auth::Relay));
    assert_same(&pg_rust_client::transcript(&rig.through()), &pg_rust_client::transcript(&rig.direct()));
}
