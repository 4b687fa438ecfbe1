//! `auth_query`: users' secrets asked for on the server, over one connection of this core's own, one question after the other.

use std::collections::VecDeque;

use super::server::LogIn;
use super::types::{Busy, Proof, Purpose, Server, ServerStage, Stage};
use super::{PostgresRelay, Refusal};
use crate::contract::{Ask, ClientKey, Failure, UpstreamKey};
use base::model::{EndpointProtocol, StoredSecret, limits};
use wire::postgres::encode;
use wire::postgres::frame::{data_row, error_field};
use wire::postgres::startup::build_startup;

/// Questions and the connection they are asked on. Lives on one core.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    server: Option<UpstreamKey>,
    /// Who waits, oldest first; bounded by the number of clients.
    waiting: VecDeque<(ClientKey, String)>,
    /// The first of `waiting` has been asked for.
    asked: bool,
    /// Since when.
    asked_us: u64,
    found: Option<Vec<u8>>,
    failed: Option<String>,
}

impl Lookups {
    /// The client is gone. A question already asked is answered to nobody.
    pub fn forget(&mut self, key: ClientKey) {
        let first = usize::from(self.asked);
        let mut at = 0;
        self.waiting.retain(|(waiting, _)| {
            at += 1;
            *waiting != key || at <= first
        });
    }
}

impl PostgresRelay {
    /// Asks for the user's secret, or waits at the gate for it.
    pub(super) fn look_up(&mut self, key: ClientKey) {
        let Some(user) = self.sessions.get(key).map(|session| session.user().to_owned()) else { return };
        if self.gate.is_shut() {
            self.set_stage(key, Stage::AtGate);
            return self.hold(key);
        }
        self.set_stage(key, Stage::LookingUp);
        self.set_busy(key, Busy::LogIn);
        self.lookups.waiting.push_back((key, user));
        if self.lookups.server.is_some() {
            return self.ask_next();
        }
        let endpoint = self.endpoint();
        let Some(own) = endpoint.credentials.clone() else {
            return self.lookup_lost(&Failure::Unreachable("its URL names no user for auth_query".to_owned()));
        };
        let user = own.user.clone().unwrap_or_default();
        let dbname = match &endpoint.protocol {
            EndpointProtocol::Postgres { dbname } => dbname.clone(),
            EndpointProtocol::Redis { .. } => None,
        };
        let database = dbname.unwrap_or_else(|| user.clone());
        let parameters = [("user", user.as_str()), ("database", database.as_str()), ("application_name", "crossfade")];
        let log_in = LogIn::new(&user, build_startup(0, &parameters), Proof::of_credentials(&own));
        let side = self.side();
        let server = self.servers.insert(Server::new(Purpose::Lookup, side, Some(log_in)));
        self.lookups.server = Some(server);
        self.asks.push(Ask::Connect { upstream: server, side });
    }

    /// Asks for the first who waits, if the connection is free.
    pub(super) fn ask_next(&mut self) {
        let Some(key) = self.lookups.server else { return };
        let Some(server) = self.servers.get_mut(key) else { return };
        if self.lookups.asked || server.stage != ServerStage::Ready {
            return;
        }
        let (Some((_, user)), Some(query)) = (self.lookups.waiting.front(), &self.postgres.auth_query) else { return };
        encode::query_with_parameter(&mut server.output, query, user.as_bytes());
        self.lookups.asked = true;
        self.lookups.asked_us = self.now.mono_us;
        self.server_has_output(key);
    }

    pub(super) fn lookup_frame(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'D' if self.lookups.found.is_none() => {
                self.lookups.found = data_row(body).nth(1).flatten().map(<[u8]>::to_vec);
            }
            b'E' => {
                let why = error_field(body, b'M').unwrap_or("no reason given");
                self.lookups.failed = Some(why.to_owned());
            }
            b'Z' => self.looked_up(),
            _ => {}
        }
    }

    /// A question without an answer must not stand in the way of everybody's log-in.
    pub(super) fn end_late_lookup(&mut self) {
        let late_us = self.lookups.asked_us + limits::CONNECT_TIMEOUT.as_micros() as u64;
        if let (Some(key), true) = (self.lookups.server, self.lookups.asked && late_us <= self.now.mono_us) {
            self.lose_server(key, &Failure::Lost("no answer in time".to_owned()));
        }
    }

    fn looked_up(&mut self) {
        let (found, failed) = (self.lookups.found.take(), self.lookups.failed.take());
        self.lookups.asked = false;
        if let Some((key, user)) = self.lookups.waiting.pop_front()
            && self.sessions.get(key).is_some_and(|session| session.stage == Stage::LookingUp)
        {
            match failed {
                Some(why) => self.refuse_lookup(key, &why),
                None => {
                    self.set_busy(key, Busy::No);
                    let secret = found.and_then(|found| match StoredSecret::parse(&String::from_utf8_lossy(&found)) {
                        Ok(secret) => Some(secret),
                        Err(why) => {
                            tracing::warn!(interlay = %self.spec.name, %why, "auth_query gave a secret that is of no use");
                            None
                        }
                    });
                    self.ask_by(key, &user, secret);
                    self.asks.push(Ask::ReadClient(key));
                    self.advance(key);
                }
            }
        }
        self.ask_next();
    }

    fn refuse_lookup(&mut self, key: ClientKey, why: &str) {
        tracing::warn!(interlay = %self.spec.name, %why, "auth_query failed");
        // Why is not for somebody who has not logged in.
        let message = "Crossfade could not ask the server for the user's secret: see its log";
        self.refuse(key, &Refusal::new("28000", message));
    }

    /// The connection is gone; whoever waits is told, the next one makes another.
    pub(super) fn lookup_lost(&mut self, failure: &Failure) {
        self.lookups.server = None;
        self.lookups.asked = false;
        self.lookups.found = None;
        self.lookups.failed = None;
        let why = match failure {
            Failure::Refused(frame) => Self::refusal_text(frame),
            Failure::Unreachable(why) | Failure::Lost(why) => why.clone(),
        };
        for (key, _) in std::mem::take(&mut self.lookups.waiting) {
            if self.sessions.get(key).is_some_and(|session| session.stage == Stage::LookingUp) {
                self.refuse_lookup(key, &why);
            }
        }
    }
}
