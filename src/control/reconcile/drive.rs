//! The tick: looks at every live migration ten times a second and starts whatever is due. Never waits for any of it.

use std::rc::Rc;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::evidence::fresh_lane;
use super::flip::FlipOutcome;
use super::state::{Control, Interlay, Migration, now};
use crate::workflow::{Check, Command, Evidence, MigrationRecord, Phase, auto_step, flip_gates, gates_now, is_dual};
use base::model::{MigrationStatus, PolicyChoice, ShadowFrom, Side, limits};
use bus::Directive;

impl Control {
    pub async fn tick_forever(self: Rc<Self>) {
        let mut tick = interval(limits::CONTROL_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sampled = Instant::now();
        let mut first = true;
        let mut sample_asked = false;
        loop {
            tick.tick().await;
            if std::mem::take(&mut sample_asked) {
                // The cores have had a tick to answer.
                self.judge_windows();
            }
            let sample = first || sampled.elapsed() >= limits::SAMPLE_PERIOD;
            if sample {
                self.replace_spent();
                first = false;
                sample_asked = true;
                sampled = Instant::now();
                for core in &self.bus.cores {
                    // A core too busy to take a directive is sampled next time.
                    let _ = core.push(Directive::Sample);
                }
            }
            for migration in self.live_all() {
                let name = migration.record.borrow().interlay.clone();
                if let Some(interlay) = self.interlays.get(&name) {
                    self.look_after(interlay, &migration, sample);
                }
            }
        }
    }

    fn look_after(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>, each_second: bool) {
        let record = migration.record.borrow().clone();
        self.start_checks(migration, &record);
        if is_dual(&record) {
            self.start_smoke_and_rehearsal(interlay, migration, &record);
            self.start_verification(interlay, migration, &record);
        } else if record.phase == Phase::Test {
            self.start_smoke(migration, &record);
        }
        let evidence = self.evidence(migration);
        self.start_flip(migration, &record, &evidence);
        self.start_auto(migration, &record, &evidence);
        let paused = record.status == MigrationStatus::Paused;
        if let Some(pass) = &migration.seen.borrow().pass {
            pass.progress.paused.set(paused);
        }
        if each_second {
            self.tell(migration, &record, &evidence);
        }
    }

    fn start_checks(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord) {
        let early = matches!(record.phase, Phase::PreTest | Phase::Analyze)
            || (record.phase.may_be_dual() && record.dual_since.is_none());
        let (check, compare) = {
            let seen = migration.seen.borrow();
            let old =
                |at: Option<Instant>, pause: u32| at.is_none_or(|at| at.elapsed() >= pause * limits::JOB_RETRY_PAUSE);
            let check = !seen.checking && if early { old(seen.checked_at, 2) } else { seen.checked_at.is_none() };
            let compare = !seen.comparing
                && if early { old(seen.findings_at, 10) } else { seen.findings_at.is_none() }
                // Without both servers there is nothing to compare, and the reason is known already.
                && matches!((&seen.source, &seen.target), (Check::Passed(_), Check::Passed(_)));
            (check, compare)
        };
        if check {
            self.spawn_checks(migration, record.phase == Phase::PreTest);
        }
        if compare {
            self.spawn_comparison(migration);
        }
    }

    fn start_smoke(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord) {
        let wanted = record.smoke.as_ref().is_none_or(|smoke| !smoke.failed.is_empty());
        let free = {
            let seen = migration.seen.borrow();
            !seen.smoking && Instant::now() >= seen.smoke_after
        };
        if wanted && free && record.status == MigrationStatus::Running {
            self.spawn_smoke(migration);
        }
    }

    fn start_smoke_and_rehearsal(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        migration: &Rc<Migration>,
        record: &MigrationRecord,
    ) {
        if record.status != MigrationStatus::Running {
            return;
        }
        let late = record.decisions.shadow_from == ShadowFrom::Migrate && record.phase == Phase::Migrate;
        if record.phase == Phase::Test {
            self.start_smoke(migration, record);
        } else if !late {
            return;
        }
        let budget_us = record.decisions.thresholds.fence_budget_ms.saturating_mul(1000);
        let wanted = record.rehearsal.as_ref().is_none_or(|rehearsal| rehearsal.pause_us > budget_us);
        if !wanted || !self.may_fence(interlay, migration, record) {
            return;
        }
        migration.seen.borrow_mut().fencing = true;
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        tokio::task::spawn_local(async move {
            control.rehearse(&migration).await;
            fence_tried(&migration);
        });
    }

    /// The same preconditions as a flip: a fence that cannot succeed is not tried, it would only hold clients up.
    fn may_fence(&self, interlay: &Interlay, migration: &Migration, record: &MigrationRecord) -> bool {
        let seen = migration.seen.borrow();
        let lane = fresh_lane(record, &seen);
        let calm = lane.is_ok_and(|lane| {
            !lane.uncopied
                && lane.dirty <= record.decisions.thresholds.dirty_before_fence_max
                && lane.authority_connected
                && lane.shadow_connected
        });
        calm && !seen.fencing
            && seen.verifying.is_none()
            && Instant::now() >= seen.fence_after
            && interlay.change.try_lock().is_ok()
    }

    fn start_verification(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        migration: &Rc<Migration>,
        record: &MigrationRecord,
    ) {
        let wanted = {
            let seen = migration.seen.borrow();
            let evidence = self.evidence(migration);
            let copied = evidence.pass_done.is_ok()
                && evidence.lane.as_ref().is_ok_and(|lane| {
                    !lane.uncopied && lane.dirty <= record.decisions.thresholds.dirty_before_fence_max
                });
            let gate_open =
                gates_now(record, &evidence, now()).iter().any(|gate| gate.name == "verification" && !gate.met);
            let proof_wanted = gate_open && !soaking(record, &evidence);
            copied
                && seen.verifying.is_none()
                && !seen.fencing
                && Instant::now() >= seen.verify_after
                && record.status != MigrationStatus::Paused
                // Differences that nobody's write causes are found too: whole comparisons go on all the time, at a polite distance.
                && (proof_wanted || seen.ledger.unresolved() > 0 || Instant::now() >= seen.verify_again)
        };
        if wanted {
            self.spawn_verification(interlay, migration);
        }
    }

    fn start_flip(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord, evidence: &Evidence) {
        let due = match (record.phase, record.authority.side) {
            (Phase::Migrate, Side::Source) => record.status == MigrationStatus::Running,
            (Phase::Rollback, Side::Target) => true,
            (
                Phase::PreTest
                | Phase::Analyze
                | Phase::Compare
                | Phase::Test
                | Phase::Migrate
                | Phase::Rollback
                | Phase::Commit,
                Side::Source | Side::Target,
            ) => false,
        };
        let free = {
            let seen = migration.seen.borrow();
            !seen.fencing && Instant::now() >= seen.fence_after
        };
        if !due || !free || self.store_failed.borrow().is_some() {
            return;
        }
        if !flip_gates(record, evidence, now()).iter().all(|gate| gate.met) {
            return;
        }
        migration.seen.borrow_mut().fencing = true;
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        tokio::task::spawn_local(async move {
            if let FlipOutcome::Postponed(reason) = control.flip(&migration).await {
                tracing::info!(%reason, "the change of authority is postponed");
            }
            fence_tried(&migration);
        });
    }

    fn start_auto(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord, evidence: &Evidence) {
        if migration.seen.borrow().advancing {
            return;
        }
        let Some(command) = auto_step(record, evidence, now()) else { return };
        migration.seen.borrow_mut().advancing = true;
        let (control, migration, id) = (Rc::clone(self), Rc::clone(migration), record.id.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = control.command(&id, command).await {
                tracing::info!(%error, migration = %id, "the run did not advance");
            }
            migration.seen.borrow_mut().advancing = false;
        });
    }

