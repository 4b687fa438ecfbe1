//! psql and pg_dump cannot tell the proxy from the server: the same output, the same files, Ctrl-C included.

use std::time::Duration;

use crossfade_loadtest::pg_client::{Login, Terminal};
use crossfade_loadtest::pg_rig::PgRig;
use crossfade_loadtest::postgres::{Version, versions};
use crossfade_loadtest::wait::until;

const PATIENCE: Duration = Duration::from_secs(30);

const OBJECTS: &str = "CREATE SCHEMA shop; CREATE TYPE shop.colour AS ENUM ('red', 'green');
    CREATE TABLE shop.items (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE, colour shop.colour, price numeric(10,2) CHECK (price >= 0),
        tags text[], made timestamptz DEFAULT '2024-02-29 12:00+00', extra jsonb);
    CREATE TABLE shop.orders (id int PRIMARY KEY, item bigint REFERENCES shop.items ON DELETE CASCADE, n int);
    CREATE INDEX ON shop.orders (item) WHERE n > 1;
    CREATE VIEW shop.cheap AS SELECT * FROM shop.items WHERE price < 10;
    CREATE MATERIALIZED VIEW shop.totals AS SELECT item, sum(n) FROM shop.orders GROUP BY item;
    CREATE FUNCTION shop.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
    CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'touched %', NEW.name; RETURN NEW; END $$;
    CREATE TRIGGER touched BEFORE UPDATE ON shop.items FOR EACH ROW EXECUTE FUNCTION shop.touch();
    INSERT INTO shop.items (name, colour, price, tags, extra) VALUES ('tea', 'green', 3.50, '{a,\"b c\"}', '{\"k\": [1, null]}'),
        ('wine', 'red', 12, NULL, NULL), (E'odd\\tname\\\\', NULL, 0, '{}', '\"é\"');
    INSERT INTO shop.orders SELECT n, 1 + n % 3, n FROM generate_series(1, 50) n; REFRESH MATERIALIZED VIEW shop.totals;
    COMMENT ON TABLE shop.items IS 'what we sell'; ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY;
    CREATE SEQUENCE shop.numbers START 7; SELECT nextval('shop.numbers');";

/// What a person does in a terminal, line by line; each must look the same.
const SCRIPT: &str = "\\l\n\\dn+\n\\dt+ shop.*\n\\d shop.items\n\\d+ shop.orders\n\\df shop.*\n\\dv shop.*\n\\dm shop.*\n\\ds shop.*\n\\di shop.*\n\
    \\dT+ shop.*\n\\du\n\\dp shop.*\n\\sf shop.touch\n\\dx\n\\encoding\n\\x\nSELECT * FROM shop.items ORDER BY id;\n\\x\n\
    SELECT 1/0;\nSELEKT 1;\nSELECT * FROM nowhere;\nSELECT 'a' AS \"A b\", NULL, 1.50::numeric;\n\
    BEGIN;\nSAVEPOINT s;\nINSERT INTO shop.orders VALUES (1, 1, 1);\nROLLBACK TO s;\nUPDATE shop.items SET price = price WHERE id = 1;\nROLLBACK;\n\
    SET application_name = 'me';\nSHOW application_name;\nSET shop.custom = 'x';\nSHOW shop.custom;\nRESET ALL;\nSHOW work_mem;\n\
    PREPARE p (int) AS SELECT shop.twice($1);\nEXECUTE p(21);\nDEALLOCATE p;\nEXECUTE p(1);\n\
    DO $$ BEGIN RAISE WARNING 'careful'; RAISE NOTICE 'n % %', 1, 'two'; END $$;\n\
    COPY (SELECT * FROM shop.orders ORDER BY id LIMIT 3) TO STDOUT WITH CSV HEADER;\n\
    BEGIN;\nCOPY shop.orders FROM STDIN WITH CSV;\n901,1,1\n902,2,2\n\\.\nSELECT count(*) FROM shop.orders;\nROLLBACK;\n\
    COPY shop.orders FROM STDIN WITH CSV;\nthis is,no,row\n\\.\nSELECT 'after a failed copy';\n\
    SELECT n, md5(repeat('x', n)) FROM generate_series(1, 5) n \\gdesc\nSELECT 'one' \\; SELECT 'two' \\; SELECT 'three';\n\
    \\set FETCH_COUNT 7\nSELECT n FROM generate_series(1, 20) n;\n\\set FETCH_COUNT 0\n\
    SELECT format('SELECT %s', n) FROM generate_series(1, 3) n \\gexec\nSELECT 5 AS five \\gset\n\\echo :five\n\
    \\lo_list\nBEGIN;\nSELECT lo_from_bytea(4711, 'large object');\nSELECT lo_get(4711);\nSELECT lo_unlink(4711);\nCOMMIT;\n\
    SHOW server_version;\nSHOW server_encoding;\nSHOW standard_conforming_strings;\nSELECT current_user, session_user, current_database();\n";

