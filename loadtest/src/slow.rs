//! A TCP proxy in user space that delays the traffic to a server: simulates a slow target without root.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::process::free_port;

/// Forwards 127.0.0.1:`port` to a server. Threads end when the guard is dropped and their connections close.
#[derive(Debug)]
pub struct SlowProxy {
    pub port: u16,
    delay_us: Arc<AtomicU64>,
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
        let (delay, stopped) = (Arc::clone(&delay_us), Arc::clone(&stop));
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) {
                    forward(&client, &server, &delay, &stopped);
                    forward(&server, &client, &Arc::new(AtomicU64::new(0)), &stopped);
                }
            }
        });
        Self { port, delay_us, stop, acceptor: Some(acceptor) }
    }

    /// From now on every piece sent to the server is delayed by this time.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

fn forward(from: &TcpStream, to: &TcpStream, delay_us: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let (delay_us, stop) = (Arc::clone(delay_us), Arc::clone(stop));
    // Wakes up from time to time so that it ends with the guard.
    let _ = from.set_read_timeout(Some(Duration::from_millis(100)));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        while !stop.load(Ordering::Relaxed) {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    continue;
                }
                Err(_) => break,
            };
            std::thread::sleep(Duration::from_micros(delay_us.load(Ordering::Relaxed)));
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
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