    /// Once a second: progress, gates that changed, an approval that is missing, the ledger.
    fn tell(&self, migration: &Migration, record: &MigrationRecord, evidence: &Evidence) {
        let at = now();
        let about = migration.about();
        let gates = gates_now(record, evidence, at);
        let mut seen = migration.seen.borrow_mut();
        for gate in &gates {
            if seen.gates_met.insert(gate.name, gate.met) != Some(gate.met) {
                let word = if gate.met { "met" } else { "not met" };
                let text = format!("{} is {word}: {} (needs {})", gate.name, gate.measured, gate.threshold);
                self.events.passing("gate_changed", &about, text, at);
            }
        }
        let mut open = gates.iter().filter(|gate| !gate.met);
        if let (Some(gate), None) = (open.next(), open.next())
            && gate.name.starts_with("approval_to_")
            && seen.approval_asked != Some((record.run, gate.name))
        {
            seen.approval_asked = Some((record.run, gate.name));
            let text = format!("{}: every other gate is met; `crossfade migration approve {}`", gate.name, record.id);
            self.events.lasting("approval_requested", &about, text, at);
        }
        let jobs = [
            ("backfill", seen.pass.as_ref().filter(|pass| !pass.done).map(|pass| &pass.progress)),
            ("verification", seen.verifying.as_ref()),
        ];
        for (name, progress) in jobs {
            if let Some(progress) = progress {
                let text = format!(
                    "{name}: {} of {} keys, {:.0} keys/s",
                    progress.done.get(),
                    progress.total.get(),
                    progress.rate_per_second.get()
                );
                self.events.passing("job_progress", &about, text, at);
            }
        }
        if seen.ledger_unsaved {
            match self.store.save_ledger(&record.id, &seen.ledger) {
                Ok(()) => seen.ledger_unsaved = false,
                Err(error) => tracing::error!(%error, "the divergence ledger could not be saved"),
            }
        }
    }

