//! One second of a migration in numbers, judged by its rollback policy: go on, warn, hold, roll back.

use std::rc::Rc;

use tokio::time::Instant;

use super::state::{Control, Interlay, Migration, now};
use crate::workflow::{Command, MigrationRecord, Phase};
use base::model::{Authority, InterlayName, Side, limits};
use bus::counters::{CoreCounters, SideCounters};
use policy::{Judgement, ViewContext, abi};

/// What had been counted at one moment, to tell what came after it.
#[derive(Debug, Clone)]
pub struct Totals {
    at: Instant,
    phase: Phase,
    authority: Authority,
    source: SideCounters,
    target: SideCounters,
    compared: u64,
    /// By reads, and by whatever else compares.
    read_divergences: u64,
    found: u64,
}

impl Control {
    /// Once a second, for every migration that is under way.
    pub fn judge_windows(self: &Rc<Self>) {
        for migration in self.live_all() {
            let name = migration.record.borrow().interlay.clone();
            if let Some(interlay) = self.interlays.get(&name) {
                self.judge_window(interlay, &migration);
            }
        }
    }

    fn judge_window(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>) {
        let now_totals = self.totals(interlay, migration);
        let before = migration.seen.borrow_mut().window.replace(now_totals.clone());
        let (judgement, notes) = {
            let mut seat = interlay.policies.window.borrow_mut();
            let (Some(seat), Some(before)) = (seat.as_mut(), before) else {
                // Without a policy nobody holds; a policy that has not seen a window yet does not either.
                migration.seen.borrow_mut().rollback_policy = seat.is_some().then_some(Ok(()));
                return;
            };
            let judge = |window: &abi::host::Window<'_>, at_ms| (seat.judge(window, at_ms), seat.take_notes());
            self.with_window(migration, &before, &now_totals, judge)
        };
        self.policy_notes(interlay, interlay.policies.generation.get(), None, notes);
        self.obey(migration, judgement);
    }

    fn obey(self: &Rc<Self>, migration: &Rc<Migration>, judgement: Judgement) {
        let word = match &judgement {
            Judgement::Continue | Judgement::Warn(_) => Ok(()),
            Judgement::Hold(why) | Judgement::RollBack(why) => Err(why.clone()),
        };
        let before = migration.seen.borrow_mut().rollback_policy.replace(word.clone());
        let about = migration.about();
        match &judgement {
            Judgement::Warn(text) => self.events.passing("policy_warning", &about, text.clone(), now()),
            Judgement::Hold(text) if before.as_ref().is_none_or(Result::is_ok) => {
                self.events.lasting("policy_holds", &about, text.clone(), now());
            }
            Judgement::Continue | Judgement::Hold(_) | Judgement::RollBack(_) => {}
        }
        if word.is_ok() && matches!(before, Some(Err(_))) {
            self.events.lasting("policy_goes_on", &about, "the rollback policy no longer holds", now());
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

    fn totals(&self, interlay: &Interlay, migration: &Migration) -> Totals {
        let counters = self.counters_of(&interlay.config.spec.name);
        let record = migration.record.borrow();
        let seen = migration.seen.borrow();
        let lane = seen.lane.map(|(status, _)| status).unwrap_or_default();
        Totals {
            at: Instant::now(),
            phase: record.phase,
            authority: record.authority,
            source: counters.source,
            target: counters.target,
            compared: lane.reads_compared,
            read_divergences: lane.read_divergences,
            found: seen.ledger.found,
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
        before: &Totals,
        after: &Totals,
        judge: impl FnOnce(&abi::host::Window<'_>, i64) -> T,
    ) -> T {
        let record = migration.record.borrow();
        let seen = migration.seen.borrow();
        let lane = seen.lane.map(|(status, _)| status).unwrap_or_default();
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
            shadow_lag_us: lane.shadow_lag_us,
            queue_depth: lane.in_flight,
            dirty: lane.dirty,
            in_flight: lane.in_flight,
            compared: after.compared.saturating_sub(before.compared),
            // One difference may be seen by both: the larger of the two misses none.
            divergences_new: (after.found.saturating_sub(before.found))
                .max(after.read_divergences.saturating_sub(before.read_divergences)),
            divergences_total: seen.ledger.unresolved(),
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

/// What the cores' filters are told of where a migration stands.
pub(super) fn view_context(phase: Phase, authority: Authority) -> ViewContext {
    ViewContext::new(view_phase(phase), view_authority(authority))
}

fn view_authority(authority: Authority) -> abi::Authority {
    match authority.side {
        Side::Source => abi::Authority::Source,
        Side::Target => abi::Authority::Target,
    }
}

/// The only table of phases in the words of filters/ABI.md, section 4.
fn view_phase(phase: Phase) -> abi::Phase {
    match phase {
        Phase::PreTest => abi::Phase::PreTest,
        Phase::Analyze => abi::Phase::Analyze,
        Phase::Compare => abi::Phase::Compare,
        Phase::Test => abi::Phase::Test,
        Phase::Migrate => abi::Phase::Migrate,
        Phase::Rollback => abi::Phase::Rollback,
        Phase::Commit => abi::Phase::Commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of filters/ABI.md, section 4: filters outlive this program, so they never change.
    #[test]
    fn every_phase_has_its_number_in_the_views() {
        let numbers = Phase::ALL.map(|phase| abi::Phase::from_code(view_phase(phase) as u8));
        let documented = [1, 2, 3, 4, 5, 6, 7].map(abi::Phase::from_code);
        assert_eq!(numbers, documented);
        assert!(documented.iter().all(Option::is_some));
    }
}
