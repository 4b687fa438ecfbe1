//! The command table: what each command is, where its keys are, what it does to the shadow, how its reply is compared.
//!
//! Source: `COMMAND` of Redis 7.0.15 and Valkey 9.1 (arity, key positions), the commands' documentation for the rest. A command
//! that is not listed is [`Class::Unknown`]: it passes through untouched, and is refused while two sides are kept in step.

use std::sync::OnceLock;

use super::args::Args;
use super::frame::decimal;

/// How the relay treats a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Reads keys, changes nothing.
    Read,
    /// May change keys; goes through the lane in dual operation.
    Write,
    /// No keys and no effect on the data set; may use any connection to the authority.
    Server,
    /// Changes the server in a way no lane can keep in step (SWAPDB, MIGRATE, REPLICAOF…): refused in dual operation.
    ServerChange,
    /// Changes scripts or functions: sent to both sides in dual operation.
    Library,
    /// Changes only the session; the relay handles it.
    Session(Session),
    /// Acts on the connection it comes on, or takes it over: never travels on one that other clients share.
    Connection(Connection),
    /// Not in the table.
    Unknown,
}

/// Commands that change the state of a client's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    Auth,
    Hello,
    Select,
    Client,
    Quit,
    Reset,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Subscribe,
    Monitor,
}

/// What a command does to the connection it comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// WAIT, WAITAOF: waits for replicas to have what this connection has written.
    Wait,
    /// PSYNC, SYNC: from here on it carries a replication stream.
    Replicate,
    /// REPLCONF: tells what kind of replica it will be.
    Replica,
    /// READONLY, READWRITE: leaves something on the connection.
    Marks,
}

/// Where the keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpec {
    None,
    /// First and last argument index (last may count from the end: -1 is the last argument) and step.
    Range(u8, i8, u8),
    /// A count at this index, the keys behind it.
    Counted(u8),
    /// A destination at 1, a count at 2, the keys behind it.
    StoreCounted,
    /// The first half of what follows STREAMS.
    Streams,
    /// SORT: key at 1, destination behind STORE.
    Sort,
    /// GEORADIUS: key at 1, destination behind STORE or STOREDIST.
    GeoRadius,
}

/// How the effect of a write reaches the shadow (applied by the lane, in `proxy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectKind {
    /// Not a write.
    None,
    /// The command itself: deterministic when both sides hold the same value. After a nil reply nothing is repeated, so a command that may
    /// answer nil and still change something (as GETSET does) must not be `Verbatim`: it is `Overwrite` or `Copied`.
    Verbatim,
    /// The command itself after any reply that is no error, nil included: the old value of the key does not matter (DEL, plain SET, GETSET).
    Overwrite,
    /// SET with options: depends on the outcome.
    Set,
    /// The key's deadline is read right after the command and written to the shadow (EXPIRE…, GETEX, PERSIST).
    Deadline,
    /// SETEX, PSETEX: value at 3, deadline read right after the command.
    SetWithDeadline,
    /// Members named by the reply are removed.
    Spop,
    /// The reply is the new value, TTL kept.
    IncrByFloat,
    HincrByFloat,
    /// The reply is the member's new score.
    ZincrBy,
    /// As ZINCRBY with INCR, else the command itself.
    Zadd,
    /// The command itself without BLOCK: the entries it hands out follow from the stream and its groups.
    ReadGroup,
    /// The reply is the id.
    Xadd,
    /// The written keys are copied right after the command: right for every write that names all its keys, and the most expensive.
    Copied,
    /// FLUSHALL, FLUSHDB.
    Flush,
    /// Cannot be kept in step; refused in dual operation.
    Refuse,
}

/// How two replies to the same read at the same position are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareRule {
    /// Not comparable: random, cursor, time or server dependent.
    Never,
    Exact,
    /// Exact, but numbers may be written differently: Redis 7 prints scores with 17 digits, Valkey the shortest form.
    Scores,
    /// Same elements in any order.
    Unordered,
    /// Same field-value pairs in any order.
    UnorderedPairs,
    /// Remaining life in milliseconds or seconds: equal within the TTL grace.
    RemainingMs,
    RemainingSeconds,
    DeadlineMs,
    DeadlineSeconds,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Lower case.
    pub name: &'static str,
    /// As in `COMMAND`: exact count with the name, or minus the least.
    pub arity: i8,
    pub class: Class,
    pub keys: KeySpec,
    pub effect: EffectKind,
    pub compare: CompareRule,
    /// May block until there is data.
    pub blocking: bool,
}

