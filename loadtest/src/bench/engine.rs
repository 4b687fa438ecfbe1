//! Drives connections from due times (open loop) or from replies (closed loop). One thread per engine, epoll, no locks.
//!
//! In the open loop a request is sent when it is due, however many are outstanding, and its latency counts from the due time, even when
//! the socket was full or this thread was late. In the closed loop each connection sends a batch, waits for all of it, and sends the next:
//! that measures throughput, as redis-benchmark does; its latencies do not apply to a given load.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bench::latency::Outcome;
use crate::bench::pace::{Pacer, Spacing};
use crate::bench::poll::{Interest, Poll, Ready};
use crate::bench::resp::{Replies, Reply, Workload};

/// What drives requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drive {
    /// Requests per second over all connections, and how they are spaced.
    Open {
        per_second: f64,
        spacing: Spacing,
    },
    Closed,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub address: SocketAddr,
    pub connections: usize,
    pub threads: usize,
    pub drive: Drive,
    /// Requests that are sent together on one connection. In the open loop they share a due time and the rate still counts requests.
    pub pipeline: usize,
    pub keys: u64,
    pub value_bytes: usize,
    pub read_share: f64,
    pub warmup: Duration,
    pub duration: Duration,
    pub seed: u64,
    /// Set by another thread to end the window now instead of after `duration`.
    pub stop: Arc<AtomicBool>,
}

/// How long replies are waited for after the last request.
const DRAIN_NS: u64 = 5_000_000_000;
/// Bytes rendered and not yet taken by the socket, per connection; further due requests wait as due times.
const OUT_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait without reading the clock.
const WAIT_NS_MAX: u64 = 50_000_000;

/// Runs to its end.
///
/// # Errors
/// When connections cannot be opened, are all lost, or the peer does not speak RESP.
pub fn run(settings: &Settings) -> io::Result<Outcome> {
    let threads = settings.threads.clamp(1, settings.connections.max(1));
    // All connections before any request: a slow accept must not shorten the window.
    let mut engines = Vec::new();
    for number in 0..threads {
        let connections = settings.connections / threads + usize::from(number < settings.connections % threads);
        engines.push(Engine::connect(settings, number, connections)?);
    }
    let start = Instant::now();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = engines.into_iter().map(|engine| scope.spawn(move || engine.run(start))).collect();
        for thread in running {
            outcome.add(&thread.join().expect("an engine does not panic")?);
        }
        Ok(outcome)
    })
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    replies: Replies,
    /// Due times of requests that have not been rendered.
    waiting: VecDeque<u64>,
    /// Due times of requests that are rendered and not answered.
    sent: VecDeque<u64>,
    out: Vec<u8>,
    out_at: usize,
    interest: Interest,
    alive: bool,
}

struct Engine {
    settings: Settings,
    poll: Poll,
    connections: Vec<Connection>,
    workload: Workload,
    outcome: Outcome,
    buffer: Vec<u8>,
    /// This thread's share of the connections.
    share: f64,
    seed: u64,
    from_ns: u64,
    end_ns: u64,
    alive: usize,
}

impl Engine {
    fn connect(settings: &Settings, number: usize, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for token in 0..count {
            let stream = TcpStream::connect_timeout(&settings.address, CONNECT_PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, token)?;
            connections.push(Connection {
                stream,
                replies: Replies::default(),
                waiting: VecDeque::new(),
                sent: VecDeque::new(),
                out: Vec::new(),
                out_at: 0,
                interest: Interest::Read,
                alive: true,
            });
        }
        let seed = settings.seed.wrapping_mul(31).wrapping_add(number as u64);
        let (from, end) = (settings.warmup, settings.warmup + settings.duration);
        Ok(Self {
            poll,
            connections,
            workload: Workload::new(settings.keys, settings.value_bytes, settings.read_share, seed ^ 0x5eed),
            outcome: Outcome { seconds: settings.duration.as_secs_f64(), ..Outcome::default() },
            buffer: vec![0; READ_BYTES],
            share: count as f64 / settings.connections as f64,
            seed,
            from_ns: from.as_nanos() as u64,
            end_ns: end.as_nanos() as u64,
            alive: count,
            settings: settings.clone(),
        })
    }

