//! Looks at PostgreSQL servers: what one is, and what could keep traffic from moving from one to another. Reads only. Control thread.
//!
//! Not for the data path: it uses a driver of its own, so that it shares no code with what it judges.

mod client;
mod facts;
mod findings;

#[cfg(test)]
mod tests;

pub use facts::{PostgresFacts, check};
pub use findings::compatibility;
