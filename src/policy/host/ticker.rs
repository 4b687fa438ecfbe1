//! The deadline clock: a thread that advances the engine's epoch while guests are called, and sleeps when there are no calls.
//!
//! One for each host, on a thread of its own; a thread that calls a guest only reads a flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

use super::abi::limits as own;
use base::model::limits;

/// No deadline is longer.
const DEADLINE_TICKS_MAX: u64 = own::LOAD_DEADLINE_US / limits::POLICY_TICK.as_micros() as u64;

const _: () = assert!(own::HOOK_DEADLINE_US <= own::LOAD_DEADLINE_US);

/// Shared by the thread, the host and every instance.
#[derive(Debug)]
pub(super) struct Ticker {
    /// A guest was called since the clock's thread last cleared this flag, which it does once in each idle time.
    used: AtomicBool,
    /// The thread ticks, or will look at `used` before it sleeps.
    running: AtomicBool,
    /// The thread has checked everything that could keep it awake, and sleeps. During the check, `running` is already false.
    asleep: AtomicBool,
    /// Calls that were still running at a tick: each may be given more ticks at any moment, so the clock must not sleep.
    overtime: AtomicUsize,
    ended: AtomicBool,
}

/// Ends the thread when the host and everything it created have been dropped.
#[derive(Debug)]
pub(super) struct TickerThread {
    ticker: Arc<Ticker>,
    thread: Thread,
}

/// An instance's handle to its host's clock.
#[derive(Debug, Clone)]
pub(super) struct Waker {
    ticker: Arc<Ticker>,
    thread: Thread,
}

impl TickerThread {
    /// `tick`: the time between two advances of the epoch. `idle`: the thread sleeps after this time without a call.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(engine: &Engine, tick: Duration, idle: Duration) -> std::io::Result<Self> {
        let ticker = Arc::new(Ticker {
            used: AtomicBool::new(false),
            running: AtomicBool::new(true),
            asleep: AtomicBool::new(false),
            overtime: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        // If the clock fell asleep within a deadline, a call that began before could run for ever: see `call_begins`.
        let idle_ticks: u64 =
            (idle.as_micros() / limits::POLICY_TICK.as_micros()).try_into().unwrap_or(u64::MAX).max(DEADLINE_TICKS_MAX);
        let (own, engine) = (Arc::clone(&ticker), engine.clone());
        let thread = std::thread::Builder::new()
            .name("policy-clock".to_owned())
            .spawn(move || own.run(tick, idle_ticks, || engine.increment_epoch()))?;
        Ok(Self { ticker, thread: thread.thread().clone() })
    }

    pub fn waker(&self) -> Waker {
        Waker { ticker: Arc::clone(&self.ticker), thread: self.thread.clone() }
    }

    #[cfg(test)]
    pub fn is_asleep(&self) -> bool {
        self.ticker.asleep.load(Ordering::SeqCst)
    }
}

impl Drop for TickerThread {
    fn drop(&mut self) {
        self.ticker.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Waker {
    /// Makes the epoch advance at least until the deadline. Must be called after the deadline has been set.
    ///
    /// Why the clock runs during every call: if `used` is set, the thread has yet to clear it, and only after another whole idle
    /// time may it sleep; an idle time is no shorter than a deadline, whose start was read before `used` was. If `used` is not
    /// set, it is set here before `running` is read, and the thread clears `running` before it reads `used`: one of the two sees the
    /// other.
    #[inline]
    pub fn call_begins(&self) {
        // The epoch that the deadline counts from was read before; this load may not overtake it.
        fence(Ordering::Acquire);
        if !self.ticker.used.load(Ordering::Relaxed) {
            self.mark_used();
        }
    }

    /// A reference that is alive as long as the thread is.
    #[cfg(test)]
    pub fn observe(&self) -> std::sync::Weak<Ticker> {
        Arc::downgrade(&self.ticker)
    }

    #[cold]
    fn mark_used(&self) {
        self.ticker.used.store(true, Ordering::SeqCst);
        self.unpark();
    }

    /// The clock runs until [`Waker::overtime_ends`]. A call that never ends only keeps the clock awake.
    #[cold]
    pub fn overtime_begins(&self) {
        self.ticker.overtime.fetch_add(1, Ordering::SeqCst);
        self.unpark();
    }

    #[cold]
    pub fn overtime_ends(&self) {
        self.ticker.overtime.fetch_sub(1, Ordering::SeqCst);
    }

    fn unpark(&self) {
        if !self.ticker.running.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Ticker {
    fn run(&self, tick: Duration, idle_ticks: u64, advance: impl Fn()) {
        loop {
            for _ in 0..idle_ticks {
                std::thread::sleep(tick);
                if self.ended.load(Ordering::SeqCst) {
                    return;
                }
                advance();
            }
            if !self.used.swap(false, Ordering::SeqCst) {
                // From here on a call that needs the clock wakes it; calls that began before are checked once more below.
                self.running.store(false, Ordering::SeqCst);
                // `park` may return without a cause.
                while !self.used.load(Ordering::SeqCst) && self.overtime.load(Ordering::SeqCst) == 0 {
                    if self.ended.load(Ordering::SeqCst) {
                        return;
                    }
                    self.asleep.store(true, Ordering::SeqCst);
                    std::thread::park();
                    self.asleep.store(false, Ordering::SeqCst);
                }
                self.running.store(true, Ordering::SeqCst);
            }
        }
    }
}
