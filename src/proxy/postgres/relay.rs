//! The relay of one PostgreSQL interlay on one core: finds the session or server connection that an event concerns and calls it.
//!
//! Without I/O; lives on one core. It alone adds and removes sessions; what a session does is in `session` and the files beside it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::entropy::Entropy;
use super::hold::Busy;
use super::lookup::Waiting;
use super::server::{CancelRequest, Input, Purpose, Server, TlsAnswer};
use super::server_login::{LogInStep, LoggedIn};
use super::session::Session;
use super::settings::Settings;
use super::shared::Shared;
use crate::contract::{
    Arrival, Ask, ClientKey, Failure, HoldUnsupported, Interrupt, Relay, RelaySetup, Secured, SessionList, UpstreamKey,
};
use base::model::{Generation, PostgresSpec, RoutePlan, StatementSample, TlsMode, limits};
use base::stdx::clock::Now;
use base::stdx::slab::Slab;
use base::stdx::spares::Spares;
use bus::counters::CoreCounters;
use bus::{HoldEvent, HoldOrder};
use wire::postgres::HEAD_BYTES;
use wire::postgres::encode::{self, More};
use wire::postgres::frame::error_field;

/// Bytes of a cancel key: what protocol 3.2 allows and PostgreSQL 18 sends.
const SECRET_BYTES: usize = 32;
const LOG_IN_US: u64 = limits::PG_LOG_IN_TIMEOUT.as_micros() as u64;

/// One interlay on one core.
#[derive(Debug)]
pub struct PostgresRelay {
    pub(super) shared: Shared,
    pub(super) sessions: Slab<Session>,
    /// By the process id that the client was given.
    pub(super) by_id: HashMap<u32, ClientKey>,
    next_id: u32,
    /// When each client must have logged in, the earliest first.
    log_ins: VecDeque<(u64, ClientKey)>,
    acked: Option<Generation>,
    spares: Spares,
}

fn fatal(sqlstate: &'static str, message: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error_response(&mut frame, "FATAL", sqlstate, message, More::NONE);
    frame
}

impl PostgresRelay {
    #[must_use]
    pub fn new(setup: RelaySetup, postgres: PostgresSpec) -> Self {
        let entropy = Entropy::new(setup.seed, setup.core, &setup.spec.name);
        let (spec, plan) = (setup.spec, setup.plan);
        let settings = Settings { spec, postgres, plan, core: setup.core, cores: setup.cores.max(1) };
        Self {
            shared: Shared::new(settings, entropy),
            sessions: Slab::default(),
            by_id: HashMap::new(),
            next_id: 0,
            log_ins: VecDeque::new(),
            acked: None,
            spares: Spares::new(limits::SPARE_BUFFERS_MAX, limits::SPARE_BUFFER_BYTES_MAX),
        }
    }

    // ---- sessions ---------------------------------------------------------------------------------------------------------

