//! Cursors of the SCAN family while two servers are kept in step: a cursor is good on the server that gave it, and is refused on the other.
//!
//! A server's cursor fills the low bits of 64 (Redis `dict.c`, `dictScan`: at most as many as the table has). Cursors of the target carry one more
//! bit, so that one that comes after a change of authority is known, whoever brings it. Pure.

use wire::resp::effect::{bulk, elements};
use wire::resp::{Args, encode};

/// Carried by cursors of the target; still positive for clients that read them as signed.
const OF_TARGET: u64 = 1 << 62;

/// What a client is told that comes with a cursor of the other server.
pub const STALE: &[u8] =
    b"-ERR Crossfade: this SCAN began on the server that was the authority before: begin again with cursor 0\r\n";

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Cursor {
    /// As it is.
    Untouched,
    /// This request instead.
    Stripped(Vec<u8>),
    /// It is of the other server.
    Stale,
}

/// Whether this command of the table is one of the family.
#[must_use]
pub fn has_cursor(name: &str) -> bool {
    matches!(name, "scan" | "sscan" | "hscan" | "zscan")
}

/// Looks at the cursor of a request. `on_target`: where it would go; `strict`: cursors of the other server are refused.
#[must_use]
pub fn request(frame: &[u8], on_target: bool, strict: bool) -> Cursor {
    let args: Vec<&[u8]> = Args::new(frame).collect();
    let at = if args.first().is_some_and(|name| name.len() == b"SCAN".len()) { 1 } else { 2 };
    let Some(cursor) = args.get(at).and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok()) else {
        return Cursor::Untouched;
    };
    let of_target = cursor & OF_TARGET != 0;
    if cursor != 0 && strict && of_target != on_target {
        return Cursor::Stale;
    }
    if !of_target {
        return Cursor::Untouched;
    }
    let stripped = (cursor & !OF_TARGET).to_string();
    let mut args = args;
    args[at] = stripped.as_bytes();
    Cursor::Stripped(encode::request(&args))
}

/// A whole reply of the target with its cursor marked; `None`: there is nothing to be marked.
#[must_use]
pub fn reply(frame: &[u8]) -> Option<Vec<u8>> {
    let parts = elements(frame)?;
    let [first, rest] = parts.as_slice() else { return None };
    let cursor: u64 = std::str::from_utf8(bulk(first)?).ok()?.parse().ok()?;
    if cursor == 0 {
        return None;
    }
    let marked = (cursor | OF_TARGET).to_string();
    let mut out = format!("*2\r\n${}\r\n{marked}\r\n", marked.len()).into_bytes();
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, on_target: bool, strict: bool) -> Cursor {
        request(&encode::request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()), on_target, strict)
    }

    fn words(cursor: Cursor) -> String {
        let Cursor::Stripped(frame) = cursor else { panic!("{cursor:?}") };
        Args::new(&frame).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_cursor_comes_back_to_the_server_that_gave_it() {
        let marked = reply(b"*2\r\n$2\r\n17\r\n*1\r\n$1\r\nk\r\n").expect("marked");
        assert_eq!(marked, b"*2\r\n$19\r\n4611686018427387921\r\n*1\r\n$1\r\nk\r\n");
        let line = "SCAN 4611686018427387921 MATCH 17 COUNT 5";
        assert_eq!(words(asked(line, true, true)), "SCAN 17 MATCH 17 COUNT 5");
        assert_eq!(words(asked("HSCAN h 4611686018427387921", true, true)), "HSCAN h 17");
        assert_eq!(asked(line, false, true), Cursor::Stale);
        assert_eq!(words(asked(line, false, false)), "SCAN 17 MATCH 17 COUNT 5", "nothing else is kept in step");
        for (line, on_target) in [("SCAN 17", true), ("ZSCAN z 5", true)] {
            assert_eq!((asked(line, on_target, true), asked(line, false, true)), (Cursor::Stale, Cursor::Untouched));
            assert_eq!(asked(line, on_target, false), Cursor::Untouched);
        }
    }

    #[test]
    fn beginnings_ends_and_nonsense_are_left_alone() {
        for line in ["SCAN 0", "SSCAN s 0", "SCAN", "SCAN x", "HSCAN h", "SCAN -1", "SCAN 99999999999999999999"] {
            assert_eq!(asked(line, true, true), Cursor::Untouched, "{line}");
        }
        for frame in ["*2\r\n$1\r\n0\r\n*0\r\n", "-ERR no\r\n", "*0\r\n", ":1\r\n", "*2\r\n:5\r\n*0\r\n"] {
            assert_eq!(reply(frame.as_bytes()), None, "{frame}");
        }
    }
}
