//! Whole RESP replies as owned trees, and requests as bytes: for jobs, which need every element and are not on the data path.
//!
//! Not for cores: they read frames in place and never build a tree. Pure: no I/O, no clock; any thread.
//! Rules: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Streamed RESP3 types (`$?`, `*?`) are refused: no server sends them.

use std::fmt;

pub use super::encode::{push_request as encode_request_into, request as encode_request};
use base::model::limits;

/// One reply. RESP3 types keep their meaning; RESP2's null bulk and null array are both [`Value::Null`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Simple(Vec<u8>),
    /// An error reply with its code word, without the leading `-` (`!` errors too).
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Bool(bool),
    /// The text as sent, because servers format doubles differently.
    Double(Vec<u8>),
    BigNumber(Vec<u8>),
    /// Without the three letters of its format.
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    /// Field, value, field, value: as a RESP2 server would have sent it.
    Map(Vec<Value>),
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a simple or bulk string or number text; `None` for anything else.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Simple(b) | Self::Bulk(b) | Self::Double(b) | Self::BigNumber(b) | Self::Verbatim(b) => Some(b),
            Self::Null
            | Self::Error(_)
            | Self::Integer(_)
            | Self::Bool(_)
            | Self::Array(_)
            | Self::Set(_)
            | Self::Map(_)
            | Self::Push(_) => None,
        }
    }

    /// The elements of an array, set, map (flat) or push.
    #[must_use]
    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Map(items) | Self::Push(items) => Some(items),
            Self::Null
            | Self::Simple(_)
            | Self::Error(_)
            | Self::Integer(_)
            | Self::Bulk(_)
            | Self::Bool(_)
            | Self::Double(_)
            | Self::BigNumber(_)
            | Self::Verbatim(_) => None,
        }
    }

    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(n) => Some(*n),
            other => other.bytes().and_then(|b| std::str::from_utf8(b).ok()).and_then(|text| text.parse().ok()),
        }
    }

    /// The text of an error reply, lossily.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Appends it as RESP2 sends it.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let line = |out: &mut Vec<u8>, first: u8, text: &[u8]| {
            out.push(first);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        };
        match self {
            Self::Null => line(out, b'$', b"-1"),
            Self::Simple(text) => line(out, b'+', text),
            Self::Error(text) => line(out, b'-', text),
            Self::Integer(number) => line(out, b':', number.to_string().as_bytes()),
            Self::Bool(yes) => line(out, b':', if *yes { b"1" } else { b"0" }),
            Self::Bulk(bytes) | Self::Double(bytes) | Self::BigNumber(bytes) | Self::Verbatim(bytes) => {
                line(out, b'$', bytes.len().to_string().as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Array(items) | Self::Set(items) | Self::Map(items) | Self::Push(items) => {
                line(out, b'*', items.len().to_string().as_bytes());
                items.iter().for_each(|item| item.encode_into(out));
            }
        }
    }

    /// A short rendering for messages: at most 80 characters, bytes outside ASCII escaped.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Integer(n) => n.to_string(),
            Self::Bool(b) => b.to_string(),
            Self::Error(text) => format!("error {}", brief_bytes(text)),
            Self::Simple(b) | Self::Bulk(b) | Self::Double(b) | Self::BigNumber(b) | Self::Verbatim(b) => {
                brief_bytes(b)
            }
            Self::Array(items) | Self::Set(items) | Self::Map(items) | Self::Push(items) => {
                format!("{} elements", items.len())
            }
        }
    }
}

/// At most 80 characters of `bytes`, escaped, with the length when cut.
#[must_use]
pub fn brief_bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    let text: String = cut.escape_ascii().to_string().chars().take(80).collect();
    if cut.len() < bytes.len() { format!("\"{text}...\" ({} bytes)", bytes.len()) } else { format!("\"{text}\"") }
}

