//! What a core has to do: an immutable, numbered plan with no choices left in it.
//!
//! Crosses: built on the control thread by `workflow`, shared with every core by `Arc`. A core never learns the phase.

use std::net::SocketAddr;

use super::authority::{Authority, Side};
use super::endpoint::Endpoint;
use super::ids::{Generation, InterlayName};
use super::kind::ProtocolKind;
use super::login::PostgresSpec;
use super::tls::ServerTls;

/// A listener, fixed from start to stop of the process.
#[derive(Debug, Clone)]
pub struct InterlaySpec {
    pub name: InterlayName,
    pub protocol: InterlayProtocol,
    pub listen: SocketAddr,
    /// `None`: clients connect without TLS.
    pub tls: Option<ServerTls>,
}

impl InterlaySpec {
    #[must_use]
    pub fn kind(&self) -> ProtocolKind {
        match self.protocol {
            InterlayProtocol::Redis(_) => ProtocolKind::Redis,
            InterlayProtocol::Postgres(_) => ProtocolKind::Postgres,
        }
    }
}

/// What an interlay speaks with its clients, with what only an interlay of that kind has.
#[derive(Debug, Clone)]
pub enum InterlayProtocol {
    Redis(Sharing),
    Postgres(PostgresSpec),
}

/// Whether clients of a Redis interlay share connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// As long as nothing of theirs would be another's.
    #[default]
    Auto,
    /// Each has one of its own, from its first command.
    Never,
}

/// Whether writes go straight to the authority or through the lane that keeps the shadow in step.
///
/// Both sides are kept in step in [`PlanMode::Followed`] and [`PlanMode::Dual`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanMode {
    /// Every command goes to the authority; the other side is not touched.
    PassThrough,
    /// Every command goes to the authority; the other side is kept in step by what follows the authority's own stream of changes, outside
    /// of the cores.
    Followed,
    /// Writes go through the lane and their effects to the shadow.
    Dual,
}

impl PlanMode {
    /// Whether both sides are kept in step.
    #[must_use]
    pub fn is_dual(self) -> bool {
        match self {
            Self::PassThrough => false,
            Self::Followed | Self::Dual => true,
        }
    }
}

/// Which share of comparable reads is repeated on the shadow and compared. 0 = none, 10 000 = all. Not in
/// [`PlanMode::PassThrough`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompareReads {
    pub sample_per_ten_thousand: u16,
}

/// The orders of one interlay. `target` is present unless `mode` is [`PlanMode::PassThrough`] with the source authoritative.
#[derive(Debug, Clone)]
pub struct RoutePlan {
    pub interlay: InterlayName,
    pub generation: Generation,
    pub authority: Authority,
    pub source: Endpoint,
    pub target: Option<Endpoint>,
    pub mode: PlanMode,
    pub compare: CompareReads,
    /// G of the TTL rule: the shadow keeps a volatile key this much longer than the authority, in milliseconds.
    pub ttl_grace_ms: u64,
}

impl RoutePlan {
    /// The endpoint of one side; the source stands in for an absent target so that a lookup never fails on a core.
    #[must_use]
    pub fn endpoint(&self, side: Side) -> &Endpoint {
        match (side, &self.target) {
            (Side::Target, Some(target)) => target,
            (Side::Target, None) | (Side::Source, _) => &self.source,
        }
    }
}
