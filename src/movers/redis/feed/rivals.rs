//! One feed writes to a shadow, and one only: takes the place of this process' earlier feeds and of those of processes that are gone, and refuses to
//! begin beside one that lives. Lives on the movers' thread.
//!
//! The servers know who is connected. A feed's connection to its shadow is named `crossfade-feed-NAME@PROCESS`; another one, named
//! `crossfade-watch@PROCESS`, asks its server ten times a second, so that a process that lives is told from one whose host has vanished.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::shadow::connect;
use crate::error::{JobError, ServerFault};
use base::model::{Endpoint, limits};
use follow::redis::client::RedisClient;

const FEED: &str = "crossfade-feed-";
const WATCH: &str = "crossfade-watch@";

/// Tells this process from every other one that ever connected to a server.
fn process() -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        format!("{:x}-{now:x}", std::process::id())
    })
}

/// A line of CLIENT LIST.
#[derive(Debug)]
struct Client {
    id: i64,
    name: String,
    address: String,
    idle_seconds: u64,
}

impl Client {
    fn parse(line: &str) -> Option<Self> {
        let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Self {
            id: field("id")?.parse().ok()?,
            name: field("name")?.to_owned(),
            address: field("addr").unwrap_or("?").to_owned(),
            idle_seconds: field("idle").and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }

    /// Of a feed: its name, and its process where it says so.
    fn feed(&self) -> Option<(&str, Option<&str>)> {
        let rest = self.name.strip_prefix(FEED)?;
        Some(rest.rsplit_once('@').map_or((rest, None), |(name, process)| (name, Some(process))))
    }
}

async fn clients(client: &mut RedisClient) -> Result<Vec<Client>, JobError> {
    let list = client.must(&[b"CLIENT", b"LIST"]).await?;
    let list = String::from_utf8_lossy(list.bytes().unwrap_or_default()).into_owned();
    Ok(list.lines().filter_map(Client::parse).collect())
}

/// Names a connection that is used again and again while this process lives.
///
/// # Errors
/// [`JobError`].
pub async fn name_watch(client: &mut RedisClient) -> Result<(), JobError> {
    client.must(&[b"CLIENT", b"SETNAME", format!("{WATCH}{}", process()).as_bytes()]).await?;
    Ok(())
}

/// Ends the connections of earlier feeds of this name and takes their place. What such a connection still holds must not be applied after the
/// position has been read: it would be applied twice. A killed client's unread input is dropped by the server.
///
/// # Errors
/// [`JobError`]; also when another Crossfade that lives keeps this server in step.
pub async fn take_over(client: &mut RedisClient, feed: &str) -> Result<(), JobError> {
    let name = format!("{FEED}{feed}@{}", process());
    client.must(&[b"CLIENT", b"SETNAME", name.as_bytes()]).await?;
    let own = client.must(&[b"CLIENT", b"ID"]).await?.integer().unwrap_or(0);
    let is_predecessor = |name: &str, of: Option<&str>| name == feed && of.is_none_or(|of| of == process());
    for other in clients(client).await?.iter().filter(|other| other.id != own) {
        if other.feed().is_some_and(|(name, of)| is_predecessor(name, of)) {
            end(client, other.id).await?;
        }
    }
    outlast_rivals(client, own).await
}

/// Looks, before a feed begins, for another process that keeps either server in step. One that lives and has no feed on either may be about to change the
/// authority: its feed is on one of them a moment later. Nothing is named yet, so that it is not in that one's way.
///
/// # Errors
/// [`JobError`]; also when there is such a process.
pub async fn look_for_others(shadow: &Endpoint, authority: &Endpoint) -> Result<(), JobError> {
    let (mut shadow, mut authority) = (connect(shadow).await?, connect(authority).await?);
    let deadline = Instant::now() + limits::FEED_RIVAL_PATIENCE;
    loop {
        let mut anyone = false;
        for client in [&mut shadow, &mut authority] {
            let all = clients(client).await?;
            let of_others = |one: &&Client| one.feed().is_some_and(|(_, of)| of.is_some_and(|of| of != process()));
            if let Some(rival) = all.iter().filter(of_others).find(|rival| lives(rival, &all)) {
                return Err(refusal(client.who(), rival));
            }
            anyone |= all.iter().any(watches_for_another);
        }
        if !anyone || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(limits::FEED_RIVAL_LOOK).await;
    }
}

/// A connection of another process that has asked something lately.
fn watches_for_another(client: &Client) -> bool {
    client.name.strip_prefix(WATCH).is_some_and(|of| of != process())
        && client.idle_seconds < limits::FEED_RIVAL_SILENCE_SECONDS
}

/// Ends what feeds of other processes have left of their connections to what is the authority now: this process died in a flip, and what a network
/// has held back of such a connection must not be executed after what clients write. Those of this process have ended before.
///
/// # Errors
/// [`JobError`]; also when another Crossfade that lives keeps this server in step: then it moves the same servers, and has changed the authority.
pub async fn end_other_direction(authority: &Endpoint) -> Result<(), JobError> {
    let mut client = connect(authority).await?;
    // Whoever keeps it in step was here first.
    outlast_rivals(&mut client, i64::MAX).await
}

/// Ends what this process' feed of this name has left of its connections to its shadow: what a network holds back of them is not executed any more.
///
/// # Errors
/// [`JobError`].
pub async fn end_feed(shadow: &mut RedisClient, feed: &str) -> Result<(), JobError> {
    let own = format!("{FEED}{feed}@{}", process());
    end_connections(shadow, |name| name == own).await
}

/// Waits until no other process has a feed here, or it is known to be gone; ends what it has left.
async fn outlast_rivals(client: &mut RedisClient, own: i64) -> Result<(), JobError> {
    let deadline = Instant::now() + limits::FEED_RIVAL_PATIENCE;
    loop {
        let all = clients(client).await?;
        let of_others = |other: &&Client| {
            // The one that came later gives way.
            other.id < own && other.feed().is_some_and(|(_, of)| of.is_some_and(|of| of != process()))
        };
        let rivals: Vec<&Client> = all.iter().filter(of_others).collect();
        if rivals.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            if let Some(living) = rivals.iter().find(|rival| lives(rival, &all)) {
                return Err(refusal(client.who(), living));
            }
            for gone in &rivals {
                end(client, gone.id).await?;
            }
            return Ok(());
        }
        sleep(limits::FEED_RIVAL_LOOK).await;
    }
}

