//! One upstream connection: opened, then read and written until it ends. Logging in is the relay's business, within a time limit.

use std::rc::Rc;

use super::connect;
use super::core::SharedCore;
use super::pump::pump;
use super::socket::{self, Owner, SocketIo};
use crate::contract::{Failure, Secured, UpstreamKey};
use base::model::{Side, limits};

struct UpstreamOf {
    core: SharedCore,
    index: usize,
    key: UpstreamKey,
}

impl Owner for UpstreamOf {
    fn input(&self, bytes: &[u8]) -> Result<(), String> {
        let outcome = {
            let mut borrowed = self.core.borrow_mut();
            let now = borrowed.now();
            borrowed.interlays[self.index].relay.upstream_input(self.key, bytes, now)
        };
        pump(&self.core, self.index);
        if let Err(why) = &outcome {
            tracing::error!(%why, "a server sent something that is not its protocol");
        }
        outcome
    }

    fn secured(&self, _secured: &Secured) {
        self.core.borrow_mut().interlays[self.index].relay.upstream_secured(self.key);
        pump(&self.core, self.index);
    }

    fn may_read(&self) -> bool {
        self.core.borrow().interlays[self.index].relay.may_read_upstream(self.key)
    }

    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.core.borrow_mut().interlays[self.index].relay.take_upstream_output(self.key, recycled)
    }

    fn sent(&self) {
        pump(&self.core, self.index);
    }
}

/// From the wish to connect to the end.
pub async fn run(core: SharedCore, index: usize, key: UpstreamKey, side: Side) {
    let endpoint = core.borrow().interlays[index].relay.plan().endpoint(side).clone();
    let late = || format!("no connection to {} within {} s", endpoint.address, limits::CONNECT_TIMEOUT.as_secs());
    let failure = match monoio::time::timeout(limits::CONNECT_TIMEOUT, connect::open(&endpoint.address)).await {
        Err(_) => Failure::Unreachable(late()),
        Ok(Err(error)) => Failure::Unreachable(format!("{} ({error})", endpoint.address)),
        Ok(Ok(opened)) => {
            let io = Rc::new(SocketIo::new(opened));
            {
                let mut borrowed = core.borrow_mut();
                let now = borrowed.now();
                let interlay = &mut borrowed.interlays[index];
                interlay.upstreams.insert(key, Rc::clone(&io));
                interlay.relay.upstream_opened(key, now);
            }
            pump(&core, index);
            let overdue = monoio::spawn(watch(Rc::clone(&core), index, key, Rc::clone(&io)));
            let owner = Rc::new(UpstreamOf { core: Rc::clone(&core), index, key });
            let (writer_io, writer_owner) = (Rc::clone(&io), Rc::clone(&owner));
            let writer = monoio::spawn(async move { socket::write(&writer_io, &*writer_owner).await });
            let why = socket::read(&io, &*owner).await;
            io.close();
            writer.await;
            drop(overdue);
            if core.borrow().interlays[index].relay.upstream_ready(key) {
                Failure::Lost(why)
            } else {
                Failure::Unreachable(format!("{} ({why} before it was ready)", endpoint.address))
            }
        }
    };
    {
        let mut borrowed = core.borrow_mut();
        let interlay = &mut borrowed.interlays[index];
        interlay.upstreams.remove(key);
        interlay.relay.upstream_failed(key, &failure);
    }
    pump(&core, index);
}

/// Closes a connection that is not ready in time. After its end `close` does nothing.
async fn watch(core: SharedCore, index: usize, key: UpstreamKey, io: Rc<SocketIo>) {
    monoio::time::sleep(limits::CONNECT_TIMEOUT).await;
    if !io.is_closed() && !core.borrow().interlays[index].relay.upstream_ready(key) {
        io.close();
    }
}
