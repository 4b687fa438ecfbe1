//! Which clients may log in, and which errors the others get: the server's own texts. And what happens when the server is down.

use std::time::{Duration, Instant};

use crossfade_loadtest::crossfade::Ran;
use crossfade_loadtest::pg_client::Login;
use crossfade_loadtest::pg_rig::{Auth, Options, PgRig, ProxyTls, without_proxy};
use crossfade_loadtest::pg_rust::connect;
use crossfade_loadtest::postgres::{MD5_PASSWORD, MD5_USER, SUPERUSER, TRUSTED_USER, USER, Version, versions};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);

/// psql's error for a log-in that fails, without the port.
fn refusal(login: &Login) -> String {
    let ran: Ran = login.psql(&["-c", "SELECT 1"]);
    assert_eq!(ran.code, 2, "should be refused: {ran:?}");
    ran.stderr.replace(&login.port.to_string(), "PORT")
}

/// SQLSTATE and text of a log-in that fails with an error of the protocol.
fn refused_with(login: &Login) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(connect(login, "refused")).expect_err("should be refused");
    let db = error.as_db_error().unwrap_or_else(|| panic!("not an error of the protocol: {error:?}"));
    (db.code().code().to_owned(), db.message().to_owned())
}

const WHO: &str = "SELECT session_user, current_user";

#[test]
fn scram_with_a_file_of_verifiers_and_by_query() {
    for version in versions() {
        for auth in [Auth::Scram, Auth::ScramByQuery] {
            let rig = PgRig::with(version, &Options::auth(auth));
            assert_eq!(rig.through().sql(WHO), "app|app", "{auth:?}: {}", rig.proxy_says());
            for (user, password) in [(USER, "wrong"), (USER, "app"), ("nobody", "x")] {
                let [through, direct] = [rig.through(), rig.direct()].map(|login| login.user(user, password));
                assert_eq!(refusal(&through), refusal(&direct), "{auth:?} {user}");
                let (code, text) = refused_with(&through);
                assert_eq!((code, text), refused_with(&direct), "{auth:?} {user}");
            }
            // A database and a setting that only the server can check.
            let nowhere = |login: Login| refusal(&login.database("nowhere"));
            assert_eq!(nowhere(rig.through()), nowhere(rig.direct()));
            // libpq tries once more when this error comes after AuthenticationOk and not when it comes before: only the last line
            // counts.
            let setting = |login: Login| {
                let said = refusal(&login.with("PGOPTIONS", "-c no_such_setting=1"));
                said.rsplit("failed: ").next().map(str::to_owned)
            };
            assert_eq!(setting(rig.through()), setting(rig.direct()));
            let login = rig.through().with("PGOPTIONS", "-c work_mem=5MB").with("PGAPPNAME", "named");
            assert_eq!(login.sql("SHOW work_mem; SHOW application_name"), "5MB\nnamed");
        }
    }
}

