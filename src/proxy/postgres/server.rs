//! Server connections: made, protected by TLS, logged in to, lost.

use super::types::{Busy, Cancel, Proof, Purpose, Server, ServerStage, Stage};
use super::{PostgresRelay, Refusal};
use crate::contract::{Ask, ClientKey, Failure, Interrupt, UpstreamKey};
use base::model::{AuthMode, Side, TlsMode, limits};
use wire::postgres::auth::{AuthRequest, md5_password, md5_response, same_secret};
use wire::postgres::frame::{backend_key_data, error_field};
use wire::postgres::scram::{self, ScramClient};
use wire::postgres::startup::build_startup;
use wire::postgres::{HEAD_BYTES, Head, encode, server_head};

/// A log-in in progress.
#[derive(Debug)]
pub(super) struct LogIn {
    user: String,
    /// The startup packet.
    startup: Vec<u8>,
    proof: Proof,
    scram: Option<ScramClient>,
    /// Frames of the server the client is to get when all is well: AuthenticationOk, parameters, notices.
    greeting: Vec<u8>,
    /// The server has asked the client something, which has not been answered yet.
    pub awaits_client: bool,
}

impl LogIn {
    pub fn new(user: &str, startup: Vec<u8>, proof: Proof) -> Self {
        Self { user: user.to_owned(), startup, proof, scram: None, greeting: Vec::new(), awaits_client: false }
    }
}

/// What to do about one frame of a log-in.
enum Step {
    Nothing,
    Answer(Vec<u8>),
    Done,
}

