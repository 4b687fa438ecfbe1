//! The host's half: builders that write a view straight into a guest's exchange buffer, and decoding of what it answers.
//!
//! Builders never fail for large input: what does not fit is cut by the rules in ABI.md and the cut is flagged. They need a
//! buffer of at least `BUFFER_BYTES_MIN`, which is checked once when a module is loaded, hence asserted here.

use crate::codes::{Authority, Class, Encoding, Hook, Phase, Protocol, Purpose, RecordType, ReplyKind, flags};
use crate::verdict::{Memo, Packed, PairAction, RecordAction, RequestAction, WindowAction};
use crate::view::Side;
use crate::{VIEW_VERSION, layout, limits};

/// Gathers the fixed fields beside the view, where their offsets are known to be inside, and appends parts behind them in
/// `out`. Never writes outside `out`.
struct Writer<'o, const FIXED: usize> {
    fixed: [u8; FIXED],
    out: &'o mut [u8],
    end: usize,
}

impl<'o, const FIXED: usize> Writer<'o, FIXED> {
    #[inline]
    fn new(out: &'o mut [u8], kind: Hook) -> Self {
        let mut writer = Writer { fixed: [0; FIXED], out, end: FIXED };
        writer.put(layout::VERSION, VIEW_VERSION.to_le_bytes());
        writer.put(layout::KIND, (kind.code() as u16).to_le_bytes());
        writer
    }

    #[inline]
    fn put<const N: usize>(&mut self, at: usize, raw: [u8; N]) {
        self.fixed[at..at + N].copy_from_slice(&raw);
    }

    #[inline]
    fn room(&self) -> usize {
        self.out.len() - self.end
    }

    #[inline]
    fn point(&mut self, at: usize, offset: usize, length: usize) {
        self.put(at, (offset as u32).to_le_bytes());
        self.put(at + 4, (length as u32).to_le_bytes());
    }

    /// Appends at most `limit` bytes; answers whether all of them are there.
    #[inline]
    fn part(&mut self, at: usize, bytes: &[u8], limit: usize) -> bool {
        let from = self.end;
        let kept = self.append(bytes, limit);
        self.point(at, from, kept);
        kept == bytes.len()
    }

    /// How many of the bytes are there now.
    #[inline]
    fn append(&mut self, bytes: &[u8], limit: usize) -> usize {
        let kept = bytes.len().min(limit).min(self.room());
        self.out[self.end..self.end + kept].copy_from_slice(&bytes[..kept]);
        self.end += kept;
        kept
    }

    /// One row of a table of parts that lies at `at` in the view.
    #[inline]
    fn row(&mut self, at: usize, bytes: &[u8]) {
        let from = self.end;
        let kept = self.append(bytes, bytes.len());
        self.out[at..at + 4].copy_from_slice(&(from as u32).to_le_bytes());
        self.out[at + 4..at + 8].copy_from_slice(&(kept as u32).to_le_bytes());
    }

    #[inline]
    fn finish(mut self) -> usize {
        self.put(layout::LENGTH, (self.end as u32).to_le_bytes());
        self.out[..FIXED].copy_from_slice(&self.fixed);
        self.end
    }
}

#[inline]
fn usable(out: &mut [u8]) -> &mut [u8] {
    assert!(out.len() >= limits::BUFFER_BYTES_MIN, "an exchange buffer is checked when its module is loaded");
    let length = out.len().min(limits::BUFFER_BYTES_MAX);
    &mut out[..length]
}

/// Builds a `RequestView`. `flags` are the bits about the command; the bits about cuts are set here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a, K> {
    pub protocol: Protocol,
    pub class: Class,
    pub phase: Phase,
    pub authority: Authority,
    pub flags: u32,
    pub client: u64,
    pub sample: u32,
    pub database: &'a [u8],
    pub command: &'a [u8],
    /// Iterated twice: ranges into the frame, not copies.
    pub keys: K,
    /// Bytes of the frame on the wire; `frame` may hold only the beginning of them.
    pub size: u64,
    pub frame: &'a [u8],
}

