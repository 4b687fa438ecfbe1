//! Comparison and records policies in the lane: real filters, scripted servers.

use super::*;
use policy::testing::{Seats, guest, host, shipped};

fn compared_stage(seats: Seats) -> Stage {
    let mut stage = Stage::in_step();
    seats.fill(&stage.policies);
    stage.lane.policies_changed(stage.now);
    stage
}

/// A compared read: what the authority answers, what the shadow does, and what is told of it.
fn compare(stage: &mut Stage, line: &str, authority: &str, shadow: &str) -> Option<(String, String)> {
    let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    stage.item(1, LaneItem::ComparedRead { command: command_of(&frame), len: frame.len() }, frame);
    stage.hears(Side::Source);
    stage.answers(Side::Source, authority.as_bytes());
    assert_eq!(stage.hears(Side::Target), [line], "asked at the same position");
    stage.answers(Side::Target, shadow.as_bytes());
    stage.told();
    stage.events().into_iter().find_map(|event| match event {
        LaneEvent::ReadDivergence { key, class, .. } => Some((String::from_utf8_lossy(&key).into_owned(), class)),
        _ => None,
    })
}

#[test]
fn what_means_the_same_is_no_difference() {
    let mut stage =
        compared_stage(Seats { pair: Some(shipped(&host(), "compare_semantic", "{}")), ..Seats::default() });
    assert_eq!(compare(&mut stage, "GET a", "$1\r\n1\r\n", "$1\r\n1\r\n"), None);
    assert_eq!(compare(&mut stage, "SMEMBERS s", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"), None);
    assert_eq!(compare(&mut stage, "PTTL t", ":5000\r\n", ":6800\r\n"), None, "the grace of the shadow is taken off");
    let status = stage.lane.status();
    assert_eq!((status.reads_compared, status.reads_equivalent, status.read_divergences), (3, 2, 0));
}

#[test]
fn a_resp3_client_is_compared_with_a_resp2_shadow_in_one_protocol() {
    let host = host();
    let cases = [
        ("ZRANGE z 0 -1 WITHSCORES", "*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n", "*2\r\n$1\r\na\r\n$3\r\n1.5\r\n"),
        ("ZSCORE z none", "_\r\n", "$-1\r\n"),
        ("ZMSCORE z a none", "*2\r\n,1\r\n_\r\n", "*2\r\n$1\r\n1\r\n$-1\r\n"),
        ("GEOPOS g a", "*1\r\n*2\r\n,1.5\r\n,2\r\n", "*1\r\n*2\r\n$3\r\n1.5\r\n$1\r\n2\r\n"),
        ("HGETALL h", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("SMEMBERS s", "~2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"),
    ];
    for (line, authority, shadow) in cases {
        let mut stage =
            compared_stage(Seats { pair: Some(shipped(&host, "compare_semantic", "{}")), ..Seats::default() });
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let items = vec![LaneItem::ComparedRead { command: command_of(&frame), len: frame.len() }];
        stage.lane.submit(CoreId(0), LaneBatch { client: 1, database: 0, resp: 3, items, frames: frame }, stage.now);
        assert_eq!(stage.hears(Side::Source), ["HELLO 3", line]);
        stage.answers(Side::Source, format!("%0\r\n{authority}").as_bytes());
        stage.hears(Side::Target);
        stage.answers(Side::Target, shadow.as_bytes());
        assert_eq!(stage.told(), [(1, authority.to_owned())]);
        let status = stage.lane.status();
        assert_eq!((status.reads_compared, status.read_divergences), (1, 0), "{line}");
    }
}

#[test]
fn each_difference_is_found_and_named() {
    let cases = [
        ("GET v", "$1\r\n1\r\n", "$1\r\n2\r\n", "value"),
        ("GET m", "$1\r\n1\r\n", "$-1\r\n", "missing"),
        ("GET x", "$-1\r\n", "$1\r\n2\r\n", "extra"),
        ("PTTL t", ":5000\r\n", ":95000\r\n", "ttl"),
        ("PTTL u", ":5000\r\n", ":-1\r\n", "ttl"),
        ("SMEMBERS s", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\na\r\n$1\r\nc\r\n", "members"),
        ("LLEN l", ":1\r\n", "-WRONGTYPE no\r\n", "error"),
    ];
    for pair in [true, false] {
        let host = host();
        for (line, authority, shadow, class) in cases {
            let policy = pair.then(|| shipped(&host, "compare_semantic", "{}"));
            let mut stage = compared_stage(Seats { pair: policy, ..Seats::default() });
            let key = line.split(' ').nth(1).expect("a key").to_owned();
            let found = compare(&mut stage, line, authority, shadow);
            assert_eq!(found, Some((key, class.to_owned())), "{line}, with a policy: {pair}");
            assert_eq!(stage.dirty(), 1, "and will be copied again");
        }
    }
}

#[test]
fn a_policy_may_ignore_and_may_find_more() {
    let ignore = Some(guest(&host(), "cf_on_pair", "(i64.const 0x24)"));
    let mut stage = compared_stage(Seats { pair: ignore, ..Seats::default() });
    assert_eq!(compare(&mut stage, "GET v", "$1\r\n1\r\n", "$1\r\n2\r\n"), None);
    assert_eq!(stage.lane.status().reads_compared, 0, "not counted at all");
    let trap = Some(guest(&host(), "cf_on_pair", "unreachable"));
    let mut stage = compared_stage(Seats { pair: trap, ..Seats::default() });
    let found = compare(&mut stage, "GET v", "$1\r\n1\r\n", "$1\r\n2\r\n");
    assert_eq!(found, Some(("v".to_owned(), "value".to_owned())), "a fault leaves it to the built-in comparison");
}

/// Redacts strings that begin with `!`, drops keys that begin with `x`, keeps the rest.
const REDACT: &str = r#"
    (if (i32.eq (i32.load8_u (i32.load (i32.const 48))) (i32.const 120)) (then (return (i64.const 0x42))))
    (if (i32.eq (i32.load8_u (i32.load (i32.const 56))) (i32.const 33)) (then
        (i32.store8 (i32.const 0) (i32.const 63))
        (return (i64.const 0x1_0000_0041))))
    (i64.const 0x40)"#;

fn records_stage(body: &str) -> Stage {
    let mut stage = compared_stage(Seats { record: Some(guest(&host(), "cf_on_record", body)), ..Seats::default() });
    assert!(stage.lane.status().uncopied, "another records policy: everything is copied again");
    stage.order(LaneOrder::PassDone { pass: 2 });
    stage.events();
    stage
}

/// The repair that follows a write: its type is learnt from a dump, its value read by type. What the shadow is then sent.
fn repaired(stage: &mut Stage, key: &str, read: &str, value: &str) -> Vec<String> {
    assert_eq!(stage.hears(Side::Source), [format!("PEXPIRETIME {key}"), format!("DUMP {key}")]);
    stage.answers(Side::Source, &[b":-1\r\n".to_vec(), dump(0)].concat());
    assert_eq!(stage.hears(Side::Source), [format!("PEXPIRETIME {key}"), read.to_owned()]);
    stage.answers(Side::Source, format!(":-1\r\n{value}").as_bytes());
    stage.hears(Side::Target)
}

fn written(stage: &mut Stage, line: &str) {
    stage.says(1, line);
    assert_eq!(stage.hears(Side::Source), [line]);
    stage.answers(Side::Source, b"+OK\r\n");
    assert_eq!(stage.told(), [(1, "+OK\r\n".to_owned())]);
    assert_eq!(stage.hears(Side::Target), Vec::<String>::new(), "nothing that the policy has not seen");
}

#[test]
fn every_value_passes_the_records_policy_also_after_a_write() {
    let mut stage = records_stage(REDACT);
    written(&mut stage, "SET a !secret");
    assert_eq!(repaired(&mut stage, "a", "GET a", "$7\r\n!secret\r\n"), ["DEL a", "SET a ?"]);
    stage.answers(Side::Target, b":0\r\n+OK\r\n");
    assert_eq!((stage.dirty(), stage.lane.status().altered), (0, 1));
    let frame = request(&[b"GET", b"a"]);
    stage.item(1, LaneItem::ComparedRead { command: command_of(&frame), len: frame.len() }, frame);
    stage.hears(Side::Source);
    stage.answers(Side::Source, b"$7\r\n!secret\r\n");
    assert_eq!(stage.hears(Side::Target), Vec::<String>::new(), "differs on purpose: not compared");
    stage.told();
    written(&mut stage, "SET a open");
    assert_eq!(repaired(&mut stage, "a", "GET a", "$4\r\nopen\r\n"), ["DEL a", "SET a open"]);
    stage.answers(Side::Target, b":1\r\n+OK\r\n");
    assert_eq!(stage.lane.status().altered, 0);
    written(&mut stage, "SET x1 v");
    assert_eq!(repaired(&mut stage, "x1", "GET x1", "$1\r\nv\r\n"), ["DEL x1"]);
    stage.answers(Side::Target, b":0\r\n");
    assert_eq!((stage.dirty(), stage.lane.status().altered), (0, 1));
}

#[test]
fn a_block_passes_the_records_policy_too() {
    let mut stage = records_stage(REDACT);
    let frames = [request(&[b"SET", b"a", b"!secret"]), request(&[b"INCR", b"n"])].concat();
    stage.item(1, LaneItem::Transaction { commands: commands_of(&frames), len: frames.len() }, frames);
    assert_eq!(stage.hears(Side::Source), ["MULTI", "SET a !secret", "INCR n", "EXEC"]);
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n:1\r\n");
    assert_eq!(stage.told(), [(1, "*2\r\n+OK\r\n:1\r\n".to_owned())]);
    assert_eq!(stage.hears(Side::Target), Vec::<String>::new(), "nothing that the policy has not seen");
    assert_eq!(stage.dirty(), 2);
}

#[test]
fn a_key_that_goes_or_changes_its_type_between_the_two_reads_is_copied_all_the_same() {
    let mut stage = records_stage(REDACT);
    written(&mut stage, "SET a v");
    assert_eq!(repaired(&mut stage, "a", "GET a", "$-1\r\n"), ["DEL a"], "deleted since");
    stage.answers(Side::Target, b":0\r\n");
    assert_eq!(stage.dirty(), 0);
    written(&mut stage, "SET b v");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    assert_eq!(repaired(&mut stage, "b", "GET b", wrong), Vec::<String>::new(), "a list since");
    stage.later(300_000);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME b", "DUMP b"], "from the start");
    stage.answers(Side::Source, &[b":-1\r\n".to_vec(), dump(1)].concat());
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME b", "LRANGE b 0 -1"]);
    stage.answers(Side::Source, b":-1\r\n*1\r\n$1\r\nv\r\n");
    assert_eq!(stage.hears(Side::Target), ["DEL b", "RPUSH b v"]);
    stage.answers(Side::Target, b":1\r\n:1\r\n");
    assert_eq!(stage.dirty(), 0);
}

#[test]
fn without_a_verdict_a_record_is_not_copied() {
    let mut stage = records_stage("unreachable");
    written(&mut stage, "SET a !secret");
    assert_eq!(repaired(&mut stage, "a", "GET a", "$7\r\n!secret\r\n"), Vec::<String>::new());
    assert_eq!(stage.dirty(), 1, "and nothing moves on without it");
    let named =
        stage.events().iter().any(|event| matches!(event, LaneEvent::RecordNotCopied { key, .. } if **key == *b"a"));
    assert!(named);
}

#[test]
fn another_records_policy_waits_for_the_end_of_a_fence() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Fence { ticket: 7, budget_us: 1_000_000 });
    assert!(stage.is_fenced());
    Seats { record: Some(guest(&host(), "cf_on_record", REDACT)), ..Seats::default() }.fill(&stage.policies);
    stage.lane.policies_changed(stage.now);
    assert!(!stage.lane.status().uncopied, "nothing may be copied behind a fence");
    stage.order(LaneOrder::Release { ticket: 7 });
    assert!(stage.lane.status().uncopied, "but at its end");
}

#[test]
fn what_a_retired_lane_still_reads_is_not_copied_past_the_policy() {
    let mut stage = records_stage(REDACT);
    written(&mut stage, "SET a !secret");
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME a", "DUMP a"]);
    stage.lane.retire();
    Seats::default().fill(&stage.policies);
    stage.lane.policies_changed(stage.now);
    stage.answers(Side::Source, &[b":-1\r\n".to_vec(), dump(0)].concat());
    stage.later(1_000_000);
    assert_eq!(stage.hears(Side::Target), Vec::<String>::new());
}
