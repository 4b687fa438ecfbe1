//! Policy filters as control knows them: which are loaded, and which decide what on each interlay. Lives on the control thread.
//!
//! * [`start`](self::start): what is loaded before any core runs.
//! * [`load`](self::load): loading, replacing, unloading and trying filters under traffic.
//! * [`sets`](self::sets): sets of instances, made and sent to the cores.
//! * [`faults`](self::faults): what filters did wrong, and what becomes of them.
//! * [`show`](self::show): snapshots for the API. [`tools`](self::tools): what `crossfade filter test` and `bench` do without a proxy.
//!
//! Locks, in this order: an interlay's `change`, the registry's `loading`, an interlay's `policies.turn`. The first is not needed for
//! anything here and never taken below the others. No `RefCell` borrow is held across an await.

mod faults;
mod load;
mod sets;
mod show;
mod start;
mod tools;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

pub use load::LoadFilter;
pub use sets::{FirstSets, send_first};
pub use show::{FilterUseView, FilterView, PoliciesView, SlotView};
pub use start::{CheckedFilter, Registry, check_files};
use tokio::sync::Mutex;
pub use tools::{BenchView, CasesView, bench_file, test_file};

use base::model::{
    CoreId, FilterName, MigrationId, PolicyChoice, PolicySetting, PolicySettings, PolicySlot, Timestamp,
};
use policy::{Module, SeatStats, WindowSeat, abi};

/// Where a filter came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Builtin,
    /// The configuration names this file.
    File(PathBuf),
    /// Loaded at run time; it is in the store.
    Stored,
}

/// A filter that is loaded.
#[derive(Debug)]
pub struct LoadedFilter {
    pub name: FilterName,
    pub module: Module,
    pub origin: Origin,
    /// What the operator called it.
    pub file: String,
    /// How many recorded cases it passed; `None`: it has none.
    pub cases: Option<usize>,
    /// Counts what was loaded under this name since the process started.
    pub generation: u64,
    pub loaded_at: Timestamp,
}

/// Whose choice holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenBy {
    Migration(MigrationId),
    Interlay,
    Shipped,
}

/// What makes one decision now.
#[derive(Debug, Clone)]
pub enum Occupant {
    /// No filter, on purpose: the built-in default of the hook.
    Nobody,
    Filter(PolicySetting, Rc<LoadedFilter>),
    /// The chosen filter cannot; why. The built-in default of the hook stands in, but records are not copied.
    Absent(PolicySetting, String),
}

#[derive(Debug, Clone)]
pub struct Standing {
    pub slot: PolicySlot,
    pub by: ChosenBy,
    pub occupant: Occupant,
}

impl Standing {
    /// The filter that was chosen, whether it is there or not.
    pub fn setting(&self) -> Option<&PolicySetting> {
        match &self.occupant {
            Occupant::Nobody => None,
            Occupant::Filter(setting, _) | Occupant::Absent(setting, _) => Some(setting),
        }
    }

    /// Whether a set made for the other would do for this one.
    fn is_like(&self, other: &Self) -> bool {
        let same = match (&self.occupant, &other.occupant) {
            (Occupant::Nobody, Occupant::Nobody) => true,
            (Occupant::Filter(one, module), Occupant::Filter(two, other)) => one == two && Rc::ptr_eq(module, other),
            (Occupant::Absent(one, _), Occupant::Absent(two, _)) => one == two,
            (Occupant::Nobody | Occupant::Filter(..) | Occupant::Absent(..), _) => false,
        };
        same && self.slot == other.slot
    }
}

/// A filter that was taken out of one place for its faults, until it is loaded or chosen again.
#[derive(Debug, Clone)]
struct Stopped {
    slot: PolicySlot,
    filter: FilterName,
    why: String,
}

