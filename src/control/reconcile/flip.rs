//! The flip: cutover and rollback are this one procedure with the roles exchanged; the rehearsal is the same without the change.
//!
//! Hold → drain → decide again → persist → publish → acks → exchange → release. Before the record is durable everything can be undone by
//! a release; after it nothing is undone, and nothing is released until every core has acked: a client would read stale data.

use std::rc::Rc;
use std::time::Duration;

use super::clock::now;
use super::error::ControlError;
use super::observed::FlipOutcome;
use super::state::{Control, Interlay, Migration};
use crate::events::{MigrationEvent, ProcessEvent};
use crate::workflow::{Command, Fact, Transition, is_dual, transition};
use movers::{HoldError, Released};

impl Control {
    /// One try of the change of authority that is due in this phase.
    pub async fn flip(&self, migration: &Migration) -> FlipOutcome {
        self.try_flip(migration).await.map_or_else(|outcome| outcome, |()| FlipOutcome::Done)
    }

    async fn try_flip(&self, migration: &Migration) -> Result<(), FlipOutcome> {
        let interlay = self.interlay(&migration.interlay()).map_err(|error| FlipOutcome::Refused(error.to_string()))?;
        let _change = interlay.change.lock().await;
        // Decided once before any client is held, and again when both sides stand still.
        self.decide(migration).map_err(FlipOutcome::Refused)?;
        migration.seen.borrow_mut().verification.stop();
        self.hold_and_drain(migration, &interlay).await.map_err(FlipOutcome::Postponed)?;
        let done = match self.decide(migration) {
            Ok(done) => done,
            Err(refusal) => {
                self.release(&interlay).await;
                return Err(FlipOutcome::Postponed(refusal));
            }
        };
        let told = match self.make_durable(migration, done).await {
            Ok(told) => told,
            Err(error) => return Err(FlipOutcome::Postponed(self.undo(migration, &interlay, &error).await)),
        };
        self.roll_out(migration, &interlay).await;
        let released = self.release(&interlay).await;
        self.announce(told);
        if let Some(released) = released {
            self.remember(migration, Fact::Released { pause_us: released.longest_hold_us }).await;
        }
        Ok(())
    }

    fn decide(&self, migration: &Migration) -> Result<Transition, String> {
        let evidence = self.evidence(migration);
        let record = migration.record.borrow();
        transition(&record, Command::Flip, &evidence, now()).map_err(|refusal| refusal.to_string())
    }

    /// The record is not known to be durable: the writes go to the authority they were held for, and no further change is made.
    async fn undo(&self, migration: &Migration, interlay: &Interlay, error: &ControlError) -> String {
        self.release(interlay).await;
        let side = migration.record.borrow().authority.side;
        let text = format!(
            "the authority record was not confirmed by the store, so the {side} stays authoritative in this process: {error}. \
             No further change is made until a restart. Repair what the store names and stop this process in order: if the record \
             did reach the disk, the {} is authoritative from the next start on",
            side.other()
        );
        tracing::error!("{text}");
        self.store_failed.borrow_mut().get_or_insert(error.to_string());
        let failed = ProcessEvent::StoreFailed { text: text.clone() };
        let event = self.events.draft(failed, &migration.about()).await;
        // Not through the journal: it is what cannot be written.
        self.events.announce(event);
        text
    }

    /// A hold and release that change nothing; the pause is what a flip or a rollback would cost now.
    pub async fn rehearse(self: &Rc<Self>, migration: &Migration) -> FlipOutcome {
        self.try_rehearsal(migration).await.map_or_else(|outcome| outcome, |()| FlipOutcome::Done)
    }

    async fn try_rehearsal(&self, migration: &Migration) -> Result<(), FlipOutcome> {
        let interlay = self.interlay(&migration.interlay()).map_err(|error| FlipOutcome::Refused(error.to_string()))?;
        let _change = interlay.change.lock().await;
        if !is_dual(&migration.record.borrow()) {
            return Err(FlipOutcome::Refused("both sides are no longer kept in step".to_owned()));
        }
        self.hold_and_drain(migration, &interlay).await.map_err(FlipOutcome::Postponed)?;
        let unanswered = || FlipOutcome::Postponed("the release was not answered".to_owned());
        let released = self.release(&interlay).await.ok_or_else(unanswered)?;
        self.remember(migration, Fact::Rehearsed { pause_us: released.longest_hold_us }).await;
        Ok(())
    }

    /// Afterwards no client has anything outstanding, and what is known of the shadow is from after the drain.
    async fn hold_and_drain(&self, migration: &Migration, interlay: &Interlay) -> Result<(), String> {
        let budget_ms = migration.record.borrow().decisions.thresholds.fence_budget_ms;
        let error = match self.movers.hold(interlay.name(), Duration::from_millis(budget_ms)).await {
            Ok(drained) => {
                if let Some(fresh) = drained.facts {
                    migration.seen.borrow_mut().shadow.facts = Some(fresh);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let budget_ms = matches!(error, HoldError::Expired { .. }).then_some(budget_ms);
        let reason = self.after_failed_hold(interlay, error).await;
        migration.seen.borrow_mut().holds.expired += 1;
        let postponed = MigrationEvent::FlipPostponed { budget_ms, reason };
        let text = postponed.to_string();
        self.events.passing(postponed, &migration.about()).await;
        Err(text)
    }

    /// Releases clients that may still be held; why the hold failed.
    async fn after_failed_hold(&self, interlay: &Interlay, error: HoldError) -> String {
        match error {
            HoldError::Expired { reason, clients: movers::HeldClients::Released, .. } => reason,
            HoldError::Expired { reason, clients: movers::HeldClients::StillHeld, .. } => {
                self.release(interlay).await;
                reason
            }
            HoldError::Unsupported(why) => {
                self.release(interlay).await;
                why.to_string()
            }
            // Whether clients are held is unknown; a release that is not due does no harm.
            HoldError::Failed(error) => {
                self.release(interlay).await;
                error.to_string()
            }
        }
    }

    /// Lets held clients go on; `None` when there was no answer, which is said in the log.
    pub(super) async fn release(&self, interlay: &Interlay) -> Option<Released> {
        match self.movers.release(interlay.name()).await {
            Ok(released) => {
                if !released.silent.is_empty() {
                    let cores: Vec<_> = released.silent.iter().map(|core| core.0).collect();
                    tracing::error!(interlay = %interlay.name(), ?cores, "cores did not answer the order to release their clients in time");
                }
                Some(released)
            }
            Err(error) => {
                tracing::error!(%error, interlay = %interlay.name(), "held clients were not released");
                None
            }
        }
    }
}
