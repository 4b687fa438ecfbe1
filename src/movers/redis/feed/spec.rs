//! What a feed is given, what it tells, and why it may fail. Plain values of the movers' thread.

use std::fmt;
use std::rc::Rc;

use tokio::time::Instant;

use super::exclusions::Exclusions;
use crate::contract::{Conflicts, Excluded, SourceLoad};
use crate::error::JobError;
use base::model::Endpoint;
use follow::error::{FollowError, ServerError};
use follow::redis::follower::Following;
use follow::redis::position::Position;
use follow::redis::spill::SpillSpec;
use follow::redis::stream::StreamReader;

/// A feed of one direction.
#[derive(Debug, Clone)]
pub struct FeedSpec {
    /// Names the position on the shadow: unique among the feeds that ever wrote to it.
    pub name: String,
    pub authority: Endpoint,
    pub shadow: Endpoint,
    /// How much later than at the authority deadlines are stored.
    pub grace_ms: i64,
    pub spill: SpillSpec,
    /// What the shadow holds counts: it is not replaced by a snapshot that holds much less.
    pub guarded: bool,
    pub conflicts: Conflicts,
    /// How slow the slowest hundredth of the authority's answers may be while it is copied, milliseconds; 0: no bound.
    pub source_p99_ms: u64,
    /// Of the other direction, when this one follows it.
    pub inherited: Rc<Exclusions>,
}

/// A stream that was followed before the feed began, read up to where the feed begins.
#[derive(Debug)]
pub struct Standing {
    pub following: Following,
    pub reader: StreamReader,
}

/// Why a feed is not in step, or no longer. Trying again is safe; whether that fills the shadow anew is for the authority to say.
#[derive(Debug, Clone)]
pub enum FeedError {
    Follow(FollowError),
    Shadow(JobError),
    /// The shadow refuses what the authority has taken; its words.
    Refused {
        shadow: String,
        why: String,
    },
    /// The authority could give only a snapshot, and it holds much less than the shadow: it has lost data, or is another server.
    Shrunk {
        authority: String,
        authority_keys: u64,
        shadow: String,
        shadow_keys: u64,
    },
    /// What the shadow held before the first copy is not what the conflict policy allows.
    Conflict {
        shadow: String,
        why: String,
    },
}

impl FeedError {
    /// Whether it is the authority that is out of reach or gave what cannot be used.
    #[must_use]
    pub fn is_of_authority(&self) -> bool {
        match self {
            Self::Follow(_) | Self::Shrunk { .. } => true,
            Self::Shadow(_) | Self::Refused { .. } | Self::Conflict { .. } => false,
        }
    }
}

impl From<FollowError> for FeedError {
    fn from(error: FollowError) -> Self {
        Self::Follow(error)
    }
}

impl From<JobError> for FeedError {
    fn from(error: JobError) -> Self {
        Self::Shadow(error)
    }
}

impl From<ServerError> for FeedError {
    fn from(error: ServerError) -> Self {
        Self::Shadow(error.into())
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Follow(error) => error.fmt(f),
            Self::Shadow(error) => error.fmt(f),
            Self::Conflict { shadow, why } => write!(f, "{shadow}: {why}"),
            Self::Refused { shadow, why } => {
                write!(f, "{shadow} refuses what the authority has taken: {why}; it is tried again")
            }
            Self::Shrunk { authority, authority_keys, shadow, shadow_keys } => write!(
                f,
                "{authority} cannot continue its stream and holds {authority_keys} keys where {shadow} holds {shadow_keys}: it seems to have \
                 lost data, so nothing is copied over {shadow}. Restore the authority; or, if it is right, empty {shadow} (FLUSHALL) and it is \
                 filled anew"
            ),
        }
    }
}

impl std::error::Error for FeedError {}

/// What a feed tells as it happens.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// The shadow is filled from a snapshot; so many keys the authority holds.
    Filling { why: String, keys: u64 },
    /// All of the snapshot is on the shadow.
    Filled,
    /// Nothing is copied: the stream goes on from the position the shadow has.
    Continues,
    /// Every deadline on the shadow is later than the authority's by the grace and no more.
    DeadlinesExact,
    /// It is tried again.
    Failed(FeedError),
}

/// How far a feed is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// Every record of the history is on the shadow.
    pub history_done: bool,
    /// No deadline on the shadow has more than the grace, or less.
    pub deadlines_exact: bool,
    /// Since when.
    pub exact_since: Option<Instant>,
    pub history_keys: u64,
    pub history_bytes: u64,
    /// The position that the shadow has.
    pub applied: Option<Position>,
    /// What has arrived from the authority.
    pub received: u64,
    pub waiting_bytes: u64,
    pub commands: u64,
    /// Times a key was found that may differ.
    pub doubted: u64,
    /// Times two databases were exchanged.
    pub swaps: u64,
    /// Times the shadow was filled from a snapshot.
    pub full_syncs: u64,
    pub excluded: Excluded,
    pub source: SourceLoad,
    /// Values that the shadow cannot hold as the authority does.
    pub losses: u64,
    /// Following, and applying.
    pub connected: bool,
}
