//! What is written is read back; what is not ours is refused.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::{JournalEntry, StoredFilter};
use crate::workflow::{Ended, FirstCopy, NewMigration, Phase, Rehearsal, SmokeResult};
use base::model::*;

/// A directory of its own for each test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("crossfade-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn policies() -> PolicySettings {
    let mirror = PolicySetting {
        filter: FilterName::new("mine").unwrap(),
        mode: PolicyMode::Block,
        on_fault: OnFault::FailClosed,
        config: "{\"n\":1}".to_owned(),
    };
    let mut policies = PolicySettings::default();
    policies.set(PolicySlot::Mirror, Some(PolicyChoice::Filter(mirror)));
    policies.set(PolicySlot::Compare, Some(PolicyChoice::Nobody));
    policies
}

fn full_record() -> MigrationRecord {
    let asked = NewMigration {
        id: MigrationId::new("orders").unwrap(),
        interlay: InterlayName::new("i").unwrap(),
        source: EndpointName::new("old").unwrap(),
        target: EndpointName::new("new").unwrap(),
        decisions: Decisions {
            hold_before_flip: true,
            conflict_policy: ConflictPolicy::Exclude,
            exclude: vec![KeyPattern::new("session:*").unwrap(), KeyPattern::new("tmp:?").unwrap()],
            thresholds: Thresholds { source_p99_ms: 9, ..Thresholds::default() },
            ..Decisions::default()
        },
        policies: policies(),
    };
    let at = Timestamp(77);
    MigrationRecord {
        phase: Phase::Migrate,
        status: MigrationStatus::Running,
        authority: Authority { side: Side::Target, epoch: Epoch(2) },
        run: 3,
        auto: AutoThrough::Commit,
        dual_since: Some(at),
        feed: Some(FeedKind::Replication),
        feed_reason: Some("the best".into()),
        first_copy: Some(FirstCopy { began_at: at, finished_at: Timestamp(99), keys: 3, bytes: 4 }),
        approvals: vec![Approval { scope: ApprovalScope::Flip, by: "a".into(), reason: "r".into(), at, run: 3 }],
        waivers: vec![Waiver { finding: "f".into(), by: "a".into(), reason: "r".into(), at }],
        rehearsal: Some(Rehearsal { at, pause_us: 5 }),
        smoke: Some(SmokeResult { at, checks: 2, failed: vec!["x".into()] }),
        flips: vec![Flip { at, to: Side::Target, epoch: Epoch(2), pause_us: Some(9) }],
        rollback_reason: Some("why".into()),
        ended: Some(Ended::Abandoned { at, reason: "r".into() }),
        ..MigrationRecord::new(asked, Authority::initial(), at)
    }
}

fn entry(number: u64) -> JournalEntry {
    JournalEntry {
        number,
        at: Timestamp(number),
        kind: "phase_changed".to_owned(),
        migration: Some(MigrationId::new("orders").unwrap()),
        interlay: None,
        text: format!("entry {number}"),
    }
}

#[test]
fn everything_is_there_after_reopening() {
    let scratch = Scratch::new();
    let record = full_record();
    let mut ledger = Ledger::default();
    let seen = Sighting { database: 1, key: vec![0, 255], class: "ttl".into(), source: "s".into(), target: "t".into() };
    ledger.note(seen, Timestamp(4));
    {
        let store = RedbStore::open(&scratch.0).unwrap();
        assert_eq!(store.reserve_now(10).unwrap(), 1);
        store.replace(Change { decided_on: None, record: &record, journal: &[entry(1), entry(2)] }).unwrap();
        store.save_ledger_now(&record.id, &ledger).unwrap();
        store.append_now(&[entry(3)]).unwrap();
    }
    let store = RedbStore::open(&scratch.0).unwrap();
    assert_eq!(store.migrations_now().unwrap(), vec![record.clone()]);
    assert_eq!(store.journal_after_now(1).unwrap(), vec![entry(2), entry(3)]);
    assert_eq!(store.ledger_now(&record.id).unwrap(), ledger);
    assert_eq!(store.reserve_now(10).unwrap(), 11);
}

#[test]
fn two_processes_cannot_share_it() {
    let scratch = Scratch::new();
    let _first = RedbStore::open(&scratch.0).unwrap();
    assert!(matches!(RedbStore::open(&scratch.0), Err(StoreError::InUse(_))));
}

