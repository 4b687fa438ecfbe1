//! The attributes of SCRAM's messages: comma-separated, `name=value` (RFC 5802, 5.1). Pure; any thread.

/// The value of the attribute `name` if `part` is that attribute.
pub(super) fn attribute(part: Option<&str>, name: char) -> Option<&str> {
    part?.strip_prefix(name)?.strip_prefix('=')
}

/// Whether a nonce is printable ASCII without commas, as RFC 5802, section 7 asks for.
pub(super) fn nonce_is_good(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}
