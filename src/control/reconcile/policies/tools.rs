//! `crossfade filter test` and `crossfade filter bench`: a filter by itself, without a proxy.

use std::path::Path;

use super::start::read_files;
use crate::reconcile::clock::monotonic_ns;
use base::model::{FilterName, limits};
use policy::{Host, HostOptions, Module, bench, cases};

#[derive(Debug, Clone)]
pub struct CasesView {
    pub file: String,
    pub digest: String,
    pub size_bytes: usize,
    pub hooks: Vec<&'static str>,
    pub passed: Vec<String>,
    /// (case, why)
    pub failed: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct BenchView {
    pub file: String,
    pub rows: Vec<bench::BenchRow>,
}

fn load(path: &Path, bytes: &[u8]) -> Result<Module, String> {
    let options = HostOptions { instances_max: limits::FILTER_INSTANCES_SPARE, cache_dir: None, clock: monotonic_ns };
    let host = Host::new(options).map_err(|refused| refused.text)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = FilterName::new(&stem).map_err(|error| error.to_string())?;
    host.load(name.as_str(), bytes).map_err(|refused| refused.text)
}

/// Runs the recorded cases of a file, those beside it when none are named.
///
/// # Errors
/// A sentence, when the module is refused or there are no cases.
pub fn test_file(path: &Path, cases: Option<&Path>) -> Result<CasesView, String> {
    let (bytes, text) = read_files(path, cases)?;
    let module = load(path, &bytes)?;
    let text = text.ok_or_else(|| {
        let beside = path.with_extension("cases.jsonl");
        format!("{} has no recorded cases: write {}, or name a file with --cases", path.display(), beside.display())
    })?;
    let report = cases::run(&module, &text)?;
    Ok(CasesView {
        file: path.display().to_string(),
        digest: module.digest().to_owned(),
        size_bytes: module.size(),
        hooks: module.hooks().iter().map(|hook| hook.word()).collect(),
        passed: report.passed,
        failed: report.failed,
    })
}

/// Measures every hook of a file. `config` is the JSON object given to `cf_configure`.
///
/// # Errors
/// A sentence, when the module or its configuration is refused.
pub fn bench_file(path: &Path, config: &str) -> Result<BenchView, String> {
    let (bytes, _) = read_files(path, None)?;
    let module = load(path, &bytes)?;
    Ok(BenchView { file: path.display().to_string(), rows: bench::bench(&module, config, monotonic_ns)? })
}
