//! What clients watch. A watch breaks when a write on the key is *sent*, so no reply has to be waited for. Lives on the lane's core.

use std::collections::HashMap;

use super::caller::Caller;
use super::keys::KeyId;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Watches {
    by_key: HashMap<KeyId, Vec<Caller>>,
    /// Whether each watching client's watch is broken.
    broken: HashMap<Caller, bool>,
}

impl Watches {
    pub fn add(&mut self, to: Caller, key: KeyId) {
        self.broken.entry(to).or_insert(false);
        let watchers = self.by_key.entry(key).or_default();
        if !watchers.contains(&to) {
            watchers.push(to);
        }
    }

    #[inline]
    pub fn break_key(&mut self, key: KeyId) {
        if self.by_key.is_empty() {
            return;
        }
        for to in self.by_key.get(&key).into_iter().flatten() {
            self.broken.insert(*to, true);
        }
    }

    pub fn break_all(&mut self) {
        self.broken.values_mut().for_each(|broken| *broken = true);
    }

    /// Ends a client's watches; true when one was broken.
    pub fn forget(&mut self, to: Caller) -> bool {
        let Some(broken) = self.broken.remove(&to) else { return false };
        self.by_key.retain(|_, watchers| {
            watchers.retain(|watcher| *watcher != to);
            !watchers.is_empty()
        });
        broken
    }
}
