//! The control side: what is intended, what is observed, and who may see and change it. Lives on the control thread.

pub mod api;
pub mod config;
pub mod events;
pub mod reconcile;
pub mod store;
#[cfg(test)]
mod testing;
pub mod workflow;
