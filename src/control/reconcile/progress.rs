//! What is told of a migration once a second: progress, gates that changed, an approval that is missing. Lives on the control thread.
//!
//! Also when the ledger of divergences is saved: it changes often and one save a second is enough.

use super::clock::now;
use super::observed::Observed;
use super::state::{Control, Migration};
use crate::events::{Event, MigrationEvent, RunningJob, ShadowEvent};
use crate::workflow::{Evidence, Gate, MigrationRecord, gates_now};
use movers::Progress;

impl Control {
    pub(super) async fn tell_progress(&self, migration: &Migration, record: &MigrationRecord, evidence: &Evidence) {
        let about = migration.about();
        let gates = gates_now(record, evidence, now());
        let (passing, approval) = {
            let mut seen = migration.seen.borrow_mut();
            let mut passing = changed_gates(&gates, &mut seen);
            passing.extend(running_jobs(&seen));
            (passing, missing_approval(record, &gates, &mut seen))
        };
        for event in passing {
            self.events.passing(event, &about).await;
        }
        if let Some(asked) = approval {
            self.events.lasting(asked, &about).await;
        }
        self.save_ledger(migration, record).await;
    }

    async fn save_ledger(&self, migration: &Migration, record: &MigrationRecord) {
        let ledger = {
            let mut seen = migration.seen.borrow_mut();
            if !std::mem::take(&mut seen.divergences.unsaved) {
                return;
            }
            seen.divergences.ledger.clone()
        };
        if let Err(error) = self.store.save_ledger(&record.id, &ledger).await {
            migration.seen.borrow_mut().divergences.unsaved = true;
            tracing::error!(%error, "the divergence ledger could not be saved");
        }
    }
}

fn changed_gates(gates: &[Gate], seen: &mut Observed) -> Vec<Event> {
    let met = &mut seen.announced.gates_met;
    let changed = gates.iter().filter(|gate| met.insert(gate.name, gate.met) != Some(gate.met));
    changed.map(|gate| MigrationEvent::GateChanged(gate.clone()).into()).collect()
}

/// Told once in a run: every other gate is met.
fn missing_approval(record: &MigrationRecord, gates: &[Gate], seen: &mut Observed) -> Option<MigrationEvent> {
    let mut open = gates.iter().filter(|gate| !gate.met);
    let (Some(gate), None) = (open.next(), open.next()) else { return None };
    let asked = (record.run, gate.name);
    if !gate.is_approval() || seen.announced.approval_asked == Some(asked) {
        return None;
    }
    seen.announced.approval_asked = Some(asked);
    Some(MigrationEvent::ApprovalRequested { gate: gate.name, migration: record.id.clone() })
}

fn running_jobs(seen: &Observed) -> Vec<Event> {
    let pass = seen.shadow.pass.as_ref().filter(|pass| !pass.done);
    let told = |job, progress: &Progress| {
        let (done, total, rate_per_second) =
            (progress.done(), progress.total(), progress.rate_per_second().round() as u64);
        ShadowEvent::JobProgress { job, done, total, rate_per_second }.into()
    };
    let pass = pass.map(|pass| told(RunningJob::Backfill, &pass.progress));
    let verification = seen.verification.running.as_ref().map(|progress| told(RunningJob::Verification, progress));
    pass.into_iter().chain(verification).collect()
}