impl<'a, K: Iterator<Item = &'a [u8]> + Clone> Request<'a, K> {
    /// Length of the view now at the start of `out`.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> usize {
        self.write_within(usable(out))
    }

    #[inline]
    fn write_within(&self, out: &mut [u8]) -> usize {
        let mut w = Writer::<{ layout::REQUEST_FIXED }>::new(out, Hook::Request);
        w.put(layout::REQUEST_PROTOCOL, [self.protocol.code()]);
        w.put(layout::REQUEST_CLASS, [self.class.code()]);
        w.put(layout::REQUEST_PHASE, [self.phase.code()]);
        w.put(layout::REQUEST_AUTHORITY, [self.authority.code()]);
        w.put(layout::REQUEST_CLIENT, self.client.to_le_bytes());
        w.put(layout::REQUEST_SIZE, self.size.to_le_bytes());
        w.put(layout::REQUEST_SAMPLE, self.sample.to_le_bytes());
        w.part(layout::REQUEST_DATABASE, self.database, limits::DATABASE_BYTES_MAX);
        w.part(layout::REQUEST_COMMAND, self.command, limits::COMMAND_BYTES_MAX);

        // Keys may take what the frame's first bytes leave, and are listed whole or not at all.
        let (mut listed, mut count, mut open) = (0_usize, 0_u32, true);
        let mut left = w.room() - self.frame.len().min(limits::FRAME_BYTES_MAX);
        for key in self.keys.clone() {
            count = count.saturating_add(1);
            open = open && listed < limits::KEYS_MAX && left >= 8 + key.len();
            if open {
                listed += 1;
                left -= 8 + key.len();
            }
        }
        let table = w.end;
        w.point(layout::REQUEST_KEYS, table, listed * 8);
        w.end += listed * 8;
        for (index, key) in self.keys.clone().take(listed).enumerate() {
            w.row(table + index * 8, key);
        }
        w.put(layout::REQUEST_KEY_COUNT, count.to_le_bytes());

        w.part(layout::REQUEST_FRAME, self.frame, limits::FRAME_BYTES_MAX);
        let mut bits = self.flags & !(flags::REQUEST_KEYS_CUT | flags::REQUEST_FRAME_CUT);
        if listed < count as usize {
            bits |= flags::REQUEST_KEYS_CUT;
        }
        if self.size > self.frame.len().min(limits::FRAME_BYTES_MAX) as u64 {
            bits |= flags::REQUEST_FRAME_CUT;
        }
        w.put(layout::REQUEST_FLAGS, bits.to_le_bytes());
        w.finish()
    }
}

/// One side's reply for a `PairView`; `bytes` may hold only the beginning of `length`.
#[derive(Clone, Copy, Debug)]
pub struct ReplyParts<'a> {
    pub kind: ReplyKind,
    pub length: u64,
    pub latency_us: u32,
    pub bytes: &'a [u8],
}

/// Builds a `PairView`.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a, K> {
    pub request: Request<'a, K>,
    pub source: ReplyParts<'a>,
    pub target: ReplyParts<'a>,
    /// Digests of the whole replies. Needed when either is longer than its `bytes` or than the view has room for.
    pub digests: Option<(u64, u64)>,
    pub raced: bool,
}

