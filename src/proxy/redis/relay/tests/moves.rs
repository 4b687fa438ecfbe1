//! What clients have on the old authority when the plan changes while all are held: blocked, watching, in a block, subscribed.

use super::*;
use bus::{HoldEvent, HoldOrder};

const FOLLOWED: PlanMode = PlanMode::Followed;
const POPPED: &str = "*2\r\n$1\r\nl\r\n$1\r\nv\r\n";

impl Stage {
    /// Holds all clients; nothing is outstanding.
    fn held(&mut self) {
        self.relay.hold(HoldOrder::Begin { ticket: 1 }, self.now).expect("no lane");
        self.perform();
        assert_eq!(self.relay.take_hold_events(), [(1, HoldEvent::Drained)]);
    }

    fn release(&mut self) {
        self.relay.hold(HoldOrder::Release { ticket: 1 }, self.now).expect("no lane");
        self.perform();
        assert!(matches!(self.relay.take_hold_events()[..], [(1, HoldEvent::Released { .. })]));
    }

    /// As control does behind the ack: has everything that blocked up to then sent again.
    fn move_until(&mut self, ticket: u64, until_us: u64) -> Vec<(u64, HoldEvent)> {
        self.relay.hold(HoldOrder::Move { ticket, until_us }, self.now).expect("no lane");
        self.perform();
        self.relay.take_hold_events()
    }

    fn flip(&mut self, generation: u64) {
        let authority = self.relay.plan().authority.flipped();
        self.publish(generation, authority, FOLLOWED);
    }

    fn acked(&mut self) -> Option<u64> {
        self.relay.take_acked_plan().map(|generation| generation.0)
    }

    /// Connections with something to be sent, in the order in which it is sent.
    fn ready(&mut self) -> Vec<UpstreamKey> {
        let mut ready = self.relay.take_ready_upstreams();
        ready.dedup(); // for its log-in, and for what follows that
        ready
    }

    fn side(&self, nth: usize) -> Side {
        self.relay.shared.upstreams.get(self.upstreams[nth]).expect("a connection").key.side
    }
}

#[test]
fn blocked_clients_wait_at_the_new_authority_before_anybody_writes() {
    for mode in [PlanMode::PassThrough, FOLLOWED] {
        let mut stage = Stage::new(mode);
        let (second, first, writer) = (stage.client(), stage.client(), stage.client());
        stage.says(first, &["BLPOP l 0"]);
        stage.says(second, &["BRPOP l 10"]);
        assert_eq!((stage.hears(0), stage.hears(1)), (vec!["BLPOP l 0".into()], vec!["BRPOP l 10".into()]));
        stage.held();
        stage.says(writer, &["LPUSH l v"]);
        stage.publish(2, Authority::initial().flipped(), mode);
        assert_eq!(stage.unblocks, 2);
        stage.now.mono_us = 2_000_000;
        stage.answers(1, UNBLOCKED);
        assert_eq!(stage.hears(2), Vec::<String>::new(), "the one that blocked first is first again");
        assert_eq!(stage.acked(), None);
        stage.ready();
        stage.answers(0, UNBLOCKED);
        assert_eq!(stage.ready(), [stage.upstreams[3], stage.upstreams[2]]);
        assert_eq!((stage.side(2), stage.side(3)), (Side::Target, Side::Target));
        assert_eq!((stage.hears(3), stage.hears(2)), (vec!["BLPOP l 0".into()], vec!["BRPOP l 8.000".into()]));
        assert_eq!(stage.acked(), Some(2));
        assert_eq!((stage.upstreams.len(), stage.gets(first), stage.gets(second)), (4, String::new(), String::new()));
        stage.release();
        assert_eq!(stage.hears(4), ["LPUSH l v"]);
        stage.answers(3, POPPED);
        assert_eq!(stage.gets(first), POPPED);
        stage.says(first, &["BLPOP l 0"]);
        assert_eq!(stage.hears(3), ["BLPOP l 0"], "the connection is used again");
    }
}

