//! The replication feed: keeps a shadow in step by applying the authority's own replication stream to it.
//!
//! [`dialect`] turns a command of the stream into what the shadow is sent, [`batch`] makes transactions of them and reads their answers,
//! [`history`] writes a snapshot to the shadow, [`repair`] copies single keys again, [`applier`] does all of it over connections. The first two are pure. Lives on the
//! movers' thread.

pub mod applier;
pub mod batch;
pub mod dialect;
pub mod history;
pub mod repair;
pub mod shadow;

#[cfg(test)]
mod tests;
