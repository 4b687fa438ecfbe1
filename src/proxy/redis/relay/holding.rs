//! Holding clients: none begins a new command until the release, and control is told when nothing is outstanding any more.
//!
//! In dual operation the lane has a fence instead. Not waited for are clients that are subscribed, watch keys, or are blocked: nothing of
//! theirs is under way that ends by itself. That a client is blocked only its server knows, so the server is asked.

use super::blocked::{BlockedState, blocked_in};
use super::client::Client;
use super::hold::Held;
use super::path::Wait;
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::{Awaited, Upstream};
use crate::contract::HoldUnsupported;
use base::model::Side;
use base::stdx::slab::Slab;
use bus::HoldOrder;
use wire::resp::effect;

/// Whether a command of a client, present or gone, waits for its reply here, or is still on its way.
fn is_outstanding(clients: &Slab<Client>, upstream: &Upstream) -> bool {
    let counts = |awaited: &Awaited| match awaited {
        Awaited::Forward(_)
        | Awaited::Mute(_)
        | Awaited::Scan(_)
        | Awaited::Session(..)
        | Awaited::Confirmations(..)
        | Awaited::Exec(..)
        | Awaited::Tracking(..) => true,
        Awaited::Blocking(_) => may_find_something(clients, upstream),
        // The relay's own: an UNBLOCK, a DISCARD, or the beginning of a block whose EXEC stands behind it.
        Awaited::Swallow | Awaited::BlockedList => false,
    };
    let in_the_middle = |owner| clients.get(owner).is_some_and(|client| client.input.large.is_some());
    // The newest first: where many are awaited it counts.
    upstream.awaited.iter().rev().any(counts) || upstream.owner.is_some_and(in_the_middle)
}

/// Whether a blocking command may yet run as if it were none, and take what it finds. Once it is blocked it may stay so for ever.
fn may_find_something(clients: &Slab<Client>, upstream: &Upstream) -> bool {
    let sent = upstream.connected && upstream.output.is_empty();
    match blocked_state(clients, upstream) {
        // A server that gives its connections no numbers cannot be asked.
        Some(BlockedState::Sent) => !sent || upstream.server_client_id != 0,
        Some(BlockedState::Ending | BlockedState::Moving) => true,
        Some(BlockedState::Confirmed) | None => false,
    }
}

fn blocked_state(clients: &Slab<Client>, upstream: &Upstream) -> Option<BlockedState> {
    Some(clients.get(upstream.owner?)?.blocked.as_ref()?.state)
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
                self.ask_what_is_blocked();
                self.check_hold();
            }
            HoldOrder::Move { ticket, until_us } => {
                self.shared.hold.begin_move(ticket, until_us);
                self.settle();
            }
            HoldOrder::Release { ticket } => self.release(ticket),
        }
        Ok(())
    }

    /// Whether no blocking command that was sent again may still be on its way to the server.
    pub(super) fn moved_have_arrived(&self) -> bool {
        let on_its_way = |upstream: &Upstream| {
            blocked_state(&self.clients, upstream) == Some(BlockedState::Sent)
                && may_find_something(&self.clients, upstream)
        };
        let busy = self.shared.hold.busy().iter();
        !busy.filter_map(|key| self.shared.upstreams.get(*key)).any(on_its_way)
    }

    /// Looks whether the last reply that a hold waits for is in.
    pub(super) fn check_hold(&mut self) {
        if self.shared.hold.is_moving() {
            // Clients are held: not at the next tick, but as soon as the commands are on their way.
            self.ask_what_is_blocked();
        }
        let next_us = self.moving.front().and_then(|key| self.clients.get(*key)).and_then(Client::blocked_since_us);
        let Shared { hold, upstreams, .. } = &mut self.shared;
        hold.check(next_us, |key| upstreams.get(key).is_some_and(|upstream| is_outstanding(&self.clients, upstream)));
    }

    /// Asks servers whether the blocking commands that the hold waits for are blocked. Called again until they are, or answered: the server
    /// may have looked at the question before the command.
    pub(super) fn ask_what_is_blocked(&mut self) {
        let Self { clients, shared, .. } = self;
        if shared.hold.is_asking(|key| shared.upstreams.get(key).is_some()) {
            return;
        }
        let unconfirmed = |upstream: &&Upstream| {
            let sent = upstream.connected && upstream.output.is_empty();
            sent && blocked_state(clients, upstream) == Some(BlockedState::Sent)
        };
        let busy = shared.hold.busy().iter().filter_map(|key| shared.upstreams.get(*key)).filter(unconfirmed);
        let asked = shared.numbers(busy);
        let asking = asked.into_iter().map(|(pool, numbers)| shared.list_blocked(pool, &numbers)).collect();
        shared.hold.ask_on(asking);
    }

    /// A server has listed connections of which it was asked. One that refuses to (a right is missing, or it is older than CLIENT LIST ID) is
    /// taken to have them all blocked: it will not know more the next time.
    pub(super) fn blocked_listed(&mut self, side: Side, reply: &[u8]) {
        let listed = effect::bulk(reply).map(blocked_in);
        for key in self.shared.hold.busy() {
            let Some(upstream) = self.shared.upstreams.get(*key).filter(|upstream| upstream.key.side == side) else {
                continue;
            };
            if !listed.as_ref().is_none_or(|blocked| blocked.contains(&upstream.server_client_id)) {
                continue;
            }
            if let Some(owner) = upstream.owner.and_then(|owner| self.clients.get_mut(owner))
                && let Some(blocked) = owner.blocked.as_mut()
                && blocked.state == BlockedState::Sent
            {
                blocked.state = BlockedState::Confirmed;
            }
        }
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