#[test]
fn blocked_clients_are_moved_in_their_order_as_far_as_control_says() {
    let mut stage = Stage::new(FOLLOWED);
    let (first, second) = (stage.client(), stage.client());
    stage.now.mono_us = 10;
    stage.says(first, &["BLPOP l 0"]);
    stage.now.mono_us = 30;
    stage.says(second, &["BLPOP l 0"]);
    stage.hears(0);
    stage.hears(1);
    stage.held();
    stage.flip(2);
    stage.slow = true;
    stage.answers(0, UNBLOCKED);
    stage.answers(1, UNBLOCKED);
    stage.slow = false;
    let [(one, Side::Target), (other, Side::Target)] = stage.unconnected[..] else {
        panic!("both connect at once: {:?}", stage.unconnected)
    };
    stage.connect(other);
    stage.ready();
    assert_eq!(stage.acked(), Some(2), "what is moved is moved behind the ack, in turn with the other cores");
    assert_eq!(stage.move_until(2, 0), [(2, HoldEvent::Moved { next_us: Some(10) })], "nothing yet");
    assert_eq!(stage.move_until(3, 20), [], "its connection is not there");
    assert_eq!(stage.hears(2), Vec::<String>::new(), "the other's is, its turn comes later");
    stage.connect(one);
    assert_eq!((stage.hears(3), stage.hears(2)), (vec!["BLPOP l 0".into()], Vec::new()));
    assert_eq!(stage.relay.take_hold_events(), [(3, HoldEvent::Moved { next_us: Some(30) })]);
    assert_eq!(stage.move_until(4, u64::MAX), [], "it is not on its way yet");
    assert_eq!(stage.hears(2), ["BLPOP l 0"]);
    assert_eq!(stage.relay.take_hold_events(), [(4, HoldEvent::Moved { next_us: None })]);
}

#[test]
fn what_ends_by_itself_meanwhile_is_the_clients() {
    for own in ["*-1\r\n", POPPED, "-WRONGTYPE no list\r\n"] {
        let mut stage = Stage::new(FOLLOWED);
        let client = stage.client();
        stage.says(client, &["BLPOP l 1"]);
        stage.hears(0);
        stage.held();
        stage.flip(2);
        stage.answers(0, own);
        assert_eq!(stage.gets(client), own);
        assert_eq!((stage.acked(), stage.upstreams.len()), (Some(2), 1), "{own}: nothing is sent again");
    }
}

#[test]
fn a_command_that_the_server_had_not_seen_is_ended_by_the_next_try() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["BLPOP l 0"]);
    stage.hears(0);
    stage.held();
    stage.slow = true;
    stage.flip(2);
    stage.relay.nudge_barrier();
    stage.perform();
    assert_eq!(stage.unconnected.len(), 1, "the first try is not answered");
    let (unblock, side) = stage.unconnected[0];
    assert_eq!(side, Side::Source);
    stage.connect(unblock);
    assert_eq!(stage.unblocks, 1);
    stage.slow = false;
    stage.relay.nudge_barrier();
    stage.perform();
    assert_eq!(stage.unblocks, 2);
    stage.answers(0, UNBLOCKED);
    assert_eq!(stage.hears(1), ["BLPOP l 0"]);
}

#[test]
fn an_authority_that_cannot_be_reached_is_told_to_the_client_that_was_blocked() {
    let mut stage = Stage::new(FOLLOWED);
    let (client, second) = (stage.client(), stage.client());
    stage.says(client, &["BLPOP l 0"]);
    stage.says(second, &["BLPOP l 0"]);
    stage.hears(0);
    stage.hears(1);
    stage.held();
    stage.flip(2);
    stage.slow = true;
    stage.answers(0, UNBLOCKED);
    stage.answers(1, UNBLOCKED);
    let (failed, _) = stage.unconnected[0];
    stage.relay.upstream_failed(failed, &Failure::Unreachable("refused".to_owned()));
    let told = stage.gets(client);
    assert!(told.starts_with("-LOADING Crossfade cannot reach target 'new'"), "{told}");
    let (slow, _) = stage.unconnected[1];
    stage.connect(slow);
    assert_eq!(stage.hears(2), ["BLPOP l 0"], "the others go on");
    assert_eq!(stage.acked(), Some(2));
}

