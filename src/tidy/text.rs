//! What every source file must have and must not have: a header, a reasonable length, proofs for `unsafe`, no marks of unfinished work.

use super::sources::sources;

/// Longest source file; CONTRIBUTING.md asks for 100 to 400 lines.
const FILE_LINES_MAX: usize = 700;

/// Folders whose Rust files are checked.
const FOLDERS: &[&str] = &["src", "benches", "loadtest"];

/// Split into parts so that this file does not contain the marks itself.
const BANNED: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("X", "XX:"),
    concat!("#[", "ignore"),
];

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_file_has_a_header_and_a_reasonable_length() {
    let mut found = Vec::new();
    for source in sources(FOLDERS) {
        if !source.text.starts_with("//! ") {
            found.push(format!("{}: does not begin with a //! header", source.path.display()));
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path.display()));
        }
    }
    assert_none("headers and lengths", &found);
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let mut found = Vec::new();
    for source in sources(FOLDERS) {
        for (number, line) in source.text.lines().enumerate() {
            for mark in BANNED {
                if line.contains(mark) {
                    found.push(format!("{}:{}: {mark}", source.path.display(), number + 1));
                }
            }
        }
    }
    assert_none("banned marks", &found);
}

#[test]
fn every_unsafe_block_states_its_proof() {
    let mut found = Vec::new();
    for source in sources(FOLDERS) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let begins = [concat!("unsa", "fe {"), concat!("unsa", "fe impl")].iter().any(|mark| code.contains(mark));
            let proven = lines[number.saturating_sub(4)..=number].iter().any(|line| line.contains("SAFETY:"));
            if begins && !proven {
                found.push(format!("{}:{}", source.path.display(), number + 1));
            }
        }
    }
    assert_none("unsafe without a SAFETY comment", &found);
}
