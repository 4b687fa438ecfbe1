//! Makes the deadlines on the shadow what they should be, once it has caught up: those of the history are later than anything may take, so that
//! the shadow loses no key before the authority does. Lives on the movers' thread.

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::applier::Shared;
use super::shadow::connect;
use super::spec::{FeedError, FeedEvent};
use super::work::{Compared, Work};
use crate::error::JobError;
use crate::redis::names::NameScan;
use base::model::limits;
use follow::redis::client::RedisClient;
use wire::resp::encode::{push_request, request};
use wire::resp::value::Value;

impl Shared {
    /// Corrects every deadline once, and then waits for ever.
    pub(super) async fn correct_deadlines(&self, events: &mpsc::Sender<FeedEvent>) -> Result<(), FeedError> {
        // With what had arrived when it began: under a lasting load there is always something more.
        self.applied(self.status().received).await;
        for _ in 0..limits::FEED_DEADLINE_ROUNDS_MAX {
            let swaps = self.status().swaps;
            if self.follows_a_flip() {
                self.take_off_grace().await?;
                self.end_outlived().await?;
            }
            let (done, tightened) = oneshot::channel();
            self.push(Work::Tighten { done });
            let _ = tightened.await;
            self.every_deadline().await?;
            // Two databases that were exchanged meanwhile: one may have been looked at twice and the other not at all.
            if self.status().swaps == swaps {
                break;
            }
        }
        self.note(|status| (status.deadlines_exact, status.exact_since) = (true, Some(Instant::now())));
        let _ = events.send(FeedEvent::DeadlinesExact).await;
        std::future::pending().await
    }

    async fn every_deadline(&self) -> Result<(), JobError> {
        let mut scan = NameScan::begin_volatile(&self.spec.shadow, limits::FEED_DEADLINES_AT_ONCE).await?;
        let mut under_way = VecDeque::new();
        let exclusions = self.exclusions();
        while let Some(mut batch) = scan.next_batch().await? {
            batch.keys.retain(|key| !exclusions.covers(batch.database, key));
            let mut requests = Vec::new();
            for key in &batch.keys {
                push_request(&mut requests, &[b"PTTL", key]);
            }
            let replies = scan.ask(batch.database, &requests, batch.keys.len()).await?;
            let volatile =
                batch.keys.into_iter().zip(replies).filter(|(_, ttl)| ttl.integer().is_some_and(|ms| ms >= 0));
            let keys: Vec<_> = volatile.map(|(key, _)| key).collect();
            if keys.is_empty() {
                continue;
            }
            let (done, corrected) = oneshot::channel();
            self.push(Work::Deadlines { database: batch.database, keys, done });
            under_way.push_back(corrected);
            if under_way.len() >= limits::FEED_DEADLINE_BATCHES_IN_FLIGHT
                && let Some(oldest) = under_way.pop_front()
            {
                let _ = oldest.await;
            }
        }
        for rest in under_way {
            let _ = rest.await;
        }
        Ok(())
    }

    /// Whether both servers were equal when it began, each with its own deadlines.
    fn follows_a_flip(&self) -> bool {
        self.status().full_syncs == 0 && self.spec.guarded
    }

    pub(super) fn push(&self, work: Work) {
        self.work.borrow_mut().push_back(work);
        self.has_work.notify_one();
    }
}

/// Sets a deadline if it is still what the feed wrote: a client may have changed it meanwhile.
const COMPARE_AND_SET: &[u8] =
    b"if redis.call('PEXPIRETIME',KEYS[1])==tonumber(ARGV[1]) then return redis.call('PEXPIREAT',KEYS[1],ARGV[2]) end return 0";

