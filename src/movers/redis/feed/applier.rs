//! Drives a replication feed: finds where it left off, fills the shadow anew where it must, applies the stream, starts over after a loss.
//!
//! Lives on the movers' thread. It is the only writer of the shadow.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::batch::{Batch, Doubt, Outcome, doubts};
use super::dialect::{Dialect, Translated};
use super::history::HistoryWriter;
use super::repair::{Touched, Window, read};
use super::shadow::{connect, dialect, position, position_key, take_over};
use crate::error::JobError;
use crate::redis::clock::now_ms;
use base::model::{Endpoint, limits};
use follow::error::{FollowError, ServerError};
use follow::redis::client::RedisClient;
use follow::redis::follower::{FollowSpec, Following, Resumed, full_sync, resume};
use follow::redis::position::Position;
use follow::redis::spill::SpillSpec;
use follow::redis::stream::{Item, StreamReader};
use wire::rdb::Sizes;
use wire::resp::args::Args;

/// A feed of one direction.
#[derive(Debug, Clone)]
pub struct FeedSpec {
    /// Names the position on the shadow: unique among the feeds that ever wrote to it.
    pub name: String,
    pub authority: Endpoint,
    pub shadow: Endpoint,
    /// How much later than at the authority deadlines are stored.
    pub grace_ms: i64,
    pub spill: SpillSpec,
}

/// Why a feed is not in step, or no longer. Trying again is safe; whether that fills the shadow anew is for the authority to say.
#[derive(Debug, Clone)]
pub enum FeedError {
    Follow(FollowError),
    Shadow(JobError),
    /// The shadow refuses what the authority has taken; its words.
    Refused {
        shadow: String,
        why: String,
    },
}

impl From<FollowError> for FeedError {
    fn from(error: FollowError) -> Self {
        Self::Follow(error)
    }
}

impl From<JobError> for FeedError {
    fn from(error: JobError) -> Self {
        Self::Shadow(error)
    }
}

impl From<ServerError> for FeedError {
    fn from(error: ServerError) -> Self {
        Self::Shadow(error.into())
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Follow(error) => error.fmt(f),
            Self::Shadow(error) => error.fmt(f),
            Self::Refused { shadow, why } => {
                write!(f, "{shadow} refuses what the authority has taken: {why}; it is tried again")
            }
        }
    }
}

impl std::error::Error for FeedError {}

/// How far a feed is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// Every record of the history is on the shadow.
    pub history_done: bool,
    pub history_keys: u64,
    pub history_bytes: u64,
    /// The position that the shadow has.
    pub applied: Option<Position>,
    /// What has arrived from the authority.
    pub received: u64,
    pub waiting_bytes: u64,
    pub commands: u64,
    /// Times the shadow was filled from a snapshot.
    pub full_syncs: u64,
}

/// See the head of this file. Clones share everything.
#[derive(Debug, Clone)]
pub struct Feed(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    spec: FeedSpec,
    status: Cell<FeedStatus>,
    /// Keys that may differ, with why; copied again one window after the other.
    doubts: RefCell<BTreeSet<Doubt>>,
    /// What the shadow cannot hold as the authority does, copied as well as it can.
    losses: RefCell<BTreeSet<Doubt>>,
    touched: RefCell<Touched>,
    window: RefCell<Option<Window>>,
    /// Rung when there is a key that may differ, and when a window is over.
    has_doubts: Notify,
    /// Rung when a window has been read.
    has_window: Notify,
    /// Rung whenever the status has changed.
    changed: Notify,
}

/// What a batch was gathered from.
#[derive(Debug, Clone, Copy, Default)]
struct Gathered {
    /// The source wants to know the position at once.
    wants_ack: bool,
    /// More may be waiting than went in.
    is_full: bool,
}

impl Feed {
    #[must_use]
    pub fn new(spec: FeedSpec) -> Self {
        Self(Rc::new(Shared {
            spec,
            status: Cell::default(),
            doubts: RefCell::default(),
            losses: RefCell::default(),
            touched: RefCell::default(),
            window: RefCell::default(),
            has_doubts: Notify::new(),
            has_window: Notify::new(),
            changed: Notify::new(),
        }))
    }

