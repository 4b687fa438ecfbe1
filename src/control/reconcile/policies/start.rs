//! Filters at start: the shipped ones, the files the configuration names, those that were loaded at run time before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use tokio::sync::Mutex;

use super::{LoadedFilter, Origin, lacks_hook};
use crate::config::Config;
use crate::reconcile::clock::{monotonic_ns, now};
use crate::store::{Store, StoredFilter};
use base::model::{BUILTIN_PREFIX, FilterName, PolicyChoice, PolicySetting, PolicySlot, Timestamp, limits};
use policy::{Host, HostOptions, Module, builtin, cases};

/// Compiled modules are kept here, in the data directory.
const CACHE_DIR: &str = "filter-cache";

/// Has no answer to any record: what stands in for a records filter that is gone, so that nothing leaks.
const SEALED: &[u8] = br#"(module
  (memory (export "memory") 1)
  (global (export "cf_abi_v1") i32 (i32.const 1))
  (func (export "cf_buffer") (result i32) i32.const 0)
  (func (export "cf_buffer_len") (result i32) i32.const 65536)
  (func (export "cf_on_record") (param i32) (result i64) unreachable))"#;

/// Every filter that is loaded.
#[derive(Debug)]
pub struct Registry {
    pub(super) host: Host,
    filters: RefCell<BTreeMap<FilterName, Rc<LoadedFilter>>>,
    /// How often each name was loaded. Goes on counting when one is unloaded.
    generations: RefCell<BTreeMap<FilterName, u64>>,
    pub(super) sealed: Module,
    /// Held while a filter is loaded or unloaded.
    pub(super) loading: Mutex<()>,
    /// Loads under way or waiting.
    pub(super) loads: Cell<u32>,
}

impl Registry {
    fn new(host: Host) -> Result<Self, String> {
        let sealed = host.load("records-stopped", SEALED).map_err(|refused| refused.text)?;
        Ok(Self {
            host,
            filters: RefCell::default(),
            generations: RefCell::default(),
            sealed,
            loading: Mutex::new(()),
            loads: Cell::new(0),
        })
    }

    pub fn get(&self, name: &FilterName) -> Option<Rc<LoadedFilter>> {
        self.filters.borrow().get(name).cloned()
    }

    /// By name.
    pub fn all(&self) -> Vec<Rc<LoadedFilter>> {
        self.filters.borrow().values().cloned().collect()
    }

    /// Those that are not shipped.
    pub fn len_own(&self) -> usize {
        self.filters.borrow().keys().filter(|name| !name.is_builtin()).count()
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.filters.borrow().keys().map(ToString::to_string).collect();
        names.join(", ")
    }

    pub(super) fn insert(&self, examined: Examined, origin: Origin, file: String, at: Timestamp) -> Rc<LoadedFilter> {
        let Examined { name, module, cases } = examined;
        let generation = {
            let mut generations = self.generations.borrow_mut();
            let generation = generations.entry(name.clone()).or_default();
            *generation += 1;
            *generation
        };
        let loaded_at = at;
        let filter = Rc::new(LoadedFilter { name, module, origin, file, cases, generation, loaded_at });
        self.filters.borrow_mut().insert(filter.name.clone(), Rc::clone(&filter));
        filter
    }

    pub(super) fn remove(&self, name: &FilterName) -> Option<Rc<LoadedFilter>> {
        self.filters.borrow_mut().remove(name)
    }

    /// Loads everything that is to be there before a client is accepted. Beside it: what does not load any more, in sentences.
    ///
    /// # Errors
    /// A sentence that names the file: what the configuration asks for must be there.
    pub async fn load(config: &Config, store: &dyn Store) -> Result<(Self, Vec<String>), String> {
        let registry = Self::new(new_host(config, Some(&config.data_dir))?)?;
        registry.load_builtin()?;
        let mut problems = Vec::new();
        let mut stored = store.filters().await.map_err(|error| error.to_string())?;
        for file in config.filter_files() {
            // What was loaded at run time is the newer decision; the file's own must be good all the same.
            let examined = examine_file(&registry.host, &file.name, &file.path, None);
            let examined = examined.map_err(|why| file.place.error(why).to_string())?;
            let replaced = stored.iter().find(|stored| stored.name == file.name);
            if let Some(stored) = replaced.filter(|stored| stored.digest != examined.module.digest()) {
                tracing::warn!(
                    "filter {}: what was loaded at run time as {} is used, not {}; `crossfade filter unload {0}` and a restart change that",
                    file.name,
                    stored.file,
                    file.path.display()
                );
            }
            registry.insert(examined, Origin::File(file.path.clone()), file.path.display().to_string(), now());
        }
        for stored in stored.drain(..) {
            if let Err(why) = registry.load_stored(&stored) {
                problems.push(format!(
                    "filter {}, loaded at run time as {}, does not load any more: {why}",
                    stored.name, stored.file
                ));
            }
        }
        registry.check_settings(config)?;
        Ok((registry, problems))
    }

    fn load_builtin(&self) -> Result<(), String> {
        for shipped in builtin::shipped() {
            let name =
                FilterName::new(&format!("{BUILTIN_PREFIX}{}", shipped.name)).map_err(|error| error.to_string())?;
            let module = self.host.load(name.as_str(), shipped.wasm).map_err(|refused| refused.text)?;
            // They passed when this program was built.
            let examined = Examined { name, module, cases: Some(count_cases(shipped.cases)) };
            self.insert(examined, Origin::Builtin, String::new(), now());
        }
        Ok(())
    }

