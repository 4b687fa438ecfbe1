//! Reads a parsed TOML table key by key with the position of each, so that every error names file, line and key.
//!
//! Does not know the meaning of keys: see `mod.rs`. Errors never quote a value, which may hold a password.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Key;

/// One error in a configuration file. Nothing was started; fixing the file and trying again is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1; 0 when the error is about the file as a whole.
    pub line: usize,
    /// Dotted path of the key; empty when there is none.
    pub key: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The text of one file and its name; turns a byte offset into a line.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Document<'_> {
    pub fn error(&self, at: usize, key: &str, message: impl Into<String>) -> ConfigError {
        let line = self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        ConfigError { file: self.file.to_owned(), line, key: key.to_owned(), message: message.into() }
    }
}

/// The position of a value, for errors that are found after the file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: PathBuf,
    line: usize,
    key: String,
}

impl Place {
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.clone(), line: self.line, key: self.key.clone(), message: message.into() }
    }
}

/// A value with its dotted key and place.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    document: Document<'a>,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
    prefix: &'a str,
}

impl<'a> Item<'a> {
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.document.error(self.value.span().start, &dotted(self.prefix, self.key), message)
    }

    pub fn place(&self) -> Place {
        let ConfigError { file, line, key, .. } = self.error("");
        Place { file, line, key }
    }

    pub fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    pub fn text(&self) -> Result<&'a str, ConfigError> {
        let value = self.value.get_ref();
        value.as_str().ok_or_else(|| self.error(format!("must be a string in quotes, not a {}", value.type_str())))
    }

    /// A whole number within `min..=max`.
    pub fn number(&self, min: u64, max: u64) -> Result<u64, ConfigError> {
        let value = self.value.get_ref();
        let number = value.as_integer().and_then(|int| u64::from_str_radix(int.as_str(), int.radix()).ok());
        match number {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            Some(_) | None => Err(self.error(format!("must be a whole number from {min} to {max}"))),
        }
    }

    pub fn flag(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.error("must be true or false, without quotes"))
    }

    pub fn section(&self) -> Result<Section<'a>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                document: self.document,
                path: dotted(self.prefix, self.key),
                at: self.value.span().start,
                table,
            }),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                Err(self.error(format!("must be a table: write [{}]", dotted(self.prefix, self.key))))
            }
        }
    }
}

fn dotted(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

/// One table.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    document: Document<'a>,
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    pub fn root(document: Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self { document, path: String::new(), at: 0, table }
    }

    /// Refuses every key that is not in `known`, with the nearest known one as a hint.
    pub fn only(&self, known: &[Key]) -> Result<(), ConfigError> {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            let known: Vec<&str> = known.iter().map(|key| key.name).collect();
            if known.contains(&name) {
                continue;
            }
            let hint = nearest(name, &known).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near:?}?"));
            let message = format!("is not a known key{hint} Known keys: {}", known.join(", "));
            return Err(self.document.error(key.span().start, &dotted(&self.path, name), message));
        }
        Ok(())
    }

    pub fn get(&'a self, key: &'a str) -> Option<Item<'a>> {
        let value = self.table.get(key)?;
        Some(Item { document: self.document, key, value, prefix: &self.path })
    }

    pub fn need(&'a self, key: &'a str, example: &str) -> Result<Item<'a>, ConfigError> {
        self.get(key).ok_or_else(|| self.error(format!("the key {key:?} is missing: write {key} = {example}")))
    }

    /// Every key with its value, in the order of the file.
    pub fn items(&'a self) -> Vec<Item<'a>> {
        let mut items: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| {
                let item = Item { document: self.document, key: key.get_ref().as_ref(), value, prefix: &self.path };
                (key.span().start, item)
            })
            .collect();
        items.sort_by_key(|(at, _)| *at);
        items.into_iter().map(|(_, item)| item).collect()
    }

    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.document.error(self.at, &self.path, message)
    }
}

impl<'a> Item<'a> {
    pub fn key(&self) -> &'a str {
        self.key
    }
}

/// The known word within two edits, if any.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (edits(word, candidate), *candidate))
        .filter(|(edits, _)| *edits <= 2)
        .min()
        .map(|(_, c)| c)
}

/// Levenshtein distance; keys are short.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
