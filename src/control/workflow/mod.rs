//! The workflow of a migration, pure: what may happen next, what it depends on, and which orders follow from it.
//!
//! No I/O, no clock, no randomness: `now` and [`Evidence`] are arguments. Runs on the control thread, but would run anywhere.

mod evidence;
mod feeds;
mod gates;
mod lower;
mod phase;
mod record;
mod transition;

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod tests;

pub use evidence::{Evidence, PolicyWord, Verification, Workload};
pub use feeds::chosen_feed;
pub use gates::{Gate, UNDECLARED_WRITES, flip_gates, gates_now, lag_us_max, unmet};
pub use lower::{feed_in_use, is_dual, plan};
pub use phase::Phase;
pub use record::{Ended, FirstCopy, MigrationRecord, NewMigration, Rehearsal, SmokeResult};
pub use transition::{Command, Fact, Refusal, Transition, auto_step, observe, transition};
