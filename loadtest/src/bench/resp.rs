//! RESP2 and RESP3 as a load generator needs it: requests to bytes, and where replies end. Pure; values are skipped, not kept.

use crate::bench::pace::Random;

/// The workload: GET and SET over a key space.
#[derive(Debug, Clone)]
pub struct Workload {
    pub keys: u64,
    pub value_bytes: usize,
    /// Share of GET; the rest is SET.
    pub read_share: f64,
    set_tail: Vec<u8>,
    random: Random,
}

impl Workload {
    #[must_use]
    pub fn new(keys: u64, value_bytes: usize, read_share: f64, seed: u64) -> Self {
        let mut set_tail = format!("\r\n${value_bytes}\r\n").into_bytes();
        set_tail.extend(std::iter::repeat_n(b'x', value_bytes));
        set_tail.extend_from_slice(b"\r\n");
        Self { keys: keys.max(1), value_bytes, read_share, set_tail, random: Random::new(seed) }
    }

    /// Appends the next request.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        let key = self.random.below(self.keys);
        if self.random.unit() < self.read_share {
            out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
            append_key(key, out);
            out.extend_from_slice(b"\r\n");
        } else {
            self.set(key, out);
        }
    }

    /// Appends SET of that key.
    pub fn set(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
        append_key(key, out);
        out.extend_from_slice(&self.set_tail);
    }
}

/// `key:000000000042`, as redis-benchmark names its keys, so that both tools hit the same ones.
fn append_key(number: u64, out: &mut Vec<u8>) {
    let mut text = *b"key:000000000000";
    let mut rest = number;
    for digit in text[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

/// A complete reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Value,
    Null,
    Error,
}

/// The peer does not speak RESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotResp(pub String);

/// Finds the ends of replies in bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct Replies {
    line: Vec<u8>,
    line_length: u64,
    /// Bytes of a bulk string, with its CRLF, still to come.
    skip: u64,
    /// Elements still needed before the reply is complete; 0 = between replies.
    needed: u64,
    kind: Option<Reply>,
    push: bool,
    /// The first error reply, for the report.
    pub first_error: Option<String>,
}

/// Bytes of a line that are kept; longer lines are simple strings and errors.
const LINE_KEPT: usize = 200;

impl Replies {
    /// Calls `done` for each reply that these bytes complete. Push messages are no replies.
    ///
    /// # Errors
    /// When it is not RESP.
    pub fn feed(&mut self, mut bytes: &[u8], mut done: impl FnMut(Reply)) -> Result<(), NotResp> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(bytes.len() as u64);
                self.skip -= taken;
                bytes = &bytes[taken as usize..];
                if self.skip == 0 {
                    self.element(0, &mut done);
                }
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let piece = &bytes[..end.map_or(bytes.len(), |end| end + 1)];
            let room = LINE_KEPT.saturating_sub(self.line.len()).min(piece.len());
            self.line.extend_from_slice(&piece[..room]);
            self.line_length += piece.len() as u64;
            bytes = &bytes[piece.len()..];
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                let length = std::mem::take(&mut self.line_length);
                self.line_ended(&line, length, &mut done)?;
                // The allocation is kept.
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    fn line_ended(&mut self, line: &[u8], length: u64, done: &mut impl FnMut(Reply)) -> Result<(), NotResp> {
        let bad = || NotResp(format!("not a RESP line: {}", line.escape_ascii()));
        if length < 3 || (length as usize <= LINE_KEPT && !line.ends_with(b"\r\n")) {
            return Err(bad());
        }
        let begins = self.needed == 0;
        if begins {
            self.needed = 1;
        }
        let count = || -> Result<i64, NotResp> {
            std::str::from_utf8(&line[1..]).ok().and_then(|text| text.trim_end().parse().ok()).ok_or_else(bad)
        };
        let mut kind = Reply::Value;
        let mut more = 0;
        match line[0] {
            b'+' | b':' | b',' | b'#' | b'(' => {}
            b'_' => kind = Reply::Null,
            b'-' => {
                kind = Reply::Error;
                self.keep_error(&line[1..]);
            }
            b'$' | b'=' | b'!' => match count()? {
                -1 => kind = Reply::Null,
                length if length >= 0 => {
                    self.skip = length.unsigned_abs() + 2;
                    if line[0] == b'!' {
                        kind = Reply::Error;
                        self.keep_error(b"a bulk error");
                    }
                }
                _ => return Err(bad()),
            },
            b'*' | b'~' | b'%' | b'>' | b'|' => match (line[0], count()?) {
                (_, -1) => kind = Reply::Null,
                (b'%', pairs) if pairs >= 0 => more = pairs.unsigned_abs() * 2,
                // An attribute precedes its element and is not an element itself.
                (b'|', pairs) if pairs >= 0 => more = pairs.unsigned_abs() * 2 + 1,
                (_, items) if items >= 0 => more = items.unsigned_abs(),
                _ => return Err(bad()),
            },
            _ => return Err(bad()),
        }
        if begins {
            self.push = line[0] == b'>';
            self.kind = (line[0] != b'|').then_some(kind);
        } else if self.kind.is_none() && line[0] != b'|' {
            self.kind = Some(kind);
        }
        if self.skip == 0 {
            self.element(more, done);
        }
        Ok(())
    }

