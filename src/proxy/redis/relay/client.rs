//! One client connection: its input and output, its session, and what it has outstanding. Lives on one core.
//!
//! What a request does is in `dispatch` and the files it calls, each with `impl Client`.

use std::collections::VecDeque;

use super::blocked::{Blocked, BlockedState};
use super::path::{Path, Step, Wait};
use super::pushes::PushStream;
use super::session::{InBlock, Session};
use super::shared::Shared;
use super::withheld::Withheld;
use crate::contract::{Ask, ClientKey, UpstreamKey};
use base::model::limits;
use policy::RequestDecision;
use wire::resp::command::Command;
use wire::resp::effect::is_nil;
use wire::resp::{ReplyFeed, ReplyStep, RequestProgress};

/// How a server answers a blocking command that was ended with CLIENT UNBLOCK … ERROR.
const UNBLOCKED: &[u8] = b"-UNBLOCKED ";

/// What a client has sent and is not dispatched yet.
#[derive(Debug, Default)]
pub struct Input {
    pub bytes: Vec<u8>,
    /// How far the request at the front has been scanned.
    pub progress: RequestProgress,
    /// What the mirror policy said of the command at the front, which has to wait.
    pub decided: Option<RequestDecision>,
    /// A large request on its way through: where it ends.
    pub large: Option<ReplyFeed>,
    /// Its place among the clients that wait for the release of a hold.
    pub held: Option<u64>,
    /// The client sends no more.
    pub ended: bool,
    /// Whether the client speaks TLS is known: its first byte told.
    pub encryption_settled: bool,
}

/// Bytes for a client.
#[derive(Debug, Default)]
pub struct Output {
    pub bytes: Vec<u8>,
    /// It is in the relay's list of clients to be flushed.
    pub listed: bool,
}

/// What a client has in the lane.
#[derive(Debug, Default)]
pub struct LaneUse {
    /// Bytes handed over since nothing was outstanding.
    pub bytes: usize,
    /// For each outstanding command, oldest first, whether its reply is to be dropped. Empty while nothing is muted.
    muted: VecDeque<bool>,
}

/// Where a MULTI block is being queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPlace {
    /// In the relay.
    Here,
    /// On a pinned connection; the block kept here is a copy in case dual operation begins.
    OnServer,
    /// As before, but too large to be copied: if dual operation begins the client is closed.
    OnServerOnly,
}

/// A MULTI block being queued.
#[derive(Debug)]
pub struct Transaction {
    pub place: BlockPlace,
    pub frames: Vec<u8>,
    /// One for each of the frames.
    pub commands: Vec<&'static Command>,
    /// A queued command was refused: EXEC answers EXECABORT.
    pub aborted: bool,
    /// How many were sent to the server.
    pub count: usize,
    /// Those of them that change the session.
    pub session: InBlock,
}

impl Transaction {
    #[must_use]
    pub fn new(place: BlockPlace) -> Self {
        Self { place, frames: Vec::new(), commands: Vec::new(), aborted: false, count: 0, session: InBlock::default() }
    }

    /// Whether the block can still grow by a frame of this size.
    #[must_use]
    pub fn has_room(&self, frame: &[u8]) -> bool {
        self.frames.len() + frame.len() <= limits::TRANSACTION_BYTES_MAX
    }

    pub fn push(&mut self, command: &'static Command, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
        self.commands.push(command);
    }
}

/// What is known of a client's WATCH.
#[derive(Debug, Default)]
pub struct Watch {
    /// In force, on the pinned connection or in the lane.
    pub active: bool,
    /// One was in force when dual operation began or ended: the next EXEC must abort.
    pub lost: bool,
}

/// One client connection.
#[derive(Debug)]
pub struct Client {
    pub key: ClientKey,
    pub session: Session,
    pub input: Input,
    pub output: Output,
    pub path: Path,
    pub outstanding: u32,
    pub wait: Wait,
    /// It is closed when its replies have been sent.
    pub closing: bool,
    pub lane: LaneUse,
    pub transaction: Option<Transaction>,
    pub watch: Watch,
    pub pinned: Option<UpstreamKey>,
    /// It shares no connection any more: it was told of itself what is true of its own only, or has changed it.
    pub own: bool,
    pub pushes: PushStream,
    pub blocked: Option<Blocked>,
    /// Its output waits for confirmations.
    pub withheld: Option<Box<Withheld>>,
}

impl Client {
    #[must_use]
    pub fn new(key: ClientKey, id: u64) -> Self {
        Self {
            key,
            session: Session::new(id),
            input: Input::default(),
            output: Output::default(),
            path: Path::Here,
            outstanding: 0,
            wait: Wait::Nothing,
            closing: false,
            lane: LaneUse::default(),
            transaction: None,
            watch: Watch::default(),
            pinned: None,
            own: false,
            pushes: PushStream::default(),
            blocked: None,
            withheld: None,
        }
    }

    /// Whether more may be read from its socket now.
    #[must_use]
    pub fn may_be_read(&self) -> bool {
        // That a blocked client has gone must be noticed, whatever it has sent behind its blocking command.
        let listened_to = self.blocked.is_some() && self.input.bytes.len() < limits::BLOCKED_INPUT_BYTES_MAX;
        (self.wait == Wait::Nothing || listened_to) && !self.closing && !self.input.ended
    }

    /// Whether it has state on its pinned connection, besides outstanding commands, that would be lost with it.
    #[must_use]
    pub fn has_state_on_server(&self) -> bool {
        let on_server = |block: &Transaction| block.place != BlockPlace::Here;
        self.pushes.is_open()
            || self.watch.active
            || self.input.large.is_some()
            || self.transaction.as_ref().is_some_and(on_server)
    }

