//! What a guest says, made fit to print. Nothing of it is trusted: not its encoding, not its length.

/// Invalid UTF-8 replaced, control characters as spaces, and then at most `limit` bytes of whole characters.
pub(super) fn printable(raw: &[u8], limit: usize) -> String {
    // A replacement is longer than what it replaces, so the result is cut, and only then is it long enough.
    let mut text: String = String::from_utf8_lossy(raw).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.truncate(text.floor_char_boundary(limit));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_guest_writes_can_be_printed() {
        assert_eq!(printable(b"plain text", 64), "plain text");
        assert_eq!(printable(b"a\x1b[31mb\r\nc\0\x7f\xc2\x85d", 64), "a [31mb  c   d");
        assert_eq!(printable(b"ab\xff\xfec", 64), "ab\u{fffd}\u{fffd}c");
        assert_eq!(printable("aé€".as_bytes(), 5), "aé");
        assert_eq!(printable(&[0xff; 512], 512).len(), 510);
    }
}
