//! Names every key so that the lane copies it, and says when all have been named.
//!
//! Lives on the movers' thread. It moves no value itself: a copy travels in the lane, where it has an exact position. The shadow's
//! names come first: a key only the shadow had at the beginning is removed by the lane's copy of an absent key, and a shadow that
//! starts empty costs nothing; keys that come to the shadow later come from the lane.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::lane_client::{LaneClient, PendingCopy};
use super::names::NameScan;
use crate::contract::{Copied, PassKind};
use crate::error::JobError;
use crate::progress::{Meter, Progress};
use base::model::{Endpoint, limits};

#[derive(Debug, Clone)]
pub struct BackfillSpec {
    pub authority: Endpoint,
    pub shadow: Endpoint,
    pub pass: u64,
    pub kind: PassKind,
}

struct Pass {
    number: u64,
    lane: LaneClient,
    progress: Arc<Progress>,
    outstanding: VecDeque<PendingCopy>,
    copied: Copied,
    meter: Meter,
}

/// Names every key of the authority (and, in a full pass, of the shadow) by SCAN and has the lane copy them; ends with `pass_done`.
/// Covers every logical database that is not empty, and retries a lost connection with the cursor it had.
///
/// # Errors
/// [`JobError`].
pub async fn backfill(spec: BackfillSpec, lane: LaneClient, progress: Arc<Progress>) -> Result<Copied, JobError> {
    let job = run(spec, lane, Arc::clone(&progress));
    progress.or_cancelled(job).await
}

async fn run(spec: BackfillSpec, lane: LaneClient, progress: Arc<Progress>) -> Result<Copied, JobError> {
    let mut scans = Vec::new();
    match spec.kind {
        PassKind::Full => scans.push(NameScan::begin(&spec.shadow, limits::COPY_BATCH_KEYS).await?),
        PassKind::Volatile => {}
    }
    scans.push(NameScan::begin(&spec.authority, limits::COPY_BATCH_KEYS).await?);
    progress.begin(scans.iter().map(|scan| scan.total).sum());
    let mut pass = Pass {
        number: spec.pass,
        lane,
        progress,
        outstanding: VecDeque::new(),
        copied: Copied::default(),
        meter: Meter::start(),
    };
    for scan in scans {
        pass.name_all(scan).await?;
    }
    while pass.settle_oldest().await? {}
    pass.finish().await
}

impl Pass {
    async fn name_all(&mut self, mut scan: NameScan) -> Result<(), JobError> {
        while let Some(batch) = scan.next_batch().await? {
            for keys in batch.keys.chunks(limits::COPY_BATCH_KEYS) {
                self.progress.checkpoint().await?;
                while self.outstanding.len() >= limits::COPY_BATCHES_IN_FLIGHT {
                    self.settle_oldest().await?;
                }
                let order = self.lane.begin_copy(self.number, batch.database, keys.to_vec()).await?;
                self.outstanding.push_back(order);
            }
        }
        Ok(())
    }

    /// Waits for the oldest order; false when there is none.
    async fn settle_oldest(&mut self) -> Result<bool, JobError> {
        let Some(order) = self.outstanding.pop_front() else { return Ok(false) };
        let copied = order.wait().await?;
        self.copied.add(&copied);
        self.meter.add(&self.progress, copied.keys(), copied.bytes);
        self.progress.stretch();
        Ok(true)
    }

    async fn finish(self) -> Result<Copied, JobError> {
        self.progress.checkpoint().await?;
        let deadline = Instant::now() + limits::LANE_QUEUE_TIMEOUT;
        loop {
            match self.lane.pass_done(self.number) {
                Ok(()) => break,
                Err(_) if Instant::now() < deadline => sleep(limits::JOB_RECONNECT_PAUSE_MIN).await,
                Err(error) => return Err(error),
            }
        }
        self.progress.finish();
        Ok(self.copied)
    }
}