#[test]
fn users_made_after_the_start_are_found_by_query() {
    let rig = PgRig::with(Version::V15, &Options::auth(Auth::ScramByQuery));
    let server = rig.server.superuser("app");
    server.execute("CREATE ROLE \"late \"\"comer\" LOGIN PASSWORD 'first'");
    let login = rig.through().user("late \"comer", "first");
    assert_eq!(login.sql("SELECT 1"), "1", "{}", rig.proxy_says());
    server.execute("ALTER ROLE \"late \"\"comer\" PASSWORD 'second'");
    let changed = rig.through().user("late \"comer", "second");
    until("the new password to be known", PATIENCE, || {
        let ran = changed.psql(&["-c", "SELECT 1"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    assert!(refusal(&login).contains("password authentication failed"));
    server.execute("DROP ROLE \"late \"\"comer\"");
    until("the user to be forgotten", PATIENCE, || {
        if changed.psql(&["-c", "SELECT 1"]).code == 2 { Ok(()) } else { Err("still let in".to_owned()) }
    });
}

/// PgBouncer's quoting, plain passwords, and lines without users.
#[test]
fn an_auth_file_may_hold_plain_and_quoted_entries() {
    let more = "\n; a comment\n\"odd\"\"name\" \"pass\"\"word: é\" ignored\n".to_owned();
    let rig = PgRig::with(Version::V15, &Options { more_users: more, ..Options::default() });
    rig.server.superuser("app").execute("CREATE ROLE \"odd\"\"name\" LOGIN PASSWORD 'pass\"word: é'");
    let login = rig.through().user("odd\"name", "pass\"word: é");
    assert_eq!(login.sql("SELECT session_user"), "odd\"name", "{}", rig.proxy_says());
    assert_eq!(rig.through().sql(WHO), "app|app");
}

/// The file is older than the server's own verifier: the client's password is right for one and wrong for the other.
#[test]
fn a_verifier_that_the_server_no_longer_has_is_an_error_and_no_hang() {
    if without_proxy() {
        skip!("PG_DIRECT: there is no second verifier");
    }
    let rig = PgRig::start(Version::V15);
    rig.server.superuser("app").execute("ALTER ROLE app PASSWORD 'changed'");
    let began = Instant::now();
    let said = refusal(&rig.through());
    assert!(said.contains("FATAL") && began.elapsed() < Duration::from_secs(20), "{said}");
    assert!(refusal(&rig.through().user(USER, "changed")).contains("password authentication failed"));
    assert_eq!(rig.through().user(SUPERUSER, "secret").sql("SELECT 1"), "1");
}

#[test]
fn mapped_logs_in_as_the_endpoints_user() {
    let rig = PgRig::with(Version::V15, &Options::auth(Auth::Mapped));
    let expected = if without_proxy() { "app|app" } else { "postgres|postgres" };
    assert_eq!(rig.through().sql(WHO), expected, "{}", rig.proxy_says());
    assert_eq!(refusal(&rig.through().user(USER, "wrong")), refusal(&rig.direct().user(USER, "wrong")));
    assert_eq!(refusal(&rig.through().user("nobody", "x")), refusal(&rig.direct().user("nobody", "x")));
}

#[test]
fn md5_for_users_with_only_a_hash() {
    for version in versions() {
        let rig = PgRig::with(version, &Options::auth(Auth::Md5));
        let old = |login: Login, password: &str| login.user(MD5_USER, password);
        assert_eq!(old(rig.through(), MD5_PASSWORD).sql("SELECT session_user"), MD5_USER, "{}", rig.proxy_says());
        assert_eq!(refusal(&old(rig.through(), "wrong")), refusal(&old(rig.direct(), "wrong")));
        assert_eq!(rig.through().sql(WHO), "app|app");
        assert_eq!(refusal(&rig.through().user("nobody", "x")), refusal(&rig.direct().user("nobody", "x")));
    }
}

#[test]
fn trust_asks_nobody() {
    let rig = PgRig::with(Version::V15, &Options::auth(Auth::Trust));
    assert_eq!(rig.through().user(TRUSTED_USER, "").sql("SELECT session_user"), TRUSTED_USER, "{}", rig.proxy_says());
    if without_proxy() {
        skip!("PG_DIRECT: the server asks for passwords that the proxy knows");
    }
    // Known by its md5 hash, which is enough to log in to the server.
    assert_eq!(rig.through().user(MD5_USER, "").sql("SELECT session_user"), MD5_USER);
    // A verifier is not enough, and the error says so.
    let said = refusal(&rig.through().user(USER, ""));
    assert!(said.contains("FATAL") && said.contains(USER), "{said}");
}

#[test]
fn relay_lets_the_server_check() {
    for version in versions() {
        let rig = PgRig::with(version, &Options::auth(Auth::Relay));
        assert_eq!(rig.through().sql(WHO), "app|app", "{}", rig.proxy_says());
        assert_eq!(rig.through().user(MD5_USER, MD5_PASSWORD).sql("SELECT session_user"), MD5_USER);
        assert_eq!(rig.through().user(TRUSTED_USER, "").sql("SELECT session_user"), TRUSTED_USER);
        for (user, password) in [(USER, "wrong"), ("nobody", "x"), (MD5_USER, "wrong")] {
            let [through, direct] = [rig.through(), rig.direct()].map(|login| refusal(&login.user(user, password)));
            assert_eq!(through, direct, "{user}");
        }
    }
}

#[test]
fn tls_that_is_required_is_required() {
    let rig = PgRig::with(Version::V15, &Options { tls: ProxyTls::Required, ..Options::default() });
    if without_proxy() {
        skip!("PG_DIRECT: this server has no TLS");
    }
    assert_eq!(rig.through().sql("SELECT 1"), "1");
    let mut plain = rig.through();
    plain.ca = None;
    let said = refusal(&plain).to_lowercase();
    assert!(said.contains("fatal") && (said.contains("tls") || said.contains("ssl")), "{said}");
    let (code, _) = refused_with(&plain);
    assert!(code.starts_with("28") || code.starts_with("08"), "{code}");
    // As psql does by default: TLS when it is offered.
    assert_eq!(plain.with("PGSSLMODE", "prefer").sql("SELECT 1"), "1");
    let stranger = PgRig::with(Version::V15, &Options { tls: ProxyTls::Required, ..Options::default() });
    let theirs = &stranger.certificates().expect("made").ca;
    assert!(refusal(&rig.through().verifying(theirs)).contains("certificate verify failed"));
}

#[test]
fn a_server_that_is_down_is_named() {
    for version in versions() {
        let mut rig = PgRig::start(version);
        assert_eq!(rig.through().sql("SELECT 1"), "1");
        rig.server.down();
        if without_proxy() {
            skip!("PG_DIRECT: there is no proxy to report it");
        }
        let began = Instant::now();
        let (code, text) = refused_with(&rig.through());
        assert!(code == "57P03" || code.starts_with("08"), "{code} {text}");
        assert!(text.contains("Crossfade") || text.contains("crossfade"), "{text}");
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        rig.server.up();
        until("the server through the proxy", PATIENCE, || {
            let ran = rig.through().psql(&["-Atc", "SELECT 2"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
        assert!(rig.proxy_mut().is_none_or(crossfade_loadtest::crossfade::Crossfade::alive));
    }
}

#[test]
fn a_server_that_dies_in_mid_statement_ends_its_sessions_and_no_more() {
    for version in versions() {
        let mut rig = PgRig::start(version);
        rig.direct().execute("CREATE TABLE kept (n int)");
        let mut terminals: Vec<_> = (0..4).map(|_| rig.through().terminal()).collect();
        for (n, terminal) in terminals.iter_mut().enumerate() {
            assert_eq!(terminal.ask("SELECT 'there';"), "there");
            match n {
                0 => terminal.type_line("SELECT pg_sleep(60);"),
                1 => drop(terminal.ask("BEGIN;\nINSERT INTO kept VALUES (1);")),
                2 => terminal.type_line("COPY kept FROM STDIN;\n1\n2"),
                _ => {}
            }
        }
        let watch = rig.server.superuser("postgres");
        until("the statement to run", PATIENCE, || {
            let count = watch.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active' AND usename = 'app'");
            if count == "1" { Ok(()) } else { Err(count) }
        });
        rig.server.down();
        // psql sees an error or an end at once when it waits, and at the next statement when it does not; then it connects again,
        // which fails while the server is away.
        for (n, terminal) in terminals.iter_mut().enumerate() {
            match n {
                0 => {}
                2 => terminal.type_line("\\."),
                _ => terminal.type_line("SELECT 'next';"),
            }
            until("psql to notice", PATIENCE, || {
                let screen = terminal.screen().to_lowercase();
                let noticed =
                    ["closed", "terminat", "fatal", "lost", "crossfade"].iter().any(|word| screen.contains(word));
                if noticed { Ok(()) } else { Err(screen) }
            });
        }
        rig.server.up();
        until("the server through the proxy", PATIENCE, || {
            let ran = rig.through().psql(&["-Atc", "SELECT count(*) FROM kept"]);
            if ran.code == 0 && ran.stdout.trim() == "0" { Ok(()) } else { Err(format!("{ran:?}")) }
        });
        assert!(rig.proxy_mut().is_none_or(crossfade_loadtest::crossfade::Crossfade::alive));
    }
}
