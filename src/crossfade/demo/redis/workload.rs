//! The application of the demo: threads that write through the proxy, remember every acknowledgement and check every reply.
//!
//! Any reply other than the right one is reported at once; what was acknowledged is read back at the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::random::Random;
use super::connection::Connection;
use super::model::{ACCOUNTS, ACCOUNTS_SUM, Expect, Model, Step, Volatile, accounts_agree};
use wire::resp::value::{Value, brief_bytes};

/// Findings kept as text; the rest are counted.
const NOTES_MAX: usize = 5;
/// Pause between two pipelines of a worker: a steady load, not a benchmark.
const PACE: Duration = Duration::from_millis(2);
/// A key may be read this long around its deadline in either state: clocks are read on both sides of a socket.
const DEADLINE_SLACK_MS: u64 = 100;

/// Counters of all threads, shown live.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: AtomicU64,
    pub writes_acknowledged: AtomicU64,
    /// Error replies and lost connections.
    pub errors: AtomicU64,
    /// Replies that were wrong.
    pub wrong: AtomicU64,
    pub longest_wait_us: AtomicU64,
}

/// One worker's result: its model and its errors.
#[derive(Debug)]
pub struct Finished {
    pub model: Model,
    pub notes: Vec<String>,
    /// The worker met an error and stopped: whether its last writes took effect is unknown, so its keys are not checked.
    pub retired: bool,
}

/// The running workers; stopped when dropped.
#[derive(Debug)]
pub struct Workload {
    threads: Vec<JoinHandle<Finished>>,
    stop: Arc<AtomicBool>,
    pub tally: Arc<Tally>,
}

impl Workload {
    pub fn start(port: u16, workers: usize, seed: u64, ttl_grace_ms: u64) -> io::Result<Self> {
        let mut connection = Connection::open(port)?;
        for (account, sum) in ACCOUNTS.iter().zip([ACCOUNTS_SUM, 0]) {
            let reply = connection.call(&[b"SET", account.as_bytes(), sum.to_string().as_bytes()])?;
            if let Value::Error(_) = reply {
                return Err(io::Error::other(reply.brief()));
            }
        }
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let mut threads = Vec::new();
        for worker in 0..workers {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            let connection = Connection::open(port)?;
            let mut worker = Worker {
                connection,
                model: Model::new(worker),
                random: Random::new(seed + worker as u64),
                tally,
                notes: vec![],
                errors: 0,
                ttl_grace_ms,
            };
            let thread = std::thread::Builder::new().name(format!("checker-{}", worker.model.worker));
            threads.push(thread.spawn(move || {
                let retired = !worker.run(&stop);
                Finished { model: worker.model, notes: worker.notes, retired }
            })?);
        }
        Ok(Self { threads, stop, tally })
    }

    /// Stops after every outstanding pipeline.
    pub fn finish(mut self) -> Result<Vec<Finished>, String> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a checker thread panicked".to_owned())).collect()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Worker {
    connection: Connection,
    model: Model,
    random: Random,
    tally: Arc<Tally>,
    notes: Vec<String>,
    errors: u64,
    ttl_grace_ms: u64,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Worker {
    /// False when it had to stop early.
    fn run(&mut self, stop: &AtomicBool) -> bool {
        while !stop.load(Ordering::Relaxed) {
            let mut steps = Vec::new();
            for _ in 0..=self.random.below(8) {
                self.model.draw(&mut self.random, now_ms(), &mut steps);
            }
            let started = Instant::now();
            let errors_before = self.errors;
            if let Err(error) = self.pipeline(&steps) {
                self.error(format!("connection lost: {error}"));
            }
            if self.errors > errors_before {
                return false;
            }
            self.tally.longest_wait_us.fetch_max(started.elapsed().as_micros() as u64, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
        true
    }

    fn pipeline(&mut self, steps: &[Step]) -> io::Result<()> {
        let requests: Vec<u8> = steps.iter().flat_map(|step| step.request.iter().copied()).collect();
        let sent_ms = now_ms();
        self.connection.send(&requests)?;
        for step in steps {
            let reply = self.connection.receive()?;
            self.tally.requests.fetch_add(1, Ordering::Relaxed);
            if let Some(error) = reply.error() {
                self.error(format!("{} gave {error}", brief_bytes(&step.request)));
            } else if let Err(why) = self.check(&step.expect, &reply, sent_ms) {
                self.tally.wrong.fetch_add(1, Ordering::Relaxed);
                self.note(format!("{} gave {}: {why}", brief_bytes(&step.request), reply.brief()));
            } else if step.write {
                self.tally.writes_acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn error(&mut self, text: String) {
        self.errors += 1;
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
        self.note(text);
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("checker {}: {text}", self.model.worker));
        }
    }

    fn check(&mut self, expect: &Expect, reply: &Value, sent_ms: u64) -> Result<(), String> {
        match expect {
            Expect::Is(value) if value == reply => Ok(()),
            Expect::Is(value) => Err(format!("expected {}", value.brief())),
            Expect::EntryId { stream, token } => {
                let entries = &mut self.model.streams[*stream];
                let id = reply.bytes().unwrap_or_default().to_vec();
                if entry_order(&id) <= entries.last().and_then(|(last, _)| entry_order(last)) {
                    return Err("the id does not grow".to_owned());
                }
                entries.push((id, token.clone()));
                Ok(())
            }
            Expect::Accounts if accounts_agree(reply) => Ok(()),
            Expect::Accounts => Err(format!("the accounts do not sum to {ACCOUNTS_SUM}")),
            Expect::Shared if reply.integer().is_some_and(|n| n > 0) => Ok(()),
            Expect::Shared => Err("expected a positive number".to_owned()),
            Expect::VolatileSet(volatile) => {
                volatile.acked_ms.store(now_ms(), Ordering::Relaxed);
                if *reply == Value::Simple(b"OK".to_vec()) { Ok(()) } else { Err("expected OK".to_owned()) }
            }
            Expect::VolatileGet(volatile) => check_volatile(volatile, reply, sent_ms, self.ttl_grace_ms),
        }
    }
}

fn check_volatile(volatile: &Volatile, reply: &Value, sent_ms: u64, ttl_grace_ms: u64) -> Result<(), String> {
    match reply {
        Value::Null if now_ms() + DEADLINE_SLACK_MS < volatile.sent_ms + volatile.ttl_ms => {
            Err("expired before its time".to_owned())
        }
        Value::Null => Ok(()),
        Value::Bulk(value) if *value != volatile.value => Err("an older value".to_owned()),
        Value::Bulk(_) => {
            let acked_ms = volatile.acked_ms.load(Ordering::Relaxed);
            let latest = acked_ms + volatile.ttl_ms + ttl_grace_ms + DEADLINE_SLACK_MS;
            if acked_ms != 0 && sent_ms > latest { Err("outlived its time".to_owned()) } else { Ok(()) }
        }
        other => Err(other.brief()),
    }
}

/// "1700000000000-3" as numbers, so that ids compare as Redis compares them.
fn entry_order(id: &[u8]) -> Option<(u64, u64)> {
    let (ms, sequence) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}
