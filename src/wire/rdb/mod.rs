//! RDB, the snapshot format of Redis and Valkey: where its values begin and end, what DUMP wraps around them, what is in them.
//!
//! A snapshot is split into values ([`splitter`]), a value becomes a DUMP payload that another server restores ([`dump`]), and one that
//! the other server would refuse is decoded to elements for commands ([`typed`]). Everything else about values stays with real servers.
//!
//! Not here: reading files and sockets, choosing what to restore where. Pure: no I/O, no clock; any thread.
//!
//! Rules are taken from `rdb.h` and `rdb.c` of Redis 7.4 (<https://github.com/redis/redis>) and Valkey 9.0
//! (<https://github.com/valkey-io/valkey>); `server_tests.rs` compares with real servers.

pub mod crc64;
pub mod dump;
mod element;
mod grammar;
mod lengths;
mod lzf;
mod packed;
pub mod splitter;
mod stream;
pub mod typed;

#[cfg(test)]
mod samples_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod splitter_tests;
#[cfg(test)]
mod typed_tests;

pub use splitter::{Item, RecordHead, Sizes, Splitter};
pub use stream::{STREAM_2, STREAM_3, to_stream_2};

use std::fmt;

/// Whose format it is. The two agree up to RDB version 11 and value type 21; above, one number means two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Magic `REDIS`; Valkey writes it too, up to version 8.
    Redis,
    /// Magic `VALKEY`, since Valkey 9.0.
    Valkey,
}

/// The version of a snapshot or DUMP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    pub dialect: Dialect,
    pub number: u16,
}

/// Oldest version read: Redis 5 and 6 write it.
const REDIS_VERSION_MIN: u16 = 9;
/// Newest version of Redis read: 7.4 writes it.
const REDIS_VERSION_MAX: u16 = 12;
/// The only version of the `VALKEY` magic read: 9.0 and 9.1 write it. Valkey keeps numbers from 80 on for itself (`rdb.h`,
/// `RDB_FOREIGN_VERSION_MAX`).
const VALKEY_VERSION: u16 = 80;

impl Version {
    /// The version of a DUMP payload, which has no magic; `None` for one that this build does not read.
    #[must_use]
    pub fn of_dump(number: u16) -> Option<Self> {
        let dialect = if number < VALKEY_VERSION { Dialect::Redis } else { Dialect::Valkey };
        Some(Self { dialect, number }).filter(Version::is_read)
    }

    fn is_read(&self) -> bool {
        match self.dialect {
            Dialect::Redis => (REDIS_VERSION_MIN..=REDIS_VERSION_MAX).contains(&self.number),
            Dialect::Valkey => self.number == VALKEY_VERSION,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect {
            Dialect::Redis => write!(f, "RDB version {} of Redis", self.number),
            Dialect::Valkey => write!(f, "RDB version {} of Valkey", self.number),
        }
    }
}

/// Bytes that break a rule of the format; the text names the rule. Reading them again gives the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "corrupt: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}
