//! What a lane writes down, and what the lane of the next process makes of it.

use std::sync::atomic::Ordering;

use super::super::intents::testing::Heap;
use super::super::intents::{Found, IntentLog};
use super::*;
use crate::contract::KeptMemory;
use base::model::limits;

/// A lane that writes down what it does.
struct Kept {
    stage: Stage,
    heap: Heap,
}

impl Kept {
    /// The lane of a process that finds what is in this memory, or of the first.
    fn of(mut heap: Heap, authority: Authority) -> Self {
        let now = Now { wall_ms: WALL_MS, mono_us: 0 };
        let (plan, policies) = (plan(authority), SharedPolicies::default());
        let found = if heap.left.borrow().is_some() {
            IntentLog::take_up(&mut heap, &plan)
        } else {
            let log = IntentLog::begin(&mut heap, &plan).expect("memory");
            Found::Nothing { log, why: "first".to_owned() }
        };
        let mut lane = Lane::new(&plan, SharedPolicies::clone(&policies), now);
        lane.keep_intents(found);
        lane.open();
        Self { stage: Stage { lane, policies, now }, heap }
    }

    fn connected(mut self) -> Self {
        let now = self.stage.now;
        self.stage.lane.connected(Side::Source, b"s1", now);
        self.stage.lane.connected(Side::Target, b"t1", now);
        self
    }

    /// Everything copied.
    fn in_step(heap: Heap) -> Self {
        let mut kept = Self::of(heap, Authority::initial()).connected();
        kept.stage.order(LaneOrder::PassDone { pass: 1 });
        kept.stage.events();
        kept
    }

    /// The next process, and why it begins its pass.
    fn killed(self) -> (Self, PassKind, String) {
        self.killed_under(Authority::initial())
    }

    fn killed_under(self, authority: Authority) -> (Self, PassKind, String) {
        let mut next = Self::of(self.heap, authority);
        let events = next.stage.events();
        let [LaneEvent::PassStarted { pass: 1, kind, reason }] = events.as_slice() else { panic!("{events:?}") };
        let (kind, reason) = (*kind, reason.clone());
        (next, kind, reason)
    }

    fn both_sides_hear(&mut self) -> [Vec<String>; 2] {
        [Side::Source, Side::Target].map(|side| self.stage.hears(side))
    }

    /// Names of the keys that are copied when both sides are connected.
    fn copied(&mut self) -> Vec<String> {
        let now = self.stage.now;
        self.stage.lane.connected(Side::Source, b"s1", now);
        self.stage.lane.connected(Side::Target, b"t1", now);
        let dumps = |line: String| line.strip_prefix("DUMP ").map(str::to_owned);
        self.stage.hears(Side::Source).into_iter().filter_map(dumps).collect()
    }
}

#[test]
fn only_what_the_shadow_has_not_confirmed_is_copied_again() {
    let mut kept = Kept::in_step(Heap::default());
    for key in ["a", "b", "c"] {
        kept.stage.says(1, &format!("SET {key} v"));
    }
    kept.both_sides_hear();
    kept.stage.answers(Side::Source, b"+OK\r\n+OK\r\n");
    kept.stage.answers(Side::Target, b"+OK\r\n");
    let (mut next, kind, reason) = kept.killed();
    assert_eq!(
        (kind, reason.as_str()),
        (PassKind::Volatile, "the process was started anew: 2 keys in doubt are copied again")
    );
    assert_eq!(next.copied(), ["b", "c"]);
    // Killed again before the copies are on the shadow: nothing is forgotten.
    let (mut next, _, _) = next.killed();
    assert_eq!(next.copied(), ["b", "c"]);
    let nil = b":-2\r\n$-1\r\n".repeat(2);
    next.stage.answers(Side::Source, &nil);
    next.stage.answers(Side::Target, b":1\r\n");
    let (mut next, _, _) = next.killed();
    assert_eq!(next.copied(), ["c"]);
    next.stage.answers(Side::Source, &nil[..nil.len() / 2]);
    next.stage.answers(Side::Target, b":1\r\n");
    let (mut next, _, reason) = next.killed();
    assert!(reason.contains(" 0 keys in doubt"), "{reason}");
    assert!(next.copied().is_empty());
}

#[test]
fn a_dirty_key_is_remembered_however_much_is_written_after_it() {
    let mut kept = Kept::in_step(Heap { capacity: 2048, ..Heap::default() });
    kept.stage.says(1, "SET dirty v");
    kept.both_sides_hear();
    kept.stage.answers(Side::Source, b"+OK\r\n");
    kept.stage.answers(Side::Target, b"-OOM no\r\n");
    assert_eq!(kept.stage.dirty(), 1);
    for number in 0..5000 {
        kept.stage.says(1, &format!("SET clean:{number} v"));
        let asked = kept.stage.hears(Side::Source);
        for line in asked {
            // The dirty key is asked for again, and never answered well.
            let answer: &[u8] = if line.starts_with("SET") { b"+OK\r\n" } else { b"-ERR no\r\n" };
            kept.stage.answers(Side::Source, answer);
        }
        kept.stage.hears(Side::Target);
        kept.stage.answers(Side::Target, b"+OK\r\n");
        kept.stage.later(1000);
    }
    assert_eq!(kept.stage.dirty(), 1);
    assert!(!kept.stage.events().iter().any(|event| matches!(event, LaneEvent::IntentLog { .. })));
    let (mut next, _, reason) = kept.killed();
    let copied = next.copied();
    assert!(copied.contains(&"dirty".to_owned()), "{copied:?}");
    assert!(copied.len() as u64 <= 2 + limits::INTENT_RECORDS_SPARE, "{reason}");
}

