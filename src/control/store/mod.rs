//! What survives the process: migrations with their authority records, the journal, the ledgers of divergences, loaded filters.
//!
//! The contract is [`Store`]; the control thread alone uses it. A change is on disk before it returns, so an authority change is durable
//! before any core hears of it. One implementation: [`redb`], a file. Others (a cluster's) can follow: every call is async, and a record
//! is only replaced by a change that was decided on the stored one.

pub mod redb;

use std::fmt;
use std::pin::Pin;

pub use self::redb::RedbStore;
use crate::workflow::MigrationRecord;
use base::model::{Epoch, FilterName, InterlayName, Ledger, MigrationId, Timestamp};

/// Something that happened, numbered. Numbers only grow; a gap means the process was restarted or a number was for a passing event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub number: u64,
    pub at: Timestamp,
    /// Also the type of the event: `phase_changed`, `authority_changed`, and so on.
    pub kind: String,
    pub migration: Option<MigrationId>,
    pub interlay: Option<InterlayName>,
    pub text: String,
}

/// A filter that was loaded at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFilter {
    pub name: FilterName,
    pub module: Vec<u8>,
    /// Its recorded cases, which passed when it was loaded.
    pub cases: Option<String>,
    pub digest: String,
    pub loaded_at: Timestamp,
    /// What the operator called it.
    pub file: String,
}

/// One replacement of a record, with the lines of the journal that go with it: written together or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The record this was decided on, with its epoch; `None`: there must be none.
    pub decided_on: Option<&'a MigrationRecord>,
    pub record: &'a MigrationRecord,
    pub journal: &'a [JournalEntry],
}

/// A change was decided on a record that is not the stored one. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub migration: MigrationId,
    /// The epoch it was decided on; `None`: on there being no record.
    pub decided_on: Option<Epoch>,
    pub stored: Option<Epoch>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            |epoch: Option<Epoch>| epoch.map_or_else(|| "no record".to_owned(), |epoch| format!("epoch {}", epoch.0));
        let (decided_on, stored) = (words(self.decided_on), words(self.stored));
        write!(f, "migration {}: the change was decided on {decided_on}, but ", self.migration)?;
        if decided_on == stored {
            f.write_str("another record of that epoch is stored")?;
        } else {
            write!(f, "{stored} is stored")?;
        }
        f.write_str("; nothing was written: restart this process, so that it reads what is stored")
    }
}

/// Why the store cannot be used: names the file and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Another process has it. Trying again after that one has ended is safe.
    InUse(String),
    /// Not ours, damaged, or from a newer version. Never trust what was read.
    Refused(String),
    /// The disk or the file system said no. What was being written is not known to be on disk.
    Io(String),
    Conflict(Conflict),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(text) | Self::Refused(text) | Self::Io(text) => f.write_str(text),
            Self::Conflict(conflict) => conflict.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}

/// An answer of the store under way. It does not cross threads.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + 'a>>;

/// Where records, journal, ledgers and filters are kept.
pub trait Store: fmt::Debug {
    /// Compare-and-set: replaces a record if the stored one is the one this was decided on. On `Ok` record and journal are durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`]: nothing was written. [`StoreError::Io`]: nothing may be released or announced.
    fn commit<'a>(&'a self, change: Change<'a>) -> Pending<'a, ()>;

    /// # Errors
    /// [`StoreError::Io`].
    fn append<'a>(&'a self, journal: &'a [JournalEntry]) -> Pending<'a, ()>;

    /// # Errors
    /// [`StoreError::Io`].
    fn save_ledger<'a>(&'a self, id: &'a MigrationId, ledger: &'a Ledger) -> Pending<'a, ()>;

    /// # Errors
    /// [`StoreError`].
    fn ledger<'a>(&'a self, id: &'a MigrationId) -> Pending<'a, Ledger>;

    /// Every migration, by id.
    ///
    /// # Errors
    /// [`StoreError`]; a record that cannot be understood is refused, since it may hold an authority.
    fn migrations(&self) -> Pending<'_, Vec<MigrationRecord>>;

    /// Up to a page of journal entries with a number above `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn journal_after(&self, after: u64) -> Pending<'_, Vec<JournalEntry>>;

    /// # Errors
    /// [`StoreError::Io`].
    fn save_filter<'a>(&'a self, filter: &'a StoredFilter, journal: &'a [JournalEntry]) -> Pending<'a, ()>;

    /// One that is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn remove_filter<'a>(&'a self, name: &'a FilterName, journal: &'a [JournalEntry]) -> Pending<'a, ()>;

    /// Every filter that was loaded at run time, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn filters(&self) -> Pending<'_, Vec<StoredFilter>>;

    /// Reserves `count` event numbers; gives the first. No number is ever given twice, whatever happens to the process.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn reserve_numbers(&self, count: u64) -> Pending<'_, u64>;
}
