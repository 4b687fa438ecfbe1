//! Names every key of one server by SCAN, database by database, across lost connections.
//!
//! Lives on the movers' thread. Not a snapshot: SCAN promises the keys that exist from its first call to its last. Keys made or
//! removed meanwhile were written through the lane, which copies before it writes, so they need no name from here; that also holds
//! for a logical database that was empty when the scan began.

use std::collections::VecDeque;

use tokio::time::sleep;

use super::facts::{Info, read_info};
use crate::RESERVED_PREFIX;
use crate::error::{JobError, ServerError, ServerFault};
use base::model::{Endpoint, EndpointProtocol, limits};
use follow::redis::client::RedisClient;
use wire::resp::value::{Value, encode_request};

/// Some keys of one logical database.
#[derive(Debug)]
pub(super) struct Batch {
    pub database: u32,
    pub keys: Vec<Box<[u8]>>,
}

struct Connection {
    client: RedisClient,
    selected: u32,
}

/// A scan under way.
pub(super) struct NameScan {
    endpoint: Endpoint,
    count: usize,
    volatile: bool,
    connection: Option<Connection>,
    run_id: String,
    databases: VecDeque<u32>,
    cursor: Vec<u8>,
    /// Keys of all databases when the scan began.
    pub total: u64,
    failures: u32,
}

const CURSOR_BEGIN: &[u8] = b"0";

impl NameScan {
    /// # Errors
    /// [`JobError::Server`] when the server stays out of reach.
    pub(super) async fn begin(endpoint: &Endpoint, count: usize) -> Result<Self, JobError> {
        Self::begin_in(endpoint, count, false).await
    }

    /// Only in databases that hold something that expires.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub(super) async fn begin_volatile(endpoint: &Endpoint, count: usize) -> Result<Self, JobError> {
        Self::begin_in(endpoint, count, true).await
    }

    async fn begin_in(endpoint: &Endpoint, count: usize, volatile: bool) -> Result<Self, JobError> {
        let mut scan = Self {
            volatile,
            endpoint: Endpoint { protocol: EndpointProtocol::Redis { database: 0 }, ..endpoint.clone() },
            count,
            connection: None,
            run_id: String::new(),
            databases: VecDeque::new(),
            cursor: CURSOR_BEGIN.to_vec(),
            total: 0,
            failures: 0,
        };
        while let Err(error) = scan.connect().await {
            scan.pause(error).await?;
        }
        Ok(scan)
    }

    /// The next keys, never none of them; `None` when every database is through.
    ///
    /// # Errors
    /// [`JobError::Server`] when the server stays out of reach, [`ServerError::Answer`] when it refuses SCAN.
    pub(super) async fn next_batch(&mut self) -> Result<Option<Batch>, JobError> {
        while let Some(&database) = self.databases.front() {
            let cursor = self.cursor.clone();
            let request = encode_request(&[b"SCAN", &cursor, b"COUNT", self.count.to_string().as_bytes()]);
            let replies = self.ask(database, &request, 1).await?;
            // Reconnected to a restarted server meanwhile: this reply belongs to a scan that is no more.
            if self.databases.front() != Some(&database) || self.cursor != cursor {
                continue;
            }
            let (next, keys) = read_scan(replies)
                .ok_or_else(|| JobError::answer(self.who(), "SCAN was answered by something else"))?;
            if next == CURSOR_BEGIN {
                self.databases.pop_front();
            }
            self.cursor = next;
            if !keys.is_empty() {
                return Ok(Some(Batch { database, keys }));
            }
        }
        Ok(None)
    }

    /// Runs read-only requests in `database` on the scan's own connection; connects again as often as limits allow.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub(super) async fn ask(&mut self, database: u32, requests: &[u8], count: usize) -> Result<Vec<Value>, JobError> {
        loop {
            match self.try_ask(database, requests, count).await {
                Ok(replies) => {
                    self.failures = 0;
                    return Ok(replies);
                }
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// Which process of the server answers: its `run_id`.
    pub(super) fn process(&self) -> &str {
        &self.run_id
    }

    async fn try_ask(&mut self, database: u32, requests: &[u8], count: usize) -> Result<Vec<Value>, JobError> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        let Some(connection) = &mut self.connection else {
            return Err(JobError::server(self.who(), ServerFault::Closed));
        };
        if connection.selected != database {
            connection.client.select(database).await?;
            connection.selected = database;
        }
        let replies = connection.client.pipeline(requests, count).await?;
        match replies.first().and_then(Value::error) {
            Some(error) if ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"].iter().any(|word| error.starts_with(word)) => {
                Err(JobError::server(self.who(), ServerFault::Refused(error)))
            }
            _ => Ok(replies),
        }
    }

    /// A cursor is good for as long as the process that gave it lives: another `run_id` starts the scan over.
    async fn connect(&mut self) -> Result<(), JobError> {
        let mut client = RedisClient::connect(&self.endpoint).await?;
        let info = read_info(&mut client).await?;
        let run_id = info.get("run_id").to_owned();
        if run_id != self.run_id {
            self.start_over(&info);
            self.run_id = run_id;
        }
        self.connection = Some(Connection { client, selected: 0 });
        Ok(())
    }

    fn start_over(&mut self, info: &Info) {
        let databases = info.databases();
        self.total = databases.iter().map(|(_, keys, _)| keys).sum();
        let wanted = databases.into_iter().filter(|(_, _, expires)| !self.volatile || *expires > 0);
        self.databases = wanted.map(|(database, ..)| database).collect();
        self.cursor = CURSOR_BEGIN.to_vec();
    }

    fn who(&self) -> String {
        format!("endpoint {}", self.endpoint.name)
    }

    /// After a failure: forgets the connection and waits longer each time; gives the error back when it has been too often.
    async fn pause(&mut self, error: JobError) -> Result<(), JobError> {
        let JobError::Server(ServerError::Unusable { server, cause }) = error else { return Err(error) };
        self.connection = None;
        self.failures += 1;
        if self.failures > limits::JOB_RECONNECTS_MAX {
            let cause = ServerFault::Repeated { attempts: self.failures, last: Box::new(cause) };
            return Err(JobError::server(server, cause));
        }
        let pause = limits::JOB_RECONNECT_PAUSE_MIN * 2u32.saturating_pow(self.failures - 1);
        sleep(pause.min(limits::JOB_RECONNECT_PAUSE_MAX)).await;
        Ok(())
    }
}

type Keys = Vec<Box<[u8]>>;

/// The next cursor and the keys.
fn read_scan(mut replies: Vec<Value>) -> Option<(Vec<u8>, Keys)> {
    let Some(Value::Array(mut pair)) = replies.pop() else { return None };
    let (Some(Value::Array(keys)), Some(cursor), true) = (pair.pop(), pair.pop(), pair.is_empty()) else { return None };
    let keys = keys
        .into_iter()
        .filter_map(|key| match key {
            Value::Bulk(name) if !name.starts_with(RESERVED_PREFIX) => Some(name.into_boxed_slice()),
            _ => None,
        })
        .collect();
    Some((cursor.bytes()?.to_vec(), keys))
}
