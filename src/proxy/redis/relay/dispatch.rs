//! From a client's bytes to commands on a path.

use super::client::Client;
use super::cursors::{self, Cursor};
use super::path::{Path, Step, Wait};
use super::session::ReplyMode;
use super::shared::Shared;
use super::upstream::{Awaited, Upstream};
use crate::contract::{Ask, UpstreamKey};
use crate::redis::lane::request::LaneItem;
use base::model::limits;
use policy::Mirroring;
use wire::resp::command::{self, Class, Command, CompareRule};
use wire::resp::frame::{RequestProgress, RequestScan, scan_request};
use wire::resp::{Args, args, encode};

/// Why a command that changes the server itself is not supported in dual operation.
const CHANGES_ONE_SERVER: &str = "it would change one server and not the other while two are kept in step";

pub(super) const CHANGES_SESSION: &str = "it changes the session inside a MULTI block";

impl Client {
    /// Takes as many whole requests from `bytes` as may be taken now; returns how many bytes they were.
    pub fn process(&mut self, shared: &mut Shared, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            if self.wait != Wait::Nothing || self.closing {
                break;
            }
            self.wait = self.reason_to_wait(shared);
            if self.wait != Wait::Nothing {
                break;
            }
            if self.input.large.is_some() {
                used += self.continue_large(shared, &bytes[used..]);
                continue;
            }
            let run = self.forward_run(shared, &bytes[used..]);
            if run > 0 {
                used += run;
                continue;
            }
            let rest = &bytes[used..];
            let (frame_len, step) = match scan_request(&mut self.input.progress, rest) {
                RequestScan::Empty { len } => (len, Step::Done),
                RequestScan::Frame { len, inline: false } => (len, self.dispatch(shared, &rest[..len])),
                RequestScan::Frame { len, inline: true } => (len, self.dispatch_inline(shared, &rest[..len])),
                RequestScan::NeedMore { at_least } if at_least > limits::REQUEST_BYTES_MAX => {
                    (rest.len(), self.protocol_error(shared, b"Protocol error: too big request"))
                }
                RequestScan::NeedMore { at_least } if at_least > limits::STREAM_REQUEST_BYTES => {
                    match self.begin_large(shared, rest) {
                        Some(Step::Done) => continue,
                        Some(step) => (0, step),
                        None => break,
                    }
                }
                RequestScan::NeedMore { .. } => break,
                bad @ (RequestScan::Invalid(_) | RequestScan::NoArgument { .. }) => {
                    (rest.len(), self.protocol_error(shared, &bad.protocol_error().unwrap_or_default()))
                }
            };
            match step {
                Step::Done => used += frame_len,
                Step::Wait(reason) => {
                    self.input.progress = RequestProgress::default();
                    self.wait = reason;
                    break;
                }
                Step::Close => return bytes.len(),
            }
        }
        used
    }

    /// What must happen before the next request may be looked at.
    fn reason_to_wait(&mut self, shared: &mut Shared) -> Wait {
        if self.output.bytes.len() > limits::CLIENT_OUTPUT_SOFT_BYTES {
            Wait::Output
        } else if self.blocked.is_some() && self.outstanding > 0 {
            Wait::OwnReplies // Redis looks at nothing more of a blocked client either
        } else if self.outstanding >= limits::CLIENT_OUTSTANDING_MAX {
            Wait::Outstanding
        } else {
            self.reason_to_be_held(shared)
        }
    }

    /// The most common case in one go: whole requests that need nothing but to be sent on the shared connection this client uses
    /// already. Returns how many bytes they were; 0 says nothing about the request at the front, which is then dispatched alone.
    fn forward_run(&mut self, shared: &mut Shared, bytes: &[u8]) -> usize {
        let Path::Shared(upstream_key) = self.path else { return 0 };
        let plain = self.transaction.is_none()
            && !self.pushes.is_open()
            && self.pinned.is_none()
            && self.session.reply_mode == ReplyMode::On
            && self.input.progress == RequestProgress::default();
        if !plain || shared.is_dual() {
            return 0;
        }
        let Some(upstream) = shared.upstreams.get(upstream_key) else { return 0 };
        if upstream.is_full() || !self.fits(upstream) || (self.outstanding == 0 && shared.is_silent(upstream_key)) {
            return 0;
        }
        let room = limits::CLIENT_OUTSTANDING_MAX.saturating_sub(self.outstanding);
        let examined = shared.examines_runs();
        let marks_cursors = shared.plan.mode.is_dual() || shared.is_on_target();
        if !examined {
            self.input.decided = None; // of the command at the front, which goes now
        }
        let (mut used, mut count, mut reads) = (0, 0, true);
        while count < room {
            let rest = &bytes[used..];
            let RequestScan::Frame { len, inline: false } = scan_request(&mut RequestProgress::default(), rest) else {
                break;
            };
            let Some(name) = Args::new(&rest[..len]).next() else { break };
            let command = command::lookup(name);
            if command.blocking || matches!(command.class, Class::Session(_) | Class::Connection(_)) {
                break;
            }
            if matches!(command.class, Class::Library | Class::Unknown)
                || matches!(command.name, "acl" | "config")
                || (marks_cursors && cursors::has_cursor(command.name))
            {
                break;
            }
            if command.class != Class::Read && shared.is_paused() {
                break;
            }
            if examined && !self.passes(shared, command, &rest[..len]) {
                break;
            }
            shared.count(command);
            if command.name.starts_with("eval") {
                shared.note_script(&rest[..len]);
            }
            reads &= command.class == Class::Read;
            used += len;
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        if !reads {
            self.withhold(shared);
        }
        let Some(upstream) = shared.upstreams.get_mut(upstream_key) else { return 0 };
        upstream.output.extend_from_slice(&bytes[..used]);
        upstream.asked(shared.now.mono_us);
        upstream.probe.sent(upstream.awaited.len() + 1, shared.now.mono_us);
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Forward(self.key), count as usize));
        self.outstanding += count;
        shared.upstreams.has_output(upstream_key);
        used
    }

    /// Answers as Redis does and closes once that is sent.
    fn protocol_error(&mut self, shared: &mut Shared, why: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        shared.counters.protocol_errors += 1;
        self.closing = true;
        self.tell(shared, &[b"-ERR ", why, b"\r\n"].concat());
        Step::Close
    }

    fn dispatch_inline(&mut self, shared: &mut Shared, line: &[u8]) -> Step {
        match args::inline_to_array(line) {
            Ok(frame) => self.dispatch(shared, &frame),
            Err(why) => self.protocol_error(shared, why.as_bytes()),
        }
    }

    /// One whole request.
    fn dispatch(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(name) = Args::new(frame).next() else { return Step::Done };
        let command = command::lookup(name);
        if command.class == Class::Unknown && is_http(name) {
            return self.end_http(shared);
        }
        if command.class != Class::Read {
            self.withhold(shared);
        }
        let step = if self.pushes.raw {
            self.dispatch_monitoring(shared, command, frame)
        } else if self.is_subscribed_in_resp2() && self.transaction.is_none() {
            self.dispatch_subscribed(shared, command, frame)
        } else if self.transaction.is_some() {
            self.dispatch_in_transaction(shared, command, frame)
        } else {
            self.dispatch_plain(shared, command, frame)
        };
        if step == Step::Done {
            shared.count(command);
            shared.strangers_may_change(command, frame);
            if command.class == Class::Library || command.name.starts_with("eval") {
                shared.note_script(frame);
            }
        }
        step
    }

    /// Nothing that follows is looked at, and nothing is answered any more, as a server does.
    fn end_http(&mut self, shared: &mut Shared) -> Step {
        shared.counters.protocol_errors += 1;
        self.closing = true;
        shared.asks.push(Ask::CloseClient(self.key));
        Step::Close
    }

    fn dispatch_plain(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        if let Some(step) = self.vet(shared, command) {
            return step;
        }
        if begins_debugging(command, frame) && !shared.is_dual() {
            return self.monitor(shared, frame);
        }
        match command.class {
            Class::Session(what) => self.session_command(shared, command, what, frame),
            Class::Connection(what) => self.connection_command(shared, what, frame),
            _ => self.dispatch_decided(shared, command, frame),
        }
    }

    /// What the mirror policy has not refused.
    pub(super) fn dispatch_by_class(
        &mut self,
        shared: &mut Shared,
        command: &'static Command,
        frame: &[u8],
        mirroring: Mirroring,
    ) -> Step {
        let (dual, len) = (shared.is_dual(), frame.len());
        match command.class {
            Class::Session(what) => self.session_command(shared, command, what, frame),
            Class::Connection(what) => self.connection_command(shared, what, frame),
            _ if command.blocking && may_block(command, frame) => self.blocking(shared, command, frame),
            Class::Read if cursors::has_cursor(command.name) => self.scan(shared, frame),
            Class::Read if dual => self.read_in_dual(shared, command, frame, mirroring),
            Class::Write | Class::Library if dual => self.send_lane(shared, LaneItem::Command { command, len }, frame),
            Class::ServerChange if dual => self.refuse(shared, command, CHANGES_ONE_SERVER),
            Class::Unknown if dual => self.refuse_unknown(shared, frame),
            Class::Read | Class::Write | Class::Server | Class::ServerChange | Class::Library | Class::Unknown => {
                let step = if ends_a_script(command, frame) {
                    self.send_beside(shared, frame)
                } else if command.class != Class::Read && shared.is_paused() {
                    self.send_alone(shared, frame)
                } else {
                    self.send_shared(shared, frame)
                };
                if step == Step::Done && shared.samples_reads() {
                    self.sample_read(shared, command, frame, mirroring);
                }
                step
            }
        }
    }

    /// Reads stay on this core unless the client is in the lane already, watches, or the read is to be repeated on the shadow. An ACL user's
    /// always do.
    fn read_in_dual(
        &mut self,
        shared: &mut Shared,
        command: &'static Command,
        frame: &[u8],
        mirroring: Mirroring,
    ) -> Step {
        let len = frame.len();
        let item = match mirroring {
            Mirroring::Compare if command.compare != CompareRule::Never => {
                Some(LaneItem::ComparedRead { command, len })
            }
            Mirroring::Compare | Mirroring::Forward => None,
            Mirroring::Mirror => Some(LaneItem::MirroredRead { len }),
        };
        // The lane runs under Crossfade's own rights: what another user may read, only the server can say.
        if let Some(item) = item
            && shared.is_sampled()
            && self.session.is_default_user()
        {
            return self.send_lane(shared, item, frame);
        }
        if self.watch.active || (self.path == Path::Lane && self.outstanding > 0) {
            return self.send_lane(shared, LaneItem::Command { command, len }, frame);
        }
        self.send_shared(shared, frame)
    }

    /// A refusal that names Crossfade, the command and the reason.
    pub(super) fn refuse(&mut self, shared: &mut Shared, command: &Command, why: &str) -> Step {
        let text = format!("ERR Crossfade does not support {}: {why}", command.name.to_ascii_uppercase());
        self.refuse_with(shared, &encode::error(&text))
    }

    fn refuse_unknown(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let name = Args::new(frame).next().unwrap_or_default();
        let text = format!(
            "ERR Crossfade does not know {}, so the other server cannot be kept in step; finish or abandon the migration first",
            String::from_utf8_lossy(&name[..name.len().min(64)])
        );
        self.refuse_with(shared, &encode::error(&text))
    }

    /// Answers with an error of the relay's own, and counts it as a refusal.
    pub(super) fn refuse_with(&mut self, shared: &mut Shared, error: &[u8]) -> Step {
        let step = self.answer(shared, error);
        shared.counters.replies_refused += u64::from(step == Step::Done);
        step
    }

    /// A cursor belongs to the server that gave it. Never through the lane: it would not mark the cursor.
    fn scan(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if self.path == Path::Lane && self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let (on_target, in_step) = (shared.is_on_target(), shared.plan.mode.is_dual());
        let stripped;
        let frame = match cursors::request(frame, on_target, in_step) {
            Cursor::Stale => return self.refuse_with(shared, cursors::STALE),
            Cursor::Stripped(frame) => {
                stripped = frame;
                &stripped
            }
            Cursor::Untouched => frame,
        };
        let step = self.send_shared(shared, frame);
        if step == Step::Done && on_target && in_step {
            self.mark_cursor(shared);
        }
        step
    }

    /// The reply to what was sent last has a cursor to be marked.
    fn mark_cursor(&mut self, shared: &mut Shared) {
        let key = match self.path {
            Path::Shared(key) => Some(key),
            Path::Pinned => self.pinned,
            Path::Lane | Path::Here => None,
        };
        let last = key.and_then(|key| shared.upstreams.get_mut(key)).and_then(|upstream| upstream.awaited.back_mut());
        if let Some(last @ Awaited::Forward(_)) = last {
            *last = Awaited::Scan(self.key);
        }
    }

    // ---- the shared path ----------------------------------------------------------------------------------------------

    /// On the connection shared by all clients with the same log-in, database and protocol version.
    pub(super) fn send_shared(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if self.own || self.pushes.tracking.is_some() || (self.keeps_its_connection() && !shared.is_dual()) {
            return self.send_alone(shared, frame);
        }
        if let Some(pinned) = self.pinned
            && self.path == Path::Pinned
            && self.outstanding > 0
        {
            return self.send_upstream(shared, pinned, frame);
        }
        let usable = |key| {
            let fits = shared.upstreams.get(key).is_some_and(|upstream| self.fits(upstream));
            // Its own order comes first.
            fits && (self.outstanding > 0 || !shared.is_silent(key))
        };
        let upstream = match self.path {
            Path::Shared(upstream) if usable(upstream) => upstream,
            _ if self.outstanding > 0 => return Step::Wait(Wait::OwnReplies),
            Path::Shared(_) | Path::Pinned | Path::Lane | Path::Here => {
                let pool = shared.pool_key(&self.session);
                shared.shared_upstream(pool)
            }
        };
        self.path = Path::Shared(upstream);
        self.send_upstream(shared, upstream, frame)
    }

    /// Whether this connection serves the client's session under the present plan.
    pub(super) fn fits(&self, upstream: &Upstream) -> bool {
        !upstream.retired
            && upstream.key.database == self.session.database
            && upstream.key.resp == self.session.resp
            && upstream.key.credentials == self.session.credentials
    }

    /// Appends a request to a connection's output and this client to those awaited there.
    pub(super) fn send_upstream(&mut self, shared: &mut Shared, key: UpstreamKey, frame: &[u8]) -> Step {
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        if upstream.is_full() {
            upstream.stalled.push(self.key);
            return Step::Wait(Wait::Upstream(key));
        }
        upstream.output.extend_from_slice(frame);
        upstream.asked(shared.now.mono_us);
        let awaited = if self.session.mute_this() { Awaited::Mute(self.key) } else { Awaited::Forward(self.key) };
        upstream.awaited.push_back(awaited);
        upstream.probe.sent(upstream.awaited.len(), shared.now.mono_us);
        self.outstanding += 1;
        shared.upstreams.has_output(key);
        Step::Done
    }
}

