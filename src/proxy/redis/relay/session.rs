//! Commands that belong to the session: AUTH, HELLO, SELECT, CLIENT, QUIT, RESET. The server verifies, the relay remembers.

use std::rc::Rc;

use super::dispatch::Step;
use super::types::{Awaited, Path, PoolKey, ReplyMode, SessionChange, Wait};
use super::{ClientKey, RedisRelay};
use base::model::{Credentials, Secret};
use wire::resp::command::{self, Session};
use wire::resp::frame::decimal;
use wire::resp::{Args, encode};

impl RedisRelay {
    pub(super) fn session_command(&mut self, key: ClientKey, what: Session, frame: &[u8]) -> Step {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        let command = command::lookup(args[0]);
        if !command.arity_fits(args.len()) {
            return self.wrong_arity(key, command.name);
        }
        match what {
            Session::Auth => self.auth(key, &args, frame),
            Session::Hello => self.hello(key, &args, frame),
            Session::Select => self.select(key, &args, frame),
            Session::Client => self.client_command(key, &args, frame),
            Session::Quit => self.quit(key),
            Session::Reset => self.reset(key),
            Session::Multi => self.multi(key, frame),
            Session::Exec => self.answer(key, b"-ERR EXEC without MULTI\r\n"),
            Session::Discard => self.answer(key, b"-ERR DISCARD without MULTI\r\n"),
            Session::Watch => self.watch(key, frame),
            Session::Unwatch => self.unwatch(key, frame),
            Session::Subscribe | Session::Monitor => self.enter_raw(key, frame),
        }
    }

    pub(super) fn wrong_arity(&mut self, key: ClientKey, name: &str) -> Step {
        self.answer(key, &encode::error(&format!("ERR wrong number of arguments for '{name}' command")))
    }

