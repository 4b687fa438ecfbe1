//! Crossfade: moves live database traffic from one server to another, and back, without losing a write.
//!
//! The map, bottom storey first; `docs/ARCHITECTURE.md` explains the house and `tidy.rs` enforces who may import whom.

pub mod stdx;

pub mod model;
pub mod policy;

pub mod config;
pub mod protocol;
pub mod telemetry;
pub mod tls;

pub mod bus;
pub mod interlay;
pub mod lane;
pub mod relay;

pub mod dataplane;
pub mod jobs;
pub mod workflow;

pub mod store;

pub mod control;

pub mod api;
pub mod cli;
pub mod demo;

pub mod boot;

#[cfg(test)]
mod tidy;
