//! The host of policy filters: checks a module, compiles it, makes instances, calls their hooks. Only here is wasmtime named.
//!
//! [`Host`] and [`Module`] are shared and may be used on any thread; compiling and instantiating belong to the control thread and its
//! helpers. An [`Instance`] is made there and moved to the one thread that calls it. The rules are those of `filters/ABI.md`.

use std::path::PathBuf;

use super::abi;
use super::stats::FaultCounts;
use crate::stdx::histogram::Histogram;

/// What a host is made with.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Instances that may exist at one time, over all modules and threads: memory is reserved for as many.
    pub instances_max: u32,
    /// Compiled modules are kept here, by digest and version of the host; `None`: nothing is kept.
    pub cache_dir: Option<PathBuf>,
    /// Nanoseconds since some start, never going back: calls are measured with it.
    pub clock: fn() -> u64,
}

/// Why a module is not loaded, or no instance of it made. What was loaded before goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule of ABI.md that is broken: `size`, `validate`, `marker`, `version`, `import`, `export`, `memory`, `table`, `buffer`,
    /// `start`, `configure`; `host` when it is not the module's fault.
    pub rule: &'static str,
    /// A sentence that names the module, what was found and what to do.
    pub text: String,
}

/// What went wrong in one call (ABI.md, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Trap,
    Deadline,
    BadVerdict,
}

impl FaultKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::BadVerdict => "bad_verdict",
        }
    }
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

/// Line of a guest's `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error, 2 warn, 3 info, 4 debug.
    pub level: u8,
    pub text: String,
}

/// What one instance has done since it was made.
#[derive(Debug, Clone, Default)]
pub struct InstanceStats {
    pub calls: u64,
    /// Nanoseconds of one call in 16, weighted by 16.
    pub call_ns: Histogram,
    pub faults: FaultCounts,
    /// Linear memory now.
    pub memory_bytes: u64,
    /// The guest's own counters, sorted by id.
    pub counters: Vec<(String, u64)>,
    /// Lines of log and counters that were dropped for their limits.
    pub dropped: u64,
}

// The shapes below are filled by the host itself.

#[derive(Debug, Clone)]
pub struct Host;
#[derive(Debug, Clone)]
pub struct Module;
#[derive(Debug)]
pub struct Instance;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordAnswer {
    Keep,
    Replace(Vec<u8>),
    Drop,
}

fn absent() -> Refused {
    Refused { rule: "host", text: "no host".to_owned() }
}

fn no_call<T>() -> Result<T, Fault> {
    Err(Fault { kind: FaultKind::Trap, text: "no host".to_owned() })
}

#[allow(missing_docs, clippy::missing_errors_doc, clippy::unused_self)]
impl Host {
    pub fn new(_options: HostOptions) -> Result<Self, Refused> {
        Ok(Self)
    }
    pub fn load(&self, _name: &str, _bytes: &[u8]) -> Result<Module, Refused> {
        Err(absent())
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, clippy::unused_self)]
impl Module {
    pub fn name(&self) -> &str {
        ""
    }
    pub fn digest(&self) -> &str {
        ""
    }
    pub fn size(&self) -> usize {
        0
    }
    pub fn has_hook(&self, _hook: abi::Hook) -> bool {
        false
    }
    pub fn hooks(&self) -> Vec<abi::Hook> {
        Vec::new()
    }
    pub fn was_cached(&self) -> bool {
        false
    }
    pub fn instantiate(&self, _config: &str, _seed: u64) -> Result<Instance, Refused> {
        Err(absent())
    }
}

#[allow(missing_docs, clippy::missing_errors_doc, clippy::unused_self)]
impl Instance {
    pub fn on_request<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        _view: &abi::host::Request<'a, K>,
        _now_ms: i64,
    ) -> Result<Answer<abi::RequestAction>, Fault> {
        no_call()
    }
    pub fn on_pair<'a, K: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        _view: &abi::host::Pair<'a, K>,
        _now_ms: i64,
    ) -> Result<Answer<abi::PairAction>, Fault> {
        no_call()
    }
    pub fn on_window(
        &mut self,
        _view: &abi::host::Window<'_>,
        _now_ms: i64,
    ) -> Result<Answer<abi::WindowAction>, Fault> {
        no_call()
    }
    pub fn on_record(&mut self, _view: &abi::host::Record<'_>, _now_ms: i64) -> Result<RecordAnswer, Fault> {
        no_call()
    }
    pub fn is_spent(&self) -> bool {
        false
    }
    pub fn stats(&self) -> InstanceStats {
        InstanceStats::default()
    }
    pub fn has_log(&self) -> bool {
        false
    }
    pub fn take_log(&mut self) -> Vec<LogLine> {
        Vec::new()
    }
}
