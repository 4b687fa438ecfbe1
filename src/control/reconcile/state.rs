//! What the control thread holds: interlays with their plans, migrations with what was observed of them. Lives on the control thread.
//!
//! No `RefCell` borrow is held across an await. Whoever changes a record or a plan holds the interlay's `change` lock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::analysis::Analyst;
use super::events::{About, EventHub};
use super::gate::Gate;
use super::handle::ControlError;
use super::policies::{InterlayPolicies, Registry};
use super::window::Totals;
use crate::config::{Config, InterlayConfig};
use crate::store::Store;
use crate::workflow::{Check, Finding, MigrationRecord, Verification};
use base::model::{CoreId, Endpoint, EndpointName, Epoch, InterlayName, Ledger, MigrationId, RoutePlan, Timestamp};
use bus::counters::CoreCounters;
use bus::{LaneStatus, PassKind, Published, Switchboard};
use movers::{LaneClient, Progress, ServerFacts};

/// Wall-clock now. The only place of `control` that reads it.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Nanoseconds since the first call: what calls of filters are measured with.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(std::time::Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The last look at a server: what was found and when, or why nothing was.
pub type Look = Result<(ServerFacts, Timestamp), String>;

pub struct Control {
    pub config: Config,
    pub store: Rc<Store>,
    pub events: EventHub,
    pub bus: Switchboard,
    pub driver: String,
    pub started: Timestamp,
    pub interlays: BTreeMap<InterlayName, Rc<Interlay>>,
    pub migrations: RefCell<BTreeMap<MigrationId, Rc<Migration>>>,
    /// Rung at each ack of a plan and at each core drained.
    pub acked: Notify,
    pub cores: RefCell<Cores>,
    /// Facts of endpoints from the last check of each, with the time.
    pub facts: RefCell<BTreeMap<EndpointName, Look>>,
    /// Statements sampled on the cores, by fingerprint.
    pub analyst: Analyst,
    /// Filters that are loaded.
    pub filters: Registry,
    /// Tickets given to gates and lists of sessions.
    pub tickets: Cell<u64>,
    /// The process drains: no gate is closed any more.
    pub stopping: Cell<bool>,
    /// Set when the store failed under an authority change; every further change is refused until a restart.
    pub store_failed: RefCell<Option<String>>,
}

#[derive(Debug, Default)]
pub struct Cores {
    pub counters: BTreeMap<CoreId, Vec<(InterlayName, CoreCounters)>>,
    pub drained: BTreeSet<CoreId>,
    pub failed: Option<String>,
}

pub struct Interlay {
    pub config: InterlayConfig,
    pub lane: LaneClient,
    pub published: RefCell<Published>,
    /// Cores that have not acked the published plan yet.
    pub unacked: RefCell<BTreeSet<CoreId>>,
    /// Held by whoever changes the record, the plan or the fence.
    pub change: Mutex<()>,
    pub gate: Gate,
    /// Empty for protocols without migrations.
    pub policies: InterlayPolicies,
}

impl Interlay {
    /// The plan published last.
    #[must_use]
    pub fn plan(&self) -> Arc<RoutePlan> {
        Arc::clone(&self.published.borrow().plan)
    }
}

pub struct Migration {
    pub source: Endpoint,
    pub target: Endpoint,
    pub record: RefCell<MigrationRecord>,
    pub seen: RefCell<Observed>,
}

/// A pass of the lane over every key.
#[derive(Debug, Clone)]
pub struct Pass {
    pub number: u64,
    pub kind: PassKind,
    /// The authority's epoch when the lane began it.
    pub epoch: Epoch,
    pub done: bool,
    pub progress: Rc<Progress>,
}

/// What has been measured since the process started. Lost at its end, on purpose: a restart measures again.
pub struct Observed {
    pub source: Check,
    pub target: Check,
    pub exercised: Check,
    pub checked_at: Option<Instant>,
    pub checking: bool,
    pub target_keys: Result<u64, String>,
    pub findings: Result<Vec<Finding>, String>,
    pub findings_at: Option<Instant>,
    pub comparing: bool,
    /// Commands of all cores when the phase began.
    pub base_commands: u64,
    pub base_at: Instant,
    pub lane: Option<(LaneStatus, Instant)>,
    /// What the lane had done when dual operation ended, for the report.
    pub last_lane: Option<LaneStatus>,
    pub pass: Option<Pass>,
    pub verification: Option<Verification>,
    pub clean_since: Option<Timestamp>,
    pub verifying: Option<Rc<Progress>>,
    pub verify_after: Instant,
    /// When to compare again although nothing asks for it.
    pub verify_again: Instant,
    pub keys_verified: u64,
    pub verifications: u64,
    pub ledger: Ledger,
    pub ledger_unsaved: bool,
    pub smoking: bool,
    pub smoke_after: Instant,
    pub fence_after: Instant,
    pub fencing: bool,
    pub advancing: bool,
    pub fences_expired: u64,
    pub gates_met: BTreeMap<&'static str, bool>,
    pub approval_asked: Option<(u32, &'static str)>,
    /// By every backfill since the process started.
    pub bytes_copied: Cell<u64>,
    /// Totals at the end of the last window, and what the rollback policy said of it.
    pub window: Option<Totals>,
    pub rollback_policy: Option<Result<(), String>>,
}

impl Observed {
    pub fn new(ledger: Ledger) -> Self {
        let unknown = || "not measured yet".to_owned();
        let now = Instant::now();
        Self {
            source: Check::Unknown(unknown()),
            target: Check::Unknown(unknown()),
            exercised: Check::Unknown(unknown()),
            checked_at: None,
            checking: false,
            target_keys: Err(unknown()),
            findings: Err(unknown()),
            findings_at: None,
            comparing: false,
            base_commands: 0,
            base_at: now,
            lane: None,
            last_lane: None,
            pass: None,
            verification: None,
            clean_since: None,
            verifying: None,
            verify_after: now,
            verify_again: now,
            keys_verified: 0,
            verifications: 0,
            ledger,
            ledger_unsaved: false,
            smoking: false,
            smoke_after: now,
            fence_after: now,
            fencing: false,
            advancing: false,
            fences_expired: 0,
            gates_met: BTreeMap::new(),
            approval_asked: None,
            bytes_copied: Cell::new(0),
            window: None,
            rollback_policy: None,
        }
    }

