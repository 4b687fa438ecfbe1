//! Cuts the replication stream into commands and keeps the position. Pure: bytes in, commands out; no I/O, no clock; any thread.
//!
//! The stream is what a primary sends its replicas: requests, each an array of bulk strings, with SELECT, MULTI, EXEC, PING and
//! REPLCONF GETACK among them (Redis `replication.c`, `replicationFeedSlaves`). The offset counts every byte of it.

use std::fmt;

use super::position::Position;
use wire::resp::args::Args;
use wire::resp::frame::{RequestProgress, RequestScan, scan_request};

/// One thing the stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A change of `database`, as a whole request.
    Command {
        frame: &'a [u8],
        database: u32,
        /// Of the stream, behind the command.
        offset: u64,
    },
    /// The commands up to [`Item::End`] were one transaction at the source.
    Begin,
    End,
    /// The source wants an acknowledgement at once.
    WantsAck,
    /// Nothing for the data: a keep-alive, a change of database.
    Idle,
}

/// The source sent what no primary sends. The stream cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokenStream {
    NotRequests(String),
    /// A line of words, where only arrays are sent.
    Inline,
    /// `SELECT` of something that is no database.
    Select(Vec<u8>),
    /// MULTI within a transaction, or EXEC outside of one.
    Nesting(&'static str),
}

impl fmt::Display for BrokenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRequests(why) => write!(f, "the replication stream is not made of requests: {why}"),
            Self::Inline => f.write_str("the replication stream holds a line of words where a request should be"),
            Self::Select(what) => {
                write!(f, "the replication stream selects \"{}\", which is no database", what.escape_ascii())
            }
            Self::Nesting(what) => write!(f, "the replication stream holds {what}"),
        }
    }
}

impl std::error::Error for BrokenStream {}

/// Reads a stream from a position on.
#[derive(Debug)]
pub struct StreamReader {
    buffer: Vec<u8>,
    /// Bytes before this belong to items already given.
    begin: usize,
    progress: RequestProgress,
    position: Position,
    in_transaction: bool,
}

/// A buffer that has grown for one large command is given back when it is empty.
const KEPT_BYTES: usize = 1024 * 1024;

impl StreamReader {
    /// `position`: of the first byte that will be fed. It must lie between two transactions.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { buffer: Vec::new(), begin: 0, progress: RequestProgress::default(), position, in_transaction: false }
    }

    /// Bytes of the stream, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.begin == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BYTES);
            self.begin = 0;
        } else if self.begin > KEPT_BYTES {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Behind the last item that was given.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether the position lies between two transactions, so that a stream may be continued there.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        !self.in_transaction
    }

    /// Bytes fed and not yet given as items.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.buffer.len() - self.begin
    }

    /// The next whole item; `None` until more is fed.
    ///
    /// # Errors
    /// [`BrokenStream`]; the position is before the item that cannot be read.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, BrokenStream> {
        let begin = self.begin;
        let len = match scan_request(&mut self.progress, &self.buffer[begin..]) {
            RequestScan::NeedMore { .. } => return Ok(None),
            bad @ (RequestScan::Invalid(_) | RequestScan::NoArgument { .. }) => {
                let why = bad.protocol_error().unwrap_or_default();
                return Err(BrokenStream::NotRequests(String::from_utf8_lossy(&why).into_owned()));
            }
            RequestScan::Frame { inline: true, .. } => return Err(BrokenStream::Inline),
            RequestScan::Empty { len } => {
                self.pass(len);
                return Ok(Some(Item::Idle));
            }
            RequestScan::Frame { len, inline: false } => len,
        };
        let mut args = Args::new(&self.buffer[begin..begin + len]);
        let name = args.next().unwrap_or_default();
        let meaning = Meaning::of(name, &mut args)?;
        self.take(meaning)?;
        self.pass(len);
        let frame = &self.buffer[begin..begin + len];
        Ok(Some(match meaning {
            Meaning::Change => Item::Command { frame, database: self.position.database, offset: self.position.offset },
            Meaning::Multi => Item::Begin,
            Meaning::Exec => Item::End,
            Meaning::GetAck => Item::WantsAck,
            Meaning::Select(_) | Meaning::Ping => Item::Idle,
        }))
    }

    fn take(&mut self, meaning: Meaning) -> Result<(), BrokenStream> {
        match meaning {
            Meaning::Select(database) => self.position.database = database,
            Meaning::Multi if self.in_transaction => return Err(BrokenStream::Nesting("MULTI within a transaction")),
            Meaning::Multi => self.in_transaction = true,
            Meaning::Exec if !self.in_transaction => return Err(BrokenStream::Nesting("EXEC outside a transaction")),
            Meaning::Exec => self.in_transaction = false,
            Meaning::Change | Meaning::GetAck | Meaning::Ping => {}
        }
        Ok(())
    }

    fn pass(&mut self, len: usize) {
        self.begin += len;
        self.position.offset += len as u64;
    }
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    Change,
    Select(u32),
    Multi,
    Exec,
    GetAck,
    Ping,
}

