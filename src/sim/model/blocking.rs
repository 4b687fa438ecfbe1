//! Blocked clients of a model server, in the order in which they began to wait.

use super::data::Words;

/// A blocking pop that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub connection: u64,
    pub database: u32,
    pub words: Words,
    /// `None`: for ever.
    pub until_us: Option<u64>,
}

impl Waiting {
    /// `BLPOP key... seconds`.
    pub fn new(connection: u64, database: u32, words: Words, now_us: u64) -> Self {
        let seconds = words.last().and_then(|text| std::str::from_utf8(text).ok()?.parse::<f64>().ok()).unwrap_or(0.0);
        let until_us = (seconds > 0.0).then(|| now_us + (seconds * 1e6) as u64);
        Self { connection, database, words, until_us }
    }

    pub fn waits_for(&self, database: u32, key: &[u8]) -> bool {
        let keys = &self.words[1..self.words.len() - 1];
        self.database == database && keys.iter().any(|own| own == key)
    }
}

pub fn is_blocking(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"BLPOP") || name.eq_ignore_ascii_case(b"BRPOP")
}