impl<'a, K: Iterator<Item = &'a [u8]> + Clone> Pair<'a, K> {
    pub fn write(&self, out: &mut [u8]) -> usize {
        let out = usable(out);
        let room = ((out.len() - layout::PAIR_FIXED) / 2).min(limits::PAIR_REQUEST_BYTES_MAX);
        let request = self.request.write_within(&mut out[layout::PAIR_FIXED..layout::PAIR_FIXED + room]);
        let mut w = Writer::<{ layout::PAIR_FIXED }>::new(out, Hook::Pair);
        w.point(layout::PAIR_REQUEST, layout::PAIR_FIXED, request);
        w.end += request;
        for (side, kind, length, latency) in [
            (&self.source, layout::PAIR_SOURCE_KIND, layout::PAIR_SOURCE_LENGTH, layout::PAIR_SOURCE_LATENCY_US),
            (&self.target, layout::PAIR_TARGET_KIND, layout::PAIR_TARGET_LENGTH, layout::PAIR_TARGET_LATENCY_US),
        ] {
            w.put(kind, [side.kind.code()]);
            w.put(length, side.length.to_le_bytes());
            w.put(latency, side.latency_us.to_le_bytes());
        }
        // Each side has half of the room; what the shorter one leaves goes to the longer.
        let (room, half) = (w.room(), w.room() / 2);
        let source_room = if self.target.bytes.len() < half { room - self.target.bytes.len() } else { half };
        w.part(layout::PAIR_SOURCE_BYTES, self.source.bytes, source_room);
        let source_kept = self.source.bytes.len().min(source_room);
        w.part(layout::PAIR_TARGET_BYTES, self.target.bytes, room - source_kept);
        let target_kept = self.target.bytes.len().min(room - source_kept);

        let mut bits = 0;
        if self.source.length > source_kept as u64 {
            bits |= flags::PAIR_SOURCE_CUT;
        }
        if self.target.length > target_kept as u64 {
            bits |= flags::PAIR_TARGET_CUT;
        }
        if self.raced {
            bits |= flags::PAIR_RACED;
        }
        if let Some((source, target)) = self.digests {
            bits |= flags::PAIR_DIGESTS;
            w.put(layout::PAIR_SOURCE_DIGEST, source.to_le_bytes());
            w.put(layout::PAIR_TARGET_DIGEST, target.to_le_bytes());
        }
        w.put(layout::PAIR_FLAGS, bits.to_le_bytes());
        w.finish()
    }

    /// Whether a buffer of this length would cut a reply, so that digests are needed.
    pub fn needs_digests(&self, buffer_length: usize) -> bool {
        let request = ((buffer_length - layout::PAIR_FIXED) / 2).min(limits::PAIR_REQUEST_BYTES_MAX);
        let room = buffer_length.min(limits::BUFFER_BYTES_MAX) - layout::PAIR_FIXED - request;
        self.source.length.saturating_add(self.target.length) > room as u64
    }
}

/// Builds a `WindowView`.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub phase: Phase,
    pub authority: Authority,
    pub flags: u32,
    pub at_ms: u64,
    pub length_ms: u32,
    pub phase_seconds: u32,
    pub source: Side,
    pub target: Side,
    pub shadow_lag_us: u64,
    pub queue_depth: u64,
    pub dirty: u64,
    pub in_flight: u64,
    pub compared: u64,
    pub divergences_new: u64,
    pub divergences_total: u64,
    pub read_share: u32,
    pub write_share: u32,
    pub migration: &'a [u8],
}

impl Window<'_> {
    pub fn write(&self, out: &mut [u8]) -> usize {
        let mut w = Writer::<{ layout::WINDOW_FIXED }>::new(usable(out), Hook::Window);
        w.put(layout::WINDOW_PHASE, [self.phase.code()]);
        w.put(layout::WINDOW_AUTHORITY, [self.authority.code()]);
        w.put(layout::WINDOW_FLAGS, self.flags.to_le_bytes());
        w.put(layout::WINDOW_AT_MS, self.at_ms.to_le_bytes());
        w.put(layout::WINDOW_LENGTH_MS, self.length_ms.to_le_bytes());
        w.put(layout::WINDOW_PHASE_SECONDS, self.phase_seconds.to_le_bytes());
        w.put(layout::WINDOW_SOURCE_REQUESTS, self.source.requests.to_le_bytes());
        w.put(layout::WINDOW_TARGET_REQUESTS, self.target.requests.to_le_bytes());
        w.put(layout::WINDOW_SOURCE_ERRORS, self.source.errors.to_le_bytes());
        w.put(layout::WINDOW_TARGET_ERRORS, self.target.errors.to_le_bytes());
        w.put(layout::WINDOW_SOURCE_P50_US, self.source.p50_us.to_le_bytes());
        w.put(layout::WINDOW_SOURCE_P99_US, self.source.p99_us.to_le_bytes());
        w.put(layout::WINDOW_TARGET_P50_US, self.target.p50_us.to_le_bytes());
        w.put(layout::WINDOW_TARGET_P99_US, self.target.p99_us.to_le_bytes());
        w.put(layout::WINDOW_SHADOW_LAG_US, self.shadow_lag_us.to_le_bytes());
        w.put(layout::WINDOW_QUEUE_DEPTH, self.queue_depth.to_le_bytes());
        w.put(layout::WINDOW_DIRTY, self.dirty.to_le_bytes());
        w.put(layout::WINDOW_IN_FLIGHT, self.in_flight.to_le_bytes());
        w.put(layout::WINDOW_COMPARED, self.compared.to_le_bytes());
        w.put(layout::WINDOW_DIVERGENCES_NEW, self.divergences_new.to_le_bytes());
        w.put(layout::WINDOW_DIVERGENCES_TOTAL, self.divergences_total.to_le_bytes());
        w.put(layout::WINDOW_READ_SHARE, self.read_share.to_le_bytes());
        w.put(layout::WINDOW_WRITE_SHARE, self.write_share.to_le_bytes());
        w.part(layout::WINDOW_MIGRATION, self.migration, limits::MIGRATION_BYTES_MAX);
        w.finish()
    }
}

