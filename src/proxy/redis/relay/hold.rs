//! Holding clients: none begins a new command until the release, and control is told when nothing is outstanding any more.
//!
//! Lives on one core, so there is no race between a client that begins a command and a hold. In dual operation the lane has a fence
//! instead. What is not waited for: clients that are blocked, subscribed, or watch keys; they have nothing under way that writes by itself.

use std::collections::BTreeMap;

use super::client::Client;
use super::path::Wait;
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::{Awaited, Upstream, Upstreams};
use crate::contract::{ClientKey, HoldUnsupported, UpstreamKey};
use base::stdx::slab::Slab;
use bus::{HoldEvent, HoldOrder};

/// A hold that has begun and is not released.
#[derive(Debug)]
struct Begun {
    /// Of the latest order.
    ticket: u64,
    /// Connections on which something was outstanding when the order came. None joins them: no command begins meanwhile, and a blocking
    /// command that is sent again after a change of plan counts as little as it did before.
    busy: Vec<UpstreamKey>,
    /// [`HoldEvent::Drained`] has been reported for this ticket.
    reported: bool,
}

/// A client that waits for the release.
#[derive(Debug)]
struct Held {
    client: ClientKey,
    since_us: u64,
}

/// One relay's hold, and the clients that wait for its end.
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

    fn begin(&mut self, ticket: u64, clients: &Slab<Client>, upstreams: &Upstreams) {
        let outstanding = |(key, upstream)| is_outstanding(clients, upstream).then_some(key);
        let busy = upstreams.all.iter().filter_map(outstanding).collect();
        self.begun = Some(Begun { ticket, busy, reported: false });
        self.check(clients, upstreams);
    }

    /// Reports, once per order, that nothing is outstanding any more.
    pub fn check(&mut self, clients: &Slab<Client>, upstreams: &Upstreams) {
        let Some(begun) = self.begun.as_mut().filter(|begun| !begun.reported) else { return };
        let is_busy = |key| upstreams.get(key).is_some_and(|upstream| is_outstanding(clients, upstream));
        while begun.busy.pop_if(|key| !is_busy(*key)).is_some() {}
        if begun.busy.is_empty() {
            begun.reported = true;
            self.events.push((begun.ticket, HoldEvent::Drained));
        }
    }

    /// The clients that go on now. `None` for an order that arrives after a newer hold began, which it does not end.
    fn end(&mut self, ticket: u64) -> Option<BTreeMap<u64, Held>> {
        if self.begun.as_ref().is_some_and(|begun| begun.ticket > ticket) {
            return None;
        }
        self.begun = None;
        Some(std::mem::take(&mut self.held))
    }

    /// One more client waits; its place among the others.
    fn add(&mut self, client: ClientKey, since_us: u64) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.held.insert(place, Held { client, since_us });
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

/// Whether a command of a client, present or gone, waits for its reply here, or is still on its way.
fn is_outstanding(clients: &Slab<Client>, upstream: &Upstream) -> bool {
    let unsent = !upstream.connected || !upstream.output.is_empty();
    let counts = |awaited: &Awaited| match awaited {
        Awaited::Forward(_) | Awaited::Mute(_) | Awaited::Session(..) => true,
        // It may stay blocked for ever. Unsent it has been accepted and may yet find something to take.
        Awaited::Blocking(_) => unsent,
        // The relay's own: an UNBLOCK, a DISCARD, or the beginning of a block whose EXEC stands behind it.
        Awaited::Swallow => false,
    };
    let in_the_middle = |owner| clients.get(owner).is_some_and(|client| client.input.large.is_some());
    // The newest first: where many are awaited it counts.
    upstream.awaited.iter().rev().any(counts) || upstream.owner.is_some_and(in_the_middle)
}

impl RedisRelay {
    pub(super) fn hold_ordered(&mut self, order: HoldOrder) -> Result<(), HoldUnsupported> {
        if self.shared.is_dual() && !self.shared.hold.is_on() {
            return Err(HoldUnsupported);
        }
        match order {
            // A log-in is a command like another, and writes nothing: it waits from the beginning.
            HoldOrder::Begin { ticket } | HoldOrder::Shut { ticket } => {
                let Shared { hold, upstreams, .. } = &mut self.shared;
                hold.begin(ticket, &self.clients, upstreams);
            }
            HoldOrder::Release { ticket } => self.release(ticket),
        }
        Ok(())
    }

    fn release(&mut self, ticket: u64) {
        let Some(waiting) = self.shared.hold.end(ticket) else { return };
        let now_us = self.shared.now.mono_us;
        let held = waiting.len() as u64;
        let longest_hold_us = waiting.values().next().map_or(0, |first| now_us.saturating_sub(first.since_us));
        self.shared.hold.events.push((ticket, HoldEvent::Released { held, longest_hold_us }));
        // The last of the list is the first to go on.
        for Held { client: key, .. } in waiting.into_values().rev() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.input.held = None;
            self.shared.resume.push(key);
        }
        self.settle();
    }
}

impl Client {
    /// Waits for the release, unless there is no hold. A large request that has begun is let through to its end: the server waits for it.
    #[inline]
    pub(super) fn reason_to_be_held(&mut self, shared: &mut Shared) -> Wait {
        if !shared.hold.is_on() || self.input.large.is_some() {
            return Wait::Nothing;
        }
        if self.input.held.is_none() {
            self.input.held = Some(shared.hold.add(self.key, shared.now.mono_us));
        }
        Wait::Release
    }
}
