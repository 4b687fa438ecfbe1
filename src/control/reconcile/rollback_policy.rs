//! One second of a migration in numbers, judged by its rollback policy: go on, warn, hold, roll back.

use std::rc::Rc;
use std::time::Instant;

use super::clock::now;
use super::observed::WindowTotals;
use super::policy_view::{view_authority, view_phase};
use super::state::{Control, Interlay, Migration};
use crate::events::PolicyEvent;
use crate::workflow::{Command, MigrationRecord, Phase, PolicyWord};
use base::model::{InterlayName, PolicySlot, Side, limits};
use bus::counters::{CoreCounters, SideCounters};
use policy::{Judgement, abi};

impl Control {
    /// Once a second, for every migration that is under way.
    pub async fn judge_windows(self: &Rc<Self>) {
        for migration in self.live_all() {
            let name = migration.record.borrow().interlay.clone();
            if let Some(interlay) = self.interlays.get(&name) {
                self.judge_window(interlay, &migration).await;
            }
        }
    }

    async fn judge_window(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>) {
        let now_totals = self.totals(interlay, migration);
        let before = migration.seen.borrow_mut().policy.totals.replace(now_totals.clone());
        let (judgement, notes) = {
            let mut seat = interlay.policies.window.borrow_mut();
            let (Some(seat), Some(before)) = (seat.as_mut(), before) else {
                let word = if seat.is_some() {
                    PolicyWord::Unknown("it has not judged a whole second yet".to_owned())
                } else {
                    // One that was chosen and cannot decide does not vanish from the gates.
                    interlay.policies.absent(PolicySlot::Rollback).map_or(PolicyWord::NoPolicy, PolicyWord::Unknown)
                };
                migration.seen.borrow_mut().policy.word = word;
                return;
            };
            let judge = |window: &abi::host::Window<'_>, at_ms| (seat.judge(window, at_ms), seat.take_notes());
            self.with_window(migration, &before, &now_totals, judge)
        };
        self.policy_notes(interlay, interlay.policies.generation.get(), None, notes).await;
        self.obey(migration, judgement).await;
    }

    async fn obey(self: &Rc<Self>, migration: &Rc<Migration>, judgement: Judgement) {
        let word = match &judgement {
            Judgement::Continue | Judgement::Warn(_) => PolicyWord::GoesOn,
            Judgement::Hold(why) | Judgement::RollBack(why) => PolicyWord::Holds(why.clone()),
        };
        let before = std::mem::replace(&mut migration.seen.borrow_mut().policy.word, word.clone());
        let held_before = matches!(before, PolicyWord::Holds(_));
        let about = migration.about();
        match &judgement {
            Judgement::Warn(text) => {
                self.events.passing(PolicyEvent::Warning { text: text.clone() }, &about).await;
            }
            Judgement::Hold(why) if !held_before => {
                self.events.lasting(PolicyEvent::Holds { why: why.clone() }, &about).await;
            }
            Judgement::Continue | Judgement::Hold(_) | Judgement::RollBack(_) => {}
        }
        if held_before && word == PolicyWord::GoesOn {
            self.events.lasting(PolicyEvent::NoLongerHolds, &about).await;
        }
        if let Judgement::RollBack(why) = judgement {
            self.roll_back(migration, &why);
        }
    }

    /// As an operator would, where there is something to roll back.
    fn roll_back(self: &Rc<Self>, migration: &Rc<Migration>, why: &str) {
        let (phase, authority) = {
            let record = migration.record.borrow();
            (record.phase, record.authority)
        };
        match phase {
            Phase::Compare | Phase::Test | Phase::Migrate => {}
            Phase::PreTest | Phase::Analyze | Phase::Rollback | Phase::Commit => return,
        }
        let mut reason = format!("the rollback policy: {why}");
        while reason.len() > limits::REASON_BYTES_MAX {
            reason.pop();
        }
        let (control, id) = (Rc::clone(self), migration.record.borrow().id.clone());
        tokio::task::spawn_local(async move {
            // What was judged may be over by the time it is this command's turn. A failure leaves everything as it is, and the next
            // window asks again.
            let judged = |record: &MigrationRecord| (record.phase, record.authority) == (phase, authority);
            if let Err(error) = control.command_if(&id, Command::Rollback { reason }, judged).await {
                tracing::error!(%error, migration = %id, "the rollback policy's rollback was not done");
            }
        });
    }

