//! Tables and random walks over `transition`. Gates with tests of their own: `gate_tests`.

use proptest::prelude::*;

use super::*;
use crate::events::MigrationEvent;
use crate::reconcile::fake::endpoint;
use base::model::{
    ApprovalScope, Authority, AutoThrough, ConflictPolicy, Decisions, EndpointName, FeedKind, Generation, InterlayName,
    MigrationId, MigrationStatus, PlanMode, PolicyChoice, PolicySettings, PolicySlot, ShadowFrom, Side, Timestamp,
};
use movers::{Check, Feeds, Finding, OwnGate, ReadsCompared, Severity, ShadowFacts};

pub(super) fn record(change: impl FnOnce(&mut Decisions)) -> MigrationRecord {
    let mut decisions = Decisions { manual_approval: false, ..Decisions::default() };
    change(&mut decisions);
    let asked = NewMigration {
        id: MigrationId::new("m").unwrap(),
        interlay: InterlayName::new("i").unwrap(),
        source: EndpointName::new("old").unwrap(),
        target: EndpointName::new("new").unwrap(),
        decisions,
        policies: PolicySettings::default(),
    };
    MigrationRecord::new(asked, Authority::initial(), Timestamp(1))
}

/// The feed under which the cores do this.
pub(super) fn kind(mode: PlanMode) -> FeedKind {
    FeedKind::ALL.iter().copied().find(|kind| kind.plan_mode() == mode).unwrap()
}

/// As if dual operation had begun.
pub(super) fn in_step(record: &mut MigrationRecord) {
    record.dual_since = Some(Timestamp(1));
    record.feed = Some(kind(PlanMode::Dual));
}

/// Evidence with which every gate that evidence can meet is met, at the present step of this record.
pub(super) fn good(record: &MigrationRecord, now: Timestamp) -> Evidence {
    let passed = || Check::Passed("ok".to_owned());
    Evidence {
        source_reachable: passed(),
        target_reachable: passed(),
        target_exercised: passed(),
        workload: Ok(Workload { commands: 1_000_000, seconds: 1_000 }),
        findings: Ok(Vec::new()),
        findings_at: Some(now),
        feeds: Ok(Feeds { usable: vec![kind(PlanMode::Dual)], refused: Vec::new() }),
        target_keys: Ok(0),
        shadow: Ok(ShadowFacts {
            reads: ReadsCompared { compared: 1_000_000, ..ReadsCompared::default() },
            authority_connected: true,
            shadow_connected: true,
            ..ShadowFacts::default()
        }),
        pass_done: Ok(()),
        divergences: Ok(0),
        own_gates: vec![own_gate(passed())],
        strayed: false,
        verification: Some(Verification {
            started_at: now,
            finished_at: now,
            epoch: record.authority.epoch,
            keys: 10,
            divergent: 0,
            inconclusive: 0,
        }),
        clean_since: Some(now),
        rollback_policy: PolicyWord::GoesOn,
    }
}

pub(super) fn checked(record: &MigrationRecord) -> MigrationRecord {
    let smoked = observe(record, Fact::Smoked { checks: 9, failed: Vec::new() }, Timestamp(5)).record;
    observe(&smoked, Fact::Rehearsed { pause_us: 900 }, Timestamp(6)).record
}

pub(super) fn go(record: &MigrationRecord, command: Command) -> MigrationRecord {
    let now = Timestamp(record.phase_since.0 + 10);
    transition(record, command, &good(record, now), now).unwrap_or_else(|refusal| panic!("{refusal}")).record
}

pub(super) fn advance(record: &MigrationRecord) -> MigrationRecord {
    go(record, Command::Advance { to: None })
}

fn own_gate(check: Check) -> OwnGate {
    OwnGate { name: "records_unaltered", check, threshold: "0 keys" }
}

pub(super) fn lowered(record: &MigrationRecord) -> (PlanMode, Side, u16) {
    let plan = plan(record, &endpoint("old"), &endpoint("new"), Generation(1));
    (plan.mode, plan.authority.side, plan.compare.sample_per_ten_thousand)
}

