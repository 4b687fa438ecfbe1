//! The clocks of control. The only file of it that reads them; tokio's own is for waits.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::model::Timestamp;

/// Wall-clock now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Nanoseconds since the first call: what calls of filters are measured with.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
