//! Events of a migration as its workflow sees it: the lines of an evidence report.

use std::fmt;

use base::model::{
    Approval, AutoThrough, EndpointName, Epoch, FeedKind, MigrationId, PolicyChoice, PolicySlot, Side, Strategy, Waiver,
};

use crate::workflow::{Gate, Phase};

/// The journal keeps at most this much of the text about a policy: its configuration may be long.
const POLICY_TEXT_CHARS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigrationEvent {
    Created {
        source: EndpointName,
        target: EndpointName,
        strategy: Strategy,
    },
    PreTestPassed,
    RunStarted {
        run: u32,
        phase: Phase,
    },
    RunDrivesItself {
        through: AutoThrough,
    },
    RunPaused {
        phase: Phase,
    },
    RunResumed {
        phase: Phase,
    },
    PhaseChanged {
        from: Phase,
        to: Phase,
        authority: Side,
    },
    /// What keeps both sides in step from now on.
    FeedChosen {
        feed: FeedKind,
        why: String,
    },
    GatesPassed {
        step: String,
        gates: Vec<Gate>,
    },
    GateChanged(Gate),
    ApprovalRequested {
        gate: &'static str,
        migration: MigrationId,
    },
    ApprovalGiven(Approval),
    FindingWaived(Waiver),
    FirstCopied {
        keys: u64,
        bytes: u64,
        took_ms: u64,
    },
    Rehearsed {
        pause_us: u64,
    },
    SmokeChecked {
        checks: u32,
        failed: usize,
    },
    /// `budget_ms`: of the hold, where it was the time that did not suffice.
    FlipPostponed {
        budget_ms: Option<u64>,
        reason: String,
    },
    AuthorityChanged {
        to: Side,
        epoch: Epoch,
    },
    WritesReleased {
        to: Side,
        pause_us: u64,
    },
    RollbackTriggered {
        reason: String,
    },
    CommitForced {
        reason: String,
        unmet: Vec<&'static str>,
    },
    Abandoned {
        phase: Phase,
        reason: String,
    },
    PolicySet {
        slot: PolicySlot,
        choice: Option<PolicyChoice>,
    },
}

impl MigrationEvent {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "migration_created",
            Self::PreTestPassed => "pre_test_passed",
            Self::RunStarted { .. } | Self::RunDrivesItself { .. } => "run_started",
            Self::RunPaused { .. } => "run_paused",
            Self::RunResumed { .. } => "run_resumed",
            Self::PhaseChanged { .. } => "phase_changed",
            Self::FeedChosen { .. } => "feed_chosen",
            Self::GatesPassed { .. } => "gates_passed",
            Self::GateChanged(_) => "gate_changed",
            Self::ApprovalRequested { .. } => "approval_requested",
            Self::ApprovalGiven(_) => "approval_given",
            Self::FindingWaived(_) => "finding_waived",
            Self::FirstCopied { .. } => "first_copied",
            Self::Rehearsed { .. } => "rehearsed",
            Self::SmokeChecked { .. } => "smoke_checked",
            Self::FlipPostponed { .. } => "flip_postponed",
            Self::AuthorityChanged { .. } => "authority_changed",
            Self::WritesReleased { .. } => "writes_released",
            Self::RollbackTriggered { .. } => "rollback_triggered",
            Self::CommitForced { .. } => "commit_forced",
            Self::Abandoned { .. } => "abandoned",
            Self::PolicySet { .. } => "policy_set",
        }
    }
}

fn row(gate: &Gate) -> String {
    format!("{}: {} (needs {})", gate.name, gate.measured, gate.threshold)
}

impl fmt::Display for MigrationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { source, target, strategy } => write!(f, "{source} to {target}, {strategy}"),
            Self::PreTestPassed => f.write_str("both servers answer and the target was exercised"),
            Self::RunStarted { run, phase } => write!(f, "run {run} in {phase}"),
            Self::RunDrivesItself { through } => write!(f, "advances automatically up to {through}"),
            Self::RunPaused { phase } => write!(f, "in {phase}; both sides stay in step"),
            Self::RunResumed { phase } => write!(f, "in {phase}"),
            Self::PhaseChanged { from, to, authority } => write!(f, "{from} to {to}; authority {authority}"),
            Self::FeedChosen { feed, why } => write!(f, "{feed} keeps both sides in step: {why}"),
            Self::GatesPassed { step, gates } => {
                let rows: Vec<_> = gates.iter().map(row).collect();
                write!(f, "{step}: {}", rows.join("; "))
            }
            Self::GateChanged(gate) => {
                let word = if gate.met { "met" } else { "not met" };
                write!(f, "{} is {word}: {} (needs {})", gate.name, gate.measured, gate.threshold)
            }
            Self::ApprovalRequested { gate, migration } => {
                write!(f, "{gate}: every other gate is met; `crossfade migration approve {migration}`")
            }
            Self::ApprovalGiven(Approval { by, scope, run, reason, .. }) => {
                write!(f, "{by} approves {scope} in run {run}: {reason}")
            }
            Self::FindingWaived(Waiver { by, finding, reason, .. }) => {
                write!(f, "{by} waives {finding}: {reason}")
            }
            Self::CommitForced { reason, unmet } => write!(f, "{reason}; unmet: [{}]", unmet.join(", ")),
            Self::FirstCopied { keys, bytes, took_ms } => {
                write!(f, "everything the source held was copied: {keys} keys, {bytes} bytes, in {took_ms} ms")
            }
            Self::Rehearsed { pause_us } => write!(f, "writes were held for {pause_us} us; nothing changed"),
            Self::SmokeChecked { checks, failed } => write!(f, "{checks} checks, {failed} failed"),
            Self::FlipPostponed { budget_ms, reason } => {
                if let Some(budget_ms) = budget_ms {
                    write!(f, "not within {budget_ms} ms: ")?;
                }
                write!(f, "{reason}; nothing changed, trying again")
            }
            Self::AuthorityChanged { to, epoch } => write!(f, "to the {to}, epoch {}", epoch.0),
            Self::WritesReleased { to, pause_us } => write!(f, "to the {to} after {pause_us} us"),
            Self::RollbackTriggered { reason } => f.write_str(reason),
            Self::Abandoned { phase, reason } => {
                write!(f, "in {phase}: {reason}; the source stays authoritative")
            }
            Self::PolicySet { slot, choice } => {
                let text = policy(*slot, choice.as_ref());
                f.write_str(&text.chars().take(POLICY_TEXT_CHARS).collect::<String>())
            }
        }
    }
}

fn policy(slot: PolicySlot, choice: Option<&PolicyChoice>) -> String {
    match choice {
        None => format!("{slot}: as the interlay has it"),
        Some(PolicyChoice::Nobody) => format!("{slot}: no filter"),
        Some(PolicyChoice::Filter(setting)) => format!(
            "{slot}: {}, {}, {}, configuration {}",
            setting.filter, setting.mode, setting.on_fault, setting.config
        ),
    }
}
