//! What becomes of keys that the target holds before the first copy: looks, remembers what is kept, and removes the rest. Lives on the movers'
//! thread.
//!
//! The shadow itself says how far that is. Before the first copy it holds neither of two keys of Crossfade's own; from its beginning to its end
//! it holds the mark [`begun_key`], and from then on the position. Both are exchanged in transactions, so that a first copy that was cut short
//! is told from one that never began: its keys are the feed's own and no conflict. What is kept is a set on the server that is the shadow.

use std::rc::Rc;
use std::sync::Arc;

use super::applier::Shared;
use super::batch::{Batch, DatabaseKey, Doubt, Expect, keys_with_databases};
use super::exclusions::{Exclusions, Moved};
use super::shadow::{connect, position_key};
use super::spec::FeedError;
use crate::error::JobError;
use crate::redis::names::{Batch as Names, NameScan};
use base::model::{ConflictPolicy, Endpoint, KeyPattern, limits};
use follow::redis::client::RedisClient;
use follow::redis::position::Position;
use wire::resp::args::Args;
use wire::resp::encode::push_request;

/// On the shadow, in database 0, while the first copy is being made.
#[must_use]
pub fn begun_key(feed: &str) -> Vec<u8> {
    [crate::RESERVED_PREFIX, b"begun:", feed.as_bytes()].concat()
}

/// A set of "DATABASE:KEY" on the shadow, in database 0. The same in both directions of a migration.
#[must_use]
pub fn kept_key(interlay: &str) -> Vec<u8> {
    [crate::RESERVED_PREFIX, b"kept:", interlay.as_bytes()].concat()
}

