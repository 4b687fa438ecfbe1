//! Sets of filters: made of fresh instances off the control thread, sent to every core, and waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{InterlayPolicies, Occupant, Registry, Standing, standings, told};
use crate::events::PolicyEvent;
use crate::reconcile::clock::monotonic_ns;
use crate::reconcile::event_hub::About;
use crate::reconcile::state::{Control, Interlay};
use base::model::{
    CoreId, InterlayName, MigrationId, OnFault, PolicySetting, PolicySettings, PolicySlot, ProtocolKind, limits,
};
use base::stdx::prng::SplitMix64;
use bus::{Directive, Switchboard, companion_core};
use movers::Ability;
use policy::{CorePolicies, Module, PairSeat, RecordSeat, RequestSeat, SeatSetup, SeatStats, WindowSeat};

/// What every seat of a set is made of. Crosses to the thread that makes the instances.
#[derive(Debug)]
struct Recipe {
    generation: u64,
    companion_core: CoreId,
    filters: Vec<(PolicySlot, PolicySetting, Module)>,
    /// The records filter was chosen and cannot: this one, which has no answer, takes its place.
    sealed: Option<(PolicySetting, Module)>,
    seed: u64,
}

/// What came of it.
#[derive(Debug)]
struct Made {
    cores: Vec<(CoreId, CorePolicies)>,
    window: Option<WindowSeat>,
    /// Filters that refused to be instantiated, and why.
    refused: Vec<(PolicySlot, String)>,
    /// Why records would pass no filter although one was chosen for them: such a set is not sent.
    open: Option<String>,
}

impl Recipe {
    fn new(registry: &Registry, interlay: &InterlayName, standings: &[Standing], generation: u64) -> Self {
        let mut filters = Vec::new();
        let mut sealed = None;
        for Standing { slot, occupant, .. } in standings {
            match occupant {
                Occupant::Nobody => {}
                Occupant::Filter(setting, filter) => {
                    if *slot == PolicySlot::Records {
                        sealed = Some((closed(setting), registry.sealed.clone()));
                    }
                    filters.push((*slot, setting.clone(), filter.module.clone()));
                }
                Occupant::Absent(setting, _) => {
                    if *slot == PolicySlot::Records {
                        sealed = Some((closed(setting), registry.sealed.clone()));
                    }
                }
            }
        }
        Self { generation, companion_core: companion_core(interlay), filters, sealed, seed: monotonic_ns() }
    }

    /// Makes the seats of these cores, and the window's if it is wanted. Guests run here: up to 40 ms for each instance.
    fn make(self, cores: &[CoreId], window: bool) -> Made {
        let empty = |core: &CoreId| {
            let generation = self.generation;
            (*core, CorePolicies { generation, ..CorePolicies::default() })
        };
        let mut made = Made { cores: cores.iter().map(empty).collect(), window: None, refused: Vec::new(), open: None };
        let mut seeds = SplitMix64::new(self.seed);
        for (slot, setting, module) in self.filters {
            if let Err(why) = made.seat(slot, &setting, &module, self.companion_core, window, &mut seeds) {
                made.unseat(slot);
                made.refused.push((slot, why));
            }
        }
        let unsealed = made.cores.iter_mut().find(|(core, set)| *core == self.companion_core && set.record.is_none());
        if let (Some((setting, module)), Some((_, set))) = (self.sealed, unsealed) {
            match module.instantiate("{}", 1) {
                Ok(instance) => {
                    set.record = Some(RecordSeat::new(SeatSetup { setting, instance, seed: 1, identity: 0 }))
                }
                Err(refused) => made.open = Some(refused.text),
            }
        }
        made
    }
}

impl Made {
    fn seat(
        &mut self,
        slot: PolicySlot,
        setting: &PolicySetting,
        module: &Module,
        companion_core: CoreId,
        window: bool,
        seeds: &mut SplitMix64,
    ) -> Result<(), String> {
        let mut setup = || {
            let seed = seeds.draw();
            let instance = module.instantiate(&setting.config, seed).map_err(|refused| refused.text)?;
            let identity = identity(setting, module);
            Ok::<_, String>(SeatSetup { setting: setting.clone(), instance, seed, identity })
        };
        match slot {
            PolicySlot::Mirror => {
                for (_, set) in &mut self.cores {
                    set.request = Some(RequestSeat::new(setup()?));
                }
            }
            PolicySlot::Compare => {
                for (_, set) in self.cores.iter_mut().filter(|(core, _)| *core == companion_core) {
                    set.pair = Some(PairSeat::new(setup()?));
                }
            }
            PolicySlot::Records => {
                for (_, set) in self.cores.iter_mut().filter(|(core, _)| *core == companion_core) {
                    set.record = Some(RecordSeat::new(setup()?));
                }
            }
            PolicySlot::Rollback => {
                if window {
                    self.window = Some(WindowSeat::new(setup()?));
                }
            }
        }
        Ok(())
    }

