//! The shadow of a replication feed: what it is like, and where the feed has left its position. Lives on the movers' thread.

use super::dialect::Dialect;
use crate::error::{JobError, ServerFault};
use crate::redis::facts::check_endpoint;
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use follow::redis::position::Position;
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
pub async fn position(client: &mut RedisClient, key: &[u8]) -> Result<Option<Position>, JobError> {
    let reply = client.must(&[b"GET", key]).await?;
    let Some(text) = reply.bytes() else { return Ok(None) };
    let text = String::from_utf8_lossy(text);
    let position = text.parse().map_err(|why: follow::redis::position::NotAPosition| {
        let key = String::from_utf8_lossy(key);
        JobError::server(
            client.who(),
            ServerFault::Refused(format!("{key}: {why}; remove the key to fill the server anew")),
        )
    });
    position.map(Some)
}

/// Ends the connections of earlier feeds of this name and takes their place. What such a connection still holds must not be applied after the
/// position has been read: it would be applied twice. A killed client's unread input is dropped by the server.
///
/// # Errors
/// [`JobError`].
pub async fn take_over(client: &mut RedisClient, feed: &str) -> Result<(), JobError> {
    let name = format!("crossfade-feed-{feed}");
    client.must(&[b"CLIENT", b"SETNAME", name.as_bytes()]).await?;
    let own = client.must(&[b"CLIENT", b"ID"]).await?.integer();
    end_connections(client, |other, id| other == name && Some(id) != own).await
}

/// Ends the connections of a server that are chosen by name and number.
///
/// # Errors
/// [`JobError`].
pub async fn end_connections(client: &mut RedisClient, chosen: impl Fn(&str, i64) -> bool) -> Result<(), JobError> {
    let list = client.must(&[b"CLIENT", b"LIST"]).await?;
    let list = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let id = field("id").and_then(|id| id.parse::<i64>().ok());
        if let (Some(name), Some(id)) = (field("name"), id)
            && chosen(name, id)
        {
            // It may have gone by itself in between.
            client.call(&[b"CLIENT", b"KILL", b"ID", id.to_string().as_bytes()]).await?;
        }
    }
    Ok(())
}
