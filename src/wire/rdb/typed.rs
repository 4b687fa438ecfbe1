//! What is in a value, element by element: for a receiver that refuses the value's encoding and is written by commands instead.
//!
//! Takes a whole body; gives one element at a time and holds, besides, the one string that it is in (a node of a list or stream, mostly
//! 4 to 8 KB). Encodings: `rdbLoadObject` (Redis and Valkey `rdb.c`). Pure; any thread.

use std::fmt;

use super::lengths::Reader;
use super::packed::{Format, Packed};
use super::stream::Stream;
use super::{Corrupt, Dialect};

pub use super::element::{Element, Pair, StreamId, StreamState};

/// Why a value cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypedError {
    /// A module's, or a type that this build does not know.
    UnknownType {
        type_byte: u8,
        dialect: Dialect,
    },
    Corrupt(Corrupt),
}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType { type_byte, dialect } => {
                write!(f, "values of type {type_byte} of {dialect:?} cannot be written by commands")
            }
            Self::Corrupt(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for TypedError {}

/// How the elements are written.
#[derive(Debug, Clone)]
enum Form<'a> {
    /// A string for each item or member.
    Items,
    Members,
    /// A string, then the score as text (type 3) or as 8 bytes (type 5).
    TextScored,
    Scored,
    Fields,
    /// Field, value, then the deadline or -1 (Valkey, type 22).
    FieldsExpiring,
    /// The deadline, then field and value: 0 for none, else 1 more than its distance from the earliest (Redis, type 24).
    ExpiringFields {
        earliest_ms: i64,
    },
    String,
    /// Nodes of packed items; those of type 18 say first whether they are (2), or one large item (1).
    Quicklist {
        node: Option<Packed<'a>>,
        format: Format,
    },
    PackedMembers(Packed<'a>),
    PackedScored(Packed<'a>),
    PackedFields(Packed<'a>),
    /// Field, value, deadline or 0 (Redis, type 25).
    PackedFieldsExpiring(Packed<'a>),
    Stream(Stream<'a>),
}

/// Iterates over the elements of a value; ends after an error.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    reader: Reader<'a>,
    form: Form<'a>,
    /// Parts of the body that are still to come, where it has a count.
    left: u64,
    is_over: bool,
}

/// Begins to decode a value.
///
/// # Errors
/// [`TypedError`], also when the body's first bytes are wrong; what is wrong later comes from the iterator.
pub fn elements(dialect: Dialect, type_byte: u8, body: &[u8]) -> Result<Elements<'_>, TypedError> {
    begin(dialect, type_byte, body).map_err(TypedError::Corrupt)?.ok_or(TypedError::UnknownType { type_byte, dialect })
}

fn begin(dialect: Dialect, type_byte: u8, body: &[u8]) -> Result<Option<Elements<'_>>, Corrupt> {
    let mut reader = Reader::new(body);
    let mut left = 0;
    let form = match (type_byte, dialect) {
        (0, _) => {
            left = 1;
            Form::String
        }
        (1..=5 | 14 | 18, _) | (22, Dialect::Valkey) => {
            left = reader.number()?;
            match type_byte {
                1 => Form::Items,
                2 => Form::Members,
                3 => Form::TextScored,
                4 => Form::Fields,
                5 => Form::Scored,
                14 => Form::Quicklist { node: None, format: Format::Ziplist },
                18 => Form::Quicklist { node: None, format: Format::Listpack },
                _ => Form::FieldsExpiring,
            }
        }
        (24, Dialect::Redis) => {
            let earliest_ms = reader.time_ms()?;
            left = reader.number()?;
            Form::ExpiringFields { earliest_ms }
        }
        (25, Dialect::Redis) => {
            reader.time_ms()?;
            Form::PackedFieldsExpiring(Packed::new(Format::Listpack, reader.string()?)?)
        }
        (10, _) => {
            Form::Quicklist { node: Some(Packed::new(Format::Ziplist, reader.string()?)?), format: Format::Ziplist }
        }
        (11, _) => Form::PackedMembers(Packed::new(Format::Intset, reader.string()?)?),
        (20, _) => Form::PackedMembers(Packed::new(Format::Listpack, reader.string()?)?),
        (12, _) => Form::PackedScored(Packed::new(Format::Ziplist, reader.string()?)?),
        (17, _) => Form::PackedScored(Packed::new(Format::Listpack, reader.string()?)?),
        (9, _) => Form::PackedFields(Packed::new(Format::Zipmap, reader.string()?)?),
        (13, _) => Form::PackedFields(Packed::new(Format::Ziplist, reader.string()?)?),
        (16, _) => Form::PackedFields(Packed::new(Format::Listpack, reader.string()?)?),
        (15, _) => Form::Stream(Stream::begin(1, &mut reader)?),
        (19, _) => Form::Stream(Stream::begin(2, &mut reader)?),
        (21, _) => Form::Stream(Stream::begin(3, &mut reader)?),
        _ => return Ok(None),
    };
    Ok(Some(Elements { reader, form, left, is_over: false }))
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let element = self.element().and_then(|element| match element {
            None if !self.reader.is_empty() => Err(Corrupt("bytes after the last element of a value")),
            other => Ok(other),
        });
        self.is_over = !matches!(element, Ok(Some(_)));
        element.transpose()
    }
}

impl<'a> Elements<'a> {
    fn element(&mut self) -> Result<Option<Element<'a>>, Corrupt> {
        let reader = &mut self.reader;
        match &mut self.form {
            Form::Stream(stream) => return stream.element(reader),
            Form::Quicklist { node, format } => return quicklist(reader, node, *format, &mut self.left),
            Form::PackedMembers(packed) => return Ok(packed.next()?.map(Element::Member)),
            Form::PackedScored(packed) => {
                let Some(member) = packed.next()? else { return Ok(None) };
                return Ok(Some(Element::Scored { member, score: score(&packed.required()?)? }));
            }
            Form::PackedFields(packed) => {
                let Some(field) = packed.next()? else { return Ok(None) };
                return Ok(Some(Element::Field { field, value: packed.required()?, expire_at_ms: None }));
            }
            Form::PackedFieldsExpiring(packed) => {
                let Some(field) = packed.next()? else { return Ok(None) };
                let value = packed.required()?;
                let expire_at_ms = Some(packed.integer()?).filter(|deadline| *deadline != 0);
                return Ok(Some(Element::Field { field, value, expire_at_ms }));
            }
            _ => {}
        }
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        Ok(Some(match self.form {
            Form::String => Element::String(reader.string()?),
            Form::Items => Element::Item(reader.string()?),
            Form::Members => Element::Member(reader.string()?),
            Form::TextScored => Element::Scored { member: reader.string()?, score: text_score(reader)? },
            Form::Scored => {
                Element::Scored { member: reader.string()?, score: valid(f64::from_le_bytes(reader.array()?))? }
            }
            Form::Fields => Element::Field { field: reader.string()?, value: reader.string()?, expire_at_ms: None },
            Form::FieldsExpiring => {
                let (field, value) = (reader.string()?, reader.string()?);
                Element::Field {
                    field,
                    value,
                    expire_at_ms: Some(reader.time_ms()?).filter(|deadline| *deadline != -1),
                }
            }
            Form::ExpiringFields { earliest_ms } => {
                let distance = reader.number()?;
                let expire_at_ms = match i64::try_from(distance).ok().and_then(|d| earliest_ms.checked_add(d - 1)) {
                    _ if distance == 0 => None,
                    Some(deadline) => Some(deadline),
                    None => return Err(Corrupt("a field's deadline is beyond what 64 bits hold")),
                };
                Element::Field { field: reader.string()?, value: reader.string()?, expire_at_ms }
            }
            Form::Quicklist { .. }
            | Form::PackedMembers(_)
            | Form::PackedScored(_)
            | Form::PackedFields(_)
            | Form::PackedFieldsExpiring(_)
            | Form::Stream(_) => return Ok(None),
        }))
    }
}

