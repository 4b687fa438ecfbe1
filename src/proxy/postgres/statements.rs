//! What one session's statements tell as they pass: their classes are counted, the state they leave behind is remembered, a few are kept
//! as samples. Lives on one core, in its session. Forwards nothing and holds nothing up.

use std::collections::VecDeque;

use super::sampler::Sampler;
use base::model::{StatementSample, limits};
use wire::postgres::Registry;
use wire::postgres::facts::{Class, Facts, Keeps, facts};
use wire::postgres::frame::{self, Bind, Close, Kind, Parse, command_tag};

/// The prepared statement a session bound last, and what is known of it. Most sessions bind the same one again and again.
#[derive(Debug, Default)]
struct LastBound {
    name: Vec<u8>,
    facts: Option<Facts>,
    /// The registry was asked for it and does not remember it.
    is_unknown: bool,
}

/// A statement chosen as a sample, while it runs.
#[derive(Debug)]
struct Sampled {
    text: Box<str>,
    cut: bool,
    began_us: u64,
    /// Units of work that the server finishes before the one this statement is in.
    units_before: usize,
}

/// Whether a text is only the beginning of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    Yes,
}

/// When a statement begins.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub now_us: u64,
    /// Units of work that the server has still to finish.
    pub units_outstanding: usize,
}

/// A ReadyForQuery that passed.
#[derive(Debug, Clone, Copy)]
pub struct UnitDone {
    /// b'I', b'T' or b'E'.
    pub status: u8,
    /// An ErrorResponse came in this unit.
    pub failed: bool,
    /// Units of work that the server has still to finish.
    pub units_outstanding: usize,
    /// Nothing of the session is outstanding or open.
    pub idle: bool,
    /// Monotonic.
    pub now_us: u64,
}

/// How much of a client's frame must have arrived before it is looked at; the rest may pass as it comes.
#[inline]
pub fn wanted_of_client(tag: u8, body_len: usize) -> usize {
    match tag {
        b'Q' => body_len.min(limits::STATEMENT_SAMPLE_BYTES),
        b'P' => body_len.min(limits::PARSE_GATHERED_BYTES_MAX),
        b'B' => body_len.min(limits::BIND_NAMES_BYTES_MAX),
        b'C' => body_len,
        _ => 0,
    }
}

/// The same for a server's frame.
#[inline]
pub fn wanted_of_server(tag: u8, body_len: usize) -> usize {
    match tag {
        b'Z' | b'C' | b'E' => body_len.min(limits::SERVER_BODY_LOOKED_AT_BYTES),
        _ => 0,
    }
}

/// What is remembered of one session's statements.
#[derive(Debug, Default)]
pub struct Statements {
    pub registry: Registry,
    last_bound: LastBound,
    sampled: VecDeque<Sampled>,
    /// Every kind of state the session has had.
    keeps_seen: Keeps,
}

// The client's frames.
impl Statements {
    /// A client's frame is about to be forwarded; `body` is its beginning, as long as [`wanted_of_client`] says.
    #[inline]
    pub fn client_frame(&mut self, tag: u8, body: &[u8], at: Moment, sampler: &mut Sampler) {
        match tag {
            b'Q' => self.query(body, at, sampler),
            b'P' => self.parse(body, sampler),
            b'B' => self.bind(body),
            b'E' => self.execute(at, sampler),
            b'C' => match Close::read(body) {
                Some(Close { kind: Kind::Statement, name }) => self.registry.on_close_statement(name),
                Some(Close { kind: Kind::Portal, .. }) => self.registry.on_close_portal(),
                None => {}
            },
            b'F' => {
                sampler.count("function call", Class::Opaque);
                self.registry.on_sync();
            }
            b'S' => self.registry.on_sync(),
            _ => {}
        }
    }

    fn parse(&mut self, body: &[u8], sampler: &mut Sampler) {
        let Some(parse) = Parse::read(body) else { return };
        if parse.cut {
            self.registry.on_parse_too_long(parse.name);
        } else {
            self.registry.on_parse(parse.name, body);
        }
        if parse.name == self.last_bound.name {
            self.last_bound.facts = None;
            self.last_bound.is_unknown = false;
        }
        if !parse.name.is_empty() {
            self.note_keeps(Keeps::PREPARED, sampler);
        }
    }

    fn bind(&mut self, body: &[u8]) {
        let Some(bind) = Bind::read(body) else { return };
        if self.last_bound.name != bind.statement {
            self.last_bound = LastBound { name: bind.statement.to_vec(), facts: None, is_unknown: false };
        }
    }

