//! Rollout: persist a decision, publish the plan that follows from it, wait for every core, announce. In this order, always.

use std::rc::Rc;
use std::sync::Arc;

use super::events::{About, Event};
use super::handle::ControlError;
use super::state::{Control, Interlay, Migration, now};
use super::window::view_context;
use crate::workflow::{Transition, is_dual, plan};
use base::model::{CoreId, Generation, PlanMode, RoutePlan, limits};
use bus::{Directive, Published};

impl Control {
    /// Makes a transition true: durable, published, acked, announced. The caller holds the interlay's `change` lock.
    ///
    /// # Errors
    /// [`ControlError::Store`]: nothing changed.
    pub async fn apply(&self, migration: &Migration, done: Transition) -> Result<(), ControlError> {
        if done.journal.is_empty() {
            return Ok(());
        }
        let events = self.persist(migration, &done)?;
        self.adopt(migration, done);
        let interlay = self.interlay(&migration.record.borrow().interlay.clone())?;
        let next = self.lower(migration, &interlay);
        if differs(&interlay.published.borrow(), &next) {
            if next.plan.mode == PlanMode::Dual {
                // No value may reach the target before the records policy that was chosen is there.
                self.settle_policies(&interlay, "both sides are kept in step").await;
            }
            self.publish(&interlay, next).await;
            self.await_acks(&interlay).await;
        }
        for event in events {
            self.events.announce(event);
        }
        Ok(())
    }

    /// Writes record and journal in one fsynced transaction; returns the events to announce later.
    ///
    /// # Errors
    /// [`ControlError::Store`]: nothing may be released or announced.
    pub fn persist(&self, migration: &Migration, done: &Transition) -> Result<Vec<Event>, ControlError> {
        if let Some(why) = &*self.store_failed.borrow() {
            return Err(ControlError::Store(format!("no change is made since the store failed: {why}")));
        }
        let at = now();
        let about = migration.about();
        let events: Vec<_> =
            done.journal.iter().map(|line| self.events.draft(line.kind, &about, &*line.text, at)).collect();
        self.store.commit(&done.record, &events).map_err(|error| ControlError::Store(error.to_string()))?;
        Ok(events)
    }

    /// Takes a durable record as the present one, and resets what was measured for the step before.
    pub fn adopt(&self, migration: &Migration, done: Transition) {
        let before = migration.record.replace(done.record);
        let after = migration.record.borrow();
        let mut seen = migration.seen.borrow_mut();
        if before.phase != after.phase {
            seen.base_commands = self.commands_total(&after.interlay);
            seen.base_at = tokio::time::Instant::now();
            seen.gates_met.clear();
            if after.phase == crate::workflow::Phase::Migrate {
                // One that began before this step would not count for it: begin anew at once.
                seen.stop_verifying();
            }
        }
        if is_dual(&before) && !is_dual(&after) {
            seen.leave_dual();
        }
    }

    /// The next plan of this interlay, numbered after the present one.
    pub fn lower(&self, migration: &Migration, interlay: &Interlay) -> Published {
        let generation = Generation(interlay.plan().generation.0 + 1);
        let record = migration.record.borrow();
        let plan = plan(&record, &migration.source, &migration.target, generation);
        Published { plan: Arc::new(plan), view: view_context(record.phase, record.authority) }
    }

    /// Hands a plan to every core. A core with a full mailbox is waited for: a plan is never dropped.
    pub async fn publish(&self, interlay: &Interlay, next: Published) {
        let cores = 0..u16::try_from(self.bus.cores.len()).unwrap_or(u16::MAX);
        *interlay.unacked.borrow_mut() = cores.map(CoreId).collect();
        interlay.published.replace(next.clone());
        for mailbox in &self.bus.cores {
            let mut directive = Directive::Publish(next.clone());
            while let Err(back) = mailbox.push(directive) {
                directive = back;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    }

    /// Waits until every core has acked the present plan. Laggards are named, loudly, and waited for.
    pub async fn await_acks(&self, interlay: &Interlay) {
        loop {
            let acked = self.acked.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            if interlay.unacked.borrow().is_empty() {
                let told = match interlay.plan().mode {
                    PlanMode::Dual => interlay.lane.open(),
                    PlanMode::PassThrough => interlay.lane.close(),
                };
                if let Err(error) = told {
                    tracing::error!(?error, "the lane was not told that every core has acked");
                }
                return;
            }
            if tokio::time::timeout(limits::PLAN_ACK_TIMEOUT, acked).await.is_err() {
                let cores: Vec<_> = interlay.unacked.borrow().iter().map(|core| core.0.to_string()).collect();
                let about = About { migration: None, interlay: Some(interlay.config.spec.name.clone()) };
                let text = format!(
                    "generation {} is not acked by core {} after {} s; still waiting, nothing is released",
                    interlay.plan().generation.0,
                    cores.join(", "),
                    limits::PLAN_ACK_TIMEOUT.as_secs()
                );
                tracing::error!("{text}");
                self.events.lasting("plan_lagging", &about, text, now());
            }
        }
    }

    /// As [`Self::apply`], for the small facts a record remembers; a failing store is reported, the fact is kept in memory.
    pub async fn remember(self: &Rc<Self>, migration: &Migration, fact: crate::workflow::Fact) {
        let done = crate::workflow::observe(&migration.record.borrow(), fact, now());
        if let Err(error) = self.apply(migration, done).await {
            tracing::error!(%error, "a fact could not be recorded");
        }
    }
}

/// Whether cores would behave differently under the other plan.
fn differs(old: &Published, new: &Published) -> bool {
    let (old_view, new_view) = (old.view, new.view);
    let (old, new) = (&*old.plan, &*new.plan);
    let dual = |plan: &RoutePlan| plan.mode == PlanMode::Dual;
    old.authority != new.authority
        || old.mode != new.mode
        || old.compare != new.compare
        || (dual(new) && old_view != new_view)
        || old.source != new.source
        || (dual(new) && (old.ttl_grace_ms != new.ttl_grace_ms || old.target != new.target))
        || old.endpoint(old.authority.side) != new.endpoint(new.authority.side)
}
