//! Copying one value: DUMP payloads made acceptable to the receiver, and typed reads and writes where they are not.
//!
//! A DUMP payload ends with a 2-byte little-endian RDB version and a CRC64 of all before it (Redis `createDumpPayload`).

pub mod pieces;

use crate::rdb::crc64::{Crc64, checksum};
use crate::rdb::dump;

use super::effect::{Effects, Expect, bulk, bulks, elements, integer};
use super::encode::{number, request};

/// Versions above this are rewritten to it: Redis 7.0 writes 10, and every receiver Crossfade supports reads it.
const RDB_VERSION_COMMON: u16 = 10;
/// Highest value type whose encoding means the same in Redis and Valkey (22 and above do not).
const RDB_TYPE_SHARED_MAX: u8 = 21;
/// Elements in one typed write: bounds the size of a request.
const TYPED_CHUNK: usize = 512;

/// The data types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    /// A module's type, or one this build does not know.
    Other(u8),
}

/// The data type of a DUMP payload, by its first byte (Redis `rdb.h`).
#[must_use]
pub fn data_type(payload: &[u8]) -> Option<DataType> {
    Some(match *payload.first()? {
        0 => DataType::String,
        1 | 10 | 14 | 18 => DataType::List,
        2 | 11 | 20 => DataType::Set,
        3 | 5 | 12 | 17 => DataType::SortedSet,
        4 | 9 | 13 | 16 | 22 | 23 | 24 | 25 => DataType::Hash,
        15 | 19 | 21 => DataType::Stream,
        other => DataType::Other(other),
    })
}

/// Whether RESTORE can be tried with this payload between any two supported servers.
#[must_use]
pub fn is_portable(payload: &[u8]) -> bool {
    payload.len() > 10 && payload[0] <= RDB_TYPE_SHARED_MAX && !matches!(data_type(payload), Some(DataType::Other(_)))
}

/// Rewrites the footer so that an older receiver does not refuse the payload only because of its version.
/// The payload must be complete; one that is too short is left unchanged, and the receiver will refuse it.
pub fn lower_version(payload: &mut [u8]) {
    let Some(body) = payload.len().checked_sub(10) else { return };
    if u16::from_le_bytes([payload[body], payload[body + 1]]) <= RDB_VERSION_COMMON {
        return;
    }
    let footer = dump::footer(Crc64::resume(checksum(&payload[..body])), RDB_VERSION_COMMON);
    payload[body..].copy_from_slice(&footer);
}

