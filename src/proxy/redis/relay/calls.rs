//! What the cores call: each call goes to the part that it concerns, and then lets clients go on that waited for it.

use std::sync::Arc;

use super::client::Client;
use super::state::RedisRelay;
use super::upstream::Upstream;
use crate::contract::{Arrival, Ask, ClientKey, Failure, HoldUnsupported, Relay, ToCompanion, ToRelay, UpstreamKey};
use base::model::{Generation, RoutePlan, SampledRead};
use base::stdx::clock::Now;
use bus::counters::{self, CoreCounters};
use bus::{ConfirmOrder, HoldEvent, HoldOrder};

impl Relay for RedisRelay {
    fn client_opened(&mut self, _arrival: Arrival) -> Result<ClientKey, Vec<u8>> {
        // What Redis itself answers when `maxclients` is reached.
        self.let_in().ok_or_else(|| b"-ERR max number of clients reached\r\n".to_vec())
    }

    fn client_input(&mut self, key: ClientKey, bytes: &[u8], now: Now) {
        self.shared.now = now;
        self.client_bytes(key, bytes);
    }

    fn client_ended(&mut self, key: ClientKey) -> bool {
        self.input_ended(key)
    }

    fn client_closed(&mut self, key: ClientKey) {
        self.let_out(key);
    }

    fn may_read_client(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(Client::may_be_read)
    }

    fn take_client_output(&mut self, key: ClientKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.shared.spares.give(recycled);
        let client = self.clients.get_mut(key)?;
        client.output.listed = false;
        let waited = client.is_behind();
        let output = client.take_output()?;
        if waited {
            self.shared.asks.extend(client.pinned.map(Ask::ReadUpstream));
        }
        self.shared.counters.bytes_to_clients += if counters::ON { output.len() as u64 } else { 0 };
        Some(output)
    }

    fn client_written(&mut self, key: ClientKey) -> bool {
        self.output_sent(key)
    }

    fn upstream_opened(&mut self, key: UpstreamKey, now: Now) {
        self.shared.now = now;
        self.log_in(key);
    }

    fn may_read_upstream(&self, key: UpstreamKey) -> bool {
        let Some(upstream) = self.shared.upstreams.get(key) else { return true };
        let owner = upstream.owner.and_then(|owner| self.clients.get(owner));
        // Replies are taken in any case: a flip waits for them.
        !upstream.awaited.is_empty() || !owner.is_some_and(Client::is_behind)
    }

    fn upstream_ready(&self, key: UpstreamKey) -> bool {
        self.shared.upstreams.get(key).is_none_or(|upstream| upstream.connected)
    }

    fn upstream_failed(&mut self, key: UpstreamKey, failure: &Failure) {
        let logging_in = self.shared.upstreams.get(key).and_then(|upstream| upstream.log_in.as_ref());
        match logging_in.and_then(|logging_in| logging_in.dialogue.refusal()).cloned() {
            Some(said) => {
                let owner = self.shared.upstreams.get(key).and_then(|upstream| upstream.owner);
                self.lose_upstream(key, &Failure::Refused(said));
                if let Some(owner) = owner.and_then(|owner| self.clients.get_mut(owner)) {
                    // As the server does behind such an error.
                    owner.closing |= owner.own;
                }
            }
            None => self.lose_upstream(key, failure),
        }
    }

    fn upstream_input(&mut self, key: UpstreamKey, bytes: &[u8], now: Now) -> Result<(), String> {
        self.shared.now = now;
        self.server_bytes(key, bytes)
    }

    fn take_upstream_output(&mut self, key: UpstreamKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.shared.spares.give(recycled);
        let upstream = self.shared.upstreams.get_mut(key)?;
        let output = upstream.take_output(&mut self.shared.spares)?;
        if upstream.connected {
            self.shared.resume.append(&mut upstream.stalled);
            self.settle();
        }
        Some(output)
    }

    fn upstream_is_urgent(&self, key: UpstreamKey) -> bool {
        self.shared.upstreams.get(key).is_some_and(Upstream::is_urgent)
    }

    fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.shared.asks)
    }

    fn take_ready_clients(&mut self) -> Vec<ClientKey> {
        std::mem::take(&mut self.shared.ready_clients)
    }

    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey> {
        std::mem::take(&mut self.shared.upstreams.ready)
    }

    fn tick(&mut self, now: Now) {
        self.shared.now = now;
        self.ask_what_is_blocked();
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        &self.shared.plan
    }

    fn publish(&mut self, plan: Arc<RoutePlan>) {
        self.adopt(plan);
    }

    fn take_acked_plan(&mut self) -> Option<Generation> {
        self.acked_plan()
    }

    fn barrier_pending(&self) -> bool {
        self.barrier.as_ref().is_some_and(|barrier| !barrier.fallen)
    }

    fn nudge_barrier(&mut self) {
        self.ask_unblocks();
    }

    fn break_barrier(&mut self) {
        self.abandon_barrier();
    }

    fn drain(&mut self) {
        self.begin_drain();
    }

    fn is_drained(&self) -> bool {
        self.draining && self.clients.is_empty()
    }

    fn take_messages(&mut self) -> Vec<ToCompanion> {
        std::mem::take(&mut self.shared.to_lane)
    }

    fn companion_message(&mut self, message: ToRelay) {
        let ToRelay::Lane(reply) = message;
        self.lane_answered(&reply);
    }

    fn hold(&mut self, order: HoldOrder, now: Now) -> Result<(), HoldUnsupported> {
        self.shared.now = now;
        self.hold_ordered(order)
    }

    fn take_hold_events(&mut self) -> Vec<(u64, HoldEvent)> {
        self.shared.hold.take_events()
    }

    fn confirm(&mut self, order: ConfirmOrder, now: Now) {
        self.shared.now = now;
        self.confirm_ordered(order);
    }

    fn take_confirm_ticket(&mut self) -> Option<u64> {
        self.shared.confirming.take_ticket()
    }

    fn take_reads(&mut self) -> Vec<SampledRead> {
        self.shared.kept.reads.take()
    }

    fn counters(&self) -> CoreCounters {
        CoreCounters { connections_open: self.clients.len() as u64, ..self.shared.counters() }
    }
}
