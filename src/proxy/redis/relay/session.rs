//! What a client's session is: who it is logged in as, which database and protocol version it speaks. Lives on one core.

use std::rc::Rc;

use base::model::Credentials;

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
}

impl Session {
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, database: 0, resp: 2, credentials: None, name: Vec::new(), reply_mode: ReplyMode::On }
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
