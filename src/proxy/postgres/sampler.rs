//! Counts and samples of the statements that pass through one relay. Lives on one core; sees no bytes but a sample's text.

use std::collections::HashMap;

use base::model::{StatementSample, limits};
use bus::counters::CoreCounters;
use wire::postgres::facts::{Class, Facts, Keeps};

/// Counts and samples of one interlay on one core.
#[derive(Debug)]
pub struct Sampler {
    statements: u64,
    reads: u64,
    writes: u64,
    /// Units of work that ended with an error.
    failed_units: u64,
    by_name: HashMap<&'static str, u64>,
    by_state: Vec<(&'static str, u64)>,
    /// Statements since the samples were taken last.
    seen: u64,
    /// One statement in this many is kept as a sample.
    stride: u64,
    samples: Vec<StatementSample>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            statements: 0,
            reads: 0,
            writes: 0,
            failed_units: 0,
            by_name: HashMap::new(),
            by_state: Vec::new(),
            seen: 0,
            stride: 1,
            samples: Vec::new(),
        }
    }
}

impl Sampler {
    /// Counts a statement by its name and class.
    pub fn count(&mut self, name: &'static str, class: Class) {
        self.statements += 1;
        match class {
            Class::Read => self.reads += 1,
            Class::Write => self.writes += 1,
            Class::Session | Class::Transaction | Class::Opaque => {}
        }
        *self.by_name.entry(name).or_default() += 1;
    }

    pub fn count_facts(&mut self, facts: &Facts) {
        self.count(facts.name, facts.class);
    }

    /// Counts a session that has begun to keep these kinds of state.
    pub fn count_keeps(&mut self, new: Keeps) {
        for name in new.names() {
            match self.by_state.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => self.by_state.push((name, 1)),
            }
        }
    }

    pub fn count_failed_unit(&mut self) {
        self.failed_units += 1;
    }

    /// Adds what was counted since the start.
    pub fn add_counters(&self, counters: &mut CoreCounters) {
        counters.commands += self.statements;
        counters.commands_read += self.reads;
        counters.commands_write += self.writes;
        counters.replies_error += self.failed_units;
        counters.commands_by_name = self.by_name.iter().map(|(name, count)| (*name, *count)).collect();
        counters.sessions_by_state = self.by_state.clone();
    }

    /// Whether the statement that begins now is kept as a sample.
    pub fn chooses(&mut self) -> bool {
        self.seen += 1;
        self.seen.is_multiple_of(self.stride)
    }

    /// Keeps a sample. When there is no more room, every other sample is dropped, and from then on half as many are chosen.
    pub fn keep(&mut self, sample: StatementSample) {
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

    /// The samples since the last call. Their weights add up to the number of statements that passed in that time.
    pub fn take(&mut self) -> Vec<StatementSample> {
        let mut samples = std::mem::take(&mut self.samples);
        self.stride = (self.stride / 2).max(1);
        if samples.is_empty() {
            // What passed without a sample is added to the weight of the next ones.
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
