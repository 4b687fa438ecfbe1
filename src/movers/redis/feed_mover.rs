//! Moves servers that give out their stream of changes: runs the feed of one direction, keeps the way back ready, holds clients on every core, and
//! exchanges the roles. Lives on the movers' thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::clients::{Clients, end_connections, end_feed, leave_position, remove_key};
use super::confirmations::Confirmations;
use super::feed::applier::Feed;
use super::feed::compare::FeedReader;
use super::feed::conflicts::own_keys;
use super::feed::exclusions::Exclusions;
use super::feed::shadow::position_key;
use super::feed::spec::{FeedSpec, Standing};
use super::feed::standby::Standby;
use super::feed_watch::{Totals, Watch};
use super::probes::Prober;
use super::reads::{Place, Reads};
use crate::contract::{Drained, FreshFacts, HeldClients, HoldError, MoverEvent, Released, Route};
use crate::error::{JobError, ServerFault};
use crate::holds::Holds;
use base::model::{Authority, CoreId, Epoch, InterlayName, SampledRead, Sighting, limits};
use bus::{Directive, HoldEvent, Mailbox};
use follow::redis::position::Position;
use follow::redis::spill::SpillSpec;

/// The mover of one Redis interlay while its sides are kept in step by a replication feed. Clones share everything.
#[derive(Debug, Clone)]
pub struct FeedMover(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    interlay: InterlayName,
    events: mpsc::Sender<(InterlayName, MoverEvent)>,
    holds: Holds,
    running: RefCell<Option<Running>>,
    /// A position for the next epoch was left at the authority of the present one, visible to clients until they are released.
    left: Cell<bool>,
    confirmations: Rc<Confirmations>,
    reads: Rc<Reads>,
    passes: Rc<Cell<u64>>,
    copied: Rc<Cell<(u64, u64)>>,
}

/// What runs for one route. Dropping it ends all of it.
#[derive(Debug)]
struct Running {
    route: Route,
    feed: Feed,
    applying: Task,
    standby: Rc<Standby>,
    watch: Rc<Watch>,
    reader: Rc<FeedReader>,
    /// Of the authority and the shadow, for short questions; kept open so that a flip does not wait for a log-in.
    clients: Rc<Clients>,
    _told: Task,
    _watching: Task,
    _comparing: Task,
    _confirming: Option<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) -> Task {
    Task(tokio::task::spawn_local(task))
}

fn spill() -> SpillSpec {
    SpillSpec {
        memory_bytes_max: limits::FEED_SPILL_MEMORY_BYTES,
        bytes_max: limits::FEED_SPILL_BYTES_MAX,
        folder: std::env::temp_dir(),
    }
}

impl FeedMover {
    pub fn new(
        interlay: InterlayName,
        cores: Vec<Mailbox<Directive>>,
        events: mpsc::Sender<(InterlayName, MoverEvent)>,
    ) -> Self {
        Self(Rc::new(Shared {
            confirmations: Rc::new(Confirmations::new(interlay.clone(), cores.clone())),
            holds: Holds::new(interlay.clone(), cores),
            reads: Rc::new(Reads::default()),
            interlay,
            events,
            running: RefCell::default(),
            left: Cell::new(false),
            passes: Rc::default(),
            copied: Rc::default(),
        }))
    }

    pub fn is_running(&self) -> bool {
        self.0.running.borrow().is_some()
    }

    /// The keys that are not moved.
    pub fn exclusions(&self) -> Rc<Exclusions> {
        self.0.running.borrow().as_ref().map_or_else(Rc::default, |running| running.feed.exclusions())
    }

    pub fn on_hold(&self, core: CoreId, ticket: u64, event: HoldEvent) {
        self.0.holds.on_answer(core, ticket, event);
    }

    pub fn on_confirm(&self, core: CoreId, ticket: u64) {
        self.0.confirmations.ask(core, ticket);
    }

    pub fn on_reads(&self, reads: Vec<SampledRead>) {
        self.0.reads.take(reads);
    }

    /// Harmless when repeated.
    pub fn keep_in_step(&self, route: Route) {
        let same = self.0.running.borrow().as_ref().is_some_and(|running| running.route == route);
        if !same {
            // After a flip both sides hold what counts; before one only the source does.
            let guarded = route.epoch > Authority::initial().epoch;
            self.begin(route, None, guarded, Rc::default());
        }
    }

    pub fn leave_alone(&self) {
        let Some(running) = self.0.running.take() else { return };
        let (route, name) = (running.route.clone(), self.feed_name(running.route.epoch));
        let keys = own_keys(&name, self.0.interlay.as_str());
        drop(running);
        tokio::task::spawn_local(async move {
            for key in keys {
                // A key of ours that stays is of no use and does no harm.
                let _ = remove_key(&route.shadow, &key).await;
            }
        });
    }

