//! Wire grammars: bytes in, values out. Pure: no I/O, no clock, no randomness; runs on any thread.

pub mod postgres;
pub mod rdb;
pub mod resp;
