//! A server's own stream of changes, read as a replica of it would read: one folder per database.
//!
//! For movers (a shadow is kept in step) and, later, for snapshots. Decides nothing about what is done with the changes. Lives on any
//! thread with a tokio runtime.

pub mod error;
pub mod redis;
