//! The two tasks of every connection, whoever it belongs to: one reads and hands over, one fetches and writes; TLS in between.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};

use super::connect::{ReadHalf, WriteHalf};
use super::notify::Notify;
use super::sys;
use super::tls::Tls;
use crate::model::limits;
use crate::relay::Secured;

/// What others on the core may do to a connection.
#[derive(Debug)]
pub struct SocketIo {
    fd: RawFd,
    closed: Cell<bool>,
    pub readable: Notify,
    pub writable: Notify,
    tls: RefCell<Option<Tls>>,
    /// Bytes of the peer's TLS that came before TLS was known to begin.
    begun: RefCell<Vec<u8>>,
    /// The writer is to send what there is and end.
    finishing: Cell<bool>,
    finished: Notify,
}

impl SocketIo {
    #[must_use]
    pub fn new(fd: RawFd) -> Self {
        Self {
            fd,
            closed: Cell::new(false),
            readable: Notify::default(),
            writable: Notify::default(),
            tls: RefCell::default(),
            begun: RefCell::default(),
            finishing: Cell::new(false),
            finished: Notify::default(),
        }
    }

    /// Ends both tasks. The descriptor itself is closed when they are over.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            sys::shutdown(self.fd);
        }
        self.readable.ring();
        self.writable.ring();
    }

    /// Lets the writer send its last words, an alert above all, then closes.
    async fn finish(&self) {
        self.finishing.set(true);
        self.writable.ring();
        let _ = monoio::time::timeout(limits::LAST_WORDS_TIMEOUT, self.finished.wait()).await;
        self.close();
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// From now on the connection speaks TLS; `begun` are the peer's first bytes of it, if they came already.
    pub fn secure(&self, tls: Tls, begun: Vec<u8>) {
        *self.tls.borrow_mut() = Some(tls);
        *self.begun.borrow_mut() = begun;
        self.writable.ring();
    }

    /// What must be sent for `plain`, and for TLS itself; `None` when there is nothing.
    fn wrap(&self, plain: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, String> {
        match self.tls.borrow_mut().as_mut() {
            None => Ok(plain),
            Some(tls) => {
                let out = tls.encrypt(plain.as_deref())?;
                Ok((!out.is_empty()).then_some(out))
            }
        }
    }
}

/// Whether the writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    GoOn,
    /// All is said: close.
    Close,
}

/// To whom a connection belongs.
pub trait Owner {
    /// Bytes arrived.
    ///
    /// # Errors
    /// Why the connection must end.
    fn input(&self, bytes: &[u8]) -> Result<(), String>;

    /// TLS stands.
    fn secured(&self, secured: &Secured);

    fn may_read(&self) -> bool;

    /// The next bytes to be sent; `recycled` may be used for those after.
    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>>;

    /// Something was sent, and more may be waiting.
    fn sent(&self) {}

    /// There is nothing to send.
    fn all_sent(&self) -> Written {
        Written::GoOn
    }
}

/// How large buffers may be.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of the first read; it grows while reads fill it.
    pub read_min: usize,
    pub read_max: usize,
    /// A sent buffer larger than this is not kept for what comes next.
    pub keep_max: usize,
}

/// Reads until the connection ends; why it did.
pub async fn read(io: &SocketIo, half: &mut ReadHalf, sizes: Sizes, owner: &impl Owner) -> String {
    let mut buffer = Vec::with_capacity(sizes.read_min);
    loop {
        while !io.is_closed() && !owner.may_read() {
            io.readable.wait().await;
        }
        if io.is_closed() {
            return "closed".to_owned();
        }
        let (result, filled) = half.read(buffer).await;
        buffer = filled;
        let count = match result {
            Ok(0) => return "the peer closed the connection".to_owned(),
            Ok(count) => count,
            Err(error) => return error.to_string(),
        };
        if let Err(why) = take(io, &buffer[..count], owner) {
            io.finish().await;
            return why;
        }
        if count == buffer.capacity() && count < sizes.read_max {
            buffer = Vec::with_capacity(count * 2);
        }
        buffer.clear();
    }
}

fn take(io: &SocketIo, bytes: &[u8], owner: &impl Owner) -> Result<(), String> {
    if io.tls.borrow().is_some() {
        decrypt(io, bytes, owner)?;
    } else {
        owner.input(bytes)?;
    }
    // The owner may have found that these bytes begin TLS.
    let begun = std::mem::take(&mut *io.begun.borrow_mut());
    if begun.is_empty() { Ok(()) } else { decrypt(io, &begun, owner) }
}

fn decrypt(io: &SocketIo, bytes: &[u8], owner: &impl Owner) -> Result<(), String> {
    let mut plain = Vec::new();
    let (outcome, secured) = {
        let mut tls = io.tls.borrow_mut();
        let Some(tls) = tls.as_mut() else { return Ok(()) };
        let outcome = tls.decrypt(bytes, &mut plain);
        (outcome, tls.take_secured())
    };
    io.writable.ring(); // the handshake, a key update or an alert may have something to say
    if let Some(secured) = secured {
        owner.secured(&secured);
    }
    if !plain.is_empty() {
        owner.input(&plain)?;
    }
    outcome
}

/// Writes until the connection ends.
pub async fn write(io: &SocketIo, mut half: WriteHalf, sizes: Sizes, owner: &impl Owner) {
    write_until_closed(io, &mut half, sizes, owner).await;
    io.finished.ring();
}

async fn write_until_closed(io: &SocketIo, half: &mut WriteHalf, sizes: Sizes, owner: &impl Owner) {
    let mut spare = Vec::new();
    while !io.is_closed() {
        let next = owner.output(std::mem::take(&mut spare));
        let output = match io.wrap(next) {
            Ok(Some(output)) => output,
            Ok(None) if io.finishing.get() => return,
            Ok(None) => {
                if owner.all_sent() == Written::Close {
                    let goodbye = io.tls.borrow_mut().as_mut().map(Tls::say_goodbye);
                    if let Some(goodbye) = goodbye {
                        let _ = half.write_all(goodbye).await;
                    }
                    io.close();
                    return;
                }
                io.writable.wait().await;
                continue;
            }
            Err(_) => return io.close(),
        };
        let (result, sent) = half.write_all(output).await;
        if result.is_err() {
            return io.close(); // the reader sees the same end and reports it
        }
        owner.sent();
        spare = sent;
        spare.clear();
        if spare.capacity() > sizes.keep_max {
            spare = Vec::new();
        }
    }
}
