//! Policies: the decisions that belong to the user, made by WebAssembly modules. No protocol is known here.
//!
//! * [`host`]: modules and their instances; the only place that names wasmtime.
//! * [`builtin`]: the filters that are part of the program.
//! * [`cases`]: what a filter's author has written down that it does, and whether it does.
//! * [`bench`]: what a call of a filter costs.
//!
//! Modules are compiled and instances made on the control thread; instances travel to the cores and stay there. No clock and no
//! randomness is read here: both are arguments.

pub mod bench;
pub mod builtin;
pub mod cases;
pub mod host;
mod stats;

pub use crossfade_filter_abi as abi;

pub use stats::{FaultCounts, NoteKind, PolicyNote, SeatStats};
