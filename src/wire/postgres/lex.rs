//! Tokens of SQL text, as far as it takes to tell statements apart. Pure, allocates nothing; any thread. The text may be cut anywhere.
//!
//! Not a parser: operators are single bytes and numbers are words. Quoting follows PostgreSQL's manual, 4.1 "Lexical Structure", with
//! standard_conforming_strings on (the default since 9.1): a backslash is ordinary except in E'…'.

use memchr::{memchr, memchr2, memmem};

/// One token. Its slices are of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A key word, an unquoted identifier or a number.
    Word(&'a [u8]),
    /// A "quoted identifier", without the outer quotes; doubled quotes stay doubled.
    Quoted(&'a [u8]),
    /// The inside of '…' or $tag$…$tag$, as written. `plain`: it means what is written, without doubled quotes or escapes.
    Text { inside: &'a [u8], plain: bool },
    /// Any other byte.
    Mark(u8),
    /// A `;` that ends a statement: not within the body of a function in standard SQL (`BEGIN ATOMIC … END`).
    End,
}

/// Reads tokens from the front of a text.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Words of this statement seen so far, up to 4: is it CREATE [OR REPLACE] FUNCTION or PROCEDURE?
    words: u8,
    routine: Routine,
    /// Open BEGIN and CASE of a routine's body.
    depth: u32,
}

/// As psql finds out whether a `;` is inside a routine's body (psqlscan.l).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routine {
    No,
    Create,
    Yes,
}

impl<'a> Lexer<'a> {
    /// Reads `text` from its beginning.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, words: 0, routine: Routine::No, depth: 0 }
    }

    /// Where the next token, or the white space before it, begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Skips white space and comments; whether this byte follows.
    #[must_use]
    pub fn next_is(&mut self, mark: u8) -> bool {
        self.skip_space();
        self.text.get(self.at) == Some(&mark)
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_space(&mut self) {
        // Nearly always there is one blank or nothing.
        if self.peek(0) == b' ' {
            self.at += 1;
        }
        if is_word(self.peek(0)) {
            return;
        }
        self.skip_more_space();
    }

    fn skip_more_space(&mut self) {
        loop {
            match self.peek(0) {
                b' ' | b'\n' | b'\t' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    let rest = &self.text[self.at..];
                    self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                }
                b'/' if self.peek(1) == b'*' => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0u32;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {
                    let rest = &self.text[self.at + 1..];
                    self.at += 1 + memchr2(b'*', b'/', rest).unwrap_or(rest.len());
                }
            }
        }
        self.at = self.text.len();
    }

    #[inline]
    fn word(&mut self) -> Token<'a> {
        let rest = &self.text[self.at..];
        let mut len = 1;
        while rest.get(len).is_some_and(|byte| is_word(*byte)) {
            len += 1;
        }
        if len == 1
            && matches!(rest.get(1), Some(b'\'' | b'&'))
            && let Some(token) = self.prefixed_string(rest)
        {
            return token;
        }
        self.at += len;
        if self.words < 4 || self.routine == Routine::Yes {
            self.note(&rest[..len]);
        }
        Token::Word(&rest[..len])
    }

    /// E'…', B'…', X'…', N'…', U&'…' and U&"…": one letter, and a quote or an ampersand after it.
    fn prefixed_string(&mut self, rest: &'a [u8]) -> Option<Token<'a>> {
        match (rest[0] | 0x20, rest[1], rest.get(2)) {
            (letter @ (b'e' | b'b' | b'x' | b'n'), b'\'', _) => {
                self.at += 1;
                Some(self.string(letter == b'e'))
            }
            (b'u', b'&', Some(b'\'' | b'"')) => {
                self.at += 2;
                Some(match self.string_or_quoted() {
                    Token::Text { inside, .. } => Token::Text { inside, plain: false },
                    other => other,
                })
            }
            _ => None,
        }
    }

    /// Follows, word by word, whether the text is inside a routine's body.
    fn note(&mut self, word: &[u8]) {
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        if self.words < 4 {
            self.words += 1;
            match self.routine {
                Routine::No if self.words == 1 && is(b"create") => self.routine = Routine::Create,
                Routine::Create if is(b"function") || is(b"procedure") => self.routine = Routine::Yes,
                Routine::No | Routine::Create | Routine::Yes => {}
            }
        }
        if self.routine == Routine::Yes {
            if is(b"begin") || (self.depth > 0 && is(b"case")) {
                self.depth += 1;
            } else if is(b"end") {
                self.depth = self.depth.saturating_sub(1);
            }
        }
    }

    fn string_or_quoted(&mut self) -> Token<'a> {
        if self.peek(0) == b'\'' { self.string(false) } else { self.quoted() }
    }

    /// At the opening quote.
    fn string(&mut self, escapes: bool) -> Token<'a> {
        let begin = self.at + 1;
        let mut plain = true;
        self.at = begin;
        loop {
            let rest = &self.text[self.at..];
            let found = if escapes { memchr2(b'\'', b'\\', rest) } else { memchr(b'\'', rest) };
            let Some(found) = found else {
                self.at = self.text.len();
                return Token::Text { inside: &self.text[begin..], plain: false };
            };
            self.at += found;
            if self.peek(0) == b'\\' || self.peek(1) == b'\'' {
                plain = false;
                self.at = (self.at + 2).min(self.text.len());
            } else {
                let inside = &self.text[begin..self.at];
                self.at += 1;
                return Token::Text { inside, plain };
            }
        }
    }

    fn quoted(&mut self) -> Token<'a> {
        let begin = self.at + 1;
        self.at = begin;
        loop {
            let rest = &self.text[self.at..];
            let Some(found) = memchr(b'"', rest) else {
                self.at = self.text.len();
                return Token::Quoted(&self.text[begin..]);
            };
            self.at += found;
            if self.peek(1) != b'"' {
                let inside = &self.text[begin..self.at];
                self.at += 1;
                return Token::Quoted(inside);
            }
            self.at += 2;
        }
    }

    /// At a dollar: the opening of a dollar-quoted string, a parameter ($1), or a lone mark.
    fn dollar(&mut self) -> Token<'a> {
        let rest = &self.text[self.at..];
        let tag = rest[1..].iter().position(|byte| !is_word(*byte) || *byte == b'$').map(|len| &rest[..len + 1]);
        match tag {
            Some(tag) if rest.get(tag.len()) == Some(&b'$') && !tag.get(1).is_some_and(u8::is_ascii_digit) => {
                let opening = &rest[..tag.len() + 1];
                let body = &rest[opening.len()..];
                let end = memmem::find(body, opening);
                self.at += end.map_or(rest.len(), |end| end + 2 * opening.len());
                Token::Text { inside: &body[..end.unwrap_or(body.len())], plain: end.is_some() }
            }
            _ => {
                self.at += 1;
                Token::Mark(b'$')
            }
        }
    }
}

