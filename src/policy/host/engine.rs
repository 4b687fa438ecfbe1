//! The engine that all modules share, and how a module is loaded into it: checked, then compiled or taken from the cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::cache::Cache;
use super::imports::linker;
use super::inner::{Inner, host_refused};
use super::ticker::TickerThread;
use super::{HostOptions, Module, Refused, abi, check};
use abi::limits as own;
use base::model::limits;

const PAGE_BYTES: usize = 64 * 1024;
/// The maximum memory of an instance; it is reserved in advance and never moves.
///
/// Reserving 4 GiB for each, as engines do by default, would spare the guest's code the comparison of each address with the end of
/// its memory. This was measured with every shipped filter: the fastest of seven runs took the same time within a hundredth either way
/// (466 µs for two sets of 1024 members), and 4 GiB times a few thousand instances is more than some machines let a process map.
const MEMORY_BYTES: usize = own::MEMORY_PAGES_MAX as usize * PAGE_BYTES;

/// Process-wide; any thread.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("cache", &self.0.cache).finish_non_exhaustive()
    }
}

fn configuration(options: &HostOptions) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(options.instances_max)
        .total_memories(options.instances_max)
        .total_tables(options.instances_max)
        .max_memories_per_module(1)
        .max_memory_size(MEMORY_BYTES)
        .max_tables_per_module(own::TABLES_MAX)
        .table_elements(own::TABLE_ELEMENTS_MAX as usize);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_features(!check::FEATURES, false)
        .epoch_interruption(true)
        .max_wasm_stack(limits::POLICY_STACK_BYTES)
        .memory_reservation(MEMORY_BYTES as u64)
        .memory_guard_size(PAGE_BYTES as u64)
        .memory_reservation_for_growth(0)
        .memory_may_move(false)
        // A fault names its kind; where in the guest it happened would cost each trap a walk over its stack.
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Unwind information only serves profilers, and registering it takes the unwinder's global lock.
        .native_unwind_info(false);
    config
}

impl Host {
    /// # Errors
    /// The memory for so many instances, or a thread for their clock, is not available.
    pub fn new(options: HostOptions) -> Result<Self, Refused> {
        Self::with_clock(options, limits::POLICY_TICK, limits::POLICY_CLOCK_IDLE)
    }

    /// A host whose calls never reach a deadline: only for counting their instructions under an emulator, which slows a
    /// call fifty times and cannot follow the engine when it abandons one.
    ///
    /// # Errors
    /// As for [`Host::new`].
    pub fn without_deadlines(options: HostOptions) -> Result<Self, Refused> {
        Self::with_clock(options, Duration::MAX, limits::POLICY_CLOCK_IDLE)
    }

    /// The deadline clock advances each `tick`, and sleeps after the time `idle` without a call.
    pub(super) fn with_clock(options: HostOptions, tick: Duration, idle: Duration) -> Result<Self, Refused> {
        let refused = |error: &dyn fmt::Display| Refused {
            rule: "host",
            text: format!("the host of policies cannot be created for {} instances: {error}", options.instances_max),
        };
        let engine = Engine::new(&configuration(&options)).map_err(|error| refused(&format!("{error:#}")))?;
        let linker = linker(&engine).map_err(|error| refused(&error))?;
        let ticker = TickerThread::start(&engine, tick, idle).map_err(|error| refused(&error))?;
        let cache = options.cache_dir.clone().map(|folder| Cache::new(folder, &engine));
        Ok(Self(Arc::new(Inner { engine, linker, ticker, clock: options.clock, cache })))
    }

    /// Checks a module, given as binary or text, then compiles it or takes it from the cache. Blocks for as long as compiling takes.
    ///
    /// # Errors
    /// The first rule of ABI.md, section 1, that is broken.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Module, Refused> {
        let wasm = check::binary(name, bytes)?;
        let facts = check::check(name, &wasm)?;
        let digest = hex(&Sha256::digest(bytes));
        let cached = self.0.cache.as_ref().and_then(|cache| cache.get(&self.0.engine, &digest));
        let was_cached = cached.is_some();
        let compiled = match cached {
            Some(module) => module,
            None => self.compile(name, &wasm, &digest)?,
        };
        let ready = self.0.linker.instantiate_pre(&compiled).map_err(|error| host_refused(name, &error))?;
        Ok(Module::new(Arc::clone(&self.0), name, digest, bytes.len(), facts, was_cached, ready))
    }

    fn compile(&self, name: &str, wasm: &[u8], digest: &str) -> Result<wasmtime::Module, Refused> {
        let module = wasmtime::Module::from_binary(&self.0.engine, wasm).map_err(|error| Refused {
            rule: "validate",
            text: format!("policy {name} is a valid module but cannot be compiled: {error:#}"),
        })?;
        if let Some(cache) = &self.0.cache {
            match module.serialize() {
                Ok(compiled) => cache.put(digest, &compiled),
                Err(error) => {
                    tracing::warn!(%error, "the compiled form of policy {name} cannot be cached; it is compiled again at the next start")
                }
            }
        }
        Ok(module)
    }

    #[cfg(test)]
    pub(super) fn waker(&self) -> super::ticker::Waker {
        self.0.ticker.waker()
    }

    #[cfg(test)]
    pub(super) fn clock_is_asleep(&self) -> bool {
        self.0.ticker.is_asleep()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