    fn execute(&mut self, at: Moment, sampler: &mut Sampler) {
        let chosen = self.may_sample(sampler);
        let is_plain =
            |known: &Facts| known.keeps.is_empty() && matches!(known.class, Class::Read | Class::Write | Class::Opaque);
        // The text is looked up and copied only where it is read: for the sample, or because it changes what the session keeps.
        let bound = &mut self.last_bound;
        let (known, text) = match bound.facts {
            Some(known) if is_plain(&known) && !chosen => (Some(known), None),
            None if bound.is_unknown => (None, None),
            known => {
                let text = self.registry.statement_text(&bound.name);
                let known = known.or_else(|| text.map(facts));
                let is_read = known.is_some_and(|known| chosen || !is_plain(&known));
                (known, if is_read { text.map(<[u8]>::to_vec) } else { None })
            }
        };
        let Some(known) = known else {
            self.last_bound.is_unknown = true;
            self.registry.on_unknown_statement();
            return sampler.count("other", Class::Opaque);
        };
        self.last_bound.facts = Some(known);
        self.registry.on_statement_with(text.as_deref().unwrap_or_default(), &known);
        sampler.count_facts(&known);
        if chosen && let Some(text) = text {
            self.begin_sample(&text, Cut::No, at);
        }
        self.note_keeps(known.keeps, sampler);
    }

    fn query(&mut self, body: &[u8], at: Moment, sampler: &mut Sampler) {
        let chosen = self.may_sample(sampler);
        let (text, cut) = frame::query_text(body);
        let known = self.registry.on_statement(text);
        self.registry.on_sync();
        sampler.count_facts(&known);
        if chosen {
            self.begin_sample(text, if cut { Cut::Yes } else { Cut::No }, at);
        }
        self.note_keeps(known.keeps, sampler);
    }

    /// Whether this statement is kept as a sample. Every statement of a pipeline has the same chance.
    fn may_sample(&self, sampler: &mut Sampler) -> bool {
        sampler.chooses() && self.sampled.len() < limits::SAMPLES_IN_FLIGHT_MAX
    }

    fn begin_sample(&mut self, text: &[u8], cut: Cut, at: Moment) {
        let kept = &text[..text.len().min(limits::STATEMENT_SAMPLE_BYTES)];
        let cut = cut == Cut::Yes || kept.len() < text.len();
        let text = String::from_utf8_lossy(kept).into_owned().into_boxed_str();
        self.sampled.push_back(Sampled { text, cut, began_us: at.now_us, units_before: at.units_outstanding });
    }

    fn note_keeps(&mut self, keeps: Keeps, sampler: &mut Sampler) {
        let new = keeps.without(self.keeps_seen);
        if !new.is_empty() {
            self.keeps_seen |= new;
            sampler.count_keeps(new);
        }
    }
}

// The server's frames.
impl Statements {
    /// A server's frame passes; `body` is its beginning, as long as [`wanted_of_server`] says. ReadyForQuery is [`Self::unit_done`].
    #[inline]
    pub fn server_frame(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'1' => self.registry.on_parse_complete(),
            b'3' => self.registry.on_close_complete(),
            b's' => self.registry.on_portal_suspended(),
            b'C' => self.registry.on_complete(command_tag(body).unwrap_or_default()),
            b'E' => self.registry.on_error(),
            _ => {}
        }
    }

    /// A unit of work is over: so are the samples in it.
    pub fn unit_done(&mut self, unit: UnitDone, sampler: &mut Sampler) {
        self.registry.on_ready(unit.status, unit.units_outstanding);
        if unit.failed {
            sampler.count_failed_unit();
        }
        // Samples of one batch end together. When the session is idle all have ended, whatever a COPY has swallowed.
        while self.sampled.front().is_some_and(|sampled| unit.idle || sampled.units_before == 0) {
            let Some(Sampled { text, cut, began_us, .. }) = self.sampled.pop_front() else { break };
            let latency_us = unit.now_us.saturating_sub(began_us);
            sampler.keep(StatementSample { text, cut, latency_us, weight: 1, failed: unit.failed });
        }
        for sampled in &mut self.sampled {
            sampled.units_before = sampled.units_before.saturating_sub(1);
        }
    }

    /// Names of every kind of state the session has had.
    pub fn keeps_seen(&self) -> Vec<&'static str> {
        self.keeps_seen.names().collect()
    }
}
