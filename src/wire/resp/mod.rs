//! RESP2 and RESP3, the protocol of Redis and Valkey.
//!
//! Rules are taken from the protocol specification (redis.io/docs/latest/develop/reference/protocol-spec) and, where it is silent,
//! from the behaviour of Redis 7.0 that our tests compare against.

pub mod args;
pub mod command;
pub mod compare;
pub mod copy;
pub mod effect;
pub mod encode;
pub mod frame;
pub mod login;
pub mod resp2;
pub mod value;

pub use args::Args;
pub use command::{Class, Command, KeyList};
pub use frame::{ReplyFeed, ReplyStep, RequestProgress, RequestScan};
