//! The loop of the control thread: it compares what is intended with what is observed, and makes one change at a time.
//!
//! One OS thread, one current-thread runtime, everything `!Send` inside. Others talk to it through a [`Handle`]. It knows the
//! data plane only by the bus.

mod analysis;
mod desk;
mod drive;
mod events;
mod evidence;
mod fingerprint;
mod flip;
mod gate;
mod handle;
mod observe;
pub mod policies;
mod preflight;
mod rollout;
mod state;
mod tasks;
pub mod views;
mod window;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc};

pub use events::Event;
pub use handle::{ControlError, CreateRequest, Handle, Subscription};
pub use policies::{CheckedFilter, bench_file, test_file};
pub use preflight::{Preflight, preflight};

use crate::config::{Config, InterlayConfig};
use crate::store::{Store, StoreError};
use crate::workflow::{MigrationRecord, plan};
use base::model::{
    Authority, CompareReads, EndpointName, Generation, InterlaySpec, Ledger, PlanMode, RoutePlan, limits,
};
use bus::{Directive, Published, Switchboard, companion_core};
use events::EventHub;
use movers::LaneClient;
use policies::{FirstSets, Registry};
use state::{Control, Cores, Interlay, Migration, Observed};

/// What was intended when the process last ended: read before the data plane starts, so that no core ever runs without orders.
#[derive(Debug)]
pub struct Intent {
    config: Config,
    store: Store,
    records: Vec<(MigrationRecord, Ledger)>,
    filters: Registry,
    /// Filters that were loaded at run time and do not load any more, in sentences.
    lost_filters: Vec<String>,
    first_sets: Option<FirstSets>,
    /// One per interlay, in the order of the configuration.
    pub plans: Vec<(InterlaySpec, Published)>,
}

impl Intent {
    /// Opens the store and lowers the newest record of each interlay to its plan.
    ///
    /// # Errors
    /// A sentence that names the file or the migration and what to do.
    pub fn load(config: Config) -> Result<Self, String> {
        let store = Store::open(&config.data_dir).map_err(|error| error.to_string())?;
        let text = |error: StoreError| error.to_string();
        let mut records = Vec::new();
        for record in store.migrations().map_err(text)? {
            let ledger = store.ledger(&record.id).map_err(text)?;
            records.push((record, ledger));
        }
        let plans = config
            .interlays
            .iter()
            .map(|interlay| first_plan(&config, interlay, &records).map(|first| (interlay.spec.clone(), first)))
            .collect::<Result<_, _>>()?;
        let (filters, lost_filters) = Registry::load(&config, &store)?;
        Ok(Self { config, store, records, filters, lost_filters, first_sets: None, plans })
    }

    /// Sends every interlay its first set of filters. Before the data plane starts, so that no command passes undecided.
    ///
    /// # Errors
    /// A sentence.
    pub fn send_filters(&mut self, bus: &Switchboard) -> Result<(), String> {
        let interlays = self.config.interlays.iter().map(|interlay| {
            let name = &interlay.spec.name;
            let of = self.records.iter().map(|(record, _)| record).filter(|record| record.interlay == *name);
            let newest = of.max_by_key(|record| record.authority.epoch).filter(|record| !record.is_over());
            let migration = newest.map(|record| (&record.id, &record.policies));
            (name, interlay.spec.kind(), &interlay.policies.settings, migration)
        });
        self.first_sets = Some(policies::send_first(&self.filters, bus, interlays)?);
        Ok(())
    }
}

fn first_plan(
    config: &Config,
    interlay: &InterlayConfig,
    records: &[(MigrationRecord, Ledger)],
) -> Result<Published, String> {
    let name = &interlay.spec.name;
    let of = records.iter().map(|(record, _)| record).filter(|record| record.interlay == *name);
    let find = |endpoint: &EndpointName, what: &str| {
        config.endpoint(endpoint).ok_or_else(|| {
            format!(
                "{}: {what} needs the endpoint {endpoint}, which the configuration no longer has: put it back",
                config.file.display()
            )
        })
    };
    match of.max_by_key(|record| record.authority.epoch) {
        Some(record) => {
            let what = format!("migration {} of interlay {name}", record.id);
            let (source, target) = (find(&record.source, &what)?, find(&record.target, &what)?);
            let plan = plan(record, source, target, Generation(1));
            let home = &plan.endpoint(plan.authority.side).name;
            if record.is_over() && *home != interlay.source {
                tracing::warn!(
                    "interlay {name}: the configuration says source {}, but migration {} ended with {home} authoritative; {home} is used",
                    interlay.source,
                    record.id
                );
            }
            Ok(Published { plan: Arc::new(plan), view: window::view_context(record.phase, record.authority) })
        }
        None => {
            let what = format!("interlay {name}");
            let plan = RoutePlan {
                interlay: name.clone(),
                generation: Generation(1),
                authority: Authority::initial(),
                source: find(&interlay.source, &what)?.clone(),
                target: interlay.target.as_ref().map(|target| find(target, &what).cloned()).transpose()?,
                mode: PlanMode::PassThrough,
                compare: CompareReads { sample_per_ten_thousand: 0 },
                ttl_grace_ms: limits::TTL_GRACE_DEFAULT_MS,
            };
            Ok(Published { plan: Arc::new(plan), view: policy::ViewContext::default() })
        }
    }
}

