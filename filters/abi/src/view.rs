//! Readers: each borrows the bytes of a view and copies nothing. Any bytes whatever are safe to read: a part that would lie
//! outside its view reads as empty, a field beyond the end as 0.

use crate::codes::{Authority, Class, Encoding, Hook, Phase, Protocol, Purpose, RecordType, ReplyKind};
use crate::{VIEW_VERSION, layout};

#[inline]
fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u16::from_le_bytes(*raw))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u64::from_le_bytes(*raw))
}

#[inline]
fn part_at(bytes: &[u8], at: usize) -> &[u8] {
    let (offset, length) = (u32_at(bytes, at) as usize, u32_at(bytes, at + 4) as usize);
    bytes.get(offset..).and_then(|rest| rest.get(..length)).unwrap_or(&[])
}

/// The view without what follows it, when its header is right and its fixed fields are there.
#[inline]
fn open(bytes: &[u8], kind: Hook, fixed: usize) -> Option<&[u8]> {
    let length = u32_at(bytes, layout::LENGTH) as usize;
    let known = u16_at(bytes, layout::VERSION) >= VIEW_VERSION && u16_at(bytes, layout::KIND) == kind.code() as u16;
    if known && length >= fixed { bytes.get(..length) } else { None }
}

/// One command, before it is sent.
#[derive(Clone, Copy)]
pub struct RequestView<'a>(&'a [u8]);

impl<'a> RequestView<'a> {
    /// `None` when the header says another kind or version, or more bytes than there are.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        open(bytes, Hook::Request, layout::REQUEST_FIXED).map(RequestView)
    }

    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_code(u8_at(self.0, layout::REQUEST_PROTOCOL))
    }

    pub fn class(&self) -> Option<Class> {
        Class::from_code(u8_at(self.0, layout::REQUEST_CLASS))
    }

    pub fn phase(&self) -> Option<Phase> {
        Phase::from_code(u8_at(self.0, layout::REQUEST_PHASE))
    }

    pub fn authority(&self) -> Option<Authority> {
        Authority::from_code(u8_at(self.0, layout::REQUEST_AUTHORITY))
    }

    pub fn flags(&self) -> u32 {
        u32_at(self.0, layout::REQUEST_FLAGS)
    }

    /// Whether any of these bits is set (`flags::REQUEST_...`).
    pub fn has(&self, bits: u32) -> bool {
        self.flags() & bits != 0
    }

    /// The client connection: the same number for as long as it lasts.
    pub fn client(&self) -> u64 {
        u64_at(self.0, layout::REQUEST_CLIENT)
    }

    /// Bytes of the whole frame on the wire.
    pub fn size(&self) -> u64 {
        u64_at(self.0, layout::REQUEST_SIZE)
    }

    /// Drawn anew for each command, evenly over all u32.
    pub fn sample(&self) -> u32 {
        u32_at(self.0, layout::REQUEST_SAMPLE)
    }

    /// Keys of the command; [`keys`](Self::keys) may list fewer.
    pub fn key_count(&self) -> u32 {
        u32_at(self.0, layout::REQUEST_KEY_COUNT)
    }

    pub fn database(&self) -> &'a [u8] {
        part_at(self.0, layout::REQUEST_DATABASE)
    }

    /// Upper case for Redis and for the first word of SQL; as written for MongoDB.
    pub fn command(&self) -> &'a [u8] {
        part_at(self.0, layout::REQUEST_COMMAND)
    }

    pub fn keys(&self) -> Keys<'a> {
        Keys { view: self.0, table: part_at(self.0, layout::REQUEST_KEYS) }
    }

    /// The first bytes of the frame as the client sent it.
    pub fn frame(&self) -> &'a [u8] {
        part_at(self.0, layout::REQUEST_FRAME)
    }
}

/// The keys that a request view lists, in the command's order.
#[derive(Clone)]
pub struct Keys<'a> {
    view: &'a [u8],
    table: &'a [u8],
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (entry, rest) = self.table.split_at_checked(8)?;
        self.table = rest;
        let (offset, length) = (u32_at(entry, 0) as usize, u32_at(entry, 4) as usize);
        Some(self.view.get(offset..).and_then(|from| from.get(..length)).unwrap_or(&[]))
    }
}

