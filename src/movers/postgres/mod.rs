//! Moves PostgreSQL servers: in this version it looks at them, compares two, and holds their clients. Lives on the movers' thread.
//!
//! Not for the data path: it uses a driver of its own, so that it shares no code with what it judges.

mod client;
pub mod facts;
pub mod findings;
pub mod mover;
pub mod sessions;

#[cfg(test)]
mod tests;
