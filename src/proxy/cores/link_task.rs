//! The tasks of one connection of a companion: connect, serve, and connect again until the companion closes it.

use std::rc::Rc;
use std::time::Duration;

use super::connect;
use super::core::SharedCore;
use super::links::Link;
use super::pump::pump;
use super::socket::{self, Owner, SocketIo};
use crate::contract::{LinkKey, Secured};
use base::model::{Side, limits};

/// Pause between two tries to reach a server: long enough not to be a burden, short enough to be back at once.
const RETRY_MS: u64 = 100;

struct LinkOwner {
    core: SharedCore,
    index: usize,
    key: LinkKey,
}

impl Owner for LinkOwner {
    fn input(&self, bytes: &[u8]) -> Result<(), String> {
        let outcome = {
            let mut borrowed = self.core.borrow_mut();
            let now = borrowed.now();
            match borrowed.interlays[self.index].companion.as_mut() {
                Some(companion) => companion.link_input(self.key, bytes, now),
                None => Err("nothing uses this connection any more".to_owned()),
            }
        };
        pump(&self.core, self.index);
        if let Err(why) = &outcome {
            let interlay = self.core.borrow().interlays[self.index].name.clone();
            tracing::error!(%why, %interlay, "a connection to a server is given up and made again");
        }
        outcome
    }

    fn secured(&self, _secured: &Secured) {}

    fn may_read(&self) -> bool {
        true
    }

    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>> {
        let mut borrowed = self.core.borrow_mut();
        borrowed.interlays[self.index].companion.as_mut()?.take_link_output(self.key, recycled)
    }
}

/// Connects, serves, and connects again until the companion closes the link.
pub async fn keep_connected(core: SharedCore, index: usize, key: LinkKey, side: Side, link: Rc<Link>) {
    while !link.is_closed() {
        let endpoint = core.borrow().interlays[index].relay.plan().endpoint(side).clone();
        let why = match monoio::time::timeout(limits::CONNECT_TIMEOUT, connect::open(&endpoint.address)).await {
            Err(_) => format!("no connection within {} s", limits::CONNECT_TIMEOUT.as_secs()),
            Ok(Err(error)) => format!("{} ({error})", endpoint.address),
            Ok(Ok(opened)) => serve(&core, index, key, opened, &link).await,
        };
        if link.is_closed() {
            return;
        }
        {
            let mut borrowed = core.borrow_mut();
            let now = borrowed.now();
            if let Some(companion) = borrowed.interlays[index].companion.as_mut() {
                companion.link_lost(key, &why, now);
            }
        }
        pump(&core, index);
        monoio::time::sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn serve(core: &SharedCore, index: usize, key: LinkKey, opened: connect::Stream, link: &Link) -> String {
    if link.is_closed() {
        return "closed".to_owned();
    }
    let io = Rc::new(SocketIo::new(opened));
    link.set_io(Some(Rc::clone(&io)));
    {
        let mut borrowed = core.borrow_mut();
        let now = borrowed.now();
        if let Some(companion) = borrowed.interlays[index].companion.as_mut() {
            companion.link_opened(key, now);
        }
    }
    let owner = Rc::new(LinkOwner { core: Rc::clone(core), index, key });
    let (writer_io, writer_owner) = (Rc::clone(&io), Rc::clone(&owner));
    let writer = monoio::spawn(async move { socket::write(&writer_io, &*writer_owner).await });
    let overdue = monoio::spawn(close_if_not_ready(Rc::clone(core), index, key, Rc::clone(&io)));
    let why = socket::read(&io, &*owner).await;
    io.close();
    link.set_io(None);
    writer.await;
    drop(overdue);
    why
}

/// Closes a connection that is not ready for use in time.
async fn close_if_not_ready(core: SharedCore, index: usize, key: LinkKey, io: Rc<SocketIo>) {
    monoio::time::sleep(limits::CONNECT_TIMEOUT).await;
    let ready = core.borrow().interlays[index].companion.as_ref().is_some_and(|companion| companion.link_is_ready(key));
    if !io.is_closed() && !ready {
        io.close();
    }
}
