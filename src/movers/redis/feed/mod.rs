//! The replication feed: keeps a shadow in step by applying the authority's own replication stream to it.
//!
//! [`dialect`] turns a command of the stream into what the shadow is sent, [`batch`] makes transactions of them and reads their answers,
//! [`touches`] remembers which keys they were about: these are pure. [`filling`] and [`history`] write a snapshot to the shadow, [`applier`]
//! applies the stream, [`standstill`] reads, compares and repairs at one exact
//! position, [`compare`] asks it to. [`standby`] keeps the other direction ready. Lives on the movers' thread.

mod absent;
pub mod applier;
pub mod batch;
pub mod compare;
mod deadlines;
pub mod dialect;
pub mod exact;
mod filling;
pub mod history;
mod repair;
pub mod shadow;
pub mod spec;
pub mod standby;
mod standstill;
mod touches;
mod work;

#[cfg(test)]
mod tests;
