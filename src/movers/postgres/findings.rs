//! Compares two PostgreSQL servers: what would mean something else, or not be there, after a move. Reads only.
//!
//! A finding blocks nothing by itself; its sentence says what to do about it.

use super::facts::{PostgresFacts, check};
use crate::contract::{Finding, Severity};
use crate::error::JobError;
use base::model::Endpoint;

/// (setting, severity when it differs, what it changes)
const MEANING: &[(&str, Severity, &str)] = &[
    ("standard_conforming_strings", Severity::Critical, "the same string literal means another value"),
    ("default_transaction_isolation", Severity::Critical, "transactions see other snapshots"),
    ("DateStyle", Severity::Warning, "dates are read and written in another form"),
    ("IntervalStyle", Severity::Warning, "intervals are written in another form"),
    ("TimeZone", Severity::Warning, "timestamps without a zone mean another moment"),
    ("bytea_output", Severity::Warning, "bytea is written in another form"),
    ("extra_float_digits", Severity::Warning, "floating-point numbers are written with other digits"),
    ("lc_monetary", Severity::Warning, "money is read and written in another form"),
    ("lc_numeric", Severity::Warning, "to_char writes numbers in another form"),
    ("lc_time", Severity::Warning, "to_char writes dates in another form"),
    ("lc_messages", Severity::Info, "errors have other words"),
    ("password_encryption", Severity::Info, "new passwords are stored in another form"),
];

/// # Errors
/// As [`check`].
pub async fn compatibility(source: &Endpoint, target: &Endpoint) -> Result<Vec<Finding>, JobError> {
    let (from, to) = (check(source).await?, check(target).await?);
    Ok(judge(&from, &to))
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, name: &str, severity: Severity, detail: impl Into<String>) {
        self.0.push(Finding { name: name.to_owned(), severity, detail: detail.into(), feed: None, before_copy: false });
    }
}

/// The findings two sets of facts imply, the worst first. Pure.
pub fn judge(source: &PostgresFacts, target: &PostgresFacts) -> Vec<Finding> {
    let mut found = Findings::default();
    standing(source, target, &mut found);
    extensions(source, target, &mut found);
    locales(source, target, &mut found);
    settings(source, target, &mut found);
    roles(source, target, &mut found);
    contents(source, target, &mut found);
    found.0.sort_by_key(|finding| match finding.severity {
        Severity::Critical => 0,
        Severity::Warning => 1,
        Severity::Info => 2,
    });
    found.0
}

fn standing(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    let same = source.system_identifier.is_some()
        && source.system_identifier == target.system_identifier
        && source.started_at == target.started_at;
    if same && source.database == target.database {
        let detail = "source and target are one and the same database of one server: give the target another address";
        found.add("same-server", Severity::Critical, detail);
    }
    if target.in_recovery {
        let detail = "the target is a standby and takes no writes: promote it, or name its primary";
        found.add("target-is-standby", Severity::Critical, detail);
    }
    let major = |facts: &PostgresFacts| facts.version_number / 10_000;
    let versions = format!("PostgreSQL {} to {}", source.version, target.version);
    if major(target) < major(source) {
        let detail =
            format!("{versions}: the target is older, what the source knows may fail there: upgrade the target");
        found.add("target-older", Severity::Critical, detail);
    } else if target.version_number < source.version_number {
        let detail = format!("{versions}: the target lacks fixes the source has: update its minor version");
        found.add("target-minor-older", Severity::Warning, detail);
    } else if target.version_number > source.version_number {
        found.add("different-versions", Severity::Info, format!("{versions}: read the release notes in between"));
    }
    if source.setting("wal_level") != "logical" {
        let detail = format!(
            "wal_level is {} on the source: a later migration needs logical; set it and restart the source",
            source.setting("wal_level")
        );
        found.add("source-wal-level", Severity::Warning, detail);
    }
}

/// By the numbers in them, part by part: "1.10" is later than "1.9".
fn older(one: &str, other: &str) -> bool {
    let parts =
        |text: &str| -> Vec<u64> { text.split(['.', '-', '_']).map(|part| part.parse().unwrap_or(0)).collect() };
    parts(one) < parts(other)
}

fn extensions(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    let (mut missing, mut uninstalled, mut outdated) = (Vec::new(), Vec::new(), Vec::new());
    for (name, version) in &source.extensions {
        let there = target.extensions.get(name).or_else(|| target.extensions_available.get(name));
        match there {
            None => missing.push(name.as_str()),
            Some(other) if older(other, version) => {
                outdated.push(format!("{name} ({other}, the source has {version})"))
            }
            Some(_) if !target.extensions.contains_key(name) => uninstalled.push(name.as_str()),
            Some(_) => {}
        }
    }
    if !missing.is_empty() {
        let detail =
            format!("the target does not have the extensions {}: install their packages there", list(&missing));
        found.add("extensions-missing-on-target", Severity::Critical, detail);
    }
    if !outdated.is_empty() {
        let names: Vec<_> = outdated.iter().map(String::as_str).collect();
        let detail = format!("extensions are older on the target: {}: update them there", list(&names));
        found.add("extensions-older-on-target", Severity::Critical, detail);
    }
    if !uninstalled.is_empty() {
        let detail = format!("run CREATE EXTENSION on the target for {}", list(&uninstalled));
        found.add("extensions-not-created", Severity::Warning, detail);
    }
}

