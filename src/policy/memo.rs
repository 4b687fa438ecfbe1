//! Answers of a mirror policy that hold for more than one command: for a command, or for keys with a common prefix. One core.
//!
//! Exact, not probabilistic: prefixes are kept and compared as bytes. Bounded: when an answer does not fit, the filter is asked again (ABI.md, section 8).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::abi;
use super::abi::limits::{MEMO_ENTRIES_MAX, MEMO_PREFIX_LENGTHS_MAX};

/// The key of a remembered answer: the relay's number for a command of one class, and its number for the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandTag {
    pub command: u32,
    pub database: u32,
}

/// One remembered answer. `text` is that of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub action: abi::RequestAction,
    pub text: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Entry {
    whole: Option<Remembered>,
    /// Prefix lengths, longest first, without repetition.
    lengths: Vec<u8>,
    by_prefix: HashMap<Box<[u8]>, Remembered>,
}

/// A tag is a small number: spread by one multiplication (Fibonacci hashing, Knuth 6.4).
#[derive(Debug, Default, Clone, Copy)]
pub struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Debug, Default)]
pub struct Memo {
    entries: HashMap<CommandTag, Entry, BuildHasherDefault<TagHasher>>,
    /// Remembered answers in all entries.
    count: usize,
}

impl Memo {
    /// `keys`: the keys of the command, in order.
    pub fn find<'a>(&self, tag: CommandTag, mut keys: impl Iterator<Item = &'a [u8]> + Clone) -> Option<&Remembered> {
        let entry = self.entries.get(&tag)?;
        if let Some(whole) = &entry.whole {
            return Some(whole);
        }
        if entry.lengths.is_empty() {
            return None;
        }
        let first = keys.next()?;
        entry.lengths.iter().find_map(|length| {
            let prefix = first.get(..usize::from(*length))?;
            let found = entry.by_prefix.get(prefix)?;
            keys.clone().all(|key| key.starts_with(prefix)).then_some(found)
        })
    }

    /// Keeps an answer as far as its scope allows; forgets everything when there is no room.
    pub fn keep<'a>(
        &mut self,
        tag: CommandTag,
        scope: abi::Memo,
        mut keys: impl Iterator<Item = &'a [u8]>,
        answer: Remembered,
    ) {
        if self.count >= MEMO_ENTRIES_MAX {
            self.clear();
        }
        match scope {
            abi::Memo::None => {}
            abi::Memo::Command => {
                let entry = self.entries.entry(tag).or_default();
                self.count += usize::from(entry.whole.replace(answer).is_none());
            }
            abi::Memo::KeyPrefix(length) => {
                let Some(prefix) = keys.next().and_then(|first| first.get(..usize::from(length))) else { return };
                if !keys.all(|key| key.starts_with(prefix)) {
                    return;
                }
                let entry = self.entries.entry(tag).or_default();
                if !entry.lengths.contains(&length) {
                    if entry.lengths.len() >= MEMO_PREFIX_LENGTHS_MAX {
                        return;
                    }
                    entry.lengths.push(length);
                    entry.lengths.sort_unstable_by(|a, b| b.cmp(a));
                }
                self.count += usize::from(entry.by_prefix.insert(prefix.into(), answer).is_none());
            }
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::RequestAction::{Forward, Mirror, MirrorCompare};

    const TAG: CommandTag = CommandTag { command: 3, database: 0 };

    fn answer(action: abi::RequestAction) -> Remembered {
        Remembered { action, text: None }
    }

    fn keys<'a>(names: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> + Clone {
        names.iter().map(|name| name.as_bytes())
    }

    #[test]
    fn a_command_is_remembered_for_its_database_only() {
        let mut memo = Memo::default();
        memo.keep(TAG, abi::Memo::Command, keys(&["a"]), answer(Mirror));
        assert_eq!(memo.find(TAG, keys(&[])).map(|found| found.action), Some(Mirror));
        assert_eq!(memo.find(CommandTag { database: 1, ..TAG }, keys(&["a"])), None);
        assert_eq!(memo.find(CommandTag { command: 4, ..TAG }, keys(&["a"])), None);
        memo.clear();
        assert_eq!(memo.find(TAG, keys(&["a"])), None);
    }

    #[test]
    fn the_longest_prefix_that_every_key_has_wins() {
        let mut memo = Memo::default();
        memo.keep(TAG, abi::Memo::KeyPrefix(5), keys(&["acme:1", "acme:2"]), answer(Mirror));
        memo.keep(TAG, abi::Memo::KeyPrefix(8), keys(&["acme:eu:1"]), answer(MirrorCompare));
        memo.keep(TAG, abi::Memo::KeyPrefix(4), keys(&["acme", "other"]), answer(Forward)); // keys apart: not remembered
        memo.keep(TAG, abi::Memo::KeyPrefix(9), keys(&["short"]), answer(Forward)); // shorter than the prefix
        let found = |names: &[&str]| memo.find(TAG, keys(names)).map(|found| found.action);
        assert_eq!(found(&["acme:us:1"]), Some(Mirror));
        assert_eq!(found(&["acme:eu:7"]), Some(MirrorCompare));
        assert_eq!(found(&["acme:eu:7", "acme:us:7"]), Some(Mirror));
        assert_eq!(found(&["acme:eu:7", "globex:1"]), None);
        assert_eq!(found(&["acme"]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let mut memo = Memo::default();
        for number in 0..3 * MEMO_ENTRIES_MAX {
            let key = format!("{number:06}");
            memo.keep(TAG, abi::Memo::KeyPrefix(6), keys(&[&key]), answer(Mirror));
            assert!(memo.count <= MEMO_ENTRIES_MAX);
            assert_eq!(memo.find(TAG, keys(&[&key])).map(|found| found.action), Some(Mirror), "the newest is known");
        }
        for length in 1..=20 {
            memo.keep(TAG, abi::Memo::KeyPrefix(length), keys(&["abcdefghijklmnopqrstuvwxyz"]), answer(Mirror));
        }
        assert!(memo.entries[&TAG].lengths.len() <= MEMO_PREFIX_LENGTHS_MAX);
    }
}
