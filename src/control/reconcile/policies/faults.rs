//! What filters did wrong and had to tell, and what becomes of them: replaced at the next tick, or taken out of their place.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Occupant, Standing, Stopped};
use crate::events::PolicyEvent;
use crate::reconcile::state::{Control, Interlay};
use base::model::{CoreId, PolicySetting, PolicySlot, limits};
use policy::{FaultKind, NoteKind, PolicyNote, abi};

const FAULT_WINDOW: Duration = Duration::from_secs(abi::limits::FAULT_WINDOW_S as u64);

impl Control {
    /// Takes what the filters of one core, or the window seat (`core` is `None`), had to tell.
    pub async fn policy_notes(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        generation: u64,
        core: Option<CoreId>,
        notes: Vec<PolicyNote>,
    ) {
        for PolicyNote { slot, kind } in notes {
            // What has no filter in the set in force is told of one that is gone, or of the one that stands in for it.
            let Some(Standing { occupant: Occupant::Filter(setting, _), .. }) = interlay.policies.standing(slot) else {
                continue;
            };
            let filter = &setting.filter;
            match kind {
                NoteKind::Log { level, text } => log(interlay, slot, filter.as_str(), level, &text),
                NoteKind::Warned { text } => self.warned(interlay, slot, format!("{slot}: {filter}: {text}")).await,
                NoteKind::Fault { kind, text, spent } => {
                    if interlay.policies.generation.get() == generation {
                        self.faulted(interlay, slot, core, kind, &text, spent).await;
                    } else {
                        tracing::warn!(interlay = %interlay.config.spec.name, %slot, "a filter that is replaced: {text}");
                    }
                }
            }
        }
    }

    async fn warned(&self, interlay: &Interlay, slot: PolicySlot, text: String) {
        let allowed = limits::POLICY_WARNINGS_PER_SECOND_MAX as usize;
        let tell = may_tell(&mut interlay.policies.warnings_told.borrow_mut(), slot, allowed, Duration::from_secs(1));
        if tell {
            tracing::warn!(interlay = %interlay.config.spec.name, "{text}");
            self.events.passing(PolicyEvent::Warning { text }, &self.about_policies(interlay)).await;
        }
    }

    async fn faulted(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        slot: PolicySlot,
        core: Option<CoreId>,
        kind: FaultKind,
        text: &str,
        spent: bool,
    ) {
        let policies = &interlay.policies;
        let Some(Standing { occupant: Occupant::Filter(setting, loaded), .. }) = policies.standing(slot) else {
            return;
        };
        let filter = &setting.filter;
        let allowed = (limits::POLICY_FAULTS_TOLD_MAX, limits::POLICY_FAULTS_TOLD_WINDOW);
        let tell = may_tell(&mut policies.faults_told.borrow_mut(), slot, allowed.0, allowed.1);
        if tell {
            let (filter, generation, text) = (filter.clone(), loaded.generation, text.to_owned());
            let fault = PolicyEvent::Fault { slot, filter, generation, core, kind, text };
            self.events.lasting(fault, &self.about_policies(interlay)).await;
        }
        if spent {
            policies.spent.borrow_mut().insert(core);
        }
        let count = {
            let mut faults = policies.faults.borrow_mut();
            faults.retain(|(_, at)| at.elapsed() < FAULT_WINDOW);
            faults.push((slot, Instant::now()));
            faults.iter().filter(|(of, _)| *of == slot).count()
        };
        if count >= abi::limits::FAULTS_MAX as usize {
            let why = format!(
                "{filter} was unloaded after {count} faults within {} s, the last: {}: {text}",
                abi::limits::FAULT_WINDOW_S,
                kind.as_str()
            );
            self.stop_filter(interlay, slot, setting, why).await;
        }
    }

    /// Takes a filter out of one place, at once on this thread and as soon as they hear of it on the cores.
    async fn stop_filter(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        slot: PolicySlot,
        setting: PolicySetting,
        why: String,
    ) {
        let policies = &interlay.policies;
        policies.stopped.borrow_mut().push(Stopped { slot, filter: setting.filter.clone(), why: why.clone() });
        // From here on what this filter tells is not heard any more.
        for standing in policies.in_force.borrow_mut().iter_mut().filter(|standing| standing.slot == slot) {
            standing.occupant = Occupant::Absent(setting.clone(), why.clone());
        }
        let stopped = PolicyEvent::Stopped { slot, why };
        tracing::error!(interlay = %interlay.config.spec.name, "{stopped}");
        self.events.lasting(stopped, &self.about_policies(interlay)).await;
        let (control, interlay) = (Rc::clone(self), Rc::clone(interlay));
        tokio::task::spawn_local(async move {
            control.assign(&interlay, "a filter was unloaded for its faults").await;
        });
    }
}

/// A line of the guest's own.
fn log(interlay: &Interlay, slot: PolicySlot, filter: &str, level: u8, text: &str) {
    let interlay = &interlay.config.spec.name;
    match level {
        1 => tracing::error!(%interlay, %slot, filter, "{text}"),
        2 => tracing::warn!(%interlay, %slot, filter, "{text}"),
        3 => tracing::info!(%interlay, %slot, filter, "{text}"),
        _ => tracing::debug!(%interlay, %slot, filter, "{text}"),
    }
}

/// Whether one more of this place is told within this time; notes that it is.
fn may_tell(told: &mut VecDeque<(PolicySlot, Instant)>, slot: PolicySlot, max: usize, within: Duration) -> bool {
    told.retain(|(_, at)| at.elapsed() < within);
    let allowed = told.iter().filter(|(of, _)| *of == slot).count() < max;
    if allowed {
        told.push_back((slot, Instant::now()));
    }
    allowed
}
