//! The relay of a Redis interlay on one core, without I/O: bytes and plans in, bytes and asks out.
//!
//! Lives on one core. It matches replies with requests, keeps each client's session, decides which path a command takes (a shared
//! connection, a connection of its own, the lane) and keeps Redis' order: *a client has outstanding commands on one path at a time*.
//!
//! * [`state`]: the relay; `calls`: what the cores call.
//! * `client`: one client; `blocked`: its blocking command. What its requests do: `dispatch`, `session_commands`, `transaction`,
//!   `pinned`, `subscribe`, `large`, `lane_path`, `policy`.
//! * `upstream`: one connection to a server. What arrives on it: `replies`.
//! * `shared`: what all clients share; `reads`: those kept for a comparison; `scripts`: those a new authority is to have.
//! * `cursors`: whose cursor a SCAN goes on with.
//! * `plans`, `barrier`: changing from one plan to the next. `hold`, `holding`: letting no client begin a command.

mod barrier;
mod blocked;
mod calls;
mod client;
mod confirming;
mod cursors;
mod dispatch;
mod hold;
mod holding;
mod lane_path;
mod large;
mod path;
mod pinned;
mod plans;
mod policy;
mod pushes;
mod reads;
mod replies;
mod scripts;
mod session;
mod session_commands;
mod shared;
mod state;
mod strangers;
mod subscribe;
#[cfg(test)]
mod tests;
mod transaction;
mod upstream;
mod withheld;

pub use state::RedisRelay;
