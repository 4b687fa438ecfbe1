//! `transition`: a record, a command and the evidence in; a new record and its events out, or a refusal that says why.
//!
//! Changes nothing itself. Repeating a command that has already taken effect gives the same record again.

use std::fmt;

use super::evidence::Evidence;
use super::feeds::chosen_feed;
use super::gates::{Gate, feed_gate, flip_gates, gates_now, leave_gates, retry_gates, unmet};
use super::phase::Phase;
use super::record::{Ended, FirstCopy, MigrationRecord, Rehearsal, SmokeResult};
use crate::events::MigrationEvent;
use base::model::{
    Approval, ApprovalScope, AutoThrough, Flip, MigrationStatus, PolicyChoice, PolicySlot, ShadowFrom, Side, Timestamp,
    Waiver, limits,
};

/// What an operator, or a run that advances automatically, asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Run {
        auto: AutoThrough,
    },
    /// `None`: the phase after the present one.
    Advance {
        to: Option<Phase>,
    },
    /// `None`: whichever approval is due next.
    Approve {
        scope: Option<ApprovalScope>,
        by: String,
        reason: String,
    },
    Waive {
        finding: String,
        by: String,
        reason: String,
    },
    Pause,
    Resume,
    Rollback {
        reason: String,
    },
    /// `force` skips the gates, except that the target must be authoritative.
    Commit {
        force: Option<String>,
    },
    Abandon {
        reason: String,
    },
    /// What makes one decision of this migration; `None`: what makes it for the interlay.
    SetPolicy {
        slot: PolicySlot,
        choice: Option<PolicyChoice>,
    },
    /// Clients are held and both sides are equal: exchange the roles.
    Flip,
}

/// Something control observed that the record must remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    PreTestPassed,
    Rehearsed { pause_us: u64 },
    Smoked { checks: u32, failed: Vec<String> },
    Released { pause_us: u64 },
    FirstCopied { copy: FirstCopy },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub record: MigrationRecord,
    /// What happened, for the journal and subscribers. Empty when the command had already taken effect.
    pub events: Vec<MigrationEvent>,
}

/// Why nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Trying again later may succeed.
    UnmetGates { step: String, gates: Vec<Gate> },
    /// Does not fit where the migration stands.
    WrongPhase(String),
    /// The command itself is incomplete.
    Invalid(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnmetGates { step, gates } => {
                let are = if gates.len() == 1 { "gate is" } else { "gates are" };
                write!(f, "{step} is refused: {} {are} not met", gates.len())?;
                for gate in gates {
                    write!(f, "; {}: {} (needs {})", gate.name, gate.measured, gate.threshold)?;
                }
                Ok(())
            }
            Self::WrongPhase(text) | Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

fn wrong<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::WrongPhase(text.into()))
}