    /// A filter that cannot be everywhere it belongs is nowhere.
    fn unseat(&mut self, slot: PolicySlot) {
        for (_, set) in &mut self.cores {
            match slot {
                PolicySlot::Mirror => set.request = None,
                PolicySlot::Compare => set.pair = None,
                PolicySlot::Records => set.record = None,
                PolicySlot::Rollback => {}
            }
        }
        if slot == PolicySlot::Rollback {
            self.window = None;
        }
    }
}

/// See [`SeatSetup::identity`].
fn identity(setting: &PolicySetting, module: &Module) -> u64 {
    let parts = [setting.filter.as_str(), module.digest(), &setting.config];
    xxhash_rust::xxh3::xxh3_64(parts.join("\n").as_bytes())
}

/// For the seat that stands in for this one.
fn closed(setting: &PolicySetting) -> PolicySetting {
    PolicySetting { on_fault: OnFault::FailClosed, ..setting.clone() }
}

/// The sets an interlay begins with, by interlay. Pushed to the cores before these run, so that no command passes undecided.
pub type FirstSets = BTreeMap<InterlayName, InterlayPolicies>;

/// Makes and sends the first sets of all interlays that have policies.
///
/// # Errors
/// A sentence, when a mailbox is full before anything runs.
pub fn send_first<'a>(
    registry: &Registry,
    bus: &Switchboard,
    interlays: impl Iterator<
        Item = (&'a InterlayName, ProtocolKind, &'a PolicySettings, Option<(&'a MigrationId, &'a PolicySettings)>),
    >,
) -> Result<FirstSets, String> {
    let mut sets = FirstSets::new();
    let cores = cores_of(bus);
    for (name, kind, own, migration) in interlays {
        if movers::supports(kind, name, Ability::Policies).is_err() {
            continue;
        }
        let policies = InterlayPolicies::default();
        let standings = standings(registry, migration, own, &[]);
        let made = Recipe::new(registry, name, &standings, 1).make(&cores, true);
        if let Some(open) = made.open {
            return Err(format!("interlay {name}: records would pass no policy: {open}"));
        }
        for (slot, why) in &made.refused {
            tracing::error!("interlay {name}: {slot} has no filter: {why}");
        }
        policies.adopt(1, with_refused(standings, &made.refused), &cores, made.window);
        for (core, set) in made.cores {
            let directive = Directive::Policies { interlay: name.clone(), policies: Box::new(set) };
            let mailbox = &bus.cores[usize::from(core.0)];
            mailbox.push(directive).map_err(|_| format!("core {} takes no orders", core.0))?;
        }
        sets.insert(name.clone(), policies);
    }
    Ok(sets)
}

fn cores_of(bus: &Switchboard) -> Vec<CoreId> {
    (0..u16::try_from(bus.cores.len()).unwrap_or(u16::MAX)).map(CoreId).collect()
}

/// What stands after some filters have refused.
fn with_refused(mut standings: Vec<Standing>, refused: &[(PolicySlot, String)]) -> Vec<Standing> {
    for standing in &mut standings {
        let why = refused.iter().find(|(slot, _)| *slot == standing.slot).map(|(_, why)| why.clone());
        if let (Some(why), Some(setting)) = (why, standing.setting().cloned()) {
            standing.occupant = Occupant::Absent(setting, why);
        }
    }
    standings
}

impl InterlayPolicies {
    /// Takes a set as the present one. What was told of its predecessor's faults no longer counts where the filter is another.
    fn adopt(&self, generation: u64, standings: Vec<Standing>, cores: &[CoreId], window: Option<WindowSeat>) {
        let before = self.in_force.replace(standings);
        {
            let after = self.in_force.borrow();
            let kept = |slot| {
                let of = |all: &[Standing]| all.iter().find(|standing| standing.slot == slot).cloned();
                matches!((of(&before), of(&after)), (Some(old), Some(new)) if old.is_like(&new))
            };
            self.faults.borrow_mut().retain(|(slot, _)| kept(*slot));
        }
        self.generation.set(generation);
        *self.unadopted.borrow_mut() = cores.iter().copied().collect();
        self.spent.borrow_mut().clear();
        self.replace_window(window);
    }

    fn replace_window(&self, window: Option<WindowSeat>) {
        if let Some(old) = self.window.replace(window) {
            add_past(&mut self.past.borrow_mut(), vec![old.stats()]);
        }
    }

    /// By place and filter, over all cores and all sets there have been.
    pub(super) fn stats(&self) -> Vec<SeatStats> {
        let mut all: Vec<SeatStats> = Vec::new();
        let window: Vec<_> = self.window.borrow().iter().map(WindowSeat::stats).collect();
        let (past, current) = (self.past.borrow(), self.current.borrow());
        for one in past.iter().chain(current.values().flatten()).chain(&window) {
            match all.iter_mut().find(|known| known.slot == one.slot && known.filter == one.filter) {
                Some(known) => known.add(one),
                None => all.push(one.clone()),
            }
        }
        all
    }

