//! A plain RESP2 client for jobs: one connection, pipelined, every wait bounded.
//!
//! Not for the data path and not a pool. Lives on any thread with a tokio runtime.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::network::{self, Duplex};
use crate::error::{ServerError, ServerFault};
use base::model::{Endpoint, EndpointProtocol, limits};
use wire::resp::value::{Extent, Invalid, Value, decode_whole, encode_request};

/// One logged-in connection. After an `Err` it is of no more use: connect again.
pub struct RedisClient {
    reader: ReplyReader,
    writer: WriteHalf<Box<dyn Duplex>>,
    /// "source (10.0.0.1:6379)": for messages.
    who: String,
}

impl std::fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisClient").field("who", &self.who).finish_non_exhaustive()
    }
}

impl RedisClient {
    /// Connects, logs in and selects the endpoint's database.
    ///
    /// # Errors
    /// [`ServerError::Server`] naming the endpoint, the reason and what to look at.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ServerError> {
        let who = format!("endpoint {} ({})", endpoint.name, endpoint.address);
        let EndpointProtocol::Redis { database } = endpoint.protocol else {
            let kind = endpoint.kind().as_str();
            let why = format!("it is of kind {kind}, and this is done on Redis servers only");
            return Err(ServerError::unusable(who, ServerFault::Kind(why)));
        };
        match timeout(limits::JOB_CONNECT_TIMEOUT, Self::connect_within(endpoint, database, &who)).await {
            Ok(result) => result,
            Err(_) => Err(ServerError::unusable(who, ServerFault::ConnectTimeout(limits::JOB_CONNECT_TIMEOUT))),
        }
    }

    async fn connect_within(endpoint: &Endpoint, database: u32, who: &str) -> Result<Self, ServerError> {
        let lost = |error: std::io::Error| ServerError::unusable(who, ServerFault::Connect(error.to_string()));
        let stream = network::open(&endpoint.address).await.map_err(lost)?;
        let (read, writer) = tokio::io::split(stream);
        let mut client = Self { reader: ReplyReader::new(read), writer, who: who.to_owned() };
        client.log_in(endpoint, database).await?;
        Ok(client)
    }

    async fn log_in(&mut self, endpoint: &Endpoint, database: u32) -> Result<(), ServerError> {
        if let Some(login) = &endpoint.credentials {
            let password = login.password.expose();
            let reply = match &login.user {
                Some(user) => self.call(&[b"AUTH", user.as_bytes(), password]).await?,
                None => self.call(&[b"AUTH", password]).await?,
            };
            if let Some(error) = reply.error() {
                return Err(ServerError::unusable(&self.who, ServerFault::LoginRefused(error)));
            }
        }
        let reply = self.call(&[b"PING"]).await?;
        if let Some(error) = reply.error() {
            let hint = if error.starts_with("NOAUTH") { ": put user and password into the endpoint's url" } else { "" };
            return Err(ServerError::unusable(&self.who, ServerFault::Refused(format!("{error}{hint}"))));
        }
        if database == 0 { Ok(()) } else { self.select(database).await }
    }

    /// The connection itself, with the bytes that came and were not asked for: for what is not request and reply.
    pub(super) fn into_parts(self) -> Parts {
        let ReplyReader { stream, buffer, begin, .. } = self.reader;
        Parts { reader: stream, writer: self.writer, unread: buffer[begin..].to_vec(), who: self.who }
    }

    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// # Errors
    /// [`ServerError::Server`] when the server refuses the database or is lost.
    pub async fn select(&mut self, database: u32) -> Result<(), ServerError> {
        let reply = self.call(&[b"SELECT", database.to_string().as_bytes()]).await?;
        match reply.error() {
            Some(error) => {
                Err(ServerError::unusable(&self.who, ServerFault::Refused(format!("SELECT {database}: {error}"))))
            }
            None => Ok(()),
        }
    }

    /// One command, one reply; an error reply is `Ok(Value::Error)`.
    ///
    /// # Errors
    /// [`ServerError::Server`] when the connection is lost, [`ServerError::Answer`] when the reply is not RESP.
    pub async fn call(&mut self, args: &[&[u8]]) -> Result<Value, ServerError> {
        let mut replies = self.pipeline(&encode_request(args), 1).await?;
        replies.pop().ok_or_else(|| ServerError::answer(&self.who, "no reply"))
    }

    /// As [`Self::call`], but an error reply is an error too.
    ///
    /// # Errors
    /// As [`Self::call`], and [`ServerError::Answer`] naming the command and the reply.
    pub async fn must(&mut self, args: &[&[u8]]) -> Result<Value, ServerError> {
        let reply = self.call(args).await?;
        match reply.error() {
            Some(error) => {
                let command = args.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
                Err(ServerError::answer(&self.who, format!("{command}: {error}")))
            }
            None => Ok(reply),
        }
    }

    /// Sends encoded requests whose replies are short, and leaves these to [`Self::receive`].
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn send(&mut self, requests: &[u8]) -> Result<(), ServerError> {
        let lost = |error: std::io::Error| ServerError::unusable(&self.who, ServerFault::Lost(error.to_string()));
        let sent = async {
            self.writer.write_all(requests).await?;
            self.writer.flush().await
        };
        match timeout(limits::JOB_REPLY_TIMEOUT, sent).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(ServerError::unusable(&self.who, ServerFault::ReplyTimeout(limits::JOB_REPLY_TIMEOUT))),
        }
    }

    /// Reads the replies to `count` requests that were sent before.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn receive(&mut self, count: usize) -> Result<Vec<Value>, ServerError> {
        let mut replies = Vec::with_capacity(count);
        while replies.len() < count {
            let decode = |frame: &[u8]| decode_whole(frame).map(|value| replies.push(value));
            self.reader.next(&self.who, decode).await?;
        }
        Ok(replies)
    }

    /// Sends `count` encoded requests and reads `count` replies, both at once so that neither side's buffer can block the other.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn pipeline(&mut self, requests: &[u8], count: usize) -> Result<Vec<Value>, ServerError> {
        let mut replies = Vec::with_capacity(count);
        self.exchange(requests, count, |frame| {
            replies.push(decode_whole(frame)?);
            Ok(())
        })
        .await?;
        Ok(replies)
    }

    /// As [`Self::pipeline`], but each reply is given as it was sent, whole.
    ///
    /// # Errors
    /// As [`Self::call`], and what `each` found wrong with a reply.
    pub async fn exchange(
        &mut self,
        requests: &[u8],
        count: usize,
        mut each: impl FnMut(&[u8]) -> Result<(), Invalid>,
    ) -> Result<(), ServerError> {
        let who = &self.who;
        let writer = &mut self.writer;
        let reader = &mut self.reader;
        let write = async {
            let lost = |error: std::io::Error| ServerError::unusable(who, ServerFault::Lost(error.to_string()));
            writer.write_all(requests).await.map_err(lost)?;
            writer.flush().await.map_err(lost)
        };
        let read = async {
            for _ in 0..count {
                reader.next(who, &mut each).await?;
            }
            Ok::<_, ServerError>(())
        };
        tokio::try_join!(write, read)?;
        Ok(())
    }
}

