//! The repository checks itself: storeys, headers, lengths, banned marks, documents. Tests only.
//!
//! It reads text, not syntax trees: simple enough to be right, strict enough to be noticed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest source file. style.md asks for 100 to 400 lines and a split near 600.
const FILE_LINES_MAX: usize = 700;

/// Who may name whom (docs/ARCHITECTURE.md, "Storeys"). A module may always name itself.
const STOREYS: &[(&str, &[&str])] = &[
    ("stdx", &[]),
    ("model", &["stdx"]),
    ("protocol", &["stdx", "model"]),
    ("policy", &["stdx", "model"]),
    ("telemetry", &["stdx", "model"]),
    ("config", &["stdx", "model"]),
    ("tls", &["stdx", "model"]),
    ("bus", &["stdx", "model", "policy", "telemetry"]),
    // The lane's orders and events are the bus' vocabulary, and a relay hands its commands to a lane: within storey 3, one way only.
    ("lane", &["stdx", "model", "protocol", "policy", "telemetry", "bus"]),
    // The contract names what the bus and the lane say; the relays behind it know their protocol. Neither `relay` nor `dataplane` does.
    ("relay", &["stdx", "model", "policy", "telemetry", "bus", "lane"]),
    ("interlay", &["stdx", "model", "protocol", "policy", "telemetry", "bus", "lane", "relay"]),
    ("dataplane", &["stdx", "model", "policy", "telemetry", "config", "bus", "lane", "relay", "interlay", "tls"]),
    ("workflow", &["stdx", "model"]),
    ("jobs", &["stdx", "model", "protocol", "telemetry", "tls", "bus"]),
    ("store", &["stdx", "model", "workflow"]),
    ("control", &["stdx", "model", "policy", "telemetry", "config", "bus", "workflow", "jobs", "store"]),
    ("api", &["control"]),
    ("cli", &["api"]),
    // The demo judges by digests (jobs) and speaks RESP as a client (protocol); it sees nothing of the data plane or the store.
    ("demo", &["model", "protocol", "jobs", "control", "api", "cli"]),
];

/// Not part of a storey: they assemble (`boot`, `main`, `lib`) or check (`tidy`, `sim`).
const OUTSIDE: &[&str] = &["boot", "main", "lib", "tidy", "sim"];

/// Each engine is named in one place.
const ENGINES: &[(&str, &[&str])] = &[
    ("monoio", &["dataplane"]),
    ("io_uring", &["dataplane"]),
    ("wasmtime", &["policy"]),
    ("rustls", &["tls", "dataplane", "jobs"]),
    ("redb", &["store"]),
    ("tokio_postgres", &["jobs", "demo"]),
    ("sqlparser", &["control"]),
    ("axum", &["api"]),
    ("toml", &["config"]),
    ("ureq", &["cli", "demo"]),
    ("clap", &["cli"]),
    ("tokio", &["jobs", "control", "api", "cli", "demo"]),
];

/// Taken apart so that this file does not hold them.
const BANNED: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("X", "XX:"),
    concat!("#[", "ignore"),
];

struct Source {
    /// From the top of the repository.
    path: PathBuf,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| files_below(&root().join(folder), "rs", &mut paths));
    paths.sort();
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).expect("a source file is UTF-8"),
        path: path.strip_prefix(root()).expect("below the root").to_owned(),
    };
    paths.into_iter().map(read).collect()
}

impl Source {
    /// "jobs" for src/jobs/verify.rs, "boot" for src/boot.rs.
    fn module(&self) -> String {
        let second = self.path.components().nth(1).expect("src/...").as_os_str().to_string_lossy();
        second.trim_end_matches(".rs").to_owned()
    }

    /// Lines with comments taken off.
    fn code(&self) -> String {
        self.text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
    }

    fn named(&self) -> BTreeSet<String> {
        crate_modules(&self.code())
    }
}

fn word_at(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The first-level modules `code` names: `crate::x`, and each of `crate::{x, y::z}`.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if at > 0 && code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word_at(rest).to_owned());
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.insert(word_at(&group[at..]).to_owned());
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::a::b; let x = crate::c::d(); use crate::{e::{f, g}, h, i::j}; $crate::k";
    assert_eq!(crate_modules(code), ["a", "c", "e", "h", "i"].map(str::to_owned).into());
}

#[test]
fn modules_name_only_the_storeys_below_them() {
    let mut found = Vec::new();
    for source in sources(&["src"]) {
        let module = source.module();
        if OUTSIDE.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = STOREYS.iter().find(|(name, _)| *name == module) else {
            found.push(format!("{}: module {module} has no storey in tidy.rs", source.path.display()));
            continue;
        };
        for named in source.named() {
            if named != module && !allowed.contains(&named.as_str()) {
                found.push(format!("{}: {module} may not name {named}", source.path.display()));
            }
        }
    }
    assert_none("storeys broken", &found);
}

#[test]
fn the_data_plane_and_control_never_name_each_other_even_indirectly() {
    let reaches = |from: &str, to: &str| {
        let mut seen = BTreeSet::from([from]);
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            let below = STOREYS.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, below)| *below);
            next.extend(below.iter().copied().filter(|module| seen.insert(*module)));
        }
        seen.contains(to)
    };
    assert!(!reaches("dataplane", "control") && !reaches("control", "dataplane"));
    assert!(!reaches("control", "lane") && !reaches("workflow", "bus"));
}

#[test]
fn each_engine_is_named_in_one_place() {
    let mut found = Vec::new();
    for source in sources(&["src"]) {
        let (module, code) = (source.module(), source.code());
        if OUTSIDE.contains(&module.as_str()) {
            continue;
        }
        for (engine, homes) in ENGINES {
            let path = format!("{engine}::");
            let named = code
                .match_indices(&path)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !homes.contains(&module.as_str()) {
                found.push(format!("{}: {engine} belongs in {}", source.path.display(), homes.join(", ")));
            }
        }
    }
    assert_none("engines out of place", &found);
}

#[test]
fn every_file_has_a_header_and_a_bearable_length() {
    let mut found = Vec::new();
    for source in sources(&["src", "benches", "loadtest"]) {
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
    for source in sources(&["src", "benches", "loadtest"]) {
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
    for source in sources(&["src", "benches", "loadtest"]) {
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

#[test]
fn documents_know_every_module_and_command() {
    let read =
        |name: &str| std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
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