#[test]
fn a_client_that_leaves_on_the_way_holds_nobody_up() {
    for answered in [false, true] {
        let mut stage = Stage::new(FOLLOWED);
        let (first, second) = (stage.client(), stage.client());
        stage.says(first, &["BLPOP l 0"]);
        stage.says(second, &["BLPOP l 0"]);
        stage.hears(0);
        stage.hears(1);
        stage.held();
        stage.flip(2);
        stage.answers(1, UNBLOCKED);
        stage.slow = true;
        if answered {
            stage.answers(0, UNBLOCKED);
        }
        assert_eq!(stage.hears(2), Vec::<String>::new());
        stage.relay.client_closed(first);
        assert_eq!(stage.hears(2), ["BLPOP l 0"]);
        assert_eq!(stage.acked(), Some(2));
    }
}

#[test]
fn what_does_not_end_in_time_ends_with_its_connection_and_the_plan_is_acked() {
    let mut stage = Stage::new(FOLLOWED);
    let (first, second) = (stage.client(), stage.client());
    stage.says(first, &["BLPOP l 0"]);
    stage.says(second, &["BLPOP l 0"]);
    stage.hears(0);
    stage.hears(1);
    stage.held();
    stage.flip(2);
    stage.slow = true;
    stage.answers(1, UNBLOCKED);
    stage.relay.break_barrier();
    stage.perform();
    assert_eq!(stage.closed_clients, [first], "its outcome is not known");
    assert_eq!(stage.acked(), Some(2), "although the other is not connected yet");
    stage.relay.client_closed(first);
    let (late, _) = stage.unconnected[0];
    stage.connect(late);
    assert_eq!(stage.hears(2), ["BLPOP l 0"]);
}

#[test]
fn a_second_plan_moves_what_the_first_is_still_moving() {
    let mut stage = Stage::new(FOLLOWED);
    let (first, second) = (stage.client(), stage.client());
    stage.says(first, &["BLPOP l 0"]);
    stage.says(second, &["BLMPOP 9 1 l LEFT"]);
    stage.hears(0);
    stage.hears(1);
    stage.held();
    stage.flip(2);
    stage.slow = true;
    stage.answers(1, UNBLOCKED);
    let (given_up, _) = stage.unconnected.remove(0);
    stage.slow = false;
    stage.flip(3);
    assert!(
        stage.relay.shared.upstreams.get(given_up).is_none(),
        "the connection to the authority of the plan between"
    );
    stage.now.mono_us = 500;
    stage.answers(0, UNBLOCKED);
    assert_eq!((stage.side(2), stage.side(3)), (Side::Source, Side::Source));
    assert_eq!((stage.hears(3), stage.hears(2)), (vec!["BLPOP l 0".into()], vec!["BLMPOP 9.000 1 l LEFT".into()]));
    assert_eq!(stage.acked(), Some(3));
}

#[test]
fn a_command_whose_reply_is_not_wanted_is_moved_too() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["CLIENT REPLY SKIP", "XREAD BLOCK 100 STREAMS s $", "GET k"]);
    stage.hears(0);
    stage.held();
    stage.flip(2);
    stage.now.mono_us = 50_000;
    stage.answers(0, UNBLOCKED);
    assert_eq!(stage.hears(1), ["XREAD BLOCK 50 STREAMS s $"]);
    stage.answers(1, "*-1\r\n");
    assert_eq!(stage.gets(client), "");
    stage.release();
    assert_eq!(stage.hears(2), ["GET k"]);
    stage.answers(2, "$-1\r\n");
    assert_eq!(stage.gets(client), "$-1\r\n");
}

#[test]
fn when_dual_operation_begins_the_lane_gets_the_time_that_is_left() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["BLPOP l 3"]);
    stage.hears(0);
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    stage.now.mono_us = 1_000_000;
    stage.answers(0, UNBLOCKED);
    assert_eq!(lines(&stage.lane()[0].frames), ["BLPOP l 2.000"]);
}

