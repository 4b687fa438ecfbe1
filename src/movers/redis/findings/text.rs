//! How a finding is put together and how names are listed in it. Pure.

use crate::contract::{Finding, Severity};
use base::model::limits;

pub(super) fn finding(name: &str, severity: Severity, detail: impl Into<String>) -> Finding {
    Finding { name: name.to_owned(), severity, detail: detail.into(), feed: None, before_copy: false }
}

pub(super) fn missing<'a>(from: &'a [String], to: &[String]) -> Vec<&'a str> {
    from.iter().filter(|name| !to.contains(name)).map(String::as_str).collect()
}

/// "a, b and 3 more".
pub(super) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(limits::FINDING_NAMES_MAX).map(|name| cut(name.as_ref())).collect();
    let shown = shown.join(", ");
    if names.len() > limits::FINDING_NAMES_MAX {
        format!("{shown} and {} more", names.len() - limits::FINDING_NAMES_MAX)
    } else {
        shown
    }
}

/// A name as it is shown.
pub(super) fn cut(name: &str) -> String {
    match name.char_indices().find(|(at, _)| *at >= limits::FINDING_NAME_BYTES_MAX) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_in_names_and_in_bytes() {
        assert_eq!(list(&["a", "b"]), "a, b");
        let many: Vec<String> = (0..1000).map(|n| format!("user{n}")).collect();
        assert!(list(&many).ends_with("user11 and 988 more"));
        let long = list(&["é".repeat(1000)]);
        assert_eq!(long, format!("{}...", "é".repeat(32)));
    }
}