fn quicklist<'a>(
    reader: &mut Reader<'a>,
    node: &mut Option<Packed<'a>>,
    format: Format,
    left: &mut u64,
) -> Result<Option<Element<'a>>, Corrupt> {
    loop {
        if let Some(packed) = node {
            if let Some(item) = packed.next()? {
                return Ok(Some(Element::Item(item)));
            }
            *node = None;
        }
        let Some(fewer) = left.checked_sub(1) else { return Ok(None) };
        *left = fewer;
        let container = if format == Format::Listpack { reader.number()? } else { 2 };
        match container {
            1 => return Ok(Some(Element::Item(reader.string()?))),
            2 => *node = Some(Packed::new(format, reader.string()?)?),
            _ => return Err(Corrupt("a node of a list is of a kind that RDB does not define")),
        }
    }
}

fn valid(score: f64) -> Result<f64, Corrupt> {
    if score.is_nan() { Err(Corrupt("a score is no number")) } else { Ok(score) }
}

fn score(text: &[u8]) -> Result<f64, Corrupt> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    valid(parsed.unwrap_or(f64::NAN))
}

/// `rdbLoadDoubleValue`: a length and text, or a byte for a value that has none.
fn text_score(reader: &mut Reader<'_>) -> Result<f64, Corrupt> {
    match u8::from_le_bytes(reader.array()?) {
        255 => Ok(f64::NEG_INFINITY),
        254 => Ok(f64::INFINITY),
        253 => valid(f64::NAN),
        length => score(reader.take(u64::from(length))?),
    }
}

/// A score as ZADD reads it back to the same number: shortest digits, with an exponent where that is shorter.
#[must_use]
pub fn score_text(score: f64) -> String {
    let (plain, exponent) = (score.to_string(), format!("{score:e}"));
    if plain.len() <= exponent.len() { plain } else { exponent }
}
