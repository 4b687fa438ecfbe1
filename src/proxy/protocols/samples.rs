//! Messages, orders and servers for tests of what only hands them on. Tests only.

use super::messages::{ToCompanion, ToRelay};
use crate::redis::lane::request::{LaneMessage, LaneReply};
use base::model::{Endpoint, EndpointName, ProtocolKind};
use bus::{CompanionOrder, LaneOrder};

pub fn to_companion(client: u64) -> ToCompanion {
    ToCompanion::Lane(LaneMessage::Forget { client })
}

pub fn to_relay(client: u64) -> ToRelay {
    ToRelay::Lane(LaneReply { client, count: 1, bytes: Vec::new(), close: false })
}

/// The client a message is about.
pub fn client(message: &ToCompanion) -> u64 {
    match message {
        ToCompanion::Lane(LaneMessage::Commands(batch)) => batch.client,
        ToCompanion::Lane(LaneMessage::Forget { client } | LaneMessage::Gone { client }) => *client,
    }
}

/// The client an answer is for.
pub fn answered(message: &ToRelay) -> u64 {
    let ToRelay::Lane(reply) = message;
    reply.client
}

/// A server that is never connected to.
pub fn endpoint(name: &str) -> Endpoint {
    let name = EndpointName::new(name).expect("a good name");
    Endpoint::from_url(name, ProtocolKind::Redis, "redis://127.0.0.1:1").expect("a good url")
}

/// An order that is always answered.
pub fn order_with_answer() -> CompanionOrder {
    CompanionOrder::Lane(LaneOrder::Release { ticket: 1 })
}
