//! Starts the jobs of a migration and takes their results. Each runs as a local task; none holds a borrow across an await.

use std::rc::Rc;

use tokio::time::{Instant, sleep};

use super::evidence::{finding, passed};
use super::state::{Control, Interlay, Migration, now};
use crate::workflow::{Check, Fact, Verification};
use base::model::{Endpoint, Sighting, Timestamp, limits};
use bus::PassKind;
use movers::{self, BackfillSpec, JobError, Progress, ServerFacts, Verified, VerifySpec};

/// Every key; verification for a gate never samples.
const EVERY_KEY: u16 = 10_000;

impl Control {
    /// Looks at one server and remembers what it found.
    ///
    /// # Errors
    /// [`JobError`] of the check.
    pub async fn look_at(&self, endpoint: &Endpoint) -> Result<ServerFacts, JobError> {
        let result = movers::look(endpoint).await;
        let kept = match &result {
            Ok(facts) => Ok((facts.clone(), now())),
            Err(error) => Err(error.to_string()),
        };
        self.facts.borrow_mut().insert(endpoint.name.clone(), kept);
        result
    }

    /// Counts the target's keys now, for the conflict policy.
    pub async fn count_target(&self, migration: &Migration) {
        let keys =
            self.look_at(&migration.target).await.map(|facts| keys_of(&facts)).map_err(|error| error.to_string());
        migration.seen.borrow_mut().target_keys = keys;
    }

    /// Both servers answer; in `pre-test` the target is also exercised.
    pub(super) fn spawn_checks(self: &Rc<Self>, migration: &Rc<Migration>, exercise: bool) {
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        migration.seen.borrow_mut().checking = true;
        tokio::task::spawn_local(async move {
            let source = control.look_at(&migration.source).await;
            let target = control.look_at(&migration.target).await;
            {
                let mut seen = migration.seen.borrow_mut();
                seen.target_keys = target.as_ref().map(keys_of).map_err(ToString::to_string);
                seen.source = reachable(source);
                seen.target = reachable(target);
            }
            if exercise && !matches!(migration.seen.borrow().exercised, Check::Passed(_)) {
                let exercised = control.exercise(&migration).await;
                migration.seen.borrow_mut().exercised = exercised;
            }
            let ready = {
                let mut seen = migration.seen.borrow_mut();
                seen.checking = false;
                seen.checked_at = Some(Instant::now());
                [&seen.source, &seen.target, &seen.exercised].iter().all(|check| matches!(check, Check::Passed(_)))
            };
            let pending = migration.record.borrow().status == base::model::MigrationStatus::Pending;
            if ready && pending {
                let name = migration.record.borrow().interlay.clone();
                if let Ok(interlay) = control.interlay(&name) {
                    let _change = interlay.change.lock().await;
                    control.remember(&migration, Fact::PreTestPassed).await;
                }
            }
        });
    }

    async fn exercise(&self, migration: &Migration) -> Check {
        match movers::smoke(&migration.target).await {
            Ok(lines) => {
                let failed: Vec<_> = failures(&lines);
                if failed.is_empty() {
                    passed(format!("{} checks passed", lines.len()))
                } else {
                    Check::Failed(failed.join("; "))
                }
            }
            Err(error) => Check::Unknown(error.to_string()),
        }
    }

    pub(super) fn spawn_comparison(self: &Rc<Self>, migration: &Rc<Migration>) {
        let migration = Rc::clone(migration);
        migration.seen.borrow_mut().comparing = true;
        tokio::task::spawn_local(async move {
            let dual = crate::workflow::is_dual(&migration.record.borrow());
            let payloads = if dual { movers::PayloadProbe::Skip } else { movers::PayloadProbe::Write };
            let result = movers::compatibility(&migration.source, &migration.target, payloads).await;
            let mut seen = migration.seen.borrow_mut();
            seen.findings = match result {
                Ok(findings) => Ok(findings.into_iter().map(finding).collect()),
                Err(error) => Err(error.to_string()),
            };
            seen.comparing = false;
            seen.findings_at = Some(Instant::now());
        });
    }

