//! The few frames Crossfade originates.

/// Appends `<kind><number>\r\n`.
pub fn push_header(out: &mut Vec<u8>, kind: u8, number: usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends one bulk string.
pub fn push_bulk(out: &mut Vec<u8>, body: &[u8]) {
    push_header(out, b'$', body.len());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Appends one request: an array of bulk strings.
pub fn push_request(out: &mut Vec<u8>, args: &[&[u8]]) {
    push_header(out, b'*', args.len());
    for arg in args {
        push_bulk(out, arg);
    }
}

/// One request.
#[must_use]
pub fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + args.iter().map(|a| a.len() + 16).sum::<usize>());
    push_request(&mut out, args);
    out
}

/// A decimal as bytes, for arguments.
#[must_use]
pub fn number(value: i64) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// An error reply. `text` begins with the code (`ERR`, `LOADING`, …); line breaks in it are replaced.
#[must_use]
pub fn error(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    out.push(b'-');
    out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(request(&[b"GET", b"k"]), b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        assert_eq!(error("ERR a\r\nb"), b"-ERR a  b\r\n");
        let mut out = Vec::new();
        push_header(&mut out, b':', 0);
        push_header(&mut out, b'$', 1_234_567);
        assert_eq!(out, b":0\r\n$1234567\r\n");
    }
}
