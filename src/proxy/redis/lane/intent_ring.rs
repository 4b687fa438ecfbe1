//! The ring of an intent log: names of keys in words of memory that outlives the process. Lives on the lane's core.
//!
//! A header of `limits::INTENT_HEADER_WORDS` words, of which two are the ring's (how far it is written, and from where on it counts), then the ring. Positions are
//! counted in words and only grow. A record is written before the word that makes it count, so that a process killed between any two
//! instructions leaves whole records only. What a power failure leaves is not to be relied on, and is not: see `intent_header`.
//!
//! A record: kind (8 bits), length of the name (24), database (32); the key's id (two words), which is a hash of database and name and so
//! tells whether the record is whole; the reply of the authority behind which its write is over; the name.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use super::key::{KeyId, KeyRef};
use crate::contract::KeptWords;
use base::model::limits;

/// Words in front of the ring.
const HEADER_WORDS: usize = limits::INTENT_HEADER_WORDS;
/// Of the header: how far the ring is written.
const WRITTEN: usize = 2;
/// Of the header: from where on it counts.
const BEGIN: usize = 3;
/// Words of a record in front of its name.
const RECORD_WORDS: u64 = 4;

/// What a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Key,
    /// A write whose keys are not known, or too long to be written down.
    EveryKey,
}

impl Named {
    const KEY: u64 = 1;
    const EVERY_KEY: u64 = 2;

    fn word(self) -> u64 {
        match self {
            Self::Key => Self::KEY,
            Self::EveryKey => Self::EVERY_KEY,
        }
    }

    fn from_word(word: u64) -> Option<Self> {
        match word {
            Self::KEY => Some(Self::Key),
            Self::EVERY_KEY => Some(Self::EveryKey),
            _ => None,
        }
    }
}

/// The oldest record that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    pub position: u64,
    pub named: Named,
    pub id: KeyId,
    /// The reply of the authority behind which the write is over, as the lane counts them.
    pub at: u64,
}

/// A record as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub position: u64,
    /// `None`: every key.
    pub key: Option<KeyRef>,
}

/// See the head of this file.
#[derive(Clone)]
pub struct Ring {
    words: KeptWords,
    /// Words of the ring, a power of two, less one.
    mask: u64,
    written: u64,
    begin: u64,
    /// Records that count.
    records: u64,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("begin", &self.begin).field("written", &self.written).finish_non_exhaustive()
    }
}

impl Ring {
    /// Empty, in memory whose ring has a power of two of words.
    #[must_use]
    pub fn new(words: KeptWords) -> Self {
        let mask = capacity_of(&words) - 1;
        let mut ring = Self { words, mask, written: 0, begin: 0, records: 0 };
        ring.set_written(0);
        ring.set_begin(0);
        ring
    }

    /// As it was left, with its records. Every record counts as over, whatever reply it waited for: who wrote it is gone.
    ///
    /// # Errors
    /// What is not whole.
    pub fn read(words: KeptWords) -> Result<(Self, Vec<Record>), String> {
        let mask = capacity_of(&words) - 1;
        let header = |at: usize| (*words).as_ref()[at].load(Ordering::Acquire);
        let (written, begin) = (header(WRITTEN), header(BEGIN));
        if written.checked_sub(begin).is_none_or(|length| length > mask + 1) {
            return Err(format!("it ends at {written} and begins at {begin}"));
        }
        let mut ring = Self { words, mask, written, begin, records: 0 };
        let mut records = Vec::new();
        let mut position = begin;
        while position < written {
            let (record, length) =
                ring.record(position).ok_or_else(|| format!("the record at {position} is not whole"))?;
            ring.set(position + 3, 0);
            records.push(record);
            position += length;
        }
        ring.records = records.len() as u64;
        Ok((ring, records))
    }

