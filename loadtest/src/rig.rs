//! Two servers, the proxy in front, a migration `m`, and clients that count: what most migration tests need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value as Json;

use crate::crossfade::{Crossfade, INTERLAY, brief};
use crate::digest::{contents, differences};
use crate::server::{Kind, RealServer, try_connect};
use crate::wait::until;

pub const MIGRATION: &str = "m";
/// A step of a small migration takes a second or so.
pub const STEP: Duration = Duration::from_secs(60);
pub const TTL_TOLERANCE_MS: i64 = 2500;

/// Fields are dropped in this order.
#[derive(Debug)]
pub struct Rig {
    pub proxy: Crossfade,
    pub source: RealServer,
    pub target: RealServer,
    /// What keeps the target in step: an option of the command line.
    pub feed: &'static str,
    /// When a write is acknowledged: an option of the command line.
    pub consistency: &'static str,
}

/// The feed of every test that does not name another.
pub const LANE: &str = "lane";
pub const REPLICATION: &str = "replication";

impl Rig {
    #[must_use]
    pub fn start(target: Kind) -> Self {
        Self::start_with_feed(target, LANE)
    }

    #[must_use]
    pub fn start_with_feed(target: Kind, feed: &'static str) -> Self {
        Self { feed, ..Self::of(RealServer::start(Kind::Redis), RealServer::start(target)) }
    }

    #[must_use]
    pub fn of(source: RealServer, target: RealServer) -> Self {
        let proxy = Crossfade::start(&source.url(), Some(&target.url()));
        Self::behind(proxy, source, target)
    }

    /// Behind a proxy that was started in another way.
    #[must_use]
    pub fn behind(proxy: Crossfade, source: RealServer, target: RealServer) -> Self {
        Self { proxy, source, target, feed: LANE, consistency: "source" }
    }

    /// Creates the migration with gates small enough for a test.
    pub fn create(&self) {
        self.proxy.must(&[
            "migration",
            "create",
            "--id",
            MIGRATION,
            "--interlay",
            INTERLAY,
            "--strategy",
            "blue_green",
            "--analyze-min-commands",
            "10",
            "--analyze-min-seconds",
            "1",
            "--compare-min-reads",
            "10",
            "--feed",
            self.feed,
            "--write-consistency",
            self.consistency,
        ]);
    }

    /// Advances phase by phase, with approvals; returns once the phase is entered.
    pub fn advance_to(&self, phase: &str) {
        for next in ["analyze", "compare", "test", "migrate"] {
            if next == "migrate" {
                self.approve("migrate");
            }
            self.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", next], STEP);
            if next == "analyze" {
                // The gate of this phase counts commands from its beginning on, and not every test has clients yet.
                let mut client = self.proxy.connection();
                for n in 0..20 {
                    let _ = redis::cmd("GET").arg(format!("string:{n}")).query::<Option<Vec<u8>>>(&mut client);
                }
            }
            if next == phase {
                return;
            }
        }
    }

    pub fn approve(&self, scope: &str) {
        let args = ["migration", "approve", MIGRATION, "--scope", scope, "--by", "tester", "--reason", "test"];
        self.proxy.when_possible(&args, STEP);
    }

    /// Waits for the authority.
    pub fn authority(&self, side: &str) -> Json {
        self.proxy.wait(MIGRATION, &format!("authority {side}"), STEP, |now| now["authority"] == side)
    }

    pub fn commit(&self) -> Json {
        self.approve("commit");
        self.proxy.when_possible(&["migration", "commit", MIGRATION], STEP);
        self.proxy.wait(MIGRATION, "commit", STEP, |now| now["phase"] == "commit")
    }

    pub fn rollback(&self) -> Json {
        self.proxy.must(&["migration", "rollback", MIGRATION, "--reason", "test"]);
        self.authority("source")
    }

