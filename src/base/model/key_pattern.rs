//! Patterns of Redis keys, matched as Redis itself matches them (`util.c`, `stringmatchlen`). Pure; crosses threads.

use std::fmt;

use super::limits;

/// Why a text is no pattern, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError(String);

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// A pattern of keys: `*` any bytes, `?` one byte, `[a-z]` and `[^a-z]` one of a class, `\` takes the next byte as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPattern(Box<str>);

impl KeyPattern {
    /// # Errors
    /// [`PatternError`]: it is empty, too long, or matches every key.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let max = limits::EXCLUDE_PATTERN_BYTES_MAX;
        if text.is_empty() || text.len() > max {
            let begin: String = text.chars().take(60).collect();
            return Err(PatternError(format!("exclude {begin:?} is no pattern: use 1 to {max} bytes")));
        }
        if text.bytes().all(|byte| byte == b'*') {
            return Err(PatternError(format!(
                "exclude {text:?} matches every key, so nothing would be moved: use a narrower pattern"
            )));
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a whole key matches.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut key_at) = (0, 0);
        // Where to go on after the last `*` when what follows it does not match: the `*` then covers one byte more.
        let mut retry: Option<(usize, usize)> = None;
        while key_at < key.len() {
            let matched = match pattern.get(at) {
                Some(b'*') => {
                    retry = Some((at + 1, key_at));
                    at += 1;
                    continue;
                }
                Some(_) => one(&pattern[at..], key[key_at]),
                None => None,
            };
            match (matched, retry) {
                (Some(length), _) => {
                    at += length;
                    key_at += 1;
                }
                (None, Some((begin, covered))) => {
                    retry = Some((begin, covered + 1));
                    (at, key_at) = (begin, covered + 1);
                }
                (None, None) => return false,
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

/// Matches one byte of a key against the head of a pattern that is no `*`; how long that head is, if it matches.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => {
            let (matched, length) = class_of(class, byte);
            matched.then_some(1 + length)
        }
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// Whether a byte is in the class behind a `[`, and how long that is with its `]`. One that does not end reaches to the end.
fn class_of(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    while at < class.len() && class[at] != b']' {
        match class[at..] {
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                found |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            _ => {
                found |= class[at] == byte;
                at += 1;
            }
        }
    }
    (found != negated, (at + 1).min(class.len()))
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_as_redis_matches_them() {
        for (pattern, key, expected) in [
            ("session:*", "session:1", true),
            ("session:*", "session:", true),
            ("session:*", "sessions:1", false),
            ("*:tmp", "a:b:tmp", true),
            ("*:tmp", "a:tmp:b", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^ae]llo", "hallo", false),
            ("h[^ae]llo", "hbllo", true),
            ("k[0-9]", "k7", true),
            ("k[9-0]", "k7", true),
            ("k[0-9]", "kx", false),
            ("k[\\]]", "k]", true),
            ("k\\*", "k*", true),
            ("k\\*", "kk", false),
            ("k[ab", "ka", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("a**", "abc", true),
        ] {
            assert_eq!(KeyPattern::new(pattern).unwrap().matches(key.as_bytes()), expected, "{pattern} {key}");
        }
    }

    /// A pattern with many stars must not take time that grows with every one of them.
    #[test]
    fn many_stars_take_no_longer_than_one() {
        let pattern = KeyPattern::new(&"a*".repeat(100)).unwrap();
        assert!(!pattern.matches(&[b'a'; 100_000][..99]));
        assert!(!KeyPattern::new(&format!("{}b", "*a".repeat(60))).unwrap().matches(&[b'a'; 20_000]));
    }

    #[test]
    fn what_excludes_nothing_or_everything_is_no_pattern() {
        for text in ["", "*", "***", &"x".repeat(limits::EXCLUDE_PATTERN_BYTES_MAX + 1)] {
            let error = KeyPattern::new(text).expect_err("refused").to_string();
            assert!(error.contains("use "), "{error}");
        }
    }
}
