//! Commands as templates, filled in by chance. `{s}`, `{l}` and so on are keys of one type each, `{q}` and `{zq}` keys on which clients wait, `{v}` a
//! value, `{n}` a small number, `{ms}` a short life; `{library}` and the like are texts with blanks, which a template cannot hold.

use super::Random;

/// Writes, and a few reads between them. Redis 7.0 must know every command: it is one of the two servers.
pub const COMMANDS: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {v} PX {ms}",
    "SET {s} {v} NX",
    "SET {s} {v} XX GET",
    "SET {s} {v} KEEPTTL",
    "SETEX {s} 1 {v}",
    "SET {s} {v} NX PX {ms}",
    "GETSET {s} {v}",
    "GETDEL {s}",
    "GETEX {s} PX {ms}",
    "GETEX {s} PERSIST",
    "APPEND {s} {v}",
    "SETRANGE {s} {n} {v}",
    "SETBIT {b} {n} 1",
    "BITFIELD {b} INCRBY u8 {n} 1",
    "MSET {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "INCR {c}",
    "INCRBY {c} {n}",
    "DECR {c}",
    "INCRBYFLOAT {f} 0.1",
    "PEXPIRE {c} {ms}",
    "PERSIST {c}",
    "DEL {c}",
    "LPUSH {l} {v} {v}",
    "RPUSH {l} {v}",
    "LPOP {l}",
    "RPOP {l} 2",
    "LMOVE {l} {l} LEFT RIGHT",
    "RPOPLPUSH {l} {l}",
    "LTRIM {l} 0 20",
    "LINSERT {l} BEFORE {v} x",
    "LREM {l} 1 {v}",
    "LSET {l} 0 {v}",
    "LMPOP 2 {l} {l} LEFT",
    "PEXPIRE {l} {ms}",
    "LPUSHX {l} {v}",
    "SADD {e} {v} {v}",
    "SREM {e} {v}",
    "SPOP {e}",
    "SPOP {e} 2",
    "SMOVE {e} {e} {v}",
    "SUNIONSTORE {e} {e} {e}",
    "PEXPIRE {e} {ms}",
    "SINTERSTORE {e} {e} {e}",
    "SDIFFSTORE {e} {e} {e}",
    "SORT {e} ALPHA STORE {l}",
    "PERSIST {e}",
    "ZADD {z} {n} {v}",
    "ZADD {z} GT CH {n} {v}",
    "ZADD {z} NX INCR {n} {v}",
    "ZINCRBY {z} 0.3 {v}",
    "ZREM {z} {v}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} 2",
    "ZUNIONSTORE {z} 2 {z} {z}",
    "ZREMRANGEBYRANK {z} 0 1",
    "ZRANGESTORE {z} {z} 0 3",
    "PEXPIRE {z} {ms}",
    "HSET {h} {v} {v}",
    "HSETNX {h} {v} {v}",
    "HINCRBY {h} n 1",
    "HINCRBYFLOAT {h} f 0.1",
    "HDEL {h} {v}",
    "PEXPIRE {h} {ms}",
    "XADD {x} * f {v}",
    "XADD {x} MAXLEN ~ 20 * f {v}",
    "XADD {x} MAXLEN = 10 * f {v}",
    "XTRIM {x} MAXLEN 15",
    "XADD {x} NOMKSTREAM * f {v}",
    "PFADD {p} {v}",
    "PFCOUNT {p}",
    "PFMERGE {p} {p}",
    "GEOADD {g} 13.{n} 38.{n} {v}",
    "GEOSEARCHSTORE {g} {g} FROMLONLAT 13 38 BYRADIUS 900 km",
    "DEL {s} {l} {e}",
    "UNLINK {z} {h}",
    "RENAME {s} {s}",
    "RENAMENX {l} {l}",
    "COPY {h} {h} REPLACE",
    "COPY {s} {s} REPLACE",
    "EVAL redis.call('incr',KEYS[1]);return(redis.call('get',KEYS[1])) 1 {c}",
    "EVAL return(redis.call('spop',KEYS[1])) 1 {e}",
    "EVAL return(redis.call('set',KEYS[1],ARGV[1],'px',50)) 1 {s} {v}",
    "EXPIRE {h} 1",
    "EXPIREAT {z} 1",
    "EXPIRE {s} 100",
    "EXPIRE {e} -1",
    "BLPOP {l} {l} 0.01",
    "BZPOPMIN {z} 0.01",
    "BLMOVE {l} {l} LEFT LEFT 0.01",
    "GET {s}",
    "SMEMBERS {e}",
    "HGETALL {h}",
    "TTL {s}",
    "LRANGE {l} 0 -1",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "XLEN {x}",
];