/// The keys of one request, as slices of the frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList<'a>(pub Vec<&'a [u8]>);

const fn row(name: &'static str, arity: i8, class: Class, keys: KeySpec) -> Command {
    Command { name, arity, class, keys, effect: EffectKind::None, compare: CompareRule::Never, blocking: false }
}

const ONE: KeySpec = KeySpec::Range(1, 1, 1);
const TWO: KeySpec = KeySpec::Range(1, 2, 1);
const ALL: KeySpec = KeySpec::Range(1, -1, 1);

const fn read(name: &'static str, arity: i8, keys: KeySpec, compare: CompareRule) -> Command {
    let mut command = row(name, arity, Class::Read, keys);
    command.compare = compare;
    command
}

const fn write(name: &'static str, arity: i8, keys: KeySpec, effect: EffectKind) -> Command {
    let mut command = row(name, arity, Class::Write, keys);
    command.effect = effect;
    command
}

const fn blocks(mut command: Command) -> Command {
    command.blocking = true;
    command
}

const fn server(name: &'static str, arity: i8) -> Command {
    row(name, arity, Class::Server, KeySpec::None)
}

const fn session(name: &'static str, arity: i8, what: Session) -> Command {
    row(name, arity, Class::Session(what), KeySpec::None)
}

const fn connection(name: &'static str, arity: i8, what: Connection) -> Command {
    row(name, arity, Class::Connection(what), KeySpec::None)
}

use CompareRule::{
    DeadlineMs, DeadlineSeconds, Exact, Never, RemainingMs, RemainingSeconds, Scores, Unordered, UnorderedPairs,
};
use EffectKind::{Copied, Deadline, Flush, Overwrite, Refuse, SetWithDeadline, Verbatim};

