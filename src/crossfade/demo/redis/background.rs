//! `redis-benchmark` beside the checker, in short rounds with pauses: real traffic from a real client, at a modest rate.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::process::die_with_parent;
use super::connection::Connection;

const TESTS: &str = "set,get,incr,lpush,rpush,sadd,hset,zadd";
const TESTS_COUNT: u64 = 8;
/// Requests of each test in one round; a round takes about a second.
const ROUND_REQUESTS: u64 = 2_000;
const PAUSE: Duration = Duration::from_millis(400);

#[derive(Debug)]
pub struct Background {
    stop: Arc<AtomicBool>,
    pub requests: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Background {
    pub fn start(port: u16) -> std::io::Result<Self> {
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        let thread = std::thread::Builder::new().name("redis-benchmark".to_owned());
        let thread = thread.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                round(port)?;
                counted.fetch_add(ROUND_REQUESTS * TESTS_COUNT, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            Ok(())
        })?;
        Ok(Self { stop, requests, thread: Some(thread) })
    }

    /// Stops after the round under way; returns redis-benchmark's error, if any.
    pub fn finish(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err("the load thread panicked".to_owned()),
            None => Ok(()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn round(port: u16) -> Result<(), String> {
    let (port_text, requests) = (port.to_string(), ROUND_REQUESTS.to_string());
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &port_text, "-t", TESTS, "-r", "100000", "-n", &requests]);
    command.args(["-c", "10", "-P", "4", "-d", "64", "-q"]).stdin(Stdio::null());
    die_with_parent(&mut command);
    let output = command.output().map_err(|error| format!("redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let complaint = text.split(['\n', '\r']).find(|line| line.contains("Error") || line.contains("ERR "));
    if !output.status.success() || complaint.is_some() {
        return Err(format!("redis-benchmark: {} ({})", complaint.unwrap_or("no message").trim(), output.status));
    }
    // Its only list would grow without limit; a short list is also copied quickly.
    let trimmed =
        Connection::open(port).and_then(|mut connection| connection.call(&[b"LTRIM", b"mylist", b"0", b"999"]));
    trimmed.map(drop).map_err(|error| format!("LTRIM after redis-benchmark: {error}"))
}
