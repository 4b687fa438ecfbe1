//! One client connection.

use std::net::SocketAddr;
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::connect::Stream;
use super::core::SharedCore;
use super::pump::pump;
use super::socket::{self, Owner, SocketIo, Written};
use crate::contract::{Arrival, ClientKey, Secured};
use base::model::limits;

/// What a refused client still says is read in pieces of this size, and thrown away.
const REFUSED_READ_BYTES: usize = 4096;

struct ClientOf {
    core: SharedCore,
    index: usize,
    key: ClientKey,
}

impl Owner for ClientOf {
    fn input(&self, bytes: &[u8]) -> Result<(), String> {
        {
            let mut borrowed = self.core.borrow_mut();
            let now = borrowed.now();
            borrowed.interlays[self.index].relay.client_input(self.key, bytes, now);
        }
        pump(&self.core, self.index);
        Ok(())
    }

    fn secured(&self, secured: &Secured) {
        self.core.borrow_mut().interlays[self.index].relay.client_secured(self.key, secured);
        pump(&self.core, self.index);
    }

    fn may_read(&self) -> bool {
        self.core.borrow().interlays[self.index].relay.may_read_client(self.key)
    }

    fn ended(&self) -> bool {
        let over = self.core.borrow_mut().interlays[self.index].relay.client_ended(self.key);
        pump(&self.core, self.index);
        over
    }

    fn output(&self, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.core.borrow_mut().interlays[self.index].relay.take_client_output(self.key, recycled)
    }

    fn all_sent(&self) -> Written {
        let done = self.core.borrow_mut().interlays[self.index].relay.client_written(self.key);
        pump(&self.core, self.index);
        if done { Written::Close } else { Written::GoOn }
    }
}

/// Says why, and waits for the peer to close: what it has sent already would otherwise make the kernel throw our words away.
async fn refuse(mut stream: TcpStream, refusal: Vec<u8>) {
    let _ = stream.write_all(refusal).await;
    let _ = stream.shutdown().await;
    let until_closed = async {
        let mut buffer = Vec::with_capacity(REFUSED_READ_BYTES);
        while let (Ok(1..), filled) = stream.read(buffer).await {
            buffer = filled;
            buffer.clear();
        }
    };
    let _ = monoio::time::timeout(limits::LAST_WORDS_TIMEOUT, until_closed).await;
}

/// From accept to close.
pub async fn serve(core: SharedCore, index: usize, stream: TcpStream, peer: SocketAddr) {
    let opened = {
        let mut borrowed = core.borrow_mut();
        let arrival = Arrival { peer: Some(peer), now: borrowed.now() };
        borrowed.interlays[index].relay.client_opened(arrival)
    };
    let key = match opened {
        Ok(key) => key,
        Err(refusal) => return refuse(stream, refusal).await,
    };
    let io = Rc::new(SocketIo::new(Stream::Tcp(stream)));
    core.borrow_mut().interlays[index].clients.insert(key, Rc::clone(&io));
    let owner = Rc::new(ClientOf { core: Rc::clone(&core), index, key });
    let (writer_io, writer_owner) = (Rc::clone(&io), Rc::clone(&owner));
    let writer = monoio::spawn(async move { socket::write(&writer_io, &*writer_owner).await });
    socket::read(&io, &*owner).await;
    {
        let mut borrowed = core.borrow_mut();
        borrowed.interlays[index].relay.client_closed(key);
        borrowed.interlays[index].clients.remove(key);
    }
    pump(&core, index);
    io.close();
    writer.await;
}
