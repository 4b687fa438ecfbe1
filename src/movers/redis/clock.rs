//! Wall-clock time, to compare servers' clocks and deadlines with, and to make reserved names unique.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(ms) = testing::virtual_ms() {
        return ms;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Tests only: a wall clock that follows the clock of a tokio runtime in virtual time, for one thread.
#[cfg(feature = "testing")]
pub mod testing {
    use std::cell::Cell;

    use tokio::time::Instant;

    thread_local! {
        static BEGIN: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
    }

    /// From now on it was `ms` at `begin` on this thread; `None`: the time of the operating system.
    pub fn follow(begin: Option<(Instant, u64)>) {
        BEGIN.set(begin);
    }

    pub(super) fn virtual_ms() -> Option<u64> {
        let (begin, ms) = BEGIN.get()?;
        Some(ms + u64::try_from(begin.elapsed().as_millis()).unwrap_or(0))
    }
}
