//! The PostgreSQL relay as the data plane sees it.

use std::sync::Arc;

use super::PostgresRelay;
use super::types::{Purpose, Server, ServerStage, Stage};
use crate::contract::{
    Arrival, Ask, ClientKey, Failure, HoldUnsupported, Interrupt, Relay, Secured, SessionList, UpstreamKey,
};
use base::model::{Generation, RoutePlan, StatementSample, limits};
use base::stdx::clock::Now;
use bus::counters::CoreCounters;
use bus::{HoldEvent, HoldOrder};

impl Relay for PostgresRelay {
    fn client_opened(&mut self, arrival: Arrival) -> Result<ClientKey, Vec<u8>> {
        self.let_in(arrival)
    }

    fn client_input(&mut self, key: ClientKey, bytes: &[u8], now: Now) {
        self.now = now;
        self.client_bytes(key, bytes);
    }

    fn client_secured(&mut self, key: ClientKey, secured: &Secured) {
        self.tls_stands(key, secured);
    }

    fn client_closed(&mut self, key: ClientKey) {
        self.let_out(key);
    }

    /// A held session is not read, so that its bytes wait in the kernel; nor is one whose server has too much to take.
    fn may_read_client(&self, key: ClientKey) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let server = session.server.and_then(|server| self.servers.get(server));
        !session.closing
            && session.doomed.is_none()
            && session.stage != Stage::Closing
            && session.held_since_us.is_none()
            && !session.at_boundary
            && session.input.len() < limits::SESSION_BUFFER_SOFT_BYTES
            && server.is_none_or(|server| server.output.len() < limits::SESSION_BUFFER_SOFT_BYTES)
    }

    fn take_client_output(&mut self, key: ClientKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let session = self.sessions.get_mut(key)?;
        session.output_ready = false;
        if session.output.is_empty() {
            return None;
        }
        let output = std::mem::replace(&mut session.output, self.spares.take());
        self.counters.bytes_to_clients += output.len() as u64;
        if output.len() >= limits::SESSION_BUFFER_SOFT_BYTES {
            self.asks.extend(session.server.map(Ask::ReadUpstream));
        }
        Some(output)
    }

    fn client_written(&mut self, key: ClientKey) -> bool {
        self.sessions.get(key).is_none_or(|session| session.closing && session.output.is_empty())
    }

    fn upstream_opened(&mut self, key: UpstreamKey, now: Now) {
        self.now = now;
        self.server_opened(key);
    }

    fn upstream_secured(&mut self, key: UpstreamKey) {
        self.introduce(key);
    }

    fn upstream_ready(&self, key: UpstreamKey) -> bool {
        // A cancel request is answered by the end of its connection, which must come in time too. Where the client answers the
        // server's questions itself, it has the time a log-in has.
        self.servers.get(key).is_none_or(|server| match server.stage {
            ServerStage::Ready => !matches!(server.purpose, Purpose::Cancel(_)),
            ServerStage::LoggingIn => server.waits_for_client(),
            ServerStage::Opening | ServerStage::TlsAsked | ServerStage::Securing => false,
        })
    }

    fn upstream_failed(&mut self, key: UpstreamKey, failure: &Failure) {
        self.lose_server(key, failure);
    }

    fn upstream_input(&mut self, key: UpstreamKey, bytes: &[u8], now: Now) -> Result<(), String> {
        self.now = now;
        self.server_bytes(key, bytes)
    }

    fn may_read_upstream(&self, key: UpstreamKey) -> bool {
        match self.servers.get(key) {
            Some(Server { purpose: Purpose::Session(client), .. }) => self
                .sessions
                .get(*client)
                .is_none_or(|session| session.output.len() < limits::SESSION_BUFFER_SOFT_BYTES),
            Some(_) | None => true,
        }
    }

    fn take_upstream_output(&mut self, key: UpstreamKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let server = self.servers.get_mut(key)?;
        server.output_ready = false;
        if server.output.is_empty() {
            return None;
        }
        let output = std::mem::replace(&mut server.output, self.spares.take());
        if output.len() >= limits::SESSION_BUFFER_SOFT_BYTES
            && let Purpose::Session(client) = server.purpose
        {
            self.asks.push(Ask::ReadClient(client));
        }
        Some(output)
    }

    /// Every server connection belongs to one session.
    fn upstream_is_urgent(&self, _key: UpstreamKey) -> bool {
        true
    }

    fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    fn take_ready_clients(&mut self) -> Vec<ClientKey> {
        std::mem::take(&mut self.ready_clients)
    }

    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey> {
        std::mem::take(&mut self.ready_servers)
    }

    fn tick(&mut self, now: Now) {
        self.now = now;
        self.end_late_log_ins();
        self.end_late_lookup();
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        &self.plan
    }

    /// Nothing of a plan but its generation can change yet: a PostgreSQL interlay has no migrations.
    fn publish(&mut self, plan: Arc<RoutePlan>) {
        self.acked = Some(plan.generation);
        self.plan = plan;
    }

    fn take_acked_plan(&mut self) -> Option<Generation> {
        self.acked.take()
    }

    fn barrier_pending(&self) -> bool {
        false
    }

    fn break_barrier(&mut self) {}

    fn drain(&mut self) {
        self.begin_drain();
    }

    fn is_drained(&self) -> bool {
        self.draining && self.sessions.is_empty()
    }

    fn hold(&mut self, order: HoldOrder, now: Now) -> Result<(), HoldUnsupported> {
        self.now = now;
        self.obey_gate(order);
        Ok(())
    }

    fn take_hold_events(&mut self) -> Vec<(u64, HoldEvent)> {
        self.gate.take_events()
    }

    fn sessions(&self, now: Now) -> SessionList {
        self.list_sessions(now)
    }

    fn interrupt(&mut self, interrupt: &Interrupt) {
        self.interrupted(interrupt, None);
    }

    fn counters(&self) -> CoreCounters {
        self.counters_now()
    }

    fn take_statements(&mut self) -> Vec<StatementSample> {
        self.sampler.take()
    }
}
