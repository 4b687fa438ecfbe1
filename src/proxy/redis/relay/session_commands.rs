//! Commands that belong to the session: AUTH, HELLO, SELECT, CLIENT, QUIT, RESET. The server verifies, the relay remembers.

use super::client::Client;
use super::path::{Path, Step, Wait};
use super::pushes::PushStream;
use super::session::{ChangeKind, ReplyMode, Session, SessionChange};
use super::shared::Shared;
use super::upstream::{Awaited, PoolKey};
use base::model::Sharing;
use wire::resp::command::{self, Command, Connection};
use wire::resp::frame::decimal;
use wire::resp::{Args, encode};

impl Client {
    pub(super) fn session_command(
        &mut self,
        shared: &mut Shared,
        command: &'static Command,
        what: command::Session,
        frame: &[u8],
    ) -> Step {
        use command::Session;
        let args: Vec<&[u8]> = Args::new(frame).collect();
        if !command.arity_fits(args.len()) {
            return self.wrong_arity(shared, command.name);
        }
        match what {
            Session::Auth => self.auth(shared, &args, frame),
            Session::Hello => self.hello(shared, &args, frame),
            Session::Select => self.select(shared, &args, frame),
            Session::Client => self.client_command(shared, &args, frame),
            Session::Quit => self.quit(shared),
            Session::Reset => self.reset(shared),
            Session::Multi => self.multi(shared, frame),
            Session::Exec => self.answer(shared, b"-ERR EXEC without MULTI\r\n"),
            Session::Discard => self.answer(shared, b"-ERR DISCARD without MULTI\r\n"),
            Session::Watch => self.watch(shared, frame),
            Session::Unwatch => self.unwatch(shared, frame),
            Session::Subscribe => self.subscribe(shared, command, frame),
            Session::Monitor => self.monitor(shared, frame),
        }
    }

    pub(super) fn wrong_arity(&mut self, shared: &mut Shared, name: &str) -> Step {
        self.answer(shared, &encode::error(&format!("ERR wrong number of arguments for '{name}' command")))
    }

    fn auth(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        match self.session.after_auth(args) {
            Ok(change) => self.change_session(shared, change, frame),
            Err(refusal) => self.answer(shared, &encode::error(&refusal)),
        }
    }

    fn hello(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        match self.session.after_hello(args) {
            // The name is kept here: the connection it would be given may be shared.
            Ok(change) if change.name.is_some() && !self.own => {
                // User and password may be that word too.
                let mut at = 2;
                while args.get(at).is_some_and(|arg| !arg.eq_ignore_ascii_case(b"SETNAME")) {
                    at += 3;
                }
                let to_server: Vec<&[u8]> =
                    args[..at].iter().chain(args.get(at + 2..).unwrap_or_default()).copied().collect();
                self.change_session(shared, change, &encode::request(&to_server))
            }
            Ok(change) => self.change_session(shared, change, frame),
            Err(refusal) => self.answer(shared, &encode::error(&refusal)),
        }
    }

    fn select(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        match self.session.after_select(args) {
            Ok(change) => self.change_session(shared, change, frame),
            Err(refusal) => self.answer(shared, &encode::error(&refusal)),
        }
    }

    /// Sends the command on a connection that already has the wanted state; the server's own reply decides. What follows in the
    /// pipeline may depend on the outcome, so it waits.
    fn change_session(&mut self, shared: &mut Shared, change: SessionChange, frame: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        // Another user may not be allowed to choose the database that this one has chosen, and keeps it.
        let keeps_database = change.credentials != self.session.credentials
            && self.session.credentials.is_some()
            && self.session.database != 0;
        if keeps_database || self.keeps_its_connection() {
            if let Err(step) = self.pin(shared) {
                return step;
            }
            self.own |= keeps_database;
        }
        let change = SessionChange { muted: self.session.mute_this(), ..change };
        let own = self.pinned.filter(|_| self.keeps_its_connection());
        let pool = PoolKey {
            side: shared.plan.authority.side,
            credentials: change.credentials.clone(),
            database: change.database,
            resp: change.resp,
        };
        let key = own.unwrap_or_else(|| shared.shared_upstream(pool));
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        self.path = if own.is_some() { Path::Pinned } else { Path::Shared(key) };
        self.outstanding += 1;
        upstream.output.extend_from_slice(frame);
        upstream.asked(shared.now.mono_us);
        upstream.awaited.push_back(Awaited::Session(self.key, Box::new(change)));
        shared.upstreams.has_output(key);
        Step::Done
    }

