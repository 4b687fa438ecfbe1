//! What relays and companions send each other. These messages cross cores; the cores hand them on unread.
//!
//! The variants are per protocol. Which file makes relays and companions: `protocols/mod.rs`.

use crate::redis::lane::request::{LaneMessage, LaneReply};

/// From a relay, on any core, to the companion of its interlay.
#[derive(Debug)]
pub enum ToCompanion {
    /// For the lane.
    Lane(LaneMessage),
}

/// From a companion to the relay of its interlay on one core.
#[derive(Debug)]
pub enum ToRelay {
    /// The lane's answer to one client.
    Lane(LaneReply),
}
