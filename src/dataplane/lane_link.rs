//! The lane's two connections: kept up while dual operation lasts.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};

use super::connect::{self, ReadHalf, WriteHalf};
use super::core::{SharedCore, pump};
use super::notify::Notify;
use super::sys;
use crate::model::Side;

const READ_BYTES: usize = 256 * 1024;
const KEEP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pause between two tries to reach a server: long enough not to be a burden, short enough to be back at once.
const RETRY_MS: u64 = 100;

/// One of the two connections.
#[derive(Debug, Default)]
pub struct LinkIo {
    fd: Cell<Option<RawFd>>,
    pub writable: Notify,
}

/// Both. Lives on the lane's core from the start of dual operation to its end.
#[derive(Debug, Default)]
pub struct LaneIo {
    source: LinkIo,
    target: LinkIo,
    closed: Cell<bool>,
}

impl LaneIo {
    pub fn of(&self, side: Side) -> &LinkIo {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    pub fn close(&self) {
        self.closed.set(true);
        for side in [Side::Source, Side::Target] {
            let link = self.of(side);
            if let Some(fd) = link.fd.get() {
                sys::shutdown(fd);
            }
            link.writable.ring();
        }
    }
}

/// Connects, serves, and connects again until the lane is over.
pub async fn keep_connected(core: SharedCore, index: usize, side: Side, io: Rc<LaneIo>) {
    let mut predecessor = 0;
    while !io.closed.get() {
        let (endpoint, interlay, token) = {
            let borrowed = core.borrow();
            let plan = borrowed.interlays[index].relay.plan();
            (plan.endpoint(side).clone(), plan.interlay.clone(), borrowed.token)
        };
        let why = match connect::introduce(&endpoint, interlay.as_str(), token, predecessor).await {
            Err(why) => why,
            Ok(introduced) => {
                predecessor = introduced.connected.client_id;
                serve(&core, index, side, introduced, &io).await
            }
        };
        if io.closed.get() {
            return;
        }
        {
            let mut borrowed = core.borrow_mut();
            let now = borrowed.now();
            if let Some(lane) = borrowed.interlays[index].lane.as_mut() {
                lane.lost(side, &why, now);
            }
        }
        pump(&core, index);
        monoio::time::sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn serve(
    core: &SharedCore,
    index: usize,
    side: Side,
    introduced: connect::Introduced,
    io: &Rc<LaneIo>,
) -> String {
    let link = io.of(side);
    link.fd.set(Some(introduced.connected.fd));
    {
        let mut borrowed = core.borrow_mut();
        let now = borrowed.now();
        if let Some(lane) = borrowed.interlays[index].lane.as_mut() {
            lane.connected(side, &introduced.run_id, now);
        }
    }
    pump(core, index);
    let (mut reading, writing) = introduced.connected.into_halves();
    let over = Rc::new(Cell::new(false));
    let writer = monoio::spawn(write(Rc::clone(core), index, side, writing, Rc::clone(io), Rc::clone(&over)));
    let why = read(core, index, side, &mut reading, io).await;
    over.set(true);
    if let Some(fd) = link.fd.take() {
        sys::shutdown(fd);
    }
    link.writable.ring();
    writer.await;
    why
}

async fn read(core: &SharedCore, index: usize, side: Side, reading: &mut ReadHalf, io: &LaneIo) -> String {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    while !io.closed.get() {
        let (result, filled) = reading.read(buffer).await;
        buffer = filled;
        let count = match result {
            Ok(0) => return "the server closed the connection".to_owned(),
            Ok(count) => count,
            Err(error) => return error.to_string(),
        };
        let outcome = {
            let mut borrowed = core.borrow_mut();
            let now = borrowed.now();
            match borrowed.interlays[index].lane.as_mut() {
                Some(lane) => lane.input(side, &buffer[..count], now),
                None => return "the lane is over".to_owned(),
            }
        };
        pump(core, index);
        if let Err(why) = outcome {
            tracing::error!(%why, %side, "the lane got something that is not RESP");
            return why;
        }
        buffer.clear();
    }
    "closed".to_owned()
}

async fn write(
    core: SharedCore,
    index: usize,
    side: Side,
    mut writing: WriteHalf,
    io: Rc<LaneIo>,
    over: Rc<Cell<bool>>,
) {
    let mut spare = Vec::new();
    while !over.get() && !io.closed.get() {
        let output = core.borrow_mut().interlays[index]
            .lane
            .as_mut()
            .and_then(|lane| lane.take_output(side, std::mem::take(&mut spare)));
        let Some(output) = output else {
            io.of(side).writable.wait().await;
            continue;
        };
        let (result, sent) = writing.write_all(output).await;
        if result.is_err() {
            return; // the reader sees the same end and reports it
        }
        spare = sent;
        spare.clear();
        if spare.capacity() > KEEP_BYTES_MAX {
            spare = Vec::new();
        }
    }
}
