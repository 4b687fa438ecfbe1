//! The ledger of keys that were proven different, with when each was first seen and when it was last proven equal.
//!
//! Bounded: the newest are kept by name, all are counted. Lives on the control thread and in the store.

use super::ids::Timestamp;
use super::limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    pub database: u32,
    pub key: Vec<u8>,
    /// "value", "type", "ttl", "missing", "extra", "members", or a word of the comparison policy.
    pub class: String,
    pub source: String,
    pub target: String,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub resolved_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    pub found: u64,
    pub resolved: u64,
    pub entries: Vec<LedgerEntry>,
}

/// One sighting of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub database: u32,
    pub key: Vec<u8>,
    pub class: String,
    pub source: String,
    pub target: String,
}

impl Ledger {
    #[must_use]
    pub fn unresolved(&self) -> u64 {
        self.found.saturating_sub(self.resolved)
    }

    /// Remembers a sighting; true when the key was not open already.
    pub fn note(&mut self, seen: Sighting, now: Timestamp) -> bool {
        let same =
            |old: &&mut LedgerEntry| old.resolved_at.is_none() && old.database == seen.database && old.key == seen.key;
        if let Some(old) = self.entries.iter_mut().find(same) {
            old.last_seen = now;
            old.class = seen.class;
            old.source = seen.source;
            old.target = seen.target;
            return false;
        }
        self.found += 1;
        if self.entries.len() >= limits::DIVERGENCE_LEDGER_LEN {
            // A resolved divergence makes room; if all are open, the new one is only counted.
            match self.entries.iter().position(|old| old.resolved_at.is_some()) {
                Some(index) => drop(self.entries.remove(index)),
                None => return true,
            }
        }
        self.entries.push(LedgerEntry {
            database: seen.database,
            key: seen.key,
            class: seen.class,
            source: seen.source,
            target: seen.target,
            first_seen: now,
            last_seen: now,
            resolved_at: None,
        });
        true
    }

    /// A comparison of every key that began at `began` was clean: divergences last seen before it are resolved. Returns how many.
    pub fn resolve_seen_before(&mut self, began: Timestamp, now: Timestamp) -> u64 {
        let before = self.resolved;
        let mut still_open = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.resolved_at.is_none()) {
            if entry.last_seen <= began {
                entry.resolved_at = Some(now);
            } else {
                still_open += 1;
            }
        }
        // Divergences that were only counted are resolved by the same proof.
        self.resolved = self.found - still_open;
        self.resolved.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(n: usize) -> Sighting {
        Sighting {
            database: 0,
            key: n.to_string().into_bytes(),
            class: "value".to_owned(),
            source: String::new(),
            target: String::new(),
        }
    }

    #[test]
    fn a_key_is_found_once_until_it_is_resolved() {
        let mut ledger = Ledger::default();
        assert!(ledger.note(sighting(1), Timestamp(10)) && !ledger.note(sighting(1), Timestamp(20)));
        assert_eq!(ledger.resolve_seen_before(Timestamp(15), Timestamp(30)), 0, "seen again after the proof began");
        assert_eq!(ledger.resolve_seen_before(Timestamp(20), Timestamp(40)), 1);
        assert_eq!((ledger.unresolved(), ledger.entries[0].first_seen), (0, Timestamp(10)));
        assert!(ledger.note(sighting(1), Timestamp(50)), "a resolved key that differs again is a new finding");
    }

    #[test]
    fn the_ledger_is_bounded_and_still_counts() {
        let mut ledger = Ledger::default();
        for n in 0..limits::DIVERGENCE_LEDGER_LEN + 5 {
            ledger.note(sighting(n), Timestamp(1));
        }
        assert_eq!(ledger.entries.len(), limits::DIVERGENCE_LEDGER_LEN);
        assert_eq!(ledger.unresolved(), limits::DIVERGENCE_LEDGER_LEN as u64 + 5);
        ledger.resolve_seen_before(Timestamp(2), Timestamp(3));
        assert_eq!(ledger.unresolved(), 0);
    }
}