/// The read-only requests that show a whole value of this type; `None` for types that have no typed copy.
#[must_use]
pub fn typed_reads(kind: DataType, key: &[u8]) -> Option<Vec<Vec<u8>>> {
    Some(match kind {
        DataType::String => vec![request(&[b"GET", key])],
        DataType::List => vec![request(&[b"LRANGE", key, b"0", b"-1"])],
        DataType::Set => vec![request(&[b"SMEMBERS", key])],
        DataType::SortedSet => vec![request(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"])],
        DataType::Hash => vec![request(&[b"HGETALL", key])],
        DataType::Stream => vec![request(&[b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"])],
        DataType::Other(_) => return None,
    })
}

/// Appends the requests that rebuild a value from its typed read (RESP2) and set its deadline. The key is deleted first.
/// `Err(())`: the reply does not fit the type (the value changed meanwhile, or the reply is an error); what was appended is useless.
///
/// # Errors
/// As described.
#[allow(clippy::result_unit_err)]
pub fn typed_writes(kind: DataType, key: &[u8], reply: &[u8], deadline: i64, effects: &mut Effects) -> Result<(), ()> {
    effects.push(&[b"DEL", key], Expect::NoError);
    let whole = match kind {
        DataType::String => {
            let Some(value) = bulk(reply) else { return if reply.starts_with(b"$-1") { Ok(()) } else { Err(()) } };
            effects.push(&[b"SET", key, value], Expect::NoError);
            true
        }
        DataType::List => chunks(b"RPUSH", key, &bulks(reply).ok_or(())?, effects),
        DataType::Set => chunks(b"SADD", key, &bulks(reply).ok_or(())?, effects),
        DataType::Hash => chunks(b"HSET", key, &bulks(reply).ok_or(())?, effects),
        DataType::SortedSet => {
            let flat = bulks(reply).ok_or(())?;
            // ZRANGE answers member, score; ZADD takes score, member.
            let swapped: Vec<&[u8]> = flat.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]).collect();
            chunks(b"ZADD", key, &swapped, effects)
        }
        DataType::Stream => {
            stream(key, reply, effects)?;
            true
        }
        DataType::Other(_) => return Err(()),
    };
    if whole && deadline > 0 {
        effects.push(&[b"PEXPIREAT", key, &number(deadline)], Expect::Same(b":1\r\n".as_slice().into()));
    }
    Ok(())
}

/// Returns false when the key was absent, so that there is nothing to write.
fn chunks(command: &[u8], key: &[u8], elements: &[&[u8]], effects: &mut Effects) -> bool {
    for chunk in elements.chunks(TYPED_CHUNK) {
        let mut args = vec![command, key];
        args.extend_from_slice(chunk);
        effects.push(&args, Expect::NoError);
    }
    !elements.is_empty()
}

/// Rebuilds a stream from `XINFO STREAM key FULL COUNT 0` (RESP2): entries, last id, counters, groups, consumers, pending.
fn stream(key: &[u8], reply: &[u8], effects: &mut Effects) -> Result<(), ()> {
    let fields = Fields::of(reply).ok_or(())?;
    let entries = elements(fields.get(b"entries").ok_or(())?).ok_or(())?;
    for entry in &entries {
        let parts = elements(entry).ok_or(())?;
        let (id, values) = (bulk(parts.first().ok_or(())?).ok_or(())?, bulks(parts.get(1).ok_or(())?).ok_or(())?);
        let mut args = vec![b"XADD".as_slice(), key, id];
        args.extend_from_slice(&values);
        effects.push(&args, Expect::NoError);
    }
    if entries.is_empty() {
        effects.push(&[b"XADD", key, b"0-1", b"f", b"v"], Expect::NoError);
        effects.push(&[b"XDEL", key, b"0-1"], Expect::NoError);
    }
    let last = fields.get(b"last-generated-id").and_then(bulk).ok_or(())?;
    let added = number(fields.get(b"entries-added").and_then(integer).unwrap_or(entries.len() as i64));
    let deleted = fields.get(b"max-deleted-entry-id").and_then(bulk).unwrap_or(b"0-0");
    effects.push(&[b"XSETID", key, last, b"ENTRIESADDED", &added, b"MAXDELETEDID", deleted], Expect::NoError);
    for group in elements(fields.get(b"groups").ok_or(())?).ok_or(())? {
        stream_group(key, group, effects)?;
    }
    Ok(())
}

fn stream_group(key: &[u8], group: &[u8], effects: &mut Effects) -> Result<(), ()> {
    let fields = Fields::of(group).ok_or(())?;
    let name = fields.get(b"name").and_then(bulk).ok_or(())?;
    let last = fields.get(b"last-delivered-id").and_then(bulk).ok_or(())?;
    let read = fields.get(b"entries-read").and_then(integer).map(number);
    let mut create = vec![b"XGROUP".as_slice(), b"CREATE", key, name, last];
    if let Some(read) = &read {
        create.extend_from_slice(&[b"ENTRIESREAD", read]);
    }
    effects.push(&create, Expect::NoError);
    for consumer in elements(fields.get(b"consumers").ok_or(())?).ok_or(())? {
        let consumer = Fields::of(consumer).and_then(|fields| fields.get(b"name").and_then(bulk)).ok_or(())?;
        effects.push(&[b"XGROUP", b"CREATECONSUMER", key, name, consumer], Expect::NoError);
    }
    // Each pending entry: id, consumer, delivery time in ms, delivery count.
    for pending in elements(fields.get(b"pel").or_else(|| fields.get(b"pending")).ok_or(())?).ok_or(())? {
        let parts = elements(pending).ok_or(())?;
        let [id, consumer, time, count] = parts.as_slice() else { return Err(()) };
        let (id, consumer) = (bulk(id).ok_or(())?, bulk(consumer).ok_or(())?);
        let (time, count) = (number(integer(time).ok_or(())?), number(integer(count).ok_or(())?));
        effects.push(
            &[b"XCLAIM", key, name, consumer, b"0", id, b"TIME", &time, b"RETRYCOUNT", &count, b"FORCE", b"JUSTID"],
            Expect::NoError,
        );
    }
    Ok(())
}

/// A flat name-value reply.
struct Fields<'a>(Vec<&'a [u8]>);

impl<'a> Fields<'a> {
    fn of(reply: &'a [u8]) -> Option<Self> {
        elements(reply).map(Self)
    }

    fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.0.chunks_exact(2).find(|pair| bulk(pair[0]) == Some(name)).map(|pair| pair[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_footer_is_lowered_and_its_crc_is_right() {
        // DUMP of SET k hello, as Redis 7.0.15 writes it: version 10.
        let redis: &[u8] = b"\x00\x05hello\x0a\x00";
        let mut payload = redis.to_vec();
        payload.extend_from_slice(&checksum(redis).to_le_bytes());
        let original = payload.clone();
        lower_version(&mut payload);
        assert_eq!(payload, original, "version 10 is unchanged");
        let mut newer = b"\x00\x05hello\x50\x00".to_vec();
        newer.extend_from_slice(&[0; 8]);
        lower_version(&mut newer);
        assert_eq!(newer, original);
        lower_version(&mut [0; 3]);
    }

    #[test]
    fn a_sorted_set_is_written_score_first_and_in_chunks() {
        let mut effects = Effects::default();
        typed_writes(
            DataType::SortedSet,
            b"z",
            b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\ninf\r\n",
            9,
            &mut effects,
        )
        .unwrap();
        let text = String::from_utf8(effects.bytes).unwrap().replace("\r\n", " ");
        assert!(text.contains("ZADD $1 z $1 1 $1 a $3 inf $1 b"), "{text}");
        assert!(text.ends_with("PEXPIREAT $1 z $1 9 "), "{text}");
        let wrong = b"-WRONGTYPE x\r\n";
        assert_eq!(typed_writes(DataType::Set, b"z", wrong, -1, &mut Effects::default()), Err(()));
    }
}
