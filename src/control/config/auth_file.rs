//! An `auth_file` in PgBouncer's format: `"user" "secret"` per line. Errors name file and line and never show a secret.

use std::collections::BTreeMap;
use std::path::Path;

use base::model::{StoredSecret, limits};

/// # Errors
/// A sentence that names the file and, if one line is wrong, its number.
pub fn load(path: &Path) -> Result<BTreeMap<String, StoredSecret>, String> {
    let unreadable =
        |error: std::io::Error| format!("names the file {}, which cannot be read: {error}", path.display());
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limits::AUTH_FILE_BYTES_MAX {
        return Err(format!(
            "names the file {}, which is {size} bytes long; at most {} are read",
            path.display(),
            limits::AUTH_FILE_BYTES_MAX
        ));
    }
    parse(&std::fs::read_to_string(path).map_err(unreadable)?)
        .map_err(|(line, why)| format!("names a file with a bad line: {}:{line}: {why}", path.display()))
}

/// The error: the line, from 1, and what is wrong with it.
fn parse(text: &str) -> Result<BTreeMap<String, StoredSecret>, (usize, String)> {
    let mut users = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        let (user, rest) = quoted(line).map_err(|why| (number, format!("the user: {why}")))?;
        // What follows the secret is ignored, as PgBouncer does.
        let (secret, _) = quoted(rest.trim_start()).map_err(|why| (number, format!("the secret: {why}")))?;
        if user.is_empty() {
            return Err((number, "the user name is empty".to_owned()));
        }
        let secret = StoredSecret::parse(&secret).map_err(|why| (number, format!("user {user:?}: {why}")))?;
        if users.insert(user.clone(), secret).is_some() {
            return Err((number, format!("user {user:?} is listed twice: keep one line")));
        }
    }
    Ok(users)
}

/// Reads a text in double quotes, in which two quotes stand for one. Returns the text and what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let Some(inner) = text.strip_prefix('"') else {
        return Err("must be in double quotes: write \"user\" \"secret\"");
    };
    let mut out = String::new();
    let mut rest = inner;
    loop {
        let Some(end) = rest.find('"') else { return Err("has no closing quote") };
        out.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                out.push('"');
                rest = more;
            }
            None => return Ok((out, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::Secret;

    #[test]
    fn pgbouncers_format_is_read() {
        let text = "; a comment\n# another\n\n\"ann\" \"plain\"\n  \"b\"\"ob\"   \"a\"\"b\" \"ignored\"\r\n\"md\" \"md50123456789abcdef0123456789abcdef\" x\n";
        let users = parse(text).unwrap();
        assert_eq!(users["ann"], StoredSecret::Plain(Secret::new(b"plain")));
        assert_eq!(users["b\"ob"], StoredSecret::Plain(Secret::new(b"a\"b")));
        assert!(matches!(users["md"], StoredSecret::Md5(_)) && users.len() == 3);
    }

    #[test]
    fn a_bad_line_is_named_and_its_secret_is_not() {
        let cases = [
            ("\n\nann \"hunter2\"", 3, "double quotes"),
            ("\"ann\" hunter2", 1, "the secret: must be in double quotes"),
            ("\"ann\" \"hunter2", 1, "no closing quote"),
            ("\"ann\" \"\"", 1, "empty"),
            ("\"\" \"hunter2\"", 1, "user name is empty"),
            ("\"ann\" \"hunter2\"\n\"ann\" \"x\"", 2, "listed twice"),
            ("\"ann\" \"SCRAM-SHA-256$hunter2\"", 1, "SCRAM"),
        ];
        for (text, line, words) in cases {
            let (got, why) = parse(text).expect_err(text);
            assert!(got == line && why.contains(words) && !why.contains("hunter2"), "{text}: {got} {why}");
        }
    }
}