/// The policies of one interlay.
#[derive(Debug, Default)]
pub struct InterlayPolicies {
    /// Held while a set is made and sent.
    turn: Mutex<()>,
    /// Of the set sent last; 0 before the first.
    pub generation: Cell<u64>,
    /// What that set was made for.
    in_force: RefCell<Vec<Standing>>,
    /// Cores that have not adopted it yet.
    unadopted: RefCell<BTreeSet<CoreId>>,
    /// The rollback policy. What it has to tell after a call goes to `policy_notes`.
    pub window: RefCell<Option<WindowSeat>>,
    /// What the seats in force have done, by core.
    current: RefCell<BTreeMap<CoreId, Vec<SeatStats>>>,
    /// What those before them had done: counters never go down.
    past: RefCell<Vec<SeatStats>>,
    stopped: RefCell<Vec<Stopped>>,
    /// Faults of the set in force, by place.
    faults: RefCell<Vec<(PolicySlot, Instant)>>,
    /// When faults and warnings were told as events.
    faults_told: RefCell<VecDeque<(PolicySlot, Instant)>>,
    warnings_told: RefCell<VecDeque<(PolicySlot, Instant)>>,
    /// Whose instances are gone and are replaced at the next tick; `None`: the window seat's.
    spent: RefCell<BTreeSet<Option<CoreId>>>,
}

impl InterlayPolicies {
    /// Why the filter that was chosen for a place is not there; `None` when it is, or when none was chosen.
    pub fn absent(&self, slot: PolicySlot) -> Option<String> {
        match self.standing(slot)?.occupant {
            Occupant::Absent(setting, why) => Some(format!("filter {} is not in force: {why}", setting.filter)),
            Occupant::Filter(..) | Occupant::Nobody => None,
        }
    }

    fn standing(&self, slot: PolicySlot) -> Option<Standing> {
        self.in_force.borrow().iter().find(|standing| standing.slot == slot).cloned()
    }
}

/// The hook that makes a decision.
#[must_use]
pub fn hook(slot: PolicySlot) -> abi::Hook {
    match slot {
        PolicySlot::Mirror => abi::Hook::Request,
        PolicySlot::Compare => abi::Hook::Pair,
        PolicySlot::Rollback => abi::Hook::Window,
        PolicySlot::Records => abi::Hook::Record,
    }
}

/// What decides what: the choice of the migration, then of the interlay, then the shipped one; and whether the filter can.
fn standings(
    registry: &Registry,
    migration: Option<(&MigrationId, &PolicySettings)>,
    interlay: &PolicySettings,
    stopped: &[Stopped],
) -> Vec<Standing> {
    let shipped = PolicySettings::shipped();
    let chosen = |slot| {
        let of_migration = migration.and_then(|(id, own)| Some((ChosenBy::Migration(id.clone()), own.get(slot)?)));
        of_migration
            .or_else(|| Some((ChosenBy::Interlay, interlay.get(slot)?)))
            .or_else(|| Some((ChosenBy::Shipped, shipped.get(slot)?)))
    };
    let standing = |&slot: &PolicySlot| {
        let (by, choice) = chosen(slot).unwrap_or((ChosenBy::Shipped, &PolicyChoice::Nobody));
        let occupant = match choice {
            PolicyChoice::Nobody => Occupant::Nobody,
            PolicyChoice::Filter(setting) => occupant(registry, slot, setting, stopped),
        };
        Standing { slot, by, occupant }
    };
    PolicySlot::ALL.iter().map(standing).collect()
}

fn occupant(registry: &Registry, slot: PolicySlot, setting: &PolicySetting, stopped: &[Stopped]) -> Occupant {
    let name = &setting.filter;
    if let Some(stopped) = stopped.iter().find(|stopped| stopped.slot == slot && stopped.filter == *name) {
        return Occupant::Absent(setting.clone(), stopped.why.clone());
    }
    match registry.get(name) {
        Some(filter) if filter.module.has_hook(hook(slot)) => Occupant::Filter(setting.clone(), filter),
        Some(_) => Occupant::Absent(setting.clone(), lacks_hook(name, slot)),
        None => Occupant::Absent(setting.clone(), format!("filter {name} is not loaded")),
    }
}

fn lacks_hook(name: &FilterName, slot: PolicySlot) -> String {
    format!("filter {name} does not export cf_on_{}, so it cannot decide about {slot}", hook(slot).word())
}

/// One sentence about a place, for events and notes.
fn told(standing: &Standing) -> String {
    let slot = standing.slot;
    match &standing.occupant {
        Occupant::Nobody => format!("{slot}: no filter"),
        Occupant::Filter(setting, filter) => {
            format!("{slot}: {} generation {} ({})", setting.filter, filter.generation, setting.mode)
        }
        Occupant::Absent(_, why) if slot == PolicySlot::Records => format!("{slot}: no record is copied: {why}"),
        Occupant::Absent(_, why) => format!("{slot}: no filter: {why}; the built-in default is used instead"),
    }
}
