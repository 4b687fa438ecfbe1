//! From a client's bytes to commands on a path.

use super::types::{Awaited, Client, Path, PoolKey, ReplyMode, Upstream, Wait};
use super::{ClientKey, RedisRelay, UpstreamKey};
use crate::contract::ToCompanion;
use crate::redis::lane::request::{LaneBatch, LaneItem};
use base::model::{CompareReads, limits};
use bus::counters;
use policy::Mirroring;
use wire::resp::command::{self, Class, Command, CompareRule};
use wire::resp::frame::{RequestProgress, RequestScan, scan_request};
use wire::resp::{Args, ReplyFeed, ReplyStep, args, effect, encode};

const NOPERM: &[u8] = b"-NOPERM Crossfade carries writes of the default user only while two servers are kept in step: an ACL user's rights cannot be checked in the lane yet\r\n";

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is on its way, or answered.
    Done,
    /// The client must wait; look at the same frame again later.
    Wait(Wait),
    /// The client is to be closed; look at nothing more.
    Close,
}

impl RedisRelay {
    /// Takes as many whole requests from `bytes` as may be taken now; returns how many bytes they were.
    pub(super) fn process(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let Some(client) = self.clients.get_mut(key) else { return bytes.len() };
            if client.wait != Wait::Nothing || client.closing {
                break;
            }
            if client.output.len() > limits::CLIENT_OUTPUT_SOFT_BYTES {
                client.wait = Wait::Output;
                break;
            }
            if client.blocked.is_some() && client.outstanding > 0 {
                client.wait = Wait::OwnReplies; // Redis looks at nothing more of a blocked client either
                break;
            }
            if client.outstanding >= limits::CLIENT_OUTSTANDING_MAX {
                client.wait = Wait::Outstanding;
                break;
            }
            if client.streaming.is_some() {
                used += self.stream_on(key, &bytes[used..]);
                continue;
            }
            let run = self.forward_run(key, &bytes[used..]);
            if run > 0 {
                used += run;
                continue;
            }
            let Some(client) = self.clients.get_mut(key) else { return bytes.len() };
            let rest = &bytes[used..];
            let (frame_len, step) = match scan_request(&mut client.progress, rest) {
                RequestScan::Empty { len } => (len, Step::Done),
                RequestScan::Frame { len, inline: false } => (len, self.dispatch(key, &rest[..len])),
                RequestScan::Frame { len, inline: true } => (len, self.dispatch_inline(key, &rest[..len])),
                RequestScan::NeedMore { at_least } if at_least > limits::REQUEST_BYTES_MAX => {
                    (rest.len(), self.protocol_error(key, "Protocol error: too big request"))
                }
                RequestScan::NeedMore { at_least } if at_least > limits::STREAM_REQUEST_BYTES => {
                    match self.begin_stream(key, rest) {
                        Some(Step::Done) => continue,
                        Some(step) => (0, step),
                        None => break,
                    }
                }
                RequestScan::NeedMore { .. } => break,
                RequestScan::Invalid(why) => (rest.len(), self.protocol_error(key, why)),
            };
            match step {
                Step::Done => used += frame_len,
                Step::Wait(reason) => {
                    self.forget_progress(key);
                    self.wait(key, reason);
                    break;
                }
                Step::Close => return bytes.len(),
            }
        }
        used
    }

    /// The commonest case in one go: whole requests that need nothing but to be sent on the shared connection this client uses
    /// already. Returns how many bytes they were; 0 says nothing, whoever is first then takes the long way.
    fn forward_run(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(client) = self.clients.get(key) else { return 0 };
        let Path::Shared(upstream_key) = client.path else { return 0 };
        let plain = client.transaction.is_none()
            && !client.raw
            && client.pinned.is_none()
            && client.reply_mode == ReplyMode::On
            && client.progress == RequestProgress::default();
        let full = |upstream: &Upstream| upstream.output.len() > limits::UPSTREAM_OUTPUT_SOFT_BYTES;
        if !plain
            || self.is_dual()
            || !self.fits(client, upstream_key)
            || self.upstreams.get(upstream_key).is_none_or(full)
        {
            return 0;
        }
        let room = limits::CLIENT_OUTSTANDING_MAX.saturating_sub(client.outstanding);
        let (mut used, mut count) = (0, 0);
        while count < room {
            let rest = &bytes[used..];
            let RequestScan::Frame { len, inline: false } = scan_request(&mut RequestProgress::default(), rest) else {
                break;
            };
            let Some(name) = Args::new(&rest[..len]).next() else { break };
            let command = command::lookup(name);
            if command.blocking || matches!(command.class, Class::Session(_) | Class::Refused(_)) {
                break;
            }
            self.count(command);
            used += len;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        let (Some(client), Some(upstream)) = (self.clients.get_mut(key), self.upstreams.get_mut(upstream_key)) else {
            return 0;
        };
        upstream.output.extend_from_slice(&bytes[..used]);
        upstream.probe.sent(upstream.awaited.len() + 1, self.now.mono_us);
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Forward(key), count as usize));
        client.outstanding += count;
        self.upstream_has_output(upstream_key);
        used
    }

    fn forget_progress(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.progress = RequestProgress::default();
        }
    }

    /// Answers as Redis does and closes once that is sent.
    fn protocol_error(&mut self, key: ClientKey, why: &str) -> Step {
        self.counters.protocol_errors += 1;
        if let Some(client) = self.clients.get_mut(key) {
            if client.outstanding > 0 {
                return Step::Wait(Wait::OwnReplies);
            }
            client.output.extend_from_slice(&encode::error(&format!("ERR {why}")));
            client.closing = true;
            self.client_has_output(key);
        }
        Step::Close
    }

    fn dispatch_inline(&mut self, key: ClientKey, line: &[u8]) -> Step {
        match args::inline_to_array(line) {
            Ok(frame) => self.dispatch(key, &frame),
            Err(why) => self.protocol_error(key, why),
        }
    }

    /// One whole request.
    pub(super) fn dispatch(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(name) = Args::new(frame).next() else { return Step::Done };
        let command = command::lookup(name);
        let Some(client) = self.clients.get(key) else { return Step::Close };
        let step = if client.raw {
            self.dispatch_raw(key, command, frame)
        } else if client.transaction.is_some() {
            self.dispatch_in_transaction(key, command, frame)
        } else {
            self.dispatch_plain(key, command, frame)
        };
        if step == Step::Done {
            self.count(command);
        }
        step
    }

    fn count(&mut self, command: &'static Command) {
        if !counters::ON {
            return;
        }
        self.counters.commands += 1;
        match command.class {
            Class::Read => self.counters.commands_read += 1,
            Class::Write => self.counters.commands_write += 1,
            Class::Server
            | Class::ServerChange
            | Class::Library
            | Class::Session(_)
            | Class::Refused(_)
            | Class::Unknown => {}
        }
        self.by_name[command::position(command)] += 1;
    }

    fn dispatch_plain(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        match command.class {
            Class::Session(what) => self.session_command(key, what, frame),
            Class::Refused(why) => self.refuse(key, command, why),
            _ if self.is_dual() => self.dispatch_decided(key, command, frame),
            _ => self.dispatch_by_class(key, command, frame, Mirroring::Forward),
        }
    }

    /// What the mirror policy has not refused.
    pub(super) fn dispatch_by_class(
        &mut self,
        key: ClientKey,
        command: &'static Command,
        frame: &[u8],
        mirroring: Mirroring,
    ) -> Step {
        let dual = self.is_dual();
        match command.class {
            Class::Session(what) => self.session_command(key, what, frame),
            Class::Refused(why) => self.refuse(key, command, why),
            _ if command.blocking && may_block(command, frame) => self.blocking(key, command, frame),
            Class::Read if dual => self.read_in_dual(key, command, frame, mirroring),
            Class::Write | Class::Library if dual => self.send_lane(key, LaneItem::Command { len: frame.len() }, frame),
            Class::ServerChange if dual => {
                self.refuse(key, command, "it would change one server and not the other while two are kept in step")
            }
            Class::Unknown if dual => self.refuse_unknown(key, frame),
            Class::Read | Class::Write | Class::Server | Class::ServerChange | Class::Library | Class::Unknown => {
                self.send_shared(key, frame)
            }
        }
    }

    /// Reads stay on this core unless the client is in the lane already, watches, or the read is to be repeated on the shadow.
    fn read_in_dual(&mut self, key: ClientKey, command: &'static Command, frame: &[u8], mirroring: Mirroring) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Close };
        let len = frame.len();
        let item = match mirroring {
            Mirroring::Compare if command.compare != CompareRule::Never => Some(LaneItem::ComparedRead { len }),
            Mirroring::Compare | Mirroring::Forward => None,
            Mirroring::Mirror => Some(LaneItem::MirroredRead { len }),
        };
        if let Some(item) = item
            && self.is_sampled()
        {
            return self.send_lane(key, item, frame);
        }
        if client.watching || (client.path == Path::Lane && client.outstanding > 0) {
            return self.send_lane(key, LaneItem::Command { len: frame.len() }, frame);
        }
        self.send_shared(key, frame)
    }

    /// Deterministic in the count of commands, so that a run can be repeated: every n-th comparable read of this core.
    fn is_sampled(&self) -> bool {
        let CompareReads { sample_per_ten_thousand: share } = self.plan.compare;
        let share = u64::from(share);
        share > 0 && (self.counters.commands * share) % 10_000 < share
    }

    /// A refusal that names Crossfade, the command and the reason.
    pub(super) fn refuse(&mut self, key: ClientKey, command: &Command, why: &str) -> Step {
        let text = format!("ERR Crossfade does not carry {}: {why}", command.name.to_ascii_uppercase());
        let step = self.answer(key, &encode::error(&text));
        if step == Step::Done {
            self.counters.replies_refused += 1;
        }
        step
    }

    fn refuse_unknown(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let name = Args::new(frame).next().unwrap_or_default();
        let text = format!(
            "ERR Crossfade does not know {}, so the other server cannot be kept in step; finish or abandon the migration first",
            String::from_utf8_lossy(&name[..name.len().min(64)])
        );
        let step = self.answer(key, &encode::error(&text));
        self.counters.replies_refused += u64::from(step == Step::Done);
        step
    }

    /// A reply of our own, in its place: only when nothing is outstanding.
    pub(super) fn answer(&mut self, key: ClientKey, reply: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        client.path = Path::Here;
        if !client.mute_this() {
            client.output.extend_from_slice(reply);
        }
        self.client_has_output(key);
        Step::Done
    }

    // ---- paths ------------------------------------------------------------------------------------------------------

    /// On the connection shared by all clients with the same log-in, database and protocol version.
    pub(super) fn send_shared(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Close };
        if let Some(pinned) = client.pinned
            && client.path == Path::Pinned
            && (client.outstanding > 0 || client.watching)
        {
            return self.send_upstream(key, pinned, frame);
        }
        let upstream = match client.path {
            Path::Shared(upstream) if self.fits(client, upstream) => upstream,
            _ if client.outstanding > 0 => return Step::Wait(Wait::OwnReplies),
            _ => {
                let pool = self.pool_key(client);
                self.shared_upstream(pool)
            }
        };
        if let Some(client) = self.clients.get_mut(key) {
            client.path = Path::Shared(upstream);
        }
        self.send_upstream(key, upstream, frame)
    }

    fn fits(&self, client: &Client, upstream: UpstreamKey) -> bool {
        self.upstreams.get(upstream).is_some_and(|up| {
            !up.retired
                && up.key.database == client.database
                && up.key.resp == client.resp
                && up.key.credentials == client.credentials
        })
    }

    pub(super) fn pool_key(&self, client: &Client) -> PoolKey {
        PoolKey {
            side: self.plan.authority.side,
            credentials: client.credentials.clone(),
            database: client.database,
            resp: client.resp,
        }
    }

    /// Appends a request to a connection's output and its client to those awaited there.
    pub(super) fn send_upstream(&mut self, key: ClientKey, upstream_key: UpstreamKey, frame: &[u8]) -> Step {
        let (Some(client), Some(upstream)) = (self.clients.get_mut(key), self.upstreams.get_mut(upstream_key)) else {
            return Step::Close;
        };
        if upstream.output.len() > limits::UPSTREAM_OUTPUT_SOFT_BYTES {
            upstream.stalled.push(key);
            return Step::Wait(Wait::Upstream(upstream_key));
        }
        upstream.output.extend_from_slice(frame);
        upstream.awaited.push_back(if client.mute_this() { Awaited::Mute(key) } else { Awaited::Forward(key) });
        upstream.probe.sent(upstream.awaited.len(), self.now.mono_us);
        client.outstanding += 1;
        self.upstream_has_output(upstream_key);
        Step::Done
    }

    pub(super) fn upstream_has_output(&mut self, key: UpstreamKey) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if !upstream.connected || upstream.output.is_empty() {
            return;
        }
        let hurried = upstream.is_urgent();
        if !upstream.output_ready || (hurried && !upstream.hurried) {
            upstream.output_ready = true;
            upstream.hurried = hurried;
            self.ready_upstreams.push(key);
        }
    }

    /// Into the lane, behind whatever this client already has there.
    pub(super) fn send_lane(&mut self, key: ClientKey, item: LaneItem, frames: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding == 0 {
            client.lane_bytes = 0;
        } else if client.path != Path::Lane || client.lane_bytes > limits::UPSTREAM_OUTPUT_SOFT_BYTES {
            return Step::Wait(Wait::OwnReplies);
        }
        if let Err(step) = self.admit_to_lane(key) {
            return step;
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        client.path = Path::Lane;
        client.lane_bytes += frames.len();
        client.note_lane_command();
        self.counters.commands_lane += 1;
        let (database, resp) = (client.database, client.resp);
        let client = key.to_u64();
        match self.to_lane.last_mut() {
            Some(ToCompanion::Lane(last))
                if last.client == client && last.database == database && last.resp == resp =>
            {
                last.items.push(item);
                last.frames.extend_from_slice(frames);
            }
            _ => {
                let batch = LaneBatch { client, database, resp, items: vec![item], frames: frames.to_vec() };
                self.to_lane.push(ToCompanion::Lane(batch));
            }
        }
        Step::Done
    }

    /// The lane runs under Crossfade's own log-in, so who may enter it is decided here: the server has accepted the client's
    /// log-in as the default user, or lets everyone in.
    fn admit_to_lane(&mut self, key: ClientKey) -> Result<(), Step> {
        let Some(client) = self.clients.get(key) else { return Err(Step::Close) };
        if let Some(login) = client.credentials.as_deref() {
            return match login.user.as_deref() {
                None | Some("default") => Ok(()),
                Some(_) => Err(self.answer(key, NOPERM)),
            };
        }
        if self.plan.endpoint(self.plan.authority.side).credentials.is_none() {
            return Ok(()); // Crossfade itself got in without a log-in.
        }
        match self.anonymous_allowed {
            Some(true) => Ok(()),
            Some(false) => Err(self.answer(key, b"-NOAUTH Authentication required.\r\n")),
            None => {
                let pool = self.pool_key(client);
                let upstream = self.shared_upstream(pool);
                if let Some(upstream) = self.upstreams.get_mut(upstream) {
                    upstream.stalled.push(key);
                }
                Err(Step::Wait(Wait::Upstream(upstream)))
            }
        }
    }

    pub(super) fn push_forget(&mut self, key: ClientKey) {
        let items = vec![LaneItem::Forget];
        let batch = LaneBatch { client: key.to_u64(), database: 0, resp: 2, items, frames: Vec::new() };
        self.to_lane.push(ToCompanion::Lane(batch));
    }

    // ---- large requests ---------------------------------------------------------------------------------------------

    /// A request too large to be gathered: outside dual operation it is handed on as it arrives, on a connection of its own.
    /// `None`: not now (dual operation gathers it; a MULTI block too).
    fn begin_stream(&mut self, key: ClientKey, start: &[u8]) -> Option<Step> {
        let client = self.clients.get(key)?;
        if self.is_dual() || client.transaction.is_some() || client.raw || !start.starts_with(b"*") {
            return None;
        }
        let command = command::lookup(Args::new(start).next()?);
        let plain =
            matches!(command.class, Class::Read | Class::Write | Class::Server | Class::Library | Class::Unknown);
        if !plain || command.blocking {
            return None;
        }
        if let Err(step) = self.pin(key) {
            return Some(step);
        }
        let client = self.clients.get_mut(key)?;
        client.progress = RequestProgress::default();
        client.streaming = Some(ReplyFeed::default());
        self.count(command);
        Some(Step::Done)
    }

    /// Hands on what has arrived of a large request; a request has the grammar of a reply, so the same feed finds its end.
    fn stream_on(&mut self, key: ClientKey, bytes: &[u8]) -> usize {
        let Some(client) = self.clients.get_mut(key) else { return bytes.len() };
        let (Some(pinned), Some(feed)) = (client.pinned, client.streaming.as_mut()) else { return bytes.len() };
        let Some(upstream) = self.upstreams.get_mut(pinned) else { return bytes.len() };
        if upstream.output.len() > limits::UPSTREAM_OUTPUT_SOFT_BYTES {
            upstream.stalled.push(key);
            client.wait = Wait::Upstream(pinned);
            return 0;
        }
        let used = match feed.feed(bytes) {
            ReplyStep::Complete { consumed, .. } => {
                client.streaming = None;
                client.outstanding += 1;
                upstream.awaited.push_back(if client.mute_this() { Awaited::Mute(key) } else { Awaited::Forward(key) });
                consumed
            }
            ReplyStep::Partial => bytes.len(),
            ReplyStep::Invalid(_) => {
                // The start of the request is already on its way, so neither connection can be used any more.
                self.counters.protocol_errors += 1;
                client.closing = true;
                self.asks.push(super::Ask::CloseClient(key));
                return bytes.len();
            }
        };
        upstream.output.extend_from_slice(&bytes[..used]);
        self.upstream_has_output(pinned);
        used
    }
}

/// A blocking command blocks unless it says otherwise: XREAD and XREADGROUP only with BLOCK.
fn may_block(command: &Command, frame: &[u8]) -> bool {
    !command.name.starts_with("xread") || Args::new(frame).take(8).any(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))
}

/// Whether a write can be kept in step, for commands queued in a MULTI block.
pub(super) fn refused_in_dual(command: &Command, frame: &[u8]) -> Option<&'static str> {
    match command.class {
        Class::Write => effect::plan(command, frame).err(),
        Class::Read | Class::Server | Class::Library => None,
        Class::ServerChange => Some("it would change one server and not the other while two are kept in step"),
        Class::Unknown => Some("its keys are not known, so the other server cannot be kept in step"),
        Class::Refused(why) => Some(why),
        Class::Session(_) => Some("it changes the session inside a MULTI block"),
    }
}
