//! How Crossfade logs in to a server for a session: the answer to each of the server's frames, until the server is ready. In mode
//! "relay" the client gives the answers itself; then the frames are only passed on.
//!
//! Without I/O; lives on one core, in a server connection that is not ready yet.

use super::entropy::Entropy;
use super::proof::Proof;
use base::model::limits;
use wire::postgres::auth::{AuthRequest, md5_password, md5_response};
use wire::postgres::frame::backend_key_data;
use wire::postgres::scram::{self, Nonce, ScramClient};
use wire::postgres::startup::{Startup, build_startup};
use wire::postgres::{HEAD_BYTES, Head, encode, server_head};

/// What a backend gives in its BackendKeyData; a cancel request must show it.
#[derive(Debug, Clone)]
pub struct BackendKey {
    pub process: u32,
    pub secret: Vec<u8>,
}

/// A log-in that has not ended.
#[derive(Debug)]
pub struct ServerLogIn {
    user: String,
    /// The startup packet.
    startup: Vec<u8>,
    proof: Proof,
    scram: Option<ScramClient>,
    /// The server's frames that the client is to get when the log-in succeeds: AuthenticationOk, parameters, notices.
    greeting: Vec<u8>,
    backend: Option<BackendKey>,
    /// The server has asked the client something that is not answered yet.
    waits_for_client: bool,
    /// The beginning of a frame that is not whole yet.
    input: Vec<u8>,
}

/// A log-in that succeeded.
#[derive(Debug)]
pub struct LoggedIn {
    pub greeting: Vec<u8>,
    pub ready_for_query: Vec<u8>,
    pub backend: Option<BackendKey>,
    /// Bytes that came after the ReadyForQuery.
    pub rest: Vec<u8>,
}

/// What one frame of the server asks of the caller.
#[derive(Debug)]
pub enum LogInStep {
    /// No whole frame is there.
    NeedMore,
    /// A frame was taken and wants nothing.
    Taken,
    /// Send this to the server.
    Answer(Vec<u8>),
    /// Send this to the client, whose answers (if any) go to the server.
    AskClient(Vec<u8>),
    /// Mode "relay", and the server asks for something that cannot be relayed: its name.
    Unsupported(&'static str),
    /// It failed; the ErrorResponse for the client.
    Refused(Vec<u8>),
    Done(LoggedIn),
}

impl ServerLogIn {
    pub fn new(user: &str, startup: Vec<u8>, proof: Proof) -> Self {
        Self {
            user: user.to_owned(),
            startup,
            proof,
            scram: None,
            greeting: Vec::new(),
            backend: None,
            waits_for_client: false,
            input: Vec::new(),
        }
    }

    pub fn startup_packet(&self) -> &[u8] {
        &self.startup
    }

    /// The server has asked the client something that is not answered yet.
    pub fn waits_for_client(&self) -> bool {
        self.waits_for_client
    }

    pub fn client_answered(&mut self) {
        self.waits_for_client = false;
    }

    /// Bytes of the server. [`Self::next_step`] takes them frame by frame.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Takes the next whole frame of the server; a SCRAM exchange that it begins gets its nonce out of `entropy`.
    ///
    /// # Errors
    /// The bytes are not the protocol's: what was wrong.
    pub fn next_step(&mut self, entropy: &mut Entropy) -> Result<LogInStep, String> {
        let (tag, len) = match server_head(&self.input) {
            Head::NeedMore => return Ok(LogInStep::NeedMore),
            Head::Frame { body_len, .. } if body_len > limits::PG_LOGIN_FRAME_BYTES_MAX => {
                return Err(format!("the server sent a frame of {body_len} bytes during log-in"));
            }
            Head::Frame { tag, body_len } => (tag, HEAD_BYTES + body_len),
            Head::Invalid(violation) => return Err(violation.message),
        };
        if self.input.len() < len {
            return Ok(LogInStep::NeedMore);
        }
        let frame: Vec<u8> = self.input.drain(..len).collect();
        self.take_frame(tag, frame, entropy)
    }

    fn take_frame(&mut self, tag: u8, frame: Vec<u8>, entropy: &mut Entropy) -> Result<LogInStep, String> {
        let body = &frame[HEAD_BYTES..];
        match tag {
            b'R' => {
                let request = AuthRequest::read(body).ok_or("the server sent a malformed authentication request")?;
                return Ok(match self.proof {
                    Proof::Relay => self.relay(&request, &frame),
                    Proof::None | Proof::Password(_) | Proof::Md5(_) | Proof::Key(..) => {
                        self.answer(&request, &frame, entropy.nonce())
                    }
                });
            }
            b'S' | b'N' => self.greeting.extend_from_slice(&frame),
            b'K' => {
                let key = backend_key_data(body);
                self.backend = key.map(|(process, secret)| BackendKey { process, secret: secret.to_vec() });
            }
            // NegotiateProtocolVersion: Crossfade asks for 3.0 without options, so there is nothing to negotiate.
            b'v' => {}
            b'E' => return Ok(LogInStep::Refused(frame)),
            b'Z' => {
                return Ok(LogInStep::Done(LoggedIn {
                    greeting: std::mem::take(&mut self.greeting),
                    ready_for_query: frame,
                    backend: self.backend.take(),
                    rest: std::mem::take(&mut self.input),
                }));
            }
            other => return Err(format!("the server sent a frame of type {:?} during log-in", char::from(other))),
        }
        Ok(LogInStep::Taken)
    }

