//! A model server: its connections, the order of execution, time. What belongs to one connection is in `session`.

use std::collections::BTreeMap;

use super::blocking::{Waiting, is_blocking};
use super::commands;
use super::connection::{Connection, Deferred};
use super::data::{Data, Expiry, Key, Run, Words};
use super::log::{Executed, Step, seen};
use super::replication::Replication;
use crate::history::line;
use crate::limits;
use crate::random::Random;
use crate::trace::{trace, traced};
use wire::resp::frame::{RequestProgress, RequestScan, scan_request};
use wire::resp::value::Value as Reply;

/// Of the connections of cores.
const CORE_NAME: &[u8] = b"crossfade/core/";

/// A key that has expired, and when.
pub type Expired = (u64, u32, Key);

/// See the head of this file.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    pub data: Data,
    pub replication: Replication,
    pub connections: BTreeMap<u64, Connection>,
    pub waiting: Vec<Waiting>,
    pub log: Vec<Executed>,
    pub expired: Vec<Expired>,
    /// What connections are to be sent, in order, and which are to be closed.
    pub sent: Vec<(u64, Vec<u8>)>,
    pub closed: Vec<u64>,
    pub now_us: u64,
    /// Of its clock against that of the others.
    pub skew_ms: i64,
    pub run_id: u64,
    /// Tests of the tests: the position of a feed is stored behind its transaction and not by it.
    pub position_apart: bool,
    pub deferred: Vec<Deferred>,
    ping_due_us: u64,
    random: Random,
}

impl Server {
    pub fn new(name: &'static str, mut random: Random, kept_bytes_max: usize, skew_ms: i64) -> Self {
        let replication = Replication::new(random.clone(), kept_bytes_max, limits::SNAPSHOT_DELAY_US);
        let run_id = random.next();
        Self {
            name,
            data: Data::default(),
            replication,
            connections: BTreeMap::new(),
            waiting: Vec::new(),
            log: Vec::new(),
            expired: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            now_us: 0,
            skew_ms,
            run_id,
            position_apart: false,
            deferred: Vec::new(),
            ping_due_us: limits::REPLICATION_PING_US,
            random,
        }
    }

    pub fn now_ms(&self) -> i64 {
        limits::EPOCH_MS + (self.now_us / 1000) as i64 + self.skew_ms
    }

    pub fn open(&mut self, connection: u64) {
        self.connections.insert(connection, Connection::default());
    }

    /// The process dies and begins anew with its data: connections, clients that wait and the stream are gone.
    pub fn restart(&mut self) {
        self.connections.clear();
        self.waiting.clear();
        self.deferred.clear();
        self.sent.clear();
        self.closed.clear();
        self.replication.restart();
        self.run_id = self.random.next();
    }

    pub fn close(&mut self, connection: u64) {
        self.connections.remove(&connection);
        self.waiting.retain(|waiting| waiting.connection != connection);
        self.deferred.retain(|deferred| deferred.connection != connection);
        self.replication.detach(connection);
    }

    /// Bytes from a connection.
    pub fn input(&mut self, connection: u64, bytes: &[u8], now_us: u64) {
        self.now_us = now_us;
        let Some(own) = self.connections.get_mut(&connection) else { return };
        own.input.extend_from_slice(bytes);
        self.proceed(connection);
    }

    /// Executes what a connection has sent, until it has to wait.
    pub fn proceed(&mut self, connection: u64) {
        loop {
            let blocked = self.waiting.iter().any(|waiting| waiting.connection == connection);
            let Some(own) = self.connections.get_mut(&connection).filter(|_| !blocked) else { return };
            let Some(words) = next_request(&mut own.input) else { return };
            let reply = self.request(connection, words);
            if let Some(reply) = reply {
                self.reply(connection, &reply);
            }
        }
    }

    pub fn reply(&mut self, connection: u64, reply: &Reply) {
        let mut bytes = Vec::new();
        reply.encode_into(&mut bytes);
        self.sent.push((connection, bytes));
    }

    /// Runs commands on data for a connection, as one unit, and tells everybody.
    pub fn execute(&mut self, connection: u64, database: u32, words: &Words) -> Reply {
        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let now_ms = self.now_ms();
        let seen = seen(&self.data, database, commands::keys(&args), now_ms);
        let mut run = Run::new(&mut self.data, database, now_ms, Expiry::Lazy);
        let reply = commands::execute(&mut run, &args);
        let (effects, touched, expired) = (run.effects, run.touched, run.expired);
        let steps = vec![Step { words: words.clone(), seen }];
        self.note(connection, database, false, steps, &reply);
        self.spread(&effects, effects.len() > 1, touched, expired);
        reply
    }

