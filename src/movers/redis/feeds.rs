//! By what two Redis servers can be kept in step: asks each whether it gives out its stream of changes. Lives on the movers' thread.

use crate::contract::Feeds;
use crate::error::{JobError, ServerError, ServerFault};
use base::model::{Endpoint, FeedKind};
use follow::redis::client::RedisClient;
use follow::redis::replica::{Replica, Wanted};

/// Both servers are asked: each is the authority before or after a flip.
///
/// # Errors
/// [`JobError`]: a server cannot be reached.
pub async fn feeds(source: &Endpoint, target: &Endpoint) -> Result<Feeds, JobError> {
    for endpoint in [source, target] {
        if let Some(why) = refusal(endpoint).await? {
            return Ok(Feeds { usable: vec![FeedKind::Lane], refused: vec![(FeedKind::Replication, why)] });
        }
    }
    Ok(Feeds { usable: vec![FeedKind::Replication, FeedKind::Lane], refused: Vec::new() })
}

/// Why this server does not give out its stream; `None`: it does.
async fn refusal(endpoint: &Endpoint) -> Result<Option<String>, JobError> {
    let mut client = RedisClient::connect(endpoint).await?;
    let who = client.who().to_owned();
    let role = client.call(&[b"ROLE"]).await?;
    let word = role.items().and_then(|items| items.first()?.bytes()).map(<[u8]>::to_vec);
    match word.as_deref() {
        Some(b"master") => {}
        Some(_) => return Ok(Some(format!("{who} is a replica of another server, and its stream is not its own"))),
        None => return Ok(Some(format!("{who} does not answer ROLE ({}): allow its user +role", role.brief()))),
    }
    // Without PSYNC itself, so that no server begins a snapshot for a question.
    match Replica::connect(endpoint, "7.0.0", Wanted::Stream).await {
        Ok(_) => {}
        Err(ServerError::Unusable { cause: ServerFault::Refused(why), .. }) => {
            return Ok(Some(format!("{who} refuses replicas ({why}): allow its user +psync +replconf +ping")));
        }
        Err(error) => return Err(error.into()),
    }
    let known = client.call(&[b"COMMAND", b"INFO", b"PSYNC"]).await?;
    let has = known.items().is_some_and(|items| items.first().is_some_and(|item| item.items().is_some()));
    Ok((!has).then(|| format!("{who} has no PSYNC, as managed services do")))
}
