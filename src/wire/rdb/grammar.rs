//! Where a value or operand of RDB ends: its grammar as data, and a walk along it that can stop after any byte. Pure; any thread.
//!
//! Nothing is decoded and nothing kept but a length that has not arrived whole, so a value of any size is walked in constant memory.
//! The grammars follow `rdbLoadObject` and `rdbLoadRio` (Redis and Valkey `rdb.c`).

use super::lengths::{
    ENCODING_INT8, ENCODING_INT16, ENCODING_INT32, ENCODING_LZF, LENGTH_BYTES_MAX, Length, decode_length, length_size,
};
use super::{Corrupt, Dialect};

/// One part of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// A length, count or number.
    Number,
    /// A string in any encoding.
    String,
    /// So many bytes.
    Bytes(u8),
    /// A score of type 3: a byte with the length of its text, of which 253 to 255 mean NaN and the infinities and have no text.
    TextScore,
    /// A count, then so many times these parts.
    Repeat(&'static [Part]),
    /// What a module wrote: parts that name their own kind, up to a mark.
    Module,
}

use Part::{Bytes, Module, Number, Repeat, String, TextScore};

/// The kinds of a module's parts (`RDB_MODULE_OPCODE_...`): the end mark, integers, and the grammars of the others.
const MODULE_END: u64 = 0;
const MODULE_SIGNED: u64 = 1;
const MODULE_UNSIGNED: u64 = 2;
const MODULE_FLOAT: u64 = 3;
const MODULE_DOUBLE: u64 = 4;
const MODULE_STRING: u64 = 5;

/// An id in a list of pending entries has 16 bytes, big endian, and is not a length; `time` and `id` are those.
const STREAM_1: &[Part] = &[
    Repeat(&[String, String]),
    Number, // entries
    Number, // last id
    Number,
    Repeat(&[
        String, // group
        Number, // its last delivered id
        Number,
        Repeat(&[Bytes(16), Bytes(8), Number]), // pending: id, time, deliveries
        Repeat(&[String, Bytes(8), Repeat(&[Bytes(16)])]), // consumer: name, time seen, pending ids
    ]),
];
/// Adds the first id, the highest deleted id and the entries ever added, and to a group what it has read.
const STREAM_2: &[Part] = &[
    Repeat(&[String, String]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Repeat(&[
        String,
        Number,
        Number,
        Number,
        Repeat(&[Bytes(16), Bytes(8), Number]),
        Repeat(&[String, Bytes(8), Repeat(&[Bytes(16)])]),
    ]),
];
/// Adds to a consumer when it was last active.
const STREAM_3: &[Part] = &[
    Repeat(&[String, String]),
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Number,
    Repeat(&[
        String,
        Number,
        Number,
        Number,
        Repeat(&[Bytes(16), Bytes(8), Number]),
        Repeat(&[String, Bytes(8), Bytes(8), Repeat(&[Bytes(16)])]),
    ]),
];

/// The grammar of a value of this type (`RDB_TYPE_...`), or `None` for a type that this build does not know.
pub(super) fn value(dialect: Dialect, type_byte: u8) -> Option<&'static [Part]> {
    Some(match (type_byte, dialect) {
        (0, _) => &[String],
        (1 | 2, _) => &[Repeat(&[String])],
        (3, _) => &[Repeat(&[String, TextScore])],
        (4, _) => &[Repeat(&[String, String])],
        (5, _) => &[Repeat(&[String, Bytes(8)])],
        (7, _) => &[Number, Module],
        // Zipmap, ziplists, intset, listpacks: one string each.
        (9..=13 | 16 | 17 | 20, _) => &[String],
        (14, _) => &[Repeat(&[String])],
        (15, _) => STREAM_1,
        // Quicklist: a node is a listpack or one large element, and says which.
        (18, _) => &[Repeat(&[Number, String])],
        (19, _) => STREAM_2,
        (21, _) => STREAM_3,
        // Field, value, deadline.
        (22, Dialect::Valkey) => &[Repeat(&[String, String, Bytes(8)])],
        // The earliest deadline; then deadline, field, value, or a listpack of field, value, deadline.
        (24, Dialect::Redis) => &[Bytes(8), Repeat(&[Number, String, String])],
        (25, Dialect::Redis) => &[Bytes(8), String],
        _ => return None,
    })
}

/// Levels of nesting: a stream's groups, their consumers, their pending ids.
const LEVELS_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
struct Level {
    parts: &'static [Part],
    /// The part to walk next.
    at: usize,
    /// How often the parts are walked, this time included.
    times: u64,
}

/// Inside the part that is walked.
#[derive(Debug, Clone, Copy)]
enum Within {
    /// Before its first byte, or in its first length.
    Head,
    /// So many bytes are left, which are not looked at.
    Opaque(u64),
    /// Before the compressed length of an LZF string, or in it.
    LzfCompressed,
    /// Before its expanded length, or in it.
    LzfExpanded { compressed: u64 },
}

/// How far a walk has come. One per value; lives wherever the bytes arrive.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    levels: [Level; LEVELS_MAX],
    /// Levels in use; 0 when the walk is over.
    depth: usize,
    within: Within,
    /// A length that has not arrived whole.
    head: [u8; LENGTH_BYTES_MAX],
    head_len: usize,
}

