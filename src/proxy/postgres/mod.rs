//! The relay of a PostgreSQL interlay on one core, without I/O, in session mode: one client, one server connection.
//!
//! Lives on one core. A client's connection becomes a [`Session`]: it opens (`opening`), proves who it is (`login`), is given a
//! server connection of its own that is logged in to as the same user (`server`), and then its frames pass in both directions
//! (`forward`) while the tracker knows at every frame whether it is between two units of work. That is where the gate (`gate`) holds it
//! when asked to. Rows are never read.

mod contract;
mod forward;
mod gate;
mod login;
mod lookup;
mod opening;
mod server;
mod statements;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use gate::Gate;
use lookup::Lookups;
use statements::Sampler;
use types::{Busy, Entropy, Server, Session, Stage};

use crate::contract::{Ask, ClientKey, RelaySetup, UpstreamKey};
use base::model::{
    AuthMode, CoreId, Endpoint, Generation, InterlaySpec, PostgresSpec, RequireTls, RoutePlan, ScramVerifier, Side,
    limits,
};
use base::stdx::clock::Now;
use base::stdx::slab::Slab;
use base::stdx::spares::Spares;
use bus::counters::CoreCounters;
use wire::postgres::encode::{self, More};

/// One interlay on one core.
#[derive(Debug)]
pub struct PostgresRelay {
    spec: InterlaySpec,
    postgres: PostgresSpec,
    plan: Arc<RoutePlan>,
    core: CoreId,
    cores: u16,
    entropy: Entropy,
    sessions: Slab<Session>,
    /// By the process id the client was given.
    by_id: HashMap<u32, ClientKey>,
    next_id: u32,
    servers: Slab<Server>,
    lookups: Lookups,
    gate: Gate,
    /// Who must have logged in by when, oldest first.
    log_ins: VecDeque<(u64, ClientKey)>,
    /// Verifiers made from plain passwords of the auth file, so that their 4096 rounds are paid once per user.
    derived: BTreeMap<String, ScramVerifier>,
    sampler: Sampler,
    asks: Vec<Ask>,
    ready_clients: Vec<ClientKey>,
    ready_servers: Vec<UpstreamKey>,
    acked: Option<Generation>,
    draining: bool,
    now: Now,
    counters: CoreCounters,
    spares: Spares,
}

/// What a client is told before its connection ends.
#[derive(Debug)]
struct Refusal {
    sqlstate: &'static str,
    message: String,
    hint: Option<&'static str>,
}

impl Refusal {
    fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), hint: None }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

impl PostgresRelay {
    #[must_use]
    pub fn new(setup: RelaySetup, postgres: PostgresSpec) -> Self {
        Self {
            postgres,
            entropy: Entropy::new(setup.seed, setup.core, &setup.spec.name),
            spec: setup.spec,
            plan: setup.plan,
            core: setup.core,
            cores: setup.cores.max(1),
            sessions: Slab::default(),
            by_id: HashMap::new(),
            next_id: 0,
            servers: Slab::default(),
            lookups: Lookups::default(),
            gate: Gate::default(),
            log_ins: VecDeque::new(),
            derived: BTreeMap::new(),
            sampler: Sampler::default(),
            asks: Vec::new(),
            ready_clients: Vec::new(),
            ready_servers: Vec::new(),
            acked: None,
            draining: false,
            now: Now::default(),
            counters: CoreCounters::default(),
            spares: Spares::new(limits::SPARE_BUFFERS_MAX, limits::SPARE_BUFFER_BYTES_MAX),
        }
    }

    fn side(&self) -> Side {
        self.plan.authority.side
    }

    fn endpoint(&self) -> &Endpoint {
        self.plan.endpoint(self.side())
    }