    fn run(mut self, start: Instant) -> io::Result<Outcome> {
        let clock = || start.elapsed().as_nanos() as u64;
        let pipeline = self.settings.pipeline.max(1);
        let mut pacer = match self.settings.drive {
            Drive::Open { per_second, spacing } => {
                // Threads begin at different points of the same gap.
                Some(Pacer::new(spacing, per_second * self.share / pipeline as f64, 0, self.seed))
            }
            Drive::Closed => None,
        };
        if pacer.is_none() {
            for token in 0..self.connections.len() {
                self.due(token, clock(), pipeline);
                self.flush(token, clock())?;
            }
        }
        let (mut turn, mut ready, mut touched) = (0, Vec::<Ready>::new(), Vec::new());
        loop {
            let now = clock();
            if now < self.end_ns && self.settings.stop.load(Ordering::Relaxed) {
                self.end_at(now);
            }
            if let Some(pacer) = &mut pacer {
                while let Some(due) = pacer.take(now, self.end_ns) {
                    turn = self.next_alive(turn);
                    self.due(turn, due, pipeline);
                    touched.push(turn);
                }
                for token in touched.drain(..) {
                    self.flush(token, now)?;
                }
            }
            if now >= self.end_ns && (self.idle() || now >= self.end_ns + DRAIN_NS) {
                break;
            }
            let until = match &pacer {
                Some(pacer) if now < self.end_ns => pacer.due_ns().min(self.end_ns),
                _ => now + WAIT_NS_MAX,
            };
            self.poll.wait(until.saturating_sub(clock()).min(WAIT_NS_MAX), &mut ready)?;
            for event in &ready {
                if event.writable {
                    self.flush(event.token, clock())?;
                }
                if event.readable {
                    self.read(event.token, &clock)?;
                }
                if pacer.is_none() && self.connections[event.token].is_idle() {
                    let now = clock();
                    if now < self.end_ns {
                        self.due(event.token, now, pipeline);
                        self.flush(event.token, now)?;
                    }
                }
            }
        }
        self.give_up(clock());
        Ok(self.outcome)
    }

    /// Ends early. A stop within the warm-up leaves an empty window.
    fn end_at(&mut self, now_ns: u64) {
        self.end_ns = now_ns.max(self.from_ns + 1);
        self.outcome.seconds = (self.end_ns - self.from_ns) as f64 / 1e9;
    }

    fn next_alive(&self, turn: usize) -> usize {
        let count = self.connections.len();
        (1..=count).map(|step| (turn + step) % count).find(|token| self.connections[*token].alive).unwrap_or(turn)
    }

    fn idle(&self) -> bool {
        self.connections.iter().all(Connection::is_idle)
    }

    fn due(&mut self, token: usize, due_ns: u64, count: usize) {
        if self.in_window(due_ns) {
            self.outcome.due += count as u64;
        }
        self.connections[token].waiting.extend(std::iter::repeat_n(due_ns, count));
    }

    fn in_window(&self, ns: u64) -> bool {
        (self.from_ns..self.end_ns).contains(&ns)
    }

    /// Renders the due requests and writes what the socket takes.
    fn flush(&mut self, token: usize, now_ns: u64) -> io::Result<()> {
        let window = self.from_ns..self.end_ns;
        let connection = &mut self.connections[token];
        if !connection.alive {
            return Ok(());
        }
        loop {
            while connection.out.len() - connection.out_at < OUT_BYTES_MAX
                && let Some(due) = connection.waiting.pop_front()
            {
                self.workload.next(&mut connection.out);
                connection.sent.push_back(due);
                if window.contains(&due) {
                    self.outcome.lateness.record(due, now_ns);
                }
            }
            if connection.out_at == connection.out.len() {
                connection.out.clear();
                connection.out_at = 0;
                return connection.want(&self.poll, token, Interest::Read);
            }
            match connection.stream.write(&connection.out[connection.out_at..]) {
                Ok(0) => return self.lost(token, "the connection takes no more", now_ns),
                Ok(count) => connection.out_at += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.out.drain(..connection.out_at);
                    connection.out_at = 0;
                    return connection.want(&self.poll, token, Interest::ReadWrite);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lost(token, &error.to_string(), now_ns),
            }
        }
    }

