//! A bounded queue between two threads with an eventfd to wake the reader. Crosses threads.
//!
//! Any number of threads may push, one should pop. A push writes the eventfd only when the reader may be asleep, so a busy reader costs
//! its writers no system call.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;

#[derive(Debug)]
struct Inner<T> {
    queue: ArrayQueue<T>,
    /// True from the first push after [`Mailbox::arm`] until the next one: the reader has been or will be woken.
    woken: AtomicBool,
    eventfd: OwnedFd,
}

/// One queue; clones share it.
#[derive(Debug)]
pub struct Mailbox<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Mailbox<T> {
    /// # Errors
    /// The operating system's, when an eventfd cannot be made (open-files limit).
    pub fn new(capacity: usize) -> std::io::Result<Self> {
        // SAFETY: eventfd takes no pointer; a non-negative result is a descriptor that nothing else owns.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(std::io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { inner: Arc::new(Inner { queue: ArrayQueue::new(capacity), woken: AtomicBool::new(false), eventfd }) })
    }

    /// # Errors
    /// Returns the value when the queue is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.inner.queue.push(value)?;
        if !self.inner.woken.swap(true, Ordering::AcqRel) {
            self.ring();
        }
        Ok(())
    }

    /// The oldest value, if any. Call [`Self::arm`] before the last look, or a wake-up may be missed.
    #[must_use]
    pub fn pop(&self) -> Option<T> {
        self.inner.queue.pop()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.queue.is_empty()
    }

    /// Empties the eventfd and lets the next push write it. For the reader only, after the descriptor became readable and before popping.
    pub fn arm(&self) {
        let mut count = 0u64;
        // SAFETY: reads 8 bytes into a u64 that lives across the call; the descriptor is non-blocking.
        unsafe {
            libc::read(self.inner.eventfd.as_raw_fd(), (&raw mut count).cast(), 8);
        }
        self.inner.woken.store(false, Ordering::Release);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// The descriptor to poll for readability.
    #[must_use]
    pub fn wake_fd(&self) -> RawFd {
        self.inner.eventfd.as_raw_fd()
    }

    /// A descriptor of the reader's own for the same eventfd, for runtimes that own the descriptors they poll.
    ///
    /// # Errors
    /// The operating system's (open-files limit).
    pub fn wake_owned(&self) -> std::io::Result<OwnedFd> {
        self.inner.eventfd.try_clone()
    }

    fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes 8 bytes from a u64 that lives across the call. EAGAIN means the counter is full: the reader is awake.
        unsafe {
            libc::write(self.inner.eventfd.as_raw_fd(), (&raw const one).cast(), 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_returns_the_value() {
        let mailbox = Mailbox::new(2).unwrap();
        assert_eq!((mailbox.push(1), mailbox.push(2), mailbox.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((mailbox.pop(), mailbox.pop(), mailbox.pop()), (Some(1), Some(2), None));
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        const COUNT: u64 = 100_000;
        let mailbox = Mailbox::new(64).unwrap();
        let writer = mailbox.clone();
        let thread = std::thread::spawn(move || {
            for mut value in 0..COUNT {
                while let Err(back) = writer.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < COUNT {
            let mut poll = libc::pollfd { fd: mailbox.wake_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd. A lost wake-up would end in the 10 s time-out.
            let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
            assert_eq!(ready, 1, "woken for value {next}");
            mailbox.arm();
            while let Some(value) = mailbox.pop() {
                assert_eq!(value, next);
                next += 1;
            }
        }
        thread.join().unwrap();
    }
}