pub(super) fn refused_gates(result: Result<Transition, Refusal>) -> Vec<&'static str> {
    match result {
        Err(Refusal::UnmetGates { gates, .. }) => gates.iter().map(|gate| gate.name).collect(),
        other => panic!("expected unmet gates, got {other:?}"),
    }
}

#[test]
fn the_whole_passage_and_the_way_back_and_what_the_cores_are_told() {
    let mut at = record(|_| {});
    assert_eq!(lowered(&at), (PlanMode::PassThrough, Side::Source, 0));
    at = advance(&at);
    assert_eq!((at.phase, lowered(&at)), (Phase::Analyze, (PlanMode::PassThrough, Side::Source, 0)));
    at = advance(&at);
    assert_eq!((at.phase, lowered(&at)), (Phase::Compare, (PlanMode::Dual, Side::Source, 10_000)));
    at = checked(&advance(&at));
    assert_eq!((at.phase, lowered(&at)), (Phase::Test, (PlanMode::Dual, Side::Source, 10_000)));
    at = advance(&at);
    assert_eq!((at.phase, lowered(&at)), (Phase::Migrate, (PlanMode::Dual, Side::Source, 0)));
    at = go(&at, Command::Flip);
    assert_eq!((at.phase, lowered(&at)), (Phase::Migrate, (PlanMode::Dual, Side::Target, 0)));
    at = go(&at, Command::Rollback { reason: "slow".to_owned() });
    assert_eq!((at.status, lowered(&at)), (MigrationStatus::RollingBack, (PlanMode::Dual, Side::Target, 0)));
    at = go(&at, Command::Flip);
    assert_eq!((at.status, lowered(&at)), (MigrationStatus::RolledBack, (PlanMode::Dual, Side::Source, 0)));
    at = go(&at, Command::Advance { to: Some(Phase::Migrate) });
    at = go(&at, Command::Flip);
    assert_eq!(at.authority.epoch.0, 4);
    at = advance(&at);
    assert_eq!((at.phase, at.status), (Phase::Commit, MigrationStatus::Completed));
    assert_eq!(lowered(&at), (PlanMode::PassThrough, Side::Target, 0));
    assert_eq!(at.flips.len(), 3);
}

/// Nothing is known, and what the mover itself asks for is not either.
fn nothing_known() -> Evidence {
    let own_gates = vec![own_gate(Check::Unknown("not measured yet".to_owned()))];
    Evidence { own_gates, ..Evidence::default() }
}

/// Thresholds that anything measured would meet.
fn undemanding(decisions: &mut Decisions) {
    decisions.thresholds.analyze_min_commands = 0;
    decisions.thresholds.analyze_min_seconds = 0;
    decisions.thresholds.compare_min_reads = 0;
    decisions.thresholds.soak_seconds = 0;
    decisions.thresholds.dirty_before_fence_max = u64::MAX;
    decisions.conflict_policy = ConflictPolicy::Replace;
}

