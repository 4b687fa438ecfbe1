//! Documents and scripts: they name what there is, and can be run.

use std::os::unix::fs::PermissionsExt;

use super::sources::{files_below, read, root};

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn documents_know_every_module_and_command() {
    let architecture = read("docs/ARCHITECTURE.md");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("src")).expect("src").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if entry.path().is_dir() { format!("{name}/") } else { name };
        if !architecture.contains(&name) {
            found.push(format!("docs/ARCHITECTURE.md does not name src/{name}"));
        }
    }
    let readme = read("README.md");
    for command in ["make demo", "make test", "Redis", "PostgreSQL", "MongoDB"] {
        if !readme.contains(command) {
            found.push(format!("README.md does not mention {command}"));
        }
    }
    for file in ["CONTRIBUTING.md", "CHANGELOG.md"] {
        if read(file).len() < 200 {
            found.push(format!("{file} says nothing"));
        }
    }
    if !read("LICENSE").contains("Apache License") {
        found.push("LICENSE is not the Apache License".to_owned());
    }
    assert_none("documents", &found);
}

#[test]
fn scripts_can_be_run() {
    let mut scripts = vec![root().join(".ci/run")];
    files_below(&root().join("scripts"), "sh", &mut scripts);
    assert!(scripts.len() > 1, "no scripts found");
    for script in scripts {
        let text = std::fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let mode = script.metadata().expect("metadata").permissions().mode();
        assert!(text.starts_with("#!/usr/bin/env bash\n"), "{} has no bash line", script.display());
        assert!(text.contains("set -euo pipefail"), "{} would go on after an error", script.display());
        assert!(mode & 0o111 == 0o111, "{} is not executable", script.display());
    }
}
