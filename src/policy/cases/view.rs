//! Builds the view that a recorded case describes, exactly as described: nothing is cut and no flag is set automatically.

use super::fields::{Fields, bytes};
use crate::abi;
use crate::host::CaseFrame;
use abi::{
    Authority, Class, Encoding, Hook, Phase, Protocol, Purpose, RecordType, ReplyKind, VIEW_VERSION, flags, layout,
    limits,
};

/// The bytes for the guest's buffer, and the frames that `frame_read` reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub bytes: Vec<u8>,
    frames: Vec<(u32, Vec<u8>)>,
}

impl View {
    pub fn frames(&self) -> Vec<CaseFrame<'_>> {
        self.frames.iter().map(|(which, bytes)| (*which, bytes.as_slice())).collect()
    }
}

pub(super) fn view(hook: Hook, fields: Fields) -> Result<View, String> {
    match hook {
        Hook::Request => {
            let (bytes, frame) = request(fields)?;
            Ok(View { bytes, frames: vec![(layout::FRAME_REQUEST, frame)] })
        }
        Hook::Pair => pair(fields),
        Hook::Window => Ok(View { bytes: window(fields)?, frames: Vec::new() }),
        Hook::Record => record(fields),
    }
}

/// The words of an enum of the ABI and their numbers.
macro_rules! words {
    ($kind:ident) => {
        &$kind::ALL.iter().map(|known| (known.word(), known.code())).collect::<Vec<_>>()
    };
}

const REQUEST_FLAGS: &[(&str, u32)] = &[
    ("keys_cut", flags::REQUEST_KEYS_CUT),
    ("frame_cut", flags::REQUEST_FRAME_CUT),
    ("unordered", flags::REQUEST_UNORDERED),
    ("field_pairs", flags::REQUEST_FIELD_PAIRS),
    ("floats", flags::REQUEST_FLOATS),
    ("ttl_seconds", flags::REQUEST_TTL_SECONDS),
    ("ttl_millis", flags::REQUEST_TTL_MILLIS),
    ("nondeterministic", flags::REQUEST_NONDETERMINISTIC),
    ("in_transaction", flags::REQUEST_IN_TRANSACTION),
];
const PAIR_FLAGS: &[(&str, u32)] = &[
    ("source_cut", flags::PAIR_SOURCE_CUT),
    ("target_cut", flags::PAIR_TARGET_CUT),
    ("digests", flags::PAIR_DIGESTS),
    ("raced", flags::PAIR_RACED),
];
const WINDOW_FLAGS: &[(&str, u32)] = &[
    ("flipped", flags::WINDOW_FLIPPED),
    ("paused", flags::WINDOW_PAUSED),
    ("phase_changed", flags::WINDOW_PHASE_CHANGED),
];
const RECORD_FLAGS: &[(&str, u32)] = &[("value_cut", flags::RECORD_VALUE_CUT), ("key_cut", flags::RECORD_KEY_CUT)];

/// The fixed fields, followed by the parts.
struct Writer(Vec<u8>);

impl Writer {
    fn new(hook: Hook, fixed: usize) -> Self {
        let mut writer = Self(vec![0; fixed]);
        writer.put(layout::VERSION, VIEW_VERSION.to_le_bytes());
        writer.put(layout::KIND, u16::from(hook.code()).to_le_bytes());
        writer
    }

    fn put<const N: usize>(&mut self, at: usize, raw: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&raw);
    }

    fn u8(&mut self, at: usize, value: u8) {
        self.put(at, [value]);
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, value.to_le_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.put(at, value.to_le_bytes());
    }

    /// Lengths fit into 32 bits: a field of a case has at most 16 MiB. A view that is too long for the buffer is an error of the case.
    fn part(&mut self, at: usize, bytes: &[u8]) {
        self.u32(at, self.0.len() as u32);
        self.u32(at + 4, bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        self.u32(layout::LENGTH, self.0.len() as u32);
        self.0
    }
}

