//! PostgreSQL's protocol byte by byte, for messages that no client library would send. Formats: "Frontend/Backend Protocol" of its manual.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSS_ENC_REQUEST: u32 = 80_877_104;
pub const CANCEL_REQUEST: u32 = 80_877_102;
pub const VERSION_3_0: u32 = 0x0003_0000;
pub const VERSION_3_2: u32 = 0x0003_0002;

/// One message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an `ErrorResponse` or `NoticeResponse`: `C` is the SQLSTATE, `M` the text, `S` the severity.
    #[must_use]
    pub fn field(&self, code: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        fields
            .filter(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into())
            .next()
    }
}

/// A raw connection.
#[derive(Debug)]
pub struct Wire(TcpStream);

const PATIENCE: Duration = Duration::from_secs(20);

impl Wire {
    /// # Errors
    /// The operating system's.
    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// # Panics
    /// When nothing listens.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("connects")
    }

    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub fn read_timeout(&self, limit: Duration) {
        let _ = self.0.set_read_timeout(Some(limit));
    }

    /// One byte: the answer to `SSLRequest` and `GSSENCRequest`.
    ///
    /// # Errors
    /// The connection's.
    pub fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// # Errors
    /// The connection's; `UnexpectedEof` when the server has closed it.
    pub fn message(&mut self) -> io::Result<Message> {
        let kind = self.byte()?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=64 << 20).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body)?;
        Ok(Message { kind, body })
    }

    /// Messages until one of this kind, it included.
    ///
    /// # Errors
    /// The connection's; the text holds what came before.
    pub fn until(&mut self, kind: u8) -> io::Result<Vec<Message>> {
        let mut all = Vec::new();
        loop {
            match self.message() {
                Ok(message) => all.push(message),
                Err(error) => return Err(io::Error::new(error.kind(), format!("{error} after {all:?}"))),
            }
            if all.last().is_some_and(|message| message.kind == kind) {
                return Ok(all);
            }
        }
    }

    /// The remaining messages until the server closes; `None` when it does not within the time limit.
    #[must_use]
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return Some(all),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(all),
            }
        }
    }

    /// Logs in as a user without a password, up to the first `ReadyForQuery`.
    ///
    /// # Errors
    /// The connection's, or the server's error as text.
    pub fn log_in_trusted(port: u16, user: &str, database: &str) -> io::Result<Self> {
        let mut wire = Self::try_connect(port)?;
        wire.send(&startup(VERSION_3_0, &[("user", user), ("database", database)]))?;
        wire.until(b'Z')?;
        Ok(wire)
    }
}

/// `Int32 length, Int32 code, payload`.
#[must_use]
pub fn untyped(code: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + payload.len()).expect("a short message");
    [&length.to_be_bytes()[..], &code.to_be_bytes(), payload].concat()
}

/// A startup packet.
#[must_use]
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, value) in parameters {
        payload.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    payload.push(0);
    untyped(version, &payload)
}

/// A typed message.
#[must_use]
pub fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).expect("a short message");
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A simple query.
#[must_use]
pub fn query(text: &str) -> Vec<u8> {
    typed(b'Q', format!("{text}\0").as_bytes())
}

/// Whether something on this port speaks PostgreSQL: it answers an `SSLRequest` with `S` or `N`.
///
/// # Errors
/// The connection's, or that the answer is another.
pub fn answers(port: u16) -> io::Result<()> {
    let mut wire = Wire::try_connect(port)?;
    wire.send(&untyped(SSL_REQUEST, &[]))?;
    match wire.byte()? {
        b'S' | b'N' => Ok(()),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("answered an SSLRequest with {other:#x}"))),
    }
}
