//! Makes a guest's text printable. Neither its encoding nor its length is trusted.

/// Invalid UTF-8 replaced, control characters as spaces, and then at most `limit` bytes of whole characters.
pub(super) fn printable(raw: &[u8], limit: usize) -> String {
    // A replacement character is longer than what it replaces, so the limit applies to the result.
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
