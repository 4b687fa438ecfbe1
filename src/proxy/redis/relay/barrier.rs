//! What a published plan waits for before it is acked: connections on which commands of the plan before are outstanding.
//!
//! This is what lets control say "no command of the previous plan is outstanding anywhere" before it lets a flip's writes go.

use super::client::Client;
use super::path::Path;
use super::shared::Shared;
use super::upstream::Awaited;
use crate::contract::UpstreamKey;
use base::model::{Generation, PlanMode};
use base::stdx::slab::Slab;

/// A plan adopted and not yet acked.
#[derive(Debug)]
pub struct Barrier {
    pub generation: Generation,
    /// Connections that still hold commands of the previous plan.
    pub waiting_for: Vec<UpstreamKey>,
    /// Connections on which the old authority is asked to end blocking commands.
    pub unblocking: Vec<UpstreamKey>,
    /// It took too long: what was waited for has been ended.
    pub forced: bool,
    pub fallen: bool,
}

impl Barrier {
    #[must_use]
    pub fn new(generation: Generation, waiting_for: Vec<UpstreamKey>) -> Self {
        Self { generation, waiting_for, unblocking: Vec::new(), forced: false, fallen: false }
    }

    /// Looks whether the last command of the old plan is in. `moving`: there are blocking commands that are not sent to the new authority
    /// yet. Before that no core may let a client write, or what they wait for could be taken by one that came later.
    pub fn check(&mut self, clients: &Slab<Client>, shared: &Shared, moving: bool) {
        if self.fallen || (moving && !self.forced) {
            return;
        }
        self.waiting_for.retain(|key| is_busy(clients, shared, *key));
        if !self.waiting_for.is_empty() {
            return;
        }
        // When the lane ends, its replies to our clients must be in too.
        let lane_busy = shared.plan.mode != PlanMode::Dual
            && clients.iter().any(|(_, client)| client.path == Path::Lane && client.outstanding > 0);
        self.fallen = !lane_busy;
    }
}

/// Whether commands are outstanding on a connection, or a large one is on its way through.
pub fn is_busy(clients: &Slab<Client>, shared: &Shared, key: UpstreamKey) -> bool {
    shared.upstreams.get(key).is_some_and(|upstream| {
        let in_the_middle = |owner| clients.get(owner).is_some_and(|client| client.input.large.is_some());
        // Which clients are blocked is no longer the question.
        let counts = |awaited: &Awaited| !matches!(awaited, Awaited::BlockedList);
        upstream.awaited.iter().any(counts) || upstream.owner.is_some_and(in_the_middle)
    })
}