/// What only a replication feed follows: what it does is not in its reply, or its keys are not in its words.
pub const FEED_COMMANDS: &[&str] = &[
    "EVAL return(redis.call('incr',ARGV[1])) 0 {c}",
    "EVAL redis.call('rpush',ARGV[1],ARGV[2]);return(redis.call('llen',ARGV[1])) 0 {l} {v}",
    "EVAL redis.call('set',ARGV[1],'x','px',ARGV[2]) 0 {s} {ms}",
    "EVAL redis.call('zadd',ARGV[1],ARGV[3],ARGV[2]);redis.call('sadd',ARGV[4],ARGV[2]) 0 {z} {v} {n} {e}",
    "EVAL redis.call('del',ARGV[1]);return(redis.call('hset',ARGV[1],'f',ARGV[2])) 0 {h} {v}",
    "EVAL redis.call('select',1);redis.call('set',ARGV[1],ARGV[2]);redis.call('select',0) 0 {s} {v}",
    "EVAL return(redis.call('spop',ARGV[1])) 0 {e}",
    "EVAL redis.call('xadd',ARGV[1],'*','f',ARGV[2]) 0 {x} {v}",
    "EVAL redis.call('incr',ARGV[1]);redis.call('lpush',ARGV[1],'x') 0 {c}",
    "EVAL redis.call('pexpire',ARGV[1],ARGV[2]);redis.call('persist',ARGV[3]) 0 {l} {ms} {z}",
    "EVAL redis.call('rename',ARGV[1],ARGV[2]) 0 {h} {h}",
    "EVAL {restore} 0 {s} {s} 0",
    "EVAL {restore} 0 {z} {z} {ms}",
    "EVAL {delete} 1 {x}",
    "EVAL {acknowledge} 0 {x}",
    "EVAL_RO return(redis.call('get',KEYS[1])) 1 {s}",
    "FCALL bump 1 {c}",
    "FCALL hidden 0 {l} {h} {v}",
    "FCALL brief 0 {s} {ms}",
    "FCALL drain 0 {q} {l}",
    "MOVE {s} 1",
    "MOVE {l} 2",
    "COPY {s} {s} DB 1 REPLACE",
    "COPY {z} {z} DB 2",
    "COPY {x} {x} REPLACE",
    "PSETEX {s} {ms} {v}",
    "SET {s} {v} GET",
    "SET {s} {v} EX 1 GET",
    "PEXPIREAT {s} 1",
    "PEXPIRE {s} {ms} NX",
    "PEXPIRE {s} {ms} XX",
    "PEXPIRE {h} {ms} GT",
    "PEXPIRE {z} {ms} LT",
    "PEXPIRE {x} {ms}",
    "PEXPIRE {q} {ms}",
    "PERSIST {s}",
    "PERSIST {l}",
    "PERSIST {h}",
    "ZMPOP 2 {z} {z} MIN",
    "ZDIFFSTORE {z} 2 {z} {z}",
    "ZINTERSTORE {z} 2 {z} {z} WEIGHTS 2 1 AGGREGATE MAX",
    "ZREMRANGEBYSCORE {z} 0 5",
    "ZREMRANGEBYLEX {z} - [v3",
    "BITOP XOR {b} {b} {b}",
    "BITFIELD {b} SET u8 #{n} 7",
    "GEORADIUS {g} 13 38 900 km STORE {z}",
    "SORT {l} ALPHA STORE {l}",
    "RENAME {l} {l}",
    "RENAMENX {z} {z}",
    "TOUCH {s} {c}",
    "SETEX {c} 1 {n}",
    "INCRBY {s} {n}",
    "XGROUP CREATE {x} g 0 MKSTREAM",
    "XGROUP CREATE {x} g $",
    "XGROUP CREATECONSUMER {x} g c{n}",
    "XGROUP DELCONSUMER {x} g c1",
    "XGROUP DESTROY {x} h",
    "XGROUP SETID {x} g 0",
    "XREADGROUP GROUP g c1 COUNT 3 STREAMS {x} >",
    "XREADGROUP GROUP g c2 COUNT 3 STREAMS {x} {x} > >",
    "XREADGROUP GROUP g c2 NOACK COUNT 1 STREAMS {x} >",
    "XAUTOCLAIM {x} g c3 0 0 COUNT 2",
    "XTRIM {x} MINID 5",
    "RPUSH {q} {v}",
    "RPUSH {q} {v} {v}",
    "LPUSH {q} {v} {v}",
    "ZADD {zq} {n} {v}",
    "DEL {q} {zq}",
    "LMOVE {q} {q} LEFT LEFT",
    "PUBLISH channel {v}",
    "SPUBLISH channel {v}",
    "SRANDMEMBER {e} 3",
    "HRANDFIELD {h} 2",
    "SCAN 0 COUNT 20",
    "DBSIZE",
    "RANDOMKEY",
    "KEYS q:*",
    "PTTL {s}",
    "PEXPIRETIME {l}",
    "EXISTS {s} {l} {z}",
    "GETRANGE {p} 0 -1",
    "XINFO GROUPS {x}",
    "XPENDING {x} g",
    "LCS {s} {s}",
    "OBJECT ENCODING {s}",
    "SUNION {e} {e}",
    "SSCAN {e} 0",
    "MGET {s} {s} {c}",
    "ZRANGEBYSCORE {z} 3 20",
    "HMGET {h} {v} n f",
    "BITCOUNT {b}",
    "SORT_RO {e} ALPHA",
];

