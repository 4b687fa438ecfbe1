//! When the stream last touched which key: what a comparison asks to know that both of its answers are of one moment. Pure.
//!
//! Each key has a slot by its hash: two keys that share one look touched together, which costs a second look and never hides a difference.

use std::hash::{BuildHasher, RandomState};

use base::model::limits;
use wire::resp::args::Args;
use wire::resp::command::{self, KeySpec};

/// Of most commands.
const ONE_KEY: KeySpec = KeySpec::Range(1, 1, 1);

/// See the head of this file. Offsets are those behind the command that touched.
#[derive(Debug)]
pub struct Touches {
    hasher: RandomState,
    /// The last offset at which a key of this slot was touched.
    slots: Box<[u64]>,
    /// What was touched up to here is not known; also the last command that touched keys it does not name.
    everything: u64,
}

const _: () = assert!(limits::FEED_TOUCH_SLOTS.is_power_of_two());

impl Default for Touches {
    fn default() -> Self {
        let slots = vec![0; limits::FEED_TOUCH_SLOTS].into_boxed_slice();
        Self { hasher: RandomState::new(), slots, everything: 0 }
    }
}

impl Touches {
    /// Nothing is known of what was before this offset.
    pub fn begin(&mut self, offset: u64) {
        // Of another stream, whose offsets may be higher.
        self.slots.fill(0);
        self.everything = offset;
    }

    /// A command of the stream, acting on `database`; `offset`: behind it.
    pub fn note(&mut self, frame: &[u8], database: u32, offset: u64) {
        let name = Args::new(frame).next().unwrap_or_default();
        let command = command::lookup(name);
        if command.keys == ONE_KEY
            && let Some(key) = Args::new(frame).nth(1)
            && !touches_other_databases(name)
        {
            self.touch(database, key, offset);
            return;
        }
        let keys = command.keys_of(frame).unwrap_or_default().0;
        if keys.is_empty() || touches_other_databases(name) {
            if !touches_no_key(name) {
                self.everything = offset;
            }
            return;
        }
        for key in keys {
            self.touch(database, key, offset);
        }
    }

    fn touch(&mut self, database: u32, key: &[u8], offset: u64) {
        let slot = self.slot(database, key);
        self.slots[slot] = offset;
    }

    fn slot(&self, database: u32, key: &[u8]) -> usize {
        self.hasher.hash_one((database, key)) as usize % limits::FEED_TOUCH_SLOTS
    }

    /// Whether this key may have been touched behind `offset`.
    #[must_use]
    pub fn since(&self, offset: u64, database: u32, key: &[u8]) -> bool {
        offset < self.everything || self.slots[self.slot(database, key)] > offset
    }
}

fn touches_other_databases(name: &[u8]) -> bool {
    [b"MOVE".as_slice(), b"COPY", b"SWAPDB", b"FLUSHALL", b"FLUSHDB"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Messages, functions and scripts.
fn touches_no_key(name: &[u8]) -> bool {
    [b"PUBLISH".as_slice(), b"SPUBLISH", b"FUNCTION", b"SCRIPT"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::resp::encode::request;

    fn noted(commands: &[(&str, u64)]) -> Touches {
        let mut touches = Touches::default();
        touches.begin(100);
        for (line, offset) in commands {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            touches.note(&request(&words), 0, *offset);
        }
        touches
    }

    #[test]
    fn a_key_is_touched_behind_an_offset_or_not() {
        let touches = noted(&[("SET a 1", 110), ("RENAME b c", 120), ("DEL a d", 130)]);
        for (offset, key, expected) in [
            (129, "a", true),
            (130, "a", false),
            (119, "b", true),
            (119, "c", true),
            (120, "c", false),
            (100, "untouched", false),
            (99, "untouched", true),
        ] {
            assert_eq!(touches.since(offset, 0, key.as_bytes()), expected, "{key} since {offset}");
        }
        assert!(!touches.since(100, 1, b"a"), "another database");
    }

    #[test]
    fn what_names_no_key_or_reaches_another_database_touches_everything() {
        for line in ["FLUSHDB", "SWAPDB 0 1", "MOVE a 1", "COPY a b DB 2"] {
            let touches = noted(&[(line, 110)]);
            assert!(touches.since(109, 3, b"x") && !touches.since(110, 3, b"x"), "{line}");
        }
    }

    #[test]
    fn messages_touch_nothing() {
        assert!(!noted(&[("PUBLISH c m", 110), ("SCRIPT FLUSH", 120)]).since(100, 0, b"c"));
    }

    #[test]
    fn keys_that_share_a_slot_look_touched_together() {
        let mut touches = noted(&[]);
        let many = limits::FEED_TOUCH_SLOTS as u64;
        for at in 0..many {
            touches.note(&request(&[b"SET", at.to_string().as_bytes(), b"1"]), 0, 101 + at);
        }
        let others = (0..1000).filter(|n| touches.since(100, 0, format!("other:{n}").as_bytes())).count();
        assert!((500..750).contains(&others), "{others}: as many as 1 - 1/e of the slots are taken");
        for at in (0..many).step_by(1000) {
            assert!(touches.since(100 + at, 0, at.to_string().as_bytes()), "{at}");
        }
        touches.begin(100);
        assert!(!touches.since(100, 0, b"1"), "another stream");
    }
}
