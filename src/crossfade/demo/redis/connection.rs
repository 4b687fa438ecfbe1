//! A blocking RESP2 client for the demo's threads: loads data, acts as the application, reads back. Not an example for real clients.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base::model::limits;
use wire::resp::value::{Extent, Value, decode_whole, encode_request};

/// A reply that takes longer is reported as a failure.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_PATIENCE))?;
        stream.set_write_timeout(Some(REPLY_PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), begin: 0 })
    }

    /// Retries until the server answers PING with something other than "loading".
    pub fn open_when_up(port: u16, patience: Duration, mut still_alive: impl FnMut() -> bool) -> io::Result<Self> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let attempt = Self::open(port).and_then(|mut connection| {
                let reply = connection.call(&[b"PING"])?;
                if reply.error().is_some() { Err(io::Error::other(reply.brief())) } else { Ok(connection) }
            });
            match attempt {
                Ok(connection) => return Ok(connection),
                Err(error) if std::time::Instant::now() > deadline || !still_alive() => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub fn call(&mut self, args: &[&[u8]]) -> io::Result<Value> {
        self.send(&encode_request(args))?;
        self.receive()
    }

    pub fn send(&mut self, requests: &[u8]) -> io::Result<()> {
        self.stream.write_all(requests)
    }

    pub fn receive(&mut self) -> io::Result<Value> {
        let invalid = |error: wire::resp::value::Invalid| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut extent = Extent::default();
        loop {
            let bytes = &self.buffer[self.begin..];
            if let Some(length) = extent.find(bytes, limits::JOB_REPLY_BYTES_MAX).map_err(invalid)? {
                let value = decode_whole(&bytes[..length]).map_err(invalid)?;
                self.begin += length;
                return Ok(value);
            }
            self.buffer.drain(..self.begin);
            self.begin = 0;
            let filled = self.buffer.len();
            self.buffer.resize(filled + 64 * 1024, 0);
            let read = self.stream.read(&mut self.buffer[filled..]);
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