    fn read(&mut self, token: usize, clock: &impl Fn() -> u64) -> io::Result<()> {
        loop {
            let connection = &mut self.connections[token];
            if !connection.alive {
                return Ok(());
            }
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.lost(token, "the server closed the connection", clock()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(token, &error.to_string(), clock()),
            };
            let now = clock();
            let (window, outcome, sent) = (self.from_ns..self.end_ns, &mut self.outcome, &mut connection.sent);
            let mut unasked = false;
            let fed = connection.replies.feed(&self.buffer[..count], |reply| {
                let Some(due) = sent.pop_front() else {
                    unasked = true;
                    return;
                };
                outcome.answered += u64::from(window.contains(&now));
                if window.contains(&due) {
                    outcome.latencies.record(due, now);
                    outcome.misses += u64::from(reply == Reply::Null);
                }
                outcome.errors += u64::from(reply == Reply::Error);
            });
            if let Err(bad) = fed {
                return Err(io::Error::new(io::ErrorKind::InvalidData, bad.0));
            }
            if unasked {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to no request"));
            }
            if outcome.first_error.is_none() {
                outcome.first_error.clone_from(&connection.replies.first_error);
            }
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// The connection is lost: its outstanding requests count as errors, with the time waited. Other connections continue.
    fn lost(&mut self, token: usize, why: &str, now_ns: u64) -> io::Result<()> {
        let window = self.from_ns..self.end_ns;
        let connection = &mut self.connections[token];
        connection.alive = false;
        // epoll would report a closed socket for ever.
        self.poll.remove(&connection.stream)?;
        let owed: Vec<u64> = connection.sent.drain(..).chain(connection.waiting.drain(..)).collect();
        self.outcome.errors += owed.len() as u64;
        self.outcome.connections_lost += 1;
        owed.into_iter().filter(|due| window.contains(due)).for_each(|due| self.outcome.latencies.record(due, now_ns));
        if self.outcome.first_error.is_none() {
            self.outcome.first_error = Some(why.to_owned());
        }
        self.alive -= 1;
        if self.alive == 0 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("every connection was lost: {why}")));
        }
        Ok(())
    }

    /// Unanswered requests count with the time waited.
    fn give_up(&mut self, now_ns: u64) {
        let window = self.from_ns..self.end_ns;
        for connection in &mut self.connections {
            for due in connection.sent.drain(..).chain(connection.waiting.drain(..)).filter(|due| window.contains(due))
            {
                self.outcome.unanswered += 1;
                self.outcome.latencies.record(due, now_ns);
            }
        }
    }
}

impl Connection {
    fn is_idle(&self) -> bool {
        !self.alive || (self.sent.is_empty() && self.waiting.is_empty())
    }

    fn want(&mut self, poll: &Poll, token: usize, interest: Interest) -> io::Result<()> {
        if self.interest != interest {
            self.interest = interest;
            poll.change(&self.stream, token, interest)?;
        }
        Ok(())
    }
}

/// Writes `keys` keys of `value_bytes` each, so that reads find something. Not measured.
///
/// # Errors
/// The operating system's, or the server's refusal.
pub fn fill(address: SocketAddr, keys: u64, value_bytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let workload = Workload::new(keys, value_bytes, 0.0, 0);
    let batch = (OUT_BYTES_MAX / (value_bytes + 64)).clamp(1, 2000) as u64;
    let (mut replies, mut buffer, mut out) = (Replies::default(), vec![0; 64 << 10], Vec::new());
    for first in (0..keys).step_by(batch as usize) {
        let last = (first + batch).min(keys);
        out.clear();
        (first..last).for_each(|key| workload.set(key, &mut out));
        stream.write_all(&out)?;
        let mut owed = last - first;
        while owed > 0 {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            replies.feed(&buffer[..count], |_| owed -= 1).map_err(|bad| io::Error::other(bad.0))?;
        }
        if let Some(error) = &replies.first_error {
            return Err(io::Error::other(format!("SET is refused: {error}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
