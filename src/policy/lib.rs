//! Policies: the decisions that belong to the user, made by WebAssembly modules. No protocol is known here.
//!
//! * [`host`]: modules and their instances; the only place that names wasmtime.
//! * [`seat`]: a filter in its place: an instance with its mode, what answers when it faults, what is counted. One for each core
//!   (`mirror`, `compare`, `records`) and one on the control thread (`rollback`).
//! * [`memo`]: answers that hold for more than one command.
//! * [`builtin`]: the filters that are part of the program.
//! * [`cases`]: what a filter's author has written down that it does, and whether it does.
//! * [`bench`]: what a call of a filter costs.
//!
//! Modules are compiled and instances made on the control thread; instances travel to the cores and stay there. No clock and no
//! randomness is read here: both are arguments, but for the processor time of its own thread by which [`host`] ends a call.

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
