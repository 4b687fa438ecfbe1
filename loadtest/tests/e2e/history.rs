//! Random histories on a hot keyspace: every kind of write, short lives, pipelines, blocks, scripts, blocked clients, flips both ways,
//! and (in one variant) connections killed under the lane. At the end both servers must hold the same; and on the way each client sends
//! commands with one possible reply, on keys that no other client uses, to a server of its own as well: both must reply alike.
//!
//! `CROSSFADE_SEED` repeats a history's choice of commands; the seed is printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossfade_loadtest::rig::{MIGRATION, Rig, STEP};
use crossfade_loadtest::server::{Kind, RealServer, connect, run, try_connect};
use crossfade_loadtest::skip;

/// SplitMix64: small, seeded, good enough to choose commands.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Writes, and a few reads between them. `{s}`, `{l}` and so on are keys of one type each, `{v}` a value, `{n}` a small number, `{ms}` a
/// short life. Redis 7.0 must know every command: it is one of the two servers.
const COMMANDS: &[&str] = &[
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

fn request(random: &mut Random, template: &str, keys: u64) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in template.split(' ') {
        let mut word = word.to_owned();
        while let Some(at) = word.find('{') {
            let Some(end) = word[at..].find('}') else { break };
            let name = word[at + 1..at + end].to_owned();
            let value = match name.as_str() {
                "v" => format!("v{}", random.below(12)),
                "n" => random.below(30).to_string(),
                "ms" => (20 + random.below(480)).to_string(),
                kind => format!("{kind}:{}", random.below(keys)),
            };
            word.replace_range(at..=at + end, &value);
        }
        command.arg(word);
    }
    command
}

/// Errors that Redis itself returns for such a mix.
fn is_redis_own(error: &redis::RedisError) -> bool {
    let text = error.to_string();
    !text.contains("Crossfade") && !text.contains("LOADING") && !error.is_io_error() && !error.is_connection_dropped()
}