fn locales(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    if source.encoding != target.encoding {
        let detail = format!(
            "the source stores {} and the target {}: create the target database with ENCODING '{}'",
            source.encoding, target.encoding, source.encoding
        );
        found.add("encoding-differs", Severity::Critical, detail);
    }
    // "C.UTF-8" and "C.utf8" are two spellings of one.
    let folded = |name: &str| name.to_lowercase().replace('-', "");
    let locale = |facts: &PostgresFacts| (folded(&facts.collate), folded(&facts.ctype), facts.locale_provider.clone());
    if locale(source) != locale(target) {
        let words = |facts: &PostgresFacts| format!("{}/{} ({})", facts.collate, facts.ctype, facts.locale_provider);
        let detail = format!(
            "the source sorts by {} and the target by {}: ORDER BY, ranges and case mapping give other results; create the target database with the source's locale",
            words(source),
            words(target)
        );
        found.add("locale-differs", Severity::Critical, detail);
    } else if source.collation_version != target.collation_version {
        let words = |facts: &PostgresFacts| facts.collation_version.clone().unwrap_or_else(|| "none".to_owned());
        let detail = format!(
            "the same locale has version {} on the source and {} on the target: some strings may sort otherwise; never copy data files between them",
            words(source),
            words(target)
        );
        found.add("collation-version-differs", Severity::Warning, detail);
    }
}

fn settings(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    for (name, severity, effect) in MEANING {
        let (from, to) = (source.setting(name), target.setting(name));
        if from != to {
            let detail = format!("{name} is {from:?} on the source and {to:?} on the target: {effect}; set it alike");
            found.add(&format!("setting-{}", name.to_lowercase().replace('_', "-")), *severity, detail);
        }
    }
    let count = |facts: &PostgresFacts, name: &str| facts.setting(name).parse::<u64>().unwrap_or(0);
    let prepared = |facts: &PostgresFacts| count(facts, "max_prepared_transactions");
    if prepared(target) < prepared(source) {
        let detail = format!(
            "max_prepared_transactions is {} on the target and {} on the source: PREPARE TRANSACTION may be refused; raise it",
            prepared(target),
            prepared(source)
        );
        found.add("setting-max-prepared-transactions", Severity::Warning, detail);
    }
    let (from, to) = (source.max_connections(), target.max_connections());
    if to < from {
        let used = source.client_connections;
        let severity = if to < used { Severity::Critical } else { Severity::Warning };
        let detail = format!(
            "max_connections is {to} on the target and {from} on the source, where {used} are in use: raise it, every client has a connection of its own"
        );
        found.add("setting-max-connections", severity, detail);
    }
}

fn roles(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    let missing: Vec<&str> =
        source.login_roles.iter().filter(|role| !target.login_roles.contains(role)).map(String::as_str).collect();
    if !missing.is_empty() {
        let detail = format!("the target lacks the roles {}: create them (pg_dumpall --roles-only)", list(&missing));
        found.add("roles-missing-on-target", Severity::Critical, detail);
    }
    match (&source.verifiers, &target.verifiers) {
        (Some(from), Some(to)) => {
            let differing: Vec<&str> = from
                .iter()
                .filter(|(role, secret)| to.get(*role).is_some_and(|other| other != *secret))
                .map(|(role, _)| role.as_str())
                .collect();
            if !differing.is_empty() {
                let detail = format!(
                    "the stored secrets of {} are not the same on both servers: log-in modes scram and relay need them equal, even for one password; copy them (pg_dumpall --roles-only)",
                    list(&differing)
                );
                found.add("verifiers-differ", Severity::Critical, detail);
            }
        }
        (None, _) | (_, None) => {
            let detail = "the stored secrets of roles were not compared: that needs a superuser on both sides; make sure that clients can log in to the target";
            found.add("verifiers-not-compared", Severity::Info, detail);
        }
    }
}

fn contents(source: &PostgresFacts, target: &PostgresFacts, found: &mut Findings) {
    if source.large_objects > 0 {
        let detail = format!(
            "the source has {} large objects: logical replication does not copy them: copy them separately or move them to bytea",
            source.large_objects
        );
        found.add("large-objects", Severity::Warning, detail);
    }
    if source.unlogged_tables > 0 {
        let detail = format!(
            "the source has {} unlogged tables: logical replication does not copy them: SET LOGGED or do without their rows",
            source.unlogged_tables
        );
        found.add("unlogged-tables", Severity::Warning, detail);
    }
    if source.tables_without_identity > 0 {
        let detail = format!(
            "{} of {} tables of the source have no primary key and no replica identity: updates and deletes there would fail under logical replication; add a key, or REPLICA IDENTITY FULL",
            source.tables_without_identity, source.tables
        );
        found.add("tables-without-identity", Severity::Warning, detail);
    }
    if source.sequences > 0 {
        let detail = format!(
            "the source has {} sequences: logical replication does not copy their values; a migration sets them at the change of authority",
            source.sequences
        );
        found.add("sequences", Severity::Info, detail);
    }
    if target.tables > 0 {
        let detail = format!("the target database holds {} tables already", target.tables);
        found.add("target-not-empty", Severity::Info, detail);
    }
}

fn list(names: &[&str]) -> String {
    let shown = names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 12 { format!("{shown} and {} more", names.len() - 12) } else { shown }
}
