//! Which reads are copied for a comparison while the shadow is followed, and what a policy refuses meanwhile.

use super::*;
use base::model::{SampledRead, limits};
use policy::testing::{Seats, guest, host, shipped};

/// The shadow is followed, this share of reads is compared, and this is the mirror policy.
fn stage(share: u16, filter: Option<policy::Instance>) -> Stage {
    let mut stage = Stage::new(PlanMode::Followed);
    stage.relay.publish(plan_comparing(2, Authority::initial(), PlanMode::Followed, share));
    stage.perform();
    Seats { request: filter, ..Seats::default() }.fill(&stage.policies);
    stage
}

fn mirror_reads() -> policy::Instance {
    shipped(&host(), "mirror_reads", "{}")
}

fn reads(stage: &mut Stage) -> Vec<(u32, String)> {
    stage
        .relay
        .take_reads()
        .into_iter()
        .map(|SampledRead { database, frame }| (database, lines(&frame).concat()))
        .collect()
}

fn read(line: &str) -> (u32, String) {
    (0, line.to_owned())
}

#[test]
fn comparable_reads_are_copied_and_take_their_usual_path() {
    let mut stage = stage(10_000, Some(mirror_reads()));
    let client = stage.client();
    let said = ["GET a", "SET a 1", "RANDOMKEY", "EXISTS a b", "XREAD BLOCK 1 STREAMS s $"];
    stage.says(client, &said);
    assert_eq!(stage.hears(0), said[..4]);
    assert_eq!(reads(&mut stage), [read("GET a"), read("EXISTS a b")]);
    assert_eq!(reads(&mut stage), [], "they were taken");
    assert!(stage.lane().is_empty());
    stage.answers(0, "$-1\r\n+OK\r\n$-1\r\n:1\r\n");
    stage.hears(1);
    stage.answers(1, "*-1\r\n");
    stage.says(client, &["SELECT 3"]);
    stage.answers(2, "+OK\r\n");
    stage.hears(2);
    stage.says(client, &["GET b", "MULTI", "GET c"]);
    assert_eq!(stage.hears(2), ["GET b"]);
    stage.answers(2, "$-1\r\n");
    assert_eq!(stage.hears(3), ["MULTI", "GET c"]);
    assert_eq!(reads(&mut stage), [(3, "GET b".to_owned())]);
}

#[test]
fn only_what_the_plan_wants_is_copied() {
    let mut stage = stage(0, Some(mirror_reads()));
    let client = stage.client();
    for (generation, mode, share, copied) in [
        (3, PlanMode::Followed, 0, 0),
        (4, PlanMode::Followed, 10_000, 20),
        (5, PlanMode::Followed, 1000, 2),
        (6, PlanMode::PassThrough, 10_000, 0),
        (7, PlanMode::Dual, 10_000, 0),
    ] {
        stage.relay.publish(plan_comparing(generation, Authority::initial(), mode, share));
        stage.says(client, &["GET k"; 20]);
        if mode != PlanMode::Dual {
            assert_eq!(stage.hears(0).len(), 20);
            stage.answers(0, &"$-1\r\n".repeat(20));
        }
        assert_eq!(reads(&mut stage).len(), copied, "of 20, {share} of ten thousand, {mode:?}");
    }
}