/// SCRIPT DEBUG YES or SYNC: what its connection carries is the debugger's from the next script on.
fn begins_debugging(command: &Command, frame: &[u8]) -> bool {
    let mut args = Args::new(frame).skip(1);
    let mut is = |word: &[u8]| args.next().is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    command.name == "script" && is(b"DEBUG") && !is(b"NO")
}

/// SCRIPT KILL, FUNCTION KILL and SHUTDOWN, and FUNCTION STATS, which tells what runs.
fn ends_a_script(command: &Command, frame: &[u8]) -> bool {
    let word = Args::new(frame).nth(1).unwrap_or_default();
    let ends = word.eq_ignore_ascii_case(b"KILL") || word.eq_ignore_ascii_case(b"STATS");
    command.name == "shutdown" || (command.class == Class::Library && ends)
}

/// A browser that was made to speak to a database: its body may hold lines that are commands (Redis `server.c`, `securityWarningCommand`).
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

/// A blocking command blocks unless it says otherwise: XREAD and XREADGROUP only with BLOCK.
fn may_block(command: &Command, frame: &[u8]) -> bool {
    !command.name.starts_with("xread") || Args::new(frame).take(8).any(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))
}

/// Why a command that is queued in a MULTI block cannot be kept in step; `None` when it can.
fn refused_in_dual(command: &Command, frame: &[u8]) -> Option<&'static str> {
    match command.class {
        Class::Write => wire::resp::effect::plan(command, frame).err(),
        Class::Read | Class::Server | Class::Library => None,
        Class::ServerChange => Some(CHANGES_ONE_SERVER),
        Class::Unknown => Some("its keys are not known, so the other server cannot be kept in step"),
        Class::Session(_) | Class::Connection(_) => Some(CHANGES_SESSION),
    }
}

/// Why a command cannot be queued in a MULTI block here; `None` when it can. Outside dual operation the rest is for the server to say.
pub(super) fn refused_in_block(shared: &Shared, command: &Command, frame: &[u8]) -> Option<&'static str> {
    if shared.is_dual() {
        return refused_in_dual(command, frame);
    }
    match command.class {
        Class::Session(_) | Class::Connection(_) => Some(CHANGES_SESSION),
        Class::Read | Class::Write | Class::Server | Class::ServerChange | Class::Library | Class::Unknown => None,
    }
}
