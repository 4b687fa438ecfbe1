//! One client's session: who the client is, how far it has got, and its two connections. What happens in each state is in a file of its
//! own: `opening`, `login`, `forward`.
//!
//! Without I/O; lives on one core, in its relay.

use std::net::SocketAddr;

use super::hold::{Busy, SessionHold};
use super::proof::{Challenge, Proof};
use super::refusal::Refusal;
use super::shared::Shared;
use super::statements::Statements;
use crate::contract::{Ask, ClientKey, UpstreamKey};
use base::model::{SessionInfo, SessionState, limits};
use base::stdx::clock::Now;
use wire::postgres::scram::TlsEnds;
use wire::postgres::{Copy, Startup, Tracker, Violation};

/// How far a session is.
#[derive(Debug)]
pub enum Progress {
    /// Encryption requests, and the startup packet.
    Opening(OpeningPackets),
    /// TLS is being agreed on.
    Securing(TlsBegun),
    /// The client's secret is being looked up on the server.
    LookingUp,
    /// The client has been asked to prove who it is.
    Proving(Challenge),
    /// A hold makes the log-in wait before its next step on the server.
    Held(HeldLogIn),
    /// The client has proven who it is, and its server connection is being made.
    Connecting,
    /// Mode "relay": the server asks and the client answers, through Crossfade.
    Answering,
    /// Logged in: frames pass.
    Ready(Box<Ready>),
    /// The client asked for a statement to be cancelled. Nothing more is taken from it.
    Cancelling,
    /// The client has been told why its connection ends.
    Closing,
}

/// What has come of a session's first packets.
#[derive(Debug, Default)]
pub struct OpeningPackets {
    /// Encryption requests that were answered.
    pub encryption_requests: u8,
}

/// How the client began TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsBegun {
    /// It sent an SSLRequest first.
    OnRequest,
    /// It sent its handshake at once (`sslnegotiation=direct`).
    Directly,
}

/// The step of a log-in that waits for the end of a hold.
#[derive(Debug)]
pub enum HeldLogIn {
    LookUp,
    Connect(Proof),
}

/// A session that is logged in.
#[derive(Debug, Default)]
pub struct Ready {
    pub tracker: Tracker,
    pub statements: Statements,
    /// Bytes still to come from the client of a frame whose head has passed.
    pub client_left: usize,
    /// That frame's type.
    pub client_tag: u8,
    /// Bytes still to come from the server of a frame whose head has passed.
    pub server_left: usize,
    /// The beginning of a server's frame that has not passed.
    pub server_input: Vec<u8>,
    /// Units of work begun.
    pub units: u64,
    /// The client broke the protocol while statements it had sent were running. It is told when they are answered.
    pub violation: Option<Violation>,
    /// The server has said that it ends the session.
    pub server_said_fatal: bool,
    /// The client has sent Terminate: that its server goes away is what it wants.
    pub client_terminated: bool,
}

impl Ready {
    /// Whether the server still runs something that may take effect without the client: whole statements were sent and not answered.
    /// A COPY without its end, an open transaction, a batch without its Sync and a frame cut short end with the connection, without
    /// effect.
    fn server_must_finish(&self) -> bool {
        let unanswerable = usize::from(self.client_left > 0 && matches!(self.client_tag, b'Q' | b'F'));
        self.tracker.outstanding() > unanswerable && !self.tracker.is_feeding() && self.tracker.copy() != Copy::Both
    }
}

/// The connection to the client.
#[derive(Debug, Default)]
pub struct ClientEnd {
    /// What arrived and was not taken yet.
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// It is in the list of clients to be flushed.
    pub output_ready: bool,
    /// The connection is gone; the session remains until the server has finished what it was sent.
    pub is_gone: bool,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// Its own key in the relay.
    pub key: ClientKey,
    /// The process id that the client is given.
    pub id: u32,
    /// The key that the client must show to cancel.
    pub secret: Vec<u8>,
    peer: Option<SocketAddr>,
    pub startup: Option<Startup>,
    pub tls: TlsEnds,
    pub progress: Progress,
    pub client: ClientEnd,
    pub server: Option<UpstreamKey>,
    pub hold: SessionHold,
    /// Since when the session is idle, or when its unit of work or transaction began.
    pub since_us: u64,
}

