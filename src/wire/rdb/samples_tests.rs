//! Snapshots built by hand for the tests: every value type, every opcode.

use super::{Dialect, crc64};

/// A length in its shortest form.
pub(super) fn length(value: u64) -> Vec<u8> {
    match value {
        0..=0x3f => vec![value as u8],
        0x40..=0x3fff => vec![0x40 | (value >> 8) as u8, value as u8],
        0x4000..=0xffff_ffff => [&[0x80], &(value as u32).to_be_bytes()[..]].concat(),
        _ => [&[0x81], &value.to_be_bytes()[..]].concat(),
    }
}

pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    [length(bytes.len() as u64), bytes.to_vec()].concat()
}

/// Ten times `a`, compressed.
pub(super) const LZF: &[u8] = b"\xc3\x05\x0a\x00a\xe0\x00\x00";

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A listpack of short strings, and of integers below 128 where the text is one.
pub(super) fn listpack(elements: &[&str]) -> Vec<u8> {
    let mut entries = Vec::new();
    for element in elements {
        match element.parse::<u8>() {
            Ok(number) if number < 128 => entries.extend_from_slice(&[number, 1]),
            _ => {
                entries.push(0x80 | element.len() as u8);
                entries.extend_from_slice(element.as_bytes());
                entries.push(1 + element.len() as u8);
            }
        }
    }
    let total = 6 + entries.len() as u32 + 1;
    join(&[&total.to_le_bytes(), &(elements.len() as u16).to_le_bytes(), &entries, b"\xff"])
}

/// An id as in lists of pending entries.
fn id(ms: u64, sequence: u64) -> Vec<u8> {
    [ms.to_be_bytes(), sequence.to_be_bytes()].concat()
}

/// One node with the entries 5-1 {f v} and 5-3 {f w} and the deleted 5-2; two groups, one with two consumers and two pending entries.
fn stream(version: u8) -> Vec<u8> {
    let node = listpack(&[
        "2", "1", "1", "f", "0", // entries, deleted, fields of the master entry, its end
        "2", "0", "0", "v", "4", // same fields; differences of the id; value; parts
        "3", "0", "1", "x", "4", // the same, deleted
        "0", "0", "2", "1", "f", "w", "6", // own fields
    ]);
    let mut body = join(&[&[1], &string(&id(5, 1)), &string(&node), &[2, 5, 3]]);
    if version >= 2 {
        body.extend_from_slice(&[5, 1, 5, 2, 3]);
    }
    body.push(2);
    body.extend(join(&[&string(b"readers"), &[5, 3]]));
    if version >= 2 {
        body.push(3);
    }
    body.push(2);
    for (sequence, deliveries) in [(1, 1), (3, 70)] {
        body.extend(join(&[&id(5, sequence), &1_700_000_000_000u64.to_le_bytes(), &length(deliveries)]));
    }
    body.push(2);
    for (name, sequences) in [(&b"alice"[..], &[1, 3][..]), (LZF, &[])] {
        body.extend(if name == LZF { LZF.to_vec() } else { string(name) });
        body.extend_from_slice(&1_700_000_000_001u64.to_le_bytes());
        if version >= 3 {
            body.extend_from_slice(&1_700_000_000_002u64.to_le_bytes());
        }
        body.push(sequences.len() as u8);
        sequences.iter().for_each(|sequence| body.extend(id(5, *sequence)));
    }
    body.extend(join(&[&string(b"idle"), &[0, 0]]));
    if version >= 2 {
        // Unknown: what -1 is as an unsigned number.
        body.extend(length(u64::MAX));
    }
    body.extend_from_slice(&[0, 0]);
    body
}

