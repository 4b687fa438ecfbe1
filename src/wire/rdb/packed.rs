//! The compact encodings that a server keeps small values in, each one string of a snapshot: listpack, ziplist, intset, zipmap. Pure; any
//! thread.
//!
//! Formats: the comments at the top of `listpack.c`, `ziplist.c`, `intset.c` and `zipmap.c` (Redis). Numbers are little endian unless said
//! otherwise.

use std::borrow::Cow;
use std::ops::Range;

use super::Corrupt;
use super::lengths::Reader;

const BAD: Corrupt = Corrupt("a listpack, ziplist, intset or zipmap breaks its format");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Total bytes (4), elements (2), the elements, 0xff.
    Listpack,
    /// Total bytes (4), offset of the last element (4), elements (2), the elements, 0xff.
    Ziplist,
    /// Bytes of each integer (4), how many (4), the integers.
    Intset,
    /// Elements (1), fields and values in turn, 0xff.
    Zipmap,
}

/// One element: where it is, or what it is.
enum Piece {
    Bytes(Range<usize>),
    Integer(i64),
}

/// Reads the elements of one string in order.
#[derive(Debug, Clone)]
pub(super) struct Packed<'a> {
    bytes: Cow<'a, [u8]>,
    format: Format,
    at: usize,
    /// A zipmap's next element is a value.
    is_value: bool,
}

impl<'a> Packed<'a> {
    /// # Errors
    /// When its head does not fit its length.
    pub(super) fn new(format: Format, bytes: Cow<'a, [u8]>) -> Result<Self, Corrupt> {
        let mut head = Reader::new(&bytes);
        let mut total = || Ok(u64::from(u32::from_le_bytes(head.array()?)));
        let (at, fits) = match format {
            Format::Listpack => (6, bytes.len() >= 7 && total()? == bytes.len() as u64),
            Format::Ziplist => (10, bytes.len() >= 11 && total()? == bytes.len() as u64),
            Format::Intset => {
                let (width, count) = (total()?, total()?);
                (8, matches!(width, 2 | 4 | 8) && 8 + width * count == bytes.len() as u64)
            }
            Format::Zipmap => (1, bytes.len() >= 2),
        };
        if fits { Ok(Self { bytes, format, at, is_value: false }) } else { Err(BAD) }
    }