#[test]
fn an_open_block_is_run_whole_on_the_new_authority_after_the_release() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["MULTI", "INCR k", "JSON.SET d $ 1"]);
    stage.hears(0);
    stage.answers(0, "+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    stage.held();
    stage.says(client, &["SWAPDB 0 1", "EXEC", "GET k"]);
    stage.flip(2);
    assert_eq!(stage.hears(0), ["DISCARD"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!((stage.acked(), stage.upstreams.len()), (Some(2), 1), "nothing passes the hold");
    stage.gets(client);
    stage.release();
    assert_eq!(stage.gets(client), "+QUEUED\r\n", "what one server allows is not refused");
    assert_eq!(stage.side(1), Side::Target);
    assert_eq!(stage.hears(1), ["MULTI", "INCR k", "JSON.SET d $ 1", "SWAPDB 0 1", "EXEC", "GET k"]);
    stage.answers(1, "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n+OK\r\n+OK\r\n$1\r\n1\r\n");
    assert_eq!(stage.gets(client), "*3\r\n:1\r\n+OK\r\n+OK\r\n$1\r\n1\r\n");
}

#[test]
fn exec_aborts_after_a_flip_if_keys_were_watched() {
    for in_block in [false, true] {
        let mut stage = Stage::new(FOLLOWED);
        let client = stage.client();
        stage.says(client, &["WATCH k"]);
        stage.hears(0);
        stage.answers(0, "+OK\r\n");
        if in_block {
            stage.says(client, &["MULTI"]);
            stage.hears(0);
            stage.answers(0, "+OK\r\n");
        }
        stage.held();
        stage.flip(2);
        stage.says(client, if in_block { &["SET k 1", "EXEC"] } else { &["MULTI", "SET k 1", "EXEC"] });
        stage.gets(client);
        stage.release();
        assert!(stage.gets(client).ends_with("+QUEUED\r\n*-1\r\n"));
        assert_eq!(stage.upstreams.len(), 1, "the new authority has not heard of it");
        stage.says(client, &["MULTI", "SET k 2", "EXEC"]);
        assert_eq!(stage.hears(1), ["MULTI", "SET k 2", "EXEC"], "the next one is run");
    }
}

#[test]
fn what_is_watched_after_a_flip_does_not_revive_what_was_watched_before() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["WATCH k"]);
    stage.hears(0);
    stage.answers(0, "+OK\r\n");
    stage.flip(2);
    stage.says(client, &["WATCH l"]);
    assert_eq!(stage.hears(1), ["WATCH l"]);
    stage.answers(1, "+OK\r\n");
    stage.gets(client);
    stage.says(client, &["MULTI", "SET k 1", "EXEC"]);
    assert_eq!(stage.gets(client), "+OK\r\n+QUEUED\r\n*-1\r\n");
    assert!(stage.relay.shared.upstreams.get(stage.upstreams[1]).is_none(), "no longer watched by anybody");
    stage.says(client, &["WATCH l"]);
    assert_eq!(stage.hears(2), ["WATCH l"]);
}

#[test]
fn what_the_relay_answers_itself_does_not_part_a_client_from_what_it_watches() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["WATCH k"]);
    stage.answers(0, "+OK\r\n");
    stage.says(client, &["CLIENT GETNAME", "GET k"]);
    stage.answers(0, "$-1\r\n");
    stage.says(client, &["MULTI", "SET k 1", "EXEC"]);
    assert_eq!(stage.hears(0), ["WATCH k", "GET k", "MULTI", "SET k 1", "EXEC"]);
}

