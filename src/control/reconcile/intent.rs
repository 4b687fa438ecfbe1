//! What was intended when the process last ended, read before the data plane starts: records, plans, filters. Becomes the control loop.

use std::rc::Rc;
use std::sync::Arc;

use super::policies::{FirstSets, Registry, send_first};
use super::policy_view::view_context;
use crate::config::{Config, InterlayConfig};
use crate::store::{RedbStore, Store, StoreError};
use crate::workflow::{MigrationRecord, plan};
use base::model::{
    Authority, CompareReads, EndpointName, Generation, InterlaySpec, Ledger, PlanMode, RoutePlan, limits,
};
use bus::{Published, Switchboard};

/// What was intended when the process last ended: read before the data plane starts, so that no core ever runs without orders.
#[derive(Debug)]
pub struct Intent {
    pub(super) config: Config,
    pub(super) store: Rc<dyn Store>,
    pub(super) records: Vec<(MigrationRecord, Ledger)>,
    pub(super) filters: Registry,
    /// Filters that were loaded at run time and do not load any more, in sentences.
    pub(super) lost_filters: Vec<String>,
    pub(super) first_sets: Option<FirstSets>,
    /// One per interlay, in the order of the configuration.
    pub plans: Vec<(InterlaySpec, Published)>,
}

impl Intent {
    /// Opens the store and lowers the newest record of each interlay to its plan.
    ///
    /// # Errors
    /// A sentence that names the file or the migration and what to do.
    pub async fn load(config: Config) -> Result<Self, String> {
        let store = RedbStore::open(&config.data_dir).map_err(|error| error.to_string())?;
        Self::load_from(config, Rc::new(store)).await
    }

    async fn load_from(config: Config, store: Rc<dyn Store>) -> Result<Self, String> {
        let text = |error: StoreError| error.to_string();
        let mut records = Vec::new();
        for record in store.migrations().await.map_err(text)? {
            let ledger = store.ledger(&record.id).await.map_err(text)?;
            records.push((record, ledger));
        }
        let plans = config
            .interlays
            .iter()
            .map(|interlay| first_plan(&config, interlay, &records).map(|first| (interlay.spec.clone(), first)))
            .collect::<Result<_, _>>()?;
        let (filters, lost_filters) = Registry::load(&config, &*store).await?;
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
        self.first_sets = Some(send_first(&self.filters, bus, interlays)?);
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
            Ok(Published { plan: Arc::new(plan), view: view_context(record.phase, record.authority) })
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
