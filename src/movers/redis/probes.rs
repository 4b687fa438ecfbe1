//! The same reads on both servers, each answer with whether it can be relied on: through the lane, at one place in it, or beside a replication
//! feed, at one position of its stream.
//!
//! Lives on the movers' thread.

use std::rc::Rc;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::feed::compare::FeedReader;
use super::feed::work::Compared;
use super::lane_client::{LaneClient, PendingProbe as PendingLaneProbe};
use crate::error::{JobError, OrderFault};
use base::model::{InterlayName, limits};
use wire::resp::value::{Value, decode_whole};

/// Both answers, in the order of the reads.
#[derive(Debug)]
pub(super) struct Probed {
    pub authority: Vec<Value>,
    pub shadow: Vec<Value>,
    /// Per read: both need not be of the same moment, or its keys are known to differ.
    pub doubtful: Vec<bool>,
}

/// How closely a probe looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closeness {
    /// Many at a time; a key that is written meanwhile is doubtful.
    Passing,
    /// At one exact position, whatever is written.
    Exact,
}

/// Where probes are made. Clones share everything.
#[derive(Debug, Clone)]
pub(super) enum Prober {
    Lane(LaneClient),
    Feed(InterlayName, Rc<FeedReader>),
}

/// A probe under way. Dropping it forgets it.
#[derive(Debug)]
pub(super) enum PendingProbe {
    Lane(PendingLaneProbe),
    Feed(InterlayName, Running),
}

#[derive(Debug)]
pub(super) struct Running(JoinHandle<Result<Compared, JobError>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Prober {
    /// How many keys are read at a time.
    pub(super) fn keys_at_once(&self) -> usize {
        match self {
            Self::Lane(_) => limits::VERIFY_KEYS_PER_PROBE,
            Self::Feed(..) => limits::FEED_KEYS_PER_PROBE,
        }
    }

    /// # Errors
    /// [`JobError::Order`] when the order could not be queued.
    pub(super) async fn begin(
        &self,
        database: u32,
        reads: Vec<Box<[u8]>>,
        closeness: Closeness,
    ) -> Result<PendingProbe, JobError> {
        match self {
            // At one place in the lane is exact as it is, but for keys that are waiting to be copied again.
            Self::Lane(lane) => {
                let heal = closeness == Closeness::Exact;
                Ok(PendingProbe::Lane(lane.begin_probe(database, reads, heal).await?))
            }
            Self::Feed(interlay, reader) => {
                let reader = Rc::clone(reader);
                let probe = tokio::task::spawn_local(async move {
                    match closeness {
                        Closeness::Passing => reader.in_passing(database, &reads).await,
                        Closeness::Exact => reader.exactly(database, reads).await,
                    }
                });
                Ok(PendingProbe::Feed(interlay.clone(), Running(probe)))
            }
        }
    }
}

impl PendingProbe {
    /// # Errors
    /// [`JobError::Order`]: it may be tried again.
    pub(super) async fn wait(self) -> Result<Probed, JobError> {
        match self {
            Self::Lane(probe) => {
                let probed = probe.wait().await?;
                let (authority, shadow) = (decode_all(&probed.authority), decode_all(&probed.shadow));
                Ok(Probed { authority, shadow, doubtful: probed.doubtful })
            }
            Self::Feed(interlay, mut running) => {
                let failed = |cause| JobError::Order { interlay, order: "probe", cause };
                match timeout(limits::LANE_ANSWER_TIMEOUT, &mut running.0).await {
                    Ok(Ok(Ok(compared))) => Ok(compared.into()),
                    Ok(Ok(Err(error))) => Err(failed(OrderFault::Failed(error.to_string()))),
                    Ok(Err(_)) => Err(failed(OrderFault::Abandoned)),
                    Err(_) => Err(failed(OrderFault::NoAnswer(limits::LANE_ANSWER_TIMEOUT))),
                }
            }
        }
    }
}

impl From<Compared> for Probed {
    fn from(from: Compared) -> Self {
        Self { authority: from.authority, shadow: from.shadow, doubtful: from.doubtful }
    }
}

fn decode_all(frames: &[Box<[u8]>]) -> Vec<Value> {
    let broken = |error: wire::resp::value::Invalid| Value::Error(format!("broken reply: {error}").into());
    frames.iter().map(|frame| decode_whole(frame).unwrap_or_else(broken)).collect()
}
