//! Whole-server comparison of two servers at rest: every key, its type, its content, its deadline.
//!
//! Lives on any thread with a tokio runtime. Not for servers under write: keys that change between two reads look different.
//! [`super::verify`] is for those.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hasher};

use super::clock::now_ms;
use super::content::{Content, Kind};
use super::names::{Batch, NameScan};
use super::verify::{Divergence, Seen, Verdict, judge};
use crate::error::JobError;
use base::model::{Endpoint, limits};
use wire::resp::value::{Value, encode_request, encode_request_into};

/// How many keys of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeCount {
    pub name: &'static str,
    pub keys: u64,
}

/// What a server holds, as one number that does not depend on order, encoding or the moment of expiry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerDigest {
    pub keys: u64,
    /// Keys with a deadline.
    pub volatile: u64,
    pub types: Vec<TypeCount>,
    /// Sum over all keys of a 128-bit hash of database, name, type, content and whether a deadline exists.
    pub digest: u128,
}

/// Reads every key of a server at rest. Remembers 16 bytes per key, because SCAN may name a key twice.
///
/// # Errors
/// [`JobError`].
pub async fn digest_server(endpoint: &Endpoint) -> Result<ServerDigest, JobError> {
    let mut scan = NameScan::begin(endpoint, limits::DIGEST_BATCH_KEYS).await?;
    let mut result = ServerDigest::default();
    let mut types: BTreeMap<Kind, u64> = BTreeMap::new();
    let mut seen = HashSet::new();
    while let Some(mut batch) = scan.next_batch().await? {
        batch.keys.retain(|key| seen.insert(hash128(|hasher| name_of(hasher, batch.database, key))));
        let kinds = kinds_of(&mut scan, &batch).await?;
        let replies = read_batch(&mut scan, &batch, &kinds).await?;
        for ((key, kind), replies) in batch.keys.iter().zip(&kinds).zip(&replies) {
            let volatile = replies[1].integer().is_some_and(|deadline| deadline >= 0);
            let Some(content) = read_content(endpoint, *kind, key, &replies[2..])? else { continue };
            result.keys += 1;
            result.volatile += u64::from(volatile);
            *types.entry(*kind).or_default() += 1;
            result.digest = result.digest.wrapping_add(hash128(|hasher| {
                name_of(hasher, batch.database, key);
                hasher.write_u8(u8::from(volatile));
                content.feed(hasher);
            }));
        }
    }
    result.types = types.into_iter().map(|(kind, keys)| TypeCount { name: kind.as_str(), keys }).collect();
    Ok(result)
}

fn read_content(endpoint: &Endpoint, kind: Kind, key: &[u8], replies: &[Value]) -> Result<Option<Content>, JobError> {
    if kind == Kind::Absent {
        return Ok(None);
    }
    Content::read(kind, replies).map_err(|why| {
        let what = format!("key {:?}: {why}", key.escape_ascii().to_string());
        JobError::answer(format!("endpoint {}", endpoint.name), what)
    })
}

fn name_of(hasher: &mut DefaultHasher, database: u32, key: &[u8]) {
    hasher.write_u32(database);
    hasher.write_u64(key.len() as u64);
    hasher.write(key);
}