/// The view and the whole frame.
fn request(mut f: Fields) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut w = Writer::new(Hook::Request, layout::REQUEST_FIXED);
    w.u8(layout::REQUEST_PROTOCOL, f.code("protocol", Protocol::Redis.code(), words!(Protocol))?);
    w.u8(layout::REQUEST_CLASS, f.code("class", Class::Read.code(), words!(Class))?);
    w.u8(layout::REQUEST_PHASE, f.code("phase", Phase::Compare.code(), words!(Phase))?);
    w.u8(layout::REQUEST_AUTHORITY, f.code("authority", Authority::Source.code(), words!(Authority))?);
    w.u32(layout::REQUEST_FLAGS, f.flags(REQUEST_FLAGS)?);
    w.u64(layout::REQUEST_CLIENT, f.number("client", 0)?);
    let frame = f.bytes("frame", b"")?;
    w.u64(layout::REQUEST_SIZE, f.number("size", frame.len() as u64)?);
    w.u32(layout::REQUEST_SAMPLE, f.short("sample", 0)?);
    let place = f.named("keys");
    let keys = f.list("keys")?.into_iter().enumerate();
    let keys = keys.map(|(at, key)| bytes(key, &format!("{place}[{at}]"))).collect::<Result<Vec<_>, _>>()?;
    w.u32(layout::REQUEST_KEY_COUNT, f.short("key_count", keys.len() as u32)?);
    w.part(layout::REQUEST_DATABASE, &f.bytes("database", b"0")?);
    w.part(layout::REQUEST_COMMAND, &f.bytes("command", b"")?);
    let table = w.0.len();
    w.part(layout::REQUEST_KEYS, &vec![0; keys.len() * 8]);
    for (at, key) in keys.iter().enumerate() {
        w.part(table + at * 8, key);
    }
    w.part(layout::REQUEST_FRAME, &frame[..frame.len().min(limits::FRAME_BYTES_MAX)]);
    f.end()?;
    Ok((w.finish(), frame))
}

fn pair(mut f: Fields) -> Result<View, String> {
    let mut w = Writer::new(Hook::Pair, layout::PAIR_FIXED);
    let (request, frame) = request(f.object("request")?)?;
    w.part(layout::PAIR_REQUEST, &request);
    w.u32(layout::PAIR_FLAGS, f.flags(PAIR_FLAGS)?);
    let mut frames = vec![(layout::FRAME_REQUEST, frame)];
    let mut side = |name: &str, which: u32, [kind, length, digest, latency, content]: [usize; 5]| {
        let mut reply = f.object(name)?;
        let bytes = reply.bytes("bytes", b"")?;
        w.u8(kind, reply.code("kind", ReplyKind::Value.code(), words!(ReplyKind))?);
        w.u64(length, reply.number("length", bytes.len() as u64)?);
        w.u64(digest, reply.number("digest", 0)?);
        w.u32(latency, reply.short("latency_us", 0)?);
        w.part(content, &bytes);
        frames.push((which, bytes));
        reply.end()
    };
    let source = [
        layout::PAIR_SOURCE_KIND,
        layout::PAIR_SOURCE_LENGTH,
        layout::PAIR_SOURCE_DIGEST,
        layout::PAIR_SOURCE_LATENCY_US,
        layout::PAIR_SOURCE_BYTES,
    ];
    side("source", layout::FRAME_SOURCE_REPLY, source)?;
    let target = [
        layout::PAIR_TARGET_KIND,
        layout::PAIR_TARGET_LENGTH,
        layout::PAIR_TARGET_DIGEST,
        layout::PAIR_TARGET_LATENCY_US,
        layout::PAIR_TARGET_BYTES,
    ];
    side("target", layout::FRAME_TARGET_REPLY, target)?;
    f.end()?;
    Ok(View { bytes: w.finish(), frames })
}

