//! The keys of a shadow that may differ, from when that is known until they are copied again. Lives on the movers' thread.

use std::collections::BTreeSet;

use super::applier::Shared;
use super::batch::{Batch, DatabaseKey, Doubt, keys_with_databases};

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
        if self.doubts_len() == 0 {
            return;
        }
        let all = batch.frames().map(|(frame, database)| keys_with_databases(frame, database));
        let mut several: Vec<Vec<DatabaseKey>> = all.filter(|keys| keys.len() > 1).collect();
        loop {
            let is_touched =
                |keys: &mut Vec<DatabaseKey>| keys.iter().any(|(database, key)| self.is_in_doubt(*database, key));
            let touched: Vec<_> = several.extract_if(.., is_touched).collect();
            if touched.is_empty() {
                return;
            }
            self.doubt(
                touched.into_iter().flatten().filter(|(_, key)| !key.starts_with(crate::RESERVED_PREFIX)).map(made_of),
            );
        }
    }

    /// Whether it is known that a key may differ.
    pub(super) fn is_in_doubt(&self, database: u32, key: &[u8]) -> bool {
        first_of(&self.doubts.borrow(), database, key).is_some()
            || self.absent.borrow().contains_key(&(database, key.to_vec()))
    }
}

/// Of the same key there may be several, each with another reason.
fn first_of(doubts: &BTreeSet<Doubt>, database: u32, key: &[u8]) -> Option<Doubt> {
    let first = Doubt { database, key: Some(key.to_vec()), why: String::new() };
    let next = doubts.range(first..).next();
    next.filter(|doubt| doubt.database == database && doubt.key.as_deref() == Some(key)).cloned()
}

fn made_of((database, key): DatabaseKey) -> Doubt {
    Doubt { database, key: Some(key), why: "it was made of a key that may differ".to_owned() }
}