impl Shared {
    /// After a flip: the authority was the shadow, and holds deadlines that are later by the grace than what clients asked for. What the server that was
    /// the authority holds is what they asked for.
    async fn take_off_grace(&self) -> Result<(), JobError> {
        let (grace_ms, exclusions) = (self.spec.grace_ms, self.exclusions());
        if grace_ms == 0 {
            return Ok(());
        }
        let mut client = connect(&self.spec.authority).await?;
        let mut scan = NameScan::begin_volatile(&self.spec.shadow, limits::FEED_DEADLINES_AT_ONCE).await?;
        while let Some(mut batch) = scan.next_batch().await? {
            batch.keys.retain(|key| !exclusions.covers(batch.database, key));
            let mut requests = Vec::new();
            batch.keys.iter().for_each(|key| push_request(&mut requests, &[b"PEXPIRETIME", key]));
            let replies = scan.ask(batch.database, &requests, batch.keys.len()).await?;
            let deadlines = batch.keys.iter().zip(replies);
            let there = deadlines.filter_map(|(key, at)| Some((key, at.integer().filter(|at_ms| *at_ms > 0)?)));
            let corrections = there.map(|(key, at_ms)| (key, at_ms.saturating_add(grace_ms), at_ms));
            correct(&mut client, batch.database, corrections).await?;
        }
        Ok(())
    }

    /// The same for keys that the server that was the authority has no more, because their time had come there. A key that only the authority has, at
    /// one position and without a doubt, nobody has written to since the flip, so its deadline is what the feed wrote.
    async fn end_outlived(&self) -> Result<(), JobError> {
        let (grace_ms, exclusions) = (self.spec.grace_ms, self.exclusions());
        if grace_ms == 0 {
            return Ok(());
        }
        let mut client = connect(&self.spec.authority).await?;
        let mut scan = NameScan::begin_volatile(&self.spec.authority, limits::FEED_DEADLINES_AT_ONCE).await?;
        while let Some(mut batch) = scan.next_batch().await? {
            batch.keys.retain(|key| !exclusions.covers(batch.database, key));
            let mut requests = Vec::new();
            batch.keys.iter().for_each(|key| push_request(&mut requests, &[b"PTTL", key]));
            let replies = scan.ask(batch.database, &requests, batch.keys.len()).await?;
            // Twice the grace: clocks differ.
            let soon = |left: &Value| left.integer().is_some_and(|ms| (0..=grace_ms.saturating_mul(2)).contains(&ms));
            let keys = batch.keys.into_iter().zip(replies).filter(|(_, left)| soon(left));
            let keys: Vec<_> = keys.map(|(key, _)| key).collect();
            for some in keys.chunks(limits::FEED_EXACT_READS_MAX) {
                let outlived = self.only_at_authority(batch.database, some).await;
                let corrections = outlived.iter().map(|(key, at_ms)| (key, *at_ms, at_ms.saturating_sub(grace_ms)));
                correct(&mut client, batch.database, corrections).await?;
            }
        }
        Ok(())
    }

    /// Those that the shadow does not have, and is not known to lack, with their deadlines at the authority.
    async fn only_at_authority(&self, database: u32, keys: &[Box<[u8]>]) -> Vec<(Box<[u8]>, i64)> {
        let reads = keys.iter().map(|key| request(&[b"PEXPIRETIME", key]).into()).collect();
        let (reply, answer) = oneshot::channel();
        self.push(Work::Compare { database, reads, reply });
        // Without an answer the feed has ended, and this with it.
        let Ok(Compared { authority, shadow, .. }) = answer.await else { return Vec::new() };
        let both = keys.iter().zip(authority.iter().zip(&shadow));
        let missing = both.filter(|(_, (_, at_shadow))| at_shadow.integer() == Some(-2));
        let volatile = missing.filter_map(|(key, (at, _))| Some((key, at.integer().filter(|at_ms| *at_ms > 0)?)));
        volatile.filter(|(key, _)| !self.is_in_doubt(database, key)).map(|(key, at_ms)| (key.clone(), at_ms)).collect()
    }
}

/// Sets deadlines of keys that have the first one to the second.
async fn correct<'a>(
    client: &mut RedisClient,
    database: u32,
    corrections: impl Iterator<Item = (&'a Box<[u8]>, i64, i64)>,
) -> Result<(), JobError> {
    let mut requests = Vec::new();
    push_request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
    let mut count = 1;
    for (key, written, asked_for) in corrections {
        let (written, asked_for) = (written.to_string(), asked_for.to_string());
        let words = [b"EVAL".as_slice(), COMPARE_AND_SET, b"1", key, written.as_bytes(), asked_for.as_bytes()];
        push_request(&mut requests, &words);
        count += 1;
    }
    for reply in client.pipeline(&requests, count).await? {
        if let Some(error) = reply.error() {
            return Err(JobError::answer(client.who(), format!("a deadline cannot be corrected: {error}")));
        }
    }
    Ok(())
}
