//! The elements of a stream: entries, then its state, then each group with its consumers and what is pending. Pure; any thread.
//!
//! Layout of the value: `rdbSaveObject` (Redis `rdb.c`); of a node's listpack: the comment above `streamAppendItem` (`t_stream.c`).

use std::borrow::Cow;

use super::Corrupt;
use super::element::{Element, StreamId, StreamState};
use super::lengths::Reader;
use super::packed::{Format, Packed};

/// Flags of an entry in a node.
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Some entries, whose ids and fields are given relative to a master entry.
#[derive(Debug, Clone)]
struct Node<'a> {
    packed: Packed<'a>,
    master: StreamId,
    fields: Vec<Cow<'a, [u8]>>,
    /// Entries still to come, deleted ones included.
    left: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    id: StreamId,
    delivered_at_ms: i64,
    deliveries: u64,
}

#[derive(Debug, Clone)]
enum Place<'a> {
    Nodes {
        left: u64,
        node: Option<Node<'a>>,
    },
    Groups {
        left: u64,
    },
    /// `pending` is the group's list, in the order of ids: a consumer's own has ids only. It takes as much memory as it has bytes.
    Consumers {
        groups_left: u64,
        left: u64,
        pending: Vec<Pending>,
    },
    OfConsumer {
        groups_left: u64,
        consumers_left: u64,
        left: u64,
        pending: Vec<Pending>,
    },
}

/// Where the decoding of a stream is.
#[derive(Debug, Clone)]
pub(super) struct Stream<'a> {
    /// 1, 2 or 3, for types 15, 19 and 21.
    version: u8,
    place: Place<'a>,
}

/// An id whose halves are lengths.
fn id(reader: &mut Reader<'_>) -> Result<StreamId, Corrupt> {
    Ok(StreamId { ms: reader.number()?, sequence: reader.number()? })
}

/// An id of 16 bytes, big endian.
fn raw_id(reader: &mut Reader<'_>) -> Result<StreamId, Corrupt> {
    Ok(StreamId { ms: u64::from_be_bytes(reader.array()?), sequence: u64::from_be_bytes(reader.array()?) })
}

impl<'a> Stream<'a> {
    pub(super) fn begin(version: u8, reader: &mut Reader<'a>) -> Result<Self, Corrupt> {
        Ok(Self { version, place: Place::Nodes { left: reader.number()?, node: None } })
    }

    pub(super) fn element(&mut self, reader: &mut Reader<'a>) -> Result<Option<Element<'a>>, Corrupt> {
        loop {
            match &mut self.place {
                Place::Nodes { left, node } => {
                    if let Some(entries) = node {
                        if let Some(entry) = entries.entry()? {
                            return Ok(Some(entry));
                        }
                        *node = None;
                    } else if let Some(fewer) = left.checked_sub(1) {
                        *left = fewer;
                        *node = Some(Node::begin(reader)?);
                    } else {
                        let state = self.state(reader)?;
                        self.place = Place::Groups { left: reader.number()? };
                        return Ok(Some(Element::Stream(state)));
                    }
                }
                Place::Groups { left } => {
                    let Some(groups_left) = left.checked_sub(1) else { return Ok(None) };
                    return self.group(groups_left, reader).map(Some);
                }
                Place::Consumers { groups_left, left, pending } => {
                    let Some(consumers_left) = left.checked_sub(1) else {
                        self.place = Place::Groups { left: *groups_left };
                        continue;
                    };
                    let (groups_left, pending) = (*groups_left, std::mem::take(pending));
                    let name = reader.string()?;
                    let seen_at_ms = reader.time_ms()?;
                    // Without one it is -1: a consumer that never had an entry.
                    let active_at_ms =
                        if self.version >= 3 { Some(reader.time_ms()?).filter(|at| *at != -1) } else { None };
                    let left = reader.number()?;
                    self.place = Place::OfConsumer { groups_left, consumers_left, left, pending };
                    return Ok(Some(Element::Consumer { name, seen_at_ms, active_at_ms }));
                }
                Place::OfConsumer { groups_left, consumers_left, left, pending } => {
                    if let Some(fewer) = left.checked_sub(1) {
                        *left = fewer;
                        return one_pending(reader, pending).map(Some);
                    }
                    let pending = std::mem::take(pending);
                    self.place = Place::Consumers { groups_left: *groups_left, left: *consumers_left, pending };
                }
            }
        }
    }

    fn state(&self, reader: &mut Reader<'a>) -> Result<StreamState, Corrupt> {
        let length = reader.number()?;
        let last_id = id(reader)?;
        if self.version == 1 {
            return Ok(StreamState { length, last_id, max_deleted_id: StreamId::default(), entries_added: length });
        }
        id(reader)?; // the first one, which follows from the entries
        Ok(StreamState { length, last_id, max_deleted_id: id(reader)?, entries_added: reader.number()? })
    }

    fn group(&mut self, groups_left: u64, reader: &mut Reader<'a>) -> Result<Element<'a>, Corrupt> {
        let name = reader.string()?;
        let last_id = id(reader)?;
        // -1 as an unsigned number stands for unknown (`SCG_INVALID_ENTRIES_READ`).
        let entries_read = if self.version >= 2 { Some(reader.number()?).filter(|n| *n != u64::MAX) } else { None };
        let mut pending: Vec<Pending> = Vec::new();
        for _ in 0..reader.number()? {
            let id = raw_id(reader)?;
            if pending.last().is_some_and(|before| before.id >= id) {
                return Err(Corrupt("the pending entries of a group are not in order"));
            }
            pending.push(Pending { id, delivered_at_ms: reader.time_ms()?, deliveries: reader.number()? });
        }
        self.place = Place::Consumers { groups_left, left: reader.number()?, pending };
        Ok(Element::Group { name, last_id, entries_read })
    }
}

fn one_pending<'a>(reader: &mut Reader<'a>, pending: &[Pending]) -> Result<Element<'a>, Corrupt> {
    let id = raw_id(reader)?;
    let at = pending.binary_search_by_key(&id, |one| one.id);
    let at = at.map_err(|_| Corrupt("a pending entry of a consumer is not one of its group"))?;
    let Pending { id, delivered_at_ms, deliveries } = pending[at];
    Ok(Element::Pending { id, delivered_at_ms, deliveries })
}

