//! How a client proves who it is: SCRAM-SHA-256, md5, nothing, or to the server itself.
//!
//! The verdict is told only when the server has let the session in as well: until then the client has been shown that Crossfade knows
//! its verifier, and nothing else.

use super::types::{Proof, Question, Server, Stage};
use super::{PostgresRelay, Refusal};
use crate::contract::ClientKey;
use base::model::{AuthMode, Md5Hash, ScramVerifier, Secret, StoredSecret};
use wire::postgres::auth::{self, md5_password, md5_response, same_secret};
use wire::postgres::scram::{self, AuthFailure, ScramServer, TlsEnds};
use wire::postgres::{HEAD_BYTES, Head, client_head, encode};

/// What PostgreSQL itself uses for a new password.
const ITERATIONS: u32 = 4096;

impl PostgresRelay {
    pub(super) fn trust(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let proof = Proof::of_secret(self.postgres.users.get(session.user()));
        self.connect(key, proof);
    }

    /// Finds the user's secret: in the auth file, or on the server.
    pub(super) fn ask_for_proof(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let user = session.user().to_owned();
        match self.postgres.users.get(&user) {
            Some(secret) => {
                let secret = secret.clone();
                self.ask_by(key, &user, Some(secret));
            }
            None if self.postgres.auth_query.is_some() => self.look_up(key),
            None => self.ask_by(key, &user, None),
        }
    }

    /// The secret is known now (or the user is not): asks the client for its part.
    pub(super) fn ask_by(&mut self, key: ClientKey, user: &str, secret: Option<StoredSecret>) {
        let mode = self.mode();
        match secret {
            Some(StoredSecret::Scram(verifier)) => self.ask_scram(key, verifier, None),
            Some(StoredSecret::Md5(hash)) if mode != AuthMode::Scram => {
                self.ask_md5(key, hash.clone(), Proof::Md5(hash))
            }
            Some(StoredSecret::Plain(password)) if mode == AuthMode::Md5 => {
                let hash = md5_password(user, password.expose());
                self.ask_md5(key, hash, Proof::Password(password));
            }
            Some(StoredSecret::Plain(password)) => {
                let verifier = self.derive(user, password.expose());
                self.ask_scram(key, verifier, Some(password));
            }
            // A wrong password and an unknown user must look the same.
            Some(StoredSecret::Md5(_)) => {
                tracing::warn!(interlay = %self.spec.name, "a user has only an md5 secret, which mode \"scram\" does not take");
                self.ask_scram_in_vain(key, user);
            }
            None => self.ask_scram_in_vain(key, user),
        }
    }

    fn derive(&mut self, user: &str, password: &[u8]) -> ScramVerifier {
        if let Some(known) = self.derived.get(user) {
            return known.clone();
        }
        let verifier = scram::verifier_from_password(password, &self.entropy.salt_of(user), ITERATIONS);
        // A secret out of an auth query may change; only those of the file, which do not, are kept.
        if self.postgres.users.contains_key(user) {
            self.derived.insert(user.to_owned(), verifier.clone());
        }
        verifier
    }

    fn ask_scram_in_vain(&mut self, key: ClientKey, user: &str) {
        let verifier = scram::mock_verifier(user, &self.entropy.lasting());
        self.ask_scram(key, verifier, None);
    }

    fn ask_scram(&mut self, key: ClientKey, verifier: ScramVerifier, password: Option<Secret>) {
        let nonce = self.entropy.nonce();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let ends = if session.secured { TlsEnds::AtCrossfade } else { TlsEnds::Nowhere };
        let server = Box::new(ScramServer::new(verifier, nonce, ends));
        session.question = Some(Question::Scram { server, password });
        session.stage = Stage::Proving;
        encode::authentication_sasl(&mut session.output, &[scram::MECHANISM]);
        self.client_has_output(key);
    }

    fn ask_md5(&mut self, key: ClientKey, hash: Md5Hash, proof: Proof) {
        let drawn = self.entropy.draw();
        let salt = [drawn[0], drawn[1], drawn[2], drawn[3]];
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.question = Some(Question::Md5 { salt, hash, proof });
        session.stage = Stage::Proving;
        encode::authentication_md5(&mut session.output, salt);
        self.client_has_output(key);
    }

