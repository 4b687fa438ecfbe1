//! Connecting to a server and logging in, over TCP or a unix socket, with a time limit.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use monoio::net::unix::{UnixOwnedReadHalf, UnixOwnedWriteHalf};
use monoio::net::{TcpStream, UnixStream};

use super::sys;
use crate::bus::Mailbox;
use crate::model::{Address, Credentials, Endpoint, limits};
use crate::protocol::resp::effect::{bulk, integer, is_error};
use crate::protocol::resp::encode::push_request;
use crate::protocol::resp::frame::reply_len;
use crate::relay::Failure;

/// The state a connection is to have before it is used.
#[derive(Debug, Clone)]
pub struct LogIn {
    pub credentials: Option<Credentials>,
    pub database: u32,
    /// 2 or 3.
    pub resp: u8,
    /// Find out by a PING whether the server lets a connection without log-in run commands.
    pub learn_anonymous: bool,
    /// What CLIENT LIST shows there; empty for none.
    pub name: String,
}

/// Names of Crossfade's connections are `crossfade/<role>/<interlay>/<token>`; neither part can contain a '/'.
#[must_use]
pub fn connection_name(role: &str, interlay: &str, token: u64) -> String {
    format!("crossfade/{role}/{interlay}/{token:x}")
}

/// A connection that is logged in.
pub struct Connected {
    stream: Stream,
    pub fd: RawFd,
    /// CLIENT ID; 0 when the server would not say.
    pub client_id: u64,
    pub anonymous_allowed: Option<bool>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connected {
    pub fn into_halves(self) -> (ReadHalf, WriteHalf) {
        match self.stream {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }

    /// Sends requests and gathers one whole reply to each. For log-ins and house-keeping, not for the data path.
    ///
    /// # Errors
    /// The network's; "not RESP" is one of them.
    pub async fn ask(&mut self, requests: &[&[&[u8]]]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        for request in requests {
            push_request(&mut bytes, request);
        }
        let result = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await.0,
            Stream::Unix(stream) => stream.write_all(bytes).await.0,
        };
        result?;
        let mut replies = Vec::with_capacity(requests.len());
        let mut gathered: Vec<u8> = Vec::new();
        while replies.len() < requests.len() {
            if let Some(len) = reply_len(&gathered) {
                replies.push(gathered.drain(..len).collect());
                continue;
            }
            let buffer = Vec::with_capacity(16 * 1024);
            let (result, buffer) = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(buffer).await,
                Stream::Unix(stream) => stream.read(buffer).await,
            };
            if result? == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
            gathered.extend_from_slice(&buffer);
        }
        Ok(replies)
    }
}

/// Connects and logs in within [`limits::CONNECT_TIMEOUT`].
///
/// # Errors
/// [`Failure::Unreachable`] or [`Failure::Refused`].
pub async fn connect(endpoint: &Endpoint, log_in: &LogIn) -> Result<Connected, Failure> {
    match monoio::time::timeout(limits::CONNECT_TIMEOUT, connect_untimed(endpoint, log_in)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Unreachable(format!(
            "no connection to {} within {} s",
            endpoint.address,
            limits::CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

async fn connect_untimed(endpoint: &Endpoint, log_in: &LogIn) -> Result<Connected, Failure> {
    let unreachable = |error: std::io::Error| Failure::Unreachable(format!("{} ({error})", endpoint.address));
    let (stream, fd) = open(&endpoint.address).await.map_err(unreachable)?;
    let mut connected = Connected { stream, fd, client_id: 0, anonymous_allowed: None };
    log_in_to(&mut connected, log_in).await.map_err(|failure| match failure {
        Ok(reply) => Failure::Refused(reply),
        Err(error) => unreachable(error),
    })?;
    Ok(connected)
}

async fn open(address: &Address) -> std::io::Result<(Stream, RawFd)> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect_addr(resolve(host, *port).await?).await?;
            sys::tune(&stream, true);
            let fd = stream.as_raw_fd();
            Ok((Stream::Tcp(stream), fd))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect::<&Path>(path.as_ref()).await?;
            let fd = stream.as_raw_fd();
            Ok((Stream::Unix(stream), fd))
        }
    }
}

/// An address is read at once; a name is looked up on a thread of its own, because a resolver may block.
async fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    if let Ok(ip) = host.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let answer = Mailbox::new(1)?;
    let (sender, host) = (answer.clone(), host.to_owned());
    std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().and_then(|mut addresses| {
            addresses.next().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        });
        let _ = sender.push(found);
    })?;
    let waker = MailboxWaker::new(answer.wake_fd())?;
    loop {
        waker.readable().await;
        answer.arm();
        if let Some(found) = answer.pop() {
            return found;
        }
    }
}

