//! Tells keys that a late shadow has lost too early from those that are new: only what expires can be lost so. Lives on the movers' thread.

use super::applier::Shared;
use super::batch::Doubt;
use super::shadow::connect;
use super::spec::FeedError;
use base::model::limits;
use wire::resp::encode::push_request;

impl Shared {
    /// Looks at keys that were found absent, until something fails. A key without a deadline at the authority has none that the shadow could have
    /// met; if it had one and was persisted, the PERSIST has told (`Expect::Changed`).
    pub(super) async fn look_at_absent(&self) -> Result<(), FeedError> {
        let mut client = None;
        loop {
            let some: Vec<(u32, Vec<u8>)> = {
                let absent = self.absent.borrow();
                let database = absent.first().map(|(database, _)| *database);
                let same = absent.iter().take_while(|(other, _)| Some(*other) == database);
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
            let replies = client.pipeline(&requests, some.len() + 1).await?;
            let volatile = |ttl: Option<i64>| ttl.is_none_or(|ms| ms >= 0);
            for (one, ttl) in some.into_iter().zip(&replies[1..]) {
                self.absent.borrow_mut().remove(&one);
                if volatile(ttl.integer()) {
                    let (database, key) = one;
                    self.doubt([Doubt {
                        database,
                        key: Some(key),
                        why: "the shadow was late and may have lost it".to_owned(),
                    }]);
                }
            }
            self.note(|_| {});
        }
    }
}
