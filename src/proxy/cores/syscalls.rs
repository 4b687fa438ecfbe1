//! The few system calls monoio does not offer. One of the files that may hold `unsafe`.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use base::model::limits;
use base::stdx::clock::Now;

/// Pins the calling thread to one CPU; failure is not worth more than a log line.
pub fn pin_to_cpu(cpu: usize) {
    // SAFETY: the set lives across the call and is initialised by CPU_ZERO; CPU_SET is bounds-checked by its own size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(cpu % libc::CPU_SETSIZE as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result != 0 {
        tracing::warn!(cpu, "could not pin a core thread to its CPU");
    }
}

/// Ends both directions, so that reads and writes in progress return.
pub fn shutdown(fd: RawFd) {
    // SAFETY: takes no pointer; a descriptor that is gone gives EBADF. The caller holds the connection's record, whose task closes
    // the descriptor only after removing that record.
    unsafe {
        libc::shutdown(fd, libc::SHUT_RDWR);
    }
}

/// Takes what a socket has received, without waiting for more; `None`: nothing is there, `Some(0)`: the peer will send no more.
///
/// # Errors
/// The operating system's.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    // SAFETY: writes at most as many bytes as the buffer has, which lives across the call. The caller owns the descriptor.
    without_waiting(|| unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) })
}

/// Gives a socket as much as it takes now; `None`: it takes nothing until its peer has read.
///
/// # Errors
/// The operating system's.
pub fn send(fd: RawFd, bytes: &[u8]) -> std::io::Result<Option<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: reads at most as many bytes as the slice has, which lives across the call. The caller owns the descriptor.
    without_waiting(|| unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn without_waiting(mut call: impl FnMut() -> isize) -> std::io::Result<Option<usize>> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(Some(count));
        }
        let error = std::io::Error::last_os_error();
        match error.kind() {
            std::io::ErrorKind::Interrupted => {}
            std::io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// One listening socket per core on the same address. The first bind is exclusive, so that a second process is noticed.
///
/// The kernel gives back the sockets of a killed process's io_uring a little after the process itself is gone, so an address in
/// use is tried again for [`limits::LISTEN_RETRY`]. Called before the cores start: it may block.
pub fn listeners(address: SocketAddr, count: u16) -> std::io::Result<Vec<TcpListener>> {
    let deadline = Instant::now() + limits::LISTEN_RETRY;
    loop {
        match bind(address, false) {
            Ok(probe) => break drop(probe),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(limits::LISTEN_RETRY / 50);
            }
            Err(error) => return Err(error),
        }
    }
    let first = bind(address, true)?;
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(bind(address, true)?);
    }
    Ok(all)
}

fn bind(address: SocketAddr, share: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    if share {
        socket.listen(4096)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Small frames must not wait for each other, and a peer that vanished must be noticed.
pub fn tune(stream: &monoio::net::TcpStream) {
    // SAFETY: the stream owns the descriptor and lives as long as this borrow.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(std::os::fd::AsRawFd::as_raw_fd(stream)) };
    let socket = socket2::SockRef::from(&fd);
    let _ = socket.set_tcp_nodelay(true);
    let alive = TcpKeepalive::new()
        .with_time(std::time::Duration::from_secs(30))
        .with_interval(std::time::Duration::from_secs(10));
    let _ = socket.set_tcp_keepalive(&alive);
}

/// Randomness of the operating system, for what a relay must not let anybody guess.
///
/// # Errors
/// The operating system's.
pub fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0u8; 32];
    // SAFETY: fills at most the 32 bytes it is given; requests of up to 256 bytes are not cut short.
    let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    if got == seed.len() as isize { Ok(seed) } else { Err(std::io::Error::last_os_error()) }
}

/// The only place of the data plane that reads a clock.
#[must_use]
pub fn now(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { wall_ms: wall.as_millis() as i64, mono_us: start.elapsed().as_micros() as u64 }
}
