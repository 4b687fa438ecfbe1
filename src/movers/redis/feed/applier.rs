//! Drives a replication feed: finds where it left off, fills the shadow anew where it must, applies the stream, starts over after a loss.
//!
//! Lives on the movers' thread. It is the only writer of the shadow. For what must be read and written at one exact position (a comparison, a
//! repair, a corrected deadline) it stands still at that position: see [`super::standstill`]. What it finds missing is looked into beside it: see
//! [`super::absent`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::batch::{Batch, DatabaseKey, Doubt, Outcome, doubts, keys_with_databases, swapped};
use super::dialect::{Dialect, Translated};
use super::exclusions::Exclusions;
use super::lag::{Lag, watch_presence};
use super::rivals::{end_other_direction, look_for_others, take_over};
use super::shadow::{connect, dialect, position, position_key};
use super::spec::{FeedError, FeedEvent, FeedSpec, FeedStatus, Standing};
use super::touches::Touches;
use super::unsettled::Unsettled;
use super::work::Work;
use crate::redis::clock::now_ms;
use base::model::limits;
use follow::error::FollowError;
use follow::redis::client::RedisClient;
use follow::redis::follower::{FollowSpec, Following, Resumed, resume};
use follow::redis::position::Position;
use follow::redis::stream::{Item, StreamReader};
use wire::rdb::Sizes;

/// See the head of this file. Clones share everything.
#[derive(Debug, Clone)]
pub struct Feed(pub(super) Rc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub spec: FeedSpec,
    status: Cell<FeedStatus>,
    /// Keys that may differ, with why; copied again.
    pub doubts: RefCell<BTreeSet<Doubt>>,
    /// What the shadow cannot hold as the authority does, copied as well as it can.
    pub losses: RefCell<BTreeSet<Doubt>>,
    pub exclusions: RefCell<Rc<Exclusions>>,
    /// Keys that the shadow did not have when a command built on them, with the others of that command; some it may have lost too early.
    pub absent: RefCell<BTreeMap<DatabaseKey, BTreeSet<DatabaseKey>>>,
    pub has_absent: Notify,
    /// Keys that were found absent and have no deadline at the authority, each with the offset at which that was so: one that was persisted on the way
    /// there may have been lost.
    pub made_anew: RefCell<BTreeMap<DatabaseKey, u64>>,
    pub touches: RefCell<Touches>,
    pub unsettled: RefCell<Unsettled>,
    pub work: RefCell<VecDeque<Work>>,
    /// Rung when there is work.
    pub has_work: Notify,
    /// It ends when the shadow has everything up to here.
    stop_at: Cell<Option<u64>>,
    /// The authority is about to change: what the shadow holds is not replaced by a snapshot.
    keeps: Cell<bool>,
    /// Rung whenever the status has changed.
    changed: Notify,
    /// Who waits for the shadow to have more: then nothing is gathered first.
    awaited: Cell<usize>,
}

/// A feed at work.
#[derive(Debug)]
pub(super) struct Applying {
    following: Following,
    pub reader: StreamReader,
    batch: Batch,
    pub dialect: Dialect,
    /// Of the shadow, in database 0.
    pub client: RedisClient,
    /// Of the authority, in database 0, for what is read while the feed stands still.
    pub source: Option<RedisClient>,
    /// Where the shadow keeps the position.
    key: Vec<u8>,
    /// Not before this are keys that may differ copied again.
    pub repair_due: Instant,
    lag: Lag,
}

/// Somebody waits for the shadow to have more, as long as this lives.
struct Waits<'a>(&'a Shared);