/// Every command, in the group of its type.
pub static TABLE: &[Command] = &[
    // ---- strings
    write("append", 3, ONE, Verbatim),
    read("bitcount", -2, ONE, Exact),
    write("bitfield", -2, ONE, Verbatim),
    read("bitfield_ro", -2, ONE, Exact),
    write("bitop", -4, KeySpec::Range(2, -1, 1), Verbatim),
    read("bitpos", -3, ONE, Exact),
    write("decr", 2, ONE, Verbatim),
    write("decrby", 3, ONE, Verbatim),
    write("delifeq", 3, ONE, Copied),
    read("get", 2, ONE, Exact),
    read("getbit", 3, ONE, Exact),
    write("getdel", 2, ONE, Overwrite),
    write("getex", -2, ONE, Deadline),
    read("getrange", 4, ONE, Exact),
    write("getset", 3, ONE, Overwrite),
    write("incr", 2, ONE, Verbatim),
    write("incrby", 3, ONE, Verbatim),
    write("incrbyfloat", 3, ONE, EffectKind::IncrByFloat),
    read("lcs", -3, TWO, Exact),
    read("mget", -2, ALL, Exact),
    write("mset", -3, KeySpec::Range(1, -1, 2), Overwrite),
    write("msetex", -4, KeySpec::None, Refuse),
    write("msetnx", -3, KeySpec::Range(1, -1, 2), Verbatim),
    write("psetex", 4, ONE, SetWithDeadline),
    write("set", -3, ONE, EffectKind::Set),
    write("setbit", 4, ONE, Verbatim),
    write("setex", 4, ONE, SetWithDeadline),
    write("setnx", 3, ONE, Verbatim),
    write("setrange", 4, ONE, Verbatim),
    read("strlen", 2, ONE, Exact),
    read("substr", 4, ONE, Exact),
    write("pfadd", -2, ONE, Verbatim),
    // PFCOUNT of one key may rewrite the cached cardinality inside the value, so it is treated as a write.
    write("pfcount", -2, ALL, Verbatim),
    write("pfmerge", -2, ALL, Verbatim),
    // ---- keys
    write("copy", -3, TWO, Copied),
    write("del", -2, ALL, Overwrite),
    read("dump", 2, ONE, Never),
    read("exists", -2, ALL, Exact),
    write("expire", -3, ONE, Deadline),
    write("expireat", -3, ONE, Deadline),
    read("expiretime", 2, ONE, DeadlineSeconds),
    read("keys", 2, KeySpec::None, Never),
    write("move", 3, ONE, Refuse),
    read("object", -2, KeySpec::Range(2, 2, 1), Never),
    write("persist", 2, ONE, Deadline),
    write("pexpire", -3, ONE, Deadline),
    write("pexpireat", -3, ONE, Deadline),
    read("pexpiretime", 2, ONE, DeadlineMs),
    read("pttl", 2, ONE, RemainingMs),
    read("randomkey", 1, KeySpec::None, Never),
    write("rename", 3, TWO, Verbatim),
    write("renamenx", 3, TWO, Verbatim),
    write("restore", -4, ONE, Copied),
    write("restore-asking", -4, ONE, Refuse),
    read("scan", -2, KeySpec::None, Never),
    write("sort", -2, KeySpec::Sort, Copied),
    read("sort_ro", -2, ONE, Never),
    read("touch", -2, ALL, Exact),
    read("ttl", 2, ONE, RemainingSeconds),
    read("type", 2, ONE, Exact),
    write("unlink", -2, ALL, Overwrite),
    // ---- lists
    blocks(write("blmove", 6, TWO, Verbatim)),
    blocks(write("blmpop", -5, KeySpec::Counted(2), Verbatim)),
    blocks(write("blpop", -3, KeySpec::Range(1, -2, 1), Verbatim)),
    blocks(write("brpop", -3, KeySpec::Range(1, -2, 1), Verbatim)),
    blocks(write("brpoplpush", 4, TWO, Verbatim)),
    read("lindex", 3, ONE, Exact),
    write("linsert", 5, ONE, Verbatim),
    read("llen", 2, ONE, Exact),
    write("lmove", 5, TWO, Verbatim),
    write("lmpop", -4, KeySpec::Counted(1), Verbatim),
    write("lpop", -2, ONE, Verbatim),
    read("lpos", -3, ONE, Exact),
    write("lpush", -3, ONE, Verbatim),
    write("lpushx", -3, ONE, Verbatim),
    read("lrange", 4, ONE, Exact),
    write("lrem", 4, ONE, Verbatim),
    write("lset", 4, ONE, Verbatim),
    write("ltrim", 4, ONE, Verbatim),
    write("rpop", -2, ONE, Verbatim),
    write("rpoplpush", 3, TWO, Verbatim),
    write("rpush", -3, ONE, Verbatim),
    write("rpushx", -3, ONE, Verbatim),
    // ---- sets
    write("sadd", -3, ONE, Verbatim),
    read("scard", 2, ONE, Exact),
    read("sdiff", -2, ALL, Unordered),
    write("sdiffstore", -3, ALL, Verbatim),
    read("sinter", -2, ALL, Unordered),
    read("sintercard", -3, KeySpec::Counted(1), Exact),
    write("sinterstore", -3, ALL, Verbatim),
    read("sismember", 3, ONE, Exact),
    read("smembers", 2, ONE, Unordered),
    read("smismember", -3, ONE, Exact),
    write("smove", 4, TWO, Verbatim),
    write("spop", -2, ONE, EffectKind::Spop),
    read("srandmember", -2, ONE, Never),
    write("srem", -3, ONE, Verbatim),
    read("sscan", -3, ONE, Never),
    read("sunion", -2, ALL, Unordered),
    write("sunionstore", -3, ALL, Verbatim),
    // ---- sorted sets
    blocks(write("bzmpop", -5, KeySpec::Counted(2), Verbatim)),
    blocks(write("bzpopmax", -3, KeySpec::Range(1, -2, 1), Verbatim)),
    blocks(write("bzpopmin", -3, KeySpec::Range(1, -2, 1), Verbatim)),
    write("zadd", -4, ONE, EffectKind::Zadd),
    read("zcard", 2, ONE, Exact),
    read("zcount", 4, ONE, Exact),
    read("zdiff", -3, KeySpec::Counted(1), Scores),
    write("zdiffstore", -4, KeySpec::StoreCounted, Verbatim),
    // Floating-point sums are not computed again by another version's arithmetic: here the reply has the result, further down it is copied.
    write("zincrby", 4, ONE, EffectKind::ZincrBy),
    read("zinter", -3, KeySpec::Counted(1), Scores),
    read("zintercard", -3, KeySpec::Counted(1), Exact),
    write("zinterstore", -4, KeySpec::StoreCounted, Copied),
    read("zlexcount", 4, ONE, Exact),
    write("zmpop", -4, KeySpec::Counted(1), Verbatim),
    read("zmscore", -3, ONE, Scores),
    write("zpopmax", -2, ONE, Verbatim),
    write("zpopmin", -2, ONE, Verbatim),
    read("zrandmember", -2, ONE, Never),
    read("zrange", -4, ONE, Scores),
    read("zrangebylex", -4, ONE, Exact),
    read("zrangebyscore", -4, ONE, Scores),
    write("zrangestore", -5, TWO, Verbatim),
    read("zrank", -3, ONE, Exact),
    write("zrem", -3, ONE, Verbatim),
    write("zremrangebylex", 4, ONE, Verbatim),
    write("zremrangebyrank", 4, ONE, Verbatim),
    write("zremrangebyscore", 4, ONE, Verbatim),
    read("zrevrange", -4, ONE, Scores),
    read("zrevrangebylex", -4, ONE, Exact),
    read("zrevrangebyscore", -4, ONE, Scores),
    read("zrevrank", -3, ONE, Exact),
    read("zscan", -3, ONE, Never),
    read("zscore", 3, ONE, Scores),
    read("zunion", -3, KeySpec::Counted(1), Scores),
    write("zunionstore", -4, KeySpec::StoreCounted, Copied),
    // ---- geo
    write("geoadd", -5, ONE, Verbatim),
    read("geodist", -4, ONE, Scores),
    read("geohash", -2, ONE, Exact),
    read("geopos", -2, ONE, Scores),
    write("georadius", -6, KeySpec::GeoRadius, Copied),
    read("georadius_ro", -6, ONE, Unordered),
    write("georadiusbymember", -5, KeySpec::GeoRadius, Copied),
    read("georadiusbymember_ro", -5, ONE, Unordered),
    read("geosearch", -7, ONE, Unordered),
    write("geosearchstore", -8, TWO, Copied),
    // ---- hashes
    write("hdel", -3, ONE, Verbatim),
    read("hexists", 3, ONE, Exact),
    read("hget", 3, ONE, Exact),
    read("hgetall", 2, ONE, UnorderedPairs),
    write("hincrby", 4, ONE, Verbatim),
    write("hincrbyfloat", 4, ONE, EffectKind::HincrByFloat),
    read("hkeys", 2, ONE, Unordered),
    read("hlen", 2, ONE, Exact),
    read("hmget", -3, ONE, Exact),
    write("hmset", -4, ONE, Verbatim),
    read("hrandfield", -2, ONE, Never),
    read("hscan", -3, ONE, Never),
    write("hset", -4, ONE, Verbatim),
    write("hsetnx", 4, ONE, Verbatim),
    read("hstrlen", 3, ONE, Exact),
    read("hvals", 2, ONE, Unordered),
    // Fields with their own deadlines do not exist on Redis 7.0 and are not kept in step yet.
    write("hexpire", -6, ONE, Refuse),
    write("hexpireat", -6, ONE, Refuse),
    read("hexpiretime", -5, ONE, Never),
    write("hgetdel", -5, ONE, Verbatim),
    write("hgetex", -5, ONE, Refuse),
    write("hpersist", -5, ONE, Refuse),
    write("hpexpire", -6, ONE, Refuse),
    write("hpexpireat", -6, ONE, Refuse),
    read("hpexpiretime", -5, ONE, Never),
    read("hpttl", -5, ONE, Never),
    write("hsetex", -6, ONE, Refuse),
    read("httl", -5, ONE, Never),
    // ---- streams
    write("xack", -4, ONE, Verbatim),
    write("xadd", -5, ONE, EffectKind::Xadd),
    write("xautoclaim", -6, ONE, Copied),
    write("xclaim", -6, ONE, Copied),
    write("xdel", -3, ONE, Verbatim),
    write("xgroup", -2, KeySpec::Range(2, 2, 1), Copied),
    read("xinfo", -2, KeySpec::Range(2, 2, 1), Never),
    read("xlen", 2, ONE, Exact),
    read("xpending", -3, ONE, Never),
    read("xrange", -4, ONE, Exact),
    blocks(read("xread", -4, KeySpec::Streams, Exact)),
    blocks(write("xreadgroup", -7, KeySpec::Streams, EffectKind::ReadGroup)),
    read("xrevrange", -4, ONE, Exact),
    write("xsetid", -3, ONE, Copied),
    write("xtrim", -4, ONE, Copied),
    // ---- scripts
    write("eval", -3, KeySpec::Counted(2), Copied),
    read("eval_ro", -3, KeySpec::Counted(2), Never),
    write("evalsha", -3, KeySpec::Counted(2), Copied),
    read("evalsha_ro", -3, KeySpec::Counted(2), Never),
    write("fcall", -3, KeySpec::Counted(2), Copied),
    read("fcall_ro", -3, KeySpec::Counted(2), Never),
    row("script", -2, Class::Library, KeySpec::None),
    row("function", -2, Class::Library, KeySpec::None),
    // ---- whole databases
    server("dbsize", 1),
    write("flushall", -1, KeySpec::None, Flush),
    write("flushdb", -1, KeySpec::None, Flush),
    row("swapdb", 3, Class::ServerChange, KeySpec::None),
    row("migrate", -6, Class::ServerChange, KeySpec::None),
    // ---- session
    session("auth", -2, Session::Auth),
    session("hello", -1, Session::Hello),
    session("select", 2, Session::Select),
    session("client", -2, Session::Client),
    session("quit", -1, Session::Quit),
    session("reset", 1, Session::Reset),
    session("multi", 1, Session::Multi),
    session("exec", 1, Session::Exec),
    session("discard", 1, Session::Discard),
    session("watch", -2, Session::Watch),
    session("unwatch", 1, Session::Unwatch),
    session("subscribe", -2, Session::Subscribe),
    session("psubscribe", -2, Session::Subscribe),
    session("ssubscribe", -2, Session::Subscribe),
    session("unsubscribe", -1, Session::Subscribe),
    session("punsubscribe", -1, Session::Subscribe),
    session("sunsubscribe", -1, Session::Subscribe),
    session("monitor", 1, Session::Monitor),
    // ---- server
    server("acl", -2),
    server("cluster", -2),
    server("command", -1),
    server("commandlog", -2),
    server("config", -2),
    server("echo", 2),
    server("info", -1),
    server("lastsave", 1),
    server("latency", -2),
    server("lolwut", -1),
    server("memory", -2),
    server("ping", -1),
    server("publish", 3),
    server("pubsub", -2),
    server("role", 1),
    server("slowlog", -2),
    server("spublish", 3),
    server("time", 1),
    connection("wait", 3, Connection::Wait),
    connection("waitaof", 4, Connection::Wait),
    server("bgrewriteaof", 1),
    server("bgsave", -1),
    server("save", 1),
    connection("readonly", 1, Connection::Marks),
    connection("readwrite", 1, Connection::Marks),
    row("asking", 1, Class::ServerChange, KeySpec::None),
    row("debug", -2, Class::ServerChange, KeySpec::None),
    row("failover", -1, Class::ServerChange, KeySpec::None),
    row("module", -2, Class::ServerChange, KeySpec::None),
    row("pfdebug", 3, Class::ServerChange, KeySpec::None),
    row("pfselftest", 1, Class::ServerChange, KeySpec::None),
    row("replicaof", 3, Class::ServerChange, KeySpec::None),
    row("slaveof", 3, Class::ServerChange, KeySpec::None),
    row("shutdown", -1, Class::ServerChange, KeySpec::None),
    connection("psync", -3, Connection::Replicate),
    connection("replconf", -1, Connection::Replica),
    connection("sync", 1, Connection::Replicate),
];

