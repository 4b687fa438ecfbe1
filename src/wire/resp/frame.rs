//! Finds where frames end, and nothing else. Resumable at every byte, no recursion, no allocation.
//!
//! [`scan_request`] looks at a buffer that begins with a client's request and remembers how far it got; [`ReplyFeed`] is fed
//! chunks of a server's replies and never needs a byte twice, so that replies can be forwarded before they are complete.

use memchr::memchr;

use base::model::limits;

/// How far [`scan_request`] has come in one incomplete request; reset it after each complete frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestProgress {
    /// Bytes known to be good.
    at: usize,
    /// Arguments still to come; `None` before the array header was read.
    args_left: Option<u64>,
}

impl RequestProgress {
    /// The first byte not yet scanned: how much of the buffer is known to belong to the request.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }
}

/// What scanning the buffer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestScan {
    /// One whole request of this many bytes. `inline`: it is a line of words, not an array of bulk strings.
    Frame { len: usize, inline: bool },
    /// An empty line or an empty array of this many bytes: Redis ignores it without a reply.
    Empty { len: usize },
    /// Incomplete; the request will be at least this many bytes.
    NeedMore { at_least: usize },
    /// Not RESP. The text is what Redis itself answers before it closes the connection.
    Invalid(&'static str),
    /// Not RESP: where an argument should begin there is this byte, which Redis repeats.
    NoArgument { got: u8 },
}

impl RequestScan {
    /// What Redis answers before it closes the connection; `None` for RESP.
    #[must_use]
    pub fn protocol_error(&self) -> Option<Vec<u8>> {
        match *self {
            Self::Invalid(why) => Some(why.into()),
            Self::NoArgument { got } => {
                // As any error: it is one line.
                let got = if matches!(got, b'\r' | b'\n') { b' ' } else { got };
                Some([b"Protocol error: expected '$', got '".as_slice(), &[got], b"'"].concat())
            }
            Self::Frame { .. } | Self::Empty { .. } | Self::NeedMore { .. } => None,
        }
    }
}

/// Scans one request at the start of `bytes`.
///
/// Errors and limits as in Redis' `processMultibulkBuffer` and `processInlineBuffer` (networking.c).
#[must_use]
pub fn scan_request(progress: &mut RequestProgress, bytes: &[u8]) -> RequestScan {
    if bytes.is_empty() {
        return RequestScan::NeedMore { at_least: 1 };
    }
    let mut left = match progress.args_left {
        Some(left) => left,
        None if bytes[0] != b'*' => return scan_inline(bytes),
        None => match header(bytes, 0, "Protocol error: too big mbulk count string") {
            Header::NeedMore => return RequestScan::NeedMore { at_least: bytes.len() + 1 },
            Header::Invalid(why) => return RequestScan::Invalid(why),
            Header::Number { end, value: Some(count) } if count <= limits::COMMAND_ARGS_MAX as i64 => {
                if count <= 0 {
                    return RequestScan::Empty { len: end };
                }
                progress.at = end;
                progress.args_left = Some(count as u64);
                count as u64
            }
            Header::Number { .. } => return RequestScan::Invalid("Protocol error: invalid multibulk length"),
        },
    };
    while left > 0 {
        let Some(&kind) = bytes.get(progress.at) else {
            return RequestScan::NeedMore { at_least: progress.at + 5 };
        };
        if kind != b'$' {
            return RequestScan::NoArgument { got: kind };
        }
        let (end, len) = match header(bytes, progress.at, "Protocol error: too big bulk count string") {
            Header::NeedMore => return RequestScan::NeedMore { at_least: bytes.len() + 1 },
            Header::Invalid(why) => return RequestScan::Invalid(why),
            Header::Number { end, value: Some(len) } if (0..=limits::BULK_BYTES_MAX as i64).contains(&len) => {
                (end, len as usize)
            }
            Header::Number { .. } => return RequestScan::Invalid("Protocol error: invalid bulk length"),
        };
        let next = end + len + 2;
        if next > bytes.len() {
            return RequestScan::NeedMore { at_least: next };
        }
        progress.at = next;
        left -= 1;
        progress.args_left = Some(left);
    }
    let len = progress.at;
    *progress = RequestProgress::default();
    RequestScan::Frame { len, inline: false }
}

