//! The store as one redb file under `[data].dir`. Lives on the control thread, which no other process shares the file with.
//!
//! Every commit is fsynced before it returns. A file that is torn, foreign or newer is refused, never repaired by guess. Calls answer at
//! once: a write takes the control thread as long as the disk takes for an fsync.

mod shapes;

use std::fmt;
use std::future::ready;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Conflict, JournalEntry, Pending, Store, StoreError, StoredFilter};
use crate::workflow::MigrationRecord;
use base::model::{FilterName, Ledger, MigrationId};
use shapes::{DiskFilter, DiskJournal, DiskLedger, DiskMigration};

const FILE_NAME: &str = "crossfade.redb";
/// Grows when the shapes of `shapes.rs` change; older versions are read forever.
/// 2: migrations have policies, which an older program would leave out when it writes a record back. 3: they have a feed, likewise.
/// 4: they may exclude keys, which an older program would move.
const SCHEMA_VERSION: u64 = 4;
/// Read as it is, and marked as of the present version before anything is written.
const SCHEMA_VERSION_OLDEST: u64 = 1;
/// Journal entries read into memory at once.
const JOURNAL_PAGE: usize = 4096;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("crossfade_meta");
const MIGRATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("migrations");
const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
const LEDGERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("divergences");
/// Made when the first filter is loaded: files from before there were any do not have it.
const FILTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("filters");

/// How a transaction ends.
enum Outcome {
    Commit,
    Abort,
}

/// The open store.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    db: Database,
}

