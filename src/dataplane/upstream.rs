//! One upstream connection: connects, logs in, then a task that reads and a task that writes.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};

use super::connect::{self, LogIn, WriteHalf};
use super::core::{SharedCore, pump};
use super::notify::Notify;
use super::sys;
use crate::relay::{Failure, PoolKey, UpstreamKey};

/// A server's replies are read in larger pieces: many clients' share one connection.
const READ_BYTES_MIN: usize = 64 * 1024;
const READ_BYTES_MAX: usize = 1024 * 1024;
const KEEP_BYTES_MAX: usize = 1024 * 1024;

/// What others on the core may do to an upstream connection.
#[derive(Debug)]
pub struct UpstreamIo {
    fd: RawFd,
    closed: Cell<bool>,
    pub writable: Notify,
}

impl UpstreamIo {
    pub fn close(&self) {
        if !self.closed.replace(true) {
            sys::shutdown(self.fd);
        }
        self.writable.ring();
    }
}

pub async fn run(core: SharedCore, index: usize, key: UpstreamKey, pool: PoolKey) {
    let (endpoint, name) = {
        let borrowed = core.borrow();
        let plan = borrowed.interlays[index].relay.plan();
        (plan.endpoint(pool.side).clone(), connect::connection_name("core", plan.interlay.as_str(), borrowed.token))
    };
    let log_in = LogIn {
        credentials: pool.credentials.as_deref().cloned(),
        database: pool.database,
        resp: pool.resp,
        learn_anonymous: pool.credentials.is_none(),
        name,
    };
    let failure = match connect::connect(&endpoint, &log_in).await {
        Err(failure) => failure,
        Ok(connected) => {
            let io = Rc::new(UpstreamIo { fd: connected.fd, closed: Cell::new(false), writable: Notify::default() });
            {
                let mut borrowed = core.borrow_mut();
                let interlay = &mut borrowed.interlays[index];
                interlay.upstreams.insert(key, Rc::clone(&io));
                interlay.relay.upstream_connected(key, connected.client_id, connected.anonymous_allowed);
            }
            pump(&core, index);
            let (mut reading, writing) = connected.into_halves();
            let writer = monoio::spawn(write(Rc::clone(&core), index, key, writing, Rc::clone(&io)));
            let why = read(&core, index, key, &mut reading, &io).await;
            io.close();
            writer.await;
            Failure::Lost(why)
        }
    };
    {
        let mut borrowed = core.borrow_mut();
        let interlay = &mut borrowed.interlays[index];
        interlay.upstreams.remove(&key);
        interlay.relay.upstream_failed(key, &failure);
    }
    pump(&core, index);
}

async fn read(
    core: &SharedCore,
    index: usize,
    key: UpstreamKey,
    reading: &mut connect::ReadHalf,
    io: &UpstreamIo,
) -> String {
    let mut buffer = Vec::with_capacity(READ_BYTES_MIN);
    while !io.closed.get() {
        let (result, filled) = reading.read(buffer).await;
        buffer = filled;
        let count = match result {
            Ok(0) => return "the server closed the connection".to_owned(),
            Ok(count) => count,
            Err(error) => return error.to_string(),
        };
        let outcome = core.borrow_mut().interlays[index].relay.upstream_input(key, &buffer[..count]);
        pump(core, index);
        if let Err(why) = outcome {
            tracing::error!(%why, "a server sent something that is not RESP");
            return why;
        }
        if count == buffer.capacity() && count < READ_BYTES_MAX {
            buffer = Vec::with_capacity(count * 2);
        }
        buffer.clear();
    }
    "closed".to_owned()
}

async fn write(core: SharedCore, index: usize, key: UpstreamKey, mut writing: WriteHalf, io: Rc<UpstreamIo>) {
    let mut spare = Vec::new();
    while !io.closed.get() {
        let output = core.borrow_mut().interlays[index].relay.take_upstream_output(key, std::mem::take(&mut spare));
        let Some(output) = output else {
            io.writable.wait().await;
            continue;
        };
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
        pump(&core, index);
    }
}