    pub(super) fn unadopted_cores(&self) -> Vec<u16> {
        self.unadopted.borrow().iter().map(|core| core.0).collect()
    }
}

/// The memory of an instance that is gone is not in use.
fn add_past(past: &mut Vec<SeatStats>, before: Vec<SeatStats>) {
    for mut one in before {
        one.memory_bytes = 0;
        match past.iter_mut().find(|known| known.slot == one.slot && known.filter == one.filter) {
            Some(known) => known.add(&one),
            None => past.push(one),
        }
    }
}

impl Control {
    pub(super) fn standings(&self, interlay: &Interlay) -> Vec<Standing> {
        let live = self.live(&interlay.config.spec.name);
        let record = live.as_ref().map(|migration| migration.record.borrow());
        let migration = record.as_ref().map(|record| (&record.id, &record.policies));
        let own = &interlay.config.policies.settings;
        standings(&self.filters, migration, own, &interlay.policies.stopped.borrow())
    }

    /// Makes a new set of filters and puts it in place on every core. Returns what could not be put in place, in sentences.
    pub(super) async fn assign(&self, interlay: &Interlay, why: &str) -> Vec<String> {
        let _turn = interlay.policies.turn.lock().await;
        self.assign_in_turn(interlay, why).await
    }

    /// As [`Self::assign`], if what is chosen is not what is in force.
    pub(in crate::reconcile) async fn settle_policies(&self, interlay: &Interlay, why: &str) {
        if interlay.supports(Ability::Policies).is_err() {
            return;
        }
        // Only in turn: a set that is being made for an older choice is not in force yet.
        let _turn = interlay.policies.turn.lock().await;
        if !self.is_settled(interlay) {
            self.assign_in_turn(interlay, why).await;
        }
    }

    fn is_settled(&self, interlay: &Interlay) -> bool {
        let wanted = self.standings(interlay);
        let in_force = interlay.policies.in_force.borrow();
        wanted.len() == in_force.len() && wanted.iter().zip(in_force.iter()).all(|(one, two)| one.is_like(two))
    }

