//! A key by name, and by the hash of its name. Values of the lane's core.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

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

pub(super) type Ids = HashSet<KeyId, BuildHasherDefault<IdHasher>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_apart() {
        assert_ne!(KeyRef::new(0, b"k").id, KeyRef::new(1, b"k").id);
    }
}
