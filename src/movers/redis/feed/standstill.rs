//! What is done while a feed stands still at one exact position: the authority is read there, the shadow is brought to the same place, and
//! read or written. Lives on the movers' thread.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::applier::{Applying, Shared};
use super::batch::Doubt;
use super::exact::{ReadAt, read_at, read_now};
use super::history::HistoryWriter;
use super::repair::{read_deadlines, read_keys};
use super::shadow::connect;
use super::spec::FeedError;
use super::work::{Compared, Work};
use base::model::limits;
use follow::redis::client::RedisClient;
use wire::rdb::Item;
use wire::resp::encode::push_request;

/// Reads of one comparison, and who waits for the answers.
type Comparison = (Vec<Box<[u8]>>, oneshot::Sender<Compared>);

impl Shared {
    /// Does what there is to do at one position; false when there is nothing. Whatever the doubts, what waits behind them has its turn.
    pub(super) async fn stand_still(&self, at: &mut Applying) -> Result<bool, FeedError> {
        let due = Instant::now() >= at.repair_due;
        let doubtful = if due { self.some_doubts() } else { Vec::new() };
        let repairs = !doubtful.is_empty();
        if repairs {
            self.repair(at, doubtful).await?;
            at.repair_due = Instant::now() + limits::FEED_REPAIR_PAUSE;
        }
        let Some(work) = self.next_work() else { return Ok(repairs) };
        match work {
            Work::Compare { database, reads, reply } => {
                let mut comparisons = vec![(reads, reply)];
                self.take_comparisons(database, &mut comparisons);
                self.compare(at, database, comparisons).await?;
            }
            Work::Deadlines { database, keys, done } => {
                self.deadlines(at, database, &keys).await?;
                let _ = done.send(());
            }
            Work::Tighten { done } => {
                at.dialect.grace_ms = self.spec.grace_ms;
                let _ = done.send(());
            }
        }
        Ok(true)
    }

    /// What nobody waits for any more is left out.
    fn next_work(&self) -> Option<Work> {
        let mut work = self.work.borrow_mut();
        while work.front().is_some_and(|work| matches!(work, Work::Compare { reply, .. } if reply.is_closed())) {
            work.pop_front();
        }
        work.pop_front()
    }

    /// The comparisons that come next are made at the same position: a shadow far away answers all of them in the time of one.
    fn take_comparisons(&self, in_database: u32, comparisons: &mut Vec<Comparison>) {
        let mut work = self.work.borrow_mut();
        let mut count: usize = comparisons.iter().map(|(reads, _)| reads.len()).sum();
        while let Some(Work::Compare { database, reads, .. }) = work.front() {
            count += reads.len();
            if *database != in_database || count > limits::FEED_EXACT_READS_AT_ONCE {
                return;
            }
            if let Some(Work::Compare { reads, reply, .. }) = work.pop_front() {
                comparisons.push((reads, reply));
            }
        }
    }

    /// Of one database, and of each key one.
    fn some_doubts(&self) -> Vec<Doubt> {
        let doubts = self.doubts.borrow();
        let mut some: Vec<Doubt> = Vec::new();
        for doubt in doubts.iter().filter(|doubt| doubt.key.is_some()) {
            if some.last().is_some_and(|last| last.database != doubt.database)
                || some.len() == limits::FEED_REPAIRS_AT_ONCE
            {
                break;
            }
            if some.last().is_none_or(|last| last.key != doubt.key) {
                some.push(doubt.clone());
            }
        }
        some
    }

    async fn source<'a>(&self, at: &'a mut Applying) -> Result<&'a mut RedisClient, FeedError> {
        let client = match at.source.take() {
            Some(client) => client,
            None => connect(&self.spec.authority).await?,
        };
        Ok(at.source.insert(client))
    }

    async fn compare(&self, at: &mut Applying, database: u32, comparisons: Vec<Comparison>) -> Result<(), FeedError> {
        let (reads, waiting): (Vec<_>, Vec<_>) = comparisons.into_iter().unzip();
        let counts: Vec<usize> = reads.iter().map(Vec::len).collect();
        let reads = reads.concat();
        let ReadAt { offset, settled, replies } = read_at(self.source(at).await?, database, &reads).await?;
        self.advance_to(at, offset).await?;
        let shadow = read_now(&mut at.client, database, &reads).await?;
        // Also what came into doubt on the way to this position: it has not been copied again yet.
        let doubtful = reads.iter().map(|read| !settled || self.is_known_to_differ(database, read));
        let (mut replies, mut shadow, mut doubtful) = (replies.into_iter(), shadow.into_iter(), doubtful);
        for (count, reply) in counts.into_iter().zip(waiting) {
            let compared = Compared {
                authority: replies.by_ref().take(count).collect(),
                shadow: shadow.by_ref().take(count).collect(),
                doubtful: doubtful.by_ref().take(count).collect(),
            };
            // That the answer is no longer waited for is no error.
            let _ = reply.send(compared);
        }
        Ok(())
    }

    async fn repair(&self, at: &mut Applying, doubts: Vec<Doubt>) -> Result<(), FeedError> {
        let (offset, values) = read_keys(self.source(at).await?, doubts).await?;
        self.advance_to(at, offset).await?;
        let mut writer = HistoryWriter::new(&at.dialect);
        for value in &values {
            writer.key(value.doubt.database, &value.key, value.deadline_ms, value.payload.as_deref());
        }
        writer.take(Item::SelectDb(0));
        writer.flush(&mut at.client).await?;
        for value in values {
            // What came up on the way here is about the same moment or an earlier one.
            self.settled(value.doubt.database, value.key);
        }
        self.lose(writer.take_doubts());
        self.note(|_| {});
        Ok(())
    }

    /// Stores the authority's deadlines with the grace.
    async fn deadlines(&self, at: &mut Applying, database: u32, keys: &[Box<[u8]>]) -> Result<(), FeedError> {
        let (offset, deadlines) = read_deadlines(self.source(at).await?, database, keys).await?;
        self.advance_to(at, offset).await?;
        let mut requests = Vec::new();
        push_request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
        let mut count = 2;
        for (key, deadline) in keys.iter().zip(deadlines) {
            match deadline {
                ..=-2 => continue,
                -1 => push_request(&mut requests, &[b"PERSIST", key]),
                at_ms => {
                    let later = at_ms.saturating_add(self.spec.grace_ms).to_string();
                    push_request(&mut requests, &[b"PEXPIREAT", key, later.as_bytes()]);
                }
            }
            count += 1;
        }
        push_request(&mut requests, &[b"SELECT", b"0"]);
        at.client.pipeline(&requests, count).await?;
        Ok(())
    }
}
