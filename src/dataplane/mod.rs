//! The data plane: one pinned thread per core, each with its own monoio runtime, listeners, connections and counters.
//!
//! The only place that names monoio. Learns by [`Directive`]s, answers with [`Report`]s, shares nothing else.

use std::sync::Arc;

use crate::bus::Switchboard;
use crate::model::{InterlaySpec, RoutePlan};

/// What the cores need at start. Every interlay has a first plan, so that a core never has a listener without orders.
#[derive(Debug)]
pub struct DataplaneConfig {
    pub cores: u16,
    pub interlays: Vec<(InterlaySpec, Arc<RoutePlan>)>,
}

/// The running cores. Stop them with [`crate::bus::Directive::Drain`] to each, then [`Dataplane::join`].
#[derive(Debug)]
pub struct Dataplane {
    threads: Vec<std::thread::JoinHandle<()>>,
    /// "io_uring", or "epoll" with the reason io_uring was refused; shown in the log and in `/readyz`.
    pub driver: String,
}

impl Dataplane {
    /// Binds every listener (so that a port in use is an error here, naming the interlay and the address) and starts the cores.
    ///
    /// # Errors
    /// A sentence that names the interlay, the address and what to do.
    pub fn start(_config: DataplaneConfig, _switchboard: &Switchboard) -> Result<Self, String> {
        todo!()
    }

    /// Waits until every core has ended.
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