#[test]
fn blocks_and_reads_behind_a_write_are_waited_for() {
    let mut kept = Kept::in_step(Heap::default());
    kept.stage.says(1, "EXPIRE e 100");
    kept.both_sides_hear();
    kept.stage.answers(Side::Source, b":1\r\n");
    let frames = [request(&[b"SET", b"x", b"1"]), request(&[b"INCR", b"y"])].concat();
    let item = LaneItem::Transaction { commands: commands_of(&frames), len: frames.len() };
    kept.stage.item(2, item, frames);
    let mut next = kept.killed().0;
    let mut copied = next.copied();
    copied.sort();
    assert_eq!(copied, ["e", "x", "y"]);
}

#[test]
fn what_was_not_copied_once_is_copied_by_a_full_pass() {
    let kept = Kept::of(Heap::default(), Authority::initial()).connected();
    let (kept, kind, reason) = kept.killed();
    assert_eq!(kind, PassKind::Full);
    assert!(reason.contains("copy of every key was not complete"), "{reason}");
    // The full pass of the second process ends; the third goes on.
    let mut kept = kept.connected();
    kept.stage.order(LaneOrder::PassDone { pass: 1 });
    assert_eq!(kept.killed().1, PassKind::Volatile);
}

#[test]
fn a_write_whose_keys_are_not_known_costs_a_full_pass_until_it_is_confirmed() {
    for answers in 0..=2 {
        let mut kept = Kept::in_step(Heap::default());
        kept.stage.says(1, "FLUSHALL");
        kept.both_sides_hear();
        if answers > 0 {
            kept.stage.answers(Side::Source, b"+OK\r\n");
        }
        if answers > 1 {
            kept.stage.answers(Side::Target, b"+OK\r\n");
        }
        let (_, kind, reason) = kept.killed();
        assert_eq!(kind == PassKind::Full, answers < 2, "{reason}");
    }
}

#[test]
fn another_host_start_epoch_server_or_process_costs_a_full_pass() {
    let mut kept = Kept::in_step(Heap::default());
    kept.heap.boot = 2;
    assert!(kept.killed().2.contains("the host was started anew"));
    let kept = Kept::in_step(Heap { boot: 0, ..Heap::default() });
    assert_eq!(kept.killed().1, PassKind::Full, "not known");
    let other = Authority::initial().flipped();
    let (_, kind, reason) = Kept::in_step(Heap::default()).killed_under(other);
    assert!(kind == PassKind::Full && reason.contains("epoch"), "{reason}");
    let (mut next, kind, _) = Kept::in_step(Heap::default()).killed();
    assert_eq!(kind, PassKind::Volatile);
    let now = next.stage.now;
    next.stage.lane.connected(Side::Source, b"s1", now);
    next.stage.lane.connected(Side::Target, b"t2", now);
    assert!(next.stage.has_begun_full_pass(), "what it holds is not what was written down");
    assert_eq!(next.killed().1, PassKind::Full);
}

