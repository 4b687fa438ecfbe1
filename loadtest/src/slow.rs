//! A TCP proxy in user space that delays the traffic to a server: simulates a slow target without root.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::process::free_port;

/// Forwards 127.0.0.1:`port` to a server. Threads end when the guard is dropped and their connections close.
#[derive(Debug)]
pub struct SlowProxy {
    pub port: u16,
    delay_us: Arc<AtomicU64>,
    /// How often everything on its way was lost.
    losses: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    acceptor: Option<std::thread::JoinHandle<()>>,
}

impl SlowProxy {
    /// # Panics
    /// When the port cannot be bound.
    #[must_use]
    pub fn start(server_port: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind");
        let (delay_us, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let losses = Arc::new(AtomicU64::new(0));
        let (delay, lost, stopped) = (Arc::clone(&delay_us), Arc::clone(&losses), Arc::clone(&stop));
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) {
                    forward(&client, &server, &delay, &lost, &stopped);
                    forward(&server, &client, &Arc::new(AtomicU64::new(0)), &lost, &stopped);
                }
            }
        });
        Self { port, delay_us, losses, stop, acceptor: Some(acceptor) }
    }

    /// From now on every piece sent to the server is delayed by this time.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Every connection ends, and what waits is lost with it.
    pub fn lose(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pieces that wait, at most; the sender waits for more room.
const PIECES_MAX: usize = 4096;
/// It is seen within this time that it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// The delay may change while pieces wait.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A piece is handed over when it is as old as the delay is then, so that a delay costs no throughput.
fn forward(
    from: &TcpStream,
    to: &TcpStream,
    delay_us: &Arc<AtomicU64>,
    losses: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) {
    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
    let (delay_us, losses, stop) = (Arc::clone(delay_us), Arc::clone(losses), Arc::clone(stop));
    let before = losses.load(Ordering::Relaxed);
    std::thread::spawn(move || {
        let ends = || stop.load(Ordering::Relaxed) || losses.load(Ordering::Relaxed) != before;
        // Whatever ends it, both connections end.
        let _ = hand_over(&from, &to, &delay_us, ends);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

fn hand_over(
    mut from: &TcpStream,
    mut to: &TcpStream,
    delay_us: &AtomicU64,
    ends: impl Fn() -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut ended = false;
    from.set_read_timeout(Some(IDLE))?;
    while !ends() {
        if ended && waiting.is_empty() {
            break;
        }
        let was_idle = waiting.is_empty();
        if ended || waiting.len() >= PIECES_MAX {
            std::thread::sleep(LOOK_AGAIN);
        } else {
            match from.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(read) => waiting.push_back((Instant::now(), buffer[..read].to_vec())),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        let delay = Duration::from_micros(delay_us.load(Ordering::Relaxed));
        while let Some((_, piece)) = waiting.pop_front_if(|(since, _)| since.elapsed() >= delay) {
            to.write_all(&piece)?;
        }
        if waiting.is_empty() != was_idle {
            from.set_read_timeout(Some(if waiting.is_empty() { IDLE } else { LOOK_AGAIN }))?;
        }
    }
    Ok(())
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
