//! The host of policy filters: checks a module, compiles it, makes instances, calls their hooks. No other module uses wasmtime.
//!
//! [`Host`] and [`Module`] are shared and may be used on any thread; compiling and instantiating belong to the control thread and its
//! helpers. An [`Instance`] is made there and moved to the one thread that calls it. The rules are those of `filters/ABI.md`.

mod cache;
mod check;
mod deadline;
mod engine;
mod imports;
mod inner;
mod instance;
mod module;
#[cfg(test)]
mod tests;
mod text;
mod ticker;

use std::path::PathBuf;

use super::abi;
use super::stats::FaultCounts;
use base::stdx::histogram::Histogram;

pub use super::stats::FaultKind;
pub use engine::Host;
pub use instance::Instance;
pub(super) use instance::{CaseFrame, RawVerdict};
pub use module::Module;

/// Index of a hook in an array of four.
pub(super) fn slot(hook: abi::Hook) -> usize {
    usize::from(hook.code()) - 1
}

/// The options of a host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Instances that may exist at one time, over all modules and threads: memory is reserved for this number.
    pub instances_max: u32,
    /// The folder for compiled modules, by digest and version of the host; `None`: they are not kept.
    pub cache_dir: Option<PathBuf>,
    /// Nanoseconds since some start, never going back; used to measure calls.
    pub clock: fn() -> u64,
}

/// Why a module was not loaded, or an instance of it not created. The module loaded before stays in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule of ABI.md that is broken: `size`, `validate`, `marker`, `version`, `import`, `export`, `memory`, `table`, `buffer`,
    /// `start`, `configure`; `host` when the module is not the cause.
    pub rule: &'static str,
    /// A sentence that names the module, what was found and what to do.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub text: String,
}

/// One valid answer. `text`: of refuse, divergent, warn, hold and roll back, made fit to print; empty for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<A> {
    pub action: A,
    pub memo: abi::Memo,
    pub text: String,
}

/// One valid answer of `cf_on_record`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordAnswer {
    Keep,
    /// The whole new value, in the record's encoding.
    Replace(Vec<u8>),
    Drop,
}

/// A line that a guest passed to `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error, 2 warn, 3 info, 4 debug.
    pub level: u8,
    pub text: String,
}

/// What one instance has done since it was created.
#[derive(Debug, Clone, Default)]
pub struct InstanceStats {
    pub calls: u64,
    /// Nanoseconds of one call in 64, weighted by 64.
    pub call_ns: Histogram,
    pub faults: FaultCounts,
    /// The present size of the linear memory.
    pub memory_bytes: u64,
    /// The guest's own counters, sorted by id.
    pub counters: Vec<(String, u64)>,
    /// Log lines and counters that were dropped because of their limits.
    pub dropped: u64,
}
