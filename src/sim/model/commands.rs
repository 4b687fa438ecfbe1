//! The data commands of the model: keys, strings, deadlines, scripts. Collections are in `collections`.

use super::collections;
use super::data::{Effect, Entry, Key, Run, count, error, number, ok, words, wrong_type};
use super::value::Value;
use wire::resp::value::Value as Reply;

/// A script that writes a key it does not declare: increments KEYS[1], appends ARGV[2] to the list ARGV[1].
pub const UNDECLARED: &[u8] = b"redis.call('INCR',KEYS[1]) return redis.call('RPUSH',ARGV[1],ARGV[2])";
/// How the script begins with which a feed corrects deadlines behind a flip: a compare-and-set.
const CORRECTION: &[u8] = b"if redis.call('PEXPIRETIME',KEYS[1])==tonumber(ARGV[1])";

/// Every data command.
pub const NAMES: &[&str] = &[
    "append",
    "blpop",
    "brpop",
    "dbsize",
    "del",
    "dump",
    "eval",
    "exists",
    "expire",
    "flushall",
    "get",
    "getdel",
    "hdel",
    "hget",
    "hgetall",
    "hincrby",
    "hset",
    "incr",
    "incrby",
    "llen",
    "lpop",
    "lpush",
    "lrange",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "psetex",
    "pttl",
    "publish",
    "restore",
    "rpop",
    "rpush",
    "sadd",
    "scan",
    "set",
    "smembers",
    "spop",
    "srem",
    "strlen",
    "type",
    "zadd",
    "zincrby",
    "zrange",
    "zrem",
    "zscore",
];

/// The keys that a data command reads or writes, also those it does not declare.
pub fn keys(args: &[&[u8]]) -> Vec<Key> {
    let name = args[0].to_ascii_uppercase();
    let of: &[&[u8]] = match name.as_slice() {
        b"DEL" | b"EXISTS" => &args[1..],
        b"BLPOP" | b"BRPOP" => &args[1..args.len() - 1],
        b"EVAL" if args[1] == UNDECLARED => return vec![args[3].to_vec(), args[4].to_vec()],
        b"EVAL" => &args[3..4],
        b"PUBLISH" | b"FLUSHALL" | b"DBSIZE" | b"SCAN" => &[],
        _ => args.get(1..2).unwrap_or_default(),
    };
    of.iter().map(|key| key.to_vec()).collect()
}

/// Runs a command that concerns data.
pub fn execute(on: &mut Run<'_>, args: &[&[u8]]) -> Reply {
    let name = args[0].to_ascii_uppercase();
    let (reply, effect) = run(on, &name, args);
    let database = on.database;
    match effect {
        Effect::None => {}
        Effect::Same => on.effects.push((database, words(args))),
        Effect::Others(others) => on.effects.extend(others.into_iter().map(|words| (database, words))),
    }
    reply
}

