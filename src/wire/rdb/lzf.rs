//! LZF, with which servers compress strings of more than 20 bytes: expansion only. Pure; any thread.
//!
//! A byte below 32 begins a literal run of one more bytes than it says. Any other byte has the length of a back reference in its upper 3
//! bits (2 is added; 7 means that the next byte is added too) and, in its lower 5 and the next byte, how far back it begins, less 1
//! (LibLZF, `lzf_d.c` in Redis' sources).

use super::Corrupt;

/// Most bytes that one compressed byte can become: a reference of 3 bytes gives at most 7 + 255 + 2.
const GROWTH_MAX: u64 = 88;

/// Expands `compressed` to exactly `length` bytes. Reserves at most [`GROWTH_MAX`] times the bytes that are there.
///
/// # Errors
/// When the bytes do not give that length, or refer to before their beginning.
pub(super) fn expand(compressed: &[u8], length: u64) -> Result<Vec<u8>, Corrupt> {
    const WRONG: Corrupt = Corrupt("an LZF string does not expand to its length");
    if length > compressed.len() as u64 * GROWTH_MAX {
        return Err(WRONG);
    }
    let length = usize::try_from(length).map_err(|_| WRONG)?;
    let mut out = Vec::with_capacity(length);
    let mut bytes = compressed;
    while let Some((&control, rest)) = bytes.split_first() {
        bytes = rest;
        if control < 32 {
            let (run, rest) = bytes.split_at_checked(usize::from(control) + 1).ok_or(WRONG)?;
            out.extend_from_slice(run);
            bytes = rest;
        } else {
            let mut count = usize::from(control >> 5) + 2;
            if control >> 5 == 7 {
                let (&more, rest) = bytes.split_first().ok_or(WRONG)?;
                count += usize::from(more);
                bytes = rest;
            }
            let (&low, rest) = bytes.split_first().ok_or(WRONG)?;
            bytes = rest;
            let back = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(back).ok_or(WRONG)?;
            if out.len() + count > length {
                return Err(WRONG);
            }
            // The reference may reach into what it writes: then it repeats, and what can be copied at once doubles.
            while count > 0 {
                let piece = count.min(out.len() - from);
                out.extend_from_within(from..from + piece);
                count -= piece;
            }
        }
        if out.len() > length {
            return Err(WRONG);
        }
    }
    if out.len() == length { Ok(out) } else { Err(WRONG) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_references_are_expanded() {
        assert_eq!(expand(b"\x02abc", 3).as_deref(), Ok(&b"abc"[..]));
        // "abc", then 3 from 3 back, then 5 from 1 back.
        assert_eq!(expand(b"\x02abc\x20\x02\x60\x00", 11).as_deref(), Ok(&b"abcabcccccc"[..]));
        // The longest reference.
        assert_eq!(expand(b"\x00x\xe0\xff\x00", 265), Ok(vec![b'x'; 265]));
    }

    #[test]
    fn a_reference_repeats_what_it_has_written() {
        for back in 1..=9_usize {
            for count in 3..=264_usize {
                let (first, mut compressed) = (&b"abcdefghi"[..back], vec![back as u8 - 1]);
                compressed.extend_from_slice(first);
                let (low, short) = (back as u8 - 1, count - 2);
                match short {
                    ..7 => compressed.extend([(short as u8) << 5, low]),
                    _ => compressed.extend([7 << 5, (short - 7) as u8, low]),
                }
                let expected: Vec<u8> = first.iter().cycle().take(back + count).copied().collect();
                assert_eq!(expand(&compressed, expected.len() as u64), Ok(expected), "{count} from {back} back");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (bytes, length) in [
            (&b"\x02ab"[..], 3),
            (b"\x02abc", 2),
            (b"\x02abc", 4),
            (b"\x00a\x20\x01", 4),
            (b"\x00a\xe0\x00", 10),
            (b"\x00a\x20", 4),
            (b"", 1),
            (b"\x00x\xe0\xff\x00", u64::MAX),
        ] {
            assert!(expand(bytes, length).is_err(), "{bytes:?} to {length}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length: u64) {
            let _ = expand(&bytes, length);
            let _ = expand(&bytes, length % 600);
        }
    }
}
