//! The shadow of a replication feed: what it is like, and where the feed has left its position. Lives on the movers' thread.

use super::dialect::Dialect;
use super::unsettled::Left;
use crate::error::{JobError, ServerFault};
use crate::redis::facts::check_endpoint;
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use wire::rdb::dump;

/// Written and removed again to see a DUMP payload of the server.
const PROBE: &[u8] = b"__crossfade:smoke:payload";

/// Where a feed keeps its position, in database 0.
#[must_use]
pub fn position_key(feed: &str) -> Vec<u8> {
    [crate::RESERVED_PREFIX, b"position:", feed.as_bytes()].concat()
}

/// Looks at a server: what it is to be sent.
///
/// # Errors
/// [`JobError`] naming the endpoint and what to do.
pub async fn dialect(endpoint: &Endpoint, grace_ms: i64) -> Result<(Dialect, String), JobError> {
    let facts = check_endpoint(endpoint).await?;
    let mut client = connect(endpoint).await?;
    client.must(&[b"SET", PROBE, b"1"]).await?;
    let payload = client.must(&[b"DUMP", PROBE]).await?;
    client.must(&[b"DEL", PROBE]).await?;
    let payload = payload.bytes().unwrap_or_default();
    let parsed = dump::parse(payload).map_err(|why| JobError::answer(client.who(), format!("DUMP: {why}")))?;
    Ok((Dialect { rdb_version: parsed.version, commands: facts.commands, grace_ms }, facts.version))
}

/// A connection in database 0, whatever database the endpoint names: a feed keeps all of them.
///
/// # Errors
/// [`JobError`].
pub async fn connect(endpoint: &Endpoint) -> Result<RedisClient, JobError> {
    let mut client = RedisClient::connect(endpoint).await?;
    client.select(0).await?;
    Ok(client)
}

/// Where the feed has left off; `None`: it has never been in step, or not since it was filled last.
///
/// # Errors
/// [`JobError`]; a text that is no position is refused, so that nothing is applied twice.
pub async fn position(client: &mut RedisClient, key: &[u8]) -> Result<Option<Left>, JobError> {
    let reply = client.must(&[b"GET", key]).await?;
    let Some(text) = reply.bytes() else { return Ok(None) };
    let text = String::from_utf8_lossy(text);
    let left = text.parse().map_err(|why: follow::redis::position::NotAPosition| {
        let key = String::from_utf8_lossy(key);
        JobError::server(
            client.who(),
            ServerFault::Refused(format!("{key}: {why}; remove the key to fill the server anew")),
        )
    });
    left.map(Some)
}
