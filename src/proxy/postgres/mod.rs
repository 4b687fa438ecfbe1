//! The PostgreSQL relay, without I/O, in session mode: one client, one server connection. Everything here lives on one core.
//!
//! A client's connection becomes a session (`session`). It opens (`opening`), proves who it is (`login`), is given a server connection
//! of its own (`server_access`, `server`) that is logged in as the same user (`server_login`), and then its frames pass in both
//! directions (`forward`), while the tracker knows at every frame whether the session is between two units of work. That is where a
//! hold (`hold`) makes it wait. Rows are never read.

mod cancel;
mod entropy;
mod forward;
mod hold;
mod input;
mod login;
mod lookup;
mod opening;
mod proof;
mod refusal;
mod relay;
mod sampler;
mod server;
mod server_access;
mod server_login;
mod session;
mod settings;
mod shared;
mod statements;

#[cfg(test)]
mod tests;

pub use relay::PostgresRelay;