/// Every table of gates there is, for every decision that changes one: with nothing known no gate of any of them is met. A gate that
/// defers to others is met as far as every one of those is asked for before the flip, and is unmet there.
#[test]
fn with_nothing_known_no_gate_of_any_step_is_met() {
    let evidence = nothing_known();
    let now = Timestamp(50);
    let mut names = std::collections::BTreeSet::new();
    for bits in 0..16_u8 {
        let set = |bit: u8| bits & (1 << bit) != 0;
        for phase in Phase::ALL {
            let mut at = record(|d| {
                undemanding(d);
                d.manual_approval = set(0);
                d.hold_before_flip = set(1);
                d.shadow_from = if set(2) { ShadowFrom::Migrate } else { ShadowFrom::Compare };
            });
            at.phase = phase;
            // What the record itself says is not evidence: the sides are those that do not meet their gate.
            at.authority = if phase.allows(Side::Target) && phase != Phase::Migrate {
                at.authority.flipped()
            } else {
                at.authority
            };
            if set(3) {
                in_step(&mut at);
            }
            let flip = flip_gates(&MigrationRecord { phase: Phase::Migrate, ..at.clone() }, &evidence, now);
            let mut tables = vec![
                gates_now(&at, &evidence, now),
                gates::leave_gates(&at, &evidence, now, phase),
                flip_gates(&at, &evidence, now),
            ];
            tables.extend(Phase::ALL.map(|to| gates::retry_gates(&at, &evidence, now, to)));
            for gate in tables.into_iter().flatten() {
                names.insert(gate.name);
                // Retries ask where the traffic is, which these records say.
                if !gate.met || gate.name == "traffic_on_source" {
                    continue;
                }
                assert!(!gate.defers_to.is_empty(), "{phase} {bits:04b}: {gate:?}");
                for deferred in gate.defers_to {
                    let later = flip.iter().find(|later| later.name == *deferred);
                    let later = later.unwrap_or_else(|| panic!("{deferred} is not judged before the flip: {gate:?}"));
                    assert!(!later.met && later.defers_to.is_empty(), "{later:?}");
                }
            }
        }
    }
    let all = [
        "approval_to_commit",
        "approval_to_flip",
        "approval_to_migrate",
        "both_sides_connected",
        "commands_observed",
        "comparison",
        "compatibility",
        "dirty",
        "divergences",
        "feed",
        "inconclusive",
        "lag",
        "nothing_uncopied",
        "reads_compared",
        "records_unaltered",
        "rollback_policy",
        "rollback_rehearsal",
        "smoke_checks",
        "source_reachable",
        "target_exercised",
        "target_keys",
        "target_reachable",
        "time_observed",
        "traffic_on_source",
        "traffic_on_target",
        "verification",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), all, "every gate there is was seen");
}

#[test]
fn with_nothing_known_each_step_names_its_gates() {
    let nothing = nothing_known();
    let mut at = record(|d| d.manual_approval = true);
    let expected: [&[&str]; 5] = [
        &["source_reachable", "target_reachable", "target_exercised", "rollback_policy"],
        &["commands_observed", "time_observed", "compatibility", "target_keys", "feed", "rollback_policy"],
        &["nothing_uncopied", "reads_compared", "inconclusive", "divergences", "dirty", "rollback_policy"],
        &["smoke_checks", "rollback_rehearsal", "approval_to_migrate", "rollback_policy"],
        &[
            "traffic_on_target",
            "nothing_uncopied",
            "dirty",
            "both_sides_connected",
            "verification",
            "divergences",
            "approval_to_commit",
            "rollback_policy",
        ],
    ];
    for names in expected {
        let refusal = transition(&at, Command::Advance { to: None }, &nothing, Timestamp(50));
        assert_eq!(refused_gates(refusal), names, "{}", at.phase);
        if at.phase == Phase::Migrate {
            break;
        }
        if at.phase == Phase::Test {
            at = go(&checked(&at), Command::Approve { scope: None, by: "ann".into(), reason: "fine".into() });
        }
        at = advance(&at);
    }
    let flip = transition(&at, Command::Flip, &nothing, Timestamp(50));
    let names = [
        "nothing_uncopied",
        "dirty",
        "both_sides_connected",
        "lag",
        "compatibility",
        "rollback_policy",
        "records_unaltered",
        "verification",
        "divergences",
    ];
    assert_eq!(refused_gates(flip), names);
}

/// A gate that defers is met only while the later table has every gate it names.
#[test]
fn a_deferred_gate_names_the_gates_that_stand_in_for_it() {
    let mut at = advance(&advance(&record(|d| d.shadow_from = ShadowFrom::Migrate)));
    let gates = gates_now(&at, &nothing_known(), Timestamp(50));
    let comparison = gates.iter().find(|gate| gate.name == "comparison").expect("the row is shown");
    assert!(
        comparison.met
            && comparison.measured.contains("nothing_uncopied, reads_compared, inconclusive, divergences, dirty")
    );
    // With shadow_from = compare the flip does not ask for reads again, so nothing would stand in for them.
    at.decisions.shadow_from = ShadowFrom::Compare;
    (at.dual_since, at.feed) = (None, None);
    let gates = gates_now(&at, &nothing_known(), Timestamp(50));
    let comparison = gates.iter().find(|gate| gate.name == "comparison").expect("the row is shown");
    assert!(!comparison.met && comparison.measured.contains("reads_compared"), "{comparison:?}");
}

