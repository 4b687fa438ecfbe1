//! What a key holds, in a form in which equal contents are equal bytes, whatever server and encoding they came from.
//!
//! Pure. Shared by verification and digests, and by nothing that copies or derives effects (invariant I10).

use std::hash::Hasher;

use wire::resp::value::{Value, brief_bytes, encode_request};

/// The type of a key as TYPE names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// No such key.
    Absent,
    String,
    List,
    Set,
    Hash,
    Zset,
    Stream,
    /// A module's type: cannot be read by type.
    Other,
}

impl Kind {
    pub(super) fn from_type(reply: &Value) -> Self {
        match reply.bytes().unwrap_or_default() {
            b"none" => Self::Absent,
            b"string" => Self::String,
            b"list" => Self::List,
            b"set" => Self::Set,
            b"hash" => Self::Hash,
            b"zset" => Self::Zset,
            b"stream" => Self::Stream,
            _ => Self::Other,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "none",
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::Hash => "hash",
            Self::Zset => "zset",
            Self::Stream => "stream",
            Self::Other => "module type",
        }
    }

    /// How many requests [`Self::reads`] makes.
    pub(super) fn reads_len(self) -> usize {
        match self {
            Self::Absent | Self::Other => 0,
            Self::String | Self::List | Self::Set | Self::Hash | Self::Zset => 1,
            Self::Stream => 3,
        }
    }

    /// The encoded requests that read a key of this type whole.
    pub(super) fn reads(self, key: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::Absent | Self::Other => vec![],
            Self::String => vec![encode_request(&[b"GET", key])],
            Self::List => vec![encode_request(&[b"LRANGE", key, b"0", b"-1"])],
            Self::Set => vec![encode_request(&[b"SMEMBERS", key])],
            Self::Hash => vec![encode_request(&[b"HGETALL", key])],
            Self::Zset => vec![encode_request(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])],
            Self::Stream => vec![
                encode_request(&[b"XRANGE", key, b"-", b"+"]),
                encode_request(&[b"XINFO", b"GROUPS", key]),
                encode_request(&[b"XINFO", b"STREAM", key]),
            ],
        }
    }
}

/// The content of one key, or a piece of it: rows in canonical order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    kind: Kind,
    rows: Vec<Vec<u8>>,
    part: Option<Part>,
}

/// Which piece of how large a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// The place of the first row; of a string, of the first byte. 0 where rows have no places.
    first: u64,
    /// Rows of the whole value; of a string, bytes.
    of: i64,
}

impl Content {
    /// Reads the replies to [`Kind::reads`]; `Ok(None)` when the key was not there any more.
    ///
    /// # Errors
    /// What could not be understood, including any error reply.
    pub(super) fn read(kind: Kind, replies: &[Value]) -> Result<Option<Self>, String> {
        if let Some(error) = replies.iter().find_map(Value::error) {
            // Between TYPE and XINFO a key may expire; XINFO then is the only read that complains.
            return if error.contains("no such key") { Ok(None) } else { Err(error) };
        }
        let Some(first) = replies.first() else { return Err(format!("no reading of a {}", kind.as_str())) };
        let rows = match kind {
            Kind::Absent | Kind::Other => return Err(format!("no reading of a {}", kind.as_str())),
            Kind::String => match first {
                Value::Null => return Ok(None),
                Value::Bulk(value) => vec![value.clone()],
                other => return Err(format!("GET gave {}", other.brief())),
            },
            Kind::List => strings(first)?,
            Kind::Set => sorted(strings(first)?),
            Kind::Hash => sorted(pairs(strings(first)?, |field, value| Ok(join(&[&field, &value])))?),
            Kind::Zset => sorted(pairs(strings(first)?, |member, score| Ok(join(&[&member, &score_bits(&score)?])))?),
            Kind::Stream => stream_rows(replies)?,
        };
        if rows.is_empty() { Ok(None) } else { Ok(Some(Self { kind, rows, part: None })) }
    }