    /// The header and the ring.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        (*self.words).as_ref()
    }

    /// Records that count.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Writes down a key. Its position; `None`: the ring is full.
    #[inline]
    pub fn push(&mut self, key: &KeyRef, at: u64) -> Option<u64> {
        let name = &*key.name;
        if name.len() > limits::INTENT_NAME_BYTES_MAX {
            return self.push_every_key(at);
        }
        let length = RECORD_WORDS + name.len().div_ceil(8) as u64;
        let position = self.room_for(length)?;
        let words = (*self.words).as_ref();
        let mut next = position;
        let mut put = |word: u64| {
            words[HEADER_WORDS + (next & self.mask) as usize].store(word, Ordering::Relaxed);
            next += 1;
        };
        put(Named::Key.word() << 56 | (name.len() as u64) << 32 | u64::from(key.database));
        put(key.id as u64);
        put((key.id >> 64) as u64);
        put(at);
        let (chunks, rest) = name.as_chunks::<8>();
        for chunk in chunks {
            put(u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            put(u64::from_le_bytes(last));
        }
        self.count_in(length);
        Some(position)
    }

    /// Writes down that every key may be concerned.
    pub fn push_every_key(&mut self, at: u64) -> Option<u64> {
        let position = self.room_for(RECORD_WORDS)?;
        self.set(position, Named::EveryKey.word() << 56);
        self.set(position + 1, 0);
        self.set(position + 2, 0);
        self.set(position + 3, at);
        self.count_in(RECORD_WORDS);
        Some(position)
    }

    #[must_use]
    pub fn front(&self) -> Option<Front> {
        if self.begin == self.written {
            return None;
        }
        let position = self.begin;
        let id = u128::from(self.get(position + 1)) | u128::from(self.get(position + 2)) << 64;
        // What this process has not written itself it has read once.
        let named = Named::from_word(self.get(position) >> 56).unwrap_or(Named::EveryKey);
        Some(Front { position, named, id, at: self.get(position + 3) })
    }

    /// The oldest record does not count any more.
    pub fn pop(&mut self) {
        if self.begin < self.written {
            self.set_begin(self.begin + self.length_at(self.begin));
            self.records -= 1;
        }
    }

    /// The oldest record becomes the newest. Its new position; `None`: the ring is full, and nothing has changed.
    pub fn pop_to_the_end(&mut self) -> Option<u64> {
        let length = self.length_at(self.begin);
        let position = self.room_for(length)?;
        for word in 0..length {
            self.set(position + word, self.get(self.begin + word));
        }
        self.count_in(length);
        self.pop();
        Some(position)
    }

    /// No record counts any more.
    pub fn clear(&mut self) {
        self.set_begin(self.written);
        self.records = 0;
    }

    fn room_for(&self, length: u64) -> Option<u64> {
        (self.written - self.begin + length <= self.mask + 1).then_some(self.written)
    }

    fn count_in(&mut self, length: u64) {
        self.set_written(self.written + length);
        self.records += 1;
    }

    fn set_written(&mut self, to: u64) {
        self.written = to;
        (*self.words).as_ref()[WRITTEN].store(to, Ordering::Release);
    }

    fn set_begin(&mut self, to: u64) {
        self.begin = to;
        (*self.words).as_ref()[BEGIN].store(to, Ordering::Release);
        // What is written over the place that is free now is written after this.
        compiler_fence(Ordering::SeqCst);
    }

    fn get(&self, position: u64) -> u64 {
        self.word(position).load(Ordering::Relaxed)
    }

    fn set(&self, position: u64, word: u64) {
        self.word(position).store(word, Ordering::Relaxed);
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        &(*self.words).as_ref()[HEADER_WORDS + (position & self.mask) as usize]
    }

    fn length_at(&self, position: u64) -> u64 {
        let name_bytes = self.get(position) >> 32 & 0xff_ffff;
        RECORD_WORDS + name_bytes.div_ceil(8)
    }

    /// The record that was left at this position and its length in words, if it is whole.
    fn record(&self, position: u64) -> Option<(Record, u64)> {
        let head = self.get(position);
        let named = Named::from_word(head >> 56)?;
        let length = self.length_at(position);
        if length > self.written - position {
            return None;
        }
        let id = u128::from(self.get(position + 1)) | u128::from(self.get(position + 2)) << 64;
        let key = match named {
            Named::EveryKey => (head == Named::EveryKey.word() << 56 && id == 0).then_some(None)?,
            Named::Key => {
                let bytes = (head >> 32 & 0xff_ffff) as usize;
                let mut name: Vec<u8> =
                    (RECORD_WORDS..length).flat_map(|word| self.get(position + word).to_le_bytes()).collect();
                name.truncate(bytes);
                let key = KeyRef::new(head as u32, &name);
                (key.id == id && bytes <= limits::INTENT_NAME_BYTES_MAX).then_some(Some(key))?
            }
        };
        Some((Record { position, key }, length))
    }
}

fn capacity_of(words: &KeptWords) -> u64 {
    let capacity = (**words).as_ref().len() - HEADER_WORDS;
    assert!(capacity.is_power_of_two(), "the ring has a power of two of words");
    capacity as u64
}

