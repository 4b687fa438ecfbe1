//! From where on the shadow may differ for a reason that only this process knows: which keys may differ is kept in memory, and the replies to a batch
//! are known behind it. So the shadow keeps, beside its position, the place up to which nothing is open. Whoever goes on reads the stream from there
//! and has every key that is named on the way to the position copied again. Pure.
//!
//! Keys are kept in two generations, so that one that comes up again and again does not hold the place of the others back.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::batch::DatabaseKey;
use follow::redis::position::{NotAPosition, Position};

/// What a feed leaves on its shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub position: Position,
    /// The place up to which nothing is open.
    pub settled: Position,
}

/// `REPLID OFFSET DATABASE OFFSET DATABASE`: the position, and where it is settled.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.position, self.settled.offset, self.settled.database)
    }
}

impl FromStr for Left {
    type Err = NotAPosition;

    /// A position alone is settled there.
    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        if let Ok(position) = text.parse() {
            return Ok(Self { position, settled: position });
        }
        let read = || {
            let mut words = text.rsplitn(3, ' ');
            let (database, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let position: Position = words.next()?.parse().ok()?;
            let settled = Position { offset, database, ..position };
            (offset <= position.offset).then_some(Self { position, settled })
        };
        read().ok_or_else(|| NotAPosition(text.to_owned()))
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// Behind the last batch whose replies are known.
    answered: Option<Position>,
    /// What the shadow was told last.
    told: Option<Position>,
    elder: Generation,
    younger: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    since: Option<Position>,
    keys: BTreeSet<DatabaseKey>,
}

impl Unsettled {
    /// The shadow was told that everything up to here is settled.
    pub fn begin(&mut self, settled: Position) {
        (self.answered, self.told) = (Some(settled), Some(settled));
    }

    /// The replies to everything up to here are known.
    pub fn answered(&mut self, position: Position) {
        self.answered = Some(position);
    }

    /// A key may differ, because of a command whose reply has just become known, or is not known yet.
    pub fn open(&mut self, key: DatabaseKey) {
        let Some(answered) = self.answered.filter(|_| !self.elder.keys.contains(&key)) else { return };
        self.younger.since.get_or_insert(answered);
        self.younger.keys.insert(key);
        self.grow_up();
    }

    /// Other keys may differ since the same command.
    pub fn open_with(&mut self, key: &DatabaseKey, others: impl IntoIterator<Item = DatabaseKey>) {
        let generation = if self.elder.keys.contains(key) { &mut self.elder } else { &mut self.younger };
        if generation.keys.contains(key) {
            generation.keys.extend(others);
        }
    }

    /// The key is what it is at the authority.
    pub fn settle(&mut self, key: &DatabaseKey) {
        self.elder.keys.remove(key);
        self.younger.keys.remove(key);
        self.grow_up();
    }

    fn grow_up(&mut self) {
        if self.elder.keys.is_empty() {
            self.elder = std::mem::take(&mut self.younger);
        }
        if self.elder.keys.is_empty() {
            self.elder.since = None;
        }
    }

    /// What the shadow is told with a batch that leads to a position.
    pub fn tell(&mut self, position: Position) -> Left {
        let settled = self.settled().unwrap_or(position);
        self.told = Some(settled);
        Left { position, settled }
    }

    /// Whether the shadow should be told without a batch: everything is settled, and it does not know.
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.elder.keys.is_empty() && self.told != self.answered
    }

    fn settled(&self) -> Option<Position> {
        self.elder.since.or(self.answered)
    }

    /// Everything is filled anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use follow::redis::position::StreamId;

    fn at(offset: u64) -> Position {
        Position { stream: StreamId::parse(&[b'a'; 40]).expect("hexadecimal"), offset, database: 1 }
    }

    fn key(name: &str) -> DatabaseKey {
        (0, name.as_bytes().to_vec())
    }

    #[test]
    fn what_is_left_is_read_as_it_is_written_also_in_its_older_form() {
        let left = Left { position: at(20), settled: Position { database: 3, ..at(10) } };
        assert_eq!(left.to_string().parse(), Ok(left));
        assert_eq!(at(20).to_string().parse(), Ok(Left { position: at(20), settled: at(20) }));
        for wrong in ["", "x 1 2", &format!("{} 10", at(20)), &format!("{} 21 0", at(20)), &format!("{} 1 2 3", at(20))]
        {
            wrong.parse::<Left>().expect_err(wrong);
        }
    }

    #[test]
    fn a_batch_is_settled_when_its_replies_are_known_and_its_keys_are_copied() {
        let mut unsettled = Unsettled::default();
        unsettled.answered(at(10));
        assert_eq!(unsettled.tell(at(20)).settled, at(10), "its own replies are not known");
        unsettled.open(key("a"));
        unsettled.answered(at(20));
        assert_eq!(unsettled.tell(at(30)).settled, at(10), "a key is open");
        unsettled.answered(at(30));
        assert!(!unsettled.is_news());
        unsettled.settle(&key("a"));
        assert!(unsettled.is_news());
        assert_eq!(unsettled.tell(at(31)).settled, at(30));
        assert!(!unsettled.is_news());
    }

    #[test]
    fn a_key_that_comes_up_again_and_again_holds_nothing_back() {
        let mut unsettled = Unsettled::default();
        for offset in 1..100 {
            unsettled.answered(at(offset));
            unsettled.open(key(&offset.to_string()));
            if offset > 3 {
                unsettled.settle(&key(&(offset - 3).to_string()));
            }
            assert!(unsettled.tell(at(offset + 1)).settled.offset + 10 > offset, "{offset}");
        }
    }

    #[test]
    fn keys_of_one_command_are_open_since_the_same_place() {
        let mut unsettled = Unsettled::default();
        unsettled.answered(at(10));
        unsettled.open(key("a"));
        unsettled.answered(at(20));
        unsettled.open_with(&key("a"), [key("b")]);
        unsettled.settle(&key("a"));
        assert_eq!(unsettled.tell(at(30)).settled, at(10));
        unsettled.settle(&key("b"));
        assert_eq!(unsettled.tell(at(30)).settled, at(20));
    }
}