/// The peer broke the protocol or a limit; the connection cannot be used any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// Finds the end of one reply without looking at a byte twice, however it is split.
#[derive(Debug, Clone, Default)]
pub struct Extent {
    /// Everything before this position has been scanned.
    at: usize,
    /// Elements still to come; meaningful once `begun`.
    pending: u64,
    begun: bool,
}

impl Extent {
    /// `bytes` begins with the reply and must only ever grow between calls. `Some(length)` once the reply is whole.
    ///
    /// # Errors
    /// [`Invalid`] when no continuation could make this a reply within limits.
    pub fn find(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Invalid> {
        if !self.begun {
            self.begun = true;
            self.pending = 1;
        }
        while self.pending > 0 {
            let Some(head) = read_head(bytes, self.at)? else { return Ok(None) };
            let end = match head.body {
                Body::None => head.next,
                Body::Bytes(length) => head.next + length + 2,
                Body::Children(count) => {
                    self.pending = self.pending.saturating_add(count);
                    head.next
                }
            };
            if end > bytes_max {
                return invalid(format!("a reply is longer than the {bytes_max} bytes accepted here"));
            }
            if end > bytes.len() {
                return Ok(None);
            }
            self.at = end;
            // An attribute is a prefix of the value it belongs to, so it does not count as an element itself.
            if head.kind != b'|' {
                self.pending -= 1;
            }
        }
        Ok(Some(self.at))
    }
}

enum Body {
    None,
    Bytes(usize),
    Children(u64),
}

struct Head<'a> {
    kind: u8,
    line: &'a [u8],
    next: usize,
    body: Body,
    null: bool,
}

/// Elements one aggregate may announce: more than any server keeps in a key it would still answer for in time.
const CHILDREN_MAX: i64 = 1 << 28;

fn read_head(bytes: &[u8], at: usize) -> Result<Option<Head<'_>>, Invalid> {
    let Some(&kind) = bytes.get(at) else { return Ok(None) };
    let rest = &bytes[at + 1..];
    let window = &rest[..rest.len().min(limits::LINE_BYTES_MAX)];
    let Some(length) = memchr::memchr(b'\n', window) else {
        return if window.len() == limits::LINE_BYTES_MAX { invalid("a reply line is too long") } else { Ok(None) };
    };
    if length == 0 || rest[length - 1] != b'\r' {
        return invalid("a reply line does not end in CRLF");
    }
    let line = &rest[..length - 1];
    let next = at + 1 + length + 1;
    let (body, null) = match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => (Body::None, kind == b'_'),
        b'$' | b'!' | b'=' => match parse_integer(line)? {
            -1 => (Body::None, true),
            n if n >= 0 && n as u64 <= limits::BULK_BYTES_MAX => (Body::Bytes(n as usize), false),
            n => return invalid(format!("a bulk of {n} bytes")),
        },
        b'*' | b'~' | b'>' | b'%' | b'|' => match parse_integer(line)? {
            -1 => (Body::None, true),
            n if (0..=CHILDREN_MAX).contains(&n) => {
                let factor = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                (Body::Children(n as u64 * factor), false)
            }
            n => return invalid(format!("an aggregate of {n} elements")),
        },
        other => return invalid(format!("a reply begins with byte 0x{other:02x}")),
    };
    Ok(Some(Head { kind, line, next, body, null }))
}

fn parse_integer(line: &[u8]) -> Result<i64, Invalid> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Invalid(format!("{} where a number was expected", brief_bytes(line))))
}

/// Decodes the reply at the beginning of `bytes`; `None` when it is not whole. Gives the value and its length.
///
/// # Errors
/// [`Invalid`] as [`Extent::find`]; also when nested deeper than [`limits::REPLY_DEPTH_MAX`].
pub fn decode(bytes: &[u8], bytes_max: usize) -> Result<Option<(Value, usize)>, Invalid> {
    match Extent::default().find(bytes, bytes_max)? {
        Some(length) => {
            let (value, end) = build(&bytes[..length], 0, 0)?;
            debug_assert_eq!(end, length);
            Ok(Some((value, end)))
        }
        None => Ok(None),
    }
}