#[test]
fn a_target_with_keys_is_refused_by_number_unless_it_may_be_replaced() {
    let at = advance(&record(|_| {}));
    let evidence = Evidence { target_keys: Ok(12), ..good(&at, Timestamp(9)) };
    let refusal = transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9)).expect_err("not empty");
    let text = refusal.to_string();
    assert!(text.contains("12 keys") && text.contains("replace"), "{text}");
    let at = advance(&record(|d| d.conflict_policy = ConflictPolicy::Replace));
    assert!(transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9)).is_ok());
}

#[test]
fn a_critical_finding_blocks_until_it_is_waived_by_name() {
    let at = advance(&record(|_| {}));
    let finding = Finding {
        name: "missing-commands".into(),
        severity: Severity::Critical,
        detail: "GETEX".into(),
        feed: None,
        before_copy: false,
    };
    let evidence = Evidence { findings: Ok(vec![finding]), ..good(&at, Timestamp(9)) };
    let refusal = transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9));
    assert_eq!(refused_gates(refusal), ["compatibility"]);
    let waive = Command::Waive { finding: "missing-commands".into(), by: "bo".into(), reason: "unused".into() };
    let at = go(&at, waive);
    assert!(transition(&at, Command::Advance { to: None }, &evidence, Timestamp(9)).is_ok());
}

/// Users and settings of the source change after `analyze`, and what clients would find on the target with them.
#[test]
fn a_finding_keeps_the_authority_where_it_is_and_is_looked_for_in_the_phase_of_the_flip() {
    let at = advance(&checked(&advance(&advance(&advance(&record(|_| {}))))));
    let now = Timestamp(at.phase_since.0 + 100);
    let finding = Finding {
        name: "acl-users-missing".into(),
        severity: Severity::Critical,
        detail: "app".into(),
        feed: None,
        before_copy: false,
    };
    assert!(transition(&at, Command::Flip, &good(&at, now), now).is_ok());
    let found = Evidence { findings: Ok(vec![finding]), ..good(&at, now) };
    assert_eq!(refused_gates(transition(&at, Command::Flip, &found, now)), ["compatibility"]);
    for findings_at in [None, Some(Timestamp(at.phase_since.0 - 1))] {
        let older = Evidence { findings_at, ..good(&at, now) };
        assert_eq!(refused_gates(transition(&at, Command::Flip, &older, now)), ["compatibility"], "{findings_at:?}");
    }
}

#[test]
fn a_run_after_a_rollback_names_the_commands_that_begin_the_next_try() {
    let at = go(&advance(&advance(&record(|_| {}))), Command::Rollback { reason: "slow".into() });
    for auto in [AutoThrough::Nothing, AutoThrough::Flip] {
        let refusal = transition(&at, Command::Run { auto }, &nothing_known(), Timestamp(9)).expect_err("no run");
        let text = refusal.to_string();
        assert!(text.contains("--to compare") && text.contains("migration abandon"), "{text}");
    }
}

#[test]
fn a_verification_counts_only_for_the_step_it_was_made_in() {
    let at = advance(&checked(&advance(&advance(&advance(&record(|_| {}))))));
    let now = Timestamp(at.phase_since.0 + 100);
    let judge = |change: &dyn Fn(&mut Verification)| {
        let mut evidence = good(&at, now);
        change(evidence.verification.as_mut().unwrap());
        transition(&at, Command::Flip, &evidence, now)
    };
    assert!(judge(&|_| {}).is_ok());
    let stale: [&dyn Fn(&mut Verification); 4] = [
        &|v| v.started_at = Timestamp(at.phase_since.0 - 1),
        &|v| v.epoch = v.epoch.next(),
        &|v| v.divergent = 1,
        &|v| v.inconclusive = 1,
    ];
    for change in stale {
        assert_eq!(refused_gates(judge(change)), ["verification"]);
    }
}