/// Whether the process of a feed has asked its server something lately.
fn lives(rival: &Client, all: &[Client]) -> bool {
    let Some((_, Some(process))) = rival.feed() else { return false };
    let is_its_watch = |other: &Client| other.name.strip_prefix(WATCH) == Some(process);
    all.iter().any(|other| {
        (is_its_watch(other) || other.id == rival.id) && other.idle_seconds < limits::FEED_RIVAL_SILENCE_SECONDS
    })
}

fn refusal(who: &str, rival: &Client) -> JobError {
    let feed = rival.feed().map_or("?", |(name, _)| name);
    JobError::server(
        who,
        ServerFault::Refused(format!(
            "another Crossfade, connected from {}, keeps this server in step (feed {feed}): end that one, or move to another server",
            rival.address
        )),
    )
}

async fn end(client: &mut RedisClient, id: i64) -> Result<(), JobError> {
    // It may have gone by itself in between.
    client.call(&[b"CLIENT", b"KILL", b"ID", id.to_string().as_bytes()]).await?;
    Ok(())
}

/// Ends the connections of a server that are chosen by name.
///
/// # Errors
/// [`JobError`].
pub async fn end_connections(client: &mut RedisClient, chosen: impl Fn(&str) -> bool) -> Result<(), JobError> {
    for other in clients(client).await?.iter().filter(|other| chosen(&other.name)) {
        end(client, other.id).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: i64, name: &str, idle: u64) -> Client {
        let line =
            format!("id={id} addr=10.0.0.7:4711 laddr=127.0.0.1:6379 fd=8 name={name} age=9 idle={idle} flags=N");
        Client::parse(&line).expect("a client")
    }

    #[test]
    fn a_process_lives_while_it_asks() {
        let rival = || client(3, "crossfade-feed-orders:1@b-1", 60);
        for (expected, others) in [
            (false, vec![]),
            (true, vec![client(4, "crossfade-watch@b-1", 0)]),
            (false, vec![client(4, "crossfade-watch@b-1", 2)]),
            (false, vec![client(4, "crossfade-watch@c-1", 0)]),
        ] {
            let all: Vec<Client> = others.into_iter().chain([rival()]).collect();
            assert_eq!(lives(&rival(), &all), expected, "{all:?}");
        }
        assert!(lives(&client(3, "crossfade-feed-orders:1@b-1", 0), &[client(3, "crossfade-feed-orders:1@b-1", 0)]));
        assert_eq!(client(3, "crossfade-feed-a:b@c-1", 0).feed(), Some(("a:b", Some("c-1"))));
        assert_eq!(client(3, "crossfade-feed-a", 0).feed(), Some(("a", None)));
        assert_eq!(client(3, "crossfade/core/orders/0", 0).feed(), None);
    }
}