fn scan_inline(bytes: &[u8]) -> RequestScan {
    match memchr(b'\n', bytes) {
        Some(end) if bytes[..end].iter().all(|b| matches!(b, b' ' | b'\t' | b'\r')) => {
            RequestScan::Empty { len: end + 1 }
        }
        Some(end) => RequestScan::Frame { len: end + 1, inline: true },
        None if bytes.len() > limits::LINE_BYTES_MAX => RequestScan::Invalid("Protocol error: too big inline request"),
        None => RequestScan::NeedMore { at_least: bytes.len() + 1 },
    }
}

enum Header {
    NeedMore,
    Invalid(&'static str),
    /// `end`: first byte after the line. `value`: `None` when it is not a decimal number of at most 18 digits.
    Number {
        end: usize,
        value: Option<i64>,
    },
}

/// Reads `<type><number>\r\n` at `at`.
fn header(bytes: &[u8], at: usize, too_long: &'static str) -> Header {
    let line = &bytes[at + 1..];
    // Nearly every header is a short number that is complete.
    let mut value = 0;
    for (end, &byte) in line.iter().take(18).enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + i64::from(byte - b'0'),
            b'\r' if end > 0 && end + 1 < line.len() => {
                return Header::Number { end: at + 1 + end + 2, value: Some(value) };
            }
            _ => break,
        }
    }
    header_with_care(bytes, at, too_long)
}

/// The same for headers that are long, incomplete or wrong.
fn header_with_care(bytes: &[u8], at: usize, too_long: &'static str) -> Header {
    let line = &bytes[at + 1..];
    // Numbers are short: for nearly every header, checking a few bytes by hand is faster than a call.
    let window = &line[..line.len().min(32)];
    let end = match window.iter().position(|&b| b == b'\r') {
        Some(end) => end,
        None => match memchr(b'\r', line) {
            Some(end) => end,
            None if line.len() > limits::LINE_BYTES_MAX => return Header::Invalid(too_long),
            None => return Header::NeedMore,
        },
    };
    if end + 1 >= line.len() {
        return Header::NeedMore;
    }
    Header::Number { end: at + 1 + end + 2, value: decimal(&line[..end]) }
}

/// A decimal with optional '-', at most 18 digits; anything else is `None`.
#[must_use]
pub fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some(_) => (false, text),
        None => return None,
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// Follows a stream of replies chunk by chunk.
#[derive(Debug, Clone, Default)]
pub struct ReplyFeed {
    state: FeedState,
    /// Values still to come before the reply is whole; 0 between replies.
    values_left: u64,
    /// Type byte of the reply's outermost value; 0 between replies.
    first: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum FeedState {
    /// At the type byte of a value.
    #[default]
    Type,
    /// Inside a simple line that ends with `\n`.
    Line,
    /// Inside a length line; `digits` read so far.
    Length { kind: u8, negative: bool, digits: u8, value: u64 },
    /// This many bytes of a bulk and its `\r\n` are still to come.
    Body { left: u64 },
}

/// What one call of [`ReplyFeed::feed`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyStep {
    /// `consumed` bytes complete the current reply, whose outermost type byte is `first`.
    Complete { consumed: usize, first: u8 },
    /// All bytes belong to the current reply, which is not yet complete.
    Partial,
    /// Not RESP: nothing that follows on this connection can be interpreted.
    Invalid(String),
}

impl ReplyFeed {
    /// Type byte of the reply in progress, or 0 between replies.
    #[must_use]
    pub fn first(&self) -> u8 {
        self.first
    }

    /// Consumes up to the end of one reply.
    pub fn feed(&mut self, bytes: &[u8]) -> ReplyStep {
        if self.values_left == 0
            && let Some(consumed) = whole_simple(bytes)
        {
            return ReplyStep::Complete { consumed, first: bytes[0] };
        }
        self.follow(bytes)
    }

