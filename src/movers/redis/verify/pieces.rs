//! Where the reading of a large value stands: which of its elements come next, and whether what was read joins on to what came before. Pure.
//!
//! Each piece is read at a position of its own, while the value is being written, so what lies between two pieces must not be able to move past
//! the border unseen. Strings are cut by bytes and streams by entry ids, which do not move. The names of a hash, set or sorted set come from a
//! scan, which promises those that are there from its beginning to its end; the count tells of those that only the other side has. A list has
//! nothing but places, which move with every push and pop at its head: each window repeats some of the one before, and is only good where it is
//! found to do so.

use super::super::content::{Content, Kind};
use base::model::limits;
use wire::resp::value::{Value, encode_request};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    key: &'a [u8],
    kind: Kind,
    /// Elements in one piece; of a string, bytes.
    at_once: usize,
    place: Place,
    /// Times a list was begun again because it had moved too far.
    lost: u8,
    /// Pieces that may still be read: a value that grows faster than it is read has no end.
    left: u64,
    done: bool,
}

#[derive(Debug)]
enum Place {
    Byte(u64),
    /// Of a scan for names, and those it gave last.
    Cursor(Vec<u8>, Vec<Vec<u8>>),
    Window(Window),
    /// Behind this id.
    Entry(Vec<u8>),
}

#[derive(Debug, Default)]
struct Window {
    from: u64,
    /// The last elements of the window before, which this one must contain; none at the head of the list.
    repeated: Vec<Vec<u8>>,
    /// Where the window before ended.
    end: u64,
    /// How far in front of that end this window begins.
    back: u64,
}

/// The list moved, or the value grew, too fast to be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// The request that tells how many elements a value of this type has; of a string, bytes.
pub(super) fn count_request(kind: Kind, key: &[u8]) -> Option<Vec<u8>> {
    let name: &[u8] = match kind {
        Kind::Absent | Kind::Other => return None,
        Kind::String => b"STRLEN",
        Kind::List => b"LLEN",
        Kind::Set => b"SCARD",
        Kind::Hash => b"HLEN",
        Kind::Zset => b"ZCARD",
        Kind::Stream => b"XLEN",
    };
    Some(encode_request(&[name, key]))
}

