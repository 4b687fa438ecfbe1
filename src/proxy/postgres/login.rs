//! How a client proves who it is: SCRAM-SHA-256, md5, nothing, or to the server itself.
//!
//! That a proof was right is told only when the server has accepted the log-in as well. Until then the client has been shown that
//! Crossfade knows its verifier, and nothing else. Without I/O; lives on one core.

use super::proof::{Challenge, Proof};
use super::refusal::Refusal;
use super::session::{Progress, Session};
use super::shared::Shared;
use base::model::{AuthMode, Md5Hash, ScramVerifier, Secret, StoredSecret};
use wire::postgres::auth::{self, md5_password, md5_response, same_secret};
use wire::postgres::scram::{self, AuthFailure, ScramServer};
use wire::postgres::{HEAD_BYTES, Head, client_head, encode};

// What the client is asked.
impl Session {
    /// Mode "trust": no proof is asked for.
    pub fn trust(&mut self, shared: &mut Shared) {
        let proof = Proof::of_secret(shared.settings.postgres.users.get(self.user()));
        self.connect(proof, shared);
    }

    /// Finds the user's secret, in the auth file or on the server, and asks for a proof.
    pub fn ask_for_proof(&mut self, shared: &mut Shared) {
        let postgres = &shared.settings.postgres;
        match postgres.users.get(self.user()).cloned() {
            Some(secret) => self.ask_for_proof_of(Some(secret), shared),
            None if postgres.auth_query.is_some() => self.look_up(shared),
            None => self.ask_for_proof_of(None, shared),
        }
    }

    /// The user's secret is known now, or that the user has none: asks the client for a proof.
    pub fn ask_for_proof_of(&mut self, secret: Option<StoredSecret>, shared: &mut Shared) {
        let mode = shared.settings.mode();
        match secret {
            Some(StoredSecret::Scram(verifier)) => self.ask_scram(verifier, None, shared),
            Some(StoredSecret::Md5(hash)) if mode != AuthMode::Scram => {
                self.ask_md5(hash.clone(), Proof::Md5(hash), shared);
            }
            Some(StoredSecret::Plain(password)) if mode == AuthMode::Md5 => {
                let hash = md5_password(self.user(), password.expose());
                self.ask_md5(hash, Proof::Password(password), shared);
            }
            Some(StoredSecret::Plain(password)) => {
                let verifier = shared.secrets.derive(self.user(), password.expose(), &shared.settings);
                self.ask_scram(verifier, Some(password), shared);
            }
            // A wrong password and an unknown user must look the same to the client.
            Some(StoredSecret::Md5(_)) => {
                let interlay = &shared.settings.spec.name;
                tracing::warn!(%interlay, "a user has only an md5 secret, which mode \"scram\" does not accept");
                self.ask_scram_in_vain(shared);
            }
            None => self.ask_scram_in_vain(shared),
        }
    }

    /// Asks for a proof that no client can give.
    fn ask_scram_in_vain(&mut self, shared: &mut Shared) {
        let verifier = scram::mock_verifier(self.user(), &shared.secrets.entropy.lasting());
        self.ask_scram(verifier, None, shared);
    }

    fn ask_scram(&mut self, verifier: ScramVerifier, password: Option<Secret>, shared: &mut Shared) {
        let nonce = shared.secrets.entropy.nonce();
        let server = Box::new(ScramServer::new(verifier, nonce, self.tls));
        self.progress = Progress::Proving(Challenge::Scram { server, password });
        encode::authentication_sasl(&mut self.client.output, &[scram::MECHANISM]);
        self.flush(shared);
    }

    fn ask_md5(&mut self, hash: Md5Hash, proof: Proof, shared: &mut Shared) {
        let [a, b, c, d, ..] = shared.secrets.entropy.draw();
        let salt = [a, b, c, d];
        self.progress = Progress::Proving(Challenge::Md5 { salt, hash, proof });
        encode::authentication_md5(&mut self.client.output, salt);
        self.flush(shared);
    }
}