    /// Brings the migration to the state in which its authority changes automatically as soon as the gates are met.
    pub fn make_a_flip_due(&self, now: &Json) {
        match (now["phase"].as_str().unwrap_or_default(), now["authority"].as_str().unwrap_or_default()) {
            ("migrate", "source") | ("rollback", "target") => {}
            (_, "target") => {
                self.proxy.must(&["migration", "rollback", MIGRATION, "--reason", "test"]);
            }
            (phase, _) => {
                let all = ["compare", "test", "migrate"];
                let next = all.iter().position(|other| *other == phase).map_or(0, |at| at + 1);
                for phase in &all[next..] {
                    if *phase == "migrate" {
                        self.approve("migrate");
                    }
                    self.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", phase], STEP);
                }
            }
        }
    }

    /// Waits until both sides are connected and nothing is dirty, in flight or uncopied. Only for servers at rest: beside clients that
    /// write something is always in flight.
    pub fn drained(&self) -> Json {
        self.wait_for_shadow("a drained shadow", |now| is_in_step(now) && now["in_flight"] == 0)
    }

    /// Waits until both sides are connected and nothing is dirty or uncopied, while clients may write.
    pub fn in_step(&self) -> Json {
        self.wait_for_shadow("a shadow in step", is_in_step)
    }

    fn wait_for_shadow(&self, what: &str, done: impl Fn(&Json) -> bool) -> Json {
        // A status is up to 100 ms old: only a status from after the last write counts.
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        until(what, STEP, || {
            let now = self.proxy.show(MIGRATION);
            if now["lane"]["at_ms"].as_u64().is_some_and(|at| at > since) && done(&now) {
                return Ok(now);
            }
            Err(format!(
                "{}; in flight {}, {}\n{}",
                brief(&now),
                now["in_flight"],
                now["lane"],
                self.proxy.log_tail(10)
            ))
        })
    }

    /// Compares both servers, which must be at rest.
    ///
    /// # Panics
    /// When they differ.
    pub fn assert_equal(&self) -> usize {
        let (first, second) = (contents(&mut self.source.connection()), contents(&mut self.target.connection()));
        let found = differences(&first, &second, TTL_TOLERANCE_MS);
        assert!(found.is_empty(), "{} keys differ: {:#?}", found.len(), &found[..found.len().min(10)]);
        first.len()
    }
}

/// Clients that append unique tokens and count, through the proxy, and remember what was acknowledged.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    pub acknowledged: Arc<AtomicU64>,
    pub errors: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Known>>,
}

/// What one writer has recorded. The last write of a lost connection may or may not have happened.
#[derive(Debug, Default, Clone)]
pub struct Known {
    pub worker: usize,
    pub tokens: Vec<String>,
    pub unknown: Vec<String>,
    pub counter: i64,
    pub counter_unknown: i64,
    pub messages: Vec<String>,
}

