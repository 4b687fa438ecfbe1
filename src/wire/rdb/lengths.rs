//! Lengths and strings of RDB, from bytes that are all there. Pure; any thread.
//!
//! The first two bits of a length's first byte say how it is written (Redis `rdb.h`): 00 in the other 6 bits; 01 in 14 bits, with the
//! next byte; 0x80 in 32 bits and 0x81 in 64 bits, big endian; 11 that no length follows but a string of the encoding in the other 6 bits.

use std::borrow::Cow;

use super::{Corrupt, lzf};

/// Bytes of the longest length.
pub(super) const LENGTH_BYTES_MAX: usize = 9;

/// String encodings (`RDB_ENC_...`): an integer of 1, 2 or 4 bytes, little endian; LZF.
pub(super) const ENCODING_INT8: u8 = 0;
pub(super) const ENCODING_INT16: u8 = 1;
pub(super) const ENCODING_INT32: u8 = 2;
pub(super) const ENCODING_LZF: u8 = 3;

const BAD_LENGTH: Corrupt = Corrupt("the first byte of a length is none that RDB defines");
const CUT: Corrupt = Corrupt("a value ends inside one of its parts");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A length, a count or a number.
    Plain(u64),
    /// A string that is not written as its bytes follows.
    Encoded(u8),
}

impl Length {
    /// # Errors
    /// When it is the encoding of a string.
    pub(super) fn plain(self) -> Result<u64, Corrupt> {
        match self {
            Self::Plain(value) => Ok(value),
            Self::Encoded(_) => Err(Corrupt("an encoded string where a number was expected")),
        }
    }
}

/// How many bytes a length with this first byte has.
///
/// # Errors
/// When no length begins so.
pub(super) fn length_size(first: u8) -> Result<usize, Corrupt> {
    match first {
        0x00..=0x3f | 0xc0..=0xff => Ok(1),
        0x40..=0x7f => Ok(2),
        0x80 => Ok(5),
        0x81 => Ok(LENGTH_BYTES_MAX),
        0x82..=0xbf => Err(BAD_LENGTH),
    }
}

/// Decodes a length of [`length_size`] bytes.
///
/// # Errors
/// When they are not one.
pub(super) fn decode_length(bytes: &[u8]) -> Result<Length, Corrupt> {
    Ok(match *bytes {
        [first @ 0x00..=0x3f] => Length::Plain(u64::from(first)),
        [first @ 0xc0..=0xff] => Length::Encoded(first & 0x3f),
        [first @ 0x40..=0x7f, second] => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(second)),
        [0x80, a, b, c, d] => Length::Plain(u64::from(u32::from_be_bytes([a, b, c, d]))),
        [0x81, a, b, c, d, e, f, g, h] => Length::Plain(u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => return Err(BAD_LENGTH),
    })
}

/// Reads the parts of a value or operand one after the other.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = usize::try_from(count).ok().and_then(|n| self.rest.split_at_checked(n)).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn length(&mut self) -> Result<Length, Corrupt> {
        let size = length_size(*self.rest.first().ok_or(CUT)?)?;
        decode_length(self.take(size as u64)?)
    }

    /// A number or count.
    pub(super) fn number(&mut self) -> Result<u64, Corrupt> {
        self.length()?.plain()
    }

    /// A deadline or other moment: Unix milliseconds in 8 bytes, little endian since RDB 9 (`rdbLoadMillisecondTime`).
    pub(super) fn time_ms(&mut self) -> Result<i64, Corrupt> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A string as the server sees it: integers in decimal, LZF expanded. No more is allocated than 88 times what is there.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Corrupt> {
        let integer = |value: i32| Cow::Owned(value.to_string().into_bytes());
        match self.length()? {
            Length::Plain(length) => Ok(Cow::Borrowed(self.take(length)?)),
            Length::Encoded(ENCODING_INT8) => Ok(integer(i32::from(i8::from_le_bytes(self.array()?)))),
            Length::Encoded(ENCODING_INT16) => Ok(integer(i32::from(i16::from_le_bytes(self.array()?)))),
            Length::Encoded(ENCODING_INT32) => Ok(integer(i32::from_le_bytes(self.array()?))),
            Length::Encoded(ENCODING_LZF) => {
                let compressed = self.number()?;
                let expanded = self.number()?;
                Ok(Cow::Owned(lzf::expand(self.take(compressed)?, expanded)?))
            }
            Length::Encoded(_) => Err(Corrupt("a string of an encoding that RDB does not define")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_length_is_read_at_its_bounds() {
        let table: &[(&[u8], Length)] = &[
            (b"\x00", Length::Plain(0)),
            (b"\x3f", Length::Plain(63)),
            (b"\x40\x00", Length::Plain(0)),
            (b"\x40\x40", Length::Plain(64)),
            (b"\x7f\xff", Length::Plain(16_383)),
            (b"\x80\x00\x00\x40\x00", Length::Plain(16_384)),
            (b"\x80\xff\xff\xff\xff", Length::Plain(0xffff_ffff)),
            (b"\x81\x00\x00\x00\x01\x00\x00\x00\x00", Length::Plain(1 << 32)),
            (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff", Length::Plain(u64::MAX)),
            (b"\xc0", Length::Encoded(0)),
            (b"\xc3", Length::Encoded(3)),
            (b"\xff", Length::Encoded(63)),
        ];
        for (bytes, expected) in table {
            assert_eq!(length_size(bytes[0]), Ok(bytes.len()), "{bytes:?}");
            assert_eq!(Reader::new(bytes).length(), Ok(*expected), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(Reader::new(&bytes[..cut]).length(), Err(CUT), "{bytes:?} cut at {cut}");
            }
        }
        for first in 0x82..=0xbf {
            assert_eq!(Reader::new(&[first; 9]).length(), Err(BAD_LENGTH));
        }
    }

    #[test]
    fn every_form_of_a_string_is_read() {
        let table: &[(&[u8], &[u8])] = &[
            (b"\x00", b""),
            (b"\x02ab", b"ab"),
            (b"\x40\x01x", b"x"),
            (b"\x80\x00\x00\x00\x01x", b"x"),
            (b"\x81\x00\x00\x00\x00\x00\x00\x00\x01x", b"x"),
            (b"\xc0\xff", b"-1"),
            (b"\xc0\x7f", b"127"),
            (b"\xc1\x00\x80", b"-32768"),
            (b"\xc2\x00\x00\x00\x80", b"-2147483648"),
            // LZF: one literal, then nine bytes from one back.
            (b"\xc3\x05\x0a\x00a\xe0\x00\x00", b"aaaaaaaaaa"),
        ];
        for (bytes, expected) in table {
            assert_eq!(Reader::new(bytes).string().as_deref(), Ok(*expected), "{bytes:?}");
            for cut in 0..bytes.len() {
                assert!(Reader::new(&bytes[..cut]).string().is_err(), "{bytes:?} cut at {cut}");
            }
        }
        assert!(Reader::new(b"\xc4\x01").string().is_err());
        assert!(Reader::new(b"\x81\xff\xff\xff\xff\xff\xff\xff\xffabc").string().is_err());
    }
}
