//! End-to-end harness: real servers, the real binary, real clients. Links none of the product, so that it cannot share a mistake.
//!
//! For PostgreSQL: `PG_DIRECT=1` leaves the proxy out and so proves tests and clients themselves, `PG_VERSIONS=15,18` chooses
//! servers, `PGBENCH_SECONDS=30` lengthens each pgbench run, `PG_SHOW_TRANSCRIPT=1` prints what clients see.
//!
//! Every guard stops what it started when dropped, also on a panic; ports are free ones; waiting is for an event, with a deadline.

pub mod bench;
pub mod certificates;
pub mod crossfade;
pub mod digest;
pub mod feed_faults;
pub mod feed_history;
pub mod history;
pub mod lane_faults;
pub mod large;
pub mod ledger;
pub mod pg_client;
pub mod pg_rig;
pub mod pg_rust;
pub mod pg_wire;
pub mod postgres;
pub mod process;
pub mod reader;
pub mod rig;
pub mod server;
pub mod slow;
pub mod wait;

/// Prints prominently that a test cannot run here, and why.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        eprintln!("SKIPPED: {}", format!($($why)*));
        return;
    }};
}