    /// A client's answer; how many bytes were taken.
    pub(super) fn prove(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(body) = self.answer(key, bytes) else { return 0 };
        let used = HEAD_BYTES + body.len();
        let Some(session) = self.sessions.get_mut(key) else { return used };
        match session.question.take() {
            Some(Question::Md5 { salt, hash, proof }) => {
                let given = auth::password(body).unwrap_or_default();
                if same_secret(given, &md5_response(&hash, salt)) {
                    self.proven(key, proof);
                } else {
                    self.wrong(key);
                }
            }
            Some(Question::Scram { server, password }) => self.scram_answer(key, server, password, body),
            None => self.refuse(key, &Refusal::new("08P01", "a password that was not asked for")),
        }
        used
    }

    /// The body of the whole answer that begins `bytes`; anything else ends the connection.
    fn answer<'a>(&mut self, key: ClientKey, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (tag, body_len) = match client_head(bytes) {
            Head::NeedMore => return None,
            Head::Frame { tag, body_len } => (tag, body_len),
            Head::Invalid(violation) => {
                self.counters.protocol_errors += 1;
                self.refuse(key, &Refusal::new(violation.sqlstate, violation.message));
                return None;
            }
        };
        if tag != b'p' {
            self.counters.protocol_errors += 1;
            let message = format!("expected password response, got message type {tag}");
            self.refuse(key, &Refusal::new("08P01", message));
            return None;
        }
        bytes.get(HEAD_BYTES..HEAD_BYTES + body_len)
    }

    fn scram_answer(&mut self, key: ClientKey, mut server: Box<ScramServer>, password: Option<Secret>, body: &[u8]) {
        if !server.has_begun() {
            let first = match auth::sasl_initial(body) {
                Some((mechanism, data)) if mechanism == scram::MECHANISM => server.first(data.unwrap_or_default()),
                Some((mechanism, _)) => Err(AuthFailure::Malformed(format!(
                    "client selected an invalid SASL authentication mechanism: {mechanism:.40}"
                ))),
                None => Err(AuthFailure::Malformed("malformed SASL initial response".to_owned())),
            };
            return match first {
                Ok(challenge) => {
                    let Some(session) = self.sessions.get_mut(key) else { return };
                    encode::authentication_sasl_continue(&mut session.output, &challenge);
                    session.question = Some(Question::Scram { server, password });
                    self.client_has_output(key);
                }
                Err(failure) => self.failed(key, failure),
            };
        }
        match server.last(body) {
            Ok((answer, client_key)) => {
                let Some(session) = self.sessions.get_mut(key) else { return };
                encode::authentication_sasl_final(&mut session.output, &answer);
                // With the password itself any server can be logged in to; else only one with the same verifier.
                let proof = match password {
                    Some(password) => Proof::Password(password),
                    None => Proof::Key(client_key, Box::new(server.into_verifier())),
                };
                self.client_has_output(key);
                self.proven(key, proof);
            }
            Err(failure) => self.failed(key, failure),
        }
    }

    fn failed(&mut self, key: ClientKey, failure: AuthFailure) {
        match failure {
            AuthFailure::Wrong => self.wrong(key),
            AuthFailure::Malformed(message) => {
                self.counters.protocol_errors += 1;
                self.refuse(key, &Refusal::new("08P01", message));
            }
        }
    }

    fn wrong(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get(key) else { return };
        let message = format!("password authentication failed for user \"{}\"", session.user());
        self.refuse(key, &Refusal::new("28P01", message));
    }

    fn proven(&mut self, key: ClientKey, proof: Proof) {
        let own = self.endpoint().credentials.as_ref().map(Proof::of_credentials);
        let proof = match (self.mode(), own) {
            (AuthMode::Mapped, own) => own.unwrap_or(Proof::None),
            (AuthMode::Scram | AuthMode::Relay | AuthMode::Md5 | AuthMode::Trust, _) => proof,
        };
        self.connect(key, proof);
    }

    // ---- mode "relay": the server asks, the client answers ----------------------------------------------------------------

    /// Passes a whole answer on to the server, if it has asked; how many bytes were taken.
    pub(super) fn relay_answers(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(server_key) = self.sessions.get(key).and_then(|session| session.server) else { return 0 };
        if !self.servers.get(server_key).is_some_and(Server::waits_for_client) {
            return 0;
        }
        let Some(body) = self.answer(key, bytes) else { return 0 };
        let used = HEAD_BYTES + body.len();
        let Some(server) = self.servers.get_mut(server_key) else { return 0 };
        server.output.extend_from_slice(&bytes[..used]);
        if let Some(log_in) = server.log_in.as_mut() {
            log_in.awaits_client = false;
        }
        self.server_has_output(server_key);
        used
    }
}
