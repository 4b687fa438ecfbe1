//! Loading, replacing, unloading and trying filters under traffic. What fails leaves everything as it was.

use super::start::{Examined, examine, fits};
use super::{FilterView, Occupant, Origin};
use crate::events::PolicyEvent;
use crate::reconcile::clock::now;
use crate::reconcile::error::ControlError;
use crate::reconcile::event_hub::About;
use crate::reconcile::state::{Control, Interlay};
use crate::store::StoredFilter;
use base::model::{BUILTIN_PREFIX, FilterName, PolicyChoice, PolicySetting, PolicySettings, PolicySlot, limits};
use movers::Ability;

/// A filter an operator brings.
#[derive(Debug)]
pub struct LoadFilter {
    pub name: FilterName,
    /// Binary, or WAT text.
    pub module: Vec<u8>,
    /// Recorded cases; all must pass.
    pub cases: Option<String>,
    /// What the operator calls it.
    pub file: String,
}

/// Counts itself out however the load ends.
struct Queued<'a>(&'a std::cell::Cell<u32>);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A setting that must still work with the new module, and where it is.
type Use = (String, PolicySlot, PolicySetting);

impl Control {
    /// Compiled, tested with its cases, tried with every configuration it is used with, made durable, put in place.
    ///
    /// # Errors
    /// [`ControlError`]; what was loaded before stays in use.
    pub(in crate::reconcile) async fn load_filter(&self, load: LoadFilter) -> Result<FilterView, ControlError> {
        let name = load.name.clone();
        shipped_stays(&name)?;
        let loads = &self.filters.loads;
        if loads.get() >= limits::FILTER_LOADS_MAX {
            return Err(ControlError::Unavailable("other filters are being loaded: try again".to_owned()));
        }
        loads.set(loads.get() + 1);
        let _queued = Queued(loads);
        let _loading = self.filters.loading.lock().await;
        if self.filters.get(&name).is_none() && self.filters.len_own() >= limits::FILTERS_MAX {
            return Err(ControlError::Conflict(format!(
                "{} filters are loaded, which is the most there may be: unload one first",
                limits::FILTERS_MAX
            )));
        }
        let uses = self.uses(&name);
        let host = self.filters.host.clone();
        let job = move || {
            let examined = examine(&host, &load.name, &load.module, load.cases.as_deref())?;
            for (place, slot, setting) in &uses {
                fits(&examined.module, *slot, setting).map_err(|why| format!("{place}: {why}"))?;
            }
            Ok::<_, String>((examined, load))
        };
        let (examined, load) = match tokio::task::spawn_blocking(job).await {
            Ok(Ok(done)) => done,
            Ok(Err(why)) => return Err(self.refused(&name, why)),
            Err(error) => return Err(self.refused(&name, format!("loading it failed in the program itself: {error}"))),
        };
        self.put_in_place(examined, load).await
    }

    async fn put_in_place(&self, examined: Examined, load: LoadFilter) -> Result<FilterView, ControlError> {
        let name = load.name.clone();
        let at = now();
        let stored = StoredFilter {
            name: name.clone(),
            module: load.module,
            cases: load.cases,
            digest: examined.module.digest().to_owned(),
            loaded_at: at,
            file: load.file.clone(),
        };
        let loaded = PolicyEvent::FilterLoaded {
            filter: name.clone(),
            file: load.file.clone(),
            bytes: examined.module.size(),
            digest: stored.digest.clone(),
            cases: examined.cases,
        };
        self.store_works()?;
        let event = self.events.draft(loaded, &About::default()).await;
        self.store.save_filter(&stored, std::slice::from_ref(&event)).await?;
        let loaded = self.filters.insert(examined, Origin::Stored, load.file, at);
        self.events.announce(event);
        let mut failed = Vec::new();
        for interlay in self.interlays.values() {
            interlay.policies.stopped.borrow_mut().retain(|stopped| stopped.filter != name);
            if self.uses_filter(interlay, &name) {
                let why = format!("filter {name} generation {} was loaded", loaded.generation);
                failed.extend(self.assign(interlay, &why).await);
            }
        }
        let mut view = self.filter_view(&loaded);
        view.warnings.extend(failed);
        Ok(view)
    }

