//! The near end of a link as a byte stream of tokio: what the mover's own connections become in the simulation.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{End, LinkId, Party, SharedNet};
use crate::pipe::Pipe;
use base::model::Address;
use follow::redis::network::Duplex;
use follow::redis::network::testing::{Opening, install};

#[derive(Debug)]
struct SimulatedStream {
    net: SharedNet,
    link: LinkId,
    pipe: Rc<RefCell<Pipe>>,
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        let mut net = self.net.borrow_mut();
        net.catch_up();
        net.close(self.link, End::Near);
    }
}

impl AsyncRead for SimulatedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.inbox.is_empty() && !pipe.ended {
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.inbox.len().min(buffer.remaining());
        let bytes: Vec<u8> = pipe.inbox.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimulatedStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.pipe.borrow().ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut net = self.net.borrow_mut();
        net.catch_up();
        net.send(self.link, End::Near, bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut net = self.net.borrow_mut();
        net.catch_up();
        net.close(self.link, End::Near);
        Poll::Ready(Ok(()))
    }
}

async fn open(net: SharedNet, server: usize) -> io::Result<Box<dyn Duplex>> {
    let pipe = Rc::<RefCell<Pipe>>::default();
    net.borrow_mut().catch_up();
    let link = net.borrow_mut().connect(Party::Stream(Rc::clone(&pipe)), Party::Server(server));
    let stream = SimulatedStream { net, link, pipe };
    let taken = std::future::poll_fn(|context| {
        let mut pipe = stream.pipe.borrow_mut();
        match pipe.taken {
            Some(taken) => Poll::Ready(taken),
            None => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    if taken.await { Ok(Box::new(stream)) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

/// All connections of this thread's movers go through this network from now on. The ports of the two servers are 1 and 2.
pub fn use_network(net: &SharedNet) {
    let net = Rc::clone(net);
    install(Some(Rc::new(move |address: &Address| -> Opening {
        let Address::Tcp { port, .. } = address else { panic!("a server of the simulation has a port: {address}") };
        Box::pin(open(Rc::clone(&net), usize::from(*port) - 1))
    })));
}
