//! Finds where a frame begins and ends, and reads the few bodies that a proxy looks at. Pure; any thread. Never reads a client's rows.
//!
//! A frame is a tag byte, a length of four bytes that counts itself, and a body (protocol-message-formats). The frames before log-in
//! that have no tag are in [`super::startup`].

use memchr::memchr;

use base::model::limits;

/// Bytes of a frame's head: its tag and its length.
pub const HEAD_BYTES: usize = 5;

/// What the first bytes of a frame tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The head is not whole yet.
    NeedMore,
    /// `body_len` bytes follow the [`HEAD_BYTES`].
    Frame {
        tag: u8,
        body_len: usize,
    },
    Invalid(Violation),
}

/// Why a connection cannot go on, in the words and with the code PostgreSQL or libpq would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Five characters (errcodes-appendix).
    pub sqlstate: &'static str,
    /// May be shown to the client.
    pub message: String,
}

impl Violation {
    /// A protocol violation, SQLSTATE 08P01.
    #[must_use]
    pub fn protocol(message: impl Into<String>) -> Self {
        Self { sqlstate: "08P01", message: message.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

/// Longest frame a client may send with this tag, its length word included; `None`: no such frame.
/// As in PostgreSQL's `SocketBackend` (postgres.c), `CopyGetData` and, for 'p', auth.c.
fn client_limit(tag: u8) -> Option<usize> {
    match tag {
        b'Q' | b'F' | b'P' | b'B' | b'd' => Some(limits::PG_FRAME_BYTES_MAX),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(limits::PG_SMALL_FRAME_BYTES_MAX),
        b'p' => Some(limits::PG_LOGIN_FRAME_BYTES_MAX),
        _ => None,
    }
}

/// The same for a server's frame. libpq's `pqParseInput3` accepts long frames with the tags T, D, d, V, E, N and A. Other drivers also
/// accept a ParameterDescription (t) of 65535 parameters and a ParameterStatus (S) as long as the setting, and so does this codec.
fn server_limit(tag: u8) -> Option<usize> {
    match tag {
        b'T' | b'D' | b'd' | b'V' | b'E' | b'N' | b'A' | b't' | b'S' => Some(limits::PG_FRAME_BYTES_MAX),
        b'R' => Some(limits::PG_LOGIN_FRAME_BYTES_MAX),
        b'1' | b'2' | b'3' | b'C' | b'G' | b'H' | b'I' | b'K' | b'W' | b'Z' | b'c' | b'n' | b's' | b'v' => {
            Some(limits::PG_SERVER_SMALL_FRAME_BYTES_MAX)
        }
        _ => None,
    }
}

/// Reads the head of the client's frame that begins `bytes`. `Invalid`: an unknown tag, or a length outside the tag's limits.
#[must_use]
pub fn client_head(bytes: &[u8]) -> Head {
    head(bytes, client_limit, |tag, len| match len {
        None => Violation::protocol(format!("invalid frontend message type {tag}")),
        Some(_) => Violation::protocol("invalid message length"),
    })
}

/// Reads the head of the server's frame that begins `bytes`. `Invalid`: an unknown tag, or a length outside the tag's limits.
#[must_use]
pub fn server_head(bytes: &[u8]) -> Head {
    head(bytes, server_limit, |tag, len| {
        let len = len.map_or_else(|| "unknown".to_owned(), |len| len.to_string());
        let tag = char::from(tag).escape_default();
        Violation::protocol(format!("lost synchronization with server: got message type \"{tag}\", length {len}"))
    })
}

fn head(bytes: &[u8], limit: fn(u8) -> Option<usize>, refuse: impl Fn(u8, Option<u32>) -> Violation) -> Head {
    let Some(&tag) = bytes.first() else { return Head::NeedMore };
    let Some(limit) = limit(tag) else { return Head::Invalid(refuse(tag, None)) };
    let Some(len) = bytes.get(1..).and_then(be32) else { return Head::NeedMore };
    match (len as usize).checked_sub(4) {
        Some(body_len) if len as usize <= limit => Head::Frame { tag, body_len },
        _ => Head::Invalid(refuse(tag, Some(len))),
    }
}

/// The big-endian number that begins `bytes`; `None` when there are fewer than four.
#[must_use]
pub fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_be_bytes(*four))
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|two| u16::from_be_bytes(*two))
}

