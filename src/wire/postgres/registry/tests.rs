//! The registry against what PostgreSQL 15 does with the same statements. Tests only.

use super::*;

/// A Query, the tags it is answered with ("E": an error) and the status after it.
type Exchange = (&'static str, &'static [&'static str], u8);

/// A Query and all it is answered with.
fn query(registry: &mut Registry, sql: &str, tags: &[&str], status: u8) {
    registry.on_statement(sql.as_bytes());
    registry.on_sync();
    tags.iter().for_each(|tag| if *tag == "E" { registry.on_error() } else { registry.on_complete(tag.as_bytes()) });
    registry.on_ready(status, 0);
    assert!(registry.pending.is_empty(), "{sql}");
}

fn names(registry: &Registry) -> Vec<&str> {
    registry.settings().iter().map(|setting| setting.name.as_str()).collect()
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat()
}

#[test]
fn settings_follow_their_transaction() {
    // The answers are those of PostgreSQL 15.
    let table: &[(&[Exchange], &[&str])] = &[
        (&[("set a.b = 1", &["SET"], b'I')], &["a.b"]),
        (&[("set a.b = 1; select 1/0", &["SET", "E"], b'I')], &[]),
        (&[("set a.b = 1; commit; select 1/0", &["SET", "COMMIT", "E"], b'I')], &["a.b"]),
        (&[("begin; set a.b = 1; rollback", &["BEGIN", "SET", "ROLLBACK"], b'I')], &[]),
        (&[("begin", &["BEGIN"], b'T'), ("set a.b = 1", &["SET"], b'T'), ("commit", &["COMMIT"], b'I')], &["a.b"]),
        (
            &[
                ("begin; set a.b = 1", &["BEGIN", "SET"], b'T'),
                ("select 1/0", &["E"], b'E'),
                ("commit", &["ROLLBACK"], b'I'),
            ],
            &[],
        ),
        (
            &[
                ("set x = 0", &["SET"], b'I'),
                ("begin; set x = 1; savepoint s", &["BEGIN", "SET", "SAVEPOINT"], b'T'),
                ("set y = 1; reset x; savepoint t; set z = 1", &["SET", "RESET", "SAVEPOINT", "SET"], b'T'),
                ("rollback to s", &["ROLLBACK"], b'T'),
                ("set w = 1; release s; commit", &["SET", "RELEASE", "COMMIT"], b'I'),
            ],
            &["x", "w"],
        ),
        (&[("set role ann; set a = 1; reset all", &["SET", "SET", "RESET"], b'I')], &["role"]),
        (
            &[("set a = 1", &["SET"], b'I'), ("begin; reset all; rollback", &["BEGIN", "RESET", "ROLLBACK"], b'I')],
            &["a"],
        ),
        (&[("set a = 1; set b = 1; set a = 2", &["SET", "SET", "SET"], b'I')], &["b", "a"]),
        (&[("begin; set local a = 1; commit", &["BEGIN", "SET", "COMMIT"], b'I')], &[]),
        (&[("select 1; select set_config('a.b', 'x', false)", &["SELECT 1", "SELECT 1"], b'I')], &["a.b"]),
        (&[("set a = 1", &["SET"], b'I'), ("discard all", &["DISCARD ALL"], b'I')], &[]),
        (&[("set nosuch = 1", &["E"], b'I'), ("select 1", &["SELECT 1"], b'I')], &[]),
    ];
    for (queries, expected) in table {
        let mut registry = Registry::new();
        queries.iter().for_each(|(sql, tags, status)| query(&mut registry, sql, tags, *status));
        assert_eq!(names(&registry), *expected, "{queries:?}");
    }
}

#[test]
fn the_last_value_is_the_one_repeated() {
    let mut registry = Registry::new();
    query(&mut registry, "set a = 1", &["SET"], b'I');
    query(&mut registry, "begin; set a = 2", &["BEGIN", "SET"], b'T');
    assert_eq!(registry.settings()[0].statement.as_deref(), Some("set a = 2"));
    query(&mut registry, "rollback", &["ROLLBACK"], b'I');
    assert_eq!(registry.settings()[0].statement.as_deref(), Some("set a = 1"));
}

#[test]
fn channels_and_kinds_of_state() {
    let mut registry = Registry::new();
    query(&mut registry, "listen a; listen b; listen a", &["LISTEN"; 3], b'I');
    query(&mut registry, "begin; unlisten *; listen c; rollback", &["BEGIN", "UNLISTEN", "LISTEN", "ROLLBACK"], b'I');
    assert_eq!(registry.channels(), ["a", "b"]);
    query(&mut registry, "begin; create temp table t ()", &["BEGIN", "CREATE TABLE"], b'T');
    query(&mut registry, "select pg_advisory_lock(1), nextval('s')", &["SELECT 1"], b'T');
    query(&mut registry, "prepare p as select lo_open(1, 2)", &["PREPARE"], b'T');
    let kinds: Vec<_> = registry.keeps().names().collect();
    assert_eq!(kinds, ["listen", "temp table", "advisory lock", "sql prepare", "large object", "currval"]);
    query(&mut registry, "rollback", &["ROLLBACK"], b'I');
    let kinds: Vec<_> = registry.keeps().names().collect();
    assert_eq!(kinds, ["listen", "advisory lock", "sql prepare", "currval"]);
    query(&mut registry, "select pg_advisory_unlock_all(); unlisten a", &["SELECT 1", "UNLISTEN"], b'I');
    query(&mut registry, "deallocate all; discard sequences", &["DEALLOCATE ALL", "DISCARD SEQUENCES"], b'I');
    assert_eq!(registry.keeps().names().collect::<Vec<_>>(), ["listen"]);
    query(&mut registry, "select set_config(a, b, false) from t", &["SELECT 1"], b'I');
    assert!(registry.has_unknown_settings());
    query(&mut registry, "discard all", &["DISCARD ALL"], b'I');
    assert!(registry.keeps().is_empty() && !registry.has_unknown_settings() && registry.is_complete());
}

#[test]
fn prepared_statements_are_confirmed_in_order_or_forgotten() {
    let mut registry = Registry::new();
    let (one, two, three) = (parse("one", "select 1"), parse("two", "select 1/0"), parse("three", "select 3"));
    registry.on_parse(b"one", &one);
    registry.on_statement(b"select 1");
    registry.on_parse(b"two", &two);
    registry.on_parse(b"three", &three);
    assert_eq!(registry.statement_text(b"three"), Some(&b"select 3"[..]));
    registry.on_sync();
    registry.on_parse(b"", &parse("", "select 4"));
    registry.on_sync();
    registry.on_parse_complete();
    registry.on_complete(b"SELECT 1");
    registry.on_error();
    registry.on_ready(b'I', 1);
    assert_eq!(registry.prepared().collect::<Vec<_>>(), [(&b"one"[..], &one[..])]);
    assert_eq!(registry.statement_text(b"three"), None);
    registry.on_parse_complete();
    registry.on_ready(b'I', 0);
    assert_eq!(registry.statement_text(b""), Some(&b"select 4"[..]));
    assert_eq!(registry.unnamed(), Some(&parse("", "select 4")[..]));
    assert_eq!(registry.keeps().names().collect::<Vec<_>>(), ["prepared"]);

    registry.on_close_portal();
    registry.on_close_statement(b"one");
    registry.on_sync();
    registry.on_close_complete();
    assert_eq!(registry.prepared().count(), 1);
    registry.on_close_complete();
    registry.on_ready(b'I', 0);
    assert_eq!(registry.prepared().count(), 0);
    assert_eq!(registry.bytes, parse("", "select 4").len());

    registry.on_parse(b"one", &one);
    registry.on_sync();
    registry.on_parse_complete();
    registry.on_ready(b'I', 0);
    query(&mut registry, "begin; deallocate all; rollback", &["BEGIN", "DEALLOCATE ALL", "ROLLBACK"], b'I');
    assert_eq!(registry.prepared().count(), 0, "DEALLOCATE is not transactional");
}

#[test]
fn an_extended_set_is_a_set_and_a_reverted_one_is_not() {
    let mut registry = Registry::new();
    let sent = |registry: &mut Registry| {
        registry.on_parse(b"", &parse("", "set a.b = 1"));
        let text = registry.statement_text(b"").expect("on its way").to_vec();
        registry.on_statement(&text);
        registry.on_unknown_statement();
        registry.on_sync();
        registry.on_parse_complete();
        registry.on_complete(b"SET");
    };
    sent(&mut registry);
    registry.on_error();
    registry.on_ready(b'I', 0);
    assert_eq!(registry.settings(), []);
    sent(&mut registry);
    registry.on_portal_suspended();
    registry.on_ready(b'I', 0);
    assert_eq!(names(&registry), ["a.b"]);
}

#[test]
fn a_query_that_an_error_skipped_is_forgotten_with_it() {
    let mut registry = Registry::new();
    registry.on_unknown_statement();
    registry.on_statement(b"set a = 1");
    registry.on_sync();
    registry.on_sync();
    registry.on_error();
    registry.on_statement(b"set b = 1");
    registry.on_sync();
    // One ReadyForQuery for the Sync, one to come for the last Query.
    registry.on_ready(b'I', 1);
    registry.on_complete(b"SET");
    registry.on_ready(b'I', 0);
    assert_eq!(names(&registry), ["b"]);
}

#[test]
fn limits_are_kept_and_told() {
    let mut registry = Registry::new();
    for number in 0..=limits::PG_SETTINGS_MAX {
        assert!(registry.is_complete());
        query(&mut registry, &format!("set a.b{number} = 1"), &["SET"], b'I');
    }
    assert!(!registry.is_complete());
    query(&mut registry, "discard all", &["DISCARD ALL"], b'I');
    assert!(registry.is_complete());
    let body = vec![b'x'; limits::PG_PREPARED_BYTES_MAX + 1];
    for name in [&b""[..], b"big"] {
        registry.on_parse(name, &body);
        registry.on_sync();
        registry.on_parse_complete();
        registry.on_ready(b'I', 0);
        assert_eq!(registry.is_complete(), name.is_empty());
    }
    assert_eq!((registry.bytes, registry.unnamed().is_none()), (0, true));
}

#[test]
fn plain_statements_of_a_pipeline_share_one_entry() {
    let mut registry = Registry::new();
    for _ in 0..1000 {
        registry.on_statement(b"insert into t values ($1)");
    }
    assert_eq!(registry.pending.len(), 1);
}

proptest::proptest! {
    #[test]
    fn no_order_of_events_makes_it_panic_or_lose_count(events: Vec<(u8, u8)>) {
        let texts = ["set a.b = 1", "begin; listen c", "rollback to s", "savepoint s", "commit", "select 1", "discard all", "rollback"];
        let mut registry = Registry::new();
        for (event, detail) in events {
            let name = [b"".as_slice(), b"a", b"b"][usize::from(detail % 3)];
            match event % 10 {
                0 => registry.on_parse(name, &[name, b"\0select 1\0\0\0"].concat()),
                1 => registry.on_close_statement(name),
                2 => drop(registry.on_statement(texts[usize::from(detail) % texts.len()].as_bytes())),
                3 => registry.on_sync(),
                4 => registry.on_parse_complete(),
                5 => registry.on_close_complete(),
                6 => registry.on_complete(if detail % 4 == 0 { b"ROLLBACK" } else { b"SET" }),
                7 => registry.on_error(),
                8 => registry.on_ready(b"ITE"[usize::from(detail % 3)], usize::from(detail % 4)),
                _ => registry.on_close_portal(),
            }
            let ends = registry.pending.iter().filter(|pending| matches!(pending, Pending::End)).count();
            proptest::prop_assert_eq!(ends, registry.ends);
            let on_its_way: usize = registry.pending.iter().map(|pending| match pending {
                Pending::Parse { name, body } => name.len() + body.len(),
                _ => 0,
            }).sum();
            let named: usize = registry.prepared().map(|(name, body)| name.len() + body.len()).sum();
            proptest::prop_assert_eq!(registry.bytes, on_its_way + named + registry.unnamed().map_or(0, <[u8]>::len));
        }
    }
}