    fn needs_tls(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.require == RequireTls::Yes)
    }

    fn mode(&self) -> AuthMode {
        self.postgres.auth
    }

    // ---- clients come and go --------------------------------------------------------------------------------------------

    /// A process id no other session of the process has: it names the core, so that a cancel request finds its way.
    fn new_id(&mut self) -> u32 {
        let cores = u32::from(self.cores);
        loop {
            self.next_id = (self.next_id + 1) % (i32::MAX as u32 / cores);
            let id = self.next_id * cores + u32::from(self.core.0);
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// The client's connection is gone.
    fn let_out(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.client_gone = true;
        session.input = Vec::new();
        session.output = Vec::new();
        // What was sent still runs on the server, and a pause must wait for it.
        if session.server_must_finish() {
            let server = session.server;
            self.asks.extend(server.map(Ask::ReadUpstream));
            return;
        }
        self.end_session(key);
    }

    /// Forgets a session and closes its server connection.
    fn end_session(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.remove(key) else { return };
        self.by_id.remove(&session.id);
        self.lookups.forget(key);
        self.gate.recount(session.busy, Busy::No);
        if !session.client_gone {
            self.asks.push(Ask::CloseClient(key));
        }
        if let Some(server) = session.server {
            self.close_server(server);
        }
    }

    fn close_server(&mut self, key: UpstreamKey) {
        if self.servers.remove(key).is_some() {
            self.asks.push(Ask::CloseUpstream(key));
        }
    }

    /// Tells a client why, and ends its connection when it has been told.
    fn refuse(&mut self, key: ClientKey, refusal: &Refusal) {
        let more = refusal.hint.map_or(More::NONE, More::hint);
        let mut frame = Vec::new();
        encode::error_response(&mut frame, "FATAL", refusal.sqlstate, &refusal.message, more);
        self.counters.replies_refused += 1;
        self.dismiss(key, &frame);
    }

    /// Sends a last frame, if it does not fall into the middle of another, and ends the connection.
    fn dismiss(&mut self, key: ClientKey, last: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.client_gone {
            return self.end_session(key);
        }
        if session.server_left == 0 {
            session.output.extend_from_slice(last);
        }
        session.input = Vec::new();
        session.closing = true;
        session.stage = Stage::Closing;
        let server = session.server.take();
        if let Some(server) = server {
            self.close_server(server);
        }
        self.set_busy(key, Busy::No);
        self.client_has_output(key);
    }

    fn client_has_output(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.output_ready && !session.client_gone && (!session.output.is_empty() || session.closing) {
            session.output_ready = true;
            self.ready_clients.push(key);
        }
    }

    fn server_has_output(&mut self, key: UpstreamKey) {
        let Some(server) = self.servers.get_mut(key) else { return };
        if !server.output_ready && !server.output.is_empty() {
            server.output_ready = true;
            self.ready_servers.push(key);
        }
    }

    // ---- bytes of a client ----------------------------------------------------------------------------------------------

    fn client_bytes(&mut self, key: ClientKey, bytes: &[u8]) {
        self.counters.bytes_from_clients += bytes.len() as u64;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.closing || session.doomed.is_some() {
            return;
        }
        if session.input.is_empty() && session.stage == Stage::Ready {
            let used = self.forward_client(key, bytes);
            if let Some(session) = self.sessions.get_mut(key)
                && !session.closing
                && session.doomed.is_none()
            {
                session.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            session.input.extend_from_slice(bytes);
            self.advance(key);
        }
    }

    /// Takes what can be taken of a session's input, until nothing more can.
    fn advance(&mut self, key: ClientKey) {
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return };
            if session.input.is_empty() || session.closing {
                return;
            }
            let before = session.stage;
            let mut input = std::mem::take(&mut session.input);
            let used = match before {
                Stage::Opening => self.open(key, &input),
                Stage::Proving => self.prove(key, &input),
                Stage::Relaying => self.relay_answers(key, &input),
                Stage::Ready => self.forward_client(key, &input),
                Stage::Securing | Stage::LookingUp | Stage::AtGate | Stage::Connecting | Stage::Closing => 0,
            };
            let Some(session) = self.sessions.get_mut(key) else { return };
            if session.closing || session.doomed.is_some() {
                return;
            }
            input.drain(..used);
            session.input = input;
            if used == 0 && session.stage == before {
                return;
            }
        }
    }

    // ---- housekeeping ---------------------------------------------------------------------------------------------------

    /// Ends connections that have not logged in in time. Whoever is through is forgotten as soon as it is the oldest.
    fn end_late_log_ins(&mut self) {
        while let Some(&(deadline_us, key)) = self.log_ins.front() {
            let stage = self.sessions.get(key).map(|session| session.stage);
            let waits = !matches!(stage, None | Some(Stage::Ready | Stage::Closing));
            if waits && deadline_us > self.now.mono_us {
                return;
            }
            self.log_ins.pop_front();
            // Who is held by the gate is not late by its own fault.
            if waits && stage != Some(Stage::AtGate) {
                let message = format!("log-in not finished within {} s", limits::PG_LOG_IN_TIMEOUT.as_secs());
                self.refuse(key, &Refusal::new("08P01", message));
            }
        }
    }

    /// No new clients; whoever is between two units of work is told now, the others when they are.
    fn begin_drain(&mut self) {
        self.draining = true;
        for key in self.sessions.keys() {
            let Some(session) = self.sessions.get(key) else { continue };
            if session.busy == Busy::No {
                self.say_shutdown(key);
            }
        }
    }

    fn say_shutdown(&mut self, key: ClientKey) {
        let message = "terminating connection: Crossfade is being stopped";
        self.refuse(key, &Refusal::new("57P01", message));
    }

    fn counters_now(&self) -> CoreCounters {
        let mut counters = self.counters.clone();
        counters.connections_open = self.sessions.iter().filter(|(_, session)| !session.client_gone).count() as u64;
        counters.upstream_connections = self.servers.len() as u64;
        counters.commands_by_name = self.sampler.by_name();
        counters.sessions_by_state = self.sampler.by_state();
        counters
    }
}