impl RedbStore {
    /// Opens the store of a data directory; makes both when missing.
    ///
    /// # Errors
    /// [`StoreError`] naming the file and what to do.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| {
            StoreError::Io(format!("the data directory {} cannot be made: {error}; correct [data].dir", dir.display()))
        })?;
        let path = dir.join(FILE_NAME);
        let there = std::fs::exists(&path).map_err(|error| unreadable(&path, &error))?;
        if !there {
            create(dir, &path)?;
        }
        // The storage library asserts on some damaged files instead of returning an error; both mean the same to an operator.
        let opened = std::panic::catch_unwind(|| open_checked(&path));
        let db = opened.unwrap_or_else(|_| Err(damaged(&path, "its structure makes no sense")))?;
        let store = Self { path, db };
        store.check_schema()?;
        Ok(store)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        let read = self.db.begin_read().map_err(|error| self.io(&error))?;
        let foreign = || {
            StoreError::Refused(format!(
                "{} is a database of another program: point [data].dir at Crossfade's own directory, or at an empty one",
                self.path.display()
            ))
        };
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Err(foreign()),
            Err(error) => return Err(self.io(&error)),
        };
        match meta.get("schema_version").map_err(|error| self.io(&error))?.map(|version| version.value()) {
            Some(SCHEMA_VERSION) => Ok(()),
            Some(version @ SCHEMA_VERSION_OLDEST..SCHEMA_VERSION) => {
                tracing::info!("{}: schema version {version} becomes {SCHEMA_VERSION}", self.path.display());
                self.mark_schema().map_err(|error| self.io(&error))
            }
            Some(version) => Err(StoreError::Refused(format!(
                "{} has schema version {version}, this program knows {SCHEMA_VERSION}: start it with the version of Crossfade that wrote it, or a newer one",
                self.path.display()
            ))),
            None => Err(foreign()),
        }
    }

    fn mark_schema(&self) -> Result<(), redb::Error> {
        let txn = self.db.begin_write()?;
        txn.open_table(META)?.insert("schema_version", SCHEMA_VERSION)?;
        txn.commit()?;
        Ok(())
    }

    fn io(&self, error: &dyn fmt::Display) -> StoreError {
        StoreError::Io(format!("{} cannot be read or written: {error}; check the disk", self.path.display()))
    }

    fn replace(&self, change: Change<'_>) -> Result<(), StoreError> {
        let Change { decided_on, record, journal } = change;
        let migration = self.encode(&DiskMigration::from(record))?;
        let mut refused = None;
        self.write(|txn| {
            let mut table = txn.open_table(MIGRATIONS)?;
            // Compared inside the transaction that writes: there is one writer at a time.
            let stored = table.get(record.id.as_str())?.map(|bytes| self.migration(record.id.as_str(), bytes.value()));
            let stored = match stored.transpose() {
                Ok(stored) => stored,
                Err(error) => {
                    refused = Some(error);
                    return Ok(Outcome::Abort);
                }
            };
            if stored.as_ref() != decided_on {
                let epoch = |record: &MigrationRecord| record.authority.epoch;
                refused = Some(StoreError::Conflict(Conflict {
                    migration: record.id.clone(),
                    decided_on: decided_on.map(epoch),
                    stored: stored.as_ref().map(epoch),
                }));
                return Ok(Outcome::Abort);
            }
            table.insert(record.id.as_str(), migration.as_slice())?;
            insert_journal(txn, journal)?;
            Ok(Outcome::Commit)
        })?;
        refused.map_or(Ok(()), Err)
    }

    fn migration(&self, id: &str, bytes: &[u8]) -> Result<MigrationRecord, StoreError> {
        let stored: DiskMigration = self.decode(id, bytes)?;
        stored.read().map_err(|why| damaged(&self.path, &format!("migration {id}: {why}")))
    }

    fn append_now(&self, journal: &[JournalEntry]) -> Result<(), StoreError> {
        self.write(|txn| insert_journal(txn, journal).map(|()| Outcome::Commit))
    }

    fn save_ledger_now(&self, id: &MigrationId, ledger: &Ledger) -> Result<(), StoreError> {
        let bytes = self.encode(&DiskLedger::from(ledger))?;
        self.write(|txn| {
            txn.open_table(LEDGERS)?.insert(id.as_str(), bytes.as_slice())?;
            Ok(Outcome::Commit)
        })
    }

    fn ledger_now(&self, id: &MigrationId) -> Result<Ledger, StoreError> {
        let read = self.db.begin_read().map_err(|error| self.io(&error))?;
        let table = read.open_table(LEDGERS).map_err(|error| self.io(&error))?;
        match table.get(id.as_str()).map_err(|error| self.io(&error))? {
            Some(bytes) => Ok(self.decode::<DiskLedger>(id.as_str(), bytes.value())?.read()),
            None => Ok(Ledger::default()),
        }
    }

    fn migrations_now(&self) -> Result<Vec<MigrationRecord>, StoreError> {
        let read = self.db.begin_read().map_err(|error| self.io(&error))?;
        let table = read.open_table(MIGRATIONS).map_err(|error| self.io(&error))?;
        let mut records = Vec::new();
        for row in table.iter().map_err(|error| self.io(&error))? {
            let (id, bytes) = row.map_err(|error| self.io(&error))?;
            records.push(self.migration(id.value(), bytes.value())?);
        }
        Ok(records)
    }

    fn journal_after_now(&self, after: u64) -> Result<Vec<JournalEntry>, StoreError> {
        let read = self.db.begin_read().map_err(|error| self.io(&error))?;
        let table = read.open_table(JOURNAL).map_err(|error| self.io(&error))?;
        let rows = table.range(after.saturating_add(1)..).map_err(|error| self.io(&error))?;
        let mut entries = Vec::new();
        for row in rows.take(JOURNAL_PAGE) {
            let (number, bytes) = row.map_err(|error| self.io(&error))?;
            let number = number.value();
            let stored: DiskJournal = self.decode("journal", bytes.value())?;
            let entry = stored.read(number);
            entries.push(entry.map_err(|why| damaged(&self.path, &format!("journal entry {number}: {why}")))?);
        }
        Ok(entries)
    }

    fn save_filter_now(&self, filter: &StoredFilter, journal: &[JournalEntry]) -> Result<(), StoreError> {
        let bytes = self.encode(&DiskFilter::from(filter))?;
        self.write(|txn| {
            txn.open_table(FILTERS)?.insert(filter.name.as_str(), bytes.as_slice())?;
            insert_journal(txn, journal)?;
            Ok(Outcome::Commit)
        })
    }

    fn remove_filter_now(&self, name: &FilterName, journal: &[JournalEntry]) -> Result<(), StoreError> {
        self.write(|txn| {
            txn.open_table(FILTERS)?.remove(name.as_str())?;
            insert_journal(txn, journal)?;
            Ok(Outcome::Commit)
        })
    }

    fn filters_now(&self) -> Result<Vec<StoredFilter>, StoreError> {
        let read = self.db.begin_read().map_err(|error| self.io(&error))?;
        let table = match read.open_table(FILTERS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(self.io(&error)),
        };
        let mut filters = Vec::new();
        for row in table.iter().map_err(|error| self.io(&error))? {
            let (name, bytes) = row.map_err(|error| self.io(&error))?;
            let (name, stored) = (name.value(), self.decode::<DiskFilter>(name.value(), bytes.value())?);
            filters.push(stored.read(name).map_err(|why| damaged(&self.path, &format!("filter {name}: {why}")))?);
        }
        Ok(filters)
    }

    fn reserve_now(&self, count: u64) -> Result<u64, StoreError> {
        let mut first = 1;
        self.write(|txn| {
            let mut meta = txn.open_table(META)?;
            first = meta.get("next_number")?.map_or(1, |next| next.value());
            meta.insert("next_number", first.saturating_add(count))?;
            Ok(Outcome::Commit)
        })?;
        Ok(first)
    }

    fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<Outcome, redb::Error>,
    ) -> Result<(), StoreError> {
        let attempt = || -> Result<(), redb::Error> {
            let mut txn = self.db.begin_write()?;
            // Immediate = fsync: this is what a flip waits for.
            txn.set_durability(redb::Durability::Immediate)?;
            match change(&txn)? {
                Outcome::Commit => txn.commit()?,
                Outcome::Abort => txn.abort()?,
            }
            Ok(())
        };
        attempt().map_err(|error| self.io(&error))
    }

    fn encode(&self, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(value).map_err(|error| self.io(&error))
    }

    fn decode<T: DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|error| damaged(&self.path, &format!("{what}: {error}")))
    }
}