#[test]
fn a_watch_stays_in_force_when_the_session_changes() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["WATCH k"]);
    stage.answers(0, "+OK\r\n");
    stage.says(client, &["SELECT 1"]);
    stage.answers(0, "+OK\r\n");
    stage.says(client, &["GET k"]);
    stage.answers(0, "$-1\r\n");
    stage.says(client, &["MULTI", "SET k 1", "EXEC"]);
    assert_eq!(stage.hears(0), ["WATCH k", "SELECT 1", "GET k", "MULTI", "SET k 1", "EXEC"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    stage.says(client, &["GET k"]);
    let upstream = stage.relay.shared.upstreams.get(stage.upstreams[1]).expect("a shared connection");
    assert_eq!((upstream.owner, upstream.key.database), (None, 1), "what follows is for the database it is in");
}

#[test]
fn what_a_block_changes_of_the_session_is_changed_when_it_has_run() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["MULTI", "SELECT 5", "SET k v", "CLIENT SETNAME n", "CLIENT GETNAME", "EXEC", "GET k"]);
    let queued = "+QUEUED\r\n".repeat(4);
    stage.answers(0, &format!("+OK\r\n{queued}"));
    assert_eq!(stage.hears(0).len(), 7, "what follows EXEC goes where the session is what EXEC made of it");
    stage.answers(0, "*4\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nx\r\n$1\r\nv\r\n");
    let got = stage.gets(client);
    let expected = "*4\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nn\r\n$1\r\nv\r\n";
    assert!(got.ends_with(expected), "its own name: {got}");
    stage.says(client, &["GET k"]);
    let upstream = stage.relay.shared.upstreams.get(stage.upstreams[1]).expect("a shared connection");
    assert_eq!(upstream.key.database, 5);
    assert!(
        stage.relay.shared.upstreams.get(stage.upstreams[0]).is_none(),
        "nobody else gets a connection with a name"
    );

    stage.answers(1, "$1\r\nv\r\n");
    // A block that does not run changes nothing, nor does what the server refuses in one that does.
    stage.says(client, &["MULTI", "SELECT 6", "EXEC"]);
    stage.answers(2, "+OK\r\n+QUEUED\r\n");
    stage.answers(2, "-EXECABORT x\r\n");
    stage.says(client, &["MULTI", "SELECT 99", "EXEC"]);
    let own = stage.upstreams.len() - 1;
    stage.answers(own, "+OK\r\n+QUEUED\r\n");
    stage.answers(own, "*1\r\n-ERR DB index is out of range\r\n");
    stage.says(client, &["CLIENT REPLY ON"]);
    let client = stage.relay.clients.get(client).expect("it is there");
    assert_eq!(client.session.database, 5);
}

#[test]
fn who_asks_for_its_number_has_a_connection_of_its_own_from_then_on() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["CLIENT SETNAME n", "CLIENT ID", "GET k", "SELECT 1"]);
    assert_eq!(stage.hears(0), ["CLIENT SETNAME n", "CLIENT ID", "GET k"]);
    stage.answers(0, "+OK\r\n:77\r\n$-1\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n:77\r\n$-1\r\n", "the server's own answers");
    stage.answers(0, "+OK\r\n");
    stage.gets(client);
    stage.says(client, &["CLIENT GETNAME", "MULTI", "SET k 1", "EXEC", "GET k"]);
    assert_eq!(stage.hears(0), ["SELECT 1", "CLIENT GETNAME", "MULTI", "SET k 1", "EXEC", "GET k"]);
    assert_eq!(stage.upstreams.len(), 1);
}

#[test]
fn tracking_is_turned_on_again_on_the_other_side_and_what_is_cached_forgotten() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["HELLO 3"]);
    stage.answers(0, "%0\r\n");
    stage.gets(client);
    stage.says(client, &["CLIENT TRACKING ON", "GET k"]);
    assert_eq!(stage.hears(1), ["CLIENT TRACKING ON", "GET k"], "what it reads is watched on that connection");
    let invalidate = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
    stage.answers(1, &format!("+OK\r\n{invalidate}$-1\r\n"));
    assert_eq!(stage.gets(client), format!("+OK\r\n{invalidate}$-1\r\n"));
    stage.held();
    stage.flip(2);
    stage.release();
    assert_eq!((stage.side(2), stage.hears(2)), (Side::Target, vec!["CLIENT TRACKING ON".to_owned()]));
    assert_eq!(stage.gets(client), ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    stage.answers(2, "+OK\r\n");
    stage.says(client, &["GET k"]);
    assert_eq!(stage.hears(2), ["GET k"]);
    stage.answers(2, "$-1\r\n");
    stage.says(client, &["CLIENT TRACKING OFF"]);
    stage.answers(2, "+OK\r\n");
    stage.says(client, &["GET k"]);
    assert_eq!(stage.hears(3), ["GET k"], "it shares a connection again");
}

#[test]
fn tracking_that_is_refused_leaves_nothing() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["CLIENT TRACKING ON"]);
    stage.answers(0, "-ERR Client tracking can be enabled only in RESP3\r\n");
    stage.says(client, &["GET k"]);
    assert_eq!(stage.hears(1), ["GET k"]);
}

#[test]
fn wait_counts_what_was_written_on_other_connections() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["SET k 1", "WAIT 1 100", "GET k"]);
    assert_eq!(stage.hears(0), ["SET k 1"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.hears(1), ["PING", "WAIT 1 100"]);
    stage.answers(1, "+PONG\r\n:1\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n:1\r\n");
}

