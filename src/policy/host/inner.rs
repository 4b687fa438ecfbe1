//! What all modules and instances of one host share and keep alive. Process-wide; any thread.

use std::fmt;

use wasmtime::{Engine, Linker};

use super::Refused;
use super::cache::Cache;
use super::imports::State;
use super::ticker::TickerThread;

pub(super) struct Inner {
    pub engine: Engine,
    pub linker: Linker<State>,
    pub ticker: TickerThread,
    pub clock: fn() -> u64,
    pub cache: Option<Cache>,
}

/// The refusal of a module because of the machine or this program, not the module itself.
pub(super) fn host_refused(name: &str, error: &dyn fmt::Display) -> Refused {
    Refused { rule: "host", text: format!("policy {name} cannot be loaded: {error}") }
}
