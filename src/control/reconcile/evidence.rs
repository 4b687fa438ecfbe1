//! Gathers what was measured of a migration into the plain values its gates are judged by.

use super::state::{Control, Migration, Observed};
use crate::workflow::{Check, Evidence, Finding, LaneFacts, MigrationRecord, Severity, is_dual};
use base::model::limits;
use bus::LaneStatus;

impl Control {
    #[must_use]
    pub fn evidence(&self, migration: &Migration) -> Evidence {
        let seen = migration.seen.borrow();
        let record = migration.record.borrow();
        Evidence {
            source_reachable: seen.source.clone(),
            target_reachable: seen.target.clone(),
            target_exercised: seen.exercised.clone(),
            commands_observed: self.commands_total(&record.interlay).saturating_sub(seen.base_commands),
            seconds_observed: seen.base_at.elapsed().as_secs(),
            findings: seen.findings.clone(),
            target_keys: seen.target_keys.clone(),
            lane: fresh_lane(&record, &seen).map(|status| LaneFacts {
                uncopied: status.uncopied,
                dirty: status.dirty,
                in_flight: status.in_flight,
                reads_compared: status.reads_compared,
                altered: status.altered,
                authority_connected: status.authority_connected,
                shadow_connected: status.shadow_connected,
            }),
            pass_done: pass_done(&record, &seen),
            divergences_unresolved: seen.ledger.unresolved(),
            verification: seen.verification.clone(),
            clean_since: seen.clean_since,
            rollback_policy: seen.rollback_policy.clone(),
        }
    }
}

/// The newest status of the lane, or why it proves nothing.
pub(super) fn fresh_lane(record: &MigrationRecord, seen: &Observed) -> Result<LaneStatus, String> {
    if !is_dual(record) {
        return Err("the two sides are not kept in step".to_owned());
    }
    match seen.lane {
        None => Err("the lane has not reported yet".to_owned()),
        Some((_, at)) if at.elapsed() > limits::LANE_STATUS_AGE_MAX => {
            Err(format!("the lane has not reported for {} s", at.elapsed().as_secs()))
        }
        Some((status, _)) => Ok(status),
    }
}

fn pass_done(record: &MigrationRecord, seen: &Observed) -> Result<(), String> {
    match &seen.pass {
        None => Err("no pass over the keys has begun".to_owned()),
        Some(pass) if pass.epoch != record.authority.epoch => {
            Err("the pass that follows the change of authority has not begun".to_owned())
        }
        Some(pass) if !pass.done => Err(format!(
            "pass {}: {} of {} keys",
            pass.number,
            pass.progress.done.get(),
            match pass.progress.total.get() {
                0 => "an unknown number of".to_owned(),
                total => total.to_string(),
            }
        )),
        Some(_) => Ok(()),
    }
}

/// A finding of the jobs, as the workflow knows it.
pub(super) fn finding(from: movers::Finding) -> Finding {
    let severity = match from.severity {
        movers::Severity::Info => Severity::Info,
        movers::Severity::Warning => Severity::Warning,
        movers::Severity::Critical => Severity::Critical,
    };
    Finding { name: from.name, severity, detail: from.detail }
}

pub(super) fn passed(text: impl Into<String>) -> Check {
    Check::Passed(text.into())
}
