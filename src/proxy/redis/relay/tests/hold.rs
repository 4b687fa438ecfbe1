//! A hold: nobody begins a command until the release, and what is outstanding is waited for before it counts as drained.

use super::*;
use bus::{HoldEvent, HoldOrder};

const BEGIN: HoldOrder = HoldOrder::Begin { ticket: 7 };
const RELEASE: HoldOrder = HoldOrder::Release { ticket: 7 };
const DRAINED: [(u64, HoldEvent); 1] = [(7, HoldEvent::Drained)];

impl Stage {
    /// Gives an order and returns what has been reported since the last one.
    fn hold(&mut self, order: HoldOrder) -> Vec<(u64, HoldEvent)> {
        self.relay.hold(order, self.now).expect("an interlay that can hold");
        self.perform();
        self.reported()
    }

    fn reported(&mut self) -> Vec<(u64, HoldEvent)> {
        self.relay.take_hold_events()
    }

    fn sends(&mut self, client: ClientKey, bytes: &[u8]) {
        self.relay.client_input(client, bytes, self.now);
        self.perform();
    }
}

fn released(held: u64, longest_hold_us: u64) -> Vec<(u64, HoldEvent)> {
    vec![(7, HoldEvent::Released { held, longest_hold_us })]
}

/// Both ways to work without a lane.
fn stages() -> [Stage; 2] {
    [PlanMode::PassThrough, PlanMode::Followed].map(Stage::new)
}

#[test]
fn no_command_passes_a_hold_and_all_go_on_in_the_order_in_which_they_came() {
    for mut stage in stages() {
        let (a, b) = (stage.client(), stage.client());
        stage.says(a, &["SET a 0"]);
        stage.hears(0);
        stage.answers(0, "+OK\r\n");
        assert_eq!(stage.hold(BEGIN), DRAINED, "nothing is outstanding");
        stage.now.mono_us = 1000;
        stage.says(b, &["SET b 1", "SET b 2"]);
        let late = stage.client();
        stage.now.mono_us = 2000;
        stage.says(a, &["SET a 1"]);
        stage.says(late, &["CLIENT GETNAME"]);
        stage.says(b, &["SET b 3"]);
        assert_eq!((stage.hears(0), stage.gets(late)), (Vec::new(), String::new()));
        assert!([a, b, late].iter().all(|client| !stage.relay.may_read_client(*client)), "their sockets wait too");
        stage.now.mono_us = 4000;
        assert_eq!(stage.hold(RELEASE), released(3, 3000));
        assert_eq!(stage.hears(0), ["SET b 1", "SET b 2", "SET b 3", "SET a 1"]);
        assert!(stage.gets(late) == "$-1\r\n");
        assert!([a, b, late].iter().all(|client| stage.relay.may_read_client(*client)));
    }
}

#[test]
fn a_hold_has_drained_when_the_last_reply_is_in_and_not_before() {
    for mut stage in stages() {
        let (a, b) = (stage.client(), stage.client());
        stage.says(a, &["SET a 1", "SET a 2"]);
        stage.says(b, &["MULTI", "SET b 1"]);
        assert_eq!(stage.hold(BEGIN), []);
        stage.answers(0, "+OK\r\n");
        stage.answers(1, "+OK\r\n");
        stage.answers(0, "+OK\r\n");
        assert_eq!(stage.reported(), [], "a command of the open block is not answered");
        stage.answers(1, "+QUEUED\r\n");
        assert_eq!(stage.reported(), DRAINED, "an open block alone writes nothing");
        stage.says(b, &["EXEC"]);
        assert_eq!(stage.hears(1), ["MULTI", "SET b 1"], "its EXEC waits");
        assert_eq!(stage.reported(), [], "once is enough");
        assert_eq!(stage.hold(HoldOrder::Shut { ticket: 8 }), [(8, HoldEvent::Drained)], "for each order");
        assert_eq!(stage.hold(RELEASE), [], "an order of the hold before");
        assert_eq!(stage.hears(1), Vec::<String>::new());
        assert_eq!(stage.hold(HoldOrder::Release { ticket: 8 }).len(), 1);
        assert_eq!(stage.hears(1), ["EXEC"]);
    }
}

