//! One look at a server: who it is, what it holds, what it can do.
//!
//! Lives on the movers' thread. Reads only; what the findings mean is `findings`'s and the workflow's business.

use std::collections::HashMap;

use tokio::time::Instant;

use super::clock::now_ms;
use crate::error::{JobError, ServerFault};
use base::model::Endpoint;
use follow::redis::client::RedisClient;
use wire::resp::value::Value;

/// What one look at a server found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFacts {
    /// "redis" or "valkey".
    pub server: String,
    pub version: String,
    pub run_id: String,
    pub role: String,
    /// Keys per logical database, only non-empty ones: (database, keys, keys with expiry).
    pub databases: Vec<(u32, u64, u64)>,
    pub used_memory_bytes: u64,
    pub maxmemory_bytes: u64,
    pub maxmemory_policy: String,
    pub cluster_enabled: bool,
    /// Command names, lower case, sorted.
    pub commands: Vec<String>,
    pub modules: Vec<String>,
    /// Names of ACL users other than `default`.
    pub acl_users: Vec<String>,
    pub usage: Usage,
    pub ping_us: u64,
    /// Local clock minus server clock, milliseconds.
    pub clock_skew_ms: i64,
}

/// What is in use at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    pub connected_clients: u64,
    /// Replicas that count for `min-replicas-to-write`.
    pub good_replicas: u64,
    /// Scripts that EVALSHA finds.
    pub cached_scripts: u64,
    /// Hashes with fields that expire; 0 as well where the server has no such thing.
    pub hashes_with_field_ttl: u64,
}

/// The reply to INFO, by field.
#[derive(Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Empty when there is no such field.
    pub(super) fn get(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    fn number(&self, field: &str) -> u64 {
        self.get(field).parse().unwrap_or(0)
    }

    /// (database, keys, keys with expiry), ascending, only non-empty ones.
    pub(super) fn databases(&self) -> Vec<(u32, u64, u64)> {
        let mut found: Vec<(u32, u64, u64)> = self
            .0
            .iter()
            .filter_map(|(name, value)| {
                let database = name.strip_prefix("db")?.parse().ok()?;
                let field = |name: &str| {
                    value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
                };
                Some((database, field("keys")?, field("expires").unwrap_or(0)))
            })
            .filter(|(_, keys, _)| *keys > 0)
            .collect();
        found.sort_unstable();
        found
    }

    fn usage(&self) -> Usage {
        // The number of good ones is there only when the setting asks for some.
        let good =
            if self.get("min_slaves_good_slaves").is_empty() { "connected_slaves" } else { "min_slaves_good_slaves" };
        Usage {
            connected_clients: self.number("connected_clients"),
            good_replicas: self.number(good),
            cached_scripts: self.number("number_of_cached_scripts"),
            hashes_with_field_ttl: self.hashes_with_field_ttl(),
        }
    }

    /// Redis calls the number `subexpiry`, Valkey `keys_with_volatile_items`; per database.
    fn hashes_with_field_ttl(&self) -> u64 {
        let number = |part: &str| {
            let (name, number) = part.split_once('=')?;
            matches!(name, "subexpiry" | "keys_with_volatile_items").then(|| number.parse::<u64>().ok())?
        };
        let databases =
            self.0.iter().filter(|(name, _)| name.strip_prefix("db").is_some_and(|n| n.parse::<u32>().is_ok()));
        databases.flat_map(|(_, value)| value.split(',')).filter_map(number).sum()
    }
}

/// # Errors
/// [`JobError::Server`] when the server is lost, loading, or no Redis.
pub(super) async fn read_info(client: &mut RedisClient) -> Result<Info, JobError> {
    let reply = client.call(&[b"INFO"]).await?;
    match reply.bytes().map(Info::parse) {
        Some(info) if !info.get("redis_version").is_empty() => Ok(info),
        _ => {
            let why = format!("INFO gave {}: is this a Redis, and may this user run INFO?", reply.brief());
            Err(JobError::server(client.who(), ServerFault::Refused(why)))
        }
    }
}

