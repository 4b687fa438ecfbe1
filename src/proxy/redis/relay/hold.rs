//! A hold: the order that is in force, the connections it waits for, and the clients that wait for its end.
//!
//! Lives on one core, so there is no race between a client that begins a command and a hold. What counts as outstanding, and what clients
//! do, is in `holding`.

use std::collections::{BTreeMap, BTreeSet};

use crate::contract::{ClientKey, UpstreamKey};
use bus::HoldEvent;

/// A hold that has begun and is not released.
#[derive(Debug)]
struct Begun {
    /// Of the latest order.
    ticket: u64,
    /// Connections on which something was outstanding when the order came. None joins them: no command begins meanwhile, and a blocking
    /// command that is sent again after a change of plan counts as little as it did before.
    busy: Vec<UpstreamKey>,
    /// Connections on which servers are asked what is blocked.
    asking: Vec<UpstreamKey>,
    /// It has been answered.
    reported: bool,
    /// A [`bus::HoldOrder::Move`], up to this time.
    moving_until_us: Option<u64>,
    /// What blocking commands wait for that were sent again and may not have arrived. Bounded by the clients of a core.
    under_way: BTreeSet<Vec<u8>>,
}

impl Begun {
    fn new(ticket: u64, busy: Vec<UpstreamKey>, moving_until_us: Option<u64>) -> Self {
        Self { ticket, busy, asking: Vec::new(), reported: false, moving_until_us, under_way: BTreeSet::new() }
    }
}

/// A client that waits for the release.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub client: ClientKey,
    pub since_us: u64,
}

/// One relay's hold.
#[derive(Debug, Default)]
pub struct Hold {
    begun: Option<Begun>,
    /// By the order in which they began to wait.
    held: BTreeMap<u64, Held>,
    next_place: u64,
    events: Vec<(u64, HoldEvent)>,
}

impl Hold {
    /// Whether clients may not begin a command.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.begun.is_some()
    }

    /// [`bus::HoldOrder::Begin`], with the connections on which something is outstanding.
    pub fn begin(&mut self, ticket: u64, busy: Vec<UpstreamKey>) {
        self.begun = Some(Begun::new(ticket, busy, None));
    }

    /// [`bus::HoldOrder::Move`]. The connections are told by [`Self::moved_on`].
    pub fn begin_move(&mut self, ticket: u64, until_us: u64) {
        self.begun = Some(Begun::new(ticket, Vec::new(), Some(until_us)));
    }

    /// A blocking command that waits for these keys has been sent again on this connection.
    pub fn moved_on(&mut self, upstream: UpstreamKey, keys: Vec<Vec<u8>>) {
        if let Some(begun) = self.begun.as_mut() {
            begun.busy.push(upstream);
            begun.under_way.extend(keys);
        }
    }

    /// Everything that was sent again has arrived.
    pub fn all_arrived(&mut self) {
        if let Some(begun) = self.begun.as_mut() {
            begun.under_way.clear();
        }
    }

    /// Whether a command may arrive before one that blocked earlier and waits for the same key.
    pub fn may_overtake(&self, keys: &[Vec<u8>]) -> bool {
        self.is_moving()
            && self.begun.as_ref().is_some_and(|begun| keys.iter().any(|key| begun.under_way.contains(key)))
    }

    /// Up to when blocking commands may be sent to a new authority.
    pub fn moves_until_us(&self) -> u64 {
        self.begun.as_ref().map_or(u64::MAX, |begun| begun.moving_until_us.unwrap_or(0))
    }

    /// Whether a move has not been answered.
    pub fn is_moving(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.moving_until_us.is_some() && !begun.reported)
    }

    /// The connections it still waits for.
    pub fn busy(&self) -> &[UpstreamKey] {
        self.begun.as_ref().filter(|begun| !begun.reported).map_or(&[], |begun| &begun.busy)
    }

    /// Whether an answer of a server is due, on a connection that is still there.
    pub fn is_asking(&self, is_there: impl Fn(UpstreamKey) -> bool) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.asking.iter().any(|key| is_there(*key)))
    }

    /// Servers are asked on these connections.
    pub fn ask_on(&mut self, asking: Vec<UpstreamKey>) {
        if let Some(begun) = self.begun.as_mut() {
            begun.asking = asking;
        }
    }

    /// Answers an order, once, when nothing is outstanding any more. `next_us`: when the first of the blocking commands that are still to be moved began
    /// to wait.
    pub fn check(&mut self, next_us: Option<u64>, is_busy: impl Fn(UpstreamKey) -> bool) {
        let Some(begun) = self.begun.as_mut().filter(|begun| !begun.reported) else { return };
        while begun.busy.pop_if(|key| !is_busy(*key)).is_some() {}
        let due = begun.moving_until_us.is_some_and(|until_us| next_us.is_some_and(|next_us| next_us <= until_us));
        if begun.busy.is_empty() && !due {
            begun.reported = true;
            let event = match begun.moving_until_us {
                Some(_) => HoldEvent::Moved { next_us },
                None => HoldEvent::Drained,
            };
            self.events.push((begun.ticket, event));
        }
    }

    /// [`bus::HoldOrder::Release`]: the clients that go on now, in this order. `None` for an order that arrives after a newer hold began,
    /// which it does not end.
    pub fn release(&mut self, ticket: u64, now_us: u64) -> Option<Vec<Held>> {
        if self.begun.as_ref().is_some_and(|begun| begun.ticket > ticket) {
            return None;
        }
        self.begun = None;
        let held: Vec<Held> = std::mem::take(&mut self.held).into_values().collect();
        let longest_hold_us = held.first().map_or(0, |first| now_us.saturating_sub(first.since_us));
        self.events.push((ticket, HoldEvent::Released { held: held.len() as u64, longest_hold_us }));
        Some(held)
    }

    /// One more client waits; its place among the others.
    pub fn add(&mut self, client: Held) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.held.insert(place, client);
        place
    }

    /// The client with this place is gone.
    pub fn forget(&mut self, place: u64) {
        self.held.remove(&place);
    }

    /// Answers to orders, each with its ticket.
    pub fn take_events(&mut self) -> Vec<(u64, HoldEvent)> {
        std::mem::take(&mut self.events)
    }
}
