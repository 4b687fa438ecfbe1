//! What a builder writes a reader reads; no bytes make a reader panic; every verdict survives the crossing; ABI.md agrees.
//!
//! Run with `cargo test -p crossfade-filter-abi --features host`.

use crossfade_filter_abi::host::{self, BadVerdict, Pair, Record, ReplyParts, Request, Window};
use crossfade_filter_abi::*;
use proptest::prelude::*;
use proptest::sample::select;

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=max)
}

fn buffer_length() -> impl Strategy<Value = usize> {
    prop_oneof![Just(limits::BUFFER_BYTES_MIN), Just(65_536_usize), limits::BUFFER_BYTES_MIN..300_000]
}

/// Touches every accessor of every reader.
fn read_all(raw: &[u8]) -> usize {
    let mut seen = 0;
    if let Some(view) = RequestView::read(raw) {
        seen += read_request(&view);
    }
    if let Some(view) = PairView::read(raw) {
        seen += view.request().map_or(0, |request| read_request(&request));
        seen += view.source().bytes.len() + view.target().bytes.len() + view.flags() as usize;
    }
    if let Some(view) = WindowView::read(raw) {
        let _ = (view.phase(), view.authority(), view.source(), view.target(), view.at_ms(), view.length_ms());
        let _ = (view.shadow_lag_us(), view.queue_depth(), view.dirty(), view.in_flight(), view.compared());
        let _ = (view.divergences_new(), view.divergences_total(), view.read_share(), view.write_share());
        seen += view.migration().len() + view.phase_seconds() as usize + usize::from(view.has(1));
    }
    if let Some(view) = RecordView::read(raw) {
        let _ = (view.protocol(), view.record_type(), view.encoding(), view.purpose(), view.ttl_ms());
        seen += view.database().len() + view.namespace().len() + view.key().len() + view.items().count();
        seen += view.value_length() as usize & 1;
    }
    seen
}