    fn keep_error(&mut self, text: &[u8]) {
        if self.first_error.is_none() {
            self.first_error = Some(text.trim_ascii().escape_ascii().to_string());
        }
    }

    /// One element is there; `more` belong to it.
    fn element(&mut self, more: u64, done: &mut impl FnMut(Reply)) {
        self.needed = self.needed - 1 + more;
        if self.needed == 0 {
            let kind = self.kind.take().unwrap_or(Reply::Value);
            if !std::mem::take(&mut self.push) {
                done(kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<Reply>, NotResp> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for piece in pieces {
            replies.feed(piece, |reply| found.push(reply))?;
        }
        Ok(found)
    }

    const TRANSCRIPT: &[u8] = b"+OK\r\n$5\r\nab\r\nc\r\n$-1\r\n-ERR no such\r\n:12\r\n*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n+x\r\n*0\r\n*-1\r\n\
        %1\r\n+k\r\n:1\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n_\r\n$0\r\n\r\n|1\r\n+ttl\r\n:3\r\n+after\r\n#t\r\n,1.5\r\n!3\r\nERR\r\n";

    fn expected() -> Vec<Reply> {
        use Reply::{Error, Null, Value};
        vec![Value, Value, Null, Error, Value, Value, Value, Null, Value, Null, Value, Value, Value, Value, Error]
    }

    #[test]
    fn every_type_is_one_reply_and_a_push_is_not() {
        assert_eq!(read(&[TRANSCRIPT]).unwrap(), expected());
    }

    #[test]
    fn every_split_gives_the_same_replies() {
        for at in 0..TRANSCRIPT.len() {
            let (first, second) = TRANSCRIPT.split_at(at);
            assert_eq!(read(&[first, second]).unwrap(), expected(), "split at {at}");
        }
        let bytes: Vec<&[u8]> = TRANSCRIPT.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), expected());
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for text in ["HTTP/1.1 400 Bad Request\r\n", "$x\r\n", "*-7\r\n", "\r\n", "+OK\n"] {
            assert!(read(&[text.as_bytes()]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_one_reply_and_its_error_is_kept_in_part() {
        let long = format!("-{}\r\n+OK\r\n", "e".repeat(5000));
        let mut replies = Replies::default();
        let mut found = Vec::new();
        replies.feed(long.as_bytes(), |reply| found.push(reply)).unwrap();
        assert_eq!(found, [Reply::Error, Reply::Value]);
        assert_eq!(replies.first_error.unwrap().len(), LINE_KEPT - 1);
    }

    #[test]
    fn requests_are_what_a_server_reads() {
        let mut out = Vec::new();
        Workload::new(1, 3, 1.0, 0).next(&mut out);
        Workload::new(1, 3, 0.0, 0).next(&mut out);
        let text =
            "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$3\r\nxxx\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
        let mut named = Vec::new();
        append_key(1_234_567, &mut named);
        assert_eq!(named, b"key:000001234567");
    }

    #[test]
    fn the_read_share_is_kept_and_keys_stay_in_their_space() {
        let mut workload = Workload::new(5, 1, 0.8, 42);
        let (mut reads, mut highest) = (0, 0);
        for _ in 0..10_000 {
            let mut out = Vec::new();
            workload.next(&mut out);
            reads += usize::from(out.starts_with(b"*2"));
            let at = out.windows(4).position(|part| part == b"key:").unwrap();
            highest = highest.max(String::from_utf8_lossy(&out[at + 4..at + 16]).parse::<u64>().unwrap());
        }
        assert!((7_800..8_200).contains(&reads), "{reads}");
        assert_eq!(highest, 4);
    }
}