/// Stands for every command the table does not know.
pub static UNKNOWN: Command = row("unknown", -1, Class::Unknown, KeySpec::None);

const SLOTS: usize = 2048;
const LONGEST_NAME: usize = 24;

fn slot_of(name: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for &byte in name {
        hash = (hash ^ u64::from(byte | 0x20)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 40) as usize % SLOTS
}

fn index() -> &'static [u16; SLOTS] {
    static INDEX: OnceLock<Box<[u16; SLOTS]>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut slots = Box::new([u16::MAX; SLOTS]);
        for (at, command) in TABLE.iter().enumerate() {
            let mut slot = slot_of(command.name.as_bytes());
            while slots[slot] != u16::MAX {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = at as u16;
        }
        slots
    })
}

/// The row of a command by its name as the client wrote it; [`UNKNOWN`] when there is none.
#[must_use]
pub fn lookup(name: &[u8]) -> &'static Command {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return &UNKNOWN;
    }
    let slots = index();
    let mut slot = slot_of(name);
    while slots[slot] != u16::MAX {
        let command = &TABLE[slots[slot] as usize];
        if command.name.len() == name.len() && command.name.as_bytes().eq_ignore_ascii_case(name) {
            return command;
        }
        slot = (slot + 1) % SLOTS;
    }
    &UNKNOWN
}