    /// Of the fields or members of these names: the reply to HMGET, SMISMEMBER or ZMSCORE.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn of_names(kind: Kind, names: &[Vec<u8>], reply: &Value) -> Result<Self, String> {
        if let Some(error) = reply.error() {
            return Err(error);
        }
        let values = reply.items().filter(|values| values.len() == names.len());
        let Some(values) = values else { return Err(format!("values of {} names are {}", names.len(), reply.brief())) };
        let row = |(name, value): (&Vec<u8>, &Value)| match (kind, value) {
            (_, Value::Null) => Ok(join(&[name])),
            (Kind::Zset, score) => Ok(join(&[name, &score_bits(score.bytes().unwrap_or_default())?])),
            (_, Value::Integer(is_member)) => Ok(join(&[name, is_member.to_string().as_bytes()])),
            (_, value) => {
                value.bytes().map(|value| join(&[name, value])).ok_or_else(|| "a value is no string".to_owned())
            }
        };
        let rows = names.iter().zip(values).map(row).collect::<Result<_, _>>()?;
        Ok(Self { kind, rows, part: None })
    }

    pub(super) fn none(kind: Kind) -> Self {
        Self { kind, rows: Vec::new(), part: None }
    }

    /// As the piece that begins at row `first` of a value of `of` rows.
    pub(super) fn part(self, first: u64, of: i64) -> Self {
        Self { part: Some(Part { first, of }), ..self }
    }

    pub(super) fn feed(&self, hasher: &mut impl Hasher) {
        hasher.write(self.kind.as_str().as_bytes());
        for row in &self.rows {
            hasher.write_u64(row.len() as u64);
            hasher.write(row);
        }
    }

    /// "list of 3, row 2 is ..." where row 2 is the first one `other` does not have in that place.
    pub(super) fn describe(&self, other: Option<&Self>) -> String {
        let differs = |(at, row): &(usize, &Vec<u8>)| other.is_none_or(|other| other.rows.get(*at) != Some(*row));
        let row = self.rows.iter().enumerate().find(differs);
        let Part { first, of } = self.part.unwrap_or(Part { first: 0, of: self.rows.len() as i64 });
        match (self.kind, row) {
            (Kind::String, _) if self.part.is_none() => format!("string {}", brief_bytes(&self.rows[0])),
            (Kind::String, Some((_, bytes))) => {
                // What is behind the first byte that differs is what a reader looks for.
                let theirs = other.and_then(|other| other.rows.first()).map_or(&[][..], Vec::as_slice);
                let at = bytes.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
                format!("string of {of} bytes, from byte {} {}", first + at as u64, brief_bytes(&bytes[at..]))
            }
            (kind, Some((at, row))) => {
                format!("{} of {of}, row {} is {}", kind.as_str(), first + at as u64, brief_bytes(row))
            }
            (kind, None) => format!("{} of {of}", kind.as_str()),
        }
    }
}

fn strings(reply: &Value) -> Result<Vec<Vec<u8>>, String> {
    let Some(items) = reply.items() else { return Err(format!("expected an array, got {}", reply.brief())) };
    items
        .iter()
        .map(|item| item.bytes().map(<[u8]>::to_vec).ok_or_else(|| "an element is no string".to_owned()))
        .collect()
}

fn sorted(mut rows: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    rows.sort_unstable();
    rows
}

fn pairs(
    flat: Vec<Vec<u8>>,
    row: impl Fn(Vec<u8>, Vec<u8>) -> Result<Vec<u8>, String>,
) -> Result<Vec<Vec<u8>>, String> {
    let mut rows = Vec::with_capacity(flat.len() / 2);
    let mut items = flat.into_iter();
    while let Some(first) = items.next() {
        let Some(second) = items.next() else { return Err("an odd number of elements".to_owned()) };
        rows.push(row(first, second)?);
    }
    Ok(rows)
}

