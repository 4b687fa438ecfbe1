//! Cancel requests: whether one is right and in time, judged by the session that it names. Without I/O; lives on one core.
//!
//! A request may arrive on any core; the relay hands it to the core of its session. Neither PostgreSQL nor Crossfade ever answers one.

use super::server::{CancelRequest, Servers};
use super::session::Session;
use crate::contract::{ClientKey, Interrupt};
use base::model::Side;
use wire::postgres::auth::same_secret;

impl Session {
    /// What to ask the session's backend, and on which side it is; `None` when nothing runs or the key is wrong.
    pub fn cancel_request(
        &self,
        interrupt: &Interrupt,
        asker: Option<ClientKey>,
        servers: &Servers,
    ) -> Option<(CancelRequest, Side)> {
        let ready = self.ready().filter(|ready| ready.tracker.is_busy())?;
        if !same_secret(&interrupt.key, &self.secret) {
            return None;
        }
        let server = servers.get(self.server?)?;
        let backend = server.backend()?.clone();
        Some((CancelRequest { backend, session: self.key, unit: ready.units, asker }, server.side))
    }

    /// Whether the session still runs the unit of work that a cancel request is meant for.
    pub fn is_running(&self, unit: u64) -> bool {
        self.ready().is_some_and(|ready| ready.tracker.is_busy() && ready.units == unit)
    }
}
