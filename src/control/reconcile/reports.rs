//! What the cores report, taken off the bus as it comes. Lives on the control thread; decides nothing.
//!
//! What a companion or a hold says goes on to the mover of its interlay, in the order in which it came.

use std::rc::Rc;

use tokio::net::unix::pipe;

use super::event_hub::About;
use super::state::Control;
use crate::events::ProcessEvent;
use base::model::{CoreId, Generation, InterlayName};
use bus::Report;
use movers::News;

/// Reports handled before others on this thread get a turn.
const REPORTS_PER_TURN: usize = 256;

impl Control {
    /// Takes reports for as long as the thread lives.
    ///
    /// # Errors
    /// The operating system's, when the eventfd cannot be polled.
    pub async fn pump(self: Rc<Self>) -> std::io::Result<()> {
        let reports = self.bus.reports.clone();
        // To tokio an eventfd polls and reads like the end of a pipe.
        let wake = pipe::Receiver::from_owned_fd_unchecked(reports.wake_owned()?)?;
        loop {
            reports.arm();
            let mut taken = 0;
            while let Some(report) = reports.pop() {
                self.on_report(report).await;
                taken += 1;
                if taken % REPORTS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            wake.readable().await?;
            // Read until it would block: only that makes the next wait wait.
            while wake.try_read(&mut [0; 8]).is_ok() {}
        }
    }

    async fn on_report(self: &Rc<Self>, report: Report) {
        match report {
            Report::PlanAcked { core, interlay, generation } => self.on_ack(core, &interlay, generation),
            Report::Companion { interlay, event } => self.movers.deliver(interlay, News::Companion(event)).await,
            Report::Counters { core, interlays } => {
                self.cores.borrow_mut().counters.insert(core, interlays);
            }
            Report::Hold { core, interlay, ticket, event } => {
                self.movers.deliver(interlay, News::Hold { core, ticket, event }).await;
            }
            Report::Confirm { core, interlay, ticket } => {
                self.movers.deliver(interlay, News::Confirm { core, ticket }).await;
            }
            Report::Sessions { core, interlay, ticket, total, busy, sessions } => {
                if let Some(interlay) = self.interlays.get(&interlay) {
                    interlay.sessions.on_sessions(core, ticket, total, busy, sessions);
                }
            }
            Report::PoliciesAdopted { core, interlay, generation, before } => {
                self.on_policies_adopted(core, &interlay, generation, before);
            }
            Report::Policies { core, interlay, generation: _, seats } => self.on_policy_stats(core, &interlay, seats),
            Report::PolicyNotes { core, interlay, generation, notes } => {
                if let Some(interlay) = self.interlays.get(&interlay) {
                    self.policy_notes(interlay, generation, Some(core), notes).await;
                }
            }
            Report::Statements { interlay, samples } => self.analyst.take(&interlay, samples),
            Report::Reads { interlay, reads } => self.movers.deliver(interlay, News::Reads(reads)).await,
            Report::Drained { core } => {
                self.cores.borrow_mut().drained.insert(core);
                self.acked.notify_waiters();
            }
            Report::CoreFailed { core, reason } => {
                let failed = ProcessEvent::CoreFailed { core, reason };
                tracing::error!("{failed}");
                self.fail(failed.to_string());
                self.events.lasting(failed, &About::default()).await;
            }
        }
    }

    fn on_ack(&self, core: CoreId, name: &InterlayName, generation: Generation) {
        let Some(interlay) = self.interlays.get(name) else { return };
        // An ack of an older plan says nothing about the present one.
        if interlay.plan().generation == generation {
            interlay.unacked.borrow_mut().remove(&core);
            self.acked.notify_waiters();
        }
    }

    /// The process cannot go on; the first reason is the one that is told.
    pub(super) fn fail(&self, reason: String) {
        self.cores.borrow_mut().failed.get_or_insert(reason);
        self.acked.notify_waiters();
    }
}
