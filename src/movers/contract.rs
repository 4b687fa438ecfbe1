//! What control and a mover say to each other: plain values that know no database.
//!
//! A mover hands control facts, findings and gates; control asks it to copy, verify, repair, hold, exchange and release. Nothing here
//! decides anything. All of it crosses between the movers' thread and the control thread.

use std::sync::Arc;
use std::time::Instant;

use base::model::{ConflictPolicy, CoreId, Endpoint, Epoch, FeedKind, KeyPattern, Side, Sighting};

use crate::error::{JobError, Unsupported};
use crate::progress::Progress;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Not evaluated, and why. Never counts as passed.
    Unknown(String),
    Failed(String),
    Passed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    /// Blocks the phase that needs it until waived by name.
    Critical,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One compatibility finding: a stable name (kebab-case, used to waive it), how bad, and a sentence with the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub severity: Severity,
    pub detail: String,
    /// It concerns those that are kept in step by this feed; `None`: all.
    pub feed: Option<FeedKind>,
    /// It can be found only before the first copy, and is true of that time: what is found later does not replace it.
    pub before_copy: bool,
}

/// A condition of the mover's own for a change of authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnGate {
    pub name: &'static str,
    pub check: Check,
    pub threshold: &'static str,
}

/// Whether a comparison of two servers may write (reserved names only, removed afterwards).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteProbe {
    Allowed,
    /// Two sides are kept in step, or the servers are not ours to write to.
    Forbidden,
}

/// What a kind of database can have done to it in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    Migrate,
    /// Policies decide within a migration.
    Policies,
    Pause,
    Resume,
    ListSessions,
    AnalyzeStatements,
}

impl Ability {
    pub const ALL: [Self; 6] =
        [Self::Migrate, Self::Policies, Self::Pause, Self::Resume, Self::ListSessions, Self::AnalyzeStatements];
}

/// Which server is authoritative and which is kept in step with it, since this epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub authority: Endpoint,
    pub shadow: Endpoint,
    /// The authority's.
    pub side: Side,
    pub epoch: Epoch,
    /// What keeps the shadow in step, in this direction and in the other.
    pub feed: FeedKind,
    /// How much longer than the authority the shadow may keep what expires, milliseconds.
    pub ttl_grace_ms: u64,
    /// Clients get the replies to their writes when the shadow has these too (`write_consistency both`). Beside a replication feed only.
    pub confirm_writes: bool,
    pub conflicts: Conflicts,
    /// How slow the slowest hundredth of the authority's answers may be while it is copied, milliseconds; 0: no bound.
    pub source_p99_ms: u64,
}

/// How quickly the authority answered while a snapshot of it was read last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceLoad {
    /// Of the last seconds; 0: not measured.
    pub p99_us: u64,
    /// Bytes of the snapshot that are read in a second, because it would be slower otherwise; `None`: as fast as they come.
    pub throttled_to: Option<u64>,
}

/// What becomes of keys that the target held before the first copy, and which keys are not moved at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts {
    pub policy: ConflictPolicy,
    /// Keys that match one of these are not moved.
    pub exclude: Arc<[KeyPattern]>,
    /// The authority has changed since the migration began: whatever either server holds, the policy has been carried out.
    pub settled: bool,
}

impl Default for Conflicts {
    /// The target becomes an exact copy.
    fn default() -> Self {
        Self { policy: ConflictPolicy::Replace, exclude: Arc::from([]), settled: false }
    }
}

/// Keys and commands that were not moved, because the migration excludes keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Keys that the target held before the first copy and keeps (conflict policy `skip`).
    pub kept: u64,
    /// Keys of snapshots that were not copied.
    pub keys: u64,
    /// Commands of the authority that were not applied.
    pub commands: u64,
    /// Commands that named an excluded key and another one: the other was copied.
    pub mixed: u64,
}

/// By what two servers can be kept in step, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feeds {
    /// The best first; the servers themselves always offer one.
    pub usable: Vec<FeedKind>,
    /// Each of the others, with the reason and what to do about it.
    pub refused: Vec<(FeedKind, String)>,
}

/// What keeps the shadow from being equal to the authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Something has not been reached by the pass yet.
    pub uncopied: bool,
    /// Known to differ; copied again.
    pub dirty: u64,
    /// Sent or queued, and not answered yet.
    pub in_flight: u64,
    pub queue_bytes: u64,
    pub lag_us: u64,
}

/// What was done to the shadow since both sides are kept in step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    pub copied_keys: u64,
    pub copied_bytes: u64,
    pub effects: u64,
    /// Times something was marked dirty, by any cause.
    pub dirtied: u64,
    /// Values that a records policy has changed or left out.
    pub altered: u64,
}

