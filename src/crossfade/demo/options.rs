//! What the command line asked of a demo.

/// The options of `crossfade demo`.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// "redis" or "postgres".
    pub kind: String,
    /// Stay after the report until Ctrl-C, for a look around.
    pub keep: bool,
    /// Traffic runs at least this long.
    pub seconds: Option<u64>,
    /// The target is Valkey; Redis only.
    pub valkey: bool,
    /// The target is slowed after the move, and the rollback policy has to notice; Redis only.
    pub auto_rollback: bool,
    /// Time to stay in `compare`, where every read is compared; Redis only.
    pub compare_seconds: u64,
}