    /// The smoke checks of phase `test`.
    pub(super) fn spawn_smoke(self: &Rc<Self>, migration: &Rc<Migration>) {
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        migration.seen.borrow_mut().smoking = true;
        tokio::task::spawn_local(async move {
            let fact = match movers::smoke(&migration.target).await {
                Ok(lines) => {
                    let checks = u32::try_from(lines.len()).unwrap_or(u32::MAX);
                    Fact::Smoked { checks, failed: failures(&lines) }
                }
                Err(error) => Fact::Smoked { checks: 0, failed: vec![error.to_string()] },
            };
            let name = migration.record.borrow().interlay.clone();
            if let Ok(interlay) = control.interlay(&name) {
                let _change = interlay.change.lock().await;
                if !migration.is_over() {
                    control.remember(&migration, fact).await;
                }
            }
            let mut seen = migration.seen.borrow_mut();
            seen.smoking = false;
            seen.smoke_after = Instant::now() + 5 * limits::JOB_RETRY_PAUSE;
        });
    }

    /// Names every key of a pass to the lane; tried again until it is done or void.
    pub(super) fn spawn_backfill(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        migration: &Rc<Migration>,
        pass: u64,
        kind: PassKind,
        progress: Rc<Progress>,
    ) {
        let (control, interlay, migration) = (Rc::clone(self), Rc::clone(interlay), Rc::clone(migration));
        tokio::task::spawn_local(async move {
            while !progress.cancelled.get() {
                let (authority, shadow) = migration.sides();
                let spec = BackfillSpec { authority, shadow, pass, kind };
                let about = migration.about();
                match movers::backfill(spec, interlay.lane.clone(), Rc::clone(&progress)).await {
                    Ok(copied) => {
                        let mut seen = migration.seen.borrow_mut();
                        seen.bytes_copied.set(seen.bytes_copied.get() + copied.bytes);
                        if let Some(now) = seen.pass.as_mut().filter(|now| now.number == pass) {
                            now.done = true;
                        }
                        drop(seen);
                        let text = format!(
                            "pass {pass}: {} keys copied, {} gone, {} clean already, {} to be tried again, {} bytes",
                            copied.copied, copied.absent, copied.clean, copied.failed, copied.bytes
                        );
                        control.events.lasting("pass_done", &about, text, now());
                        return;
                    }
                    Err(JobError::Cancelled) => return,
                    Err(error @ (JobError::Endpoint(_) | JobError::Lane(_) | JobError::Protocol(_))) => {
                        let text = format!("pass {pass} was interrupted and begins again: {error}");
                        control.events.lasting("job_failed", &about, text, now());
                        sleep(limits::JOB_RETRY_PAUSE).await;
                    }
                }
            }
        });
    }

    /// Compares every key of both sides, once.
    pub(super) fn spawn_verification(self: &Rc<Self>, interlay: &Rc<Interlay>, migration: &Rc<Migration>) {
        let (control, interlay, migration) = (Rc::clone(self), Rc::clone(interlay), Rc::clone(migration));
        let progress = Rc::new(Progress::default());
        migration.seen.borrow_mut().verifying = Some(Rc::clone(&progress));
        tokio::task::spawn_local(async move {
            let (authority, shadow) = migration.sides();
            let (epoch, grace) = {
                let record = migration.record.borrow();
                (record.authority.epoch, record.decisions.thresholds.ttl_grace_ms)
            };
            // The shadow's deadline is later by the grace; anything up to twice of it is the rule at work, not a difference.
            let ttl_tolerance_ms = grace.saturating_mul(2);
            let spec = VerifySpec { authority, shadow, ttl_tolerance_ms, sample_per_ten_thousand: EVERY_KEY };
            let began = now();
            let result = movers::verify(spec, interlay.lane.clone(), Rc::clone(&progress)).await;
            if progress.cancelled.get() || migration.is_over() {
                return;
            }
            migration.seen.borrow_mut().verifying = None;
            match result {
                Ok(verified) => control.on_verified(&interlay, &migration, began, epoch, &verified),
                Err(error) => {
                    migration.seen.borrow_mut().verify_after = Instant::now() + limits::JOB_RETRY_PAUSE;
                    control.events.lasting("job_failed", &migration.about(), format!("verification: {error}"), now());
                }
            }
        });
    }