/// Reads with one possible reply, compared with a server of the client's own.
const READS: &[&str] = &[
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

/// Whether a command has one possible reply: no chance, no clock, no blocking, no ids made by the server, no
/// scores that are no whole numbers (Redis 7 prints 17 digits of them, Valkey the shortest form).
fn is_determined(template: &str) -> bool {
    const CHANCE_OR_TIME: &[&str] = &[
        "{ms}", "SPOP", "spop", " * ", "XADD", "EXPIRE", "TTL", "SETEX", "px", "SMEMBERS", "HGETALL", "ALPHA", "PF",
        "0.3",
    ];
    !CHANCE_OR_TIME.iter().any(|word| template.contains(word))
        && !template.starts_with("BL")
        && !template.starts_with("BZ")
}

/// A client's own keys, and a server of its own that gets the same commands: the reference for replies.
struct Judge {
    reference: redis::Connection,
    worker: u64,
    /// A new set of keys after a command with an unknown outcome.
    generation: u64,
    judged: u64,
}

impl Judge {
    fn new(reference_port: u16, worker: u64) -> Self {
        Self { reference: connect(reference_port), worker, generation: 0, judged: 0 }
    }

    /// Runs one command on both; `Err` when the answers differ.
    fn ask(&mut self, random: &mut Random, through: &mut redis::Connection) -> Result<redis::RedisResult<()>, String> {
        let template = loop {
            let candidate = if random.below(2) == 0 { random.pick(READS) } else { random.pick(COMMANDS) };
            if is_determined(candidate) {
                break candidate;
            }
        };
        // `{s}` becomes `{w1.0s}`, so that `request` makes keys of this client's own.
        let own = format!("{{w{}.{}", self.worker, self.generation);
        let template =
            template.replace('{', &own).replace(&format!("{own}v}}"), "{v}").replace(&format!("{own}n}}"), "{n}");
        let command = request(random, &template, 6);
        let word = |answer: redis::RedisResult<redis::Value>| answer.map_err(|error| error.code().map(str::to_owned));
        let seen = command.query::<redis::Value>(through);
        if let Err(error) = &seen
            && !is_redis_own(error)
        {
            self.generation += 1;
            return Ok(seen.map(drop));
        }
        let (expected, seen) = (word(command.query(&mut self.reference)), word(seen));
        self.judged += 1;
        if expected == seen { Ok(Ok(())) } else { Err(format!("{template}: {seen:?} instead of {expected:?}")) }
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<u64, String>>>,
}

impl Load {
    /// `tolerant`: connections may be lost, and are made again.
    fn start(port: u16, reference_port: u16, seed: u64, tolerant: bool) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..8)
            .map(|worker| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    let judge = Judge::new(reference_port, worker);
                    work(port, judge, seed ^ (worker << 32), tolerant, &stop, &done)
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    fn progress(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        crossfade_loadtest::wait::until("random commands", Duration::from_secs(60), || {
            let now = self.done.load(Ordering::Relaxed);
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            if now >= goal || ended { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    /// Number of commands, and of those whose replies were checked.
    fn finish(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let judged = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").expect("no answer and no error a Redis would not give"))
            .sum();
        (self.done.load(Ordering::Relaxed), judged)
    }
}

/// How many replies were checked.
fn work(
    port: u16,
    mut judge: Judge,
    seed: u64,
    tolerant: bool,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Result<u64, String> {
    let mut random = Random(seed);
    let mut connection = connect(port);
    while !stop.load(Ordering::Relaxed) {
        let template = random.pick(COMMANDS);
        let outcome = match random.below(10) {
            0 => {
                let mut pipe = redis::pipe();
                pipe.atomic();
                for _ in 0..1 + random.below(4) {
                    let template = loop {
                        let candidate = random.pick(COMMANDS);
                        if !candidate.starts_with('B') || candidate.starts_with("BIT") {
                            break candidate;
                        }
                    };
                    pipe.add_command(request(&mut random, template, 12));
                }
                pipe.query::<redis::Value>(&mut connection).map(|_| ())
            }
            1 | 2 => {
                let mut pipe = redis::pipe();
                for _ in 0..1 + random.below(12) {
                    let template = random.pick(COMMANDS);
                    pipe.add_command(request(&mut random, template, 12));
                }
                pipe.query::<redis::Value>(&mut connection).map(|_| ())
            }
            3..=5 => judge.ask(&mut random, &mut connection)?,
            _ => request(&mut random, template, 12).query::<redis::Value>(&mut connection).map(|_| ()),
        };
        match outcome {
            Ok(()) => {}
            Err(error) if is_redis_own(&error) => {}
            Err(_) if tolerant => {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(again) = try_connect(port) {
                        connection = again;
                        break;
                    }
                }
            }
            Err(error) => return Err(format!("{template}: {error}")),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(judge.judged)
}

fn seed() -> u64 {
    let seed = std::env::var("CROSSFADE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64)
    });
    eprintln!("CROSSFADE_SEED={seed}");
    seed
}

/// Kills the lane's connections on one server, as a network failure would.
fn kill_lane(port: u16) {
    let mut connection = connect(port);
    let list: String = run(&mut connection, "CLIENT LIST");
    for line in list.lines().filter(|line| line.contains("name=crossfade/lane")) {
        if let Some(id) = line.split(' ').find_map(|word| word.strip_prefix("id=")) {
            let _: i64 = run(&mut connection, &format!("CLIENT KILL ID {id}"));
        }
    }
}

fn random_history(target: Kind, flips: usize, kills: bool) {
    let seed = seed();
    let rig = Rig::start(target);
    // Keys from before the proxy: the first write that touches one must copy it first.
    let mut random = Random(seed);
    let mut direct = rig.source.connection();
    for _ in 0..3000 {
        let template = random.pick(COMMANDS);
        if !template.starts_with("BL") && !template.starts_with("BZ") {
            let _ = request(&mut random, template, 12).query::<redis::Value>(&mut direct);
        }
    }
    let reference = RealServer::start(Kind::Redis);
    let load = Load::start(rig.proxy.port, reference.port, seed, kills);
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    for round in 0..flips {
        load.progress(3000);
        if kills {
            kill_lane(if round % 2 == 0 { rig.source.port } else { rig.target.port });
            load.progress(1000);
        }
        rig.rollback();
        load.progress(3000);
        rig.approve("migrate");
        rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], STEP);
        rig.authority("target");
    }
    load.progress(2000);
    let (commands, judged) = load.finish();
    assert!(judged > commands / 10, "{judged} replies checked of {commands}");
    let now = rig.drained();
    settle_deadlines(&rig);
    let keys = rig.assert_equal();
    eprintln!(
        "{commands} commands, {judged} replies checked, {keys} keys equal, {} flips, dirtied {}, reads compared {}, divergent reads {}",
        now["flips"].as_array().map_or(0, Vec::len),
        now["lane"]["dirtied"],
        now["lane"]["reads_compared"],
        now["lane"]["read_divergences"],
    );
    if !kills {
        let named = rig.proxy.cli(&["migration", "divergences", MIGRATION]);
        assert_eq!(now["lane"]["read_divergences"], 0, "a comparison reported a false difference: {named:?}");
    }
}

/// Waits until short-lived keys have expired on both servers, so that none expires between reading one and the other.
fn settle_deadlines(rig: &Rig) {
    const NEAR_MS: i64 = 20_000;
    crossfade_loadtest::wait::until("short lives to end", Duration::from_secs(30), || {
        for server in [&rig.source, &rig.target] {
            let mut connection = server.connection();
            let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut connection).map_err(|e| e.to_string())?;
            for key in keys {
                let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).map_err(|e| e.to_string())?;
                if (0..NEAR_MS).contains(&left) {
                    return Err(format!("{} has {left} ms to live", key.escape_ascii()));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn random_commands_through_flips_leave_both_servers_equal() {
    random_history(Kind::Redis, 3, false);
}

#[test]
fn random_commands_through_flips_to_valkey_leave_both_servers_equal() {
    if let Err(why) = Kind::Valkey.binary() {
        skip!("{why}");
    }
    random_history(Kind::Valkey, 3, false);
}

#[test]
fn random_commands_while_lane_connections_are_killed_leave_both_servers_equal() {
    random_history(Kind::Redis, 3, true);
}