/// Clients' reads that were repeated on the shadow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadsCompared {
    pub compared: u64,
    /// Of those, different bytes with one meaning.
    pub equivalent: u64,
    pub not_comparable: u64,
    /// Both answers could not be told to be of one moment. Not among `compared`.
    pub inconclusive: u64,
    pub divergent: u64,
}

/// How the shadow stands at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShadowFacts {
    /// When this was true: milliseconds since the Unix epoch. Who waits for a drained shadow must see facts from after the last write.
    pub at_ms: u64,
    /// Where the writes of the authority are: places handed out by the lane, bytes of a replication stream.
    pub position: u64,
    /// The position up to which the shadow has everything; `None`: not known as a number.
    pub reached: Option<u64>,
    pub pass: u64,
    pub behind: Behind,
    pub applied: Applied,
    pub excluded: Excluded,
    pub source: SourceLoad,
    /// Values that the shadow cannot hold as the authority does.
    pub losses: u64,
    pub reads: ReadsCompared,
    pub authority_connected: bool,
    pub shadow_connected: bool,
    /// If the authority changed now, the other side would be kept in step from the first instant.
    pub way_back: bool,
    /// When something ran for the first time that may have written what the feed does not see: only a comparison of every key that began later can tell.
    /// Milliseconds since the Unix epoch; 0: never.
    pub unseen_at_ms: u64,
    /// When something of the kind ran last; 0: never.
    pub unseen_last_at_ms: u64,
}

/// Facts with the moment they arrived, so that old ones can be told from new ones.
#[derive(Debug, Clone, Copy)]
pub struct FreshFacts {
    pub facts: ShadowFacts,
    pub received: Instant,
}

/// What a pass over both servers reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Everything either side holds.
    Full,
    /// After a flip both sides are equal; only what expires by itself must be written again.
    Volatile,
}

/// A pass that has begun.
#[derive(Debug, Clone)]
pub struct PassStarted {
    pub number: u64,
    pub kind: PassKind,
    /// The authority's when it began.
    pub epoch: Epoch,
    pub reason: String,
    pub progress: Arc<Progress>,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub copied: u64,
    /// Gone from the authority; removed from the shadow.
    pub absent: u64,
    /// Needed nothing.
    pub clean: u64,
    pub failed: u64,
    pub bytes: u64,
}

impl Copied {
    /// Keys this speaks of.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.copied + self.absent + self.clean + self.failed
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.copied += other.copied;
        self.absent += other.absent;
        self.clean += other.clean;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

/// How a comparison of both sides is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifySpec {
    /// Deadlines may differ by this much.
    pub ttl_tolerance_ms: u64,
    /// Share of what is looked at, in ten thousandths; 10 000 = everything.
    pub sample_per_ten_thousand: u16,
}

/// The outcome of a comparison of both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub keys: u64,
    /// Those kept by name; at most [`base::model::limits::VERIFY_DIVERGENCES_MAX`].
    pub divergent: Vec<Sighting>,
    /// Could not be compared; counted, never assumed equal.
    pub inconclusive: u64,
}

/// Clients are held and nothing that they began is outstanding.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// How the shadow stands; `None` where there is none.
    pub facts: Option<FreshFacts>,
}

/// What became of the clients of a hold that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldClients {
    /// They wait until they are released.
    StillHeld,
    /// They went on by themselves.
    Released,
}

/// Why a hold did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldError {
    /// Not everything was drained in time.
    Expired {
        reason: String,
        clients: HeldClients,
        silent: Vec<CoreId>,
    },
    Unsupported(Unsupported),
    /// Whether clients are held is not known: release them.
    Failed(JobError),
}

/// Clients go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// How many had been held.
    pub held: u64,
    /// How long the first of them was held.
    pub longest_hold_us: u64,
    /// Cores that have the order and had not answered it in time.
    pub silent: Vec<CoreId>,
}

/// What a mover tells by itself.
#[derive(Debug)]
pub enum MoverEvent {
    Facts(FreshFacts),
    PassStarted(PassStarted),
    PassDone {
        number: u64,
        copied: Copied,
    },
    /// It begins again by itself.
    PassInterrupted {
        number: u64,
        why: JobError,
    },
    /// A client's read was answered differently.
    Divergence(Sighting),
    /// The records policy gave no verdict on something, so it was not copied. One in a minute is told.
    NotCopied {
        database: u32,
        key: String,
    },
    /// The shadow cannot hold a value as the authority does. The first of them are told.
    Loss {
        database: u32,
        key: String,
        why: String,
    },
    SideLost {
        side: Side,
        reason: String,
    },
    SideBack {
        side: Side,
    },
    /// What is to be copied again after a kill of the process cannot be written down any more, so everything would be; or it can again.
    DoubtsWrittenDown {
        all: bool,
    },
}
