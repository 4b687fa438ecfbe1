//! Adopting a plan: old connections are retired, their outstanding commands finish, and only then the plan is acked (`barrier`).

use std::collections::VecDeque;
use std::sync::Arc;

use super::barrier::{Barrier, is_busy};
use super::blocked::{Blocked, BlockedState};
use super::client::{BlockPlace, Client};
use super::path::{Path, Wait};
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::Upstream;
use crate::contract::{Ask, ClientKey, Failure, UpstreamKey};
use base::model::{Generation, PlanMode, RoutePlan};

/// What differs between two plans, as far as clients are concerned.
#[derive(Debug, Clone, Copy)]
struct Changes {
    side: bool,
    /// Whether there is a lane. What is followed passes through as before, so clients notice nothing of a follower.
    mode: bool,
    endpoint: bool,
}

impl Changes {
    fn between(old: &RoutePlan, new: &RoutePlan) -> Self {
        Self {
            side: old.authority.side != new.authority.side,
            mode: (old.mode == PlanMode::Dual) != (new.mode == PlanMode::Dual),
            endpoint: old.endpoint(old.authority.side).address != new.endpoint(new.authority.side).address,
        }
    }
}

impl RedisRelay {
    /// Adopts `plan` for every command from now on. `take_acked_plan` tells when the old one is over.
    pub(super) fn adopt(&mut self, plan: Arc<RoutePlan>) {
        let old = std::mem::replace(&mut self.shared.plan, plan);
        let changes = Changes::between(&old, &self.shared.plan);
        let moved = changes.side || changes.mode || changes.endpoint;
        let new_shadow = moved || old.mode != self.shared.plan.mode;
        if changes.side || self.shared.plan.mode != PlanMode::Followed {
            // At a change of authority both sides are equal; a plan without a feed confirms nothing.
            self.deliver_withheld();
            let confirming = &mut self.shared.confirming;
            confirming.stay_on_if(self.shared.plan.mode == PlanMode::Followed);
        }
        if moved {
            self.shared.strangers.allowed = None;
            self.shared.upstreams.shared.clear();
            self.shared.upstreams.idle_pinned.clear();
        }
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.input.decided = None; // of a command that waits: the policy is asked again under the new plan
            if moved {
                client.leave_old_plan(&mut self.shared, changes);
            }
        }
        // What held up a plan that was not acked yet holds up this one too.
        let mut waiting_for = self.barrier.take().map(|barrier| barrier.waiting_for).unwrap_or_default();
        if moved {
            waiting_for.extend(self.retire_upstreams());
            if changes.side {
                // Before any client may call one.
                waiting_for.extend(self.shared.load_scripts());
            }
            self.moving = self.clients_to_move();
        }
        if changes.side {
            // The shadow was the authority, where they ran.
            let _ = self.shared.kept.scripts.take_unsent();
        } else if new_shadow {
            self.shared.kept.scripts.send_all_again();
            self.shared.preload_scripts();
        }
        self.barrier = Some(Barrier::new(self.shared.plan.generation, waiting_for));
        self.ask_unblocks();
        self.settle();
    }

    /// Clients whose blocking commands are to be sent to the present authority, in the order in which they blocked. The lane keeps an order
    /// of its own.
    fn clients_to_move(&self) -> VecDeque<ClientKey> {
        if self.shared.is_dual() {
            return VecDeque::new();
        }
        let on_the_move = |(key, client): (ClientKey, &Client)| {
            let blocked = client.blocked.as_ref()?;
            let moves = matches!(blocked.state, BlockedState::Ending | BlockedState::Moving);
            (moves && client.path != Path::Lane).then_some((blocked.number, key))
        };
        let mut moving: Vec<_> = self.clients.iter().filter_map(on_the_move).collect();
        moving.sort_unstable_by_key(|(number, _)| *number);
        moving.into_iter().map(|(_, key)| key).collect()
    }

    /// Sends blocking commands to the new authority, none before one that blocked earlier. While clients are held, control says how far: other cores have
    /// some that blocked in between; and the server has to have one before the next that waits for the same key is sent, on another connection.
    pub(super) fn send_moving(&mut self) {
        if self.moved_have_arrived() {
            self.shared.hold.all_arrived();
        }
        while let Some(key) = self.moving.front() {
            if let Some(client) = self.clients.get_mut(*key) {
                let since_us = client.blocked_since_us();
                let is_late = since_us.is_some_and(|since_us| since_us > self.shared.hold.moves_until_us());
                let keys = client.blocked.as_ref().map_or_else(Vec::new, Blocked::keys);
                if is_late || self.shared.hold.may_overtake(&keys) || !client.send_again(&mut self.shared) {
                    return;
                }
                if let Some(upstream) = client.pinned {
                    self.shared.hold.moved_on(upstream, keys);
                }
            }
            self.moving.pop_front();
        }
    }

    /// No new command goes to an upstream connection of the old plan; those with commands outstanding are returned.
    fn retire_upstreams(&mut self) -> Vec<UpstreamKey> {
        let mut busy = Vec::new();
        for key in self.shared.upstreams.all.keys() {
            let Some(upstream) = self.shared.upstreams.get(key) else { continue };
            let owner = upstream.owner.and_then(|owner| self.clients.get(owner));
            if owner.is_some_and(|owner| owner.pushes.is_open()) {
                // Its messages go on; its client is moved when the side changes.
                if is_busy(&self.clients, &self.shared, key) {
                    busy.push(key);
                }
                continue;
            }
            let Some(upstream) = self.shared.upstreams.get_mut(key) else { continue };
            if owner.is_some_and(is_moving) {
                continue; // it was made just now
            }
            upstream.retired = true;
            if is_busy(&self.clients, &self.shared, key) {
                busy.push(key);
            } else {
                self.shared.close_upstream(key);
                self.wake_waiters_of(key);
            }
        }
        busy
    }

    /// Lets clients go on that waited for a connection which is gone.
    fn wake_waiters_of(&mut self, upstream: UpstreamKey) {
        for (key, client) in self.clients.iter() {
            let idle_on_it = client.path == Path::Shared(upstream) && client.outstanding == 0;
            if client.wait == Wait::Upstream(upstream) || idle_on_it {
                self.shared.resume.push(key);
            }
        }
    }

    /// Generation of a plan that can be acked since the last call.
    pub(super) fn acked_plan(&mut self) -> Option<Generation> {
        self.barrier.take_if(|barrier| barrier.fallen).map(|barrier| barrier.generation)
    }

    /// Asks the old authority to end the blocking commands that hold up the plan. Called again until they have ended: the server may have
    /// seen an UNBLOCK before the command itself.
    pub(super) fn ask_unblocks(&mut self) {
        let Some(barrier) = self.barrier.as_mut() else { return };
        barrier.unblocking.retain(|key| self.shared.upstreams.get(*key).is_some());
        if !barrier.unblocking.is_empty() {
            return; // not answered yet
        }
        let ending =
            |upstream: &&Upstream| upstream.owner.and_then(|owner| self.clients.get(owner)).is_some_and(is_ending);
        let held_up = barrier.waiting_for.iter().filter_map(|key| self.shared.upstreams.get(*key)).filter(ending);
        let by_pool = self.shared.numbers(held_up);
        barrier.unblocking = by_pool.into_iter().map(|(pool, numbers)| self.shared.unblock(pool, &numbers)).collect();
    }

    /// The old plan's commands did not end in time: their connections are closed, their clients with them (the outcome is unknown).
    pub(super) fn abandon_barrier(&mut self) {
        let Some(barrier) = self.barrier.as_mut() else { return };
        for key in std::mem::take(&mut barrier.waiting_for) {
            self.lose_upstream(key, &Failure::Lost("it held up a change of plan".to_owned()));
        }
        if let Some(barrier) = self.barrier.as_mut() {
            barrier.forced = true;
        }
        self.settle();
    }
}