impl PostgresRelay {
    /// Makes the session's server connection, or waits at the gate for it.
    pub(super) fn connect(&mut self, key: ClientKey, proof: Proof) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.proof = Some(proof);
        if self.gate.is_shut() {
            session.stage = Stage::AtGate;
            self.hold(key);
            return;
        }
        self.connect_now(key);
    }

    pub(super) fn connect_now(&mut self, key: ClientKey) {
        let side = self.side();
        let own_user = self.endpoint().credentials.as_ref().and_then(|own| own.user.clone());
        let mapped = if self.mode() == AuthMode::Mapped { own_user } else { None };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(startup), Some(proof)) = (&session.startup, session.proof.take()) else { return };
        session.stage = if matches!(proof, Proof::Relay) { Stage::Relaying } else { Stage::Connecting };
        let user = mapped.as_deref().unwrap_or_else(|| startup.user());
        let log_in = LogIn::new(user, startup_for_server(startup, mapped.as_deref()), proof);
        let server = self.servers.insert(Server::new(Purpose::Session(key), side, Some(log_in)));
        if let Some(session) = self.sessions.get_mut(key) {
            session.server = Some(server);
        }
        self.set_busy(key, Busy::LogIn);
        self.asks.push(Ask::Connect { upstream: server, side });
    }

    // ---- until it is ready ------------------------------------------------------------------------------------------------

    pub(super) fn server_opened(&mut self, key: UpstreamKey) {
        let Some(server) = self.servers.get(key) else {
            self.asks.push(Ask::CloseUpstream(key));
            return;
        };
        let tls = self.plan.endpoint(server.side).tls.mode;
        if tls == TlsMode::Disable {
            return self.introduce(key);
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        server.stage = ServerStage::TlsAsked;
        encode::ssl_request(&mut server.output);
        self.server_has_output(key);
    }

    /// The first packet that is not about encryption.
    pub(super) fn introduce(&mut self, key: UpstreamKey) {
        if !self.cancel_is_due(key) {
            return self.lose_server(key, &Failure::Lost("what was to be cancelled is over".to_owned()));
        }
        let Some(server) = self.servers.get_mut(key) else { return };
        match (&server.purpose, &server.log_in) {
            (Purpose::Cancel(Cancel { process, secret, .. }), _) => {
                server.stage = ServerStage::Ready;
                encode::cancel_request(&mut server.output, *process, secret);
            }
            (Purpose::Session(_) | Purpose::Lookup, Some(log_in)) => {
                server.stage = ServerStage::LoggingIn;
                server.output.extend_from_slice(&log_in.startup);
            }
            (Purpose::Session(_) | Purpose::Lookup, None) => {}
        }
        self.server_has_output(key);
    }

    /// False when a cancel request would reach a later unit of work than it was meant for.
    fn cancel_is_due(&self, key: UpstreamKey) -> bool {
        match self.servers.get(key).map(|server| &server.purpose) {
            Some(Purpose::Cancel(cancel)) => self
                .sessions
                .get(cancel.session)
                .is_some_and(|session| session.tracker.is_busy() && session.units == cancel.unit),
            Some(Purpose::Session(_) | Purpose::Lookup) | None => true,
        }
    }

    fn tls_answered(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let Some(server) = self.servers.get_mut(key) else { return Ok(()) };
        let mode = self.plan.endpoint(server.side).tls.mode;
        match bytes {
            b"S" => {
                server.stage = ServerStage::Securing;
                let side = server.side;
                self.asks.push(Ask::SecureUpstream { upstream: key, side });
            }
            b"N" if mode == TlsMode::Prefer => self.introduce(key),
            b"N" => {
                let why = "the server does not offer TLS, which the endpoint's sslmode asks for".to_owned();
                self.lose_server(key, &Failure::Unreachable(why));
            }
            _ => return Err("the server answered an SSLRequest with something else than S or N".to_owned()),
        }
        Ok(())
    }

    /// Bytes of a server.
    pub(super) fn server_bytes(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let Some(server) = self.servers.get_mut(key) else { return Ok(()) };
        match server.stage {
            ServerStage::Ready => match server.purpose {
                Purpose::Session(session) => return self.forward_server(key, session, bytes),
                Purpose::Lookup => {}
                Purpose::Cancel(_) => return Ok(()),
            },
            ServerStage::TlsAsked => return self.tls_answered(key, bytes),
            ServerStage::LoggingIn => {}
            ServerStage::Opening | ServerStage::Securing => {
                return Err("the server spoke before it was asked".to_owned());
            }
        }
        server.input.extend_from_slice(bytes);
        loop {
            let Some(server) = self.servers.get_mut(key) else { return Ok(()) };
            let (tag, len) = match server_head(&server.input) {
                Head::NeedMore => return Ok(()),
                Head::Frame { body_len, .. } if body_len > limits::PG_LOGIN_FRAME_BYTES_MAX => {
                    return Err(format!("a frame of {body_len} bytes at log-in"));
                }
                Head::Frame { tag, body_len } => (tag, HEAD_BYTES + body_len),
                Head::Invalid(violation) => return Err(violation.message),
            };
            if server.input.len() < len {
                return Ok(());
            }
            let frame: Vec<u8> = server.input.drain(..len).collect();
            match (server.stage, &server.purpose) {
                (ServerStage::Ready, Purpose::Lookup) => self.lookup_frame(tag, &frame[HEAD_BYTES..]),
                (ServerStage::Ready, Purpose::Session(session)) => {
                    let session = *session;
                    let mut rest = frame;
                    rest.append(&mut server.input);
                    return self.forward_server(key, session, &rest);
                }
                _ => self.log_in_frame(key, tag, &frame)?,
            }
        }
    }

    fn log_in_frame(&mut self, key: UpstreamKey, tag: u8, frame: &[u8]) -> Result<(), String> {
        let body = &frame[HEAD_BYTES..];
        let Some(server) = self.servers.get_mut(key) else { return Ok(()) };
        let Some(log_in) = server.log_in.as_mut() else { return Ok(()) };
        match tag {
            b'R' => {
                let request = AuthRequest::read(body).ok_or("a malformed request for a password")?;
                if matches!(log_in.proof, Proof::Relay) {
                    self.relay_question(key, &request, frame);
                    return Ok(());
                }
                let nonce = self.entropy.nonce();
                match answer(log_in, &request, nonce) {
                    Ok(Step::Nothing) => {}
                    Ok(Step::Done) => log_in.greeting.extend_from_slice(frame),
                    Ok(Step::Answer(message)) => {
                        server.output.extend_from_slice(&message);
                        self.server_has_output(key);
                    }
                    Err(why) => {
                        let message = format!("Crossfade cannot log in to the server as \"{}\": {why}", log_in.user);
                        let mut error = Vec::new();
                        encode::error_response(&mut error, "FATAL", "28000", &message, encode::More::NONE);
                        self.lose_server(key, &Failure::Refused(error));
                    }
                }
            }
            b'S' | b'N' => log_in.greeting.extend_from_slice(frame),
            b'K' => server.backend = backend_key_data(body).map(|(process, secret)| (process, secret.to_vec())),
            // Crossfade asks for 3.0 without options, so there is nothing to negotiate.
            b'v' => {}
            b'E' => self.lose_server(key, &Failure::Refused(frame.to_vec())),
            b'Z' => self.logged_in(key, frame),
            other => return Err(format!("a frame of type {:?} at log-in", char::from(other))),
        }
        Ok(())
    }

    fn relay_question(&mut self, key: UpstreamKey, request: &AuthRequest<'_>, frame: &[u8]) {
        let Some(server) = self.servers.get_mut(key) else { return };
        let Purpose::Session(client) = server.purpose else { return };
        let mut out = Vec::new();
        match request {
            AuthRequest::Ok => {
                if let Some(log_in) = server.log_in.as_mut() {
                    log_in.greeting.extend_from_slice(frame);
                }
                return;
            }
            // Binding to a channel that ends here cannot work, so it is not offered.
            AuthRequest::Sasl(mechanisms) => {
                let kept: Vec<_> = mechanisms.iter().copied().filter(|name| !name.ends_with("-PLUS")).collect();
                encode::authentication_sasl(&mut out, &kept);
            }
            AuthRequest::Other(_) => {
                let message = format!("the server asks for {}, which Crossfade does not carry", request.name());
                return self.refuse(client, &Refusal::new("28000", message));
            }
            AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::SaslContinue(_) | AuthRequest::SaslFinal(_) => {
                out.extend_from_slice(frame);
            }
        }
        if let Some(log_in) = server.log_in.as_mut() {
            // After the last word of a SASL exchange the server goes on by itself.
            log_in.awaits_client = !matches!(request, AuthRequest::SaslFinal(_));
        }
        if let Some(session) = self.sessions.get_mut(client) {
            session.output.extend_from_slice(&out);
            self.client_has_output(client);
            self.advance(client);
        }
    }

    fn logged_in(&mut self, key: UpstreamKey, ready_for_query: &[u8]) {
        self.counters.upstream_connects += 1;
        let Some(server) = self.servers.get_mut(key) else { return };
        server.stage = ServerStage::Ready;
        let greeting = server.log_in.take().map(|log_in| log_in.greeting).unwrap_or_default();
        let client = match server.purpose {
            Purpose::Session(client) => client,
            Purpose::Lookup => return self.ask_next(),
            Purpose::Cancel(_) => return,
        };
        let now_us = self.now.mono_us;
        let Some(session) = self.sessions.get_mut(client) else { return self.close_server(key) };
        session.output.extend_from_slice(&greeting);
        encode::backend_key_data(&mut session.output, session.id, &session.secret);
        session.output.extend_from_slice(ready_for_query);
        session.stage = Stage::Ready;
        session.since_us = now_us;
        session.question = None;
        self.client_has_output(client);
        self.unit_over(client);
        self.asks.push(Ask::ReadClient(client));
        self.advance(client);
    }

    // ---- its end ----------------------------------------------------------------------------------------------------------

    /// It could not be made, or it broke.
    pub(super) fn lose_server(&mut self, key: UpstreamKey, failure: &Failure) {
        let Some(server) = self.servers.remove(key) else { return };
        self.asks.push(Ask::CloseUpstream(key));
        match server.purpose {
            // The server closes a connection that asked it to cancel; that is the answer.
            Purpose::Cancel(Cancel { asker, .. }) => {
                if let Some(asker) = asker {
                    self.dismiss(asker, b"");
                }
            }
            Purpose::Lookup => self.lookup_lost(failure),
            Purpose::Session(client) => {
                self.counters.upstream_losses += 1;
                self.session_lost_server(client, server.side, failure);
            }
        }
    }

    fn session_lost_server(&mut self, client: ClientKey, side: Side, failure: &Failure) {
        let name = &self.plan.endpoint(side).name;
        let Some(session) = self.sessions.get_mut(client) else { return };
        session.server = None;
        if session.client_gone {
            return self.end_session(client);
        }
        let refusal = match failure {
            Failure::Refused(frame) => {
                let frame = frame.clone();
                self.counters.replies_error += 1;
                return self.dismiss(client, &frame);
            }
            Failure::Unreachable(why) => {
                Refusal::new("57P03", format!("Crossfade cannot reach {side} '{name}': {why}; nothing was sent"))
            }
            // The server said goodbye itself (a time-out, an administrator) and its words have passed, or the client did: the end follows.
            Failure::Lost(_) if session.fatal_seen || session.terminated => return self.dismiss(client, b""),
            Failure::Lost(why) if session.tracker.is_busy() => {
                let text = format!("Crossfade lost {side} '{name}' while a statement was running ({why})");
                Refusal::new("08007", text).hint("Its outcome is unknown: look before repeating it.")
            }
            Failure::Lost(why) => Refusal::new("08006", format!("Crossfade lost {side} '{name}': {why}")),
        };
        self.refuse(client, &refusal);
    }

    /// Somebody asks to stop what a session is running. Wrong keys and idle sessions are passed over in silence, as PostgreSQL does.
    pub(super) fn interrupted(&mut self, interrupt: &Interrupt, asker: Option<ClientKey>) {
        let session = self.by_id.get(&interrupt.session).and_then(|key| self.sessions.get(*key));
        let running = session.filter(|session| {
            session.tracker.is_busy() && same_secret(&interrupt.key, &session.secret) && session.stage == Stage::Ready
        });
        let unit = running.map_or(0, |session| session.units);
        let server = running.and_then(|session| session.server).and_then(|key| self.servers.get(key));
        let Some((side, session, (process, secret))) = server.and_then(|server| match server.purpose {
            Purpose::Session(session) => Some((server.side, session, server.backend.clone()?)),
            Purpose::Cancel(_) | Purpose::Lookup => None,
        }) else {
            if let Some(asker) = asker {
                self.dismiss(asker, b"");
            }
            return;
        };
        let server = self.servers.insert(Server::new(
            Purpose::Cancel(Cancel { process, secret, session, unit, asker }),
            side,
            None,
        ));
        self.asks.push(Ask::Connect { upstream: server, side });
    }

    /// The server's reason why Crossfade's own log-in was refused, in words.
    pub(super) fn refusal_text(frame: &[u8]) -> String {
        error_field(frame.get(HEAD_BYTES..).unwrap_or_default(), b'M').unwrap_or("no reason given").to_owned()
    }
}

