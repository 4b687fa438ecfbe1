//! How far a job has come, and the two things control may tell it meanwhile: to wait, and to end.
//!
//! Shared by `Arc`: the job writes on the movers' thread, control reads on its own. Not for the data path.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::error::JobError;

/// How often a job looks whether it should wait or end; no client waits for it.
const PAUSE_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    /// The bits of an `f64`.
    rate_per_second: AtomicU64,
    paused: AtomicBool,
    cancelled: AtomicBool,
}

impl Progress {
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// 0 while unknown.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn rate_per_second(&self) -> f64 {
        f64::from_bits(self.rate_per_second.load(Ordering::Relaxed))
    }

    /// Until everything is done, at the present rate; `None` while either is not known.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<u64> {
        let (rate, left) = (self.rate_per_second(), self.total().checked_sub(self.done())?);
        (rate > 0.0 && self.total() > 0).then(|| (left as f64 / rate).ceil() as u64)
    }

    /// The job names no more work from its next step on, and waits.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub fn go_on(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// The job ends at its next step with [`JobError::Cancelled`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Keys may have been added since the total was taken; a progress bar must not run past its end.
    pub(crate) fn stretch(&self) {
        self.total.fetch_max(self.done(), Ordering::Relaxed);
    }

    pub(crate) fn finish(&self) {
        self.total.store(self.done(), Ordering::Relaxed);
    }

    /// Between two steps: waits while paused, ends when cancelled.
    ///
    /// # Errors
    /// [`JobError::Cancelled`].
    pub async fn checkpoint(&self) -> Result<(), JobError> {
        while self.paused.load(Ordering::Relaxed) && !self.is_cancelled() {
            tokio::time::sleep(PAUSE_POLL).await;
        }
        if self.is_cancelled() { Err(JobError::Cancelled) } else { Ok(()) }
    }

    /// Runs a whole job, and drops it when it is cancelled, whatever it was waiting for.
    pub(crate) async fn or_cancelled<T>(&self, job: impl Future<Output = Result<T, JobError>>) -> Result<T, JobError> {
        let cancelled = async {
            while !self.is_cancelled() {
                tokio::time::sleep(PAUSE_POLL).await;
            }
        };
        tokio::select! {
            biased;
            result = job => result,
            () = cancelled => Err(JobError::Cancelled),
        }
    }
}

/// The rate over the last second or so, for a progress bar. Belongs to one job.
#[derive(Debug)]
pub(crate) struct Meter {
    since: tokio::time::Instant,
    done_then: u64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { since: tokio::time::Instant::now(), done_then: 0 }
    }

    pub(crate) fn add(&mut self, progress: &Progress, keys: u64, bytes: u64) {
        let done = progress.done.fetch_add(keys, Ordering::Relaxed) + keys;
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let seconds = self.since.elapsed().as_secs_f64();
        let before = progress.rate_per_second();
        if seconds < 0.5 && (before != 0.0 || seconds <= 0.01) {
            return;
        }
        let rate = (done - self.done_then) as f64 / seconds;
        let smooth = if before == 0.0 { rate } else { 0.5 * before + 0.5 * rate };
        progress.rate_per_second.store(smooth.to_bits(), Ordering::Relaxed);
        if seconds >= 0.5 {
            self.since = tokio::time::Instant::now();
            self.done_then = done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_the_rate_says() {
        let progress = Progress::default();
        progress.begin(1000);
        assert_eq!(progress.eta_seconds(), None, "no rate yet");
        progress.rate_per_second.store(150f64.to_bits(), Ordering::Relaxed);
        progress.done.store(400, Ordering::Relaxed);
        assert_eq!(progress.eta_seconds(), Some(4));
        progress.finish();
        assert_eq!(progress.eta_seconds(), Some(0));
        progress.begin(0);
        assert_eq!(progress.eta_seconds(), None, "how much there is is not known");
    }
}
