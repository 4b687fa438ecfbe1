//! Consumers of groups that the shadow is known to have. Lives on the lane's core.
//!
//! An XREADGROUP that finds nothing creates its consumer on some servers and not on others, and says nothing of it. So the first one of each
//! consumer has its stream copied, and the others mean nothing to the shadow.

use std::collections::HashSet;

use super::keys::KeyRef;
use base::model::limits;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Consumers {
    known: HashSet<u128>,
}

impl Consumers {
    /// Notes that the shadow has it, or will have; true when that was not known.
    pub fn note(&mut self, key: &KeyRef, group: &[u8], consumer: &[u8]) -> bool {
        if self.known.len() >= limits::CONSUMERS_KNOWN_MAX {
            self.known.clear();
        }
        let mut name = key.id.to_le_bytes().to_vec();
        name.extend_from_slice(&group.len().to_le_bytes());
        name.extend_from_slice(group);
        name.extend_from_slice(consumer);
        self.known.insert(xxhash_rust::xxh3::xxh3_128(&name))
    }

    /// Groups or consumers may be gone.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}
