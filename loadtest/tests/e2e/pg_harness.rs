//! The PostgreSQL harness itself, without a proxy: checks what the other tests assume of their servers.

use std::time::Duration;

use crossfade_loadtest::ledger::{self, Ledger};
use crossfade_loadtest::postgres::{
    MD5_PASSWORD, MD5_USER, Postgres, SUPERUSER, Settings, TRUSTED_USER, USER, versions,
};
use crossfade_loadtest::process::TempDir;

#[test]
fn servers_start_with_their_users_and_stop_without_a_trace() {
    for version in versions() {
        let mut server = Postgres::start(version);
        let login = server.login();
        let major = login.sql("SELECT current_setting('server_version_num')::int / 10000");
        assert_eq!(major, version.number().to_string());
        assert_eq!(login.sql("SELECT current_user, current_database()"), format!("{USER}|app"));
        let old = server.login_as(MD5_USER, MD5_PASSWORD, "app");
        assert_eq!(old.sql("SELECT current_user"), MD5_USER);
        assert_eq!(server.login_as(TRUSTED_USER, "", "app").sql("SELECT current_user"), TRUSTED_USER);
        let wrong = login.clone().user(USER, "wrong").psql(&["-c", "SELECT 1"]);
        assert!(wrong.code == 2 && wrong.stderr.contains("password authentication failed"), "{wrong:?}");

        assert!(server.verifier(USER).starts_with("SCRAM-SHA-256$4096:"));
        assert!(server.verifier(MD5_USER).starts_with("md5"));
        let directory = TempDir::make("users");
        let file = directory.path().join("users.txt");
        server.users_file(&[SUPERUSER, USER], &file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().count() == 2 && text.starts_with("\"postgres\" \"SCRAM-SHA-256$"), "{text}");

        login.execute("CREATE TABLE kept AS SELECT 7 AS n");
        server.down();
        assert_eq!(login.psql(&["-c", "SELECT 1"]).code, 2);
        server.up();
        assert_eq!(login.sql("SELECT n FROM kept"), "7");
    }
}

#[test]
fn servers_with_tls_are_verified_by_their_own_authority() {
    for version in versions() {
        let server = Postgres::start_with(version, Settings { tls: true, ..Settings::default() });
        let encrypted = server.login().sql("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
        assert!(encrypted.starts_with("t|TLSv1."), "{encrypted}");
        let other = Postgres::start_with(version, Settings { tls: true, ..Settings::default() });
        let stranger = server.login().verifying(&other.certificates.as_ref().unwrap().ca).psql(&["-c", "SELECT 1"]);
        assert!(stranger.code == 2 && stranger.stderr.contains("certificate verify failed"), "{stranger:?}");
    }
}

#[test]
fn the_ledger_finds_its_own_tokens_and_a_planted_loss() {
    for version in versions() {
        let mut server = Postgres::start(version);
        let login = server.login();
        ledger::prepare(&login, 10);
        let clients = Ledger::start(&login, 10);
        clients.progress(500);
        // A crash of the server in the middle: outcomes become unknown, and nothing may be lost that was acknowledged before.
        server.down();
        server.up();
        clients.progress(500);
        let known = clients.finish();
        let acknowledged: usize = known.iter().map(|client| client.acknowledged.len()).sum();
        assert!(acknowledged >= 1000 && known.iter().all(|client| client.latency_max < Duration::from_secs(60)));
        assert_eq!(ledger::losses(&login, &known), Vec::<String>::new());
        let planted = known[0].acknowledged[0].clone();
        login.execute(&format!("DELETE FROM ledger_tokens WHERE token = '{planted}'"));
        login.execute("INSERT INTO ledger_tokens VALUES (1, 'nobody')");
        let found = ledger::losses(&login, &known);
        assert!(found.iter().any(|line| line.contains(&format!("token {planted} was acknowledged"))), "{found:?}");
        assert!(found.iter().any(|line| line.contains("token nobody")), "{found:?}");
    }
}