    /// A process id that no other session of the process has. It names the core, so that a cancel request can be handed to it.
    fn new_id(&mut self) -> u32 {
        let cores = u32::from(self.shared.settings.cores);
        loop {
            self.next_id = (self.next_id + 1) % (i32::MAX as u32 / cores);
            let id = self.next_id * cores + u32::from(self.shared.settings.core.0);
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// Calls a method of a session, if there is one with this key, with what it shares.
    fn with_session<T>(&mut self, key: ClientKey, call: impl FnOnce(&mut Session, &mut Shared) -> T) -> Option<T> {
        self.sessions.get_mut(key).map(|session| call(session, &mut self.shared))
    }

    /// Forgets a session whose client is gone and of which nothing runs any more, and closes its server connection.
    fn forget_if_over(&mut self, key: ClientKey) {
        if !self.sessions.get(key).is_some_and(Session::is_over) {
            return;
        }
        let Some(mut session) = self.sessions.remove(key) else { return };
        self.by_id.remove(&session.id);
        self.shared.lookups.forget(key);
        session.hold.set_busy(Busy::No, &mut self.shared.hold);
        if let Some(server) = session.server {
            self.shared.close_server(server);
        }
    }

    /// Ends the sessions that have not logged in in time. One that has logged in is taken off the list when it is the oldest.
    fn end_late_log_ins(&mut self) {
        while let Some(&(deadline_us, key)) = self.log_ins.front() {
            let waits = self.sessions.get(key).is_some_and(Session::is_logging_in);
            if waits && deadline_us > self.shared.now.mono_us {
                return;
            }
            self.log_ins.pop_front();
            self.with_session(key, Session::end_late_log_in);
            if self.sessions.get(key).is_some_and(Session::is_held_log_in) {
                // Not late by its own fault; from its release on it has the whole time again.
                self.log_ins.push_back((self.shared.now.mono_us + LOG_IN_US, key));
            }
        }
    }

    // ---- cancel requests --------------------------------------------------------------------------------------------------

    /// Passes on the cancel requests that clients of this core have just made.
    fn pass_on_interrupts(&mut self) {
        while let Some((interrupt, asker)) = self.shared.interrupts.pop() {
            if !self.pass_on(&interrupt, Some(asker)) {
                self.with_session(asker, |session, shared| session.dismiss(b"", shared));
            }
        }
    }

    /// Asks the backend of the session that is named to stop what it runs; false when there is nothing to ask.
    fn pass_on(&mut self, interrupt: &Interrupt, asker: Option<ClientKey>) -> bool {
        let session = self.by_id.get(&interrupt.session).and_then(|key| self.sessions.get(*key));
        let Some((request, side)) =
            session.and_then(|session| session.cancel_request(interrupt, asker, &self.shared.servers))
        else {
            return false;
        };
        self.shared.connect_to_cancel(request, side);
        true
    }

    // ---- server connections -----------------------------------------------------------------------------------------------

    /// Sends the first packet that is not about encryption.
    fn introduce(&mut self, key: UpstreamKey) {
        let due = match self.shared.servers.get(key).map(|server| &server.purpose) {
            Some(Purpose::Cancel(request)) => {
                self.sessions.get(request.session).is_some_and(|session| session.is_running(request.unit))
            }
            Some(Purpose::Session(_) | Purpose::Lookup) | None => true,
        };
        if !due {
            return self.lose_server(key, &Failure::Lost("the statement to be cancelled has ended".to_owned()));
        }
        if let Some(server) = self.shared.servers.get_mut(key) {
            server.introduce();
            self.shared.servers.flush(key);
        }
    }

    fn tls_answered(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let Some(server) = self.shared.servers.get_mut(key) else { return Ok(()) };
        let side = server.side;
        match server.tls_answered(bytes, self.shared.settings.plan.endpoint(side).tls.mode)? {
            TlsAnswer::Secure => self.shared.asks.push(Ask::SecureUpstream { upstream: key, side }),
            TlsAnswer::InClear => self.introduce(key),
            TlsAnswer::Missing => {
                let why = "the server does not offer TLS, which the endpoint's sslmode asks for".to_owned();
                self.lose_server(key, &Failure::Unreachable(why));
            }
        }
        Ok(())
    }

    /// Bytes of a server that Crossfade is logging in to.
    fn log_in_bytes(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let mut bytes = bytes;
        loop {
            let Some(server) = self.shared.servers.get_mut(key) else { return Ok(()) };
            let Input::LogIn(log_in) = server.input()? else { return Ok(()) };
            log_in.feed(std::mem::take(&mut bytes));
            match log_in.next_step(&mut self.shared.secrets.entropy)? {
                LogInStep::NeedMore => return Ok(()),
                LogInStep::Taken => {}
                LogInStep::Answer(message) => self.shared.servers.send(key, &message),
                LogInStep::AskClient(question) => {
                    if let Some(client) = self.client_of(key) {
                        self.with_session(client, |session, shared| session.server_asks(&question, shared));
                    }
                }
                LogInStep::Unsupported(what) => {
                    if let Some(client) = self.client_of(key) {
                        self.with_session(client, |session, shared| session.server_asks_too_much(what, shared));
                    }
                }
                LogInStep::Refused(error) => self.lose_server(key, &Failure::Refused(error)),
                LogInStep::Done(done) => return self.logged_in(key, done),
            }
        }
    }

    /// The client whose session a server connection serves.
    fn client_of(&self, key: UpstreamKey) -> Option<ClientKey> {
        match self.shared.servers.get(key)?.purpose {
            Purpose::Session(client) => Some(client),
            Purpose::Cancel(_) | Purpose::Lookup => None,
        }
    }

    fn logged_in(&mut self, key: UpstreamKey, mut done: LoggedIn) -> Result<(), String> {
        self.shared.counters.upstream_connects += 1;
        let Some(server) = self.shared.servers.get_mut(key) else { return Ok(()) };
        server.logged_in(&mut done);
        match server.purpose {
            Purpose::Session(client) => {
                let passed = self.with_session(client, |session, shared| session.logged_in(&done, shared));
                if passed.is_none() {
                    self.shared.close_server(key);
                }
                passed.unwrap_or(Ok(()))
            }
            Purpose::Lookup => {
                let shared = &mut self.shared;
                shared.lookups.ask_next(&mut shared.servers, &shared.settings, shared.now);
                self.lookup_bytes(&done.rest)
            }
            Purpose::Cancel(_) => Ok(()),
        }
    }

    /// Bytes of the connection on which users' secrets are looked up.
    fn lookup_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.shared.lookups.feed(bytes);
        while let Some(answer) = self.shared.lookups.next_answer()? {
            self.with_session(answer.asked_by.client, |session, shared| match &answer.secret {
                Ok(secret) => session.looked_up(secret.as_deref(), shared),
                Err(why) => session.look_up_failed(why, shared),
            });
            let shared = &mut self.shared;
            shared.lookups.ask_next(&mut shared.servers, &shared.settings, shared.now);
        }
        Ok(())
    }

    /// The connection for look-ups is gone; the clients that waited for it are told.
    fn lookup_lost(&mut self, failure: &Failure) {
        let why = match failure {
            Failure::Refused(frame) => {
                error_field(frame.get(HEAD_BYTES..).unwrap_or_default(), b'M').unwrap_or("no reason given")
            }
            Failure::Unreachable(why) | Failure::Lost(why) => why,
        };
        for Waiting { client, .. } in self.shared.lookups.lost() {
            self.with_session(client, |session, shared| session.look_up_failed(why, shared));
        }
    }

    /// A server connection could not be made, or it broke.
    fn lose_server(&mut self, key: UpstreamKey, failure: &Failure) {
        let Some(server) = self.shared.servers.remove(key) else { return };
        self.shared.asks.push(Ask::CloseUpstream(key));
        match server.purpose {
            // A server closes a connection that asked it to cancel; that is the answer.
            Purpose::Cancel(CancelRequest { asker, .. }) => {
                if let Some(asker) = asker {
                    self.with_session(asker, |session, shared| session.dismiss(b"", shared));
                }
            }
            Purpose::Lookup => self.lookup_lost(failure),
            Purpose::Session(client) => {
                self.shared.counters.upstream_losses += 1;
                self.with_session(client, |session, shared| session.server_lost(server.side, failure, shared));
                self.forget_if_over(client);
            }
        }
    }

    // ---- holding ----------------------------------------------------------------------------------------------------------

    fn release(&mut self, ticket: u64) {
        let Some(keys) = self.shared.hold.release(ticket) else { return };
        let now_us = self.shared.now.mono_us;
        let (mut held, mut longest_hold_us) = (0, 0);
        for key in keys {
            if let Some(Some(since_us)) = self.with_session(key, Session::released) {
                held += 1;
                longest_hold_us = longest_hold_us.max(now_us.saturating_sub(since_us));
            }
        }
        for key in self.sessions.keys() {
            self.with_session(key, Session::released_at_boundary);
        }
        self.shared.hold.report_released(ticket, held, longest_hold_us);
    }
}

impl Relay for PostgresRelay {
    fn client_opened(&mut self, arrival: Arrival) -> Result<ClientKey, Vec<u8>> {
        self.shared.now = arrival.now;
        if self.shared.draining {
            self.shared.counters.connections_refused += 1;
            return Err(fatal("57P03", "Crossfade is being stopped"));
        }
        if self.sessions.len() >= limits::CLIENTS_MAX {
            self.shared.counters.connections_refused += 1;
            return Err(fatal("53300", "sorry, too many clients already (at Crossfade)"));
        }
        self.shared.counters.connections_accepted += 1;
        let id = self.new_id();
        let secret = self.shared.secrets.entropy.draw()[..SECRET_BYTES].to_vec();
        let key = self.sessions.insert(Session::new(id, secret, arrival.peer, arrival.now));
        if let Some(session) = self.sessions.get_mut(key) {
            session.key = key;
        }
        self.by_id.insert(id, key);
        let deadline_us = arrival.now.mono_us + LOG_IN_US;
        self.log_ins.push_back((deadline_us, key));
        Ok(key)
    }

