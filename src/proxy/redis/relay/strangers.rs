//! Clients that have not logged in: whether the server lets them run commands may change while the connection that others share stays logged in.
//! Lives on one core.
//!
//! A server decides it when a client connects (Redis `networking.c`, `clientSetDefaultAuth`). So a new client is let onto a shared connection only
//! if a connection made a moment ago was; one that was not gets a fresh connection of its own, on which the server says what it says.

use super::client::Client;
use super::path::{Path, Step, Wait};
use super::shared::Shared;
use super::upstream::Upstream;
use crate::contract::UpstreamKey;
use base::model::limits;
use wire::resp::Args;
use wire::resp::command::{Class, Command, Session};

impl Client {
    /// What a client that has not logged in must do before its first command.
    pub(super) fn vet(&mut self, shared: &mut Shared, command: &Command) -> Option<Step> {
        let exempt = matches!(command.class, Class::Session(Session::Auth | Session::Quit | Session::Reset));
        if self.session.vetted || self.own || self.session.credentials.is_some() || exempt {
            return None;
        }
        let pool = shared.pool_key(&self.session);
        let is_first = !shared.upstreams.shared.iter().any(|(key, _)| *key == pool);
        let fresh = shared
            .strangers
            .checked_us
            .is_some_and(|checked_us| shared.now.mono_us.saturating_sub(checked_us) < limits::STRANGERS_CHECKED_US);
        if is_first || (fresh && shared.strangers.allowed != Some(false)) {
            // The connection that it is the first to use is its own test.
            self.session.vetted = true;
            return None;
        }
        if fresh {
            self.own = true;
            self.path = Path::Pinned;
            self.pinned = Some(shared.connect(Upstream::new(pool, Some(self.key))));
            return None;
        }
        shared.strangers.waiting.push(self.key);
        if shared.strangers.checking.is_none() {
            let upstream = Upstream::new(pool, None);
            shared.strangers.checking = Some(shared.connect(upstream));
        }
        Some(Step::Wait(Wait::OwnReplies))
    }
}

impl Shared {
    /// A connection without a log-in was made, or could not be.
    pub(super) fn stranger_checked(&mut self, key: UpstreamKey) {
        self.strangers.checked_us = Some(self.now.mono_us);
        if self.strangers.checking == Some(key) {
            self.strangers.checking = None;
            self.resume.append(&mut self.strangers.waiting);
            self.close_upstream(key);
        }
    }

    /// A command that may change who needs a log-in has been sent.
    pub(super) fn strangers_may_change(&mut self, command: &Command, frame: &[u8]) {
        let sets = |word: &[u8]| Args::new(frame).nth(1).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        if command.name == "acl" || (command.name == "config" && sets(b"SET")) {
            self.strangers.checked_us = None;
        }
    }
}
