//! Long work on the control thread: backfill, verification, digests, smoke tests, endpoint checks.
//!
//! Everything here is async on the control thread's current-thread tokio runtime and `!Send`. Nothing here decides; the
//! workflow does. A job reports through a [`Progress`] cell that anyone on the thread may read.

mod postgres;
mod redis;

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

pub use postgres::PostgresFacts;
pub use redis::backfill::{BackfillSpec, backfill};
pub use redis::check::{EndpointFacts, check_endpoint};
pub use redis::client::RedisClient;
pub use redis::compat::{Finding, PayloadProbe, Severity};
pub use redis::digest::{ServerDigest, TypeCount, compare_servers, digest_server};
pub use redis::lane_client::{Copied, LaneClient, Probed};
pub use redis::smoke::smoke;
pub use redis::verify::{Divergence, Verified, VerifySpec, verify};

use base::model::{Endpoint, ProtocolKind};

/// Keys that begin so belong to Crossfade's own tests: never copied, never compared, removed by whoever made them.
pub const RESERVED_PREFIX: &[u8] = b"__crossfade:";

/// What one look at a server found, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFacts {
    Redis(Box<EndpointFacts>),
    Postgres(Box<PostgresFacts>),
}

/// One look at a server of any kind.
///
/// # Errors
/// [`JobError::Endpoint`] naming the endpoint and what to do.
pub async fn look(endpoint: &Endpoint) -> Result<ServerFacts, JobError> {
    match endpoint.kind() {
        ProtocolKind::Redis => Ok(ServerFacts::Redis(Box::new(check_endpoint(endpoint).await?))),
        ProtocolKind::Postgres => Ok(ServerFacts::Postgres(Box::new(postgres::check(endpoint).await?))),
    }
}

/// Compares two servers of one kind. `payloads` is for Redis; on PostgreSQL servers nothing is ever written.
///
/// # Errors
/// As [`look`]; also when the kinds differ.
pub async fn compatibility(
    source: &Endpoint,
    target: &Endpoint,
    payloads: PayloadProbe,
) -> Result<Vec<Finding>, JobError> {
    match (source.kind(), target.kind()) {
        (ProtocolKind::Redis, ProtocolKind::Redis) => redis::compat::compatibility(source, target, payloads).await,
        (ProtocolKind::Postgres, ProtocolKind::Postgres) => postgres::compatibility(source, target).await,
        (from, to) => Err(JobError::Endpoint(format!(
            "endpoint {} is of kind {} and endpoint {} of kind {}: nothing moves between them",
            source.name,
            from.as_str(),
            target.name,
            to.as_str()
        ))),
    }
}

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

/// How often a job looks whether it is paused or cancelled; nobody waits for it.
const PAUSE_POLL: Duration = Duration::from_millis(50);

impl Progress {
    /// Between two steps: waits while paused, ends when cancelled.
    ///
    /// # Errors
    /// [`JobError::Cancelled`].
    pub async fn checkpoint(&self) -> Result<(), JobError> {
        while self.paused.get() && !self.cancelled.get() {
            tokio::time::sleep(PAUSE_POLL).await;
        }
        if self.cancelled.get() { Err(JobError::Cancelled) } else { Ok(()) }
    }

    /// Runs a whole job, and drops it when it is cancelled, whatever it was waiting for.
    async fn or_cancelled<T>(&self, job: impl Future<Output = Result<T, JobError>>) -> Result<T, JobError> {
        let cancelled = async {
            while !self.cancelled.get() {
                tokio::time::sleep(PAUSE_POLL).await;
            }
        };
        tokio::select! {
            biased;
            result = job => result,
            () = cancelled => Err(JobError::Cancelled),
        }
    }
}

/// Rate over the last second or so, for a progress bar.
#[derive(Debug)]
struct Meter {
    since: tokio::time::Instant,
    done_then: u64,
}

impl Meter {
    fn start() -> Self {
        Self { since: tokio::time::Instant::now(), done_then: 0 }
    }

    fn add(&mut self, progress: &Progress, keys: u64, bytes: u64) {
        progress.done.set(progress.done.get() + keys);
        progress.bytes.set(progress.bytes.get() + bytes);
        let seconds = self.since.elapsed().as_secs_f64();
        if seconds >= 0.5 || progress.rate_per_second.get() == 0.0 && seconds > 0.01 {
            let rate = (progress.done.get() - self.done_then) as f64 / seconds;
            let before = progress.rate_per_second.get();
            progress.rate_per_second.set(if before == 0.0 { rate } else { 0.5 * before + 0.5 * rate });
            if seconds >= 0.5 {
                self.since = tokio::time::Instant::now();
                self.done_then = progress.done.get();
            }
        }
    }
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

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Endpoint(why) | Self::Lane(why) | Self::Protocol(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for JobError {}