fn read_request(view: &RequestView<'_>) -> usize {
    let _ = (view.protocol(), view.class(), view.phase(), view.authority(), view.flags(), view.client(), view.size());
    let _ = (view.sample(), view.key_count());
    view.database().len() + view.command().len() + view.frame().len() + view.keys().map(<[u8]>::len).sum::<usize>()
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(raw in bytes(400)) {
        read_all(&raw);
    }

    /// As above, with a header that is right, so that the readers go on.
    #[test]
    fn no_bytes_behind_a_right_header_make_a_reader_panic(mut raw in bytes(400), kind in 1_u16..=4) {
        if raw.len() >= layout::HEADER {
            let length = raw.len() as u32;
            raw[..2].copy_from_slice(&VIEW_VERSION.to_le_bytes());
            raw[2..4].copy_from_slice(&kind.to_le_bytes());
            raw[4..8].copy_from_slice(&length.to_le_bytes());
        }
        read_all(&raw);
    }

    #[test]
    fn a_request_comes_back(
        codes in (select(Protocol::ALL), select(Class::ALL), select(Phase::ALL), select(Authority::ALL)),
        numbers in (any::<u32>(), any::<u64>(), any::<u32>()),
        names in (bytes(300), bytes(80)),
        keys in prop::collection::vec(bytes(600), 0..300),
        frame in bytes(2000),
        more in 0_u64..5000,
        length in buffer_length(),
    ) {
        let mut out = vec![0xaa; length];
        let size = frame.len() as u64 + more;
        let written = request(codes, numbers, &names, &keys, &frame, size).write(&mut out);
        prop_assert!(out[written..].iter().all(|&byte| byte == 0xaa), "nothing is written behind the view");
        let view = RequestView::read(&out[..written]).expect("a view");
        check_request(&view, codes, numbers, &names, &keys, &frame, size)?;
    }

    #[test]
    fn a_pair_comes_back(
        codes in (select(Protocol::ALL), select(Class::ALL), select(Phase::ALL), select(Authority::ALL)),
        numbers in (any::<u32>(), any::<u64>(), any::<u32>()),
        names in (bytes(300), bytes(80)),
        keys in prop::collection::vec(bytes(60), 0..30),
        replies in (bytes(9000), bytes(9000), select(ReplyKind::ALL), select(ReplyKind::ALL)),
        frame in bytes(2000),
        extra in (any::<Option<(u64, u64)>>(), any::<bool>(), any::<u32>()),
        length in buffer_length(),
    ) {
        let mut out = vec![0xaa; length];
        let size = frame.len() as u64;
        let pair = Pair {
            request: request(codes, numbers, &names, &keys, &frame, size),
            source: reply(replies.2, &replies.0, extra.2),
            target: reply(replies.3, &replies.1, extra.2),
            digests: extra.0,
            raced: extra.1,
        };
        let written = pair.write(&mut out);
        let view = PairView::read(&out[..written]).expect("a view");
        let inner = view.request().expect("a request within");
        prop_assert_eq!(inner.client(), numbers.1);
        prop_assert_eq!(inner.frame(), &frame[..frame.len().min(limits::FRAME_BYTES_MAX)]);
        prop_assert_eq!(view.has(flags::PAIR_RACED), extra.1);
        prop_assert_eq!(view.has(flags::PAIR_DIGESTS), extra.0.is_some());
        for (reply, bytes, kind, bit) in [
            (view.source(), &replies.0, replies.2, flags::PAIR_SOURCE_CUT),
            (view.target(), &replies.1, replies.3, flags::PAIR_TARGET_CUT),
        ] {
            prop_assert_eq!(reply.kind, kind);
            prop_assert_eq!(reply.length, bytes.len() as u64);
            prop_assert!(bytes.starts_with(reply.bytes));
            prop_assert_eq!(view.has(bit), reply.bytes.len() < bytes.len());
            prop_assert!(!view.has(bit) || pair.needs_digests(length));
        }
        if let Some((source, target)) = extra.0 {
            prop_assert_eq!((view.source().digest, view.target().digest), (source, target));
        }
    }

    #[test]
    fn a_window_comes_back(n in prop::array::uniform12(any::<u64>()), m in prop::array::uniform10(any::<u32>()), id in bytes(200)) {
        let window = Window {
            phase: Phase::Migrate, authority: Authority::Target, flags: m[0], at_ms: n[0], length_ms: m[1], phase_seconds: m[2],
            source: Side { requests: n[1], errors: n[2], p50_us: m[3], p99_us: m[4] },
            target: Side { requests: n[3], errors: n[4], p50_us: m[5], p99_us: m[6] },
            shadow_lag_us: n[5], queue_depth: n[6], dirty: n[7], in_flight: n[8], compared: n[9],
            divergences_new: n[10], divergences_total: n[11], read_share: m[7], write_share: m[8], migration: &id,
        };
        let mut out = vec![0; limits::BUFFER_BYTES_MIN];
        let written = window.write(&mut out);
        let view = WindowView::read(&out[..written]).expect("a view");
        prop_assert_eq!((view.phase(), view.authority(), view.flags()), (Some(window.phase), Some(window.authority), m[0]));
        prop_assert_eq!((view.at_ms(), view.length_ms(), view.phase_seconds()), (n[0], m[1], m[2]));
        prop_assert_eq!((view.source(), view.target()), (window.source, window.target));
        prop_assert_eq!((view.shadow_lag_us(), view.queue_depth(), view.dirty(), view.in_flight()), (n[5], n[6], n[7], n[8]));
        prop_assert_eq!((view.compared(), view.divergences_new(), view.divergences_total()), (n[9], n[10], n[11]));
        prop_assert_eq!((view.read_share(), view.write_share()), (m[7], m[8]));
        prop_assert_eq!(view.migration(), &id[..id.len().min(limits::MIGRATION_BYTES_MAX)]);
    }

    #[test]
    fn a_record_comes_back(
        codes in (select(Protocol::ALL), select(RecordType::ALL), select(Encoding::ALL), select(Purpose::ALL)),
        ttl in any::<Option<u64>>(), names in (bytes(300), bytes(600)), key in bytes(3000), value in bytes(6000), more in 0_u64..100,
        length in buffer_length(),
    ) {
        let record = Record {
            protocol: codes.0, record_type: codes.1, encoding: codes.2, purpose: codes.3, ttl_ms: ttl,
            database: &names.0, namespace: &names.1, key: &key, value_length: value.len() as u64 + more, value: &value,
        };
        let mut out = vec![0; length];
        let written = record.write(&mut out);
        let view = RecordView::read(&out[..written]).expect("a view");
        prop_assert_eq!((view.protocol(), view.record_type()), (Some(codes.0), codes.1));
        prop_assert_eq!((view.encoding(), view.purpose()), (codes.2, Some(codes.3)));
        prop_assert_eq!(view.ttl_ms(), ttl.map(|ms| ms.min(i64::MAX as u64)));
        prop_assert!(key.starts_with(view.key()) && value.starts_with(view.value()));
        prop_assert_eq!(view.has(flags::RECORD_KEY_CUT), view.key().len() < key.len());
        prop_assert_eq!(view.has(flags::RECORD_VALUE_CUT), (view.value().len() as u64) < view.value_length());
    }

    #[test]
    fn a_cut_anywhere_is_no_view(cut in 0_usize..1000) {
        let mut out = vec![0; limits::BUFFER_BYTES_MIN];
        let codes = (Protocol::Redis, Class::Read, Phase::Compare, Authority::Source);
        let written = request(codes, (0, 1, 2), &(b"0".to_vec(), b"GET".to_vec()), &[b"k".to_vec()], &[b'f'; 900], 900).write(&mut out);
        prop_assert_eq!(RequestView::read(&out[..cut.min(written)]).is_some(), cut >= written);
    }

    #[test]
    fn a_verdict_never_panics_and_the_right_ones_come_back(raw in any::<u64>(), length in buffer_length(), text in 1_u32..=64) {
        let _ = (host::decode_request(raw, length), host::decode_pair(raw, length), host::decode_window(raw, length));
        let _ = (host::decode_record(raw, length), host::decode_configure(raw as i32, length));
        for memo in [Memo::None, Memo::Command, Memo::KeyPrefix(1), Memo::KeyPrefix(255)] {
            for &action in RequestAction::ALL {
                let text = if action == RequestAction::Refuse { text } else { 0 };
                let decoded = host::decode_request(action.packed().with_text(text).with_memo(memo).0, length);
                prop_assert_eq!(decoded, Ok(host::Verdict { action, memo, text_length: text as usize }));
            }
        }
    }
}