impl<'a> Node<'a> {
    /// The master entry: entries, deleted entries, fields, their names, 0.
    fn begin(reader: &mut Reader<'a>) -> Result<Self, Corrupt> {
        let key = reader.string()?;
        let (ms, sequence) = key.split_first_chunk::<8>().ok_or(Corrupt("the id of a stream's node is too short"))?;
        let sequence = sequence.try_into().map_err(|_| Corrupt("the id of a stream's node has not 16 bytes"))?;
        let master = StreamId { ms: u64::from_be_bytes(*ms), sequence: u64::from_be_bytes(sequence) };
        let mut packed = Packed::new(Format::Listpack, reader.string()?)?;
        let negative = |_| Corrupt("a count in a stream's node is negative");
        let count = u64::try_from(packed.integer()?).map_err(negative)?;
        let deleted = u64::try_from(packed.integer()?).map_err(negative)?;
        let fields = packed.integer()?;
        let fields = (0..fields).map(|_| packed.required()).collect::<Result<Vec<_>, _>>()?;
        packed.integer()?;
        Ok(Self { packed, master, fields, left: count.saturating_add(deleted) })
    }

    /// The next entry that is not deleted: flags, the differences of its id, its fields, and how many parts it had.
    fn entry(&mut self) -> Result<Option<Element<'a>>, Corrupt> {
        while self.left > 0 {
            self.left -= 1;
            let flags = self.packed.integer()?;
            let id = StreamId {
                ms: self.master.ms.wrapping_add(self.packed.integer()?.cast_unsigned()),
                sequence: self.master.sequence.wrapping_add(self.packed.integer()?.cast_unsigned()),
            };
            let mut fields = Vec::new();
            if flags & SAME_FIELDS != 0 {
                for field in &self.fields {
                    fields.push((field.clone(), self.packed.required()?));
                }
            } else {
                for _ in 0..self.packed.integer()? {
                    fields.push((self.packed.required()?, self.packed.required()?));
                }
            }
            self.packed.integer()?;
            if flags & DELETED == 0 {
                return Ok(Some(Element::Entry { id, fields }));
            }
        }
        match self.packed.next()? {
            None => Ok(None),
            Some(_) => Err(Corrupt("a stream's node has more entries than it says")),
        }
    }
}
/// The type bytes of streams as Redis 7.2 and Valkey write them, and as Redis 7.0 does.
pub const STREAM_3: u8 = 21;
pub const STREAM_2: u8 = 19;

/// A stream of type [`STREAM_3`] as type [`STREAM_2`]: without the time at which each consumer was last given something (Redis `rdb.c`,
/// `rdbLoadObject`). All else is the same, also pending entries whose messages are gone, which no command can make.
///
/// # Errors
/// [`Corrupt`].
pub fn to_stream_2(body: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let mut reader = Reader::new(body);
    let mut out = Vec::with_capacity(body.len());
    let mut copied = 0;
    for _ in 0..reader.number()? {
        reader.string()?;
        reader.string()?;
    }
    // Length; last, first and greatest deleted id; entries added.
    for _ in 0..8 {
        reader.number()?;
    }
    for _ in 0..reader.number()? {
        reader.string()?;
        // Last id, entries read.
        for _ in 0..3 {
            reader.number()?;
        }
        for _ in 0..reader.number()? {
            // Id, time.
            reader.take(16 + 8)?;
            reader.number()?;
        }
        for _ in 0..reader.number()? {
            reader.string()?;
            reader.time_ms()?;
            let at = body.len() - reader.len();
            reader.time_ms()?;
            out.extend_from_slice(&body[copied..at]);
            copied = body.len() - reader.len();
            let pending = reader.number()?;
            reader.take(pending.checked_mul(16).ok_or(Corrupt("a consumer with too many pending entries"))?)?;
        }
    }
    out.extend_from_slice(&body[copied..]);
    Ok(out)
}