/// Memory of this process only.
#[cfg(test)]
pub(in crate::redis) fn words_of_the_heap(capacity: usize) -> KeptWords {
    let words: Vec<AtomicU64> = std::iter::repeat_with(|| AtomicU64::new(0)).take(HEADER_WORDS + capacity).collect();
    std::rc::Rc::new(words)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn key(name: &str) -> KeyRef {
        KeyRef::new(3, name.as_bytes())
    }

    fn left(ring: &Ring) -> Result<Vec<Option<String>>, String> {
        let (_, records) = Ring::read(Rc::clone(&ring.words))?;
        let text = |key: KeyRef| String::from_utf8_lossy(&key.name).into_owned();
        Ok(records.into_iter().map(|record| record.key.map(text)).collect())
    }

    #[test]
    fn what_is_written_is_read_back_until_it_is_over() {
        let mut ring = Ring::new(words_of_the_heap(64));
        assert_eq!(left(&ring), Ok(vec![]));
        for name in ["", "k", "12345678", "123456789"] {
            assert!(ring.push(&key(name), 7).is_some());
        }
        assert!(ring.push_every_key(8).is_some());
        let all = ["", "k", "12345678", "123456789"].map(|name| Some(name.to_owned()));
        assert_eq!(left(&ring).unwrap(), [all.to_vec(), vec![None]].concat());
        assert_eq!(ring.front().map(|front| (front.id, front.named)), Some((key("").id, Named::Key)));
        ring.pop();
        let moved = ring.pop_to_the_end().unwrap();
        assert_eq!(left(&ring).unwrap(), [all[2].clone(), all[3].clone(), None, all[1].clone()]);
        for _ in 0..3 {
            ring.pop();
        }
        assert_eq!(ring.front().map(|front| (front.position, front.id)), Some((moved, key("k").id)));
        ring.pop();
        assert_eq!((ring.front(), ring.records(), left(&ring)), (None, 0, Ok(vec![])));
        ring.pop();
        assert_eq!(ring.records(), 0);
    }

    #[test]
    fn it_wraps_and_says_when_it_is_full() {
        let mut ring = Ring::new(words_of_the_heap(32));
        let mut newest = std::collections::VecDeque::new();
        for number in 0..1000 {
            let name = "n".repeat(number % 23);
            while ring.push(&key(&name), 0).is_none() {
                assert_eq!(left(&ring).unwrap(), newest.iter().cloned().map(Some).collect::<Vec<_>>());
                ring.pop();
                newest.pop_front();
            }
            newest.push_back(name);
            if number % 5 == 0 && ring.pop_to_the_end().is_some() {
                newest.rotate_left(1);
            }
        }
        assert!(newest.len() > 2);
        assert_eq!(left(&ring).unwrap().len(), newest.len());
        ring.clear();
        assert_eq!(left(&ring), Ok(vec![]));
    }

    #[test]
    fn a_name_that_is_too_long_stands_for_every_key() {
        let mut ring = Ring::new(words_of_the_heap(1024));
        assert!(ring.push(&key(&"l".repeat(limits::INTENT_NAME_BYTES_MAX)), 0).is_some());
        assert!(ring.push(&key(&"l".repeat(limits::INTENT_NAME_BYTES_MAX + 1)), 0).is_some());
        assert_eq!(left(&ring).unwrap().iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    }

    /// Each word in turn is another one, or the ring ends behind it: it is seen, or nothing is missing.
    #[test]
    fn every_damage_is_seen() {
        let build = || {
            let mut ring = Ring::new(words_of_the_heap(32));
            for name in ["a", "a longer name", "c"] {
                assert!(ring.push(&key(name), 0).is_some());
            }
            ring
        };
        let whole = left(&build()).unwrap();
        let used = build().written;
        for at in 0..used {
            for damage in [0, 1 << 63, u64::MAX] {
                let ring = build();
                let was = ring.get(at);
                ring.set(at, was ^ damage);
                let changed = ring.get(at) != was;
                match left(&ring) {
                    // The reply it waits for means nothing to who reads it; what fills up a name means nothing to anybody.
                    Ok(found) => assert_eq!(found, whole, "word {at}, damage {damage:x}"),
                    Err(_) => assert!(changed, "word {at}"),
                }
            }
        }
        for end in 0..used {
            let mut ring = build();
            ring.set_written(end);
            match left(&ring) {
                Ok(found) => assert!(whole.starts_with(&found) && found.len() < whole.len(), "cut at {end}"),
                Err(why) => assert!(why.contains("not whole"), "{why}"),
            }
        }
        let mut ring = build();
        ring.set_begin(used + 1);
        assert!(left(&ring).is_err());
        ring.set_begin(0);
        ring.set_written(u64::MAX);
        assert!(left(&ring).is_err());
    }
}
