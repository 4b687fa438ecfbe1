//! A checked and compiled module, and how an instance of it begins: section 2 of `filters/ABI.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::IgnoredAny;
use wasmtime::{InstancePre, PoolConcurrencyLimitError, Store, Trap, WasmParams, WasmResults};

use super::check::{Facts, hook_name};
use super::imports::{Random, State};
use super::inner::{Inner, host_refused};
use super::instance::{Instance, Parts};
use super::text::printable;
use super::ticker::Waker;
use super::{Refused, abi, deadline, slot};
use abi::{Hook, limits as own, names};
use base::stdx::prng::SplitMix64;

/// Process-wide; any thread.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    host: Arc<Inner>,
    name: Arc<str>,
    digest: String,
    size: usize,
    facts: Facts,
    was_cached: bool,
    ready: InstancePre<State>,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loaded { name, digest, facts, .. } = &*self.0;
        f.debug_struct("Module")
            .field("name", name)
            .field("digest", digest)
            .field("facts", facts)
            .finish_non_exhaustive()
    }
}

impl Module {
    pub(super) fn new(
        host: Arc<Inner>,
        name: &str,
        digest: String,
        size: usize,
        facts: Facts,
        was_cached: bool,
        ready: InstancePre<State>,
    ) -> Self {
        Self(Arc::new(Loaded { host, name: name.into(), digest, size, facts, was_cached, ready }))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// SHA-256 of the bytes passed to `load`, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Length of the bytes passed to `load`.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    #[must_use]
    pub fn has_hook(&self, hook: Hook) -> bool {
        self.0.facts.hooks[slot(hook)]
    }

    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        Hook::ALL.iter().copied().filter(|hook| self.has_hook(*hook)).collect()
    }

    /// Whether it came from the cache instead of being compiled.
    #[must_use]
    pub fn was_cached(&self) -> bool {
        self.0.was_cached
    }

    pub(super) fn reads_frames(&self) -> bool {
        self.0.facts.reads_frames
    }

    /// `config`: a JSON object as text. `seed`: for the numbers that the import `random` returns.
    ///
    /// Takes up to 80 ms when the module uses all the time it has.
    ///
    /// # Errors
    /// Rules `start`, `buffer`, `configure`; `host` when the host's maximum number of instances exists.
    pub fn instantiate(&self, config: &str, seed: u64) -> Result<Instance, Refused> {
        self.begin(config, State::new(Random::Seeded(SplitMix64::new(seed)), 0))
    }

    /// An instance for one recorded case: `random` counts, and `now_ms` is available from the start.
    pub(crate) fn instantiate_for_case(&self, config: &str, now_ms: i64) -> Result<Instance, Refused> {
        self.begin(config, State::new(Random::Counted(0), now_ms))
    }

    fn begin(&self, config: &str, state: State) -> Result<Instance, Refused> {
        let config = self.configuration(config)?;
        let waker = self.0.host.ticker.waker();
        let mut starting = Starting { module: &self.0, store: Store::new(&self.0.host.engine, state), waker };
        deadline::install(&mut starting.store, starting.waker.clone());
        let instance = starting.instantiate()?;
        let memory = instance.get_memory(&mut starting.store, names::MEMORY);
        let memory = memory.ok_or_else(|| host_refused(self.name(), &"the engine does not find its memory"))?;
        let at: u32 = starting.ask(&instance, names::BUFFER, (), "buffer")?;
        let length: u32 = starting.ask(&instance, names::BUFFER_LEN, (), "buffer")?;
        let buffer = self.buffer(at, length, memory.data_size(&starting.store))?;

        if let Some(config) = config {
            if config.len() > buffer.len() {
                let text = format!("{} bytes of configuration, and its buffer holds {}", config.len(), buffer.len());
                return Err(self.refuses("configure", &text));
            }
            let room = &mut memory.data_mut(&mut starting.store)[buffer.clone()];
            room[..config.len()].copy_from_slice(config.as_bytes());
            // It fits into a buffer of at most 256 KiB.
            let answer: i32 = starting.ask(&instance, names::CONFIGURE, (config.len() as u32,), "configure")?;
            let reason = abi::host::decode_configure(answer, buffer.len())
                .map_err(|_| self.refuses("configure", &format!("{} answered {answer}", names::CONFIGURE)))?;
            if let Some(length) = reason {
                let raw = &memory.data(&starting.store)[buffer][..length];
                return Err(self.refuses("configure", &printable(raw, own::TEXT_BYTES_MAX)));
            }
        }

        let mut hooks = [const { None }; 4];
        for hook in self.hooks() {
            let found = instance.get_typed_func(&mut starting.store, hook_name(hook));
            hooks[slot(hook)] = Some(found.map_err(|error| host_refused(self.name(), &error))?);
        }
        let Starting { mut store, waker, .. } = starting;
        store.data_mut().memory = Some(memory);
        let (host, name) = (Arc::clone(&self.0.host), Arc::clone(&self.0.name));
        let reads_frames = self.reads_frames();
        Ok(Instance::new(Parts { host, name, reads_frames, store, memory, buffer, hooks, waker }))
    }