/// The string that begins `bytes`, without its NUL, and what follows it; `None` when there is no NUL.
#[must_use]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The valid beginning of what should be UTF-8: a server may send messages in the database's encoding before it knows the client's.
fn utf8_prefix(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// The fields of the body of an ErrorResponse or NoticeResponse: a field's type (protocol-error-fields: 'S', 'C', 'M', …) and its text.
/// Ends early when the body does.
pub fn error_fields(body: &[u8]) -> impl Iterator<Item = (u8, &str)> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (&kind, text) = rest.split_first().filter(|(kind, _)| **kind != 0)?;
        let (text, after) = cstr(text)?;
        rest = after;
        Some((kind, utf8_prefix(text)))
    })
}

/// The text of the first field of this type.
#[must_use]
pub fn error_field(body: &[u8], kind: u8) -> Option<&str> {
    error_fields(body).find(|(own, _)| *own == kind).map(|(_, text)| text)
}

/// Parse (P), read from its body or the beginning of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The prepared statement's; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub query: &'a [u8],
    /// The body ends within the text.
    pub cut: bool,
}

impl<'a> Parse<'a> {
    /// `None` when the body ends before the statement's name does.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (name, rest) = cstr(body)?;
        Some(match cstr(rest) {
            Some((query, _)) => Self { name, query, cut: false },
            None => Self { name, query: rest, cut: true },
        })
    }
}

/// The text of a Query (Q) body or of the beginning of one, and whether it is cut.
#[must_use]
pub fn query_text(body: &[u8]) -> (&[u8], bool) {
    cstr(body).map_or((body, true), |(text, _)| (text, false))
}

/// Bind (B), without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Empty for the unnamed portal.
    pub portal: &'a [u8],
    /// The prepared statement's name; empty for the unnamed one.
    pub statement: &'a [u8],
}

impl<'a> Bind<'a> {
    /// `None` when the body ends before the second name does.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstr(body)?;
        let (statement, _) = cstr(rest)?;
        Some(Self { portal, statement })
    }
}

/// Execute (E).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Empty for the unnamed portal.
    pub portal: &'a [u8],
    /// The most rows to return; 0 for all of them.
    pub rows_max: u32,
}

impl<'a> Execute<'a> {
    /// `None` when the body is cut.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = cstr(body)?;
        Some(Self { portal, rows_max: be32(rest)? })
    }
}

/// What a Close or Describe names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Statement,
    Portal,
}

fn kind_and_name(body: &[u8]) -> Option<(Kind, &[u8])> {
    let (kind, rest) = body.split_first()?;
    let kind = match kind {
        b'S' => Kind::Statement,
        b'P' => Kind::Portal,
        _ => return None,
    };
    Some((kind, cstr(rest)?.0))
}

/// Close (C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    pub kind: Kind,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// `None` when the body is cut or names something of an unknown kind.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        kind_and_name(body).map(|(kind, name)| Self { kind, name })
    }
}

/// Describe (D).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Describe<'a> {
    pub kind: Kind,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// `None` when the body is cut or names something of an unknown kind.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        kind_and_name(body).map(|(kind, name)| Self { kind, name })
    }
}

/// Reads the body of a BackendKeyData (K): the process id and the secret key. `None` unless the key has 4 to 256 bytes.
#[must_use]
pub fn backend_key_data(body: &[u8]) -> Option<(u32, &[u8])> {
    let key = body.get(4..)?;
    let is_within_limits = (limits::PG_CANCEL_KEY_BYTES_MIN..=limits::PG_CANCEL_KEY_BYTES_MAX).contains(&key.len());
    is_within_limits.then_some((be32(body)?, key))
}

/// Reads the body of a ParameterStatus (S): name and value. `None` when it is cut.
#[must_use]
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(body)?;
    Some((name, cstr(rest)?.0))
}

/// Reads the body of a NegotiateProtocolVersion (v): the newest version that the server speaks, and the options it does not know. The
/// version is 3 << 16 | minor, as PostgreSQL sends it; the documentation says minor only. `None` when the body is cut.
#[must_use]
pub fn negotiate_protocol_version(body: &[u8]) -> Option<(u32, Vec<&[u8]>)> {
    let (minor, count) = (be32(body)?, be32(body.get(4..)?)?);
    let mut rest = body.get(8..)?;
    let mut options = Vec::new();
    for _ in 0..count {
        let (option, after) = cstr(rest)?;
        options.push(option);
        rest = after;
    }
    Some((minor, options))
}

/// Reads the body of a CommandComplete (C): its text, such as "INSERT 0 1". `None` when it is cut.
#[must_use]
pub fn command_tag(body: &[u8]) -> Option<&[u8]> {
    cstr(body).map(|(tag, _)| tag)
}