impl<'a> Waits<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.awaited.set(shared.awaited.get() + 1);
        shared.has_work.notify_one();
        Self(shared)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.awaited.set(self.0.awaited.get() - 1);
    }
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
            exclusions: RefCell::default(),
            absent: RefCell::default(),
            has_absent: Notify::new(),
            made_anew: RefCell::default(),
            touches: RefCell::default(),
            unsettled: RefCell::default(),
            work: RefCell::default(),
            has_work: Notify::new(),
            stop_at: Cell::new(None),
            keeps: Cell::new(false),
            changed: Notify::new(),
            awaited: Cell::new(0),
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

    #[must_use]
    pub fn doubts_len(&self) -> usize {
        self.0.doubts_len()
    }

    /// What the shadow cannot hold as the authority does.
    #[must_use]
    pub fn losses(&self) -> Vec<Doubt> {
        self.0.losses.borrow().iter().cloned().collect()
    }

    /// The keys that are not moved.
    #[must_use]
    pub fn exclusions(&self) -> Rc<Exclusions> {
        self.0.exclusions()
    }

    /// These may differ: they are copied again.
    pub fn doubt(&self, more: impl IntoIterator<Item = Doubt>) {
        self.0.doubt(more);
    }

    /// Waits until the shadow has everything up to an offset of the authority's stream.
    pub async fn applied(&self, offset: u64) {
        self.0.applied(offset).await;
    }

    /// Waits until no key is known that may differ.
    pub async fn undoubted(&self) {
        self.0.until(|_, doubts| doubts == 0).await;
    }

    /// Waits until the status is so.
    pub async fn until(&self, done: impl Fn(&FeedStatus) -> bool) {
        self.0.until(|status, _| done(status)).await;
    }

    /// Ends [`Self::run_forever`] as soon as the shadow has everything up to here, between two batches.
    pub fn stop_at(&self, offset: u64) {
        self.0.stop_at.set(Some(offset));
        self.0.has_work.notify_one();
    }

    /// From the moment a shadow is found to have everything until clients go on, it may become the authority at any time: an old authority that restarts
    /// meanwhile, with another stream, must not have it filled anew.
    pub fn keep_what_is_there(&self, keeps: bool) {
        self.0.keeps.set(keeps);
    }

    /// Keeps the shadow in step until something fails, or it was told to stop. Dropping it leaves both servers as they are.
    ///
    /// # Errors
    /// [`FeedError`].
    pub async fn run(&self, standing: Option<Standing>, events: &mpsc::Sender<FeedEvent>) -> Result<(), FeedError> {
        let shared = &self.0;
        let applying = shared.begin(standing, events).await?;
        shared.note(|status| {
            (status.applied, status.connected) = (Some(applying.reader.position()), true);
            status.received = applying.following.received();
        });
        shared.touches.borrow_mut().begin(applying.reader.position().offset);
        let ended = tokio::select! {
            // In this order, so that a run in virtual time can be repeated.
            biased;
            ended = shared.apply(applying) => ended,
            ended = shared.correct_deadlines(events) => ended,
            ended = shared.look_at_absent() => ended,
        };
        shared.note(|status| status.connected = false);
        ended
    }

    /// Runs until it is told to stop, and starts over after a failure. `standing`: the stream it begins with, where that is followed already.
    pub async fn run_forever(&self, mut standing: Option<Standing>, events: &mpsc::Sender<FeedEvent>) {
        let mut pause = limits::JOB_RECONNECT_PAUSE_MIN;
        loop {
            let before = self.status().commands;
            match self.run(standing.take(), events).await {
                Ok(()) => return,
                Err(error) => {
                    let gone = matches!(error, FeedError::Follow(FollowError::Gone { .. }));
                    // That nobody listens is no error.
                    drop(events.send(FeedEvent::Failed(error)).await);
                    if gone && self.0.keeps.get() && self.0.stop_at.get().is_some() {
                        return; // of that stream nothing more can come
                    }
                }
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
    pub fn note(&self, change: impl FnOnce(&mut FeedStatus)) {
        let mut status = self.status.get();
        change(&mut status);
        self.status.set(status);
        self.changed.notify_waiters();
    }

    pub fn status(&self) -> FeedStatus {
        self.status.get()
    }

    pub async fn applied(&self, offset: u64) {
        self.until(|status, _| status.connected && status.applied.is_some_and(|at| at.offset >= offset)).await;
    }

    async fn until(&self, done: impl Fn(&FeedStatus, usize) -> bool) {
        let _waits = Waits::begin(self);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.status(), self.doubts_len()) {
                return;
            }
            changed.await;
        }
    }

    /// Connects, finds where the shadow is, and follows the authority from there; fills the shadow anew where that cannot be.
    async fn begin(&self, standing: Option<Standing>, events: &mpsc::Sender<FeedEvent>) -> Result<Applying, FeedError> {
        let spec = &self.spec;
        let (dialect, version) = dialect(&spec.shadow, spec.grace_ms).await?;
        let key = position_key(&spec.name);
        if standing.is_none() {
            look_for_others(&spec.shadow, &spec.authority).await?;
        }
        let mut client = connect(&spec.shadow).await?;
        take_over(&mut client, &spec.name).await?;
        end_other_direction(&spec.authority).await?;
        self.load_exclusions(&mut client).await?;
        let follow = FollowSpec {
            endpoint: spec.authority.clone(),
            version,
            spill: spec.spill.clone(),
            sizes: Sizes::default(),
        };
        let mut lag = Lag::new();
        let (following, reader, dialect) = match standing {
            Some(Standing { following, reader }) => {
                let position = reader.position();
                client.must(&[b"SET", &key, position.to_string().as_bytes()]).await?;
                self.unsettled.borrow_mut().begin(position);
                self.continues(events).await;
                (following, reader, dialect)
            }
            None => match self.resume(&follow, &mut client, &key).await? {
                Some((following, reader)) => {
                    self.continues(events).await;
                    (following, reader, dialect)
                }
                None if self.keeps.get() => {
                    let why = "its stream does not go on, and nothing is copied while the authority changes".to_owned();
                    return Err(FollowError::Gone { server: format!("endpoint {}", spec.authority.name), why }.into());
                }
                None => {
                    let generous = Dialect { grace_ms: limits::FEED_HISTORY_GRACE_MS.max(spec.grace_ms), ..dialect };
                    let follow = self.for_history(follow, &generous).await?;
                    let (following, position) = self.fill(&follow, &generous, &mut client, &key, events).await?;
                    self.unsettled.borrow_mut().begin(position);
                    // The deadlines of the history outlast whatever comes now.
                    (lag.catching_up, lag.until_exact) = (false, false);
                    (following, StreamReader::new(position), generous)
                }
            },
        };
        let (batch, source, repair_due) = (Batch::default(), None, Instant::now());
        Ok(Applying { following, reader, batch, dialect, client, source, key, repair_due, lag })
    }

    async fn continues(&self, events: &mpsc::Sender<FeedEvent>) {
        self.note(|status| status.history_done = true);
        let _ = events.send(FeedEvent::Continues).await;
    }

    /// Goes on from the position that the shadow has; `None`: it has none, or the authority no longer has what followed.
    async fn resume(
        &self,
        follow: &FollowSpec,
        client: &mut RedisClient,
        key: &[u8],
    ) -> Result<Option<(Following, StreamReader)>, FeedError> {
        let Some(left) = position(client, key).await? else { return Ok(None) };
        if left.position.offset - left.settled.offset > limits::FEED_UNSETTLED_BYTES_MAX {
            return Ok(None);
        }
        let mut following = match resume(follow, &left.settled).await? {
            Resumed::Following(following) => following,
            Resumed::Gone => return Ok(None),
        };
        // A source that was promoted continues under a new name.
        let settled = Position { stream: following.stream(), ..left.settled };
        let mut reader = StreamReader::new(settled);
        self.unsettled.borrow_mut().begin(settled);
        self.doubt_up_to(left.position.offset, &mut following, &mut reader).await?;
        self.unsettled.borrow_mut().answered(reader.position());
        Ok(Some((following, reader)))
    }

    /// The shadow has what comes up to here, and may differ in the keys that are named there.
    async fn doubt_up_to(
        &self,
        offset: u64,
        following: &mut Following,
        reader: &mut StreamReader,
    ) -> Result<(), FeedError> {
        while reader.position().offset < offset {
            match self.next(reader)? {
                Some(Item::Command { frame, database, .. }) => {
                    let exclusions = self.exclusions();
                    let is_own = |key: &[u8]| key.starts_with(crate::RESERVED_PREFIX);
                    let keys = keys_with_databases(frame, database).into_iter();
                    let keys = keys.filter(|(database, key)| !is_own(key) && !exclusions.covers(*database, key));
                    let why = "it was applied before, and what came of it is not known";
                    self.doubt(keys.map(|(database, key)| Doubt { database, key: Some(key), why: why.to_owned() }));
                }
                Some(Item::Begin | Item::End | Item::WantsAck | Item::Idle) => {}
                None => following.feed(reader).await?,
            }
        }
        Ok(())
    }

    fn next<'a>(&self, reader: &'a mut StreamReader) -> Result<Option<Item<'a>>, FollowError> {
        reader.next_item().map_err(|why| FollowError::Stream {
            server: format!("endpoint {}", self.spec.authority.name),
            what: why.to_string(),
        })
    }

    /// Applies the stream until it ends.
    async fn apply(&self, mut at: Applying) -> Result<(), FeedError> {
        loop {
            let (began, before) = (Instant::now(), at.reader.position().offset);
            let gathered = self.gather(&mut at, None)?;
            if at.reader.at_boundary() {
                self.settle(&mut at, gathered).await?;
                if self.stop_at.get().is_some_and(|stop| at.reader.position().offset >= stop) {
                    return Ok(());
                }
                if self.stand_still(&mut at).await? || gathered.is_full {
                    continue;
                }
            }
            // More came while the shadow answered, so more is on its way: fewer and larger batches cost both servers much less.
            let is_busy = at.reader.position().offset > before && at.following.waiting_bytes() > 0;
            if is_busy && self.awaited.get() == 0 {
                tokio::select! {
                    biased;
                    () = self.has_work.notified() => continue,
                    () = tokio::time::sleep_until(began + limits::FEED_GATHER) => {}
                }
            }
            let repair_due = at.repair_due;
            let has_doubts = !self.doubts.borrow().is_empty();
            tokio::select! {
                biased;
                fed = at.following.feed(&mut at.reader) => fed?,
                () = self.has_work.notified() => {}
                () = tokio::time::sleep_until(repair_due), if has_doubts => {}
            }
        }
    }

    /// Applies the stream up to exactly this offset, which the authority has told.
    pub async fn advance_to(&self, at: &mut Applying, offset: u64) -> Result<(), FeedError> {
        loop {
            let gathered = self.gather(at, Some(offset))?;
            if at.reader.at_boundary() {
                self.settle(at, gathered).await?;
                if at.reader.position().offset >= offset {
                    return Ok(());
                }
                if gathered.is_full {
                    continue;
                }
            }
            at.following.feed(&mut at.reader).await?;
        }
    }

    /// Sends what was gathered, between two transactions, and says how far that is.
    async fn settle(&self, at: &mut Applying, gathered: Gathered) -> Result<(), FeedError> {
        let position = at.reader.position();
        if !at.batch.is_empty() {
            self.send(at, position).await?;
            self.unsettled.borrow_mut().answered(position);
        } else if self.status().applied != Some(position) && self.unsettled.borrow().is_news() {
            // The stream only says that it lives: the shadow is told that nothing is open.
            self.send(at, position).await?;
        }
        let (received, waiting_bytes) = (at.following.received(), at.following.waiting_bytes());
        self.note(|status| {
            status.applied = Some(position);
            (status.received, status.waiting_bytes) = (received, waiting_bytes);
        });
        if gathered.wants_ack {
            at.following.acknowledge_now(position.offset);
        } else {
            at.following.acknowledge(position.offset);
        }
        at.lag.note(received, position.offset);
        Ok(())
    }

    /// Takes what has arrived into a batch, up to its size and then to the end of the source's transaction; nothing behind `until`.
    fn gather(&self, at: &mut Applying, until: Option<u64>) -> Result<Gathered, FeedError> {
        let mut gathered = Gathered::default();
        // What the shadow lost before its deadlines were corrected lives on at the authority for a grace.
        let lost_is_gone = Duration::from_millis(u64::try_from(2 * self.spec.grace_ms).unwrap_or(0));
        at.lag.until_exact &= self.status().exact_since.is_none_or(|since| since.elapsed() < lost_is_gone);
        let since = at.following.waits_since(self.status().applied.map_or(0, |at| at.offset));
        let doubtful = at.lag.is_doubtful(since, Instant::now(), at.dialect.grace_ms);
        loop {
            let full =
                at.batch.commands() >= limits::FEED_BATCH_COMMANDS || at.batch.bytes() >= limits::FEED_BATCH_BYTES;
            if at.reader.at_boundary() {
                if full {
                    gathered.is_full = true;
                    return Ok(gathered);
                }
                if until.is_some_and(|until| at.reader.position().offset >= until) {
                    return Ok(gathered);
                }
            }
            match self.next(&mut at.reader)? {
                None => return Ok(gathered),
                Some(Item::Command { frame, database, offset }) => {
                    self.touches.borrow_mut().note(frame, database, offset);
                    if !self.is_moved(frame, database, &mut at.batch)? {
                        continue;
                    }
                    if doubtful {
                        watch_presence(frame, database, &mut at.batch);
                    }
                    self.look_at_persist(frame, database, doubtful || at.batch.is_watching());
                    self.translate(frame, database, &at.dialect, &mut at.batch, &at.key);
                }
                Some(Item::WantsAck) => gathered.wants_ack = true,
                Some(Item::Begin | Item::End | Item::Idle) => {}
            }
        }
    }

    fn translate(&self, frame: &[u8], database: u32, dialect: &Dialect, batch: &mut Batch, key: &[u8]) {
        match dialect.translate(frame, database, now_ms() as i64, batch) {
            Translated::Sent | Translated::Dropped => {}
            Translated::Lost(why) => self.doubt(doubts(database, frame, why)),
        }
        if let Some(stray) = swapped_with_0(frame) {
            batch.forget(stray, key);
        }
    }

    async fn send(&self, at: &mut Applying, position: Position) -> Result<(), FeedError> {
        let left = self.unsettled.borrow_mut().tell(position);
        let (requests, count) = at.batch.seal(&at.key, &left);
        let (mut awaited, mut refused, mut exec) = (count, None, Vec::new());
        let read = |reply: &[u8]| {
            awaited -= 1;
            if awaited == 0 {
                exec.extend_from_slice(reply);
            } else if refused.is_none() && reply.starts_with(b"-") {
                refused = Some(reply.to_vec());
            }
            Ok(())
        };
        let began = Instant::now();
        at.client.exchange(requests, count, read).await?;
        if at.lag.was_late(began, Instant::now(), at.dialect.grace_ms) {
            self.look_at_late(&at.batch);
        }
        match at.batch.outcome(refused.as_deref(), &exec) {
            Outcome::Applied(found) => {
                if !found.doubts.is_empty() {
                    self.doubt(found.doubts);
                }
                self.look_at(found.absent);
                self.spread_doubts(&at.batch);
                self.follow_swaps(&at.batch);
                if at.dialect.grace_ms == self.spec.grace_ms && !self.status().deadlines_exact {
                    self.doubt_carried_deadlines(&at.batch);
                }
            }
            Outcome::Refused(why) => {
                return Err(FeedError::Refused { shadow: at.client.who().to_owned(), why });
            }
        }
        let commands = at.batch.commands() as u64;
        self.note(|status| status.commands += commands);
        at.batch.clear();
        Ok(())
    }
}

/// The database that the position moves to when this command exchanges it with database 0.
fn swapped_with_0(frame: &[u8]) -> Option<u32> {
    match swapped(frame)? {
        (0, other) | (other, 0) => Some(other),
        _ => None,
    }
}