impl Walk {
    pub(super) fn new(parts: &'static [Part]) -> Self {
        let first = Level { parts, at: 0, times: 1 };
        Self { levels: [first; LEVELS_MAX], depth: 1, within: Within::Head, head: [0; LENGTH_BYTES_MAX], head_len: 0 }
    }

    /// Walks on. Gives how many of the bytes belong to the value, and whether it ends with them: all belong when it does not.
    ///
    /// # Errors
    /// At the first byte that no value of this grammar has there.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), Corrupt> {
        let mut at = 0;
        while self.depth > 0 {
            if let Within::Opaque(left) = self.within {
                let here = left.min((bytes.len() - at) as u64);
                at += here as usize;
                if here < left {
                    self.within = Within::Opaque(left - here);
                    break;
                }
                self.part_ends();
            } else if !self.head(bytes, &mut at)? {
                break;
            }
        }
        Ok((at, self.depth == 0))
    }

    /// Reads what a part begins with; false when bytes are missing.
    fn head(&mut self, bytes: &[u8], at: &mut usize) -> Result<bool, Corrupt> {
        let level = self.levels[self.depth - 1];
        let part = level.parts[level.at];
        match part {
            Bytes(count) => self.within = Within::Opaque(u64::from(count)),
            TextScore => {
                let Some(&length) = bytes.get(*at) else { return Ok(false) };
                *at += 1;
                self.within = Within::Opaque(if length >= 253 { 0 } else { u64::from(length) });
            }
            Number | String | Repeat(_) | Module => {
                let Some(length) = self.length(bytes, at)? else { return Ok(false) };
                self.length_is_read(part, length)?;
            }
        }
        Ok(true)
    }

    /// A length, however it is cut; `None` when bytes are missing.
    fn length(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Length>, Corrupt> {
        while let Some(&byte) = bytes.get(*at) {
            *at += 1;
            self.head[self.head_len] = byte;
            self.head_len += 1;
            if self.head_len == length_size(self.head[0])? {
                let length = decode_length(&self.head[..self.head_len])?;
                self.head_len = 0;
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    fn length_is_read(&mut self, part: Part, length: Length) -> Result<(), Corrupt> {
        match (part, self.within) {
            (String, Within::LzfCompressed) => self.within = Within::LzfExpanded { compressed: length.plain()? },
            (String, Within::LzfExpanded { compressed }) => {
                length.plain()?;
                self.within = Within::Opaque(compressed);
            }
            (String, _) => {
                self.within = match length {
                    Length::Plain(length) => Within::Opaque(length),
                    Length::Encoded(ENCODING_INT8) => Within::Opaque(1),
                    Length::Encoded(ENCODING_INT16) => Within::Opaque(2),
                    Length::Encoded(ENCODING_INT32) => Within::Opaque(4),
                    Length::Encoded(ENCODING_LZF) => Within::LzfCompressed,
                    Length::Encoded(_) => return Err(Corrupt("a string of an encoding that RDB does not define")),
                };
            }
            (Repeat(parts), _) => match length.plain()? {
                0 => self.part_ends(),
                times => {
                    self.levels[self.depth - 1].at += 1;
                    self.begin(parts, times);
                }
            },
            (Module, _) => match length.plain()? {
                MODULE_END => self.part_ends(),
                MODULE_SIGNED | MODULE_UNSIGNED => self.begin(&[Number], 1),
                MODULE_FLOAT => self.begin(&[Bytes(4)], 1),
                MODULE_DOUBLE => self.begin(&[Bytes(8)], 1),
                MODULE_STRING => self.begin(&[String], 1),
                _ => return Err(Corrupt("a module's value has a part of a kind that RDB does not define")),
            },
            (Number, _) => {
                length.plain()?;
                self.part_ends();
            }
            (Bytes(_) | TextScore, _) => {}
        }
        Ok(())
    }

    fn begin(&mut self, parts: &'static [Part], times: u64) {
        self.levels[self.depth] = Level { parts, at: 0, times };
        self.depth += 1;
    }

    /// Goes to the next part: of this level, of its next repetition, or of the level around it.
    fn part_ends(&mut self) {
        self.within = Within::Head;
        self.levels[self.depth - 1].at += 1;
        while self.depth > 0 {
            let level = &mut self.levels[self.depth - 1];
            if level.at < level.parts.len() {
                return;
            }
            level.times -= 1;
            if level.times > 0 {
                level.at = 0;
                return;
            }
            self.depth -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(parts: &[Part]) -> usize {
        let below = |part: &Part| match part {
            Repeat(parts) => depth(parts),
            Module => 1,
            Number | String | Bytes(_) | TextScore => 0,
        };
        1 + parts.iter().map(below).max().unwrap_or(0)
    }

    #[test]
    fn no_grammar_is_nested_deeper_than_the_levels_of_a_walk() {
        for dialect in [Dialect::Redis, Dialect::Valkey] {
            let deepest = (0..=255).filter_map(|kind| value(dialect, kind)).map(depth).max();
            assert_eq!(deepest, Some(LEVELS_MAX));
        }
    }

    #[test]
    fn the_same_number_is_another_type_for_each_dialect() {
        assert!(value(Dialect::Valkey, 22).is_some() && value(Dialect::Redis, 22).is_none());
        assert!(value(Dialect::Redis, 24).is_some() && value(Dialect::Valkey, 24).is_none());
    }
}
