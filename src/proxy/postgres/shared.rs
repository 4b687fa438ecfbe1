//! What the sessions of one relay share, each method of a session taking it as an argument. Lives on one core, in its relay.

use std::collections::BTreeMap;

use super::entropy::Entropy;
use super::hold::Hold;
use super::lookup::Lookups;
use super::sampler::Sampler;
use super::server::{CancelRequest, Purpose, Server, Servers};
use super::server_login::ServerLogIn;
use super::settings::Settings;
use crate::contract::{Ask, ClientKey, Interrupt, UpstreamKey};
use base::model::{ScramVerifier, Side};
use base::stdx::clock::Now;
use bus::counters::CoreCounters;
use wire::postgres::scram;

/// What PostgreSQL itself uses for a new password.
const ITERATIONS: u32 = 4096;

/// Randomness, and verifiers made from the plain passwords of the auth file, so that their 4096 rounds are paid for once per user.
#[derive(Debug)]
pub struct Secrets {
    pub entropy: Entropy,
    derived: BTreeMap<String, ScramVerifier>,
}

impl Secrets {
    pub fn new(entropy: Entropy) -> Self {
        Self { entropy, derived: BTreeMap::new() }
    }

    /// The verifier of a user's plain password.
    pub fn derive(&mut self, user: &str, password: &[u8], settings: &Settings) -> ScramVerifier {
        if let Some(known) = self.derived.get(user) {
            return known.clone();
        }
        let verifier = scram::verifier_from_password(password, &self.entropy.salt_of(user), ITERATIONS);
        // A secret that was looked up on the server may change. Those of the auth file do not, and only they are kept.
        if settings.postgres.users.contains_key(user) {
            self.derived.insert(user.to_owned(), verifier.clone());
        }
        verifier
    }
}

/// What the sessions of one relay share.
#[derive(Debug)]
pub struct Shared {
    pub settings: Settings,
    pub secrets: Secrets,
    pub servers: Servers,
    pub lookups: Lookups,
    pub hold: Hold,
    pub sampler: Sampler,
    pub asks: Vec<Ask>,
    /// Clients with bytes to be sent.
    pub ready_clients: Vec<ClientKey>,
    /// Cancel requests that have arrived for sessions of this core, each with the client that asked. The relay passes them on.
    pub interrupts: Vec<(Interrupt, ClientKey)>,
    /// No new clients; those there are are told when they are between two units of work.
    pub draining: bool,
    pub now: Now,
    pub counters: CoreCounters,
}

impl Shared {
    pub fn new(settings: Settings, entropy: Entropy) -> Self {
        Self {
            settings,
            secrets: Secrets::new(entropy),
            servers: Servers::default(),
            lookups: Lookups::default(),
            hold: Hold::default(),
            sampler: Sampler::default(),
            asks: Vec::new(),
            ready_clients: Vec::new(),
            interrupts: Vec::new(),
            draining: false,
            now: Now::default(),
            counters: CoreCounters::default(),
        }
    }

    /// Asks for a server connection that logs in.
    pub fn connect(&mut self, purpose: Purpose, log_in: ServerLogIn) -> UpstreamKey {
        let side = self.settings.side();
        self.connect_to(Server::for_log_in(purpose, side, log_in), side)
    }

    /// Asks for a server connection that cancels what a backend runs.
    pub fn connect_to_cancel(&mut self, request: CancelRequest, side: Side) {
        self.connect_to(Server::for_cancel(request, side), side);
    }

    fn connect_to(&mut self, server: Server, side: Side) -> UpstreamKey {
        let upstream = self.servers.insert(server);
        self.asks.push(Ask::Connect { upstream, side });
        upstream
    }

    /// Forgets a server connection and asks for it to be closed.
    pub fn close_server(&mut self, key: UpstreamKey) {
        if self.servers.remove(key).is_some() {
            self.asks.push(Ask::CloseUpstream(key));
        }
    }

    /// A client sent something that is not the protocol.
    pub fn count_protocol_error(&mut self) {
        self.counters.protocol_errors += 1;
    }
}
