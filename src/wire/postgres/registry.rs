//! What one session would need on another server: prepared statements of the protocol, settings made in the stream, LISTEN channels,
//! and which kinds of other state it keeps. Lives on one core, in its session. It only remembers; it moves nothing.
//!
//! What the client sends waits in a queue until the server answers it; what an error skips is forgotten. Settings and channels follow
//! the transaction: a journal of what to undo is kept to its end, as PostgreSQL keeps its own (guc.c, async.c). A Query without BEGIN
//! is a transaction by itself, and so is an extended batch up to its Sync (protocol-flow, "Multiple Statements in a Simple Query",
//! "Pipelining").

use std::collections::{BTreeMap, VecDeque};

use super::facts::{Class, Facts, Keeps, facts};
use super::frame::Parse;
use super::lex::statements;
use super::settings::{Effect, Setting, effects};
use base::model::limits;

/// What was sent and not yet answered.
#[derive(Debug)]
enum Pending {
    /// This many statements that change nothing of the session.
    Plain(u32),
    Statement(Vec<Effect>),
    Parse {
        name: Vec<u8>,
        body: Vec<u8>,
    },
    CloseStatement(Vec<u8>),
    ClosePortal,
    /// A Sync, Query or FunctionCall: a ReadyForQuery answers it.
    End,
}

/// How to undo one change.
#[derive(Debug)]
enum Undo {
    /// The setting as it was before, with its position; `None`: there was none.
    Setting {
        name: String,
        before: Option<(usize, Setting)>,
    },
    Settings(Vec<Setting>),
    Listen(String),
    Unlisten(String),
    Channels(Vec<String>),
    Keeps(Keeps),
}

/// Kinds of state that a rollback removes.
const TRANSACTIONAL: &[Keeps] = &[Keeps::TEMP_TABLE, Keeps::HELD_CURSOR];
/// RESET ALL leaves these alone (GUC_NO_RESET_ALL).
const NOT_RESET: &[&str] = &["role", "session_authorization"];

/// One session's state. Every part of it is bounded (`limits::PG_*`); what did not fit is counted, see [`Self::is_complete`].
#[derive(Debug, Default)]
pub struct Registry {
    pending: VecDeque<Pending>,
    /// How many of `pending` are `End`.
    ends: usize,
    named: BTreeMap<Vec<u8>, Vec<u8>>,
    unnamed: Option<Vec<u8>>,
    /// Of all Parse bodies, pending ones included.
    bytes: usize,
    /// In the order they were last made.
    settings: Vec<Setting>,
    channels: Vec<String>,
    keeps: Keeps,
    unknown_settings: bool,
    overflow: u64,
    journal: Vec<Undo>,
    /// Name, and the journal's length when it was made.
    savepoints: Vec<(String, usize)>,
    /// An error came since the last ReadyForQuery.
    failed: bool,
    /// A used buffer for the body of the next Parse, so that an unnamed statement allocates nothing.
    spare: Vec<u8>,
}

// What the client sends.
impl Registry {
    /// A session that has just logged in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A Parse is forwarded; `body` is its whole body, the name included. The empty name is the unnamed statement.
    pub fn on_parse(&mut self, name: &[u8], body: &[u8]) {
        let full = self.bytes + name.len() + body.len() > limits::PG_PREPARED_BYTES_MAX;
        let mut kept = std::mem::take(&mut self.spare);
        kept.clear();
        if full {
            // The unnamed statement is a convenience: a client that binds it again after a move is told it does not exist.
            self.overflow += u64::from(!name.is_empty());
        } else {
            kept.extend_from_slice(body);
        }
        self.bytes += name.len() + kept.len();
        self.push(Pending::Parse { name: name.to_vec(), body: kept });
    }

    /// A Parse too long to be gathered is forwarded: its text is not remembered.
    pub fn on_parse_too_long(&mut self, name: &[u8]) {
        self.overflow += u64::from(!name.is_empty());
        self.bytes += name.len();
        self.push(Pending::Parse { name: name.to_vec(), body: Vec::new() });
    }

    /// A Close of this prepared statement is forwarded.
    pub fn on_close_statement(&mut self, name: &[u8]) {
        self.push(Pending::CloseStatement(name.to_vec()));
    }

    /// A Close of a portal is forwarded.
    pub fn on_close_portal(&mut self) {
        self.push(Pending::ClosePortal);
    }

