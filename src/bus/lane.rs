//! The orders and events of a lane: the companion that keeps a second Redis server in step. Both cross the bus.

use base::model::Side;

/// What control and its jobs order from a lane. The answer to an order carries its ticket.
#[derive(Debug)]
pub enum LaneOrder {
    /// Every core has acked the plan that began dual operation, so every write goes through the lane: begin the first pass.
    /// What was copied before is not trusted. Harmless when repeated. No answer but [`LaneEvent::PassStarted`].
    Open,
    /// Every core has acked the plan that ended dual operation, so no command is on its way to the lane any more: the lane may end. No answer.
    Close,
    /// Copy these keys of logical database `database` at the lane's present position, unless the pass already holds them clean.
    /// Answered by [`LaneEvent::Copied`] when the shadow has applied each of them, or refused it, which makes it dirty. Ignored if `pass` is over.
    Copy { ticket: u64, pass: u64, database: u32, keys: Vec<Box<[u8]>> },
    /// Both scans of this pass have named every key: nothing is uncopied any more. Ignored if `pass` is over.
    PassDone { pass: u64 },
    /// Run the same read-only commands (requests in the protocol of the lane's servers) at one position on both sides: the lane and the
    /// shadow queue. Answered by [`LaneEvent::Probed`] or [`LaneEvent::ProbeFailed`].
    /// With `heal`, what the lane knows to be wrong is copied in front of them, so that a key that is dirty all the time can be compared too.
    Probe { ticket: u64, database: u32, commands: Vec<Box<[u8]>>, heal: bool },
    /// This key was proven different: mark it dirty so that the lane copies it again. No answer.
    Repair { database: u32, keys: Vec<Box<[u8]>> },
    /// Hold new writes and drain everything. Answered by [`LaneEvent::Fenced`] or [`LaneEvent::FenceExpired`] within `budget_us`.
    Fence { ticket: u64, budget_us: u64 },
    /// Ends a fence under the authority of the plan published last (roles exchanged or as before) and releases held writes.
    /// Answered by [`LaneEvent::Released`].
    Release { ticket: u64 },
}

impl LaneOrder {
    /// The answer when there is no lane; `None` for an order that is not answered.
    #[must_use]
    pub fn refused(&self, reason: &str) -> Option<LaneEvent> {
        match self {
            Self::Copy { ticket, keys, .. } => {
                let failed = keys.len() as u64;
                Some(LaneEvent::Copied { ticket: *ticket, copied: 0, absent: 0, clean: 0, failed, bytes: 0 })
            }
            Self::Probe { ticket, .. } => Some(LaneEvent::ProbeFailed { ticket: *ticket, reason: reason.to_owned() }),
            Self::Fence { ticket, .. } => Some(LaneEvent::FenceExpired { ticket: *ticket, reason: reason.to_owned() }),
            Self::Release { ticket } => Some(LaneEvent::Released { ticket: *ticket, pause_us: 0, held: 0 }),
            Self::Open | Self::Close | Self::PassDone { .. } | Self::Repair { .. } => None,
        }
    }
}

/// Why the lane wants every key named again, and which of them it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassKind {
    /// Copy every key of the authority, and look at every key of the shadow (it may hold keys the authority does not).
    Full,
    /// After a flip: both sides are equal, only deadlines of volatile keys must be written again. Naming persistent keys too is harmless.
    Volatile,
}

/// What a lane reports to control.
#[derive(Debug)]
pub enum LaneEvent {
    /// From now on every key is uncopied until [`LaneOrder::PassDone`] with this number. `reason` is for the journal.
    PassStarted {
        pass: u64,
        kind: PassKind,
        reason: String,
    },
    /// `copied` keys exist and were copied, `absent` do not exist on the authority (and were removed from the shadow), `clean` needed nothing.
    Copied {
        ticket: u64,
        copied: u64,
        absent: u64,
        clean: u64,
        failed: u64,
        bytes: u64,
    },
    /// Replies in request order, as the servers sent them. `doubtful[n]`: the lane knew that the keys of command n were wrong or uncopied on
    /// the shadow when it was read, so a difference is not proven yet.
    Probed {
        ticket: u64,
        authority: Vec<Box<[u8]>>,
        shadow: Vec<Box<[u8]>>,
        doubtful: Vec<bool>,
    },
    ProbeFailed {
        ticket: u64,
        reason: String,
    },
    /// Writes are held, nothing is dirty, in flight or queued: both sides are equal. Control now persists, publishes and releases.
    Fenced {
        ticket: u64,
    },
    /// The budget ran out; held writes were released to the current authority and nothing changed. `reason` names what was left.
    FenceExpired {
        ticket: u64,
        reason: String,
    },
    /// `pause_us`: from the moment the fence began to hold writes until they were released.
    Released {
        ticket: u64,
        pause_us: u64,
        held: u64,
    },
    /// Sent every 100 ms while dual, and after each change of a set from or to zero.
    Status(LaneStatus),
    /// A compared read differed at one position. The key is marked dirty by the lane itself.
    ReadDivergence {
        database: u32,
        key: Box<[u8]>,
        /// What kind of difference: the comparison policy's word, or the built-in comparison's.
        class: String,
        /// What each side answered, without its contents.
        authority: String,
        shadow: String,
    },
    /// The records policy gave no verdict on this key, so it was not copied; it is dirty and retried. At most one per minute is reported.
    RecordNotCopied {
        database: u32,
        key: Box<[u8]>,
    },
    SideLost {
        side: Side,
        reason: String,
    },
    SideBack {
        side: Side,
    },
    /// There are more keys in doubt than the intent log holds, or it is complete again. While it is full a kill of the process costs a full pass.
    IntentLog {
        full: bool,
    },
}

/// The lane's sets and queues at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// When this was true: milliseconds since the Unix epoch. A caller that waits for a drained lane must see a status from after its last write.
    pub at_ms: u64,
    /// Positions handed out since the lane began.
    pub position: u64,
    pub pass: u64,
    /// True until [`LaneOrder::PassDone`]: some key may be uncopied.
    pub uncopied: bool,
    pub dirty: u64,
    /// Entries sent to or queued for the shadow and not yet answered.
    pub in_flight: u64,
    pub shadow_queue_bytes: u64,
    pub shadow_lag_us: u64,
    pub copied_keys: u64,
    pub copied_bytes: u64,
    pub effects: u64,
    /// Times a key was marked dirty, by any cause, since the lane began.
    pub dirtied: u64,
    /// Keys whose value on the shadow a records policy has changed or left out.
    pub altered: u64,
    pub reads_compared: u64,
    /// Of those, different bytes with one meaning.
    pub reads_equivalent: u64,
    pub reads_not_comparable: u64,
    pub read_divergences: u64,
    /// Runs of scripts and functions since the lane began.
    pub scripts_run: u64,
    /// How many different ones they were, up to [`base::model::limits::SCRIPTS_KNOWN_MAX`].
    pub scripts_known: u64,
    /// When one last ran for the first time; 0: none has. Milliseconds since the Unix epoch. What it wrote elsewhere than in the keys it declares, only a
    /// comparison of every key that began later can find; after a clean one it has been seen to keep to them. One that is not remembered runs for the
    /// first time each time.
    pub scripts_unproven_at_ms: u64,
    /// When one last ran; 0: none has. Milliseconds since the Unix epoch.
    pub scripts_ran_at_ms: u64,
    pub authority_connected: bool,
    pub shadow_connected: bool,
}