/// Removes every key of the databases named (or of all) but the excluded ones and Crossfade's own, in one step.
/// KEYS[] is empty; ARGV: the set of kept keys, the database or "all", patterns...
const CLEAR: &[u8] = br"redis.call('SELECT', 0)
local kept = {}
for _, name in ipairs(redis.call('SMEMBERS', ARGV[1])) do kept[name] = true end
local databases = { ARGV[2] }
if ARGV[2] == 'all' then
  databases = {}
  for number in string.gmatch(redis.call('INFO', 'keyspace'), 'db(%d+):') do databases[#databases + 1] = number end
end
for _, database in ipairs(databases) do
  redis.call('SELECT', database)
  local excluded = {}
  for at = 3, #ARGV do
    for _, key in ipairs(redis.call('KEYS', ARGV[at])) do excluded[key] = true end
  end
  local cursor = '0'
  repeat
    local page = redis.call('SCAN', cursor, 'COUNT', 1000)
    cursor = page[1]
    for _, key in ipairs(page[2]) do
      if not excluded[key] and not kept[database .. ':' .. key] and string.sub(key, 1, 12) ~= '__crossfade:' then
        redis.call('UNLINK', key)
      end
    end
  until cursor == '0'
end
return redis.status_reply('OK')";

impl Shared {
    pub(super) fn exclusions(&self) -> Rc<Exclusions> {
        Rc::clone(&self.exclusions.borrow())
    }

    fn kept_key(&self) -> Vec<u8> {
        let interlay = self.spec.name.rsplit_once(':').map_or(self.spec.name.as_str(), |(interlay, _)| interlay);
        kept_key(interlay)
    }

    /// Reads what is excluded. What was kept is noted on the target from the first copy on; after a change of authority that is the server whose
    /// clients would see it, so it is moved to the shadow.
    pub(super) async fn load_exclusions(&self, shadow: &mut RedisClient) -> Result<(), JobError> {
        let conflicts = &self.spec.conflicts;
        let kept = match conflicts.policy {
            ConflictPolicy::Skip => self.load_kept(shadow).await?,
            ConflictPolicy::Fail | ConflictPolicy::Replace | ConflictPolicy::Merge | ConflictPolicy::Exclude => {
                Vec::new()
            }
        };
        self.exclude(Arc::clone(&conflicts.exclude), kept);
        Ok(())
    }

    async fn load_kept(&self, shadow: &mut RedisClient) -> Result<Vec<DatabaseKey>, JobError> {
        let key = self.kept_key();
        let mut kept = members(shadow, &key).await?;
        if self.spec.conflicts.settled {
            let mut authority = connect(&self.spec.authority).await?;
            // What the other direction knew counts too: a client may have flushed the authority since.
            let there = members(&mut authority, &key).await?;
            let mut more = self.spec.inherited.kept_keys();
            let is_there = !there.is_empty();
            more.extend(there);
            note_kept(shadow, &key, &more).await?;
            if is_there {
                authority.must(&[b"UNLINK", &key]).await?;
            }
            kept.extend(more);
        }
        Ok(kept)
    }

    fn exclude(&self, patterns: Arc<[KeyPattern]>, kept: Vec<DatabaseKey>) {
        let exclusions = Exclusions::new(patterns, kept);
        self.note(|status| status.excluded.kept = exclusions.kept());
        self.exclusions.replace(Rc::new(exclusions));
    }

    // ---- before a copy --------------------------------------------------------------------------------------------------

    /// Carries out the conflict policy, if no copy has begun yet. Removes nothing.
    pub(super) async fn settle_conflicts(
        &self,
        client: &mut RedisClient,
        position_key: &[u8],
    ) -> Result<(), FeedError> {
        let begun = begun_key(&self.spec.name);
        let known = client.must(&[b"EXISTS", position_key, &begun]).await?.integer().unwrap_or(0) > 0;
        if known || self.spec.conflicts.settled || self.spec.guarded {
            return Ok(());
        }
        match self.spec.conflicts.policy {
            ConflictPolicy::Replace => Ok(()),
            ConflictPolicy::Fail | ConflictPolicy::Exclude => self.none_but_excluded().await,
            ConflictPolicy::Skip => {
                let kept = self.every_name().await?;
                note_kept(client, &self.kept_key(), &kept).await?;
                self.exclude(Arc::clone(&self.spec.conflicts.exclude), kept);
                Ok(())
            }
            ConflictPolicy::Merge => Err(self.conflict("conflict policy merge is not supported".to_owned())),
        }
    }

    /// Makes the shadow ready for a snapshot: removes what is not excluded.
    pub(super) async fn make_room(&self, client: &mut RedisClient, position_key: &[u8]) -> Result<(), FeedError> {
        let begun = begun_key(&self.spec.name);
        let exclusions = self.exclusions();
        let mut requests = Vec::new();
        push_request(&mut requests, &[b"MULTI"]);
        if exclusions.is_empty() {
            // Keys that the snapshot lacks must not stay.
            push_request(&mut requests, &[b"FLUSHALL"]);
        } else {
            push_request(&mut requests, &[b"DEL", position_key]);
        }
        push_request(&mut requests, &[b"SET", &begun, b"1"]);
        push_request(&mut requests, &[b"EXEC"]);
        let replies = client.pipeline(&requests, 4).await?;
        if let Some(error) = replies.last().and_then(wire::resp::value::Value::error) {
            return Err(JobError::answer(client.who(), format!("it cannot be emptied: {error}")).into());
        }
        if !exclusions.is_empty() {
            self.remove_others(client, &exclusions).await?;
        }
        Ok(())
    }

    fn conflict(&self, why: String) -> FeedError {
        FeedError::Conflict { shadow: format!("endpoint {}", self.spec.shadow.name), why }
    }

    /// The target must hold nothing but excluded keys.
    async fn none_but_excluded(&self) -> Result<(), FeedError> {
        let exclusions = self.exclusions();
        let mut scan = NameScan::begin(&self.spec.shadow, limits::FEED_NAMES_AT_ONCE).await?;
        let mut named = Vec::new();
        while let Some(Names { database, keys }) = scan.next_batch().await? {
            let others = keys.iter().filter(|key| !exclusions.covers(database, key));
            named.extend(others.map(|key| format!("{} in database {database}", key.escape_ascii())));
            if named.len() > limits::FEED_KEYS_NAMED_MAX {
                break;
            }
        }
        if named.is_empty() {
            return Ok(());
        }
        let more = if named.len() > limits::FEED_KEYS_NAMED_MAX { " and more" } else { "" };
        named.truncate(limits::FEED_KEYS_NAMED_MAX);
        let policy = self.spec.conflicts.policy;
        Err(self.conflict(format!(
            "it holds {}{more}, which conflict policy {policy} does not allow before the first copy; nothing was written. Remove them, or \
             abandon the migration and create it with another conflict policy",
            named.join(", ")
        )))
    }

    async fn every_name(&self) -> Result<Vec<DatabaseKey>, FeedError> {
        let mut scan = NameScan::begin(&self.spec.shadow, limits::FEED_NAMES_AT_ONCE).await?;
        let (mut names, mut bytes) = (Vec::new(), 0);
        while let Some(Names { database, keys }) = scan.next_batch().await? {
            bytes += keys.iter().map(|key| key.len()).sum::<usize>();
            names.extend(keys.into_iter().map(|key| (database, key.into_vec())));
            if names.len() > limits::FEED_KEPT_KEYS_MAX || bytes > limits::FEED_KEPT_BYTES_MAX {
                return Err(self.conflict(format!(
                    "it holds more than {} keys (or {} bytes of names), which is what conflict policy skip can keep; nothing was written. \
                     Abandon the migration and create it with conflict policy exclude and patterns of the keys that stay",
                    limits::FEED_KEPT_KEYS_MAX,
                    limits::FEED_KEPT_BYTES_MAX
                )));
            }
        }
        // SCAN may name a key twice.
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// What an earlier copy has left. Not in one step: nobody reads the shadow.
    async fn remove_others(&self, client: &mut RedisClient, exclusions: &Exclusions) -> Result<(), FeedError> {
        let mut scan = NameScan::begin(&self.spec.shadow, limits::FEED_NAMES_AT_ONCE).await?;
        while let Some(Names { database, keys }) = scan.next_batch().await? {
            let mut requests = Vec::new();
            push_request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
            let mut words: Vec<&[u8]> = vec![b"UNLINK"];
            words.extend(keys.iter().map(|key| &**key).filter(|key| !exclusions.covers(database, key)));
            if words.len() > 1 {
                push_request(&mut requests, &words);
                client.pipeline(&requests, 2).await?;
            }
        }
        client.must(&[b"SELECT", b"0"]).await?;
        Ok(())
    }

    /// All of the snapshot is there: the shadow says from where on the stream is to be applied.
    pub(super) async fn end_first_copy(
        &self,
        client: &mut RedisClient,
        key: &[u8],
        position: &Position,
    ) -> Result<(), JobError> {
        let begun = begun_key(&self.spec.name);
        let mut requests = Vec::new();
        push_request(&mut requests, &[b"SELECT", b"0"]);
        push_request(&mut requests, &[b"MULTI"]);
        push_request(&mut requests, &[b"SET", key, position.to_string().as_bytes()]);
        push_request(&mut requests, &[b"DEL", &begun]);
        push_request(&mut requests, &[b"EXEC"]);
        let replies = client.pipeline(&requests, 5).await?;
        match replies.last().and_then(wire::resp::value::Value::error) {
            None => Ok(()),
            Some(error) => Err(JobError::answer(client.who(), format!("the position cannot be written: {error}"))),
        }
    }

    /// Keys of a server that are moved.
    pub(super) async fn count_moved(&self, endpoint: &Endpoint, exclusions: &Exclusions) -> Result<u64, JobError> {
        let mut scan = NameScan::begin(endpoint, limits::FEED_NAMES_AT_ONCE).await?;
        let mut count = 0;
        while let Some(Names { database, keys }) = scan.next_batch().await? {
            count += keys.iter().filter(|key| !exclusions.covers(database, key)).count() as u64;
        }
        Ok(count)
    }

    // ---- commands of the stream -----------------------------------------------------------------------------------------

    /// Whether a command is to be applied as any other. If not, it has been dealt with: left out, put in doubt, or written in other words.
    pub(super) fn is_moved(&self, frame: &[u8], database: u32, batch: &mut Batch) -> Result<bool, FeedError> {
        let exclusions = self.exclusions.borrow();
        if exclusions.is_empty() {
            return Ok(true);
        }
        let name = Args::new(frame).next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"FLUSHALL") || name.eq_ignore_ascii_case(b"FLUSHDB") {
            self.clear(name, database, &exclusions, batch);
            return Ok(false);
        }
        if name.eq_ignore_ascii_case(b"SWAPDB") && exclusions.kept() > 0 {
            return Err(FeedError::Refused {
                shadow: format!("endpoint {}", self.spec.shadow.name),
                why: "SWAPDB would move keys that conflict policy skip keeps where they are: abandon the migration and create it with \
                      conflict policy exclude"
                    .to_owned(),
            });
        }
        match exclusions.moved(keys_with_databases(frame, database)) {
            Moved::All => Ok(true),
            Moved::Nothing => {
                self.note(|status| status.excluded.commands += 1);
                Ok(false)
            }
            Moved::Only(others) => {
                let why = format!("{} also names excluded keys", String::from_utf8_lossy(name));
                self.doubt(others.into_iter().map(|(database, key)| Doubt {
                    database,
                    key: Some(key),
                    why: why.clone(),
                }));
                self.note(|status| status.excluded.mixed += 1);
                Ok(false)
            }
        }
    }

    fn clear(&self, name: &[u8], database: u32, exclusions: &Exclusions, batch: &mut Batch) {
        let (kept, number) = (self.kept_key(), database.to_string());
        let which: &[u8] = if name.eq_ignore_ascii_case(b"FLUSHALL") { b"all" } else { number.as_bytes() };
        let mut words: Vec<&[u8]> = vec![b"EVAL", CLEAR, b"0", &kept, which];
        words.extend(exclusions.patterns().iter().map(|pattern| pattern.as_str().as_bytes()));
        batch.push(database, &words, Expect::Anything);
    }
}

/// Keys that a feed leaves on its shadow beside the data.
pub(in crate::redis) fn own_keys(feed: &str, interlay: &str) -> [Vec<u8>; 3] {
    [position_key(feed), begun_key(feed), kept_key(interlay)]
}

async fn members(client: &mut RedisClient, key: &[u8]) -> Result<Vec<DatabaseKey>, JobError> {
    let reply = client.must(&[b"SMEMBERS", key]).await?;
    let read = |text: &[u8]| {
        let at = text.iter().position(|byte| *byte == b':')?;
        let database = std::str::from_utf8(&text[..at]).ok()?.parse().ok()?;
        Some((database, text[at + 1..].to_vec()))
    };
    let names = reply.items().unwrap_or_default().iter();
    names
        .map(|name| name.bytes().and_then(read))
        .collect::<Option<_>>()
        .ok_or_else(|| JobError::answer(client.who(), format!("{} is not as Crossfade wrote it", key.escape_ascii())))
}

async fn note_kept(client: &mut RedisClient, key: &[u8], kept: &[DatabaseKey]) -> Result<(), JobError> {
    for some in kept.chunks(limits::FEED_NAMES_AT_ONCE) {
        let name = |(database, key): &DatabaseKey| [database.to_string().as_bytes(), b":", key].concat();
        let names: Vec<Vec<u8>> = some.iter().map(name).collect();
        let mut words: Vec<&[u8]> = vec![b"SADD", key];
        words.extend(names.iter().map(Vec::as_slice));
        client.must(&words).await?;
    }
    Ok(())
}
