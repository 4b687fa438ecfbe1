//! Draining and the exchange of roles. I6: authority flips only with writes fenced and nothing dirty, in flight or uncopied.

use std::sync::Arc;

use super::holding::Fence;
use super::shadow_queue::Purpose;
use super::state::Lane;
use base::model::{RoutePlan, Side};
use bus::{LaneEvent, PassKind};

impl Lane {
    pub(super) fn begin_fence(&mut self, ticket: u64, budget_us: u64) {
        if self.held.fence.is_some() {
            let reason = "another fence is in force".to_owned();
            self.out.tell(LaneEvent::FenceExpired { ticket, reason });
            return;
        }
        let began_us = self.now.mono_us;
        self.keys.drain(true);
        self.held.fence = Some(Fence { ticket, began_us, deadline_us: began_us + budget_us, reported: false });
    }

    /// Reports a drained lane once; gives up when the budget is spent before that.
    pub(super) fn advance_fence(&mut self) {
        let Some(fence) = &self.held.fence else { return };
        if fence.reported {
            return;
        }
        let (ticket, deadline_us) = (fence.ticket, fence.deadline_us);
        if self.is_drained() {
            if let Some(fence) = self.held.fence.as_mut() {
                fence.reported = true;
            }
            self.keys.log.drained();
            self.out.tell(LaneEvent::Fenced { ticket });
        } else if self.now.mono_us >= deadline_us {
            let reason = format!("the budget ran out: {}", self.what_is_left());
            self.expire_fence(reason);
        }
    }

    fn is_drained(&self) -> bool {
        self.both_connected()
            && self.jobs.pass.done
            && self.due.is_empty()
            && self.shadow.is_empty()
            && self.keys.dirty_count() == 0
    }

    fn what_is_left(&self) -> String {
        let status = self.status();
        format!(
            "authority connected: {}, shadow connected: {}, uncopied: {}, dirty: {}, in flight: {}",
            status.authority_connected, status.shadow_connected, status.uncopied, status.dirty, status.in_flight
        )
    }

    pub(super) fn expire_fence_if_lost(&mut self, side: Side, why: &str) {
        // Once reported, the record may already be durable: control decides.
        if self.held.fence.as_ref().is_some_and(|fence| !fence.reported) {
            self.expire_fence(format!("the {side}'s connection was lost: {why}"));
        }
    }

    fn expire_fence(&mut self, reason: String) {
        let Some(fence) = self.held.fence.take() else { return };
        self.keys.drain(false);
        self.keys.log.released(self.plan.authority);
        self.out.tell(LaneEvent::FenceExpired { ticket: fence.ticket, reason });
        self.adopt_records_policy();
        self.run_held();
        self.run_parked();
        self.retry_waiters();
    }

    /// Ends the fence under the plan published last.
    pub(super) fn release(&mut self, ticket: u64) {
        let Some(fence) = self.held.fence.take() else {
            self.out.tell(LaneEvent::Released { ticket, pause_us: 0, held: 0 });
            return;
        };
        self.keys.drain(false);
        if let Some(plan) = self.held.next_plan.take() {
            self.exchange_roles(&plan);
        }
        self.keys.log.released(self.plan.authority);
        let pause_us = self.now.mono_us - fence.began_us;
        let held = self.held.take_count();
        self.out.tell(LaneEvent::Released { ticket, pause_us, held });
        self.adopt_records_policy();
        self.run_held();
        self.run_parked();
        self.retry_waiters();
    }

    /// The shadow becomes the authority. Both hold the same values; deadlines on the new shadow are G too early, so every volatile
    /// key is uncopied again. A side that came back as another process behind the fence may hold anything: then every key is.
    fn exchange_roles(&mut self, plan: &Arc<RoutePlan>) {
        assert!(self.due.is_empty() && self.shadow.is_empty(), "I6: nothing is in flight at a flip");
        assert!(self.keys.dirty_count() == 0, "I6: nothing is dirty at a flip");
        self.plan = Arc::clone(plan);
        self.links.authority = plan.authority.side;
        // The new shadow is spoken to in RESP2 only.
        for _ in 0..self.links.shadow_mut().speak(2) {
            self.shadow.push(Purpose::Prepared, self.now.mono_us);
        }
        self.watches.break_all();
        if self.jobs.pass.done {
            self.begin_pass(PassKind::Volatile, "authority changed: deadlines are written again");
        } else {
            self.begin_pass(PassKind::Full, "authority changed while a server was replaced");
        }
    }

    pub(super) fn run_held(&mut self) {
        for (core, batch) in self.held.take_batches() {
            self.run_batch(core, batch);
        }
    }
}