/// Index of a row in [`TABLE`], for counters; `TABLE.len()` for [`UNKNOWN`].
#[must_use]
pub fn position(command: &'static Command) -> usize {
    let at = (std::ptr::from_ref(command) as usize).wrapping_sub(TABLE.as_ptr() as usize) / size_of::<Command>();
    at.min(TABLE.len())
}

impl Command {
    /// Whether it runs a script or function, which may write more than the keys it declares.
    #[must_use]
    pub fn is_script(&self) -> bool {
        matches!(self.name, "eval" | "evalsha" | "fcall")
    }

    /// Which of its keys a write changes that is copied afterwards: all, unless some are only read.
    #[must_use]
    pub fn written<'k, T>(&self, keys: &'k [T]) -> &'k [T] {
        match self.name {
            "copy" | "sort" | "georadius" | "georadiusbymember" => keys.get(1..).unwrap_or_default(),
            "zinterstore" | "zunionstore" | "geosearchstore" => keys.get(..1).unwrap_or_default(),
            _ => keys,
        }
    }

    /// Whether a request with this many arguments (the name counts) fits.
    #[must_use]
    pub fn arity_fits(&self, count: usize) -> bool {
        let need = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= need } else { count == need }
    }

    /// The keys of one request; `None` when they cannot be determined (malformed counts: the server will answer with an error).
    #[must_use]
    pub fn keys_of<'a>(&self, frame: &'a [u8]) -> Option<KeyList<'a>> {
        match self.keys {
            KeySpec::None => Some(KeyList::default()),
            KeySpec::Range(1, 1, 1) => Args::new(frame).nth(1).map(|key| KeyList(vec![key])),
            _ => {
                let args: Vec<&[u8]> = Args::new(frame).collect();
                keys_by_spec(self.keys, &args).map(KeyList)
            }
        }
    }
}

