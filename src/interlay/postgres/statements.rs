//! What is learnt of statements as they pass: their classes counted, the state they leave behind, a few kept as samples.

use std::collections::HashMap;

use super::PostgresRelay;
use crate::model::{StatementSample, limits};
use crate::protocol::postgres::facts::{Class, Facts, Keeps, facts};
use crate::protocol::postgres::frame::{self, Bind, Close, Kind, Parse};
use crate::relay::ClientKey;

/// Counts and samples of one interlay on one core.
#[derive(Debug)]
pub(super) struct Sampler {
    by_name: HashMap<&'static str, u64>,
    by_state: Vec<(&'static str, u64)>,
    seen: u64,
    /// One statement in this many is kept.
    stride: u32,
    samples: Vec<StatementSample>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { by_name: HashMap::new(), by_state: Vec::new(), seen: 0, stride: 1, samples: Vec::new() }
    }
}

impl Sampler {
    pub fn by_name(&self) -> Vec<(&'static str, u64)> {
        self.by_name.iter().map(|(name, count)| (*name, *count)).collect()
    }

    pub fn by_state(&self) -> Vec<(&'static str, u64)> {
        self.by_state.clone()
    }

    /// Whether the statement that begins now is kept.
    fn chooses(&mut self) -> bool {
        self.seen += 1;
        self.samples.len() < limits::STATEMENT_SAMPLES_MAX && self.seen.is_multiple_of(u64::from(self.stride))
    }

    /// The samples since the last call; how densely the next ones are taken follows from how many there were.
    pub fn take(&mut self) -> Vec<StatementSample> {
        if self.samples.len() >= limits::STATEMENT_SAMPLES_MAX {
            self.stride = self.stride.saturating_mul(2);
        } else if self.samples.len() < limits::STATEMENT_SAMPLES_MAX / 4 {
            self.stride = (self.stride / 2).max(1);
        }
        std::mem::take(&mut self.samples)
    }
}

/// The prepared statement a session bound last, and what is known of it: most sessions bind the same one again and again.
#[derive(Debug, Default)]
pub(super) struct LastBound {
    name: Vec<u8>,
    facts: Option<Facts>,
}

/// A statement chosen as a sample, while it runs.
#[derive(Debug)]
pub(super) struct Sampled {
    text: Box<str>,
    cut: bool,
    began_us: u64,
    weight: u32,
}

/// How much of a client's frame must be there before it is looked at; the rest may pass as it comes.
pub(super) fn wanted(tag: u8, body_len: usize) -> usize {
    match tag {
        b'Q' => body_len.min(limits::STATEMENT_SAMPLE_BYTES),
        b'P' => body_len.min(limits::PARSE_GATHERED_BYTES_MAX),
        b'B' => body_len.min(limits::BIND_NAMES_BYTES_MAX),
        b'C' => body_len,
        _ => 0,
    }
}

impl PostgresRelay {
    /// A client's frame is about to be forwarded; `body` is its beginning, as long as [`wanted`] says.
    pub(super) fn note_client_frame(&mut self, key: ClientKey, tag: u8, body: &[u8]) {
        match tag {
            b'Q' => {
                let (text, cut) = frame::query_text(body);
                self.note_statement(key, text, cut, facts(text));
            }
            b'P' => self.note_parse(key, body),
            b'B' => self.note_bind(key, body),
            b'E' => self.note_execute(key),
            b'C' => {
                if let (Some(session), Some(Close { kind: Kind::Statement, name })) =
                    (self.sessions.get_mut(key), Close::read(body))
                {
                    session.registry.on_close_statement(name);
                }
            }
            b'F' => self.count("function call", Class::Opaque),
            _ => {}
        }
    }

    fn note_parse(&mut self, key: ClientKey, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(parse) = Parse::read(body) else { return };
        session.registry.on_parse(parse.name, body);
        if parse.name == session.last_bound.name {
            session.last_bound.facts = None;
        }
        if !parse.name.is_empty() {
            self.note_keeps(key, Keeps::PREPARED);
        }
    }

    fn note_bind(&mut self, key: ClientKey, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(bind) = Bind::read(body) else { return };
        if session.last_bound.name != bind.statement {
            session.last_bound.name = bind.statement.to_vec();
            session.last_bound.facts = None;
        }
    }

    fn note_execute(&mut self, key: ClientKey) {
        let chosen = self.may_sample(key);
        let Some(session) = self.sessions.get(key) else { return };
        let text = session.registry.statement_text(&session.last_bound.name);
        let known = match (session.last_bound.facts, text) {
            (Some(known), _) => known,
            (None, Some(text)) => facts(text),
            (None, None) => return self.count("other", Class::Opaque),
        };
        // The text is only copied where somebody wants it.
        let keeps_state = !known.keeps.is_empty() || !matches!(known.class, Class::Read | Class::Write);
        let text = if chosen || keeps_state { text.map(<[u8]>::to_vec) } else { None };
        if let Some(session) = self.sessions.get_mut(key) {
            session.last_bound.facts = Some(known);
        }
        self.count(known.name, known.class);
        if let Some(text) = text {
            self.note_text(key, &text, false, known, chosen);
        }
    }

    fn note_statement(&mut self, key: ClientKey, text: &[u8], cut: bool, known: Facts) {
        let chosen = self.may_sample(key);
        self.count(known.name, known.class);
        self.note_text(key, text, cut, known, chosen);
    }

    /// A sample's time is that of its unit, so it must be the first statement in it, and the only unit outstanding.
    fn may_sample(&mut self, key: ClientKey) -> bool {
        let alone = self
            .sessions
            .get(key)
            .is_some_and(|session| session.sampled.is_none() && session.tracker.outstanding() == 0);
        self.sampler.chooses() && alone
    }

    fn note_text(&mut self, key: ClientKey, text: &[u8], cut: bool, known: Facts, chosen: bool) {
        let (began_us, weight) = (self.now.mono_us, self.sampler.stride);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !known.keeps.is_empty() || !matches!(known.class, Class::Read | Class::Write) {
            session.registry.on_statement(text);
        }
        if chosen {
            let kept = &text[..text.len().min(limits::STATEMENT_SAMPLE_BYTES)];
            let cut = cut || kept.len() < text.len();
            let text = String::from_utf8_lossy(kept).into_owned().into_boxed_str();
            session.sampled = Some(Sampled { text, cut, began_us, weight });
        }
        self.note_keeps(key, known.keeps);
    }

    fn note_keeps(&mut self, key: ClientKey, keeps: Keeps) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let new = keeps.without(session.keeps_seen);
        session.keeps_seen |= keeps;
        for name in new.names() {
            match self.sampler.by_state.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => self.sampler.by_state.push((name, 1)),
            }
        }
    }

    fn count(&mut self, name: &'static str, class: Class) {
        self.counters.commands += 1;
        match class {
            Class::Read => self.counters.commands_read += 1,
            Class::Write => self.counters.commands_write += 1,
            Class::Session | Class::Transaction | Class::Opaque => {}
        }
        *self.sampler.by_name.entry(name).or_default() += 1;
    }

    /// A unit of work is over: so is the sample in it.
    pub(super) fn sample_over(&mut self, key: ClientKey, failed: bool) {
        let now_us = self.now.mono_us;
        if failed {
            self.counters.replies_error += 1;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(Sampled { text, cut, began_us, weight }) = session.sampled.take() else { return };
        let latency_us = now_us.saturating_sub(began_us);
        self.sampler.samples.push(StatementSample { text, cut, latency_us, weight, failed });
    }
}