    fn client_input(&mut self, key: ClientKey, bytes: &[u8], now: Now) {
        self.shared.now = now;
        self.shared.counters.bytes_from_clients += bytes.len() as u64;
        if let Some(session) = self.sessions.get_mut(key) {
            session.input(bytes, &mut self.shared);
        }
        if !self.shared.interrupts.is_empty() {
            self.pass_on_interrupts();
        }
    }

    fn client_secured(&mut self, key: ClientKey, secured: &Secured) {
        self.with_session(key, |session, shared| session.secured(secured, shared));
        self.pass_on_interrupts();
    }

    fn client_closed(&mut self, key: ClientKey) {
        self.with_session(key, Session::client_gone);
        self.forget_if_over(key);
    }

    fn may_read_client(&self, key: ClientKey) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let server = session.server.and_then(|server| self.shared.servers.get(server));
        session.may_be_read() && server.is_none_or(|server| server.unsent() < limits::SESSION_BUFFER_SOFT_BYTES)
    }

    fn take_client_output(&mut self, key: ClientKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let session = self.sessions.get_mut(key)?;
        session.client.output_ready = false;
        if session.client.output.is_empty() {
            return None;
        }
        let output = std::mem::replace(&mut session.client.output, self.spares.take());
        self.shared.counters.bytes_to_clients += output.len() as u64;
        if output.len() >= limits::SESSION_BUFFER_SOFT_BYTES {
            self.shared.asks.extend(session.server.map(Ask::ReadUpstream));
        }
        Some(output)
    }

