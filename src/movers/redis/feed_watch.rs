//! Tells control how a feed stands: its facts ten times a second, its passes, and when a side is lost. Lives on the movers' thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::clients::{Clients, with_client};
use super::clock::now_ms;
use super::feed::applier::Feed;
use super::feed::exact::end_of_stream;
use super::feed::spec::{FeedError, FeedEvent, FeedStatus};
use super::feed::standby::Standby;
use crate::contract::{
    Applied, Behind, Copied, FreshFacts, MoverEvent, PassKind, PassStarted, ReadsCompared, Route, ShadowFacts,
};
use crate::error::JobError;
use crate::progress::{Meter, Progress};
use base::model::{InterlayName, Side, limits};

/// Where the authority was, some moments ago, to tell how late the shadow is.
const SIGHTINGS: usize = 600;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Watch {
    interlay: InterlayName,
    events: mpsc::Sender<(InterlayName, MoverEvent)>,
    route: Route,
    feed: Feed,
    standby: Rc<Standby>,
    totals: Totals,
    /// Losses that were told.
    told: Cell<usize>,
    pass: RefCell<Option<Pass>>,
    ends: RefCell<VecDeque<(Instant, u64)>>,
    authority_answers: Cell<bool>,
    /// Which side, and what was told of it.
    lost: RefCell<Option<(Side, String)>>,
}

/// What is counted over all directions of one interlay.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub reads: Rc<Cell<ReadsCompared>>,
    pub passes: Rc<Cell<u64>>,
    /// Keys and bytes of snapshots that were written to a shadow.
    pub copied: Rc<Cell<(u64, u64)>>,
}

#[derive(Debug)]
struct Pass {
    number: u64,
    progress: Arc<Progress>,
    meter: Meter,
    /// Of the feed, when it was last looked at.
    keys: u64,
    bytes: u64,
}

impl Watch {
    pub(super) fn new(
        (interlay, events): (InterlayName, mpsc::Sender<(InterlayName, MoverEvent)>),
        route: Route,
        feed: Feed,
        standby: Rc<Standby>,
        totals: Totals,
    ) -> Self {
        Self {
            interlay,
            events,
            route,
            feed,
            standby,
            totals,
            told: Cell::new(0),
            pass: RefCell::default(),
            ends: RefCell::default(),
            authority_answers: Cell::new(false),
            lost: RefCell::default(),
        }
    }

    async fn tell(&self, event: MoverEvent) {
        // Control is gone only when the process ends.
        let _ = self.events.send((self.interlay.clone(), event)).await;
    }

    // ---- what the feed says -------------------------------------------------------------------------------------------

    pub(super) async fn hear(&self, mut heard: mpsc::Receiver<FeedEvent>) {
        while let Some(event) = heard.recv().await {
            match event {
                FeedEvent::Filling { why, keys } => self.begin_pass(PassKind::Full, why, keys).await,
                FeedEvent::Continues => {
                    self.is_back().await;
                    let why = "nothing is copied: the feed continues at the position the shadow has".to_owned();
                    self.begin_pass(PassKind::Volatile, why, 0).await;
                }
                FeedEvent::Filled => self.is_back().await,
                FeedEvent::DeadlinesExact => self.end_pass().await,
                FeedEvent::Failed(error) => self.failed(error).await,
            }
        }
    }

    async fn begin_pass(&self, kind: PassKind, reason: String, keys: u64) {
        let number = self.totals.passes.get() + 1;
        self.totals.passes.set(number);
        let progress = Arc::new(Progress::default());
        progress.begin(keys);
        let pass = Pass { number, progress: Arc::clone(&progress), meter: Meter::start(), keys: 0, bytes: 0 };
        self.pass.replace(Some(pass));
        let started = PassStarted { number, kind, epoch: self.route.epoch, reason, progress };
        self.tell(MoverEvent::PassStarted(started)).await;
    }

    async fn end_pass(&self) {
        self.advance_pass(self.feed.status());
        let Some(Pass { number, progress, keys, bytes, .. }) = self.pass.take() else { return };
        progress.finish();
        let copied = Copied { copied: keys, bytes, ..Copied::default() };
        self.tell(MoverEvent::PassDone { number, copied }).await;
    }

    fn advance_pass(&self, status: FeedStatus) {
        if let Some(pass) = self.pass.borrow_mut().as_mut() {
            let (keys, bytes) = (status.history_keys, status.history_bytes);
            let more = (keys.saturating_sub(pass.keys), bytes.saturating_sub(pass.bytes));
            pass.meter.add(&pass.progress, more.0, more.1);
            let all = self.totals.copied.get();
            self.totals.copied.set((all.0 + more.0, all.1 + more.1));
            (pass.keys, pass.bytes) = (keys, bytes);
            pass.progress.stretch();
        }
    }

