//! The flip: cutover and rollback are this one procedure with the roles exchanged; the rehearsal is the same without the change.
//!
//! Fence → durable record → plan to every core → every ack → release. Before the record is durable everything can be undone by a
//! release; after it nothing is undone, and nothing is released until every core has acked: a client would read stale data.

use std::rc::Rc;
use std::time::Duration;

use super::handle::ControlError;
use super::state::{Control, Interlay, Migration, now};
use crate::workflow::{Command, Fact, transition};
use base::model::limits;

/// Releases tried before the lane is given up on and the operator is told.
const RELEASE_TRIES: u32 = 3;

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlipOutcome {
    Flipped,
    /// Nothing changed; trying again is safe.
    Postponed(String),
}

impl Control {
    /// One try of the change of authority that is due in this phase.
    pub async fn flip(&self, migration: &Migration) -> FlipOutcome {
        let name = migration.record.borrow().interlay.clone();
        let Ok(interlay) = self.interlay(&name) else {
            return FlipOutcome::Postponed(format!("interlay {name} is gone"));
        };
        let _change = interlay.change.lock().await;
        // Decided once before anyone is held up, and again when both sides stand still.
        if let Err(refusal) = self.decide(migration) {
            return FlipOutcome::Postponed(refusal);
        }
        migration.seen.borrow_mut().stop_verifying();
        if let Err(reason) = self.fence(migration, &interlay).await {
            return FlipOutcome::Postponed(reason);
        }
        let done = match self.decide(migration) {
            Ok(done) => done,
            Err(refusal) => {
                self.release(&interlay).await;
                return FlipOutcome::Postponed(refusal);
            }
        };
        let events = match self.persist(migration, &done) {
            Ok(events) => events,
            Err(error) => return self.undo(migration, &interlay, &error).await,
        };
        self.adopt(migration, done);
        // What was proven and measured was about the other direction.
        {
            let mut seen = migration.seen.borrow_mut();
            seen.distrust();
            seen.lane = None;
        }
        let next = self.lower(migration, &interlay);
        self.publish(&interlay, next).await;
        self.await_acks(&interlay).await;
        let pause = self.release(&interlay).await;
        for event in events {
            self.events.announce(event);
        }
        if let Some(pause_us) = pause {
            let done = crate::workflow::observe(&migration.record.borrow(), Fact::Released { pause_us }, now());
            if let Err(error) = self.apply(migration, done).await {
                tracing::error!(%error, "the pause of the flip could not be recorded");
            }
        }
        FlipOutcome::Flipped
    }

    fn decide(&self, migration: &Migration) -> Result<crate::workflow::Transition, String> {
        let evidence = self.evidence(migration);
        let record = migration.record.borrow();
        transition(&record, Command::Flip, &evidence, now()).map_err(|refusal| refusal.to_string())
    }

    /// The record is not durable, so nothing changed: give the writes back to the authority they were held for.
    async fn undo(&self, migration: &Migration, interlay: &Interlay, error: &ControlError) -> FlipOutcome {
        self.release(interlay).await;
        let text = format!(
            "the authority record could not be written, so the authority did not change: {error}. No further change is made; \
             mend the disk and restart. Until then the {} stays authoritative in this process",
            migration.record.borrow().authority.side
        );
        tracing::error!("{text}");
        self.store_failed.borrow_mut().get_or_insert(error.to_string());
        let event = self.events.draft("store_failed", &migration.about(), text.clone(), now());
        self.events.announce(event);
        FlipOutcome::Postponed(text)
    }

    /// A fence and release that change nothing; the pause is what a flip or a rollback would cost now.
    pub async fn rehearse(self: &Rc<Self>, migration: &Migration) -> FlipOutcome {
        let name = migration.record.borrow().interlay.clone();
        let Ok(interlay) = self.interlay(&name) else {
            return FlipOutcome::Postponed(format!("interlay {name} is gone"));
        };
        let _change = interlay.change.lock().await;
        if !crate::workflow::is_dual(&migration.record.borrow()) {
            return FlipOutcome::Postponed("both sides are no longer kept in step".to_owned());
        }
        if let Err(reason) = self.fence(migration, &interlay).await {
            return FlipOutcome::Postponed(reason);
        }
        match self.release(&interlay).await {
            Some(pause_us) => {
                self.remember(migration, Fact::Rehearsed { pause_us }).await;
                FlipOutcome::Flipped
            }
            None => FlipOutcome::Postponed("the lane did not answer the release".to_owned()),
        }
    }

    async fn fence(&self, migration: &Migration, interlay: &Interlay) -> Result<(), String> {
        let budget = Duration::from_millis(migration.record.borrow().decisions.thresholds.fence_budget_ms);
        let reason = match interlay.lane.fence(budget).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(error) => {
                // Whether the lane holds writes is unknown; a release that is not due does no harm.
                self.release(interlay).await;
                error.to_string()
            }
        };
        migration.seen.borrow_mut().fences_expired += 1;
        let text = format!("not within {} ms: {reason}; nothing changed, trying again", budget.as_millis());
        self.events.passing("flip_postponed", &migration.about(), text.clone(), now());
        Err(text)
    }

    /// Releases held writes; the pause, or nothing when the lane gave no answer.
    async fn release(&self, interlay: &Interlay) -> Option<u64> {
        for _ in 0..RELEASE_TRIES {
            match interlay.lane.release().await {
                Ok((pause_us, _held)) => return Some(pause_us),
                Err(error) => {
                    tracing::error!(%error, interlay = %interlay.config.spec.name, "held writes were not released")
                }
            }
            tokio::time::sleep(limits::FENCE_RETRY_PAUSE).await;
        }
        None
    }
}
