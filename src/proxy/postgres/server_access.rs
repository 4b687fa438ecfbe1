//! A session's way to its server: the user's secret is looked up, the server connection is made, it succeeds or fails. Without I/O;
//! lives on one core.

use super::hold::Busy;
use super::lookup;
use super::proof::Proof;
use super::refusal::Refusal;
use super::server::Purpose;
use super::server_login::{LoggedIn, ServerLogIn, startup_for_server};
use super::session::{HeldLogIn, Progress, Ready, Session};
use super::shared::Shared;
use crate::contract::{Ask, Failure};
use base::model::{Side, StoredSecret};
use wire::postgres::encode;

// Looking up the user's secret.
impl Session {
    /// Looks up the user's secret on the server, when no hold forbids it.
    pub fn look_up(&mut self, shared: &mut Shared) {
        if shared.hold.holds_log_ins() {
            self.progress = Progress::Held(HeldLogIn::LookUp);
            return self.wait_for_release(shared);
        }
        self.progress = Progress::LookingUp;
        self.hold.set_busy(Busy::LogIn, &mut shared.hold);
        if !shared.lookups.is_connected() {
            match lookup::log_in(&shared.settings) {
                Ok(log_in) => {
                    let server = shared.connect(Purpose::Lookup, log_in);
                    shared.lookups.use_connection(server);
                }
                Err(why) => return self.look_up_failed(why, shared),
            }
        }
        shared.lookups.wait(self.key, self.user().to_owned());
        shared.lookups.ask_next(&mut shared.servers, &shared.settings, shared.now);
    }

    /// The server gave this secret, or says that it knows none.
    pub fn looked_up(&mut self, secret: Option<&[u8]>, shared: &mut Shared) {
        if !matches!(self.progress, Progress::LookingUp) {
            return;
        }
        self.hold.set_busy(Busy::No, &mut shared.hold);
        let secret = secret.and_then(|found| match StoredSecret::parse(&String::from_utf8_lossy(found)) {
            Ok(secret) => Some(secret),
            Err(why) => {
                tracing::warn!(interlay = %shared.settings.spec.name, %why, "auth_query returned a secret that cannot be used");
                None
            }
        });
        self.ask_for_proof_of(secret, shared);
        shared.asks.push(Ask::ReadClient(self.key));
        self.advance(shared);
    }

    /// The user's secret could not be looked up.
    pub fn look_up_failed(&mut self, why: &str, shared: &mut Shared) {
        if !matches!(self.progress, Progress::LookingUp) {
            return;
        }
        tracing::warn!(interlay = %shared.settings.spec.name, %why, "auth_query failed");
        // The reason is not for a client that has not logged in.
        let message = "Crossfade could not ask the server for the user's secret: see its log";
        self.refuse(&Refusal::new("28000", message), shared);
    }
}

// The session's own connection.
impl Session {
    /// Makes the session's server connection, when no hold forbids it.
    pub fn connect(&mut self, proof: Proof, shared: &mut Shared) {
        if shared.hold.holds_log_ins() {
            self.progress = Progress::Held(HeldLogIn::Connect(proof));
            return self.wait_for_release(shared);
        }
        let Some(startup) = &self.startup else { return };
        let mapped = shared.settings.mapped_user();
        self.progress = if matches!(proof, Proof::Relay) { Progress::Answering } else { Progress::Connecting };
        let user = mapped.as_deref().unwrap_or_else(|| startup.user());
        let log_in = ServerLogIn::new(user, startup_for_server(startup, mapped.as_deref()), proof);
        self.server = Some(shared.connect(Purpose::Session(self.key), log_in));
        self.hold.set_busy(Busy::LogIn, &mut shared.hold);
    }

    /// The hold is over; since when the session had waited, `None` if it had not.
    pub fn released(&mut self, shared: &mut Shared) -> Option<u64> {
        let since_us = self.hold.released()?;
        match std::mem::replace(&mut self.progress, Progress::Connecting) {
            Progress::Held(HeldLogIn::Connect(proof)) => self.connect(proof, shared),
            Progress::Held(HeldLogIn::LookUp) => self.look_up(shared),
            other => {
                self.progress = other;
                self.advance(shared);
            }
        }
        shared.asks.push(Ask::ReadClient(self.key));
        Some(since_us)
    }

    /// The hold is over while the session waits for answers: its next frames need not wait for them any more.
    pub fn released_at_boundary(&mut self, shared: &mut Shared) {
        if self.hold.answers_came() {
            self.advance(shared);
            shared.asks.push(Ask::ReadClient(self.key));
        }
    }

    /// Mode "relay": the server asks the client something.
    pub fn server_asks(&mut self, question: &[u8], shared: &mut Shared) {
        self.client.output.extend_from_slice(question);
        self.flush(shared);
        self.advance(shared);
    }

    /// Mode "relay": the server asks for something that cannot be relayed.
    pub fn server_asks_too_much(&mut self, what: &str, shared: &mut Shared) {
        let message = format!("the server asks for {what}, which Crossfade does not support");
        self.refuse(&Refusal::new("28000", message), shared);
    }

    /// The server has accepted the log-in.
    ///
    /// # Errors
    /// What the server sent behind that is not the protocol.
    pub fn logged_in(&mut self, done: &LoggedIn, shared: &mut Shared) -> Result<(), String> {
        self.client.output.extend_from_slice(&done.greeting);
        encode::backend_key_data(&mut self.client.output, self.id, &self.secret);
        self.client.output.extend_from_slice(&done.ready_for_query);
        self.progress = Progress::Ready(Box::default());
        self.since_us = shared.now.mono_us;
        self.flush(shared);
        self.unit_over(shared);
        shared.asks.push(Ask::ReadClient(self.key));
        self.advance(shared);
        if done.rest.is_empty() { Ok(()) } else { self.forward_server(&done.rest, shared) }
    }

    /// The server connection could not be made, or it broke. The client is told what is known.
    pub fn server_lost(&mut self, side: Side, failure: &Failure, shared: &mut Shared) {
        self.server = None;
        if self.client.is_gone {
            return;
        }
        let name = &shared.settings.plan.endpoint(side).name;
        let expected = |ready: &Ready| ready.server_said_fatal || ready.client_terminated;
        let refusal = match failure {
            Failure::Refused(frame) => {
                shared.counters.replies_error += 1;
                return self.dismiss(frame, shared);
            }
            Failure::Unreachable(why) => {
                Refusal::new("57P03", format!("Crossfade cannot reach {side} '{name}': {why}; nothing was sent"))
            }
            // The server has announced the end (a time-out, an administrator) and the client has read why, or the client asked for it.
            Failure::Lost(_) if self.ready().is_some_and(expected) => return self.dismiss(b"", shared),
            Failure::Lost(why) if self.ready().is_some_and(|ready| ready.tracker.is_busy()) => {
                let text = format!("Crossfade lost {side} '{name}' while a statement was running ({why})");
                Refusal::new("08007", text).hint("Its outcome is unknown: look before repeating it.")
            }
            Failure::Lost(why) => Refusal::new("08006", format!("Crossfade lost {side} '{name}': {why}")),
        };
        self.refuse(&refusal, shared);
    }
}