impl Session {
    /// A client that has just connected. The relay sets `key` when it knows it.
    pub fn new(id: u32, secret: Vec<u8>, peer: Option<SocketAddr>, now: Now) -> Self {
        Self {
            key: ClientKey::from_u64(u64::MAX),
            id,
            secret,
            peer,
            startup: None,
            tls: TlsEnds::Nowhere,
            progress: Progress::Opening(OpeningPackets::default()),
            client: ClientEnd::default(),
            server: None,
            hold: SessionHold::default(),
            since_us: now.mono_us,
        }
    }

    /// Empty until the startup packet has arrived.
    pub fn user(&self) -> &str {
        self.startup.as_ref().map_or("", Startup::user)
    }

    pub fn ready(&self) -> Option<&Ready> {
        match &self.progress {
            Progress::Ready(ready) => Some(ready),
            Progress::Opening(_)
            | Progress::Securing(_)
            | Progress::LookingUp
            | Progress::Proving(_)
            | Progress::Held(_)
            | Progress::Connecting
            | Progress::Answering
            | Progress::Cancelling
            | Progress::Closing => None,
        }
    }

    /// It is closed when its output is sent.
    pub fn is_closing(&self) -> bool {
        matches!(self.progress, Progress::Closing)
    }

    /// Nothing more is taken from the client, whatever it sends.
    pub fn is_deaf(&self) -> bool {
        match &self.progress {
            Progress::Closing => true,
            Progress::Ready(ready) => ready.violation.is_some(),
            Progress::Opening(_)
            | Progress::Securing(_)
            | Progress::LookingUp
            | Progress::Proving(_)
            | Progress::Held(_)
            | Progress::Connecting
            | Progress::Answering
            | Progress::Cancelling => false,
        }
    }

    /// Whether the client's socket may be read. A held session is not read, so that its bytes wait in the kernel.
    pub fn may_be_read(&self) -> bool {
        !self.is_deaf()
            && !matches!(self.progress, Progress::Cancelling)
            && self.hold.held_since_us().is_none()
            && !self.hold.waits_for_answers()
            && self.client.input.len() < limits::SESSION_BUFFER_SOFT_BYTES
    }

    /// Whether the server still runs something that may take effect without the client.
    pub fn server_must_finish(&self) -> bool {
        self.server.is_some() && self.ready().is_some_and(Ready::server_must_finish)
    }

    /// The client is gone and nothing that it sent is running: the relay forgets the session.
    pub fn is_over(&self) -> bool {
        self.client.is_gone && !self.server_must_finish()
    }

    /// Whether its log-in has begun and not ended.
    pub fn is_logging_in(&self) -> bool {
        match self.progress {
            Progress::Ready(_) | Progress::Cancelling | Progress::Closing => false,
            Progress::Opening(_)
            | Progress::Securing(_)
            | Progress::LookingUp
            | Progress::Proving(_)
            | Progress::Held(_)
            | Progress::Connecting
            | Progress::Answering => true,
        }
    }

    // ---- its end ----------------------------------------------------------------------------------------------------------

    /// The client's connection is gone.
    pub fn client_gone(&mut self, shared: &mut Shared) {
        self.client = ClientEnd { is_gone: true, ..ClientEnd::default() };
        // What was sent still runs on the server, and a hold must wait for it.
        if self.server_must_finish() {
            shared.asks.extend(self.server.map(Ask::ReadUpstream));
        }
    }

    /// Whether a hold makes its log-in wait.
    pub fn is_held_log_in(&self) -> bool {
        matches!(self.progress, Progress::Held(_))
    }

    /// The time for a log-in is over. A log-in that a hold makes wait is not late by its own fault.
    pub fn end_late_log_in(&mut self, shared: &mut Shared) {
        if self.is_logging_in() && !self.is_held_log_in() {
            let message = format!("log-in not finished within {} s", limits::PG_LOG_IN_TIMEOUT.as_secs());
            self.refuse(&Refusal::new("08P01", message), shared);
        }
    }

