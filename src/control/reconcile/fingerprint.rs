//! A statement without its literals: what `analyze` keeps of it, and by which number it is known. Pure; control thread.
//!
//! No literal leaves this file: what cannot be told apart with certainty is cut off.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use xxhash_rust::xxh3::xxh3_64;

use base::model::limits;

/// Stands for what was cut off.
const REST: &str = "...";

/// Words shown in upper case; every other unquoted word is folded to lower case, as PostgreSQL does.
const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CALL",
    "CASE",
    "CAST",
    "CLOSE",
    "COMMIT",
    "CONFLICT",
    "COPY",
    "CREATE",
    "CROSS",
    "CURSOR",
    "DEALLOCATE",
    "DECLARE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DISCARD",
    "DISTINCT",
    "DO",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "FETCH",
    "FOR",
    "FROM",
    "FULL",
    "GRANT",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOT",
    "NOTHING",
    "NOTIFY",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PREPARE",
    "RELEASE",
    "RETURNING",
    "REVOKE",
    "RIGHT",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "THEN",
    "TO",
    "TRUNCATE",
    "UNION",
    "UNLISTEN",
    "UPDATE",
    "USING",
    "VACUUM",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What is known of a statement by its form alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    /// xxh3 of `text`.
    pub number: u64,
    /// One of a closed set: "SELECT", "SELECT FOR UPDATE", "INSERT", …, "DDL", "OTHER".
    pub kind: &'static str,
    pub text: String,
}

/// `cut`: the text is only the beginning of the statement.
#[must_use]
pub fn fingerprint(sql: &str, cut: bool) -> Print {
    // The tokeniser is fed by strangers; should it ever panic, the statement is of kind OTHER and the thread goes on.
    let guarded = std::panic::catch_unwind(|| {
        let (tokens, whole) = tokens(sql, cut);
        words(&tokens, whole)
    });
    let words = guarded.unwrap_or_else(|_| vec![REST.to_owned()]);
    let kind = kind(&words);
    let mut text = join(&collapse(words));
    let number = xxh3_64(text.as_bytes());
    if text.len() > limits::FINGERPRINT_TEXT_BYTES {
        let mut end = limits::FINGERPRINT_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(REST);
    }
    Print { number, kind, text }
}

/// The tokens up to the first place of doubt, and whether that is the end.
fn tokens(sql: &str, cut: bool) -> (Vec<TokenWithSpan>, bool) {
    let mut tokens = Vec::new();
    let read =
        Tokenizer::new(&PostgreSqlDialect {}, sql).with_unescape(false).tokenize_with_location_into_buf(&mut tokens);
    let mut whole = read.is_ok() && !cut;
    if cut && read.is_ok() {
        // The last one may be half of something else: the beginning of a literal such as U&'...' or $tag$.
        tokens.pop();
    }
    if let Some(doubtful) = tokens.iter().position(|token| is_doubtful(&token.token)) {
        tokens.truncate(doubtful);
        whole = false;
    }
    (tokens, whole)
}

/// With standard_conforming_strings off a backslash escapes a quote: where the string ends is not known then.
fn is_doubtful(token: &Token) -> bool {
    let (Token::SingleQuotedString(text) | Token::NationalStringLiteral(text)) = token else { return false };
    let mut escaped = false;
    for byte in text.bytes() {
        match byte {
            b'\\' => escaped = !escaped,
            b'\'' if escaped => return true,
            _ => escaped = false,
        }
    }
    escaped
}

/// Literals become `?`, comments and blanks go, words are folded.
fn words(tokens: &[TokenWithSpan], whole: bool) -> Vec<String> {
    let mut words: Vec<String> = tokens.iter().filter_map(|token| word(&token.token)).collect();
    while words.last().is_some_and(|word| word == ";") {
        words.pop();
    }
    if !whole {
        words.push(REST.to_owned());
    }
    words
}

fn word(token: &Token) -> Option<String> {
    match token {
        Token::EOF | Token::Whitespace(_) => None,
        Token::Word(word) if word.quote_style.is_some() => Some(token.to_string()),
        Token::Word(word) => {
            let upper = word.value.to_uppercase();
            Some(if KEYWORDS.contains(&upper.as_str()) { upper } else { word.value.to_lowercase() })
        }
        Token::Number(..)
        | Token::Placeholder(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::TripleSingleQuotedString(_)
        | Token::TripleDoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::DoubleQuotedByteStringLiteral(_)
        | Token::TripleSingleQuotedByteStringLiteral(_)
        | Token::TripleDoubleQuotedByteStringLiteral(_)
        | Token::SingleQuotedRawStringLiteral(_)
        | Token::DoubleQuotedRawStringLiteral(_)
        | Token::TripleSingleQuotedRawStringLiteral(_)
        | Token::TripleDoubleQuotedRawStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::QuoteDelimitedStringLiteral(_)
        | Token::NationalQuoteDelimitedStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_) => Some("?".to_owned()),
        // Signs and operators of a foreign enum; they hold no text of the application.
        other => Some(other.to_string()),
    }
}

