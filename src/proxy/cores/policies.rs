//! The filters of one core: adopting a new set, and what control is told of them. Lives on one core.

use super::core::Core;
use super::syscalls;
use base::model::InterlayName;
use bus::Report;
use policy::CorePolicies;

impl Core {
    /// The next command is decided by the new set.
    pub fn adopt_policies(&mut self, name: InterlayName, mut policies: CorePolicies) {
        let Some(index) = self.find(&name) else { return };
        self.report_policy_notes(index);
        let interlay = &mut self.interlays[index];
        policies.enter(interlay.view);
        let generation = policies.generation;
        let before = interlay.policies.replace(policies).stats();
        let now = syscalls::now(self.start);
        if let Some(companion) = interlay.companion.as_mut() {
            companion.policies_changed(now);
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