    /// Keeps what was executed for a core.
    pub fn note(&mut self, connection: u64, database: u32, in_transaction: bool, steps: Vec<Step>, reply: &Reply) {
        let is_core = |own: &Connection| own.name.starts_with(CORE_NAME);
        if self.connections.get(&connection).is_some_and(is_core) {
            let (at_us, now_ms, reply) = (self.now_us, self.now_ms(), reply.clone());
            self.log.push(Executed { at_us, now_ms, database, in_transaction, steps, reply });
        }
    }

    /// Tells replicas, those that watch and those that wait.
    pub fn spread(
        &mut self,
        effects: &[(u32, Words)],
        as_transaction: bool,
        touched: Vec<(u32, Key)>,
        expired: Vec<(u32, Key)>,
    ) {
        let now_us = self.now_us;
        if let Some(key) = traced() {
            for (database, words) in effects.iter().filter(|(_, words)| words.iter().any(|word| word == key.as_bytes()))
            {
                trace(now_us, || format!("{}, database {database}: {}", self.name, line(words)));
            }
        }
        self.expired.extend(expired.into_iter().map(|(database, key)| (now_us, database, key)));
        let told = self.replication.feed(effects, as_transaction, now_us);
        self.sent.extend(told);
        for own in self.connections.values_mut() {
            own.watch_broken |= own.watched.iter().any(|watched| touched.contains(watched));
        }
        for (database, key) in touched {
            self.serve(database, &key);
        }
    }

    /// Gives those that wait for a key what has arrived for it.
    fn serve(&mut self, database: u32, key: &[u8]) {
        let mut at = 0;
        while at < self.waiting.len() {
            let has = self.data.get(database, key).is_some();
            if !has || !self.waiting[at].waits_for(database, key) {
                at += 1;
                continue;
            }
            let waiting = self.waiting.remove(at);
            let reply = self.execute(waiting.connection, waiting.database, &waiting.words);
            self.reply(waiting.connection, &reply);
            self.proceed(waiting.connection);
        }
    }

    /// Lets a blocking pop wait if there is nothing for it.
    pub fn pop_or_wait(&mut self, connection: u64, database: u32, words: Words) -> Option<Reply> {
        let keys = &words[1..words.len() - 1];
        if !is_blocking(&words[0]) || keys.iter().any(|key| self.data.get(database, key).is_some()) {
            return Some(self.execute(connection, database, &words));
        }
        let now_us = self.now_us;
        self.waiting.push(Waiting::new(connection, database, words, now_us));
        None
    }

    /// Time passes.
    pub fn tick(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.end_waits();
        for (database, key) in self.data.overdue(self.now_ms()) {
            // A server finds them one after the other.
            if self.random.once_in(limits::EXPIRY_FOUND_ONCE_IN) {
                let now_ms = self.now_ms();
                let mut run = Run::new(&mut self.data, database, now_ms, Expiry::Lazy);
                run.expire(database, &key);
                let (effects, touched, expired) = (run.effects, run.touched, run.expired);
                self.spread(&effects, false, touched, expired);
            }
        }
        let snapshots = self.replication.begin_snapshots(&self.data, now_us);
        self.sent.extend(snapshots);
        if now_us >= self.ping_due_us {
            self.ping_due_us = now_us + limits::REPLICATION_PING_US;
            let told = self.replication.ping(now_us);
            self.sent.extend(told);
        }
        self.store_deferred();
    }

    fn end_waits(&mut self) {
        let now_us = self.now_us;
        let over = |waiting: &Waiting| waiting.until_us.is_some_and(|until| until <= now_us);
        while let Some(at) = self.waiting.iter().position(over) {
            let Waiting { connection, database, words, .. } = self.waiting.remove(at);
            let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let seen = seen(&self.data, database, commands::keys(&args), self.now_ms());
            self.note(connection, database, false, vec![Step { words, seen }], &Reply::Null);
            self.sent.push((connection, b"*-1\r\n".to_vec()));
            self.proceed(connection);
        }
    }
}

/// The next whole request of what has arrived.
fn next_request(input: &mut Vec<u8>) -> Option<Words> {
    loop {
        match scan_request(&mut RequestProgress::default(), input) {
            RequestScan::Frame { len, .. } => {
                let words = wire::resp::Args::new(&input[..len]).map(<[u8]>::to_vec).collect();
                input.drain(..len);
                return Some(words);
            }
            RequestScan::Empty { len } => drop(input.drain(..len)),
            RequestScan::NeedMore { .. } | RequestScan::Invalid(_) | RequestScan::NoArgument { .. } => return None,
        }
    }
}