    /// A Query, or an Execute of a portal whose statement is this text (see [`Self::statement_text`]), is forwarded. Cheap when the
    /// text changes nothing of the session. Returns the text's facts, which it needs anyway.
    pub fn on_statement(&mut self, sql: &[u8]) -> Facts {
        let facts = facts(sql);
        self.on_statement_with(sql, &facts);
        facts
    }

    /// As [`Self::on_statement`], with facts that are known already: a prepared statement executed again.
    pub fn on_statement_with(&mut self, sql: &[u8], facts: &Facts) {
        let plain = matches!(facts.class, Class::Read | Class::Write | Class::Opaque) && facts.keeps.is_empty();
        // Of several statements the strongest class hides the others.
        if plain && (facts.statements == 1 || facts.class == Class::Read) {
            self.push_plain(facts.statements);
            return;
        }
        if sql.len() > limits::PG_TRACKED_TEXT_BYTES_MAX {
            self.overflow += 1;
            self.push_plain(facts.statements.max(1));
            return;
        }
        for statement in statements(sql) {
            let effects = effects(statement);
            if effects.is_empty() {
                self.push_plain(1);
            } else {
                self.push(Pending::Statement(effects));
            }
        }
    }

    /// An Execute whose statement's text is not known is forwarded.
    pub fn on_unknown_statement(&mut self) {
        self.push_plain(1);
    }

    /// A frame that a ReadyForQuery answers is forwarded: a Sync, a FunctionCall, or a Query after its [`Self::on_statement`].
    pub fn on_sync(&mut self) {
        self.ends += 1;
        self.pending.push_back(Pending::End);
    }

    fn push_plain(&mut self, count: u32) {
        match self.pending.back_mut() {
            Some(Pending::Plain(before)) => *before = before.saturating_add(count),
            _ if count > 0 => self.push(Pending::Plain(count)),
            _ => {}
        }
    }

    fn push(&mut self, pending: Pending) {
        if self.pending.len() < limits::PG_PENDING_MAX {
            self.pending.push_back(pending);
        } else {
            self.overflow += 1;
            self.forget(pending);
        }
    }

    fn forget(&mut self, pending: Pending) {
        match pending {
            Pending::Parse { name, body } => self.bytes -= name.len() + body.len(),
            Pending::End => self.ends -= 1,
            Pending::Plain(_) | Pending::Statement(_) | Pending::CloseStatement(_) | Pending::ClosePortal => {}
        }
    }
}

// What the server answers.
impl Registry {
    /// Takes the first pending entry of this unit that `wanted` accepts; those before it were never answered (an empty statement).
    fn take(&mut self, wanted: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let unit = self.pending.iter().take_while(|pending| !matches!(pending, Pending::End));
        let at = unit.enumerate().find(|(_, pending)| wanted(pending)).map(|(at, _)| at)?;
        for _ in 0..at {
            if let Some(skipped) = self.pending.pop_front() {
                self.forget(skipped);
            }
        }
        self.pending.pop_front()
    }

    /// ParseComplete.
    pub fn on_parse_complete(&mut self) {
        let Some(Pending::Parse { name, body }) = self.take(|pending| matches!(pending, Pending::Parse { .. })) else {
            return;
        };
        if name.is_empty() {
            let before = self.unnamed.replace(body).unwrap_or_default();
            self.bytes -= before.len();
            if before.capacity() <= limits::PG_SETTING_BYTES_MAX {
                self.spare = before;
            }
        } else if body.is_empty() {
            // It did not fit and was counted.
            self.bytes -= name.len();
        } else if self.named.len() >= limits::PG_PREPARED_MAX {
            self.overflow += 1;
            self.bytes -= name.len() + body.len();
        } else {
            let len = name.len();
            if let Some(before) = self.named.insert(name, body) {
                self.bytes -= before.len() + len;
            }
        }
    }

    /// CloseComplete.
    pub fn on_close_complete(&mut self) {
        let closes = |pending: &Pending| matches!(pending, Pending::CloseStatement(_) | Pending::ClosePortal);
        if let Some(Pending::CloseStatement(name)) = self.take(closes) {
            self.remove_prepared(&name);
        }
    }

    fn remove_prepared(&mut self, name: &[u8]) {
        if name.is_empty() {
            let before = self.unnamed.take().unwrap_or_default();
            self.bytes -= before.len();
        } else if let Some(body) = self.named.remove(name) {
            self.bytes -= body.len() + name.len();
        }
    }

