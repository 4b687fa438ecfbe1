//! Lists, hashes, sets and sorted sets of the model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::data::{Effect, Entry, Run, count, error, number, words, wrong_type};
use super::value::Value;
use wire::resp::value::Value as Reply;

/// Which end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

pub fn run(run: &mut Run<'_>, name: &[u8], args: &[&[u8]]) -> (Reply, Effect) {
    match (name, args) {
        (b"RPUSH", [_, key, items @ ..]) => push(run, key, items, End::Right),
        (b"LPUSH", [_, key, items @ ..]) => push(run, key, items, End::Left),
        (b"LPOP", [_, key]) => pop(run, key, End::Left),
        (b"RPOP", [_, key]) => pop(run, key, End::Right),
        // Where it does not wait: within MULTI, and when what it waits for is there.
        (b"BLPOP", [_, keys @ .., _]) => pop_first(run, keys, End::Left),
        (b"BRPOP", [_, keys @ .., _]) => pop_first(run, keys, End::Right),
        (b"LLEN", [_, key]) => match run.entry(key) {
            None => (Reply::Integer(0), Effect::None),
            Some(Entry { value: Value::List(items), .. }) => (count(items.len()), Effect::None),
            Some(_) => wrong_type(),
        },
        (b"LRANGE", [_, key, ..]) => match run.entry(key) {
            None => (Reply::Array(Vec::new()), Effect::None),
            Some(Entry { value: Value::List(items), .. }) => (bulks(items.iter()), Effect::None),
            Some(_) => wrong_type(),
        },
        (b"HSET" | b"HGET" | b"HDEL" | b"HINCRBY" | b"HGETALL", _) => hash(run, name, args),
        (b"SADD" | b"SREM" | b"SPOP" | b"SMEMBERS", _) => set(run, name, args),
        (b"ZADD" | b"ZINCRBY" | b"ZREM" | b"ZSCORE" | b"ZRANGE", _) => sorted_set(run, name, args),
        _ => {
            let text = String::from_utf8_lossy(args[0]).into_owned();
            (error(&format!("ERR unknown command '{text}', with args beginning with: ")), Effect::None)
        }
    }
}

fn bulks<'a>(items: impl Iterator<Item = &'a Vec<u8>>) -> Reply {
    Reply::Array(items.map(|item| Reply::Bulk(item.clone())).collect())
}

fn push(run: &mut Run<'_>, key: &[u8], items: &[&[u8]], end: End) -> (Reply, Effect) {
    let Value::List(list) = run.value_mut(key, || Value::List(VecDeque::new())) else { return wrong_type() };
    for item in items {
        match end {
            End::Left => list.push_front(item.to_vec()),
            End::Right => list.push_back(item.to_vec()),
        }
    }
    (count(list.len()), Effect::Same)
}

fn pop(run: &mut Run<'_>, key: &[u8], end: End) -> (Reply, Effect) {
    let item = match run.entry_mut(key) {
        None => return (Reply::Null, Effect::None),
        Some(Entry { value: Value::List(list), .. }) => match end {
            End::Left => list.pop_front(),
            End::Right => list.pop_back(),
        },
        Some(_) => return wrong_type(),
    };
    run.tidy(key);
    (item.map_or(Reply::Null, Reply::Bulk), Effect::Same)
}

fn pop_first(run: &mut Run<'_>, keys: &[&[u8]], end: End) -> (Reply, Effect) {
    let name: &[u8] = if end == End::Left { b"LPOP" } else { b"RPOP" };
    for key in keys {
        if let (Reply::Bulk(item), _) = pop(run, key, end) {
            let reply = Reply::Array(vec![Reply::Bulk(key.to_vec()), Reply::Bulk(item)]);
            return (reply, Effect::Others(vec![words(&[name, key])]));
        }
    }
    (Reply::Null, Effect::None)
}

