//! The replication feed: keeps a shadow in step by applying the authority's own replication stream to it.
//!
//! [`dialect`] turns a command of the stream into what the shadow is sent, [`batch`] makes transactions of them and reads their answers,
//! [`touches`] remembers which keys they were about, [`unsettled`] from where on a key may differ: these are pure. [`exclusions`] are the keys that are not moved, [`pace`] how fast a snapshot is read. [`conflicts`] deals with
//! what the shadow held before, [`filling`] and [`history`] write a snapshot to it, [`applier`]
//! applies the stream, [`lag`] knows whether the shadow may be late, [`doubts`] which of its keys may differ for that, [`standstill`] reads, compares and repairs at one exact
//! position, [`compare`] asks it to. [`standby`] keeps the other direction ready. Lives on the movers' thread.

mod absent;
pub mod applier;
pub mod batch;
pub mod compare;
pub mod conflicts;
mod deadlines;
pub mod dialect;
mod doubts;
pub mod exact;
pub mod exclusions;
mod filling;
pub mod history;
mod lag;
pub mod pace;
mod repair;
pub mod rivals;
pub mod shadow;
mod source_load;
pub mod spec;
pub mod standby;
mod standstill;
mod touches;
pub mod unsettled;
pub mod work;

#[cfg(test)]
mod conflict_tests;
#[cfg(test)]
mod large_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unsettled_tests;