fn hash128(feed: impl Fn(&mut DefaultHasher)) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(seed);
        feed(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

async fn kinds_of(scan: &mut NameScan, batch: &Batch) -> Result<Vec<Kind>, JobError> {
    let mut requests = Vec::new();
    for key in &batch.keys {
        encode_request_into(&mut requests, &[b"TYPE", key]);
    }
    let replies = scan.ask(batch.database, &requests, batch.keys.len()).await?;
    Ok(replies.iter().map(Kind::from_type).collect())
}

/// TYPE, PEXPIRETIME and the reads of each key.
async fn read_batch(scan: &mut NameScan, batch: &Batch, kinds: &[Kind]) -> Result<Vec<Vec<Value>>, JobError> {
    let mut requests = Vec::new();
    let mut count = 0;
    for (key, kind) in batch.keys.iter().zip(kinds) {
        requests.extend(encode_request(&[b"TYPE", key]));
        requests.extend(encode_request(&[b"PEXPIRETIME", key]));
        kind.reads(key).iter().for_each(|request| requests.extend_from_slice(request));
        count += 2 + kind.reads_len();
    }
    let mut replies = scan.ask(batch.database, &requests, count).await?.into_iter();
    Ok(kinds.iter().map(|kind| replies.by_ref().take(2 + kind.reads_len()).collect()).collect())
}

/// Compares two servers at rest key by key; names at most [`limits::VERIFY_DIVERGENCES_MAX`] keys. Equal when the list is empty.
/// A key whose type cannot be read (a module's) is named as a difference of class "type": it is never assumed equal.
///
/// # Errors
/// [`JobError`].
pub async fn compare_servers(
    first: &Endpoint,
    second: &Endpoint,
    ttl_tolerance_ms: u64,
) -> Result<Vec<Divergence>, JobError> {
    let mut scan_first = NameScan::begin(first, limits::DIGEST_BATCH_KEYS).await?;
    let mut scan_second = NameScan::begin(second, limits::DIGEST_BATCH_KEYS).await?;
    let mut found = Vec::new();
    while let Some(batch) = scan_first.next_batch().await? {
        let kinds = kinds_of(&mut scan_first, &batch).await?;
        let (a, b) = tokio::try_join!(
            read_batch(&mut scan_first, &batch, &kinds),
            read_batch(&mut scan_second, &batch, &kinds)
        )?;
        let now = now_ms();
        for (at, key) in batch.keys.iter().enumerate() {
            let (a, b) = (Seen::read(kinds[at], &a[at]), Seen::read(kinds[at], &b[at]));
            let (class, source, target) = match judge(kinds[at], &a, &b, now, ttl_tolerance_ms) {
                Verdict::Equal => continue,
                Verdict::Different { class, authority, shadow } => (class, authority, shadow),
                Verdict::Again(_) | Verdict::Inconclusive => ("type", format!("{a:?}"), format!("{b:?}")),
            };
            note(&mut found, batch.database, key, class, [(first, source), (second, target)]);
        }
    }
    while let Some(batch) = scan_second.next_batch().await? {
        let kinds = kinds_of(&mut scan_first, &batch).await?;
        for (key, kind) in batch.keys.iter().zip(kinds) {
            if kind == Kind::Absent {
                extra(&mut found, &mut scan_second, first, second, (batch.database, key), ttl_tolerance_ms).await?;
            }
        }
    }
    Ok(found)
}

async fn extra(
    found: &mut Vec<Divergence>,
    scan: &mut NameScan,
    first: &Endpoint,
    second: &Endpoint,
    (database, key): (u32, &[u8]),
    tolerance_ms: u64,
) -> Result<(), JobError> {
    let deadline = scan.ask(database, &encode_request(&[b"PEXPIRETIME", key]), 1).await?;
    let deadline = deadline.first().and_then(Value::integer).unwrap_or(-2);
    let gone_or_going = deadline == -2 || u64::try_from(deadline).is_ok_and(|ms| ms <= now_ms() + tolerance_ms);
    if !gone_or_going {
        note(found, database, key, "extra", [(first, "absent".to_owned()), (second, "present".to_owned())]);
    }
    Ok(())
}

fn note(found: &mut Vec<Divergence>, database: u32, key: &[u8], class: &'static str, sides: [(&Endpoint, String); 2]) {
    if found.len() < limits::VERIFY_DIVERGENCES_MAX {
        let [source, target] = sides.map(|(endpoint, what)| format!("{}: {what}", endpoint.name));
        found.push(Divergence { database, key: key.to_vec(), class, source, target });
    }
}