    #[must_use]
    pub fn status(&self) -> FeedStatus {
        self.0.status.get()
    }

    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        self.0.doubts.borrow().iter().cloned().collect()
    }

    /// What the shadow cannot hold as the authority does.
    #[must_use]
    pub fn losses(&self) -> Vec<Doubt> {
        self.0.losses.borrow().iter().cloned().collect()
    }

    /// Waits until the shadow has everything up to an offset of the authority's stream.
    pub async fn applied(&self, offset: u64) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.status().applied.is_some_and(|position| position.offset >= offset) {
                return;
            }
            changed.await;
        }
    }

    /// Keeps the shadow in step until something fails. Dropping it leaves both servers as they are.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn run(&self) -> Result<(), FeedError> {
        let shared = &self.0;
        let spec = &shared.spec;
        let (dialect, version) = dialect(&spec.shadow, spec.grace_ms).await?;
        let key = position_key(&spec.name);
        let mut client = connect(&spec.shadow).await?;
        take_over(&mut client, &spec.name).await?;
        let follow = FollowSpec {
            endpoint: spec.authority.clone(),
            version,
            spill: spec.spill.clone(),
            sizes: Sizes::default(),
        };
        let left = position(&mut client, &key).await?;
        let resumed = match &left {
            Some(left) => resume(&follow, left).await?,
            None => Resumed::Gone,
        };
        let (following, position) = match (resumed, left) {
            (Resumed::Following(following), Some(left)) => {
                // A source that was promoted continues under a new name.
                let position = Position { stream: following.stream(), ..left };
                shared.note(|status| status.history_done = true);
                (following, position)
            }
            _ => shared.fill(&follow, &dialect, &mut client, &key).await?,
        };
        shared.note(|status| status.applied = Some(position));
        shared.touched.borrow_mut().close();
        shared.window.replace(None);
        tokio::select! {
            ended = shared.apply(following, position, &dialect, &mut client, &key) => ended,
            ended = shared.read_doubtful() => ended,
        }
    }

    /// Runs until it is dropped, and starts over after a failure. `failed` is told of each.
    pub async fn run_forever(&self, failed: impl Fn(&FeedError)) {
        let mut pause = limits::JOB_RECONNECT_PAUSE_MIN;
        loop {
            let before = self.status().commands;
            if let Err(error) = self.run().await {
                failed(&error);
            }
            let worked = self.status().commands > before;
            pause = if worked { limits::JOB_RECONNECT_PAUSE_MIN } else { next(pause) };
            tokio::time::sleep(pause).await;
        }
    }
}