#[test]
fn only_what_the_policy_wants_is_copied() {
    let never = shipped(&host(), "mirror_reads", r#"{"commands_never": ["GET"]}"#);
    let mirrored = guest(&host(), "cf_on_request", "(i64.const 0x11)");
    for filter in [Some(never), Some(mirrored), None] {
        let mut stage = stage(10_000, filter);
        let client = stage.client();
        stage.says(client, &["GET k"; 20]);
        assert_eq!(stage.hears(0).len(), 20);
        assert_eq!(reads(&mut stage), []);
    }
}

#[test]
fn a_plan_decides_until_the_policies_have_come() {
    let mut stage = Stage::new(PlanMode::Followed);
    stage.relay.publish(plan_comparing(2, Authority::initial(), PlanMode::Followed, 10_000));
    let client = stage.client();
    stage.says(client, &["GET a", "GET b"]);
    assert_eq!(reads(&mut stage), [read("GET a"), read("GET b")]);
}

#[test]
fn a_full_list_takes_no_more_until_it_is_collected() {
    let mut stage = stage(10_000, Some(mirror_reads()));
    let client = stage.client();
    for _ in 0..3 {
        stage.says(client, &vec!["GET k"; limits::SAMPLED_READS_MAX - 1]);
    }
    assert_eq!(stage.hears(0).len(), 3 * (limits::SAMPLED_READS_MAX - 1), "the clients' reads go on");
    assert_eq!(reads(&mut stage).len(), limits::SAMPLED_READS_MAX);
    let long = format!("GET {}", "k".repeat(limits::SAMPLED_READS_BYTES_MAX / 2));
    stage.says(client, &[&long, &long, "GET k"]);
    assert_eq!(reads(&mut stage), [read(&long), read("GET k")], "no more bytes than that");
}

#[test]
fn reads_of_other_users_are_not_repeated() {
    for (line, copied) in [("AUTH some secret", 0), ("AUTH default secret", 1), ("AUTH secret", 1)] {
        let mut stage = stage(10_000, Some(mirror_reads()));
        let client = stage.client();
        stage.says(client, &[line]);
        stage.hears(0);
        stage.answers(0, "+OK\r\n");
        stage.says(client, &["GET k"]);
        assert_eq!(stage.hears(0), ["GET k"]);
        assert_eq!(reads(&mut stage).len(), copied, "{line}");
    }
}

#[test]
fn a_read_that_has_to_wait_is_copied_once() {
    let mut stage = stage(10_000, Some(mirror_reads()));
    let client = stage.client();
    stage.says(client, &["SELECT 1", "GET k"]);
    assert_eq!(reads(&mut stage), []);
    stage.answers(0, "+OK\r\n");
    stage.hears(0);
    stage.says(client, &["SELECT 0", "GET k"]);
    stage.answers(0, "$-1\r\n");
    stage.answers(1, "+OK\r\n");
    assert_eq!(reads(&mut stage), [(1, "GET k".to_owned()), (0, "GET k".to_owned())]);
}

#[test]
fn a_command_refused_in_a_run_reaches_no_server_and_its_neighbours_are_served() {
    let mut stage = stage(0, Some(shipped(&host(), "deny_dangerous", "{}")));
    let client = stage.client();
    stage.says(client, &["SET a 0"]);
    assert_eq!(stage.hears(0), ["SET a 0"]);
    stage.says(client, &["SET a 1", "FLUSHALL", "SET b 2"]);
    assert_eq!(stage.hears(0), ["SET a 1"], "the refusal waits its turn");
    stage.answers(0, "+OK\r\n+OK\r\n");
    assert_eq!(stage.hears(0), ["SET b 2"]);
    assert_eq!(stage.gets(client), "+OK\r\n+OK\r\n-ERR FLUSHALL is switched off during the migration\r\n");
    assert_eq!(stage.policies.borrow().stats()[0].calls, 2, "SET is remembered, FLUSHALL asked about once");
}

#[test]
fn in_a_block_on_the_server_a_refusal_aborts_it() {
    let mut stage = stage(0, Some(shipped(&host(), "deny_dangerous", r#"{"commands": ["DEL"]}"#)));
    let client = stage.client();
    stage.says(client, &["MULTI", "SET a 1", "DEL a", "SET a 2", "EXEC", "GET a"]);
    assert_eq!(stage.hears(0), ["MULTI", "SET a 1"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    assert_eq!(stage.hears(0), ["SET a 2"]);
    stage.answers(0, "+QUEUED\r\n");
    assert!(stage.relay.shared.upstreams.get(stage.upstreams[0]).is_none(), "the block ends with its connection");
    let got = stage.gets(client);
    assert!(got.starts_with("+OK\r\n+QUEUED\r\n-ERR DEL is switched off"), "{got}");
    assert!(got.ends_with("+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"), "{got}");
    assert_eq!(stage.hears(1), ["GET a"]);
    stage.says(client, &["MULTI", "SET a 1", "EXEC"]);
    stage.answers(1, "$-1\r\n");
    assert_eq!(stage.hears(2), ["MULTI", "SET a 1", "EXEC"], "the next block is not aborted");
}

#[test]
fn a_subscriber_and_a_large_request_are_refused_too() {
    let mut stage = stage(0, Some(shipped(&host(), "deny_dangerous", r#"{"commands": ["SET"]}"#)));
    let (subscriber, client) = (stage.client(), stage.client());
    stage.says(subscriber, &["SUBSCRIBE c"]);
    stage.answers(0, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    stage.gets(subscriber);
    stage.hears(0);
    stage.says(subscriber, &["SET k 1", "PING"]);
    assert_eq!(stage.hears(0), ["PING"]);
    assert!(stage.gets(subscriber).starts_with("-ERR SET is switched off"));
    let large = format!("SET k {}", "v".repeat(limits::STREAM_REQUEST_BYTES));
    stage.says(client, &[&large, "GET k"]);
    assert!(stage.gets(client).starts_with("-ERR SET is switched off"));
    assert_eq!(stage.hears(1), ["GET k"]);
}

#[test]
fn what_was_decided_of_a_command_that_waited_is_not_kept_for_the_next() {
    let mut stage = stage(0, None);
    let client = stage.client();
    let large = format!("SET k {}", "v".repeat(limits::STREAM_REQUEST_BYTES - 100));
    let many = limits::UPSTREAM_OUTPUT_SOFT_BYTES / limits::STREAM_REQUEST_BYTES + 2;
    for _ in 0..many {
        stage.says(client, &[&large]);
    }
    stage.says(client, &["GET k"]);
    assert!(!stage.hears(0).contains(&"GET k".to_owned()), "so much is unsent that it waits");
    assert_eq!(stage.hears(0).pop(), Some("GET k".to_owned()), "in a run that nobody looks at");
    stage.answers(0, &"+OK\r\n".repeat(many + 1));
    stage.gets(client);
    Seats { request: Some(shipped(&host(), "deny_dangerous", "{}")), ..Seats::default() }.fill(&stage.policies);
    stage.says(client, &["FLUSHALL"]);
    assert!(stage.gets(client).starts_with("-ERR FLUSHALL is switched off"));
}