/// The running control loop. Lives on the control thread.
pub struct Running {
    control: Rc<Control>,
}

/// Starts the loop's tasks on the present `LocalSet`; the data plane runs already, with the plans of `intent`.
///
/// # Errors
/// A sentence, when the store cannot be written.
pub fn start(mut intent: Intent, bus: Switchboard, driver: String) -> Result<(Running, Handle), String> {
    if intent.first_sets.is_none() {
        intent.send_filters(&bus)?;
    }
    let Intent { config, store, records, filters, lost_filters, first_sets, plans } = intent;
    let mut first_sets = first_sets.unwrap_or_default();
    let store = Rc::new(store);
    let events = EventHub::new(Rc::clone(&store)).map_err(|error| error.to_string())?;
    let mut interlays = BTreeMap::new();
    for (interlay, (spec, published)) in config.interlays.iter().zip(plans) {
        let mailbox = bus.cores.get(usize::from(companion_core(&spec.name).0)).cloned();
        let mailbox = mailbox.ok_or_else(|| format!("interlay {}: there is no core for its lane", spec.name))?;
        let state = Interlay {
            config: interlay.clone(),
            lane: LaneClient::new(spec.name.clone(), mailbox),
            published: RefCell::new(published),
            unacked: RefCell::default(),
            change: Mutex::new(()),
            gate: gate::Gate::default(),
            policies: first_sets.remove(&spec.name).unwrap_or_default(),
        };
        interlays.insert(spec.name, Rc::new(state));
    }
    let mut migrations = BTreeMap::new();
    for (record, ledger) in records {
        // An old migration whose endpoints are gone from the configuration is history: it is not shown, and stays in the store.
        let (Some(source), Some(target)) = (config.endpoint(&record.source), config.endpoint(&record.target)) else {
            continue;
        };
        let migration = Migration {
            source: source.clone(),
            target: target.clone(),
            record: RefCell::new(record.clone()),
            seen: RefCell::new(Observed::new(ledger)),
        };
        migrations.insert(record.id, Rc::new(migration));
    }
    let control = Rc::new(Control {
        config,
        store,
        events,
        bus,
        driver,
        started: state::now(),
        interlays,
        migrations: RefCell::new(migrations),
        acked: Notify::new(),
        cores: RefCell::new(Cores::default()),
        facts: RefCell::default(),
        analyst: analysis::Analyst::default(),
        filters,
        tickets: Cell::new(0),
        stopping: Cell::new(false),
        store_failed: RefCell::default(),
    });
    let (sender, requests) = mpsc::channel(limits::ADMIN_QUEUE_LEN);
    tokio::task::spawn_local(Rc::clone(&control).serve(requests));
    tokio::task::spawn_local(Rc::clone(&control).tick_forever());
    tokio::task::spawn_local(Rc::clone(&control).fingerprint_forever());
    let pump = Rc::clone(&control).pump();
    let failed = Rc::clone(&control);
    tokio::task::spawn_local(async move {
        if let Err(error) = pump.await {
            failed.cores.borrow_mut().failed.get_or_insert(format!("the bus cannot be read: {error}"));
            failed.acked.notify_waiters();
        }
    });
    let about = events::About::default();
    let text = format!("version {}, {} cores, {}", env!("CARGO_PKG_VERSION"), control.bus.cores.len(), control.driver);
    control.events.lasting("started", &about, text, state::now());
    for text in lost_filters {
        tracing::error!("{text}");
        control.events.lasting("filter_failed", &about, text, state::now());
    }
    for interlay in control.interlays.values().filter(|interlay| interlay.policies.generation.get() > 0) {
        let (control, interlay) = (Rc::clone(&control), Rc::clone(interlay));
        tokio::task::spawn_local(async move { control.announce_first(&interlay).await });
    }
    Ok((Running { control }, Handle { sender }))
}

impl Running {
    /// Returns when a core has failed, with its reason.
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
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let all = async {
            loop {
                let rung = self.control.acked.notified();
                tokio::pin!(rung);
                rung.as_mut().enable();
                if self.control.cores.borrow().drained.len() >= self.control.bus.cores.len() {
                    return;
                }
                rung.await;
            }
        };
        let patience = Duration::from_millis(deadline_ms) + limits::BARRIER_TIMEOUT;
        let drained = tokio::time::timeout(patience, all).await.is_ok();
        let text = if drained { "every connection was closed in order" } else { "a core did not finish in time" };
        self.control.events.lasting("stopped", &events::About::default(), text, state::now());
        drained
    }
}
