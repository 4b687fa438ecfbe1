//! The relay's records: one session, one server connection. All live on one core.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use super::server::LogIn;
use crate::model::{Credentials, Md5Hash, Secret, SessionState, Side, StoredSecret};
use crate::protocol::postgres::scram::{ClientKey as ScramKey, Nonce, ScramServer};
use crate::protocol::postgres::{Registry, Startup, Tracker};
use crate::relay::{ClientKey, UpstreamKey};

/// Randomness out of the seed the operating system gave: SHA-256 over seed and counter.
pub(super) struct Entropy {
    seed: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Entropy {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// The seed of what must be the same each time, such as the answer to an unknown user.
    pub fn lasting(&self) -> [u8; 32] {
        Sha256::new().chain_update(self.seed).chain_update(b"lasting").finalize().into()
    }

    pub fn draw(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into()
    }

    pub fn nonce(&mut self) -> Nonce {
        let drawn = self.draw();
        std::array::from_fn(|at| drawn[at])
    }
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Encryption requests and the startup packet.
    Opening,
    /// TLS is being agreed on.
    Securing,
    /// Its secret is being asked for on the server.
    LookingUp,
    /// It is being asked for its password.
    Proving,
    /// Proven, and held by a closed gate before a server connection is made.
    AtGate,
    /// Proven; its server connection is being made.
    Connecting,
    /// The server asks and the client answers, through us.
    Relaying,
    Ready,
    /// It has been told why.
    Closing,
}

/// What a client was asked for.
#[derive(Debug)]
pub(super) enum Question {
    Scram(Box<ScramServer>),
    Md5 { salt: [u8; 4], hash: Md5Hash, proof: Proof },
}

/// With what a server is logged in to.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    /// No password.
    None,
    Password(Secret),
    Md5(Md5Hash),
    /// The key a client's SCRAM proof revealed, good wherever the verifier is the same.
    Key(ScramKey, Box<crate::model::ScramVerifier>),
    /// The client answers the server's questions itself.
    Relay,
}

impl Proof {
    /// What an auth file's line is good for without the client's help.
    pub fn of_secret(secret: Option<&StoredSecret>) -> Self {
        match secret {
            Some(StoredSecret::Plain(password)) => Self::Password(password.clone()),
            Some(StoredSecret::Md5(hash)) => Self::Md5(hash.clone()),
            Some(StoredSecret::Scram(_)) | None => Self::None,
        }
    }

    pub fn of_credentials(credentials: &Credentials) -> Self {
        if credentials.password.expose().is_empty() { Self::None } else { Self::Password(credentials.password.clone()) }
    }
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    /// The process id the client is given, and the key it must show to cancel.
    pub id: u32,
    pub secret: Vec<u8>,
    pub peer: Option<SocketAddr>,
    pub stage: Stage,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// It is in the relay's list of clients to be flushed.
    pub output_ready: bool,
    /// It is closed when its output is sent.
    pub closing: bool,
    /// The client is away; the server is finishing what it was sent.
    pub client_gone: bool,
    /// Bytes of the server swallowed since then.
    pub swallowed: usize,
    pub secured: bool,
    /// TLS was begun without asking.
    pub direct_tls: bool,
    /// Encryption requests answered.
    pub requests: u8,
    pub startup: Option<Startup>,
    pub question: Option<Question>,
    pub proof: Option<Proof>,
    pub server: Option<UpstreamKey>,
    pub tracker: Tracker,
    pub registry: Registry,
    /// Bytes of a frame, whose head has passed, still to come from the client and from the server.
    pub client_left: usize,
    pub server_left: usize,
    /// It counts as busy at the gate: logging in to the server, or inside a unit of work or transaction.
    pub busy: bool,
    /// Held by the gate, since when.
    pub held_since_us: Option<u64>,
    /// Its next frames wait for answers outstanding, because the gate is closed.
    pub at_boundary: bool,
    /// Since it is idle, or since its unit of work or transaction began.
    pub since_us: u64,
    pub last_bound: super::statements::LastBound,
    pub sampled: Option<super::statements::Sampled>,
    pub keeps_seen: crate::protocol::postgres::Keeps,
    /// The server has said that it ends the session.
    pub fatal_seen: bool,
    /// The client has said goodbye: that its server goes away is what it wants.
    pub terminated: bool,
}

impl Session {
    pub fn new(id: u32, secret: Vec<u8>, peer: Option<SocketAddr>, now_us: u64) -> Self {
        Self {
            id,
            secret,
            peer,
            stage: Stage::Opening,
            input: Vec::new(),
            output: Vec::new(),
            output_ready: false,
            closing: false,
            client_gone: false,
            swallowed: 0,
            secured: false,
            direct_tls: false,
            requests: 0,
            startup: None,
            question: None,
            proof: None,
            server: None,
            tracker: Tracker::new(),
            registry: Registry::default(),
            client_left: 0,
            server_left: 0,
            busy: false,
            held_since_us: None,
            at_boundary: false,
            since_us: now_us,
            last_bound: super::statements::LastBound::default(),
            sampled: None,
            keeps_seen: crate::protocol::postgres::Keeps::default(),
            fatal_seen: false,
            terminated: false,
        }
    }

    /// Whether the server still runs something that may take effect although the client is gone: whole statements were sent and not
    /// answered. A COPY without its end, an open transaction and a batch without its Sync end with the connection, without effect.
    pub fn server_must_finish(&self) -> bool {
        use crate::protocol::postgres::Copy;
        self.stage == Stage::Ready
            && self.server.is_some()
            && self.client_left == 0
            && self.tracker.outstanding() > 0
            && matches!(self.tracker.copy(), Copy::None | Copy::Out)
    }

    pub fn state(&self) -> SessionState {
        match self.stage {
            _ if self.held_since_us.is_some() => SessionState::Held,
            Stage::Ready => self.tracker.state(),
            Stage::Closing => SessionState::Idle,
            Stage::Opening
            | Stage::Securing
            | Stage::LookingUp
            | Stage::Proving
            | Stage::AtGate
            | Stage::Connecting
            | Stage::Relaying => SessionState::LoggingIn,
        }
    }

    pub fn user(&self) -> &str {
        self.startup.as_ref().map_or("", Startup::user)
    }
}

/// What a server connection is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Session(ClientKey),
    /// To stop what the backend with this process id is running; the client that asked is closed when that is said.
    Cancel {
        process: u32,
        secret: Vec<u8>,
        asker: Option<ClientKey>,
    },
    /// To ask for users' secrets.
    Lookup,
}

/// How far a server connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerStage {
    /// The socket is not open yet.
    Opening,
    /// An SSLRequest was sent.
    TlsAsked,
    Securing,
    LoggingIn,
    Ready,
}

/// One server connection.
#[derive(Debug)]
pub(super) struct Server {
    pub purpose: Purpose,
    pub side: Side,
    pub stage: ServerStage,
    /// A frame that is not whole yet.
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    pub output_ready: bool,
    pub log_in: Option<LogIn>,
    /// The backend's real process id and cancel key.
    pub backend: Option<(u32, Vec<u8>)>,
}

impl Server {
    pub fn new(purpose: Purpose, side: Side, log_in: Option<LogIn>) -> Self {
        Self {
            purpose,
            side,
            stage: ServerStage::Opening,
            input: Vec::new(),
            output: Vec::new(),
            output_ready: false,
            log_in,
            backend: None,
        }
    }
}
