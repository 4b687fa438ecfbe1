//! Starts the control loop, says when it fails, and drains it. Lives on the control thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc};

use super::clock::now;
use super::event_hub::{About, EventHub};
use super::intent::Intent;
use super::observed::Observed;
use super::pause_state::{Pause, SessionLists};
use super::requests::Handle;
use super::state::{Control, Cores, Interlay, Migration};
use super::statements::Analyst;
use crate::config::Config;
use crate::events::{PolicyEvent, ProcessEvent, Stop};
use crate::workflow::{MigrationRecord, is_dual};
use base::model::{InterlayName, Ledger, MigrationId, limits};
use bus::{Directive, Switchboard};
use movers::{MoverSpec, Movers};

/// How often a full mailbox is tried again.
const MAILBOX_RETRY: Duration = Duration::from_millis(1);

/// The running control loop. Lives on the control thread.
pub struct Running {
    pub(super) control: Rc<Control>,
}

/// Starts the movers' thread, and the loop's tasks on the present `LocalSet`; the data plane runs already, with the plans of `intent`.
///
/// # Errors
/// A sentence, when the store cannot be written or the thread cannot be started.
pub async fn start(mut intent: Intent, bus: Switchboard, driver: String) -> Result<(Running, Handle), String> {
    if intent.first_sets.is_none() {
        intent.send_filters(&bus)?;
    }
    let Intent { config, store, records, filters, lost_filters, first_sets, plans } = intent;
    let mut first_sets = first_sets.unwrap_or_default();
    let events = EventHub::new(Rc::clone(&store)).await.map_err(|error| error.to_string())?;
    let migrations = known_migrations(&config, records);
    let mut interlays = BTreeMap::new();
    for (interlay, (spec, published)) in config.interlays.iter().zip(plans) {
        let state = Interlay {
            config: interlay.clone(),
            published: RefCell::new(published),
            unacked: RefCell::default(),
            change: Mutex::new(()),
            pause: Pause::default(),
            sessions: SessionLists::default(),
            policies: first_sets.remove(&spec.name).unwrap_or_default(),
        };
        interlays.insert(spec.name, Rc::new(state));
    }
    let specs = interlays.values().map(|interlay| mover_spec(interlay, &migrations)).collect();
    let (movers, mover_events) = Movers::start(specs, bus.cores.clone())?;
    let control = Rc::new(Control {
        config,
        store,
        events,
        bus,
        movers,
        driver,
        started: now(),
        interlays,
        migrations: RefCell::new(migrations),
        acked: Notify::new(),
        cores: RefCell::new(Cores::default()),
        facts: RefCell::default(),
        analyst: Analyst::default(),
        filters,
        stopping: Cell::new(false),
        store_failed: RefCell::default(),
    });
    let (sender, requests) = mpsc::channel(limits::ADMIN_QUEUE_LEN);
    control.watch("answers requests", Rc::clone(&control).serve(requests));
    control.watch("looks at migrations", Rc::clone(&control).tick_forever());
    control.watch("hears the movers", Rc::clone(&control).hear_movers(mover_events));
    let analyst = Rc::clone(&control);
    control.watch("analyses statements", async move { analyst.analyst.fingerprint_forever().await });
    let pumped = Rc::clone(&control);
    control.watch("reads the bus", async move {
        if let Err(error) = Rc::clone(&pumped).pump().await {
            pumped.fail(format!("the bus cannot be read: {error}"));
        }
    });
    control.tell_start(lost_filters).await;
    Ok((Running { control }, Handle { sender }))
}

/// An old migration whose endpoints are gone from the configuration is history: it is not shown, and stays in the store.
fn known_migrations(config: &Config, records: Vec<(MigrationRecord, Ledger)>) -> BTreeMap<MigrationId, Rc<Migration>> {
    let known = records.into_iter().filter_map(|(record, ledger)| {
        let (source, target) = (config.endpoint(&record.source)?.clone(), config.endpoint(&record.target)?.clone());
        let id = record.id.clone();
        let seen = RefCell::new(Observed::new(ledger));
        Some((id, Rc::new(Migration { source, target, record: RefCell::new(record), seen })))
    });
    known.collect()
}

/// Whether the two sides of an interlay were kept in step when the process last ended, and are from the start of this one.
fn mover_spec(interlay: &Interlay, migrations: &BTreeMap<MigrationId, Rc<Migration>>) -> MoverSpec {
    let name: &InterlayName = interlay.name();
    let of = migrations.values().filter(|migration| migration.interlay() == *name);
    let newest = of.max_by_key(|migration| migration.record.borrow().authority.epoch);
    let route = newest.filter(|migration| is_dual(&migration.record.borrow())).map(|migration| migration.route());
    MoverSpec { interlay: name.clone(), kind: interlay.config.spec.kind(), route }
}

impl Control {
    /// Runs a task that the process cannot do without: if it panics, the process ends instead of leaving its work undone.
    fn watch(self: &Rc<Self>, what: &'static str, task: impl Future<Output = ()> + 'static) {
        let running = tokio::task::spawn_local(task);
        let control = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Err(panicked) = running.await
                && panicked.is_panic()
            {
                control.fail(format!("the task that {what} has failed: {panicked}"));
            }
        });
    }

    async fn tell_start(self: &Rc<Self>, lost_filters: Vec<String>) {
        let about = About::default();
        let started = ProcessEvent::Started { cores: self.bus.cores.len(), driver: self.driver.clone() };
        self.events.lasting(started, &about).await;
        for text in lost_filters {
            tracing::error!("{text}");
            self.events.lasting(PolicyEvent::FilterFailed { text }, &about).await;
        }
        for interlay in self.interlays.values().filter(|interlay| interlay.policies.generation.get() > 0) {
            let (control, interlay) = (Rc::clone(self), Rc::clone(interlay));
            tokio::task::spawn_local(async move { control.announce_first(&interlay).await });
        }
    }
}

impl Running {
    /// Returns when a core or the movers' thread has failed, with the reason.
    pub async fn failure(&self) -> String {
        loop {
            let rung = self.control.acked.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if let Some(reason) = &self.control.cores.borrow().failed {
                return reason.clone();
            }
            rung.await;
        }
    }

    /// Asks every core to finish and waits; false when a core did not within its deadline and a little.
    pub async fn drain(&self) -> bool {
        let deadline_ms = self.control.config.drain_deadline_ms;
        self.control.abandon_pauses();
        for core in &self.control.bus.cores {
            let mut directive = Directive::Drain { deadline_ms };
            while let Err(back) = core.push(directive) {
                directive = back;
                tokio::time::sleep(MAILBOX_RETRY).await;
            }
        }
        let patience = Duration::from_millis(deadline_ms) + limits::BARRIER_TIMEOUT;
        let drained = tokio::time::timeout(patience, self.all_drained()).await.is_ok();
        let stop = if drained { Stop::InOrder } else { Stop::TimedOut };
        self.control.events.lasting(ProcessEvent::Stopped(stop), &About::default()).await;
        drained
    }

    async fn all_drained(&self) {
        loop {
            let rung = self.control.acked.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.control.cores.borrow().drained.len() >= self.control.bus.cores.len() {
                return;
            }
            rung.await;
        }
    }
}