/// (dialect or both, type, body): every type, in several forms.
pub(super) fn values() -> Vec<(Option<Dialect>, u8, Vec<u8>)> {
    let texts = |list: &[&[u8]]| list.iter().flat_map(|text| string(text)).collect::<Vec<u8>>();
    let one = 1.5f64.to_le_bytes();
    let both = |kind, body: Vec<u8>| (None, kind, body);
    vec![
        both(0, string(b"hello")),
        both(0, string(&[b'x'; 300])),
        both(0, b"\xc0\x05".to_vec()),
        both(0, b"\xc1\x00\x80".to_vec()),
        both(0, b"\xc2\x00\x00\x00\x80".to_vec()),
        both(0, LZF.to_vec()),
        both(0, b"\x81\x00\x00\x00\x00\x00\x00\x00\x02ab".to_vec()),
        both(1, join(&[&[2], &texts(&[b"a", b"b"])])),
        both(2, join(&[&[3], &texts(&[b"a", b""]), LZF])),
        both(
            3,
            join(&[
                &[4],
                &string(b"a"),
                b"\x031.5",
                &string(b"b"),
                &[253],
                &string(b"c"),
                &[254],
                &string(b"d"),
                &[255],
            ]),
        ),
        both(4, join(&[&[2], &texts(&[b"f", b"v", b"g"]), LZF])),
        both(5, join(&[&[2], &string(b"a"), &one, &string(b"b"), &f64::NEG_INFINITY.to_le_bytes()])),
        both(
            7,
            join(&[
                &length(1 << 40),
                &[1, 0x45, 0x01, 2, 7, 3, 1, 2, 3, 4, 4, 1, 2, 3, 4, 5, 6, 7, 8, 5],
                &string(b"text"),
                &[0],
            ]),
        ),
        both(9, string(b"\x02\x03foo\x03\x00bar\x05hello\x05\x00world\xff")),
        both(10, string(b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff")),
        both(11, string(b"\x02\0\0\0\x03\0\0\0\xff\xff\x01\x00\x07\x00")),
        both(12, string(b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff")),
        both(13, string(b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff")),
        both(14, join(&[&[1], &string(b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf3\xff")])),
        both(15, stream(1)),
        both(16, string(&listpack(&["f", "v", "g", "7"]))),
        both(17, string(&listpack(&["a", "1", "b", "2.5"]))),
        both(18, join(&[&[2, 2], &string(&listpack(&["a", "9"])), &[1], &string(b"one large element")])),
        both(19, stream(2)),
        both(20, string(&listpack(&["a", "12", "b"]))),
        both(21, stream(3)),
        (
            Some(Dialect::Valkey),
            22,
            join(&[
                &[2],
                &texts(&[b"f", b"v"]),
                &1_900_000_000_000i64.to_le_bytes(),
                &texts(&[b"g", b"w"]),
                &(-1i64).to_le_bytes(),
            ]),
        ),
        (
            Some(Dialect::Redis),
            24,
            join(&[&1_900_000_000_000i64.to_le_bytes(), &[2, 1], &texts(&[b"f", b"v"]), &[0], &texts(&[b"g", b"w"])]),
        ),
        (
            Some(Dialect::Redis),
            25,
            join(&[&1_900_000_000_000i64.to_le_bytes(), &string(&listpack(&["f", "v", "19", "g", "w", "0"]))]),
        ),
    ]
}

/// A whole snapshot with every opcode of the dialect and every value.
pub(super) fn snapshot(dialect: Dialect) -> Vec<u8> {
    let mut out = match dialect {
        Dialect::Redis => b"REDIS0012".to_vec(),
        Dialect::Valkey => b"VALKEY080".to_vec(),
    };
    out.extend(join(&[&[250], &string(b"redis-ver"), &string(b"7.4.0"), &[250], LZF, b"\xc0\x40"]));
    out.extend(join(&[&[247], &length(module_id("ReJSON-RL", 3)), &[2, 2, 5], &string(b"skipped"), &[0]]));
    out.extend(join(&[&[245], &string(b"#!lua name=l\n")]));
    if dialect == Dialect::Valkey {
        out.extend(join(&[&[243], &string(b"import"), &[2, 0, 5, 7], &length(16383)]));
    }
    out.extend(join(&[&[254, 3, 251], &length(1000), &[2, 244, 1, 2, 3]]));
    for (at, (only, kind, body)) in values().iter().enumerate() {
        if only.is_some_and(|only| only != dialect) {
            continue;
        }
        match at % 4 {
            1 => out.extend(join(&[&[252], &1_900_000_000_123i64.to_le_bytes(), &[248], &length(70)])),
            2 => out.extend(join(&[&[253], &1_900_000_000i32.to_le_bytes(), &[249, 200]])),
            _ => {}
        }
        out.push(*kind);
        out.extend(match at % 3 {
            0 => string(format!("key:{at}").as_bytes()),
            1 => vec![0xc0, at as u8],
            _ => LZF.to_vec(),
        });
        out.extend_from_slice(body);
    }
    out.push(255);
    let crc = crc64::checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The id of a module's type: nine characters of 6 bits, and 10 bits of version.
pub(super) fn module_id(name: &str, version: u64) -> u64 {
    const CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    name.chars().fold(0, |id, c| id << 6 | CHARACTERS.find(c).expect("a character of module names") as u64) << 10
        | version
}