fn reply(kind: ReplyKind, bytes: &[u8], latency_us: u32) -> ReplyParts<'_> {
    ReplyParts { kind, length: bytes.len() as u64, latency_us, bytes }
}

type Codes = (Protocol, Class, Phase, Authority);

fn request<'a>(
    codes: Codes,
    numbers: (u32, u64, u32),
    names: &'a (Vec<u8>, Vec<u8>),
    keys: &'a [Vec<u8>],
    frame: &'a [u8],
    size: u64,
) -> Request<'a, impl Iterator<Item = &'a [u8]> + Clone> {
    Request {
        protocol: codes.0,
        class: codes.1,
        phase: codes.2,
        authority: codes.3,
        flags: numbers.0,
        client: numbers.1,
        sample: numbers.2,
        database: &names.0,
        command: &names.1,
        keys: keys.iter().map(Vec::as_slice),
        size,
        frame,
    }
}

fn check_request(
    view: &RequestView<'_>,
    codes: Codes,
    numbers: (u32, u64, u32),
    names: &(Vec<u8>, Vec<u8>),
    keys: &[Vec<u8>],
    frame: &[u8],
    size: u64,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(view.protocol(), Some(codes.0));
    prop_assert_eq!(view.class(), Some(codes.1));
    prop_assert_eq!(view.phase(), Some(codes.2));
    prop_assert_eq!(view.authority(), Some(codes.3));
    prop_assert_eq!((view.client(), view.sample(), view.size()), (numbers.1, numbers.2, size));
    prop_assert_eq!(view.database(), &names.0[..names.0.len().min(limits::DATABASE_BYTES_MAX)]);
    prop_assert_eq!(view.command(), &names.1[..names.1.len().min(limits::COMMAND_BYTES_MAX)]);
    prop_assert_eq!(view.frame(), &frame[..frame.len().min(limits::FRAME_BYTES_MAX)]);
    prop_assert_eq!(view.key_count() as usize, keys.len());
    let listed: Vec<&[u8]> = view.keys().collect();
    prop_assert!(listed.iter().zip(keys).all(|(listed, key)| *listed == key.as_slice()));
    prop_assert_eq!(view.has(flags::REQUEST_KEYS_CUT), listed.len() < keys.len());
    prop_assert_eq!(view.has(flags::REQUEST_FRAME_CUT), view.frame().len() as u64 != size);
    let cuts = flags::REQUEST_KEYS_CUT | flags::REQUEST_FRAME_CUT;
    prop_assert_eq!(view.flags() & !cuts, numbers.0 & !cuts);
    Ok(())
}

