//! What a key of the model holds, and its form in snapshots and DUMP payloads (RDB types 0, 1, 2, 4 and 5, in their plain encodings).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire::rdb::dump;

/// The RDB version that the model writes: that of Redis 7.0.
pub const RDB_VERSION: u16 = 10;

const STRING: u8 = 0;
const LIST: u8 = 1;
const SET: u8 = 2;
const HASH: u8 = 4;
const SORTED_SET: u8 = 5;

/// A value. Scores are whole numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    String(Vec<u8>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    SortedSet(BTreeMap<Vec<u8>, i64>),
}

impl Value {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Hash(_) => "hash",
            Self::SortedSet(_) => "zset",
        }
    }

    /// No key holds an empty collection.
    pub fn is_empty_collection(&self) -> bool {
        match self {
            Self::String(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Set(members) => members.is_empty(),
            Self::Hash(fields) => fields.is_empty(),
            Self::SortedSet(members) => members.is_empty(),
        }
    }

    /// The type byte and the body.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let type_byte = match self {
            Self::String(text) => {
                push_text(&mut out, text);
                STRING
            }
            Self::List(items) => {
                push_length(&mut out, items.len());
                items.iter().for_each(|item| push_text(&mut out, item));
                LIST
            }
            Self::Set(members) => {
                push_length(&mut out, members.len());
                members.iter().for_each(|member| push_text(&mut out, member));
                SET
            }
            Self::Hash(fields) => {
                push_length(&mut out, fields.len());
                for (field, value) in fields {
                    push_text(&mut out, field);
                    push_text(&mut out, value);
                }
                HASH
            }
            Self::SortedSet(members) => {
                push_length(&mut out, members.len());
                for (member, score) in members {
                    push_text(&mut out, member);
                    out.extend_from_slice(&(*score as f64).to_le_bytes());
                }
                SORTED_SET
            }
        };
        (type_byte, out)
    }

    /// As DUMP gives it.
    pub fn dump(&self) -> Vec<u8> {
        let (type_byte, body) = self.encode();
        dump::build(type_byte, &body, RDB_VERSION)
    }

    /// As RESTORE takes it.
    pub fn restore(payload: &[u8]) -> Option<Self> {
        let payload = dump::parse(payload).ok().filter(|payload| payload.version <= RDB_VERSION)?;
        let mut rest = payload.body;
        let rest = &mut rest;
        let value = match payload.type_byte {
            STRING => Self::String(text(rest)?),
            LIST => Self::List(many(rest, text)?.into()),
            SET => Self::Set(many(rest, text)?.into_iter().collect()),
            HASH => Self::Hash(many(rest, |rest| Some((text(rest)?, text(rest)?)))?.into_iter().collect()),
            SORTED_SET => Self::SortedSet(many(rest, |rest| Some((text(rest)?, score(rest)?)))?.into_iter().collect()),
            _ => return None,
        };
        rest.is_empty().then_some(value)
    }
}

/// A length as snapshots have it: 6, 14 or 32 bits.
pub fn push_length(out: &mut Vec<u8>, length: usize) {
    match length {
        0..64 => out.push(length as u8),
        64..16384 => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        _ => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

pub fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    push_length(out, text.len());
    out.extend_from_slice(text);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let first = take(rest, 1)?[0];
    Some(match first >> 6 {
        0 => usize::from(first),
        1 => (usize::from(first & 0x3f) << 8) | usize::from(take(rest, 1)?[0]),
        2 => u32::from_be_bytes(take(rest, 4)?.try_into().ok()?) as usize,
        _ => return None,
    })
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = length(rest)?;
    take(rest, length).map(<[u8]>::to_vec)
}

fn score(rest: &mut &[u8]) -> Option<i64> {
    Some(f64::from_le_bytes(take(rest, 8)?.try_into().ok()?) as i64)
}

fn many<T>(rest: &mut &[u8], one: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = length(rest)?;
    (0..count).map(|_| one(rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_restored_as_it_was_dumped() {
        let text = |text: &str| text.as_bytes().to_vec();
        let values = [
            Value::String(vec![b'x'; 70_000]),
            Value::String(Vec::new()),
            Value::List((0..100).map(|number| text(&number.to_string())).collect()),
            Value::Set([text("a"), text("b")].into()),
            Value::Hash([(text("f"), text("v"))].into()),
            Value::SortedSet([(text("m"), -3), (text("n"), 7)].into()),
        ];
        for value in values {
            assert_eq!(Value::restore(&value.dump()), Some(value));
        }
        assert_eq!(Value::restore(b"\0\x01a"), None, "without a footer");
    }
}