    fn client_written(&mut self, key: ClientKey) -> bool {
        self.sessions.get(key).is_none_or(|session| session.is_closing() && session.client.output.is_empty())
    }

    fn upstream_opened(&mut self, key: UpstreamKey, now: Now) {
        self.shared.now = now;
        let Some(server) = self.shared.servers.get_mut(key) else {
            self.shared.asks.push(Ask::CloseUpstream(key));
            return;
        };
        if self.shared.settings.plan.endpoint(server.side).tls.mode == TlsMode::Disable {
            return self.introduce(key);
        }
        server.ask_for_tls();
        self.shared.servers.flush(key);
    }

    fn upstream_secured(&mut self, key: UpstreamKey) {
        self.introduce(key);
    }

    /// A cancel request is answered by the end of its connection, which must come in time too. Where the client answers the server's
    /// questions itself, it has the time that a log-in has.
    fn upstream_ready(&self, key: UpstreamKey) -> bool {
        self.shared.servers.get(key).is_none_or(|server| match &server.purpose {
            Purpose::Cancel(_) => false,
            Purpose::Session(_) | Purpose::Lookup => server.is_ready() || server.waits_for_client(),
        })
    }

    fn upstream_failed(&mut self, key: UpstreamKey, failure: &Failure) {
        self.lose_server(key, failure);
    }

    fn upstream_input(&mut self, key: UpstreamKey, bytes: &[u8], now: Now) -> Result<(), String> {
        self.shared.now = now;
        let Some(server) = self.shared.servers.get_mut(key) else { return Ok(()) };
        match server.input()? {
            Input::Ready(Purpose::Session(client)) => {
                let client = *client;
                let Some(session) = self.sessions.get_mut(client) else { return Ok(()) };
                let outcome = session.forward_server(bytes, &mut self.shared);
                if session.client.is_gone {
                    self.forget_if_over(client);
                }
                outcome
            }
            Input::Ready(Purpose::Lookup) => self.lookup_bytes(bytes),
            Input::Ready(Purpose::Cancel(_)) => Ok(()),
            Input::LogIn(_) => self.log_in_bytes(key, bytes),
            Input::TlsAnswer => self.tls_answered(key, bytes),
        }
    }

