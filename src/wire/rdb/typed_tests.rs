//! The decoder of values on bodies built by hand: every type, every cut, any bytes.

use proptest::prelude::*;

use super::samples_tests::values;
use super::typed::{Element, StreamId, TypedError, elements, score_text};
use super::{Corrupt, Dialect};

/// Each element in a few words.
fn text(element: &Element<'_>) -> String {
    let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match element {
        Element::String(value) | Element::Item(value) | Element::Member(value) => word(value),
        Element::Scored { member, score } => format!("{}={}", word(member), score_text(*score)),
        Element::Field { field, value, expire_at_ms: None } => format!("{}={}", word(field), word(value)),
        Element::Field { field, value, expire_at_ms: Some(at) } => format!("{}={}@{at}", word(field), word(value)),
        Element::Entry { id, fields } => {
            let fields: Vec<String> = fields.iter().map(|(f, v)| format!("{}={}", word(f), word(v))).collect();
            format!("{id} {}", fields.join(" "))
        }
        Element::Stream(s) => {
            format!("{} to {}, deleted {}, added {}", s.length, s.last_id, s.max_deleted_id, s.entries_added)
        }
        Element::Group { name, last_id, entries_read } => format!("group {} {last_id} {entries_read:?}", word(name)),
        Element::Consumer { name, seen_at_ms, active_at_ms } => {
            format!("consumer {} {} {active_at_ms:?}", word(name), seen_at_ms % 1000)
        }
        Element::Pending { id, delivered_at_ms, deliveries } => format!("{id} {} {deliveries}", delivered_at_ms % 1000),
    }
}

fn decode(dialect: Dialect, kind: u8, body: &[u8]) -> Result<Vec<String>, TypedError> {
    elements(dialect, kind, body)?.map(|element| element.map(|e| text(&e)).map_err(TypedError::Corrupt)).collect()
}

fn expected(kind: u8) -> Vec<&'static [&'static str]> {
    match kind {
        0 => vec![&["hello"], &["x*300"], &["5"], &["-32768"], &["-2147483648"], &["aaaaaaaaaa"], &["ab"]],
        1 => vec![&["a", "b"]],
        2 => vec![&["a", "", "aaaaaaaaaa"]],
        4 => vec![&["f=v", "g=aaaaaaaaaa"]],
        5 => vec![&["a=1.5", "b=-inf"]],
        9 => vec![&["foo=bar", "hello=world"]],
        10 | 14 => vec![&["a", "2"]],
        11 => vec![&["-1", "1", "7"]],
        12 | 13 => vec![&["a=2"]],
        16 => vec![&["f=v", "g=7"]],
        17 => vec![&["a=1", "b=2.5"]],
        18 => vec![&["a", "9", "one large element"]],
        20 => vec![&["a", "12", "b"]],
        22 | 24 => vec![&["f=v@1900000000000", "g=w"]],
        25 => vec![&["f=v@19", "g=w"]],
        15 => vec![&[
            "5-1 f=v",
            "5-3 f=w",
            "2 to 5-3, deleted 0-0, added 2",
            "group readers 5-3 None",
            "consumer alice 1 None",
            "5-1 0 1",
            "5-3 0 70",
            "consumer aaaaaaaaaa 1 None",
            "group idle 0-0 None",
        ]],
        19 => vec![&[
            "5-1 f=v",
            "5-3 f=w",
            "2 to 5-3, deleted 5-2, added 3",
            "group readers 5-3 Some(3)",
            "consumer alice 1 None",
            "5-1 0 1",
            "5-3 0 70",
            "consumer aaaaaaaaaa 1 None",
            "group idle 0-0 None",
        ]],
        21 => vec![&[
            "5-1 f=v",
            "5-3 f=w",
            "2 to 5-3, deleted 5-2, added 3",
            "group readers 5-3 Some(3)",
            "consumer alice 1 Some(1700000000002)",
            "5-1 0 1",
            "5-3 0 70",
            "consumer aaaaaaaaaa 1 Some(1700000000002)",
            "group idle 0-0 None",
        ]],
        _ => vec![],
    }
}

