//! Jobs on Redis and Valkey servers.

pub mod backfill;
pub mod check;
pub mod client;
pub mod compat;
mod content;
pub mod digest;
pub mod lane_client;
mod names;
pub mod smoke;
pub mod verify;

#[cfg(test)]
mod tests;
