//! What a feed is asked to do while it stands still. Plain values of the movers' thread.

use tokio::sync::oneshot;

use wire::resp::value::Value;

/// Both answers to the same reads at one position.
#[derive(Debug)]
pub(super) struct Pair {
    pub authority: Vec<Value>,
    pub shadow: Vec<Value>,
    /// An absent key was absent at the position already.
    pub settled: bool,
}

/// Something to be done while the feed stands still. That the answer is no longer waited for is no error.
#[derive(Debug)]
pub(super) enum Work {
    Compare {
        database: u32,
        reads: Vec<Box<[u8]>>,
        reply: oneshot::Sender<Pair>,
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