    /// The caller holds `turn`.
    async fn assign_in_turn(&self, interlay: &Interlay, why: &str) -> Vec<String> {
        let name = interlay.config.spec.name.clone();
        let policies = &interlay.policies;
        let standings = self.standings(interlay);
        let generation = policies.generation.get() + 1;
        let recipe = Recipe::new(&self.filters, &name, &standings, generation);
        let cores = cores_of(&self.bus);
        let all = cores.clone();
        let made = match tokio::task::spawn_blocking(move || recipe.make(&all, true)).await {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(%error, interlay = %name, "no filters were made; those in force go on");
                return vec![format!("interlay {name}: no filters were made; those in force go on")];
            }
        };
        if let Some(open) = made.open {
            let not_made = PolicyEvent::NotMade { interlay: name, why: open };
            let text = not_made.to_string();
            tracing::error!("{text}");
            self.events.lasting(not_made, &self.about_policies(interlay)).await;
            return vec![text];
        }
        self.take_window_notes(interlay);
        policies.adopt(generation, with_refused(standings, &made.refused), &cores, made.window);
        for (core, set) in made.cores {
            self.send_policies(&name, core, set).await;
        }
        self.await_adopted(interlay, generation).await;
        let about = self.about_policies(interlay);
        let mut failed = Vec::new();
        for (slot, refused) in made.refused {
            let lost = PolicyEvent::Lost { slot, interlay: name.clone(), why: refused };
            tracing::error!("{lost}");
            failed.push(lost.to_string());
            self.events.lasting(lost, &about).await;
        }
        let rows = policies.in_force.borrow().iter().map(told).collect();
        let changed = PolicyEvent::Changed { generation, why: why.to_owned(), rows };
        self.events.lasting(changed, &about).await;
        failed
    }

    /// A core with a full mailbox is waited for: a set is never dropped.
    async fn send_policies(&self, interlay: &InterlayName, core: CoreId, set: CorePolicies) {
        let Some(mailbox) = self.bus.cores.get(usize::from(core.0)) else { return };
        let mut directive = Directive::Policies { interlay: interlay.clone(), policies: Box::new(set) };
        while let Err(back) = mailbox.push(directive) {
            directive = back;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Waits until every core has this set. Laggards are named and not waited for any longer: they take it when they can.
    async fn await_adopted(&self, interlay: &Interlay, generation: u64) {
        let deadline = tokio::time::Instant::now() + limits::POLICIES_ADOPT_TIMEOUT;
        loop {
            let adopted = self.acked.notified();
            tokio::pin!(adopted);
            adopted.as_mut().enable();
            let cores = interlay.policies.unadopted_cores();
            if cores.is_empty() || interlay.policies.generation.get() != generation {
                return;
            }
            if tokio::time::timeout_at(deadline, adopted).await.is_err() {
                let after_s = limits::POLICIES_ADOPT_TIMEOUT.as_secs();
                let lagging = PolicyEvent::Lagging { generation, cores, after_s };
                tracing::error!("{lagging}");
                self.events.lasting(lagging, &self.about_policies(interlay)).await;
                return;
            }
        }
    }

    /// The sets that were sent before the cores ran: waited for, and announced.
    pub(in crate::reconcile) async fn announce_first(&self, interlay: &Interlay) {
        let policies = &interlay.policies;
        let _turn = policies.turn.lock().await;
        if policies.generation.get() != 1 {
            return;
        }
        self.await_adopted(interlay, 1).await;
        let rows = policies.in_force.borrow().iter().map(told).collect();
        let changed = PolicyEvent::Changed { generation: 1, why: "the start".to_owned(), rows };
        self.events.lasting(changed, &self.about_policies(interlay)).await;
    }

    pub(super) fn about_policies(&self, interlay: &Interlay) -> About {
        let name = &interlay.config.spec.name;
        let migration = self.live(name).map(|migration| migration.record.borrow().id.clone());
        About { migration, interlay: Some(name.clone()) }
    }

    pub(in crate::reconcile) fn on_policies_adopted(
        &self,
        core: CoreId,
        interlay: &InterlayName,
        generation: u64,
        before: Vec<SeatStats>,
    ) {
        let Some(interlay) = self.interlays.get(interlay) else { return };
        let policies = &interlay.policies;
        // Reports of one core come in order: what it sends from now on is about the new set.
        policies.current.borrow_mut().remove(&core);
        add_past(&mut policies.past.borrow_mut(), before);
        if policies.generation.get() == generation {
            policies.unadopted.borrow_mut().remove(&core);
            self.acked.notify_waiters();
        }
    }

    pub(in crate::reconcile) fn on_policy_stats(&self, core: CoreId, interlay: &InterlayName, seats: Vec<SeatStats>) {
        if let Some(interlay) = self.interlays.get(interlay) {
            interlay.policies.current.borrow_mut().insert(core, seats);
        }
    }

    /// Once a second, never more often: an endless loop costs a core one deadline in that time.
    pub(in crate::reconcile) fn replace_spent(self: &Rc<Self>) {
        for interlay in self.interlays.values() {
            let policies = &interlay.policies;
            if policies.window.borrow().as_ref().is_some_and(WindowSeat::is_spent) {
                policies.spent.borrow_mut().insert(None);
            }
            let spent = policies.spent.take();
            if !spent.is_empty() {
                let (control, interlay) = (Rc::clone(self), Rc::clone(interlay));
                let generation = policies.generation.get();
                tokio::task::spawn_local(async move { control.respawn(&interlay, generation, spent).await });
            }
        }
    }

    /// Fresh instances of the set in force for these cores.
    async fn respawn(&self, interlay: &Interlay, generation: u64, spent: BTreeSet<Option<CoreId>>) {
        let policies = &interlay.policies;
        let _turn = policies.turn.lock().await;
        if policies.generation.get() != generation {
            return; // a set sent meanwhile has fresh instances everywhere
        }
        let name = &interlay.config.spec.name;
        let recipe = Recipe::new(&self.filters, name, &policies.in_force.borrow(), generation);
        let (window, cores) = (spent.contains(&None), spent.iter().copied().flatten().collect::<Vec<_>>());
        let made = tokio::task::spawn_blocking(move || recipe.make(&cores, window)).await;
        match made {
            Ok(made) if made.refused.is_empty() && made.open.is_none() => {
                if window {
                    self.take_window_notes(interlay);
                    policies.replace_window(made.window);
                }
                for (core, set) in made.cores {
                    self.send_policies(name, core, set).await;
                }
            }
            Ok(made) => {
                tracing::error!(refused = ?made.refused, interlay = %name, "a spent filter is not replaced yet");
                policies.spent.borrow_mut().extend(spent);
            }
            Err(error) => {
                tracing::error!(%error, interlay = %name, "a spent filter is not replaced yet");
                policies.spent.borrow_mut().extend(spent);
            }
        }
    }

    /// What the window seat still had to tell before it goes.
    fn take_window_notes(&self, interlay: &Interlay) {
        let notes = interlay.policies.window.borrow_mut().as_mut().map(WindowSeat::take_notes).unwrap_or_default();
        for note in notes {
            tracing::info!(interlay = %interlay.config.spec.name, ?note, "told by a filter as it was replaced");
        }
    }
}
