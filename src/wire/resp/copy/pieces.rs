//! A large value copied in pieces that are read one after another, while the key goes on being written. Pure.
//!
//! Each piece is what the authority has at the moment of its read. Writes that concern single elements are repeated on the part that the shadow
//! has: an element that is not there yet comes with a later piece as it then is, and one that is there already has been changed in order. SSCAN,
//! HSCAN and ZSCAN return every element that is in the value all the time (their documentation, "Scan guarantees"). Any other write ends
//! the copy, which begins again.

use super::super::args::Args;
use super::super::effect::{Effects, Expect, bulk, bulks, elements};
use super::super::encode::{number, request};
use super::super::frame::decimal;
use super::{DataType, chunks};

/// About as long as a piece becomes: a millisecond or two of a server's time.
const PIECE_BYTES: usize = 1024 * 1024;
/// Elements in the first piece, whose length is not known, and in any.
const ELEMENTS_FIRST: usize = 16;
const ELEMENTS_MAX: usize = 8192;
/// Of pieces of a list that is being taken from.
const OVERLAP_LEAST: u64 = 16;

/// How far the copy of one value has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    kind: DataType,
    /// Bytes of a string, items of a list.
    at: u64,
    /// Of a scan.
    cursor: Vec<u8>,
    /// Elements in the next piece.
    count: usize,
    /// Where in a list the piece begins that was asked for last, and how many of its items.
    asked: (u64, usize),
    /// How many items before its place a piece begins, so that it still reaches what writes move towards the front meanwhile.
    overlap: u64,
}

/// Whether a piece was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    More,
    Over,
}

/// What a write means for a value that is being copied in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// It is repeated on what the shadow has.
    Repeat,
    /// A later piece shows its result.
    Later,
    /// The copy must begin again.
    Again,
}

impl Pieces {
    /// `None` for types that are not read in pieces.
    #[must_use]
    pub fn begin(kind: DataType) -> Option<Self> {
        match kind {
            DataType::String | DataType::List | DataType::Set | DataType::SortedSet | DataType::Hash => {
                Some(Self { kind, at: 0, cursor: b"0".to_vec(), count: ELEMENTS_FIRST, asked: (0, 0), overlap: 0 })
            }
            DataType::Stream | DataType::Other(_) => None,
        }
    }

    /// The request for the next piece.
    #[must_use]
    pub fn read(&mut self, key: &[u8]) -> Vec<u8> {
        let from = self.at.saturating_sub(self.overlap);
        self.asked = (from, self.count + (self.at - from) as usize);
        let scan = |name: &[u8]| request(&[name, key, &self.cursor, b"COUNT", &number(self.count as i64)]);
        let range = |name: &[u8], from: u64, len: usize| {
            request(&[name, key, &number(from as i64), &number((from + len as u64 - 1) as i64)])
        };
        match self.kind {
            DataType::String => range(b"GETRANGE", self.at, PIECE_BYTES),
            DataType::List => range(b"LRANGE", from, self.asked.1),
            DataType::Set => scan(b"SSCAN"),
            DataType::SortedSet => scan(b"ZSCAN"),
            DataType::Hash | DataType::Stream | DataType::Other(_) => scan(b"HSCAN"),
        }
    }

    /// Appends the requests that add this piece (RESP2) to the shadow's value.
    ///
    /// # Errors
    /// The reply does not fit the type: the value is another one by now.
    #[allow(clippy::result_unit_err)]
    pub fn write(&mut self, key: &[u8], reply: &[u8], effects: &mut Effects) -> Result<Progress, ()> {
        let over = match self.kind {
            DataType::String => {
                let piece = bulk(reply).ok_or(())?;
                // Of an empty string too there must be something.
                if !piece.is_empty() || self.at == 0 {
                    effects.push(&[b"APPEND", key, piece], Expect::NoError);
                }
                self.at += piece.len() as u64;
                piece.len() < PIECE_BYTES
            }
            DataType::List => {
                let items = bulks(reply).ok_or(())?;
                let (from, len) = self.asked;
                let Some(known) = self.at.checked_sub(from) else {
                    // More was taken off the front than the overlap: this piece begins behind its place.
                    self.overlap = (from - self.at) * 2 + OVERLAP_LEAST;
                    return Ok(Progress::More);
                };
                let new = items.get(known as usize..).unwrap_or_default();
                self.at += new.len() as u64;
                chunks(b"RPUSH", key, new, effects);
                items.len() < len
            }
            DataType::Set | DataType::SortedSet | DataType::Hash => self.write_scanned(key, reply, effects)?,
            DataType::Stream | DataType::Other(_) => return Err(()),
        };
        let fitting = self.count.saturating_mul(PIECE_BYTES) / reply.len().max(1);
        self.count = fitting.clamp(1, self.count * 4).min(ELEMENTS_MAX);
        Ok(if over { Progress::Over } else { Progress::More })
    }