    /// Passes a request on to the client.
    fn relay(&mut self, request: &AuthRequest<'_>, frame: &[u8]) -> LogInStep {
        let mut question = Vec::new();
        match request {
            AuthRequest::Ok => {
                self.greeting.extend_from_slice(frame);
                return LogInStep::Taken;
            }
            // The client's TLS ends at Crossfade, so channel binding cannot work and is not offered.
            AuthRequest::Sasl(mechanisms) => {
                let kept: Vec<_> = mechanisms.iter().copied().filter(|name| !name.ends_with("-PLUS")).collect();
                encode::authentication_sasl(&mut question, &kept);
            }
            AuthRequest::Other(_) => return LogInStep::Unsupported(request.name()),
            AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::SaslContinue(_) | AuthRequest::SaslFinal(_) => {
                question.extend_from_slice(frame);
            }
        }
        // After the last message of a SASL exchange the server goes on by itself.
        self.waits_for_client = !matches!(request, AuthRequest::SaslFinal(_));
        LogInStep::AskClient(question)
    }

    /// Answers a request with what Crossfade holds.
    fn answer(&mut self, request: &AuthRequest<'_>, frame: &[u8], nonce: Nonce) -> LogInStep {
        match self.try_answer(request, nonce) {
            Ok(Some(message)) => LogInStep::Answer(message),
            Ok(None) => {
                if *request == AuthRequest::Ok {
                    self.greeting.extend_from_slice(frame);
                }
                LogInStep::Taken
            }
            Err(why) => {
                let message = format!("Crossfade cannot log in to the server as \"{}\": {why}", self.user);
                let mut error = Vec::new();
                encode::error_response(&mut error, "FATAL", "28000", &message, encode::More::NONE);
                LogInStep::Refused(error)
            }
        }
    }

    /// The answer to a request, if it wants one.
    fn try_answer(&mut self, request: &AuthRequest<'_>, nonce: Nonce) -> Result<Option<Vec<u8>>, String> {
        let mut out = Vec::new();
        match (request, &self.proof) {
            (AuthRequest::Ok, _) if self.scram.is_some() => {
                return Err("the server accepted the log-in without proving that it knows the password".to_owned());
            }
            (AuthRequest::Ok, _) => return Ok(None),
            (AuthRequest::Cleartext, Proof::Password(password)) => {
                encode::password_message(&mut out, password.expose())
            }
            (AuthRequest::Md5(salt), Proof::Password(password)) => {
                let hash = md5_password(&self.user, password.expose());
                encode::password_message(&mut out, &md5_response(&hash, *salt));
            }
            (AuthRequest::Md5(salt), Proof::Md5(hash)) => {
                encode::password_message(&mut out, &md5_response(hash, *salt))
            }
            (AuthRequest::Sasl(mechanisms), proof) => {
                if !mechanisms.contains(&scram::MECHANISM) {
                    return Err(format!("the server offers {} only", mechanisms.join(", ")));
                }
                let client = match proof {
                    Proof::Password(password) => ScramClient::with_password(password.expose(), nonce),
                    Proof::Key(key, verifier) => ScramClient::with_key(key.clone(), (**verifier).clone(), nonce),
                    Proof::None | Proof::Md5(_) | Proof::Relay => return Err(lacking(request, proof)),
                };
                encode::sasl_initial_response(&mut out, scram::MECHANISM, &client.client_first());
                self.scram = Some(client);
            }
            (AuthRequest::SaslContinue(data), _) => {
                let client = self.scram.as_mut().ok_or("the server continues a SASL exchange that was not begun")?;
                encode::sasl_response(&mut out, &client.client_final(data)?);
            }
            (AuthRequest::SaslFinal(data), _) => {
                let client = self.scram.take().ok_or("the server ends a SASL exchange that was not begun")?;
                client.check_server_final(data)?;
                return Ok(None);
            }
            (AuthRequest::Cleartext | AuthRequest::Md5(_) | AuthRequest::Other(_), proof) => {
                return Err(lacking(request, proof));
            }
        }
        Ok(Some(out))
    }
}

fn lacking(request: &AuthRequest<'_>, proof: &Proof) -> String {
    let held = match proof {
        Proof::None => "Crossfade holds no secret of this user",
        Proof::Password(_) => "Crossfade holds a password",
        Proof::Md5(_) => "Crossfade holds only an md5 hash",
        Proof::Key(..) => "Crossfade holds only a SCRAM key",
        Proof::Relay => "the client answers itself",
    };
    format!("the server asks for {}, and {held}", request.name())
}

/// The client's startup packet as the server is to get it: protocol 3.0, which every server speaks, without protocol options, and with
/// the mapped user where users are mapped.
pub fn startup_for_server(startup: &Startup, mapped_user: Option<&str>) -> Vec<u8> {
    if startup.minor == 0 && mapped_user.is_none() && startup.unsupported_options().is_empty() {
        return startup.raw.clone();
    }
    let kept = startup
        .parameters
        .iter()
        .filter(|(name, _)| !name.starts_with("_pq_.") && name != "user" && name != "database");
    let user = mapped_user.unwrap_or_else(|| startup.user());
    let mut parameters = vec![("user", user), ("database", startup.database())];
    parameters.extend(kept.map(|(name, value)| (name.as_str(), value.as_str())));
    build_startup(0, &parameters)
}
