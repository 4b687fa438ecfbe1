//! What control has asked of the lane and is not answered yet: passes, copy tickets, probes. Lives on the lane's core.

use std::collections::{HashMap, VecDeque};

use super::keys::KeyRef;
use super::piece_copies::PieceCopies;
use bus::{LaneEvent, LaneOrder, PassKind};

/// A copy order not yet answered.
#[derive(Debug, Default)]
pub struct Ticket {
    pub left: u64,
    pub copied: u64,
    pub absent: u64,
    pub clean: u64,
    pub failed: u64,
    pub bytes: u64,
}

impl Ticket {
    #[must_use]
    pub fn event(&self, ticket: u64) -> LaneEvent {
        let Self { left: _, copied, absent, clean, failed, bytes } = *self;
        LaneEvent::Copied { ticket, copied, absent, clean, failed, bytes }
    }
}

/// What becomes of the grace that deadlines have at an authority that was the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Keys that were not written since then give it back.
    Returned,
    /// It is not known which of them have given it back already: the shadow's deadline tells.
    AsShadowSays,
}

/// How the first pass begins.
#[derive(Debug)]
pub struct Opening {
    pub kind: PassKind,
    pub grace: Grace,
    pub why: String,
}

/// A pass over all keys.
#[derive(Debug)]
pub struct Pass {
    /// 0: none has begun.
    pub number: u64,
    pub kind: PassKind,
    pub grace: Grace,
    pub done: bool,
}

/// A read of both sides at one position.
#[derive(Debug)]
pub struct Probing {
    pub database: u32,
    pub commands: Vec<Box<[u8]>>,
    pub authority: Vec<Box<[u8]>>,
    pub shadow: Vec<Box<[u8]>>,
    /// Keys of each command, and whether one of them was known to be wrong or uncopied when the shadow's read was queued.
    pub keys: Vec<(Vec<KeyRef>, bool)>,
    /// [`Jobs::refusals`] at that time.
    pub refusals: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Jobs {
    pub opening: Opening,
    pub pass: Pass,
    pub tickets: HashMap<u64, Ticket>,
    pub probes: HashMap<u64, Probing>,
    /// Effects and copies that the shadow did not take as it should have.
    pub refusals: u64,
    pub repairs_in_flight: usize,
    /// Those of the repairs whose values are read in pieces.
    pub pieces: PieceCopies,
    /// Orders that came while a side was away, or behind a fence that was reported; at most [`base::model::limits::LANE_ORDERS_PARKED_MAX`].
    pub waiting: VecDeque<LaneOrder>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            opening: Opening { kind: PassKind::Full, grace: Grace::Returned, why: "dual operation begins".to_owned() },
            pass: Pass { number: 0, kind: PassKind::Full, grace: Grace::Returned, done: false },
            tickets: HashMap::new(),
            probes: HashMap::new(),
            refusals: 0,
            repairs_in_flight: 0,
            pieces: PieceCopies::default(),
            waiting: VecDeque::new(),
        }
    }
}

impl Jobs {
    pub fn repair_over(&mut self) {
        self.repairs_in_flight = self.repairs_in_flight.saturating_sub(1);
    }
}
