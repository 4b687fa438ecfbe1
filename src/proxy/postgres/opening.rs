//! How a client's connection begins: encryption requests, cancel requests, the startup packet.

use super::types::{Session, Stage};
use super::{PostgresRelay, Refusal};
use crate::contract::{Arrival, Ask, ClientKey, Interrupt, Secured};
use base::model::{AllowReplication, AuthMode, CoreId, limits};
use wire::postgres::encode::{self, More};
use wire::postgres::{Opening, Startup, opening};

/// The newest protocol minor version spoken with clients (PostgreSQL 18).
const MINOR_MAX: u16 = 2;
/// What protocol 3.2 allows and PostgreSQL 18 sends.
const LONG_SECRET_BYTES: usize = 32;
/// Encryption requests a client may make before its startup packet: one for TLS, one for GSS (libpq makes both).
const REQUESTS_MAX: u8 = 2;

fn fatal(sqlstate: &'static str, message: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::error_response(&mut frame, "FATAL", sqlstate, message, More::NONE);
    frame
}

impl PostgresRelay {
    pub(super) fn let_in(&mut self, arrival: Arrival) -> Result<ClientKey, Vec<u8>> {
        self.now = arrival.now;
        if self.draining {
            self.counters.connections_refused += 1;
            return Err(fatal("57P03", "Crossfade is being stopped"));
        }
        if self.sessions.len() >= limits::CLIENTS_MAX {
            self.counters.connections_refused += 1;
            return Err(fatal("53300", "sorry, too many clients already (at Crossfade)"));
        }
        self.counters.connections_accepted += 1;
        let id = self.new_id();
        let secret = self.entropy.draw()[..LONG_SECRET_BYTES].to_vec();
        let key = self.sessions.insert(Session::new(id, secret, arrival.peer, self.now.mono_us));
        self.by_id.insert(id, key);
        let deadline_us = self.now.mono_us + limits::PG_LOG_IN_TIMEOUT.as_micros() as u64;
        self.log_ins.push_back((deadline_us, key));
        Ok(key)
    }

    /// Bytes before the startup packet is whole; how many were taken.
    pub(super) fn open(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let (found, used) = opening(bytes);
        let rest = &bytes[used..];
        match found {
            Opening::NeedMore => return 0,
            Opening::Ssl | Opening::Gss if !self.may_request(key) => {
                self.refuse(key, &Refusal::new("08P01", "too many encryption requests"));
            }
            Opening::Ssl => self.answer_ssl(key, rest),
            // Whatever came with it would be taken for text after a refusal, as PostgreSQL does.
            Opening::Gss => self.answer_in_clear(key, b"N"),
            Opening::DirectTls => return self.begin_direct_tls(key, bytes),
            Opening::Cancel { process, key: secret } => self.cancel_asked(key, process, secret),
            Opening::Startup(startup) => self.started(key, startup),
            Opening::Invalid(violation) => {
                self.counters.protocol_errors += 1;
                self.refuse(key, &Refusal::new(violation.sqlstate, violation.message));
            }
        }
        used
    }

    fn may_request(&mut self, key: ClientKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        session.requests += 1;
        session.requests <= REQUESTS_MAX && !session.secured
    }

    fn answer_in_clear(&mut self, key: ClientKey, answer: &[u8]) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.output.extend_from_slice(answer);
            self.client_has_output(key);
        }
    }

    fn answer_ssl(&mut self, key: ClientKey, rest: &[u8]) {
        if self.spec.tls.is_none() {
            return self.answer_in_clear(key, b"N");
        }
        let unsent = self.sessions.get(key).is_some_and(|session| !session.output.is_empty());
        if !rest.is_empty() || unsent {
            // Anybody on the way could have put it there (CVE-2021-23214).
            let message = "received unencrypted data after SSL request";
            return self.refuse(key, &Refusal::new("08P01", message));
        }
        self.set_stage(key, Stage::Securing);
        self.asks.push(Ask::SecureClient { client: key, prologue: b"S", begun: Vec::new() });
    }

    fn begin_direct_tls(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(session) = self.sessions.get_mut(key) else { return 0 };
        if session.secured || self.spec.tls.is_none() {
            self.counters.protocol_errors += 1;
            self.refuse(key, &Refusal::new("08P01", "invalid length of startup packet"));
            return bytes.len();
        }
        session.direct_tls = true;
        session.stage = Stage::Securing;
        self.asks.push(Ask::SecureClient { client: key, prologue: b"", begun: bytes.to_vec() });
        bytes.len()
    }

    pub(super) fn tls_stands(&mut self, key: ClientKey, secured: &Secured) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.secured = true;
        // Without asking first, the protocol must be agreed on inside TLS (protocol-flow, "SSL Session Encryption").
        if session.direct_tls && secured.application_protocol.is_none() {
            let message = "received direct SSL connection request without ALPN protocol negotiation extension";
            return self.refuse(key, &Refusal::new("08P01", message));
        }
        self.set_stage(key, Stage::Opening);
        self.advance(key);
    }

    pub(super) fn set_stage(&mut self, key: ClientKey, stage: Stage) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.stage = stage;
        }
    }

    fn cancel_asked(&mut self, asker: ClientKey, process: u32, secret: Vec<u8>) {
        let interrupt = Interrupt { session: process, key: secret };
        let to = CoreId((process % u32::from(self.cores)) as u16);
        if to == self.core {
            // Nothing more is taken from it.
            self.set_stage(asker, Stage::Closing);
            self.interrupted(&interrupt, Some(asker));
        } else {
            self.asks.push(Ask::Hand { to, interrupt });
            self.dismiss(asker, b"");
        }
    }

    fn started(&mut self, key: ClientKey, startup: Startup) {
        if self.needs_tls_of(key) {
            let message = format!("interlay \"{}\" of Crossfade takes no connection without TLS", self.spec.name);
            let hint = "Connect with sslmode=require or stronger.";
            return self.refuse(key, &Refusal::new("28000", message).hint(hint));
        }
        if startup.replication() && self.postgres.replication == AllowReplication::No {
            let message = "Crossfade carries no replication connections on this interlay";
            let hint = "Connect to the server itself, or set allow_replication = true on the interlay.";
            return self.refuse(key, &Refusal::new("0A000", message).hint(hint));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let unsupported = startup.unsupported_options();
        if startup.minor > MINOR_MAX || !unsupported.is_empty() {
            let minor = startup.minor.min(MINOR_MAX);
            encode::negotiate_protocol_version(&mut session.output, minor, &unsupported);
        }
        if startup.minor < MINOR_MAX {
            session.secret.truncate(4);
        }
        session.startup = Some(startup);
        match self.mode() {
            AuthMode::Relay => self.connect(key, super::types::Proof::Relay),
            AuthMode::Trust => self.trust(key),
            AuthMode::Scram | AuthMode::Mapped | AuthMode::Md5 => self.ask_for_proof(key),
        }
        self.client_has_output(key);
    }

    fn needs_tls_of(&self, key: ClientKey) -> bool {
        self.needs_tls() && self.sessions.get(key).is_some_and(|session| !session.secured)
    }
}
