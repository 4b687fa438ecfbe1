//! `crossfade demo`: shows what Crossfade does on temporary real servers, with a workload that checks every acknowledgement.
//!
//! Lives on the main thread of its own process; the proxy is a child process, driven through its admin API like any other.
//! Leaves no process and no file behind. Does not test crashes: nothing is killed.

mod admin;
mod postgres;
mod process;
mod random;
mod redis;
mod screen;

pub use options::DemoOptions;

mod options;

/// Runs the demo; the exit code of the process.
#[must_use]
pub fn run(options: &DemoOptions) -> i32 {
    let demo: fn(&DemoOptions) -> i32 = match options.kind.as_str() {
        "redis" => redis::run,
        "postgres" if options.valkey || options.auto_rollback || options.feed.is_some() => {
            eprintln!("demo: --valkey, --auto-rollback and --feed are options of the redis demo: leave them out");
            return 2;
        }
        "postgres" => postgres::run,
        other => {
            eprintln!("demo: there is no demo {other}: use redis or postgres");
            return 2;
        }
    };
    if let Err(error) = process::catch_signals() {
        eprintln!("demo: signals cannot be caught: {error}");
        return 1;
    }
    demo(options)
}
