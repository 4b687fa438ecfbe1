//! A change: persist the decision, publish the plan that follows from it, wait for every core, announce. In this order, always, and here.
//!
//! Lives on the control thread, the only writer of records. The caller holds the interlay's `change` lock.

use std::sync::Arc;
use std::time::Duration;

use super::clock::now;
use super::error::ControlError;
use super::event_hub::About;
use super::policy_view::view_context;
use super::state::{Control, Interlay, Migration};
use crate::events::{MigrationEvent, ProcessEvent};
use crate::store::{Change, JournalEntry};
use crate::workflow::{Fact, MigrationRecord, Phase, Transition, is_dual, plan};
use base::model::{CoreId, Generation, PlanMode, limits};
use bus::{Directive, Published};
use movers::JobError;

/// How often a full mailbox is tried again.
const MAILBOX_RETRY: Duration = Duration::from_millis(1);

/// Events that are durable and wait to be announced: when every core has what they tell of.
#[must_use = "what is durable is announced"]
pub struct Durable(Vec<JournalEntry>);

impl Control {
    /// Makes a transition true: durable, published, acked, announced.
    ///
    /// # Errors
    /// [`ControlError::Store`]: nothing changed.
    pub async fn apply(&self, migration: &Migration, done: Transition) -> Result<(), ControlError> {
        if done.events.is_empty() {
            return Ok(());
        }
        let interlay = self.interlay(&migration.interlay())?;
        let told = self.make_durable(migration, done).await?;
        if differs(&interlay.published.borrow(), &self.lower(migration, &interlay)) {
            self.roll_out(migration, &interlay).await;
        }
        self.announce(told);
        Ok(())
    }

    /// Persists what was decided on the present record, and takes it as the present one.
    ///
    /// # Errors
    /// [`ControlError::Store`]: nothing changed, nothing may be published or announced.
    pub async fn make_durable(&self, migration: &Migration, done: Transition) -> Result<Durable, ControlError> {
        let decided_on = migration.record.borrow().clone();
        let told = self.persist(Some(&decided_on), &done.record, done.events).await?;
        self.adopt(migration, done.record);
        Ok(told)
    }

    /// Writes record and journal in one fsynced transaction, if the record that is stored is the one this was decided on.
    ///
    /// # Errors
    /// [`ControlError::Store`]: nothing may be published or announced.
    pub async fn persist(
        &self,
        decided_on: Option<&MigrationRecord>,
        record: &MigrationRecord,
        events: Vec<MigrationEvent>,
    ) -> Result<Durable, ControlError> {
        self.store_works()?;
        let about = About { migration: Some(record.id.clone()), interlay: Some(record.interlay.clone()) };
        let mut journal = Vec::new();
        for event in events {
            journal.push(self.events.draft(event, &about).await);
        }
        self.store.commit(Change { decided_on, record, journal: &journal }).await?;
        Ok(Durable(journal))
    }

    pub fn announce(&self, told: Durable) {
        told.0.into_iter().for_each(|event| self.events.announce(event));
    }

    /// Takes a durable record as the present one, and resets what was measured for the step before.
    fn adopt(&self, migration: &Migration, record: MigrationRecord) {
        let before = migration.record.replace(record);
        let after = migration.record.borrow();
        let mut seen = migration.seen.borrow_mut();
        if before.phase != after.phase {
            seen.phase_begin.commands = self.commands_total(&after.interlay);
            seen.phase_begin.at = std::time::Instant::now();
            seen.announced.gates_met.clear();
            seen.holds.begin_anew();
            if after.phase == Phase::Migrate {
                // One that began before this step would not count for it: begin anew at once.
                seen.verification.stop();
            }
        }
        if before.authority != after.authority {
            // What was proven and measured was about the other direction.
            seen.verification.distrust();
            seen.shadow.facts = None;
        }
        if is_dual(&before) && !is_dual(&after) {
            seen.leave_dual();
        }
    }

