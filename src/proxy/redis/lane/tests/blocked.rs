//! Clients blocked in the lane: who is tried, when, and in which order.

use super::*;
use base::model::limits;

impl Stage {
    fn blocks(&mut self, client: u64, line: &str) {
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        self.item(client, LaneItem::Blocking { command: command_of(&frame), len: frame.len() }, frame);
    }

    /// Both wait for an empty list, in this order.
    fn with_two_blocked() -> Self {
        let mut stage = Self::in_step();
        for client in [1, 2] {
            stage.blocks(client, "BLPOP l 0");
            if stage.hears(Side::Source) == ["LMPOP 1 l LEFT"] {
                stage.answers(Side::Source, b"*-1\r\n");
            }
        }
        stage
    }
}

fn popped(value: &str) -> Vec<u8> {
    format!("*2\r\n$1\r\nl\r\n*1\r\n${}\r\n{value}\r\n", value.len()).into_bytes()
}

#[test]
fn blocked_clients_do_not_wake_each_other() {
    let mut stage = Stage::with_two_blocked();
    assert!(stage.hears(Side::Source).is_empty(), "a try that found nothing wakes nobody");
    stage.later(0);
    stage.answers(Side::Source, b"*-1\r\n");
    stage.hears(Side::Source);
    stage.later(limits::WAITER_POLL_US / 2);
    assert!(stage.hears(Side::Source).is_empty());
    stage.later(limits::WAITER_POLL_US);
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"], "now and then the first in line looks again");
    stage.answers(Side::Source, b"*-1\r\n");
    assert!(stage.hears(Side::Source).is_empty());
    assert!(stage.told().is_empty());
}

#[test]
fn what_arrives_goes_to_blocked_clients_in_the_order_of_waiting() {
    let mut stage = Stage::with_two_blocked();
    stage.says(9, "RPUSH l a b");
    stage.blocks(3, "BLPOP l 0");
    assert_eq!(stage.hears(Side::Source), ["RPUSH l a b"], "the third stands behind the others");
    stage.answers(Side::Source, b":2\r\n");
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"]);
    stage.answers(Side::Source, &popped("a"));
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"], "there may be more");
    stage.answers(Side::Source, &popped("b"));
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"]);
    stage.answers(Side::Source, b"*-1\r\n");
    assert!(stage.hears(Side::Source).is_empty());
    let told: Vec<u64> = stage.told().iter().map(|(client, _)| *client).collect();
    assert_eq!(told, [9, 1, 2]);
    assert_eq!(stage.hears(Side::Target), ["RPUSH l a b", "LMPOP 1 l LEFT", "LMPOP 1 l LEFT"]);
}

#[test]
fn only_what_may_bring_something_wakes() {
    let mut stage = Stage::with_two_blocked();
    for line in ["LPOP l", "LREM l 0 x", "DEL l", "ZADD l 1 m", "EXPIRE l 9", "LTRIM l 0 1"] {
        stage.says(9, line);
        stage.hears(Side::Source);
        stage.answers(Side::Source, b":0\r\n");
        if line.starts_with("EXPIRE") {
            stage.answers(Side::Source, b":-2\r\n");
        }
        assert!(stage.hears(Side::Source).is_empty(), "{line}");
    }
    for line in ["RENAME x l", "LMOVE x l LEFT LEFT"] {
        stage.says(9, line);
        stage.hears(Side::Source);
        stage.answers(Side::Source, b"+OK\r\n");
        assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"], "{line}");
        stage.answers(Side::Source, b"*-1\r\n");
    }
}

/// Redis looks at the type when the wait begins.
#[test]
fn a_key_that_becomes_another_type_ends_no_wait() {
    let mut stage = Stage::with_two_blocked();
    stage.says(9, "RENAME s l");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b"+OK\r\n-WRONGTYPE no list\r\n");
    assert_eq!(stage.told(), [(9, "+OK\r\n".to_owned())]);
    stage.blocks(4, "BLPOP m 0");
    stage.answers(Side::Source, b"-WRONGTYPE no list\r\n");
    assert_eq!(stage.told(), [(4, "-WRONGTYPE no list\r\n".to_owned())], "at the beginning it does");
}

#[test]
fn a_fence_does_not_wait_for_blocked_clients_and_they_look_again_behind_it() {
    let mut stage = Stage::with_two_blocked();
    stage.says(9, "RPUSH l a");
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":1\r\n");
    assert!(stage.hears(Side::Source).is_empty(), "nobody is served behind a fence");
    stage.answers(Side::Target, b":1\r\n");
    assert!(stage.is_fenced());
    stage.lane.publish(&plan(Authority::initial().flipped()), stage.now);
    stage.order(LaneOrder::Release { ticket: 2 });
    stage.hears(Side::Source);
    let sent = stage.hears(Side::Target);
    assert_eq!(sent.last().map(String::as_str), Some("LMPOP 1 l LEFT"), "{sent:?}");
    assert_eq!(sent.iter().filter(|line| line.starts_with("LMPOP")).count(), 1, "the first in line: {sent:?}");
}

#[test]
fn a_fence_that_is_given_up_lets_blocked_clients_look_again() {
    let mut stage = Stage::with_two_blocked();
    stage.says(9, "RPUSH l a");
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 1000 });
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":1\r\n");
    stage.later(2000);
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"]);
}

#[test]
fn behind_a_script_the_first_in_line_look_soon() {
    let mut stage = Stage::with_two_blocked();
    stage.says(9, "EVAL x 1 other");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":1\r\n");
    stage.later(limits::WAITER_SCRIPT_POLL_US);
    assert!(stage.hears(Side::Source).contains(&"LMPOP 1 l LEFT".to_owned()));
}

#[test]
fn many_blocked_clients_look_in_turn() {
    let mut stage = Stage::in_step();
    let count = limits::WAITER_POLLS_MAX + 5;
    for client in 0..count {
        stage.blocks(client as u64, &format!("BLPOP l{client} 0"));
        stage.answers(Side::Source, b"*-1\r\n");
    }
    stage.hears(Side::Source);
    let mut looked = Vec::new();
    for _ in 0..2 {
        stage.later(limits::WAITER_POLL_US);
        let sent = stage.hears(Side::Source);
        assert!(sent.len() <= limits::WAITER_POLLS_MAX);
        for _ in &sent {
            stage.answers(Side::Source, b"*-1\r\n");
        }
        looked.extend(sent);
    }
    looked.sort();
    looked.dedup();
    assert_eq!(looked.len(), count);
}

#[test]
fn all_that_read_a_stream_are_woken() {
    let mut stage = Stage::in_step();
    for (client, group) in [(1, "g"), (2, "h")] {
        stage.blocks(client, &format!("XREADGROUP GROUP {group} c BLOCK 0 STREAMS s >"));
        stage.hears(Side::Source);
        stage.answers(Side::Source, b"*-1\r\n");
    }
    stage.hears(Side::Source);
    stage.says(9, "XADD s 1-1 f v");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b"$3\r\n1-1\r\n");
    assert_eq!(stage.hears(Side::Source), ["XREADGROUP GROUP g c STREAMS s >", "XREADGROUP GROUP h c STREAMS s >"]);
}
