//! PostgreSQL's frontend/backend protocol, 3.0 and 3.2, as far as a proxy needs it. Pure: bytes in, values out; any thread.
//!
//! Rules are taken from the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation, cited by section name, and where it
//! is silent from the sources of PostgreSQL 15 to 18. Rows are never read, and SQL only as far as [`facts`] says.

pub mod auth;
pub mod encode;
pub mod facts;
pub mod frame;
mod keeps;
mod keywords;
pub mod lex;
pub mod registry;
pub mod scram;
mod set_config;
pub mod settings;
pub mod startup;
pub mod tracker;

pub use facts::{Class, Facts, Keeps, facts};
pub use frame::{HEAD_BYTES, Head, Violation, client_head, server_head};
pub use registry::Registry;
pub use startup::{Opening, Startup, opening};
pub use tracker::{Boundary, Copy, Tracker};

#[cfg(test)]
mod tests;
