//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as both sides of a PostgreSQL log-in speak it. Pure: nonces are arguments.
//!
//! When a proof is right, it reveals the ClientKey to the server's side. With that key and the same verifier the client's side logs in
//! to another server, so no password is stored. Channel binding is not supported: TLS ends at Crossfade. SASLprep is not done: it leaves
//! an ASCII password unchanged, and a password that is not ASCII is taken as its bytes, as PostgreSQL does when SASLprep refuses it. A
//! user whose non-ASCII password SASLprep would change (compatibility characters, unusual spaces) must be given to Crossfade by verifier.

mod attributes;
mod client;
mod keys;
mod server;

pub use client::ScramClient;
pub use keys::{ClientKey, MECHANISM, Nonce, mock_verifier, verifier_from_password};
pub use server::{AuthFailure, ScramServer, TlsEnds};

#[cfg(test)]
mod tests;
