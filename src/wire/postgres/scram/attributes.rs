//! The attributes of SCRAM's messages: comma-separated, `name=value` (RFC 5802, 5.1). Pure; any thread.

/// The value of `name=value`.
pub(super) fn attribute(part: Option<&str>, name: char) -> Option<&str> {
    part?.strip_prefix(name)?.strip_prefix('=')
}

pub(super) fn nonce_is_good(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}