    /// The configuration for `cf_configure`; `None` for a module without that export.
    fn configuration<'c>(&self, config: &'c str) -> Result<Option<&'c str>, Refused> {
        let settings: BTreeMap<String, IgnoredAny> = serde_json::from_str(config)
            .map_err(|error| self.refuses("configure", &format!("its configuration is not a JSON object: {error}")))?;
        if self.0.facts.configure {
            return Ok(Some(config));
        }
        match settings.keys().next() {
            None => Ok(None),
            Some(setting) => {
                let setting = printable(setting.as_bytes(), own::COUNTER_ID_BYTES_MAX);
                Err(self.refuses("configure", &format!("it takes no configuration, but {setting:?} is given")))
            }
        }
    }

    fn buffer(&self, at: u32, length: u32, memory: usize) -> Result<std::ops::Range<usize>, Refused> {
        let (begin, bytes) = (at as usize, length as usize);
        if !(own::BUFFER_BYTES_MIN..=own::BUFFER_BYTES_MAX).contains(&bytes) {
            let text = format!(
                "its buffer has {length} bytes; {} to {} are allowed",
                own::BUFFER_BYTES_MIN,
                own::BUFFER_BYTES_MAX
            );
            return Err(self.refuses("buffer", &text));
        }
        match begin.checked_add(bytes) {
            Some(end) if end <= memory => Ok(begin..end),
            _ => {
                let text = format!("its buffer, {length} bytes at {at}, is not inside its memory of {memory} bytes");
                Err(self.refuses("buffer", &text))
            }
        }
    }

    fn refuses(&self, rule: &'static str, why: &str) -> Refused {
        Refused { rule, text: format!("policy {}: {why}", self.name()) }
    }
}

/// An instance that is being created.
struct Starting<'m> {
    module: &'m Loaded,
    store: Store<State>,
    waker: Waker,
}

impl Starting<'_> {
    fn instantiate(&mut self) -> Result<wasmtime::Instance, Refused> {
        deadline::begin(&mut self.store, deadline::LOAD, &self.waker);
        let made = self.module.ready.instantiate(&mut self.store);
        deadline::end(&mut self.store, &self.waker);
        let name = &self.module.name;
        made.map_err(|error| {
            if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
                return host_refused(name, &format!("no room for another instance: {full}"));
            }
            match error.downcast_ref::<Trap>() {
                Some(trap) => self.broken("its start function", "start", *trap),
                None => host_refused(name, &format!("{error:#}")),
            }
        })
    }

    /// Calls an export that is needed for loading.
    fn ask<P: WasmParams, R: WasmResults>(
        &mut self,
        instance: &wasmtime::Instance,
        export: &str,
        parameters: P,
        rule: &'static str,
    ) -> Result<R, Refused> {
        let name = &self.module.name;
        let function =
            instance.get_typed_func::<P, R>(&mut self.store, export).map_err(|error| host_refused(name, &error))?;
        deadline::begin(&mut self.store, deadline::LOAD, &self.waker);
        let answer = function.call(&mut self.store, parameters);
        deadline::end(&mut self.store, &self.waker);
        answer.map_err(|error| match error.downcast_ref::<Trap>() {
            Some(trap) => self.broken(export, rule, *trap),
            None => host_refused(name, &format!("{error:#}")),
        })
    }

    fn broken(&self, what: &str, rule: &'static str, trap: Trap) -> Refused {
        let name = &self.module.name;
        let text = match trap {
            Trap::Interrupt => {
                format!("policy {name}: {what} ran for more than {} ms", own::LOAD_DEADLINE_US / 1000)
            }
            _ => format!("policy {name}: {what} trapped: {trap}"),
        };
        Refused { rule, text }
    }
}
