//! Filters and counters of one core: what is put in place, and what control is told of it.

use super::core::{Core, Interlay};
use crate::redis::lane::Lane;
use base::model::InterlayName;
use bus::Report;
use bus::counters::CoreCounters;
use policy::CorePolicies;

impl Interlay {
    pub fn counters(&self) -> CoreCounters {
        let mut counters = self.relay.counters();
        counters.add(&self.past_lanes);
        match &self.lane {
            Some(lane) => lane_counters(counters, lane),
            None => counters,
        }
    }
}

/// With what a lane has counted.
pub fn lane_counters(mut counters: CoreCounters, lane: &Lane) -> CoreCounters {
    let (source, target) = lane.side_counters();
    counters.source.add(source);
    counters.target.add(target);
    counters
}

impl Core {
    /// The next command is decided by the new set.
    pub fn adopt_policies(&mut self, name: InterlayName, mut policies: CorePolicies) {
        let Some(index) = self.find(&name) else { return };
        self.report_policy_notes(index);
        let interlay = &mut self.interlays[index];
        policies.enter(interlay.view);
        let generation = policies.generation;
        let before = interlay.policies.replace(policies).stats();
        if let Some(lane) = interlay.lane.as_mut() {
            lane.policies_changed();
        }
        let core = self.id;
        self.report(Report::PoliciesAdopted { core, interlay: name, generation, before });
    }

    pub fn report_policies(&mut self, index: usize) {
        let interlay = &self.interlays[index];
        let (name, policies) = (interlay.name.clone(), interlay.policies.borrow());
        let (generation, seats) = (policies.generation, policies.stats());
        drop(policies);
        if !seats.is_empty() {
            self.report(Report::Policies { core: self.id, interlay: name, generation, seats });
        }
    }

    pub fn report_policy_notes(&mut self, index: usize) {
        let interlay = &self.interlays[index];
        let mut policies = interlay.policies.borrow_mut();
        if policies.has_notes() {
            let (generation, notes, name) = (policies.generation, policies.take_notes(), interlay.name.clone());
            drop(policies);
            self.report(Report::PolicyNotes { core: self.id, interlay: name, generation, notes });
        }
    }
}