    /// Its cases passed when it was loaded, by the same bytes.
    fn load_stored(&self, stored: &StoredFilter) -> Result<(), String> {
        let module = self.host.load(stored.name.as_str(), &stored.module).map_err(|refused| refused.text)?;
        let cases = stored.cases.as_deref().map(count_cases);
        let examined = Examined { name: stored.name.clone(), module, cases };
        self.insert(examined, Origin::Stored, stored.file.clone(), stored.loaded_at);
        Ok(())
    }

    /// Every filter the configuration chooses takes what it is configured with. One that may be loaded later may be absent now.
    fn check_settings(&self, config: &Config) -> Result<(), String> {
        for interlay in &config.interlays {
            for (slot, place) in &interlay.policies.places {
                let Some(PolicyChoice::Filter(setting)) = interlay.policies.settings.get(*slot) else { continue };
                let name = &setting.filter;
                let found = match self.get(name) {
                    Some(filter) => fits(&filter.module, *slot, setting),
                    None if name.is_builtin() => {
                        Err(format!("names the filter {name}, which is not shipped; there are: {}", self.names()))
                    }
                    None => {
                        tracing::error!(
                            "{}",
                            place.error(format!(
                                "filter {name} is not loaded; `crossfade filter load {name} FILE` puts it in place"
                            ))
                        );
                        Ok(())
                    }
                };
                found.map_err(|why| place.error(why).to_string())?;
            }
        }
        Ok(())
    }
}

/// A module that keeps the rules and passes its cases.
#[derive(Debug)]
pub(super) struct Examined {
    pub name: FilterName,
    pub module: Module,
    pub cases: Option<usize>,
}

pub(super) fn new_host(config: &Config, data_dir: Option<&Path>) -> Result<Host, String> {
    let options = HostOptions {
        instances_max: limits::filter_instances_max(config.core_count(), config.interlays.len()),
        cache_dir: data_dir.map(|dir| dir.join(CACHE_DIR)),
        clock: monotonic_ns,
    };
    Host::new(options).map_err(|refused| refused.text)
}

/// Loads a module and runs its cases.
pub(super) fn examine(host: &Host, name: &FilterName, bytes: &[u8], given: Option<&str>) -> Result<Examined, String> {
    let module = host.load(name.as_str(), bytes).map_err(|refused| refused.text)?;
    let cases = match given {
        None => None,
        Some(text) => {
            let report = cases::run(&module, text).map_err(|why| format!("the cases of filter {name}: {why}"))?;
            if let Some((case, why)) = report.failed.first() {
                return Err(format!(
                    "filter {name} fails {} of its {} cases; the first is {case:?}: {why}",
                    report.failed.len(),
                    report.failed.len() + report.passed.len()
                ));
            }
            Some(report.passed.len())
        }
    };
    Ok(Examined { name: name.clone(), module, cases })
}

/// Reads a file and its cases, those beside it when none are named, and examines them.
pub(super) fn examine_file(
    host: &Host,
    name: &FilterName,
    path: &Path,
    cases: Option<&Path>,
) -> Result<Examined, String> {
    let (bytes, cases) = read_files(path, cases)?;
    examine(host, name, &bytes, cases.as_deref())
}

/// The module and its cases, if it has any.
pub(super) fn read_files(path: &Path, cases: Option<&Path>) -> Result<(Vec<u8>, Option<String>), String> {
    let bytes = read_bounded(path, limits::FILTER_MODULE_BYTES_MAX)?;
    let beside = path.with_extension("cases.jsonl");
    let cases = match cases {
        Some(path) => Some(path),
        None => beside.is_file().then_some(beside.as_path()),
    };
    let text = |path: &Path| {
        let bytes = read_bounded(path, limits::FILTER_CASES_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))
    };
    Ok((bytes, cases.map(text).transpose()?))
}

fn read_bounded(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > bytes_max as u64 {
        return Err(format!("{} is {size} bytes long; at most {bytes_max} are read", path.display()));
    }
    std::fs::read(path).map_err(unreadable)
}

/// Whether a module can make this decision with this configuration.
pub(super) fn fits(module: &Module, slot: PolicySlot, setting: &PolicySetting) -> Result<(), String> {
    if !module.has_hook(super::hook(slot)) {
        return Err(lacks_hook(&setting.filter, slot));
    }
    module.instantiate(&setting.config, 1).map(drop).map_err(|refused| refused.text)
}

/// Lines that are cases: not empty, and no comments.
fn count_cases(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// A filter of the configuration, and whether it loads.
pub type CheckedFilter = (FilterName, String, Result<usize, String>);

/// Loads what the configuration names, as a start would, without a store: `crossfade check`.
///
/// # Errors
/// A sentence, when the host itself cannot be made.
pub fn check_files(config: &Config) -> Result<Vec<CheckedFilter>, String> {
    let registry = Registry::new(new_host(config, None)?)?;
    registry.load_builtin()?;
    let mut checked = Vec::new();
    for file in config.filter_files() {
        let path = file.path.display().to_string();
        let examined = examine_file(&registry.host, &file.name, &file.path, None);
        let found = examined.map_err(|why| file.place.error(why).to_string()).map(|examined| {
            let cases = examined.cases.unwrap_or(0);
            registry.insert(examined, Origin::File(file.path.clone()), path.clone(), now());
            cases
        });
        checked.push((file.name.clone(), path, found));
    }
    // Of a file that did not load it is known already that it cannot take its configuration.
    if checked.iter().all(|(_, _, found)| found.is_ok()) {
        registry.check_settings(config)?;
    }
    Ok(checked)
}
