//! Idle connections, so that their cost to a proxy can be read from /proc. Blocking, one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::bench::poll::open_files_limit;

/// Files that a process has open besides its connections.
const OTHER_FILES: u64 = 64;

/// Connections that each got one reply and are idle since; closed when dropped.
#[derive(Debug)]
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// # Errors
    /// When the limit of open files does not allow it, or a connection is refused or not answered with PONG.
    pub fn open(address: SocketAddr, count: usize) -> io::Result<Self> {
        let limit = open_files_limit();
        if count as u64 + OTHER_FILES > limit {
            let text = format!("{count} connections need more open files than the limit of {limit} allows");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut streams = Vec::with_capacity(count);
        for number in 0..count {
            let described = |error: io::Error| io::Error::new(error.kind(), format!("connection {number}: {error}"));
            streams.push(ping(address).map_err(described)?);
        }
        Ok(Self(streams))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn ping(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if answer == *b"+PONG\r\n" {
        return Ok(stream);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("PING was answered by {}", answer.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn more_than_the_limit_allows_is_refused_before_a_connection_is_made() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let refused = Idle::open(nowhere, usize::MAX >> 8).unwrap_err();
        assert!(refused.to_string().contains("open files"), "{refused}");
    }

    #[test]
    fn a_wrong_answer_names_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in [b"+PONG\r\n", b"-DOWN\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(answer);
            }
        });
        let refused = Idle::open(address, 2).unwrap_err();
        assert!(refused.to_string().contains("connection 1: PING was answered by -DOWN"), "{refused}");
    }
}