#[test]
fn what_a_client_wanted_no_reply_to_or_left_behind_is_waited_for() {
    // The line, the n-th connection it goes to, and what the server answers.
    for (line, answer) in [
        (["CLIENT REPLY OFF", "SET k 1"].as_slice(), "+OK\r\n"),
        (&["SELECT 1"], "+OK\r\n"),
        (&["SET k 1"], "+OK\r\n"),
        (&["WATCH k", "SET k 1"], "+OK\r\n+OK\r\n"),
        (&["MULTI", "SET k 1", "EXEC"], "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
    ] {
        for gone in [false, true] {
            let mut stage = Stage::new(PlanMode::Followed);
            let client = stage.client();
            stage.says(client, line);
            if gone {
                stage.relay.client_closed(client);
            }
            assert_eq!(stage.hold(BEGIN), [], "{line:?}");
            assert!(!stage.hears(0).is_empty(), "{line:?}");
            assert_eq!(stage.reported(), [], "{line:?}");
            stage.answers(0, answer);
            assert_eq!(stage.reported(), DRAINED, "{line:?}");
            let unshared = line.len() > 1 && !line[0].starts_with("CLIENT");
            let kept = stage.relay.shared.upstreams.get(stage.upstreams[0]).is_some();
            assert_eq!(kept, !(gone && unshared), "{line:?}: its own connection ends behind the answer");
        }
    }
}

#[test]
fn commands_for_a_connection_that_is_still_logging_in_are_outstanding() {
    for line in ["SET k 1", "BLPOP l 0"] {
        let mut stage = Stage::new(PlanMode::Followed);
        let client = stage.client();
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        stage.relay.client_input(client, &frame, stage.now);
        assert_eq!(stage.relay.hold(BEGIN, stage.now), Ok(()));
        assert_eq!(stage.reported(), []);
        stage.perform();
        assert_eq!(stage.reported(), [], "logged in, and not sent yet");
        assert_eq!(stage.hears(0), [line]);
        assert_eq!(stage.reported(), []);
        if line.starts_with('B') {
            stage.relay.tick(stage.now);
            stage.perform();
            assert_eq!((stage.lists, stage.reported().as_slice()), (1, DRAINED.as_slice()), "the server is asked");
        } else {
            stage.answers(0, "+OK\r\n");
            assert_eq!(stage.reported(), DRAINED);
        }
    }
}

#[test]
fn a_blocking_command_may_find_something_until_its_server_says_that_it_is_blocked() {
    for (says, drained) in [(Ok("b"), true), (Ok("bU"), true), (Ok("N"), false), (Err("-NOPERM no\r\n"), true)] {
        let mut stage = Stage::new(PlanMode::Followed);
        let (one, other) = (stage.client(), stage.client());
        stage.says(one, &["BLPOP l 0"]);
        stage.says(other, &["BLPOP l 0"]);
        stage.hears(0);
        stage.hears(1);
        stage.lists_as = says;
        assert_eq!(!stage.hold(BEGIN).is_empty(), drained, "{says:?}");
        assert_eq!(stage.lists, 1, "about both at once");
        if !drained {
            stage.answers(0, "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
            stage.lists_as = Ok("b");
            assert_eq!(stage.reported(), []);
            stage.relay.tick(stage.now);
            stage.perform();
            assert_eq!(stage.reported(), DRAINED, "one was answered, the other is blocked now");
        }
        let lists = stage.lists;
        assert_eq!(stage.hold(HoldOrder::Shut { ticket: 7 }), DRAINED);
        stage.relay.tick(stage.now);
        stage.perform();
        assert_eq!(stage.lists, lists, "what is blocked stays so");
    }
}

#[test]
fn a_question_that_has_become_idle_does_not_hold_up_a_plan() {
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.says(client, &["BLPOP l 0"]);
    stage.hears(0);
    stage.slow = true;
    assert_eq!(stage.hold(BEGIN), []);
    stage.answers(0, "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
    assert_eq!(stage.reported(), DRAINED);
    stage.publish(2, Authority::initial().flipped(), PlanMode::Followed);
    assert_eq!(stage.relay.take_acked_plan(), Some(Generation(2)));
}

#[test]
fn a_question_that_is_not_answered_is_asked_once_and_again_when_its_connection_is_gone() {
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.says(client, &["BLPOP l 0"]);
    stage.hears(0);
    stage.slow = true;
    assert_eq!(stage.hold(BEGIN), []);
    stage.relay.tick(stage.now);
    stage.perform();
    let [(question, _)] = stage.unconnected[..] else { panic!("{:?}", stage.unconnected) };
    stage.relay.upstream_failed(question, &Failure::Unreachable("too many clients".to_owned()));
    stage.slow = false;
    assert_eq!(stage.reported(), []);
    stage.relay.tick(stage.now);
    stage.perform();
    assert_eq!(stage.reported(), DRAINED);
    assert_eq!(stage.gets(client), "");
}

#[test]
fn a_connection_that_is_lost_is_not_waited_for() {
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.says(client, &["SET k 1"]);
    assert_eq!(stage.hold(BEGIN), []);
    let upstream = stage.upstreams[0];
    stage.relay.upstream_failed(upstream, &Failure::Lost("reset".to_owned()));
    assert_eq!(stage.reported(), DRAINED);
}

#[test]
fn nobody_waits_for_clients_that_are_blocked_subscribed_or_watching() {
    let mut stage = Stage::new(PlanMode::Followed);
    let [blocked, subscribed, monitor, watching] = [(); 4].map(|()| stage.client());
    stage.says(blocked, &["BLPOP l 0"]);
    stage.says(subscribed, &["HELLO 3"]);
    stage.hears(0);
    stage.hears(1);
    stage.answers(1, "%0\r\n");
    stage.says(subscribed, &["SUBSCRIBE c"]);
    stage.says(monitor, &["MONITOR"]);
    stage.says(watching, &["WATCH k"]);
    stage.hears(4);
    stage.answers(4, "+OK\r\n");
    stage.hears(2);
    stage.answers(2, ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    assert_eq!(stage.hold(BEGIN), DRAINED);
    stage.hears(2);
    stage.answers(2, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n");
    assert!(stage.gets(subscribed).contains("message"), "messages go on");
    stage.says(subscribed, &["SET k 1"]);
    assert_eq!(stage.hears(2), Vec::<String>::new(), "its commands do not");
    stage.says(blocked, &["SET k 2"]);
    stage.answers(0, "*-1\r\n");
    assert_eq!(stage.gets(blocked), "*-1\r\n", "its time-out");
    assert_eq!(stage.hears(1), Vec::<String>::new(), "and it goes no further");
    assert_eq!(stage.hold(RELEASE), released(2, 0));
    assert_eq!(stage.hears(2), ["SET k 1"]);
    assert_eq!(stage.hears(5), ["SET k 2"]);
}

#[test]
fn a_large_request_that_has_begun_is_let_through_to_its_end() {
    let size = 300 * 1024;
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n");
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.sends(client, head.as_bytes());
    assert_eq!(stage.hold(BEGIN), []);
    stage.sends(client, &vec![b'x'; size]);
    assert!(stage.relay.may_read_client(client), "the rest of it is read");
    assert_eq!(stage.reported(), []);
    stage.sends(client, b"\r\n*1\r\n$4\r\nPING\r\n");
    assert!(!stage.relay.may_read_client(client), "what follows it is not");
    let heard = stage.relay.take_upstream_output(stage.upstreams[0], Vec::new()).expect("the request");
    assert_eq!(heard.len(), head.len() + size + 2, "all of it, and nothing behind it");
    assert_eq!(stage.reported(), [], "not answered");
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.reported(), DRAINED);
    let late = stage.client();
    stage.sends(late, head.as_bytes());
    assert_eq!(stage.relay.take_upstream_output(stage.upstreams[0], Vec::new()), None, "one that begins later waits");
    stage.hold(RELEASE);
    assert_eq!(stage.hears(1), ["PING"]);
    assert_eq!(stage.relay.take_upstream_output(stage.upstreams[0], Vec::new()), Some(head.into_bytes()));
}

#[test]
fn a_large_request_whose_client_leaves_is_not_waited_for() {
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.sends(client, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$400000\r\nxx");
    assert_eq!(stage.hold(BEGIN), []);
    stage.relay.client_closed(client);
    assert_eq!(stage.reported(), DRAINED, "the server drops what is not whole");
    assert!(stage.relay.shared.upstreams.get(stage.upstreams[0]).is_none());
}

#[test]
fn half_a_request_is_kept_through_a_hold() {
    let mut stage = Stage::new(PlanMode::Followed);
    let client = stage.client();
    stage.sends(client, b"*2\r\n$3\r\nGET\r\n$1");
    stage.hold(BEGIN);
    stage.sends(client, b"\r\nk\r\n*2\r\n$3\r\nGE");
    stage.hold(RELEASE);
    assert_eq!(stage.hears(0), ["GET k"]);
    stage.sends(client, b"T\r\n$1\r\nl\r\n");
    assert_eq!(stage.hears(0), ["GET l"]);
}

#[test]
fn a_client_that_leaves_is_forgotten_and_a_release_without_a_hold_is_harmless() {
    let mut stage = Stage::new(PlanMode::Followed);
    stage.hold(BEGIN);
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["SET a 1"]);
    stage.now.mono_us = 10;
    stage.says(b, &["SET b 1"]);
    stage.relay.client_closed(a);
    stage.now.mono_us = 30;
    assert_eq!(stage.hold(RELEASE), released(1, 20));
    assert_eq!(stage.hears(0), ["SET b 1"]);
    assert_eq!(stage.hold(RELEASE), released(0, 0));
}

#[test]
fn the_lane_has_a_fence_of_its_own() {
    let mut stage = Stage::new(PlanMode::Dual);
    for order in [BEGIN, HoldOrder::Shut { ticket: 7 }, RELEASE] {
        assert!(stage.relay.hold(order, stage.now).is_err(), "{order:?}");
    }
    let client = stage.client();
    stage.says(client, &["SET k 1"]);
    assert_eq!(stage.lane().len(), 1);
}

#[test]
fn a_follower_that_begins_or_ends_is_noticed_by_nobody() {
    for (before, after) in [(PlanMode::PassThrough, PlanMode::Followed), (PlanMode::Followed, PlanMode::PassThrough)] {
        let mut stage = Stage::new(before);
        let (plain, watching, blocked) = (stage.client(), stage.client(), stage.client());
        stage.says(plain, &["SET k 1"]);
        stage.says(watching, &["WATCH k"]);
        stage.says(blocked, &["BLPOP l 0"]);
        stage.hears(1);
        stage.answers(1, "+OK\r\n");
        stage.publish(2, Authority::initial(), after);
        assert_eq!(stage.relay.take_acked_plan(), Some(Generation(2)), "nothing of the old plan is to end");
        assert_eq!(stage.unblocks, 0);
        stage.says(plain, &["SET k 2"]);
        assert_eq!(stage.hears(0), ["SET k 1", "SET k 2"], "on the same connection");
        stage.says(watching, &["MULTI", "SET k 3", "EXEC"]);
        assert_eq!(stage.hears(1), ["MULTI", "SET k 3", "EXEC"]);
        stage.hears(2);
        stage.answers(2, "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
        assert_eq!(stage.gets(blocked), "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
        assert_eq!(stage.upstreams.len(), 3);
    }
}