    fn on_verified(
        &self,
        interlay: &Interlay,
        migration: &Migration,
        began: Timestamp,
        epoch: base::model::Epoch,
        verified: &Verified,
    ) {
        let at = now();
        let about = migration.about();
        let divergent = u64::try_from(verified.divergent.len()).unwrap_or(u64::MAX);
        let mut new = 0_u64;
        let mut resolved = 0;
        {
            let mut seen = migration.seen.borrow_mut();
            for divergence in &verified.divergent {
                let seen_now = Sighting {
                    database: divergence.database,
                    key: divergence.key.clone(),
                    class: divergence.class.to_owned(),
                    source: divergence.source.clone(),
                    target: divergence.target.clone(),
                };
                new += u64::from(seen.ledger.note(seen_now, at));
            }
            let clean = divergent == 0 && verified.inconclusive == 0;
            if clean {
                resolved = seen.ledger.resolve_seen_before(began, at);
                seen.clean_since.get_or_insert(at);
            } else {
                seen.clean_since = None;
            }
            seen.ledger_unsaved |= new > 0 || resolved > 0 || divergent > 0;
            seen.keys_verified += verified.keys;
            seen.verifications += 1;
            let (keys, inconclusive) = (verified.keys, verified.inconclusive);
            seen.verification =
                Some(Verification { started_at: began, finished_at: at, epoch, keys, divergent, inconclusive });
            seen.verify_after = Instant::now() + limits::JOB_RETRY_PAUSE;
            let took = std::time::Duration::from_millis(at.0.saturating_sub(began.0));
            seen.verify_again = Instant::now() + limits::VERIFY_PAUSE_MIN.max(4 * took);
        }
        for divergence in &verified.divergent {
            // Marked dirty, the lane copies it again; the next comparison tells.
            if let Err(error) = interlay.lane.repair(divergence.database, vec![divergence.key.clone().into()]) {
                tracing::warn!(%error, "a repair could not be ordered; the next comparison will find the key again");
                break;
            }
        }
        let text =
            format!("{} keys compared, {divergent} divergent, {} inconclusive", verified.keys, verified.inconclusive);
        self.events.lasting("verification_done", &about, text, at);
        if new > 0 {
            self.events.lasting("divergence_found", &about, format!("{new} keys differ; repair ordered"), at);
        }
        if resolved > 0 {
            self.events.lasting("divergence_resolved", &about, format!("{resolved} keys are proven equal again"), at);
        }
    }
}

fn keys_of(facts: &ServerFacts) -> u64 {
    match facts {
        ServerFacts::Redis(facts) => facts.databases.iter().map(|(_, keys, _)| keys).sum(),
        // Nothing is ever copied to one in this version.
        ServerFacts::Postgres(_) => 0,
    }
}

fn reachable(result: Result<ServerFacts, JobError>) -> Check {
    match result {
        Ok(ServerFacts::Postgres(facts)) => {
            passed(format!("PostgreSQL {} answers in {} us", facts.version, facts.ping_us))
        }
        Ok(ServerFacts::Redis(facts)) => {
            passed(format!("{} {} answers in {} us", facts.server, facts.version, facts.ping_us))
        }
        Err(error) => Check::Failed(error.to_string()),
    }
}

fn failures(lines: &[(String, Result<(), String>)]) -> Vec<String> {
    lines.iter().filter_map(|(name, outcome)| outcome.as_ref().err().map(|why| format!("{name}: {why}"))).collect()
}