    /// CommandComplete with its text, as "SET" or "ROLLBACK".
    pub fn on_complete(&mut self, tag: &[u8]) {
        if let Some(Pending::Plain(count @ 2..)) = self.pending.front_mut() {
            *count -= 1;
            return;
        }
        match self.take(|pending| matches!(pending, Pending::Plain(_) | Pending::Statement(_))) {
            Some(Pending::Plain(count @ 2..)) => self.pending.push_front(Pending::Plain(count - 1)),
            Some(Pending::Statement(effects)) => effects.into_iter().for_each(|effect| self.apply(effect, tag)),
            _ => {}
        }
    }

    /// PortalSuspended: the statement has run, though not to its end.
    pub fn on_portal_suspended(&mut self) {
        self.on_complete(b"SELECT");
    }

    /// ErrorResponse: nothing sent up to the next Sync will be answered.
    pub fn on_error(&mut self) {
        self.failed = true;
        while !matches!(self.pending.front(), None | Some(Pending::End)) {
            if let Some(skipped) = self.pending.pop_front() {
                self.forget(skipped);
            }
        }
    }

    /// ReadyForQuery; `outstanding` is [`super::Tracker::outstanding`] after it: the tracker knows which frames a COPY or an error
    /// has swallowed.
    pub fn on_ready(&mut self, status: u8, outstanding: usize) {
        while self.ends > outstanding {
            match self.pending.pop_front() {
                Some(done) => self.forget(done),
                None => break,
            }
        }
        let failed = std::mem::take(&mut self.failed);
        if status == b'I' {
            if failed {
                self.undo_to(0);
            }
            self.commit();
        }
    }

    fn apply(&mut self, effect: Effect, tag: &[u8]) {
        match effect {
            Effect::Set(setting) => self.set(setting),
            Effect::SetUnknown => self.unknown_settings = true,
            Effect::Reset(name) => self.reset(&name),
            Effect::ResetAll => {
                let before = std::mem::take(&mut self.settings);
                self.settings = before.iter().filter(|one| NOT_RESET.contains(&one.name.as_str())).cloned().collect();
                self.record(Undo::Settings(before));
            }
            Effect::Listen(name) => self.listen(name),
            Effect::Unlisten(name) => {
                if let Some(at) = self.channels.iter().position(|own| *own == name) {
                    self.channels.remove(at);
                    self.record(Undo::Unlisten(name));
                }
            }
            Effect::UnlistenAll => {
                let before = std::mem::take(&mut self.channels);
                self.record(Undo::Channels(before));
            }
            // A failed transaction answers ROLLBACK to COMMIT.
            Effect::Commit if tag != b"ROLLBACK" => self.commit(),
            Effect::Commit | Effect::Rollback => {
                self.undo_to(0);
                self.commit();
            }
            Effect::Savepoint(name) if self.savepoints.len() < limits::PG_JOURNAL_MAX => {
                self.savepoints.push((name, self.journal.len()));
            }
            Effect::Savepoint(_) => self.overflow += 1,
            Effect::RollbackTo(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(own, _)| *own == name) {
                    self.undo_to(self.savepoints[at].1);
                    self.savepoints.truncate(at + 1);
                }
            }
            Effect::Release(name) => {
                let at = self.savepoints.iter().rposition(|(own, _)| *own == name);
                self.savepoints.truncate(at.unwrap_or(self.savepoints.len()));
            }
            Effect::Deallocate(name) => self.remove_prepared(name.as_bytes()),
            Effect::DeallocateAll => self.deallocate_all(),
            Effect::DiscardAll => self.discard_all(),
            Effect::Forget(kinds) => self.keep(self.keeps.without(kinds)),
            Effect::Keep(kinds) => self.keep(self.keeps | kinds),
        }
    }

    fn keep(&mut self, kinds: Keeps) {
        if kinds != self.keeps {
            self.record(Undo::Keeps(self.keeps));
            self.keeps = kinds;
        }
    }

    fn set(&mut self, setting: Setting) {
        let at = self.settings.iter().position(|own| own.name == setting.name);
        if at.is_none() && self.settings.len() >= limits::PG_SETTINGS_MAX {
            self.overflow += 1;
            return;
        }
        let before = at.map(|at| (at, self.settings.remove(at)));
        self.record(Undo::Setting { name: setting.name.clone(), before });
        self.settings.push(setting);
    }

    fn reset(&mut self, name: &str) {
        if let Some(at) = self.settings.iter().position(|own| own.name == name) {
            let before = Some((at, self.settings.remove(at)));
            self.record(Undo::Setting { name: name.to_owned(), before });
        }
    }

    fn listen(&mut self, name: String) {
        if self.channels.contains(&name) {
            return;
        }
        if self.channels.len() >= limits::PG_CHANNELS_MAX {
            self.overflow += 1;
            return;
        }
        self.channels.push(name.clone());
        self.record(Undo::Listen(name));
    }

    /// DEALLOCATE ALL and DISCARD ALL leave the unnamed statement.
    fn deallocate_all(&mut self) {
        let named = std::mem::take(&mut self.named);
        self.bytes -= named.iter().map(|(name, body)| name.len() + body.len()).sum::<usize>();
        self.keeps = self.keeps.without(Keeps::SQL_PREPARE);
    }

    /// Never in a transaction block, so there is nothing to undo.
    fn discard_all(&mut self) {
        self.deallocate_all();
        self.settings.clear();
        self.channels.clear();
        self.keeps = Keeps::NONE;
        self.unknown_settings = false;
        self.overflow = 0;
        self.journal.clear();
    }

    fn record(&mut self, undo: Undo) {
        if self.journal.len() < limits::PG_JOURNAL_MAX {
            self.journal.push(undo);
        } else {
            self.overflow += 1;
        }
    }

    fn commit(&mut self) {
        self.journal.clear();
        self.savepoints.clear();
        self.keeps = self.keeps.without(Keeps::LARGE_OBJECT);
    }

    fn undo_to(&mut self, len: usize) {
        while self.journal.len() > len {
            match self.journal.pop() {
                Some(Undo::Setting { name, before }) => {
                    self.settings.retain(|own| own.name != name);
                    if let Some((at, setting)) = before {
                        self.settings.insert(at.min(self.settings.len()), setting);
                    }
                }
                Some(Undo::Settings(before)) => self.settings = before,
                Some(Undo::Listen(name)) => self.channels.retain(|own| *own != name),
                Some(Undo::Unlisten(name)) => self.channels.push(name),
                Some(Undo::Channels(before)) => self.channels = before,
                Some(Undo::Keeps(before)) => {
                    for kind in TRANSACTIONAL {
                        let was = if before.contains(*kind) { *kind } else { Keeps::NONE };
                        self.keeps = self.keeps.without(*kind) | was;
                    }
                }
                None => return,
            }
        }
    }
}

