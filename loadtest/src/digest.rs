//! The typed contents of a server, read with the `redis` crate; written independently of the product's own digest on purpose.

use std::collections::BTreeMap;

use redis::{Connection, Value};

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    pub kind: String,
    /// Canonical text of the content.
    pub content: String,
    /// Absolute, milliseconds; -1 = none.
    pub deadline_ms: i64,
}

pub type Contents = BTreeMap<(i64, Vec<u8>), Held>;

/// Every key of every database. The server should be at rest.
///
/// # Panics
/// When the server refuses a read.
#[must_use]
pub fn contents(connection: &mut Connection) -> Contents {
    let mut all = Contents::new();
    let keyspace: String = redis::cmd("INFO").arg("keyspace").query(connection).expect("INFO");
    let databases = keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse::<i64>().ok());
    for database in databases {
        redis::cmd("SELECT").arg(database).exec(connection).expect("SELECT");
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys): (String, Vec<Vec<u8>>) =
                redis::cmd("SCAN").arg(&cursor).arg("COUNT").arg(500).query(connection).expect("SCAN");
            // Crossfade's own keys are no data.
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(|key| !key.starts_with(b"__crossfade:")).collect();
            read_batch(connection, database, &keys, &mut all);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    redis::cmd("SELECT").arg(0).exec(connection).expect("SELECT");
    all
}

fn read_batch(connection: &mut Connection, database: i64, keys: &[Vec<u8>], all: &mut Contents) {
    // SCAN may return a page without keys, and the client refuses a pipeline without commands.
    if keys.is_empty() {
        return;
    }
    let mut facts = redis::pipe();
    for key in keys {
        facts.cmd("TYPE").arg(key).cmd("PEXPIRETIME").arg(key);
    }
    let facts: Vec<Value> = facts.query(connection).expect("TYPE and PEXPIRETIME");
    let mut reads = redis::pipe();
    let mut held = Vec::new();
    for (key, pair) in keys.iter().zip(facts.chunks(2)) {
        let kind = text(&pair[0]);
        let Value::Int(deadline_ms) = pair[1] else { panic!("PEXPIRETIME gave {:?}", pair[1]) };
        match kind.as_str() {
            "string" => reads.cmd("GET").arg(key),
            "list" => reads.cmd("LRANGE").arg(key).arg(0).arg(-1),
            "set" => reads.cmd("SMEMBERS").arg(key),
            "hash" => reads.cmd("HGETALL").arg(key),
            "zset" => reads.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES"),
            "stream" => reads.cmd("XRANGE").arg(key).arg("-").arg("+"),
            // The key has expired since SCAN named it.
            "none" => continue,
            other => panic!("type {other}"),
        };
        held.push((key, kind, deadline_ms));
    }
    if held.is_empty() {
        return;
    }
    let values: Vec<Value> = reads.query(connection).expect("typed reads");
    for ((key, kind, deadline_ms), value) in held.into_iter().zip(values) {
        if value != Value::Nil {
            let content = canonical(&kind, &value);
            all.insert((database, key.clone()), Held { kind, content, deadline_ms });
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => bytes.escape_ascii().to_string(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Int(n) => n.to_string(),
        other => format!("{other:?}"),
    }
}

fn flat(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) | Value::Set(items) => items.iter().flat_map(flat).collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(field, value)| [text(field), text(value)]).collect(),
        other => vec![text(other)],
    }
}

fn canonical(kind: &str, value: &Value) -> String {
    let items = flat(value);
    match kind {
        "set" => {
            let mut items = items;
            items.sort();
            items.join(" ")
        }
        "hash" => BTreeMap::from_iter(items.chunks(2).map(|pair| (&pair[0], &pair[1])))
            .iter()
            .map(|(field, value)| format!("{field}={value}"))
            .collect::<Vec<_>>()
            .join(" "),
        "zset" => BTreeMap::from_iter(items.chunks(2).map(|pair| (&pair[0], pair[1].parse::<f64>().expect("a score"))))
            .iter()
            .map(|(member, score)| format!("{member}={score}"))
            .collect::<Vec<_>>()
            .join(" "),
        _ => items.join(" "),
    }
}

/// The keys in which two servers differ, with the reason; deadlines may differ by `ttl_tolerance_ms`, and so may expiry.
#[must_use]
pub fn differences(first: &Contents, second: &Contents, ttl_tolerance_ms: i64) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let expiring = |held: &Held| held.deadline_ms >= 0 && held.deadline_ms <= now + ttl_tolerance_ms;
    let mut found = Vec::new();
    for ((database, key), a) in first {
        let name = format!("db {database} {}", key.escape_ascii());
        match second.get(&(*database, key.clone())) {
            None if expiring(a) => {}
            None => found.push(format!("{name}: missing on the second")),
            Some(b) if (&a.kind, &a.content) != (&b.kind, &b.content) => {
                found.push(format!("{name}: {} {:.60} / {} {:.60}", a.kind, a.content, b.kind, b.content));
            }
            Some(b)
                if (a.deadline_ms < 0) != (b.deadline_ms < 0)
                    || (a.deadline_ms - b.deadline_ms).abs() > ttl_tolerance_ms =>
            {
                found.push(format!("{name}: deadline {} / {}", a.deadline_ms, b.deadline_ms));
            }
            Some(_) => {}
        }
    }
    for ((database, key), b) in second {
        if !first.contains_key(&(*database, key.clone())) && !expiring(b) {
            found.push(format!("db {database} {}: only on the second", key.escape_ascii()));
        }
    }
    found
}