#[test]
fn soak_time_is_counted_from_the_first_clean_comparison() {
    let at = record(|d| d.thresholds.soak_seconds = 5);
    let at = advance(&checked(&advance(&advance(&advance(&at)))));
    let clean_from = Timestamp(at.phase_since.0 + 10);
    let evidence = good(&at, clean_from);
    let early = transition(&at, Command::Flip, &evidence, Timestamp(clean_from.0 + 4_999));
    assert_eq!(refused_gates(early), ["verification"]);
    assert!(transition(&at, Command::Flip, &evidence, Timestamp(clean_from.0 + 5_000)).is_ok());
}

#[test]
fn approvals_hold_for_one_run() {
    let approve = |scope| Command::Approve { scope, by: "ann".to_owned(), reason: "reviewed".to_owned() };
    let mut at = record(|d| d.manual_approval = true);
    at = checked(&advance(&advance(&advance(&at))));
    at = advance(&go(&at, approve(None)));
    at = go(&at, Command::Rollback { reason: "no".to_owned() });
    let again =
        transition(&at, Command::Advance { to: Some(Phase::Migrate) }, &good(&at, Timestamp(99)), Timestamp(99));
    assert_eq!(refused_gates(again), ["approval_to_migrate"]);
    at = go(&go(&at, approve(None)), Command::Advance { to: Some(Phase::Migrate) });
    at = go(&go(&at, Command::Flip), approve(None));
    assert_eq!(at.approvals.last().unwrap().scope, ApprovalScope::Commit);
    assert_eq!(advance(&at).phase, Phase::Commit);
}

#[test]
fn a_held_flip_waits_for_its_own_approval() {
    let at = record(|d| d.hold_before_flip = true);
    let at = advance(&checked(&advance(&advance(&advance(&at)))));
    let now = Timestamp(at.phase_since.0 + 10);
    assert_eq!(refused_gates(transition(&at, Command::Flip, &good(&at, now), now)), ["approval_to_flip"]);
    let at = go(&at, Command::Approve { scope: None, by: "ann".into(), reason: "now".into() });
    assert_eq!(go(&at, Command::Flip).authority.side, Side::Target);
}

#[test]
fn late_shadowing_moves_the_data_gates_before_the_flip() {
    let mut at = record(|d| d.shadow_from = ShadowFrom::Migrate);
    at = advance(&advance(&at));
    assert_eq!((at.phase, lowered(&at).0), (Phase::Compare, PlanMode::PassThrough));
    at = advance(&at);
    let keys = Evidence { target_keys: Ok(3), ..good(&at, Timestamp(99)) };
    let smoked = observe(&at, Fact::Smoked { checks: 1, failed: Vec::new() }, Timestamp(98)).record;
    assert_eq!(
        refused_gates(transition(&smoked, Command::Advance { to: None }, &keys, Timestamp(99))),
        ["target_keys"]
    );
    at = advance(&smoked);
    assert_eq!(lowered(&at), (PlanMode::Dual, Side::Source, 10_000));
    let now = Timestamp(at.phase_since.0 + 1);
    assert_eq!(refused_gates(transition(&at, Command::Flip, &good(&at, now), now)), ["rollback_rehearsal"]);
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let at = record(|_| {});
    let cases = [
        (Command::Rollback { reason: "x".into() }, "nothing to roll back"),
        (Command::Commit { force: None }, "commit follows migrate"),
        (Command::Advance { to: Some(Phase::Migrate) }, "one phase at a time, the next is analyze"),
        (Command::Advance { to: Some(Phase::Rollback) }, "not an advance"),
        (Command::Resume, "not paused"),
        (Command::Flip, "no change of authority is due"),
        (Command::Approve { scope: None, by: " ".into(), reason: "x".into() }, "needs by"),
        (Command::Waive { finding: "f".into(), by: "a".into(), reason: String::new() }, "needs reason"),
    ];
    for (command, words) in cases {
        let text =
            transition(&at, command.clone(), &good(&at, Timestamp(9)), Timestamp(9)).expect_err("refused").to_string();
        assert!(text.contains(words), "{command:?}: {text}");
    }
    let over = go(&at, Command::Abandon { reason: String::new() });
    let refusal = transition(&over, Command::Run { auto: AutoThrough::Nothing }, &Evidence::default(), Timestamp(9));
    assert!(refusal.expect_err("over").to_string().contains("abandoned"));
}