    /// The server agreed (or not) to a change of session; `reply` is whole.
    pub(super) fn session_changed(&mut self, shared: &mut Shared, change: SessionChange, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.input.decided = None; // of a command that waited for this session
        let agreed = !matches!(reply.first(), Some(b'-' | b'!'));
        let (kind, muted) = (change.kind, change.muted);
        if agreed {
            self.session.adopt(change);
            self.own_connection_follows(shared);
        }
        match kind {
            ChangeKind::Hello | ChangeKind::Plain if muted => {}
            ChangeKind::Hello if agreed && !self.own => {
                let reply = with_session_id(reply, self.session.id);
                self.tell(shared, &reply);
            }
            ChangeKind::Hello | ChangeKind::Plain => self.tell(shared, reply),
        }
        self.reply_arrived(shared);
    }

    /// What was agreed on the connection that it keeps holds for that connection.
    pub(super) fn own_connection_follows(&mut self, shared: &mut Shared) {
        let pool = shared.pool_key(&self.session);
        if self.path == Path::Pinned
            && let Some(own) = self.pinned.and_then(|own| shared.upstreams.get_mut(own))
        {
            own.key = pool;
        }
    }

    /// What the relay answers itself: a shared connection has another number and another name.
    pub(super) fn own_answer(&self, args: &[&[u8]]) -> Option<Vec<u8>> {
        match (args.get(1)?.to_ascii_uppercase().as_slice(), args.len()) {
            (b"GETNAME", 2) => {
                let mut reply = Vec::new();
                match (self.session.name.is_empty(), self.session.resp) {
                    (true, 3) => reply.extend_from_slice(b"_\r\n"),
                    (true, _) => reply.extend_from_slice(b"$-1\r\n"),
                    (false, _) => encode::push_bulk(&mut reply, &self.session.name),
                }
                Some(reply)
            }
            _ => None,
        }
    }

