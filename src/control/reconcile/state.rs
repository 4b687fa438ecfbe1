//! What the control thread holds: interlays with their plans, migrations with what was observed of them. Lives on the control thread.
//!
//! No `RefCell` borrow is held across an await. A record or a plan is only changed under the interlay's `change` lock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use super::error::ControlError;
use super::event_hub::{About, EventHub};
use super::observed::Observed;
use super::pause_state::{Pause, SessionLists};
use super::policies::{InterlayPolicies, Registry};
use super::statements::Analyst;
use crate::config::{Config, InterlayConfig};
use crate::store::Store;
use crate::workflow::MigrationRecord;
use base::model::{
    CoreId, Endpoint, EndpointName, FeedKind, InterlayName, MigrationId, RoutePlan, Side, Timestamp, WriteConsistency,
};
use bus::counters::CoreCounters;
use bus::{Published, Switchboard};
use movers::{Ability, Conflicts, Movers, Route, ServerFacts};

/// The last look at a server: what was found and when, or why nothing was.
pub type Look = Result<(ServerFacts, Timestamp), String>;

pub struct Control {
    pub config: Config,
    pub store: Rc<dyn Store>,
    pub events: EventHub,
    pub bus: Switchboard,
    pub movers: Movers,
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
    /// The process drains: no pause begins any more.
    pub stopping: Cell<bool>,
    /// Set when the store failed under an authority change; every further change is refused until a restart.
    pub store_failed: RefCell<Option<String>>,
}

#[derive(Debug, Default)]
pub struct Cores {
    pub counters: BTreeMap<CoreId, Vec<(InterlayName, CoreCounters)>>,
    pub drained: BTreeSet<CoreId>,
    /// Why the process cannot go on.
    pub failed: Option<String>,
}

pub struct Interlay {
    pub config: InterlayConfig,
    pub published: RefCell<Published>,
    /// Cores that have not acked the published plan yet.
    pub unacked: RefCell<BTreeSet<CoreId>>,
    /// Held while the record or the plan is changed, a whole flip long. An operator's pause holds it only while it begins or ends.
    pub change: Mutex<()>,
    pub pause: Pause,
    pub sessions: SessionLists,
    /// Empty for databases without migrations.
    pub policies: InterlayPolicies,
}

impl Interlay {
    #[must_use]
    pub fn name(&self) -> &InterlayName {
        &self.config.spec.name
    }

    /// The plan published last.
    #[must_use]
    pub fn plan(&self) -> Arc<RoutePlan> {
        Arc::clone(&self.published.borrow().plan)
    }

    #[must_use]
    pub fn about(&self) -> About {
        About { migration: None, interlay: Some(self.name().clone()) }
    }

    /// # Errors
    /// [`ControlError::Unsupported`] with the mover's reason.
    pub fn supports(&self, ability: Ability) -> Result<(), ControlError> {
        Ok(movers::supports(self.config.spec.kind(), self.name(), ability)?)
    }
}

pub struct Migration {
    pub source: Endpoint,
    pub target: Endpoint,
    pub record: RefCell<MigrationRecord>,
    pub seen: RefCell<Observed>,
}

impl Migration {
    #[must_use]
    pub fn about(&self) -> About {
        let record = self.record.borrow();
        About { migration: Some(record.id.clone()), interlay: Some(record.interlay.clone()) }
    }

    #[must_use]
    pub fn interlay(&self) -> InterlayName {
        self.record.borrow().interlay.clone()
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.borrow().is_over()
    }

    /// Which server is authoritative now, and which is the other one. What is not kept in step yet has the feed of older records.
    #[must_use]
    pub fn route(&self) -> Route {
        let (authority, feed, thresholds, conflicts, confirm_writes) = {
            let record = self.record.borrow();
            let thresholds = record.decisions.thresholds.clone();
            let conflicts = Conflicts {
                policy: record.decisions.conflict_policy,
                exclude: Arc::from(record.decisions.exclude.as_slice()),
                settled: !record.flips.is_empty(),
            };
            let confirm_writes = record.decisions.write_consistency == WriteConsistency::Both;
            (record.authority, record.feed.unwrap_or(FeedKind::Lane), thresholds, conflicts, confirm_writes)
        };
        let (ahead, behind) = match authority.side {
            Side::Source => (&self.source, &self.target),
            Side::Target => (&self.target, &self.source),
        };
        let (side, epoch) = (authority.side, authority.epoch);
        Route {
            authority: ahead.clone(),
            shadow: behind.clone(),
            side,
            epoch,
            feed,
            ttl_grace_ms: thresholds.ttl_grace_ms,
            conflicts,
            source_p99_ms: thresholds.source_p99_ms,
            confirm_writes,
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

    /// Refuses every change since the store failed under a change of authority.
    ///
    /// # Errors
    /// [`ControlError::Store`].
    pub fn store_works(&self) -> Result<(), ControlError> {
        match &*self.store_failed.borrow() {
            Some(why) => Err(ControlError::since_the_store_failed(why)),
            None => Ok(()),
        }
    }
}