// What the client answers.
impl Session {
    /// Takes the client's answer to its challenge; how many bytes were taken.
    pub fn prove(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        let Some(body) = self.answer(bytes, shared) else { return 0 };
        match std::mem::replace(&mut self.progress, Progress::Connecting) {
            Progress::Proving(Challenge::Md5 { salt, hash, proof }) => {
                let given = auth::password(body).unwrap_or_default();
                if same_secret(given, &md5_response(&hash, salt)) {
                    self.proven(proof, shared);
                } else {
                    self.wrong_password(shared);
                }
            }
            Progress::Proving(Challenge::Scram { server, password }) if server.has_begun() => {
                self.scram_proof(server, password, body, shared);
            }
            Progress::Proving(Challenge::Scram { server, password }) => {
                self.scram_begins(server, password, body, shared);
            }
            other => self.progress = other,
        }
        HEAD_BYTES + body.len()
    }

    /// The body of the whole answer that begins `bytes`; anything else ends the connection.
    fn answer<'a>(&mut self, bytes: &'a [u8], shared: &mut Shared) -> Option<&'a [u8]> {
        let (tag, body_len) = match client_head(bytes) {
            Head::NeedMore => return None,
            Head::Frame { tag, body_len } => (tag, body_len),
            Head::Invalid(violation) => {
                self.refuse_protocol_error(&violation.into(), shared);
                return None;
            }
        };
        if tag != b'p' {
            let message = format!("expected password response, got message type {tag}");
            self.refuse_protocol_error(&Refusal::new("08P01", message), shared);
            return None;
        }
        bytes.get(HEAD_BYTES..HEAD_BYTES + body_len)
    }

    fn scram_begins(
        &mut self,
        mut server: Box<ScramServer>,
        password: Option<Secret>,
        body: &[u8],
        shared: &mut Shared,
    ) {
        let first = match auth::sasl_initial(body) {
            Some((mechanism, data)) if mechanism == scram::MECHANISM => server.first(data.unwrap_or_default()),
            Some((mechanism, _)) => Err(AuthFailure::Malformed(format!(
                "client selected an invalid SASL authentication mechanism: {mechanism:.40}"
            ))),
            None => Err(AuthFailure::Malformed("malformed SASL initial response".to_owned())),
        };
        match first {
            Ok(challenge) => {
                encode::authentication_sasl_continue(&mut self.client.output, &challenge);
                self.progress = Progress::Proving(Challenge::Scram { server, password });
                self.flush(shared);
            }
            Err(failure) => self.not_proven(failure, shared),
        }
    }

    fn scram_proof(
        &mut self,
        mut server: Box<ScramServer>,
        password: Option<Secret>,
        body: &[u8],
        shared: &mut Shared,
    ) {
        match server.last(body) {
            Ok((answer, client_key)) => {
                encode::authentication_sasl_final(&mut self.client.output, &answer);
                // The password itself logs in to any server; the key only to one with the same verifier.
                let proof = match password {
                    Some(password) => Proof::Password(password),
                    None => Proof::Key(client_key, Box::new(server.into_verifier())),
                };
                self.flush(shared);
                self.proven(proof, shared);
            }
            Err(failure) => self.not_proven(failure, shared),
        }
    }

    fn not_proven(&mut self, failure: AuthFailure, shared: &mut Shared) {
        match failure {
            AuthFailure::Wrong => self.wrong_password(shared),
            AuthFailure::Malformed(message) => {
                self.refuse_protocol_error(&Refusal::new("08P01", message), shared);
            }
        }
    }

    fn wrong_password(&mut self, shared: &mut Shared) {
        let message = format!("password authentication failed for user \"{}\"", self.user());
        self.refuse(&Refusal::new("28P01", message), shared);
    }

    fn proven(&mut self, proof: Proof, shared: &mut Shared) {
        let settings = &shared.settings;
        let proof = match settings.mode() {
            AuthMode::Mapped => settings.endpoint().credentials.as_ref().map_or(Proof::None, Proof::of_credentials),
            AuthMode::Scram | AuthMode::Relay | AuthMode::Md5 | AuthMode::Trust => proof,
        };
        self.connect(proof, shared);
    }

    /// Mode "relay": passes a whole answer on to the server, if the server has asked; how many bytes were taken.
    pub fn relay_answer(&mut self, bytes: &[u8], shared: &mut Shared) -> usize {
        let Some(key) = self.server else { return 0 };
        if !shared.servers.get(key).is_some_and(|server| server.waits_for_client()) {
            return 0;
        }
        let Some(body) = self.answer(bytes, shared) else { return 0 };
        let used = HEAD_BYTES + body.len();
        if let Some(server) = shared.servers.get_mut(key) {
            server.client_answered();
        }
        shared.servers.send(key, &bytes[..used]);
        used
    }
}
