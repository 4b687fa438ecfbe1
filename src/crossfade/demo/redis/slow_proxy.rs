//! A TCP proxy that can slow down the traffic to a server: simulates an overloaded target without touching it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a forwarding thread checks whether its guard was dropped.
const STOP_CHECK: Duration = Duration::from_millis(100);
const PIECE_BYTES: usize = 256 * 1024;

/// Threads end when the guard is dropped; its connections close with it.
#[derive(Debug)]
pub struct SlowProxy {
    pub port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    delay_us: AtomicU64,
    stop: AtomicBool,
}

impl SlowProxy {
    /// Forwards a free port of 127.0.0.1 to `server_port`.
    pub fn start(server_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let of_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new().name("slow-proxy".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                if of_acceptor.stop.load(Ordering::Relaxed) {
                    return;
                }
                // If the server cannot be reached, the client's connection ends.
                let _ = connect(&client, server_port, &of_acceptor);
            }
        })?;
        Ok(Self { port, shared, acceptor: Some(acceptor) })
    }

    /// From now on every piece sent to the server is delayed by this time.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn connect(client: &TcpStream, server_port: u16, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server_port))?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STOP_CHECK))?;
    }
    forward(client.try_clone()?, server.try_clone()?, Arc::clone(shared), true)?;
    forward(server, client.try_clone()?, Arc::clone(shared), false)
}

fn forward(mut from: TcpStream, mut to: TcpStream, shared: Arc<Shared>, slowed: bool) -> io::Result<()> {
    std::thread::Builder::new().name("slow-proxy".to_owned()).spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while !shared.stop.load(Ordering::Relaxed) {
            let read = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if slowed {
                std::thread::sleep(Duration::from_micros(shared.delay_us.load(Ordering::Relaxed)));
            }
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    })?;
    Ok(())
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
