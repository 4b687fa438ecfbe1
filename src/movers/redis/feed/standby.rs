//! The way back, kept open: the stream of the server that is the shadow now, followed from before a flip on, so that from the first instant after
//! it the other direction needs no snapshot. What it says until then are our own writes; they are dropped.
//!
//! Lives on the movers' thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::exact::end_of_stream;
use super::shadow::connect;
use super::spec::Standing;
use crate::error::{JobError, ServerFault};
use crate::redis::facts::check_endpoint;
use base::model::{Endpoint, limits};
use follow::error::FollowError;
use follow::redis::follower::{FollowSpec, prime};
use follow::redis::position::Position;
use follow::redis::spill::SpillSpec;
use follow::redis::stream::{BrokenStream, StreamReader};
use wire::rdb::Sizes;

/// Written to two databases and removed again, so that the stream says in which database it is.
const MARK: &[u8] = b"__crossfade:mark";

/// See the head of this file. It connects again by itself. Dropping it ends it.
#[derive(Debug)]
pub struct Standby {
    shared: Rc<Shared>,
    /// `None`: handed over.
    task: RefCell<Option<JoinHandle<Standing>>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Where it is, once it knows the database; `None` while it is not attached.
    position: Cell<Option<Position>>,
    /// Why it was not attached when it was last tried.
    failed: RefCell<Option<String>>,
    /// It ends when it has dropped everything up to here.
    until: Cell<Option<u64>>,
    told: Notify,
    moved: Notify,
}

impl Standby {
    /// Follows `endpoint`; `other` is the server that its stream is for.
    #[must_use]
    pub fn begin(endpoint: Endpoint, other: Endpoint, spill: SpillSpec) -> Self {
        let shared = Rc::new(Shared::default());
        let own = Rc::clone(&shared);
        let task = tokio::task::spawn_local(async move {
            let mut pause = limits::JOB_RECONNECT_PAUSE_MIN;
            loop {
                match own.follow(&endpoint, &other, &spill).await {
                    Ok(standing) => return standing,
                    Err(error) => drop(own.failed.replace(Some(error.to_string()))),
                }
                let was_attached = own.position.take().is_some();
                pause = if was_attached {
                    limits::JOB_RECONNECT_PAUSE_MIN
                } else {
                    (pause * 2).min(limits::JOB_RECONNECT_PAUSE_MAX)
                };
                sleep(pause).await;
            }
        });
        Self { shared, task: RefCell::new(Some(task)) }
    }

    /// `Err`: why it is not attached.
    ///
    /// # Errors
    /// A sentence.
    pub fn attached(&self) -> Result<(), String> {
        match self.shared.position.get() {
            Some(_) => Ok(()),
            None => Err(self.shared.failed.borrow().clone().unwrap_or_else(|| "it is being attached".to_owned())),
        }
    }

    /// Waits until it has read everything up to an offset; `None`: not in time.
    pub async fn reached(&self, offset: u64, deadline: Instant) -> Option<Position> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(position) = self.shared.position.get().filter(|position| position.offset >= offset) {
                return Some(position);
            }
            timeout_at(deadline, moved).await.ok()?;
        }
    }

    /// Ends it with the stream behind this offset; `None`: not in time, or handed over already.
    pub async fn hand_over(&self, until: u64, deadline: Instant) -> Option<Standing> {
        let mut task = self.task.take()?;
        self.shared.until.set(Some(until));
        self.shared.told.notify_one();
        let standing = timeout_at(deadline, &mut task).await;
        task.abort();
        standing.ok()?.ok()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Shared {
    async fn follow(&self, endpoint: &Endpoint, other: &Endpoint, spill: &SpillSpec) -> Result<Standing, FollowError> {
        let unusable = |error: JobError| match error {
            JobError::Server(error) => FollowError::from(error),
            other => FollowError::Gone { server: format!("endpoint {}", endpoint.name), why: other.to_string() },
        };
        let version = check_endpoint(other).await.map_err(unusable)?.version;
        let spec = FollowSpec { endpoint: endpoint.clone(), version, spill: spill.clone(), sizes: Sizes::default() };
        let mut following = prime(&spec).await?;
        let begin = Position { stream: following.stream(), offset: following.at(), database: 0 };
        let mut reader = StreamReader::new(begin);
        let known_from = mark(endpoint).await.map_err(unusable)?;
        loop {
            while !self.is_due(&reader) && next(endpoint, &mut reader)? {}
            if reader.at_boundary() {
                let position = reader.position();
                following.acknowledge(position.offset);
                if position.offset >= known_from {
                    self.position.set(Some(position));
                    self.moved.notify_waiters();
                }
                if self.is_due(&reader) {
                    return Ok(Standing { following, reader });
                }
            }
            tokio::select! {
                biased;
                fed = following.feed(&mut reader) => fed?,
                () = self.told.notified() => {}
            }
        }
    }

    fn is_due(&self, reader: &StreamReader) -> bool {
        reader.at_boundary() && self.until.get().is_some_and(|until| reader.position().offset >= until)
    }
}

/// Drops one item; false when there is no whole one.
fn next(endpoint: &Endpoint, reader: &mut StreamReader) -> Result<bool, FollowError> {
    let broken = |why: BrokenStream| FollowError::Stream {
        server: format!("endpoint {}", endpoint.name),
        what: why.to_string(),
    };
    Ok(reader.next_item().map_err(broken)?.is_some())
}

/// Makes the stream name its database; the offset from which on it is known.
async fn mark(endpoint: &Endpoint) -> Result<u64, JobError> {
    let mut client = connect(endpoint).await?;
    // A server may have a single database; then there is nothing to be told.
    for database in [1, 0] {
        match client.select(database).await {
            Ok(()) => {}
            Err(follow::error::ServerError::Unusable { cause: ServerFault::Refused(_), .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        client.must(&[b"SET", MARK, b"1"]).await?;
        client.must(&[b"DEL", MARK]).await?;
    }
    end_of_stream(&mut client).await
}
