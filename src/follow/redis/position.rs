//! A place in the replication stream of one server. Pure; any thread.

use std::fmt;
use std::str::FromStr;

/// The identity of one stream of changes: 40 hexadecimal digits, as INFO's `master_replid` and PSYNC name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId([u8; 40]);

impl StreamId {
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; 40] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(digits))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII digits get in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything up to `offset` has been read; the next command acts on `database`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub stream: StreamId,
    /// Bytes since the stream began, as `master_repl_offset` counts them.
    pub offset: u64,
    /// A stream that is continued does not say it again, so it belongs to the position.
    pub database: u32,
}

/// `REPLID OFFSET DATABASE`: how a position is stored.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.stream, self.offset, self.database)
    }
}

/// Not a position; the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAPosition(pub String);

impl fmt::Display for NotAPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a position: REPLID OFFSET DATABASE is expected", self.0.escape_default())
    }
}

impl std::error::Error for NotAPosition {}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let mut words = text.split(' ');
        let mut read = || {
            let stream = StreamId::parse(words.next()?.as_bytes())?;
            let (offset, database) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            words.next().is_none().then_some(Self { stream, offset, database })
        };
        read().ok_or_else(|| NotAPosition(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let stream = StreamId::parse(&[b'a'; 40]).expect("hexadecimal");
        let position = Position { stream, offset: u64::MAX, database: 15 };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn what_is_not_a_position_is_named() {
        let id = "a".repeat(40);
        for wrong in ["", "x", &id, &format!("{id} 1"), &format!("{id} -1 0"), &format!("{id} 1 0 2"), "g 1 0"] {
            let error = wrong.parse::<Position>().expect_err(wrong).to_string();
            assert!(error.contains("REPLID OFFSET DATABASE"), "{error}");
        }
    }
}