impl Store for RedbStore {
    fn commit<'a>(&'a self, change: Change<'a>) -> Pending<'a, ()> {
        Box::pin(ready(self.replace(change)))
    }

    fn append<'a>(&'a self, journal: &'a [JournalEntry]) -> Pending<'a, ()> {
        Box::pin(ready(self.append_now(journal)))
    }

    fn save_ledger<'a>(&'a self, id: &'a MigrationId, ledger: &'a Ledger) -> Pending<'a, ()> {
        Box::pin(ready(self.save_ledger_now(id, ledger)))
    }

    fn ledger<'a>(&'a self, id: &'a MigrationId) -> Pending<'a, Ledger> {
        Box::pin(ready(self.ledger_now(id)))
    }

    fn migrations(&self) -> Pending<'_, Vec<MigrationRecord>> {
        Box::pin(ready(self.migrations_now()))
    }

    fn journal_after(&self, after: u64) -> Pending<'_, Vec<JournalEntry>> {
        Box::pin(ready(self.journal_after_now(after)))
    }

    fn save_filter<'a>(&'a self, filter: &'a StoredFilter, journal: &'a [JournalEntry]) -> Pending<'a, ()> {
        Box::pin(ready(self.save_filter_now(filter, journal)))
    }

    fn remove_filter<'a>(&'a self, name: &'a FilterName, journal: &'a [JournalEntry]) -> Pending<'a, ()> {
        Box::pin(ready(self.remove_filter_now(name, journal)))
    }

    fn filters(&self) -> Pending<'_, Vec<StoredFilter>> {
        Box::pin(ready(self.filters_now()))
    }

    fn reserve_numbers(&self, count: u64) -> Pending<'_, u64> {
        Box::pin(ready(self.reserve_now(count)))
    }
}

fn insert_journal(txn: &redb::WriteTransaction, journal: &[JournalEntry]) -> Result<(), redb::Error> {
    let mut table = txn.open_table(JOURNAL)?;
    for entry in journal {
        // Strings and numbers only: encoding cannot fail.
        let bytes = serde_json::to_vec(&DiskJournal::from(entry)).unwrap_or_default();
        table.insert(entry.number, bytes.as_slice())?;
    }
    Ok(())
}

fn unreadable(path: &Path, error: &dyn fmt::Display) -> StoreError {
    StoreError::Io(format!("{} cannot be opened: {error}; check its owner and permissions", path.display()))
}

fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::Refused(format!(
        "{} is damaged or not a Crossfade store ({why}). It holds who is authoritative, so nothing is guessed: put back a copy of the \
         file, or, if you know which server has the truth, move the file away and name that server as `source` of the interlay",
        path.display()
    ))
}

/// Makes the file under another name and renames it, so that a kill in between leaves no half-made store.
fn create(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let draft = dir.join(format!("{FILE_NAME}.new"));
    let make = || -> Result<(), redb::Error> {
        if std::fs::exists(&draft)? {
            std::fs::remove_file(&draft)?;
        }
        let db = Database::create(&draft)?;
        let txn = db.begin_write()?;
        txn.open_table(META)?.insert("schema_version", SCHEMA_VERSION)?;
        txn.open_table(MIGRATIONS)?;
        txn.open_table(JOURNAL)?;
        txn.open_table(LEDGERS)?;
        txn.commit()?;
        drop(db);
        std::fs::rename(&draft, path)?;
        std::fs::File::open(dir)?.sync_all()?;
        Ok(())
    };
    make().map_err(|error| {
        StoreError::Io(format!(
            "{} cannot be made: {error}; check owner, permissions and space of the directory",
            path.display()
        ))
    })
}

fn open_checked(path: &Path) -> Result<Database, StoreError> {
    let mut db = Database::open(path).map_err(|error| refuse(path, &error))?;
    // Reads every page and its checksum; the file is small.
    match db.check_integrity() {
        Ok(true) => Ok(db),
        Ok(false) => Err(damaged(path, "a checksum does not match")),
        Err(error) => Err(refuse(path, &error)),
    }
}

fn refuse(path: &Path, error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(format!(
            "{} is in use by another process: stop that one, or give this one its own [data].dir",
            path.display()
        )),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            unreadable(path, error)
        }
        // The library's own closed set grows with its versions; all the rest means the same here.
        other => damaged(path, &other.to_string()),
    }
}

#[cfg(test)]
mod tests;
