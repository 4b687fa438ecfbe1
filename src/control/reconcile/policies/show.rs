//! What control shows of filters: plain snapshots, `Send`.

use std::rc::Rc;

use super::{ChosenBy, LoadedFilter, Occupant, Origin, Standing, told};
use crate::reconcile::error::ControlError;
use crate::reconcile::state::{Control, Interlay};
use base::model::{FilterName, PolicySetting, PolicySlot, Timestamp};
use movers::Ability;
use policy::SeatStats;

#[derive(Debug, Clone)]
pub struct FilterView {
    pub name: String,
    /// "builtin", "file" or "stored".
    pub origin: &'static str,
    pub file: String,
    pub digest: String,
    pub size_bytes: usize,
    pub hooks: Vec<&'static str>,
    pub generation: u64,
    pub loaded_at: Timestamp,
    /// Recorded cases that passed; `None`: it has none.
    pub cases: Option<usize>,
    pub warnings: Vec<String>,
    pub uses: Vec<FilterUseView>,
}

/// One place where a filter is chosen.
#[derive(Debug, Clone)]
pub struct FilterUseView {
    pub interlay: String,
    pub slot: PolicySlot,
    pub setting: PolicySetting,
    /// Why it does not decide there although it is chosen.
    pub absent: Option<String>,
    pub stats: Option<SeatStats>,
}

#[derive(Debug, Clone)]
pub struct PoliciesView {
    pub interlay: String,
    pub generation: u64,
    /// Cores that have not adopted this generation.
    pub unadopted_cores: Vec<u16>,
    pub slots: Vec<SlotView>,
    /// By place and filter, those of filters that have left included.
    pub stats: Vec<SeatStats>,
}

#[derive(Debug, Clone)]
pub struct SlotView {
    pub slot: PolicySlot,
    /// "migration", "interlay" or "shipped".
    pub chosen_by: &'static str,
    pub migration: Option<String>,
    /// `None`: no filter decides, on purpose.
    pub setting: Option<PolicySetting>,
    pub filter_generation: Option<u64>,
    /// Why the chosen filter does not decide.
    pub absent: Option<String>,
}

impl Control {
    pub(in crate::reconcile) fn filters_view(&self) -> Vec<FilterView> {
        self.filters.all().iter().map(|filter| self.filter_view(filter)).collect()
    }

    pub(in crate::reconcile) fn filter(&self, name: &FilterName) -> Result<FilterView, ControlError> {
        self.filters.get(name).map(|filter| self.filter_view(&filter)).ok_or_else(|| self.no_filter(name))
    }

    pub(super) fn filter_view(&self, filter: &Rc<LoadedFilter>) -> FilterView {
        let mut warnings = Vec::new();
        if filter.cases.is_none() {
            warnings.push(format!(
                "filter {} has no recorded cases: nothing was tested before it was put in place (filters/ABI.md, section 9)",
                filter.name
            ));
        }
        FilterView {
            name: filter.name.to_string(),
            origin: match filter.origin {
                Origin::Builtin => "builtin",
                Origin::File(_) => "file",
                Origin::Stored => "stored",
            },
            file: filter.file.clone(),
            digest: filter.module.digest().to_owned(),
            size_bytes: filter.module.size(),
            hooks: filter.module.hooks().iter().map(|hook| hook.word()).collect(),
            generation: filter.generation,
            loaded_at: filter.loaded_at,
            cases: filter.cases,
            warnings,
            uses: self.interlays.values().flat_map(|interlay| uses(interlay, &filter.name)).collect(),
        }
    }

    pub(in crate::reconcile) fn policies_view(&self, interlay: &Interlay) -> Result<PoliciesView, ControlError> {
        interlay.supports(Ability::Policies)?;
        let policies = &interlay.policies;
        Ok(PoliciesView {
            interlay: interlay.config.spec.name.to_string(),
            generation: policies.generation.get(),
            unadopted_cores: policies.unadopted_cores(),
            slots: policies.in_force.borrow().iter().map(slot).collect(),
            stats: policies.stats(),
        })
    }

    /// One sentence for each place whose filter is not there.
    pub(in crate::reconcile) fn absent_policies(&self) -> Vec<String> {
        let absent = |interlay: &Interlay| -> Vec<_> {
            let in_force = interlay.policies.in_force.borrow();
            let gone = in_force.iter().filter(|standing| matches!(standing.occupant, Occupant::Absent(..)));
            gone.map(|standing| format!("interlay {}: {}", interlay.config.spec.name, told(standing))).collect()
        };
        self.interlays.values().flat_map(|interlay| absent(interlay)).collect()
    }

    pub(in crate::reconcile) fn policy_stats(&self) -> Vec<(String, Vec<SeatStats>)> {
        let of = |interlay: &Rc<Interlay>| (interlay.config.spec.name.to_string(), interlay.policies.stats());
        self.interlays.values().map(of).collect()
    }
}

fn uses(interlay: &Rc<Interlay>, name: &FilterName) -> Vec<FilterUseView> {
    let stats = interlay.policies.stats();
    let in_force = interlay.policies.in_force.borrow();
    let chosen = |standing: &Standing| {
        let (setting, absent) = match &standing.occupant {
            Occupant::Nobody => return None,
            Occupant::Filter(setting, _) => (setting, None),
            Occupant::Absent(setting, why) => (setting, Some(why.clone())),
        };
        (setting.filter == *name).then(|| FilterUseView {
            interlay: interlay.config.spec.name.to_string(),
            slot: standing.slot,
            setting: setting.clone(),
            absent,
            stats: stats.iter().find(|one| one.slot == standing.slot && one.filter == *name).cloned(),
        })
    };
    in_force.iter().filter_map(chosen).collect()
}

fn slot(standing: &Standing) -> SlotView {
    let (chosen_by, migration) = match &standing.by {
        ChosenBy::Migration(id) => ("migration", Some(id.to_string())),
        ChosenBy::Interlay => ("interlay", None),
        ChosenBy::Shipped => ("shipped", None),
    };
    let (filter_generation, absent) = match &standing.occupant {
        Occupant::Nobody => (None, None),
        Occupant::Filter(_, filter) => (Some(filter.generation), None),
        Occupant::Absent(_, why) => (None, Some(why.clone())),
    };
    let setting = standing.setting().cloned();
    SlotView { slot: standing.slot, chosen_by, migration, setting, filter_generation, absent }
}