fn transcript(login: &Login) -> String {
    let ran = login.psql_with_input(&["-a", "-v", "VERBOSITY=verbose"], SCRIPT);
    assert!(ran.code == 0 || ran.code == 3, "{ran:?}");
    format!("{}\n--- stderr\n{}", ran.stdout, ran.stderr)
}

#[test]
fn meta_commands_and_errors_look_the_same() {
    for version in versions() {
        let rig = PgRig::start(version);
        rig.direct().execute(OBJECTS);
        let (through, direct) = (transcript(&rig.through()), transcript(&rig.direct()));
        assert_same(&through, &direct);
        assert!(direct.contains("after a failed copy") && direct.contains("touched tea"), "{direct}");
        // This output names the port, so it differs; it must be right.
        let login = rig.through();
        let said = login.psql(&["-c", "\\conninfo"]).stdout;
        assert!(said.contains(&login.port.to_string()) && said.contains("\"app\""), "{said}");
    }
}

/// Compares, and reports the first line that differs.
pub fn assert_same(through: &str, direct: &str) {
    let differing = through.lines().zip(direct.lines()).position(|(a, b)| a != b);
    let nth = |text: &str, n: usize| text.lines().skip(n.saturating_sub(2)).take(5).collect::<Vec<_>>().join("\n    ");
    if let Some(n) = differing {
        panic!("line {}:\n  through:\n    {}\n  direct:\n    {}", n + 1, nth(through, n), nth(direct, n));
    }
    assert_eq!(through.lines().count(), direct.lines().count(), "one transcript is longer");
}

/// 1 M rows out of one table and into another; sums made by the server itself.
#[test]
fn copy_of_a_million_rows_in_and_out() {
    for version in versions() {
        let rig = PgRig::start(version);
        let login = rig.through();
        rig.direct().execute(
            "CREATE TABLE big AS SELECT n AS id, md5(n::text) AS word, n * 1.5 AS number, CASE WHEN n % 7 = 0 THEN NULL ELSE E'a\\tb' END AS odd \
             FROM generate_series(1, 1000000) n; CREATE TABLE again (LIKE big); CREATE TABLE binary_again (LIKE big)",
        );
        let file = rig.server.directory().join("rows.copy");
        for (options, table) in [("", "again"), ("WITH (FORMAT binary)", "binary_again")] {
            let out = login.psql(&["-c", &format!("\\copy big TO '{}' {options}", file.display())]);
            assert_eq!((out.code, out.stdout.trim()), (0, "COPY 1000000"), "{}", out.stderr);
            let back = login.psql(&["-c", &format!("\\copy {table} FROM '{}' {options}", file.display())]);
            assert_eq!((back.code, back.stdout.trim()), (0, "COPY 1000000"), "{}", back.stderr);
            let sum = |table: &str| {
                rig.direct().sql(&format!("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} t"))
            };
            assert_eq!(sum(table), sum("big"));
        }
    }
}

#[test]
fn notifications_go_from_one_session_to_another() {
    for version in versions() {
        let rig = PgRig::start(version);
        let mut listening = rig.through().terminal();
        let mut speaking = rig.through().terminal();
        assert_eq!(listening.ask("LISTEN news;"), "");
        speaking.ask("NOTIFY news, 'hello';\nBEGIN;\nNOTIFY news, 'never';\nROLLBACK;\nNOTIFY news, 'again';");
        // psql looks for notifications after each statement.
        let mut heard = String::new();
        until("both notifications", PATIENCE, || {
            heard += &listening.ask("SELECT 1;");
            if heard.contains("\"again\"") { Ok(()) } else { Err(heard.clone()) }
        });
        assert!(heard.contains("Asynchronous notification \"news\" with payload \"hello\""), "{heard}");
        assert!(!heard.contains("never"), "{heard}");
        listening.ask("UNLISTEN news;");
        speaking.ask("NOTIFY news, 'nobody';");
        assert_eq!(listening.ask("SELECT 2;"), "2");
    }
}