    fn position_key(&self, epoch: Epoch) -> Vec<u8> {
        position_key(&self.feed_name(epoch))
    }

    fn feed_name(&self, epoch: Epoch) -> String {
        format!("{}:{}", self.0.interlay, epoch.0)
    }

    fn begin(&self, route: Route, standing: Option<Standing>, guarded: bool, inherited: Rc<Exclusions>) {
        let feed = Feed::new(FeedSpec {
            name: self.feed_name(route.epoch),
            authority: route.authority.clone(),
            shadow: route.shadow.clone(),
            grace_ms: i64::try_from(route.ttl_grace_ms).unwrap_or(0),
            spill: spill(),
            guarded,
            conflicts: route.conflicts.clone(),
            source_p99_ms: route.source_p99_ms,
            inherited,
        });
        let (told, heard) = mpsc::channel(limits::FEED_EVENTS_LEN);
        let own = feed.clone();
        let applying = spawn(async move { own.run_forever(standing, &told).await });
        let standby = Rc::new(Standby::begin(route.shadow.clone(), route.authority.clone(), spill()));
        let clients = Rc::new(Clients::default());
        let watch = Rc::new(Watch::new(
            (self.0.interlay.clone(), self.0.events.clone()),
            route.clone(),
            feed.clone(),
            Rc::clone(&standby),
            Totals {
                reads: self.0.reads.counts(),
                passes: Rc::clone(&self.0.passes),
                copied: Rc::clone(&self.0.copied),
            },
        ));
        let reader = Rc::new(FeedReader::new(feed.clone()));
        let (hearing, watching) = (Rc::clone(&watch), Rc::clone(&watch));
        let asked = Rc::clone(&clients);
        let told = spawn(async move { hearing.hear(heard).await });
        let watching = spawn(async move { watching.look_forever(&asked).await });
        let place = Place {
            interlay: self.0.interlay.clone(),
            events: self.0.events.clone(),
            route: route.clone(),
            feed: feed.clone(),
            reader: Rc::clone(&reader),
        };
        let reads = Rc::clone(&self.0.reads);
        let comparing = spawn(async move { reads.compare_forever(&place).await });
        let confirming = route.confirm_writes.then(|| {
            let (confirmations, route, feed) = (Rc::clone(&self.0.confirmations), route.clone(), feed.clone());
            spawn(async move { confirmations.answer_forever(&route, &feed).await })
        });
        self.0.running.replace(Some(Running {
            route,
            feed,
            applying,
            standby,
            watch,
            reader,
            clients,
            _told: told,
            _watching: watching,
            _comparing: comparing,
            _confirming: confirming,
        }));
    }

    fn route(&self) -> Result<Route, JobError> {
        let running = self.0.running.borrow();
        running.as_ref().map(|running| running.route.clone()).ok_or_else(|| self.not_in_step())
    }

    fn not_in_step(&self) -> JobError {
        JobError::NotInStep(self.0.interlay.clone())
    }

    /// Holds clients, waits until the shadow has all they were told, and leaves at the authority where the other direction would begin.
    pub async fn hold(&self, budget: Duration) -> Result<Drained, HoldError> {
        let deadline = Instant::now() + budget;
        self.0.holds.hold(deadline).await?;
        let reached = self.reach_the_end(deadline).await;
        reached.map(|facts| Drained { facts: Some(facts) })
    }

    async fn reach_the_end(&self, deadline: Instant) -> Result<FreshFacts, HoldError> {
        let late = |reason: String| HoldError::Expired { reason, clients: HeldClients::StillHeld, silent: Vec::new() };
        let (feed, standby, watch, clients, route) = {
            let running = self.0.running.borrow();
            let running = running.as_ref().ok_or_else(|| HoldError::Failed(self.not_in_step()))?;
            let (feed, standby) = (running.feed.clone(), Rc::clone(&running.standby));
            (feed, standby, Rc::clone(&running.watch), Rc::clone(&running.clients), running.route.clone())
        };
        let end = clients.stream_of_authority(&route, deadline).await.map_err(HoldError::Failed)?;
        let same = |end: &Position| feed.status().applied.is_some_and(|at| at.stream == end.stream);
        let Some(Position { offset: end, .. }) = end.filter(same) else {
            // It has restarted: what the shadow has is a place in another stream.
            return Err(late(format!("the {} is not followed in its present stream", route.side)));
        };
        let behind = || late(format!("the {} did not have everything in time", route.side.other()));
        timeout_at(deadline, feed.applied(end)).await.map_err(|_| behind())?;
        let doubts = || late(format!("{} keys could not be copied again in time", feed.doubts_len()));
        timeout_at(deadline, feed.undoubted()).await.map_err(|_| doubts())?;
        let begin = clients.end_of_shadow(&route, deadline).await.map_err(HoldError::Failed)?;
        // Without it the way back begins with a snapshot; whether that is allowed is for the gates.
        if let Some(position) = standby.reached(begin, deadline).await {
            let position = Position { offset: begin, ..position };
            self.0.left.set(true);
            let key = self.position_key(route.epoch.next());
            let leaving = leave_position(&clients, &route, &key, &position);
            match timeout_at(deadline, leaving).await {
                Ok(left) => left.map_err(HoldError::Failed)?,
                Err(_) => return Err(behind()),
            }
        }
        feed.keep_what_is_there(true);
        watch.look(&clients).await.ok_or_else(behind)
    }

