//! The keys of a shadow that may differ, from when that is known until they are copied again. Lives on the movers' thread.

use std::collections::BTreeSet;

use super::applier::Shared;
use super::batch::{Batch, DatabaseKey, Doubt, keys_with_databases, swapped};
use wire::resp::args::Args;

impl Shared {
    /// These may differ: they are copied again.
    pub fn doubt(&self, more: impl IntoIterator<Item = Doubt>) {
        let mut count = 0;
        let mut unsettled = self.unsettled.borrow_mut();
        let noted = more.into_iter().inspect(|doubt| {
            count += 1;
            if let Some(key) = &doubt.key {
                unsettled.open((doubt.database, key.clone()));
            }
        });
        self.doubts.borrow_mut().extend(noted);
        drop(unsettled);
        self.note(|status| status.doubted += count);
        self.has_work.notify_one();
    }

    /// How many keys may differ, as far as is known.
    pub fn doubts_len(&self) -> usize {
        self.doubts.borrow().len() + self.absent.borrow().len()
    }

    /// The shadow has what the authority had behind everything that was applied.
    pub(super) fn settled(&self, database: u32, key: Vec<u8>) {
        let mut doubts = self.doubts.borrow_mut();
        while let Some(doubt) = first_of(&doubts, database, &key) {
            doubts.remove(&doubt);
        }
        drop(doubts);
        let one = (database, key);
        if !self.absent.borrow().contains_key(&one) {
            self.unsettled.borrow_mut().settle(&one);
        }
    }

    /// What is made of a key that may differ may differ too: RENAME, COPY, LMOVE and the like carry it on before it is copied again.
    pub(super) fn spread_doubts(&self, batch: &Batch) {
        if self.doubts_len() > 0 {
            let mut made = made_of(batch, |(database, key)| self.is_in_doubt(*database, key));
            // One that is only looked at may turn out not to have been lost: it was made of another all the same.
            made.retain(|(database, key)| first_of(&self.doubts.borrow(), *database, key).is_none());
            let why = "it was made of a key that may differ";
            self.doubt(made.into_iter().map(|(database, key)| Doubt { database, key: Some(key), why: why.to_owned() }));
        }
    }

    /// What may differ in one of two databases may differ in the other once they are exchanged: it was named before or behind that.
    pub(super) fn follow_swaps(&self, batch: &Batch) {
        for (one, other) in batch.frames().filter_map(|(frame, _)| swapped(frame)) {
            self.note(|status| status.swaps += 1);
            let across = |(database, key): &DatabaseKey| match *database {
                from if from == one => Some((other, key.clone())),
                from if from == other => Some((one, key.clone())),
                _ => None,
            };
            let doubts = self.doubts.borrow();
            let named = doubts.iter().filter_map(|doubt| across(&(doubt.database, doubt.key.clone()?)));
            let keys: BTreeSet<DatabaseKey> = named.collect();
            drop(doubts);
            let looked_at: Vec<DatabaseKey> = self.absent.borrow().keys().filter_map(across).collect();
            self.look_at(looked_at.into_iter().map(|key| (key, Vec::new())));
            let why = "its database was exchanged with one where it may differ";
            self.doubt(keys.into_iter().map(|(database, key)| Doubt { database, key: Some(key), why: why.to_owned() }));
            let mut anew = self.made_anew.borrow_mut();
            let moved: Vec<_> = anew.iter().filter_map(|(key, until)| Some((across(key)?, *until))).collect();
            anew.extend(moved);
        }
    }

    /// While deadlines are being corrected, key after key by SCAN: one that is moved to a name, or a database, that has been passed takes along a deadline
    /// which is as late as those of the first copy.
    pub(super) fn doubt_carried_deadlines(&self, batch: &Batch) {
        let carried = batch.frames().filter(|(frame, _)| carries_deadline(Args::new(frame).next().unwrap_or_default()));
        let mut keys: Vec<DatabaseKey> =
            carried.flat_map(|(frame, database)| keys_with_databases(frame, database)).collect();
        keys.retain(|(database, key)| {
            !key.starts_with(crate::RESERVED_PREFIX) && first_of(&self.doubts.borrow(), *database, key).is_none()
        });
        if !keys.is_empty() {
            let why = "it may have a deadline of the first copy";
            self.doubt(keys.into_iter().map(|(database, key)| Doubt { database, key: Some(key), why: why.to_owned() }));
        }
    }

    /// Whether it is known that a key may differ.
    pub(super) fn is_in_doubt(&self, database: u32, key: &[u8]) -> bool {
        first_of(&self.doubts.borrow(), database, key).is_some()
            || self.absent.borrow().contains_key(&(database, key.to_vec()))
    }
}

