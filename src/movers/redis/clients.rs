//! Short work on servers at a flip: ends connections that may still write, leaves and removes the feed's own keys. Lives on the movers' thread.

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::feed::exact::end_of_stream;
use super::feed::rivals::{self, name_watch};
use super::feed::shadow::connect;
use crate::contract::Route;
use crate::error::{JobError, ServerFault};
use base::model::{Endpoint, InterlayName, limits};
use follow::redis::client::RedisClient;
use follow::redis::follower;
use follow::redis::position::Position;

/// Kept open, so that a flip does not wait for a log-in.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub authority: Mutex<Option<RedisClient>>,
    pub shadow: Mutex<Option<RedisClient>>,
}

impl Clients {
    pub(super) async fn end_of_authority(&self, route: &Route, deadline: Instant) -> Result<u64, JobError> {
        end_of(&self.authority, &route.authority, deadline).await
    }

    /// Where the authority's stream ends, and which stream that is; `None`: it keeps none.
    pub(super) async fn stream_of_authority(
        &self,
        route: &Route,
        deadline: Instant,
    ) -> Result<Option<Position>, JobError> {
        let ask = async |client: &mut RedisClient| Ok(follower::end_of_stream(client).await?);
        let asked = with_client(&self.authority, &route.authority, ask);
        timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(late(&route.authority)))
    }

    pub(super) async fn end_of_shadow(&self, route: &Route, deadline: Instant) -> Result<u64, JobError> {
        end_of(&self.shadow, &route.shadow, deadline).await
    }
}

async fn end_of(kept: &Mutex<Option<RedisClient>>, endpoint: &Endpoint, deadline: Instant) -> Result<u64, JobError> {
    let asked = with_client(kept, endpoint, async |client| end_of_stream(client).await);
    timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(late(endpoint)))
}

fn late(endpoint: &Endpoint) -> JobError {
    JobError::server(format!("endpoint {}", endpoint.name), ServerFault::ReplyTimeout(limits::JOB_REPLY_TIMEOUT))
}

/// Asks on a connection that is kept open, made where there is none, and given up after a failure.
pub(super) async fn with_client<T>(
    kept: &Mutex<Option<RedisClient>>,
    endpoint: &Endpoint,
    ask: impl AsyncFnOnce(&mut RedisClient) -> Result<T, JobError>,
) -> Result<T, JobError> {
    let mut kept = kept.lock().await;
    // Taken out, so that one whose answer was not waited for is not asked again.
    let mut client = match kept.take() {
        Some(client) => client,
        None => {
            let mut client = connect(endpoint).await?;
            name_watch(&mut client).await?;
            client
        }
    };
    let answer = ask(&mut client).await?;
    *kept = Some(client);
    Ok(answer)
}

/// What the names of the cores' connections of an interlay begin with: see `wire::resp::login::connection_name`.
fn cores_of(interlay: &InterlayName) -> String {
    format!("crossfade/core/{interlay}/")
}

/// Ends what the cores have left of their connections to the authority: what such a connection still holds must not be executed after the
/// authority has changed.
pub(super) async fn end_connections(clients: &Clients, route: &Route, interlay: &InterlayName) -> Result<(), JobError> {
    let prefix = cores_of(interlay);
    let of_a_core = |name: &str| name.starts_with(&prefix);
    with_client(&clients.authority, &route.authority, async |client| rivals::end_connections(client, of_a_core).await)
        .await
}

/// Ends what a feed that was given up has left of its connections to the shadow.
pub(super) async fn end_feed(clients: &Clients, route: &Route, feed: &str) -> Result<(), JobError> {
    with_client(&clients.shadow, &route.shadow, async |client| rivals::end_feed(client, feed).await).await
}

/// Leaves at the authority where the next epoch's feed, which will write there, begins.
pub(super) async fn leave_position(
    clients: &Clients,
    route: &Route,
    key: &[u8],
    position: &Position,
) -> Result<(), JobError> {
    let text = position.to_string();
    with_client(&clients.authority, &route.authority, async |client| {
        client.must(&[b"SET", key, text.as_bytes()]).await?;
        Ok(())
    })
    .await
}

pub(super) async fn remove_key(endpoint: &Endpoint, key: &[u8]) -> Result<(), JobError> {
    connect(endpoint).await?.must(&[b"DEL", key]).await?;
    Ok(())
}