#[test]
fn a_flip_is_gone_on_with_wherever_the_process_was_killed() {
    let flipped = Authority::initial().flipped();
    let fenced = || {
        let mut kept = Kept::in_step(Heap::default());
        kept.stage.order(LaneOrder::Fence { ticket: 1, budget_us: 1_000_000 });
        assert!(kept.stage.events().iter().any(|event| matches!(event, LaneEvent::Fenced { .. })));
        kept
    };
    let asked = |mut kept: Kept| {
        let now = kept.stage.now;
        kept.stage.lane.connected(Side::Source, b"s1", now);
        kept.stage.lane.connected(Side::Target, b"t1", now);
        kept.stage.order(LaneOrder::Copy { ticket: 9, pass: 1, database: 0, keys: vec![b"v".as_slice().into()] });
        kept.both_sides_hear();
        kept.stage.answers(Side::Target, format!(":{}\r\n", WALL_MS + 60_000).as_bytes());
        let heard = kept.both_sides_hear();
        (kept, heard)
    };
    let (kept, kind, _) = fenced().killed_under(flipped);
    assert_eq!(kind, PassKind::Volatile);
    let (_, [source, target]) = asked(kept);
    assert_eq!(target, [format!("PEXPIREAT v {}", WALL_MS + 59_000)], "the grace is given back");
    assert_eq!(source, [format!("PEXPIREAT v {}", WALL_MS + 60_000)]);

    assert_eq!(fenced().killed().1, PassKind::Volatile, "the record was not written yet");

    // Killed in the pass behind the flip: which deadlines it has corrected, the shadow's tell.
    let early = format!(":{}\r\n", WALL_MS + 59_000);
    let late = format!(":{}\r\n", WALL_MS + 61_000);
    for (shadow, corrected, copied) in [(early, true, false), (late, false, false), (":-1\r\n".to_owned(), false, true)]
    {
        let mut kept = fenced();
        kept.stage.lane.publish(&plan(flipped), kept.stage.now);
        kept.stage.order(LaneOrder::Release { ticket: 1 });
        let (kept, kind, _) = kept.killed_under(flipped);
        assert_eq!(kind, PassKind::Volatile);
        let (mut kept, [source, target]) = asked(kept);
        assert_eq!((source, target), (vec!["PEXPIRETIME v".to_owned()], vec![]));
        kept.stage.answers(Side::Source, shadow.as_bytes());
        assert!(
            kept.stage.events().iter().any(|event| matches!(event, LaneEvent::Copied { ticket: 9, copied: 1, .. }))
        );
        let [source, target] = kept.both_sides_hear();
        assert_eq!(source == [format!("PEXPIREAT v {}", WALL_MS + 60_000)], corrected, "{source:?}");
        assert_eq!(target.contains(&format!("PEXPIREAT v {}", WALL_MS + 59_000)), corrected, "{target:?}");
        assert_eq!(target.contains(&"DUMP v".to_owned()), copied, "{target:?}");
    }

    let mut kept = fenced();
    kept.stage.order(LaneOrder::Release { ticket: 1 });
    assert_eq!(kept.killed_under(flipped).1, PassKind::Full, "writes went on under the old authority");
}

#[test]
fn a_full_log_is_told_and_is_complete_again_when_the_shadow_has_caught_up() {
    let full = |events: &[LaneEvent]| {
        let told = events.iter().filter_map(|event| match event {
            LaneEvent::IntentLog { full } => Some(*full),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let mut kept = Kept::in_step(Heap { capacity: 64, ..Heap::default() });
    for number in 0..40 {
        kept.stage.says(1, &format!("SET key:{number} v"));
    }
    assert_eq!(full(&kept.stage.events()), [true], "once");
    kept.both_sides_hear();
    kept.stage.answers(Side::Source, &b"+OK\r\n".repeat(40));
    assert_eq!(kept.stage.told().len(), 1, "the client is answered all the same");
    let (_, kind, reason) = Kept { stage: Stage::in_step(), heap: kept.heap.clone() }.killed();
    assert!(kind == PassKind::Full && reason.contains("more keys were in doubt"), "{reason}");

    let mut kept = Kept::in_step(Heap { capacity: 64, ..Heap::default() });
    for number in 0..40 {
        kept.stage.says(1, &format!("SET key:{number} v"));
    }
    kept.both_sides_hear();
    kept.stage.answers(Side::Source, &b"+OK\r\n".repeat(40));
    kept.both_sides_hear();
    kept.stage.answers(Side::Target, &b"+OK\r\n".repeat(38));
    kept.stage.answers(Side::Target, b"-OOM no\r\n+OK\r\n");
    assert_eq!(full(&kept.stage.events()), [true, false]);
    let (mut next, kind, _) = kept.killed();
    assert_eq!(kind, PassKind::Volatile);
    assert_eq!(next.copied(), ["key:38"], "what was dirty then is written down again");
}

#[test]
fn scripts_are_remembered_and_a_lane_that_ended_leaves_nothing() {
    let mut kept = Kept::in_step(Heap::default());
    kept.stage.says(1, "EVAL x 1 k");
    let (next, _, _) = kept.killed();
    assert!(next.stage.lane.status().scripts_unproven_at_ms > 0, "what it wrote undeclared is not known");
    let mut kept = Kept::in_step(Heap::default());
    kept.stage.lane.retire();
    assert_eq!(kept.killed().1, PassKind::Full);
}

/// Each bit of the header in turn is another one: the next process copies everything, or what it would have copied anyway.
#[test]
fn a_damaged_header_costs_a_full_pass_at_most() {
    let build = || {
        let mut kept = Kept::in_step(Heap { capacity: 64, ..Heap::default() });
        kept.stage.says(1, "SET a v");
        kept
    };
    for at in 0..limits::INTENT_HEADER_WORDS {
        for bit in [0, 7, 63] {
            let mut kept = build();
            let words = kept.heap.left().unwrap();
            (*words).as_ref()[at].fetch_xor(1 << bit, Ordering::Relaxed);
            let (mut next, kind, reason) = kept.killed();
            match kind {
                PassKind::Volatile => assert_eq!(next.copied(), ["a"], "word {at}, bit {bit}"),
                PassKind::Full => assert!(reason.contains("the intent log is of no use"), "{reason}"),
            }
        }
    }
    let kept = build();
    kept.heap.left.replace(Some(super::super::intent_ring::words_of_the_heap(64)));
    assert!(kept.killed().2.contains("no intent log"));
}
