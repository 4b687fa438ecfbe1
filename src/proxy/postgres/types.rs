//! The relay's records: one session, one server connection. All live on one core.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use super::server::LogIn;
use crate::contract::{ClientKey, UpstreamKey};
use base::model::{CoreId, Credentials, InterlayName, Md5Hash, Secret, SessionState, Side, StoredSecret};
use wire::postgres::scram::{ClientKey as ScramKey, Nonce, ScramServer};
use wire::postgres::{Copy, Registry, Startup, Tracker, Violation};

/// Randomness out of the seed the operating system gave: SHA-256 over seed and counter.
pub(super) struct Entropy {
    seed: [u8; 32],
    lasting: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Entropy {
    /// `seed` is the process' own; core and interlay make the stream one that nobody else draws from.
    pub fn new(seed: [u8; 32], core: CoreId, interlay: &InterlayName) -> Self {
        let lasting = Sha256::new().chain_update(seed).chain_update(interlay.as_str()).finalize().into();
        let own = Sha256::new().chain_update(lasting).chain_update(core.0.to_be_bytes()).chain_update(b"core");
        Self { seed: own.finalize().into(), lasting, counter: 0 }
    }

    /// The same on every core for the life of the process: what an unknown user is shown must not tell it from a known one.
    pub fn lasting(&self) -> [u8; 32] {
        self.lasting
    }

    pub fn salt_of(&self, user: &str) -> [u8; 16] {
        let drawn: [u8; 32] = Sha256::new().chain_update(self.lasting).chain_update(user).finalize().into();
        std::array::from_fn(|at| drawn[at])
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

/// What a session has under way on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    No,
    /// It is being let in: its secret is looked up, or its server connection is being made.
    LogIn,
    /// A unit of work, or a transaction.
    Unit,
}

/// What a client was asked for.
#[derive(Debug)]
pub(super) enum Question {
    /// `password`: the secret it was made of, where it is known.
    Scram {
        server: Box<ScramServer>,
        password: Option<Secret>,
    },
    Md5 {
        salt: [u8; 4],
        hash: Md5Hash,
        proof: Proof,
    },
}

/// With what a server is logged in to.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    /// No password.
    None,
    Password(Secret),
    Md5(Md5Hash),
    /// The key a client's SCRAM proof revealed, good wherever the verifier is the same.
    Key(ScramKey, Box<base::model::ScramVerifier>),
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
    /// The client broke the protocol while statements it had sent were running: it is told when they are answered.
    pub doomed: Option<Violation>,
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
    /// That frame's type.
    pub client_frame: u8,
    pub server_left: usize,
    /// What it counts as at the gate.
    pub busy: Busy,
    /// Held by the gate, since when.
    pub held_since_us: Option<u64>,
    /// Its next frames wait for answers outstanding, because the gate is closed.
    pub at_boundary: bool,
    /// Since it is idle, or since its unit of work or transaction began.
    pub since_us: u64,
    /// Units of work begun.
    pub units: u64,
    pub last_bound: super::statements::LastBound,
    pub sampled: std::collections::VecDeque<super::statements::Sampled>,
    pub keeps_seen: wire::postgres::Keeps,
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
            doomed: None,
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
            client_frame: 0,
            server_left: 0,
            busy: Busy::No,
            held_since_us: None,
            at_boundary: false,
            since_us: now_us,
            units: 0,
            last_bound: super::statements::LastBound::default(),
            sampled: std::collections::VecDeque::new(),
            keeps_seen: wire::postgres::Keeps::default(),
            fatal_seen: false,
            terminated: false,
        }
    }

    /// Whether the server still runs something that may take effect without the client: whole statements were sent and not answered.
    /// A COPY without its end, an open transaction, a batch without its Sync and a frame cut short end with the connection, without
    /// effect.
    pub fn server_must_finish(&self) -> bool {
        let unanswerable = usize::from(self.client_left > 0 && matches!(self.client_frame, b'Q' | b'F'));
        self.stage == Stage::Ready
            && self.server.is_some()
            && self.tracker.outstanding() > unanswerable
            && !self.tracker.is_feeding()
            && self.tracker.copy() != Copy::Both
    }

    pub fn state(&self) -> SessionState {
        match self.stage {
            _ if self.held_since_us.is_some() => SessionState::Held,
            Stage::Ready => self.tracker.state(),
            Stage::Closing => SessionState::Idle,
            Stage::LookingUp | Stage::Connecting | Stage::Relaying => SessionState::Connecting,
            Stage::Opening | Stage::Securing | Stage::Proving | Stage::AtGate => SessionState::LoggingIn,
        }
    }

    pub fn user(&self) -> &str {
        self.startup.as_ref().map_or("", Startup::user)
    }
}

/// A request to stop what a session's backend is running.
#[derive(Debug)]
pub(super) struct Cancel {
    pub process: u32,
    pub secret: Vec<u8>,
    pub session: ClientKey,
    /// The unit of work it is meant for; later ones are none of its business.
    pub unit: u64,
    pub asker: Option<ClientKey>,
}

/// What a server connection is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Session(ClientKey),
    /// The client that asked is closed when it has been said.
    Cancel(Cancel),
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
    /// The server has asked, and the client has not answered yet.
    pub fn waits_for_client(&self) -> bool {
        self.log_in.as_ref().is_some_and(|log_in| log_in.awaits_client)
    }

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