    fn write_scanned(&mut self, key: &[u8], reply: &[u8], effects: &mut Effects) -> Result<bool, ()> {
        let parts = elements(reply).ok_or(())?;
        let [cursor, items] = parts.as_slice() else { return Err(()) };
        let items = bulks(items).ok_or(())?;
        self.cursor = bulk(cursor).ok_or(())?.to_vec();
        match self.kind {
            DataType::Set => chunks(b"SADD", key, &items, effects),
            DataType::SortedSet => {
                let swapped: Vec<&[u8]> = items.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
                chunks(b"ZADD", key, &swapped, effects)
            }
            _ => chunks(b"HSET", key, &items, effects),
        };
        Ok(self.cursor == b"0")
    }

    /// What this effect means meanwhile.
    #[must_use]
    pub fn meanwhile(&mut self, effect: &[u8]) -> Meanwhile {
        let args: Vec<&[u8]> = Args::new(effect).collect();
        let name = args.first().copied().unwrap_or_default().to_ascii_uppercase();
        if let (DataType::List, Some(moved)) = (self.kind, moved_items(&name, &args)) {
            // More than have been copied: none of them is left, and the rest is still to be read.
            self.at = self.at.saturating_add_signed(moved);
            return Meanwhile::Repeat;
        }
        let of_elements: &[&[u8]] = match self.kind {
            DataType::Set => &[b"SADD", b"SREM"],
            DataType::Hash => &[b"HSET", b"HMSET", b"HSETNX", b"HDEL", b"HINCRBY"],
            DataType::SortedSet => &[b"ZADD", b"ZREM"],
            DataType::String | DataType::List | DataType::Stream | DataType::Other(_) => &[],
        };
        match name.as_slice() {
            // The deadline is read with the last piece.
            b"PEXPIREAT" | b"PERSIST" | b"PEXPIRETIME" => Meanwhile::Later,
            b"RPUSH" | b"RPUSHX" if self.kind == DataType::List => Meanwhile::Later,
            b"APPEND" if self.kind == DataType::String => Meanwhile::Later,
            other if of_elements.contains(&other) => Meanwhile::Repeat,
            _ => Meanwhile::Again,
        }
    }
}

