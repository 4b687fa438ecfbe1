//! A source with very many keys and with very large values, moved by the replication feed while all of them are being written: how long each step takes,
//! and how much memory Crossfade needs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rig::{MIGRATION, REPLICATION, Rig, Writers, losses};
use crate::server::{Kind, RealServer, run, try_connect};

/// How much the source holds at first.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Keys of 16 bytes each.
    pub keys: u64,
    /// Elements of each of a hash, a list, a sorted set and a stream.
    pub elements: u64,
}

/// What was seen.
#[derive(Debug)]
pub struct Figures {
    size: Size,
    first_copy: Duration,
    until_flip: Duration,
    pause_us: u64,
    writes: u64,
    large_writes: u64,
    /// Of Crossfade: the most it ever held.
    memory_bytes: u64,
    source_p99_us: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys and 4 values of {} elements moved in {:.1} s ({:.0} keys/s of the small ones), verified and flipped {:.1} s later, pause {} us; {} writes \
             acknowledged meanwhile and {} to the large values; source p99 {} us; Crossfade held {} MB at most",
            self.size.keys,
            self.size.elements,
            self.first_copy.as_secs_f64(),
            self.size.keys as f64 / self.first_copy.as_secs_f64(),
            self.until_flip.as_secs_f64(),
            self.pause_us,
            self.writes,
            self.large_writes,
            self.source_p99_us,
            self.memory_bytes / 1_000_000,
        )
    }
}

/// Each step of so large a migration may take as long as this.
const PATIENCE: Duration = Duration::from_secs(1200);

const LARGE: [&str; 4] = ["large:hash", "large:list", "large:zset", "large:stream"];

/// Moves such a source.
///
/// # Panics
/// When a step takes too long, something is lost, or both servers differ at the end.
#[must_use]
pub fn large(size: Size) -> Figures {
    let options = ["--enable-debug-command", "local", "--repl-backlog-size", "256mb"];
    let (source, target) =
        (RealServer::start_with(Kind::Redis, &options), RealServer::start_with(Kind::Redis, &options));
    fill(&source, size);
    let rig = Rig { feed: REPLICATION, ..Rig::of(source, target) };
    let writers = Writers::start(rig.proxy.port, 3);
    let growing = Growing::start(rig.proxy.port, size.elements);
    rig.create();
    let began = Instant::now();
    rig.advance_to("compare");
    let copied = |now: &serde_json::Value| now["backfill"]["complete"] == true;
    rig.proxy.wait(MIGRATION, "everything to be copied", PATIENCE, copied);
    let first_copy = began.elapsed();
    let source_p99_us = rig.proxy.show(MIGRATION)["lane"]["source_p99_us"].as_u64().unwrap_or(0);
    rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "test"], PATIENCE);
    rig.approve("migrate");
    rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], PATIENCE);
    rig.proxy.wait(MIGRATION, "the target to be the authority", PATIENCE, |now| now["authority"] == "target");
    let until_flip = began.elapsed() - first_copy;
    // Known when the clients have been released.
    let paused = |now: &serde_json::Value| now["flips"][0]["pause_us"].as_u64().is_some_and(|pause_us| pause_us > 0);
    let now = rig.proxy.wait(MIGRATION, "the clients to be released", PATIENCE, paused);
    let pause_us = now["flips"][0]["pause_us"].as_u64().unwrap_or(0);
    writers.progress(100);
    let (large_writes, known) = (growing.finish(), writers.finish());
    let writes = known.iter().map(|writer| writer.tokens.len() as u64 * 2).sum();
    assert_eq!(losses(&mut rig.target.connection(), &known), Vec::<String>::new());
    assert_equal(&rig);
    let memory_bytes = rig.proxy.pid().map_or(0, memory_high_water);
    Figures { size, first_copy, until_flip, pause_us, writes, large_writes, memory_bytes, source_p99_us }
}

fn fill(source: &RealServer, size: Size) {
    let mut connection = source.connection();
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut run = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.exec(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    };
    run(&["DEBUG", "POPULATE", &size.keys.to_string(), "key", "16"]);
    let bodies = [
        "redis.call('HSET',KEYS[1],'field:'..i,i)",
        "redis.call('RPUSH',KEYS[1],'element:'..i)",
        "redis.call('ZADD',KEYS[1],i,'member:'..i)",
        "redis.call('XADD',KEYS[1],i..'-1','n',i)",
    ];
    for (key, body) in LARGE.iter().zip(bodies) {
        run(&["EVAL", &format!("for i=1,ARGV[1] do {body} end"), "1", key, &size.elements.to_string()]);
    }
}

/// By the servers' own digests: whatever Crossfade thinks of it.
fn assert_equal(rig: &Rig) {
    rig.drained();
    let [mut source, mut target] = [&rig.source, &rig.target].map(RealServer::connection);
    for connection in [&mut source, &mut target] {
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    let question = format!("DEBUG DIGEST-VALUE {} key:0 key:77", LARGE.join(" "));
    let ask = |connection: &mut redis::Connection| run::<Vec<String>>(connection, &question);
    assert_eq!(ask(&mut source), ask(&mut target), "{question}");
    let names = |connection: &mut redis::Connection| -> u64 {
        // Crossfade keeps its position on the shadow.
        let all: u64 = run(connection, "DBSIZE");
        all - run::<Vec<String>>(connection, "KEYS __crossfade:*").len() as u64
    };
    assert_eq!(names(&mut source), names(&mut target), "keys");
}

/// The most memory that a process ever held, bytes.
fn memory_high_water(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A client that writes to the large values.
struct Growing {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Growing {
    fn start(port: u16, elements: u64) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                let n = elements + counted.load(Ordering::Relaxed);
                let Some(open) = &mut connection else {
                    connection = try_connect(port).ok();
                    continue;
                };
                let written = redis::pipe()
                    .cmd("HSET")
                    .arg(LARGE[0])
                    .arg(format!("field:{}", n % elements))
                    .arg(n)
                    .ignore()
                    .cmd("RPUSH")
                    .arg(LARGE[1])
                    .arg(format!("element:{n}"))
                    .ignore()
                    .cmd("LPOP")
                    .arg(LARGE[1])
                    .ignore()
                    .cmd("ZADD")
                    .arg(LARGE[2])
                    .arg(n)
                    .arg(format!("member:{}", n % elements))
                    .ignore()
                    .cmd("XADD")
                    .arg(LARGE[3])
                    .arg("*")
                    .arg("n")
                    .arg(n)
                    .ignore()
                    .cmd("GET")
                    .arg(format!("key:{n}"))
                    .ignore()
                    .exec(open);
                match written {
                    Ok(()) => drop(counted.fetch_add(5, Ordering::Relaxed)),
                    Err(_) => connection = None,
                }
            }
        });
        Self { stop, count, thread: Some(thread) }
    }

    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a client");
        }
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
