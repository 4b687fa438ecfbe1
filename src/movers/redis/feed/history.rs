//! Writes the records of a snapshot to the shadow: RESTORE where the shadow reads the value's encoding, typed commands where it does not.
//!
//! One connection, pipelined: while the shadow works on one batch the next is made. Nothing else writes to the shadow meanwhile. Lives on the
//! movers' thread.

use std::rc::Rc;

use super::batch::Doubt;
use super::dialect::Dialect;
use super::exclusions::Exclusions;
use crate::error::JobError;
use base::model::limits;
use follow::redis::client::RedisClient;
use wire::rdb::typed::{self, Element};
use wire::rdb::{Dialect as Family, Item, STREAM_2, STREAM_3, Version, dump, to_stream_2};
use wire::resp::args::Args;
use wire::resp::encode::push_request;
use wire::resp::value::Value;

/// The type byte of a string (Redis `rdb.h`, RDB_TYPE_STRING).
const STRING: u8 = 0;
/// Redis 7.2 brought it.
const RDB_OF_STREAM_3: u16 = 11;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub keys: u64,
    pub bytes: u64,
    /// Of those, written by typed commands.
    pub typed: u64,
    /// Keys of the snapshot that are not moved; not among `keys`.
    pub excluded: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct HistoryWriter<'a> {
    dialect: &'a Dialect,
    exclusions: Rc<Exclusions>,
    version: Option<Version>,
    database: u32,
    batch: Batch,
    /// Sent, and not answered yet.
    sent: Option<Batch>,
    /// A value that comes in pieces.
    large: Option<Large>,
    written: Written,
    doubts: Vec<Doubt>,
}

/// Requests that are sent together.
#[derive(Debug, Default)]
struct Batch {
    requests: Vec<u8>,
    /// Of each request: its range, and the database it acts on; `None` for SELECT and FUNCTION.
    entries: Vec<(std::ops::Range<usize>, Option<u32>)>,
}

#[derive(Debug)]
struct Large {
    key: Vec<u8>,
    type_byte: u8,
    expire_at_ms: Option<i64>,
    body: Vec<u8>,
}

impl<'a> HistoryWriter<'a> {
    /// For a connection that is in database 0.
    #[must_use]
    pub fn new(dialect: &'a Dialect) -> Self {
        Self {
            dialect,
            exclusions: Rc::default(),
            version: None,
            database: 0,
            batch: Batch::default(),
            sent: None,
            large: None,
            written: Written::default(),
            doubts: Vec::new(),
        }
    }

