//! What a feed is asked to do while it stands still. Plain values of the movers' thread.

use tokio::sync::oneshot;

use wire::resp::value::Value;

/// Both answers, in the order of the reads, and which of them are not to be relied on.
#[derive(Debug)]
pub struct Compared {
    pub authority: Vec<Value>,
    pub shadow: Vec<Value>,
    pub doubtful: Vec<bool>,
}

/// Something to be done while the feed stands still. That the answer is no longer waited for is no error.
#[derive(Debug)]
pub(super) enum Work {
    Compare {
        database: u32,
        reads: Vec<Box<[u8]>>,
        reply: oneshot::Sender<Compared>,
    },
    Deadlines {
        database: u32,
        keys: Vec<Box<[u8]>>,
        done: oneshot::Sender<()>,
    },
    /// From here on deadlines are stored with the grace and no more.
    Tighten {
        done: oneshot::Sender<()>,
    },
}
