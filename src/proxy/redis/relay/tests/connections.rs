//! Server connections that are given back, left behind, refused, or not read.

use super::*;
use base::model::limits;

fn in_resp3(stage: &mut Stage) -> ClientKey {
    let client = stage.client();
    stage.says(client, &["HELLO 3"]);
    stage.hears(0);
    stage.answers(0, "%0\r\n");
    stage.gets(client);
    client
}

#[test]
fn one_on_which_tracking_was_on_serves_nobody_else() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = in_resp3(&mut stage);
    stage.says(client, &["CLIENT TRACKING ON", "GET k"]);
    stage.answers(1, "+OK\r\n$-1\r\n");
    stage.says(client, &["CLIENT TRACKING OFF"]);
    stage.answers(1, "+OK\r\n");
    assert!(stage.relay.shared.upstreams.get(stage.upstreams[1]).is_none(), "closed, not given to another");
}

#[test]
fn one_whose_subscription_is_not_confirmed_ends_with_its_client() {
    for pipelined in [false, true] {
        let mut stage = Stage::new(PlanMode::PassThrough);
        let client = in_resp3(&mut stage);
        let commands: &[&str] = if pipelined { &["SUBSCRIBE c", "SET k 1", "SUBSCRIBE d"] } else { &["SUBSCRIBE c"] };
        stage.says(client, commands);
        stage.hears(1);
        stage.relay.client_closed(client);
        stage.perform();
        if pipelined {
            // What was sent is still run, and waited for.
            stage.answers(1, ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+OK\r\n");
        }
        assert!(stage.relay.shared.upstreams.get(stage.upstreams[1]).is_none(), "pipelined: {pipelined}");
    }
}

#[test]
fn one_is_not_read_for_a_subscriber_that_does_not_read() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["SUBSCRIBE c"]);
    stage.answers(0, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let upstream = stage.upstreams[0];
    assert!(stage.relay.may_read_upstream(upstream));
    let text = "x".repeat(limits::CLIENT_OUTPUT_SOFT_BYTES);
    stage.answers(0, &format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${}\r\n{text}\r\n", text.len()));
    assert!(!stage.relay.may_read_upstream(upstream));
    stage.gets(client);
    assert!(stage.relay.may_read_upstream(upstream));
    let asks = stage.relay.take_asks();
    assert!(asks.iter().any(|ask| matches!(ask, Ask::ReadUpstream(key) if *key == upstream)), "{asks:?}");
}

#[test]
fn what_a_server_says_before_it_closes_is_passed_on() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    stage.slow = true;
    let client = stage.client();
    stage.says(client, &["GET k"]);
    let (upstream, _) = stage.unconnected[0];
    stage.relay.upstream_opened(upstream, stage.now);
    let full = "-ERR max number of clients reached\r\n";
    stage.relay.upstream_input(upstream, full.as_bytes(), stage.now).expect("RESP");
    stage.relay.upstream_failed(upstream, &Failure::Unreachable("closed before it was ready".to_owned()));
    assert_eq!(stage.gets(client), full);
}

#[test]
fn another_user_logs_in_on_the_connection_that_has_the_database() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    for (nth, line) in ["AUTH a x", "SELECT 9"].iter().enumerate() {
        stage.says(client, &[line]);
        stage.hears(nth);
        stage.answers(nth, "+OK\r\n");
    }
    stage.gets(client);
    let before = stage.upstreams.len();
    stage.says(client, &["AUTH b y"]);
    let own = stage.upstreams.len() - 1;
    assert_eq!((own, stage.hears(own)), (before, vec!["AUTH b y".to_owned()]));
    stage.answers(own, "+OK\r\n");
    stage.says(client, &["GET k"]);
    assert_eq!(stage.hears(own), ["GET k"], "no other connection may be able to choose the database");
}
