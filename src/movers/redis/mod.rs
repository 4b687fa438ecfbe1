//! Moves Redis and Valkey servers. Lives on the movers' thread.

pub mod backfill;
mod clients;
pub(crate) mod clock;
mod confirmations;
mod content;
pub mod digest;
pub mod facts;
pub mod feed;
mod feed_mover;
mod feed_watch;
pub mod feeds;
pub mod findings;
pub mod lane_client;
mod lane_mover;
pub mod mover;
mod names;
mod probes;
mod reads;
pub mod smoke;
pub mod verify;

#[cfg(test)]
mod feed_mover_tests;
#[cfg(test)]
mod tests;
