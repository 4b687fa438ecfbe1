//! The demonstration (being built).

/// What `crossfade demo` was asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    pub kind: String,
    pub keep: bool,
    pub seconds: Option<u64>,
    pub valkey: bool,
}

/// Returns the exit code.
#[must_use]
pub fn run(_options: &DemoOptions) -> i32 {
    eprintln!("crossfade: the demo is not built yet");
    1
}
