//! Tests only: documents, or parts of them, that are made from the program.

use std::path::Path;

/// Compares a document of the repository with what the program says now; with `UPDATE_DOCS=1` it is written instead.
pub fn document(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, now).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "{name} is stale: run the test again with UPDATE_DOCS=1 and commit it");
}

/// As [`document`], for what stands between the lines `<!-- begin PART -->` and `<!-- end PART -->`.
pub fn document_part(name: &str, part: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    let there = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->"));
    let (front, rest) = there.split_once(&begin).unwrap_or_else(|| panic!("{name} has no line {begin}"));
    let (_, back) = rest.split_once(&end).unwrap_or_else(|| panic!("{name} has no line {end}"));
    document(name, &format!("{front}{begin}{now}{end}{back}"));
}
