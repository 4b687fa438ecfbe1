//! Whether two replies to the same read at the same position mean the same.

use super::command::CompareRule;
use super::effect::{elements, integer, is_error, is_nil};

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    /// Different bytes, same meaning (order, protocol version, TTL within the grace).
    Equivalent,
    Divergent,
}

/// Compares a reply of the source with one of the target. The two may be in different protocol versions.
#[must_use]
pub fn compare(rule: CompareRule, authority: &[u8], shadow: &[u8], grace_ms: i64) -> Comparison {
    if authority == shadow {
        return Comparison::Equal;
    }
    let equivalent = match rule {
        CompareRule::Never => true,
        CompareRule::Exact => same(authority, shadow, false),
        CompareRule::Scores => same(authority, shadow, true),
        CompareRule::Unordered => same_in_any_order(authority, shadow, 1),
        CompareRule::UnorderedPairs => same_in_any_order(authority, shadow, 2),
        CompareRule::RemainingMs | CompareRule::DeadlineMs => within(authority, shadow, grace_ms + 50),
        CompareRule::RemainingSeconds | CompareRule::DeadlineSeconds => within(authority, shadow, grace_ms / 1000 + 1),
    };
    if equivalent { Comparison::Equivalent } else { Comparison::Divergent }
}

fn same(a: &[u8], b: &[u8], numbers: bool) -> bool {
    if a == b || (is_nil(a) && is_nil(b)) {
        return true;
    }
    if is_error(a) && is_error(b) {
        return error_code(a) == error_code(b);
    }
    match (elements(a), elements(b)) {
        (Some(left), Some(right)) => same_flat(&left, &right, numbers),
        (None, None) => {
            scalar(a).is_some() && (scalar(a) == scalar(b) || numbers && number(a).is_some() && number(a) == number(b))
        }
        _ => false,
    }
}

/// RESP3 nests pairs (ZRANGE WITHSCORES) where RESP2 is flat, so nested pairs are unfolded when the lengths differ.
fn same_flat(left: &[&[u8]], right: &[&[u8]], numbers: bool) -> bool {
    let equal = |l: &[&[u8]], r: &[&[u8]]| l.len() == r.len() && l.iter().zip(r).all(|(a, b)| same(a, b, numbers));
    if left.len() == right.len() {
        return equal(left, right);
    }
    let unfold = |side: &[&[u8]]| {
        side.iter()
            .flat_map(|e| elements(e).unwrap_or_default().into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let (short, long) = if left.len() < right.len() { (left, right) } else { (right, left) };
    let unfolded = unfold(short);
    equal(&unfolded.iter().map(Vec::as_slice).collect::<Vec<_>>(), long)
}

fn same_in_any_order(a: &[u8], b: &[u8], group: usize) -> bool {
    let (Some(mut left), Some(mut right)) = (elements(a), elements(b)) else { return same(a, b, false) };
    if left.len() != right.len() || !left.len().is_multiple_of(group) {
        return false;
    }
    if group == 1 {
        left.sort_unstable();
        right.sort_unstable();
        return left == right;
    }
    let mut left: Vec<_> = left.chunks_exact(group).collect();
    let mut right: Vec<_> = right.chunks_exact(group).collect();
    left.sort_unstable();
    right.sort_unstable();
    left == right
}

/// Both positive and close, or both the same negative code (absent, persistent). Absent against about to expire is equal too.
fn within(a: &[u8], b: &[u8], tolerance: i64) -> bool {
    match (integer(a), integer(b)) {
        (Some(x), Some(y)) if x >= 0 && y >= 0 => (x - y).abs() <= tolerance,
        (Some(-2), Some(y)) | (Some(y), Some(-2)) => (0..=tolerance).contains(&y),
        (x, y) => x == y,
    }
}

fn error_code(reply: &[u8]) -> &[u8] {
    reply.split(|&b| b == b' ').next().unwrap_or_default()
}

fn number(reply: &[u8]) -> Option<f64> {
    std::str::from_utf8(&scalar(reply)?).ok()?.parse().ok()
}

/// The text of a single value, whichever protocol version wrote it: doubles and booleans are strings and integers in RESP2.
fn scalar(reply: &[u8]) -> Option<Vec<u8>> {
    let line = |bytes: &[u8]| bytes.strip_suffix(b"\r\n").map(<[u8]>::to_vec);
    match reply.first()? {
        b'$' => super::effect::bulk(reply).map(<[u8]>::to_vec),
        b'+' | b':' | b',' => line(&reply[1..]),
        b'#' => Some(if reply.get(1) == Some(&b't') { b"1".to_vec() } else { b"0".to_vec() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{Divergent, Equal, Equivalent};

    #[test]
    fn meanings_not_bytes() {
        let cases: &[(CompareRule, &str, &str, Comparison)] = &[
            (CompareRule::Exact, "$1\r\na\r\n", "$1\r\na\r\n", Equal),
            (CompareRule::Exact, "$1\r\na\r\n", "$1\r\nb\r\n", Divergent),
            (CompareRule::Exact, "_\r\n", "$-1\r\n", Equivalent),
            (CompareRule::Exact, ",1.5\r\n", "$3\r\n1.5\r\n", Equivalent),
            (CompareRule::Scores, "$19\r\n0.29999999999999999\r\n", "$3\r\n0.3\r\n", Equivalent),
            (CompareRule::Scores, "$3\r\n0.3\r\n", "$3\r\n0.4\r\n", Divergent),
            (CompareRule::Exact, "$3\r\n1.0\r\n", "$1\r\n1\r\n", Divergent),
            (CompareRule::Exact, "#t\r\n", ":1\r\n", Equivalent),
            (CompareRule::Exact, "-WRONGTYPE a\r\n", "-WRONGTYPE b\r\n", Equivalent),
            (CompareRule::Exact, "-WRONGTYPE a\r\n", "-ERR b\r\n", Divergent),
            (CompareRule::Exact, "*1\r\n*2\r\n$1\r\na\r\n,1\r\n", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", Equivalent),
            (CompareRule::Exact, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n", Divergent),
            (CompareRule::Unordered, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n", Equivalent),
            (CompareRule::Unordered, "*2\r\n:1\r\n:1\r\n", "*2\r\n:2\r\n:1\r\n", Divergent),
            (
                CompareRule::UnorderedPairs,
                "%2\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
                "*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n",
                Equivalent,
            ),
            (
                CompareRule::UnorderedPairs,
                "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
                "*4\r\n:1\r\n:4\r\n:3\r\n:2\r\n",
                Divergent,
            ),
            (CompareRule::RemainingMs, ":5000\r\n", ":6010\r\n", Equivalent),
            (CompareRule::RemainingMs, ":5000\r\n", ":9000\r\n", Divergent),
            (CompareRule::RemainingMs, ":-1\r\n", ":9000\r\n", Divergent),
            (CompareRule::RemainingMs, ":-2\r\n", ":900\r\n", Equivalent),
            (CompareRule::RemainingSeconds, ":5\r\n", ":6\r\n", Equivalent),
            (CompareRule::Never, ":5\r\n", "+x\r\n", Equivalent),
        ];
        for (rule, a, b, want) in cases {
            assert_eq!(compare(*rule, a.as_bytes(), b.as_bytes(), 1000), *want, "{rule:?} {a:?} {b:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(a: Vec<u8>, b: Vec<u8>) {
            for rule in [CompareRule::Exact, CompareRule::Unordered, CompareRule::UnorderedPairs, CompareRule::RemainingMs] {
                let _ = compare(rule, &a, &b, 1000);
            }
        }
    }
}