    /// Keys that are not written.
    #[must_use]
    pub fn without(self, exclusions: Rc<Exclusions>) -> Self {
        Self { exclusions, ..self }
    }

    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Whether so much waits to be sent that it should be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batch.requests.len() >= limits::FEED_BATCH_BYTES || self.batch.entries.len() >= limits::FEED_BATCH_COMMANDS
    }

    /// Takes one item of the snapshot.
    pub fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Header(version) => self.version = Some(version),
            Item::SelectDb(number) => {
                self.database = u32::try_from(number).unwrap_or(u32::MAX);
                self.request(&[b"SELECT", number.to_string().as_bytes()], None);
            }
            Item::Function { body } => {
                let payload = dump::build(dump::FUNCTION, body, self.dialect.rdb_version);
                self.request(&[b"FUNCTION", b"RESTORE", &payload, b"REPLACE"], None);
            }
            Item::Record { head, body } => self.record(head.key, head.type_byte, head.expire_at_ms, body),
            Item::RecordBegin(head) => {
                let (key, type_byte, expire_at_ms) = (head.key.to_vec(), head.type_byte, head.expire_at_ms);
                self.large = Some(Large { key, type_byte, expire_at_ms, body: Vec::new() });
            }
            Item::RecordBytes(piece) => {
                if let Some(large) = &mut self.large {
                    large.body.extend_from_slice(piece);
                }
            }
            Item::RecordEnd => {
                if let Some(Large { key, type_byte, expire_at_ms, body }) = self.large.take() {
                    self.record(&key, type_byte, expire_at_ms, &body);
                }
            }
            Item::Aux { .. }
            | Item::ResizeDb { .. }
            | Item::SlotInfo { .. }
            | Item::SlotImport { .. }
            | Item::ModuleAux { .. }
            | Item::End(_) => {}
        }
    }

    fn record(&mut self, key: &[u8], type_byte: u8, expire_at_ms: Option<i64>, body: &[u8]) {
        if key.starts_with(crate::RESERVED_PREFIX) {
            return;
        }
        if self.exclusions.covers(self.database, key) {
            self.written.excluded += 1;
            return;
        }
        self.written.keys += 1;
        self.written.bytes += (key.len() + body.len()) as u64;
        let deadline = expire_at_ms.map_or(0, |at| at.saturating_add(self.dialect.grace_ms).max(1)).to_string();
        if body.len() as u64 + 64 > limits::BULK_BYTES_MAX {
            self.by_type(key, type_byte, body, deadline.as_bytes());
            return;
        }
        if self.as_string(key, type_byte, expire_at_ms.is_some().then_some(deadline.as_bytes()), body) {
            return;
        }
        // An older server reads the older form of a stream; by commands, pending entries of trimmed messages would be lost.
        let older = (type_byte == STREAM_3 && self.dialect.rdb_version < RDB_OF_STREAM_3)
            .then(|| to_stream_2(body).ok())
            .flatten();
        let (type_byte, body) = older.as_deref().map_or((type_byte, body), |older| (STREAM_2, older));
        let payload = dump::build(type_byte, body, self.dialect.rdb_version);
        let words: [&[u8]; 6] = [b"RESTORE", key, deadline.as_bytes(), &payload, b"REPLACE", b"ABSTTL"];
        self.request(&words, Some(self.database));
    }

    /// A plain string is cheaper for the shadow as a SET: no checksum, no RDB to be read. True when it was written so.
    fn as_string(&mut self, key: &[u8], type_byte: u8, deadline: Option<&[u8]>, body: &[u8]) -> bool {
        if type_byte != STRING || body.len() > limits::FEED_STRING_BYTES_MAX {
            return false;
        }
        let family = self.version.map_or(Family::Redis, |version| version.dialect);
        let Ok(mut elements) = typed::elements(family, type_byte, body) else { return false };
        let Some(Ok(Element::String(value))) = elements.next() else { return false };
        match deadline {
            Some(at) => self.request(&[b"SET", key, &value, b"PXAT", at], Some(self.database)),
            None => self.request(&[b"SET", key, &value], Some(self.database)),
        }
        true
    }

    /// Makes a key what it was on the authority: `payload` as its DUMP gave it, `None` where there was no such key.
    pub fn key(&mut self, database: u32, key: &[u8], deadline_ms: i64, payload: Option<&[u8]>) {
        if database != self.database {
            self.take(Item::SelectDb(database.into()));
        }
        match payload.map(dump::parse) {
            Some(Ok(value)) => {
                self.version = Version::of_dump(value.version);
                self.record(key, value.type_byte, (deadline_ms > 0).then_some(deadline_ms), value.body);
            }
            Some(Err(why)) => self.doubts.push(Doubt { database, key: Some(key.to_vec()), why: why.to_string() }),
            None => self.request(&[b"DEL", key], Some(database)),
        }
    }

    fn request(&mut self, words: &[&[u8]], database: Option<u32>) {
        let Batch { requests, entries } = &mut self.batch;
        let begin = requests.len();
        push_request(requests, words);
        entries.push((begin..requests.len(), database));
    }

    /// Sends what was taken, when the answers to what was sent before are in.
    ///
    /// # Errors
    /// [`JobError`]: the shadow was lost, or refuses to be written to.
    pub async fn pass_on(&mut self, client: &mut RedisClient) -> Result<(), JobError> {
        if let Some(sent) = self.sent.take() {
            let replies = client.receive(sent.entries.len()).await?;
            self.answered(client.who(), &sent, replies)?;
        }
        if !self.batch.entries.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            client.send(&batch.requests).await?;
            self.sent = Some(batch);
        }
        Ok(())
    }

    /// The same, until everything is answered.
    ///
    /// # Errors
    /// As [`Self::pass_on`].
    pub async fn flush(&mut self, client: &mut RedisClient) -> Result<(), JobError> {
        // What is written by type may be refused again, but not by type again.
        while self.sent.is_some() || !self.batch.entries.is_empty() {
            self.pass_on(client).await?;
        }
        Ok(())
    }

    /// What RESTORE is refused for is written by type, in the batch that is being made.
    fn answered(&mut self, who: &str, sent: &Batch, replies: Vec<Value>) -> Result<(), JobError> {
        let (back, mut at) = (self.database, self.database);
        for ((range, database), reply) in sent.entries.iter().zip(replies) {
            let Value::Error(text) = reply else { continue };
            let why = String::from_utf8_lossy(&text).into_owned();
            let args: Vec<&[u8]> = Args::new(&sent.requests[range.clone()]).collect();
            let bad_data = why.contains("Bad data format") || why.contains("DUMP payload version");
            match (args.as_slice(), *database) {
                ([b"RESTORE", key, deadline, payload, ..], Some(database)) if bad_data => {
                    if at != database {
                        self.request(&[b"SELECT", database.to_string().as_bytes()], None);
                        at = database;
                    }
                    self.database = database;
                    if let Ok(value) = dump::parse(payload) {
                        self.by_type(key, value.type_byte, value.body, deadline);
                    }
                }
                _ if is_refusal_of_all(&why) => return Err(JobError::answer(who, why)),
                (args, database) => {
                    let key = args.get(1).map(|key| key.to_vec());
                    let name = String::from_utf8_lossy(args.first().copied().unwrap_or_default()).into_owned();
                    let database = database.unwrap_or(back);
                    self.doubts.push(Doubt { database, key, why: format!("{name}: {why}") });
                }
            }
        }
        if at != back {
            self.request(&[b"SELECT", back.to_string().as_bytes()], None);
        }
        self.database = back;
        Ok(())
    }

    /// What the shadow cannot hold as the source does.
    pub fn take_doubts(&mut self) -> Vec<Doubt> {
        std::mem::take(&mut self.doubts)
    }

    // ---- by type --------------------------------------------------------------------------------------------------------

    fn by_type(&mut self, key: &[u8], type_byte: u8, body: &[u8], deadline: &[u8]) {
        self.written.typed += 1;
        let family = self.version.map_or(Family::Redis, |version| version.dialect);
        let mut lost = None;
        self.request(&[b"DEL", key], Some(self.database));
        match typed::elements(family, type_byte, body) {
            Ok(elements) => {
                let mut writer =
                    TypedWriter { history: self, key, words: Vec::new(), group: Vec::new(), consumer: Vec::new() };
                for element in elements {
                    match element {
                        Ok(element) => lost = lost.or(writer.element(element)),
                        Err(why) => lost = Some(why.to_string()),
                    }
                }
                writer.flush();
            }
            Err(why) => lost = Some(why.to_string()),
        }
        if deadline != b"0" {
            self.request(&[b"PEXPIREAT", key, deadline], Some(self.database));
        }
        if let Some(why) = lost {
            self.doubts.push(Doubt { database: self.database, key: Some(key.to_vec()), why });
        }
    }
}