    fn follow(&mut self, bytes: &[u8]) -> ReplyStep {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                FeedState::Type => {
                    let kind = bytes[at];
                    if self.values_left == 0 {
                        self.values_left = 1;
                        self.first = kind;
                    }
                    at += 1;
                    self.state = match kind {
                        b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => FeedState::Line,
                        b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                            FeedState::Length { kind, negative: false, digits: 0, value: 0 }
                        }
                        other => return ReplyStep::Invalid(format!("a reply cannot begin with byte {other:#04x}")),
                    };
                }
                FeedState::Line => match memchr(b'\n', &bytes[at..]) {
                    Some(end) => {
                        at += end + 1;
                        if self.value_ends() {
                            return self.complete(at);
                        }
                    }
                    None => return ReplyStep::Partial,
                },
                FeedState::Length { kind, negative, digits, value } => {
                    let byte = bytes[at];
                    at += 1;
                    match byte {
                        b'0'..=b'9' if digits < 18 => {
                            let value = value * 10 + u64::from(byte - b'0');
                            self.state = FeedState::Length { kind, negative, digits: digits + 1, value };
                        }
                        b'-' if digits == 0 && !negative => {
                            self.state = FeedState::Length { kind, negative: true, digits, value };
                        }
                        b'\r' => {}
                        b'\n' if digits > 0 => match self.length_ends(kind, negative, value) {
                            Ok(true) => return self.complete(at),
                            Ok(false) => {}
                            Err(why) => return ReplyStep::Invalid(why),
                        },
                        other => return ReplyStep::Invalid(format!("byte {other:#04x} in the length of a reply")),
                    }
                }
                FeedState::Body { left } => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += here as usize;
                    if here < left {
                        self.state = FeedState::Body { left: left - here };
                    } else if self.value_ends() {
                        return self.complete(at);
                    }
                }
            }
        }
        ReplyStep::Partial
    }

    fn complete(&mut self, consumed: usize) -> ReplyStep {
        let first = std::mem::take(&mut self.first);
        ReplyStep::Complete { consumed, first }
    }

    /// One value is over; true when it was the last.
    fn value_ends(&mut self) -> bool {
        self.state = FeedState::Type;
        self.values_left -= 1;
        self.values_left == 0
    }

    /// A length line is over; `Ok(true)` when that ended the reply.
    fn length_ends(&mut self, kind: u8, negative: bool, value: u64) -> Result<bool, String> {
        if negative || matches!(kind, b'$' | b'=' | b'!') {
            if negative {
                // Null, and nothing else, has a negative length (RESP2 specification, "Null bulk strings", "Null arrays").
                return if value == 1 { Ok(self.value_ends()) } else { Err(format!("a length of -{value}")) };
            }
            // A reply may be larger than a request argument may be (a script's, a dump's): only sanity is checked.
            if value > limits::BULK_BYTES_MAX * 8 {
                return Err(format!("a bulk of {value} bytes"));
            }
            self.state = FeedState::Body { left: value + 2 };
            return Ok(false);
        }
        let (children, itself) = match kind {
            b'%' => (value.saturating_mul(2), 1),
            b'|' => (value.saturating_mul(2), 0), // attributes precede a value, they do not replace it
            _ => (value, 1),
        };
        self.state = FeedState::Type;
        self.values_left = self.values_left.saturating_add(children) - itself;
        if self.values_left > u64::from(u32::MAX) * 4 {
            return Err(format!("an aggregate of {value} values"));
        }
        Ok(self.values_left == 0)
    }
}