    // ---- output -------------------------------------------------------------------------------------------------------

    /// It does not read what comes without having been asked for. Then its server connection is not read either, so that the server's own limits
    /// (`client-output-buffer-limit`) end it.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.output.bytes.len() > limits::CLIENT_OUTPUT_SOFT_BYTES && self.pushes.is_open()
    }

    /// Appends to its output.
    #[inline]
    pub fn tell(&mut self, shared: &mut Shared, bytes: &[u8]) {
        self.output.bytes.extend_from_slice(bytes);
        self.has_output(shared);
    }

    /// Something was appended to its output, or it is to be closed: lists it among the ready.
    #[inline]
    pub fn has_output(&mut self, shared: &mut Shared) {
        if self.output.bytes.len() > limits::CLIENT_OUTPUT_HARD_BYTES {
            shared.asks.push(Ask::CloseClient(self.key));
        }
        let may_be_sent = !self.is_withheld(shared);
        if !self.output.listed && may_be_sent && (!self.output.bytes.is_empty() || self.closing || self.input.ended) {
            self.output.listed = true;
            shared.ready_clients.push(self.key);
        }
    }

    /// A reply of the relay's own, in its place: only when nothing is outstanding.
    pub fn answer(&mut self, shared: &mut Shared, reply: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        self.path = Path::Here;
        if !self.session.mute_this() {
            self.output.bytes.extend_from_slice(reply);
        }
        self.has_output(shared);
        Step::Done
    }

    // ---- replies ------------------------------------------------------------------------------------------------------

    /// After a reply: lets it go on if it waited for its own replies, or ends it if it only waited for them.
    pub fn reply_arrived(&mut self, shared: &mut Shared) {
        if self.outstanding == 0 {
            if self.wait == Wait::OwnReplies {
                shared.resume.push(self.key);
            }
            if self.closing || self.input.ended {
                self.has_output(shared);
            }
            if !self.closing && self.pinned.is_some() {
                self.unpin_if_clean(shared);
            }
        } else if self.wait == Wait::Outstanding && self.outstanding < limits::CLIENT_OUTSTANDING_MAX / 2 {
            shared.resume.push(self.key);
        }
    }

    /// One outstanding command fails with this reply.
    pub fn fail_one(&mut self, shared: &mut Shared, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.blocked = None;
        shared.counters.replies_refused += 1;
        self.tell(shared, reply);
        self.reply_arrived(shared);
    }

    /// The lane answered `count` of its commands.
    pub fn lane_answered(&mut self, shared: &mut Shared, count: u32, bytes: &[u8]) {
        if self.blocked.is_some() {
            return self.blocking_answered(shared, bytes);
        }
        self.outstanding = self.outstanding.saturating_sub(count);
        if self.lane.muted.is_empty() {
            self.output.bytes.extend_from_slice(bytes);
        } else {
            self.lane.append_unmuted(&mut self.output.bytes, bytes, count);
        }
        self.has_output(shared);
        self.reply_arrived(shared);
    }

    /// A blocking command was answered; `reply` is whole.
    pub fn blocking_answered(&mut self, shared: &mut Shared, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Some(blocked) = self.blocked.take() else { return };
        if blocked.state == BlockedState::Ending {
            // The lane gives a command up as if its time were over; a server says who ended it, so that its own time-out is told apart.
            if self.path == Path::Lane && is_nil(reply) {
                return self.dispatch_again(shared, blocked.frame, blocked.muted);
            }
            if self.path != Path::Lane && reply.starts_with(UNBLOCKED) {
                return self.block_again(shared, blocked);
            }
        }
        if !blocked.muted {
            self.output.bytes.extend_from_slice(reply);
        }
        self.has_output(shared);
        self.reply_arrived(shared);
    }

    /// Hands a pinned connection back when nothing of the client's state is left on it.
    pub fn unpin_if_clean(&mut self, shared: &mut Shared) {
        let busy = self.own
            || self.transaction.is_some()
            || self.watch.active
            || self.pushes.is_open()
            || self.input.large.is_some()
            || self.blocked.is_some()
            || self.outstanding > 0;
        if busy {
            return;
        }
        let Some(key) = self.pinned.take() else { return };
        self.path = Path::Here;
        let idle = shared.upstreams.idle_pinned.len();
        let Some(upstream) = shared.upstreams.get_mut(key) else { return };
        if upstream.retired || upstream.marked || !upstream.connected || idle >= limits::IDLE_PINNED_MAX {
            shared.close_upstream(key);
        } else {
            upstream.owner = None;
            let pool = upstream.key.clone();
            shared.upstreams.idle_pinned.push((pool, key));
        }
    }
}

impl LaneUse {
    /// Notes one more command behind `outstanding` others.
    pub fn note(&mut self, outstanding: u32, muted: bool) {
        if muted && self.muted.is_empty() {
            self.muted.extend(std::iter::repeat_n(false, outstanding as usize));
        }
        if muted || !self.muted.is_empty() {
            self.muted.push_back(muted);
        }
    }

    /// Appends those of the oldest `count` replies that are not muted.
    fn append_unmuted(&mut self, output: &mut Vec<u8>, mut bytes: &[u8], count: u32) {
        for _ in 0..count {
            let ReplyStep::Complete { consumed, .. } = ReplyFeed::default().feed(bytes) else { return };
            if !self.muted.pop_front().unwrap_or(false) {
                output.extend_from_slice(&bytes[..consumed]);
            }
            bytes = &bytes[consumed..];
        }
    }
}