#[test]
fn bad_verdicts_are_named() {
    let refuse = RequestAction::Refuse.packed();
    let table = [
        (0, Err(BadVerdict::UnknownAction(0))),
        (PairAction::Equal.packed().0, Err(BadVerdict::UnknownAction(0x21))),
        (RequestAction::Mirror.packed().0 | 1 << 20, Err(BadVerdict::ReservedBits(1))),
        (RequestAction::Mirror.packed().0 | 3 << 8, Err(BadVerdict::BadMemo { scope: 3, prefix: 0 })),
        (RequestAction::Mirror.packed().0 | 2 << 8, Err(BadVerdict::BadMemo { scope: 2, prefix: 0 })),
        (RequestAction::Mirror.packed().0 | 9 << 12, Err(BadVerdict::BadMemo { scope: 0, prefix: 9 })),
        (RequestAction::Mirror.packed().with_text(1).0, Err(BadVerdict::TextUnexpected(1))),
        (refuse.0, Err(BadVerdict::TextMissing)),
        (refuse.with_text(513).0, Err(BadVerdict::TextTooLong { length: 513, limit: 512 })),
    ];
    for (raw, expected) in table {
        assert_eq!(host::decode_request(raw, 4096), expected, "{raw:#x}");
    }
    let memo = PairAction::Equal.packed().with_memo(Memo::Command).0;
    assert_eq!(host::decode_pair(memo, 4096), Err(BadVerdict::BadMemo { scope: 1, prefix: 0 }));
    let replace = RecordAction::Replace.packed();
    assert!(host::decode_record(replace.0, 4096).is_ok(), "an empty replacement is a value");
    let long = host::decode_record(replace.with_text(4097).0, 4096);
    assert_eq!(long, Err(BadVerdict::TextTooLong { length: 4097, limit: 4096 }));
    assert_eq!(host::decode_configure(0, 4096), Ok(None));
    assert_eq!(host::decode_configure(5, 4096), Ok(Some(5)));
    assert!(host::decode_configure(-1, 4096).is_err() && host::decode_configure(5000, 4096).is_err());
}

/// Every constant of `layout.rs` stands in the document with the same number, and every number there is a constant here.
#[test]
fn the_document_has_the_same_offsets() {
    let offsets = |text: &str, prefix: &str| -> Vec<(String, usize)> {
        text.lines()
            .filter_map(|line| {
                let (name, value) = line.strip_prefix("pub const ")?.split_once(": usize = ")?;
                let name = name.strip_prefix(prefix)?.to_lowercase();
                Some((name, value.split(';').next()?.parse().ok()?))
            })
            .filter(|(name, _)| name != "reserved")
            .collect()
    };
    let code = include_str!("../src/layout.rs");
    let document = include_str!("../../ABI.md");
    for (view, prefix) in
        [("RequestView", "REQUEST_"), ("PairView", "PAIR_"), ("WindowView", "WINDOW_"), ("RecordView", "RECORD_")]
    {
        let section = document.split(&format!("\n### {view}")).nth(1).unwrap_or_else(|| panic!("no section {view}"));
        let section = section.split("\n### ").next().expect("a section");
        let mut rows: Vec<(String, usize)> = section
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                let (at, _, name) = (cells.next()?.parse().ok()?, cells.next()?, cells.next()?);
                Some((name.trim_matches('`').to_owned(), at))
            })
            .filter(|(name, _)| name != "reserved" && name != "version" && name != "kind" && name != "length")
            .collect();
        let fixed = section.split(" bytes fixed").next().and_then(|head| head.rsplit(' ').next()?.parse().ok());
        rows.push(("fixed".to_owned(), fixed.expect("the heading tells the fixed length")));
        rows.sort();
        let mut expected = offsets(code, prefix);
        expected.sort();
        assert_eq!(rows, expected, "{view} in ABI.md and layout.rs");
    }
}