    fn totals(&self, interlay: &Interlay, migration: &Migration) -> WindowTotals {
        let counters = self.counters_of(&interlay.config.spec.name);
        let record = migration.record.borrow();
        let seen = migration.seen.borrow();
        let shadow = seen.shadow.facts.map(|fresh| fresh.facts).unwrap_or_default();
        WindowTotals {
            at: Instant::now(),
            phase: record.phase,
            authority: record.authority,
            source: counters.source,
            target: counters.target,
            compared: shadow.reads.compared,
            read_divergences: shadow.reads.divergent,
            found: seen.divergences.ledger.found,
        }
    }

    /// Counters of one interlay, over all cores.
    fn counters_of(&self, interlay: &InterlayName) -> CoreCounters {
        let mut total = CoreCounters::default();
        for (name, counters) in self.cores.borrow().counters.values().flatten() {
            if name == interlay {
                total.add(counters);
            }
        }
        total
    }

    fn with_window<T>(
        &self,
        migration: &Migration,
        before: &WindowTotals,
        after: &WindowTotals,
        judge: impl FnOnce(&abi::host::Window<'_>, i64) -> T,
    ) -> T {
        let record = migration.record.borrow();
        let seen = migration.seen.borrow();
        let shadow = seen.shadow.facts.map(|fresh| fresh.facts).unwrap_or_default();
        let at_ms = now().0;
        let mut flags = 0;
        let mut flag = |set: bool, bit: u32| flags |= if set { bit } else { 0 };
        flag(before.authority != after.authority, abi::flags::WINDOW_FLIPPED);
        flag(record.status == base::model::MigrationStatus::Paused, abi::flags::WINDOW_PAUSED);
        flag(before.phase != after.phase, abi::flags::WINDOW_PHASE_CHANGED);
        let serves_target = if after.authority.side == Side::Target { 10_000 } else { 0 };
        let window = abi::host::Window {
            phase: view_phase(after.phase),
            authority: view_authority(after.authority),
            flags,
            at_ms,
            length_ms: u32::try_from((after.at - before.at).as_millis()).unwrap_or(u32::MAX),
            phase_seconds: u32::try_from(at_ms.saturating_sub(record.phase_since.0) / 1000).unwrap_or(u32::MAX),
            source: side(&before.source, &after.source),
            target: side(&before.target, &after.target),
            shadow_lag_us: shadow.behind.lag_us,
            queue_depth: shadow.behind.in_flight,
            dirty: shadow.behind.dirty,
            in_flight: shadow.behind.in_flight,
            compared: after.compared.saturating_sub(before.compared),
            // One difference may be seen by both: the larger of the two misses none.
            divergences_new: (after.found.saturating_sub(before.found))
                .max(after.read_divergences.saturating_sub(before.read_divergences)),
            divergences_total: seen.divergences.ledger.unresolved(),
            read_share: serves_target,
            write_share: serves_target,
            migration: record.id.as_str().as_bytes(),
        };
        judge(&window, i64::try_from(at_ms).unwrap_or(i64::MAX))
    }
}

fn side(before: &SideCounters, after: &SideCounters) -> abi::Side {
    let latency = after.latency_us.since(&before.latency_us);
    let percentile = |of| u32::try_from(latency.percentile(of)).unwrap_or(u32::MAX);
    abi::Side {
        requests: after.requests.saturating_sub(before.requests),
        errors: after.errors.saturating_sub(before.errors),
        p50_us: percentile(50),
        p99_us: percentile(99),
    }
}
