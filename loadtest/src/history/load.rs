//! Clients that send random commands: single, in pipelines, in blocks, in other databases, and wait now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Random;
use super::commands::{COMMANDS, FEED_COMMANDS, RARE, WAITS, is_blocking, is_redis_own, request};
use super::judge::Judge;
use crate::server::{connect, try_connect};
use crate::wait::until;

/// Databases besides 0 in which clients work.
const OTHERS: &[u64] = &[1, 2, 9, 10, 11];
/// A database that is flushed.
const FLUSHED: u64 = 9;

/// What clients choose from.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub clients: u64,
    /// Of each type.
    pub keys: u64,
    /// Between two requests of a client at most: a server that is busy all the time is never caught up with.
    pause_max: Duration,
    /// Also what only a replication feed follows.
    feed: bool,
}

impl Mix {
    /// What a lane follows too.
    pub const LANE: Self = Self { clients: 8, keys: 12, pause_max: Duration::ZERO, feed: false };
    /// Eleven types and the keys on which clients wait: 501 hot keys in database 0.
    pub const FEED: Self = Self { clients: 24, keys: 45, pause_max: Duration::from_millis(40), feed: true };

    /// One command that does not wait long.
    pub fn pick(&self, random: &mut Random) -> &'static str {
        let all = COMMANDS.len() + if self.feed { FEED_COMMANDS.len() } else { 0 };
        let at = random.below(all as u64) as usize;
        COMMANDS.get(at).copied().unwrap_or_else(|| FEED_COMMANDS[at - COMMANDS.len()])
    }

    /// A command with everything chosen.
    pub fn command(&self, random: &mut Random) -> redis::Cmd {
        let template = self.pick(random);
        request(random, template, self.keys)
    }

    fn command_for_a_block(&self, random: &mut Random) -> redis::Cmd {
        let template = loop {
            let candidate = self.pick(random);
            if !is_blocking(candidate) {
                break candidate;
            }
        };
        request(random, template, self.keys)
    }

    /// Sends `count` commands directly to a server, none of which waits.
    pub fn fill(&self, random: &mut Random, count: u64, direct: &mut redis::Connection) {
        for _ in 0..count {
            // A command that does not fit its key is refused.
            let _ = self.command_for_a_block(random).query::<redis::Value>(direct);
        }
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<u64, String>>>,
}

impl Load {
    /// `tolerant`: connections may be lost, and are made again.
    #[must_use]
    pub fn start(mix: Mix, port: u16, reference_port: u16, seed: u64, tolerant: bool) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..mix.clients)
            .map(|worker| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    let judge = Judge::new(reference_port, worker);
                    let client = Client { mix, random: Random(seed ^ (worker << 32)), judge, port, tolerant };
                    client.work(&stop, &done)
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    /// Waits until this many more commands were answered, or a client has failed.
    pub fn progress(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        until("random commands", Duration::from_secs(60), || {
            let now = self.done.load(Ordering::Relaxed);
            if now >= goal || self.has_failed() { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Number of commands, and of those whose replies were checked.
    ///
    /// # Panics
    /// When a client got a wrong answer, or an error that a Redis would not give.
    pub fn finish(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let judged = self
            .threads
            .drain(..)
            .map(|thread| thread.join().expect("no panic").expect("no answer and no error a Redis would not give"))
            .sum();
        (self.done.load(Ordering::Relaxed), judged)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    mix: Mix,
    random: Random,
    judge: Judge,
    port: u16,
    tolerant: bool,
}

impl Client {
    /// How many replies were checked.
    fn work(mut self, stop: &AtomicBool, done: &AtomicU64) -> Result<u64, String> {
        let mut connection = connect(self.port);
        while !stop.load(Ordering::Relaxed) {
            match self.step(&mut connection)? {
                Ok(()) => {}
                Err(error) if is_redis_own(&error) => {}
                Err(_) if self.tolerant => {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(again) = try_connect(self.port) {
                            connection = again;
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
            done.fetch_add(1, Ordering::Relaxed);
            if let Some(bound) = std::num::NonZero::new(self.mix.pause_max.as_micros() as u64) {
                std::thread::sleep(Duration::from_micros(self.random.below(bound.get())));
            }
        }
        Ok(self.judge.judged())
    }

    /// The outer error is a wrong answer.
    fn step(&mut self, connection: &mut redis::Connection) -> Result<redis::RedisResult<()>, String> {
        let (mix, random) = (self.mix, &mut self.random);
        if mix.feed {
            match random.below(8000) {
                0..=1 => return Ok(rare(random, connection)),
                2..=160 => {
                    let template = random.pick(WAITS);
                    return Ok(request(random, template, mix.keys).exec(connection));
                }
                161..=600 => return Ok(elsewhere(mix, random, connection)),
                601..=800 => return Ok(watch(mix, random, connection)),
                _ => {}
            }
        }
        match random.below(10) {
            0 => {
                let mut block = redis::pipe();
                block.atomic();
                for _ in 0..1 + random.below(4) {
                    block.add_command(mix.command_for_a_block(random));
                }
                Ok(block.query::<redis::Value>(connection).map(drop))
            }
            1 | 2 => {
                let mut pipe = redis::pipe();
                for _ in 0..1 + random.below(12) {
                    pipe.add_command(mix.command(random));
                }
                Ok(pipe.query::<redis::Value>(connection).map(drop))
            }
            3..=5 => self.judge.ask(random, &mix, connection),
            _ => Ok(mix.command(random).query::<redis::Value>(connection).map(drop)),
        }
    }
}

/// Commands in another database, in a pipeline, as a block, or each by itself.
fn elsewhere(mix: Mix, random: &mut Random, connection: &mut redis::Connection) -> redis::RedisResult<()> {
    let mut pipe = redis::pipe();
    for _ in 0..1 + random.below(6) {
        pipe.add_command(mix.command_for_a_block(random));
    }
    let way = random.below(3);
    if way == 0 {
        pipe.atomic();
    }
    redis::cmd("SELECT").arg(random.pick(OTHERS)).exec(connection)?;
    let outcome =
        if way < 2 { pipe.query::<redis::Value>(connection).map(drop) } else { one_by_one(&pipe, connection) };
    match outcome {
        Err(error) if !is_redis_own(&error) => Err(error),
        Ok(()) | Err(_) => redis::cmd("SELECT").arg(0).exec(connection),
    }
}

fn one_by_one(pipe: &redis::Pipeline, connection: &mut redis::Connection) -> redis::RedisResult<()> {
    for command in pipe.cmd_iter() {
        match command.query::<redis::Value>(connection) {
            Err(error) if !is_redis_own(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn rare(random: &mut Random, connection: &mut redis::Connection) -> redis::RedisResult<()> {
    let template = random.pick(RARE);
    let mut pipe = redis::pipe();
    pipe.cmd("SELECT").arg(FLUSHED).add_command(request(random, template, 1)).cmd("SELECT").arg(0);
    pipe.query::<redis::Value>(connection).map(drop)
}

/// A block that depends on a key that is watched.
fn watch(mix: Mix, random: &mut Random, connection: &mut redis::Connection) -> redis::RedisResult<()> {
    let key = format!("s:{}", random.below(mix.keys));
    redis::cmd("WATCH").arg(&key).exec(connection)?;
    let held: Option<Vec<u8>> = redis::cmd("GET").arg(&key).query(connection)?;
    let mut block = redis::pipe();
    block.atomic();
    block.cmd("SET").arg(&key).arg(format!("after{}", held.map_or(0, |held| held.len())));
    block.add_command(mix.command_for_a_block(random));
    block.query::<redis::Value>(connection).map(drop)
}
