//! Moves servers by the lane of one interlay, and turns what the lane says into facts that know no lane.
//!
//! Lives on the movers' thread. The lane itself lives on a core and does the copying; this names keys to it, holds and releases writes, and tells
//! control how far the shadow is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::backfill::{BackfillSpec, backfill};
use super::lane_client::LaneClient;
use super::probes::Prober;
use crate::contract::{
    Applied, Behind, Drained, Excluded, FreshFacts, HeldClients, HoldError, MoverEvent, PassKind, PassStarted,
    ReadsCompared, Released, Route, ShadowFacts, SourceLoad,
};
use crate::error::JobError;
use crate::progress::Progress;
use base::model::{InterlayName, Side, Sighting, limits};
use bus::{Directive, LaneEvent, LaneStatus, Mailbox, companion_core};

/// Tries of a release before it is given up and the operator is told.
const RELEASE_TRIES: u32 = 3;

/// The mover of one Redis interlay while its sides are kept in step by the lane. Clones share everything.
#[derive(Debug, Clone)]
pub struct LaneMover {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    interlay: InterlayName,
    lane: LaneClient,
    /// `None`: the authority is alone.
    route: RefCell<Option<Route>>,
    facts: Cell<Option<FreshFacts>>,
    /// Of the pass under way.
    pass: RefCell<Option<Arc<Progress>>>,
    events: mpsc::Sender<(InterlayName, MoverEvent)>,
}

impl LaneMover {
    pub fn new(
        interlay: InterlayName,
        cores: &[Mailbox<Directive>],
        route: Option<Route>,
        events: mpsc::Sender<(InterlayName, MoverEvent)>,
    ) -> Result<Self, String> {
        let mailbox = cores.get(usize::from(companion_core(&interlay).0)).cloned();
        let mailbox = mailbox.ok_or_else(|| format!("interlay {interlay}: there is no core for its companion"))?;
        let shared = Shared {
            lane: LaneClient::new(interlay.clone(), mailbox),
            interlay,
            route: RefCell::new(route),
            facts: Cell::new(None),
            pass: RefCell::default(),
            events,
        };
        Ok(Self { shared: Rc::new(shared) })
    }

    pub fn keep_in_step(&self, route: Route) -> Result<(), JobError> {
        self.shared.route.replace(Some(route));
        self.shared.lane.open()
    }

    pub fn leave_alone(&self) -> Result<(), JobError> {
        self.shared.route.replace(None);
        self.shared.facts.set(None);
        self.stop_pass();
        self.shared.lane.close()
    }

    /// The lane exchanges its own roles by the plan; from now on passes and comparisons go the other way.
    pub fn exchange(&self, route: Route) -> Result<(), JobError> {
        self.shared.facts.set(None);
        self.keep_in_step(route)
    }

    /// The lane holds and drains in one order, its fence; an expired fence has released its writes.
    pub async fn hold(&self, budget: Duration) -> Result<Drained, HoldError> {
        match self.shared.lane.fence(budget).await {
            Ok(Ok(())) => Ok(Drained { facts: self.shared.facts.get() }),
            Ok(Err(reason)) => Err(HoldError::Expired { reason, clients: HeldClients::Released, silent: Vec::new() }),
            Err(error) => Err(HoldError::Failed(error)),
        }
    }