    async fn failed(&self, error: FeedError) {
        let side = if error.is_of_authority() { self.route.side } else { self.route.side.other() };
        // The same words again are no news; others are.
        let lost = (side, error.to_string());
        if self.lost.borrow_mut().replace(lost.clone()).as_ref() != Some(&lost) {
            self.tell(MoverEvent::SideLost { side, reason: lost.1 }).await;
        }
        let number = self.pass.borrow().as_ref().map(|pass| pass.number);
        if let Some(number) = number {
            let why = match error {
                FeedError::Shadow(why) => why,
                other => JobError::answer("the feed", other.to_string()),
            };
            self.tell(MoverEvent::PassInterrupted { number, why }).await;
        }
    }

    /// What the shadow cannot hold; the first few by name.
    async fn tell_losses(&self) {
        let told = self.told.get();
        if told >= limits::FEED_LOSSES_TOLD_MAX || self.feed.status().losses <= told as u64 {
            return;
        }
        let losses = self.feed.losses();
        let few = losses.len().min(limits::FEED_LOSSES_TOLD_MAX);
        self.told.set(few);
        for loss in losses.into_iter().take(few).skip(told) {
            let key = loss.key.map_or_else(|| "?".to_owned(), |key| key.escape_ascii().to_string());
            self.tell(MoverEvent::Loss { database: loss.database, key, why: loss.why }).await;
        }
    }

    async fn is_back(&self) {
        let lost = self.lost.take();
        if let Some((side, _)) = lost {
            self.tell(MoverEvent::SideBack { side }).await;
        }
    }

    // ---- facts ----------------------------------------------------------------------------------------------------------

    pub(super) async fn look_forever(&self, clients: &Clients) {
        let mut tick = interval(limits::CONTROL_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.advance_pass(self.feed.status());
            let facts = match self.look(clients).await {
                Some(fresh) => fresh,
                None => self.facts(None),
            };
            self.tell(MoverEvent::Facts(facts)).await;
            self.tell_losses().await;
        }
    }

    /// The facts of this moment; `None`: the authority does not answer.
    pub(super) async fn look(&self, clients: &Clients) -> Option<FreshFacts> {
        let asked = with_client(&clients.authority, &self.route.authority, async |client| end_of_stream(client).await);
        let end = timeout(limits::FEED_LOOK_PATIENCE, asked).await.ok().and_then(Result::ok);
        self.authority_answers.set(end.is_some());
        // Kept open for a flip.
        let shadow = with_client(&clients.shadow, &self.route.shadow, async |client| end_of_stream(client).await);
        let _ = timeout(limits::FEED_LOOK_PATIENCE, shadow).await;
        end.map(|end| self.facts(Some(end)))
    }

    fn facts(&self, end: Option<u64>) -> FreshFacts {
        let (status, now) = (self.feed.status(), Instant::now());
        let reached = status.applied.map_or(0, |at| at.offset);
        let end = end.unwrap_or(0).max(status.received).max(reached);
        let doubts = self.feed.doubts_len() as u64;
        let facts = ShadowFacts {
            at_ms: now_ms(),
            position: end,
            reached: status.applied.map(|at| at.offset),
            pass: self.totals.passes.get(),
            behind: Behind {
                uncopied: !(status.connected && status.history_done && status.deadlines_exact),
                dirty: doubts,
                in_flight: u64::from(end > reached),
                // While a snapshot is read the stream waits behind it.
                queue_bytes: if status.applied.is_some() { end - reached } else { status.waiting_bytes },
                lag_us: self.lag_us(now, end, reached),
            },
            applied: Applied {
                copied_keys: self.totals.copied.get().0,
                copied_bytes: self.totals.copied.get().1,
                effects: status.commands,
                dirtied: status.doubted,
                altered: 0,
            },
            excluded: status.excluded,
            source: status.source,
            losses: status.losses,
            reads: self.totals.reads.get(),
            way_back: self.standby.attached().is_ok(),
            unseen_at_ms: 0,
            unseen_last_at_ms: 0,
            authority_connected: self.authority_answers.get() && status.connected,
            shadow_connected: status.connected,
        };
        FreshFacts { facts, received: now }
    }

    /// How long ago the authority was where the shadow is now.
    fn lag_us(&self, now: Instant, end: u64, reached: u64) -> u64 {
        let mut ends = self.ends.borrow_mut();
        // With many kept, the oldest of them tells.
        if ends.len() < SIGHTINGS {
            ends.push_back((now, end));
        }
        // The oldest sighting that the shadow has not reached: it is at least that late.
        while ends.front().is_some_and(|&(_, end)| end <= reached) {
            ends.pop_front();
        }
        let late = ends.front().map_or(0, |&(at, _)| now.duration_since(at).as_micros());
        u64::try_from(late).unwrap_or(u64::MAX)
    }
}
