//! Waiting for events. Never a plain sleep: a condition, a deadline, and a description of what did not happen.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Polls until `condition` returns a value.
///
/// # Panics
/// When the deadline passes; the message holds `what` and the last `Err`.
pub fn until<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("waited {patience:?} for {what}: {why}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
