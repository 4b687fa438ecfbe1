//! One connection of a model server. What its commands do is in `session`.

use super::data::{Key, Words};

/// What a server keeps of a connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub input: Vec<u8>,
    pub name: Vec<u8>,
    pub database: u32,
    /// Between MULTI and EXEC.
    pub queued: Option<Vec<Words>>,
    pub watched: Vec<(u32, Key)>,
    pub watch_broken: bool,
    pub snapshot_only: bool,
}

/// A position that is stored later than what leads to it: see `Server::position_apart`.
#[derive(Debug)]
pub struct Deferred {
    pub connection: u64,
    pub due_us: u64,
    pub words: Words,
}