    /// Publishes the plan that follows from the record, waits for every ack and tells the mover.
    pub async fn roll_out(&self, migration: &Migration, interlay: &Interlay) {
        let next = self.lower(migration, interlay);
        if next.plan.mode.is_dual() && !interlay.plan().mode.is_dual() {
            // No value may reach the target before the records policy that was chosen is there. Not at a flip: clients are held.
            self.settle_policies(interlay, "both sides are kept in step").await;
        }
        let before = interlay.plan().authority;
        self.publish(interlay, next).await;
        self.await_acks(interlay).await;
        let told = match interlay.plan().mode {
            PlanMode::PassThrough => self.movers.leave_alone(interlay.name()).await,
            PlanMode::Followed | PlanMode::Dual if interlay.plan().authority == before => {
                self.movers.keep_in_step(interlay.name(), migration.route()).await
            }
            PlanMode::Followed | PlanMode::Dual => self.movers.exchange(interlay.name(), migration.route()).await,
        };
        if let Err(error) = told {
            mover_not_told(interlay, &error);
        }
    }

    /// The next plan of this interlay, numbered after the present one.
    fn lower(&self, migration: &Migration, interlay: &Interlay) -> Published {
        let generation = Generation(interlay.plan().generation.0 + 1);
        let record = migration.record.borrow();
        let plan = plan(&record, &migration.source, &migration.target, generation);
        Published { plan: Arc::new(plan), view: view_context(record.phase, record.authority) }
    }

    /// Hands a plan to every core. A core with a full mailbox is waited for: a plan is never dropped.
    async fn publish(&self, interlay: &Interlay, next: Published) {
        let cores = 0..u16::try_from(self.bus.cores.len()).unwrap_or(u16::MAX);
        *interlay.unacked.borrow_mut() = cores.map(CoreId).collect();
        interlay.published.replace(next.clone());
        for mailbox in &self.bus.cores {
            let mut directive = Directive::Publish(next.clone());
            while let Err(back) = mailbox.push(directive) {
                directive = back;
                tokio::time::sleep(MAILBOX_RETRY).await;
            }
        }
    }

    /// Waits until every core has acked the present plan. Laggards are named, loudly, and waited for.
    async fn await_acks(&self, interlay: &Interlay) {
        loop {
            let acked = self.acked.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            if interlay.unacked.borrow().is_empty() {
                return;
            }
            if tokio::time::timeout(limits::PLAN_ACK_TIMEOUT, acked).await.is_err() {
                let lagging = ProcessEvent::PlanLagging {
                    generation: interlay.plan().generation,
                    cores: interlay.unacked.borrow().iter().copied().collect(),
                    after_s: limits::PLAN_ACK_TIMEOUT.as_secs(),
                };
                tracing::error!("{lagging}");
                self.events.lasting(lagging, &interlay.about()).await;
            }
        }
    }

    /// As [`Self::apply`], for the small facts a record remembers. A store that fails is reported; the fact is measured again.
    pub async fn remember(&self, migration: &Migration, fact: Fact) {
        let done = crate::workflow::observe(&migration.record.borrow(), fact, now());
        if let Err(error) = self.apply(migration, done).await {
            tracing::error!(%error, "a fact could not be recorded");
        }
    }
}

fn mover_not_told(interlay: &Interlay, error: &JobError) {
    tracing::error!(%error, interlay = %interlay.name(), "the mover was not told that every core has acked");
}

/// Whether cores would behave differently under the other plan.
fn differs(old: &Published, new: &Published) -> bool {
    let (old_view, new_view) = (old.view, new.view);
    let (old, new) = (&*old.plan, &*new.plan);
    old.authority != new.authority
        || old.mode != new.mode
        || old.compare != new.compare
        || (new.mode.is_dual() && old_view != new_view)
        || old.source != new.source
        || (new.mode.is_dual() && (old.ttl_grace_ms != new.ttl_grace_ms || old.target != new.target))
        || old.endpoint(old.authority.side) != new.endpoint(new.authority.side)
}
