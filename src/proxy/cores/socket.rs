//! The two tasks of every connection, of a client, an upstream or a link: one reads and hands over, one sends what could not be sent
//! at once; TLS in between. An idle connection holds no buffer: the runtime says when a socket is ready, and all share one buffer to
//! read into.

use std::cell::{Cell, RefCell};

use super::connect::Stream;
use super::notify::Notify;
use super::syscalls;
use super::tls::Tls;
use crate::contract::Secured;
use base::model::limits;

thread_local! {
    /// The buffer that all sockets of a core are read into. An owner copies the bytes it keeps.
    static ARRIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; limits::SOCKET_READ_BYTES]);
}

/// What others on the core may do to a connection.
#[derive(Debug)]
pub struct SocketIo {
    stream: Stream,
    closed: Cell<bool>,
    /// Rung when the owner may read again.
    pub readable: Notify,
    /// Rung when there is something for the writer task.
    pub writable: Notify,
    outbox: RefCell<Outbox>,
    /// The socket took no more; the writer task waits for room.
    full: Cell<bool>,
    tls: RefCell<Option<Box<Tls>>>,
    /// Bytes of the peer's TLS that came before TLS was known to begin.
    begun: RefCell<Vec<u8>>,
    /// The writer is to send what there is and end.
    finishing: Cell<bool>,
    finished: Notify,
}

/// Bytes on their way into the socket.
#[derive(Debug, Default)]
struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

/// What became of a try to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// There is no more.
    All,
    /// The rest waits for room.
    Full,
    /// The connection has ended.
    Over,
}

impl SocketIo {
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            closed: Cell::new(false),
            readable: Notify::default(),
            writable: Notify::default(),
            outbox: RefCell::default(),
            full: Cell::new(false),
            tls: RefCell::default(),
            begun: RefCell::default(),
            finishing: Cell::new(false),
            finished: Notify::default(),
        }
    }

    /// Ends both tasks. The descriptor itself is closed when they are over.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            syscalls::shutdown(self.stream.fd());
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
        *self.tls.borrow_mut() = Some(Box::new(tls));
        *self.begun.borrow_mut() = begun;
        self.writable.ring();
    }

    /// Sends what `next` gives until it has no more or the socket is full. `next` is given a buffer to be used for what comes after.
    pub fn send(&self, mut next: impl FnMut(Vec<u8>) -> Option<Vec<u8>>) -> Sending {
        if self.full.get() {
            return Sending::Full;
        }
        let mut outbox = self.outbox.borrow_mut();
        loop {
            if self.closed.get() {
                return Sending::Over;
            }
            while outbox.sent < outbox.bytes.len() {
                match syscalls::send(self.stream.fd(), &outbox.bytes[outbox.sent..]) {
                    Ok(Some(count)) => outbox.sent += count,
                    Ok(None) => {
                        self.full.set(true);
                        return Sending::Full;
                    }
                    Err(_) => {
                        self.close(); // the reader sees the same end and reports it
                        return Sending::Over;
                    }
                }
            }
            let mut spare = std::mem::take(&mut *outbox).bytes;
            spare.clear();
            match self.wrap(next(spare)) {
                Ok(Some(bytes)) => outbox.bytes = bytes,
                Ok(None) => return Sending::All,
                Err(_) => {
                    self.close();
                    return Sending::Over;
                }
            }
        }
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

    /// Until the socket takes more.
    async fn room(&self) {
        if self.stream.writable().await.is_err() {
            self.close();
        }
        self.full.set(false);
    }
}

/// Whether the writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    GoOn,
    /// Everything has been sent: close.
    Close,
}

/// What a connection belongs to: it takes the bytes that arrive and gives those to be sent.
pub trait Owner {
    /// Bytes arrived.
    ///
    /// # Errors
    /// Why the connection must end.
    fn input(&self, bytes: &[u8]) -> Result<(), String>;

    /// The TLS handshake is done.
    fn secured(&self, secured: &Secured);

    fn may_read(&self) -> bool;

    /// The peer sends no more. True when the connection is over; false when something is still to be sent, behind which it is closed.
    fn ended(&self) -> bool {
        true
    }

    /// The next bytes to be sent; `recycled` may be used for those after.
    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>>;

    /// Something may have been sent, and more may be waiting.
    fn sent(&self) {}

    /// There is nothing to send.
    fn all_sent(&self) -> Written {
        Written::GoOn
    }
}

/// Reads until the connection ends; why it did.
pub async fn read(io: &SocketIo, owner: &impl Owner) -> String {
    loop {
        while !io.is_closed() && !owner.may_read() {
            io.readable.wait().await;
        }
        if io.is_closed() {
            return "closed".to_owned();
        }
        if let Err(error) = io.stream.readable().await {
            return error.to_string();
        }
        let outcome = ARRIVED.with_borrow_mut(|buffer| match syscalls::receive(io.stream.fd(), buffer) {
            Ok(Some(0)) => Err(Ending::HalfClosed),
            Ok(Some(count)) => take(io, &buffer[..count], owner).map_err(Ending::Refused),
            Ok(None) => Ok(()),
            Err(error) => Err(Ending::Gone(error.to_string())),
        });
        match outcome {
            Ok(()) => {}
            Err(Ending::Gone(why)) => return why,
            Err(Ending::HalfClosed) => {
                if !owner.ended() {
                    io.writable.ring();
                    while !io.is_closed() {
                        io.readable.wait().await;
                    }
                }
                return "the peer closed the connection".to_owned();
            }
            Err(Ending::Refused(why)) => {
                io.finish().await;
                return why;
            }
        }
    }
}

/// Why reading ends.
enum Ending {
    Gone(String),
    /// At least the peer's half of it.
    HalfClosed,
    /// The owner wants no more of this peer, which is told why first.
    Refused(String),
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

/// Sends whenever it is rung, until the connection ends.
pub async fn write(io: &SocketIo, owner: &impl Owner) {
    loop {
        let sending = io.send(|recycled| owner.output(recycled));
        owner.sent();
        match sending {
            Sending::Full => io.room().await,
            Sending::All if io.finishing.get() => break,
            Sending::All if owner.all_sent() == Written::Close => {
                say_goodbye(io).await;
                io.close();
                break;
            }
            Sending::All => io.writable.wait().await,
            Sending::Over => break,
        }
    }
    io.finished.ring();
}

async fn say_goodbye(io: &SocketIo) {
    let goodbye = io.tls.borrow_mut().as_mut().map(|tls| tls.say_goodbye());
    // Encrypted already, so it goes past `send`.
    let Some(goodbye) = goodbye else { return };
    let mut rest = goodbye.as_slice();
    while !rest.is_empty() && !io.is_closed() {
        match syscalls::send(io.stream.fd(), rest) {
            Ok(Some(count)) => rest = &rest[count..],
            Ok(None) => io.room().await,
            Err(_) => return,
        }
    }
}