/// # Errors
/// [`JobError::Server`] naming the endpoint and what to do (unreachable, wrong password, not a Redis).
pub async fn check_endpoint(endpoint: &Endpoint) -> Result<EndpointFacts, JobError> {
    let mut client = RedisClient::connect(endpoint).await?;
    let info = read_info(&mut client).await?;
    let (server, version) = match info.get("server_name") {
        "valkey" => ("valkey", info.get("valkey_version")),
        _ => ("redis", info.get("redis_version")),
    };
    let (ping_us, clock_skew_ms) = measure(&mut client).await?;
    Ok(EndpointFacts {
        server: server.to_owned(),
        version: version.to_owned(),
        run_id: info.get("run_id").to_owned(),
        role: info.get("role").to_owned(),
        databases: info.databases(),
        used_memory_bytes: info.number("used_memory"),
        maxmemory_bytes: info.number("maxmemory"),
        maxmemory_policy: info.get("maxmemory_policy").to_owned(),
        cluster_enabled: info.get("cluster_enabled") == "1",
        commands: command_names(&mut client).await?,
        modules: module_names(&mut client).await?,
        acl_users: acl_users(&mut client).await?,
        usage: info.usage(),
        ping_us,
        clock_skew_ms,
    })
}

/// The best of a few round trips, and the clock difference seen in the quickest TIME.
async fn measure(client: &mut RedisClient) -> Result<(u64, i64), JobError> {
    let (mut ping_us, mut skew) = (u64::MAX, 0);
    for _ in 0..5 {
        let started = Instant::now();
        let reply = client.call(&[b"TIME"]).await?;
        let took_us = started.elapsed().as_micros() as u64;
        if took_us >= ping_us {
            continue;
        }
        ping_us = took_us;
        if let [seconds, micros] = reply.items().unwrap_or_default() {
            let server_ms = seconds.integer().unwrap_or(0) * 1000 + micros.integer().unwrap_or(0) / 1000;
            skew = now_ms() as i64 - (took_us / 2000) as i64 - server_ms;
        }
    }
    Ok((ping_us, skew))
}

fn lower(value: &Value) -> Option<String> {
    value.bytes().map(|name| String::from_utf8_lossy(name).to_lowercase())
}

async fn command_names(client: &mut RedisClient) -> Result<Vec<String>, JobError> {
    // COMMAND LIST came with 7.0; before it the whole table is the only list.
    let list = client.call(&[b"COMMAND", b"LIST"]).await?;
    let mut names: Vec<String> = match list.items() {
        Some(items) => items.iter().filter_map(lower).collect(),
        None => {
            let table = client.call(&[b"COMMAND"]).await?;
            table.items().unwrap_or_default().iter().filter_map(|entry| lower(entry.items()?.first()?)).collect()
        }
    };
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

async fn module_names(client: &mut RedisClient) -> Result<Vec<String>, JobError> {
    let reply = client.call(&[b"MODULE", b"LIST"]).await?;
    let name = |module: &Value| {
        let flat = module.items()?;
        let at = flat.iter().position(|item| item.bytes() == Some(b"name"))?;
        lower(flat.get(at + 1)?)
    };
    Ok(reply.items().unwrap_or_default().iter().filter_map(name).collect())
}

/// Empty as well when this user may not list users.
async fn acl_users(client: &mut RedisClient) -> Result<Vec<String>, JobError> {
    let reply = client.call(&[b"ACL", b"USERS"]).await?;
    let names = reply.items().unwrap_or_default().iter().filter_map(Value::bytes);
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).filter(|name| name != "default").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_field_and_by_database() {
        let info = Info::parse(
            b"# Server\r\nredis_version:7.0.15\r\nused_memory:12\r\n# Keyspace\r\ndb3:keys=2,expires=1,avg_ttl=0\r\ndb0:keys=5,expires=0,avg_ttl=0,subexpiry=0\r\n",
        );
        assert_eq!(info.get("redis_version"), "7.0.15");
        assert_eq!(info.number("used_memory"), 12);
        assert_eq!(info.databases(), vec![(0, 5, 0), (3, 2, 1)]);
        assert_eq!(info.usage(), Usage::default());
        let info = Info::parse(
            b"connected_clients:7\r\nconnected_slaves:2\r\nmin_slaves_good_slaves:1\r\nnumber_of_cached_scripts:3\r\ndb0:keys=5,expires=0,avg_ttl=0,keys_with_volatile_items=4\r\ndb9:keys=1,expires=0,avg_ttl=0,subexpiry=2\r\n",
        );
        let usage = Usage { connected_clients: 7, good_replicas: 1, cached_scripts: 3, hashes_with_field_ttl: 6 };
        assert_eq!(info.usage(), usage);
    }
}
