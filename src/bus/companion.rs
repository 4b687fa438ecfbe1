//! Orders to and events from a companion: what one core keeps beside the relay of an interlay. Both cross the bus.
//!
//! The cores pass these on unread; the variants are for control and for the companion itself.

use super::lane::{LaneEvent, LaneOrder};
use base::model::{CoreId, InterlayName};

/// What control asks of a companion.
#[derive(Debug)]
pub enum CompanionOrder {
    Lane(LaneOrder),
}

impl CompanionOrder {
    /// The answer when there is nothing that can carry out the order; `None` for an order that is not answered.
    #[must_use]
    pub fn refused(&self, reason: &str) -> Option<CompanionEvent> {
        match self {
            Self::Lane(order) => order.refused(reason).map(CompanionEvent::Lane),
        }
    }
}

/// What a companion reports to control.
#[derive(Debug)]
pub enum CompanionEvent {
    Lane(LaneEvent),
}

/// The core that keeps the companion of an interlay: the first, for every interlay, until a measurement says otherwise.
#[must_use]
pub fn companion_core(_interlay: &InterlayName) -> CoreId {
    CoreId(0)
}