/// IN lists, ARRAY lists and further rows of VALUES become one.
fn collapse(words: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_str();
        let next = words.get(at + 1).map(String::as_str);
        out.push(word.to_owned());
        at += 1;
        match (word, next) {
            ("IN", Some("(")) | ("ARRAY", Some("[")) => {
                if let Some(end) = plain_list(&words, at) {
                    out.extend([words[at].clone(), "?".to_owned(), words[end].clone()]);
                    at = end + 1;
                }
            }
            ("VALUES", Some("(")) => {
                let Some(end) = closing(&words, at) else { continue };
                out.extend(words[at..=end].iter().cloned());
                at = end + 1;
                // Each further row, however it differs.
                while words.get(at).is_some_and(|word| word == ",") && words.get(at + 1).is_some_and(|word| word == "(")
                {
                    let Some(end) = closing(&words, at + 1) else { break };
                    at = end + 1;
                }
                // A cut inside a row stands for rows.
            }
            _ => {}
        }
    }
    out
}

/// The bracket that closes the one at `open`, when only literals, signs and casts are between them.
fn plain_list(words: &[String], open: usize) -> Option<usize> {
    let end = closing(words, open)?;
    let inside = &words[open + 1..end];
    let plain = inside.iter().enumerate().all(|(at, word)| {
        matches!(word.as_str(), "?" | "," | "-" | "+" | "::" | "NULL") || (at > 0 && inside[at - 1] == "::")
    });
    (plain && !inside.is_empty()).then_some(end)
}