fn keys_by_spec<'a>(spec: KeySpec, args: &[&'a [u8]]) -> Option<Vec<&'a [u8]>> {
    match spec {
        KeySpec::None => Some(Vec::new()),
        KeySpec::Range(first, last, step) => {
            let last = if last < 0 { args.len().checked_sub(usize::from(last.unsigned_abs()))? } else { last as usize };
            (usize::from(first) <= last && last < args.len())
                .then(|| args[usize::from(first)..=last].iter().step_by(step.into()).copied().collect())
        }
        KeySpec::Counted(at) => counted(args, at.into()).map(<[&[u8]]>::to_vec),
        KeySpec::StoreCounted => {
            let mut keys = vec![*args.get(1)?];
            keys.extend_from_slice(counted(args, 2)?);
            Some(keys)
        }
        KeySpec::Streams => {
            let at = args.iter().position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"))?;
            let rest = &args[at + 1..];
            (!rest.is_empty() && rest.len().is_multiple_of(2)).then(|| rest[..rest.len() / 2].to_vec())
        }
        KeySpec::Sort => with_destinations(args, &[b"STORE"], 2),
        KeySpec::GeoRadius => with_destinations(args, &[b"STORE", b"STOREDIST"], 5),
    }
}

fn counted<'s, 'a>(args: &'s [&'a [u8]], at: usize) -> Option<&'s [&'a [u8]]> {
    let count = usize::try_from(decimal(args.get(at)?)?).ok()?;
    args.get(at + 1..at.checked_add(1)?.checked_add(count)?)
}