/// By how many places the items of a list move when its front is written.
fn moved_items(name: &[u8], args: &[&[u8]]) -> Option<i64> {
    let count = |at: usize| args.get(at).map_or(Some(1), |count| decimal(count));
    match name {
        b"LPUSH" | b"LPUSHX" => i64::try_from(args.len().checked_sub(2)?).ok(),
        b"LPOP" => count(2).map(|popped| -popped),
        // LMPOP 1 key LEFT [COUNT count]: what a blocked client's command is.
        b"LMPOP" if args.get(1) == Some(&b"1".as_slice()) && args.get(3)?.eq_ignore_ascii_case(b"LEFT") => {
            count(5).map(|popped| -popped)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::command::server_tests::{Server, servers};
    use super::super::super::frame::reply_len;
    use super::*;

    fn run(server: &mut Server, line: &str) {
        server.ask(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    }

    fn apply(server: &mut Server, mut bytes: &[u8]) {
        while let Some(len) = reply_len(bytes) {
            let reply = server.ask_raw(&bytes[..len]);
            assert!(!reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
            bytes = &bytes[len..];
        }
    }

    const KEYS: &[(&str, DataType, &str)] = &[
        ("text", DataType::String, "STRLEN text"),
        ("list", DataType::List, "LLEN list"),
        ("set", DataType::Set, "SCARD set"),
        ("hash", DataType::Hash, "HLEN hash"),
        ("zset", DataType::SortedSet, "ZCARD zset"),
    ];

    /// While pieces of the value are copied, elements that are there and not, copied and not, are changed on both sides.
    #[test]
    fn a_value_that_is_written_meanwhile_is_copied_as_it_is_in_the_end() {
        const DIGEST: &[u8] = b"local t = redis.call('TYPE', KEYS[1])['ok'] local v \
            if t == 'string' then v = redis.call('GET', KEYS[1]) return redis.sha1hex(v) end \
            if t == 'list' then v = redis.call('LRANGE', KEYS[1], 0, -1) return redis.sha1hex(table.concat(v, ',')) end \
            if t == 'set' then v = redis.call('SMEMBERS', KEYS[1]) \
            elseif t == 'hash' then local f = redis.call('HGETALL', KEYS[1]) v = {} \
            for i = 1, #f, 2 do v[#v + 1] = f[i] .. '=' .. f[i + 1] end \
            else local f = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') v = {} \
            for i = 1, #f, 2 do v[#v + 1] = f[i] .. '=' .. string.format('%.17g', tonumber(f[i + 1])) end end \
            table.sort(v) return redis.sha1hex(table.concat(v, ','))";
        for (from, mut authority) in servers() {
            for (to, mut shadow) in servers() {
                for n in 0..3000 {
                    run(&mut authority, &format!("RPUSH list item{n}"));
                    run(&mut authority, &format!("SADD set member{n}"));
                    run(&mut authority, &format!("HSET hash field{n} {n}"));
                    run(&mut authority, &format!("ZADD zset {n}.25 member{n}"));
                }
                run(&mut authority, &format!("SETRANGE text {} end", PIECE_BYTES * 2 + 7));
                for (key, kind, size) in KEYS {
                    let mut pieces = Pieces::begin(*kind).unwrap();
                    let mut rounds = 0;
                    loop {
                        let read = pieces.read(key.as_bytes());
                        if *kind == DataType::List && rounds > 0 {
                            // Answered between the question and the piece.
                            for write in ["LPOP list 2", "LPUSH list between", "LPOP list"] {
                                let frame = request(&write.split(' ').map(str::as_bytes).collect::<Vec<_>>());
                                authority.ask_raw(&frame);
                                assert_eq!(pieces.meanwhile(&frame), Meanwhile::Repeat);
                                apply(&mut shadow, &frame);
                            }
                        }
                        let reply = authority.ask_raw(&read);
                        let mut effects = Effects::default();
                        let progress = pieces.write(key.as_bytes(), &reply, &mut effects).expect(key);
                        apply(&mut shadow, &effects.bytes);
                        if progress == Progress::Over {
                            break;
                        }
                        rounds += 1;
                        for write in meanwhile_of(*kind, rounds) {
                            let frame = request(&write.split(' ').map(str::as_bytes).collect::<Vec<_>>());
                            authority.ask_raw(&frame);
                            match pieces.meanwhile(&frame) {
                                Meanwhile::Repeat => apply(&mut shadow, &frame),
                                Meanwhile::Later => {}
                                Meanwhile::Again => panic!("{write}"),
                            }
                        }
                    }
                    assert!(rounds > 1, "{key}: in one piece");
                    for probe in [
                        size.split(' ').map(str::as_bytes).collect(),
                        vec![b"EVAL".as_slice(), DIGEST, b"1", key.as_bytes()],
                    ] {
                        assert_eq!(authority.ask(&probe), shadow.ask(&probe), "{key}: {from} to {to}");
                    }
                }
            }
        }
    }

    fn meanwhile_of(kind: DataType, n: usize) -> Vec<String> {
        let (low, high) = (n * 3, 3000 - n * 3);
        match kind {
            DataType::String => vec!["APPEND text more".to_owned()],
            DataType::List => vec![
                format!("RPUSH list more{n}"),
                "LPOP list".to_owned(),
                format!("LPUSH list new{n} newer{n} newest{n}"),
                "LPOP list 4".to_owned(),
                "LMPOP 1 list LEFT COUNT 2".to_owned(),
            ],
            DataType::Set => vec![format!("SREM set member{low} member{high}"), format!("SADD set more{n} member{n}")],
            DataType::Hash => vec![
                format!("HDEL hash field{low} field{high}"),
                format!("HINCRBY hash field{} 7", low + 1),
                format!("HINCRBY hash field{} 7", high + 1),
                format!("HSET hash more{n} {n}"),
                format!("HSETNX hash field{} 5", high + 2),
            ],
            _ => vec![
                format!("ZREM zset member{low} member{high}"),
                format!("ZADD zset {n} more{n} {n} member{}", high + 1),
                format!("ZADD zset GT 9 member{}", high + 2),
            ],
        }
    }

    #[test]
    fn what_concerns_more_than_elements_begins_again() {
        let of = |kind, line: &str| {
            let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            Pieces::begin(kind).unwrap().meanwhile(&frame)
        };
        assert_eq!(of(DataType::Set, "srem"), Meanwhile::Repeat);
        assert_eq!(of(DataType::List, "LPOP l"), Meanwhile::Repeat);
        assert_eq!(of(DataType::List, "LPUSH l a"), Meanwhile::Repeat);
        assert_eq!(of(DataType::List, "RPOP l"), Meanwhile::Again);
        assert_eq!(of(DataType::SortedSet, "ZREMRANGEBYRANK"), Meanwhile::Again);
        assert_eq!(of(DataType::Hash, "RPUSH"), Meanwhile::Again);
        assert_eq!(of(DataType::Hash, "DEL"), Meanwhile::Again);
        assert_eq!(Pieces::begin(DataType::Stream), None);
        let mut pieces = Pieces::begin(DataType::Set).unwrap();
        assert_eq!(pieces.write(b"s", b"-WRONGTYPE x\r\n", &mut Effects::default()), Err(()));
    }
}
