//! The API's types for PostgreSQL interlays: pauses, sessions, the analysis of statements, facts of a server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Finding;

/// Body of `POST /api/v1/interlays/{name}/pause`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseBody {
    /// How long to wait until nothing is outstanding; default 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Time after which the interlay resumes automatically; default 600000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
}

/// A pause that has succeeded.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    pub interlay: String,
    pub paused: bool,
    /// Time from the order until nothing was outstanding on any core.
    pub drained_in_us: u64,
    pub paused_at: u64,
    /// When it ends automatically.
    pub resumes_at: u64,
}

/// A pause that has ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Resumed {
    pub interlay: String,
    pub paused: bool,
    /// Clients that were waiting to begin a unit of work.
    pub held_clients: u64,
    pub longest_hold_us: u64,
    pub paused_for_us: u64,
}

/// The pause of an interlay that is closing, paused or opening.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// "closing", "paused" or "opening".
    pub state: String,
    pub paused_at: Option<u64>,
    pub resumes_at: Option<u64>,
    pub drained_in_us: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The backend process id that the client was given.
    pub id: u32,
    pub user: String,
    pub database: String,
    pub application: String,
    pub peer: Option<String>,
    /// "idle", "active", "idle in transaction", "held", …
    pub state: String,
    /// Time in that state; for a transaction, since it began.
    pub age_ms: u64,
    /// Classes of session state it has.
    pub keeps: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Sessions {
    pub interlay: String,
    pub total: u64,
    /// Sessions inside a unit of work.
    pub busy: u64,
    /// Cores that did not answer in time; their sessions are missing here.
    pub cores_missing: u64,
    /// A bounded list; the counts above include all.
    pub sessions: Vec<Session>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatementKind {
    pub kind: String,
    pub count: u64,
    /// Share of all statements, 0 to 1.
    pub share: f64,
    pub failed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    pub mean: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Fingerprint {
    /// 16 hex digits.
    pub fingerprint: String,
    pub kind: String,
    /// The statement without literals.
    pub text: String,
    /// Estimated from samples.
    pub count: u64,
    pub share: f64,
    /// Share of the time of all statements, 0 to 1.
    pub time_share: f64,
    pub failed: u64,
    pub latency_us: Latency,
    pub first_seen: u64,
    pub last_seen: u64,
}

/// Statements too rare to be listed one by one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OtherStatements {
    pub fingerprints: u64,
    pub count: u64,
    pub share: f64,
    pub failed: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionState {
    pub state: String,
    /// Sessions that have had this state since the start.
    pub sessions: u64,
    /// Absent when not known.
    pub movable: Option<bool>,
    pub meaning: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Analysis {
    pub interlay: String,
    pub at: u64,
    /// Estimated from samples.
    pub statements: u64,
    pub failed: u64,
    pub samples: u64,
    pub samples_dropped: u64,
    pub kinds: Vec<StatementKind>,
    pub fingerprints: Vec<Fingerprint>,
    pub fingerprints_known: u64,
    pub others: OtherStatements,
    pub session_states: Vec<SessionState>,
    pub target: Option<String>,
    /// Absent without a target, and when the servers could not be compared; `findings_problem` says why.
    pub findings: Option<Vec<Finding>>,
    pub findings_problem: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PostgresFacts {
    pub version: String,
    pub version_number: u32,
    pub database: String,
    pub database_bytes: u64,
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    pub locale_provider: String,
    pub collation_version: Option<String>,
    pub user: String,
    pub superuser: bool,
    pub createdb: bool,
    pub createrole: bool,
    pub replication: bool,
    pub in_recovery: bool,
    /// Whether this check itself used TLS.
    pub tls: bool,
    pub client_connections: u64,
    pub max_connections: u64,
    pub wal_level: String,
    pub settings: BTreeMap<String, String>,
    /// Name to version.
    pub extensions: BTreeMap<String, String>,
    pub login_roles: Vec<String>,
    pub tables: u64,
    pub tables_without_identity: u64,
    pub unlogged_tables: u64,
    pub sequences: u64,
    pub large_objects: u64,
    pub ping_us: u64,
    pub clock_skew_ms: i64,
}