// What is known.
impl Registry {
    /// The text of a prepared statement, whether the server has confirmed it or not; `None` when it is not remembered.
    #[must_use]
    pub fn statement_text(&self, name: &[u8]) -> Option<&[u8]> {
        let on_its_way = || {
            self.pending.iter().rev().find_map(|pending| match pending {
                Pending::Parse { name: own, body } if own == name => Some(body),
                _ => None,
            })
        };
        let body = match self.named.get(name) {
            Some(body) => body,
            None if name.is_empty() => on_its_way().or(self.unnamed.as_ref())?,
            None => on_its_way()?,
        };
        Parse::read(body).map(|parse| parse.query)
    }

    /// Named statements and the bodies of their Parse frames.
    pub fn prepared(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.named.iter().map(|(name, body)| (name.as_slice(), body.as_slice()))
    }

    /// The Parse body of the unnamed statement: some drivers bind it again after the Sync.
    #[must_use]
    pub fn unnamed(&self) -> Option<&[u8]> {
        self.unnamed.as_deref().filter(|body| !body.is_empty())
    }

    /// The settings made in the session, in the order in which they must be made again. Exact between transactions.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The channels listened to, in the order of their LISTEN.
    #[must_use]
    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Whether a set_config() named its setting in a way that cannot be read from the text.
    #[must_use]
    pub fn has_unknown_settings(&self) -> bool {
        self.unknown_settings
    }

    /// Whether nothing was left out for lack of room.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.overflow == 0
    }

    /// The kinds of state the session has now.
    #[must_use]
    pub fn keeps(&self) -> Keeps {
        let mut keeps = self.keeps;
        for setting in &self.settings {
            keeps |= if setting.name.contains('.') { Keeps::CUSTOM_SETTING } else { Keeps::SET };
        }
        for (there, kind) in [
            (self.unknown_settings, Keeps::SET_CONFIG),
            (!self.channels.is_empty(), Keeps::LISTEN),
            (!self.named.is_empty(), Keeps::PREPARED),
        ] {
            keeps |= if there { kind } else { Keeps::NONE };
        }
        keeps
    }
}

#[cfg(test)]
mod tests;