/// Parts with their lengths, so that no two different lists of parts join to the same bytes.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Servers print the same double differently (Redis 7.0 "3.1400000000000001", Valkey "3.14"), so the number decides.
fn score_bits(text: &[u8]) -> Result<[u8; 8], String> {
    let score: Option<f64> = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match score {
        Some(0.0) => Ok(0f64.to_bits().to_be_bytes()),
        Some(score) => Ok(score.to_bits().to_be_bytes()),
        None => Err(format!("score {} is no number", brief_bytes(text))),
    }
}

fn stream_rows(replies: &[Value]) -> Result<Vec<Vec<u8>>, String> {
    let [entries, groups, stream] = replies else { return Err("a stream is read by three commands".to_owned()) };
    let mut rows = Vec::new();
    for entry in entries.items().ok_or("XRANGE gave no array")? {
        let [id, fields] = entry.items().unwrap_or_default() else {
            return Err("a stream entry is no pair".to_owned());
        };
        let fields = strings(fields)?;
        let mut parts = vec![id.bytes().unwrap_or_default()];
        parts.extend(fields.iter().map(Vec::as_slice));
        rows.push(join(&parts));
    }
    let mut group_rows = Vec::new();
    for group in groups.items().ok_or("XINFO GROUPS gave no array")? {
        let parts = [field(group, b"name")?, field(group, b"pending")?, field(group, b"last-delivered-id")?];
        group_rows.push(join(&[b"group", &parts[0], &parts[1], &parts[2]]));
    }
    rows.extend(sorted(group_rows));
    // An emptied stream still refuses ids below its last one, so the last id is content.
    rows.push(join(&[b"last-id", &field(stream, b"last-generated-id")?]));
    Ok(rows)
}

fn field(flat: &Value, name: &[u8]) -> Result<Vec<u8>, String> {
    let items = flat.items().unwrap_or_default();
    let found = items.chunks(2).find_map(|pair| match pair {
        [key, value] if key.bytes() == Some(name) => Some(value),
        _ => None,
    });
    match found {
        Some(Value::Integer(n)) => Ok(n.to_string().into_bytes()),
        Some(value) => value.bytes().map(<[u8]>::to_vec).ok_or_else(|| "a field is no string".to_owned()),
        None => Err(format!("XINFO gave no field {}", brief_bytes(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| Value::Bulk(item.as_bytes().to_vec())).collect())
    }

    fn read(kind: Kind, reply: Value) -> Option<Content> {
        Content::read(kind, &[reply]).unwrap()
    }

    #[test]
    fn order_counts_only_where_redis_keeps_it() {
        for kind in [Kind::Set, Kind::Hash, Kind::List] {
            let (a, b) = (array(&["a", "1", "b", "2"]), array(&["b", "2", "a", "1"]));
            assert_eq!(read(kind, a) == read(kind, b), kind != Kind::List, "{kind:?}");
        }
    }

    #[test]
    fn scores_are_numbers_not_texts() {
        let a = read(Kind::Zset, array(&["m", "3.1400000000000001", "n", "-0"]));
        assert_eq!(a, read(Kind::Zset, array(&["m", "3.14", "n", "0"])));
        assert_ne!(a, read(Kind::Zset, array(&["m", "3.15", "n", "0"])));
    }

    #[test]
    fn a_vanished_key_is_absent_and_an_error_is_not() {
        assert_eq!(read(Kind::String, Value::Null), None);
        assert_eq!(read(Kind::List, array(&[])), None);
        assert!(Content::read(Kind::List, &[Value::Error(b"WRONGTYPE x".to_vec())]).is_err());
    }

    #[test]
    fn field_borders_are_part_of_the_content() {
        assert_ne!(read(Kind::Hash, array(&["ab", "c"])), read(Kind::Hash, array(&["a", "bc"])));
    }
}
