//! Creates a migration: which servers it is between, and whether it may be. Lives on the control thread.

use std::cell::RefCell;
use std::rc::Rc;

use super::clock::now;
use super::error::ControlError;
use super::observed::Observed;
use super::requests::CreateRequest;
use super::state::{Control, Interlay, Migration};
use crate::events::MigrationEvent;
use crate::workflow::{Ended, MigrationRecord};
use base::model::{Authority, Endpoint, Ledger, Side};
use movers::Ability;

impl Control {
    pub(super) async fn create(&self, request: CreateRequest) -> Result<Rc<Interlay>, ControlError> {
        let interlay = self.interlay(&request.interlay)?;
        interlay.supports(Ability::Migrate)?;
        self.try_policies(&request.policies).await?;
        let change = interlay.change.lock().await;
        let id = request.id.clone();
        if self.migrations.borrow().contains_key(&id) {
            return Err(ControlError::Conflict(format!("there is a migration {id} already: choose another id")));
        }
        if let Some(live) = self.live(&request.interlay) {
            return Err(ControlError::Conflict(format!(
                "interlay {} is in migration {} already: commit or abandon that one first",
                request.interlay,
                live.record.borrow().id
            )));
        }
        request.decisions.supported().map_err(|error| ControlError::Unsupported(error.to_string()))?;
        let (source, target) = self.ends(&interlay, &request)?;
        let newest = self.newest(&request.interlay);
        let epoch = newest.map(|old| old.record.borrow().authority.epoch.next());
        let initial = Authority::initial();
        let authority = Authority { side: Side::Source, epoch: epoch.unwrap_or(initial.epoch) };
        let asked = request.complete(source.name.clone(), target.name.clone());
        let record = MigrationRecord::new(asked, authority, now());
        let created = MigrationEvent::Created {
            source: source.name.clone(),
            target: target.name.clone(),
            strategy: record.decisions.strategy,
        };
        let told = self.persist(None, &record, vec![created]).await?;
        let migration = Rc::new(Migration {
            source,
            target,
            record: RefCell::new(record),
            seen: RefCell::new(Observed::new(Ledger::default())),
        });
        self.migrations.borrow_mut().insert(id, Rc::clone(&migration));
        self.roll_out(&migration, &interlay).await;
        self.announce(told);
        drop(change);
        Ok(interlay)
    }

    /// Source and target of a new migration. The source must be the server that is authoritative now.
    fn ends(&self, interlay: &Interlay, request: &CreateRequest) -> Result<(Endpoint, Endpoint), ControlError> {
        let home = {
            let plan = interlay.plan();
            plan.endpoint(plan.authority.side).name.clone()
        };
        if let Some(source) = request.source.as_ref().filter(|source| **source != home) {
            // A name that is not there at all deserves its own answer.
            self.endpoint(source)?;
            return Err(ControlError::Conflict(format!(
                "interlay {} is served by {home}, so a migration of it begins there, not at {source}",
                request.interlay
            )));
        }
        let committed = self
            .newest(&request.interlay)
            .is_some_and(|old| matches!(old.record.borrow().ended, Some(Ended::Committed { .. })));
        // After a commit the configured target is the server in use, so the next target must be named.
        let configured = interlay.config.target.clone().filter(|_| !committed);
        let target = request.target.clone().or(configured).ok_or_else(|| {
            ControlError::Invalid(format!(
                "interlay {} has no target to move to: name one with --target",
                request.interlay
            ))
        })?;
        if target == home {
            return Err(ControlError::Invalid(format!("{target} is both source and target: name another target")));
        }
        let (source, target) = (self.endpoint(&home)?, self.endpoint(&target)?);
        if source.kind() != target.kind() {
            return Err(ControlError::Invalid(format!(
                "{} is of kind {} and {} of kind {}: a migration moves between servers of one kind",
                source.name,
                source.kind().as_str(),
                target.name,
                target.kind().as_str()
            )));
        }
        Ok((source, target))
    }
}
