//! The tick: looks at every live migration ten times a second and starts whatever is due. Never waits for any of it.

use std::rc::Rc;

use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use super::clock::now;
use super::evidence::fresh_facts;
use super::observed::FlipOutcome;
use super::state::{Control, Interlay, Migration};
use crate::workflow::{Evidence, MigrationRecord, Phase, auto_step, flip_gates, is_dual, lag_us_max};
use base::model::{MigrationStatus, ShadowFrom, Side, limits};
use bus::Directive;
use movers::Check;

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
                self.judge_windows().await;
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
                    let (record, evidence) = self.look_after(interlay, &migration);
                    if sample {
                        self.tell_progress(&migration, &record, &evidence).await;
                    }
                }
            }
        }
    }

    /// Starts whatever is due for one migration. Gives what it was decided on.
    fn look_after(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>) -> (MigrationRecord, Evidence) {
        let record = migration.record.borrow().clone();
        self.start_checks(migration, &record);
        if is_dual(&record) {
            self.start_smoke_and_rehearsal(interlay, migration, &record);
            self.start_verification(interlay, migration, &record);
            self.spawn_first_copy(migration);
        } else if record.phase == Phase::Test {
            self.start_smoke(migration, &record);
        }
        let evidence = self.evidence(migration);
        self.start_flip(migration, &record, &evidence);
        self.start_auto(migration, &record, &evidence);
        if let Some(pass) = &migration.seen.borrow().shadow.pass {
            match record.status {
                MigrationStatus::Paused => pass.progress.pause(),
                MigrationStatus::Pending
                | MigrationStatus::Ready
                | MigrationStatus::Running
                | MigrationStatus::RollingBack
                | MigrationStatus::RolledBack
                | MigrationStatus::Completed
                | MigrationStatus::Failed => pass.progress.go_on(),
            }
        }
        (record, evidence)
    }

    fn start_checks(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord) {
        let early = matches!(record.phase, Phase::PreTest | Phase::Analyze)
            || (record.phase.may_be_dual() && record.dual_since.is_none());
        let (check, compare) = {
            let seen = migration.seen.borrow();
            let old =
                |at: Option<Instant>, pause: u32| at.is_none_or(|at| at.elapsed() >= pause * limits::JOB_RETRY_PAUSE);
            let (servers, findings) = (&seen.servers, &seen.findings);
            let check =
                !servers.checking && if early { old(servers.checked_at, 2) } else { servers.checked_at.is_none() };
            let compare = !findings.comparing
                && findings.are_due(record, early, now())
                // Without both servers there is nothing to compare, and the reason is known already.
                && matches!((&servers.source, &servers.target), (Check::Passed(_), Check::Passed(_)));
            (check, compare)
        };
        if check {
            self.spawn_checks(migration);
        }
        if compare {
            self.spawn_comparison(migration);
        }
    }

    fn start_smoke(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord) {
        let wanted = record.smoke.as_ref().is_none_or(|smoke| !smoke.failed.is_empty());
        let free = migration.seen.borrow().smoke.may_begin();
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
        if !wanted || !may_hold(interlay, migration, record) {
            return;
        }
        migration.seen.borrow_mut().holds.attempts.running = true;
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        tokio::task::spawn_local(async move {
            let outcome = control.rehearse(&migration).await;
            migration.seen.borrow_mut().holds.ended(&outcome);
        });
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
        let free = migration.seen.borrow().holds.attempts.may_begin();
        if !due || !free || self.store_failed.borrow().is_some() {
            return;
        }
        if !flip_gates(record, evidence, now()).iter().all(|gate| gate.met) {
            return;
        }
        migration.seen.borrow_mut().holds.attempts.running = true;
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        tokio::task::spawn_local(async move {
            let outcome = control.flip(&migration).await;
            if let FlipOutcome::Refused(reason) | FlipOutcome::Postponed(reason) = &outcome {
                tracing::info!(%reason, "the change of authority is postponed");
            }
            migration.seen.borrow_mut().holds.ended(&outcome);
        });
    }

    fn start_auto(self: &Rc<Self>, migration: &Rc<Migration>, record: &MigrationRecord, evidence: &Evidence) {
        if migration.seen.borrow().announced.advancing {
            return;
        }
        let Some(command) = auto_step(record, evidence, now()) else { return };
        migration.seen.borrow_mut().announced.advancing = true;
        let (control, migration, id) = (Rc::clone(self), Rc::clone(migration), record.id.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = control.command(&id, command).await {
                tracing::info!(%error, migration = %id, "the run did not advance");
            }
            migration.seen.borrow_mut().announced.advancing = false;
        });
    }
}

/// The same preconditions as a flip: a hold that cannot succeed is not tried, it would only make clients wait.
fn may_hold(interlay: &Interlay, migration: &Migration, record: &MigrationRecord) -> bool {
    let seen = migration.seen.borrow();
    let calm = fresh_facts(record, &seen.shadow).is_ok_and(|facts| {
        !facts.behind.uncopied
            && facts.behind.dirty <= record.decisions.thresholds.dirty_before_fence_max
            && facts.behind.lag_us <= lag_us_max(record)
            && facts.authority_connected
            && facts.shadow_connected
    });
    calm && seen.verification.running.is_none() && seen.holds.attempts.may_begin() && interlay.change.try_lock().is_ok()
}