    // ---- output -----------------------------------------------------------------------------------------------------------

    /// Queues bytes for the client.
    #[inline]
    pub fn send(&mut self, bytes: &[u8], shared: &mut Shared) {
        // They have no reader when the client is gone.
        if !self.client.is_gone {
            self.client.output.extend_from_slice(bytes);
            self.flush(shared);
        }
    }

    /// Lists the session among those to be flushed, if it has something to say or to be closed.
    #[inline]
    pub fn flush(&mut self, shared: &mut Shared) {
        let wants = !self.client.output.is_empty() || self.is_closing();
        if wants && !self.client.output_ready && !self.client.is_gone {
            self.client.output_ready = true;
            shared.ready_clients.push(self.key);
        }
    }

    /// Tells the client why, and ends its connection when it has been told.
    pub fn refuse(&mut self, refusal: &Refusal, shared: &mut Shared) {
        shared.counters.replies_refused += 1;
        self.dismiss(&refusal.frame(), shared);
    }

    /// Refuses because the client broke the protocol.
    pub fn refuse_protocol_error(&mut self, refusal: &Refusal, shared: &mut Shared) {
        shared.count_protocol_error();
        self.refuse(refusal, shared);
    }

    /// Sends a last frame, unless it would fall into the middle of another, and ends the connection.
    pub fn dismiss(&mut self, last: &[u8], shared: &mut Shared) {
        if self.ready().is_none_or(|ready| ready.server_left == 0) && !self.client.is_gone {
            self.client.output.extend_from_slice(last);
        }
        self.client.input = Vec::new();
        self.progress = Progress::Closing;
        if let Some(server) = self.server.take() {
            shared.close_server(server);
        }
        self.hold.set_busy(Busy::No, &mut shared.hold);
        self.flush(shared);
    }

    /// Crossfade is being stopped.
    pub fn say_shutdown(&mut self, shared: &mut Shared) {
        let message = "terminating connection: Crossfade is being stopped";
        self.refuse(&Refusal::new("57P01", message), shared);
    }

    // ---- units of work ----------------------------------------------------------------------------------------------------

    /// Nothing is outstanding and no transaction is open.
    pub fn unit_over(&mut self, shared: &mut Shared) {
        if self.hold.busy() != Busy::No {
            self.since_us = shared.now.mono_us;
            self.hold.set_busy(Busy::No, &mut shared.hold);
        }
        if shared.draining && !self.client.is_gone {
            self.say_shutdown(shared);
        }
    }

    /// The session waits for the end of a hold.
    pub fn wait_for_release(&mut self, shared: &mut Shared) {
        self.hold.wait_for_release(self.key, shared.now.mono_us, &mut shared.hold);
    }

    // ---- for a list of sessions -------------------------------------------------------------------------------------------

    pub fn state(&self) -> SessionState {
        match &self.progress {
            _ if self.hold.held_since_us().is_some() => SessionState::Held,
            Progress::Ready(ready) => ready.tracker.state(),
            Progress::Closing | Progress::Cancelling => SessionState::Idle,
            Progress::LookingUp | Progress::Connecting | Progress::Answering => SessionState::Connecting,
            Progress::Opening(_) | Progress::Securing(_) | Progress::Proving(_) | Progress::Held(_) => {
                SessionState::LoggingIn
            }
        }
    }

    pub fn info(&self, now: Now) -> SessionInfo {
        let startup = self.startup.as_ref();
        let text =
            |text: Option<&str>| text.unwrap_or_default().chars().take(limits::NAME_BYTES_MAX).collect::<String>();
        let since_us = self.hold.held_since_us().unwrap_or(self.since_us);
        let mut application = text(startup.map(Startup::application_name));
        if self.client.is_gone {
            application.push_str(" (client gone)");
        }
        SessionInfo {
            id: self.id,
            user: text(startup.map(Startup::user)),
            database: text(startup.map(Startup::database)),
            application,
            peer: self.peer,
            state: self.state(),
            age_us: now.mono_us.saturating_sub(since_us),
            keeps: self.ready().map(|ready| ready.statements.keeps_seen()).unwrap_or_default(),
        }
    }
}
