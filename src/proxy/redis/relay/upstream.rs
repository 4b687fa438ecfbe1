//! One connection to a server: what is sent on it, what replies are awaited, and who shares it. Lives on one core.

use std::collections::VecDeque;
use std::rc::Rc;

use super::pushes::Confirmations;
use super::session::{InBlock, SessionChange};
use crate::contract::{ClientKey, UpstreamKey};
use base::model::{Credentials, Side, limits};
use base::stdx::slab::Slab;
use base::stdx::spares::Spares;
use bus::counters::Probe;
use wire::resp::ReplyFeed;
use wire::resp::login::{Dialogue, LogIn};

/// What makes two clients able to share an upstream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolKey {
    pub side: Side,
    pub credentials: Option<Rc<Credentials>>,
    pub database: u32,
    /// 2 or 3.
    pub resp: u8,
}

/// What to do with one reply of an upstream connection.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// Goes to the client.
    Forward(ClientKey),
    /// Counts for the client but is not sent (CLIENT REPLY OFF).
    Mute(ClientKey),
    /// Belongs to no client (a DISCARD or UNBLOCK of the relay's own).
    Swallow,
    /// Tells the relay which connections the server has blocked.
    BlockedList,
    /// AUTH, HELLO, SELECT: the session changes if the reply is not an error.
    Session(ClientKey, Box<SessionChange>),
    /// SCAN and its like: the cursor is marked with the server it is of.
    Scan(ClientKey),
    /// A blocking command on the client's pinned connection.
    Blocking(ClientKey),
    /// A command that subscribes or unsubscribes: answered by pushes, or by one error.
    Confirmations(ClientKey, Box<Confirmations>),
    /// CLIENT TRACKING: what is in force if the reply is no error.
    Tracking(ClientKey, Option<Vec<u8>>),
    /// EXEC of a block with commands that change the session.
    Exec(ClientKey, Box<InBlock>),
}

impl Awaited {
    /// The client that waits for the reply.
    #[must_use]
    pub fn client(&self) -> Option<ClientKey> {
        match self {
            Self::Forward(client)
            | Self::Mute(client)
            | Self::Scan(client)
            | Self::Session(client, _)
            | Self::Confirmations(client, _)
            | Self::Exec(client, _)
            | Self::Tracking(client, _)
            | Self::Blocking(client) => Some(*client),
            Self::Swallow | Self::BlockedList => None,
        }
    }
}

/// A log-in that waits for its answers.
#[derive(Debug)]
pub struct LoggingIn {
    pub log_in: LogIn,
    pub dialogue: Dialogue,
    /// Still to be sent; what clients want sent waits behind it.
    pub output: Vec<u8>,
}