    pub async fn release(&self) -> Result<Released, JobError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.shared.lane.release().await {
                Ok((longest_hold_us, held)) => return Ok(Released { held, longest_hold_us, silent: Vec::new() }),
                Err(error) if tries >= RELEASE_TRIES => return Err(error),
                Err(_) => sleep(limits::FENCE_RETRY_PAUSE).await,
            }
        }
    }

    pub fn prober(&self) -> Result<(Route, Prober), JobError> {
        Ok((self.route()?, Prober::Lane(self.shared.lane.clone())))
    }

    /// Marked dirty, the lane copies them again.
    pub fn repair(&self, differing: &[Sighting]) -> Result<(), JobError> {
        differing.iter().try_for_each(|one| self.shared.lane.repair(one.database, vec![one.key.clone().into()]))
    }

    fn route(&self) -> Result<Route, JobError> {
        let route = self.shared.route.borrow().clone();
        route.ok_or_else(|| JobError::NotInStep(self.shared.interlay.clone()))
    }

    pub async fn on_lane(&self, event: LaneEvent) {
        self.shared.lane.on_event(&event);
        let Ok(route) = self.route() else { return };
        match event {
            LaneEvent::PassStarted { pass, kind, reason } => {
                let kind = match kind {
                    bus::PassKind::Full => PassKind::Full,
                    bus::PassKind::Volatile => PassKind::Volatile,
                };
                self.begin_pass(pass, kind, reason, route).await;
            }
            LaneEvent::Status(status) => {
                let fresh = FreshFacts { facts: facts(&status), received: Instant::now() };
                self.shared.facts.set(Some(fresh));
                self.tell(MoverEvent::Facts(fresh)).await;
            }
            LaneEvent::ReadDivergence { database, key, class, authority, shadow } => {
                let (source, target) = by_side(route.side, authority, shadow);
                let seen = Sighting { database, key: key.into_vec(), class, source, target };
                self.tell(MoverEvent::Divergence(seen)).await;
            }
            LaneEvent::RecordNotCopied { database, key } => {
                let key = String::from_utf8_lossy(&key).into_owned();
                self.tell(MoverEvent::NotCopied { database, key }).await;
            }
            LaneEvent::SideLost { side, reason } => {
                self.connected(&route, side, |connected| *connected = false).await;
                self.tell(MoverEvent::SideLost { side, reason }).await;
            }
            LaneEvent::SideBack { side } => {
                self.connected(&route, side, |connected| *connected = true).await;
                self.tell(MoverEvent::SideBack { side }).await;
            }
            LaneEvent::IntentLog { full } => self.tell(MoverEvent::DoubtsWrittenDown { all: !full }).await,
            // Answers to tickets: `LaneClient::on_event` has handed them over.
            LaneEvent::Copied { .. }
            | LaneEvent::Probed { .. }
            | LaneEvent::ProbeFailed { .. }
            | LaneEvent::Fenced { .. }
            | LaneEvent::FenceExpired { .. }
            | LaneEvent::Released { .. } => {}
        }
    }

    /// The lane names a side as source or target; facts speak of authority and shadow. Facts keep the age of the status they came with.
    async fn connected(&self, route: &Route, side: Side, change: impl FnOnce(&mut bool)) {
        let Some(mut fresh) = self.shared.facts.get() else { return };
        if side == route.side {
            change(&mut fresh.facts.authority_connected);
        } else {
            change(&mut fresh.facts.shadow_connected);
        }
        self.shared.facts.set(Some(fresh));
        self.tell(MoverEvent::Facts(fresh)).await;
    }

    async fn tell(&self, event: MoverEvent) {
        // Control is gone only when the process ends.
        let _ = self.shared.events.send((self.shared.interlay.clone(), event)).await;
    }

    fn stop_pass(&self) {
        if let Some(old) = self.shared.pass.take() {
            old.cancel();
        }
    }

    /// The lane wants every key named (again): the pass before it is void.
    async fn begin_pass(&self, number: u64, kind: PassKind, reason: String, route: Route) {
        self.stop_pass();
        let progress = Arc::new(Progress::default());
        self.shared.pass.replace(Some(Arc::clone(&progress)));
        let started = PassStarted { number, kind, epoch: route.epoch, reason, progress: Arc::clone(&progress) };
        self.tell(MoverEvent::PassStarted(started)).await;
        let mover = self.clone();
        tokio::task::spawn_local(async move { mover.run_pass(number, kind, &route, &progress).await });
    }

    /// Names every key to the lane; tried again until it is done or void.
    async fn run_pass(&self, number: u64, kind: PassKind, route: &Route, progress: &Arc<Progress>) {
        while !progress.is_cancelled() {
            let spec =
                BackfillSpec { authority: route.authority.clone(), shadow: route.shadow.clone(), pass: number, kind };
            match backfill(spec, self.shared.lane.clone(), Arc::clone(progress)).await {
                Ok(copied) => return self.tell(MoverEvent::PassDone { number, copied }).await,
                Err(JobError::Cancelled) => return,
                Err(why) => {
                    self.tell(MoverEvent::PassInterrupted { number, why }).await;
                    sleep(limits::JOB_RETRY_PAUSE).await;
                }
            }
        }
    }
}

/// (authority, shadow) as (source, target).
pub(super) fn by_side(authority_side: Side, authority: String, shadow: String) -> (String, String) {
    match authority_side {
        Side::Source => (authority, shadow),
        Side::Target => (shadow, authority),
    }
}

fn facts(status: &LaneStatus) -> ShadowFacts {
    ShadowFacts {
        at_ms: status.at_ms,
        position: status.position,
        reached: None,
        pass: status.pass,
        behind: Behind {
            uncopied: status.uncopied,
            dirty: status.dirty,
            in_flight: status.in_flight,
            queue_bytes: status.shadow_queue_bytes,
            lag_us: status.shadow_lag_us,
        },
        applied: Applied {
            copied_keys: status.copied_keys,
            copied_bytes: status.copied_bytes,
            effects: status.effects,
            dirtied: status.dirtied,
            altered: status.altered,
        },
        excluded: Excluded::default(),
        source: SourceLoad::default(),
        losses: 0,
        reads: ReadsCompared {
            compared: status.reads_compared,
            equivalent: status.reads_equivalent,
            not_comparable: status.reads_not_comparable,
            inconclusive: 0,
            divergent: status.read_divergences,
        },
        authority_connected: status.authority_connected,
        shadow_connected: status.shadow_connected,
        // The lane turns round by itself.
        way_back: true,
        unseen_at_ms: status.scripts_unproven_at_ms,
        unseen_last_at_ms: status.scripts_ran_at_ms,
    }
}