/// The client's startup packet as the server is to get it: protocol 3.0, which every server speaks, without protocol options; with
/// another user where users are mapped.
fn startup_for_server(startup: &wire::postgres::Startup, mapped: Option<&str>) -> Vec<u8> {
    if startup.minor == 0 && mapped.is_none() && startup.unsupported_options().is_empty() {
        return startup.raw.clone();
    }
    let database = startup.database();
    let kept = startup
        .parameters
        .iter()
        .filter(|(name, _)| !name.starts_with("_pq_.") && name != "user" && name != "database");
    let mut parameters = vec![("user", mapped.unwrap_or_else(|| startup.user())), ("database", database)];
    parameters.extend(kept.map(|(name, value)| (name.as_str(), value.as_str())));
    build_startup(0, &parameters)
}

/// Our answer to a server's question.
fn answer(log_in: &mut LogIn, request: &AuthRequest<'_>, nonce: scram::Nonce) -> Result<Step, String> {
    let mut out = Vec::new();
    match (request, &log_in.proof) {
        (AuthRequest::Ok, _) => {
            return if log_in.scram.is_some() {
                Err("it let us in without proving that it knows the password".to_owned())
            } else {
                Ok(Step::Done)
            };
        }
        (AuthRequest::Cleartext, Proof::Password(password)) => encode::password_message(&mut out, password.expose()),
        (AuthRequest::Md5(salt), Proof::Password(password)) => {
            let hash = md5_password(&log_in.user, password.expose());
            encode::password_message(&mut out, &md5_response(&hash, *salt));
        }
        (AuthRequest::Md5(salt), Proof::Md5(hash)) => encode::password_message(&mut out, &md5_response(hash, *salt)),
        (AuthRequest::Sasl(mechanisms), proof) => {
            if !mechanisms.contains(&scram::MECHANISM) {
                return Err(format!("it offers {} only", mechanisms.join(", ")));
            }
            let client = match proof {
                Proof::Password(password) => ScramClient::with_password(password.expose(), nonce),
                Proof::Key(key, verifier) => ScramClient::with_key(key.clone(), (**verifier).clone(), nonce),
                Proof::None | Proof::Md5(_) | Proof::Relay => return Err(lacking(request, proof)),
            };
            encode::sasl_initial_response(&mut out, scram::MECHANISM, &client.client_first());
            log_in.scram = Some(client);
        }
        (AuthRequest::SaslContinue(data), _) => {
            let client = log_in.scram.as_mut().ok_or("it goes on with a SASL exchange that was not begun")?;
            encode::sasl_response(&mut out, &client.client_final(data)?);
        }
        (AuthRequest::SaslFinal(data), _) => {
            let client = log_in.scram.take().ok_or("it ends a SASL exchange that was not begun")?;
            client.check_server_final(data)?;
            return Ok(Step::Nothing);
        }
        (AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::Other(_), proof) => {
            return Err(lacking(request, proof));
        }
    }
    Ok(Step::Answer(out))
}

fn lacking(request: &AuthRequest<'_>, proof: &Proof) -> String {
    let held = match proof {
        Proof::None => "Crossfade holds no secret of this user",
        Proof::Password(_) => "Crossfade holds a password",
        Proof::Md5(_) => "Crossfade holds only an md5 hash",
        Proof::Key(..) => "Crossfade holds only a SCRAM key",
        Proof::Relay => "the client answers itself",
    };
    format!("it asks for {}, and {held}", request.name())
}
