//! The relay of a Redis interlay on one core, without I/O: bytes and plans in, bytes and [`Ask`]s out.
//!
//! Lives on one core. It matches replies with requests, keeps each client's session, decides which path a command takes (a shared
//! connection, a connection of its own, the lane) and keeps Redis' order: *a client has outstanding commands on one path at a time*.
//! It never opens a connection, reads a clock or knows a phase; `dataplane` performs what it asks.

mod barrier;
mod contract;
mod dispatch;
mod pinned;
mod policy;
mod session;
mod transaction;
mod types;
mod upstream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use types::{Client, Path, PoolKey, Upstream, Wait};

use crate::contract::{Ask, ClientKey, RelaySetup, SharedPolicies, ToCompanion, UpstreamKey};
use crate::redis::lane::request::LaneReply;
use base::model::{CoreId, Generation, PlanMode, RequireTls, RoutePlan, ServerTls, limits};
use base::stdx::clock::Now;
use base::stdx::slab::Slab;
use base::stdx::spares::Spares;
use bus::counters::{self, CoreCounters};
use wire::resp::command;

/// The first byte of a TLS handshake record; no request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// One interlay on one core.
#[derive(Debug)]
pub struct RedisRelay {
    plan: Arc<RoutePlan>,
    clients: Slab<Client>,
    upstreams: Slab<Upstream>,
    /// Shared connections; few, so searched from the front.
    shared: Vec<(PoolKey, UpstreamKey)>,
    idle_pinned: Vec<(PoolKey, UpstreamKey)>,
    /// Clients whose reason to wait may be over.
    resume: Vec<ClientKey>,
    ready_clients: Vec<ClientKey>,
    ready_upstreams: Vec<UpstreamKey>,
    asks: Vec<Ask>,
    /// Commands for the lane.
    to_lane: Vec<ToCompanion>,
    /// A published plan not yet acked: how many local commands of the previous plan are still outstanding is counted when asked.
    barrier: Option<barrier::Barrier>,
    next_session_id: u64,
    /// Part of the names of this process' connections.
    token: u64,
    /// What clients are offered; Redis has no negotiation, so the first byte tells.
    tls: Option<ServerTls>,
    /// Whether the authority lets a connection without log-in run commands; learnt when one connects.
    anonymous_allowed: Option<bool>,
    /// No new clients, and those without outstanding commands are closed.
    draining: bool,
    core: CoreId,
    policies: SharedPolicies,
    /// When the bytes being looked at came.
    now: Now,
    counters: CoreCounters,
    by_name: Vec<u64>,
    spares: Spares,
}

impl RedisRelay {
    #[must_use]
    pub fn new(setup: RelaySetup) -> Self {
        Self {
            plan: setup.plan,
            clients: Slab::default(),
            upstreams: Slab::default(),
            shared: Vec::new(),
            idle_pinned: Vec::new(),
            resume: Vec::new(),
            ready_clients: Vec::new(),
            ready_upstreams: Vec::new(),
            asks: Vec::new(),
            to_lane: Vec::new(),
            barrier: None,
            // This and the step keep CLIENT ID unique over all cores.
            next_session_id: u64::from(setup.core.0) + 1,
            token: setup.token,
            tls: setup.spec.tls,
            anonymous_allowed: None,
            draining: false,
            core: setup.core,
            policies: setup.policies,
            now: Now::default(),
            counters: CoreCounters::default(),
            by_name: vec![0; command::TABLE.len() + 1],
            spares: Spares::new(limits::SPARE_BUFFERS_MAX, limits::SPARE_BUFFER_BYTES_MAX),
        }
    }

    fn is_dual(&self) -> bool {
        self.plan.mode == PlanMode::Dual
    }

    // ---- clients --------------------------------------------------------------------------------------------------

    /// A client connected; `None` when there are too many.
    fn let_in(&mut self) -> Option<ClientKey> {
        if self.clients.len() >= limits::CLIENTS_MAX || self.draining {
            self.counters.connections_refused += 1;
            return None;
        }
        self.counters.connections_accepted += 1;
        let id = self.next_session_id;
        self.next_session_id += 64;
        Some(self.clients.insert(Client::new(id)))
    }

