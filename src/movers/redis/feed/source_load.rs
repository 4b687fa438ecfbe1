//! Measures how quickly the source answers while a snapshot is read, and tells how fast that may be. Lives on the movers' thread, whose own delays
//! are part of what is measured.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::applier::Shared;
use super::pace::Pace;
use super::shadow::connect;
use crate::contract::SourceLoad;
use crate::error::JobError;
use base::model::limits;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Meter {
    pace: RefCell<Pace>,
    /// When the source was asked, while it has not answered.
    asked: Cell<Option<Instant>>,
    begin: Instant,
    /// Bytes read, now and when it was decided last.
    read: Cell<u64>,
    read_then: Cell<u64>,
    decided: Cell<Instant>,
}

impl Meter {
    pub(super) fn new(bound_ms: u64) -> Self {
        let now = Instant::now();
        Self {
            pace: RefCell::new(Pace::new(bound_ms.saturating_mul(1000))),
            asked: Cell::new(None),
            begin: now,
            read: Cell::new(0),
            read_then: Cell::new(0),
            decided: Cell::new(now),
        }
    }

    /// So many bytes of the snapshot were read; waits until the next may be.
    pub(super) async fn pace(&self, bytes: u64) {
        self.read.set(self.read.get() + bytes);
        let pause = self.pace.borrow_mut().pause(self.begin.elapsed(), bytes);
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }

    fn decide(&self) {
        let elapsed = self.decided.get().elapsed();
        if elapsed < limits::PACE_STEP {
            return;
        }
        let read = self.read.get() - self.read_then.replace(self.read.get());
        let per_second = read as f64 / elapsed.as_secs_f64();
        let waiting = self.asked.get().map_or(0, |since| since.elapsed().as_micros());
        self.pace.borrow_mut().decide(u64::try_from(waiting).unwrap_or(u64::MAX), per_second as u64);
        self.decided.set(Instant::now());
    }

    fn load(&self) -> SourceLoad {
        let pace = self.pace.borrow();
        SourceLoad { p99_us: pace.p99_us(), throttled_to: pace.rate() }
    }
}

impl Shared {
    /// Measures until it is dropped.
    pub(super) async fn measure_source(&self, meter: &Meter) -> Infallible {
        let deciding = async {
            let mut tick = interval(limits::PACE_STEP);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                meter.decide();
                self.note(|status| status.source = meter.load());
            }
        };
        let asking = async {
            loop {
                // Without a connection nothing is known, and nothing is slowed down.
                let _: Result<Infallible, JobError> = self.ask_source(meter).await;
                meter.asked.set(None);
                sleep(limits::PACE_STEP).await;
            }
        };
        tokio::select! {
            biased;
            never = deciding => never,
            never = asking => never,
        }
    }

    async fn ask_source(&self, meter: &Meter) -> Result<Infallible, JobError> {
        let mut client = connect(&self.spec.authority).await?;
        let mut tick = interval(limits::PACE_PING_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let asked = Instant::now();
            meter.asked.set(Some(asked));
            client.must(&[b"PING"]).await?;
            meter.asked.set(None);
            let took = asked.elapsed().as_micros();
            meter.pace.borrow_mut().answered(u64::try_from(took).unwrap_or(u64::MAX));
        }
    }
}
