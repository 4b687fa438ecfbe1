//! One client connection: a task that reads, a task that writes, and the relay between them.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::TcpStream;
use monoio::net::tcp::TcpOwnedWriteHalf;

use super::core::{SharedCore, pump};
use super::notify::Notify;
use super::sys;
use crate::relay::ClientKey;

/// Smallest and largest buffer a client's socket is read into; it grows while reads fill it.
const READ_BYTES_MIN: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;
/// A sent buffer larger than this is not kept for the next replies.
const KEEP_BYTES_MAX: usize = 64 * 1024;

/// What others on the core may do to a client's connection.
#[derive(Debug)]
pub struct ClientIo {
    fd: RawFd,
    closed: Cell<bool>,
    pub readable: Notify,
    pub writable: Notify,
}

impl ClientIo {
    /// Ends both tasks. The descriptor itself is closed when they are over.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            sys::shutdown(self.fd);
        }
        self.readable.ring();
        self.writable.ring();
    }
}

pub async fn serve(core: SharedCore, index: usize, key: ClientKey, stream: TcpStream) {
    let io = Rc::new(ClientIo {
        fd: stream.as_raw_fd(),
        closed: Cell::new(false),
        readable: Notify::default(),
        writable: Notify::default(),
    });
    core.borrow_mut().interlays[index].clients.insert(key, Rc::clone(&io));
    let (mut reading, writing) = stream.into_split();
    let writer = monoio::spawn(write(Rc::clone(&core), index, key, writing, Rc::clone(&io)));
    let mut buffer = Vec::with_capacity(READ_BYTES_MIN);
    while !io.closed.get() {
        let (result, filled) = reading.read(buffer).await;
        buffer = filled;
        let count = match result {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let may_read = {
            let mut borrowed = core.borrow_mut();
            let relay = &mut borrowed.interlays[index].relay;
            relay.client_input(key, &buffer[..count]);
            relay.may_read(key)
        };
        pump(&core, index);
        if count == buffer.capacity() && count < READ_BYTES_MAX {
            buffer = Vec::with_capacity(count * 2);
        }
        buffer.clear();
        if !may_read {
            while !io.closed.get() && !core.borrow().interlays[index].relay.may_read(key) {
                io.readable.wait().await;
            }
        }
    }
    {
        let mut borrowed = core.borrow_mut();
        borrowed.interlays[index].relay.client_closed(key);
        borrowed.interlays[index].clients.remove(&key);
    }
    pump(&core, index);
    io.close();
    writer.await;
}

async fn write(core: SharedCore, index: usize, key: ClientKey, mut writing: TcpOwnedWriteHalf, io: Rc<ClientIo>) {
    let mut spare = Vec::new();
    while !io.closed.get() {
        io.writable.wait().await;
        loop {
            let output = core.borrow_mut().interlays[index].relay.take_client_output(key, std::mem::take(&mut spare));
            let Some(output) = output else { break };
            let (result, sent) = writing.write_all(output).await;
            if result.is_err() {
                io.close();
                return;
            }
            spare = sent;
            spare.clear();
            if spare.capacity() > KEEP_BYTES_MAX {
                spare = Vec::new();
            }
        }
        let done = core.borrow_mut().interlays[index].relay.client_written(key);
        pump(&core, index);
        if done {
            io.close();
        }
    }
}
