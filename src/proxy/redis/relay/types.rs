//! The relay's records: one client, one upstream connection, and what is asked of the caller. All live on one core.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use crate::contract::{ClientKey, UpstreamKey};
use base::model::{Credentials, Side, limits};
use bus::counters::Probe;
use policy::RequestDecision;
use wire::resp::login::{Dialogue, LogIn};
use wire::resp::{ReplyFeed, ReplyStep, RequestProgress};

/// What makes two clients able to share an upstream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolKey {
    pub side: Side,
    pub credentials: Option<Rc<Credentials>>,
    pub database: u32,
    /// 2 or 3.
    pub resp: u8,
}

/// Why a client's input is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Nothing,
    /// It changes path when its outstanding replies are in.
    OwnReplies,
    /// It must take its replies first.
    Output,
    /// Too many commands outstanding.
    Outstanding,
    /// Its upstream connection has too much unsent.
    Upstream(UpstreamKey),
}

/// Where a client's outstanding commands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Shared(UpstreamKey),
    Pinned,
    Lane,
    /// Nothing outstanding, or answered here.
    Here,
}

/// A MULTI block being queued.
#[derive(Debug, Default)]
pub struct Transaction {
    pub frames: Vec<u8>,
    pub count: usize,
    /// A queued command was refused: EXEC answers EXECABORT.
    pub aborted: bool,
    /// The block is open on a pinned connection; `frames` is a copy in case dual operation begins.
    pub on_server: bool,
    /// Too large to be copied: if dual operation begins the client must be closed.
    pub too_large: bool,
}

/// What CLIENT REPLY says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command has no reply.
    SkipNext,
}

/// One client connection.
#[derive(Debug)]
pub struct Client {
    /// CLIENT ID.
    pub id: u64,
    pub input: Vec<u8>,
    pub progress: RequestProgress,
    pub output: Vec<u8>,
    /// It is in the relay's list of clients to be flushed.
    pub output_ready: bool,
    pub path: Path,
    pub outstanding: u32,
    pub wait: Wait,
    pub closing: bool,
    /// Whether it speaks TLS is known: its first byte told.
    pub encryption_settled: bool,
    // session
    pub database: u32,
    pub resp: u8,
    pub credentials: Option<Rc<Credentials>>,
    pub name: Vec<u8>,
    pub reply_mode: ReplyMode,
    /// Bytes handed to the lane since nothing was outstanding.
    pub lane_bytes: usize,
    /// For each outstanding lane command, oldest first, whether its reply is to be dropped. Empty while nothing is muted.
    pub muted: VecDeque<bool>,
    pub transaction: Option<Transaction>,
    /// WATCH is in force (on the pinned connection, or in the lane).
    pub watching: bool,
    /// WATCH was in force when dual operation began or ended: the next EXEC must abort.
    pub watch_lost: bool,
    pub pinned: Option<UpstreamKey>,
    /// The pinned connection's bytes go to the client as they come (SUBSCRIBE, MONITOR).
    pub raw: bool,
    /// What it is subscribed to: (command that subscribes, channel or pattern).
    pub subscriptions: BTreeSet<(&'static str, Vec<u8>)>,
    /// Confirmations of subscriptions made again on another server, still to be kept from the client.
    pub resubscribing: usize,
    /// A large request on its way through.
    pub streaming: Option<ReplyFeed>,
    /// The blocking request sent on the pinned connection, to be sent again after a change of plan.
    pub blocked: Option<Vec<u8>>,
    /// An UNBLOCK was asked for: a nil reply means "send it again".
    pub unblocking: bool,
    /// What the mirror policy said of the command at the front of `input`, which has to wait.
    pub decided: Option<RequestDecision>,
}

impl Client {
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            input: Vec::new(),
            progress: RequestProgress::default(),
            output: Vec::new(),
            output_ready: false,
            path: Path::Here,
            outstanding: 0,
            wait: Wait::Nothing,
            closing: false,
            encryption_settled: false,
            database: 0,
            resp: 2,
            credentials: None,
            name: Vec::new(),
            reply_mode: ReplyMode::On,
            lane_bytes: 0,
            muted: VecDeque::new(),
            transaction: None,
            watching: false,
            watch_lost: false,
            pinned: None,
            raw: false,
            subscriptions: BTreeSet::new(),
            resubscribing: 0,
            streaming: None,
            blocked: None,
            unblocking: false,
            decided: None,
        }
    }

    /// Whether the reply to the command being dispatched is to be dropped.
    pub fn mute_this(&mut self) -> bool {
        match self.reply_mode {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.reply_mode = ReplyMode::On;
                true
            }
        }
    }

    /// Notes one more outstanding lane command.
    pub fn note_lane_command(&mut self) {
        let mute = self.mute_this();
        if mute && self.muted.is_empty() {
            self.muted.extend(std::iter::repeat_n(false, self.outstanding as usize));
        }
        if mute || !self.muted.is_empty() {
            self.muted.push_back(mute);
        }
        self.outstanding += 1;
    }

    /// How many of the oldest `count` replies are looked at one by one because one of them may be muted; 0 when none is.
    pub fn take_muted(&mut self, count: u32) -> usize {
        if self.muted.is_empty() { 0 } else { count as usize }
    }

    /// Appends replies that are not muted.
    pub fn append_unmuted(&mut self, mut bytes: &[u8], count: usize) {
        for _ in 0..count {
            let ReplyStep::Complete { consumed, .. } = ReplyFeed::default().feed(bytes) else { return };
            if !self.muted.pop_front().unwrap_or(false) {
                self.output.extend_from_slice(&bytes[..consumed]);
            }
            bytes = &bytes[consumed..];
        }
    }
}

