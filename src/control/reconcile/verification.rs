//! Full comparisons of both sides: when one is begun, and what follows from its result. Lives on the control thread; the comparing is
//! done on the movers' thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::now;
use super::state::{Control, Interlay, Migration};
use crate::events::{FailedJob, ShadowEvent};
use crate::workflow::{Evidence, MigrationRecord, UNDECLARED_WRITES, Verification, gates_now};
use base::model::{Epoch, MigrationStatus, Timestamp, limits};
use movers::{JobError, Progress, Verified, VerifySpec};

/// Every key; verification for a gate never samples.
const EVERY_KEY: u16 = 10_000;

/// A comparison under way.
struct Run {
    began: Timestamp,
    /// The authority's when it began.
    epoch: Epoch,
    progress: Arc<Progress>,
}

impl Control {
    pub(super) fn start_verification(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        migration: &Rc<Migration>,
        record: &MigrationRecord,
    ) {
        let evidence = self.evidence(migration);
        let dirty_max = record.decisions.thresholds.dirty_before_fence_max;
        let copied = evidence.pass_done.is_ok()
            && evidence.shadow.as_ref().is_ok_and(|facts| !facts.behind.uncopied && facts.behind.dirty <= dirty_max);
        let asks = |name: &str| name == "verification" || name == UNDECLARED_WRITES;
        let gate_open = gates_now(record, &evidence, now()).iter().any(|gate| asks(gate.name) && !gate.met);
        let proof_wanted = gate_open && !soaking(record, &evidence);
        let wanted = {
            let seen = migration.seen.borrow();
            copied
                && seen.verification.running.is_none()
                && !seen.holds.attempts.running
                && Instant::now() >= seen.verification.not_before
                && record.status != MigrationStatus::Paused
                // Differences that come without a client's write are found too: whole comparisons go on, at a polite distance.
                && (proof_wanted
                    || seen.divergences.ledger.unresolved() > 0
                    || Instant::now() >= seen.verification.again_at)
        };
        if wanted {
            self.spawn_verification(interlay, migration);
        }
    }

    /// Compares every key of both sides, once.
    fn spawn_verification(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>) {
        let (control, interlay, migration) = (Rc::clone(self), Rc::clone(interlay), Rc::clone(migration));
        let progress = Arc::new(Progress::default());
        migration.seen.borrow_mut().verification.running = Some(Arc::clone(&progress));
        tokio::task::spawn_local(async move {
            let (epoch, grace) = {
                let record = migration.record.borrow();
                (record.authority.epoch, record.decisions.thresholds.ttl_grace_ms)
            };
            // The shadow's deadline is later by the grace; anything up to twice of it is the rule at work, not a difference.
            let spec = VerifySpec { ttl_tolerance_ms: grace.saturating_mul(2), sample_per_ten_thousand: EVERY_KEY };
            let run = Run { began: now(), epoch, progress: Arc::clone(&progress) };
            let result = control.movers.verify(interlay.name(), spec, progress).await;
            control.on_verification(&interlay, &migration, &run, result).await;
        });
    }

    async fn on_verification(
        &self,
        interlay: &Interlay,
        migration: &Migration,
        run: &Run,
        result: Result<Verified, JobError>,
    ) {
        if run.progress.is_cancelled() || migration.is_over() {
            return;
        }
        migration.seen.borrow_mut().verification.running = None;
        match result {
            Ok(verified) => self.on_verified(interlay, migration, run, verified).await,
            Err(why) => {
                migration.seen.borrow_mut().verification.not_before = Instant::now() + limits::JOB_RETRY_PAUSE;
                let failed = ShadowEvent::JobFailed(FailedJob::Verification { why });
                self.events.lasting(failed, &migration.about()).await;
            }
        }
    }

    async fn on_verified(&self, interlay: &Interlay, migration: &Migration, run: &Run, verified: Verified) {
        let about = migration.about();
        let (keys, inconclusive) = (verified.keys, verified.inconclusive);
        let divergent = u64::try_from(verified.divergent.len()).unwrap_or(u64::MAX);
        let (new, resolved) = note(migration, run, &verified);
        if divergent > 0
            && let Err(error) = self.movers.repair(interlay.name(), verified.divergent).await
        {
            tracing::warn!(%error, "a repair could not be ordered; the next comparison will find the keys again");
        }
        self.events.lasting(ShadowEvent::VerificationDone { keys, divergent, inconclusive }, &about).await;
        if new > 0 {
            self.events.lasting(ShadowEvent::DivergenceFound { keys: new }, &about).await;
        }
        if resolved > 0 {
            self.events.lasting(ShadowEvent::DivergenceResolved { keys: resolved }, &about).await;
        }
    }
}

/// Takes the result into the ledger and as the newest comparison; how many keys are newly divergent, and how many resolved.
fn note(migration: &Migration, run: &Run, verified: &Verified) -> (u64, u64) {
    let at = now();
    let mut seen = migration.seen.borrow_mut();
    let mut new = 0;
    for sighting in &verified.divergent {
        new += u64::from(seen.divergences.ledger.note(sighting.clone(), at));
    }
    let divergent = u64::try_from(verified.divergent.len()).unwrap_or(u64::MAX);
    let scripts_ran = seen.shadow.facts.as_ref().is_some_and(|fresh| fresh.facts.unseen_last_at_ms > 0);
    seen.verification.strayed |= divergent > 0 && scripts_ran;
    let newest = Verification {
        started_at: run.began,
        finished_at: at,
        epoch: run.epoch,
        keys: verified.keys,
        divergent,
        inconclusive: verified.inconclusive,
    };
    let mut resolved = 0;
    if newest.is_clean() {
        resolved = seen.divergences.ledger.resolve_seen_before(run.began, at);
        seen.verification.clean_since.get_or_insert(at);
    } else {
        seen.verification.clean_since = None;
    }
    seen.divergences.unsaved |= resolved > 0 || divergent > 0;
    let took = Duration::from_millis(at.0.saturating_sub(run.began.0));
    let verification = &mut seen.verification;
    verification.newest = Some(newest);
    verification.keys += verified.keys;
    verification.count += 1;
    verification.not_before = Instant::now() + limits::JOB_RETRY_PAUSE;
    verification.again_at = Instant::now() + limits::VERIFY_PAUSE_MIN.max(4 * took);
    (new, resolved)
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
