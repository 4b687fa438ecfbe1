//! Accepts clients of one interlay on one core.

use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpListener;

use super::core::SharedCore;
use super::{client, syscalls};

pub async fn accept(core: SharedCore, index: usize, socket: StdListener) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot watch a listening socket");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                syscalls::tune(&stream);
                monoio::spawn(client::serve(Rc::clone(&core), index, stream, peer));
            }
            Err(error) => {
                // Out of descriptors: the clients wait in the kernel's queue until some are closed.
                tracing::warn!(%error, "cannot accept a client");
                monoio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
