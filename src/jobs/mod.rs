//! Long work on the control thread: backfill, verification, digests, smoke tests, endpoint checks.
//!
//! Everything here is async on the control thread's current-thread tokio runtime and `!Send`. Nothing here decides; the
//! workflow does. A job reports through a [`Progress`] cell that anyone on the thread may read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::bus::{LaneEvent, Mailbox, PassKind};
use crate::model::{Endpoint, InterlayName};

/// How far a job has come. Shared by `Rc`; written by the job, read by control.
#[derive(Debug, Default)]
pub struct Progress {
    pub done: Cell<u64>,
    /// 0 while unknown.
    pub total: Cell<u64>,
    pub bytes: Cell<u64>,
    pub rate_per_second: Cell<f64>,
    /// Set by control: the job stops naming work at its next step and waits.
    pub paused: Cell<bool>,
    /// Set by control: the job ends at its next step with [`JobError::Cancelled`].
    pub cancelled: Cell<bool>,
}

/// Why a job ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    Cancelled,
    /// Could not reach or log in to an endpoint: names it and says why. Trying again is safe.
    Endpoint(String),
    /// The lane refused or went away. Trying again is safe.
    Lane(String),
    /// The server answered something no server should. Names the command and the reply.
    Protocol(String),
}

/// An async front for the lane of one interlay: sends orders with tickets, resolves them when the answer comes.
#[derive(Debug, Clone)]
pub struct LaneClient {
    _inner: Rc<RefCell<()>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub copied: u64,
    pub absent: u64,
    pub clean: u64,
    pub failed: u64,
    pub bytes: u64,
}

/// Raw RESP2 reply frames of both sides, in request order.
#[derive(Debug)]
pub struct Probed {
    pub authority: Vec<Box<[u8]>>,
    pub shadow: Vec<Box<[u8]>>,
}

impl LaneClient {
    #[must_use]
    pub fn new(_interlay: InterlayName, _mailbox: Mailbox<crate::bus::Directive>) -> Self {
        todo!()
    }

    /// Control calls this with every lane event of the interlay; answers to tickets wake their waiters.
    pub fn on_event(&self, _event: &LaneEvent) {
        todo!()
    }

    /// # Errors
    /// [`JobError::Lane`] when the order could not be queued or no answer came in time.
    pub async fn copy(&self, _pass: u64, _database: u32, _keys: Vec<Box<[u8]>>) -> Result<Copied, JobError> {
        todo!()
    }

    /// # Errors
    /// As [`Self::copy`].
    pub fn pass_done(&self, _pass: u64) -> Result<(), JobError> {
        todo!()
    }

    /// # Errors
    /// As [`Self::copy`]; also when a connection was lost between the two reads.
    pub async fn probe(&self, _database: u32, _commands: Vec<Box<[u8]>>) -> Result<Probed, JobError> {
        todo!()
    }

    /// # Errors
    /// As [`Self::copy`].
    pub fn repair(&self, _database: u32, _keys: Vec<Box<[u8]>>) -> Result<(), JobError> {
        todo!()
    }

    /// Holds writes and drains. `Ok(Ok(()))`: fenced; `Ok(Err(reason))`: budget exceeded, nothing changed.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub async fn fence(&self, _budget: std::time::Duration) -> Result<Result<(), String>, JobError> {
        todo!()
    }

    /// Ends a fence; returns (pause in microseconds, commands held).
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub async fn release(&self) -> Result<(u64, u64), JobError> {
        todo!()
    }
}

/// What one look at a server found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFacts {
    /// "redis" or "valkey".
    pub server: String,
    pub version: String,
    pub run_id: String,
    pub role: String,
    /// Keys per logical database, only non-empty ones: (database, keys, keys with expiry).
    pub databases: Vec<(u32, u64, u64)>,
    pub used_memory_bytes: u64,
    pub maxmemory_bytes: u64,
    pub maxmemory_policy: String,
    pub cluster_enabled: bool,
    /// Command names, lower case, sorted.
    pub commands: Vec<String>,
    pub modules: Vec<String>,
    /// Names of ACL users other than `default`.
    pub acl_users: Vec<String>,
    pub ping_us: u64,
    /// Local clock minus server clock, milliseconds.
    pub clock_skew_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    /// Blocks the phase that needs it until waived by name.
    Critical,
}

/// One compatibility finding: a stable name (kebab-case, used to waive it), how bad, and a sentence with the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub severity: Severity,
    pub detail: String,
}

/// # Errors
/// [`JobError::Endpoint`] naming the endpoint and what to do (unreachable, wrong password, not a Redis).
pub async fn check_endpoint(_endpoint: &Endpoint) -> Result<EndpointFacts, JobError> {
    todo!()
}

/// Compares two servers: version, commands missing on the target, modules, maxmemory and eviction policy, cluster mode, ACL users, clock skew,
/// DUMP payload acceptance both ways, same server on both ends (run_id).
///
/// # Errors
/// As [`check_endpoint`].
pub async fn compatibility(_source: &Endpoint, _target: &Endpoint) -> Result<Vec<Finding>, JobError> {
    todo!()
}

#[derive(Debug, Clone)]
pub struct BackfillSpec {
    pub authority: Endpoint,
    pub shadow: Endpoint,
    pub pass: u64,
    pub kind: PassKind,
}

/// Names every key of the authority (and, in a full pass, of the shadow) by SCAN and has the lane copy them; ends with `pass_done`.
/// Covers every logical database that is not empty, and retries a lost connection with the cursor it had.
///
/// # Errors
/// [`JobError`].
pub async fn backfill(_spec: BackfillSpec, _lane: LaneClient, _progress: Rc<Progress>) -> Result<Copied, JobError> {
    todo!()
}

/// One key proven different at one lane position (or by a whole-server digest).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    pub database: u32,
    pub key: Vec<u8>,
    /// "value", "type", "ttl", "missing", "extra".
    pub class: &'static str,
    /// Short, human: what each side holds (type, length, first bytes, TTL).
    pub source: String,
    pub target: String,
}

#[derive(Debug, Clone, Default)]
pub struct Verified {
    pub keys: u64,
    pub divergent: Vec<Divergence>,
    /// Keys that could not be compared (probe failed); counted, never assumed equal.
    pub inconclusive: u64,
}

#[derive(Debug, Clone)]
pub struct VerifySpec {
    pub authority: Endpoint,
    pub shadow: Endpoint,
    pub ttl_tolerance_ms: u64,
    /// Share of keys looked at, in ten thousandths; 10 000 = a full pass.
    pub sample_per_ten_thousand: u16,
}

/// Compares keys of both sides under load, exactly: each pair is read at one lane position. Scans both sides for names.
///
/// # Errors
/// [`JobError`].
pub async fn verify(_spec: VerifySpec, _lane: LaneClient, _progress: Rc<Progress>) -> Result<Verified, JobError> {
    todo!()
}

/// Typed smoke tests on reserved keys (`__crossfade:smoke:*`), removed afterwards: every type, TTL, a large value, EVAL, MULTI.
/// Returns one line per check with its outcome.
///
/// # Errors
/// [`JobError`].
pub async fn smoke(_endpoint: &Endpoint) -> Result<Vec<(String, Result<(), String>)>, JobError> {
    todo!()
}