fn window(mut f: Fields) -> Result<Vec<u8>, String> {
    let mut w = Writer::new(Hook::Window, layout::WINDOW_FIXED);
    w.u8(layout::WINDOW_PHASE, f.code("phase", Phase::Compare.code(), words!(Phase))?);
    w.u8(layout::WINDOW_AUTHORITY, f.code("authority", Authority::Source.code(), words!(Authority))?);
    w.u32(layout::WINDOW_FLAGS, f.flags(WINDOW_FLAGS)?);
    w.u64(layout::WINDOW_AT_MS, f.number("at_ms", 0)?);
    w.u32(layout::WINDOW_LENGTH_MS, f.short("length_ms", 1000)?);
    w.u32(layout::WINDOW_PHASE_SECONDS, f.short("phase_seconds", 0)?);
    let mut side = |name: &str, [requests, errors, p50, p99]: [usize; 4]| {
        let mut side = f.object(name)?;
        w.u64(requests, side.number("requests", 0)?);
        w.u64(errors, side.number("errors", 0)?);
        w.u32(p50, side.short("p50_us", 0)?);
        w.u32(p99, side.short("p99_us", 0)?);
        side.end()
    };
    let source = [
        layout::WINDOW_SOURCE_REQUESTS,
        layout::WINDOW_SOURCE_ERRORS,
        layout::WINDOW_SOURCE_P50_US,
        layout::WINDOW_SOURCE_P99_US,
    ];
    side("source", source)?;
    let target = [
        layout::WINDOW_TARGET_REQUESTS,
        layout::WINDOW_TARGET_ERRORS,
        layout::WINDOW_TARGET_P50_US,
        layout::WINDOW_TARGET_P99_US,
    ];
    side("target", target)?;
    for (name, at) in [
        ("shadow_lag_us", layout::WINDOW_SHADOW_LAG_US),
        ("queue_depth", layout::WINDOW_QUEUE_DEPTH),
        ("dirty", layout::WINDOW_DIRTY),
        ("in_flight", layout::WINDOW_IN_FLIGHT),
        ("compared", layout::WINDOW_COMPARED),
        ("divergences_new", layout::WINDOW_DIVERGENCES_NEW),
        ("divergences_total", layout::WINDOW_DIVERGENCES_TOTAL),
    ] {
        w.u64(at, f.number(name, 0)?);
    }
    w.u32(layout::WINDOW_READ_SHARE, f.short("read_share", 0)?);
    w.u32(layout::WINDOW_WRITE_SHARE, f.short("write_share", 0)?);
    w.part(layout::WINDOW_MIGRATION, &f.bytes("migration", b"")?);
    f.end()?;
    Ok(w.finish())
}

