//! The lane's two connections: kept up while dual operation lasts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::connect;
use super::core::{SharedCore, pump};
use super::pipe::{self, Owner, SocketIo};
use crate::contract::Secured;
use base::model::{Side, limits};

/// Pause between two tries to reach a server: long enough not to be a burden, short enough to be back at once.
const RETRY_MS: u64 = 100;

/// Both connections. Lives on the lane's core from the start of dual operation to its end.
#[derive(Debug, Default)]
pub struct LaneIo {
    source: RefCell<Option<Rc<SocketIo>>>,
    target: RefCell<Option<Rc<SocketIo>>>,
    closed: Cell<bool>,
}

impl LaneIo {
    fn of(&self, side: Side) -> &RefCell<Option<Rc<SocketIo>>> {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// Wakes the writer of one side.
    pub fn ring(&self, side: Side) {
        if let Some(io) = &*self.of(side).borrow() {
            io.writable.ring();
        }
    }

    pub fn close(&self) {
        self.closed.set(true);
        for side in [Side::Source, Side::Target] {
            if let Some(io) = &*self.of(side).borrow() {
                io.close();
            }
        }
    }
}

struct LaneSide {
    core: SharedCore,
    index: usize,
    side: Side,
}

impl Owner for LaneSide {
    fn input(&self, bytes: &[u8]) -> Result<(), String> {
        let outcome = {
            let mut borrowed = self.core.borrow_mut();
            let now = borrowed.now();
            match borrowed.interlays[self.index].lane.as_mut() {
                Some(lane) => lane.input(self.side, bytes, now),
                None => return Err("the lane is over".to_owned()),
            }
        };
        pump(&self.core, self.index);
        if let Err(why) = &outcome {
            tracing::error!(%why, side = %self.side, "the lane cannot use this connection");
        }
        outcome
    }

    fn secured(&self, _secured: &Secured) {}

    fn may_read(&self) -> bool {
        true
    }

    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>> {
        let mut borrowed = self.core.borrow_mut();
        borrowed.interlays[self.index].lane.as_mut().and_then(|lane| lane.take_output(self.side, recycled))
    }
}

/// Connects, serves, and connects again until the lane is over.
pub async fn keep_connected(core: SharedCore, index: usize, side: Side, io: Rc<LaneIo>) {
    while !io.closed.get() {
        let endpoint = core.borrow().interlays[index].relay.plan().endpoint(side).clone();
        let why = match monoio::time::timeout(limits::CONNECT_TIMEOUT, connect::open(&endpoint.address)).await {
            Err(_) => format!("no connection within {} s", limits::CONNECT_TIMEOUT.as_secs()),
            Ok(Err(error)) => format!("{} ({error})", endpoint.address),
            Ok(Ok(opened)) => serve(&core, index, side, opened, &io).await,
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

async fn serve(core: &SharedCore, index: usize, side: Side, opened: connect::Stream, lane_io: &LaneIo) -> String {
    if lane_io.closed.get() {
        return "the lane is over".to_owned();
    }
    let io = Rc::new(SocketIo::new(opened));
    *lane_io.of(side).borrow_mut() = Some(Rc::clone(&io));
    {
        let mut borrowed = core.borrow_mut();
        let token = borrowed.token;
        if let Some(lane) = borrowed.interlays[index].lane.as_mut() {
            lane.opened(side, token);
        }
    }
    let owner = Rc::new(LaneSide { core: Rc::clone(core), index, side });
    let (writer_io, writer_owner) = (Rc::clone(&io), Rc::clone(&owner));
    let writer = monoio::spawn(async move { pipe::write(&writer_io, &*writer_owner).await });
    let overdue = monoio::spawn(watch(Rc::clone(core), index, side, Rc::clone(&io)));
    let why = pipe::read(&io, &*owner).await;
    io.close();
    *lane_io.of(side).borrow_mut() = None;
    writer.await;
    drop(overdue);
    why
}

/// Closes a connection whose introduction is not over in time.
async fn watch(core: SharedCore, index: usize, side: Side, io: Rc<SocketIo>) {
    monoio::time::sleep(limits::CONNECT_TIMEOUT).await;
    let connected = core.borrow().interlays[index].lane.as_ref().is_some_and(|lane| lane.is_connected(side));
    if !io.is_closed() && !connected {
        io.close();
    }
}
