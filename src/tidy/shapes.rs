//! How large a struct may be: more fields than this are several states or several subjects.

use super::sources::{Source, sources};

const FIELDS_MAX: usize = 16;

/// Flat records that a reader looks up by name: what JSON, the disk, the command line, a server or a counter has. (crate, struct)
const FLAT_RECORDS: &[(&str, &str)] = &[
    ("bus", "CoreCounters"),
    ("bus", "LaneStatus"),
    ("control", "Lane"),
    ("control", "Decisions"),
    ("control", "Migration"),
    ("control", "Interlay"),
    ("control", "CreateMigration"),
    ("control", "PostgresFacts"),
    ("control", "DiskMigration"),
    ("control", "MigrationRecord"),
    ("crossfade", "CreateArgs"),
    ("crossfade", "Report"),
    ("movers", "PostgresFacts"),
];

/// (name, fields) of every struct with named fields.
fn structs(source: &Source) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    let mut inside = false;
    for line in source.text.lines() {
        let code = line.split("//").next().unwrap_or("").trim_end();
        let head = code
            .find("struct ")
            .filter(|at| code[..*at].is_empty() || code.starts_with("pub"))
            .map(|at| &code[at + "struct ".len()..]);
        if let Some(head) = head
            && code.ends_with('{')
        {
            let name = head.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            found.push((name.to_owned(), 0));
            inside = true;
        } else if code == "}" {
            inside = false;
        } else if inside
            && let Some(field) = code.strip_prefix("    ").filter(|field| !field.starts_with([' ', '#']))
            && field.contains(": ")
            && let Some((_, fields)) = found.last_mut()
        {
            *fields += 1;
        }
    }
    found
}

#[test]
fn no_struct_is_several_subjects() {
    let mut found = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test()) {
        for (name, fields) in structs(source) {
            let is_flat = FLAT_RECORDS.contains(&(source.crate_folder().as_str(), name.as_str()));
            if fields > FIELDS_MAX && !is_flat {
                found.push(format!("{}: {name} has {fields} fields, at most {FIELDS_MAX}", source.path.display()));
            }
        }
    }
    assert!(found.is_empty(), "structs to split by subject or state:\n  {}", found.join("\n  "));
}

#[test]
fn fields_are_counted() {
    let text = "pub struct A {\n    pub a: u8,\n    /// b: c\n    #[x]\n    pub(super) b: Vec<u8>,\n}\nstruct B(u8);\npub(super) struct C<'a> {\n    c: &'a u8,\n}\n";
    let source = Source { path: "src/x/y.rs".into(), text: text.to_owned() };
    assert_eq!(structs(&source), [("A".to_owned(), 2), ("C".to_owned(), 1)]);
}
