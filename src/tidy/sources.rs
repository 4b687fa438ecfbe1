//! The files of the repository as text, and the imports found in Rust source. Reads text, not syntax trees, which is
//! simple and precise enough here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One source file.
pub struct Source {
    /// The path from the top of the repository.
    pub path: PathBuf,
    pub text: String,
}

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

/// Every Rust file below these folders, sorted by path.
pub fn sources(folders: &[&str]) -> Vec<Source> {
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
    /// "movers" for src/movers/redis/verify.rs.
    pub fn crate_folder(&self) -> String {
        self.path.components().nth(1).expect("src/CRATE/...").as_os_str().to_string_lossy().into_owned()
    }

    /// `["redis", "verify"]` for src/movers/redis/verify.rs; empty for a crate's lib.rs or main.rs.
    pub fn module(&self) -> Vec<String> {
        let mut parts: Vec<String> = self
            .path
            .with_extension("")
            .components()
            .skip(2)
            .map(|c| c.as_os_str().to_string_lossy().into_owned())
            .collect();
        if parts.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
            parts.pop();
        }
        parts
    }

    pub fn is_test(&self) -> bool {
        let name = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        name == "tests" || name.ends_with("_tests") || self.path.components().any(|part| part.as_os_str() == "tests")
    }

    /// Without comments, and without the first `#[cfg(test)] mod` that has a body and everything after it: by convention tests come last.
    pub fn code(&self) -> String {
        let code = without_comments(&self.text);
        match code.find("#[cfg(test)]\nmod tests {") {
            Some(at) => code[..at].to_owned(),
            None => code,
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The paths of every `use` of `code`, with groups expanded: `use a::{b, c::d};` gives `a::b` and `a::c::d`. Each comes with whether it is a
/// `pub use`.
pub fn uses(code: &str) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].rsplit('\n').next().unwrap_or("").trim();
        let public = before.starts_with("pub");
        if !(before.is_empty() || before == "pub" || (before.starts_with("pub(") && before.ends_with(')'))) {
            continue;
        }
        let rest = &code[at + 4..];
        let Some(end) = rest.find(';') else { continue };
        expand(&rest[..end], &[], &mut |path| found.push((path, public)));
    }
    found
}

fn expand(text: &str, front: &[String], found: &mut dyn FnMut(Vec<String>)) {
    let text = text.trim();
    let Some(open) = text.find('{') else {
        let path = text.split(" as ").next().unwrap_or("").trim();
        if !path.is_empty() {
            found(front.iter().cloned().chain(path.split("::").map(|part| part.trim().to_owned())).collect());
        }
        return;
    };
    let own: Vec<String> =
        text[..open].split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    let front: Vec<String> = front.iter().cloned().chain(own).collect();
    let inner = text[open + 1..].strip_suffix('}').unwrap_or(&text[open + 1..]);
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[begin..at], &front, found);
                begin = at + 1;
            }
            _ => {}
        }
    }
    expand(&inner[begin..], &front, found);
}

/// The paths that `code` names outside its `use` lines and that begin with `crate`, `super` or one of `children`.
pub fn inline_paths(code: &str, children: &BTreeSet<String>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in
        code.lines().filter(|line| !line.trim_start().starts_with("use ") && !line.trim_start().starts_with("pub"))
    {
        for (at, _) in line.match_indices("::") {
            let begin = line[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |before| before + 1);
            let first = &line[begin..at];
            if line[..begin].ends_with("::") || !(first == "crate" || first == "super" || children.contains(first)) {
                continue;
            }
            let end = line[begin..]
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .map_or(line.len(), |length| begin + length);
            found.push(line[begin..end].trim_end_matches(':').split("::").map(str::to_owned).collect());
        }
    }
    found
}

/// The modules a file declares.
fn children(code: &str) -> BTreeSet<String> {
    let declared = |line: &str| {
        let line = line.trim();
        let line = line
            .strip_prefix("pub ")
            .or_else(|| line.split_once(") ").filter(|(front, _)| front.starts_with("pub(")).map(|(_, rest)| rest))
            .unwrap_or(line);
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned)
    };
    code.lines().filter_map(declared).collect()
}