/// Errors that every further command would get too.
fn is_refusal_of_all(why: &str) -> bool {
    ["OOM", "READONLY", "MISCONF", "NOPERM", "NOAUTH", "LOADING", "MASTERDOWN", "NOREPLICAS"]
        .iter()
        .any(|word| why.starts_with(word))
}

/// Writes the elements of one value, several in one command.
struct TypedWriter<'w, 'a> {
    history: &'w mut HistoryWriter<'a>,
    key: &'w [u8],
    /// The command under way: its name, the key, and arguments.
    words: Vec<Vec<u8>>,
    group: Vec<u8>,
    consumer: Vec<u8>,
}

impl TypedWriter<'_, '_> {
    fn add(&mut self, name: &[u8], arguments: &[&[u8]]) {
        if self.words.first().is_some_and(|open| open != name) || self.words.len() > 2 * limits::FEED_ELEMENTS_AT_ONCE {
            self.flush();
        }
        if self.words.is_empty() {
            self.words = vec![name.to_vec(), self.key.to_vec()];
        }
        self.words.extend(arguments.iter().map(|argument| argument.to_vec()));
    }

    fn flush(&mut self) {
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            self.send(&words);
        }
    }

    fn send(&mut self, words: &[&[u8]]) {
        let database = self.history.database;
        self.history.request(words, Some(database));
    }

    /// Why something of it is not there, where the shadow cannot hold it.
    fn element(&mut self, element: Element<'_>) -> Option<String> {
        match element {
            Element::String(value) => self.string(&value),
            Element::Item(item) => self.add(b"RPUSH", &[&item]),
            Element::Member(member) => self.add(b"SADD", &[&member]),
            Element::Scored { member, score } => self.add(b"ZADD", &[typed::score_text(score).as_bytes(), &member]),
            Element::Field { field, value, expire_at_ms } => return self.field(&field, &value, expire_at_ms),
            Element::Entry { id, fields } => {
                let id = id.to_string();
                let mut words: Vec<&[u8]> = vec![b"XADD", self.key, id.as_bytes()];
                words.extend(fields.iter().flat_map(|(field, value)| [&**field, &**value]));
                self.send(&words);
            }
            Element::Stream(state) => self.stream(&state),
            Element::Group { name, last_id, entries_read } => {
                self.group = name.to_vec();
                let (last, read) = (last_id.to_string(), entries_read.map(|read| read.to_string()));
                let mut words: Vec<&[u8]> = vec![b"XGROUP", b"CREATE", self.key, &name, last.as_bytes()];
                if let Some(read) = &read {
                    words.extend([b"ENTRIESREAD".as_slice(), read.as_bytes()]);
                }
                self.send(&words);
            }
            Element::Consumer { name, .. } => {
                self.consumer = name.to_vec();
                let group = self.group.clone();
                self.send(&[b"XGROUP", b"CREATECONSUMER", self.key, &group, &name]);
            }
            Element::Pending { id, delivered_at_ms, deliveries } => {
                let (id, at, count) = (id.to_string(), delivered_at_ms.to_string(), deliveries.to_string());
                let (group, consumer) = (self.group.clone(), self.consumer.clone());
                let words: [&[u8]; 12] = [
                    b"XCLAIM",
                    self.key,
                    &group,
                    &consumer,
                    b"0",
                    id.as_bytes(),
                    b"TIME",
                    at.as_bytes(),
                    b"RETRYCOUNT",
                    count.as_bytes(),
                    b"FORCE",
                    b"JUSTID",
                ];
                self.send(&words);
            }
        }
        None
    }

    /// In pieces: a string may be longer than the longest argument a server takes.
    fn string(&mut self, value: &[u8]) {
        if value.is_empty() {
            self.send(&[b"SET", self.key, b""]);
        }
        for piece in value.chunks(limits::FEED_BATCH_BYTES) {
            self.send(&[b"APPEND", self.key, piece]);
        }
    }

    fn field(&mut self, field: &[u8], value: &[u8], expire_at_ms: Option<i64>) -> Option<String> {
        self.add(b"HSET", &[field, value]);
        let at = expire_at_ms?;
        if self.history.dialect.commands.iter().any(|name| name == "hpexpireat") {
            self.flush();
            let at = at.saturating_add(self.history.dialect.grace_ms).to_string();
            self.send(&[b"HPEXPIREAT", self.key, at.as_bytes(), b"FIELDS", b"1", field]);
            return None;
        }
        Some("the shadow has no deadlines of hash fields".to_owned())
    }

    /// A stream without entries is made by one that is trimmed away.
    fn stream(&mut self, state: &typed::StreamState) {
        let last = state.last_id.to_string();
        if state.length == 0 {
            let first = if last == "0-0" { "0-1" } else { &last };
            self.send(&[b"XADD", self.key, first.as_bytes(), b"f", b"v"]);
            self.send(&[b"XTRIM", self.key, b"MAXLEN", b"0"]);
        }
        let (added, deleted) = (state.entries_added.to_string(), state.max_deleted_id.to_string());
        let words: [&[u8]; 7] = [
            b"XSETID",
            self.key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            deleted.as_bytes(),
        ];
        self.send(&words);
    }
}
