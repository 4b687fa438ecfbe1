//! Moves Redis and Valkey servers. Lives on the movers' thread.

pub mod backfill;
mod clock;
mod content;
pub mod digest;
pub mod facts;
pub mod feed;
pub mod feeds;
pub mod findings;
pub mod lane_client;
pub mod mover;
mod names;
pub mod smoke;
pub mod verify;

#[cfg(test)]
mod tests;