    pub async fn release(&self) -> Result<Released, JobError> {
        if let Some(running) = self.0.running.borrow().as_ref() {
            running.feed.keep_what_is_there(false);
        }
        if self.0.left.take()
            && let Ok(route) = self.route()
        {
            // Nothing was exchanged: clients are not to see it.
            let key = self.position_key(route.epoch.next());
            let _ = remove_key(&route.authority, &key).await;
        }
        Ok(self.0.holds.release().await)
    }

    /// Every core has closed its connections to the old authority. From here on the other direction applies.
    pub async fn exchange(&self, route: Route) -> Result<(), JobError> {
        self.0.left.set(false);
        let Some(old) = self.0.running.take() else {
            self.keep_in_step(route);
            return Ok(());
        };
        if old.route == route {
            self.0.running.replace(Some(old));
            return Ok(());
        }
        let deadline = Instant::now() + limits::FEED_EXCHANGE_PATIENCE;
        let inherited = old.feed.exclusions();
        let (finished, standing) = self.turn_round(old, deadline).await;
        self.begin(route, standing, true, inherited);
        self.0.holds.move_blocked(Instant::now() + limits::FEED_MOVE_PATIENCE).await;
        finished
    }

    /// Applies the last of the old direction, and takes up the other where that ended.
    async fn turn_round(&self, old: Running, deadline: Instant) -> (Result<(), JobError>, Option<Standing>) {
        let Running { route, feed, mut applying, standby, clients, .. } = old;
        let late = || {
            let cause = ServerFault::ReplyTimeout(limits::FEED_EXCHANGE_PATIENCE);
            JobError::server(format!("endpoint {}", route.authority.name), cause)
        };
        let last = async {
            // What a core has sent and closed behind it may still be executed: end it, then see where the stream ends.
            end_connections(&clients, &route, &self.0.interlay).await?;
            let end = clients.end_of_authority(&route, deadline).await?;
            feed.stop_at(end);
            // It ends by itself when the shadow has that. With its authority out of reach nothing more can come from there.
            let _ = (&mut applying.0).await;
            Ok(())
        };
        let finished = timeout_at(deadline, last).await.unwrap_or_else(|_| Err(late()));
        drop(applying);
        if finished.is_err() {
            // What it had under way must not be executed behind what clients write there.
            let feed = self.feed_name(route.epoch);
            let _ = timeout(limits::FEED_LOOK_PATIENCE, end_feed(&clients, &route, &feed)).await;
        }
        let standing = way_back(&route, &standby, &clients, deadline).await;
        let _ = remove_key(&route.shadow, &self.position_key(route.epoch)).await;
        (finished, standing)
    }

    pub fn prober(&self) -> Result<(Route, Prober), JobError> {
        let running = self.0.running.borrow();
        let running = running.as_ref().ok_or_else(|| self.not_in_step())?;
        Ok((running.route.clone(), Prober::Feed(self.0.interlay.clone(), Rc::clone(&running.reader))))
    }

    pub fn repair(&self, differing: &[Sighting]) -> Result<(), JobError> {
        let running = self.0.running.borrow();
        let running = running.as_ref().ok_or_else(|| self.not_in_step())?;
        running.feed.doubt(differing.iter().map(|one| super::feed::batch::Doubt {
            database: one.database,
            key: Some(one.key.clone()),
            why: format!("a comparison found it different: {}", one.class),
        }));
        Ok(())
    }
}

/// The stream of the new authority, from where our own writes to it end.
async fn way_back(route: &Route, standby: &Standby, clients: &Clients, deadline: Instant) -> Option<Standing> {
    let begin = clients.end_of_shadow(route, deadline).await.ok()?;
    standby.hand_over(begin, deadline).await
}
