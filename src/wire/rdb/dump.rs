//! DUMP payloads: what RESTORE takes. Pure; any thread.
//!
//! A payload is a type byte, the body of the value as in a snapshot, the RDB version of its writer (2 bytes, little endian) and the
//! CRC-64 of all before (8 bytes, little endian); Redis `cluster.c`, `createDumpPayload` and `verifyDumpPayload`. FUNCTION RESTORE takes
//! the same around functions, with the opcode [`FUNCTION`] in place of the type byte.

use std::fmt;

use super::crc64::{Crc64, checksum};

/// Bytes after the body.
pub const FOOTER_BYTES: usize = 10;
/// The byte before a function library in a snapshot and in FUNCTION DUMP (`RDB_OPCODE_FUNCTION2`).
pub const FUNCTION: u8 = 245;

/// The parts of a payload whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How the body is encoded (`RDB_TYPE_...`).
    pub type_byte: u8,
    pub body: &'a [u8],
    /// The RDB version of the server that wrote it. A receiver refuses a higher one than its own, whatever the body is.
    pub version: u16,
    pub crc: u64,
}

/// Why bytes are not a DUMP payload. Asking the server for it again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpError {
    /// Shorter than a type byte and a footer.
    TooShort { len: usize },
    /// The bytes were changed or cut.
    Checksum { stored: u64, computed: u64 },
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { len } => write!(f, "a DUMP payload of {len} bytes; the shortest has {}", FOOTER_BYTES + 1),
            Self::Checksum { stored, computed } => {
                write!(f, "the checksum of a DUMP payload is {stored:016x}, its bytes give {computed:016x}")
            }
        }
    }
}

impl std::error::Error for DumpError {}

/// Takes a payload apart.
///
/// # Errors
/// [`DumpError`] when it is too short or its checksum is wrong; unlike in a snapshot, a checksum of 0 is not an absent one.
pub fn parse(payload: &[u8]) -> Result<Payload<'_>, DumpError> {
    let too_short = DumpError::TooShort { len: payload.len() };
    let (before, crc) = payload.split_last_chunk::<8>().ok_or(too_short)?;
    let (value, version) = before.split_last_chunk::<2>().ok_or(too_short)?;
    let (&type_byte, body) = value.split_first().ok_or(too_short)?;
    let (stored, computed) = (u64::from_le_bytes(*crc), checksum(before));
    if stored != computed {
        return Err(DumpError::Checksum { stored, computed });
    }
    Ok(Payload { type_byte, body, version: u16::from_le_bytes(*version), crc: stored })
}

/// A payload of the body of a snapshot's record.
#[must_use]
pub fn build(type_byte: u8, body: &[u8], version: u16) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 + body.len() + FOOTER_BYTES);
    payload.push(type_byte);
    payload.extend_from_slice(body);
    let footer = footer(Crc64::resume(checksum(&payload)), version);
    payload.extend_from_slice(&footer);
    payload
}

/// The footer for a type byte and body with this checksum: for a body that is sent in pieces.
#[must_use]
pub fn footer(mut crc: Crc64, version: u16) -> [u8; FOOTER_BYTES] {
    let mut footer = [0; FOOTER_BYTES];
    footer[..2].copy_from_slice(&version.to_le_bytes());
    crc.update(&footer[..2]);
    footer[2..].copy_from_slice(&crc.value().to_le_bytes());
    footer
}

/// Writes the receiver's version into the footer, with the checksum that follows from it. Whether the receiver knows the type of the
/// value is not looked at; it answers "Bad data format" when it does not.
///
/// # Errors
/// As [`parse`]; the payload is then unchanged, so that damage is not hidden behind a new checksum.
pub fn set_version(payload: &mut [u8], version: u16) -> Result<(), DumpError> {
    if parse(payload)?.version == version {
        return Ok(());
    }
    let at = payload.len() - FOOTER_BYTES;
    let footer = footer(Crc64::resume(checksum(&payload[..at])), version);
    payload[at..].copy_from_slice(&footer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `SET k hello`, `DUMP k` on Redis 7.0.15 (version 10).
    const HELLO: &[u8] = b"\x00\x05hello\x0a\x00\x63\x72\xdf\x76\x65\x34\x20\x0a";

    #[test]
    fn a_payload_of_a_real_server_is_taken_apart_and_built_again() {
        let payload = parse(HELLO).unwrap();
        assert_eq!((payload.type_byte, payload.body, payload.version), (0, &b"\x05hello"[..], 10));
        assert_eq!(build(0, b"\x05hello", 10), HELLO);
    }

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        for at in 0..HELLO.len() {
            let mut changed = HELLO.to_vec();
            changed[at] ^= 0x10;
            assert!(matches!(parse(&changed), Err(DumpError::Checksum { .. })), "byte {at}");
            let before = changed.clone();
            assert!(set_version(&mut changed, 11).is_err());
            assert_eq!(changed, before, "a damaged payload is left as it is");
            assert!(parse(&HELLO[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(parse(&[0; 10]), Err(DumpError::TooShort { len: 10 }));
    }

    proptest! {
        #[test]
        fn a_version_can_be_changed_and_changed_back(type_byte: u8, body: Vec<u8>, version: u16, other: u16) {
            let first = build(type_byte, &body, version);
            let mut payload = first.clone();
            set_version(&mut payload, other).unwrap();
            prop_assert_eq!(&payload, &build(type_byte, &body, other));
            let parts = parse(&payload).unwrap();
            prop_assert_eq!((parts.type_byte, parts.body, parts.version), (type_byte, &body[..], other));
            set_version(&mut payload, version).unwrap();
            prop_assert_eq!(payload, first);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = set_version(&mut bytes, 10);
        }
    }
}
