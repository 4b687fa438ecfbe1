//! The measuring tools. `loadgen` (src/bin/loadgen.rs) sends requests at due times and reports latencies from those times;
//! `bench` (src/bin/bench.rs) runs the scenarios of `loadtest/scenarios` against Crossfade and its peers and checks their claims.
//!
//! The logic (pacing, replies, the knee, statistics, scenarios, claims, plots) does no I/O and is tested here; the code that starts and
//! measures processes is in `engine`, `idle`, `contestants`, `postgres_side`, `measure` and `dual`.

pub mod claims;
pub mod contestants;
pub mod dual;
pub mod engine;
pub mod idle;
pub mod knee;
pub mod latency;
pub mod machine;
pub mod measure;
pub mod options;
pub mod pace;
pub mod plot;
pub mod poll;
pub mod postgres_side;
pub mod report;
pub mod resp;
pub mod scenario;