/// What a connection consists of.
pub(super) struct Parts {
    pub reader: ReadHalf<Box<dyn Duplex>>,
    pub writer: WriteHalf<Box<dyn Duplex>>,
    pub unread: Vec<u8>,
    pub who: String,
}

/// The receiving half: a buffer that replies are cut from.
struct ReplyReader {
    stream: ReadHalf<Box<dyn Duplex>>,
    buffer: Vec<u8>,
    /// Bytes before this belong to replies already given.
    begin: usize,
    extent: Extent,
}

const READ_BYTES: usize = 64 * 1024;

impl ReplyReader {
    fn new(stream: ReadHalf<Box<dyn Duplex>>) -> Self {
        Self { stream, buffer: Vec::new(), begin: 0, extent: Extent::default() }
    }

    /// Gives one whole reply.
    async fn next(&mut self, who: &str, give: impl FnOnce(&[u8]) -> Result<(), Invalid>) -> Result<(), ServerError> {
        let broken = |why: Invalid| ServerError::answer(who, why.to_string());
        loop {
            let found = self.extent.find(&self.buffer[self.begin..], limits::JOB_REPLY_BYTES_MAX).map_err(broken)?;
            if let Some(length) = found {
                give(&self.buffer[self.begin..self.begin + length]).map_err(broken)?;
                self.begin += length;
                self.extent = Extent::default();
                self.trim();
                return Ok(());
            }
            self.fill(who, limits::JOB_REPLY_TIMEOUT).await?;
        }
    }

    async fn fill(&mut self, who: &str, patience: Duration) -> Result<(), ServerError> {
        if self.begin > 0 {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        self.buffer.reserve(READ_BYTES);
        match timeout(patience, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(ServerError::unusable(who, ServerFault::Closed)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ServerError::unusable(who, ServerFault::Lost(error.to_string()))),
            Err(_) => Err(ServerError::unusable(who, ServerFault::ReplyTimeout(patience))),
        }
    }

    /// Lets go of a large buffer once it is used up.
    fn trim(&mut self) {
        if self.begin == self.buffer.len() {
            self.begin = 0;
            if self.buffer.capacity() > 16 * READ_BYTES {
                self.buffer = Vec::new();
            } else {
                self.buffer.clear();
            }
        }
    }
}