fn next(pause: Duration) -> Duration {
    (pause * 2).min(limits::JOB_RECONNECT_PAUSE_MAX)
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut FeedStatus)) {
        let mut status = self.status.get();
        change(&mut status);
        self.status.set(status);
        self.changed.notify_waiters();
    }

    fn doubt(&self, more: impl IntoIterator<Item = Doubt>) {
        self.doubts.borrow_mut().extend(more);
        self.has_doubts.notify_one();
    }

    /// Empties the shadow and fills it from a snapshot of the authority.
    async fn fill(
        &self,
        follow: &FollowSpec,
        dialect: &Dialect,
        client: &mut RedisClient,
        key: &[u8],
    ) -> Result<(Following, Position), FeedError> {
        self.note(|status| {
            *status =
                FeedStatus { full_syncs: status.full_syncs + 1, commands: status.commands, ..FeedStatus::default() };
        });
        self.doubts.borrow_mut().clear();
        let mut sync = full_sync(follow).await?;
        // Keys that the snapshot lacks must not stay. Without a position a crash from here on begins anew.
        client.must(&[b"FLUSHALL"]).await?;
        let mut writer = HistoryWriter::new(dialect);
        while sync.history.more().await? {
            while let Some(item) = sync.history.item()? {
                writer.take(item);
                if writer.is_full() {
                    writer.flush(client).await?;
                }
            }
            let written = writer.written();
            let waiting_bytes = sync.waiting_bytes();
            self.note(|status| {
                (status.history_keys, status.history_bytes) = (written.keys, written.bytes);
                status.waiting_bytes = waiting_bytes;
            });
        }
        writer.flush(client).await?;
        self.losses.replace(writer.take_doubts().into_iter().collect());
        let position = sync.history.at();
        client.must(&[b"SELECT", b"0"]).await?;
        client.must(&[b"SET", key, position.to_string().as_bytes()]).await?;
        self.note(|status| status.history_done = true);
        Ok((sync.into_following(), position))
    }

    /// Applies the stream until it ends.
    async fn apply(
        &self,
        mut following: Following,
        position: Position,
        dialect: &Dialect,
        client: &mut RedisClient,
        key: &[u8],
    ) -> Result<(), FeedError> {
        let mut reader = StreamReader::new(position);
        let mut batch = Batch::default();
        loop {
            let gathered = self.gather(&mut reader, dialect, &mut batch, key)?;
            if reader.at_boundary() {
                let position = reader.position();
                if !batch.is_empty() {
                    self.send(&mut batch, position, client, key).await?;
                }
                let (received, waiting_bytes) = (following.received(), following.waiting_bytes());
                self.note(|status| {
                    status.applied = Some(position);
                    (status.received, status.waiting_bytes) = (received, waiting_bytes);
                });
                if gathered.wants_ack {
                    following.acknowledge_now(position.offset);
                } else {
                    following.acknowledge(position.offset);
                }
                self.repair(position, dialect, client).await?;
                if gathered.is_full {
                    continue;
                }
            }
            let bytes = tokio::select! {
                bytes = following.bytes() => bytes?,
                () = self.has_window.notified() => continue,
            };
            reader.feed(&bytes);
        }
    }

    /// Takes what has arrived into a batch, up to its size and then to the end of the source's transaction.
    fn gather(
        &self,
        reader: &mut StreamReader,
        dialect: &Dialect,
        batch: &mut Batch,
        key: &[u8],
    ) -> Result<Gathered, FeedError> {
        let mut gathered = Gathered::default();
        loop {
            let full = batch.commands() >= limits::FEED_BATCH_COMMANDS || batch.bytes() >= limits::FEED_BATCH_BYTES;
            if full && reader.at_boundary() {
                gathered.is_full = true;
                return Ok(gathered);
            }
            let item = reader.next_item().map_err(|why| FollowError::Stream {
                server: format!("endpoint {}", self.spec.authority.name),
                what: why.to_string(),
            })?;
            match item {
                None => return Ok(gathered),
                Some(Item::Command { frame, database }) => self.translate(frame, database, dialect, batch, key),
                Some(Item::WantsAck) => gathered.wants_ack = true,
                Some(Item::Begin | Item::End | Item::Idle) => {}
            }
        }
    }

    fn translate(&self, frame: &[u8], database: u32, dialect: &Dialect, batch: &mut Batch, key: &[u8]) {
        self.touched.borrow_mut().note(frame, database);
        match dialect.translate(frame, database, now_ms() as i64, batch) {
            Translated::Sent | Translated::Dropped => {}
            Translated::Lost(why) => self.doubt(doubts(database, frame, why)),
        }
        if let Some(stray) = swapped_with_0(frame) {
            batch.forget(stray, key);
        }
    }

    /// Reads keys that may differ, a few at a time, until something fails.
    async fn read_doubtful(&self) -> Result<(), FeedError> {
        let mut client: Option<RedisClient> = None;
        loop {
            let named = |doubt: &&Doubt| doubt.key.is_some();
            let some: Vec<Doubt> =
                self.doubts.borrow().iter().filter(named).take(limits::FEED_REPAIRS_AT_ONCE).cloned().collect();
            if some.is_empty() || self.window.borrow().is_some() {
                self.has_doubts.notified().await;
                continue;
            }
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(connect(&self.spec.authority).await?),
            };
            // Before the first read: whatever is applied from here on may have been executed behind it.
            self.touched.borrow_mut().open();
            let window = read(client, some).await?;
            self.window.replace(Some(window));
            self.has_window.notify_one();
            // A key that is written all the time is read again and again; the authority is not to be busy with that.
            tokio::time::sleep(limits::FEED_REPAIR_PAUSE).await;
        }
    }

    /// Writes what a window has read, where it is what the authority held at the position the shadow has.
    async fn repair(&self, at: Position, dialect: &Dialect, client: &mut RedisClient) -> Result<(), FeedError> {
        let Some(window) = self.window.borrow_mut().take_if(|window| window.until <= at.offset) else { return Ok(()) };
        let mut writer = HistoryWriter::new(dialect);
        for value in window.values {
            let database = value.doubt.database;
            if !self.touched.borrow().contains(database, &value.key) {
                writer.key(database, &value.key, value.deadline_ms, value.payload.as_deref());
                self.doubts.borrow_mut().remove(&value.doubt);
            }
        }
        self.touched.borrow_mut().close();
        writer.flush(client).await?;
        client.must(&[b"SELECT", b"0"]).await?;
        self.losses.borrow_mut().extend(writer.take_doubts());
        self.has_doubts.notify_one();
        Ok(())
    }

    async fn send(
        &self,
        batch: &mut Batch,
        position: Position,
        client: &mut RedisClient,
        key: &[u8],
    ) -> Result<(), FeedError> {
        let (requests, count) = batch.seal(key, &position);
        let replies = client.pipeline(requests, count).await?;
        match batch.outcome(&replies) {
            Outcome::Applied(found) => self.doubt(found),
            Outcome::Refused(why) => {
                return Err(FeedError::Refused { shadow: client.who().to_owned(), why });
            }
        }
        let commands = batch.commands() as u64;
        self.note(|status| status.commands += commands);
        batch.clear();
        Ok(())
    }
}

/// The database that the position moves to when this command exchanges it with database 0.
fn swapped_with_0(frame: &[u8]) -> Option<u32> {
    let mut args = Args::new(frame);
    if !args.next()?.eq_ignore_ascii_case(b"SWAPDB") {
        return None;
    }
    let mut number = || std::str::from_utf8(args.next()?).ok()?.parse::<u32>().ok();
    match (number()?, number()?) {
        (0, other) | (other, 0) if other != 0 => Some(other),
        _ => None,
    }
}
