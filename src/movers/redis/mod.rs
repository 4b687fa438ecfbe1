//! Moves Redis and Valkey servers. Lives on the movers' thread.

pub mod backfill;
pub mod check;
pub mod client;
mod clock;
pub mod compat;
mod content;
pub mod digest;
pub mod lane_client;
pub mod mover;
mod names;
pub mod smoke;
pub mod verify;

#[cfg(test)]
mod tests;