    fn may_read_upstream(&self, key: UpstreamKey) -> bool {
        match self.shared.servers.get(key) {
            Some(Server { purpose: Purpose::Session(client), .. }) => self
                .sessions
                .get(*client)
                .is_none_or(|session| session.client.output.len() < limits::SESSION_BUFFER_SOFT_BYTES),
            Some(_) | None => true,
        }
    }

    fn take_upstream_output(&mut self, key: UpstreamKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let (output, purpose) = self.shared.servers.take_output(key, &mut self.spares)?;
        if output.len() >= limits::SESSION_BUFFER_SOFT_BYTES
            && let Purpose::Session(client) = purpose
        {
            self.shared.asks.push(Ask::ReadClient(*client));
        }
        Some(output)
    }

    /// No server connection is shared, so there is nothing to wait for.
    fn upstream_is_urgent(&self, _key: UpstreamKey) -> bool {
        true
    }

    fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.shared.asks)
    }

    fn take_ready_clients(&mut self) -> Vec<ClientKey> {
        std::mem::take(&mut self.shared.ready_clients)
    }

    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey> {
        self.shared.servers.take_ready()
    }

    fn tick(&mut self, now: Now) {
        self.shared.now = now;
        self.end_late_log_ins();
        if let Some(key) = self.shared.lookups.overdue(now) {
            self.lose_server(key, &Failure::Lost("auth_query had no answer in time".to_owned()));
        }
    }

    fn plan(&self) -> &Arc<RoutePlan> {
        &self.shared.settings.plan
    }

    /// Nothing of a plan but its generation can change yet: a PostgreSQL interlay has no migrations.
    fn publish(&mut self, plan: Arc<RoutePlan>) {
        self.acked = Some(plan.generation);
        self.shared.settings.plan = plan;
    }

    fn take_acked_plan(&mut self) -> Option<Generation> {
        self.acked.take()
    }

    fn barrier_pending(&self) -> bool {
        false
    }

    fn break_barrier(&mut self) {}

    /// Sessions between two units of work are told now, the others when they are.
    fn drain(&mut self) {
        self.shared.draining = true;
        for key in self.sessions.keys() {
            self.with_session(key, |session, shared| {
                if session.hold.busy() == Busy::No {
                    session.say_shutdown(shared);
                }
            });
        }
    }

    fn is_drained(&self) -> bool {
        self.shared.draining && self.sessions.is_empty()
    }

    fn hold(&mut self, order: HoldOrder, now: Now) -> Result<(), HoldUnsupported> {
        self.shared.now = now;
        match order {
            HoldOrder::Begin { ticket } => self.shared.hold.begin(ticket),
            HoldOrder::Shut { ticket } => self.shared.hold.shut(ticket),
            // No statement of a client waits for another client's.
            HoldOrder::Move { .. } => {}
            HoldOrder::Release { ticket } => self.release(ticket),
        }
        Ok(())
    }

    fn take_hold_events(&mut self) -> Vec<(u64, HoldEvent)> {
        self.shared.hold.take_events()
    }

    fn sessions(&self, now: Now) -> SessionList {
        let mut all: Vec<&Session> = self.sessions.iter().map(|(_, session)| session).collect();
        let rank = |busy: Busy| match busy {
            Busy::Unit => 0,
            Busy::LogIn => 1,
            Busy::No => 2,
        };
        all.sort_by_key(|session| (rank(session.hold.busy()), session.since_us));
        let total = all.len() as u64;
        let busy = all.iter().filter(|session| session.hold.busy() != Busy::No).count() as u64;
        all.truncate(limits::SESSIONS_LISTED_MAX);
        let sessions = all.into_iter().map(|session| session.info(now)).collect();
        SessionList { total, busy, sessions }
    }

    fn interrupt(&mut self, interrupt: &Interrupt) {
        self.pass_on(interrupt, None);
    }

    fn counters(&self) -> CoreCounters {
        let mut counters = self.shared.counters.clone();
        counters.connections_open = self.sessions.iter().filter(|(_, session)| !session.client.is_gone).count() as u64;
        counters.upstream_connections = self.shared.servers.len() as u64;
        self.shared.sampler.add_counters(&mut counters);
        counters
    }

    fn take_statements(&mut self) -> Vec<StatementSample> {
        self.shared.sampler.take()
    }
}