fn hash(run: &mut Run<'_>, name: &[u8], args: &[&[u8]]) -> (Reply, Effect) {
    let key = args[1];
    if matches!(name, b"HGET" | b"HGETALL" | b"HDEL") && !run.exists(key) {
        let nothing = match name {
            b"HGET" => Reply::Null,
            b"HGETALL" => Reply::Array(Vec::new()),
            _ => Reply::Integer(0),
        };
        return (nothing, Effect::None);
    }
    let Value::Hash(fields) = run.value_mut(key, || Value::Hash(BTreeMap::new())) else { return wrong_type() };
    let done = match (name, args) {
        (b"HSET", [_, _, field, value]) => {
            let before = fields.insert(field.to_vec(), value.to_vec());
            (Reply::Integer(i64::from(before.is_none())), Effect::Same)
        }
        (b"HGET", [_, _, field]) => (fields.get(*field).cloned().map_or(Reply::Null, Reply::Bulk), Effect::None),
        (b"HDEL", [_, _, field]) => match fields.remove(*field) {
            Some(_) => (Reply::Integer(1), Effect::Same),
            None => (Reply::Integer(0), Effect::None),
        },
        (b"HINCRBY", [_, _, field, by]) => {
            let before = fields.get(*field).and_then(|text| number(text)).unwrap_or(0);
            let after = before + number(by).unwrap_or(0);
            fields.insert(field.to_vec(), after.to_string().into_bytes());
            (Reply::Integer(after), Effect::Same)
        }
        _ => (bulks(fields.iter().flat_map(|(field, value)| [field, value])), Effect::None),
    };
    run.tidy(key);
    done
}

fn set(run: &mut Run<'_>, name: &[u8], args: &[&[u8]]) -> (Reply, Effect) {
    let key = args[1];
    if name != b"SADD" && !run.exists(key) {
        let nothing = match name {
            b"SPOP" => Reply::Null,
            b"SMEMBERS" => Reply::Array(Vec::new()),
            _ => Reply::Integer(0),
        };
        return (nothing, Effect::None);
    }
    let Value::Set(members) = run.value_mut(key, || Value::Set(BTreeSet::new())) else { return wrong_type() };
    let changed = |yes: bool| (Reply::Integer(i64::from(yes)), if yes { Effect::Same } else { Effect::None });
    let done = match (name, args) {
        (b"SADD", [_, _, member]) => changed(members.insert(member.to_vec())),
        (b"SREM", [_, _, member]) => changed(members.remove(*member)),
        // The model's chance is always the first; replicas are told which it was.
        (b"SPOP", _) => match members.pop_first() {
            Some(member) => {
                let effect = words(&[b"SREM", key, &member]);
                (Reply::Bulk(member), Effect::Others(vec![effect]))
            }
            None => (Reply::Null, Effect::None),
        },
        _ => (bulks(members.iter()), Effect::None),
    };
    run.tidy(key);
    done
}

fn sorted_set(run: &mut Run<'_>, name: &[u8], args: &[&[u8]]) -> (Reply, Effect) {
    let key = args[1];
    if matches!(name, b"ZREM" | b"ZSCORE" | b"ZRANGE") && !run.exists(key) {
        let nothing = match name {
            b"ZSCORE" => Reply::Null,
            b"ZRANGE" => Reply::Array(Vec::new()),
            _ => Reply::Integer(0),
        };
        return (nothing, Effect::None);
    }
    let Value::SortedSet(members) = run.value_mut(key, || Value::SortedSet(BTreeMap::new())) else {
        return wrong_type();
    };
    let text = |score: i64| score.to_string().into_bytes();
    let done = match (name, args) {
        (b"ZADD", [_, _, score, member]) => {
            let before = members.insert(member.to_vec(), number(score).unwrap_or(0));
            (Reply::Integer(i64::from(before.is_none())), Effect::Same)
        }
        (b"ZINCRBY", [_, _, by, member]) => {
            let score = members.entry(member.to_vec()).or_insert(0);
            *score += number(by).unwrap_or(0);
            (Reply::Bulk(text(*score)), Effect::Same)
        }
        (b"ZREM", [_, _, member]) => match members.remove(*member) {
            Some(_) => (Reply::Integer(1), Effect::Same),
            None => (Reply::Integer(0), Effect::None),
        },
        (b"ZSCORE", [_, _, member]) => {
            (members.get(*member).map_or(Reply::Null, |score| Reply::Bulk(text(*score))), Effect::None)
        }
        _ => {
            let mut sorted: Vec<(i64, &Vec<u8>)> = members.iter().map(|(member, score)| (*score, member)).collect();
            sorted.sort();
            let pairs = sorted.into_iter().flat_map(|(score, member)| [member.clone(), text(score)]);
            (Reply::Array(pairs.map(Reply::Bulk).collect()), Effect::None)
        }
    };
    run.tidy(key);
    done
}
