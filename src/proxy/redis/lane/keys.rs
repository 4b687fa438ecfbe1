//! What is known of keys: clean, dirty, volatile. Invariant I5: shadow[k] ≠ authority[k] ⇒ k is dirty, in flight or uncopied.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use base::model::limits;
use wire::resp::copy::DataType;

/// 128-bit hash of database and name. Two keys with one hash would have to be found on purpose (XXH3 is not cryptographic, but
/// the set lives for one pass of one migration).
pub type KeyId = u128;

/// A key by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    pub id: KeyId,
    pub database: u32,
    pub name: Rc<[u8]>,
}

impl KeyRef {
    #[must_use]
    pub fn new(database: u32, name: &[u8]) -> Self {
        let id = xxhash_rust::xxh3::xxh3_128_with_seed(name, u64::from(database));
        Self { id, database, name: name.into() }
    }
}

/// The id is a hash already.
#[derive(Debug, Default, Clone, Copy)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

type Ids = HashSet<KeyId, BuildHasherDefault<IdHasher>>;

/// A key whose shadow is not known to be right.
#[derive(Debug)]
pub struct Dirty {
    pub key: KeyRef,
    /// The copy (or overwrite) on its way that will make it right, unless something else happens first.
    pub healing: Option<u64>,
    /// The shadow refuses this type's dump: copy it by typed reads.
    pub typed: Option<DataType>,
    /// Not tried again before this moment, microseconds.
    pub not_before_us: u64,
}

/// The sets of one lane. Lives on the lane's core.
#[derive(Debug, Default)]
pub struct KeyStates {
    clean: Ids,
    volatile: Ids,
    all_volatile: bool,
    /// Reads of deadlines on their way, by key: until they are in, the key may be volatile.
    deadlines_expected: HashMap<KeyId, u32, BuildHasherDefault<IdHasher>>,
    /// Written since the last flip, while the volatile pass runs.
    touched: Ids,
    /// A records policy has changed their value or left them out: the shadow differs on purpose. With the database of each.
    altered: HashMap<KeyId, u32, BuildHasherDefault<IdHasher>>,
    all_altered: bool,
    dirty: HashMap<KeyId, Dirty, BuildHasherDefault<IdHasher>>,
    repair_queue: VecDeque<KeyId>,
    next_token: u64,
    /// Times a key was marked dirty.
    pub dirtied: u64,
}

impl KeyStates {
    pub fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    // ---- clean --------------------------------------------------------------------------------------------------------

    pub fn is_clean(&self, id: KeyId) -> bool {
        self.clean.contains(&id)
    }

    pub fn set_clean(&mut self, id: KeyId) {
        if self.clean.len() < limits::CLEAN_KEYS_MAX {
            self.clean.insert(id);
        }
    }

    // ---- dirty --------------------------------------------------------------------------------------------------------

    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    pub fn is_dirty(&self, id: KeyId) -> bool {
        self.dirty.contains_key(&id)
    }

    /// Dirty, and nothing on its way will change that.
    pub fn is_unhealed(&self, id: KeyId) -> bool {
        self.dirty.get(&id).is_some_and(|dirty| dirty.healing.is_none())
    }

    /// Adds to the dirty set; what was on its way to heal it no longer counts.
    pub fn mark_dirty(&mut self, key: &KeyRef, typed: Option<DataType>, not_before_us: u64) {
        self.dirtied += 1;
        match self.dirty.get_mut(&key.id) {
            Some(dirty) => {
                if dirty.healing.take().is_some() {
                    self.repair_queue.push_back(key.id);
                }
                dirty.typed = typed.or(dirty.typed);
                dirty.not_before_us = not_before_us;
            }
            None => {
                self.dirty.insert(key.id, Dirty { key: key.clone(), healing: None, typed, not_before_us });
                self.repair_queue.push_back(key.id);
            }
        }
    }