/// What to do with one reply of an upstream connection.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// Goes to the client.
    Forward(ClientKey),
    /// Counts for the client but is not sent (CLIENT REPLY OFF).
    Mute(ClientKey),
    /// Belongs to nobody (DISCARD, UNSUBSCRIBE of our own).
    Swallow,
    /// AUTH, HELLO, SELECT: the session changes if the reply is not an error.
    Session(ClientKey, Box<SessionChange>),
    /// A blocking command on the client's pinned connection.
    Blocking(ClientKey),
}

/// A change of session that the server must agree to.
#[derive(Debug, Clone)]
pub struct SessionChange {
    pub credentials: Option<Rc<Credentials>>,
    pub database: u32,
    pub resp: u8,
    pub name: Option<Vec<u8>>,
    /// HELLO: the reply's `id` is replaced by the session's.
    pub is_hello: bool,
}

/// A log-in that waits for its answers.
#[derive(Debug)]
pub struct LoggingIn {
    pub log_in: LogIn,
    pub dialogue: Dialogue,
    /// Still to be sent; what clients want sent waits behind it.
    pub output: Vec<u8>,
}

/// One upstream connection.
#[derive(Debug)]
pub struct Upstream {
    pub key: PoolKey,
    /// `None`: shared.
    pub owner: Option<ClientKey>,
    pub connected: bool,
    /// While it is being made: the socket may not be open yet, or the server has not answered the log-in.
    pub log_in: Option<LoggingIn>,
    /// CLIENT ID on the server; 0 when it was not asked for.
    pub server_client_id: u64,
    pub output: Vec<u8>,
    /// It is in the relay's list of connections to be flushed.
    pub output_ready: bool,
    /// It is there once more, because there is much to be sent.
    pub hurried: bool,
    pub awaited: VecDeque<Awaited>,
    pub probe: Probe,
    pub feed: ReplyFeed,
    /// Bytes of a reply that is looked at as a whole before anything is sent.
    pub gathered: Vec<u8>,
    /// Clients that wait until the output has been sent.
    pub stalled: Vec<ClientKey>,
    /// It was made under a plan that is no longer in force and is closed when its last reply is in.
    pub retired: bool,
}

impl Upstream {
    #[must_use]
    pub fn new(key: PoolKey, owner: Option<ClientKey>) -> Self {
        Self {
            key,
            owner,
            connected: false,
            log_in: None,
            server_client_id: 0,
            output: Vec::new(),
            output_ready: false,
            hurried: false,
            awaited: VecDeque::new(),
            probe: Probe::default(),
            feed: ReplyFeed::default(),
            gathered: Vec::new(),
            stalled: Vec::new(),
            retired: false,
        }
    }

    /// Its requests are not to wait for those of clients not heard yet.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.owner.is_some() || self.output.len() >= limits::UPSTREAM_FLUSH_BYTES
    }
}