/// Which file takes a name from which other file of the same crate, by paths from the top of the repository. A `pub use` of a parent
/// does not count as an import: a name taken through it counts as taken from the file that defines it.
pub fn imports_between_files(sources: &[Source]) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let mut by_module: BTreeMap<(String, Vec<String>), &Source> = BTreeMap::new();
    for source in sources {
        by_module.insert((source.crate_folder(), source.module()), source);
    }
    let mut graph = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let folder = source.crate_folder();
        let mut targets = BTreeSet::new();
        let code = source.code();
        let used = uses(&code).into_iter().filter(|(_, public)| !public).map(|(path, _)| path);
        for path in used.chain(inline_paths(&code, &children(&code))) {
            if let Some(absolute) = absolute(&source.module(), &path)
                && let Some(target) = home(&by_module, &folder, &absolute, 0)
                && target != source.path
            {
                targets.insert(target);
            }
        }
        graph.insert(source.path.clone(), targets);
    }
    graph
}

/// A path as written in `module`, from the crate's root. `None`: the path leaves the crate or is not relative to a module of it.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some(module.iter().chain(rest).cloned().collect()),
        "super" => {
            let parent = &module[..module.len().checked_sub(1)?];
            if rest.first().is_some_and(|next| next == "super") {
                absolute(parent, rest)
            } else {
                Some(parent.iter().chain(rest).cloned().collect())
            }
        }
        _ => Some(module.iter().chain(path).cloned().collect()),
    }
}

/// The file that defines a name: the longest prefix of the path that is a module, followed through that module's `pub use`.
fn home(
    by_module: &BTreeMap<(String, Vec<String>), &Source>,
    folder: &str,
    path: &[String],
    depth: usize,
) -> Option<PathBuf> {
    let length = (0..=path.len()).rev().find(|&n| by_module.contains_key(&(folder.to_owned(), path[..n].to_vec())))?;
    let source = by_module[&(folder.to_owned(), path[..length].to_vec())];
    let Some(name) = path.get(length) else {
        return Some(source.path.clone());
    };
    if length == 0 && !names_own_item(source, name) && depth == 0 && !reexports(source, name) {
        return None; // another crate's
    }
    for (target, public) in uses(&source.code()) {
        if public && target.last().is_some_and(|last| last == name) && depth < 4 {
            let absolute = absolute(&source.module(), &target)?;
            if absolute != path {
                return home(by_module, folder, &absolute, depth + 1);
            }
        }
    }
    Some(source.path.clone())
}

fn reexports(source: &Source, name: &str) -> bool {
    uses(&source.code()).iter().any(|(path, public)| *public && path.last().is_some_and(|last| last == name))
}

fn names_own_item(source: &Source, name: &str) -> bool {
    let code = source.code();
    ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type ", "mod "]
        .iter()
        .any(|kind| code.match_indices(kind).any(|(at, _)| word_at(&code[at + kind.len()..]) == name))
}

pub fn word_at(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// Groups of files that import each other, directly or round about; each sorted.
pub fn circles(graph: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<Vec<PathBuf>> {
    let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = graph
        .keys()
        .map(|from| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&PathBuf> = graph[from].iter().collect();
            while let Some(file) = next.pop() {
                if seen.insert(file) {
                    next.extend(graph.get(file).into_iter().flatten());
                }
            }
            (from, seen)
        })
        .collect();
    let mut found: BTreeSet<Vec<PathBuf>> = BTreeSet::new();
    for (from, reached) in &reach {
        if reached.contains(*from) {
            let mut circle: Vec<PathBuf> = reached
                .iter()
                .filter(|file| reach.get(*file).is_some_and(|back| back.contains(*from)))
                .map(|f| (*f).clone())
                .collect();
            circle.sort();
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}