    /// Its type is not the one that was read: the next copy begins with its dump.
    pub fn forget_type(&mut self, id: KeyId) {
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.typed = None;
        }
    }

    /// A copy or overwrite with this token is on its way.
    pub fn start_healing(&mut self, id: KeyId, token: u64) {
        if let Some(dirty) = self.dirty.get_mut(&id) {
            dirty.healing = Some(token);
        }
    }

    /// It was applied. Removes the key unless something happened since.
    pub fn healed(&mut self, id: KeyId, token: u64) {
        if self.dirty.get(&id).is_some_and(|dirty| dirty.healing == Some(token)) {
            self.dirty.remove(&id);
        }
    }

    /// The next key to be copied again, if one is due: its key and how to copy it.
    pub fn next_repair(&mut self, now_us: u64) -> Option<(KeyRef, Option<DataType>)> {
        for _ in 0..self.repair_queue.len() {
            let id = self.repair_queue.pop_front()?;
            match self.dirty.get(&id) {
                Some(dirty) if dirty.healing.is_some() => {}
                Some(dirty) if dirty.not_before_us > now_us => self.repair_queue.push_back(id),
                Some(dirty) => return Some((dirty.key.clone(), dirty.typed)),
                None => {}
            }
        }
        None
    }

    /// FLUSHDB or FLUSHALL made both sides empty.
    pub fn forget_dirty(&mut self, database: Option<u32>) {
        self.dirty.retain(|_, dirty| database.is_some_and(|database| dirty.key.database != database));
        self.altered.retain(|_, of| database.is_some_and(|database| *of != database));
    }

    // ---- altered ------------------------------------------------------------------------------------------------------

    pub fn is_altered(&self, id: KeyId) -> bool {
        self.all_altered || self.altered.contains_key(&id)
    }

    /// Whether the copy just made of this key is another value than its own.
    pub fn set_altered(&mut self, key: &KeyRef, altered: bool) {
        if altered && self.altered.len() >= limits::ALTERED_KEYS_MAX {
            self.all_altered = true;
        } else if altered {
            self.altered.insert(key.id, key.database);
        } else {
            self.altered.remove(&key.id);
        }
    }

    pub fn altered_count(&self) -> usize {
        self.altered.len()
    }

    // ---- volatile -----------------------------------------------------------------------------------------------------

    /// May have a deadline on either side.
    pub fn is_volatile(&self, id: KeyId) -> bool {
        self.all_volatile || self.volatile.contains(&id) || self.deadlines_expected.contains_key(&id)
    }

    /// A read of this key's deadline has been sent.
    pub fn expect_deadline(&mut self, id: KeyId) {
        *self.deadlines_expected.entry(id).or_insert(0) += 1;
    }

    /// It was answered.
    pub fn learn_deadline(&mut self, id: KeyId, volatile: bool) {
        if let Some(count) = self.deadlines_expected.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.deadlines_expected.remove(&id);
            }
        }
        self.set_volatile(id, volatile);
    }

    /// The connection that would have answered is gone; all those keys may be volatile.
    pub fn deadlines_lost(&mut self) {
        for (id, _) in std::mem::take(&mut self.deadlines_expected) {
            self.set_volatile(id, true);
        }
    }

    pub fn set_volatile(&mut self, id: KeyId, volatile: bool) {
        if !volatile {
            self.volatile.remove(&id);
        } else if self.volatile.len() < limits::VOLATILE_KEYS_MAX {
            self.volatile.insert(id);
        } else {
            self.all_volatile = true;
        }
    }

    // ---- passes -------------------------------------------------------------------------------------------------------

    /// Everything is uncopied again. A full pass also forgets what was dirty: every key will be copied.
    pub fn begin_pass(&mut self, full: bool) {
        self.clean.clear();
        self.touched.clear();
        if full {
            self.altered.clear();
            self.all_altered = false;
            self.volatile.clear();
            self.all_volatile = false;
            self.dirty.clear();
            self.repair_queue.clear();
        }
    }

    /// The pass is over; what was only needed for it is freed.
    pub fn end_pass(&mut self) {
        self.clean = Ids::default();
        self.touched = Ids::default();
    }

    pub fn touch(&mut self, id: KeyId) {
        if self.touched.len() < limits::CLEAN_KEYS_MAX {
            self.touched.insert(id);
        }
    }

    pub fn is_touched(&self, id: KeyId) -> bool {
        self.touched.contains(&id) || self.touched.len() >= limits::CLEAN_KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_copy_heals() {
        let mut states = KeyStates::default();
        let key = KeyRef::new(0, b"k");
        states.mark_dirty(&key, None, 0);
        assert_eq!(states.next_repair(0).unwrap().0, key);
        let first = states.token();
        states.start_healing(key.id, first);
        assert!(states.next_repair(0).is_none());
        states.mark_dirty(&key, None, 10); // something went wrong behind the first copy
        states.healed(key.id, first);
        assert!(states.is_dirty(key.id), "the first copy no longer counts");
        assert!(states.next_repair(5).is_none(), "not before its time");
        assert_eq!(states.next_repair(10).unwrap().0, key);
        let second = states.token();
        states.start_healing(key.id, second);
        states.healed(key.id, second);
        assert_eq!(states.dirty_count(), 0);
    }

    #[test]
    fn a_type_is_remembered_until_it_is_seen_to_be_another() {
        let mut states = KeyStates::default();
        let key = KeyRef::new(0, b"k");
        states.mark_dirty(&key, Some(DataType::Set), 0);
        states.mark_dirty(&key, None, 0);
        assert_eq!(states.next_repair(0).map(|(_, typed)| typed), Some(Some(DataType::Set)));
        states.forget_type(key.id);
        states.mark_dirty(&key, None, 0);
        states.repair_queue.push_back(key.id);
        assert_eq!(states.next_repair(0).map(|(_, typed)| typed), Some(None));
    }

    #[test]
    fn an_empty_database_has_nothing_dirty_or_altered() {
        let mut states = KeyStates::default();
        let keys = [KeyRef::new(0, b"k"), KeyRef::new(1, b"k")];
        for key in &keys {
            states.set_altered(key, true);
            states.mark_dirty(key, None, 0);
        }
        states.forget_dirty(Some(1));
        assert_eq!((states.dirty_count(), states.altered_count()), (1, 1));
        assert!(states.is_altered(keys[0].id) && !states.is_altered(keys[1].id));
        states.forget_dirty(None);
        assert_eq!((states.dirty_count(), states.altered_count()), (0, 0));
    }

    #[test]
    fn databases_are_apart() {
        assert_ne!(KeyRef::new(0, b"k").id, KeyRef::new(1, b"k").id);
    }
}