/// Clients wait for these, for some tenths of a second.
pub const WAITS: &[&str] = &[
    "BLPOP {q} {q} 0.4",
    "BRPOP {q} 0.7",
    "BLMOVE {q} {l} LEFT RIGHT 0.5",
    "BRPOPLPUSH {q} {q} 0.3",
    "BLMPOP 0.4 2 {q} {q} LEFT COUNT 2",
    "BZPOPMIN {zq} 0.5",
    "BZPOPMAX {zq} {zq} 0.3",
    "BZMPOP 0.3 1 {zq} MAX",
    "XREAD BLOCK 300 STREAMS {x} $",
    "XREADGROUP GROUP g c4 BLOCK 200 STREAMS {x} >",
];

/// Seldom, each in a database that may lose everything at any time.
pub const RARE: &[&str] = &[
    "FLUSHDB",
    "FLUSHDB ASYNC",
    "SWAPDB 10 11",
    "SWAPDB 11 10",
    "FUNCTION DELETE spare",
    "FUNCTION LOAD REPLACE {spare}",
    "FUNCTION LOAD REPLACE {library}",
    "SCRIPT FLUSH",
];

/// What [`FEED_COMMANDS`] call.
pub const LIBRARY: &str = "#!lua name=shop
redis.register_function('bump', function(keys) return redis.call('INCRBY', keys[1], 3) end)
redis.register_function('hidden', function(_, args)
  redis.call('LPUSH', args[1], args[3]) return redis.call('HSET', args[2], args[3], args[3])
end)
redis.register_function('brief', function(_, args) redis.call('SET', args[1], 'b', 'PX', args[2]) end)
redis.register_function('drain', function(_, args)
  local one = redis.call('LPOP', args[1])
  while one do redis.call('RPUSH', args[2], one) one = redis.call('LPOP', args[1]) end
  redis.call('LTRIM', args[2], 0, 20)
end)";

const SPARE: &str = "#!lua name=spare
redis.register_function('idle', function() return 1 end)";

const RESTORE: &str = "local held = redis.call('DUMP', ARGV[1])
if held then redis.call('RESTORE', ARGV[2], ARGV[3], held, 'REPLACE') end";

const DELETE: &str = "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return first and redis.call('XDEL', KEYS[1], first[1])";

const ACKNOWLEDGE: &str = "local waiting = redis.call('XPENDING', ARGV[1], 'g', '-', '+', 1)[1]
return waiting and redis.call('XACK', ARGV[1], 'g', waiting[1])";