/// Builds a `RecordView`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub protocol: Protocol,
    pub record_type: RecordType,
    pub encoding: Encoding,
    pub purpose: Purpose,
    pub ttl_ms: Option<u64>,
    pub database: &'a [u8],
    pub namespace: &'a [u8],
    pub key: &'a [u8],
    /// Bytes of the whole value; `value` may hold only the beginning.
    pub value_length: u64,
    pub value: &'a [u8],
}

impl Record<'_> {
    pub fn write(&self, out: &mut [u8]) -> usize {
        let mut w = Writer::<{ layout::RECORD_FIXED }>::new(usable(out), Hook::Record);
        w.put(layout::RECORD_PROTOCOL, [self.protocol.code()]);
        w.put(layout::RECORD_TYPE, [self.record_type.code()]);
        w.put(layout::RECORD_ENCODING, [self.encoding.code()]);
        w.put(layout::RECORD_PURPOSE, [self.purpose.code()]);
        let ttl = self.ttl_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        w.put(layout::RECORD_TTL_MS, ttl.to_le_bytes());
        w.put(layout::RECORD_VALUE_LENGTH, self.value_length.to_le_bytes());
        w.part(layout::RECORD_DATABASE, self.database, limits::DATABASE_BYTES_MAX);
        w.part(layout::RECORD_NAMESPACE, self.namespace, limits::NAMESPACE_BYTES_MAX);
        let half = w.room() / 2;
        let mut bits = 0;
        if !w.part(layout::RECORD_KEY, self.key, half) {
            bits |= flags::RECORD_KEY_CUT;
        }
        let room = w.room();
        w.part(layout::RECORD_VALUE, self.value, room);
        if self.value_length > self.value.len().min(room) as u64 {
            bits |= flags::RECORD_VALUE_CUT;
        }
        w.put(layout::RECORD_FLAGS, bits.to_le_bytes());
        w.finish()
    }
}

/// Why an answer is a fault of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadVerdict {
    /// Not an action of this hook.
    UnknownAction(u8),
    /// Bits 20-31 are not zero.
    ReservedBits(u16),
    /// A scope that does not exist, a prefix length without its scope or the scope without a length, or a scope on another hook.
    BadMemo { scope: u8, prefix: u8 },
    /// This action says something, and there is no text.
    TextMissing,
    /// This action has no text.
    TextUnexpected(u32),
    /// Longer than the limit, or than the exchange buffer.
    TextTooLong { length: u32, limit: usize },
}

impl core::fmt::Display for BadVerdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BadVerdict::UnknownAction(code) => write!(f, "action {code:#04x} is not one of this hook's"),
            BadVerdict::ReservedBits(bits) => write!(f, "bits 20-31 must be zero and are {bits:#05x}"),
            BadVerdict::BadMemo { scope, prefix } => write!(f, "memo scope {scope} with prefix length {prefix}"),
            BadVerdict::TextMissing => write!(f, "this action needs a text"),
            BadVerdict::TextUnexpected(length) => write!(f, "this action has no text, and {length} bytes are given"),
            BadVerdict::TextTooLong { length, limit } => {
                write!(f, "{length} bytes of text where {limit} are the limit")
            }
        }
    }
}

impl core::error::Error for BadVerdict {}

