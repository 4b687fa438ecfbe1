//! One forwarded statement, kept as a sample for `analyze`. Crosses from a core to control, never to a log.

/// A sampled statement. `text` may hold literals of the application: it is fingerprinted on the control thread and then dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementSample {
    pub text: Box<str>,
    /// The text was longer than is kept.
    pub cut: bool,
    /// From the statement's first byte forwarded to the server's ReadyForQuery (or to the next Sync's).
    pub latency_us: u64,
    /// How many statements this one stands for.
    pub weight: u32,
    pub failed: bool,
}