/// # Errors
/// [`Refusal`]; the record stays as it is.
pub fn transition(
    record: &MigrationRecord,
    command: Command,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Transition, Refusal> {
    if let Some(ended) = &record.ended {
        return after_the_end(record, ended, &command);
    }
    let mut next = record.clone();
    let events = match command {
        Command::Run { auto } => run(&mut next, auto)?,
        Command::Advance { to } => advance(&mut next, to, evidence, now)?,
        Command::Approve { scope, by, reason } => approve(&mut next, scope, by, reason, now)?,
        Command::Waive { finding, by, reason } => waive(&mut next, finding, by, reason, now)?,
        Command::Pause => pause(&mut next)?,
        Command::Resume => resume(&mut next)?,
        Command::Rollback { reason } => rollback(&mut next, reason, evidence, now)?,
        Command::Commit { force } => commit(&mut next, force, evidence, now)?,
        Command::Abandon { reason } => abandon(&mut next, reason, now)?,
        Command::SetPolicy { slot, choice } => set_policy(&mut next, slot, choice),
        Command::Flip => flip(&mut next, evidence, now)?,
    };
    assert!(next.phase.allows(next.authority.side), "phase {} with {}", next.phase, next.authority.side);
    assert_eq!(next.dual_since.is_some(), next.feed.is_some(), "a feed from the beginning of dual operation on");
    Ok(Transition { record: next, events })
}

fn after_the_end(record: &MigrationRecord, ended: &Ended, command: &Command) -> Result<Transition, Refusal> {
    let repeated = match (ended, command) {
        (Ended::Committed { .. }, Command::Commit { .. }) | (Ended::Abandoned { .. }, Command::Abandon { .. }) => true,
        (Ended::Committed { .. } | Ended::Abandoned { .. }, _) => false,
    };
    if repeated {
        return Ok(Transition { record: record.clone(), events: Vec::new() });
    }
    match ended {
        Ended::Committed { .. } => wrong(format!(
            "migration {} is committed: the target {} is authoritative and the source is no longer kept in step; to move again, create a new migration",
            record.id, record.target
        )),
        Ended::Abandoned { .. } => wrong(format!("migration {} is abandoned: create a new one", record.id)),
    }
}

/// The phase changes; where dual operation begins with it, the feed is chosen, once for all.
fn enter(
    record: &mut MigrationRecord,
    phase: Phase,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    let from = record.phase;
    let mut events = vec![MigrationEvent::PhaseChanged { from, to: phase, authority: record.authority.side }];
    let begins_dual = match record.decisions.shadow_from {
        ShadowFrom::Compare => phase.may_be_dual(),
        ShadowFrom::Migrate => phase == Phase::Migrate,
    };
    if begins_dual && record.dual_since.is_none() {
        let refused =
            |_| Refusal::UnmetGates { step: format!("entering {phase}"), gates: vec![feed_gate(record, evidence)] };
        let (feed, why) = chosen_feed(record, evidence).map_err(refused)?;
        record.dual_since = Some(now);
        record.feed = Some(feed);
        record.feed_reason = Some(why.clone());
        events.push(MigrationEvent::FeedChosen { feed, why });
    }
    record.phase = phase;
    record.phase_since = now;
    Ok(events)
}

fn run(record: &mut MigrationRecord, auto: AutoThrough) -> Result<Vec<MigrationEvent>, Refusal> {
    if record.phase == Phase::Rollback {
        let id = &record.id;
        return wrong(match record.authority.side {
            Side::Target => format!("migration {id} is on its way back to the source: wait for that first"),
            Side::Source => format!(
                "migration {id} was rolled back, and a run does not begin the next try: `migration advance {id} --to compare` does (or test, or \
                 migrate), then run it; `migration abandon {id}` ends it"
            ),
        });
    }
    let mut events = Vec::new();
    match record.status {
        MigrationStatus::Pending | MigrationStatus::Ready | MigrationStatus::Paused => {
            record.status = MigrationStatus::Running;
            events.push(MigrationEvent::RunStarted { run: record.run, phase: record.phase });
        }
        MigrationStatus::Running
        | MigrationStatus::RollingBack
        | MigrationStatus::RolledBack
        | MigrationStatus::Completed
        | MigrationStatus::Failed => {}
    }
    if record.auto != auto {
        record.auto = auto;
        events.push(MigrationEvent::RunDrivesItself { through: auto });
    }
    Ok(events)
}

fn advance(
    record: &mut MigrationRecord,
    to: Option<Phase>,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    let from = record.phase;
    let Some(to) = to.or_else(|| from.next()) else { return wrong(format!("there is no phase after {from}")) };
    if to == from {
        return Ok(Vec::new());
    }
    if record.status == MigrationStatus::Paused {
        return wrong(format!("migration {} is paused: resume it first", record.id));
    }
    let gates = match (from, to) {
        (Phase::Rollback, Phase::Compare | Phase::Test | Phase::Migrate) => retry_gates(record, evidence, now, to),
        (Phase::Migrate, Phase::Commit) => return commit(record, None, evidence, now),
        (_, Phase::Rollback) => return wrong("a rollback is not an advance: use `migration rollback --reason`"),
        (Phase::Rollback, _) => {
            return wrong(format!("from rollback advance to compare, test or migrate, not to {to}"));
        }
        (_, _) if from.next() == Some(to) => leave_gates(record, evidence, now, from),
        (_, _) => {
            return wrong(format!(
                "{to} does not follow {from}: advance goes one phase at a time{}",
                from.next().map(|next| format!(", the next is {next}")).unwrap_or_default()
            ));
        }
    };
    let mut events = vec![pass(format!("advance from {from} to {to}"), gates)?];
    events.extend(enter(record, to, evidence, now)?);
    record.status = MigrationStatus::Running;
    Ok(events)
}

/// All met: the event that keeps each with its value, for the evidence report. Otherwise the refusal.
fn pass(step: String, gates: Vec<Gate>) -> Result<MigrationEvent, Refusal> {
    let open = unmet(gates.clone());
    if open.is_empty() {
        Ok(MigrationEvent::GatesPassed { step, gates })
    } else {
        Err(Refusal::UnmetGates { step, gates: open })
    }
}

fn person(what: &str, by: &str, reason: &str) -> Result<(), Refusal> {
    for (name, value) in [("by", by), ("reason", reason)] {
        if value.trim().is_empty() {
            return Err(Refusal::Invalid(format!("{what} needs {name}: it is kept in the evidence report")));
        }
        if value.len() > limits::REASON_BYTES_MAX {
            return Err(Refusal::Invalid(format!("{name} is longer than {} bytes", limits::REASON_BYTES_MAX)));
        }
    }
    Ok(())
}

/// The approval that is due next.
fn due_scope(record: &MigrationRecord) -> ApprovalScope {
    match (record.phase, record.authority.side) {
        (Phase::Migrate, Side::Source) if record.decisions.hold_before_flip => ApprovalScope::Flip,
        (Phase::Migrate, _) => ApprovalScope::Commit,
        (
            Phase::PreTest | Phase::Analyze | Phase::Compare | Phase::Test | Phase::Rollback | Phase::Commit,
            Side::Source | Side::Target,
        ) => ApprovalScope::Migrate,
    }
}

fn approve(
    record: &mut MigrationRecord,
    scope: Option<ApprovalScope>,
    by: String,
    reason: String,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    person("an approval", &by, &reason)?;
    let scope = scope.unwrap_or_else(|| due_scope(record));
    if record.approvals.iter().any(|old| old.scope == scope && old.run == record.run && old.by == by) {
        return Ok(Vec::new());
    }
    let given = Approval { scope, by, reason, at: now, run: record.run };
    record.approvals.push(given.clone());
    Ok(vec![MigrationEvent::ApprovalGiven(given)])
}

fn waive(
    record: &mut MigrationRecord,
    finding: String,
    by: String,
    reason: String,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    person("a waiver", &by, &reason)?;
    if finding.trim().is_empty() {
        return Err(Refusal::Invalid("a waiver needs the name of a finding, as `migration show` prints it".to_owned()));
    }
    if record.waivers.iter().any(|old| old.finding == finding) {
        return Ok(Vec::new());
    }
    let waiver = Waiver { finding, by, reason, at: now };
    record.waivers.push(waiver.clone());
    Ok(vec![MigrationEvent::FindingWaived(waiver)])
}

fn pause(record: &mut MigrationRecord) -> Result<Vec<MigrationEvent>, Refusal> {
    match record.status {
        MigrationStatus::Paused => Ok(Vec::new()),
        MigrationStatus::Pending | MigrationStatus::Ready | MigrationStatus::Running => {
            record.status = MigrationStatus::Paused;
            Ok(vec![MigrationEvent::RunPaused { phase: record.phase }])
        }
        MigrationStatus::RollingBack
        | MigrationStatus::RolledBack
        | MigrationStatus::Completed
        | MigrationStatus::Failed => wrong(format!("a migration that is {} cannot be paused", record.status)),
    }
}

fn resume(record: &mut MigrationRecord) -> Result<Vec<MigrationEvent>, Refusal> {
    match record.status {
        MigrationStatus::Paused => {
            record.status = MigrationStatus::Running;
            Ok(vec![MigrationEvent::RunResumed { phase: record.phase }])
        }
        MigrationStatus::Running => Ok(Vec::new()),
        MigrationStatus::Pending
        | MigrationStatus::Ready
        | MigrationStatus::RollingBack
        | MigrationStatus::RolledBack
        | MigrationStatus::Completed
        | MigrationStatus::Failed => wrong(format!("a migration that is {} is not paused", record.status)),
    }
}

fn rollback(
    record: &mut MigrationRecord,
    reason: String,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    person("a rollback", "operator", &reason)?;
    match record.phase {
        Phase::Rollback => return Ok(Vec::new()),
        Phase::Compare | Phase::Test | Phase::Migrate => {}
        Phase::PreTest | Phase::Analyze | Phase::Commit => {
            return wrong(format!(
                "there is nothing to roll back in {}: all traffic is on the source; `migration abandon` ends the migration",
                record.phase
            ));
        }
    }
    let entered = enter(record, Phase::Rollback, evidence, now)?;
    // What was approved for this run does not hold for the next.
    record.run += 1;
    record.auto = AutoThrough::Nothing;
    record.status = match record.authority.side {
        Side::Target => MigrationStatus::RollingBack,
        Side::Source => MigrationStatus::RolledBack,
    };
    record.rollback_reason = Some(reason.clone());
    let mut events = vec![MigrationEvent::RollbackTriggered { reason }];
    events.extend(entered);
    Ok(events)
}

fn commit(
    record: &mut MigrationRecord,
    force: Option<String>,
    evidence: &Evidence,
    now: Timestamp,
) -> Result<Vec<MigrationEvent>, Refusal> {
    if record.phase != Phase::Migrate {
        return wrong(format!("commit follows migrate; migration {} is in {}", record.id, record.phase));
    }
    let mut events = Vec::new();
    match &force {
        None => {
            events.push(pass("commit".to_owned(), leave_gates(record, evidence, now, Phase::Migrate))?);
        }
        Some(reason) => {
            person("a forced commit", "operator", reason)?;
            if record.authority.side == Side::Source {
                return wrong("commit cannot be forced while the source is authoritative: nothing has moved yet");
            }
            let open = unmet(leave_gates(record, evidence, now, Phase::Migrate));
            let unmet = open.iter().map(|gate| gate.name).collect();
            events.push(MigrationEvent::CommitForced { reason: reason.clone(), unmet });
        }
    }
    events.extend(enter(record, Phase::Commit, evidence, now)?);
    record.status = MigrationStatus::Completed;
    record.auto = AutoThrough::Nothing;
    record.ended = Some(Ended::Committed { at: now, forced: force });
    Ok(events)
}

fn abandon(record: &mut MigrationRecord, reason: String, now: Timestamp) -> Result<Vec<MigrationEvent>, Refusal> {
    if record.authority.side == Side::Target {
        return wrong("the target is authoritative: roll back first, then abandon");
    }
    let reason = if reason.trim().is_empty() { "no reason given".to_owned() } else { reason };
    person("an abandonment", "operator", &reason)?;
    record.status = MigrationStatus::RolledBack;
    record.auto = AutoThrough::Nothing;
    record.ended = Some(Ended::Abandoned { at: now, reason: reason.clone() });
    Ok(vec![MigrationEvent::Abandoned { phase: record.phase, reason }])
}

/// Allowed in every phase. Whether the filter is there and takes its configuration is known to control, which asks first.
fn set_policy(record: &mut MigrationRecord, slot: PolicySlot, choice: Option<PolicyChoice>) -> Vec<MigrationEvent> {
    if record.policies.get(slot) == choice.as_ref() {
        return Vec::new();
    }
    record.policies.set(slot, choice.clone());
    vec![MigrationEvent::PolicySet { slot, choice }]
}

/// The authority changes: forward in `migrate`, back in `rollback`, nowhere else.
fn flip(record: &mut MigrationRecord, evidence: &Evidence, now: Timestamp) -> Result<Vec<MigrationEvent>, Refusal> {
    match (record.phase, record.authority.side) {
        (Phase::Migrate, Side::Source) | (Phase::Rollback, Side::Target) => {}
        (phase, side) => return wrong(format!("no change of authority is due in {phase} on the {side}")),
    }
    let passed = pass("the change of authority".to_owned(), flip_gates(record, evidence, now))?;
    record.authority = record.authority.flipped();
    let to = record.authority.side;
    record.flips.push(Flip { at: now, to, epoch: record.authority.epoch, pause_us: None });
    if to == Side::Source {
        record.status = MigrationStatus::RolledBack;
    }
    Ok(vec![passed, MigrationEvent::AuthorityChanged { to, epoch: record.authority.epoch }])
}

/// Remembers a fact. Facts that no longer matter leave the record as it is.
#[must_use]
pub fn observe(record: &MigrationRecord, fact: Fact, now: Timestamp) -> Transition {
    let mut next = record.clone();
    let mut events = Vec::new();
    match fact {
        Fact::PreTestPassed => {
            if next.status == MigrationStatus::Pending {
                next.status = MigrationStatus::Ready;
                events.push(MigrationEvent::PreTestPassed);
            }
        }
        Fact::Rehearsed { pause_us } => {
            next.rehearsal = Some(Rehearsal { at: now, pause_us });
            events.push(MigrationEvent::Rehearsed { pause_us });
        }
        Fact::Smoked { checks, failed } => {
            events.push(MigrationEvent::SmokeChecked { checks, failed: failed.len() });
            next.smoke = Some(SmokeResult { at: now, checks, failed });
        }
        Fact::FirstCopied { copy } => {
            if next.first_copy.is_none() {
                let FirstCopy { began_at, finished_at, keys, bytes } = copy;
                let took_ms = finished_at.0.saturating_sub(began_at.0);
                next.first_copy = Some(copy);
                events.push(MigrationEvent::FirstCopied { keys, bytes, took_ms });
            }
        }
        Fact::Released { pause_us } => {
            if let Some(flip) = next.flips.last_mut() {
                flip.pause_us = Some(pause_us);
                events.push(MigrationEvent::WritesReleased { to: flip.to, pause_us });
            }
        }
    }
    Transition { record: next, events }
}

/// Whether a run that advances automatically should try to advance now, and with what.
#[must_use]
pub fn auto_step(record: &MigrationRecord, evidence: &Evidence, now: Timestamp) -> Option<Command> {
    if record.is_over() || record.status != MigrationStatus::Running {
        return None;
    }
    let wants = match (record.auto, record.phase) {
        (AutoThrough::Nothing, _) => false,
        (AutoThrough::Flip | AutoThrough::Commit, Phase::PreTest | Phase::Analyze | Phase::Compare | Phase::Test) => {
            true
        }
        (AutoThrough::Commit, Phase::Migrate) => record.authority.side == Side::Target,
        (AutoThrough::Flip, Phase::Migrate)
        | (AutoThrough::Flip | AutoThrough::Commit, Phase::Rollback | Phase::Commit) => false,
    };
    (wants && gates_now(record, evidence, now).iter().all(|gate| gate.met)).then_some(Command::Advance { to: None })
}
