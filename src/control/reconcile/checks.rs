//! Looks at the servers of a migration: whether they answer, whether they fit each other, whether the target can be used. Control thread.
//!
//! Each check is a local task that asks the movers' thread and notes the result; no borrow is held across an await.

use std::rc::Rc;
use std::time::Instant;

use super::clock::now;
use super::state::{Control, Migration};
use crate::workflow::{Fact, is_dual};
use base::model::{Endpoint, MigrationStatus, limits};
use movers::{Check, CheckLine, JobError, ServerFacts, WriteProbe};

impl Control {
    /// Looks at one server and remembers what it found.
    ///
    /// # Errors
    /// [`JobError`] of the look.
    pub async fn look_at(&self, endpoint: &Endpoint) -> Result<ServerFacts, JobError> {
        let result = self.movers.look(endpoint).await;
        let kept = match &result {
            Ok(facts) => Ok((facts.clone(), now())),
            Err(error) => Err(error.to_string()),
        };
        self.facts.borrow_mut().insert(endpoint.name.clone(), kept);
        result
    }

    /// Counts the target's keys now, for the conflict policy.
    pub async fn count_target(&self, migration: &Migration) {
        let keys = keys(&self.look_at(&migration.target).await);
        migration.seen.borrow_mut().servers.target_keys = keys;
    }

    /// Both servers answer; in `pre-test` the target is also exercised.
    pub(super) fn spawn_checks(self: &Rc<Self>, migration: &Rc<Migration>) {
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        migration.seen.borrow_mut().servers.checking = true;
        tokio::task::spawn_local(async move {
            control.check(&migration).await;
            let mut seen = migration.seen.borrow_mut();
            seen.servers.checking = false;
            seen.servers.checked_at = Some(Instant::now());
        });
    }

    async fn check(&self, migration: &Migration) {
        let source = self.look_at(&migration.source).await;
        let target = self.look_at(&migration.target).await;
        {
            let servers = &mut migration.seen.borrow_mut().servers;
            servers.target_keys = keys(&target);
            servers.source = reachable(source);
            servers.target = reachable(target);
        }
        let exercise = migration.record.borrow().phase == crate::workflow::Phase::PreTest;
        if exercise && !matches!(migration.seen.borrow().servers.exercised, Check::Passed(_)) {
            let exercised = self.exercise(migration).await;
            migration.seen.borrow_mut().servers.exercised = exercised;
        }
        let ready = {
            let servers = &migration.seen.borrow().servers;
            let all = [&servers.source, &servers.target, &servers.exercised];
            all.iter().all(|check| matches!(check, Check::Passed(_)))
        };
        if ready && migration.record.borrow().status == MigrationStatus::Pending {
            self.note_fact(migration, Fact::PreTestPassed).await;
        }
    }

    async fn exercise(&self, migration: &Migration) -> Check {
        match self.movers.exercise(&migration.target).await {
            Ok(lines) => {
                let failed = failures(&lines);
                if failed.is_empty() {
                    Check::Passed(format!("{} checks passed", lines.len()))
                } else {
                    Check::Failed(failed.join("; "))
                }
            }
            Err(error) => Check::Unknown(error.to_string()),
        }
    }

    pub(super) fn spawn_comparison(self: &Rc<Self>, migration: &Rc<Migration>) {
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        migration.seen.borrow_mut().findings.comparing = true;
        tokio::task::spawn_local(async move {
            let began_at = now();
            let dual = is_dual(&migration.record.borrow());
            let writes = if dual { WriteProbe::Forbidden } else { WriteProbe::Allowed };
            let found = control.movers.compatibility(&migration.source, &migration.target, writes).await;
            // Which feed it is was decided when the first copy began.
            let feeds =
                if dual { None } else { Some(control.movers.feeds(&migration.source, &migration.target).await) };
            let findings = &mut migration.seen.borrow_mut().findings;
            if let Some(feeds) = feeds {
                findings.feeds = feeds.map_err(|error| error.to_string());
            }
            findings.compared(writes, found.map_err(|error| error.to_string()));
            findings.comparing = false;
            findings.at = Some(began_at);
        });
    }

    /// The smoke checks of phase `test`.
    pub(super) fn spawn_smoke(self: &Rc<Self>, migration: &Rc<Migration>) {
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        migration.seen.borrow_mut().smoke.running = true;
        tokio::task::spawn_local(async move {
            let fact = match control.movers.exercise(&migration.target).await {
                Ok(lines) => {
                    let checks = u32::try_from(lines.len()).unwrap_or(u32::MAX);
                    Fact::Smoked { checks, failed: failures(&lines) }
                }
                Err(error) => Fact::Smoked { checks: 0, failed: vec![error.to_string()] },
            };
            control.note_fact(&migration, fact).await;
            let smoke = &mut migration.seen.borrow_mut().smoke;
            smoke.running = false;
            smoke.not_before = Instant::now() + 5 * limits::JOB_RETRY_PAUSE;
        });
    }

    /// The first copy has ended and the record does not say so yet.
    pub(super) fn spawn_first_copy(self: &Rc<Self>, migration: &Rc<Migration>) {
        let Some(copy) = migration.seen.borrow_mut().shadow.first_copy.take() else { return };
        let (control, migration) = (Rc::clone(self), Rc::clone(migration));
        tokio::task::spawn_local(async move { control.note_fact(&migration, Fact::FirstCopied { copy }).await });
    }

    /// Records a fact of a migration that is not over, in turn with other changes.
    async fn note_fact(&self, migration: &Migration, fact: Fact) {
        let Ok(interlay) = self.interlay(&migration.interlay()) else { return };
        let _change = interlay.change.lock().await;
        if !migration.is_over() {
            self.remember(migration, fact).await;
        }
    }
}

fn keys(facts: &Result<ServerFacts, JobError>) -> Result<u64, String> {
    let facts = facts.as_ref().map_err(ToString::to_string)?;
    facts.keys().map_err(|why| why.to_string())
}

fn reachable(result: Result<ServerFacts, JobError>) -> Check {
    match result {
        Ok(facts) => Check::Passed(facts.summary()),
        Err(error) => Check::Failed(error.to_string()),
    }
}

fn failures(lines: &[CheckLine]) -> Vec<String> {
    lines.iter().filter_map(|(name, outcome)| outcome.as_ref().err().map(|why| format!("{name}: {why}"))).collect()
}