fn record(mut f: Fields) -> Result<View, String> {
    let mut w = Writer::new(Hook::Record, layout::RECORD_FIXED);
    w.u8(layout::RECORD_PROTOCOL, f.code("protocol", Protocol::Redis.code(), words!(Protocol))?);
    w.u8(layout::RECORD_TYPE, f.code("type", RecordType::Text.code(), words!(RecordType))?);
    w.u8(layout::RECORD_ENCODING, f.code("encoding", Encoding::Raw.code(), words!(Encoding))?);
    w.u8(layout::RECORD_PURPOSE, f.code("purpose", Purpose::Backfill.code(), words!(Purpose))?);
    w.u32(layout::RECORD_FLAGS, f.flags(RECORD_FLAGS)?);
    w.put(layout::RECORD_TTL_MS, f.signed("ttl_ms", -1)?.to_le_bytes());
    let value = f.bytes("value", b"")?;
    w.u64(layout::RECORD_VALUE_LENGTH, f.number("value_length", value.len() as u64)?);
    w.part(layout::RECORD_DATABASE, &f.bytes("database", b"0")?);
    w.part(layout::RECORD_NAMESPACE, &f.bytes("namespace", b"")?);
    w.part(layout::RECORD_KEY, &f.bytes("key", b"")?);
    w.part(layout::RECORD_VALUE, &value);
    f.end()?;
    Ok(View { bytes: w.finish(), frames: vec![(layout::FRAME_RECORD_VALUE, value)] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(hook: Hook, value: Value) -> View {
        view(hook, Fields::of(value, "view").expect("an object")).expect("a view")
    }

    #[test]
    fn what_is_absent_is_what_the_document_says() {
        let v = of(Hook::Request, json!({}));
        let v = abi::RequestView::read(&v.bytes).expect("a request");
        assert_eq!(
            (v.protocol(), v.class(), v.phase()),
            (Some(Protocol::Redis), Some(Class::Read), Some(Phase::Compare))
        );
        assert_eq!((v.authority(), v.database(), v.key_count(), v.size()), (Some(Authority::Source), &b"0"[..], 0, 0));
        let v = of(Hook::Window, json!({}));
        assert_eq!(abi::WindowView::read(&v.bytes).expect("a window").length_ms(), 1000);
        let v = of(Hook::Record, json!({}));
        let v = abi::RecordView::read(&v.bytes).expect("a record");
        assert_eq!(
            (v.record_type(), v.encoding(), v.purpose()),
            (RecordType::Text, Encoding::Raw, Some(Purpose::Backfill))
        );
        assert_eq!(v.ttl_ms(), None);
        let v = of(Hook::Pair, json!({}));
        let v = abi::PairView::read(&v.bytes).expect("a pair");
        assert_eq!((v.source().kind, v.target().kind), (ReplyKind::Value, ReplyKind::Value));
        assert!(v.request().is_some());
    }

    #[test]
    fn what_is_there_is_in_its_place() {
        let long = json!({"repeat": "x", "times": 2000});
        let v = of(Hook::Request, json!({"keys": ["a", "bc"], "key_count": 9, "flags": ["keys_cut"], "frame": long}));
        let r = abi::RequestView::read(&v.bytes).expect("a request");
        assert_eq!((r.keys().collect::<Vec<_>>(), r.key_count()), (vec![&b"a"[..], b"bc"], 9));
        assert_eq!((r.flags(), r.frame().len(), r.size()), (flags::REQUEST_KEYS_CUT, 1024, 2000));
        assert_eq!(v.frames().first().map(|(which, bytes)| (*which, bytes.len())), Some((0, 2000)));
        let v = of(
            Hook::Pair,
            json!({"flags": ["raced"], "source": {"kind": "set", "digest": 7, "bytes": "~0\r\n"}, "target": {"length": 99}}),
        );
        let p = abi::PairView::read(&v.bytes).expect("a pair");
        assert_eq!((p.source().kind, p.source().digest, p.source().bytes), (ReplyKind::Set, 7, &b"~0\r\n"[..]));
        assert_eq!((p.target().length, p.has(flags::PAIR_RACED)), (99, true));
        let v = of(Hook::Record, json!({"ttl_ms": 5, "type": "row", "encoding": "json", "value": "{}"}));
        assert_eq!(abi::RecordView::read(&v.bytes).expect("a record").ttl_ms(), Some(5));
    }

    #[test]
    fn every_flag_of_the_abi_has_its_word() {
        assert_eq!(REQUEST_FLAGS.iter().fold(0, |all, (_, bit)| all | bit), flags::REQUEST_ALL);
    }

    #[test]
    fn errors_say_which_field() {
        let said = |hook, value| view(hook, Fields::of(value, "view").expect("an object")).expect_err("wrong");
        assert!(said(Hook::Request, json!({"comand": "GET"})).contains("view.comand"));
        assert!(said(Hook::Request, json!({"class": "reads"})).contains("view.class: \"reads\" is not one of read"));
        assert!(said(Hook::Request, json!({"keys": [1]})).contains("view.keys[0]"));
        assert!(said(Hook::Pair, json!({"source": {"kin": 1}})).contains("view.source.kin"));
        assert!(said(Hook::Pair, json!({"request": {"sample": 4294967296u64}})).contains("view.request.sample"));
        assert!(said(Hook::Window, json!({"flags": ["odd"]})).contains("view.flags"));
    }
}
