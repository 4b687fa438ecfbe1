//! Which keys may have a deadline, on either side. Lives on the lane's core.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::key::{IdHasher, Ids, KeyId};
use base::model::limits;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Volatile {
    keys: Ids,
    /// There are too many to be known by name.
    all: bool,
    /// Reads of deadlines on their way, by key: until they are in, the key may be volatile.
    expected: HashMap<KeyId, u32, BuildHasherDefault<IdHasher>>,
}

impl Volatile {
    /// Every key is about to be read. What is on its way stays expected.
    pub fn forget(&mut self) {
        self.keys.clear();
        self.all = false;
    }

    /// May have a deadline on either side.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.all || self.keys.contains(&id) || self.expected.contains_key(&id)
    }

    /// A read of this key's deadline has been sent.
    pub fn expect(&mut self, id: KeyId) {
        *self.expected.entry(id).or_insert(0) += 1;
    }

    /// It was answered.
    pub fn learn(&mut self, id: KeyId, volatile: bool) {
        if let Some(count) = self.expected.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.expected.remove(&id);
            }
        }
        self.set(id, volatile);
    }

    /// The connection that would have answered is gone; all those keys may be volatile.
    pub fn reads_lost(&mut self) {
        for (id, _) in std::mem::take(&mut self.expected) {
            self.set(id, true);
        }
    }

    pub fn set(&mut self, id: KeyId, volatile: bool) {
        if !volatile {
            self.keys.remove(&id);
        } else if self.keys.len() < limits::VOLATILE_KEYS_MAX {
            self.keys.insert(id);
        } else {
            self.all = true;
        }
    }
}
