//! What a migration does to servers: one folder per database behind one contract, and the thread that all of it runs on.
//!
//! Nothing here decides; control's workflow does. [`contract`] is what both say to each other, [`Movers`] is how control asks.

pub mod contract;
mod error;
mod holds;
mod mover;
mod news;
mod postgres;
mod progress;
mod redis;
mod thread;

pub use contract::{
    Ability, Applied, Behind, Check, Conflicts, Copied, Drained, Excluded, Feeds, Finding, FreshFacts, HeldClients,
    HoldError, MoverEvent, OwnGate, PassKind, PassStarted, ReadsCompared, Released, Route, Severity, ShadowFacts,
    SourceLoad, Verified, VerifySpec, WriteProbe,
};
pub use error::{JobError, OrderFault, ServerError, ServerFault, Unsupported};
pub use mover::{MoverSpec, ServerFacts, SessionStateMeaning, compatibility, look, own_gates, session_state, supports};
pub use news::News;
pub use postgres::facts::PostgresFacts;
pub use progress::Progress;
pub use redis::digest::{ServerDigest, TypeCount, compare_servers, digest_server};
pub use redis::facts::EndpointFacts;
pub use redis::feed::applier::Feed;
pub use redis::feed::batch::Doubt;
pub use redis::feed::spec::{FeedError, FeedEvent, FeedSpec, FeedStatus};
pub use redis::verify::Divergence;
pub use thread::{CheckLine, MoverEvents, Movers};

/// Tests of other crates only: a mover without its thread, to be run in virtual time.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::redis::clock::testing::follow as follow_virtual_time;
    pub use crate::redis::mover::RedisMover;
}

/// Keys that begin so belong to Crossfade's own tests: never copied, never compared, removed by the job that made them.
pub const RESERVED_PREFIX: &[u8] = b"__crossfade:";
