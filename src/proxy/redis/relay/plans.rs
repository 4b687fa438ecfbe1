//! Adopting a plan: old connections are retired, their outstanding commands finish, and only then the plan is acked (`barrier`).

use std::sync::Arc;

use super::barrier::{Barrier, is_busy};
use super::client::{BlockPlace, Client};
use super::path::{Path, Wait};
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::Awaited;
use crate::contract::{Ask, Failure, UpstreamKey};
use base::model::{Generation, PlanMode, RoutePlan};
use wire::resp::encode;

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
        if moved {
            self.shared.anonymous_allowed = None;
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
        }
        self.barrier = Some(Barrier { generation: self.shared.plan.generation, waiting_for, fallen: false });
        self.settle();
    }

    /// No new command goes to an upstream connection of the old plan; those with commands outstanding are returned.
    fn retire_upstreams(&mut self) -> Vec<UpstreamKey> {
        self.shared.upstreams.shared.clear();
        self.shared.upstreams.idle_pinned.clear();
        let mut busy = Vec::new();
        for key in self.shared.upstreams.all.keys() {
            let Some(upstream) = self.shared.upstreams.get_mut(key) else { continue };
            let owner = upstream.owner.and_then(|owner| self.clients.get(owner));
            if owner.is_some_and(|owner| owner.pushes.open) {
                continue; // it carries messages, not commands; its client is moved when the side changes
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

    /// Blocking commands that still hold up the plan: the server may have seen our UNBLOCK before the command itself.
    pub(super) fn ask_unblocks_again(&mut self) {
        let Some(barrier) = &self.barrier else { return };
        let unblocking = |client: &Client| client.blocked.as_ref().is_some_and(|blocked| blocked.unblocking);
        let blocked: Vec<_> = barrier
            .waiting_for
            .iter()
            .filter_map(|key| self.shared.upstreams.get(*key))
            .filter(|upstream| {
                let owner = upstream.owner.and_then(|owner| self.clients.get(owner));
                owner.is_some_and(unblocking) && upstream.server_client_id != 0
            })
            .map(|upstream| (upstream.key.side, upstream.server_client_id, upstream.key.credentials.clone()))
            .collect();
        for (side, server_client_id, credentials) in blocked {
            self.shared.unblock(side, server_client_id, credentials);
        }
    }

    /// The old plan's commands did not end in time: their connections are closed, their clients with them (the outcome is unknown).
    pub(super) fn abandon_barrier(&mut self) {
        let Some(barrier) = self.barrier.as_mut() else { return };
        for key in std::mem::take(&mut barrier.waiting_for) {
            self.lose_upstream(key, &Failure::Lost("it held up a change of plan".to_owned()));
        }
        self.settle();
    }
}

impl Client {
    /// Takes its state off the connections of the old plan.
    fn leave_old_plan(&mut self, shared: &mut Shared, changes: Changes) {
        if self.pushes.open {
            if changes.side {
                self.resubscribe(shared);
            }
            return;
        }
        let in_lane = self.path == Path::Lane;
        if let Some(blocked) = self.blocked.as_mut() {
            blocked.unblocking |= changes.mode && in_lane;
        }
        if self.watch.active && (changes.mode || changes.side) {
            self.watch.active = false;
            self.watch.lost = true;
            if in_lane && changes.mode {
                shared.forget_in_lane(self.key);
            }
        }
        self.release_pinned(shared);
    }

    fn release_pinned(&mut self, shared: &mut Shared) {
        let Some(key) = self.pinned else { return };
        if let Some(blocked) = self.blocked.as_mut() {
            blocked.unblocking = true;
            if let Some(upstream) = shared.upstreams.get(key) {
                let (side, id, credentials) =
                    (upstream.key.side, upstream.server_client_id, upstream.key.credentials.clone());
                shared.unblock(side, id, credentials);
            }
            return;
        }
        let Some(block) = self.transaction.as_mut() else { return };
        match block.place {
            BlockPlace::Here => {}
            BlockPlace::OnServerOnly => shared.asks.push(Ask::CloseClient(self.key)),
            BlockPlace::OnServer => {
                // The block so far was copied as it was sent: give it up there and go on queueing it here.
                block.place = BlockPlace::Here;
                self.pinned = None;
                if let Some(upstream) = shared.upstreams.get_mut(key) {
                    encode::push_request(&mut upstream.output, &[b"DISCARD"]);
                    upstream.awaited.push_back(Awaited::Swallow);
                    upstream.owner = None;
                    shared.upstreams.has_output(key);
                }
            }
        }
    }
}
