//! Draining and the exchange of roles. I6: authority flips only with writes fenced and nothing dirty, in flight or uncopied.

use std::sync::Arc;

use super::Lane;
use base::model::Side;
use bus::{LaneEvent, PassKind};

/// Writes are held.
#[derive(Debug)]
pub(super) struct Fence {
    ticket: u64,
    began_us: u64,
    deadline_us: u64,
    /// Control has been told that all is drained: from here on only its release ends the fence.
    reported: bool,
}

impl Lane {
    pub(super) fn begin_fence(&mut self, ticket: u64, budget_us: u64) {
        if self.fence.is_some() {
            let reason = "another fence is in force".to_owned();
            self.events.push(LaneEvent::FenceExpired { ticket, reason });
            return;
        }
        let began_us = self.now.mono_us;
        self.fence = Some(Fence { ticket, began_us, deadline_us: began_us + budget_us, reported: false });
    }

    /// Reports a drained lane once; gives up when the budget is spent before that.
    pub(super) fn advance_fence(&mut self) {
        let Some(fence) = &self.fence else { return };
        if fence.reported {
            return;
        }
        let (ticket, deadline_us) = (fence.ticket, fence.deadline_us);
        if self.is_drained() {
            if let Some(fence) = self.fence.as_mut() {
                fence.reported = true;
            }
            self.events.push(LaneEvent::Fenced { ticket });
        } else if self.now.mono_us >= deadline_us {
            let reason = format!("the budget ran out: {}", self.what_is_left());
            self.expire_fence(reason);
        }
    }

    fn is_drained(&self) -> bool {
        self.both_connected()
            && self.pass.done
            && self.awaiting.is_empty()
            && self.finishing.is_none()
            && self.sent.is_empty()
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
        if self.fence.as_ref().is_some_and(|fence| !fence.reported) {
            self.expire_fence(format!("the {side}'s connection was lost: {why}"));
        }
    }

    fn expire_fence(&mut self, reason: String) {
        let Some(fence) = self.fence.take() else { return };
        self.events.push(LaneEvent::FenceExpired { ticket: fence.ticket, reason });
        self.adopt_records_policy();
        self.run_held();
    }

    /// Ends the fence under the plan published last.
    pub(super) fn release(&mut self, ticket: u64) {
        let Some(fence) = self.fence.take() else {
            self.events.push(LaneEvent::Released { ticket, pause_us: 0, held: 0 });
            return;
        };
        if let Some(plan) = self.next_plan.take() {
            self.exchange_roles(&plan);
        }
        let pause_us = self.now.mono_us - fence.began_us;
        let held = std::mem::take(&mut self.held_commands);
        self.events.push(LaneEvent::Released { ticket, pause_us, held });
        self.adopt_records_policy();
        self.run_held();
        self.retry_all_waiters();
    }

    /// The shadow becomes the authority. Both hold the same values; deadlines on the new shadow are G too early, so every volatile
    /// key is uncopied again.
    fn exchange_roles(&mut self, plan: &Arc<base::model::RoutePlan>) {
        assert!(self.awaiting.is_empty() && self.sent.is_empty(), "I6: nothing is in flight at a flip");
        assert!(self.keys.dirty_count() == 0, "I6: nothing is dirty at a flip");
        self.plan = Arc::clone(plan);
        self.authority = plan.authority.side;
        // The new shadow is spoken to in RESP2 only.
        let resp = self.link_ref(self.authority.other()).resp;
        if resp != 2 {
            let link = self.link(self.authority.other());
            link.resp = 2;
            wire::resp::encode::push_request(&mut link.output, &[b"HELLO", b"2"]);
            self.sent.push_back(super::Sent { purpose: super::shadow::Purpose::Swallow, at_us: self.now.mono_us });
        }
        self.watches.break_all();
        self.begin_pass(PassKind::Volatile, "authority changed: deadlines are written again");
    }

    pub(super) fn run_held(&mut self) {
        for (core, batch) in std::mem::take(&mut self.held) {
            self.run_batch(core, &batch);
        }
    }
}
