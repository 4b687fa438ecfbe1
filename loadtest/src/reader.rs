//! Clients that read keys of every type in every way, and count error replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::server::try_connect;

/// Reads of what [`crate::rig::fill`] writes; `{n}` stands for its number.
const READS: &[&str] = &[
    "GET string:{n}",
    "GET page:{n}",
    "STRLEN page:{n}",
    "GET volatile:{n}",
    "PTTL volatile:{n}",
    "TTL volatile:{n}",
    "PEXPIRETIME volatile:{n}",
    "LRANGE list:{n} 0 -1",
    "LLEN list:{n}",
    "SMEMBERS set:{n}",
    "SMEMBERS intset:{n}",
    "SCARD set:{n}",
    "HGETALL hash:{n}",
    "HKEYS hash:{n}",
    "HVALS hash:{n}",
    "TTL hash:{n}",
    "ZRANGE zset:{n} 0 -1 WITHSCORES",
    "ZSCORE zset:{n} a",
    "XRANGE stream:{n} - +",
    "TYPE list:{n}",
    "EXISTS string:{n} set:{n}",
    "SUNION set:{n} intset:{n}",
    "MGET string:{n} page:{n}",
    "GET absent:{n}",
    // An error on both sides, on purpose.
    "LLEN string:{n}",
];

/// Stopped when dropped.
#[derive(Debug)]
pub struct Readers {
    stop: Arc<AtomicBool>,
    pub answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Readers {
    /// `rounds` is what the servers were filled with.
    #[must_use]
    pub fn start(port: u16, count: usize, rounds: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count)
            .map(|reader| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                std::thread::spawn(move || read(port, reader, rounds, &stop, &answered))
            })
            .collect();
        Self { stop, answered, threads }
    }

    /// What went wrong: connection errors, and unexpected error replies.
    ///
    /// # Panics
    /// When a reader panicked.
    #[must_use]
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).flat_map(|thread| thread.join().expect("a reader")).collect()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(port: u16, reader: usize, rounds: usize, stop: &AtomicBool, answered: &AtomicU64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut connection = match try_connect(port) {
        Ok(connection) => connection,
        Err(error) => return vec![error.to_string()],
    };
    let mut number = reader;
    while !stop.load(Ordering::Relaxed) && wrong.len() < 5 {
        let mut pipe = redis::pipe();
        // Several at once, so that the order of replies is tested.
        for at in 0..8 {
            number += 7;
            let line = READS[(number + at) % READS.len()].replace("{n}", &(number % rounds).to_string());
            let mut words = line.split(' ');
            let command = pipe.cmd(words.next().unwrap_or_default());
            words.for_each(|word| {
                command.arg(word);
            });
        }
        pipe.ignore_errors();
        match pipe.query::<Vec<redis::RedisResult<redis::Value>>>(&mut connection) {
            Ok(replies) => {
                answered.fetch_add(replies.len() as u64, Ordering::Relaxed);
                let unexpected = |error: &redis::RedisError| !error.to_string().contains("WRONGTYPE");
                wrong.extend(replies.into_iter().filter_map(Result::err).filter(unexpected).map(|e| e.to_string()));
            }
            Err(error) => {
                wrong.push(error.to_string());
                return wrong;
            }
        }
    }
    wrong
}
