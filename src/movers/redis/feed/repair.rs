//! Copies keys that may differ once more, and corrects deadlines: with what the authority holds at the very position the shadow has.
//!
//! The feed stands still at that position meanwhile, so nothing can come in between. Lives on the movers' thread.

use super::batch::Doubt;
use super::exact::{ReadAt, read_at};
use crate::error::JobError;
use follow::redis::client::RedisClient;
use wire::resp::encode::request;
use wire::resp::value::Value;

/// A key as the authority held it.
#[derive(Debug)]
pub struct Reading {
    pub doubt: Doubt,
    pub key: Vec<u8>,
    /// Milliseconds since the Unix epoch; -1: none.
    pub deadline_ms: i64,
    /// As DUMP gives it; `None`: there is no such key.
    pub payload: Option<Vec<u8>>,
}

/// Reads keys of one database, with the offset they are at.
///
/// # Errors
/// [`JobError`].
pub async fn read_keys(client: &mut RedisClient, doubts: Vec<Doubt>) -> Result<(u64, Vec<Reading>), JobError> {
    let Some(database) = doubts.first().map(|doubt| doubt.database) else { return Ok((0, Vec::new())) };
    let key = |doubt: &Doubt| doubt.key.clone().unwrap_or_default();
    let reads = doubts.iter().flat_map(|doubt| {
        let key = key(doubt);
        [request(&[b"PEXPIRETIME", &key]).into(), request(&[b"DUMP", &key]).into()]
    });
    let reads: Vec<Box<[u8]>> = reads.collect();
    let ReadAt { offset, replies, .. } = read_at(client, database, &reads).await?;
    let values = doubts.into_iter().zip(replies.chunks(2)).map(|(doubt, read)| match read {
        [deadline, Value::Null] => Ok((doubt, deadline.integer().unwrap_or(-2), None)),
        [deadline, Value::Bulk(payload)] => Ok((doubt, deadline.integer().unwrap_or(-1), Some(payload.clone()))),
        other => {
            let text = other.iter().map(Value::brief).collect::<Vec<_>>().join(", ");
            Err(JobError::answer(client.who(), format!("a key cannot be read: {text}")))
        }
    });
    let reading = |(doubt, deadline_ms, payload): (Doubt, i64, Option<Vec<u8>>)| {
        let key = key(&doubt);
        Reading { doubt, key, deadline_ms, payload }
    };
    Ok((offset, values.map(|value| value.map(reading)).collect::<Result<_, _>>()?))
}

/// Reads the deadlines of keys of one database, with the offset they are at: milliseconds since the Unix epoch, -1 for none, -2 for no key.
///
/// # Errors
/// [`JobError`].
pub async fn read_deadlines(
    client: &mut RedisClient,
    database: u32,
    keys: &[Box<[u8]>],
) -> Result<(u64, Vec<i64>), JobError> {
    let reads: Vec<Box<[u8]>> = keys.iter().map(|key| request(&[b"PEXPIRETIME", key]).into()).collect();
    let ReadAt { offset, replies, .. } = read_at(client, database, &reads).await?;
    let deadline = |reply: &Value| {
        reply.integer().ok_or_else(|| JobError::answer(client.who(), format!("PEXPIRETIME gave {}", reply.brief())))
    };
    Ok((offset, replies.iter().map(deadline).collect::<Result<_, _>>()?))
}