/// Decodes one whole reply.
///
/// # Errors
/// [`Invalid`] as [`decode`]; also when bytes are missing or left over.
pub fn decode_whole(bytes: &[u8]) -> Result<Value, Invalid> {
    match decode(bytes, usize::MAX)? {
        Some((value, length)) if length == bytes.len() => Ok(value),
        Some((_, length)) => invalid(format!("{} bytes after the reply", bytes.len() - length)),
        None => invalid("the reply is cut off"),
    }
}

/// The elements of a reply, each as it was sent: see [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u64,
}

/// Looks into one whole reply without building a tree; `None` when it is no array, set, map or push, or a null one.
#[must_use]
pub fn elements(reply: &[u8]) -> Option<Elements<'_>> {
    let head = read_head(reply, 0).ok()??;
    match head.body {
        Body::Children(count) if head.kind != b'|' => Some(Elements { bytes: reply, at: head.next, left: count }),
        Body::Children(_) | Body::Bytes(_) | Body::None => None,
    }
}

impl Elements<'_> {
    /// How many are to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let begin = self.at;
        self.at = Extent { at: begin, pending: 1, begun: true }.find(self.bytes, usize::MAX).ok()??;
        Some(&self.bytes[begin..self.at])
    }
}

/// `bytes` is known to hold the whole value at `at` ([`Extent`] has walked it).
fn build(bytes: &[u8], at: usize, depth: usize) -> Result<(Value, usize), Invalid> {
    if depth > limits::REPLY_DEPTH_MAX {
        return invalid("a reply is nested too deep");
    }
    let Some(head) = read_head(bytes, at)? else { return invalid("the reply is cut off") };
    if head.null {
        return Ok((Value::Null, head.next));
    }
    match head.body {
        Body::None => Ok((build_line(head.kind, head.line)?, head.next)),
        Body::Bytes(length) => {
            let end = head.next + length;
            if bytes.get(end..end + 2) != Some(b"\r\n".as_slice()) {
                return invalid("a bulk does not end in CRLF");
            }
            let body = bytes[head.next..end].to_vec();
            let value = match head.kind {
                b'!' => Value::Error(body),
                b'=' => Value::Verbatim(body.get(4..).unwrap_or_default().to_vec()),
                _ => Value::Bulk(body),
            };
            Ok((value, end + 2))
        }
        Body::Children(count) => {
            let mut next = head.next;
            // Each element takes at least three bytes, so a false count cannot reserve more memory than the bytes received.
            let mut items = Vec::with_capacity((count as usize).min((bytes.len() - next) / 3 + 1));
            for _ in 0..count {
                let (item, end) = build(bytes, next, depth + 1)?;
                items.push(item);
                next = end;
            }
            match head.kind {
                b'|' => build(bytes, next, depth + 1),
                b'~' => Ok((Value::Set(items), next)),
                b'%' => Ok((Value::Map(items), next)),
                b'>' => Ok((Value::Push(items), next)),
                _ => Ok((Value::Array(items), next)),
            }
        }
    }
}

