//! Documents name every module and command; scripts are executable and stop at an error.

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
            found.push(format!("{file} is almost empty"));
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
        assert!(
            text.starts_with("#!/usr/bin/env bash\n"),
            "{} does not begin with #!/usr/bin/env bash",
            script.display()
        );
        assert!(
            text.contains("set -euo pipefail"),
            "{} has no set -euo pipefail, so it would continue after an error",
            script.display()
        );
        assert!(mode & 0o111 == 0o111, "{} is not executable", script.display());
    }
}

/// The pairs `FILE.rs: FUNCTION` in backquotes of a page, files from `src/`.
fn functions_named(page: &str) -> Vec<(String, String)> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|quoted| quoted.split_once(".rs: "))
        .map(|(file, function)| (format!("src/{file}.rs"), function.to_owned()))
        .collect()
}

#[test]
fn every_function_that_architecture_names_exists() {
    let named = functions_named(&read("docs/ARCHITECTURE.md"));
    assert!(named.len() > 40, "only {} functions are named", named.len());
    let mut found = Vec::new();
    for (file, function) in named {
        let text = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        let there = text.match_indices(&format!("fn {function}")).any(|(at, whole)| {
            !text[at + whole.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
        });
        if !there {
            found.push(format!("{file} has no function {function}"));
        }
    }
    assert_none("docs/ARCHITECTURE.md describes code that is not there", &found);
}
