//! The elements of values, each with the command that writes it. Pure data; any thread.

use std::borrow::Cow;
use std::fmt;

/// A field of a stream's entry and its value.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// One element of a value, in the order of its encoding. The command that writes it is named with each.
#[derive(Debug, Clone, PartialEq)]
pub enum Element<'a> {
    /// SET: the only element of a string.
    String(Cow<'a, [u8]>),
    /// RPUSH, in this order.
    Item(Cow<'a, [u8]>),
    /// SADD.
    Member(Cow<'a, [u8]>),
    /// ZADD; [`super::typed::score_text`] writes the score. Never NaN.
    Scored { member: Cow<'a, [u8]>, score: f64 },
    /// HSET, and HPEXPIREAT where the receiver has it. The deadline is in Unix milliseconds.
    Field { field: Cow<'a, [u8]>, value: Cow<'a, [u8]>, expire_at_ms: Option<i64> },
    /// XADD with this id.
    Entry { id: StreamId, fields: Vec<Pair<'a>> },
    /// XSETID, once, after all entries. A stream without entries needs one that is trimmed away again.
    Stream(StreamState),
    /// XGROUP CREATE. `entries_read` is for ENTRIESREAD; `None` when the server does not know it, as Redis 5 and 6.
    Group { name: Cow<'a, [u8]>, last_id: StreamId, entries_read: Option<u64> },
    /// XGROUP CREATECONSUMER, for the group before it. When it was seen and active cannot be written.
    Consumer { name: Cow<'a, [u8]>, seen_at_ms: i64, active_at_ms: Option<i64> },
    /// XCLAIM with TIME, RETRYCOUNT, FORCE and JUSTID, for the consumer before it. XCLAIM drops an entry that the stream no longer has.
    Pending { id: StreamId, delivered_at_ms: i64, deliveries: u64 },
}

/// The id of an entry; written `ms-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    pub ms: u64,
    pub sequence: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

/// What XSETID sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// Entries it has now.
    pub length: u64,
    pub last_id: StreamId,
    pub max_deleted_id: StreamId,
    /// Entries ever added.
    pub entries_added: u64,
}
