//! Policies: the decisions that belong to the user, made by WebAssembly modules. Knows no protocol.
//!
//! * [`host`]: modules and their instances; the only place that uses wasmtime.
//! * [`seat`]: a filter instance in a slot, with its mode, its behaviour on a fault, and its counters. One for each core
//!   (`mirror`, `compare`, `records`) and one on the control thread (`rollback`).
//! * [`memo`]: answers that hold for more than one command.
//! * [`builtin`]: the filters that are part of the program.
//! * [`cases`]: the recorded cases of a filter's author, and running them.
//! * [`bench`]: the cost of a call of a filter.
//!
//! Modules are compiled and instances made on the control thread; instances travel to the cores and stay there. No clock and no
//! randomness is read here: both are arguments. The exception is the thread's processor time, by which [`host`] ends a call.

pub mod bench;
pub mod builtin;
pub mod cases;
pub mod host;
mod memo;
mod seat;
#[cfg(test)]
mod seat_tests;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod view_context;

pub use crossfade_filter_abi as abi;

pub use host::{Fault, FaultKind, Host, HostOptions, Instance, Module, Refused};
pub use seat::{
    CorePolicies, Judgement, Mirroring, Opinion, PairSeat, RecordSeat, RecordVerdict, RequestDecision, RequestFacts,
    RequestSeat, SeatSetup, SharedPolicies, WindowSeat,
};
pub use stats::{FaultCounts, NoteKind, PolicyNote, SeatStats};
pub use view_context::ViewContext;
