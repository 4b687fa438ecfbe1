//! The splitter on snapshots built by hand: every type and opcode, every split point, every fault.

use proptest::prelude::*;

use super::samples_tests::{LZF, length, snapshot, string, values};
use super::splitter::{Checksum, Fault, Item, RecordHead, Sizes, SplitError, Splitter};
use super::{Dialect, Version, crc64};

const BOTH: [Dialect; 2] = [Dialect::Redis, Dialect::Valkey];
const WHOLE: Sizes = Sizes { key_bytes_max: 1 << 20, whole_bytes_max: 1 << 20 };

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    key: Vec<u8>,
    kind: u8,
    expire_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
    body: Vec<u8>,
    in_pieces: bool,
}

/// An item on its own, with the pieces of a large value put together.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    Record(Record),
    Other(String),
}

fn record(head: &RecordHead<'_>, body: &[u8], in_pieces: bool) -> Record {
    let &RecordHead { key, type_byte, expire_at_ms, idle_s, freq } = head;
    Record { key: key.to_vec(), kind: type_byte, expire_at_ms, idle_s, freq, body: body.to_vec(), in_pieces }
}

/// Feeds the chunks; gives the items, the error if there was one, and whether the end was reached.
fn split<'a>(chunks: impl Iterator<Item = &'a [u8]>, sizes: Sizes) -> (Vec<Owned>, Option<SplitError>, bool) {
    let mut splitter = Splitter::new(sizes);
    let mut items = Vec::new();
    let mut large: Option<Record> = None;
    for mut chunk in chunks {
        loop {
            match splitter.next(&mut chunk) {
                Ok(None) => break,
                Ok(Some(Item::Record { head, body })) => items.push(Owned::Record(record(&head, body, false))),
                Ok(Some(Item::RecordBegin(head))) => large = Some(record(&head, b"", true)),
                Ok(Some(Item::RecordBytes(bytes))) => {
                    assert!(!bytes.is_empty() && bytes.len() <= sizes.whole_bytes_max);
                    large.as_mut().expect("begun").body.extend_from_slice(bytes);
                }
                Ok(Some(Item::RecordEnd)) => items.push(Owned::Record(large.take().expect("begun"))),
                Ok(Some(other)) => items.push(Owned::Other(format!("{other:?}"))),
                Err(error) => {
                    assert_eq!(splitter.next(&mut chunk), Err(error.clone()), "an error is final");
                    return (items, Some(error), false);
                }
            }
        }
        assert!(chunk.is_empty() || splitter.is_ended(), "all bytes are used");
    }
    (items, None, splitter.is_ended())
}

fn whole(bytes: &[u8], sizes: Sizes) -> Vec<Owned> {
    let (items, error, ended) = split(std::iter::once(bytes), sizes);
    assert_eq!((error, ended), (None, true));
    items
}

fn fault(bytes: &[u8]) -> SplitError {
    split(std::iter::once(bytes), WHOLE).1.expect("a fault")
}

#[test]
fn every_item_of_a_snapshot_is_found() {
    for dialect in BOTH {
        let items = whole(&snapshot(dialect), WHOLE);
        let expected: Vec<_> =
            values().into_iter().enumerate().filter(|(_, v)| v.0.is_none_or(|d| d == dialect)).collect();
        let records: Vec<&Record> = items
            .iter()
            .filter_map(|item| match item {
                Owned::Record(record) => Some(record),
                Owned::Other(_) => None,
            })
            .collect();
        assert_eq!(records.len(), expected.len());
        for (record, (at, (_, kind, body))) in records.iter().zip(expected) {
            assert_eq!((record.kind, &record.body), (kind, &body), "value {at}");
            let key = [format!("key:{at}"), format!("{}", at as i8), "aaaaaaaaaa".to_owned()];
            assert_eq!(record.key, key[at % 3].as_bytes());
            let meta = (record.expire_at_ms, record.idle_s, record.freq);
            let expected_meta = match at % 4 {
                1 => (Some(1_900_000_000_123), Some(70), None),
                2 => (Some(1_900_000_000_000), None, Some(200)),
                _ => (None, None, None),
            };
            assert_eq!(meta, expected_meta, "value {at}");
        }
        let others: Vec<&str> = items
            .iter()
            .filter_map(|item| match item {
                Owned::Other(text) => Some(text.as_str()),
                Owned::Record(_) => None,
            })
            .collect();
        let number = if dialect == Dialect::Redis { 12 } else { 80 };
        let mut expected = vec![
            format!("{:?}", Item::Header(Version { dialect, number })),
            format!("{:?}", Item::Aux { key: b"redis-ver".into(), value: b"7.4.0".into() }),
            format!("{:?}", Item::Aux { key: b"aaaaaaaaaa".into(), value: b"64".into() }),
            format!("{:?}", Item::ModuleAux { name: "ReJSON-RL".to_owned() }),
            format!("{:?}", Item::Function { body: &string(b"#!lua name=l\n") }),
        ];
        if dialect == Dialect::Valkey {
            expected.push(format!("{:?}", Item::SlotImport { job: b"import".into() }));
        }
        expected.push(format!("{:?}", Item::SelectDb(3)));
        expected.push(format!("{:?}", Item::ResizeDb { keys: 1000, expires: 2 }));
        expected.push(format!("{:?}", Item::SlotInfo { slot: 1, keys: 2, expires: 3 }));
        expected.push(format!("{:?}", Item::End(Checksum::Matches)));
        assert_eq!(others, expected);
    }
}