#[test]
fn a_forced_commit_is_recorded_and_never_moves_the_authority() {
    let at = advance(&checked(&advance(&advance(&advance(&record(|_| {}))))));
    let force = || Command::Commit { force: Some("window closes".to_owned()) };
    assert!(transition(&at, force(), &Evidence::default(), Timestamp(99)).is_err());
    let at = go(&at, Command::Flip);
    let done = transition(&at, force(), &Evidence::default(), Timestamp(99)).unwrap();
    let text = done.events[0].to_string();
    assert!(text.contains("window closes") && text.contains("verification"), "{text}");
    assert_eq!(lowered(&done.record), (PlanMode::PassThrough, Side::Target, 0));
}

#[test]
fn a_run_drives_itself_as_far_as_it_was_told() {
    for (auto, last) in [(AutoThrough::Flip, Phase::Migrate), (AutoThrough::Commit, Phase::Commit)] {
        let mut at = go(&record(|_| {}), Command::Run { auto });
        for _ in 0..20 {
            let now = Timestamp(at.phase_since.0 + 10);
            if at.phase == Phase::Test {
                at = checked(&at);
            }
            if at.phase == Phase::Migrate && at.authority.side == Side::Source {
                at = go(&at, Command::Flip);
            } else if let Some(command) = auto_step(&at, &good(&at, now), now) {
                at = go(&at, command);
            }
        }
        assert_eq!((at.phase, at.authority.side), (last, Side::Target));
    }
}

fn any_command() -> impl Strategy<Value = Command> {
    let phase = prop::sample::select(Phase::ALL.to_vec());
    prop_oneof![
        4 => Just(Command::Advance { to: None }),
        3 => phase.prop_map(|to| Command::Advance { to: Some(to) }),
        4 => Just(Command::Flip),
        1 => Just(Command::Run { auto: AutoThrough::Commit }),
        1 => Just(Command::Pause),
        1 => Just(Command::Resume),
        1 => Just(Command::Rollback { reason: "r".to_owned() }),
        1 => Just(Command::Commit { force: Some("f".to_owned()) }),
        1 => Just(Command::Approve { scope: None, by: "b".to_owned(), reason: "r".to_owned() }),
    ]
}

proptest! {
    #[test]
    fn random_walks_stay_legal(
        steps in prop::collection::vec((any_command(), any::<bool>()), 1..60),
        late in any::<bool>(),
        approval in any::<bool>(),
    ) {
        let mut at = checked(&record(|d| {
            d.manual_approval = approval;
            d.shadow_from = if late { ShadowFrom::Migrate } else { ShadowFrom::Compare };
        }));
        for (index, (command, measured)) in steps.into_iter().enumerate() {
            let now = Timestamp(100 + index as u64 * 10);
            let evidence = if measured { good(&at, now) } else { Evidence::default() };
            let flips = matches!(command, Command::Flip);
            let Ok(done) = transition(&at, command.clone(), &evidence, now) else { continue };
            let next = done.record;
            prop_assert!(next.phase.allows(next.authority.side));
            // Only a flip changes the authority, by exactly one epoch, and only with both sides kept in step and measured.
            if next.authority == at.authority {
                prop_assert!(!flips);
            } else {
                prop_assert!(flips && measured && is_dual(&at));
                prop_assert_eq!(next.authority, at.authority.flipped());
            }
            // The target is never authoritative before it was kept in step.
            prop_assert!(next.authority.side == Side::Source || next.dual_since.is_some());
            let (mode, side, _) = lowered(&next);
            prop_assert_eq!(side, next.authority.side);
            prop_assert_eq!(mode.is_dual(), is_dual(&next));
            // What keeps both sides in step is chosen once, with the beginning of dual operation.
            prop_assert_eq!(next.feed.is_some(), next.dual_since.is_some());
            prop_assert!(at.feed.is_none() || at.feed == next.feed);
            // A command that took effect may be repeated.
            let again = transition(&next, Command::Advance { to: Some(next.phase) }, &evidence, now);
            if let Ok(again) = again {
                prop_assert!(again.events.is_empty() && again.record == next);
            }
            at = next;
        }
    }
}

