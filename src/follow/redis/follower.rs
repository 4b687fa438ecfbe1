//! Follows a Redis or Valkey server: from a position that is known, or from a snapshot on.
//!
//! A full synchronisation uses two connections. The first is made a replica without a snapshot (*primed*) and carries the stream, which is
//! read as fast as it comes and waits in a [`Spill`]. The second carries the snapshot and nothing else. With one connection for both, the
//! stream would gather in the source's memory while the snapshot is being used, and the source cuts such a connection at its
//! `client-output-buffer-limit` however fast we read. Lives on one thread, in a `LocalSet`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::RedisClient;
use super::history::History;
use super::position::{Position, StreamId};
use super::replica::{Replica, ReplicaReader, ReplicaWriter, Synced, Wanted};
use super::spill::{Spill, SpillSpec};
use super::stream::StreamReader;
use crate::error::{FollowError, ServerError, ServerFault};
use base::model::{Endpoint, limits};
use wire::rdb::Sizes;

/// What is followed, and how.
#[derive(Debug, Clone)]
pub struct FollowSpec {
    pub endpoint: Endpoint,
    /// The version of the newest server whose snapshots are understood where they are used.
    pub version: String,
    pub spill: SpillSpec,
    pub sizes: Sizes,
}

/// The stream of a server, being read.
#[derive(Debug)]
pub struct Following {
    shared: Rc<Shared>,
    reading: JoinHandle<()>,
    /// "endpoint NAME (ADDRESS)": for messages.
    who: String,
    stream: StreamId,
    /// Bytes of the stream before this are not given.
    from: u64,
    /// Where the next byte that is taken from the spill lies.
    taken: u64,
}

#[derive(Debug)]
struct Shared {
    spill: RefCell<Spill>,
    arrived: Notify,
    received: Cell<u64>,
    arrivals: RefCell<Arrivals>,
    /// What the source may be told that we have.
    acknowledged: Cell<u64>,
    wants_ack: Notify,
    ended: RefCell<Option<FollowError>>,
}

/// When what waits had arrived: the oldest first, each with the offset behind it. A step stands for what came shortly after it, too.
#[derive(Debug, Default)]
struct Arrivals(VecDeque<(Instant, u64)>);

impl Arrivals {
    fn note(&mut self, received: u64) {
        let now = Instant::now();
        let is_full = self.0.len() >= limits::FOLLOW_ARRIVALS_MAX;
        match self.0.back_mut() {
            Some((at, offset)) if is_full || now.duration_since(*at) < limits::FOLLOW_ARRIVAL_STEP => {
                *offset = received;
            }
            _ => self.0.push_back((now, received)),
        }
    }

    fn oldest_behind(&mut self, offset: u64) -> Option<Instant> {
        while self.0.front().is_some_and(|&(_, end)| end <= offset) {
            self.0.pop_front();
        }
        self.0.front().map(|&(at, _)| at)
    }
}

/// The answer of a server whether its stream goes on from a position.
#[derive(Debug)]
pub enum Resumed {
    Following(Following),
    /// It would send a snapshot.
    Gone,
}

/// A snapshot under way, and the stream behind it.
pub struct FullSync {
    pub history: History,
    /// `None` where the server has no connections for a snapshot alone: the stream then follows on the connection of the snapshot
    /// ([`FullSync::into_following`]), and gathers in the source's memory until then.
    stream: Option<Following>,
    spill: SpillSpec,
}

/// Continues a stream.
///
/// # Errors
/// [`FollowError::Server`].
pub async fn resume(spec: &FollowSpec, after: &Position) -> Result<Resumed, FollowError> {
    let mut replica = Replica::connect(&spec.endpoint, &spec.version, Wanted::Stream).await?;
    Ok(match replica.psync(Some((after.stream, after.offset))).await? {
        Synced::Continued(stream) => {
            Resumed::Following(Following::begin(replica, stream, after.offset, spec.spill.clone()))
        }
        Synced::Full { .. } => Resumed::Gone,
    })
}

/// Follows a server from its present end on, without a snapshot. In which database its stream is then is not known.
///
/// # Errors
/// [`FollowError`].
pub async fn prime(spec: &FollowSpec) -> Result<Following, FollowError> {
    let mut client = RedisClient::connect(&spec.endpoint).await?;
    for _ in 0..limits::FOLLOW_PRIME_TRIES {
        let now = match end_of_stream(&mut client).await? {
            Some(now) => now,
            None => begin_backlog(spec, &mut client).await?,
        };
        if let Resumed::Following(following) = resume(spec, &now).await? {
            return Ok(following);
        }
    }
    let why = format!("it gave a snapshot {} times where its stream should go on", limits::FOLLOW_PRIME_TRIES);
    Err(FollowError::Gone { server: client.who().to_owned(), why })
}

