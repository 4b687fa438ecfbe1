//! Which keys a migration does not move. Pure: no I/O, no clock.
//!
//! An excluded key is not copied, the commands about it are not applied, and it is not compared: each server keeps what it has, in both
//! directions. Which keys those are does not change while the migration lasts, so that at any moment both sides agree on the rest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::batch::{DatabaseKey, keys_with_databases};
use base::model::KeyPattern;

/// See the head of this file.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    patterns: Arc<[KeyPattern]>,
    /// By database. Bounded by `limits::FEED_KEPT_KEYS_MAX` where they are read from a server.
    kept: BTreeMap<u32, HashSet<Box<[u8]>>>,
}

/// What of a command is moved.
#[derive(Debug, PartialEq, Eq)]
pub enum Moved {
    All,
    Nothing,
    /// It also names excluded keys, so it cannot be applied: these may differ.
    Only(Vec<DatabaseKey>),
}

impl Exclusions {
    #[must_use]
    pub fn new(patterns: Arc<[KeyPattern]>, kept: impl IntoIterator<Item = DatabaseKey>) -> Self {
        let mut by_database: BTreeMap<u32, HashSet<Box<[u8]>>> = BTreeMap::new();
        for (database, key) in kept {
            by_database.entry(database).or_default().insert(key.into());
        }
        Self { patterns, kept: by_database }
    }

    /// Every key is moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.kept.is_empty()
    }

    #[must_use]
    pub fn patterns(&self) -> &[KeyPattern] {
        &self.patterns
    }

    /// How many keys are excluded by their names.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.values().map(|keys| keys.len() as u64).sum()
    }

    /// Keys that are excluded by their names.
    #[must_use]
    pub fn kept_keys(&self) -> Vec<DatabaseKey> {
        let of = |(database, keys): (&u32, &HashSet<Box<[u8]>>)| -> Vec<DatabaseKey> {
            keys.iter().map(|key| (*database, key.to_vec())).collect()
        };
        self.kept.iter().flat_map(of).collect()
    }

    #[must_use]
    pub fn covers(&self, database: u32, key: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(key))
            || self.kept.get(&database).is_some_and(|keys| keys.contains(key))
    }

    /// Whether a command, a whole request, names an excluded key.
    #[must_use]
    pub fn touches(&self, database: u32, frame: &[u8]) -> bool {
        !self.is_empty()
            && keys_with_databases(frame, database).iter().any(|(database, key)| self.covers(*database, key))
    }

    /// What is moved of a command that names these keys.
    #[must_use]
    pub fn moved(&self, keys: Vec<DatabaseKey>) -> Moved {
        let all = keys.len();
        let rest: Vec<_> = keys.into_iter().filter(|(database, key)| !self.covers(*database, key)).collect();
        match rest.len() {
            left if left == all => Moved::All,
            0 => Moved::Nothing,
            _ => Moved::Only(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_moved_wholly_or_not_or_leaves_keys_that_may_differ() {
        let patterns = Arc::from([KeyPattern::new("session:*").unwrap()]);
        let excluded = Exclusions::new(patterns, [(0, b"kept".to_vec()), (3, b"third".to_vec())]);
        assert_eq!(excluded.kept(), 2);
        let keys = |names: &[(u32, &str)]| -> Vec<DatabaseKey> {
            names.iter().map(|(database, key)| (*database, key.as_bytes().to_vec())).collect()
        };
        for (named, expected) in [
            (keys(&[(0, "a"), (0, "third")]), Moved::All),
            (keys(&[]), Moved::All),
            (keys(&[(0, "kept")]), Moved::Nothing),
            (keys(&[(7, "session:1"), (3, "third")]), Moved::Nothing),
            (keys(&[(0, "kept"), (0, "b")]), Moved::Only(keys(&[(0, "b")]))),
            (keys(&[(1, "kept")]), Moved::All),
        ] {
            assert_eq!(excluded.moved(named.clone()), expected, "{named:?}");
        }
        assert_eq!(Exclusions::default().moved(keys(&[(0, "kept")])), Moved::All);
    }
}