/// The columns of the body of a DataRow (D), for Crossfade's own questions: `None` is NULL. Ends early when the body does.
pub fn data_row(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut left = be16(body).unwrap_or(0);
    let mut rest = body.get(2..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let len = be32(rest)?;
        rest = &rest[4..];
        if len == u32::MAX {
            return Some(None);
        }
        let value = rest.get(..len as usize)?;
        rest = &rest[len as usize..];
        Some(Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(head: Head) -> String {
        match head {
            Head::Invalid(why) => why.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn heads_of_both_directions() {
        assert_eq!(client_head(b"Q\0\0\0\x05\0"), Head::Frame { tag: b'Q', body_len: 1 });
        assert_eq!(client_head(b"S\0\0\0\x04"), Head::Frame { tag: b'S', body_len: 0 });
        assert_eq!(server_head(b"Z\0\0\0\x05I"), Head::Frame { tag: b'Z', body_len: 1 });
        assert_eq!(server_head(b"v\0\0\0\x0c"), Head::Frame { tag: b'v', body_len: 8 });
        for cut in [&b""[..], b"Q", b"Q\0", b"Q\0\0\0"] {
            assert_eq!(client_head(cut), Head::NeedMore);
        }
        assert_eq!(violation(client_head(b"Z")), "invalid frontend message type 90 (08P01)");
        assert_eq!(violation(client_head(b"Q\0\0\0\x03")), "invalid message length (08P01)");
        assert!(violation(server_head(b"Q")).starts_with("lost synchronization with server"));
        assert!(violation(server_head(b"Z\xff\xff\xff\xff")).contains("length 4294967295"));
    }

    #[test]
    fn limits_are_those_of_the_tag() {
        let frame = |tag: u8, len: u32| [&[tag][..], &len.to_be_bytes()].concat();
        for (tag, limit) in [(b'Q', 0x3fff_fffe), (b'd', 0x3fff_fffe), (b'S', 10_000), (b'E', 10_000), (b'p', 65_535)] {
            assert!(matches!(client_head(&frame(tag, limit)), Head::Frame { .. }));
            assert!(matches!(client_head(&frame(tag, limit + 1)), Head::Invalid(_)));
        }
        for (tag, limit) in [(b'D', 0x3fff_fffe), (b'C', 30_000), (b't', 0x3fff_fffe)] {
            assert!(matches!(server_head(&frame(tag, limit)), Head::Frame { .. }));
            assert!(matches!(server_head(&frame(tag, limit + 1)), Head::Invalid(_)));
        }
    }

    #[test]
    fn bodies_are_read_and_a_cut_body_gives_what_is_there() {
        assert_eq!(Parse::read(b"s1\0select 1\0\0\0"), Some(Parse { name: b"s1", query: b"select 1", cut: false }));
        assert_eq!(Parse::read(b"s1\0sel"), Some(Parse { name: b"s1", query: b"sel", cut: true }));
        assert_eq!(Parse::read(b"s1"), None);
        assert_eq!(query_text(b"select 1\0"), (&b"select 1"[..], false));
        assert_eq!(query_text(b"selec"), (&b"selec"[..], true));
        assert_eq!(Bind::read(b"\0s1\0\0\0"), Some(Bind { portal: b"", statement: b"s1" }));
        assert_eq!(Bind::read(b"\0s1"), None);
        assert_eq!(Execute::read(b"p\0\0\0\0\x05"), Some(Execute { portal: b"p", rows_max: 5 }));
        assert_eq!(Close::read(b"Ss1\0"), Some(Close { kind: Kind::Statement, name: b"s1" }));
        assert_eq!(Describe::read(b"P\0"), Some(Describe { kind: Kind::Portal, name: b"" }));
        assert_eq!((Close::read(b"X\0"), Describe::read(b"")), (None, None));
        let fields: Vec<_> = error_fields(b"SERROR\0C42P01\0Mno\xff\0\0rest").collect();
        assert_eq!(fields, [(b'S', "ERROR"), (b'C', "42P01"), (b'M', "no")]);
        assert_eq!(error_field(b"SERROR\0C42P01\0\0", b'C'), Some("42P01"));
        assert_eq!(backend_key_data(b"\0\0\0\x07abcd"), Some((7, &b"abcd"[..])));
        assert_eq!(backend_key_data(b"\0\0\0\x07abc"), None);
        assert_eq!(parameter_status(b"TimeZone\0UTC\0"), Some((&b"TimeZone"[..], &b"UTC"[..])));
        assert_eq!(negotiate_protocol_version(b"\0\0\0\0\0\0\0\x01_pq_.x\0"), Some((0, vec![&b"_pq_.x"[..]])));
        assert_eq!(negotiate_protocol_version(b"\0\0\0\0\xff\xff\xff\xff_pq_.x\0"), None);
        let row: Vec<_> = data_row(b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\x09cut").collect();
        assert_eq!(row, [Some(&b"a"[..]), None]);
    }
}