/// Which keys of a command with several make others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Nothing,
    /// The first makes the others.
    FromFirst,
    /// The others make the first.
    ToFirst,
    /// Any may make any.
    Between,
}

/// As the commands' own pages say which of their keys is the destination (<https://redis.io/docs/latest/commands/>). One that succeeds only if its
/// destination is not there changes both.
fn carries(name: &[u8]) -> Carries {
    const TABLE: [(Carries, &[&str]); 3] = [
        (Carries::Nothing, &["del", "unlink", "mset"]),
        (
            Carries::FromFirst,
            &[
                "rename",
                "copy",
                "lmove",
                "blmove",
                "rpoplpush",
                "brpoplpush",
                "smove",
                "sort",
                "georadius",
                "georadiusbymember",
            ],
        ),
        (
            Carries::ToFirst,
            &[
                "sinterstore",
                "sunionstore",
                "sdiffstore",
                "zinterstore",
                "zunionstore",
                "zdiffstore",
                "zrangestore",
                "geosearchstore",
                "bitop",
                "pfmerge",
            ],
        ),
    ];
    let is_listed = |names: &[&str]| names.iter().any(|word| name.eq_ignore_ascii_case(word.as_bytes()));
    TABLE.iter().find(|(_, names)| is_listed(names)).map_or(Carries::Between, |(carries, _)| *carries)
}

fn carries_deadline(name: &[u8]) -> bool {
    ["rename", "renamenx", "move", "copy"].iter().any(|word| name.eq_ignore_ascii_case(word.as_bytes()))
}

/// Of the same key there may be several, each with another reason.
fn first_of(doubts: &BTreeSet<Doubt>, database: u32, key: &[u8]) -> Option<Doubt> {
    let first = Doubt { database, key: Some(key.to_vec()), why: String::new() };
    let next = doubts.range(first..).next();
    next.filter(|doubt| doubt.database == database && doubt.key.as_deref() == Some(key)).cloned()
}

/// What the commands of a batch make of keys in doubt. Nothing else comes into doubt by them: a key that takes part in a command without being
/// changed by the other is as it was.
fn made_of(batch: &Batch, is_in_doubt: impl Fn(&DatabaseKey) -> bool) -> BTreeSet<DatabaseKey> {
    let mut made = BTreeSet::new();
    for (frame, database) in batch.frames() {
        let carries = carries(Args::new(frame).next().unwrap_or_default());
        if carries == Carries::Nothing {
            continue;
        }
        let mut keys = keys_with_databases(frame, database);
        keys.retain(|(_, key)| !key.starts_with(crate::RESERVED_PREFIX));
        if keys.len() < 2 {
            continue;
        }
        let (from, to) = match carries {
            Carries::FromFirst => keys.split_at(1),
            Carries::ToFirst => (&keys[1..], &keys[..1]),
            Carries::Nothing | Carries::Between => (&keys[..], &keys[..]),
        };
        if from.iter().any(|key| made.contains(key) || is_in_doubt(key)) {
            made.extend(to.iter().cloned());
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::feed::batch::Expect;

    /// What is made where `a` is in doubt.
    fn made(lines: &[&str]) -> Vec<String> {
        let mut batch = Batch::default();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            batch.push(0, &words, Expect::Anything);
        }
        let made = made_of(&batch, |(database, key)| (*database, key.as_slice()) == (0, b"a".as_slice()));
        let name = |(database, key)| format!("{database}:{}", String::from_utf8_lossy(key));
        made.iter().map(|(database, key)| name((database, key))).collect()
    }

    #[test]
    fn doubts_go_where_a_command_takes_them_and_no_further() {
        for (lines, expected) in [
            (&["RENAME a b", "COPY b c", "COPY c d DB 3", "LMOVE d e LEFT LEFT"][..], "0:b 0:c 0:d 0:e 3:d"),
            (&["RENAME b c", "RENAME a b"], "0:b"),
            (&["SINTERSTORE d x a y", "ZUNIONSTORE z 2 x a", "BITOP AND o x a", "PFMERGE p a"], "0:d 0:o 0:p 0:z"),
            (&["SINTERSTORE a x y", "RENAME x a", "LMOVE x a LEFT LEFT", "SMOVE x a m", "SORT x STORE a"], ""),
            (&["DEL a b", "UNLINK c a", "MSET a 1 d 2", "RPUSH e x"], ""),
            (&["SORT a STORE s", "SMOVE a m x"], "0:m 0:s"),
            (&["RENAMENX b a", "MOVE c 1"], "0:a 0:b"),
            (&["MOVE a 1"], "0:a 1:a"),
        ] {
            assert_eq!(made(lines).join(" "), expected, "{lines:?}");
        }
    }
}