    fn auth(&mut self, key: ClientKey, args: &[&[u8]], frame: &[u8]) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Close };
        let credentials = match *args {
            [_, password] => credentials(None, password),
            [_, user, password] => credentials(Some(user), password),
            _ => return self.answer(key, b"-ERR syntax error\r\n"),
        };
        let change = SessionChange {
            credentials: Some(credentials),
            database: client.database,
            resp: client.resp,
            name: None,
            is_hello: false,
        };
        self.change_session(key, change, frame)
    }

    /// HELLO [version [AUTH user password] [SETNAME name]]
    fn hello(&mut self, key: ClientKey, args: &[&[u8]], frame: &[u8]) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Close };
        let mut change = SessionChange {
            credentials: client.credentials.clone(),
            database: client.database,
            resp: client.resp,
            name: None,
            is_hello: true,
        };
        let Some(version) = args.get(1) else { return self.change_session(key, change, frame) };
        match decimal(version) {
            Some(version @ (2 | 3)) => change.resp = version as u8,
            Some(_) => return self.answer(key, b"-NOPROTO unsupported protocol version\r\n"),
            None => return self.answer(key, b"-ERR Protocol version is not an integer or out of range\r\n"),
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
                return self.answer(key, &encode::error(&text));
            }
        }
        let frame = encode::request(&to_server);
        self.change_session(key, change, &frame)
    }

    fn select(&mut self, key: ClientKey, args: &[&[u8]], frame: &[u8]) -> Step {
        let Some(client) = self.clients.get(key) else { return Step::Close };
        let Some(database) = decimal(args[1]).and_then(|db| u32::try_from(db).ok()) else {
            return match decimal(args[1]) {
                Some(_) => self.answer(key, b"-ERR DB index is out of range\r\n"),
                None => self.answer(key, b"-ERR value is not an integer or out of range\r\n"),
            };
        };
        let change = SessionChange {
            credentials: client.credentials.clone(),
            database,
            resp: client.resp,
            name: None,
            is_hello: false,
        };
        self.change_session(key, change, frame)
    }

    /// Sends the command on a connection that already has the wanted state; the server's own reply decides.
    fn change_session(&mut self, key: ClientKey, change: SessionChange, frame: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let mute = client.mute_this();
        let pool = PoolKey {
            side: self.plan.authority.side,
            credentials: change.credentials.clone(),
            database: change.database,
            resp: change.resp,
        };
        let upstream_key = self.shared_upstream(pool);
        let (Some(client), Some(upstream)) = (self.clients.get_mut(key), self.upstreams.get_mut(upstream_key)) else {
            return Step::Close;
        };
        client.path = Path::Shared(upstream_key);
        client.outstanding += 1;
        upstream.output.extend_from_slice(frame);
        upstream.awaited.push_back(if mute { Awaited::Mute(key) } else { Awaited::Session(key, Box::new(change)) });
        self.upstream_has_output(upstream_key);
        // What follows in the pipeline may depend on the outcome, so it waits.
        Step::Done
    }

    /// The server agreed (or not) to a change of session; `reply` is whole.
    pub(super) fn session_changed(&mut self, key: ClientKey, change: SessionChange, reply: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.outstanding = client.outstanding.saturating_sub(1);
        client.decided = None; // of a command that waited for this session
        if reply.first() == Some(&b'-') || reply.first() == Some(&b'!') {
            client.output.extend_from_slice(reply);
        } else {
            client.credentials = change.credentials;
            client.database = change.database;
            client.resp = change.resp;
            if let Some(name) = change.name {
                client.name = name;
            }
            if change.is_hello {
                client.output.extend_from_slice(&with_session_id(reply, client.id));
            } else {
                client.output.extend_from_slice(reply);
            }
        }
        self.client_has_output(key);
        self.reply_arrived(key);
    }

    fn client_command(&mut self, key: ClientKey, args: &[&[u8]], frame: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        let word = args[1].to_ascii_uppercase();
        match (word.as_slice(), args.len()) {
            (b"ID", 2) => {
                let reply = format!(":{}\r\n", client.id);
                self.answer(key, reply.as_bytes())
            }
            (b"GETNAME", 2) => {
                let mut reply = Vec::new();
                match (client.name.is_empty(), client.resp) {
                    (true, 3) => reply.extend_from_slice(b"_\r\n"),
                    (true, _) => reply.extend_from_slice(b"$-1\r\n"),
                    (false, _) => encode::push_bulk(&mut reply, &client.name),
                }
                self.answer(key, &reply)
            }
            (b"SETNAME", 3) if args[2].iter().all(|b| (b'!'..=b'~').contains(b)) => {
                if client.outstanding == 0 {
                    client.name = args[2].to_vec();
                }
                self.answer(key, b"+OK\r\n")
            }
            (b"SETNAME", 3) => {
                self.answer(key, b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n")
            }
            // Library name and version are for the server's CLIENT LIST, which shows Crossfade's connections.
            (b"SETINFO", 4) => self.answer(key, b"+OK\r\n"),
            (b"REPLY", 3) => self.reply_mode(key, args[2]),
            (b"NO-EVICT", 3) => self.answer(key, b"+OK\r\n"),
            (
                b"TRACKING" | b"CACHING" | b"TRACKINGINFO" | b"GETREDIR" | b"NO-TOUCH" | b"UNBLOCK" | b"CAPA"
                | b"IMPORT-SOURCE",
                _,
            ) => {
                let name = String::from_utf8_lossy(&word).into_owned();
                let text = format!(
                    "ERR Crossfade does not carry CLIENT {name} yet: it would act on a connection shared with other clients"
                );
                self.answer(key, &encode::error(&text))
            }
            _ => self.send_shared(key, frame),
        }
    }

    fn reply_mode(&mut self, key: ClientKey, mode: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        match mode.to_ascii_uppercase().as_slice() {
            b"ON" => {
                client.reply_mode = ReplyMode::On;
                self.answer(key, b"+OK\r\n")
            }
            b"OFF" => {
                client.reply_mode = ReplyMode::Off;
                Step::Done
            }
            b"SKIP" => {
                if client.reply_mode == ReplyMode::On {
                    client.reply_mode = ReplyMode::SkipNext;
                }
                Step::Done
            }
            _ => self.answer(key, b"-ERR syntax error\r\n"),
        }
    }

    pub(super) fn quit(&mut self, key: ClientKey) -> Step {
        let step = self.answer(key, b"+OK\r\n");
        if step == Step::Done
            && let Some(client) = self.clients.get_mut(key)
        {
            client.closing = true;
            self.client_has_output(key);
        }
        step
    }

    pub(super) fn reset(&mut self, key: ClientKey) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 && !client.raw {
            return Step::Wait(Wait::OwnReplies);
        }
        let (pinned, forget) = (client.pinned.take(), client.watching);
        client.outstanding = 0;
        client.database = 0;
        client.resp = 2;
        client.credentials = None;
        client.name.clear();
        client.reply_mode = ReplyMode::On;
        client.transaction = None;
        client.watching = false;
        client.watch_lost = false;
        client.raw = false;
        client.subscriptions.clear();
        if let Some(upstream) = pinned {
            self.close_upstream(upstream);
        }
        if forget {
            self.push_forget(key);
        }
        self.answer(key, b"+RESET\r\n")
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
