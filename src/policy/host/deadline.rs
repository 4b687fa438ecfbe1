//! When a call has used up its time. The engine's epoch, advanced by the [ticker](super::ticker), triggers the check; the check reads the
//! time that the call's own thread has run.
//!
//! The epoch alone does not suffice: on a busy machine a thread may wait for a processor for milliseconds, and sooner or
//! later that happens within a call. The filter's instance would be discarded, and after five times the filter unloaded, without a fault.
//! So the first quarter of the time is measured by the epoch, which costs a call nothing. For the few calls that are still running
//! then, the rest is measured by the thread's own time. An endless loop on an idle machine ends after 2 ms.

use wasmtime::{Store, UpdateDeadline};

use super::abi::limits as own;
use super::ticker::Waker;
use base::model::limits;

/// How much time a call has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Ticks until the thread's time is read.
    first_ticks: u64,
    /// Time that the thread may run after that.
    rest_ns: u64,
}

const TICK_NS: u64 = limits::POLICY_TICK.as_nanos() as u64;

const fn allowance(deadline_us: u64) -> Allowance {
    let all_ns = deadline_us * 1000;
    Allowance { first_ticks: all_ns / 4 / TICK_NS, rest_ns: all_ns - all_ns / 4 }
}

/// For a hook.
pub(super) const HOOK: Allowance = allowance(own::HOOK_DEADLINE_US);
/// For the start function, `cf_buffer` and `cf_configure`.
pub(super) const LOAD: Allowance = allowance(own::LOAD_DEADLINE_US);

const _: () = assert!(HOOK.first_ticks >= 1 && HOOK.first_ticks <= LOAD.first_ticks);

/// The deadline of the running call.
#[derive(Debug)]
pub(super) struct Deadline {
    allowance: Allowance,
    /// The thread's time when it was read first; `None` in almost every call.
    overtime_since_ns: Option<u64>,
}

impl Deadline {
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, overtime_since_ns: None }
    }

    /// `thread_ns`: how long this thread has run; `None` if the system does not say, then the call ends at its first check, by wall-clock time.
    fn expired(&mut self, thread_ns: Option<u64>) -> UpdateDeadline {
        let Some(now) = thread_ns else { return UpdateDeadline::Interrupt };
        let since = *self.overtime_since_ns.get_or_insert(now);
        let left = self.allowance.rest_ns.saturating_sub(now.saturating_sub(since));
        // The rest is much shorter than a tick: the time is used up.
        if left < TICK_NS / 8 { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(left.div_ceil(TICK_NS)) }
    }
}

/// Installs the deadline check in a store.
pub(super) fn install<T: AsMut<Deadline> + 'static>(store: &mut Store<T>, waker: Waker) {
    store.epoch_deadline_callback(move |mut context| {
        let deadline = context.data_mut().as_mut();
        if deadline.overtime_since_ns.is_none() {
            waker.overtime_begins();
        }
        Ok(deadline.expired(thread_ns()))
    });
}

/// Must be called before each call.
#[inline]
pub(super) fn begin<T: AsMut<Deadline> + 'static>(store: &mut Store<T>, allowance: Allowance, waker: &Waker) {
    store.data_mut().as_mut().allowance = allowance;
    store.set_epoch_deadline(allowance.first_ticks);
    waker.call_begins();
}

/// Must be called after each call, however it ended.
#[inline]
pub(super) fn end<T: AsMut<Deadline> + 'static>(store: &mut Store<T>, waker: &Waker) {
    if store.data_mut().as_mut().overtime_since_ns.take().is_some() {
        waker.overtime_ends();
    }
}

/// Nanoseconds that the calling thread has run on a processor.
fn thread_ns() -> Option<u64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, rest) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    Some(seconds * 1_000_000_000 + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(update: &UpdateDeadline) -> Option<u64> {
        match update {
            UpdateDeadline::Continue(ticks) => Some(*ticks),
            _ => None,
        }
    }

    #[test]
    fn a_call_that_runs_has_two_milliseconds_in_all() {
        let mut deadline = Deadline::new(HOOK);
        assert_eq!(HOOK.first_ticks, 1);
        assert_eq!(ticks(&deadline.expired(Some(7_000_000))), Some(3));
        // Three ticks later, each of which was a little long.
        assert_eq!(ticks(&deadline.expired(Some(8_510_000))), None);
        let mut deadline = Deadline::new(HOOK);
        deadline.expired(Some(0));
        // Or the processor was shared for a moment.
        assert_eq!(ticks(&deadline.expired(Some(1_499_000))), None);
    }

    #[test]
    fn time_that_the_machine_takes_is_not_the_calls() {
        let mut deadline = Deadline::new(HOOK);
        assert_eq!(ticks(&deadline.expired(Some(5_000_000))), Some(3));
        // Seconds may pass here.
        assert_eq!(ticks(&deadline.expired(Some(5_000_100))), Some(3));
        assert_eq!(ticks(&deadline.expired(Some(5_600_000))), Some(2));
        assert_eq!(ticks(&deadline.expired(Some(6_400_000))), Some(1));
        assert_eq!(ticks(&deadline.expired(Some(6_500_000))), None);
    }

    #[test]
    fn without_a_clock_the_wall_decides() {
        assert_eq!(ticks(&Deadline::new(LOAD).expired(None)), None);
        let (begun, mut sum) = (thread_ns().expect("a clock"), 0_u64);
        (0..100_000_u64).for_each(|number| sum = std::hint::black_box(sum ^ number));
        assert!(thread_ns().expect("a clock") > begun, "{sum}");
    }
}
