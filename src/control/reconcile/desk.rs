//! Answers the requests that come through the [`super::Handle`]: one local task each, so that a slow one holds up nobody.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::events::About;
use super::handle::{ControlError, CreateRequest, Request};
use super::state::{Control, Interlay, Migration, Observed, now};
use super::views::{MigrationView, ReportView};
use crate::workflow::{Ended, MigrationRecord};
use base::model::{Authority, Endpoint, Ledger, MigrationId, ProtocolKind, Side};

impl Control {
    /// Takes requests until every handle is gone.
    pub(super) async fn serve(self: Rc<Self>, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            let control = Rc::clone(&self);
            tokio::task::spawn_local(async move { control.answer(request).await });
        }
    }

    /// An asker that went away is no error: what was asked for is done all the same.
    async fn answer(self: Rc<Self>, request: Request) {
        match request {
            Request::Status(reply) => drop(reply.send(Ok(self.status_view()))),
            Request::Ready(reply) => drop(reply.send(Ok(self.ready_view()))),
            Request::Metrics(reply) => drop(reply.send(Ok(self.metrics_view()))),
            Request::Endpoints(reply) => {
                let views = self.config.endpoints.iter().map(|endpoint| self.endpoint_view(endpoint)).collect();
                drop(reply.send(Ok(views)));
            }
            Request::Endpoint(name, reply) => {
                drop(reply.send(self.endpoint(&name).map(|endpoint| self.endpoint_view(&endpoint))));
            }
            Request::CheckEndpoint(name, reply) => {
                let result = match self.endpoint(&name) {
                    Ok(endpoint) => match self.look_at(&endpoint).await {
                        Ok(_) => Ok(self.endpoint_view(&endpoint)),
                        Err(error) => Err(ControlError::Upstream(error.to_string())),
                    },
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Interlays(reply) => drop(reply.send(Ok(self.interlays_view()))),
            Request::Interlay(name, reply) => {
                drop(reply.send(self.interlay(&name).map(|interlay| self.interlay_view(&interlay))));
            }
            Request::Pause { interlay, deadline, hold, reply } => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.pause(&interlay, deadline, hold).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Resume(interlay, reply) => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.resume(&interlay).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Sessions(interlay, reply) => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.sessions(&interlay).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Analysis { interlay, target, limit, reply } => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.analysis(&interlay, target, limit).await.map(Box::new),
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Filters(reply) => drop(reply.send(Ok(self.filters_view()))),
            Request::Filter(name, reply) => drop(reply.send(self.filter(&name))),
            Request::LoadFilter(load, reply) => drop(reply.send(self.load_filter(*load).await)),
            Request::UnloadFilter(name, reply) => drop(reply.send(self.unload_filter(&name).await)),
            Request::Policies(interlay, reply) => {
                let result = self.interlay(&interlay).and_then(|interlay| self.policies_view(&interlay));
                drop(reply.send(result));
            }
            Request::Migrations(reply) => drop(reply.send(Ok(self.migrations_view()))),
            Request::Migration(id, reply) => drop(reply.send(self.view(&id))),
            Request::Create(request, reply) => {
                let id = request.id.clone();
                let result = match self.create(*request).await {
                    Ok(interlay) => {
                        self.settle_policies(&interlay, "a migration was created").await;
                        self.view(&id)
                    }
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Command(id, command, reply) => {
                let result = self.command(&id, *command).await.and_then(|()| self.view(&id));
                drop(reply.send(result));
            }
            Request::Report(id, reply) => drop(reply.send(self.report(&id).map(Box::new))),
            Request::Divergences(id, reply) => drop(reply.send(self.divergences_view(&id))),
            Request::Subscribe(after, reply) => {
                let result = self.events.subscribe(after).map_err(|error| ControlError::Store(error.to_string()));
                drop(reply.send(result));
            }
        }
    }

    fn view(&self, id: &MigrationId) -> Result<Box<MigrationView>, ControlError> {
        Ok(Box::new(self.migration_view(&*self.migration(id)?)))
    }

    async fn create(&self, request: CreateRequest) -> Result<Rc<Interlay>, ControlError> {
        let interlay = self.interlay(&request.interlay)?;
        match interlay.config.spec.kind() {
            ProtocolKind::Redis => {}
            ProtocolKind::Postgres => {
                return Err(ControlError::NotCarried(
                    "PostgreSQL interlays carry drop-in proxying, pause/resume and analyze in this version; migrations are not carried yet"
                        .to_owned(),
                ));
            }
        }
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
        request.decisions.carried().map_err(|error| ControlError::NotCarried(error.to_string()))?;
        let (source, target) = self.ends(&interlay, &request)?;
        let newest = self.newest(&request.interlay);
        let epoch = newest.map(|old| old.record.borrow().authority.epoch.next());
        let initial = Authority::initial();
        let authority = Authority { side: Side::Source, epoch: epoch.unwrap_or(initial.epoch) };
        let at = now();
        let record = MigrationRecord::new(request.complete(source.name.clone(), target.name.clone()), authority, at);
        let about = About { migration: Some(id.clone()), interlay: Some(record.interlay.clone()) };
        let text = format!("{} to {}, {}", source.name, target.name, record.decisions.strategy);
        let event = self.events.draft("migration_created", &about, text, at);
        if let Some(why) = &*self.store_failed.borrow() {
            return Err(ControlError::Store(format!("no change is made since the store failed: {why}")));
        }
        self.store
            .commit(&record, std::slice::from_ref(&event))
            .map_err(|error| ControlError::Store(error.to_string()))?;
        let migration = Rc::new(Migration {
            source,
            target,
            record: std::cell::RefCell::new(record),
            seen: std::cell::RefCell::new(Observed::new(Ledger::default())),
        });
        self.migrations.borrow_mut().insert(id, Rc::clone(&migration));
        let next = self.lower(&migration, &interlay);
        self.publish(&interlay, next).await;
        self.await_acks(&interlay).await;
        self.events.announce(event);
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

    fn report(&self, id: &MigrationId) -> Result<ReportView, ControlError> {
        let migration = self.migration(id)?;
        let mut journal = self.journal_of(id)?;
        journal.retain(|event| event.migration.as_ref() == Some(id));
        let seen = migration.seen.borrow();
        Ok(ReportView {
            migration: self.migration_view(&migration),
            version: env!("CARGO_PKG_VERSION"),
            written_at: now(),
            source: self.endpoint_view(&migration.source),
            target: self.endpoint_view(&migration.target),
            keys_verified: seen.keys_verified,
            verifications: seen.verifications,
            bytes_copied: seen.bytes_copied.get(),
            lane: seen.lane.map(|(status, _)| status).or(seen.last_lane),
            journal,
        })
    }

    /// The whole journal of one migration, page by page.
    fn journal_of(&self, id: &MigrationId) -> Result<Vec<super::events::Event>, ControlError> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.store.journal_after(after).map_err(|error| ControlError::Store(error.to_string()))?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.number;
            events.extend(page.into_iter().filter(|event| event.migration.as_ref() == Some(id)));
        }
    }
}