#[test]
fn foreign_and_torn_files_are_refused_and_left_as_they_are() {
    let scratch = Scratch::new();
    {
        let store = RedbStore::open(&scratch.0).unwrap();
        store.replace(Change { decided_on: None, record: &full_record(), journal: &[entry(1)] }).unwrap();
    }
    let good = std::fs::read(scratch.file()).unwrap();
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("text".into(), b"this is not a database, it is a letter".repeat(400)),
        ("empty".into(), Vec::new()),
        ("zeros".into(), vec![0; good.len()]),
    ];
    for part in 1..8 {
        cases.push((format!("cut to {part}/8"), good[..good.len() * part / 8].to_vec()));
    }
    let at = good.windows(8).position(|w| w == b"\"orders\"").expect("the record is in the file");
    let mut flipped = good.clone();
    flipped[at + 1] ^= 0x20;
    cases.push(("one bit of a record".into(), flipped));
    for (name, bytes) in cases {
        std::fs::write(scratch.file(), &bytes).unwrap();
        let error = RedbStore::open(&scratch.0).expect_err(&name);
        assert!(matches!(error, StoreError::Refused(_)), "{name}: {error:?}");
        assert!(error.to_string().contains(FILE_NAME), "{name}: {error}");
    }
    std::fs::write(scratch.file(), &good).unwrap();
    assert_eq!(RedbStore::open(&scratch.0).unwrap().migrations_now().unwrap().len(), 1);
}

#[test]
fn another_programs_database_and_a_newer_schema_are_refused_in_words() {
    const OTHER: TableDefinition<'_, &str, u64> = TableDefinition::new("other");
    for (version, words) in [(None, "another program"), (Some(99), "schema version 99")] {
        let scratch = Scratch::new();
        std::fs::create_dir_all(&scratch.0).unwrap();
        {
            let db = Database::create(scratch.file()).unwrap();
            let txn = db.begin_write().unwrap();
            match version {
                None => drop(txn.open_table(OTHER).unwrap()),
                Some(version) => drop(txn.open_table(META).unwrap().insert("schema_version", version).unwrap()),
            }
            txn.commit().unwrap();
        }
        let error = RedbStore::open(&scratch.0).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_half_made_store_does_not_stop_the_next_start() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join(format!("{FILE_NAME}.new")), b"killed here").unwrap();
    assert!(RedbStore::open(&scratch.0).unwrap().migrations_now().unwrap().is_empty());
}

#[test]
fn the_file_as_a_kill_leaves_it_opens_with_the_last_commit() {
    let (scratch, image) = (Scratch::new(), Scratch::new());
    let store = RedbStore::open(&scratch.0).unwrap();
    let mut decided_on = None;
    for run in 1..20 {
        let record = MigrationRecord { run, ..full_record() };
        let journal = [entry(u64::from(run))];
        store.replace(Change { decided_on: decided_on.as_ref(), record: &record, journal: &journal }).unwrap();
        decided_on = Some(record.clone());
        // A copy of the file of a running process is what a kill -9 leaves behind.
        let _ = std::fs::remove_dir_all(&image.0);
        std::fs::create_dir_all(&image.0).unwrap();
        std::fs::copy(scratch.file(), image.file()).unwrap();
        let after = RedbStore::open(&image.0).unwrap_or_else(|error| panic!("run {run}: {error}"));
        assert_eq!(after.migrations_now().unwrap(), vec![record]);
    }
}

#[test]
fn a_filter_is_there_after_reopening_until_it_is_removed() {
    let scratch = Scratch::new();
    let filter = |cases: Option<&str>| StoredFilter {
        name: FilterName::new("mine").unwrap(),
        module: vec![0, 97, 115, 109, 255],
        cases: cases.map(str::to_owned),
        digest: "abc".to_owned(),
        loaded_at: Timestamp(8),
        file: "mine.wasm".to_owned(),
    };
    {
        let store = RedbStore::open(&scratch.0).unwrap();
        assert_eq!(store.filters_now().unwrap(), Vec::new());
        store.save_filter_now(&filter(None), &[entry(1)]).unwrap();
        store.save_filter_now(&filter(Some("{}")), &[entry(2)]).unwrap();
    }
    let store = RedbStore::open(&scratch.0).unwrap();
    assert_eq!(store.filters_now().unwrap(), vec![filter(Some("{}"))]);
    store.remove_filter_now(&filter(None).name, &[entry(3)]).unwrap();
    store.remove_filter_now(&filter(None).name, &[]).unwrap();
    assert_eq!((store.filters_now().unwrap(), store.journal_after_now(0).unwrap().len()), (Vec::new(), 3));
}

