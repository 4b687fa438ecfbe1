//! Offsets of every field, in bytes from the start of its view. Little-endian, no padding that is not named, no alignment needed.
//!
//! A *part* is (offset u32, length u32), the offset counted from the start of the view that holds it.

/// Header of every view.
pub const VERSION: usize = 0; // u16
pub const KIND: usize = 2; // u16, see `Hook`
pub const LENGTH: usize = 4; // u32, of the whole view with its parts
pub const HEADER: usize = 8;

pub const REQUEST_PROTOCOL: usize = 8; // u8
pub const REQUEST_CLASS: usize = 9; // u8
pub const REQUEST_PHASE: usize = 10; // u8
pub const REQUEST_AUTHORITY: usize = 11; // u8
pub const REQUEST_FLAGS: usize = 12; // u32
pub const REQUEST_CLIENT: usize = 16; // u64
pub const REQUEST_SIZE: usize = 24; // u64, bytes of the frame on the wire
pub const REQUEST_SAMPLE: usize = 32; // u32, drawn anew for each command
pub const REQUEST_KEY_COUNT: usize = 36; // u32, of the command, listed or not
pub const REQUEST_DATABASE: usize = 40; // part
pub const REQUEST_COMMAND: usize = 48; // part
pub const REQUEST_KEYS: usize = 56; // part: a table of parts
pub const REQUEST_FRAME: usize = 64; // part
pub const REQUEST_FIXED: usize = 72;

pub const PAIR_REQUEST: usize = 8; // part: a whole RequestView
pub const PAIR_FLAGS: usize = 16; // u32
pub const PAIR_SOURCE_KIND: usize = 20; // u8
pub const PAIR_TARGET_KIND: usize = 21; // u8
pub const PAIR_RESERVED: usize = 22; // u16, 0
pub const PAIR_SOURCE_LENGTH: usize = 24; // u64
pub const PAIR_TARGET_LENGTH: usize = 32; // u64
pub const PAIR_SOURCE_DIGEST: usize = 40; // u64
pub const PAIR_TARGET_DIGEST: usize = 48; // u64
pub const PAIR_SOURCE_LATENCY_US: usize = 56; // u32
pub const PAIR_TARGET_LATENCY_US: usize = 60; // u32
pub const PAIR_SOURCE_BYTES: usize = 64; // part
pub const PAIR_TARGET_BYTES: usize = 72; // part
pub const PAIR_FIXED: usize = 80;

pub const WINDOW_PHASE: usize = 8; // u8
pub const WINDOW_AUTHORITY: usize = 9; // u8
pub const WINDOW_RESERVED: usize = 10; // u16, 0
pub const WINDOW_FLAGS: usize = 12; // u32
pub const WINDOW_AT_MS: usize = 16; // u64, end of the window on the clock of `now_ms`
pub const WINDOW_LENGTH_MS: usize = 24; // u32
pub const WINDOW_PHASE_SECONDS: usize = 28; // u32
pub const WINDOW_SOURCE_REQUESTS: usize = 32; // u64, answered within the window
pub const WINDOW_TARGET_REQUESTS: usize = 40; // u64
pub const WINDOW_SOURCE_ERRORS: usize = 48; // u64
pub const WINDOW_TARGET_ERRORS: usize = 56; // u64
pub const WINDOW_SOURCE_P50_US: usize = 64; // u32, 0 = no samples
pub const WINDOW_SOURCE_P99_US: usize = 68; // u32
pub const WINDOW_TARGET_P50_US: usize = 72; // u32
pub const WINDOW_TARGET_P99_US: usize = 76; // u32
pub const WINDOW_SHADOW_LAG_US: usize = 80; // u64
pub const WINDOW_QUEUE_DEPTH: usize = 88; // u64
pub const WINDOW_DIRTY: usize = 96; // u64
pub const WINDOW_IN_FLIGHT: usize = 104; // u64
pub const WINDOW_COMPARED: usize = 112; // u64, pairs compared within the window
pub const WINDOW_DIVERGENCES_NEW: usize = 120; // u64
pub const WINDOW_DIVERGENCES_TOTAL: usize = 128; // u64
pub const WINDOW_READ_SHARE: usize = 136; // u32, hundredths of a percent served by the target
pub const WINDOW_WRITE_SHARE: usize = 140; // u32
pub const WINDOW_MIGRATION: usize = 144; // part
pub const WINDOW_FIXED: usize = 152;

pub const RECORD_PROTOCOL: usize = 8; // u8
pub const RECORD_TYPE: usize = 9; // u8
pub const RECORD_ENCODING: usize = 10; // u8
pub const RECORD_PURPOSE: usize = 11; // u8
pub const RECORD_FLAGS: usize = 12; // u32
pub const RECORD_TTL_MS: usize = 16; // i64, -1 = lives for ever
pub const RECORD_VALUE_LENGTH: usize = 24; // u64
pub const RECORD_DATABASE: usize = 32; // part
pub const RECORD_NAMESPACE: usize = 40; // part
pub const RECORD_KEY: usize = 48; // part
pub const RECORD_VALUE: usize = 56; // part
pub const RECORD_FIXED: usize = 64;

/// `which` of the import `frame_read`.
pub const FRAME_REQUEST: u32 = 0;
pub const FRAME_SOURCE_REPLY: u32 = 1;
pub const FRAME_TARGET_REPLY: u32 = 2;
pub const FRAME_RECORD_VALUE: u32 = 3;
