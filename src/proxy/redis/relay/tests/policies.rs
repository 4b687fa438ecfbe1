//! What a mirror policy decides of commands on their way: real filters, scripted connections.

use super::*;
use policy::testing::{Seats, guest, host, shipped};
use wire::resp::command::lookup;

/// Dual operation, every read may be compared, and this is the mirror policy.
fn stage(filter: Option<policy::Instance>) -> Stage {
    let mut stage = Stage::new(PlanMode::Dual);
    stage.relay.publish(plan_comparing(2, Authority::initial(), PlanMode::Dual, 10_000));
    stage.perform();
    Seats { request: filter, ..Seats::default() }.fill(&stage.policies);
    stage
}

fn items(stage: &mut Stage) -> Vec<LaneItem> {
    stage.lane().into_iter().flat_map(|batch| batch.items).collect()
}

const GET: usize = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".len();

#[test]
fn the_policy_says_which_reads_are_compared() {
    let mut all = stage(Some(shipped(&host(), "mirror_reads", "{}")));
    let client = all.client();
    all.says(client, &["GET k", "RANDOMKEY"]);
    assert_eq!(items(&mut all)[0], LaneItem::ComparedRead { command: lookup(b"GET"), len: GET });
    let mut some = stage(Some(shipped(&host(), "mirror_reads", r#"{"commands_never": ["GET"]}"#)));
    let client = some.client();
    some.says(client, &["GET k"]);
    assert_eq!((items(&mut some), some.hears(0)), (Vec::new(), vec!["GET k".to_owned()]));
    let mut without = stage(None);
    let client = without.client();
    without.says(client, &["GET k"]);
    assert_eq!(items(&mut without), [], "without a policy nothing is mirrored");
    let mut mirrored = stage(Some(guest(&host(), "cf_on_request", "(i64.const 0x11)")));
    let client = mirrored.client();
    mirrored.says(client, &["GET k"]);
    assert_eq!(items(&mut mirrored), [LaneItem::MirroredRead { len: GET }]);
}

#[test]
fn a_plan_that_compares_nothing_is_obeyed() {
    let mut stage = stage(Some(shipped(&host(), "mirror_reads", "{}")));
    stage.relay.publish(plan_comparing(3, Authority::initial(), PlanMode::Dual, 0));
    stage.perform();
    let client = stage.client();
    stage.says(client, &["GET k"]);
    assert_eq!(items(&mut stage), []);
}

#[test]
fn a_refused_command_reaches_no_server_and_its_neighbours_are_served() {
    let mut stage = stage(Some(shipped(&host(), "deny_dangerous", "{}")));
    let client = stage.client();
    stage.says(client, &["SET a 1", "FLUSHALL", "SET b 2"]);
    assert_eq!(items(&mut stage).len(), 1, "the refusal waits its turn");
    stage.lane_answers(client, 1, "+OK\r\n");
    let rest = stage.lane();
    assert_eq!(rest.len(), 1);
    assert!(!rest[0].frames.windows(8).any(|word| word == b"FLUSHALL"));
    stage.lane_answers(client, 1, "+OK\r\n");
    let got = stage.gets(client);
    assert_eq!(got, "+OK\r\n-ERR FLUSHALL is switched off during the migration\r\n+OK\r\n");
    let calls = stage.policies.borrow().stats()[0].calls;
    assert_eq!(calls, 2, "SET once (remembered), FLUSHALL once although it had to wait");
}

#[test]
fn a_command_that_waits_is_not_asked_about_again() {
    // Refuses with "no", for this command only.
    let body = "(i32.store8 (i32.const 0) (i32.const 110)) (i32.store8 (i32.const 1) (i32.const 111)) \
                (i64.const 0x2_0000_0013)";
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    stage.says(client, &["SET a 1"]);
    assert_eq!(items(&mut stage).len(), 1);
    Seats { request: Some(guest(&host(), "cf_on_request", body)), ..Seats::default() }.fill(&stage.policies);
    stage.says(client, &["SET b 2"]);
    stage.lane_answers(client, 1, "+OK\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n-ERR no\r\n");
    assert_eq!(stage.policies.borrow().stats()[0].calls, 1);
}

#[test]
fn in_a_block_a_refusal_aborts_it() {
    let mut stage = stage(Some(shipped(&host(), "deny_dangerous", r#"{"commands": ["DEL"]}"#)));
    let client = stage.client();
    stage.says(client, &["MULTI", "SET a 1", "DEL a", "EXEC"]);
    let got = stage.gets(client);
    assert!(got.starts_with("+OK\r\n+QUEUED\r\n-ERR DEL is switched off"), "{got}");
    assert!(got.ends_with("-EXECABORT Transaction discarded because of previous errors.\r\n"), "{got}");
    assert_eq!(items(&mut stage), []);
}

#[test]
fn outside_dual_operation_no_policy_is_asked() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    Seats { request: Some(shipped(&host(), "deny_dangerous", "{}")), ..Seats::default() }.fill(&stage.policies);
    let client = stage.client();
    stage.says(client, &["FLUSHALL"]);
    assert_eq!(stage.hears(0), ["FLUSHALL"]);
    assert_eq!(stage.policies.borrow().stats()[0].calls, 0);
}
