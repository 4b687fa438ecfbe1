//! Commands that wait in front of the lane: behind a fence, or until the authority's connection has been tried. Lives on its core.

use std::collections::VecDeque;
use std::sync::Arc;

use super::caller::Caller;
use super::request::LaneBatch;
use base::model::{CoreId, RoutePlan};

/// Writes are held.
#[derive(Debug)]
pub struct Fence {
    pub ticket: u64,
    pub began_us: u64,
    pub deadline_us: u64,
    /// Control has been told that everything is drained: from here on only its release ends the fence.
    pub reported: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Holding {
    pub fence: Option<Fence>,
    /// Published, to be adopted at the release of the fence.
    pub next_plan: Option<Arc<RoutePlan>>,
    /// The authority's connection has not been tried yet: commands wait for the outcome.
    pub starting: bool,
    batches: VecDeque<(CoreId, LaneBatch)>,
    commands: u64,
}

impl Default for Holding {
    fn default() -> Self {
        Self { fence: None, next_plan: None, starting: true, batches: VecDeque::new(), commands: 0 }
    }
}

impl Holding {
    #[inline]
    #[must_use]
    pub fn holds(&self) -> bool {
        self.fence.is_some() || self.starting
    }

    /// Whether control has been told that everything is drained.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.fence.as_ref().is_some_and(|fence| fence.reported)
    }

    /// A client is gone: what would wait, or watch, for it is not begun. Its other commands were sent before it went, so they are run.
    pub fn forget(&mut self, client: Caller) {
        for (core, batch) in &mut self.batches {
            if (*core, batch.client) == (client.core, client.client) {
                batch.drop_waits();
            }
        }
    }

    pub fn push(&mut self, core: CoreId, batch: LaneBatch) {
        self.commands += batch.items.len() as u64;
        self.batches.push_back((core, batch));
    }

    pub fn take_batches(&mut self) -> VecDeque<(CoreId, LaneBatch)> {
        std::mem::take(&mut self.batches)
    }

    /// How many commands were held since this was last asked.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.commands)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}