impl Meaning {
    fn of(name: &[u8], rest: &mut Args<'_>) -> Result<Self, BrokenStream> {
        // Nearly every command is a change, and none of these names is longer.
        if name.len() > b"REPLCONF".len() {
            return Ok(Self::Change);
        }
        let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
        Ok(if is(b"SELECT") {
            let text = rest.next().unwrap_or_default();
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            Self::Select(number.ok_or_else(|| BrokenStream::Select(text.to_vec()))?)
        } else if is(b"MULTI") {
            Self::Multi
        } else if is(b"EXEC") {
            Self::Exec
        } else if is(b"PING") {
            Self::Ping
        } else if is(b"REPLCONF") {
            if rest.next().is_some_and(|word| word.eq_ignore_ascii_case(b"GETACK")) { Self::GetAck } else { Self::Ping }
        } else {
            Self::Change
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::StreamId;
    use super::*;
    use wire::resp::encode::request;

    fn begin() -> Position {
        Position { stream: StreamId::parse(&[b'0'; 40]).expect("an id"), offset: 100, database: 3 }
    }

    /// What is given for these pieces, in words, with the position behind it.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<String>, Position), BrokenStream> {
        let mut reader = StreamReader::new(begin());
        let mut said = Vec::new();
        for piece in pieces {
            reader.feed(piece);
            while let Some(item) = reader.next_item()? {
                said.push(match item {
                    Item::Command { frame, database, .. } => {
                        let words: Vec<_> = Args::new(frame).map(String::from_utf8_lossy).collect();
                        format!("{database}: {}", words.join(" "))
                    }
                    other => format!("{other:?}"),
                });
            }
        }
        Ok((said, reader.position()))
    }

    fn dialogue() -> Vec<u8> {
        let commands: [&[&[u8]]; 8] = [
            &[b"SET", b"a", b"1"],
            &[b"PING"],
            &[b"SELECT", b"0"],
            &[b"MULTI"],
            &[b"DEL", b"a", b"b"],
            &[b"exec"],
            &[b"REPLCONF", b"GETACK", b"*"],
            &[b"INCR", b"c"],
        ];
        commands.iter().flat_map(|command| request(command)).collect()
    }

    #[test]
    fn a_stream_is_read_alike_however_it_is_cut() {
        let stream = dialogue();
        let whole = read(&[&stream]).expect("a stream");
        assert_eq!(
            whole.0,
            ["3: SET a 1", "Idle", "Idle", "Begin", "0: DEL a b", "End", "WantsAck", "0: INCR c"].map(String::from)
        );
        assert_eq!(whole.1, Position { offset: 100 + stream.len() as u64, database: 0, ..begin() });
        for cut in 0..=stream.len() {
            assert_eq!(read(&[&stream[..cut], &stream[cut..]]).expect("a stream"), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single).expect("a stream"), whole);
    }

    #[test]
    fn what_no_primary_sends_ends_the_reading() {
        assert_eq!(read(&[b"SET a 1\r\n"]), Err(BrokenStream::Inline));
        assert_eq!(read(&[&request(&[b"EXEC"])]), Err(BrokenStream::Nesting("EXEC outside a transaction")));
        let twice = [request(&[b"MULTI"]), request(&[b"MULTI"])].concat();
        assert_eq!(read(&[&twice]), Err(BrokenStream::Nesting("MULTI within a transaction")));
        assert_eq!(read(&[&request(&[b"SELECT", b"x"])]), Err(BrokenStream::Select(b"x".to_vec())));
        assert!(matches!(read(&[b"*1\r\n+x\r\n"]), Err(BrokenStream::NotRequests(_))));
    }

    #[test]
    fn a_position_within_a_transaction_is_no_boundary() {
        let mut reader = StreamReader::new(begin());
        reader.feed(&request(&[b"MULTI"]));
        assert_eq!(reader.next_item(), Ok(Some(Item::Begin)));
        assert!(!reader.at_boundary());
        reader.feed(&request(&[b"EXEC"]));
        assert_eq!(reader.next_item(), Ok(Some(Item::End)));
        assert!(reader.at_boundary() && reader.unread() == 0);
    }
}
