//! What clients did and what they were told, as they saw it.

use crate::model::data::{Key, Words};
use wire::resp::value::Value as Reply;

/// One command, or one transaction, of a client.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    pub database: u32,
    /// Several, in MULTI and EXEC.
    pub commands: Vec<Words>,
    pub in_transaction: bool,
    pub called_us: u64,
    /// `None`: the connection was lost first, or the client was told of an error that leaves the outcome open.
    pub returned: Option<(u64, Reply)>,
    /// When an answer of any kind came.
    pub answered_us: Option<u64>,
    /// The client watched this key and had read this value: if the transaction was executed, it still held that.
    pub watched: Option<(Key, Reply)>,
}

#[derive(Debug, Default)]
pub struct History(pub Vec<Operation>);

impl History {
    pub fn acknowledged(&self) -> usize {
        self.0.iter().filter(|operation| operation.returned.is_some()).count()
    }
}

/// For people.
pub fn line(words: &Words) -> String {
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
}