#[test]
fn every_split_point_gives_the_same_items() {
    for dialect in BOTH {
        let bytes = snapshot(dialect);
        for whole_bytes_max in [1, 20, 1 << 20] {
            let sizes = Sizes { whole_bytes_max, ..WHOLE };
            let expected = whole(&bytes, sizes);
            for cut in 0..=bytes.len() {
                let (items, error, ended) = split([&bytes[..cut], &bytes[cut..]].into_iter(), sizes);
                assert_eq!((error, ended), (None, true), "cut at {cut}");
                assert!(items == expected, "cut at {cut}, {whole_bytes_max} bytes whole");
            }
            for chunk in 1..40 {
                let (items, error, ended) = split(bytes.chunks(chunk), sizes);
                assert_eq!((error, ended), (None, true), "chunks of {chunk}");
                assert!(items == expected, "chunks of {chunk}, {whole_bytes_max} bytes whole");
            }
        }
    }
}

#[test]
fn a_value_comes_in_pieces_exactly_when_it_is_longer_than_allowed() {
    for (max, in_pieces) in [(5, true), (6, false)] {
        let items = whole(&snapshot(Dialect::Redis), Sizes { whole_bytes_max: max, ..WHOLE });
        let first = items.iter().find_map(|item| match item {
            Owned::Record(record) => Some(record),
            Owned::Other(_) => None,
        });
        assert_eq!(first.map(|r| (r.body.as_slice(), r.in_pieces)), Some((&b"\x05hello"[..], in_pieces)));
    }
}

