//! What relays and companions send each other. These messages cross cores; the cores hand them on unread.
//!
//! The variants are per protocol. Which file makes relays and companions: `protocols/mod.rs`.

use crate::redis::lane::request::{LaneBatch, LaneReply};

/// From a relay, on any core, to the companion of its interlay.
#[derive(Debug)]
pub enum ToCompanion {
    /// One client's commands for the lane.
    Lane(LaneBatch),
}

/// From a companion to the relay of its interlay on one core.
#[derive(Debug)]
pub enum ToRelay {
    /// The lane's answer to one client.
    Lane(LaneReply),
}

/// Messages for tests of what only hands them on.
#[cfg(test)]
pub mod samples {
    use base::model::{Endpoint, EndpointName, ProtocolKind};
    use bus::{CompanionOrder, LaneOrder};

    use super::{LaneBatch, LaneReply, ToCompanion, ToRelay};

    pub fn to_companion(client: u64) -> ToCompanion {
        ToCompanion::Lane(LaneBatch { client, database: 0, resp: 2, items: Vec::new(), frames: Vec::new() })
    }

    pub fn to_relay(client: u64) -> ToRelay {
        ToRelay::Lane(LaneReply { client, count: 1, bytes: Vec::new(), close: false })
    }

    /// The client a message is about.
    pub fn client(message: &ToCompanion) -> u64 {
        let ToCompanion::Lane(batch) = message;
        batch.client
    }

    /// A server that nobody connects to.
    pub fn endpoint(name: &str) -> Endpoint {
        let name = EndpointName::new(name).expect("a good name");
        Endpoint::from_url(name, ProtocolKind::Redis, "redis://127.0.0.1:1").expect("a good url")
    }

    /// An order that is always answered.
    pub fn order_with_answer() -> CompanionOrder {
        CompanionOrder::Lane(LaneOrder::Release { ticket: 1 })
    }

    pub fn answered(message: &ToRelay) -> u64 {
        let ToRelay::Lane(reply) = message;
        reply.client
    }
}
