//! A reply as a server would have sent it to a RESP2 client: the form in which two replies are shown when one of them is RESP3.
//!
//! Source: Redis' `addReply...` functions, which write a double as a bulk string, a map as a flat array, a boolean as 0 or 1, and members
//! with scores (ZRANGE WITHSCORES and its kin) as pairs in RESP3 and flat in RESP2.

use super::encode::number;
use super::value::{Value, decode_whole};

/// `None`: the bytes are not one whole reply. Every null is written as a null bulk string.
#[must_use]
pub fn to_resp2(reply: &[u8]) -> Option<Vec<u8>> {
    let value = decode_whole(reply).ok()?;
    let mut out = Vec::with_capacity(reply.len());
    match value {
        Value::Array(items) if !items.is_empty() && items.iter().all(is_scored_member) => {
            let flat: Vec<&Value> = items.iter().flat_map(|pair| pair.items().unwrap_or_default()).collect();
            aggregate(&mut out, flat.into_iter());
        }
        other => write(&other, &mut out),
    }
    Some(out)
}

/// A member and its score. A position (GEOPOS) is a pair too, of two doubles, and stays nested.
fn is_scored_member(value: &Value) -> bool {
    matches!(value, Value::Array(pair) if matches!(pair.as_slice(), [Value::Bulk(_), Value::Double(_)]))
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"$-1\r\n"),
        Value::Simple(text) => line(b'+', text, out),
        Value::Error(text) => line(b'-', &on_one_line(text), out),
        Value::Integer(n) => line(b':', &number(*n), out),
        Value::Bool(yes) => line(b':', if *yes { b"1" } else { b"0" }, out),
        Value::Bulk(text) | Value::Double(text) | Value::BigNumber(text) | Value::Verbatim(text) => {
            line(b'$', text.len().to_string().as_bytes(), out);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        Value::Array(items) | Value::Set(items) | Value::Map(items) | Value::Push(items) => {
            aggregate(out, items.iter());
        }
    }
}

fn line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// A bulk error of RESP3 may hold line ends, a RESP2 error may not: they become spaces, as in Redis' `afterErrorReply`.
fn on_one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

fn aggregate<'v>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = &'v Value>) {
    line(b'*', items.len().to_string().as_bytes(), out);
    items.for_each(|item| write(item, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_resp3_adds_is_written_as_resp2_had_it() {
        let cases = [
            ("_\r\n", "$-1\r\n"),
            ("*-1\r\n", "$-1\r\n"),
            (",1.5\r\n", "$3\r\n1.5\r\n"),
            ("#t\r\n", ":1\r\n"),
            ("%1\r\n$1\r\nf\r\n$1\r\nv\r\n", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n"),
            ("~1\r\n$1\r\nm\r\n", "*1\r\n$1\r\nm\r\n"),
            (
                "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2\r\n",
                "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
            ),
            ("*2\r\n*2\r\n,1\r\n,2\r\n_\r\n", "*2\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"),
            ("*2\r\n,1\r\n_\r\n", "*2\r\n$1\r\n1\r\n$-1\r\n"),
            ("=7\r\ntxt:abc\r\n", "$3\r\nabc\r\n"),
            ("-ERR x\r\n", "-ERR x\r\n"),
            ("!5\r\na\r\nb.\r\n", "-a  b.\r\n"),
        ];
        for (resp3, resp2) in cases {
            assert_eq!(to_resp2(resp3.as_bytes()).as_deref(), Some(resp2.as_bytes()), "{resp3:?}");
            assert_eq!(to_resp2(resp2.as_bytes()).as_deref(), Some(resp2.as_bytes()), "and again: {resp2:?}");
        }
        assert_eq!(to_resp2(b"*2\r\n:1\r\n"), None);
    }
}