#[test]
fn a_truncated_snapshot_needs_more_and_does_not_end() {
    for dialect in BOTH {
        let bytes = snapshot(dialect);
        for cut in 0..bytes.len() {
            let (_, error, ended) = split(std::iter::once(&bytes[..cut]), WHOLE);
            assert_eq!((error, ended), (None, false), "cut at {cut}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_left() {
    let mut bytes = snapshot(Dialect::Redis);
    let len = bytes.len();
    bytes.extend_from_slice(b"*1\r\n");
    let mut splitter = Splitter::new(WHOLE);
    let mut rest = bytes.as_slice();
    while splitter.next(&mut rest).unwrap().is_some() {}
    assert_eq!((rest, splitter.consumed(), splitter.is_ended()), (&b"*1\r\n"[..], len as u64, true));
}

#[test]
fn every_flipped_bit_of_a_value_is_found_by_the_checksum() {
    let good = [&b"REDIS0010\xfe\x00\x00\x01k\x05hello\xff"[..]].concat();
    let end = |crc: u64| [&good[..], &crc.to_le_bytes()].concat();
    let crc = crc64::checksum(&good);
    assert_eq!(whole(&end(crc), WHOLE).last(), Some(&Owned::Other("End(Matches)".to_owned())));
    assert_eq!(whole(&end(0), WHOLE).last(), Some(&Owned::Other("End(Disabled)".to_owned())));
    assert_eq!(fault(&end(1)).fault, Fault::Checksum { stored: 1, computed: crc });
    for bit in 0..5 * 8 {
        let mut bytes = end(crc);
        bytes[15 + bit / 8] ^= 1 << (bit % 8);
        let error = fault(&bytes);
        assert!(matches!(error.fault, Fault::Checksum { .. }), "{error}");
    }
}

#[test]
fn a_fault_is_named_with_type_key_and_version() {
    let table: &[(&[u8], &str)] = &[
        (
            b"*3\r\n$3\r\nS",
            "the stream is no RDB: it begins neither with REDIS nor with VALKEY; in what begins at byte 0",
        ),
        (b"REDIS00x1", "the stream is no RDB: it begins neither with REDIS nor with VALKEY; in what begins at byte 0"),
        (b"REDIS0013", "this build does not read this version; in what begins at byte 0 of RDB version 13 of Redis"),
        (b"VALKEY081", "this build does not read this version; in what begins at byte 0 of RDB version 81 of Valkey"),
        (
            b"REDIS0011\x16\x03cart",
            "this build does not know value type 22; in what begins at byte 9 of RDB version 11 of Redis, key \"car\"",
        ),
        (
            b"VALKEY080\x18\x03cart",
            "this build does not know value type 24; in what begins at byte 9 of RDB version 80 of Valkey, key \"car\"",
        ),
        (
            b"REDIS0011\x08\xc9",
            "this build does not know value type 8; in what begins at byte 9 of RDB version 11 of Redis",
        ),
        (b"REDIS0012\xf3", "this build does not know opcode 243; in what begins at byte 9 of RDB version 12 of Redis"),
        (
            b"REDIS0012\x00\x01k\x01v\xf6",
            "this build does not know opcode 246; in what begins at byte 14 of RDB version 12 of Redis, key \"k\"",
        ),
        (
            b"REDIS0012\x00\x01k\x90",
            "corrupt: the first byte of a length is none that RDB defines; in what begins at byte 9 of RDB version 12 of Redis, key \"k\"",
        ),
        (
            b"REDIS0012\x02\x01k\xc0",
            "corrupt: an encoded string where a number was expected; in what begins at byte 9 of RDB version 12 of Redis, key \"k\"",
        ),
        (
            b"REDIS0012\x07\x01k\x05\x06",
            "corrupt: a module's value has a part of a kind that RDB does not define; in what begins at byte 9 of RDB version 12 of Redis, key \"k\"",
        ),
    ];
    for (bytes, text) in table {
        assert_eq!(fault(bytes).to_string(), *text);
    }
}

#[test]
fn false_lengths_reserve_nothing() {
    let huge = b"\x81\xff\xff\xff\xff\xff\xff\xff\xff";
    for (kind, before) in [(0u8, &b""[..]), (2, &[]), (4, b"\x01"), (15, &[]), (18, b"\x01\x02"), (9, &[])] {
        let bytes = [b"REDIS0011", &[kind][..], b"\x01k", before, huge, b"rest"].concat();
        let mut splitter = Splitter::new(WHOLE);
        let mut rest = bytes.as_slice();
        assert!(matches!(splitter.next(&mut rest), Ok(Some(Item::Header(_)))));
        assert_eq!(splitter.next(&mut rest), Ok(None), "type {kind}");
    }
    // An expanded length far above what the bytes can give.
    let key = [&b"REDIS0011\x00\xc3\x01"[..], huge, b"x"].concat();
    assert!(matches!(fault(&key).fault, Fault::Corrupt(_)));
}

#[test]
fn a_long_key_and_a_long_operand_are_refused() {
    let sizes = Sizes { key_bytes_max: 8, ..WHOLE };
    for (key, fits) in [
        (string(b"12345678"), true),
        (string(b"123456789"), false),
        (string(&[b'k'; 100]), false),
        (LZF.to_vec(), false),
    ] {
        let bytes = [b"REDIS0011\x00", &key[..], b"\x01v"].concat();
        let (items, error, _) = split(std::iter::once(&bytes[..]), sizes);
        assert_eq!(items.len(), 1 + usize::from(fits));
        assert_eq!(error.map(|e| e.fault), (!fits).then_some(Fault::KeyTooLong { max: 8 }));
    }
    let max = base::model::limits::RDB_OPERAND_BYTES_MAX;
    let bytes = [b"REDIS0011\xf5", &length(max as u64)[..], &vec![b'-'; max]].concat();
    assert_eq!(fault(&bytes).fault, Fault::OperandTooLong { opcode: 245, max });
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, chunk in 1usize..20, valkey: bool) {
        let magic: &[u8] = if valkey { b"VALKEY080" } else { b"REDIS0012" };
        let _ = split(bytes.chunks(chunk), WHOLE);
        let bytes = [magic, &bytes].concat();
        let expected = split(std::iter::once(&bytes[..]), WHOLE);
        prop_assert_eq!(split(bytes.chunks(chunk), WHOLE), expected);
    }

    #[test]
    fn a_damaged_snapshot_is_judged_the_same_however_it_is_cut(
        at: proptest::sample::Index, byte: u8, chunk in 1usize..50, whole_bytes_max in 1usize..100, valkey: bool,
    ) {
        let mut bytes = snapshot(if valkey { Dialect::Valkey } else { Dialect::Redis });
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let sizes = Sizes { whole_bytes_max, ..WHOLE };
        let (items, error, ended) = split(std::iter::once(&bytes[..]), sizes);
        let (other_items, other_error, other_ended) = split(bytes.chunks(chunk), sizes);
        prop_assert_eq!(items, other_items);
        prop_assert_eq!(error, other_error);
        prop_assert_eq!(ended, other_ended);
    }
}
