//! The clock of deadlines: a thread that advances the engine's epoch while guests are called, and sleeps when nobody calls.
//!
//! One for each host, on a thread of its own; whoever calls a guest only reads a flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

use crate::model::limits;

/// Ticks until a time has passed, at most.
pub(super) const fn ticks(deadline_us: u64) -> u64 {
    deadline_us / limits::POLICY_TICK.as_micros() as u64
}

/// Shared by the thread, the host and every instance.
#[derive(Debug)]
pub(super) struct Ticker {
    /// A guest was called since this was last taken away, which the thread does once in each idle time.
    used: AtomicBool,
    /// The thread ticks, or will look at `used` before it sleeps.
    running: AtomicBool,
    ended: AtomicBool,
}

/// Ends the thread when the host and all that was made by it are gone.
#[derive(Debug)]
pub(super) struct TickerThread {
    ticker: Arc<Ticker>,
    thread: Thread,
}

/// What an instance keeps of its host's clock.
#[derive(Debug, Clone)]
pub(super) struct Waker {
    ticker: Arc<Ticker>,
    thread: Thread,
}

impl TickerThread {
    /// # Errors
    /// No thread could be made.
    pub fn start(engine: &Engine, idle: Duration) -> std::io::Result<Self> {
        let ticker = Arc::new(Ticker {
            used: AtomicBool::new(false),
            running: AtomicBool::new(true),
            ended: AtomicBool::new(false),
        });
        let idle_ticks = ticks(u64::try_from(idle.as_micros()).unwrap_or(u64::MAX)).max(1);
        let (own, engine) = (Arc::clone(&ticker), engine.clone());
        let thread = std::thread::Builder::new()
            .name("policy-clock".to_owned())
            .spawn(move || own.run(idle_ticks, || engine.increment_epoch()))?;
        Ok(Self { ticker, thread: thread.thread().clone() })
    }

    pub fn waker(&self) -> Waker {
        Waker { ticker: Arc::clone(&self.ticker), thread: self.thread.clone() }
    }

    #[cfg(test)]
    pub fn is_asleep(&self) -> bool {
        !self.ticker.running.load(Ordering::SeqCst)
    }
}

impl Drop for TickerThread {
    fn drop(&mut self) {
        self.ticker.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Waker {
    /// From here on, and for longer than any deadline, the epoch advances. To be called after the deadline has been set.
    ///
    /// Why a call always finds a clock that runs: if `used` is set, the thread has yet to take it away, and only after a whole idle
    /// time more may it sleep; by then the epoch is far beyond the deadline, which was read before `used` was. If it is not set, it
    /// is set here before `running` is read, and the thread clears `running` before it reads `used`: one of the two sees the other.
    #[inline]
    pub fn call_begins(&self) {
        // The epoch that the deadline counts from was read before; this load may not overtake it.
        fence(Ordering::Acquire);
        if !self.ticker.used.load(Ordering::Relaxed) {
            self.mark_used();
        }
    }

    #[cold]
    fn mark_used(&self) {
        self.ticker.used.store(true, Ordering::SeqCst);
        if !self.ticker.running.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Ticker {
    fn run(&self, idle_ticks: u64, tick: impl Fn()) {
        loop {
            for _ in 0..idle_ticks {
                std::thread::sleep(limits::POLICY_TICK);
                if self.ended.load(Ordering::SeqCst) {
                    return;
                }
                tick();
            }
            if !self.used.swap(false, Ordering::SeqCst) {
                self.running.store(false, Ordering::SeqCst);
                // Parking may end without a cause.
                while !self.used.load(Ordering::SeqCst) {
                    if self.ended.load(Ordering::SeqCst) {
                        return;
                    }
                    std::thread::park();
                }
                self.running.store(true, Ordering::SeqCst);
            }
        }
    }
}