    /// # Errors
    /// [`ControlError::NotFound`] naming those there are.
    pub(in crate::reconcile) async fn unload_filter(&self, name: &FilterName) -> Result<FilterView, ControlError> {
        shipped_stays(name)?;
        let _loading = self.filters.loading.lock().await;
        let loaded = self.filters.get(name).ok_or_else(|| self.no_filter(name))?;
        self.store_works()?;
        let users: Vec<_> = self.interlays.values().filter(|interlay| self.uses_filter(interlay, name)).collect();
        let view = self.filter_view(&loaded);
        let places: Vec<_> = view.uses.iter().map(|one| format!("{} of interlay {}", one.slot, one.interlay)).collect();
        let left = if places.is_empty() {
            "nothing used it".to_owned()
        } else {
            let records = view.uses.iter().any(|one| one.slot == PolicySlot::Records);
            let becomes = if records { "; no record is copied" } else { "; the built-in default is used instead" };
            format!("it has left {}{becomes}", places.join(", "))
        };
        let unloaded = PolicyEvent::FilterUnloaded { filter: name.clone(), left };
        let event = self.events.draft(unloaded, &About::default()).await;
        self.store.remove_filter(name, std::slice::from_ref(&event)).await?;
        self.filters.remove(name);
        for interlay in users {
            interlay.policies.stopped.borrow_mut().retain(|stopped| stopped.filter != *name);
            self.assign(interlay, &format!("filter {name} was unloaded")).await;
        }
        self.events.announce(event);
        Ok(view)
    }

    /// Whether a filter can make this decision with this configuration: tried on an instance that is thrown away.
    ///
    /// # Errors
    /// [`ControlError`] in the filter's own words when it refuses its configuration.
    pub(in crate::reconcile) async fn try_policy(
        &self,
        slot: PolicySlot,
        setting: &PolicySetting,
    ) -> Result<(), ControlError> {
        let filter = self.filters.get(&setting.filter).ok_or_else(|| self.no_filter(&setting.filter))?;
        let (module, setting) = (filter.module.clone(), setting.clone());
        match tokio::task::spawn_blocking(move || fits(&module, slot, &setting)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(ControlError::FilterRefused(format!("{why}; nothing changed"))),
            Err(error) => Err(ControlError::FilterRefused(format!("it could not be tried: {error}; nothing changed"))),
        }
    }

    /// # Errors
    /// As [`Self::try_policy`].
    pub(in crate::reconcile) async fn try_policies(&self, settings: &PolicySettings) -> Result<(), ControlError> {
        for &slot in PolicySlot::ALL {
            if let Some(PolicyChoice::Filter(setting)) = settings.get(slot) {
                self.try_policy(slot, setting).await?;
            }
        }
        Ok(())
    }

    /// A choice is made anew, so a filter that was taken out for its faults may try again.
    pub(in crate::reconcile) async fn policy_chosen(&self, interlay: &Interlay, slot: PolicySlot) {
        let was_stopped = {
            let mut stopped = interlay.policies.stopped.borrow_mut();
            let before = stopped.len();
            stopped.retain(|stopped| stopped.slot != slot);
            before != stopped.len()
        };
        if was_stopped {
            self.assign(interlay, "a policy was chosen again").await;
        } else {
            self.settle_policies(interlay, "a policy was chosen").await;
        }
    }

    /// Everything that chooses this filter, whether it is in force now or would be later.
    fn uses(&self, name: &FilterName) -> Vec<Use> {
        let mut uses = Vec::new();
        for interlay in self.interlays.values() {
            let of = &interlay.config.spec.name;
            let live = self.live(of).map(|migration| migration.record.borrow().policies.clone());
            let chains = [
                (format!("interlay {of}"), Some(interlay.config.policies.settings.clone())),
                (format!("the migration of {of}"), live),
            ];
            for (place, settings) in chains {
                for &slot in PolicySlot::ALL {
                    if let Some(PolicyChoice::Filter(setting)) = settings.as_ref().and_then(|all| all.get(slot))
                        && setting.filter == *name
                    {
                        uses.push((format!("{slot} of {place}"), slot, setting.clone()));
                    }
                }
            }
        }
        uses
    }

    fn uses_filter(&self, interlay: &Interlay, name: &FilterName) -> bool {
        if interlay.supports(Ability::Policies).is_err() {
            return false;
        }
        self.standings(interlay).iter().any(|standing| match &standing.occupant {
            Occupant::Nobody => false,
            Occupant::Filter(setting, _) | Occupant::Absent(setting, _) => setting.filter == *name,
        })
    }

    pub(super) fn no_filter(&self, name: &FilterName) -> ControlError {
        ControlError::NotFound(format!("there is no filter {name}; loaded are: {}", self.filters.names()))
    }

    fn refused(&self, name: &FilterName, why: String) -> ControlError {
        let goes_on = match self.filters.get(name) {
            Some(old) => format!("generation {} of {name} stays in use", old.generation),
            None => "nothing was loaded".to_owned(),
        };
        ControlError::FilterRefused(format!("{why}; {goes_on}"))
    }
}

fn shipped_stays(name: &FilterName) -> Result<(), ControlError> {
    if name.is_builtin() {
        return Err(ControlError::Invalid(format!(
            "{name} is shipped with Crossfade and stays: load yours under a name that does not begin with {BUILTIN_PREFIX}"
        )));
    }
    Ok(())
}
