//! Dual operation of one interlay, without I/O: one ordered stream of writes on the authority, and their effects on the shadow.
//!
//! Lives on one core, kept by `redis::companion`. Commands, orders and bytes of two connections go in; bytes for the two connections,
//! replies and events come out. Time is an argument. The invariants I1 to I9 are those of docs/ARCHITECTURE.md; where one is kept is
//! said there.
//!
//! * [`state`]: the lane and its parts. Each part is a type of its own: `link`, `authority_queue`, `shadow_queue`, `keys`, `jobs`,
//!   `holding`, `waiters`, `watches`, `outgoing`.
//! * `commands`: what is sent to the authority for each command and copy: position order is execution order (I2, I3).
//! * `replies`, `copies`, `pieces`: what its replies mean: effects, copies, answers to clients (I4, I8).
//! * `shadow`: the queue of effects and what its replies say about the keys (I5, I9).
//! * `fence`: draining and the exchange of roles (I6).
//! * `intents`: what is written down for the process that comes after a kill: `intent_ring` (keys), `intent_header` (whose they are).
//! * `orders`: what control asks. `connections`, `introduction`: the two connections.
//! * `transaction`, `verification`, `blocking`, `consumers`: MULTI, WATCH, blocking commands, readers of groups. `comparison`, `records`, `facts`: policies.

mod authority_queue;
mod blocking;
pub mod caller;
mod commands;
mod comparison;
mod connections;
mod consumers;
mod copies;
pub mod facts;
mod fence;
mod holding;
mod intent_header;
mod intent_ring;
pub mod intents;
mod introduction;
mod jobs;
mod key;
mod keys;
mod link;
mod orders;
mod outgoing;
mod piece_copies;
mod pieces;
mod records;
mod replies;
pub mod request;
mod scripts;
mod shadow;
mod shadow_queue;
mod state;
#[cfg(test)]
mod tests;
mod transaction;
mod verification;
mod volatile;
mod waiters;
mod watches;

pub use state::Lane;