#[test]
fn a_policy_that_holds_stops_every_step_forward_and_none_back() {
    let mut held = go(&record(|_| {}), Command::Run { auto: AutoThrough::Nothing });
    for phase in [Phase::Compare, Phase::Test, Phase::Migrate] {
        held.phase = phase;
        in_step(&mut held);
        let holding =
            Evidence { rollback_policy: PolicyWord::Holds("p99 is high".to_owned()), ..good(&held, Timestamp(9)) };
        let gates = gates_now(&held, &holding, Timestamp(9));
        let row = gates.iter().find(|gate| gate.name == "rollback_policy").expect("the row is shown");
        assert!(!row.met && row.measured.contains("p99 is high"), "{row:?}");
        let advanced = transition(&held, Command::Advance { to: None }, &holding, Timestamp(9));
        assert!(advanced.is_err(), "{phase}: {advanced:?}");
        let back = transition(&held, Command::Rollback { reason: "it holds".to_owned() }, &holding, Timestamp(9));
        assert_eq!(back.expect("always possible").record.phase, Phase::Rollback);
    }
    held.phase = Phase::Rollback;
    held.authority = held.authority.flipped();
    let holding =
        Evidence { rollback_policy: PolicyWord::Holds("p99 is high".to_owned()), ..good(&held, Timestamp(9)) };
    assert!(gates_now(&held, &holding, Timestamp(9)).iter().all(|gate| gate.met), "the way back is never held");
}

#[test]
fn what_a_records_policy_has_altered_is_not_moved_to() {
    let mut altered = go(&record(|_| {}), Command::Run { auto: AutoThrough::Nothing });
    altered.phase = Phase::Migrate;
    in_step(&mut altered);
    let mut evidence = good(&altered, Timestamp(9));
    assert!(flip_gates(&altered, &evidence, Timestamp(9)).iter().all(|gate| gate.met));
    evidence.own_gates = vec![own_gate(Check::Failed("3 keys changed".to_owned()))];
    let open: Vec<_> = unmet(flip_gates(&altered, &evidence, Timestamp(9))).iter().map(|gate| gate.name).collect();
    assert_eq!(open, ["records_unaltered"]);
}

#[test]
fn a_policy_is_set_in_every_phase_and_not_after_the_end() {
    let now = Timestamp(9);
    for phase in Phase::ALL.iter().copied().filter(|phase| *phase != Phase::Commit) {
        let before = MigrationRecord { phase, ..record(|_| {}) };
        let set = |choice| Command::SetPolicy { slot: PolicySlot::Mirror, choice };
        let done = transition(&before, set(Some(PolicyChoice::Nobody)), &good(&before, now), now).unwrap();
        assert_eq!(done.record.policies.get(PolicySlot::Mirror), Some(&PolicyChoice::Nobody));
        assert!(matches!(done.events[0], MigrationEvent::PolicySet { slot: PolicySlot::Mirror, .. }));
        let again = transition(&done.record, set(Some(PolicyChoice::Nobody)), &good(&before, now), now).unwrap();
        assert!(again.events.is_empty(), "repeating it is harmless");
        let back = transition(&done.record, set(None), &good(&before, now), now).unwrap();
        assert_eq!(back.record.policies, PolicySettings::default());
    }
    let over = go(&record(|_| {}), Command::Abandon { reason: "r".to_owned() });
    let set = Command::SetPolicy { slot: PolicySlot::Mirror, choice: None };
    assert!(matches!(transition(&over, set, &good(&over, now), now), Err(Refusal::WrongPhase(_))));
}
