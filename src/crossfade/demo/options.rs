//! The options of a demo, from the command line.

/// The options of `crossfade demo`.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// "redis" or "postgres".
    pub kind: String,
    /// Keep everything running after the report until Ctrl-C.
    pub keep: bool,
    /// Traffic runs at least this long.
    pub seconds: Option<u64>,
    /// The target is Valkey; Redis only.
    pub valkey: bool,
    /// Slow the target after the move, so that the rollback policy rolls back; Redis only.
    pub auto_rollback: bool,
    /// Time to stay in `compare`, where every read is compared; Redis only.
    pub compare_seconds: u64,
    /// What keeps the target in step, default [`DemoOptions::FEED`]; Redis only.
    pub feed: Option<String>,
}

impl DemoOptions {
    pub const FEED: &'static str = "replication";
}