    /// Forgets what belongs to dual operation: the lane is gone.
    pub fn leave_dual(&mut self) {
        self.last_lane = self.lane.take().map(|(status, _)| status);
        if let Some(pass) = self.pass.take() {
            pass.progress.cancelled.set(true);
        }
        self.stop_verifying();
        self.verification = None;
        self.clean_since = None;
    }

    /// Forgets what was proven: both sides are compared anew.
    pub fn distrust(&mut self) {
        self.stop_verifying();
        self.verification = None;
        self.clean_since = None;
    }

    pub fn stop_verifying(&mut self) {
        if let Some(progress) = self.verifying.take() {
            progress.cancelled.set(true);
        }
    }
}

impl Migration {
    pub fn about(&self) -> About {
        let record = self.record.borrow();
        About { migration: Some(record.id.clone()), interlay: Some(record.interlay.clone()) }
    }

    pub fn is_over(&self) -> bool {
        self.record.borrow().is_over()
    }

    /// (authority, shadow) now.
    pub fn sides(&self) -> (Endpoint, Endpoint) {
        match self.record.borrow().authority.side {
            base::model::Side::Source => (self.source.clone(), self.target.clone()),
            base::model::Side::Target => (self.target.clone(), self.source.clone()),
        }
    }
}

impl Control {
    /// # Errors
    /// [`ControlError::NotFound`] naming the ones there are.
    pub fn migration(&self, id: &MigrationId) -> Result<Rc<Migration>, ControlError> {
        self.migrations.borrow().get(id).cloned().ok_or_else(|| {
            ControlError::NotFound(format!(
                "there is no migration {id}; `crossfade migration list` shows those there are"
            ))
        })
    }

    /// # Errors
    /// [`ControlError::NotFound`] naming the ones there are.
    pub fn interlay(&self, name: &InterlayName) -> Result<Rc<Interlay>, ControlError> {
        self.interlays.get(name).cloned().ok_or_else(|| {
            let names: Vec<_> = self.interlays.keys().map(InterlayName::as_str).collect();
            ControlError::NotFound(format!("there is no interlay {name}; the configuration has: {}", names.join(", ")))
        })
    }

    /// # Errors
    /// [`ControlError::NotFound`] naming the ones there are.
    pub fn endpoint(&self, name: &EndpointName) -> Result<Endpoint, ControlError> {
        self.config.endpoint(name).cloned().ok_or_else(|| {
            let names: Vec<_> = self.config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
            ControlError::NotFound(format!("there is no endpoint {name}; the configuration has: {}", names.join(", ")))
        })
    }

    /// The newest migration of an interlay: the one that says who is authoritative.
    pub fn newest(&self, interlay: &InterlayName) -> Option<Rc<Migration>> {
        let migrations = self.migrations.borrow();
        let of = migrations.values().filter(|migration| migration.record.borrow().interlay == *interlay);
        // Epochs only grow on an interlay, so they order its migrations even if the clock was set back.
        of.max_by_key(|migration| migration.record.borrow().authority.epoch).cloned()
    }

    /// The migration of an interlay that is not over.
    pub fn live(&self, interlay: &InterlayName) -> Option<Rc<Migration>> {
        self.newest(interlay).filter(|migration| !migration.is_over())
    }

    pub fn live_all(&self) -> Vec<Rc<Migration>> {
        self.interlays.keys().filter_map(|interlay| self.live(interlay)).collect()
    }

    /// Commands of one interlay, over all cores.
    pub fn commands_total(&self, interlay: &InterlayName) -> u64 {
        let cores = self.cores.borrow();
        let of = cores.counters.values().flatten().filter(|(name, _)| name == interlay);
        of.map(|(_, counters)| counters.commands).sum()
    }
}