impl Writers {
    #[must_use]
    pub fn start(port: u16, count: usize) -> Self {
        let (stop, acknowledged, errors) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count)
            .map(|worker| {
                let (stop, acknowledged, errors) = (Arc::clone(&stop), Arc::clone(&acknowledged), Arc::clone(&errors));
                std::thread::spawn(move || write(worker, port, &stop, &acknowledged, &errors))
            })
            .collect();
        Self { stop, acknowledged, errors, threads }
    }

    /// Waits until this many more writes were acknowledged.
    pub fn progress(&self, more: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        crate::wait::until("acknowledged writes", Duration::from_secs(60), || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    /// # Panics
    /// When a writer panicked.
    #[must_use]
    pub fn finish(mut self) -> Vec<Known> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().expect("a writer")).collect()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(worker: usize, port: u16, stop: &AtomicBool, acknowledged: &AtomicU64, errors: &AtomicU64) -> Known {
    let mut known = Known { worker, ..Known::default() };
    let mut connection = None;
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut connection else {
            connection = try_connect(port).ok();
            if connection.is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            continue;
        };
        number += 1;
        let token = format!("{worker}-{number}");
        let pushed = redis::cmd("RPUSH").arg(format!("tokens:{worker}:{}", number % 16)).arg(&token).query::<i64>(open);
        let counted = pushed.is_ok().then(|| redis::cmd("INCR").arg(format!("count:{worker}")).query::<i64>(open));
        let read = redis::cmd("GET").arg(format!("count:{worker}")).query::<Option<i64>>(open);
        match &pushed {
            Ok(_) => known.tokens.push(token),
            Err(_) => known.unknown.push(token),
        }
        match &counted {
            Some(Ok(_)) => known.counter += 1,
            Some(Err(_)) => known.counter_unknown += 1,
            None => {}
        }
        let failed = pushed.err().or(counted.and_then(Result::err)).or(read.err());
        match failed {
            None => drop(acknowledged.fetch_add(2, Ordering::Relaxed)),
            Some(error) => {
                errors.fetch_add(1, Ordering::Relaxed);
                if known.messages.len() < 5 {
                    known.messages.push(error.to_string());
                }
                if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
                    connection = None;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    known
}

/// The acknowledged writes that are missing, as sentences.
///
/// # Panics
/// When the server cannot be read.
#[must_use]
pub fn losses(connection: &mut redis::Connection, known: &[Known]) -> Vec<String> {
    let mut lost = Vec::new();
    for writer in known {
        let mut found: Vec<String> = Vec::new();
        for n in 0..16 {
            let key = format!("tokens:{}:{n}", writer.worker);
            let tokens: Vec<String> = redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query(connection).expect("LRANGE");
            let numbers: Vec<u64> = tokens.iter().filter_map(|t| t.split_once('-')?.1.parse().ok()).collect();
            if !numbers.is_sorted() {
                lost.push(format!("{key}: order broken"));
            }
            found.extend(tokens);
        }
        found.sort();
        for token in &writer.tokens {
            match found.iter().skip(found.partition_point(|t| t < token)).take_while(|t| *t == token).count() {
                1 => {}
                0 => lost.push(format!("token {token} lost")),
                n => lost.push(format!("token {token} applied {n} times")),
            }
        }
        let surplus = found.len() as i64 - writer.tokens.len() as i64;
        if surplus > writer.unknown.len() as i64 {
            lost.push(format!("writer {}: {surplus} tokens more than acknowledged", writer.worker));
        }
        let count: Option<i64> =
            redis::cmd("GET").arg(format!("count:{}", writer.worker)).query(connection).expect("GET");
        let count = count.unwrap_or(0);
        if count < writer.counter || count > writer.counter + writer.counter_unknown {
            lost.push(format!("count:{} is {count}, acknowledged {}", writer.worker, writer.counter));
        }
    }
    lost
}

/// One key of every type and encoding, `rounds` times, directly into a server.
///
/// # Panics
/// When the server refuses one.
pub fn fill(connection: &mut redis::Connection, rounds: usize) {
    let text = |length: usize| "x".repeat(length);
    for chunk in (0..rounds).collect::<Vec<_>>().chunks(200) {
        let mut pipe = redis::pipe();
        for n in chunk {
            let mut add = |args: &[&str]| {
                let mut words = args.iter();
                let command = pipe.cmd(words.next().expect("a command"));
                words.for_each(|word| {
                    command.arg(*word);
                });
            };
            let key = |kind: &str| format!("{kind}:{n}");
            add(&["SET", &key("string"), &text(30)]);
            add(&["SET", &key("volatile"), &text(10), "PX", "900000"]);
            add(&["SET", &key("page"), &text(10_240)]);
            add(&["RPUSH", &key("list"), "a", "b", &n.to_string()]);
            add(&["SADD", &key("set"), "a", "b", &n.to_string()]);
            add(&["SADD", &key("intset"), "1", "2", &n.to_string()]);
            add(&["HSET", &key("hash"), "f", &n.to_string(), "g", &text(100)]);
            add(&["ZADD", &key("zset"), "1.25", "a", "-3", "b"]);
            add(&["XADD", &key("stream"), "5-1", "f", "v"]);
            add(&["EXPIRE", &key("hash"), "5000"]);
        }
        pipe.exec(connection).expect("the history is written");
    }
}

/// Whether both sides are connected and the shadow misses nothing but what is under way to it.
fn is_in_step(now: &Json) -> bool {
    now["dirty"] == 0
        && now["uncopied"] == false
        && now["lane"]["authority_connected"] == true
        && now["lane"]["shadow_connected"] == true
}
