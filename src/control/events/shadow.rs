//! Events of keeping the shadow in step: what a mover tells, and what comparisons find.

use std::fmt;

use base::model::Side;
use movers::{Copied, JobError, PassKind};

/// Which job did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailedJob {
    /// It begins again by itself.
    Pass {
        number: u64,
        why: JobError,
    },
    Verification {
        why: JobError,
    },
}

/// Which job makes progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningJob {
    Backfill,
    Verification,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShadowEvent {
    PassStarted { number: u64, kind: PassKind, reason: String },
    PassDone { number: u64, copied: Copied },
    JobFailed(FailedJob),
    JobProgress { job: RunningJob, done: u64, total: u64, rate_per_second: u64 },
    RecordNotCopied { database: u32, key: String },
    Loss { database: u32, key: String, why: String },
    SideLost { side: Side, reason: String },
    SideBack { side: Side },
    DoubtsWrittenDown { all: bool },
    VerificationDone { keys: u64, divergent: u64, inconclusive: u64 },
    DivergenceFound { keys: u64 },
    DivergenceResolved { keys: u64 },
}

impl ShadowEvent {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PassStarted { .. } => "pass_started",
            Self::PassDone { .. } => "pass_done",
            Self::JobFailed(_) => "job_failed",
            Self::JobProgress { .. } => "job_progress",
            Self::RecordNotCopied { .. } => "record_not_copied",
            Self::Loss { .. } => "shadow_lacks",
            Self::SideLost { .. } => "side_lost",
            Self::SideBack { .. } => "side_back",
            Self::DoubtsWrittenDown { .. } => "intent_log",
            Self::VerificationDone { .. } => "verification_done",
            Self::DivergenceFound { .. } => "divergence_found",
            Self::DivergenceResolved { .. } => "divergence_resolved",
        }
    }
}

impl fmt::Display for ShadowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PassStarted { number, kind, reason } => {
                let what = match kind {
                    PassKind::Full => "every key",
                    PassKind::Volatile => "every volatile key",
                };
                write!(f, "pass {number} copies {what}: {reason}")
            }
            Self::PassDone { number, copied } => write!(
                f,
                "pass {number}: {} keys copied, {} gone, {} clean already, {} to be tried again, {} bytes",
                copied.copied, copied.absent, copied.clean, copied.failed, copied.bytes
            ),
            Self::JobFailed(FailedJob::Pass { number, why }) => {
                write!(f, "pass {number} was interrupted and begins again: {why}")
            }
            Self::JobFailed(FailedJob::Verification { why }) => write!(f, "verification: {why}"),
            Self::JobProgress { job, done, total, rate_per_second } => {
                let job = match job {
                    RunningJob::Backfill => "backfill",
                    RunningJob::Verification => "verification",
                };
                write!(f, "{job}: {done} of {total} keys, {rate_per_second} keys/s")
            }
            Self::RecordNotCopied { database, key } => write!(
                f,
                "key {key:?} of database {database}: the records policy gave no verdict; it stays uncopied and is tried again"
            ),
            Self::Loss { database, key, why } => {
                write!(f, "key {key} of database {database}: the shadow cannot hold it as the authority does: {why}")
            }
            Self::SideLost { side, reason } => write!(f, "the {side} is not connected: {reason}"),
            Self::SideBack { side } => write!(f, "the {side} is connected again"),
            Self::DoubtsWrittenDown { all: false } => f.write_str(
                "the intent log is full, because the shadow is late: if this process is killed now, every key is copied again",
            ),
            Self::DoubtsWrittenDown { all: true } => f.write_str("the intent log is complete again"),
            Self::VerificationDone { keys, divergent, inconclusive } => {
                write!(f, "{keys} keys compared, {divergent} divergent, {inconclusive} inconclusive")
            }
            Self::DivergenceFound { keys } => write!(f, "{keys} keys differ; repair ordered"),
            Self::DivergenceResolved { keys } => write!(f, "{keys} keys are proven equal again"),
        }
    }
}
