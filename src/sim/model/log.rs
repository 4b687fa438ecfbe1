//! What a server has executed for the connections of cores, in its order: the evidence that the checks go by.

use super::data::{Data, Key, Words};
use wire::resp::value::Value as Reply;

/// Whether a key was there when a command looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub database: u32,
    pub key: Key,
    pub existed: bool,
}

/// A command on data, with what its keys were.
#[derive(Debug, Clone)]
pub struct Step {
    pub words: Words,
    pub seen: Vec<Seen>,
}

/// One command, or one transaction, as it was executed.
#[derive(Debug, Clone)]
pub struct Executed {
    pub at_us: u64,
    /// By the server's clock.
    pub now_ms: i64,
    pub database: u32,
    pub in_transaction: bool,
    /// None of an EXEC that was refused because a watched key had changed.
    pub steps: Vec<Step>,
    pub reply: Reply,
}

/// What there is of some keys, by the deadline too.
pub fn seen(data: &Data, database: u32, keys: Vec<Key>, now_ms: i64) -> Vec<Seen> {
    let is_there = |key: &Key| {
        data.get(database, key).is_some_and(|entry| entry.deadline_ms.is_none_or(|deadline| deadline > now_ms))
    };
    keys.into_iter().map(|key| Seen { database, existed: is_there(&key), key }).collect()
}