/// One request and what both sides answered.
#[derive(Clone, Copy)]
pub struct PairView<'a>(&'a [u8]);

/// One side's reply in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub kind: ReplyKind,
    /// Bytes on the wire, of which `bytes` may be only the beginning.
    pub length: u64,
    /// 64-bit digest of the whole reply; 0 unless `flags::PAIR_DIGESTS`.
    pub digest: u64,
    pub latency_us: u32,
    pub bytes: &'a [u8],
}

impl<'a> PairView<'a> {
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        open(bytes, Hook::Pair, layout::PAIR_FIXED).map(PairView)
    }

    pub fn request(&self) -> Option<RequestView<'a>> {
        RequestView::read(part_at(self.0, layout::PAIR_REQUEST))
    }

    pub fn flags(&self) -> u32 {
        u32_at(self.0, layout::PAIR_FLAGS)
    }

    /// Whether any of these bits is set (`flags::PAIR_...`).
    pub fn has(&self, bits: u32) -> bool {
        self.flags() & bits != 0
    }

    pub fn source(&self) -> Reply<'a> {
        Reply {
            kind: ReplyKind::from_code(u8_at(self.0, layout::PAIR_SOURCE_KIND)).unwrap_or(ReplyKind::Other),
            length: u64_at(self.0, layout::PAIR_SOURCE_LENGTH),
            digest: u64_at(self.0, layout::PAIR_SOURCE_DIGEST),
            latency_us: u32_at(self.0, layout::PAIR_SOURCE_LATENCY_US),
            bytes: part_at(self.0, layout::PAIR_SOURCE_BYTES),
        }
    }

    pub fn target(&self) -> Reply<'a> {
        Reply {
            kind: ReplyKind::from_code(u8_at(self.0, layout::PAIR_TARGET_KIND)).unwrap_or(ReplyKind::Other),
            length: u64_at(self.0, layout::PAIR_TARGET_LENGTH),
            digest: u64_at(self.0, layout::PAIR_TARGET_DIGEST),
            latency_us: u32_at(self.0, layout::PAIR_TARGET_LATENCY_US),
            bytes: part_at(self.0, layout::PAIR_TARGET_BYTES),
        }
    }
}

/// What happened on an interlay within the last second.
#[derive(Clone, Copy)]
pub struct WindowView<'a>(&'a [u8]);

/// One side's numbers of a window. Latencies in microseconds, 0 when there were no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub requests: u64,
    pub errors: u64,
    pub p50_us: u32,
    pub p99_us: u32,
}

