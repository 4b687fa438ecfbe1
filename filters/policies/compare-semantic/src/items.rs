//! Where the items of a reply lie: elements of a Redis reply (RESP2 or RESP3), rows of a PostgreSQL result.
//!
//! Understands just enough to find the borders. What it does not understand it leaves: `None`.

use crossfade_policy::{Protocol, parse_number};

/// As many units as can be sorted well within the deadline.
const UNITS_MAX: usize = 1024;
/// Nesting of a Redis reply; real ones have three or four levels.
const DEPTH_MAX: u32 = 8;

#[derive(Clone, Copy)]
struct Span {
    from: u32,
    to: u32,
}

/// An item, or a field and its value.
#[derive(Clone, Copy)]
pub struct Unit {
    key: u64,
    first: Span,
    second: Span,
}

impl Unit {
    pub fn parts<'a>(&self, reply: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (self.first.of(reply), self.second.of(reply))
    }
}

impl Span {
    const EMPTY: Span = Span { from: 0, to: 0 };

    fn of(self, reply: &[u8]) -> &[u8] {
        reply.get(self.from as usize..self.to as usize).unwrap_or(&[])
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Single,
    Pairs,
}

/// What units are sorted by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Hash,
    Number,
}

/// Units of one reply.
pub struct Table {
    units: [Unit; UNITS_MAX],
    count: usize,
}

impl Table {
    pub const fn new() -> Self {
        Table { units: [Unit { key: 0, first: Span::EMPTY, second: Span::EMPTY }; UNITS_MAX], count: 0 }
    }

    pub fn units(&self) -> &[Unit] {
        &self.units[..self.count]
    }

    /// Some order in which the same units come at the same place: numbers by size, so that close ones meet, others by a
    /// hash, and by their bytes only where two of those are the same. Heap sort: never worse than n log n, and small.
    pub fn sort(&mut self, reply: &[u8], by: Key) {
        let units = &mut self.units[..self.count];
        for unit in units.iter_mut() {
            let first = unit.first.of(reply);
            unit.key = match by {
                Key::Number => parse_number(first).map_or_else(|| hash(first), ascending),
                Key::Hash => hash(first),
            };
        }
        for root in (0..units.len() / 2).rev() {
            sift(units, root, reply);
        }
        for end in (1..units.len()).rev() {
            units.swap(0, end);
            sift(&mut units[..end], 0, reply);
        }
    }

    fn add(&mut self, first: Span, second: Span) -> Option<()> {
        *self.units.get_mut(self.count)? = Unit { key: 0, first, second };
        self.count += 1;
        Some(())
    }
}

fn before(one: &Unit, other: &Unit, reply: &[u8]) -> bool {
    if one.key == other.key { one.parts(reply) < other.parts(reply) } else { one.key < other.key }
}

fn sift(units: &mut [Unit], mut root: usize, reply: &[u8]) {
    loop {
        let mut child = 2 * root + 1;
        if child >= units.len() {
            return;
        }
        if child + 1 < units.len() && before(&units[child], &units[child + 1], reply) {
            child += 1;
        }
        if !before(&units[root], &units[child], reply) {
            return;
        }
        units.swap(root, child);
        root = child;
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte))), 0)
}

