//! Replies to writes are delivered when they are confirmed, in their order, and never when the authority was lost before.

use super::*;
use bus::ConfirmOrder;

impl Stage {
    fn confirming() -> Self {
        let mut stage = Self::new(PlanMode::Followed);
        stage.confirm(ConfirmOrder::Begin);
        stage
    }

    fn confirm(&mut self, order: ConfirmOrder) {
        self.relay.confirm(order, self.now);
        self.perform();
    }

    fn ticket(&mut self) -> Option<u64> {
        self.relay.take_confirm_ticket()
    }
}

#[test]
fn the_reply_to_a_write_waits_for_its_ticket_and_reads_of_others_do_not() {
    let mut stage = Stage::confirming();
    let (writer, reader) = (stage.client(), stage.client());
    stage.says(writer, &["SET a 1", "GET a"]);
    stage.says(reader, &["GET a"]);
    assert_eq!(stage.ticket(), None, "nothing is answered");
    stage.answers(0, "+OK\r\n$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!((stage.gets(writer), stage.gets(reader)), (String::new(), "$1\r\n1\r\n".to_owned()));
    assert_eq!((stage.ticket(), stage.ticket()), (Some(1), None));
    stage.confirm(ConfirmOrder::Confirmed { ticket: 1 });
    assert_eq!(stage.gets(writer), "+OK\r\n$1\r\n1\r\n", "what follows a write is in its order");
    stage.says(writer, &["GET a"]);
    stage.answers(0, "$1\r\n1\r\n");
    assert_eq!(stage.gets(writer), "$1\r\n1\r\n", "nothing of it is unconfirmed");
}

#[test]
fn what_is_answered_behind_a_question_waits_for_the_next_ticket() {
    let mut stage = Stage::confirming();
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["SET a 1", "SET a 2"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.ticket(), Some(1));
    stage.says(b, &["SET b 1"]);
    stage.answers(0, "+2\r\n+3\r\n");
    assert_eq!(stage.ticket(), None, "one at a time");
    stage.confirm(ConfirmOrder::Confirmed { ticket: 1 });
    assert_eq!((stage.gets(a), stage.gets(b)), ("+OK\r\n".to_owned(), String::new()));
    assert_eq!(stage.ticket(), Some(2));
    stage.confirm(ConfirmOrder::Confirmed { ticket: 1 });
    assert_eq!(stage.gets(b), "", "an answer to another question");
    stage.confirm(ConfirmOrder::Confirmed { ticket: 2 });
    assert_eq!((stage.gets(a), stage.gets(b)), ("+2\r\n".to_owned(), "+3\r\n".to_owned()));
}

#[test]
fn blocks_and_scripts_and_blocking_commands_are_writes_too() {
    for (lines, replies) in [
        (vec!["MULTI", "SET a 1", "EXEC"], "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        (vec!["EVAL x 0"], ":1\r\n"),
        (vec!["BLPOP a 0"], "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (vec!["SOMETHING"], "+OK\r\n"),
    ] {
        let mut stage = Stage::confirming();
        let client = stage.client();
        stage.says(client, &lines);
        stage.answers(0, replies);
        assert_eq!(stage.gets(client), "", "{lines:?}");
        let ticket = stage.ticket().expect("a question");
        stage.confirm(ConfirmOrder::Confirmed { ticket });
        assert_eq!(stage.gets(client), replies, "{lines:?}");
    }
}

#[test]
fn a_client_is_closed_when_it_cannot_be_known_that_its_write_is_safe() {
    let mut stage = Stage::confirming();
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["SET a 1"]);
    stage.answers(0, "+OK\r\n");
    let ticket = stage.ticket().expect("a question");
    stage.says(b, &["GET a"]);
    stage.answers(0, "$1\r\n1\r\n");
    stage.confirm(ConfirmOrder::Unknown { ticket });
    assert_eq!(stage.closed_clients, [a]);
    assert_eq!((stage.gets(a), stage.gets(b)), (String::new(), "$1\r\n1\r\n".to_owned()));
}

#[test]
fn a_lost_authority_acknowledges_nothing_more() {
    let mut stage = Stage::confirming();
    let client = stage.client();
    stage.says(client, &["SET a 1"]);
    stage.answers(0, "+OK\r\n");
    let upstream = stage.upstreams[0];
    stage.relay.upstream_failed(upstream, &Failure::Lost("reset".to_owned()));
    stage.perform();
    assert_eq!(stage.closed_clients, [client]);
    assert_eq!(stage.gets(client), "");
}

#[test]
fn everything_is_delivered_when_nothing_is_confirmed_any_more_or_both_sides_are_equal() {
    for (end, flip) in [(true, false), (false, true), (false, false)] {
        let mut stage = Stage::confirming();
        let client = stage.client();
        stage.says(client, &["SET a 1"]);
        stage.answers(0, "+OK\r\n");
        assert_eq!(stage.gets(client), "");
        match (end, flip) {
            (true, _) => stage.confirm(ConfirmOrder::End),
            (_, true) => stage.publish(2, Authority::initial().flipped(), PlanMode::Followed),
            _ => stage.publish(2, Authority::initial(), PlanMode::PassThrough),
        }
        assert_eq!(stage.gets(client), "+OK\r\n");
        let nth = usize::from(flip);
        stage.says(client, &["SET a 2"]);
        stage.answers(nth, "+2\r\n");
        assert_eq!(stage.gets(client), if flip { "" } else { "+2\r\n" }, "after a flip the other side is the shadow");
    }
}