/// `Err(Ok(reply))`: the server's refusal. `Err(Err(_))`: the network's.
async fn log_in_to(connected: &mut Connected, log_in: &LogIn) -> Result<(), Result<Vec<u8>, std::io::Error>> {
    let database = log_in.database.to_string();
    let mut requests: Vec<Vec<&[u8]>> = Vec::new();
    if let Some(credentials) = &log_in.credentials {
        let mut auth = vec![b"AUTH".as_slice()];
        auth.extend(credentials.user.as_ref().map(|user| user.as_bytes()));
        auth.push(credentials.password.expose());
        requests.push(auth);
    }
    if log_in.resp == 3 {
        requests.push(vec![b"HELLO", b"3"]);
    }
    if log_in.database != 0 {
        requests.push(vec![b"SELECT", database.as_bytes()]);
    }
    let must_succeed = requests.len();
    requests.push(vec![b"CLIENT", b"ID"]);
    if !log_in.name.is_empty() {
        requests.push(vec![b"CLIENT", b"SETNAME", log_in.name.as_bytes()]);
    }
    if log_in.learn_anonymous {
        requests.push(vec![b"PING"]);
    }
    let slices: Vec<&[&[u8]]> = requests.iter().map(Vec::as_slice).collect();
    let replies = connected.ask(&slices).await.map_err(Err)?;
    if let Some(refusal) = replies.iter().take(must_succeed).find(|reply| is_error(reply)) {
        return Err(Ok(refusal.clone()));
    }
    connected.client_id = replies.get(must_succeed).and_then(|reply| integer(reply)).unwrap_or(0) as u64;
    if log_in.learn_anonymous {
        connected.anonymous_allowed = replies.last().map(|reply| !reply.starts_with(b"-NOAUTH"));
    }
    Ok(())
}

/// Ends a blocking command as if its time-out had passed.
///
/// # Errors
/// What went wrong, in words.
pub async fn unblock(endpoint: &Endpoint, credentials: Option<&Credentials>, client_id: u64) -> Result<(), String> {
    let credentials = endpoint.credentials.clone().or_else(|| credentials.cloned());
    let log_in = LogIn { credentials, database: 0, resp: 2, learn_anonymous: false, name: String::new() };
    let mut connected = connect(endpoint, &log_in).await.map_err(|failure| format!("{failure:?}"))?;
    let id = client_id.to_string();
    connected.ask(&[&[b"CLIENT", b"UNBLOCK", id.as_bytes(), b"TIMEOUT"]]).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// What a lane asks of a server before it is used.
pub struct Introduced {
    pub connected: Connected,
    /// Identity of the server process; changes with a restart.
    pub run_id: Vec<u8>,
}

/// Connects for the lane: makes sure that no connection of a predecessor (of this process: `predecessor`; of a process that died:
/// by name) can still execute anything, and asks who the server is.
///
/// # Errors
/// What went wrong, in words.
pub async fn introduce(
    endpoint: &Endpoint,
    interlay: &str,
    token: u64,
    predecessor: u64,
) -> Result<Introduced, String> {
    let name = connection_name("lane", interlay, token);
    let log_in =
        LogIn { credentials: endpoint.credentials.clone(), database: 0, resp: 2, learn_anonymous: false, name };
    let mut connected = connect(endpoint, &log_in).await.map_err(|failure| match failure {
        Failure::Refused(reply) => format!("log-in refused: {}", String::from_utf8_lossy(&reply).trim()),
        Failure::Unreachable(why) | Failure::Lost(why) => why,
    })?;
    let list: &[&[u8]] = &[b"CLIENT", b"LIST"];
    let info: &[&[u8]] = &[b"INFO", b"server"];
    let replies = in_time(connected.ask(&[list, info])).await?;
    let zombies = zombies(bulk(&replies[0]).unwrap_or_default(), interlay, token);
    for id in zombies.iter().chain(std::iter::once(&predecessor.to_string())) {
        // Bytes of a lost connection may still be waiting there: once it is killed they are never executed.
        let kill: &[&[u8]] = &[b"CLIENT", b"KILL", b"ID", id.as_bytes()];
        in_time(connected.ask(&[kill])).await?;
    }
    let info = bulk(&replies[1])
        .ok_or_else(|| format!("INFO was refused: {}", String::from_utf8_lossy(&replies[1]).trim()))?;
    let run_id = info
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"run_id:"))
        .map(|id| id.trim_ascii().to_vec())
        .unwrap_or_default();
    Ok(Introduced { connected, run_id })
}

