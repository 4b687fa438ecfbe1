//! Seats with real instances: modes, faults, memos, counters and notes.

use super::testing::{guest, host, setup, shipped};
use super::*;
use base::model::{OnFault, PolicyMode};

const REFUSE: &str = "(i32.store8 (i32.const 0) (i32.const 110)) (i32.store8 (i32.const 1) (i32.const 111)) \
                      (i64.const 0x2_0000_0013)"; // "no"
const TRAP: &str = "unreachable";
const LOOP: &str = "(loop (br 0)) (i64.const 0x10)";

fn facts<'a>(number: u32, keys: &'a [&'a [u8]]) -> RequestFacts<'a, std::iter::Copied<std::slice::Iter<'a, &'a [u8]>>> {
    RequestFacts {
        number: Some(number),
        protocol: abi::Protocol::Redis,
        class: abi::Class::Read,
        flags: 0,
        client: 1,
        database_number: 0,
        database: b"0",
        command: b"GET",
        keys: keys.iter().copied(),
        frame: b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    }
}

fn request_seat(body: &str, mode: PolicyMode, on_fault: OnFault) -> RequestSeat {
    RequestSeat::new(setup(guest(&host(), "cf_on_request", body), mode, on_fault))
}

fn stats(seat: RequestSeat) -> SeatStats {
    CorePolicies { request: Some(seat), ..CorePolicies::default() }.stats().remove(0)
}

#[test]
fn a_refusal_is_carried_out_reported_or_only_counted() {
    let expected = [
        (PolicyMode::Block, RequestDecision::Refuse("no".into()), 0, 0),
        (PolicyMode::Warn, RequestDecision::Send(Mirroring::Forward), 1, 1),
        (PolicyMode::Observe, RequestDecision::Send(Mirroring::Forward), 1, 0),
    ];
    for (mode, decision, restrained, told) in expected {
        let mut seat = request_seat(REFUSE, mode, OnFault::FailOpen);
        assert_eq!(seat.decide(facts(1, &[b"k"]), 5), decision, "{mode}");
        let mut policies = CorePolicies { request: Some(seat), ..CorePolicies::default() };
        assert_eq!(policies.take_notes().len(), told, "{mode}");
        let stats = policies.stats().remove(0);
        assert_eq!((stats.restrained, stats.verdicts), (restrained, vec![("refuse", 1)]), "{mode}");
    }
}

#[test]
fn warnings_are_few_in_one_second() {
    let mut seat = request_seat(REFUSE, PolicyMode::Warn, OnFault::FailOpen);
    for at in [0, 1, 2, 3, 500, 999, 1000] {
        seat.decide(facts(1, &[]), at);
    }
    let notes = CorePolicies { request: Some(seat), ..CorePolicies::default() }.take_notes();
    assert_eq!(notes.len(), 4, "three in the first second, one in the next: {notes:?}");
}

#[test]
fn a_fault_is_answered_as_on_fault_says_and_a_spent_instance_is_not_called() {
    for (body, kind, spent) in [
        (TRAP, FaultKind::Trap, true),
        (LOOP, FaultKind::Deadline, true),
        ("(i64.const 0)", FaultKind::BadVerdict, false),
    ] {
        let mut open = request_seat(body, PolicyMode::Block, OnFault::FailOpen);
        assert_eq!(open.decide(facts(1, &[]), 0), RequestDecision::Send(Mirroring::Forward), "{body}");
        let mut closed = request_seat(body, PolicyMode::Block, OnFault::FailClosed);
        let refused = RequestDecision::Refuse("policy tested failed".into());
        assert_eq!(closed.decide(facts(1, &[]), 0), refused, "{body}");
        assert_eq!(closed.decide(facts(1, &[]), 0), refused, "and again: {body}");
        let mut policies = CorePolicies { request: Some(closed), ..CorePolicies::default() };
        let faults: Vec<_> = policies
            .take_notes()
            .into_iter()
            .map(|note| match note.kind {
                NoteKind::Fault { kind, spent, .. } => (kind, spent),
                other => panic!("{other:?}"),
            })
            .collect();
        let calls = if spent { 1 } else { 2 };
        assert_eq!(faults, vec![(kind, spent); calls], "{body}");
        let stats = policies.stats().remove(0);
        assert_eq!((stats.calls, stats.absent), (calls as u64, 2 - calls as u64), "{body}");
        assert_eq!(stats.faults.total(), calls as u64);
    }
    let mut observed = request_seat(TRAP, PolicyMode::Observe, OnFault::FailClosed);
    let sent = RequestDecision::Send(Mirroring::Forward);
    assert_eq!(observed.decide(facts(1, &[]), 0), sent, "observe never stops anything");
}

#[test]
fn a_memo_saves_the_call_until_the_view_context_changes() {
    let instance = shipped(&host(), "mirror_reads", "{}");
    let mut seat = RequestSeat::new(setup(instance, PolicyMode::Observe, OnFault::FailOpen));
    for _ in 0..10 {
        assert_eq!(seat.decide(facts(1, &[b"a"]), 0), RequestDecision::Send(Mirroring::Compare));
    }
    seat.enter(ViewContext::new(abi::Phase::Test, abi::Authority::Source));
    assert_eq!(seat.decide(facts(1, &[b"a"]), 0), RequestDecision::Send(Mirroring::Compare));
    let mut unnamed = facts(1, &[b"a"]);
    unnamed.number = None;
    seat.decide(unnamed.clone(), 0);
    seat.decide(unnamed, 0);
    let stats = stats(seat);
    assert_eq!((stats.calls, stats.memo_hits), (4, 9), "{stats:?}");
}

#[test]
fn samples_are_drawn_for_each_command_and_evenly() {
    let instance = shipped(&host(), "mirror_reads", r#"{"sample_percent": 25}"#);
    let mut seat = RequestSeat::new(setup(instance, PolicyMode::Observe, OnFault::FailOpen));
    let compared = (0..4000).filter(|_| seat.decide(facts(1, &[]), 0) == RequestDecision::Send(Mirroring::Compare));
    let compared = compared.count();
    assert!((900..1100).contains(&compared), "{compared} of 4000");
}

fn window(target_errors: u64) -> abi::host::Window<'static> {
    let side = |errors| abi::Side { requests: 1000, errors, p50_us: 100, p99_us: 200 };
    abi::host::Window {
        phase: abi::Phase::Migrate,
        authority: abi::Authority::Source,
        flags: 0,
        at_ms: 1,
        length_ms: 1000,
        phase_seconds: 9,
        source: side(0),
        target: side(target_errors),
        shadow_lag_us: 0,
        queue_depth: 0,
        dirty: 0,
        in_flight: 0,
        compared: 100,
        divergences_new: 0,
        divergences_total: 0,
        read_share: 0,
        write_share: 0,
        migration: b"m",
    }
}

#[test]
fn the_rollback_policy_acts_only_in_mode_block() {
    let host = host();
    for (mode, stops) in [(PolicyMode::Block, true), (PolicyMode::Observe, false)] {
        let config = r#"{"window_s": 1, "trip_s": 2, "error_percent": 10}"#;
        let mut seat = WindowSeat::new(setup(shipped(&host, "rollback_threshold", config), mode, OnFault::FailOpen));
        assert_eq!(seat.judge(&window(0), 0), Judgement::Continue);
        let judged: Vec<_> = (0..4).map(|_| seat.judge(&window(500), 0)).collect();
        let rolls_back = judged.iter().any(|judgement| matches!(judgement, Judgement::RollBack(_)));
        assert_eq!(rolls_back, stops, "{mode}: {judged:?}");
        assert_eq!(seat.stats().restrained > 0, !stops);
    }
    let mut failing =
        WindowSeat::new(setup(guest(&host, "cf_on_window", TRAP), PolicyMode::Block, OnFault::FailClosed));
    assert!(matches!(failing.judge(&window(0), 0), Judgement::Hold(_)));
    assert!(matches!(failing.judge(&window(0), 0), Judgement::Hold(_)) && failing.is_spent());
}

#[test]
fn classes_of_divergence_are_bounded() {
    // The class is one byte, a different one with each call.
    let body = "(i32.store8 (i32.const 70000) (i32.add (i32.load8_u (i32.const 70000)) (i32.const 1))) \
                (i32.store8 (i32.const 0) (i32.add (i32.const 40) (i32.load8_u (i32.const 70000)))) \
                (i64.const 0x1_0000_0023)";
    let mut seat = PairSeat::new(setup(guest(&host(), "cf_on_pair", body), PolicyMode::Block, OnFault::FailOpen));
    let part = |bytes| abi::host::ReplyParts { kind: abi::ReplyKind::Value, length: 7, latency_us: 1, bytes };
    let mut classes = std::collections::BTreeSet::new();
    for _ in 0..80 {
        match seat.judge(facts(1, &[b"k"]), part(b"$1\r\na\r\n"), part(b"$1\r\nb\r\n"), 0) {
            Opinion::Divergent(class) => classes.insert(class),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(classes.len(), abi::limits::CLASSES_MAX + 1);
    assert!(classes.contains("other"));
}

#[test]
fn a_records_policy_without_an_answer_lets_nothing_through() {
    let mut seat = RecordSeat::new(setup(guest(&host(), "cf_on_record", TRAP), PolicyMode::Observe, OnFault::FailOpen));
    let record = abi::host::Record {
        protocol: abi::Protocol::Redis,
        record_type: abi::RecordType::Text,
        encoding: abi::Encoding::Raw,
        purpose: abi::Purpose::Backfill,
        ttl_ms: None,
        database: b"0",
        namespace: b"",
        key: b"k",
        value_length: 1,
        value: b"v",
    };
    assert_eq!((seat.look(&record, 0), seat.look(&record, 0)), (None, None));
}