/// How a connection is listed among those to be flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listed {
    No,
    /// Flushed when all clients that are ready have been read.
    InTurn,
    /// Listed again as urgent: flushed at once.
    Urgent,
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
    pub listed: Listed,
    pub awaited: VecDeque<Awaited>,
    pub probe: Probe,
    /// When it last was known to have nothing to say, or said something.
    pub heard_us: u64,
    /// How long the server usually takes to answer.
    pub usual_us: u64,
    pub feed: ReplyFeed,
    /// Bytes of a reply that is looked at as a whole before anything is sent.
    pub gathered: Vec<u8>,
    /// Clients that wait until the output has been sent.
    pub stalled: Vec<ClientKey>,
    /// It was made under a plan that is no longer in force and is closed when its last reply is in.
    pub retired: bool,
    /// Its client has left something on it that no other may find.
    pub marked: bool,
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
            listed: Listed::No,
            awaited: VecDeque::new(),
            probe: Probe::default(),
            heard_us: 0,
            usual_us: 0,
            feed: ReplyFeed::default(),
            gathered: Vec::new(),
            stalled: Vec::new(),
            retired: false,
            marked: false,
        }
    }

    /// A request is about to be awaited.
    #[inline]
    pub fn asked(&mut self, now_us: u64) {
        if self.awaited.is_empty() {
            self.heard_us = now_us;
        }
    }

    /// The server took this long to answer; one answer that took very long says little about the next.
    pub fn took(&mut self, latency_us: u64) {
        self.usual_us =
            if self.usual_us == 0 { latency_us } else { (self.usual_us * 7 + latency_us.min(self.usual_us * 4)) / 8 };
    }

    /// See [`super::shared::Shared::is_silent`].
    #[must_use]
    pub fn is_silent(&self, now_us: u64) -> bool {
        let patience_us = limits::SHARED_SILENCE_US.max(self.usual_us * limits::SHARED_SILENCE_TIMES);
        self.connected
            && self.owner.is_none()
            && !self.awaited.is_empty()
            && self.output.is_empty()
            && now_us.saturating_sub(self.heard_us) > patience_us
    }

    /// Moves its unsent bytes out: those of its log-in first, what clients want sent when it is ready.
    pub fn take_output(&mut self, spares: &mut Spares) -> Option<Vec<u8>> {
        if let Some(logging_in) = self.log_in.as_mut() {
            let output = std::mem::take(&mut logging_in.output);
            return (!output.is_empty()).then_some(output);
        }
        if !self.connected {
            return None;
        }
        self.listed = Listed::No;
        (!self.output.is_empty()).then(|| std::mem::replace(&mut self.output, spares.take()))
    }

    /// Its requests should not wait for those of clients not read yet.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.owner.is_some() || self.output.len() >= limits::UPSTREAM_FLUSH_BYTES
    }

    /// So much is unsent that its clients are not read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.output.len() > limits::UPSTREAM_OUTPUT_SOFT_BYTES
    }

    /// Made under an old plan, and nothing on it is awaited any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.retired && self.awaited.is_empty() && self.owner.is_none()
    }
}

/// All upstream connections of one relay.
#[derive(Debug, Default)]
pub struct Upstreams {
    pub all: Slab<Upstream>,
    /// Shared connections; few, so searched from the front.
    pub shared: Vec<(PoolKey, UpstreamKey)>,
    pub idle_pinned: Vec<(PoolKey, UpstreamKey)>,
    /// Until when clients have asked the server to hold commands (CLIENT PAUSE), by our clock; 0: not.
    pub paused_until_us: u64,
    /// Once shared, and on which a reply is overdue.
    pub replaced: Vec<UpstreamKey>,
    /// Those with bytes to be sent.
    pub ready: Vec<UpstreamKey>,
}

impl Upstreams {
    pub fn get(&self, key: UpstreamKey) -> Option<&Upstream> {
        self.all.get(key)
    }

    pub fn get_mut(&mut self, key: UpstreamKey) -> Option<&mut Upstream> {
        self.all.get_mut(key)
    }

    /// Forgets a connection.
    pub fn remove(&mut self, key: UpstreamKey) -> Option<Upstream> {
        let upstream = self.all.remove(key)?;
        self.shared.retain(|(_, shared)| *shared != key);
        self.idle_pinned.retain(|(_, idle)| *idle != key);
        self.replaced.retain(|replaced| *replaced != key);
        Some(upstream)
    }

    /// Whether one more shared connection may be replaced by another.
    #[must_use]
    pub fn may_replace(&self) -> bool {
        self.replaced.len() < limits::SHARED_REPLACED_MAX
    }

    /// Something was appended to its output: lists it among the ready, and again when it becomes urgent.
    pub fn has_output(&mut self, key: UpstreamKey) {
        let Some(upstream) = self.all.get_mut(key) else { return };
        if !upstream.connected || upstream.output.is_empty() {
            return;
        }
        let wanted = if upstream.is_urgent() { Listed::Urgent } else { Listed::InTurn };
        if upstream.listed < wanted {
            upstream.listed = wanted;
            self.ready.push(key);
        }
    }
}