fn run(run: &mut Run<'_>, name: &[u8], args: &[&[u8]]) -> (Reply, Effect) {
    match (name, args) {
        (b"GET", [_, key]) => (string(run, key), Effect::None),
        (b"STRLEN", [_, key]) => (string_length(run, key), Effect::None),
        (b"SET", [_, key, value, options @ ..]) => set(run, key, value, options),
        (b"PSETEX", [_, key, time, value]) => set(run, key, value, &[b"PX", time]),
        (b"GETDEL", [_, key]) => get_and_delete(run, key),
        (b"APPEND", [_, key, more]) => append(run, key, more),
        (b"INCR", [_, key]) => increment(run, key, 1),
        (b"INCRBY", [_, key, by]) => increment(run, key, number(by).unwrap_or(0)),
        (b"DEL", [_, keys @ ..]) => delete(run, keys),
        (b"EXISTS", [_, keys @ ..]) => (count(keys.iter().filter(|key| run.exists(key)).count()), Effect::None),
        (b"TYPE", [_, key]) => {
            let name = run.entry(key).map_or("none", |entry| entry.value.type_name());
            (Reply::Simple(name.as_bytes().to_vec()), Effect::None)
        }
        (b"EXPIRE", [_, key, seconds]) => {
            let at = run.now_ms + number(seconds).unwrap_or(0) * 1000;
            deadline(run, key, at)
        }
        (b"PEXPIRE", [_, key, ms]) => {
            let at = run.now_ms + number(ms).unwrap_or(0);
            deadline(run, key, at)
        }
        (b"PEXPIREAT", [_, key, at]) => deadline(run, key, number(at).unwrap_or(0)),
        (b"PERSIST", [_, key]) => persist(run, key),
        (b"PTTL", [_, key]) => (left(run, key, run.now_ms), Effect::None),
        (b"PEXPIRETIME", [_, key]) => (left(run, key, 0), Effect::None),
        (b"DUMP", [_, key]) => {
            let payload = run.entry(key).map_or(Reply::Null, |entry| Reply::Bulk(entry.value.dump()));
            (payload, Effect::None)
        }
        (b"RESTORE", [_, key, at, payload, options @ ..]) => restore(run, key, at, payload, options),
        (b"SCAN", ..) => (scan(run), Effect::None),
        (b"DBSIZE", _) => (count(run.data.0.get(&run.database).map_or(0, |keys| keys.len())), Effect::None),
        (b"FLUSHALL", _) => flush(run),
        (b"PUBLISH", _) => (Reply::Integer(0), Effect::Same),
        (b"EVAL", [_, script, ..]) if *script == UNDECLARED => undeclared(run, args),
        (b"EVAL", [_, script, _, key, old, new]) if script.starts_with(CORRECTION) => correct(run, key, old, new),
        _ => collections::run(run, name, args),
    }
}

fn string(run: &mut Run<'_>, key: &[u8]) -> Reply {
    match run.entry(key) {
        None => Reply::Null,
        Some(Entry { value: Value::String(text), .. }) => Reply::Bulk(text.clone()),
        Some(_) => wrong_type().0,
    }
}

fn string_length(run: &mut Run<'_>, key: &[u8]) -> Reply {
    match string(run, key) {
        Reply::Bulk(text) => count(text.len()),
        Reply::Null => Reply::Integer(0),
        other => other,
    }
}

fn set(run: &mut Run<'_>, key: &[u8], value: &[u8], options: &[&[u8]]) -> (Reply, Effect) {
    let there = run.exists(key);
    let before = run.entry(key).and_then(|entry| entry.deadline_ms);
    let mut deadline_ms = None;
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let mut time = || rest.next().and_then(|text| number(text)).unwrap_or(0);
        match option.to_ascii_uppercase().as_slice() {
            b"PX" => deadline_ms = Some(run.now_ms + time()),
            b"EX" => deadline_ms = Some(run.now_ms + 1000 * time()),
            b"PXAT" => deadline_ms = Some(time()),
            b"KEEPTTL" => deadline_ms = before,
            b"NX" if there => return (Reply::Null, Effect::None),
            b"XX" if !there => return (Reply::Null, Effect::None),
            _ => {}
        }
    }
    run.set(key, Value::String(value.to_vec()), deadline_ms);
    let mut effect = words(&[b"SET", key, value]);
    let keeps = options.iter().any(|option| option.eq_ignore_ascii_case(b"KEEPTTL"));
    match deadline_ms {
        _ if keeps => effect.push(b"KEEPTTL".to_vec()),
        Some(at) => effect.extend([b"PXAT".to_vec(), at.to_string().into_bytes()]),
        None => {}
    }
    (ok(), Effect::Others(vec![effect]))
}

fn get_and_delete(run: &mut Run<'_>, key: &[u8]) -> (Reply, Effect) {
    match string(run, key) {
        Reply::Bulk(text) => {
            run.delete(key);
            (Reply::Bulk(text), Effect::Others(vec![words(&[b"DEL", key])]))
        }
        other => (other, Effect::None),
    }
}

fn append(run: &mut Run<'_>, key: &[u8], more: &[u8]) -> (Reply, Effect) {
    let Value::String(text) = run.value_mut(key, || Value::String(Vec::new())) else { return wrong_type() };
    text.extend_from_slice(more);
    (count(text.len()), Effect::Same)
}