#[test]
fn what_would_take_the_replies_of_a_block_away_aborts_it() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["MULTI", "SET k v"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    stage.says(client, &["CLIENT REPLY OFF", "EXEC"]);
    let got = stage.gets(client);
    assert!(got.contains("-ERR Crossfade does not support CLIENT") && got.contains("-EXECABORT"), "{got}");
}

#[test]
fn a_subscriber_in_resp3_uses_its_connection_as_any_other() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["HELLO 3"]);
    stage.answers(0, "%0\r\n");
    stage.gets(client);
    stage.says(client, &["SUBSCRIBE c", "SET k 1", "MULTI", "SET k 2", "EXEC", "SELECT 2"]);
    assert_eq!(stage.hears(1), ["SUBSCRIBE c", "SET k 1", "MULTI", "SET k 2", "EXEC"]);
    let subscribed = ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n";
    let answers = format!("{subscribed}+OK\r\n{message}+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    stage.answers(1, &answers);
    assert_eq!(stage.gets(client), answers);
    assert_eq!(stage.hears(1), ["SELECT 2"]);
    stage.answers(1, "+OK\r\n");
    stage.gets(client);
    stage.says(client, &["GET k", "UNSUBSCRIBE"]);
    assert_eq!(stage.hears(1), ["GET k", "UNSUBSCRIBE"]);
    let unsubscribed = ">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n";
    stage.answers(1, &format!("$-1\r\n{unsubscribed}"));
    assert_eq!(stage.gets(client), format!("$-1\r\n{unsubscribed}"));
    stage.says(client, &["GET k"]);
    assert_eq!(stage.hears(1), Vec::<String>::new());
    assert_eq!(stage.hears(2), ["GET k"], "it shares a connection again");
}

#[test]
fn messages_and_replies_are_told_apart_in_resp2() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    // Looks like a message, and is none: nothing is subscribed to when it is executed.
    stage.says(client, &["MULTI", "LRANGE l 0 -1"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    stage.says(client, &["EXEC", "SUBSCRIBE a b", "UNSUBSCRIBE", "PING"]);
    stage.gets(client);
    let list = "*1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";
    let of = |word: &str, channel: &str, left: u8| {
        format!("*3\r\n${}\r\n{word}\r\n$1\r\n{channel}\r\n:{left}\r\n", word.len())
    };
    stage.answers(0, list);
    assert_eq!(stage.gets(client), list);
    let first = [of("subscribe", "a", 1), of("message", "a", 1), of("subscribe", "b", 2)].concat();
    let first = first.replace(":1\r\n*3\r\n$9", "$1\r\nx\r\n*3\r\n$9");
    stage.answers(0, &first);
    assert_eq!(stage.gets(client), first);
    assert_eq!(
        stage.hears(0).last().map(String::as_str),
        Some("UNSUBSCRIBE"),
        "whether PING is answered by a pong or a list is not known"
    );
    stage.answers(0, &of("unsubscribe", "a", 1));
    assert_eq!(stage.hears(0), Vec::<String>::new());
    stage.answers(0, &of("unsubscribe", "b", 0));
    stage.gets(client);
    assert_eq!(stage.hears(1), ["PING"], "it shares a connection again");
}

#[test]
fn a_subscription_that_is_refused_leaves_nothing() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["SUBSCRIBE a b", "UNSUBSCRIBE", "GET k"]);
    stage.answers(0, "-NOPERM no channels\r\n");
    stage.answers(0, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    assert!(stage.gets(client).starts_with("-NOPERM"));
    assert_eq!(stage.hears(1), ["GET k"]);
}

#[test]
fn subscriptions_are_made_again_while_all_are_held() {
    let mut stage = Stage::new(FOLLOWED);
    let client = stage.client();
    stage.says(client, &["SUBSCRIBE c"]);
    stage.answers(0, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    stage.gets(client);
    stage.held();
    stage.says(client, &["SUBSCRIBE d"]);
    stage.flip(2);
    assert_eq!((stage.side(1), stage.hears(1)), (Side::Target, vec!["subscribe c".to_owned()]));
    assert_eq!(stage.acked(), Some(2));
    stage.answers(1, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    assert_eq!(stage.gets(client), "");
    stage.release();
    assert_eq!(stage.hears(1), ["SUBSCRIBE d"]);
}