/// The dump tool refuses a newer server, so this runs on the version of the installed dump tool only.
#[test]
fn a_dump_restored_through_the_proxy_gives_the_same_dump() {
    let rig = PgRig::start(Version::V15);
    rig.direct().execute(OBJECTS);
    rig.direct().execute("ALTER TABLE shop.items DISABLE ROW LEVEL SECURITY");
    rig.server.superuser("postgres").execute("CREATE DATABASE second OWNER app");
    for format in [&[][..], &["--inserts"]] {
        let dump = |login: &Login| {
            let ran = login.pg_dump(format);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            // A random word that keeps a dump from escaping psql's restricted mode.
            ran.stdout
                .lines()
                .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
                .fold(String::new(), |text, line| text + line + "\n")
        };
        let through = dump(&rig.through());
        assert_same(&through, &dump(&rig.direct()));
        let second = rig.through().database("second");
        let restored = second.psql_with_input(&["-q", "-v", "ON_ERROR_STOP=1"], &through);
        assert_eq!((restored.code, restored.stderr.as_str()), (0, ""), "{}", restored.stdout);
        assert_same(&dump(&second), &through);
        second.execute("DROP SCHEMA shop CASCADE");
    }
    // The directory format in parallel, which shares a snapshot between sessions.
    let place = rig.server.directory().join("dump");
    let ran = rig.through().pg_dump(&["-F", "d", "-j", "3", "-f", &place.display().to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

/// Waits until the server itself sees this session run its statement.
fn running(rig: &PgRig, text: &str) {
    let watch = rig.server.superuser("postgres");
    until("the statement to run", PATIENCE, || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{text}%'");
        if watch.sql(&sql) == "0" { Err("not yet".to_owned()) } else { Ok(()) }
    });
}

pub fn assert_cancelled(terminal: &mut Terminal, rig: &PgRig) {
    terminal.clear();
    terminal.type_line("select pg_sleep(60);");
    running(rig, "select pg_sleep");
    terminal.interrupt();
    terminal.expect("canceling statement due to user request", Duration::from_secs(2));
    assert_eq!(terminal.ask("SELECT 'still here';"), "still here", "{}", rig.proxy_says());
}

#[test]
fn ctrl_c_cancels_the_statement_and_only_it() {
    for version in versions() {
        let rig = PgRig::start(version);
        let mut bystander = rig.through().terminal();
        bystander.type_line("SELECT 'bystander ' || pg_sleep(4);");
        let mut terminal = rig.through().terminal();
        // Twice in one session, then inside a transaction, which is then failed and can be rolled back.
        assert_cancelled(&mut terminal, &rig);
        assert_cancelled(&mut terminal, &rig);
        terminal.ask("BEGIN;");
        terminal.clear();
        terminal.type_line("select pg_sleep(61);");
        running(&rig, "select pg_sleep(61)");
        terminal.interrupt();
        terminal.expect("canceling statement", Duration::from_secs(2));
        assert!(terminal.ask("SELECT 1;").contains("current transaction is aborted"));
        assert_eq!(terminal.ask("ROLLBACK;\nSELECT 2;"), "2");
        bystander.expect("bystander", PATIENCE);
        assert!(!bystander.screen().contains("canceling"), "{}", bystander.screen());
    }
}

/// With the right key and nothing running: see the psycopg script.
#[test]
fn a_cancel_with_a_wrong_key_does_no_harm() {
    use crossfade_loadtest::pg_wire::{CANCEL_REQUEST, Wire, untyped};
    for version in versions() {
        let rig = PgRig::start(version);
        let mut terminal = rig.through().terminal();
        let (mut asleep, port) = (rig.through().terminal(), rig.through().port);
        asleep.type_line("SELECT 'slept' || pg_sleep(2);");
        running(&rig, "SELECT");
        for (key, is_one) in
            [(&[0, 0, 0, 1, 0, 0, 0, 2][..], true), (&[0xff; 8], true), (&[0, 0, 0, 1], false), (&[7; 260], false)]
        {
            let mut wire = Wire::connect(port);
            wire.send(&untyped(CANCEL_REQUEST, key)).unwrap();
            let rest = wire.rest();
            // A cancel has no reply, right or wrong; an invalid one may get an error before the close.
            assert!(rest.as_ref().is_some_and(|rest| rest.is_empty() || !is_one), "{key:?}: {rest:?}");
            if let Some(told) = rest.filter(|rest| !rest.is_empty()) {
                eprintln!("a cancel of {} bytes: {}", key.len(), String::from_utf8_lossy(&told));
            }
        }
        asleep.expect("slept", PATIENCE);
        assert_eq!(terminal.ask("SELECT 'unharmed';"), "unharmed");
    }
}