fn increment(run: &mut Run<'_>, key: &[u8], by: i64) -> (Reply, Effect) {
    let Value::String(text) = run.value_mut(key, || Value::String(b"0".to_vec())) else { return wrong_type() };
    let Some(before) = number(text) else {
        return (error("ERR value is not an integer or out of range"), Effect::None);
    };
    *text = (before + by).to_string().into_bytes();
    (Reply::Integer(before + by), Effect::Same)
}

fn delete(run: &mut Run<'_>, keys: &[&[u8]]) -> (Reply, Effect) {
    let gone = keys.iter().filter(|key| run.delete(key)).count();
    (count(gone), if gone > 0 { Effect::Same } else { Effect::None })
}

/// A deadline that has passed deletes, and is told as DEL.
fn deadline(run: &mut Run<'_>, key: &[u8], at_ms: i64) -> (Reply, Effect) {
    let passed = at_ms <= run.now_ms;
    let Some(entry) = run.entry_mut(key) else { return (Reply::Integer(0), Effect::None) };
    entry.deadline_ms = Some(at_ms);
    let effect = if passed {
        run.delete(key);
        words(&[b"DEL", key])
    } else {
        words(&[b"PEXPIREAT", key, at_ms.to_string().as_bytes()])
    };
    (Reply::Integer(1), Effect::Others(vec![effect]))
}

fn persist(run: &mut Run<'_>, key: &[u8]) -> (Reply, Effect) {
    match run.entry_mut(key).and_then(|entry| entry.deadline_ms.take()) {
        Some(_) => (Reply::Integer(1), Effect::Same),
        None => (Reply::Integer(0), Effect::None),
    }
}

/// A deadline counted from `since`: -1 without one, -2 without a key.
fn left(run: &mut Run<'_>, key: &[u8], since_ms: i64) -> Reply {
    Reply::Integer(run.entry(key).map_or(-2, |entry| entry.deadline_ms.map_or(-1, |at| at - since_ms)))
}

fn restore(run: &mut Run<'_>, key: &[u8], at: &[u8], payload: &[u8], options: &[&[u8]]) -> (Reply, Effect) {
    let has = |word: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(word));
    if run.exists(key) && !has(b"REPLACE") {
        return (error("BUSYKEY Target key name already exists."), Effect::None);
    }
    let Some(value) = Value::restore(payload) else {
        return (error("ERR DUMP payload version or checksum are wrong"), Effect::None);
    };
    let begin = if has(b"ABSTTL") { 0 } else { run.now_ms };
    let deadline_ms = number(at).filter(|at| *at != 0).map(|at| at + begin);
    if deadline_ms.is_some_and(|at| at <= run.now_ms) {
        run.delete(key);
        return (ok(), Effect::Others(vec![words(&[b"DEL", key])]));
    }
    run.set(key, value, deadline_ms);
    let at = deadline_ms.unwrap_or(0).to_string();
    (ok(), Effect::Others(vec![words(&[b"RESTORE", key, at.as_bytes(), payload, b"REPLACE", b"ABSTTL"])]))
}

/// All keys at once.
fn scan(run: &mut Run<'_>) -> Reply {
    let keys = run.data.0.get(&run.database);
    let keys = keys.into_iter().flat_map(|keys| keys.keys()).map(|key| Reply::Bulk(key.clone())).collect();
    Reply::Array(vec![Reply::Bulk(b"0".to_vec()), Reply::Array(keys)])
}

fn flush(run: &mut Run<'_>) -> (Reply, Effect) {
    for (database, keys) in std::mem::take(&mut run.data.0) {
        run.touched.extend(keys.into_keys().map(|key| (database, key)));
    }
    (ok(), Effect::Same)
}

fn undeclared(run: &mut Run<'_>, args: &[&[u8]]) -> (Reply, Effect) {
    let [_, _, _, counter, list, item] = args else { return (error("ERR wrong number of arguments"), Effect::None) };
    execute(run, &[b"INCR", counter]);
    (execute(run, &[b"RPUSH", list, item]), Effect::None)
}

fn correct(run: &mut Run<'_>, key: &[u8], old: &[u8], new: &[u8]) -> (Reply, Effect) {
    if left(run, key, 0).integer() != number(old) {
        return (Reply::Integer(0), Effect::None);
    }
    (execute(run, &[b"PEXPIREAT", key, new]), Effect::None)
}
