//! The workspace: each crate's manifest against the tables of `docs/ARCHITECTURE.md`, engines used only where the table says, no circles of imports.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{circles, imports_between_files, inline_paths, read, root, sources, uses};

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The rows of the table below a heading of ARCHITECTURE, without its head; cells are trimmed and have no backquotes.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = read("docs/ARCHITECTURE.md");
    let (_, after) = page.split_once(heading).unwrap_or_else(|| panic!("docs/ARCHITECTURE.md has no {heading:?}"));
    let rows: Vec<&str> = after
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    assert!(!rows.is_empty(), "no table below {heading:?}");
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.into_iter().map(cells).collect()
}

fn listed(cell: &str) -> BTreeSet<String> {
    cell.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "–").map(str::to_owned).collect()
}

struct Manifest {
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// What each crate depends on outside its tests, by folder of `src/`.
fn manifests() -> BTreeMap<String, Manifest> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("src")).expect("src").flatten() {
        let folder = entry.file_name().to_string_lossy().into_owned();
        let manifest: toml::Table = read(&format!("src/{folder}/Cargo.toml")).parse().expect("a manifest is TOML");
        let names = |table: Option<&toml::Value>| -> BTreeSet<String> {
            table.and_then(toml::Value::as_table).into_iter().flat_map(|table| table.keys().cloned()).collect()
        };
        let all = names(manifest.get("dependencies"));
        let is_ours = |name: &String| root().join("src").join(name).is_dir();
        let (ours, others) = all.into_iter().partition(is_ours);
        found.insert(folder, Manifest { ours, others });
    }
    found
}

#[test]
fn every_crate_depends_only_on_what_the_table_allows() {
    let manifests = manifests();
    let rows = table("## Who may name whom");
    let allowed: BTreeMap<String, BTreeSet<String>> =
        rows.iter().map(|row| (row[0].clone(), listed(&row[1]))).collect();
    let mut found = Vec::new();
    for (folder, manifest) in &manifests {
        let Some(may) = allowed.get(folder) else {
            found.push(format!("src/{folder} has no row in the table"));
            continue;
        };
        found.extend(manifest.ours.difference(may).map(|name| format!("src/{folder} may not depend on {name}")));
    }
    found.extend(
        allowed.keys().filter(|name| !manifests.contains_key(*name)).map(|name| format!("there is no src/{name}")),
    );
    assert_none("the table of crates is broken", &found);
    assert!(!reaches(&manifests, "proxy", "control") && !reaches(&manifests, "control", "proxy"));
}

fn reaches(manifests: &BTreeMap<String, Manifest>, from: &str, to: &str) -> bool {
    let below = &manifests[from].ours;
    below.contains(to) || below.iter().any(|next| reaches(manifests, next, to))
}

#[test]
fn each_engine_is_named_in_one_place() {
    let manifests = manifests();
    let mut found = Vec::new();
    for row in table("## Engines") {
        let (engine, homes) = (&row[0], listed(&row[1]));
        let crates: BTreeSet<&str> = homes.iter().map(|home| home.split("::").next().unwrap_or(home)).collect();
        for (folder, manifest) in &manifests {
            if manifest.others.contains(engine) != crates.contains(folder.as_str()) {
                found.push(format!("{engine}: the table says {}, src/{folder}/Cargo.toml says otherwise", row[1]));
            }
        }
        let name = engine.replace('-', "_");
        for source in sources(&["src"]).iter().filter(|source| !source.is_test() && source.crate_folder() != "tidy") {
            let mut here = vec![source.crate_folder()];
            here.extend(source.module());
            let here = here.join("::");
            let at_home = homes.iter().any(|home| here == *home || here.starts_with(&format!("{home}::")));
            let code = source.code();
            let named = code
                .match_indices(&format!("{name}::"))
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !at_home {
                found.push(format!("{}: {engine} belongs in {}", source.path.display(), row[1]));
            }
        }
    }
    assert_none("engines out of place", &found);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let named: Vec<String> = table("## Circles").into_iter().map(|row| row[0].clone()).collect();
    let mut found = Vec::new();
    for circle in circles(&imports_between_files(&sources(&["src"]))) {
        let files: Vec<String> = circle.iter().map(|file| file.display().to_string()).collect();
        let text = files.join(", ");
        if !named.contains(&text) {
            found.push(text);
        }
    }
    assert_none("circles of imports that docs/ARCHITECTURE.md does not name with a reason", &found);
}

#[test]
fn uses_are_found_in_every_form() {
    let code = "use a::b;\npub use c::{d, e::{f, g as h}, self};\n    pub(super) use i::j;\nlet refuse = 1;";
    let found: Vec<(String, bool)> = uses(code).into_iter().map(|(path, public)| (path.join("::"), public)).collect();
    let expected =
        [("a::b", false), ("c::d", true), ("c::e::f", true), ("c::e::g", true), ("c::self", true), ("i::j", true)];
    assert_eq!(found, expected.map(|(path, public)| (path.to_owned(), public)));
}

#[test]
fn paths_are_found_where_they_stand_in_code() {
    let children = BTreeSet::from(["child".to_owned()]);
    let code = "use a::b;\n    let x = child::y(super::Z::new(), other::w());\n    x.call::<crate::k::L>();\n";
    let found: Vec<String> = inline_paths(code, &children).into_iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["child::y", "super::Z::new", "crate::k::L"]);
}

#[test]
fn what_knows_no_database_names_none() {
    const WORDS: &[&str] = &["redis", "resp", "lane", "postgres", "postgresql"];
    let mut found = Vec::new();
    for source in sources(&["src/control/workflow", "src/proxy/cores"]) {
        for (number, line) in source.text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            for word in words.filter(|word| WORDS.iter().any(|banned| word.eq_ignore_ascii_case(banned))) {
                found.push(format!("{}:{}: {word}", source.path.display(), number + 1));
            }
        }
    }
    assert_none("the workflow and the cores know no database", &found);
}
