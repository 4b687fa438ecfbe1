//! The state that was acknowledged to one checker thread: the exact content of every key that only this thread writes.
//!
//! Pure. An operation is an encoded request and its only right reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::super::random::Random;
use wire::resp::value::{Value, encode_request};

const COLLECTIONS: u64 = 8;
const SLOTS: u64 = 64;
const VOLATILES: u64 = 32;

/// The two accounts every worker transfers between; their sum never changes.
pub const ACCOUNTS: [&str; 2] = ["check:account:a", "check:account:b"];
pub const ACCOUNTS_SUM: i64 = 1_000_000;
/// Incremented by every worker.
pub const SHARED_COUNTER: &str = "check:shared";

/// What the reply to one request must be.
#[derive(Debug, Clone)]
pub enum Expect {
    Is(Value),
    /// XADD: any id greater than the last one of this stream; the entry then belongs to the model.
    EntryId {
        stream: usize,
        token: Vec<u8>,
    },
    /// EXEC of a transfer or of a reading of both accounts.
    Accounts,
    /// INCR of the shared counter: some positive number.
    Shared,
    /// SET with PX; the deadline counts from the acknowledgement.
    VolatileSet(Volatile),
    /// GET of the value set last before it, although the key may have been set again by the time the reply arrives.
    VolatileGet(Volatile),
}

/// One request and its expected reply.
#[derive(Debug)]
pub struct Step {
    pub request: Vec<u8>,
    pub expect: Expect,
    pub write: bool,
}

/// One value with a deadline.
#[derive(Debug, Clone)]
pub struct Volatile {
    pub value: Vec<u8>,
    pub ttl_ms: u64,
    pub sent_ms: u64,
    /// 0 while not acknowledged; shared by the SET and the GETs that follow it.
    pub acked_ms: Arc<AtomicU64>,
}

/// The keys of one worker.
#[derive(Debug, Default)]
pub struct Model {
    pub worker: usize,
    tokens: u64,
    pub lists: Vec<Vec<Vec<u8>>>,
    pub sets: Vec<BTreeSet<Vec<u8>>>,
    pub streams: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
    pub counters: Vec<i64>,
    pub scripted: i64,
    pub slots: Vec<Option<Vec<u8>>>,
    pub hash: BTreeMap<Vec<u8>, i64>,
    pub scores: BTreeMap<Vec<u8>, i64>,
    pub queue: VecDeque<Vec<u8>>,
    pub volatile: Vec<Option<Volatile>>,
    pub shared_increments: i64,
}

fn integer(n: usize) -> Expect {
    Expect::Is(Value::Integer(n as i64))
}

fn ok() -> Expect {
    Expect::Is(Value::Simple(b"OK".to_vec()))
}

fn optional(value: Option<Vec<u8>>) -> Expect {
    Expect::Is(value.map_or(Value::Null, Value::Bulk))
}

fn number(n: i64) -> Vec<u8> {
    n.to_string().into_bytes()
}

