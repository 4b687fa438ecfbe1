//! epoll with waits in nanoseconds: a request that is due in 20 µs must not wait for the next millisecond. Linux 5.11 or later.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A ready descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
}

/// What to wait for besides readability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    ReadWrite,
}

/// Level-triggered; lives on one thread.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

const EVENTS_PER_WAIT: usize = 1024;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Poll {
    /// # Errors
    /// The operating system's.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer; nothing else owns the descriptor it returns.
        let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        // By default the kernel may wake this thread 50 µs late, which would be measured as latency.
        // SAFETY: takes no pointer.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT] })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN,
            Interest::ReadWrite => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        // SAFETY: the event lives until the call returns; the kernel copies it.
        checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) }).map(drop)
    }

    /// # Errors
    /// The operating system's.
    pub fn add(&self, fd: &impl AsRawFd, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, Interest::Read)
    }

    /// # Errors
    /// The operating system's.
    pub fn change(&self, fd: &impl AsRawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, interest)
    }

    /// # Errors
    /// The operating system's.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, Interest::Read)
    }

    /// Waits at most `timeout_ns` and replaces what is in `ready`.
    ///
    /// # Errors
    /// The operating system's; an interrupted wait is not an error.
    pub fn wait(&mut self, timeout_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the buffer has room for as many events as are asked for, and both pointers live until the call returns. Called by number,
        // because C libraries older than this kernel lack the function.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let gone = libc::EPOLLERR | libc::EPOLLHUP;
        ready.extend(self.events[..count as usize].iter().map(|event| {
            let (events, token) = (event.events as libc::c_int, event.u64 as usize);
            Ready {
                token,
                readable: events & (libc::EPOLLIN | gone) != 0,
                writable: events & (libc::EPOLLOUT | gone) != 0,
            }
        }));
        Ok(())
    }
}

/// Raises the limit of open files as far as allowed and returns it.
#[must_use]
pub fn open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a struct of the right type that outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
                limit = raised;
            }
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn it_waits_for_microseconds_and_tells_what_is_ready() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let (mut poll, mut ready) = (Poll::new().unwrap(), Vec::new());
        poll.add(&far, 7).unwrap();
        let began = Instant::now();
        poll.wait(200_000, &mut ready).unwrap();
        let waited = began.elapsed();
        assert!(ready.is_empty() && waited.as_micros() >= 200, "{waited:?}");
        near.write_all(b"x").unwrap();
        poll.wait(5_000_000_000, &mut ready).unwrap();
        assert!(ready.len() == 1 && ready[0].token == 7 && ready[0].readable && !ready[0].writable, "{ready:?}");
        poll.change(&far, 7, Interest::ReadWrite).unwrap();
        poll.wait(0, &mut ready).unwrap();
        assert!(ready[0].writable);
    }
}