/// Reads with one possible reply, compared with a server of the client's own.
pub const READS: &[&str] = &[
    "GET {s}",
    "STRLEN {s}",
    "GETRANGE {s} 0 3",
    "MGET {s} {c} {s}",
    "GETBIT {b} {n}",
    "BITCOUNT {b}",
    "LRANGE {l} 0 -1",
    "LLEN {l}",
    "LPOS {l} {v}",
    "SCARD {e}",
    "SISMEMBER {e} {v}",
    "SINTERCARD 2 {e} {e}",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "ZSCORE {z} {v}",
    "ZCOUNT {z} 3 20",
    "HGET {h} {v}",
    "HLEN {h}",
    "HMGET {h} {v} n f",
    "XLEN {x}",
    "TYPE {l}",
    "EXISTS {s} {l} {h}",
];

/// A template with everything chosen; `keys`: how many of each type there are.
pub fn request(random: &mut Random, template: &str, keys: u64) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in template.split(' ') {
        let mut word = word.to_owned();
        while let Some(at) = word.find('{') {
            let Some(end) = word[at..].find('}') else { break };
            let value = value(random, &word[at + 1..at + end], keys);
            word.replace_range(at..=at + end, &value);
        }
        command.arg(word);
    }
    command
}

fn value(random: &mut Random, name: &str, keys: u64) -> String {
    match name {
        "v" => format!("v{}", random.below(12)),
        "n" => random.below(30).to_string(),
        "ms" => (20 + random.below(480)).to_string(),
        // Few, so that clients meet there.
        "q" | "zq" => format!("{name}:{}", random.below(3)),
        "library" => LIBRARY.to_owned(),
        "spare" => SPARE.to_owned(),
        "restore" => RESTORE.to_owned(),
        "delete" => DELETE.to_owned(),
        "acknowledge" => ACKNOWLEDGE.to_owned(),
        kind => format!("{kind}:{}", random.below(keys)),
    }
}

/// The template with keys that only the owner of this prefix uses.
#[must_use]
pub fn owned_by(prefix: &str, template: &str) -> String {
    const NO_KEYS: &[&str] = &["v", "n", "ms", "library", "spare", "restore", "delete", "acknowledge"];
    let mut pieces = template.split('{');
    let mut owned = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let name = piece.split('}').next().unwrap_or_default();
        owned.push('{');
        owned.push_str(if NO_KEYS.contains(&name) { "" } else { prefix });
        owned.push_str(piece);
    }
    owned
}

/// Whether a command has one possible reply: no chance, no clock, no blocking, no ids made by the server, no
/// scores that are no whole numbers (Redis 7 prints 17 digits of them, Valkey the shortest form), nothing that others change.
#[must_use]
pub fn is_determined(template: &str) -> bool {
    const CHANCE_OR_TIME: &[&str] = &[
        "{ms}",
        "SPOP",
        "spop",
        " * ",
        "XADD",
        "EXPIRE",
        "TTL",
        "SETEX",
        "px",
        "SMEMBERS",
        "HGETALL",
        "ALPHA",
        "PF",
        "0.3",
        "XREAD",
        "XAUTOCLAIM",
        "XINFO",
        "XPENDING",
        "{acknowledge}",
        "RAND",
        "SCAN",
        "DBSIZE",
        "KEYS q",
        "{p}",
        "PUBLISH",
        "SUNION ",
        " EX ",
        "OBJECT",
        "DELCONSUMER",
        "GEORADIUS",
    ];
    !CHANCE_OR_TIME.iter().any(|word| template.contains(word)) && !is_blocking(template)
}

#[must_use]
pub fn is_blocking(template: &str) -> bool {
    template.starts_with('B') && !template.starts_with("BIT")
}

/// Errors that Redis itself returns for such a mix.
#[must_use]
pub fn is_redis_own(error: &redis::RedisError) -> bool {
    let text = error.to_string();
    // What a server tells a client that somebody else has unblocked; that a stream is gone, it tells by itself.
    let foreign = ["Crossfade", "LOADING", "client unblocked via CLIENT UNBLOCK", "READONLY"]
        .iter()
        .any(|word| text.contains(word));
    !foreign && !error.is_io_error() && !error.is_connection_dropped()
}
