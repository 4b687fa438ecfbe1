//! A model of a Redis server, as far as Crossfade and the simulated clients use one: strings, lists, hashes, sets, sorted sets, deadlines,
//! transactions, blocking pops, two scripts, and replication by PSYNC.
//!
//! * [`value`], [`data`], [`commands`], [`collections`]: what it holds and what commands do to it; also used to play a history again.
//! * [`server`], [`connection`], [`session`], [`blocking`], [`replication`]: connections and what is theirs.
//! * [`log`]: what was executed for whom.

pub mod blocking;
pub mod collections;
pub mod commands;
pub mod connection;
pub mod data;
pub mod log;
pub mod replication;
pub mod server;
pub mod session;
pub mod value;
