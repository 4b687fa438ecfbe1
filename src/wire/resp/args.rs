//! The arguments of one complete request, in place.

use super::frame::decimal;

/// Iterates over the arguments of a whole array-of-bulks frame, as slices of the frame. Inline requests are rewritten
/// to arrays first ([`inline_to_array`]).
#[derive(Debug, Clone)]
pub struct Args<'a> {
    frame: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Args<'a> {
    /// `frame` must be one frame that [`super::frame::scan_request`] accepted as not inline; on anything else the iterator ends early.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        match line_end(frame, 0) {
            Some(end) if frame.first() == Some(&b'*') => {
                let left = decimal(&frame[1..end]).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                Self { frame, at: end + 2, left }
            }
            _ => Self { frame, at: 0, left: 0 },
        }
    }

    /// Number of remaining arguments.
    #[must_use]
    pub fn count_left(&self) -> usize {
        self.left
    }
}

fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.iter().position(|&b| b == b'\r').map(|found| at + found)
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let end = line_end(self.frame, self.at)?;
        let len = usize::try_from(decimal(self.frame.get(self.at + 1..end)?)?).ok()?;
        let body = self.frame.get(end + 2..end + 2 + len)?;
        self.at = end + 2 + len + 2;
        self.left -= 1;
        Some(body)
    }
}

/// Rewrites an inline request (`SET k "a b"\r\n`) to an array of bulk strings. Quoting as in Redis' `sdssplitargs`.
///
/// # Errors
/// The text Redis answers for unbalanced quotes.
pub fn inline_to_array(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let words = split_words(line).ok_or("Protocol error: unbalanced quotes in request")?;
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    Ok(super::encode::request(&words))
}

fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if at >= line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        at = match line[at] {
            b'"' => double_quoted(line, at + 1, &mut word)?,
            b'\'' => single_quoted(line, at + 1, &mut word)?,
            _ => plain(line, at, &mut word)?,
        };
        words.push(word);
    }
}

fn plain(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    while at < line.len() && !line[at].is_ascii_whitespace() {
        match line[at] {
            b'"' => return double_quoted(line, at + 1, word),
            b'\'' => return single_quoted(line, at + 1, word),
            byte => word.push(byte),
        }
        at += 1;
    }
    Some(at)
}

/// A closing quote must be followed by white space or the end.
fn closed(line: &[u8], at: usize) -> Option<usize> {
    line.get(at).is_none_or(u8::is_ascii_whitespace).then_some(at)
}

fn single_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (*line.get(at)?, line.get(at + 1)) {
            (b'\\', Some(b'\'')) => {
                word.push(b'\'');
                at += 2;
            }
            (b'\'', _) => return closed(line, at + 1),
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

fn double_quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        match *line.get(at)? {
            b'"' => return closed(line, at + 1),
            b'\\' => {
                let next = *line.get(at + 1)?;
                let hex = (next == b'x')
                    .then(|| line.get(at + 2..at + 4))
                    .flatten()
                    .and_then(|pair| std::str::from_utf8(pair).ok())
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok());
                if let Some(byte) = hex {
                    word.push(byte);
                    at += 4;
                    continue;
                }
                word.push(match next {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            byte => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let frame = inline_to_array(line.as_bytes()).ok()?;
        Some(Args::new(&frame).map(|a| String::from_utf8_lossy(a).into_owned()).collect())
    }

    #[test]
    fn inline_requests_are_split_as_redis_does() {
        assert_eq!(words("SET  k  v\r\n").unwrap(), ["SET", "k", "v"]);
        assert_eq!(words("set k \"a b\\x41\\n\"\r\n").unwrap(), ["set", "k", "a bA\n"]);
        assert_eq!(words("set k 'it\\'s'\r\n").unwrap(), ["set", "k", "it's"]);
        assert_eq!(words("set k \"open\r\n"), None);
        assert_eq!(words("set k \"a\"b\r\n"), None);
    }

    #[test]
    fn arguments_are_slices_of_the_frame() {
        let args: Vec<&[u8]> = Args::new(b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n").collect();
        assert_eq!(args, [b"SET".as_slice(), b"\r\n", b""]);
        assert_eq!(Args::new(b"*3\r\n$3\r\nSE").count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_words_survive(words: Vec<Vec<u8>>) {
            let slices: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let frame = super::super::encode::request(&slices);
            proptest::prop_assert_eq!(Args::new(&frame).collect::<Vec<_>>(), slices);
        }

        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = inline_to_array(&line);
            let _ = Args::new(&line).count();
        }
    }
}