#[test]
fn every_type_gives_its_elements() {
    let mut seen = [0; 256];
    for (dialect, kind, body) in values() {
        let dialect = dialect.unwrap_or(Dialect::Redis);
        let Some(list) = expected(kind).get(seen[usize::from(kind)]).map(|list| list.to_vec()) else { continue };
        seen[usize::from(kind)] += 1;
        let found = decode(dialect, kind, &body).unwrap_or_else(|error| panic!("type {kind}: {error}"));
        let found: Vec<String> =
            found.into_iter().map(|t| if t == "x".repeat(300) { "x*300".to_owned() } else { t }).collect();
        assert_eq!(found, list, "type {kind}");
    }
    for kind in (0..=25).filter(|kind| !expected(*kind).is_empty()) {
        assert_eq!(seen[usize::from(kind)], expected(kind).len(), "type {kind}");
    }
}

#[test]
fn scores_of_the_old_form_are_read() {
    let body = b"\x03\x01a\x031.5\x01b\xfe\x01c\xff";
    assert_eq!(decode(Dialect::Redis, 3, body).unwrap(), ["a=1.5", "b=inf", "c=-inf"]);
    assert!(decode(Dialect::Redis, 3, b"\x01\x01a\xfd").is_err(), "NaN is no score");
    assert!(decode(Dialect::Redis, 3, b"\x01\x01a\x01x").is_err());
}

#[test]
fn no_part_of_a_value_decodes_as_the_whole() {
    for (dialect, kind, body) in values() {
        let dialect = dialect.unwrap_or(Dialect::Redis);
        if matches!(kind, 3 | 7) {
            continue;
        }
        for cut in 0..body.len() {
            assert!(decode(dialect, kind, &body[..cut]).is_err(), "type {kind} cut at {cut}");
        }
        let longer = [&body[..], b"\x00"].concat();
        assert!(decode(dialect, kind, &longer).is_err(), "type {kind} with a byte more");
    }
}

#[test]
fn types_without_commands_are_named() {
    for (dialect, kind) in
        [(Dialect::Redis, 7), (Dialect::Redis, 22), (Dialect::Valkey, 24), (Dialect::Valkey, 25), (Dialect::Redis, 99)]
    {
        let error = elements(dialect, kind, b"\x00").map(|_| ()).unwrap_err();
        assert_eq!(error, TypedError::UnknownType { type_byte: kind, dialect });
    }
    assert_eq!(
        decode(Dialect::Redis, 18, b"\x01\x03\x00"),
        Err(TypedError::Corrupt(Corrupt("a node of a list is of a kind that RDB does not define")))
    );
}

#[test]
fn scores_are_written_so_that_they_are_read_back() {
    for (score, text) in
        [(17.0, "17"), (0.1, "0.1"), (-7.5, "-7.5"), (1e300, "1e300"), (-0.0, "-0"), (f64::INFINITY, "inf")]
    {
        assert_eq!(score_text(score), text);
    }
    assert_eq!(StreamId { ms: 5, sequence: 1 }.to_string(), "5-1");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in 0u8..26, body: Vec<u8>, valkey: bool) {
        let _ = decode(if valkey { Dialect::Valkey } else { Dialect::Redis }, kind, &body);
    }

    #[test]
    fn no_damage_makes_it_panic(which: proptest::sample::Index, changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)) {
        let values = values();
        let (dialect, kind, mut body) = values[which.index(values.len())].clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = decode(dialect.unwrap_or(Dialect::Redis), kind, &body);
    }

    #[test]
    fn any_score_is_read_back(bits: u64) {
        let score = f64::from_bits(bits);
        prop_assume!(!score.is_nan());
        prop_assert_eq!(score_text(score).parse::<f64>().unwrap().to_bits(), bits);
    }
}

#[test]
fn a_stream_of_a_newer_server_becomes_one_of_an_older() {
    let of_type = |wanted: u8| {
        let found = super::samples_tests::values().into_iter().find(|(_, type_byte, _)| *type_byte == wanted);
        found.expect("a sample").2
    };
    let newer = of_type(super::STREAM_3);
    assert_eq!(super::to_stream_2(&newer), Ok(of_type(super::STREAM_2)));
    for cut in 0..newer.len() {
        assert!(super::to_stream_2(&newer[..cut]).is_err(), "cut at {cut}");
    }
}