async fn in_time<T>(asked: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    monoio::time::timeout(limits::CONNECT_TIMEOUT, asked)
        .await
        .map_err(|_| format!("no answer within {} s", limits::CONNECT_TIMEOUT.as_secs()))?
        .map_err(|error| error.to_string())
}

/// Ids of the connections another process made for this interlay, from a CLIENT LIST.
fn zombies(list: &[u8], interlay: &str, token: u64) -> Vec<String> {
    let ours = format!("/{interlay}/{token:x}");
    let any = format!("/{interlay}/");
    String::from_utf8_lossy(list)
        .lines()
        .filter_map(|line| {
            let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
            let name = field("name=")?;
            let of_interlay = name.strip_prefix("crossfade/lane").or(name.strip_prefix("crossfade/core"))?;
            (of_interlay.starts_with(&any) && of_interlay != ours).then(|| field("id=").map(str::to_owned)).flatten()
        })
        .collect()
}

/// Watches a mailbox's eventfd on this core.
pub struct MailboxWaker {
    stream: UnixStream,
}

impl MailboxWaker {
    /// # Errors
    /// The operating system's.
    pub fn new(eventfd: RawFd) -> std::io::Result<Self> {
        // SAFETY: dup gives a descriptor that only this stream owns. It is an eventfd, not a socket: the stream is only ever
        // polled for readability and closed, which are the same for both.
        let stream = unsafe {
            let fd = libc::dup(eventfd);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            std::os::unix::net::UnixStream::from_raw_fd(fd)
        };
        Ok(Self { stream: UnixStream::from_std(stream)? })
    }

    pub async fn readable(&self) {
        let _ = self.stream.readable(false).await;
    }
}

/// The reading half of either kind of connection.
pub enum ReadHalf {
    Tcp(TcpOwnedReadHalf),
    Unix(UnixOwnedReadHalf),
}

/// The writing half of either kind of connection.
pub enum WriteHalf {
    Tcp(TcpOwnedWriteHalf),
    Unix(UnixOwnedWriteHalf),
}

impl AsyncReadRent for ReadHalf {
    async fn read<T: IoBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        match self {
            Self::Tcp(half) => half.read(buf).await,
            Self::Unix(half) => half.read(buf).await,
        }
    }

    async fn readv<T: IoVecBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        match self {
            Self::Tcp(half) => half.readv(buf).await,
            Self::Unix(half) => half.readv(buf).await,
        }
    }
}

impl AsyncWriteRent for WriteHalf {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        match self {
            Self::Tcp(half) => half.write(buf).await,
            Self::Unix(half) => half.write(buf).await,
        }
    }

    async fn writev<T: IoVecBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        match self {
            Self::Tcp(half) => half.writev(buf).await,
            Self::Unix(half) => half.writev(buf).await,
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(half) => half.flush().await,
            Self::Unix(half) => half.flush().await,
        }
    }

    async fn shutdown(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(half) => half.shutdown().await,
            Self::Unix(half) => half.shutdown().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_dead_processes_for_this_interlay_are_zombies() {
        let list = b"id=3 addr=1 name=crossfade/lane/orders/7 db=0\nid=4 addr=1 name=crossfade/lane/orders/8 db=0\n\
            id=5 name=crossfade/core/orders/7 db=0\nid=6 name=crossfade/lane/orders-2/7\nid=7 name=app db=0\nid=9 name= db=0\n";
        assert_eq!(zombies(list, "orders", 8), ["3", "5"]);
        assert_eq!(connection_name("lane", "orders", 8), "crossfade/lane/orders/8");
    }
}
