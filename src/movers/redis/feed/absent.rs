//! Tells keys that a late shadow has lost too early from those that are new: only what expires can be lost so. Lives on the movers' thread.

use super::applier::Shared;
use super::batch::{Batch, DatabaseKey, Doubt, keys_with_databases};
use super::exact::offset_of;
use super::lag::builds_on_keys;
use super::shadow::connect;
use super::spec::FeedError;
use base::model::limits;
use wire::resp::args::Args;
use wire::resp::encode::push_request;

impl Shared {
    /// Looks at keys that were found absent, until something fails. A key without a deadline at the authority has none that the shadow could have
    /// met, unless it was persisted meanwhile: see [`Self::look_at_persist`].
    pub(super) async fn look_at_absent(&self) -> Result<(), FeedError> {
        let mut client = None;
        loop {
            let some: Vec<DatabaseKey> = {
                let absent = self.absent.borrow();
                let database = absent.keys().next().map(|(database, _)| *database);
                let same = absent.keys().take_while(|(other, _)| Some(*other) == database);
                same.take(limits::FEED_ABSENT_AT_ONCE).cloned().collect()
            };
            let Some(&(database, _)) = some.first() else {
                self.has_absent.notified().await;
                continue;
            };
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(connect(&self.spec.authority).await?),
            };
            let mut requests = Vec::new();
            push_request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
            some.iter().for_each(|(_, key)| push_request(&mut requests, &[b"PTTL", key]));
            push_request(&mut requests, &[b"ROLE"]);
            let replies = client.pipeline(&requests, some.len() + 2).await?;
            let until = replies.last().and_then(offset_of).unwrap_or(u64::MAX);
            let applied = self.status().applied.map_or(0, |at| at.offset);
            self.made_anew.borrow_mut().retain(|_, until| *until > applied);
            for (one, ttl) in some.into_iter().zip(&replies[1..]) {
                let related = self.absent.borrow_mut().remove(&one).unwrap_or_default();
                // Also one that is gone by now: moved away, or expired since.
                if ttl.integer() == Some(-1) {
                    if !self.is_in_doubt(database, &one.1) {
                        self.unsettled.borrow_mut().settle(&one);
                    }
                    self.made_anew.borrow_mut().insert(one, until);
                } else {
                    self.unsettled.borrow_mut().open_with(&one, related.iter().cloned());
                    self.doubt(std::iter::once(one).chain(related).map(doubt));
                }
            }
            self.note(|_| {});
        }
    }

    /// The shadow executed this batch late, without having been asked whether it had the keys: any of them may have been lost, and is looked at as
    /// one that it does not have. That a persisted key has no deadline any more says nothing of whether it had been lost.
    pub(super) fn look_at_late(&self, batch: &Batch) {
        let mut late: Vec<(DatabaseKey, Vec<DatabaseKey>)> = Vec::new();
        let mut persisted = Vec::new();
        for (frame, database) in batch.frames() {
            let mut keys = keys_with_databases(frame, database);
            keys.retain(|(_, key)| !key.starts_with(crate::RESERVED_PREFIX));
            if is_persist(frame) {
                persisted.append(&mut keys);
            } else if builds_on_keys(frame) {
                let related = if keys.len() > 1 { keys.clone() } else { Vec::new() };
                late.extend(keys.into_iter().map(|key| (key, related.clone())));
            }
        }
        self.look_at(late);
        for key in persisted {
            self.doubt_persisted(key);
        }
    }

    /// Looks at keys that the shadow may have lost, each with the others of the command that builds on it.
    pub(super) fn look_at(&self, keys: impl IntoIterator<Item = (DatabaseKey, Vec<DatabaseKey>)>) {
        let (mut absent, mut unsettled) = (self.absent.borrow_mut(), self.unsettled.borrow_mut());
        for (key, related) in keys {
            unsettled.open(key.clone());
            absent.entry(key).or_default().extend(related);
        }
        if !absent.is_empty() {
            self.has_absent.notify_one();
        }
    }

    /// A key that the shadow has lost and a later command has made anew accepts PERSIST like any other, so the reply does not tell. `watching`: keys
    /// are looked for whose absence is not known yet.
    pub(super) fn look_at_persist(&self, frame: &[u8], database: u32, watching: bool) {
        let key = Args::new(frame).nth(1).filter(|_| is_persist(frame));
        let Some(key) = key else { return };
        let one = (database, key.to_vec());
        if watching || self.absent.borrow().contains_key(&one) || self.made_anew.borrow().contains_key(&one) {
            self.doubt_persisted(one);
        }
    }

    /// With what was made of it.
    fn doubt_persisted(&self, key: DatabaseKey) {
        let related = self.absent.borrow().get(&key).cloned().unwrap_or_default();
        self.unsettled.borrow_mut().open_with(&key, related.iter().cloned());
        self.doubt(std::iter::once(key).chain(related).map(doubt));
    }
}

fn is_persist(frame: &[u8]) -> bool {
    Args::new(frame).next().is_some_and(|name| name.eq_ignore_ascii_case(b"PERSIST"))
}

fn doubt((database, key): DatabaseKey) -> Doubt {
    Doubt {
        database,
        key: Some(key),
        why: "the shadow was late and may have lost it, or what it is made of".to_owned(),
    }
}
