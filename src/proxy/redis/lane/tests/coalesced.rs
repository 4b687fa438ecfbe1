//! Writes whose result can only be copied: one copy for many, never too often, at once for a fence.

use super::*;
use base::model::limits;

impl Stage {
    fn runs_script(&mut self, line: &str) {
        self.says(1, line);
        self.answers(Side::Source, b":1\r\n");
    }
}

#[test]
fn scripts_on_one_key_cost_one_copy() {
    let mut stage = Stage::in_step();
    for _ in 0..10 {
        stage.runs_script("EVAL x 1 k");
    }
    assert_eq!(stage.hears(Side::Source), ["EVAL x 1 k"; 10], "no copy yet");
    assert_eq!(stage.told().len(), 10 - 9, "answered at once");
    assert_eq!(stage.dirty(), 1, "I5");
    stage.says(1, "INCR k");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":2\r\n");
    assert!(stage.hears(Side::Target).is_empty(), "an effect would meet another value");
    stage.later(limits::COPY_QUIET_US);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "DUMP k"]);
    stage.says(1, "INCR k");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n:3\r\n");
    let shadow = stage.hears(Side::Target);
    assert!(shadow[0].starts_with("RESTORE k") && shadow[1..] == ["INCR k"], "{shadow:?}");
    stage.answers(Side::Target, b"+OK\r\n:3\r\n");
    assert_eq!(stage.dirty(), 0);
}

/// The effect stands in front of the copy in the lane, and would take a wrong value from the script's key to the other.
#[test]
fn an_effect_in_front_of_a_copy_that_is_under_way_is_not_believed() {
    let mut stage = Stage::in_step();
    stage.runs_script("EVAL x 1 k");
    stage.says(1, "SUNIONSTORE other k");
    stage.later(limits::COPY_QUIET_US);
    assert_eq!(stage.hears(Side::Source), ["EVAL x 1 k", "SUNIONSTORE other k", "PEXPIRETIME k", "DUMP k"]);
    stage.answers(Side::Source, b":3\r\n");
    assert!(stage.hears(Side::Target).is_empty());
    assert_eq!(stage.dirty(), 2, "I4: what the effect would have written is copied too");
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(2));
    stage.hears(Side::Target);
    stage.answers(Side::Target, b"+OK\r\n");
    assert_eq!(stage.dirty(), 1, "the copy of k is not doubted: the write was before it");
}

#[test]
fn a_script_behind_a_copy_marks_its_key_again() {
    let mut stage = Stage::in_step();
    stage.runs_script("EVAL x 1 k");
    stage.later(limits::COPY_QUIET_US);
    stage.says(1, "EVAL x 1 k");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":1\r\n");
    stage.hears(Side::Target);
    stage.answers(Side::Target, b"+OK\r\n");
    assert_eq!(stage.dirty(), 1);
    stage.later(limits::COPY_QUIET_US);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "DUMP k"]);
}

#[test]
fn a_fence_copies_what_is_marked_at_once() {
    let mut stage = Stage::in_step();
    stage.runs_script("EVAL x 1 k");
    stage.says(1, "EVAL x 1 m");
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    assert_eq!(stage.hears(Side::Source), ["EVAL x 1 k", "EVAL x 1 m", "PEXPIRETIME k", "DUMP k"]);
    stage.answers(Side::Source, b":1\r\n");
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME m", "DUMP m"], "also what was still under way");
    for _ in 0..2 {
        stage.answers(Side::Source, b":-1\r\n");
        stage.answers(Side::Source, &dump(0));
        assert!(!stage.is_fenced());
    }
    stage.answers(Side::Target, b"+OK\r\n+OK\r\n");
    assert!(stage.is_fenced());
}

#[test]
fn a_large_hot_key_is_copied_seldom() {
    let mut stage = Stage::in_step();
    let payload = [b"\x12".as_slice(), &vec![1; 4 * 1024 * 1024], b"\x0a\0", &[0; 8]].concat();
    let large = [format!("${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
    let (mut copies, mut scripts) = (0, 0);
    for _ in 0..400 {
        stage.says(1, "EVAL x 1 k");
        stage.later(5000);
        for line in stage.hears(Side::Source) {
            match line.split(' ').next().unwrap() {
                "EVAL" => {
                    scripts += 1;
                    stage.answers(Side::Source, b":1\r\n");
                }
                "DUMP" => {
                    copies += 1;
                    stage.answers(Side::Source, &large);
                    stage.hears(Side::Target);
                    stage.answers(Side::Target, b"+OK\r\n");
                }
                _ => stage.answers(Side::Source, b":-1\r\n"),
            }
        }
    }
    assert_eq!(scripts, 400);
    assert!((5..=10).contains(&copies), "{copies} copies in two seconds");
}

#[test]
fn what_a_script_wrote_before_it_failed_is_copied_and_nothing_of_one_that_is_not_known() {
    let mut stage = Stage::in_step();
    stage.says(1, "EVALSHA x 1 k");
    stage.answers(Side::Source, b"-NOSCRIPT No matching script\r\n");
    assert_eq!(stage.dirty(), 0);
    stage.says(1, "EVAL x 1 k");
    stage.answers(Side::Source, b"-ERR user_script:1\r\n");
    assert_eq!(stage.dirty(), 1);
    stage.says(1, "SORT a STORE b");
    stage.answers(Side::Source, b"-WRONGTYPE x\r\n");
    assert_eq!(stage.dirty(), 1);
}

#[test]
fn what_is_only_read_is_neither_copied_nor_dirty() {
    let mut stage = Stage::in_first_pass();
    stage.says(1, "SORT a");
    stage.says(1, "SORT a STORE b");
    assert_eq!(stage.hears(Side::Source), ["SORT a", "SORT a STORE b"], "nor before its first write, as it has none");
    stage.answers(Side::Source, b"*0\r\n:1\r\n");
    assert_eq!(stage.dirty(), 1);
}

#[test]
fn a_consumer_that_finds_nothing_is_copied_once() {
    let mut stage = Stage::in_step();
    let read = "XREADGROUP GROUP g c STREAMS s >";
    stage.says(1, read);
    stage.answers(Side::Source, b"*-1\r\n");
    assert_eq!(stage.dirty(), 1, "some servers have created it");
    stage.later(limits::COPY_QUIET_US);
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(19));
    stage.hears(Side::Target);
    stage.answers(Side::Target, b"+OK\r\n");
    stage.says(1, read);
    stage.answers(Side::Source, b"*-1\r\n");
    assert_eq!(stage.dirty(), 0);
    let entry = "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    stage.says(1, read);
    stage.answers(Side::Source, entry.as_bytes());
    assert_eq!(stage.hears(Side::Target), [read]);
    stage.says(1, "XGROUP DELCONSUMER s g c");
    stage.answers(Side::Source, b":0\r\n");
    stage.answers(Side::Target, entry.as_bytes());
    assert_eq!(stage.dirty(), 1);
}
