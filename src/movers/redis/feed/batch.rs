//! Commands for the shadow in one transaction, with the position they lead to. Pure: no I/O, no clock.
//!
//! The position is written by the same EXEC as the commands, so that after any crash the shadow itself says what it has: nothing is applied
//! twice, nothing is left out. A batch may end only where a transaction of the source ends.

use std::fmt::Display;

use wire::resp::args::Args;
use wire::resp::command;
use wire::resp::encode::push_request;
use wire::resp::value::{brief_bytes, elements};

/// What the reply to a command should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything but an error.
    Anything,
    /// `:1`. `:0`: the key was not there, or had no deadline; both sides may differ.
    Changed,
    /// An array of 1 (or 2, for a deadline that has passed) for each field.
    FieldsChanged,
    /// `:1`. `:0`: there is no such key.
    Present,
    /// Of the batch's own commands.
    Own,
}

#[derive(Debug)]
struct Entry {
    range: std::ops::Range<usize>,
    database: u32,
    expect: Expect,
}

/// See the head of this file. The shadow's connection is in database 0 before and after.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    database: u32,
    /// All keys of the command whose key an entry asks for, by the entry; only where there are several.
    related: Vec<(usize, Vec<DatabaseKey>)>,
}

/// A key that may differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doubt {
    pub database: u32,
    /// `None`: which keys is not known.
    pub key: Option<Vec<u8>>,
    pub why: String,
}

/// A key and its database.
pub type DatabaseKey = (u32, Vec<u8>);

/// What the replies to a batch tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// These keys may differ.
    pub doubts: Vec<Doubt>,
    /// These were not there, each with all keys of its command: new at the authority too, or lost by the shadow alone.
    pub absent: Vec<(DatabaseKey, Vec<DatabaseKey>)>,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It and the position are there.
    Applied(Found),
    /// Nothing of it is there; the shadow's words.
    Refused(String),
}

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[must_use]
    pub fn commands(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn push(&mut self, database: u32, words: &[&[u8]], expect: Expect) {
        self.go_to(database);
        self.entry(words, expect);
    }

    /// As [`Self::push`], with a whole request as it came.
    pub fn push_frame(&mut self, database: u32, frame: &[u8], expect: Expect) {
        self.go_to(database);
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.entries.push(Entry { range: begin..self.bytes.len(), database, expect });
    }

    fn go_to(&mut self, database: u32) {
        if self.entries.is_empty() {
            push_request(&mut self.bytes, &[b"MULTI"]);
        }
        if database != self.database {
            self.database = database;
            self.own(&[b"SELECT", database.to_string().as_bytes()]);
        }
    }

    /// Whether it looks for keys.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.entries.iter().any(|entry| entry.expect == Expect::Present)
    }

    /// It is told if this key is not there now.
    pub fn watch(&mut self, database: u32, key: &[u8], all: &[DatabaseKey]) {
        self.push(database, &[b"EXISTS", key], Expect::Present);
        if all.len() > 1 {
            self.related.push((self.entries.len() - 1, all.to_vec()));
        }
    }

    /// The commands of the stream, each with its database.
    pub fn frames(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let of_the_stream = |entry: &&Entry| !matches!(entry.expect, Expect::Own | Expect::Present);
        self.entries.iter().filter(of_the_stream).map(|entry| (&self.bytes[entry.range.clone()], entry.database))
    }

    /// Removes Crossfade's own key from a database it does not belong in.
    pub fn forget(&mut self, database: u32, key: &[u8]) {
        self.push(database, &[b"DEL", key], Expect::Own);
    }

    fn own(&mut self, words: &[&[u8]]) {
        self.entry(words, Expect::Own);
    }

    fn entry(&mut self, words: &[&[u8]], expect: Expect) {
        let begin = self.bytes.len();
        push_request(&mut self.bytes, words);
        self.entries.push(Entry { range: begin..self.bytes.len(), database: self.database, expect });
    }

    /// Ends the batch: the requests, and how many replies they have. `key`: where the position is kept, in database 0.
    pub fn seal(&mut self, key: &[u8], position: &dyn Display) -> (&[u8], usize) {
        if self.entries.is_empty() {
            push_request(&mut self.bytes, &[b"MULTI"]);
        }
        if self.database != 0 {
            self.database = 0;
            self.own(&[b"SELECT", b"0"]);
        }
        self.own(&[b"SET", key, position.to_string().as_bytes()]);
        push_request(&mut self.bytes, &[b"EXEC"]);
        (&self.bytes, self.entries.len() + 2)
    }

    /// Reads the replies to what [`Batch::seal`] gave. `refused`: the first error among those before the last, if there was one; `exec`: the last,
    /// whole.
    #[must_use]
    pub fn outcome(&self, refused: Option<&[u8]>, exec: &[u8]) -> Outcome {
        let results = match elements(exec) {
            Some(results) if results.left() == self.entries.len() as u64 => results,
            _ if exec.starts_with(b"-") => {
                // EXECABORT says only that something before it was refused.
                let text = refused.unwrap_or(exec);
                return Outcome::Refused(error_text(text));
            }
            _ => return Outcome::Refused(format!("EXEC gave {}", brief_bytes(exec))),
        };
        let mut found = Found::default();
        for (at, (entry, result)) in self.entries.iter().zip(results).enumerate() {
            match (entry.expect, result) {
                (Expect::Present, b":0\r\n") => {
                    let related = self.related.iter().find(|(of, _)| *of == at).map(|(_, all)| all.clone());
                    found.absent.extend(self.key_of(entry).map(|key| (key, related.unwrap_or_default())));
                }
                _ => found.doubts.extend(self.doubt(entry, result).into_iter().flatten()),
            }
        }
        Outcome::Applied(found)
    }

    /// Of EXISTS.
    fn key_of(&self, entry: &Entry) -> Option<DatabaseKey> {
        let key = wire::resp::args::Args::new(&self.bytes[entry.range.clone()]).nth(1)?;
        Some((entry.database, key.to_vec()))
    }

    fn doubt(&self, entry: &Entry, result: &[u8]) -> Option<Vec<Doubt>> {
        let fields = || elements(result).into_iter().flatten();
        let why = match (result, entry.expect) {
            ([b'-' | b'!', ..], _) => error_text(result),
            (b":0\r\n", Expect::Changed) => "it was not there, or without a deadline".to_owned(),
            (_, Expect::FieldsChanged) if fields().any(|one| !matches!(one, b":1\r\n" | b":2\r\n")) => {
                "a field was not there".to_owned()
            }
            (_, Expect::Anything | Expect::Changed | Expect::FieldsChanged | Expect::Present | Expect::Own) => {
                return None;
            }
        };
        Some(doubts(entry.database, &self.bytes[entry.range.clone()], &why))
    }

    #[cfg(test)]
    pub fn lines(&self) -> Vec<String> {
        let line = |entry: &Entry| {
            let words = wire::resp::args::Args::new(&self.bytes[entry.range.clone()]);
            words.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
        };
        self.entries.iter().map(line).collect()
    }

    /// Empties it for the next.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.related.clear();
        self.database = 0;
    }
}

