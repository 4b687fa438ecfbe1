//! Filters and policies in their JSON form.

use std::collections::BTreeMap;

pub use base::model::limits::{FILTER_CASES_BYTES_MAX, FILTER_MODULE_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// By slot (`mirror`, `compare`, `rollback`, `records`): the filter in it, with its settings.
pub type Policies = BTreeMap<String, Policy>;

/// The filter in one slot, with its settings. In a request, absent fields take their defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// "none", "builtin:NAME" or the name of a loaded filter.
    pub filter: String,
    /// "observe" (default), "warn" or "block".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// "fail_open" (default) or "fail_closed".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_fault: Option<String>,
    /// A JSON object for the filter; default `{}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
}

/// A policy in `POST /api/v1/migrations`: only the filter's name, or a whole policy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum PolicyGiven {
    Name(String),
    Whole(Policy),
}

/// Body of `PUT /api/v1/filters/{name}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadFilter {
    /// Binary, or WAT text.
    pub module_base64: String,
    /// Recorded cases, one JSON object a line; all must pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<String>,
    /// The file's name, for lists and the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Filter {
    pub name: String,
    /// "builtin", "file" (the configuration names it) or "stored" (loaded at run time).
    pub origin: String,
    pub file: String,
    pub digest: String,
    pub size_bytes: u64,
    /// "request", "pair", "window", "record".
    pub hooks: Vec<String>,
    /// Number of loads under this name since the start.
    pub generation: u64,
    pub loaded_at: u64,
    /// Recorded cases that passed; null when it has none.
    pub cases: Option<u64>,
    #[serde(default)]
    pub warnings: Vec<String>,
    pub uses: Vec<FilterUse>,
}

/// One slot for which a filter is chosen.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilterUse {
    pub interlay: String,
    pub slot: String,
    pub policy: Policy,
    /// Why the chosen filter is not in use there.
    pub absent: Option<String>,
    pub stats: Option<PolicyStats>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InterlayPolicies {
    pub interlay: String,
    /// Number of the set of filters sent to the cores.
    pub generation: u64,
    /// Whether every core has adopted this set.
    pub adopted: bool,
    pub unadopted_cores: Vec<u16>,
    pub slots: Vec<PolicySlot>,
    /// By slot and filter, including filters that are no longer in use.
    pub stats: Vec<PolicyStats>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicySlot {
    pub slot: String,
    /// "migration", "interlay" (the configuration) or "shipped".
    pub chosen_by: String,
    pub migration: Option<String>,
    pub policy: Policy,
    pub filter_generation: Option<u64>,
    /// Why the chosen filter is not in use; meanwhile the built-in default decides, and records are not copied.
    pub absent: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyStats {
    pub slot: String,
    pub filter: String,
    pub calls: u64,
    /// Commands answered from the memo, without a call.
    pub memo_hits: u64,
    /// From one call in 64; accurate to within 25 %.
    pub call_ns_p50: u64,
    pub call_ns_p99: u64,
    pub faults: PolicyFaults,
    /// Calls answered as `on_fault` says because the instance waited to be replaced.
    pub absent: u64,
    /// Verdicts by word.
    pub verdicts: BTreeMap<String, u64>,
    /// Verdicts that would have stopped something but did not, because of the mode.
    pub restrained: u64,
    pub memory_bytes: u64,
    /// The filter's own counters.
    pub counters: BTreeMap<String, u64>,
    /// Log lines and counters dropped because of their limits.
    pub dropped: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PolicyFaults {
    pub trap: u64,
    pub deadline: u64,
    pub bad_verdict: u64,
}

/// The result of `crossfade filter test`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilterTest {
    pub file: String,
    pub digest: String,
    pub size_bytes: u64,
    pub hooks: Vec<String>,
    pub passed: Vec<String>,
    pub failed: Vec<FailedCase>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FailedCase {
    pub case: String,
    pub why: String,
}

/// The result of `crossfade filter bench`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilterBench {
    pub file: String,
    pub rows: Vec<FilterBenchRow>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilterBenchRow {
    pub hook: String,
    pub view: String,
    pub view_bytes: u64,
    pub ns_min: u64,
    pub ns_median: u64,
    pub ns_p99: u64,
    pub calls: u64,
}

/// A filter of the configuration, as checked by `crossfade check`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CheckedFilter {
    pub name: String,
    pub file: String,
    /// Recorded cases that passed.
    pub cases: u64,
    pub problem: Option<String>,
}
