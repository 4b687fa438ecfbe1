//! The API's own types in their JSON form. Stable: the command line, scripts and dashboards depend on them.
//!
//! Not the program's types; `convert.rs` translates. Times are milliseconds since the Unix epoch.

mod filters;
mod sessions;

use std::collections::BTreeMap;
use std::time::Duration;

pub use filters::*;
use serde::{Deserialize, Serialize};
pub use sessions::*;
use utoipa::ToSchema;

/// Longest time for which a caller should retry a step whose gates are unmet.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// A problem document (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// The unmet gates, if those are the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// The sessions that did not drain before a pause's deadline, if that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<Session>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Gate {
    pub name: String,
    pub measured: String,
    pub threshold: String,
    pub met: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    pub name: String,
    pub severity: String,
    pub detail: String,
    pub waived: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Backfill {
    pub pass: Option<u64>,
    /// "full" or "volatile".
    pub kind: Option<String>,
    pub complete: bool,
    pub done: u64,
    pub total: u64,
    pub bytes: u64,
    /// Keys.
    pub rate_per_second: f64,
    /// Until the present pass has copied everything, at the present rate; absent while that is not known.
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    /// Bytes of the authority's writes that wait for the shadow.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Of everything the source held, once it has ended.
    #[serde(default)]
    pub first_copy: Option<FirstCopy>,
}

/// The first copy of a migration, whatever was copied since.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct FirstCopy {
    pub began_at: u64,
    pub finished_at: u64,
    pub keys: u64,
    pub bytes: u64,
}

/// Keys and commands that were not moved, because of `conflict_policy` "skip" or "exclude".
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Excluded {
    /// Keys that the target held before the first copy and keeps.
    pub kept: u64,
    /// Keys of the source's snapshots that were not copied.
    pub keys: u64,
    /// Commands of the authority that were not applied.
    pub commands: u64,
    /// Commands that named an excluded key and another one: the other was copied.
    pub mixed: u64,
}

/// How the shadow stands, whatever keeps it in step.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Lane {
    /// Where the authority's writes are: places handed out by the lane, or bytes of the replication stream.
    pub position: u64,
    /// The position up to which the shadow has everything; absent where that is not known as a number.
    #[serde(default)]
    pub reached: Option<u64>,
    pub pass: u64,
    pub uncopied: bool,
    pub dirty: u64,
    pub in_flight: u64,
    pub shadow_queue_bytes: u64,
    pub shadow_lag_us: u64,
    /// Since the process started, in both directions.
    pub copied_keys: u64,
    pub copied_bytes: u64,
    pub effects: u64,
    pub dirtied: u64,
    pub reads_compared: u64,
    /// Compared reads with different bytes of the same meaning.
    #[serde(default)]
    pub reads_equivalent: u64,
    /// Counted since the process started or the authority changed.
    #[serde(default)]
    pub excluded: Excluded,
    /// How quickly the authority answered while a snapshot of it was read last: the slowest hundredth; 0: not measured.
    #[serde(default)]
    pub source_p99_us: u64,
    /// Bytes of the snapshot that are read in a second, to keep the authority quick; absent: as fast as they come.
    #[serde(default)]
    pub throttled_to: Option<u64>,
    /// Values that the shadow cannot hold as the authority does; events name the first of them.
    #[serde(default)]
    pub losses: u64,
    /// Keys whose value on the shadow a records policy has changed or left out.
    #[serde(default)]
    pub altered: u64,
    pub reads_not_comparable: u64,
    /// Reads whose two answers could not be told to be of one moment; not among `reads_compared`.
    #[serde(default)]
    pub reads_inconclusive: u64,
    pub read_divergences: u64,
    /// When all this was measured, milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub authority_connected: bool,
    pub shadow_connected: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Flip {
    pub at: u64,
    pub to: String,
    pub epoch: u64,
    /// Unknown when the process ended between the durable record and the release; 0 when no client had to wait.
    pub pause_us: Option<u64>,
}

