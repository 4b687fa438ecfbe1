//! Accepts clients of one interlay on one core.

use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpListener;

use super::core::{SharedCore, serve_client};
use super::sys;
use crate::relay::Relay;

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
            Ok((mut stream, _peer)) => {
                sys::tune(&stream, false);
                let key = core.borrow_mut().interlays[index].relay.client_opened();
                match key {
                    Some(key) => {
                        monoio::spawn(serve_client(Rc::clone(&core), index, key, stream));
                    }
                    None => {
                        monoio::spawn(async move {
                            let _ = stream.write_all(Relay::too_many()).await;
                        });
                    }
                }
            }
            Err(error) => {
                // Out of descriptors: the clients wait in the kernel's queue until some are closed.
                tracing::warn!(%error, "cannot accept a client");
                monoio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
