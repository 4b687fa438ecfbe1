//! Reads back, through the proxy, everything that was acknowledged to the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::connection::Connection;
use super::model::{ACCOUNTS, ACCOUNTS_SUM, Model, SHARED_COUNTER};
use wire::resp::value::Value;

/// Losses kept as text; the rest are counted.
const NOTES_MAX: usize = 10;

/// The result of reading back.
#[derive(Debug, Default)]
pub struct ReadBack {
    /// Elements, fields, counters and values that were checked.
    pub checked: u64,
    pub lost: u64,
    /// Items found that were not acknowledged: a write applied twice, or a removed element that came back.
    pub surplus: u64,
    pub notes: Vec<String>,
}

impl ReadBack {
    fn note(&mut self, key: &[u8], what: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("{}: {what}", key.escape_ascii()));
        }
    }

    /// Compares as multisets, then the order if it matters.
    fn collection(&mut self, key: &[u8], expected: &[Vec<u8>], found: &[Vec<u8>]) {
        self.checked += expected.len() as u64;
        if expected == found {
            return;
        }
        let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
        expected.iter().for_each(|item| *counts.entry(item).or_default() += 1);
        found.iter().for_each(|item| *counts.entry(item).or_default() -= 1);
        let lost: i64 = counts.values().filter(|n| **n > 0).sum();
        let surplus: i64 = -counts.values().filter(|n| **n < 0).sum::<i64>();
        self.lost += lost.unsigned_abs();
        self.surplus += surplus.unsigned_abs();
        if lost == 0 && surplus == 0 {
            self.lost += 1;
            self.note(key, "the order differs from the acknowledged one");
        } else {
            self.note(key, &format!("{lost} lost, {surplus} too many"));
        }
    }

    fn value(&mut self, key: &[u8], expected: &Value, found: &Value) {
        self.checked += 1;
        if expected.bytes() != found.bytes() || expected == &Value::Null && found != &Value::Null {
            self.lost += 1;
            self.note(key, &format!("expected {}, found {}", expected.brief(), found.brief()));
        }
    }
}

fn strings(reply: &Value) -> Vec<Vec<u8>> {
    reply.items().unwrap_or_default().iter().map(|item| item.bytes().unwrap_or_default().to_vec()).collect()
}

/// Through the proxy, from the server that is authoritative now. Shared keys are checked only when `all` checkers finished.
pub fn read_back(port: u16, models: &[&Model], all: bool) -> io::Result<ReadBack> {
    let mut connection = Connection::open(port)?;
    let mut result = ReadBack::default();
    for model in models {
        read_collections(&mut connection, model, &mut result)?;
        read_values(&mut connection, model, &mut result)?;
    }
    if !all {
        return Ok(result);
    }
    let shared: i64 = models.iter().map(|model| model.shared_increments).sum();
    let reply = connection.call(&[b"GET", SHARED_COUNTER.as_bytes()])?;
    let expected = if shared == 0 { Value::Null } else { Value::Bulk(shared.to_string().into()) };
    result.value(SHARED_COUNTER.as_bytes(), &expected, &reply);
    let reply = connection.call(&[b"MGET", ACCOUNTS[0].as_bytes(), ACCOUNTS[1].as_bytes()])?;
    let sum: i64 = reply.items().unwrap_or_default().iter().filter_map(Value::integer).sum();
    let number = |n: i64| Value::Bulk(n.to_string().into());
    result.value(b"check:account:a + check:account:b", &number(ACCOUNTS_SUM), &number(sum));
    Ok(result)
}

fn read_collections(connection: &mut Connection, model: &Model, result: &mut ReadBack) -> io::Result<()> {
    for (n, list) in model.lists.iter().enumerate() {
        let key = model.key("list", n);
        result.collection(&key, list, &strings(&connection.call(&[b"LRANGE", &key, b"0", b"-1"])?));
    }
    let key = model.key("queue", 0);
    let queue: Vec<Vec<u8>> = model.queue.iter().cloned().collect();
    result.collection(&key, &queue, &strings(&connection.call(&[b"LRANGE", &key, b"0", b"-1"])?));
    for (n, set) in model.sets.iter().enumerate() {
        let key = model.key("set", n);
        let found: BTreeSet<Vec<u8>> = strings(&connection.call(&[b"SMEMBERS", &key])?).into_iter().collect();
        result.collection(&key, &Vec::from_iter(set.iter().cloned()), &Vec::from_iter(found));
    }
    for (n, entries) in model.streams.iter().enumerate() {
        let key = model.key("stream", n);
        let reply = connection.call(&[b"XRANGE", &key, b"-", b"+"])?;
        let found = reply.items().unwrap_or_default().iter().map(|entry| match entry.items() {
            Some([id, fields]) => [id.bytes().unwrap_or_default(), b" ", &strings(fields).join(&b' ')].concat(),
            _ => vec![],
        });
        let expected: Vec<Vec<u8>> = entries.iter().map(|(id, token)| [id, &b" token "[..], token].concat()).collect();
        result.collection(&key, &expected, &found.collect::<Vec<_>>());
    }
    Ok(())
}

fn read_values(connection: &mut Connection, model: &Model, result: &mut ReadBack) -> io::Result<()> {
    let number = |n: i64| Value::Bulk(n.to_string().into());
    for (n, slot) in model.slots.iter().enumerate() {
        let key = model.key("slot", n);
        let expected = slot.clone().map_or(Value::Null, Value::Bulk);
        result.value(&key, &expected, &connection.call(&[b"GET", &key])?);
    }
    let counters = model.counters.iter().enumerate().map(|(n, value)| (model.key("counter", n), *value));
    for (key, value) in counters.chain([(model.key("scripted", 0), model.scripted)]) {
        let found = connection.call(&[b"GET", &key])?;
        // A counter that was never incremented does not exist.
        let found = if found == Value::Null && value == 0 { number(0) } else { found };
        result.value(&key, &number(value), &found);
    }
    for (field, value) in &model.hash {
        let key = model.key("hash", 0);
        result.value(&key, &number(*value), &connection.call(&[b"HGET", &key, field])?);
    }
    for (member, score) in &model.scores {
        let key = model.key("scores", 0);
        result.value(&key, &number(*score), &connection.call(&[b"ZSCORE", &key, member])?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn losses_duplicates_and_disorder_are_distinguished() {
        for (found, lost, surplus) in [("a b c", 0, 0), ("a c", 1, 0), ("a b b c", 0, 1), ("b a c", 1, 0), ("", 3, 0)] {
            let mut result = ReadBack::default();
            result.collection(b"k", &tokens("a b c"), &tokens(found));
            assert_eq!((result.lost, result.surplus), (lost, surplus), "{found:?}");
        }
        let mut result = ReadBack::default();
        result.value(b"k", &Value::Null, &Value::Bulk(b"x".to_vec()));
        result.value(b"k", &Value::Bulk(b"x".to_vec()), &Value::Null);
        result.value(b"k", &Value::Bulk(b"x".to_vec()), &Value::Bulk(b"x".to_vec()));
        assert_eq!((result.checked, result.lost), (3, 2));
    }
}