/// Bits that are ordered as the numbers are.
fn ascending(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// Fills `table`. `None`: not understood, or more than the table holds.
pub fn split(protocol: Protocol, reply: &[u8], how: Split, table: &mut Table) -> Option<()> {
    table.count = 0;
    match protocol {
        Protocol::Redis => redis(reply, how, table),
        Protocol::Postgres => rows(reply, table),
        Protocol::Mongo => None,
    }
}

fn redis(reply: &[u8], how: Split, table: &mut Table) -> Option<()> {
    let kind = *reply.first()?;
    if !matches!(kind, b'*' | b'~' | b'%' | b'>') {
        let (span, end) = element(reply, 0, 0)?;
        table.add(span, Span::EMPTY)?;
        return (end == reply.len()).then_some(());
    }
    let (count, mut at) = header(reply, 0)?;
    let pairs = how == Split::Pairs || kind == b'%';
    let elements = u64::try_from(count).ok()?.checked_mul(if kind == b'%' { 2 } else { 1 })?;
    if pairs && elements % 2 == 1 {
        return None;
    }
    let units = if pairs { elements / 2 } else { elements };
    for _ in 0..units {
        let (first, behind) = element(reply, at, 0)?;
        at = behind;
        let mut second = Span::EMPTY;
        if pairs {
            (second, at) = element(reply, at, 0)?;
        }
        table.add(first, second)?;
    }
    (at == reply.len()).then_some(())
}

/// The number in the line at `at`, and where the next line begins.
fn header(reply: &[u8], at: usize) -> Option<(i64, usize)> {
    let end = line_end(reply, at)?;
    Some((decimal(&reply[at + 1..end])?, end + 2))
}

fn line_end(reply: &[u8], at: usize) -> Option<usize> {
    let rest = reply.get(at..)?;
    rest.windows(2).position(|pair| pair == b"\r\n").filter(|&found| found > 0).map(|found| at + found)
}

/// What one element says, without its type, so that RESP2 and RESP3 compare; a null and a nested one as they stand.
fn element(reply: &[u8], at: usize, depth: u32) -> Option<(Span, usize)> {
    let span = |from: usize, to: usize| Span { from: from as u32, to: to as u32 };
    match reply.get(at)? {
        b'$' | b'=' | b'!' => {
            let (length, from) = header(reply, at)?;
            let Ok(length) = usize::try_from(length) else { return Some((span(at, from), from)) };
            let to = from.checked_add(length)?;
            (reply.get(to..to + 2)? == b"\r\n").then_some((span(from, to), to + 2))
        }
        b'+' | b'-' | b':' | b',' | b'#' | b'(' => {
            let end = line_end(reply, at)?;
            Some((span(at + 1, end), end + 2))
        }
        b'_' => {
            let end = line_end(reply, at)?;
            Some((span(at, end), end + 2))
        }
        kind @ (b'*' | b'~' | b'%' | b'>') if depth < DEPTH_MAX => {
            let (count, mut behind) = header(reply, at)?;
            let elements = count.max(0).checked_mul(if *kind == b'%' { 2 } else { 1 })?;
            for _ in 0..elements {
                (_, behind) = element(reply, behind, depth + 1)?;
            }
            Some((span(at, behind), behind))
        }
        _ => None,
    }
}

/// PostgreSQL: the rows, whatever stands around them.
fn rows(reply: &[u8], table: &mut Table) -> Option<()> {
    let mut at = 0;
    while at < reply.len() {
        let length = u32::from_be_bytes(*reply.get(at + 1..)?.first_chunk()?) as usize;
        let end = at.checked_add(1)?.checked_add(length)?;
        if length < 4 || end > reply.len() {
            return None;
        }
        if reply[at] == b'D' {
            table.add(Span { from: (at + 5) as u32, to: end as u32 }, Span::EMPTY)?;
        }
        at = end;
    }
    Some(())
}

/// Columns of a PostgreSQL row; `None` within is a null. Ends at the first that is not whole.
pub fn columns(row: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = row.get(2..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = behind;
            return Some(None);
        };
        let (column, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(Some(column))
    })
}

/// What kind of error it is: the first word (Redis), the SQLSTATE (PostgreSQL).
pub fn error_class(protocol: Option<Protocol>, reply: &[u8]) -> Option<&[u8]> {
    match protocol? {
        Protocol::Redis => {
            let (span, _) = element(reply, 0, 0)?;
            span.of(reply).split(|byte| *byte == b' ').next()
        }
        Protocol::Postgres => {
            let mut at = 0;
            while *reply.get(at)? != b'E' {
                at += 1 + u32::from_be_bytes(*reply.get(at + 1..)?.first_chunk()?).max(4) as usize;
            }
            let fields = reply.get(at + 5..)?.split(|byte| *byte == 0);
            fields.into_iter().find_map(|field| field.strip_prefix(b"C"))
        }
        Protocol::Mongo => None,
    }
}

/// The number of an integer reply of Redis.
pub fn integer(reply: &[u8]) -> Option<i64> {
    let line = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    decimal(line)
}

fn decimal(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let value = digits
        .iter()
        .try_fold(0_i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some(if negative { -value } else { value })
}