fn build_line(kind: u8, line: &[u8]) -> Result<Value, Invalid> {
    match kind {
        b'+' => Ok(Value::Simple(line.to_vec())),
        b'-' => Ok(Value::Error(line.to_vec())),
        b':' => Ok(Value::Integer(parse_integer(line)?)),
        b',' => Ok(Value::Double(line.to_vec())),
        b'(' => Ok(Value::BigNumber(line.to_vec())),
        b'#' => match line {
            b"t" => Ok(Value::Bool(true)),
            b"f" => Ok(Value::Bool(false)),
            _ => invalid("a boolean that is neither t nor f"),
        },
        _ => invalid("an aggregate where a line was expected"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn a_value_is_written_as_it_was_read() {
        let frames: [&[u8]; 6] =
            [b"$-1\r\n", b"+OK\r\n", b"-ERR no\r\n", b":-7\r\n", b"$3\r\na\r\n\r\n", b"*2\r\n$1\r\na\r\n*0\r\n"];
        for frame in frames {
            let mut written = Vec::new();
            decode_whole(frame).expect("a reply").encode_into(&mut written);
            assert_eq!(written, frame);
        }
    }

    #[test]
    fn every_type_is_read_whole_and_refuses_every_prefix() {
        let table: &[(&str, Value)] = &[
            ("+OK\r\n", Value::Simple(b"OK".to_vec())),
            ("-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
            (":-7\r\n", Value::Integer(-7)),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("_\r\n", Value::Null),
            ("$0\r\n\r\n", bulk("")),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            ("#t\r\n", Value::Bool(true)),
            (",1.5\r\n", Value::Double(b"1.5".to_vec())),
            ("(123456789012345678901\r\n", Value::BigNumber(b"123456789012345678901".to_vec())),
            ("!5\r\nERR x\r\n", Value::Error(b"ERR x".to_vec())),
            ("=6\r\ntxt:ab\r\n", Value::Verbatim(b"ab".to_vec())),
            ("*0\r\n", Value::Array(vec![])),
            ("*2\r\n:1\r\n*1\r\n$1\r\na\r\n", Value::Array(vec![Value::Integer(1), Value::Array(vec![bulk("a")])])),
            ("%1\r\n+k\r\n:2\r\n", Value::Map(vec![Value::Simple(b"k".to_vec()), Value::Integer(2)])),
            ("~1\r\n:2\r\n", Value::Set(vec![Value::Integer(2)])),
            (">1\r\n+p\r\n", Value::Push(vec![Value::Simple(b"p".to_vec())])),
            ("|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n", bulk("x")),
        ];
        for (text, expected) in table {
            assert_eq!(decode_whole(text.as_bytes()).as_ref(), Ok(expected), "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(decode(&text.as_bytes()[..cut], 1 << 20), Ok(None), "{text:?} cut at {cut}");
            }
            let mut extent = Extent::default();
            for end in 0..text.len() {
                assert_eq!(extent.find(&text.as_bytes()[..end], 1 << 20), Ok(None));
            }
            assert_eq!(extent.find(text.as_bytes(), 1 << 20), Ok(Some(text.len())), "{text:?} byte by byte");
        }
    }

    #[test]
    fn elements_are_what_the_tree_holds() {
        let reply = b"*5\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n-ERR no\r\n|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n$-1\r\n";
        let Ok(Value::Array(items)) = decode_whole(reply) else { panic!("an array") };
        let found = elements(reply).expect("an array");
        assert_eq!(found.left(), 5);
        let decoded: Vec<Value> = found.map(|frame| decode_whole(frame).expect("a reply")).collect();
        assert_eq!(decoded, items);
        for none in ["*-1\r\n", "+OK\r\n", "$3\r\n*1\r\r\n", "_\r\n", ""] {
            assert!(elements(none.as_bytes()).is_none(), "{none:?}");
        }
    }

    #[test]
    fn broken_replies_are_refused() {
        for bad in [
            "x\r\n",
            "+a\n",
            ":x\r\n",
            "$-2\r\n",
            "$99999999999\r\n",
            "*-5\r\n",
            "$1\r\naXY",
            "#x\r\n",
            "$?\r\n",
            "+\n",
        ] {
            assert!(decode(bad.as_bytes(), 1 << 20).is_err(), "{bad:?}");
        }
        let deep = format!("{}:1\r\n", "*1\r\n".repeat(limits::REPLY_DEPTH_MAX + 2));
        assert!(decode(deep.as_bytes(), 1 << 20).is_err());
        assert!(decode(b"$100\r\n", 50).is_err(), "over the caller's limit");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 1 << 20);
        }

        #[test]
        fn a_request_reads_back_as_its_arguments(args in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6)) {
            let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let expected = Value::Array(args.iter().cloned().map(Value::Bulk).collect());
            prop_assert_eq!(decode_whole(&encode_request(&slices)), Ok(expected));
        }
    }
}