/// A pause in words.
#[must_use]
pub fn pause_in_words(pause_us: Option<u64>) -> String {
    match pause_us {
        None => "unknown".to_owned(),
        Some(0) => "no client had to wait".to_owned(),
        Some(us) => format!("{us} us"),
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    pub scope: String,
    pub by: String,
    pub reason: String,
    pub at: u64,
    pub run: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Waiver {
    pub finding: String,
    pub by: String,
    pub reason: String,
    pub at: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    pub started_at: u64,
    pub finished_at: u64,
    pub epoch: u64,
    pub keys: u64,
    pub divergent: u64,
    pub inconclusive: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    pub done: u64,
    pub total: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Decisions {
    pub conflict_policy: String,
    /// Patterns of keys that are not moved.
    #[serde(default)]
    pub exclude: Vec<String>,
    pub data_movement: String,
    pub write_consistency: String,
    pub read_routing: String,
    pub ttl_preservation: bool,
    pub failure_handling: String,
    pub retry_count: u32,
    pub manual_approval: bool,
    pub hold_before_flip: bool,
    pub shadow_from: String,
    /// What was asked for: "auto", "replication" or "lane".
    #[serde(default)]
    pub feed: String,
    pub analyze_min_commands: u64,
    pub analyze_min_seconds: u64,
    pub compare_min_reads: u64,
    pub soak_seconds: u64,
    pub dirty_before_fence_max: u64,
    pub fence_budget_ms: u64,
    pub ttl_grace_ms: u64,
    #[serde(default)]
    pub source_p99_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Migration {
    pub id: String,
    pub interlay: String,
    pub phase: String,
    pub status: String,
    /// "source" or "target".
    pub authority: String,
    pub authority_endpoint: String,
    pub authority_address: String,
    pub epoch: u64,
    pub source: String,
    pub target: String,
    pub strategy: String,
    pub decisions: Decisions,
    /// The policies chosen for this migration; the others are the interlay's.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Policy>)]
    pub policies: Policies,
    pub run: u32,
    pub auto: String,
    /// Both sides are kept in step.
    pub dual: bool,
    /// By what, in both directions: "replication" or "lane". Chosen when dual operation begins; absent before that.
    #[serde(default)]
    pub feed: Option<String>,
    /// Why it was chosen; before that, which would be used and why, or why none can.
    #[serde(default)]
    pub feed_reason: Option<String>,
    pub created_at: u64,
    pub phase_since: u64,
    pub gates: Vec<Gate>,
    pub backfill: Backfill,
    pub dirty: u64,
    pub in_flight: u64,
    pub uncopied: bool,
    /// Divergences that are unresolved now.
    pub divergences: u64,
    pub divergences_found: u64,
    pub divergences_resolved: u64,
    pub flips: Vec<Flip>,
    pub fences_expired: u64,
    /// Absent outside dual operation; `lane_problem` says why.
    pub lane: Option<Lane>,
    pub lane_problem: Option<String>,
    pub findings: Vec<Finding>,
    pub findings_problem: Option<String>,
    pub verification: Option<Verification>,
    pub verifying: Option<JobProgress>,
    pub approvals: Vec<Approval>,
    pub waivers: Vec<Waiver>,
    pub rehearsal_pause_us: Option<u64>,
    pub smoke_failed: Option<Vec<String>>,
    pub rollback_reason: Option<String>,
    /// "committed" or "abandoned".
    pub ended: Option<String>,
    pub ended_reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Interlay {
    pub name: String,
    pub kind: String,
    pub listen: String,
    pub authority: String,
    pub authority_endpoint: String,
    pub authority_address: String,
    pub epoch: u64,
    /// "pass_through" or "dual".
    pub mode: String,
    pub generation: u64,
    pub unacked_cores: Vec<u16>,
    pub source: String,
    pub target: Option<String>,
    pub migration: Option<String>,
    pub phase: Option<String>,
    /// Absent while the interlay is not paused.
    pub pause: Option<Pause>,
    /// Pauses that succeeded since the start; `pause_failures` counts the others.
    pub pauses: u64,
    pub pause_failures: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DatabaseKeys {
    pub database: u32,
    pub keys: u64,
    pub keys_with_expiry: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Facts {
    pub server: String,
    pub version: String,
    pub role: String,
    pub databases: Vec<DatabaseKeys>,
    pub used_memory_bytes: u64,
    pub maxmemory_bytes: u64,
    pub maxmemory_policy: String,
    pub cluster_enabled: bool,
    pub commands: u64,
    pub modules: Vec<String>,
    pub acl_users: Vec<String>,
    pub ping_us: u64,
    pub clock_skew_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    pub name: String,
    pub kind: String,
    pub address: String,
    /// Redis: the logical database.
    pub database: u32,
    /// PostgreSQL: the database Crossfade itself connects to, when the url names one.
    pub dbname: Option<String>,
    pub user: Option<String>,
    /// "unknown", "up" or "down", at the last check.
    pub health: String,
    pub checked_at: Option<u64>,
    pub problem: Option<String>,
    /// Facts of a Redis server.
    pub facts: Option<Facts>,
    /// Facts of a PostgreSQL server.
    pub postgres: Option<PostgresFacts>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    pub connections_accepted: u64,
    pub connections_open: u64,
    pub connections_refused: u64,
    pub commands: u64,
    pub commands_read: u64,
    pub commands_write: u64,
    pub commands_lane: u64,
    pub commands_pinned: u64,
    pub replies_error: u64,
    pub replies_refused: u64,
    pub protocol_errors: u64,
    pub upstream_connections: u64,
    pub upstream_connects: u64,
    pub upstream_losses: u64,
    pub bytes_from_clients: u64,
    pub bytes_to_clients: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    pub version: String,
    pub driver: String,
    pub cores: u64,
    pub uptime_seconds: u64,
    pub interlays: Vec<Interlay>,
    pub migrations: Vec<Migration>,
    pub counters: Counters,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Version of this format.
    pub version: u32,
    pub number: u64,
    pub at: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub migration: Option<String>,
    pub interlay: Option<String>,
    pub text: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Divergence {
    pub database: u32,
    /// Printable ASCII unchanged, other bytes as \xNN.
    pub key: String,
    pub class: String,
    pub source: String,
    pub target: String,
    pub first_seen: u64,
    pub last_seen: u64,
    pub resolved_at: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Divergences {
    pub found: u64,
    pub resolved: u64,
    pub unresolved: u64,
    /// A bounded list; the counts above include all.
    pub entries: Vec<Divergence>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Report {
    pub crossfade_version: String,
    pub written_at: u64,
    pub migration: Migration,
    pub source: Endpoint,
    pub target: Endpoint,
    pub keys_verified: u64,
    pub verifications: u64,
    pub bytes_copied: u64,
    /// How the shadow stands, or stood when dual operation ended; absent when it was never kept in step by this process.
    pub lane: Option<Lane>,
    pub journal: Vec<Event>,
    /// The same as Markdown text.
    pub markdown: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    pub ready: bool,
    pub driver: String,
    pub problems: Vec<String>,
    /// States that an operator caused and others should know about: pauses.
    pub notes: Vec<String>,
}

/// Body of `POST /api/v1/migrations`. Absent decisions take their defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMigration {
    pub id: String,
    pub interlay: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// By slot: a filter's name, or a whole policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, PolicyGiven>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict_policy: Option<String>,
    /// With `conflict_policy` "exclude": patterns of keys that are not moved, as in KEYS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_movement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_consistency: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_routing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_preservation: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_handling: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual_approval: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_before_flip: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyze_min_commands: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analyze_min_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare_min_reads: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_before_fence_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_budget_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_grace_ms: Option<u64>,
    /// How slow the slowest hundredth of the source's answers may be while it is copied; 0: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_p99_ms: Option<u64>,
}

/// Body of `run`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    #[serde(default)]
    pub auto: bool,
    /// "flip" (default with `auto`) or "commit".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
}

/// Body of `advance`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvanceBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Body of `approve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    pub by: String,
    pub reason: String,
    /// "migrate", "flip" or "commit"; absent: the one that is due next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// Body of `waive`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaiveBody {
    pub finding: String,
    pub by: String,
    pub reason: String,
}

/// Body of `rollback` (needed there) and `abandon`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonBody {
    #[serde(default)]
    pub reason: String,
}

/// Body of `commit`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitBody {
    #[serde(default)]
    pub force: bool,
    #[serde(default)]
    pub reason: String,
}
