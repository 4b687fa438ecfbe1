//! Opening a connection over TCP or a unix socket.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;

use monoio::net::{TcpStream, UnixStream};

use super::syscalls;
use base::model::Address;
use bus::Mailbox;

/// A connected socket of either kind. The runtime only tells when it is ready; bytes are moved by [`syscalls::receive`] and
/// [`syscalls::send`].
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Until there is something to receive, or the connection has ended.
    pub async fn readable(&self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable(false).await,
            Self::Unix(stream) => stream.readable(false).await,
        }
    }

    /// Until something can be sent, or the connection has ended.
    pub async fn writable(&self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable(false).await,
            Self::Unix(stream) => stream.writable(false).await,
        }
    }
}

/// # Errors
/// The operating system's, or the resolver's.
pub async fn open(address: &Address) -> std::io::Result<Stream> {
    match address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect_addr(resolve(host, *port).await?).await?;
            syscalls::tune(&stream);
            Ok(Stream::Tcp(stream))
        }
        Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect::<&Path>(path.as_ref()).await?)),
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
