//! The snapshot that a full synchronisation begins with, item by item, as it arrives. Lives on any thread with a tokio runtime.

use super::position::Position;
use super::replica::{Framing, Replica, ReplicaReader, ReplicaWriter, Synced};
use crate::error::{FollowError, ServerError};
use wire::rdb::{Item, Sizes, Splitter};

/// A snapshot being received. `more`, then `item` until it gives nothing, and so on until `more` says that there is no more.
pub struct History {
    reader: ReplicaReader,
    writer: ReplicaWriter,
    splitter: Splitter,
    framing: Framing,
    chunk: Vec<u8>,
    /// Bytes of `chunk` that were split.
    used: usize,
    /// Bytes received.
    received: u64,
    at: Position,
}

impl History {
    /// Asks for a snapshot and waits until it begins, which takes as long as the server waits for further replicas
    /// (`repl-diskless-sync-delay`) and forks.
    ///
    /// # Errors
    /// [`FollowError::Server`].
    pub async fn begin(mut replica: Replica, sizes: Sizes) -> Result<Self, FollowError> {
        let who = replica.reader.who().to_owned();
        let Synced::Full { stream, offset } = replica.psync(None).await? else {
            return Err(ServerError::answer(who, "+CONTINUE to a request for a snapshot").into());
        };
        let framing = replica.reader.framing().await?;
        Ok(Self {
            reader: replica.reader,
            writer: replica.writer,
            splitter: Splitter::new(sizes),
            framing,
            chunk: Vec::new(),
            used: 0,
            received: 0,
            // A full synchronisation makes the source name the database anew in its stream (`replicationSetupSlaveForFullResync`).
            at: Position { stream, offset, database: 0 },
        })
    }

    /// What the snapshot holds: everything up to here.
    #[must_use]
    pub fn at(&self) -> Position {
        self.at
    }

    /// How many bytes it has, where the server says so beforehand.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        match self.framing {
            Framing::Counted(length) => Some(length),
            Framing::Marked(_) => None,
        }
    }

    /// Receives the next bytes; `false` when the snapshot is complete and every item was taken.
    ///
    /// # Errors
    /// [`FollowError`]; also when the server sends something else than it announced.
    pub async fn more(&mut self) -> Result<bool, FollowError> {
        if self.splitter.is_ended() {
            self.end().await?;
            return Ok(false);
        }
        if self.bytes().is_some_and(|length| self.received >= length) {
            return Err(self.unexpected("the snapshot ends before its end"));
        }
        self.reader.read(&mut self.chunk).await?;
        self.used = 0;
        if let Some(length) = self.bytes() {
            let belongs = usize::try_from(length - self.received).unwrap_or(usize::MAX);
            if belongs < self.chunk.len() {
                self.reader.unread(&self.chunk[belongs..]);
                self.chunk.truncate(belongs);
            }
        }
        self.received += self.chunk.len() as u64;
        Ok(true)
    }

    /// The next item of what was received.
    ///
    /// # Errors
    /// [`FollowError::Snapshot`]: a type this version does not know, or damage.
    pub fn item(&mut self) -> Result<Option<Item<'_>>, FollowError> {
        let mut input = &self.chunk[self.used..];
        let whole = self.chunk.len();
        if self.splitter.is_ended() {
            return Ok(None);
        }
        let item = self.splitter.next(&mut input)?;
        self.used = whole - input.len();
        Ok(item)
    }

    /// The connection, which carries the stream from now on where it was asked for more than the snapshot.
    #[must_use]
    pub fn into_replica(self) -> Replica {
        Replica { reader: self.reader, writer: self.writer }
    }

    /// Behind the last item: the mark, where there is one.
    async fn end(&mut self) -> Result<(), FollowError> {
        let mut rest = self.chunk.split_off(self.used);
        self.chunk.clear();
        self.used = 0;
        let Framing::Marked(mark) = std::mem::replace(&mut self.framing, Framing::Counted(self.received)) else {
            return if rest.is_empty() { Ok(()) } else { Err(self.unexpected("bytes follow the end of the snapshot")) };
        };
        while rest.len() < mark.len() {
            self.reader.read(&mut self.chunk).await?;
            rest.append(&mut self.chunk);
        }
        let behind = rest.split_off(mark.len());
        if rest != mark {
            return Err(self.unexpected("the mark behind the snapshot is not the one that was announced"));
        }
        if !behind.is_empty() {
            self.reader.unread(&behind);
        }
        Ok(())
    }

    fn unexpected(&self, what: &str) -> FollowError {
        ServerError::answer(self.reader.who(), what).into()
    }
}
