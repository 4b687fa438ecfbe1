//! Redis and Valkey: the replication stream and the snapshot that PSYNC sends.
//!
//! [`client`] is a plain connection for jobs; [`replica`] a connection that has become a replica; [`stream`] cuts the commands from what
//! such a connection carries; [`follower`] puts both together and survives lost connections. [`network`] opens them.

pub mod client;
pub mod follower;
pub mod history;
pub mod network;
pub mod position;
pub mod replica;
pub mod spill;
pub mod stream;

#[cfg(test)]
mod tests;
