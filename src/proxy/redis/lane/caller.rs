//! Who waits for an answer of the lane. Crosses between cores with batches.

use base::model::CoreId;

/// A client of one core's relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    pub core: CoreId,
    pub client: u64,
}

impl Caller {
    /// The client as policies know it: one number while the connection lasts, no other client's.
    #[must_use]
    pub fn number(self) -> u64 {
        // The upper bits of a relay's key count the times its place was used.
        self.client ^ (u64::from(self.core.0) << 48)
    }
}
