//! What is learnt of statements as they pass: their classes counted, the state they leave behind, a few kept as samples.

use std::collections::HashMap;

use super::PostgresRelay;
use crate::contract::ClientKey;
use base::model::{StatementSample, limits};
use wire::postgres::facts::{Class, Facts, Keeps, facts};
use wire::postgres::frame::{self, Bind, Close, Kind, Parse};

/// Counts and samples of one interlay on one core.
#[derive(Debug)]
pub(super) struct Sampler {
    by_name: HashMap<&'static str, u64>,
    by_state: Vec<(&'static str, u64)>,
    /// Statements since the samples were taken last.
    seen: u64,
    /// One statement in this many is kept.
    stride: u64,
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
        self.seen.is_multiple_of(self.stride)
    }

    /// Keeps a sample; when there is no more room, every other one goes and from now on half as many come.
    fn keep(&mut self, sample: StatementSample) {
        if self.samples.len() >= limits::STATEMENT_SAMPLES_MAX {
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            self.stride = self.stride.saturating_mul(2);
        }
        self.samples.push(sample);
    }

    /// The samples since the last call; together they weigh what passed in that time.
    pub fn take(&mut self) -> Vec<StatementSample> {
        let mut samples = std::mem::take(&mut self.samples);
        self.stride = (self.stride / 2).max(1);
        if samples.is_empty() {
            // What passed unsampled is added to the weight of the next ones.
            return samples;
        }
        let (each, rest) = (self.seen / samples.len() as u64, self.seen % samples.len() as u64);
        for (at, sample) in samples.iter_mut().enumerate() {
            let weight = each + u64::from((at as u64) < rest);
            sample.weight = u32::try_from(weight).unwrap_or(u32::MAX);
        }
        self.seen = 0;
        samples
    }
}

/// The prepared statement a session bound last, and what is known of it: most sessions bind the same one again and again.
#[derive(Debug, Default)]
pub(super) struct LastBound {
    name: Vec<u8>,
    facts: Option<Facts>,
    /// It was looked for and is not remembered.
    is_unknown: bool,
}

/// A statement chosen as a sample, while it runs.
#[derive(Debug)]
pub(super) struct Sampled {
    text: Box<str>,
    cut: bool,
    began_us: u64,
    /// Units of work the server finishes before the one it is in.
    units_before: usize,
}

/// Whether a text is only the beginning of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    Yes,
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
            b'Q' => self.note_query(key, body),
            b'P' => self.note_parse(key, body),
            b'B' => self.note_bind(key, body),
            b'E' => self.note_execute(key),
            b'C' => {
                let Some(session) = self.sessions.get_mut(key) else { return };
                match Close::read(body) {
                    Some(Close { kind: Kind::Statement, name }) => session.registry.on_close_statement(name),
                    Some(Close { kind: Kind::Portal, .. }) => session.registry.on_close_portal(),
                    None => {}
                }
            }
            b'F' => {
                self.count("function call", Class::Opaque);
                self.note_sync(key);
            }
            b'S' => self.note_sync(key),
            _ => {}
        }
    }

    fn note_sync(&mut self, key: ClientKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.registry.on_sync();
        }
    }

    fn note_parse(&mut self, key: ClientKey, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(parse) = Parse::read(body) else { return };
        if parse.cut {
            session.registry.on_parse_too_long(parse.name);
        } else {
            session.registry.on_parse(parse.name, body);
        }
        if parse.name == session.last_bound.name {
            session.last_bound.facts = None;
            session.last_bound.is_unknown = false;
        }
        if !parse.name.is_empty() {
            self.note_keeps(key, Keeps::PREPARED);
        }
    }

    fn note_bind(&mut self, key: ClientKey, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(bind) = Bind::read(body) else { return };
        if session.last_bound.name != bind.statement {
            session.last_bound = LastBound { name: bind.statement.to_vec(), facts: None, is_unknown: false };
        }
    }

    fn note_execute(&mut self, key: ClientKey) {
        let chosen = self.may_sample(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let is_plain =
            |known: &Facts| known.keeps.is_empty() && matches!(known.class, Class::Read | Class::Write | Class::Opaque);
        // The text is looked for, and copied, only where it is read: for the sample, or because it changes what the session keeps.
        let bound = &mut session.last_bound;
        let (known, text) = match bound.facts {
            Some(known) if is_plain(&known) && !chosen => (Some(known), None),
            None if bound.is_unknown => (None, None),
            known => {
                let text = session.registry.statement_text(&bound.name);
                let known = known.or_else(|| text.map(facts));
                let wanted = known.is_some_and(|known| chosen || !is_plain(&known));
                (known, if wanted { text.map(<[u8]>::to_vec) } else { None })
            }
        };
        let Some(known) = known else {
            session.last_bound.is_unknown = true;
            session.registry.on_unknown_statement();
            return self.count("other", Class::Opaque);
        };
        session.last_bound.facts = Some(known);
        session.registry.on_statement_with(text.as_deref().unwrap_or_default(), &known);
        self.count(known.name, known.class);
        if chosen && let Some(text) = text {
            self.begin_sample(key, &text, Cut::No);
        }
        self.note_keeps(key, known.keeps);
    }

    fn note_query(&mut self, key: ClientKey, body: &[u8]) {
        let chosen = self.may_sample(key);
        let (text, cut) = frame::query_text(body);
        let Some(session) = self.sessions.get_mut(key) else { return };
        let known = session.registry.on_statement(text);
        session.registry.on_sync();
        self.count(known.name, known.class);
        if chosen {
            self.begin_sample(key, text, if cut { Cut::Yes } else { Cut::No });
        }
        self.note_keeps(key, known.keeps);
    }

    /// Whether this statement is kept. Of a pipeline every statement has the same chance.
    fn may_sample(&mut self, key: ClientKey) -> bool {
        let room = self.sessions.get(key).is_some_and(|session| session.sampled.len() < limits::SAMPLES_IN_FLIGHT_MAX);
        self.sampler.chooses() && room
    }

    fn begin_sample(&mut self, key: ClientKey, text: &[u8], cut: Cut) {
        let began_us = self.now.mono_us;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let kept = &text[..text.len().min(limits::STATEMENT_SAMPLE_BYTES)];
        let cut = cut == Cut::Yes || kept.len() < text.len();
        let text = String::from_utf8_lossy(kept).into_owned().into_boxed_str();
        let units_before = session.tracker.outstanding();
        session.sampled.push_back(Sampled { text, cut, began_us, units_before });
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

    /// A unit of work is over: so are the samples in it.
    pub(super) fn sample_over(&mut self, key: ClientKey, failed: bool) {
        let now_us = self.now.mono_us;
        if failed {
            self.counters.replies_error += 1;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        // Those of one batch end together. When the session is idle all have, whatever a COPY has swallowed.
        let idle = session.tracker.is_idle();
        while session.sampled.front().is_some_and(|sampled| idle || sampled.units_before == 0) {
            let Some(Sampled { text, cut, began_us, .. }) = session.sampled.pop_front() else { break };
            let latency_us = now_us.saturating_sub(began_us);
            self.sampler.keep(StatementSample { text, cut, latency_us, weight: 1, failed });
        }
        for sampled in &mut session.sampled {
            sampled.units_before = sampled.units_before.saturating_sub(1);
        }
    }
}