    /// The next element as text; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Cow<'a, [u8]>>, Corrupt> {
        Ok(self.piece()?.map(|piece| match (piece, &self.bytes) {
            (Piece::Integer(value), _) => Cow::Owned(value.to_string().into_bytes()),
            (Piece::Bytes(range), Cow::Borrowed(bytes)) => Cow::Borrowed(&bytes[range]),
            (Piece::Bytes(range), Cow::Owned(bytes)) => Cow::Owned(bytes[range].to_vec()),
        }))
    }

    /// The next element, which must be there.
    pub(super) fn required(&mut self) -> Result<Cow<'a, [u8]>, Corrupt> {
        self.next()?.ok_or(BAD)
    }

    /// The next element, which must be an integer.
    pub(super) fn integer(&mut self) -> Result<i64, Corrupt> {
        match self.piece()? {
            Some(Piece::Integer(value)) => Ok(value),
            Some(Piece::Bytes(range)) => {
                std::str::from_utf8(&self.bytes[range]).ok().and_then(|text| text.parse().ok()).ok_or(BAD)
            }
            None => Err(BAD),
        }
    }

    fn piece(&mut self) -> Result<Option<Piece>, Corrupt> {
        match self.format {
            Format::Listpack => self.listpack(),
            Format::Ziplist => self.ziplist(),
            Format::Intset => self.intset(),
            Format::Zipmap => self.zipmap(),
        }
    }

    /// `count` bytes, which are passed.
    fn take(&mut self, count: usize) -> Result<&[u8], Corrupt> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(BAD)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.take(1)?[0])
    }

    fn text(&mut self, length: usize) -> Result<Option<Piece>, Corrupt> {
        let from = self.at;
        self.take(length)?;
        Ok(Some(Piece::Bytes(from..self.at)))
    }

    /// A signed integer of so many bytes.
    fn signed(&mut self, width: usize) -> Result<Option<Piece>, Corrupt> {
        let mut value = [0; 8];
        value[8 - width..].copy_from_slice(self.take(width)?);
        Ok(Some(Piece::Integer(i64::from_le_bytes(value) >> (8 * (8 - width)))))
    }

    /// At the byte 0xff, which must be the last.
    fn end(&mut self) -> Result<Option<Piece>, Corrupt> {
        if self.at + 1 == self.bytes.len() { Ok(None) } else { Err(BAD) }
    }

    /// The first byte says how the element is written; after it comes its length again, in groups of 7 bits, to walk backwards.
    fn listpack(&mut self) -> Result<Option<Piece>, Corrupt> {
        if self.bytes.get(self.at) == Some(&0xff) {
            return self.end();
        }
        let from = self.at;
        let first = self.byte()?;
        let piece = match first {
            0x00..=0x7f => Some(Piece::Integer(i64::from(first))),
            0x80..=0xbf => self.text(usize::from(first & 0x3f))?,
            0xc0..=0xdf => {
                let value = i64::from(first & 0x1f) << 8 | i64::from(self.byte()?);
                Some(Piece::Integer(if value >= 1 << 12 { value - (1 << 13) } else { value }))
            }
            0xe0..=0xef => {
                let length = usize::from(first & 0x0f) << 8 | usize::from(self.byte()?);
                self.text(length)?
            }
            0xf0 => {
                let length = u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| BAD)?);
                self.text(length as usize)?
            }
            0xf1 => self.signed(2)?,
            0xf2 => self.signed(3)?,
            0xf3 => self.signed(4)?,
            0xf4 => self.signed(8)?,
            0xf5..=0xff => return Err(BAD),
        };
        // The bounds are those of `lpEncodeBacklen`, which are one below what would fit.
        let back = match self.at - from {
            0..=127 => 1,
            128..16_383 => 2,
            16_383..2_097_151 => 3,
            2_097_151..268_435_455 => 4,
            268_435_455.. => 5,
        };
        self.take(back)?;
        Ok(piece)
    }

    /// The length of the element before, then how this one is written; lengths of text are big endian.
    fn ziplist(&mut self) -> Result<Option<Piece>, Corrupt> {
        match self.bytes.get(self.at) {
            Some(0xff) => return self.end(),
            Some(0xfe) => self.take(5)?,
            _ => self.take(1)?,
        };
        let first = self.byte()?;
        match first {
            0x00..=0x3f => self.text(usize::from(first)),
            0x40..=0x7f => {
                let length = usize::from(first & 0x3f) << 8 | usize::from(self.byte()?);
                self.text(length)
            }
            0x80 => {
                let length = u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| BAD)?);
                self.text(length as usize)
            }
            0xc0 => self.signed(2),
            0xd0 => self.signed(4),
            0xe0 => self.signed(8),
            0xf0 => self.signed(3),
            0xfe => self.signed(1),
            0xf1..=0xfd => Ok(Some(Piece::Integer(i64::from(first & 0x0f) - 1))),
            _ => Err(BAD),
        }
    }

    fn intset(&mut self) -> Result<Option<Piece>, Corrupt> {
        // The head was checked: the width is 2, 4 or 8.
        if self.at == self.bytes.len() { Ok(None) } else { self.signed(usize::from(self.bytes[0])) }
    }

    /// A length of one byte, or 254 and 4 bytes. After that of a value comes how many bytes are unused behind it.
    fn zipmap(&mut self) -> Result<Option<Piece>, Corrupt> {
        let is_value = self.is_value;
        if !is_value && self.bytes.get(self.at) == Some(&0xff) {
            return self.end();
        }
        let length = match self.byte()? {
            0xff => return Err(BAD),
            0xfe => u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| BAD)?) as usize,
            length => usize::from(length),
        };
        let unused = if is_value { self.byte()? } else { 0 };
        let piece = self.text(length)?;
        self.take(usize::from(unused))?;
        self.is_value = !is_value;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(format: Format, bytes: &[u8]) -> Result<Vec<String>, Corrupt> {
        let read = |bytes: Cow<'_, [u8]>| {
            let mut packed = Packed::new(format, bytes)?;
            let mut found = Vec::new();
            while let Some(element) = packed.next()? {
                found.push(String::from_utf8_lossy(&element).into_owned());
            }
            Ok(found)
        };
        let borrowed = read(Cow::Borrowed(bytes));
        assert_eq!(borrowed, read(Cow::Owned(bytes.to_vec())));
        borrowed
    }

    fn listpack(entries: &[u8], count: u16) -> Vec<u8> {
        [&(entries.len() as u32 + 7).to_le_bytes()[..], &count.to_le_bytes(), entries, b"\xff"].concat()
    }

    #[test]
    fn every_form_of_a_listpack_element_is_read() {
        let table: &[(&[u8], &str)] = &[
            (b"\x00\x01", "0"),
            (b"\x7f\x01", "127"),
            (b"\x80\x01", ""),
            (b"\x82ab\x03", "ab"),
            (b"\xcf\xff\x02", "4095"),
            (b"\xd0\x00\x02", "-4096"),
            (b"\xdf\xff\x02", "-1"),
            (b"\xe0\x01x\x03", "x"),
            (b"\xf0\x01\0\0\0x\x06", "x"),
            (b"\xf1\x00\x80\x03", "-32768"),
            (b"\xf2\xff\xff\x7f\x04", "8388607"),
            (b"\xf3\0\0\0\x80\x05", "-2147483648"),
            (b"\xf4\xff\xff\xff\xff\xff\xff\xff\x7f\x09", "9223372036854775807"),
        ];
        for (entry, text) in table {
            assert_eq!(elements(Format::Listpack, &listpack(entry, 1)), Ok(vec![(*text).to_owned()]), "{entry:?}");
            for cut in 0..entry.len() {
                // What is cut may still end in 0xff by chance, but never gives the element.
                assert_ne!(elements(Format::Listpack, &listpack(&entry[..cut], 1)), Ok(vec![(*text).to_owned()]));
            }
        }
        let all: Vec<u8> = table.iter().flat_map(|(entry, _)| entry.to_vec()).collect();
        let texts: Vec<String> = table.iter().map(|(_, text)| (*text).to_owned()).collect();
        assert_eq!(elements(Format::Listpack, &listpack(&all, 13)), Ok(texts));
        for (length, back) in [(4000, 2usize), (20_000, 3)] {
            let mut entry = if length < 4096 { vec![0xe0 | (length >> 8) as u8, length as u8] } else { vec![0xf0] };
            if length >= 4096 {
                entry.extend_from_slice(&(length as u32).to_le_bytes());
            }
            entry.extend(vec![b'x'; length]);
            entry.extend(vec![1; back]);
            assert_eq!(elements(Format::Listpack, &listpack(&entry, 1)), Ok(vec!["x".repeat(length)]));
        }
    }

    #[test]
    fn every_form_of_a_ziplist_element_is_read() {
        let table: &[(&[u8], &str)] = &[
            (b"\x00\x02ab", "ab"),
            (b"\xfe\x05\0\0\0\x00", ""),
            (b"\x00\x40\x01x", "x"),
            (b"\x00\x80\0\0\0\x01x", "x"),
            (b"\x00\xc0\x00\x80", "-32768"),
            (b"\x00\xd0\0\0\0\x80", "-2147483648"),
            (b"\x00\xe0\xff\xff\xff\xff\xff\xff\xff\x7f", "9223372036854775807"),
            (b"\x00\xf0\xff\xff\x7f", "8388607"),
            (b"\x00\xfe\x80", "-128"),
            (b"\x00\xf1", "0"),
            (b"\x00\xfd", "12"),
        ];
        let all: Vec<u8> = table.iter().flat_map(|(entry, _)| entry.to_vec()).collect();
        let texts: Vec<String> = table.iter().map(|(_, text)| (*text).to_owned()).collect();
        let bytes = [&(all.len() as u32 + 11).to_le_bytes()[..], &[0; 4], &[11, 0], &all, b"\xff"].concat();
        assert_eq!(elements(Format::Ziplist, &bytes), Ok(texts));
    }

    #[test]
    fn intsets_and_zipmaps_are_read() {
        assert_eq!(
            elements(Format::Intset, b"\x02\0\0\0\x02\0\0\0\xff\xff\x07\x00"),
            Ok(vec!["-1".into(), "7".into()])
        );
        assert_eq!(elements(Format::Intset, b"\x04\0\0\0\x01\0\0\0\0\0\0\x80"), Ok(vec!["-2147483648".into()]));
        assert_eq!(elements(Format::Intset, b"\x08\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0"), Ok(vec!["4294967296".into()]));
        // The example of zipmap.c, and a value with unused bytes and a long length.
        let zipmap = b"\x02\x03foo\x03\x00bar\x05hello\xfe\x05\0\0\0\x02world--\xff";
        let texts = ["foo", "bar", "hello", "world"].map(str::to_owned).to_vec();
        assert_eq!(elements(Format::Zipmap, zipmap), Ok(texts));
    }

    #[test]
    fn heads_that_do_not_fit_are_refused() {
        for (format, bytes) in [
            (Format::Listpack, &b"\x08\0\0\0\0\0\xff"[..]),
            (Format::Listpack, b"\x07\0\0\0\0"),
            (Format::Listpack, b"\x08\0\0\0\0\0\xff\xff"),
            (Format::Ziplist, b"\x0b\0\0\0\0\0\0\0\0\0"),
            (Format::Intset, b"\x03\0\0\0\x00\0\0\0"),
            (Format::Intset, b"\x02\0\0\0\xff\xff\xff\xff\x01\x00"),
            (Format::Zipmap, b"\x00"),
        ] {
            assert_eq!(elements(format, bytes), Err(BAD), "{format:?} {bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            for format in [Format::Listpack, Format::Ziplist, Format::Intset, Format::Zipmap] {
                let _ = elements(format, &bytes);
            }
            let total = (bytes.len() as u32).to_le_bytes();
            if let Some(head) = bytes.first_chunk_mut::<4>() {
                *head = total;
            }
            let _ = (elements(Format::Listpack, &bytes), elements(Format::Ziplist, &bytes));
        }
    }
}