    /// One command of an operator, or of a run that drives itself: decided, durable, published, acked, announced.
    ///
    /// # Errors
    /// [`super::ControlError`]; nothing changed.
    pub async fn command(
        self: &Rc<Self>,
        id: &base::model::MigrationId,
        command: Command,
    ) -> Result<(), super::ControlError> {
        self.command_if(id, command, |_| true).await
    }

    /// As [`Self::command`], unless the record is not what the command was decided for.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn command_if(
        self: &Rc<Self>,
        id: &base::model::MigrationId,
        command: Command,
        still: impl Fn(&MigrationRecord) -> bool,
    ) -> Result<(), super::ControlError> {
        let migration = self.migration(id)?;
        let interlay = self.interlay(&migration.record.borrow().interlay.clone())?;
        if matches!(command, Command::Advance { .. }) && migration.record.borrow().dual_since.is_none() {
            // The conflict policy must judge what the target holds now, not what it held a moment ago.
            self.count_target(&migration).await;
        }
        let chosen = if let Command::SetPolicy { slot, .. } = &command { Some(*slot) } else { None };
        if let Command::SetPolicy { slot, choice: Some(PolicyChoice::Filter(setting)) } = &command {
            self.try_policy(*slot, setting).await?;
        }
        {
            let _change = interlay.change.lock().await;
            let evidence = self.evidence(&migration);
            let record = migration.record.borrow().clone();
            if !still(&record) {
                return Ok(());
            }
            let done = crate::workflow::transition(&record, command, &evidence, now())?;
            self.apply(&migration, done).await?;
        }
        match chosen {
            Some(slot) => self.policy_chosen(&interlay, slot).await,
            // The choices of a migration end with it.
            None => self.settle_policies(&interlay, "a migration ended").await,
        }
        Ok(())
    }
}

/// A clean comparison of this step exists and only time is missing: looking again at once would prove nothing more.
fn soaking(record: &MigrationRecord, evidence: &Evidence) -> bool {
    let Some(seen) = &evidence.verification else { return false };
    let soak_ms = record.decisions.thresholds.soak_seconds.saturating_mul(1000);
    let since = record.flips.last().map_or(0, |flip| flip.at.0).max(record.phase_since.0);
    let of_this_step = seen.is_clean() && seen.epoch == record.authority.epoch && seen.started_at.0 >= since;
    // Repeated a few times over the soak, so that "clean for N seconds" is more than one look.
    of_this_step && now().0.saturating_sub(seen.finished_at.0) < (soak_ms / 4).max(1000)
}

fn fence_tried(migration: &Migration) {
    let mut seen = migration.seen.borrow_mut();
    seen.fencing = false;
    seen.fence_after = Instant::now() + limits::FENCE_RETRY_PAUSE;
}