/// Begins a full synchronisation.
///
/// # Errors
/// [`FollowError`].
pub async fn full_sync(spec: &FollowSpec) -> Result<FullSync, FollowError> {
    let snapshot = match Replica::connect(&spec.endpoint, &spec.version, Wanted::SnapshotOnly).await {
        Ok(replica) => Some(replica),
        Err(ServerError::Unusable { cause: ServerFault::Refused(_), .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(snapshot) = snapshot else {
        let both = Replica::connect(&spec.endpoint, &spec.version, Wanted::Stream).await?;
        let history = History::begin(both, spec.sizes).await?;
        return Ok(FullSync { history, stream: None, spill: spec.spill.clone() });
    };
    let mut stream = prime(spec).await?;
    let history = History::begin(snapshot, spec.sizes).await?;
    stream.give_from(history.at())?;
    Ok(FullSync { history, stream: Some(stream), spill: spec.spill.clone() })
}

/// Where the stream of a server ends now; `None` when it keeps none, because it never had a replica. Its database is not known.
///
/// # Errors
/// [`ServerError`].
pub async fn end_of_stream(client: &mut RedisClient) -> Result<Option<Position>, ServerError> {
    let reply = client.must(&[b"INFO", b"replication"]).await?;
    let text = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    let field = |name: &str| text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    if field("repl_backlog_active") != Some("1") {
        return Ok(None);
    }
    let stream = field("master_replid").and_then(|id| StreamId::parse(id.as_bytes()));
    let offset = field("master_repl_offset").and_then(|text| text.parse().ok());
    match stream.zip(offset) {
        Some((stream, offset)) => Ok(Some(Position { stream, offset, database: 0 })),
        None => Err(ServerError::answer(client.who(), "INFO replication does not say where the stream is")),
    }
}

/// A server keeps a stream from its first replica on: become one for as long as it takes to notice.
async fn begin_backlog(spec: &FollowSpec, client: &mut RedisClient) -> Result<Position, FollowError> {
    let mut replica = Replica::connect(&spec.endpoint, &spec.version, Wanted::Stream).await?;
    let asked = replica.psync(None);
    tokio::pin!(asked);
    let deadline = Instant::now() + limits::JOB_REPLY_TIMEOUT;
    loop {
        // The answer comes only when the snapshot begins; the stream begins at once.
        let answered = timeout(limits::FOLLOW_PRIME_PAUSE, &mut asked).await;
        let answered = answered.ok().transpose()?.is_some();
        if let Some(now) = end_of_stream(client).await? {
            return Ok(now);
        }
        if answered {
            return Err(ServerError::answer(client.who(), "it has a replica, and says that it keeps no stream").into());
        }
        if Instant::now() > deadline {
            let cause = ServerFault::ReplyTimeout(limits::JOB_REPLY_TIMEOUT);
            return Err(ServerError::unusable(client.who(), cause).into());
        }
    }
}

impl FullSync {
    /// The stream behind the snapshot, when all of the snapshot has been taken.
    #[must_use]
    pub fn into_following(self) -> Following {
        let at = self.history.at();
        self.stream.unwrap_or_else(|| Following::begin(self.history.into_replica(), at.stream, at.offset, self.spill))
    }

    /// Bytes of the stream that wait behind the snapshot.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.stream.as_ref().map_or(0, Following::waiting_bytes)
    }

    /// Whether the source keeps the stream in its memory until the snapshot has been used.
    #[must_use]
    pub fn burdens_source(&self) -> bool {
        self.stream.is_none()
    }
}

impl Following {
    fn begin(replica: Replica, stream: StreamId, offset: u64, spill: SpillSpec) -> Self {
        let shared = Rc::new(Shared {
            spill: RefCell::new(Spill::new(spill)),
            arrived: Notify::new(),
            received: Cell::new(offset),
            arrivals: RefCell::default(),
            acknowledged: Cell::new(offset),
            wants_ack: Notify::new(),
            ended: RefCell::default(),
        });
        let own = Rc::clone(&shared);
        let who = replica.reader.who().to_owned();
        let reading = tokio::task::spawn_local(async move {
            let error = own.read(replica).await;
            own.ended.replace(Some(error));
            own.arrived.notify_one();
        });
        Self { shared, reading, who, stream, from: offset, taken: offset }
    }

    /// May differ from the one asked for: a source that was promoted has a new one.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The offset in front of the bytes that are given next.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.taken.max(self.from)
    }

    /// The offset up to which everything has arrived here.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.get()
    }

    /// When the first byte behind this offset arrived, or a little earlier; `None` when none has. What lies before is not asked for again.
    #[must_use]
    pub fn waits_since(&self, offset: u64) -> Option<Instant> {
        self.shared.arrivals.borrow_mut().oldest_behind(offset)
    }

    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.shared.spill.borrow().len()
    }

    /// The most that ever waited.
    #[must_use]
    pub fn waiting_bytes_max(&self) -> u64 {
        self.shared.spill.borrow().bytes_seen_max()
    }

    /// Gives only what follows this position.
    ///
    /// # Errors
    /// [`FollowError::Gone`]: the position is of another stream, or this one began behind it.
    pub fn give_from(&mut self, position: Position) -> Result<(), FollowError> {
        if position.stream != self.stream || position.offset < self.taken {
            let why = format!("position {position} is not within the stream {} from {} on", self.stream, self.taken);
            return Err(FollowError::Gone { server: self.who.clone(), why });
        }
        self.from = position.offset;
        Ok(())
    }

    /// Feeds a reader with the next bytes of the stream; waits for them.
    ///
    /// # Errors
    /// [`FollowError`], after everything that had arrived was given.
    pub async fn feed(&mut self, reader: &mut StreamReader) -> Result<(), FollowError> {
        loop {
            if self.feed_waiting(reader)? > 0 {
                return Ok(());
            }
            if let Some(error) = self.shared.ended.borrow().clone() {
                return Err(error);
            }
            self.shared.arrived.notified().await;
        }
    }

    /// What waits, up to a size: each time that something is given costs a round trip to where it is applied.
    fn feed_waiting(&mut self, reader: &mut StreamReader) -> Result<usize, FollowError> {
        let mut fed = 0;
        let mut spill = self.shared.spill.borrow_mut();
        while fed < limits::FOLLOW_GIVEN_BYTES {
            let Some(piece) = spill.pop()? else { break };
            let skipped = self.from.saturating_sub(self.taken).min(piece.len() as u64);
            self.taken += piece.len() as u64;
            let given = &piece[skipped as usize..];
            fed += given.len();
            reader.feed(given);
            spill.recycle(piece);
        }
        Ok(fed)
    }

    /// Everything up to here is where it is kept; the source is told within a second.
    pub fn acknowledge(&self, offset: u64) {
        self.shared.acknowledged.set(offset);
    }

    /// The source is told now.
    pub fn acknowledge_now(&self, offset: u64) {
        self.acknowledge(offset);
        self.shared.wants_ack.notify_one();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Shared {
    /// Reads until it fails.
    async fn read(&self, replica: Replica) -> FollowError {
        let Replica { mut reader, mut writer } = replica;
        let reading = self.receive(&mut reader);
        let telling = self.tell(&mut writer);
        tokio::select! {
            // In this order, so that a run in virtual time can be repeated.
            biased;
            error = reading => error,
            error = telling => error,
        }
    }

    async fn receive(&self, reader: &mut ReplicaReader) -> FollowError {
        let mut bytes = Vec::new();
        loop {
            if let Err(error) = reader.read(&mut bytes).await {
                return error.into();
            }
            let more = bytes.len() as u64;
            if let Err(error) = self.spill.borrow_mut().push(&bytes) {
                return error.into();
            }
            self.received.set(self.received.get() + more);
            self.arrivals.borrow_mut().note(self.received.get());
            self.arrived.notify_one();
        }
    }

    /// Acknowledges. A source that has sent a snapshot with a mark begins its stream only after the first acknowledgement.
    async fn tell(&self, writer: &mut ReplicaWriter) -> FollowError {
        let begin = self.received.get();
        loop {
            let at = self.acknowledged.get();
            if let Err(error) = writer.acknowledge(at).await {
                return error.into();
            }
            let pause =
                if self.received.get() == begin { limits::FOLLOW_ACK_FIRST } else { limits::FOLLOW_ACK_INTERVAL };
            let due = Instant::now() + pause;
            tokio::select! {
                biased;
                () = sleep_until(due) => {}
                () = self.wants_ack.notified() => {}
            }
        }
    }
}
