//! A connection to a Redis server that has become a replica of it.
//!
//! The dialogue: REPLCONF (what we can read), PSYNC, then `+CONTINUE` and the stream, or `+FULLRESYNC` and a snapshot (Redis
//! `replication.c`, `syncCommand` and `replconfCommand`). Nothing here knows what the bytes mean. Lives on any thread with a tokio runtime.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::client::RedisClient;
use super::network::Duplex;
use super::position::StreamId;
use crate::error::{ServerError, ServerFault};
use base::model::{Endpoint, limits};
use wire::resp::encode::request;

/// What a connection is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The stream, behind a snapshot where it must be.
    Stream,
    /// The snapshot only: the server keeps no stream for this connection, so it needs no memory for it while we read.
    SnapshotOnly,
}

/// The answer to PSYNC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// The stream follows from the byte that was asked for. The id differs from the one asked for after a failover of the source.
    Continued(StreamId),
    /// A snapshot follows; it holds everything up to this offset.
    Full { stream: StreamId, offset: u64 },
}

/// The receiving half.
pub struct ReplicaReader {
    stream: ReadHalf<Box<dyn Duplex>>,
    buffer: Vec<u8>,
    who: String,
}

/// The sending half: acknowledgements.
pub struct ReplicaWriter {
    stream: WriteHalf<Box<dyn Duplex>>,
    who: String,
}

/// Both halves, before PSYNC.
pub struct Replica {
    pub reader: ReplicaReader,
    pub writer: ReplicaWriter,
}

impl Replica {
    /// Connects, logs in and says what we can read. `version`: of the newest server whose snapshots we can use; Valkey from 9 on picks the
    /// snapshot's format by it.
    ///
    /// # Errors
    /// [`ServerError`]; [`ServerFault::Refused`] when the server knows no such connection as `wanted`.
    pub async fn connect(endpoint: &Endpoint, version: &str, wanted: Wanted) -> Result<Self, ServerError> {
        let mut client = RedisClient::connect(endpoint).await?;
        client.must(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"]).await?;
        // Only Valkey knows this one.
        client.call(&[b"REPLCONF", b"version", version.as_bytes()]).await?;
        if wanted == Wanted::SnapshotOnly {
            let reply = client.call(&[b"REPLCONF", b"rdb-only", b"1"]).await?;
            if let Some(error) = reply.error() {
                let why = format!("REPLCONF rdb-only: {error}");
                return Err(ServerError::unusable(client.who(), ServerFault::Refused(why)));
            }
        }
        let parts = client.into_parts();
        let reader = ReplicaReader { stream: parts.reader, buffer: parts.unread, who: parts.who.clone() };
        Ok(Self { reader, writer: ReplicaWriter { stream: parts.writer, who: parts.who } })
    }

    /// Asks for the stream behind an offset of a stream, or for whatever the server has.
    ///
    /// # Errors
    /// [`ServerError`]; [`ServerFault::Refused`] with the server's words where PSYNC is refused.
    pub async fn psync(&mut self, after: Option<(StreamId, u64)>) -> Result<Synced, ServerError> {
        let question = match after {
            Some((stream, offset)) => {
                request(&[b"PSYNC", stream.as_str().as_bytes(), (offset + 1).to_string().as_bytes()])
            }
            None => request(&[b"PSYNC", b"?", b"-1"]),
        };
        self.writer.send(&question).await?;
        let line = self.reader.line().await?;
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let synced = match words.as_slice() {
            // Before version 4 (PSYNC 1) no id came with it.
            [b"+CONTINUE"] => after.map(|(stream, _)| Synced::Continued(stream)),
            [b"+CONTINUE", id] => StreamId::parse(id).map(Synced::Continued),
            [b"+FULLRESYNC", id, offset] => {
                StreamId::parse(id).zip(number(offset)).map(|(stream, offset)| Synced::Full { stream, offset })
            }
            _ => None,
        };
        synced.ok_or_else(|| {
            let why = format!("PSYNC: {}", String::from_utf8_lossy(&line).trim_start_matches('-'));
            ServerError::unusable(&self.reader.who, ServerFault::Refused(why))
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// How a snapshot comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Counted(u64),
    /// Until these 40 bytes, which follow it.
    Marked(Vec<u8>),
}

impl ReplicaReader {
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The line before a snapshot: `$LENGTH` or `$EOF:MARK`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn framing(&mut self) -> Result<Framing, ServerError> {
        let line = self.line().await?;
        let framing = match line.strip_prefix(b"$") {
            Some(rest) => match rest.strip_prefix(b"EOF:") {
                Some(mark) if mark.len() == 40 => Some(Framing::Marked(mark.to_vec())),
                Some(_) => None,
                None => number(rest).map(Framing::Counted),
            },
            None => None,
        };
        framing.ok_or_else(|| {
            ServerError::answer(&self.who, format!("a snapshot should begin here: \"{}\"", line.escape_ascii()))
        })
    }

    /// Puts the next bytes, whatever they are and at least one, in place of what `bytes` held.
    ///
    /// # Errors
    /// [`ServerError`]: lost, closed, or silent for longer than a primary ever is.
    pub async fn read(&mut self, bytes: &mut Vec<u8>) -> Result<(), ServerError> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        bytes.clear();
        std::mem::swap(bytes, &mut self.buffer);
        Ok(())
    }

    /// Puts back bytes that were too many.
    pub fn unread(&mut self, bytes: &[u8]) {
        debug_assert!(self.buffer.is_empty(), "only what `read` gave last");
        self.buffer.extend_from_slice(bytes);
    }

    /// A line without its end. Empty lines before it keep the connection alive while the server prepares.
    async fn line(&mut self) -> Result<Vec<u8>, ServerError> {
        loop {
            let alive = self.buffer.iter().take_while(|&&byte| byte == b'\n').count();
            self.buffer.drain(..alive);
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            if self.buffer.len() > limits::LINE_BYTES_MAX {
                return Err(ServerError::answer(
                    &self.who,
                    "a line that does not end, where the answer to PSYNC should be",
                ));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), ServerError> {
        let unusable = |cause| Err(ServerError::unusable(&self.who, cause));
        self.buffer.reserve(limits::FOLLOW_READ_BYTES);
        match timeout(limits::FOLLOW_SILENCE_MAX, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => unusable(ServerFault::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => unusable(ServerFault::Lost(error.to_string())),
            Err(_) => unusable(ServerFault::ReplyTimeout(limits::FOLLOW_SILENCE_MAX)),
        }
    }
}

impl ReplicaWriter {
    /// Everything up to here has arrived where it is kept. Counts for the source's WAIT and `min-replicas-to-write`.
    ///
    /// # Errors
    /// [`ServerError`]: lost.
    pub async fn acknowledge(&mut self, offset: u64) -> Result<(), ServerError> {
        self.send(&request(&[b"REPLCONF", b"ACK", offset.to_string().as_bytes()])).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        let sent = timeout(limits::JOB_REPLY_TIMEOUT, self.stream.write_all(bytes)).await;
        let cause = match sent {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => ServerFault::Lost(error.to_string()),
            Err(_) => ServerFault::ReplyTimeout(limits::JOB_REPLY_TIMEOUT),
        };
        Err(ServerError::unusable(&self.who, cause))
    }
}