impl<'a> WindowView<'a> {
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        open(bytes, Hook::Window, layout::WINDOW_FIXED).map(WindowView)
    }

    pub fn phase(&self) -> Option<Phase> {
        Phase::from_code(u8_at(self.0, layout::WINDOW_PHASE))
    }

    pub fn authority(&self) -> Option<Authority> {
        Authority::from_code(u8_at(self.0, layout::WINDOW_AUTHORITY))
    }

    pub fn flags(&self) -> u32 {
        u32_at(self.0, layout::WINDOW_FLAGS)
    }

    pub fn has(&self, bits: u32) -> bool {
        self.flags() & bits != 0
    }

    /// End of the window on the clock of `now_ms`.
    pub fn at_ms(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_AT_MS)
    }

    pub fn length_ms(&self) -> u32 {
        u32_at(self.0, layout::WINDOW_LENGTH_MS)
    }

    pub fn phase_seconds(&self) -> u32 {
        u32_at(self.0, layout::WINDOW_PHASE_SECONDS)
    }

    pub fn source(&self) -> Side {
        Side {
            requests: u64_at(self.0, layout::WINDOW_SOURCE_REQUESTS),
            errors: u64_at(self.0, layout::WINDOW_SOURCE_ERRORS),
            p50_us: u32_at(self.0, layout::WINDOW_SOURCE_P50_US),
            p99_us: u32_at(self.0, layout::WINDOW_SOURCE_P99_US),
        }
    }

    pub fn target(&self) -> Side {
        Side {
            requests: u64_at(self.0, layout::WINDOW_TARGET_REQUESTS),
            errors: u64_at(self.0, layout::WINDOW_TARGET_ERRORS),
            p50_us: u32_at(self.0, layout::WINDOW_TARGET_P50_US),
            p99_us: u32_at(self.0, layout::WINDOW_TARGET_P99_US),
        }
    }

    pub fn shadow_lag_us(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_SHADOW_LAG_US)
    }

    pub fn queue_depth(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_QUEUE_DEPTH)
    }

    /// Keys or rows not known to be the same on both sides.
    pub fn dirty(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_DIRTY)
    }

    pub fn in_flight(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_IN_FLIGHT)
    }

    pub fn compared(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_COMPARED)
    }

    pub fn divergences_new(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_DIVERGENCES_NEW)
    }

    pub fn divergences_total(&self) -> u64 {
        u64_at(self.0, layout::WINDOW_DIVERGENCES_TOTAL)
    }

    /// Hundredths of a percent of the reads that the target serves.
    pub fn read_share(&self) -> u32 {
        u32_at(self.0, layout::WINDOW_READ_SHARE)
    }

    pub fn write_share(&self) -> u32 {
        u32_at(self.0, layout::WINDOW_WRITE_SHARE)
    }

    /// The migration's id.
    pub fn migration(&self) -> &'a [u8] {
        part_at(self.0, layout::WINDOW_MIGRATION)
    }
}

/// One key, row or document on its way into a target or a clone.
#[derive(Clone, Copy)]
pub struct RecordView<'a>(&'a [u8]);

impl<'a> RecordView<'a> {
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        open(bytes, Hook::Record, layout::RECORD_FIXED).map(RecordView)
    }

    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_code(u8_at(self.0, layout::RECORD_PROTOCOL))
    }

    pub fn record_type(&self) -> RecordType {
        RecordType::from_code(u8_at(self.0, layout::RECORD_TYPE)).unwrap_or(RecordType::Other)
    }

    pub fn encoding(&self) -> Encoding {
        Encoding::from_code(u8_at(self.0, layout::RECORD_ENCODING)).unwrap_or(Encoding::Opaque)
    }

    pub fn purpose(&self) -> Option<Purpose> {
        Purpose::from_code(u8_at(self.0, layout::RECORD_PURPOSE))
    }

    pub fn flags(&self) -> u32 {
        u32_at(self.0, layout::RECORD_FLAGS)
    }

    pub fn has(&self, bits: u32) -> bool {
        self.flags() & bits != 0
    }

    /// Remaining life in milliseconds; `None` lives for ever.
    pub fn ttl_ms(&self) -> Option<u64> {
        u64::try_from(u64_at(self.0, layout::RECORD_TTL_MS) as i64).ok()
    }

    /// Bytes of the whole value, of which [`value`](Self::value) may be only the beginning.
    pub fn value_length(&self) -> u64 {
        u64_at(self.0, layout::RECORD_VALUE_LENGTH)
    }

    pub fn database(&self) -> &'a [u8] {
        part_at(self.0, layout::RECORD_DATABASE)
    }

    /// Table or collection; empty where the protocol has none.
    pub fn namespace(&self) -> &'a [u8] {
        part_at(self.0, layout::RECORD_NAMESPACE)
    }

    /// Key, or the primary key as JSON.
    pub fn key(&self) -> &'a [u8] {
        part_at(self.0, layout::RECORD_KEY)
    }

    pub fn value(&self) -> &'a [u8] {
        part_at(self.0, layout::RECORD_VALUE)
    }

    /// The value's items; meant for [`Encoding::Items`].
    pub fn items(&self) -> Items<'a> {
        Items(self.value())
    }
}

/// Items, each a u32 length and so many bytes. Ends at the first one that is not whole.
#[derive(Clone)]
pub struct Items<'a>(pub &'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_at_checked(4)?;
        let (item, rest) = rest.split_at_checked(u32_at(length, 0) as usize)?;
        self.0 = rest;
        Some(item)
    }
}
