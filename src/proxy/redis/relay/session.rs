//! What a client's session is: who it is logged in as, which database and protocol version it speaks. Lives on one core.

use std::rc::Rc;

use base::model::{Credentials, Secret};
use wire::resp::frame::decimal;

/// What CLIENT REPLY says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    On,
    Off,
    /// The next command has no reply.
    SkipNext,
}

/// The session of one client. The server has agreed to all of it.
#[derive(Debug)]
pub struct Session {
    /// CLIENT ID.
    pub id: u64,
    pub database: u32,
    /// 2 or 3.
    pub resp: u8,
    pub credentials: Option<Rc<Credentials>>,
    pub name: Vec<u8>,
    pub reply_mode: ReplyMode,
    /// It needs no log-in, or has one.
    pub vetted: bool,
}

impl Session {
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, database: 0, resp: 2, credentials: None, name: Vec::new(), reply_mode: ReplyMode::On, vetted: false }
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

    /// Whether it is logged in as the default user, or not at all.
    #[must_use]
    pub fn is_default_user(&self) -> bool {
        self.credentials.as_deref().and_then(|login| login.user.as_deref()).is_none_or(|user| user == "default")
    }

    /// The change that changes nothing, to begin another from.
    #[must_use]
    pub fn change(&self) -> SessionChange {
        SessionChange {
            credentials: self.credentials.clone(),
            database: self.database,
            resp: self.resp,
            name: None,
            kind: ChangeKind::Plain,
            muted: false,
        }
    }

    /// AUTH `[user] password`; `Err`: the error a server answers.
    ///
    /// # Errors
    /// As said.
    pub fn after_auth(&self, args: &[&[u8]]) -> Result<SessionChange, String> {
        let credentials = match *args {
            [_, password] => credentials(None, password),
            [_, user, password] => credentials(Some(user), password),
            _ => return Err("ERR syntax error".to_owned()),
        };
        Ok(SessionChange { credentials: Some(credentials), ..self.change() })
    }

    /// HELLO `[version [AUTH user password] [SETNAME name]]`.
    ///
    /// # Errors
    /// As [`Self::after_auth`].
    pub fn after_hello(&self, args: &[&[u8]]) -> Result<SessionChange, String> {
        let mut change = SessionChange { kind: ChangeKind::Hello, ..self.change() };
        let Some(version) = args.get(1) else { return Ok(change) };
        match decimal(version) {
            Some(version @ (2 | 3)) => change.resp = version as u8,
            Some(_) => return Err("NOPROTO unsupported protocol version".to_owned()),
            None => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
        }
        let mut at = 2;
        while at < args.len() {
            if args[at].eq_ignore_ascii_case(b"AUTH") && at + 2 < args.len() {
                change.credentials = Some(credentials(Some(args[at + 1]), args[at + 2]));
                at += 3;
            } else if args[at].eq_ignore_ascii_case(b"SETNAME") && at + 1 < args.len() {
                change.name = Some(args[at + 1].to_vec());
                at += 2;
            } else {
                return Err(format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(args[at])));
            }
        }
        Ok(change)
    }

    /// SELECT `index`.
    ///
    /// # Errors
    /// As [`Self::after_auth`].
    pub fn after_select(&self, args: &[&[u8]]) -> Result<SessionChange, String> {
        let Some(number) = args.get(1).and_then(|index| decimal(index)) else {
            return Err("ERR value is not an integer or out of range".to_owned());
        };
        let database = u32::try_from(number).map_err(|_| "ERR DB index is out of range".to_owned())?;
        Ok(SessionChange { database, ..self.change() })
    }

    pub fn adopt(&mut self, change: SessionChange) {
        self.credentials = change.credentials;
        self.database = change.database;
        self.resp = change.resp;
        if let Some(name) = change.name {
            self.name = name;
        }
    }

    /// Nil, as a client of this protocol version reads it.
    #[must_use]
    pub fn nil_array(&self) -> &'static [u8] {
        if self.resp == 3 { b"_\r\n" } else { b"*-1\r\n" }
    }
}

fn credentials(user: Option<&[u8]>, password: &[u8]) -> Rc<Credentials> {
    let user = user.map(|user| String::from_utf8_lossy(user).into_owned());
    Rc::new(Credentials { user, password: Secret::new(password) })
}

/// What of a block changes the session or tells of it.
#[derive(Debug, Clone, Default)]
pub struct InBlock {
    /// Places in the block, and the commands there.
    pub commands: Vec<(usize, Vec<u8>)>,
    /// The client has asked for no reply to EXEC.
    pub muted: bool,
}

/// Which command asked for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// AUTH, SELECT.
    Plain,
    /// The `id` in the reply is replaced by the session's.
    Hello,
}

/// A change of session that the server must agree to: the state after it.
#[derive(Debug, Clone)]
pub struct SessionChange {
    pub credentials: Option<Rc<Credentials>>,
    pub database: u32,
    pub resp: u8,
    pub name: Option<Vec<u8>>,
    pub kind: ChangeKind,
    /// The client has asked for no reply (CLIENT REPLY); the change is made all the same.
    pub muted: bool,
}
