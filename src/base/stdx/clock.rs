//! A moment as an argument: code without I/O gets one instead of reading a clock.

/// The moment something happens, given by the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch: deadlines of keys are compared with it.
    pub wall_ms: i64,
    /// Microseconds since a start that all cores of a process have in common; never goes back.
    pub mono_us: u64,
}
