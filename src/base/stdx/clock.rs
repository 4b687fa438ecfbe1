//! A moment as an argument: what code without I/O is given instead of a clock.

/// The moment something happens, given by the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch: what deadlines of keys are compared with.
    pub wall_ms: i64,
    /// Microseconds since some start; never goes back.
    pub mono_us: u64,
}