/// The bracket that closes the one at `open`.
fn closing(words: &[String], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate().skip(open) {
        match word.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn join(words: &[String]) -> String {
    let mut text = String::new();
    let mut before = "";
    for word in words {
        let glued = match (before, word.as_str()) {
            ("", _) | (_, "," | ")" | "]" | "." | ";" | "::") | ("(" | "[" | "." | "::", _) => true,
            // A call, or a list after a name; keywords keep their distance.
            (name, "(" | "[") => {
                name.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"') && !KEYWORDS.contains(&name)
                    || name == "ARRAY"
            }
            (_, _) => false,
        };
        if !glued {
            text.push(' ');
        }
        text.push_str(word);
        before = word;
    }
    text
}

/// From the words alone. The library's parser is not used: it recurses, and hostile statements as in the last test here overflowed the
/// stack, which ends the whole process.
fn kind(words: &[String]) -> &'static str {
    let kind = by_first_word(words);
    if kind != "SELECT" {
        return kind;
    }
    let mut depth = 0_usize;
    let mut locks = false;
    let mut before = "";
    for (at, word) in words.iter().enumerate() {
        match word.as_str() {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            // A data-modifying WITH writes, whatever its last part is: `AS (DELETE ...`, or `) INSERT ...` after the last part.
            "INSERT" if begins_part(depth, before) => return "INSERT",
            "UPDATE" if begins_part(depth, before) => return "UPDATE",
            "DELETE" if begins_part(depth, before) => return "DELETE",
            "MERGE" if begins_part(depth, before) => return "MERGE",
            "FOR" if depth == 0 => {
                let next = words.get(at + 1).map(String::as_str);
                locks |= matches!(next, Some("UPDATE" | "no" | "key" | "share"));
            }
            _ => {}
        }
        before = word;
    }
    if locks { "SELECT FOR UPDATE" } else { kind }
}

fn begins_part(depth: usize, before: &str) -> bool {
    (depth == 1 && before == "(") || (depth == 0 && before == ")")
}

fn by_first_word(words: &[String]) -> &'static str {
    let first = words.iter().find(|word| word.as_str() != "(").map(|word| word.to_uppercase()).unwrap_or_default();
    match first.as_str() {
        "SELECT" | "WITH" | "TABLE" | "VALUES" => "SELECT",
        "INSERT" => "INSERT",
        "UPDATE" => "UPDATE",
        "DELETE" => "DELETE",
        "MERGE" => "MERGE",
        "COPY" => "COPY",
        "BEGIN" | "START" => "BEGIN",
        "COMMIT" | "END" => "COMMIT",
        "ROLLBACK" | "ABORT" => "ROLLBACK",
        "SAVEPOINT" | "RELEASE" => "SAVEPOINT",
        "SET" | "RESET" | "SHOW" | "DISCARD" => "SET",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => "PREPARE",
        "LISTEN" | "UNLISTEN" | "NOTIFY" => "LISTEN",
        "DECLARE" | "FETCH" | "MOVE" | "CLOSE" => "CURSOR",
        "LOCK" => "LOCK",
        "CALL" | "DO" => "CALL",
        "EXPLAIN" => "EXPLAIN",
        "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "GRANT" | "REVOKE" | "COMMENT" | "REASSIGN" | "IMPORT"
        | "SECURITY" => "DDL",
        "VACUUM" | "ANALYZE" | "CLUSTER" | "REINDEX" | "CHECKPOINT" | "REFRESH" => "MAINTENANCE",
        "" => "EMPTY",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_go_and_the_form_stays() {
        let cases = [
            ("select  *\nfrom Users where ID = 42 -- hunter2", "SELECT * FROM users WHERE id = ?", "SELECT"),
            ("SELECT * FROM users WHERE id=$1;", "SELECT * FROM users WHERE id = ?", "SELECT"),
            ("select f(a, 'hunter2') from t where x in (1, 2,3)", "SELECT f(a, ?) FROM t WHERE x IN (?)", "SELECT"),
            ("select 1 where x in ($1::int, -2)", "SELECT ? WHERE x IN (?)", "SELECT"),
            ("select 1 where x in (select y from z)", "SELECT ? WHERE x IN (SELECT y FROM z)", "SELECT"),
            (
                "insert into t(a,b) values (1,'hunter2'),(2, now()), ($1,$2)",
                "INSERT INTO t(a, b) VALUES (?, ?)",
                "INSERT",
            ),
            (
                "insert into t values (1) on conflict do nothing",
                "INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING",
                "INSERT",
            ),
            ("UPDATE \"My Table\" SET a = E'hunter\\'2' /* hunter2 */", "UPDATE \"My Table\" SET a = ?", "UPDATE"),
            (
                "with x as (delete from t returning *) select * from x",
                "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
                "DELETE",
            ),
            ("select * from t for update", "SELECT * FROM t FOR UPDATE", "SELECT FOR UPDATE"),
            ("do $$begin perform 'hunter2'; end$$", "DO ?", "CALL"),
            ("select $tag$hunter2$tag$, x'1f', b'1', 1e5, U&'hunter2'", "SELECT ?, ?, ?, ?, ?", "SELECT"),
            ("select a[1], ARRAY[1,2,3], t.b::text", "SELECT a[?], ARRAY[?], t.b::text", "SELECT"),
            (
                "with x as (select 1) insert into t select * from x",
                "WITH x AS (SELECT ?) INSERT INTO t SELECT * FROM x",
                "INSERT",
            ),
            ("select substring(a for 2) from t", "SELECT substring(a FOR ?) FROM t", "SELECT"),
            ("BEGIN", "BEGIN", "BEGIN"),
            ("select /* a /* b */ hunter2 */ 1 --hunter2\r\n, 2", "SELECT ?, ?", "SELECT"),
            ("create role x password 'hunter2'", "CREATE role x password ?", "DDL"),
            ("select a @> '{\"hunter2\":1}' from t", "SELECT a @> ? FROM t", "SELECT"),
            ("SET search_path = 'hunter2'", "SET search_path = ?", "SET"),
            ("", "", "EMPTY"),
            ("frobnicate 'hunter2'", "frobnicate ?", "OTHER"),
        ];
        for (sql, text, kind) in cases {
            let print = fingerprint(sql, false);
            assert_eq!((print.text.as_str(), print.kind), (text, kind), "{sql}");
        }
    }

    #[test]
    fn the_same_form_has_the_same_number() {
        let number = |sql| fingerprint(sql, false).number;
        assert_eq!(number("SELECT a FROM t WHERE b IN (1,2)"), number("select a\tfrom T where B in ('x', 'y', 'z') ;"));
        assert_ne!(number("SELECT a FROM t"), number("SELECT b FROM t"));
    }

    #[test]
    fn what_is_in_doubt_is_cut_off() {
        let cases = [
            ("select 'hunter2", false, "SELECT ..."),
            ("select a from t where b = 'hunter2", true, "SELECT a FROM t WHERE b = ..."),
            ("select a from hunt", true, "SELECT a FROM ..."),
            // With standard_conforming_strings off the first string goes on to the second quote.
            ("select 'a\\' or hunter2 or '", false, "SELECT ..."),
            ("select 'a\\'' hunter2 ''' ", false, "SELECT ..."),
            ("select /* hunter2", false, "SELECT ..."),
            ("select $x$ hunter2", false, "SELECT ..."),
        ];
        for (sql, cut, text) in cases {
            assert_eq!(fingerprint(sql, cut).text, text, "{sql}");
        }
        let wide = format!("select {}", vec!["ä"; 4000].join(", "));
        let text = fingerprint(&wide, false).text;
        assert!(text.len() <= limits::FINGERPRINT_TEXT_BYTES + REST.len() && text.ends_with(REST));
        for hostile in ["(", "select ", "case ", "a.", "- ", "values ("] {
            assert!(!fingerprint(&hostile.repeat(8000 / hostile.len()), false).text.is_empty());
        }
    }
}
