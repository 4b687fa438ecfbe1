//! `auth_query`: users' secrets looked up on the server, over one connection of this core's own, one question after the other. Knows no
//! session, only which client waits for which user's secret. Lives on one core.

use std::collections::VecDeque;

use super::proof::Proof;
use super::server::Servers;
use super::server_login::ServerLogIn;
use super::settings::Settings;
use crate::contract::{ClientKey, UpstreamKey};
use base::model::{EndpointProtocol, limits};
use base::stdx::clock::Now;
use wire::postgres::frame::{data_row, error_field};
use wire::postgres::startup::build_startup;
use wire::postgres::{HEAD_BYTES, Head, encode, server_head};

/// A client that waits for a user's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub client: ClientKey,
    pub user: String,
}

/// What the server answered to one question.
#[derive(Debug)]
pub struct Answer {
    pub asked_by: Waiting,
    /// The secret as the server gave it, `None` when it knows none; `Err`: the server's reason why the query failed.
    pub secret: Result<Option<Vec<u8>>, String>,
}

/// Questions, and the connection they are asked on.
#[derive(Debug, Default)]
pub struct Lookups {
    server: Option<UpstreamKey>,
    /// The clients that wait, the first to ask first; bounded by the number of clients.
    waiting: VecDeque<Waiting>,
    /// When the question of the first of `waiting` was sent; `None`: it has not been sent.
    asked_us: Option<u64>,
    /// The answer so far.
    found: Option<Vec<u8>>,
    failed: Option<String>,
    /// The beginning of a frame that is not whole yet.
    input: Vec<u8>,
}

/// The log-in of the connection that questions are asked on.
///
/// # Errors
/// The endpoint's URL names no user.
pub fn log_in(settings: &Settings) -> Result<ServerLogIn, &'static str> {
    let endpoint = settings.endpoint();
    let own = endpoint.credentials.as_ref().ok_or("the endpoint's URL names no user for auth_query")?;
    let user = own.user.as_deref().unwrap_or_default();
    let database = match &endpoint.protocol {
        EndpointProtocol::Postgres { dbname } => dbname.as_deref().unwrap_or(user),
        EndpointProtocol::Redis { .. } => user,
    };
    let parameters = [("user", user), ("database", database), ("application_name", "crossfade")];
    Ok(ServerLogIn::new(user, build_startup(0, &parameters), Proof::of_credentials(own)))
}

impl Lookups {
    pub fn is_connected(&self) -> bool {
        self.server.is_some()
    }

    /// Questions are asked on this connection from now on.
    pub fn use_connection(&mut self, server: UpstreamKey) {
        self.server = Some(server);
    }

    /// A client waits for a user's secret.
    pub fn wait(&mut self, client: ClientKey, user: String) {
        self.waiting.push_back(Waiting { client, user });
    }

    /// The client is gone. A question that was sent already is answered to no client.
    pub fn forget(&mut self, client: ClientKey) {
        let sent = usize::from(self.asked_us.is_some());
        let mut at = 0;
        self.waiting.retain(|waiting| {
            at += 1;
            waiting.client != client || at <= sent
        });
    }

    /// Sends the next question, if the connection is ready and free.
    pub fn ask_next(&mut self, servers: &mut Servers, settings: &Settings, now: Now) {
        let Some(key) = self.server.filter(|key| servers.get(*key).is_some_and(|server| server.is_ready())) else {
            return;
        };
        let (None, Some(waiting), Some(query)) = (self.asked_us, self.waiting.front(), &settings.postgres.auth_query)
        else {
            return;
        };
        let mut question = Vec::new();
        encode::query_with_parameter(&mut question, query, waiting.user.as_bytes());
        self.asked_us = Some(now.mono_us);
        servers.send(key, &question);
    }

    /// Bytes of the connection, once it is ready; the next answer is [`Self::next_answer`]'s.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next whole answer, if it has arrived.
    ///
    /// # Errors
    /// The bytes are not the protocol's: what was wrong.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, String> {
        loop {
            let (tag, len) = match server_head(&self.input) {
                Head::NeedMore => return Ok(None),
                Head::Frame { body_len, .. } if body_len > limits::PG_LOGIN_FRAME_BYTES_MAX => {
                    return Err(format!("the server answered auth_query with a frame of {body_len} bytes"));
                }
                Head::Frame { tag, body_len } => (tag, HEAD_BYTES + body_len),
                Head::Invalid(violation) => return Err(violation.message),
            };
            if self.input.len() < len {
                return Ok(None);
            }
            let frame: Vec<u8> = self.input.drain(..len).collect();
            if let Some(answer) = self.take_frame(tag, &frame[HEAD_BYTES..]) {
                return Ok(Some(answer));
            }
        }
    }

    fn take_frame(&mut self, tag: u8, body: &[u8]) -> Option<Answer> {
        match tag {
            b'D' if self.found.is_none() => {
                self.found = data_row(body).nth(1).flatten().map(<[u8]>::to_vec);
            }
            b'E' => {
                let why = error_field(body, b'M').unwrap_or("no reason given");
                self.failed = Some(why.to_owned());
            }
            b'Z' => {
                let (found, failed) = (self.found.take(), self.failed.take());
                self.asked_us = None;
                let secret = failed.map_or(Ok(found), Err);
                return self.waiting.pop_front().map(|asked_by| Answer { asked_by, secret });
            }
            _ => {}
        }
        None
    }

    /// The connection, when the question asked on it has had no answer for too long: it must not hold up all log-ins.
    pub fn overdue(&self, now: Now) -> Option<UpstreamKey> {
        let late_us = self.asked_us? + limits::CONNECT_TIMEOUT.as_micros() as u64;
        self.server.filter(|_| late_us <= now.mono_us)
    }

    /// The connection is gone; the clients that waited for it. The next question makes another connection.
    pub fn lost(&mut self) -> VecDeque<Waiting> {
        std::mem::take(self).waiting
    }
}