    fn client_command(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        let word = args[1].to_ascii_uppercase();
        // What a client asks of itself, or sets, is true of a connection that only it uses.
        match (word.as_slice(), args.len()) {
            (b"REPLY", 3) => return self.set_reply_mode(shared, args[2]),
            (b"TRACKING", 3..) => return self.track(shared, args, frame),
            (b"CACHING" | b"TRACKINGINFO" | b"GETREDIR", _) => return self.send_alone(shared, frame),
            (b"ID" | b"INFO" | b"NO-TOUCH" | b"NO-EVICT" | b"CAPA" | b"IMPORT-SOURCE", _) => {
                if let Err(step) = self.become_own(shared) {
                    return step;
                }
            }
            (b"PAUSE", 3..) => {
                let ms = decimal(args[2]).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
                shared.upstreams.paused_until_us = shared.now.mono_us.saturating_add(ms.saturating_mul(1000));
            }
            (b"UNPAUSE", _) => shared.upstreams.paused_until_us = 0,
            _ => {}
        }
        if self.own {
            let step = self.send_alone(shared, frame);
            // For the connection after the next change of authority.
            if step == Step::Done && word == b"SETNAME" && args.len() == 3 && is_name(args[2]) {
                self.session.name = args[2].to_vec();
            }
            return step;
        }
        if let Some(reply) = self.own_answer(args) {
            return self.answer(shared, &reply);
        }
        match (word.as_slice(), args.len()) {
            (b"SETNAME", 3) if is_name(args[2]) => {
                if self.outstanding == 0 {
                    self.session.name = args[2].to_vec();
                }
                self.answer(shared, b"+OK\r\n")
            }
            (b"SETNAME", 3) => {
                self.answer(shared, b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n")
            }
            // Library name and version are for the server's CLIENT LIST, which shows Crossfade's connections.
            (b"SETINFO", 4) => self.answer(shared, b"+OK\r\n"),
            _ => self.send_shared(shared, frame),
        }
    }

    /// CLIENT TRACKING: what it reads and what tells it of changes is one connection.
    fn track(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        // Reads that are outstanding elsewhere would not be watched.
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let muted = self.session.reply_mode != ReplyMode::On;
        let step = self.send_alone(shared, frame);
        let tracking = args[2].eq_ignore_ascii_case(b"ON").then(|| frame.to_vec());
        let own = self.pinned.and_then(|key| shared.upstreams.get_mut(key));
        // The server goes on telling it of what was read there, also after CLIENT TRACKING OFF (Redis `tracking.c`).
        let last = own.and_then(|own| {
            own.marked = true;
            own.awaited.back_mut()
        });
        if step == Step::Done
            && !muted
            && let Some(last) = last
        {
            *last = Awaited::Tracking(self.key, tracking);
        }
        step
    }

    /// The server has answered CLIENT TRACKING.
    pub(super) fn tracked(&mut self, shared: &mut Shared, tracking: Option<Vec<u8>>, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if !reply.starts_with(b"-") {
            self.pushes.tracking = tracking;
        }
        self.tell(shared, reply);
        self.reply_arrived(shared);
    }

    /// A command that acts on the connection it comes on.
    pub(super) fn connection_command(&mut self, shared: &mut Shared, what: Connection, frame: &[u8]) -> Step {
        match what {
            Connection::Replicate => self.monitor(shared, frame),
            Connection::Replica | Connection::Marks => {
                if let Err(step) = self.become_own(shared) {
                    return step;
                }
                self.send_alone(shared, frame)
            }
            Connection::Wait => self.wait_for_replicas(shared, frame),
        }
    }

    /// WAIT counts for what its own connection has written, which is what any command before it has found written (Redis `replication.c`,
    /// `waitCommand`; `server.c`, `c->woff`): one of the relay's own makes that everything the client was told of.
    fn wait_for_replicas(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        if let Err(step) = self.pin(shared) {
            return step;
        }
        if let Some(own) = self.pinned.and_then(|key| shared.upstreams.get_mut(key)) {
            encode::push_request(&mut own.output, &[b"PING"]);
            own.awaited.push_back(Awaited::Swallow);
        }
        self.block_on_pinned(shared, frame)
    }

    fn set_reply_mode(&mut self, shared: &mut Shared, mode: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        match mode.to_ascii_uppercase().as_slice() {
            b"ON" => {
                self.session.reply_mode = ReplyMode::On;
                self.answer(shared, b"+OK\r\n")
            }
            b"OFF" => {
                self.session.reply_mode = ReplyMode::Off;
                Step::Done
            }
            b"SKIP" => {
                if self.session.reply_mode == ReplyMode::On {
                    self.session.reply_mode = ReplyMode::SkipNext;
                }
                Step::Done
            }
            _ => self.answer(shared, b"-ERR syntax error\r\n"),
        }
    }

    pub(super) fn quit(&mut self, shared: &mut Shared) -> Step {
        let step = self.answer(shared, b"+OK\r\n");
        if step == Step::Done {
            self.closing = true;
            self.has_output(shared);
        }
        step
    }

    pub(super) fn reset(&mut self, shared: &mut Shared) -> Step {
        if self.outstanding > 0 && !self.pushes.raw {
            return Step::Wait(Wait::OwnReplies);
        }
        self.outstanding = 0;
        self.own = shared.identity.sharing == Sharing::Never;
        self.session = Session::new(self.session.id);
        self.transaction = None;
        self.pushes = PushStream::default();
        let watch = std::mem::take(&mut self.watch);
        if let Some(upstream) = self.pinned.take() {
            shared.close_upstream(upstream);
        }
        if watch.active {
            shared.forget_in_lane(self.key);
        }
        self.answer(shared, b"+RESET\r\n")
    }
}

/// Redis `networking.c`, `validateClientName`.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

/// Replaces the `id` of a HELLO reply, so that it agrees with CLIENT ID.
pub(super) fn with_session_id(reply: &[u8], id: u64) -> Vec<u8> {
    const FIELD: &[u8] = b"$2\r\nid\r\n:";
    let Some(at) = reply.windows(FIELD.len()).position(|window| window == FIELD) else { return reply.to_vec() };
    let number = at + FIELD.len();
    let end = reply[number..].iter().position(|&b| b == b'\r').map_or(reply.len(), |end| number + end);
    let mut out = reply[..number].to_vec();
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(&reply[end..]);
    out
}
