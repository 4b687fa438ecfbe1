//! Opening a connection over TCP or a unix socket, and its two halves.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, Splitable};
use monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};
use monoio::net::unix::{UnixOwnedReadHalf, UnixOwnedWriteHalf};
use monoio::net::{TcpStream, UnixStream};

use super::sys;
use crate::bus::Mailbox;
use crate::model::Address;

/// A connection nobody has spoken on yet.
pub struct Opened {
    stream: Stream,
    pub fd: RawFd,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Opened {
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
}

/// # Errors
/// The operating system's, or the resolver's.
pub async fn open(address: &Address) -> std::io::Result<Opened> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect_addr(resolve(host, *port).await?).await?;
            sys::tune(&stream);
            let fd = stream.as_raw_fd();
            Ok(Opened { stream: Stream::Tcp(stream), fd })
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect::<&Path>(path.as_ref()).await?;
            let fd = stream.as_raw_fd();
            Ok(Opened { stream: Stream::Unix(stream), fd })
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
