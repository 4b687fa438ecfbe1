//! The pump: turns what a relay or companion asks into work for tasks, until nothing more is asked.
//!
//! Lives on one core. It starts the tasks of upstream connections and links, and they call it: the one circle of imports in `cores`.

use std::rc::Rc;

use super::core::CoreMessage;
use super::core::SharedCore;
use super::tls::Tls;
use super::{link_task, upstream};
use crate::contract::{Ask, CompanionAsk, Failure, UpstreamKey};
use base::model::Side;

/// Performs what the relay and the companion of one interlay ask, until they ask no more.
pub fn pump(core: &SharedCore, index: usize) {
    loop {
        let (asks, companion_asks, moved) = {
            let mut borrowed = core.borrow_mut();
            borrowed.exchange_with_companion(index);
            let moved = borrowed.send_what_is_ready(index);
            let interlay = &mut borrowed.interlays[index];
            let companion_asks = interlay.companion.as_mut().map(|companion| companion.take_asks()).unwrap_or_default();
            (interlay.relay.take_asks(), companion_asks, moved)
        };
        if asks.is_empty() && companion_asks.is_empty() && !moved {
            break;
        }
        for ask in asks {
            perform(core, index, ask);
        }
        for ask in companion_asks {
            perform_for_companion(core, index, ask);
        }
    }
    core.borrow_mut().report_what_is_new(index);
}

fn perform(core: &SharedCore, index: usize, ask: Ask) {
    match ask {
        Ask::Connect { upstream, side } => {
            monoio::spawn(upstream::run(Rc::clone(core), index, upstream, side));
        }
        Ask::SecureUpstream { upstream, side } => secure_upstream(core, index, upstream, side),
        Ask::SecureClient { client, prologue, begun } => {
            let borrowed = core.borrow();
            let interlay = &borrowed.interlays[index];
            let Some(io) = interlay.clients.get(client) else { return };
            match interlay.tls.as_ref().map(|config| Tls::accept(config, prologue)) {
                Some(Ok(tls)) => io.secure(tls, begun),
                Some(Err(_)) | None => io.close(),
            }
        }
        Ask::CloseUpstream(key) => {
            let io = core.borrow_mut().interlays[index].upstreams.remove(key);
            if let Some(io) = io {
                io.close();
            }
        }
        Ask::CloseClient(key) => {
            let io = core.borrow().interlays[index].clients.get(key).cloned();
            if let Some(io) = io {
                io.close();
            }
        }
        Ask::ReadClient(key) => {
            if let Some(io) = core.borrow().interlays[index].clients.get(key) {
                io.readable.ring();
            }
        }
        Ask::ReadUpstream(key) => {
            if let Some(io) = core.borrow().interlays[index].upstreams.get(key) {
                io.readable.ring();
            }
        }
        Ask::Hand { to, interrupt } => {
            core.borrow_mut().send(to, CoreMessage::Interrupt { interlay: index, interrupt });
        }
    }
}

fn perform_for_companion(core: &SharedCore, index: usize, ask: CompanionAsk) {
    match ask {
        CompanionAsk::Connect { link: key, side } => {
            let link = core.borrow_mut().interlays[index].links.open(key);
            monoio::spawn(link_task::keep_connected(Rc::clone(core), index, key, side, link));
        }
        CompanionAsk::Close(key) => core.borrow_mut().interlays[index].links.close(key),
    }
}

fn secure_upstream(core: &SharedCore, index: usize, key: UpstreamKey, side: Side) {
    let mut borrowed = core.borrow_mut();
    let Some(io) = borrowed.interlays[index].upstreams.get(key).cloned() else { return };
    let relay = &borrowed.interlays[index].relay;
    match borrowed.tls.connect(relay.plan().endpoint(side)) {
        Ok(tls) => io.secure(tls, Vec::new()),
        Err(why) => {
            borrowed.interlays[index].relay.upstream_failed(key, &Failure::Unreachable(why));
            io.close();
        }
    }
}