/// Which bytes a word may consist of. A table costs half of what comparisons do.
const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let own = byte as u8;
        table[byte] = own.is_ascii_alphanumeric() || own == b'_' || own == b'$' || own >= 0x80;
        byte += 1;
    }
    table
};

#[inline]
fn is_word(byte: u8) -> bool {
    WORD[byte as usize]
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let first = *self.text.get(self.at)?;
        Some(match first {
            b'\'' => self.string(false),
            b'"' => self.quoted(),
            b'$' => self.dollar(),
            b';' if self.depth == 0 => {
                self.at += 1;
                (self.words, self.routine) = (0, Routine::No);
                Token::End
            }
            _ if is_word(first) => self.word(),
            _ => {
                self.at += 1;
                Token::Mark(first)
            }
        })
    }
}

/// The statements of a text, without their `;`. Empty ones, of white space and comments only, are left out, as the server does.
pub fn statements(sql: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lexer = Lexer::new(sql);
    std::iter::from_fn(move || {
        loop {
            let begin = lexer.position();
            let mut empty = true;
            let end = loop {
                match lexer.next() {
                    None => break sql.len(),
                    Some(Token::End) => break lexer.position() - 1,
                    Some(_) => empty = false,
                }
            };
            if !empty {
                return Some(&sql[begin..end]);
            }
            if end == sql.len() {
                return None;
            }
        }
    })
}

/// Whether a word is this one, in any case.
#[inline]
pub(super) fn is(word: &[u8], other: &str) -> bool {
    word.len() == other.len() && word.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether a word is one of these, in any case.
pub(super) fn is_one_of(word: &[u8], others: &[&str]) -> bool {
    others.iter().any(|other| is(word, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str) -> Vec<String> {
        statements(sql.as_bytes()).map(|one| String::from_utf8_lossy(one).trim().to_owned()).collect()
    }

    #[test]
    fn statements_end_at_a_semicolon_outside_of_everything() {
        assert_eq!(split("select 1; ;; select 2;"), ["select 1", "select 2"]);
        assert_eq!(split("  -- nothing; at all\n /* ; /* ; */ ; */"), Vec::<String>::new());
        for whole in [
            "select ';', 'a'';b', \"x;\"\"y\"",
            "select E'a\\';b', $$;$$, $x$ ; $$ ; $x$",
            "select $1, a$b$c",
            "select U&'\\0041;', u&\";\"",
            "create function f() returns int begin atomic; select case when true then 1 end; select 2; end",
            "create or replace procedure p() language sql as $$ begin; end $$",
            "select 'not ended; ",
            "select $q$ not ended;",
            "select \"not ended;",
            "select 1 /* not ended;",
        ] {
            assert_eq!(split(whole), [whole.trim()], "{whole}");
            if !whole.contains("not ended") {
                assert_eq!(split(&format!("{whole}; select 3")), [whole, "select 3"]);
            }
        }
        assert_eq!(split("begin; select 1; end"), ["begin", "select 1", "end"]);
        assert_eq!(split("select 'a\\'; select 2"), ["select 'a\\'", "select 2"]);
    }

    #[test]
    fn tokens() {
        let tokens: Vec<_> = Lexer::new(b"a.\"B\" = 'x' || e'\\n' ; $$y$$ $2").collect();
        let text = |inside: &'static str, plain| Token::Text { inside: inside.as_bytes(), plain };
        let expected = [
            Token::Word(b"a"),
            Token::Mark(b'.'),
            Token::Quoted(b"B"),
            Token::Mark(b'='),
            text("x", true),
            Token::Mark(b'|'),
            Token::Mark(b'|'),
            text("\\n", false),
            Token::End,
            text("y", true),
            Token::Mark(b'$'),
            Token::Word(b"2"),
        ];
        assert_eq!(tokens, expected);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_stand_still(bytes: Vec<u8>, sql in "[ '\"$;a/*eEu&-x\\\\\n]{0,40}") {
            for text in [&bytes[..], sql.as_bytes()] {
                let mut lexer = Lexer::new(text);
                let mut at = 0;
                while lexer.next().is_some() {
                    proptest::prop_assert!(lexer.position() > at && lexer.position() <= text.len());
                    at = lexer.position();
                }
                let _ = statements(text).count();
            }
        }
    }
}