/// A store with one record, as an older version wrote it; no table of filters.
fn old_file(scratch: &Scratch, version: u64, record: &str) {
    std::fs::create_dir_all(&scratch.0).unwrap();
    let db = Database::create(scratch.file()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(META).unwrap().insert("schema_version", version).unwrap();
    txn.open_table(MIGRATIONS).unwrap().insert("orders", record.trim().as_bytes()).unwrap();
    txn.open_table(JOURNAL).unwrap();
    txn.open_table(LEDGERS).unwrap();
    txn.commit().unwrap();
}

/// The record as versions that knew the lane only had it.
/// As versions wrote it that moved every key.
fn of_every_key(record: MigrationRecord) -> MigrationRecord {
    let decisions = Decisions {
        conflict_policy: ConflictPolicy::Fail,
        exclude: Vec::new(),
        thresholds: Thresholds::default(),
        ..record.decisions.clone()
    };
    MigrationRecord { decisions, first_copy: None, ..record }
}

/// As it was written before keys could be excluded.
#[test]
fn a_record_from_before_there_were_excluded_keys_excludes_none() {
    const RECORD: &str = include_str!("fixtures/migration_before_exclusions.json");
    let scratch = Scratch::new();
    old_file(&scratch, 3, RECORD);
    assert_eq!(RedbStore::open(&scratch.0).unwrap().migrations_now().unwrap(), vec![of_every_key(full_record())]);
}

fn of_the_lane(record: MigrationRecord) -> MigrationRecord {
    let record = of_every_key(record);
    let decisions = Decisions { feed: FeedChoice::Lane, ..record.decisions.clone() };
    MigrationRecord { decisions, feed: Some(FeedKind::Lane), feed_reason: None, ..record }
}

/// As it was written before there was a choice of feeds: whatever had begun uses the lane, and whatever begins will.
#[test]
fn a_record_from_before_there_were_feeds_is_of_the_lane() {
    const RECORD: &str = include_str!("fixtures/migration_before_feeds.json");
    let scratch = Scratch::new();
    old_file(&scratch, 2, RECORD);
    let store = RedbStore::open(&scratch.0).unwrap();
    assert_eq!(store.migrations_now().unwrap(), vec![of_the_lane(full_record())]);
    drop(store);
    let scratch = Scratch::new();
    let not_begun = RECORD.replace("\"dual_since_ms\":77", "\"dual_since_ms\":null");
    assert_ne!(not_begun, RECORD);
    old_file(&scratch, 2, &not_begun);
    let expected = MigrationRecord { dual_since: None, feed: None, ..of_the_lane(full_record()) };
    assert_eq!(RedbStore::open(&scratch.0).unwrap().migrations_now().unwrap(), vec![expected]);
}

/// As version 0.1 wrote it before there were policies: no table of filters, no `policies` in a record.
#[test]
fn a_file_from_before_there_were_filters_opens() {
    const RECORD: &str = include_str!("fixtures/migration_before_policies.json");
    let scratch = Scratch::new();
    old_file(&scratch, 1, RECORD);
    let store = RedbStore::open(&scratch.0).unwrap();
    assert_eq!(
        store.migrations_now().unwrap(),
        vec![MigrationRecord { policies: PolicySettings::default(), ..of_the_lane(full_record()) }]
    );
    assert_eq!(store.filters_now().unwrap(), Vec::new());
    let before = store.migrations_now().unwrap().remove(0);
    store.replace(Change { decided_on: Some(&before), record: &full_record(), journal: &[] }).unwrap();
    assert_eq!(store.migrations_now().unwrap(), vec![full_record()]);
    drop(store);
    let db = Database::open(scratch.file()).unwrap();
    let version = db.begin_read().unwrap().open_table(META).unwrap().get("schema_version").unwrap().map(|v| v.value());
    assert_eq!(
        version,
        Some(SCHEMA_VERSION),
        "a program that knows no policies would drop them: it refuses this file from now on"
    );
}

/// Whatever a change was decided on is what must be stored, or nothing of it is written.
#[test]
fn a_change_decided_on_another_record_is_refused_and_nothing_is_written() {
    let scratch = Scratch::new();
    let store = RedbStore::open(&scratch.0).unwrap();
    let stored = full_record();
    store.replace(Change { decided_on: None, record: &stored, journal: &[entry(1)] }).unwrap();
    let older = MigrationRecord { authority: Authority { side: Side::Source, epoch: Epoch(1) }, ..full_record() };
    let same_epoch = MigrationRecord { run: stored.run + 1, ..full_record() };
    let next = MigrationRecord { authority: stored.authority.flipped(), ..full_record() };
    let cases = [
        (None, None, "no record"),
        (Some(&older), Some(Epoch(1)), "decided on epoch 1, but epoch 2 is stored"),
        (Some(&same_epoch), Some(Epoch(2)), "another record of that epoch"),
    ];
    for (decided_on, epoch, words) in cases {
        let error = store.replace(Change { decided_on, record: &next, journal: &[entry(2)] }).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        let StoreError::Conflict(conflict) = error else { panic!("{error:?}") };
        assert_eq!((conflict.decided_on, conflict.stored), (epoch, Some(Epoch(2))));
        assert_eq!(store.migrations_now().unwrap(), vec![stored.clone()]);
        assert_eq!(store.journal_after_now(0).unwrap(), vec![entry(1)]);
    }
    let absent = MigrationRecord { id: MigrationId::new("absent").unwrap(), ..full_record() };
    let error = store.replace(Change { decided_on: Some(&absent), record: &absent, journal: &[] }).expect_err("absent");
    assert!(matches!(error, StoreError::Conflict(Conflict { stored: None, .. })), "{error:?}");
    store.replace(Change { decided_on: Some(&stored), record: &next, journal: &[entry(2)] }).unwrap();
    assert_eq!(store.migrations_now().unwrap(), vec![next]);
}