/// The key at 1 and every destination behind one of `words`. As Redis does, the last one wins; naming more keys is harmless.
fn with_destinations<'a>(args: &[&'a [u8]], words: &[&[u8]], from: usize) -> Option<Vec<&'a [u8]>> {
    let mut keys = vec![*args.get(1)?];
    for pair in args.get(from..).unwrap_or_default().windows(2) {
        if words.iter().any(|word| pair[0].eq_ignore_ascii_case(word)) {
            keys.push(pair[1]);
        }
    }
    Some(keys)
}

#[cfg(test)]
pub(crate) mod server_tests;

#[cfg(test)]
mod tests {
    use super::super::encode::request;
    use super::*;

    /// Requests and their keys.
    pub const KEYS: &[(&str, &[&str])] = &[
        ("GET a", &["a"]),
        ("MSET a 1 b 2", &["a", "b"]),
        ("BLPOP a b 0", &["a", "b"]),
        ("BITOP AND d a b", &["d", "a", "b"]),
        ("EVAL x 2 a b c", &["a", "b"]),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &["d", "a", "b"]),
        ("XREAD COUNT 2 STREAMS a b 0 0", &["a", "b"]),
        ("XREADGROUP GROUP g c STREAMS a >", &["a"]),
        ("SORT a BY x STORE d", &["a", "d"]),
        ("GEORADIUS a 1 2 3 km STORE d", &["a", "d"]),
        ("LMPOP 2 a b LEFT", &["a", "b"]),
        ("XGROUP CREATE a g $", &["a"]),
    ];

    #[test]
    fn names_are_in_lower_case_short_and_listed_once() {
        for (at, Command { name, .. }) in TABLE.iter().enumerate() {
            assert_eq!(*name, name.to_ascii_lowercase(), "TABLE: write the name {name:?} in lower case");
            assert!(name.len() <= LONGEST_NAME, "{name}: {} bytes: raise LONGEST_NAME to that", name.len());
            let is_first = TABLE[..at].iter().all(|other| other.name != *name);
            assert!(is_first, "{name} is listed twice in TABLE: keep one row");
        }
    }

    #[test]
    fn every_name_is_found_in_any_case_and_other_words_are_not() {
        for (at, command) in TABLE.iter().enumerate() {
            for name in [command.name.to_owned(), command.name.to_ascii_uppercase()] {
                assert!(std::ptr::eq(lookup(name.as_bytes()), command), "lookup({name:?}) does not find its row");
            }
            assert_eq!(position(command), at, "position of {}", command.name);
        }
        assert_eq!(lookup(b"JSON.SET"), &UNKNOWN);
        assert_eq!(position(&UNKNOWN), TABLE.len());
    }

    #[test]
    fn writes_have_effects_and_reads_have_none() {
        for Command { name, class, effect, .. } in TABLE {
            let fits = (*class == Class::Write) == (*effect != EffectKind::None);
            assert!(
                fits,
                "{name}: a write needs an effect, a read must have none; the row has {class:?} and {effect:?}"
            );
        }
    }

    #[test]
    fn what_is_only_read_is_not_copied() {
        let written = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let frame = request(&words);
            let command = lookup(words[0]);
            let keys = command.keys_of(&frame).unwrap();
            command.written(&keys.0).iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(written("SORT a BY x STORE d"), ["d"]);
        assert!(written("SORT a").is_empty());
        assert_eq!(written("COPY a b"), ["b"]);
        assert_eq!(written("ZUNIONSTORE d 2 a b"), ["d"]);
        assert_eq!(written("EVAL x 2 a b"), ["a", "b"]);
        assert_eq!(written("RENAME a b"), ["a", "b"]);
    }

    #[test]
    fn keys() {
        for (line, want) in KEYS {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let frame = request(&words);
            let found = lookup(words[0]).keys_of(&frame);
            let keys =
                found.unwrap_or_else(|| panic!("{line}: no keys found: check its name and its KeySpec in TABLE"));
            assert_eq!(keys.0, want.iter().map(|k| k.as_bytes()).collect::<Vec<_>>(), "{line}");
        }
        for line in ["EVAL x 9 a", "EVAL x -1 a", "XREAD STREAMS a", "MSET", "EVAL x 99999999999999999 a"] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(lookup(words[0]).keys_of(&request(&words)), None, "{line}");
        }
    }
}