impl Client {
    /// Takes its state off the connections of the old plan.
    fn leave_old_plan(&mut self, shared: &mut Shared, changes: Changes) {
        if self.pushes.raw {
            if changes.side || changes.endpoint {
                // What it is shown ends with the server it is of.
                shared.asks.push(Ask::CloseClient(self.key));
            }
            return;
        }
        let in_lane = self.path == Path::Lane;
        if let Some(blocked) = self.blocked.as_mut()
            && in_lane
            && changes.mode
        {
            blocked.state = BlockedState::Ending;
        }
        if self.watch.active && (changes.mode || changes.side || self.pinned.is_some()) {
            self.watch.active = false;
            self.watch.lost = true;
            if in_lane && changes.mode {
                shared.forget_in_lane(self.key);
            }
        }
        self.release_pinned(shared);
        // A blocking command has to end on the old connection first.
        if self.pushes.is_open() && self.blocked.is_none() && (changes.side || changes.endpoint) {
            self.resubscribe(shared);
        }
    }

    fn release_pinned(&mut self, shared: &mut Shared) {
        let Some(key) = self.pinned else { return };
        match self.blocked.as_mut() {
            Some(blocked) if blocked.state != BlockedState::Moving => {
                blocked.state = BlockedState::Ending;
                return;
            }
            Some(_) => {
                if let Some(blocked) = self.blocked.take() {
                    self.block_again(shared, blocked);
                }
                return;
            }
            None => {}
        }
        let Some(block) = self.transaction.as_mut() else { return };
        match block.place {
            BlockPlace::Here => {}
            BlockPlace::OnServerOnly => shared.asks.push(Ask::CloseClient(self.key)),
            BlockPlace::OnServer => {
                // The block so far was copied as it was sent: give it up there and go on queueing it here.
                block.place = BlockPlace::Here;
                self.discard_on_server(shared);
                if !self.pushes.is_open() {
                    self.pinned = None;
                    if let Some(upstream) = shared.upstreams.get_mut(key) {
                        upstream.owner = None;
                    }
                }
            }
        }
    }
}

fn is_ending(client: &Client) -> bool {
    client.blocked.as_ref().is_some_and(|blocked| blocked.state == BlockedState::Ending)
}

fn is_moving(client: &Client) -> bool {
    client.blocked.as_ref().is_some_and(|blocked| blocked.state == BlockedState::Moving)
}
