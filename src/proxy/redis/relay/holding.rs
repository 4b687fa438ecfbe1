//! Holding clients: none begins a new command until the release, and control is told when nothing is outstanding any more.
//!
//! In dual operation the lane has a fence instead. Not waited for are clients that are blocked, subscribed, or watch keys: nothing of
//! theirs is under way that ends by itself.

use super::client::Client;
use super::hold::Held;
use super::path::Wait;
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::{Awaited, Upstream};
use crate::contract::HoldUnsupported;
use base::stdx::slab::Slab;
use bus::HoldOrder;

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
                let outstanding = |(key, upstream)| is_outstanding(&self.clients, upstream).then_some(key);
                let busy = self.shared.upstreams.all.iter().filter_map(outstanding).collect();
                self.shared.hold.begin(ticket, busy);
                self.check_hold();
            }
            HoldOrder::Release { ticket } => self.release(ticket),
        }
        Ok(())
    }

    /// Looks whether the last reply that a hold waits for is in.
    pub(super) fn check_hold(&mut self) {
        let Shared { hold, upstreams, .. } = &mut self.shared;
        hold.check(|key| upstreams.get(key).is_some_and(|upstream| is_outstanding(&self.clients, upstream)));
    }

    fn release(&mut self, ticket: u64) {
        let Some(held) = self.shared.hold.release(ticket, self.shared.now.mono_us) else { return };
        // The last of the list is the first to go on.
        for Held { client: key, .. } in held.into_iter().rev() {
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
            let since_us = shared.now.mono_us;
            self.input.held = Some(shared.hold.add(Held { client: self.key, since_us }));
        }
        Wait::Release
    }
}
