//! Gathers what was measured of a migration into the plain values its gates are judged by.

use super::feeds::offered;
use super::observed::Shadow;
use super::state::{Control, Migration};
use crate::workflow::{Evidence, MigrationRecord, Workload, is_dual};
use base::model::{PolicySettings, limits};
use movers::{ShadowFacts, own_gates};

impl Control {
    #[must_use]
    pub fn evidence(&self, migration: &Migration) -> Evidence {
        let seen = migration.seen.borrow();
        let record = migration.record.borrow();
        let shadow = fresh_facts(&record, &seen.shadow).map(|mut facts| {
            facts.reads = seen.reads_since_filled(facts.reads);
            facts
        });
        let own_policies = self.interlays.get(&record.interlay).map(|interlay| &interlay.config.policies.settings);
        let none = PolicySettings::default();
        let own_gates = own_gates(migration.source.kind(), shadow.as_ref().map_err(String::as_str));
        Evidence {
            source_reachable: seen.servers.source.clone(),
            target_reachable: seen.servers.target.clone(),
            target_exercised: seen.servers.exercised.clone(),
            workload: self.workload(migration),
            findings: seen.findings.found.clone(),
            findings_at: seen.findings.at,
            feeds: offered(&seen.findings.feeds, &record.decisions, [&record.policies, own_policies.unwrap_or(&none)]),
            target_keys: seen.servers.target_keys.clone(),
            shadow,
            pass_done: pass_done(&record, &seen.shadow),
            divergences: seen.divergences_open(),
            own_gates,
            verification: seen.verification.newest.clone(),
            strayed: seen.verification.strayed,
            clean_since: seen.verification.clean_since,
            rollback_policy: seen.policy.word.clone(),
        }
    }

    fn workload(&self, migration: &Migration) -> Result<Workload, String> {
        if self.cores.borrow().counters.is_empty() {
            return Err("the cores have not reported yet".to_owned());
        }
        let begin = &migration.seen.borrow().phase_begin;
        let commands = self.commands_total(&migration.interlay()).saturating_sub(begin.commands);
        Ok(Workload { commands, seconds: begin.at.elapsed().as_secs() })
    }
}

/// The newest facts of the shadow, or why they prove nothing.
pub(super) fn fresh_facts(record: &MigrationRecord, shadow: &Shadow) -> Result<ShadowFacts, String> {
    if !is_dual(record) {
        return Err("the two sides are not kept in step".to_owned());
    }
    match shadow.facts {
        None => Err("the mover has not reported yet".to_owned()),
        Some(fresh) if fresh.received.elapsed() > limits::LANE_STATUS_AGE_MAX => {
            Err(format!("the mover has not reported for {} s", fresh.received.elapsed().as_secs()))
        }
        Some(fresh) => Ok(fresh.facts),
    }
}

fn pass_done(record: &MigrationRecord, shadow: &Shadow) -> Result<(), String> {
    match &shadow.pass {
        None => Err("no pass over the keys has begun".to_owned()),
        Some(pass) if pass.epoch != record.authority.epoch => {
            Err("the pass that follows the change of authority has not begun".to_owned())
        }
        Some(pass) if !pass.done => Err(format!(
            "pass {}: {} of {} keys",
            pass.number,
            pass.progress.done(),
            match pass.progress.total() {
                0 => "an unknown number of".to_owned(),
                total => total.to_string(),
            }
        )),
        Some(_) => Ok(()),
    }
}