impl<'a> Pieces<'a> {
    /// `bytes` and `count` of the whole value, as far as is known.
    pub(super) fn of(key: &'a [u8], kind: Kind, bytes: u64, count: u64) -> Self {
        let place = match kind {
            Kind::String | Kind::Absent | Kind::Other => Place::Byte(0),
            Kind::List => Place::Window(Window::default()),
            Kind::Set | Kind::Hash | Kind::Zset => Place::Cursor(b"0".to_vec(), Vec::new()),
            Kind::Stream => Place::Entry(b"0-0".to_vec()),
        };
        let at_once = match place {
            Place::Byte(_) => limits::VERIFY_PIECE_BYTES,
            Place::Cursor(..) | Place::Window(_) | Place::Entry(_) => {
                let each = bytes / count.max(1);
                let fit = limits::VERIFY_PIECE_BYTES as u64 / each.max(1);
                (fit as usize).clamp(limits::VERIFY_PIECE_ELEMENTS_MIN, limits::VERIFY_PIECE_ELEMENTS_MAX)
            }
        };
        let whole = if let Place::Byte(_) = place { bytes.max(count) } else { count };
        let left =
            (whole / at_once as u64).saturating_mul(limits::VERIFY_PIECES_TIMES_MAX) + limits::VERIFY_PIECES_SPARE;
        Self { key, kind, at_once, place, lost: 0, left, done: false }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The request for the names of the next piece, where it needs any.
    pub(super) fn names_request(&self) -> Option<Vec<u8>> {
        let Place::Cursor(cursor, _) = &self.place else { return None };
        let scan: &[u8] = match self.kind {
            Kind::Set => b"SSCAN",
            Kind::Hash => b"HSCAN",
            _ => b"ZSCAN",
        };
        Some(encode_request(&[scan, self.key, cursor, b"COUNT", self.at_once.to_string().as_bytes()]))
    }

    /// # Errors
    /// What the reply is, when it is none to [`Self::names_request`].
    pub(super) fn take_names(&mut self, reply: &Value) -> Result<(), String> {
        let Some([next, names]) = reply.items() else { return Err(format!("a scan gave {}", reply.brief())) };
        let (Some(next), Some(names)) = (next.bytes(), names.items()) else {
            return Err(format!("a scan gave {}", reply.brief()));
        };
        // With each name comes a value, but in a set.
        let step = if self.kind == Kind::Set { 1 } else { 2 };
        let names = names.iter().step_by(step).filter_map(Value::bytes).map(<[u8]>::to_vec).collect();
        self.place = Place::Cursor(next.to_vec(), names);
        Ok(())
    }

    /// The requests that read the next piece.
    pub(super) fn reads(&self) -> Vec<Vec<u8>> {
        let last = |from: u64| (from + self.at_once as u64 - 1).to_string();
        let mut reads: Vec<Vec<u8>> = count_request(self.kind, self.key).into_iter().collect();
        match &self.place {
            Place::Byte(from) => {
                let (first, last) = (from.to_string(), last(*from));
                reads.push(encode_request(&[b"GETRANGE", self.key, first.as_bytes(), last.as_bytes()]));
            }
            Place::Window(Window { from, .. }) => {
                let (first, last) = (from.to_string(), last(*from));
                reads.push(encode_request(&[b"LRANGE", self.key, first.as_bytes(), last.as_bytes()]));
            }
            Place::Cursor(_, names) if !names.is_empty() => {
                let read: &[u8] = match self.kind {
                    Kind::Set => b"SMISMEMBER",
                    Kind::Hash => b"HMGET",
                    _ => b"ZMSCORE",
                };
                let words: Vec<&[u8]> = [read, self.key].into_iter().chain(names.iter().map(Vec::as_slice)).collect();
                reads.push(encode_request(&words));
            }
            Place::Cursor(..) => {}
            Place::Entry(last) => {
                let first = [b"(".as_slice(), last].concat();
                let count = self.at_once.to_string();
                reads.push(encode_request(&[b"XRANGE", self.key, &first, b"+", b"COUNT", count.as_bytes()]));
                reads.push(encode_request(&[b"XINFO", b"GROUPS", self.key]));
                reads.push(encode_request(&[b"XINFO", b"STREAM", self.key]));
            }
        }
        reads
    }

    /// What one side answered to [`Self::reads`].
    ///
    /// # Errors
    /// As [`Content::read`].
    pub(super) fn content(&self, replies: &[Value]) -> Result<Option<Content>, String> {
        let [count, read @ ..] = replies else { return Err("no count".to_owned()) };
        let first = match &self.place {
            Place::Byte(from) => *from,
            Place::Window(window) => window.from,
            Place::Cursor(..) | Place::Entry(_) => 0,
        };
        let content = match (&self.place, read) {
            (Place::Cursor(_, names), [values]) => Content::of_names(self.kind, names, values)?,
            (Place::Cursor(..), _) => Content::none(self.kind),
            _ => Content::read(self.kind, read)?.unwrap_or_else(|| Content::none(self.kind)),
        };
        match count.integer() {
            // Gone since its type was read.
            Some(0) => Ok(None),
            Some(count) => Ok(Some(content.part(first, count))),
            None => Err(format!("the count is {}", count.brief())),
        }
    }

    /// Goes on behind the piece that was read; `replies` are those of the side that gives the names.
    ///
    /// # Errors
    /// [`Lost`].
    pub(super) fn go_on(&mut self, replies: &[Value]) -> Result<(), Lost> {
        self.left = self.left.checked_sub(1).ok_or(Lost)?;
        let count = replies.first().and_then(Value::integer).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        match &mut self.place {
            Place::Byte(from) => {
                *from += self.at_once as u64;
                self.done = *from >= count;
            }
            Place::Cursor(cursor, _) => self.done = cursor == b"0",
            Place::Entry(last) => {
                let entries = replies.get(1).and_then(Value::items).unwrap_or_default();
                self.done = entries.len() < self.at_once;
                let id = entries.last().and_then(Value::items).and_then(|entry| entry.first()?.bytes());
                if let Some(id) = id {
                    *last = id.to_vec();
                }
            }
            Place::Window(window) => {
                let elements = replies.get(1).and_then(Value::items).unwrap_or_default();
                match window.go_on(elements, self.at_once, count) {
                    Next::End => self.done = true,
                    Next::Window => {}
                    Next::Head if self.lost == limits::VERIFY_LIST_RESTARTS_MAX => return Err(Lost),
                    Next::Head => {
                        self.lost += 1;
                        *window = Window::default();
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where a list is read next.
enum Next {
    Window,
    /// Once more from there.
    Head,
    End,
}

impl Window {
    fn go_on(&mut self, elements: &[Value], at_once: usize, count: u64) -> Next {
        let repeats = (at_once / 8).max(1);
        let is = |(element, repeated): (&Value, &Vec<u8>)| element.bytes() == Some(repeated);
        let joins = self.repeated.is_empty()
            || elements.windows(self.repeated.len()).any(|some| some.iter().zip(&self.repeated).all(is));
        if !joins {
            if self.from == 0 {
                return Next::Head;
            }
            // It has moved towards its head by more than was allowed for.
            self.back *= 4;
            self.from = self.end.saturating_sub(self.back);
            return Next::Window;
        }
        let end = self.from + elements.len() as u64;
        if end >= count {
            return Next::End;
        }
        let repeated = &elements[elements.len().saturating_sub(repeats)..];
        let back = (at_once / 4 + repeats) as u64;
        *self = Self {
            from: end.saturating_sub(back),
            repeated: repeated.iter().filter_map(Value::bytes).map(<[u8]>::to_vec).collect(),
            end,
            back,
        };
        Next::Window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    /// Walks a list that `moves` between two windows; gives what was seen of it.
    fn walk(mut list: Vec<String>, mut moves: impl FnMut(&mut Vec<String>)) -> Result<Vec<String>, Lost> {
        let mut pieces = Pieces::of(b"list", Kind::List, 0, 0);
        pieces.at_once = 64;
        let mut seen = Vec::new();
        let mut steps = 0;
        while !pieces.is_done() {
            let Place::Window(Window { from, .. }) = &pieces.place else { panic!("{pieces:?}") };
            let window: Vec<String> = list.iter().skip(*from as usize).take(64).cloned().collect();
            pieces.go_on(&[
                Value::Integer(list.len() as i64),
                Value::Array(window.iter().map(|one| bulk(one)).collect()),
            ])?;
            seen.extend(window);
            moves(&mut list);
            steps += 1;
            assert!(steps < 10_000, "it comes to an end");
        }
        Ok(seen)
    }

    fn elements(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|n| format!("element:{n}")).collect()
    }

    #[test]
    fn a_value_that_grows_faster_than_it_is_read_is_given_up() {
        let mut pieces = Pieces::of(b"log", Kind::String, 1, 1);
        let mut read = 0;
        while !pieces.is_done() {
            let length = Value::Integer(i64::try_from((read + 2) * limits::VERIFY_PIECE_BYTES).expect("a length"));
            if pieces.go_on(&[length]).is_err() {
                break;
            }
            read += 1;
        }
        assert!(!pieces.is_done() && read as u64 == limits::VERIFY_PIECES_SPARE, "{read}");
    }

    #[test]
    fn no_element_of_a_moving_list_is_passed_over() {
        let mut n = 10_000;
        let mut more = |count: usize| -> Vec<String> {
            n += count as u32;
            elements(n - count as u32..n)
        };
        // What is there from the beginning to the end of each of these.
        let there = elements(2_000..4_000);
        for popped in [0, 1, 5, 15, 25] {
            let mut left = 2_000usize;
            let seen = walk(elements(0..5_000), |list| {
                let count = popped.min(left);
                left -= count;
                list.drain(..count);
                list.extend(more(count));
            });
            let seen = seen.expect("it was followed");
            assert!(there.iter().all(|one| seen.contains(one)), "{popped} popped at the head between two windows");
        }
        for pushed in [1, 30] {
            let mut left = 1_000usize;
            let seen = walk(elements(0..5_000), |list| {
                let count = pushed.min(left);
                left -= count;
                let new = more(count);
                list.splice(..0, new);
            });
            let seen = seen.expect("it was followed");
            assert!(there.iter().all(|one| seen.contains(one)), "{pushed} pushed at the head between two windows");
        }
    }

    #[test]
    fn a_list_that_is_another_one_each_time_is_lost() {
        let mut n = 0;
        let seen = walk(elements(0..5_000), |list| {
            n += 5_000;
            *list = elements(n..n + 5_000);
        });
        assert_eq!(seen, Err(Lost));
    }

    #[test]
    fn pieces_fit_the_size_of_their_elements() {
        for (bytes, count, expected) in
            [(1 << 30, 5_000_000, 512), (1 << 30, 1_000, 4), (1 << 30, 20_000, 4), (0, 0, 512)]
        {
            assert_eq!(Pieces::of(b"k", Kind::Hash, bytes, count).at_once, expected, "{bytes} bytes, {count} elements");
        }
        assert_eq!(Pieces::of(b"k", Kind::String, 1 << 29, 1 << 29).at_once, limits::VERIFY_PIECE_BYTES);
    }

    #[test]
    fn an_odd_answer_to_a_scan_is_named() {
        let mut pieces = Pieces::of(b"k", Kind::Zset, 1 << 30, 1000);
        for odd in [Value::Null, Value::Array(vec![bulk("0")]), Value::Array(vec![bulk("0"), bulk("x")])] {
            assert!(pieces.take_names(&odd).is_err(), "{odd:?}");
        }
        let good = Value::Array(vec![bulk("17"), Value::Array(vec![bulk("a"), bulk("1"), bulk("b"), bulk("2")])]);
        assert_eq!(pieces.take_names(&good), Ok(()));
        let reads: Vec<String> = pieces.reads().iter().map(|read| String::from_utf8_lossy(read).into_owned()).collect();
        assert!(reads[1].contains("ZMSCORE") && reads[1].ends_with("$1\r\na\r\n$1\r\nb\r\n"), "{reads:?}");
        // Gone from the authority, and there on the other side, and a score.
        let content = |scores: [Value; 2]| pieces.content(&[Value::Integer(2), Value::Array(scores.to_vec())]);
        let (gone, there) = (content([Value::Null, bulk("2")]), content([bulk("1"), bulk("2.0")]));
        assert!(gone.is_ok() && there.is_ok() && gone != there, "{gone:?} {there:?}");
        assert_eq!(gone, content([Value::Null, bulk("2.0")]), "scores are numbers");
        assert_eq!(pieces.go_on(&[]), Ok(()));
        assert!(!pieces.is_done(), "the cursor is not at its end");
    }
}