    /// The first bytes of a client of an interlay that has TLS: true when they are not to be read as requests.
    fn begin_encryption(&mut self, key: ClientKey, bytes: &[u8]) -> bool {
        let Some(tls) = &self.tls else { return false };
        let Some(client) = self.clients.get_mut(key) else { return false };
        if client.encryption_settled {
            return false;
        }
        client.encryption_settled = true;
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            self.asks.push(Ask::SecureClient { client: key, prologue: b"", begun: bytes.to_vec() });
            return true;
        }
        if tls.require == RequireTls::No {
            return false;
        }
        self.counters.replies_refused += 1;
        client.output.extend_from_slice(
            b"-ERR Crossfade takes no connection without TLS here: connect with --tls or rediss://\r\n",
        );
        client.closing = true;
        self.client_has_output(key);
        true
    }

    /// Bytes arrived from a client.
    fn client_bytes(&mut self, key: ClientKey, bytes: &[u8]) {
        self.counters.bytes_from_clients += if counters::ON { bytes.len() as u64 } else { 0 };
        if self.begin_encryption(key, bytes) {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.input.is_empty() && client.wait == Wait::Nothing {
            let used = self.process(key, bytes);
            if let Some(client) = self.clients.get_mut(key) {
                client.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            client.input.extend_from_slice(bytes);
            self.process_buffered(key);
        }
        self.settle();
    }

    fn process_buffered(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut input = std::mem::take(&mut client.input);
        let used = self.process(key, &input);
        if let Some(client) = self.clients.get_mut(key) {
            input.drain(..used);
            client.input = input;
        }
    }

    /// The client's connection is gone. What it had outstanding still runs; the replies go nowhere.
    fn let_out(&mut self, key: ClientKey) {
        let Some(client) = self.clients.remove(key) else { return };
        if client.watching || client.path == Path::Lane {
            self.push_forget(key);
        }
        if let Some(upstream) = client.pinned {
            // Whatever state it holds must not leak to another client.
            self.close_upstream(upstream);
        }
        self.settle();
    }

    /// Whether more may be read from this client's socket now. Each time the answer turns to yes there is an [`Ask::ReadClient`].
    fn may_read(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| client.wait == Wait::Nothing && !client.closing)
    }

    /// Moves a client's unsent replies out; `recycled` becomes its next buffer. `None` when there is nothing to send.
    fn client_output(&mut self, key: ClientKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let client = self.clients.get_mut(key)?;
        client.output_ready = false;
        if client.output.is_empty() {
            return None;
        }
        self.counters.bytes_to_clients += if counters::ON { client.output.len() as u64 } else { 0 };
        Some(std::mem::take(&mut client.output))
    }

    /// All that was taken has been sent; true when the connection should now be closed.
    fn output_sent(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        if client.wait == Wait::Output && client.output.len() <= limits::CLIENT_OUTPUT_SOFT_BYTES {
            self.resume.push(key);
        }
        let done = client.closing && client.outstanding == 0 && client.output.is_empty();
        self.settle();
        done
    }

    /// Counters with the per-command part filled in.
    fn counters_now(&self) -> CoreCounters {
        let mut counters = self.counters.clone();
        counters.connections_open = self.clients.len() as u64;
        counters.upstream_connections = self.upstreams.len() as u64;
        counters.commands_by_name = self
            .by_name
            .iter()
            .enumerate()
            .filter(|&(_, &count)| count > 0)
            .map(|(at, &count)| (command::TABLE.get(at).map_or("other", |row| row.name), count))
            .collect();
        counters
    }

    // ---- the lane's answers -----------------------------------------------------------------------------------------

    fn lane_answered(&mut self, reply: LaneReply) {
        let key = ClientKey::from_u64(reply.client);
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.blocked.is_some() && !reply.close {
            self.blocking_answered(key, &reply.bytes);
            self.settle();
            return;
        }
        client.outstanding = client.outstanding.saturating_sub(reply.count);
        if reply.close {
            self.asks.push(Ask::CloseClient(key));
            self.settle();
            return;
        }
        let muted = client.take_muted(reply.count);
        if muted == 0 {
            client.output.extend_from_slice(&reply.bytes);
        } else {
            client.append_unmuted(&reply.bytes, muted);
        }
        self.client_has_output(key);
        self.reply_arrived(key);
        self.settle();
    }

    // ---- shared by the parts ----------------------------------------------------------------------------------------

    fn client_has_output(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.output.len() > limits::CLIENT_OUTPUT_HARD_BYTES {
            self.asks.push(Ask::CloseClient(key));
        }
        if !client.output_ready && (!client.output.is_empty() || client.closing) {
            client.output_ready = true;
            self.ready_clients.push(key);
        }
    }

    /// After a reply: wakes a client that waited for its own replies, or closes one that only waited for them.
    fn reply_arrived(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.outstanding == 0 {
            if client.wait == Wait::OwnReplies {
                self.resume.push(key);
            }
            if client.closing {
                self.client_has_output(key);
            } else if client.pinned.is_some() {
                self.unpin_if_clean(key);
            }
        } else if client.wait == Wait::Outstanding && client.outstanding < limits::CLIENT_OUTSTANDING_MAX / 2 {
            self.resume.push(key);
        }
    }

    /// Lets every client whose wait is over go on, until nobody moves; then looks whether a barrier has fallen.
    fn settle(&mut self) {
        while let Some(key) = self.resume.pop() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.wait == Wait::Nothing {
                continue;
            }
            client.wait = Wait::Nothing;
            self.process_buffered(key);
            if self.may_read(key) {
                self.asks.push(Ask::ReadClient(key));
            }
        }
        self.check_barrier();
    }

    fn wait(&mut self, key: ClientKey, reason: Wait) {
        if let Some(client) = self.clients.get_mut(key) {
            client.wait = reason;
        }
    }

    // ---- drain --------------------------------------------------------------------------------------------------------

    /// No new clients; those with nothing outstanding are closed now, the others as soon as their replies are sent.
    fn begin_drain(&mut self) {
        self.draining = true;
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.closing = true;
            if client.outstanding == 0 || client.raw {
                self.asks.push(Ask::CloseClient(key));
            }
        }
    }

    /// Generation of a plan whose barrier has fallen since the last call.
    fn acked_plan(&mut self) -> Option<Generation> {
        match &self.barrier {
            Some(barrier) if barrier.fallen => self.barrier.take().map(|barrier| barrier.generation),
            _ => None,
        }
    }
}