/// Length of the reply at the start of `bytes` if it is a complete line or bulk string; with `None`, use [`ReplyFeed`].
fn whole_simple(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'+' | b'-' | b':' => Some(memchr(b'\n', bytes)? + 1),
        b'$' => match header(bytes, 0, "") {
            // "-0" is a number too, and no length.
            Header::Number { end, value: Some(length @ 0..=0xffff_ffff) }
                if bytes[end - 1] == b'\n' && bytes[1] != b'-' =>
            {
                let whole = end + length as usize + 2;
                (whole <= bytes.len()).then_some(whole)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Length of the first whole reply in `bytes`, for callers that hold complete buffers.
#[must_use]
pub fn reply_len(bytes: &[u8]) -> Option<usize> {
    match ReplyFeed::default().feed(bytes) {
        ReplyStep::Complete { consumed, .. } => Some(consumed),
        ReplyStep::Partial | ReplyStep::Invalid(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8]) -> RequestScan {
        scan_request(&mut RequestProgress::default(), bytes)
    }

    #[test]
    fn requests() {
        let whole: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        assert_eq!(scan(whole), RequestScan::Frame { len: whole.len(), inline: false });
        assert_eq!(scan(b"PING\r\n"), RequestScan::Frame { len: 6, inline: true });
        assert_eq!(scan(b"PING\n"), RequestScan::Frame { len: 5, inline: true });
        assert_eq!(scan(b"\r\nPING\r\n"), RequestScan::Empty { len: 2 });
        assert_eq!(scan(b"*0\r\n"), RequestScan::Empty { len: 4 });
        assert_eq!(scan(b"*-1\r\n"), RequestScan::Empty { len: 5 });
        for (bad, why) in [
            (&b"*2\r\n:3\r\n"[..], "expected '$', got ':'"),
            (b"*1\r\n\rx", "expected '$', got ' '"),
            (b"*x\r\n", "invalid multibulk length"),
            (b"*99999999\r\n", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$999999999999\r\n", "invalid bulk length"),
        ] {
            let text = scan(bad).protocol_error().map(|text| String::from_utf8(text).expect("text"));
            assert!(text.as_ref().is_some_and(|text| text.contains(why)), "{why}: {text:?}");
        }
        let endless = vec![b'a'; limits::LINE_BYTES_MAX + 1];
        assert!(matches!(scan(&endless), RequestScan::Invalid(_)));
        let mut endless = vec![b'1'; limits::LINE_BYTES_MAX + 3];
        endless[0] = b'*';
        assert!(matches!(scan(&endless), RequestScan::Invalid(_)));
    }

    #[test]
    fn every_split_point_of_a_request_gives_the_same_frame() {
        let whole = b"*3\r\n$3\r\nSET\r\n$4\r\nk\r\n1\r\n$0\r\n\r\n".to_vec();
        for split in 0..whole.len() {
            let mut progress = RequestProgress::default();
            let first = scan_request(&mut progress, &whole[..split]);
            assert!(
                matches!(first, RequestScan::NeedMore { at_least } if at_least > split && at_least <= whole.len()),
                "{split} {first:?}"
            );
            let second = scan_request(&mut progress, &whole);
            assert_eq!(second, RequestScan::Frame { len: whole.len(), inline: false }, "{split}");
        }
    }

    const REPLIES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$5\r\nhe\r\no\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
        b"%1\r\n+a\r\n%0\r\n",
        b"~2\r\n#t\r\n_\r\n",
        b">2\r\n+invalidate\r\n_\r\n",
        b"|1\r\n+ttl\r\n:3\r\n*1\r\n,1.5\r\n",
        b"=6\r\ntxt:ab\r\n",
        b"(12345678901234567890\r\n",
        b"!3\r\nERR\r\n",
    ];

    #[test]
    fn every_split_point_of_every_reply_gives_the_same_frame() {
        let mut stream = Vec::new();
        for reply in REPLIES {
            assert_eq!(reply_len(reply), Some(reply.len()), "{}", String::from_utf8_lossy(reply));
            stream.extend_from_slice(reply);
        }
        for chunk in 1..=stream.len() {
            let mut feed = ReplyFeed::default();
            let (mut lens, mut len) = (Vec::new(), 0);
            for piece in stream.chunks(chunk) {
                let mut rest = piece;
                while !rest.is_empty() {
                    match feed.feed(rest) {
                        ReplyStep::Complete { consumed, first } => {
                            assert_eq!(first, REPLIES[lens.len()][0]);
                            lens.push(len + consumed);
                            len = 0;
                            rest = &rest[consumed..];
                        }
                        ReplyStep::Partial => {
                            len += rest.len();
                            rest = &[];
                        }
                        ReplyStep::Invalid(why) => panic!("{why}"),
                    }
                }
            }
            assert_eq!(lens, REPLIES.iter().map(|r| r.len()).collect::<Vec<_>>(), "chunks of {chunk}");
        }
    }

    #[test]
    fn garbage_replies_are_refused() {
        for bad in [
            &b"HTTP/1.1 400\r\n"[..],
            b"$x\r\n",
            b"*1-\r\n",
            b"$99999999999999\r\n",
            b"\r\n",
            b"$\r\n",
            b"$-0\r\n",
            b"$-000\r\n20\r\n",
            b"*-2\r\n",
        ] {
            let mut feed = ReplyFeed::default();
            assert!(matches!(feed.feed(bad), ReplyStep::Invalid(_)), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_scanners_panic(bytes: Vec<u8>) {
            let _ = scan(&bytes);
            let _ = ReplyFeed::default().feed(&bytes);
        }
    }
}
