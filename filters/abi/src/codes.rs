//! The numbers that stand for words in views and verdicts. A number is never reused; 0 means "unknown" wherever it may stand.

/// An enum over one byte, with the word used for it in recorded cases, logs and documents.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $code:literal $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($variant = $code,)+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// `None` for a number this version of the ABI does not know.
            pub const fn from_code(code: u8) -> Option<$name> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }

            #[inline]
            pub const fn code(self) -> u8 { self as u8 }

            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            pub fn from_word(word: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

codes!(Protocol { Redis = 1 "redis", Postgres = 2 "postgres", Mongo = 3 "mongo", });

codes!(
    /// What a command does, as the proxy understood it; `Opaque` is what it did not understand and passes on unread.
    Class { Read = 1 "read", Write = 2 "write", Session = 3 "session", Transaction = 4 "transaction", Opaque = 5 "opaque", }
);

codes!(Phase {
    PreTest = 1 "pre-test",
    Analyze = 2 "analyze",
    Compare = 3 "compare",
    Test = 4 "test",
    Migrate = 5 "migrate",
    Rollback = 6 "rollback",
    Commit = 7 "commit",
});

codes!(Authority { Source = 1 "source", Target = 2 "target", });

codes!(
    /// Shape of a reply, whatever the protocol. `Nothing` is an explicit null; `Missing` is no reply at all (closed, timed out).
    ReplyKind {
        Other = 0 "other",
        Ok = 1 "ok",
        Error = 2 "error",
        Value = 3 "value",
        Integer = 4 "integer",
        Float = 5 "float",
        Boolean = 6 "boolean",
        Nothing = 7 "nothing",
        List = 8 "list",
        Set = 9 "set",
        Map = 10 "map",
        Rows = 11 "rows",
        Document = 12 "document",
        Missing = 13 "missing",
    }
);

codes!(RecordType {
    Other = 0 "other",
    Text = 1 "string",
    List = 2 "list",
    Set = 3 "set",
    Map = 4 "map",
    SortedSet = 5 "sorted_set",
    Stream = 6 "stream",
    Row = 7 "row",
    Document = 8 "document",
});

codes!(
    /// How a record's value bytes are to be read, and how a replacement must be written.
    Encoding {
        Raw = 1 "raw",
        Items = 2 "items",
        Json = 3 "json",
        Bson = 4 "bson",
        Opaque = 5 "opaque",
    }
);

codes!(Purpose { Backfill = 1 "backfill", Clone = 2 "clone", });

codes!(
    /// The four hooks; the number is also the kind of the view each one is given.
    Hook { Request = 1 "request", Pair = 2 "pair", Window = 3 "window", Record = 4 "record", }
);

/// What an import answers, besides a number of bytes. Negative, so that it cannot be mistaken for a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    Ok = 0,
    /// An unknown level or `which`, a bad counter id, a negative delta.
    BadArgument = -1,
    /// `ptr` and `len` do not lie in the guest's memory. Nothing was read or written.
    BadPointer = -2,
    /// Too many lines or counters; the call was dropped and counted.
    Limit = -3,
    /// Not in this hook (a frame in `cf_on_window`), or not any more.
    Unavailable = -4,
}

impl Status {
    pub const fn code(self) -> i32 {
        self as i32
    }
}

/// Bits of the `flags` field of each view. Unknown bits are to be ignored.
pub mod flags {
    /// RequestView: fewer keys are listed than `key_count` says.
    pub const REQUEST_KEYS_CUT: u32 = 1 << 0;
    /// RequestView: `frame` is only the beginning; `frame_read(0, ...)` has the rest while the hook runs.
    pub const REQUEST_FRAME_CUT: u32 = 1 << 1;
    /// RequestView: the reply is a collection whose order means nothing.
    pub const REQUEST_UNORDERED: u32 = 1 << 2;
    /// RequestView: the reply's items are field, value, field, value ...: the unit of order is the pair.
    pub const REQUEST_FIELD_PAIRS: u32 = 1 << 3;
    /// RequestView: numbers in the reply may be written with other last digits.
    pub const REQUEST_FLOATS: u32 = 1 << 4;
    /// RequestView: the reply is a remaining time in seconds.
    pub const REQUEST_TTL_SECONDS: u32 = 1 << 5;
    /// RequestView: the reply is a remaining time in milliseconds.
    pub const REQUEST_TTL_MILLIS: u32 = 1 << 6;
    /// RequestView: the reply depends on time, chance or the server itself; two correct servers differ.
    pub const REQUEST_NONDETERMINISTIC: u32 = 1 << 7;
    /// RequestView: inside a transaction that the client opened.
    pub const REQUEST_IN_TRANSACTION: u32 = 1 << 8;
    /// All bits of a request that this version knows.
    pub const REQUEST_ALL: u32 = (1 << 9) - 1;

    /// PairView: `source.bytes` is only the beginning; `frame_read(1, ...)` has the rest.
    pub const PAIR_SOURCE_CUT: u32 = 1 << 0;
    /// PairView: `target.bytes` is only the beginning; `frame_read(2, ...)` has the rest.
    pub const PAIR_TARGET_CUT: u32 = 1 << 1;
    /// PairView: both digests are there (always when a reply is cut).
    pub const PAIR_DIGESTS: u32 = 1 << 2;
    /// PairView: a write to a key of this request was under way while the shadow answered.
    pub const PAIR_RACED: u32 = 1 << 3;

    /// WindowView: authority changed within this window.
    pub const WINDOW_FLIPPED: u32 = 1 << 0;
    /// WindowView: the workflow is paused.
    pub const WINDOW_PAUSED: u32 = 1 << 1;
    /// WindowView: the phase changed within this window; its numbers mix two phases.
    pub const WINDOW_PHASE_CHANGED: u32 = 1 << 2;

    /// RecordView: `value` is only the beginning; `frame_read(3, ...)` has the rest.
    pub const RECORD_VALUE_CUT: u32 = 1 << 0;
    /// RecordView: `key` is only the beginning.
    pub const RECORD_KEY_CUT: u32 = 1 << 1;
}