impl Model {
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            lists: vec![vec![]; COLLECTIONS as usize],
            sets: vec![BTreeSet::new(); COLLECTIONS as usize],
            streams: vec![vec![]; COLLECTIONS as usize],
            counters: vec![0; COLLECTIONS as usize],
            slots: vec![None; SLOTS as usize],
            volatile: vec![None; VOLATILES as usize],
            ..Self::default()
        }
    }

    pub fn key(&self, kind: &str, n: usize) -> Vec<u8> {
        format!("check:{}:{kind}:{n}", self.worker).into_bytes()
    }

    fn token(&mut self) -> Vec<u8> {
        self.tokens += 1;
        format!("w{}-{}", self.worker, self.tokens).into_bytes()
    }

    /// Draws the next operation and applies its effect to the model; a reply that differs is an error.
    pub fn draw(&mut self, random: &mut Random, now_ms: u64, steps: &mut Vec<Step>) {
        let n = random.below(COLLECTIONS) as usize;
        match random.below(16) {
            0 | 1 => self.list(n, steps),
            2 => self.set(n, random, steps),
            3 => self.stream(n, steps),
            4 | 5 => self.counter(n, random, steps),
            6 | 7 => self.slot(random, steps),
            8 => self.hash(n, random, steps),
            9 => self.scores(n, random, steps),
            10 | 11 => self.queue(random, steps),
            12 => Self::accounts(random, steps),
            13 => self.volatile(random, now_ms, steps),
            14 => self.shared(steps),
            _ => self.script(steps),
        }
    }

    fn list(&mut self, n: usize, steps: &mut Vec<Step>) {
        let (key, token) = (self.key("list", n), self.token());
        self.lists[n].push(token.clone());
        steps.push(write(&[b"RPUSH", &key, &token], integer(self.lists[n].len())));
        steps.push(read(&[b"LINDEX", &key, b"-1"], optional(Some(token))));
    }

    fn set(&mut self, n: usize, random: &mut Random, steps: &mut Vec<Step>) {
        let (key, token) = (self.key("set", n), self.token());
        let old = self.sets[n].iter().nth(random.below(8) as usize).cloned();
        self.sets[n].insert(token.clone());
        steps.push(write(&[b"SADD", &key, &token], integer(1)));
        steps.push(read(&[b"SISMEMBER", &key, &token], integer(1)));
        if let (Some(old), 0) = (old, random.below(4)) {
            self.sets[n].remove(&old);
            steps.push(write(&[b"SREM", &key, &old], integer(1)));
        }
    }

    fn stream(&mut self, n: usize, steps: &mut Vec<Step>) {
        let (key, token) = (self.key("stream", n), self.token());
        let request = encode_request(&[b"XADD", &key, b"*", b"token", &token]);
        steps.push(Step { request, expect: Expect::EntryId { stream: n, token }, write: true });
    }

    fn counter(&mut self, n: usize, random: &mut Random, steps: &mut Vec<Step>) {
        let key = self.key("counter", n);
        let by = random.below(100) as i64 - 30;
        self.counters[n] += by;
        let expect = Expect::Is(Value::Integer(self.counters[n]));
        steps.push(write(&[b"INCRBY", &key, &number(by)], expect));
        steps.push(read(&[b"GET", &key], optional(Some(number(self.counters[n])))));
    }

    fn slot(&mut self, random: &mut Random, steps: &mut Vec<Step>) {
        let n = random.below(SLOTS) as usize;
        let (key, token) = (self.key("slot", n), self.token());
        let before = self.slots[n].clone();
        match random.below(6) {
            0 => {
                steps.push(write(&[b"SET", &key, &token, b"NX"], if before.is_none() { ok() } else { optional(None) }));
                self.slots[n] = before.or(Some(token));
            }
            1 => {
                steps.push(write(&[b"SET", &key, &token, b"XX"], if before.is_some() { ok() } else { optional(None) }));
                self.slots[n] = before.map(|_| token);
            }
            2 => {
                steps.push(write(&[b"GETDEL", &key], optional(before)));
                self.slots[n] = None;
            }
            3 => {
                let after = [before.unwrap_or_default(), token.clone()].concat();
                // Kept short: an endless APPEND would test memory, not order.
                if after.len() < 2000 {
                    steps.push(write(&[b"APPEND", &key, &token], integer(after.len())));
                    self.slots[n] = Some(after);
                }
            }
            4 => {
                steps.push(write(&[b"SET", &key, &token, b"GET"], optional(before)));
                self.slots[n] = Some(token);
            }
            _ => steps.push(read(&[b"GET", &key], optional(before))),
        }
    }

    fn hash(&mut self, n: usize, random: &mut Random, steps: &mut Vec<Step>) {
        let (key, field) = (self.key("hash", 0), format!("f{n}").into_bytes());
        let by = random.below(50) as i64;
        let value = self.hash.entry(field.clone()).or_default();
        *value += by;
        let value = *value;
        steps.push(write(&[b"HINCRBY", &key, &field, &number(by)], Expect::Is(Value::Integer(value))));
        steps.push(read(&[b"HGET", &key, &field], optional(Some(number(value)))));
    }

    fn scores(&mut self, n: usize, random: &mut Random, steps: &mut Vec<Step>) {
        let (key, member) = (self.key("scores", 0), format!("m{n}").into_bytes());
        let by = random.below(50) as i64 - 20;
        let score = self.scores.entry(member.clone()).or_default();
        *score += by;
        let score = *score;
        steps.push(write(&[b"ZINCRBY", &key, &number(by), &member], optional(Some(number(score)))));
    }

    fn queue(&mut self, random: &mut Random, steps: &mut Vec<Step>) {
        let key = self.key("queue", 0);
        if random.below(5) < 3 {
            let token = self.token();
            self.queue.push_front(token.clone());
            steps.push(write(&[b"LPUSH", &key, &token], integer(self.queue.len())));
        } else {
            let popped = self.queue.pop_back();
            steps.push(write(&[b"RPOP", &key], optional(popped)));
        }
    }

    fn accounts(random: &mut Random, steps: &mut Vec<Step>) {
        let amount = number(random.below(1000) as i64 - 500);
        let [a, b] = ACCOUNTS.map(str::as_bytes);
        let queued = || Expect::Is(Value::Simple(b"QUEUED".to_vec()));
        steps.push(read(&[b"MULTI"], ok()));
        if random.below(3) == 0 {
            steps.push(read(&[b"GET", a], queued()));
            steps.push(read(&[b"GET", b], queued()));
            steps.push(read(&[b"EXEC"], Expect::Accounts));
        } else {
            steps.push(read(&[b"DECRBY", a, &amount], queued()));
            steps.push(read(&[b"INCRBY", b, &amount], queued()));
            steps.push(write(&[b"EXEC"], Expect::Accounts));
        }
    }

    fn volatile(&mut self, random: &mut Random, now_ms: u64, steps: &mut Vec<Step>) {
        let slot = random.below(VOLATILES) as usize;
        let key = self.key("volatile", slot);
        if let (Some(volatile), 1..) = (&self.volatile[slot], random.below(3)) {
            steps.push(read(&[b"GET", &key], Expect::VolatileGet(volatile.clone())));
            return;
        }
        let (value, ttl_ms) = (self.token(), 200 + random.below(4000));
        let request = encode_request(&[b"SET", &key, &value, b"PX", &number(ttl_ms as i64)]);
        let volatile = Volatile { value, ttl_ms, sent_ms: now_ms, acked_ms: Arc::default() };
        self.volatile[slot] = Some(volatile.clone());
        steps.push(Step { request, expect: Expect::VolatileSet(volatile), write: true });
    }

    fn shared(&mut self, steps: &mut Vec<Step>) {
        self.shared_increments += 1;
        steps.push(write(&[b"INCR", SHARED_COUNTER.as_bytes()], Expect::Shared));
    }

    fn script(&mut self, steps: &mut Vec<Step>) {
        let key = self.key("scripted", 0);
        self.scripted += 2;
        let script = b"redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])";
        steps.push(write(&[b"EVAL", script, b"1", &key], Expect::Is(Value::Integer(self.scripted))));
    }
}

fn write(args: &[&[u8]], expect: Expect) -> Step {
    Step { request: encode_request(args), expect, write: true }
}

fn read(args: &[&[u8]], expect: Expect) -> Step {
    Step { request: encode_request(args), expect, write: false }
}

/// Whether an EXEC reply of two numbers keeps the sum.
pub fn accounts_agree(reply: &Value) -> bool {
    match reply.items() {
        Some([a, b]) => {
            let (a, b) = (a.integer(), b.integer());
            a.zip(b).is_some_and(|(a, b)| a + b == ACCOUNTS_SUM)
        }
        _ => false,
    }
}