/// The text of an error reply.
fn error_text(reply: &[u8]) -> String {
    let text = reply.strip_prefix(b"-").unwrap_or(reply).trim_ascii_end();
    String::from_utf8_lossy(text).into_owned()
}

/// All keys of a command, each with the database it is in: MOVE and COPY reach another.
#[must_use]
pub fn keys_with_databases(frame: &[u8], database: u32) -> Vec<DatabaseKey> {
    let args: Vec<&[u8]> = wire::resp::args::Args::new(frame).collect();
    let name = args.first().copied().unwrap_or_default();
    let mut keys: Vec<DatabaseKey> = command::lookup(name)
        .keys_of(frame)
        .unwrap_or_default()
        .0
        .into_iter()
        .map(|key| (database, key.to_vec()))
        .collect();
    let number = |at: usize| std::str::from_utf8(args.get(at)?).ok()?.parse::<u32>().ok();
    let elsewhere = if name.eq_ignore_ascii_case(b"MOVE") {
        number(2).zip(args.get(1))
    } else if name.eq_ignore_ascii_case(b"COPY") {
        let option = args.iter().skip(3).position(|arg| arg.eq_ignore_ascii_case(b"DB"));
        option.and_then(|at| number(at + 4)).zip(args.get(2))
    } else {
        None
    };
    keys.extend(elsewhere.map(|(other, key)| (other, key.to_vec())));
    keys
}

/// The keys of a command that may differ.
#[must_use]
pub fn doubts(database: u32, frame: &[u8], why: &str) -> Vec<Doubt> {
    let name = wire::resp::args::Args::new(frame).next().unwrap_or_default();
    let why = format!("{}: {why}", String::from_utf8_lossy(name));
    let keys = command::lookup(name).keys_of(frame).unwrap_or_default().0;
    if keys.is_empty() {
        return vec![Doubt { database, key: None, why }];
    }
    keys.into_iter().map(|key| Doubt { database, key: Some(key.to_vec()), why: why.clone() }).collect()
}
/// The databases that this command exchanges.
pub fn swapped(frame: &[u8]) -> Option<(u32, u32)> {
    let mut args = Args::new(frame);
    if !args.next()?.eq_ignore_ascii_case(b"SWAPDB") {
        return None;
    }
    let mut number = || std::str::from_utf8(args.next()?).ok()?.parse::<u32>().ok();
    Some((number()?, number()?)).filter(|(one, other)| one != other)
}
