//! The loop of the control thread: it compares what is intended with what is observed, and makes one change at a time.
//!
//! One OS thread, one current-thread runtime, everything `!Send` inside. Others talk to it through a [`Handle`]. It knows the data plane
//! only by the bus, and databases only by their movers, which have a thread of their own.
//!
//! * What it holds: [`state`], [`observed`], [`pause_state`], [`policies`].
//! * What comes in: requests ([`requests`], [`answers`]), reports of cores ([`reports`]), events of movers ([`mover_events`]), time ([`tick`]).
//! * What it does: [`commands`], [`create`], [`flip`], [`pause`], [`checks`], [`verification`], [`rollback_policy`]; each change by [`change`].
//! * What it shows: [`views`], [`report`], [`analysis`], [`sessions`], [`progress`].

mod analysis;
mod answers;
mod change;
mod checks;
mod clock;
mod commands;
mod create;
mod error;
mod event_hub;
mod evidence;
mod feeds;
mod fingerprint;
mod flip;
mod intent;
mod mover_events;
mod observed;
mod pause;
mod pause_state;
pub mod policies;
mod policy_view;
mod preflight;
mod progress;
mod report;
mod reports;
mod requests;
mod rollback_policy;
mod running;
mod sessions;
mod state;
mod statements;
mod tick;
mod verification;
pub mod views;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod pause_tests;
#[cfg(test)]
mod tests;

pub use crate::store::JournalEntry;
pub use error::ControlError;
pub use intent::Intent;
pub use policies::{CheckedFilter, bench_file, test_file};
pub use preflight::{Preflight, preflight};
pub use requests::{CreateRequest, Handle, Subscription};
pub use running::{Running, start};
