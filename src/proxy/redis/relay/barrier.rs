//! Adopting a plan: old connections are retired, their outstanding commands finish, and only then the plan is acked.
//!
//! This is what lets control say "no command of the previous plan is outstanding anywhere" before it lets a flip's writes go.

use std::sync::Arc;

use super::types::Path;
use super::{ClientKey, RedisRelay, UpstreamKey};
use crate::contract::{Ask, Failure};
use base::model::{Generation, PlanMode, RoutePlan};
use wire::resp::encode;

/// A plan adopted and not yet acked.
#[derive(Debug)]
pub(super) struct Barrier {
    pub generation: Generation,
    /// Connections that still hold commands of the previous plan.
    waiting_for: Vec<UpstreamKey>,
    pub fallen: bool,
}

impl RedisRelay {
    /// Adopts `plan` for every command from now on. `acked_plan` tells when the old one is over.
    pub(super) fn adopt(&mut self, plan: Arc<RoutePlan>) {
        let old = std::mem::replace(&mut self.plan, plan);
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key) {
                client.decided = None; // of a command that waits: it is asked again under the new plan
            }
        }
        let side_changed = old.authority.side != self.plan.authority.side;
        let mode_changed = old.mode != self.plan.mode;
        let endpoint_changed =
            old.endpoint(old.authority.side).address != self.plan.endpoint(self.plan.authority.side).address;
        // What held up a plan that was not acked yet holds up this one too.
        let mut waiting_for = self.barrier.take().map(|barrier| barrier.waiting_for).unwrap_or_default();
        if side_changed || mode_changed || endpoint_changed {
            self.anonymous_allowed = None;
            self.release_clients(mode_changed, side_changed);
            waiting_for.extend(self.retire_upstreams());
        }
        self.barrier = Some(Barrier { generation: self.plan.generation, waiting_for, fallen: false });
        self.settle();
    }

    /// No new command goes to an upstream connection of the old plan; those with commands outstanding are returned.
    fn retire_upstreams(&mut self) -> Vec<UpstreamKey> {
        self.shared.clear();
        self.idle_pinned.clear();
        let mut busy = Vec::new();
        for key in self.upstreams.keys() {
            let Some(upstream) = self.upstreams.get_mut(key) else { continue };
            let raw = upstream.owner.is_some_and(|owner| self.clients.get(owner).is_some_and(|client| client.raw));
            if raw {
                continue; // carries messages, not commands; moved by `release_clients` when the side changes
            }
            upstream.retired = true;
            let idle = !self.is_busy(key);
            if idle {
                self.close_upstream(key);
                self.wake_waiters_of(key);
            } else {
                busy.push(key);
            }
        }
        busy
    }

    /// Takes the clients' state off the connections of the old plan.
    fn release_clients(&mut self, mode_changed: bool, side_changed: bool) {
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.raw {
                if side_changed {
                    self.resubscribe(key);
                }
                continue;
            }
            client.unblocking |= mode_changed && client.path == Path::Lane && client.blocked.is_some();
            if client.watching && (mode_changed || side_changed) {
                client.watching = false;
                client.watch_lost = true;
                if client.path == Path::Lane && mode_changed {
                    self.push_forget(key);
                }
            }
            self.release_pinned(key);
        }
    }

    fn release_pinned(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(upstream_key) = client.pinned else { return };
        if client.blocked.is_some() {
            client.unblocking = true;
            if let Some(upstream) = self.upstreams.get(upstream_key) {
                self.unblock(upstream.key.side, upstream.server_client_id, upstream.key.credentials.clone());
            }
            return;
        }
        let Some(tx) = client.transaction.as_mut() else { return };
        if !tx.on_server {
            return;
        }
        if tx.too_large {
            self.asks.push(Ask::CloseClient(key));
            return;
        }
        // The block so far was copied as it was sent: give it up there and go on queueing it here.
        tx.on_server = false;
        client.pinned = None;
        if let Some(upstream) = self.upstreams.get_mut(upstream_key) {
            encode::push_request(&mut upstream.output, &[b"DISCARD"]);
            upstream.awaited.push_back(super::types::Awaited::Swallow);
            upstream.owner = None;
            self.upstream_has_output(upstream_key);
        }
    }

    /// Looks whether the last command of the old plan is in.
    pub(super) fn check_barrier(&mut self) {
        let Some(barrier) = self.barrier.as_mut() else { return };
        if barrier.fallen {
            return;
        }
        let mut waiting_for = std::mem::take(&mut barrier.waiting_for);
        waiting_for.retain(|key| self.is_busy(*key));
        let over = waiting_for.is_empty();
        if let Some(barrier) = self.barrier.as_mut() {
            barrier.waiting_for = waiting_for;
        }
        if !over {
            return;
        }
        // Leaving dual operation: the lane's replies to our clients must be in too.
        let lane_busy = self.plan.mode == PlanMode::PassThrough
            && self.clients.iter().any(|(_, client)| client.path == Path::Lane && client.outstanding > 0);
        if !lane_busy && let Some(barrier) = self.barrier.as_mut() {
            barrier.fallen = true;
        }
    }

    /// Whether commands are outstanding on a connection, or a large one is on its way through.
    fn is_busy(&self, key: UpstreamKey) -> bool {
        self.upstreams.get(key).is_some_and(|upstream| {
            let streaming = |owner| self.clients.get(owner).is_some_and(|client| client.streaming.is_some());
            !upstream.awaited.is_empty() || upstream.owner.is_some_and(streaming)
        })
    }

    /// Blocking commands that still hold up the plan: the server may have seen our UNBLOCK before the command itself.
    pub(super) fn ask_unblocks_again(&mut self) {
        let Some(barrier) = &self.barrier else { return };
        let blocked: Vec<_> = barrier
            .waiting_for
            .iter()
            .filter_map(|key| self.upstreams.get(*key))
            .filter(|upstream| {
                let owner = upstream.owner.and_then(|owner| self.clients.get(owner));
                owner.is_some_and(|client| client.unblocking) && upstream.server_client_id != 0
            })
            .map(|upstream| (upstream.key.side, upstream.server_client_id, upstream.key.credentials.clone()))
            .collect();
        for (side, server_client_id, credentials) in blocked {
            self.unblock(side, server_client_id, credentials);
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
