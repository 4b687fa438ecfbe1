//! Commands that belong to the session: AUTH, HELLO, SELECT, CLIENT, QUIT, RESET. The server verifies, the relay remembers.

use std::rc::Rc;

use super::client::{Client, PushStream};
use super::path::{Path, Step, Wait};
use super::session::{ChangeKind, ReplyMode, Session, SessionChange};
use super::shared::Shared;
use super::upstream::{Awaited, PoolKey};
use base::model::{Credentials, Secret};
use wire::resp::command::{self, Command};
use wire::resp::frame::decimal;
use wire::resp::{Args, encode};

impl Client {
    pub(super) fn session_command(
        &mut self,
        shared: &mut Shared,
        command: &Command,
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
            Session::Select => self.select(shared, args[1], frame),
            Session::Client => self.client_command(shared, &args, frame),
            Session::Quit => self.quit(shared),
            Session::Reset => self.reset(shared),
            Session::Multi => self.multi(shared, frame),
            Session::Exec => self.answer(shared, b"-ERR EXEC without MULTI\r\n"),
            Session::Discard => self.answer(shared, b"-ERR DISCARD without MULTI\r\n"),
            Session::Watch => self.watch(shared, frame),
            Session::Unwatch => self.unwatch(shared, frame),
            Session::Subscribe | Session::Monitor => self.open_pushes(shared, frame),
        }
    }

    pub(super) fn wrong_arity(&mut self, shared: &mut Shared, name: &str) -> Step {
        self.answer(shared, &encode::error(&format!("ERR wrong number of arguments for '{name}' command")))
    }

    fn auth(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        let credentials = match *args {
            [_, password] => credentials(None, password),
            [_, user, password] => credentials(Some(user), password),
            _ => return self.answer(shared, b"-ERR syntax error\r\n"),
        };
        let change = SessionChange { credentials: Some(credentials), ..self.session.change() };
        self.change_session(shared, change, frame)
    }

    /// HELLO [version [AUTH user password] [SETNAME name]]
    fn hello(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        let mut change = SessionChange { kind: ChangeKind::Hello, ..self.session.change() };
        let Some(version) = args.get(1) else { return self.change_session(shared, change, frame) };
        match decimal(version) {
            Some(version @ (2 | 3)) => change.resp = version as u8,
            Some(_) => return self.answer(shared, b"-NOPROTO unsupported protocol version\r\n"),
            None => return self.answer(shared, b"-ERR Protocol version is not an integer or out of range\r\n"),
        }
        let mut to_server: Vec<&[u8]> = args[..2].to_vec();
        let mut at = 2;
        while at < args.len() {
            if args[at].eq_ignore_ascii_case(b"AUTH") && at + 2 < args.len() {
                change.credentials = Some(credentials(Some(args[at + 1]), args[at + 2]));
                to_server.extend_from_slice(&args[at..at + 3]);
                at += 3;
            } else if args[at].eq_ignore_ascii_case(b"SETNAME") && at + 1 < args.len() {
                change.name = Some(args[at + 1].to_vec());
                at += 2;
            } else {
                let text = format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(args[at]));
                return self.answer(shared, &encode::error(&text));
            }
        }
        let frame = encode::request(&to_server);
        self.change_session(shared, change, &frame)
    }

    fn select(&mut self, shared: &mut Shared, index: &[u8], frame: &[u8]) -> Step {
        let Some(number) = decimal(index) else {
            return self.answer(shared, b"-ERR value is not an integer or out of range\r\n");
        };
        let Ok(database) = u32::try_from(number) else {
            return self.answer(shared, b"-ERR DB index is out of range\r\n");
        };
        let change = SessionChange { database, ..self.session.change() };
        self.change_session(shared, change, frame)
    }

    /// Sends the command on a connection that already has the wanted state; the server's own reply decides. What follows in the
    /// pipeline may depend on the outcome, so it waits.
    fn change_session(&mut self, shared: &mut Shared, change: SessionChange, frame: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let change = SessionChange { muted: self.session.mute_this(), ..change };
        let pool = PoolKey {
            side: shared.plan.authority.side,
            credentials: change.credentials.clone(),
            database: change.database,
            resp: change.resp,
        };
        let key = shared.shared_upstream(pool);
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        self.path = Path::Shared(key);
        self.outstanding += 1;
        upstream.output.extend_from_slice(frame);
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
        }
        match kind {
            ChangeKind::Hello | ChangeKind::Plain if muted => {}
            ChangeKind::Hello if agreed => {
                let reply = with_session_id(reply, self.session.id);
                self.tell(shared, &reply);
            }
            ChangeKind::Hello | ChangeKind::Plain => self.tell(shared, reply),
        }
        self.reply_arrived(shared);
    }

    fn client_command(&mut self, shared: &mut Shared, args: &[&[u8]], frame: &[u8]) -> Step {
        let word = args[1].to_ascii_uppercase();
        match (word.as_slice(), args.len()) {
            (b"ID", 2) => {
                let reply = format!(":{}\r\n", self.session.id);
                self.answer(shared, reply.as_bytes())
            }
            (b"GETNAME", 2) => {
                let mut reply = Vec::new();
                match (self.session.name.is_empty(), self.session.resp) {
                    (true, 3) => reply.extend_from_slice(b"_\r\n"),
                    (true, _) => reply.extend_from_slice(b"$-1\r\n"),
                    (false, _) => encode::push_bulk(&mut reply, &self.session.name),
                }
                self.answer(shared, &reply)
            }
            (b"SETNAME", 3) if args[2].iter().all(|b| (b'!'..=b'~').contains(b)) => {
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
            (b"REPLY", 3) => self.set_reply_mode(shared, args[2]),
            (b"NO-EVICT", 3) => self.answer(shared, b"+OK\r\n"),
            (
                b"TRACKING" | b"CACHING" | b"TRACKINGINFO" | b"GETREDIR" | b"NO-TOUCH" | b"UNBLOCK" | b"CAPA"
                | b"IMPORT-SOURCE",
                _,
            ) => {
                let name = String::from_utf8_lossy(&word).into_owned();
                let text = format!(
                    "ERR Crossfade does not support CLIENT {name} yet: it would act on a connection shared with other clients"
                );
                self.answer(shared, &encode::error(&text))
            }
            _ => self.send_shared(shared, frame),
        }
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
        if self.outstanding > 0 && !self.pushes.open {
            return Step::Wait(Wait::OwnReplies);
        }
        self.outstanding = 0;
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

fn credentials(user: Option<&[u8]>, password: &[u8]) -> Rc<Credentials> {
    let user = user.map(|user| String::from_utf8_lossy(user).into_owned());
    Rc::new(Credentials { user, password: Secret::new(password) })
}

/// Replaces the `id` of a HELLO reply, so that it agrees with CLIENT ID.
fn with_session_id(reply: &[u8], id: u64) -> Vec<u8> {
    const FIELD: &[u8] = b"$2\r\nid\r\n:";
    let Some(at) = reply.windows(FIELD.len()).position(|window| window == FIELD) else { return reply.to_vec() };
    let number = at + FIELD.len();
    let end = reply[number..].iter().position(|&b| b == b'\r').map_or(reply.len(), |end| number + end);
    let mut out = reply[..number].to_vec();
    out.extend_from_slice(id.to_string().as_bytes());
    out.extend_from_slice(&reply[end..]);
    out
}