/// A verdict that obeys the rules. `text_length` bytes at the start of the exchange buffer go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<A> {
    pub action: A,
    pub memo: Memo,
    pub text_length: usize,
}

#[inline]
pub fn decode_request(raw: u64, buffer_length: usize) -> Result<Verdict<RequestAction>, BadVerdict> {
    let action = RequestAction::from_code(raw as u8).ok_or(BadVerdict::UnknownAction(raw as u8))?;
    let text = (action == RequestAction::Refuse).then_some((1, limits::TEXT_BYTES_MAX));
    let packed = Packed(raw);
    let memo = match (packed.memo_scope(), packed.memo_prefix()) {
        (0, 0) => Memo::None,
        (1, 0) => Memo::Command,
        (2, prefix) if prefix > 0 => Memo::KeyPrefix(prefix),
        (scope, prefix) => return Err(BadVerdict::BadMemo { scope, prefix }),
    };
    Ok(Verdict { action, memo, text_length: text_length(packed, text, buffer_length)? })
}

pub fn decode_pair(raw: u64, buffer_length: usize) -> Result<Verdict<PairAction>, BadVerdict> {
    let action = PairAction::from_code(raw as u8).ok_or(BadVerdict::UnknownAction(raw as u8))?;
    let text = (action == PairAction::Divergent).then_some((1, limits::CLASS_BYTES_MAX));
    plain(action, raw, text, buffer_length)
}

pub fn decode_window(raw: u64, buffer_length: usize) -> Result<Verdict<WindowAction>, BadVerdict> {
    let action = WindowAction::from_code(raw as u8).ok_or(BadVerdict::UnknownAction(raw as u8))?;
    let text = (action != WindowAction::Continue).then_some((1, limits::TEXT_BYTES_MAX));
    plain(action, raw, text, buffer_length)
}

/// The text of `Replace` is the new value, which may be empty.
pub fn decode_record(raw: u64, buffer_length: usize) -> Result<Verdict<RecordAction>, BadVerdict> {
    let action = RecordAction::from_code(raw as u8).ok_or(BadVerdict::UnknownAction(raw as u8))?;
    let text = (action == RecordAction::Replace).then_some((0, limits::BUFFER_BYTES_MAX));
    plain(action, raw, text, buffer_length)
}

/// What `cf_configure` answered: `None` accepted, or the length of the reason at the start of the exchange buffer.
pub fn decode_configure(raw: i32, buffer_length: usize) -> Result<Option<usize>, BadVerdict> {
    match u32::try_from(raw) {
        Ok(0) => Ok(None),
        Ok(length) if length as usize <= buffer_length.min(limits::TEXT_BYTES_MAX) => Ok(Some(length as usize)),
        Ok(length) => Err(BadVerdict::TextTooLong { length, limit: buffer_length.min(limits::TEXT_BYTES_MAX) }),
        Err(_) => Err(BadVerdict::UnknownAction(raw as u8)),
    }
}

fn plain<A>(action: A, raw: u64, text: Option<(u32, usize)>, buffer: usize) -> Result<Verdict<A>, BadVerdict> {
    let packed = Packed(raw);
    if packed.memo_scope() != 0 || packed.memo_prefix() != 0 {
        return Err(BadVerdict::BadMemo { scope: packed.memo_scope(), prefix: packed.memo_prefix() });
    }
    Ok(Verdict { action, memo: Memo::None, text_length: text_length(packed, text, buffer)? })
}

/// `allowed` is the least and greatest length, or `None` where the action has no text.
#[inline]
fn text_length(packed: Packed, allowed: Option<(u32, usize)>, buffer: usize) -> Result<usize, BadVerdict> {
    if packed.reserved() != 0 {
        return Err(BadVerdict::ReservedBits(packed.reserved()));
    }
    let length = packed.text_length();
    let Some((least, most)) = allowed else {
        return if length == 0 { Ok(0) } else { Err(BadVerdict::TextUnexpected(length)) };
    };
    let limit = most.min(buffer);
    match length {
        short if short < least => Err(BadVerdict::TextMissing),
        long if long as usize > limit => Err(BadVerdict::TextTooLong { length: long, limit }),
        right => Ok(right as usize),
    }
}
