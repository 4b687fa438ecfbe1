//! Reads the same on both servers of a feed, and tells of each answer whether both are of one position of the stream. Lives on the movers' thread.
//!
//! In passing: the authority is read at an offset, then the shadow when it has everything up to there; what the stream has touched since is
//! doubtful. Exactly: the feed stands still at the offset, so nothing is doubtful but what expires at that moment.

use std::cell::RefCell;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::applier::{Feed, Shared};
use super::exact::{ReadAt, read_at, read_now};
use super::shadow::connect;
use super::work::{Compared, Work};
use crate::error::{JobError, ServerFault};
use base::model::{Endpoint, limits};
use follow::redis::client::RedisClient;
use wire::resp::args::Args;
use wire::resp::command;

/// See the head of this file.
#[derive(Debug)]
pub struct FeedReader {
    feed: Feed,
    authority: Endpoint,
    shadow: Endpoint,
    /// Connections in database 0, to the authority and to the shadow.
    idle: RefCell<Vec<(RedisClient, RedisClient)>>,
}

impl FeedReader {
    #[must_use]
    pub fn new(feed: Feed) -> Self {
        let spec = &feed.0.spec;
        let (authority, shadow) = (spec.authority.clone(), spec.shadow.clone());
        Self { feed, authority, shadow, idle: RefCell::default() }
    }

    /// # Errors
    /// [`JobError`].
    pub async fn in_passing(&self, database: u32, reads: &[Box<[u8]>]) -> Result<Compared, JobError> {
        let pair = self.idle.borrow_mut().pop();
        let (mut authority, mut shadow) = match pair {
            Some(pair) => pair,
            None => (connect(&self.authority).await?, connect(&self.shadow).await?),
        };
        let ReadAt { offset, settled, replies } = read_at(&mut authority, database, reads).await?;
        if timeout(limits::FEED_PROBE_PATIENCE, self.feed.applied(offset)).await.is_err() {
            return Err(JobError::server(shadow.who(), ServerFault::ReplyTimeout(limits::FEED_PROBE_PATIENCE)));
        }
        // Before and behind: a repair may end in between.
        let known: Vec<bool> = reads.iter().map(|read| self.feed.0.is_known_to_differ(database, read)).collect();
        let answers = read_now(&mut shadow, database, reads).await?;
        let doubtful = reads.iter().zip(known);
        let doubtful =
            doubtful.map(|(read, known)| known || !settled || self.touched_since(offset, database, read)).collect();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limits::FEED_PROBE_PAIRS_MAX {
            idle.push((authority, shadow));
        }
        Ok(Compared { authority: replies, shadow: answers, doubtful })
    }

    /// # Errors
    /// [`JobError`]; also when the feed has too much of this to do, or has been interrupted.
    pub async fn exactly(&self, database: u32, reads: Vec<Box<[u8]>>) -> Result<Compared, JobError> {
        let late = || JobError::server("the feed", ServerFault::ReplyTimeout(limits::FEED_PROBE_PATIENCE));
        if self.feed.0.work.borrow().len() >= limits::FEED_EXACT_READS_MAX {
            return Err(late());
        }
        let (reply, answer) = oneshot::channel();
        self.feed.0.push(Work::Compare { database, reads, reply });
        match timeout(limits::FEED_PROBE_PATIENCE, answer).await {
            Ok(Ok(compared)) => Ok(compared),
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    fn touched_since(&self, offset: u64, database: u32, read: &[u8]) -> bool {
        let touches = self.feed.0.touches.borrow();
        keys(read).is_none_or(|keys| keys.iter().any(|key| touches.since(offset, database, key)))
            || self.feed.0.is_known_to_differ(database, read)
    }
}

impl Shared {
    /// Whether a read names a key that may differ.
    pub(super) fn is_known_to_differ(&self, database: u32, read: &[u8]) -> bool {
        if self.doubts_len() == 0 {
            return false;
        }
        keys(read).is_some_and(|keys| keys.iter().any(|key| self.is_in_doubt(database, key)))
    }
}

/// `None`: it has none, or they are not known.
fn keys(read: &[u8]) -> Option<Vec<&[u8]>> {
    let name = Args::new(read).next().unwrap_or_default();
    command::lookup(name).keys_of(read).map(|keys| keys.0).filter(|keys| !keys.is_empty())
}
