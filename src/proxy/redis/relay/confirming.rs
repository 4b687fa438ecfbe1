//! Withholding replies until they are confirmed (`write_consistency both`). Lives on one core.
//!
//! Whatever a client is to be told after it has sent a write is withheld. A ticket is asked for when replies are in, one at a time for all clients; when
//! it is confirmed, what had been withheld by then is delivered, in its order. Reads of clients that write nothing are not touched.

use super::client::Client;
use super::path::Path;
use super::shared::Shared;
use super::state::RedisRelay;
use crate::contract::{Ask, UpstreamKey};
use bus::ConfirmOrder;

impl Client {
    /// It sends something that may write: from here on its replies are withheld.
    #[inline]
    pub(super) fn withhold(&mut self, shared: &Shared) {
        if shared.confirming.on && self.withheld.is_none() {
            self.withheld = Some(Box::default());
        }
    }

    /// Whether its output waits for a confirmation; notes that it has some.
    pub(super) fn is_withheld(&mut self, shared: &mut Shared) -> bool {
        let Some(withheld) = self.withheld.as_mut() else { return false };
        let new = self.output.bytes.len() > withheld.marks.back().map_or(withheld.delivered, |(_, upto)| *upto);
        if new && !std::mem::replace(&mut withheld.listed, true) {
            shared.confirming.wait_for(self.key);
        }
        withheld.delivered == 0 && !self.output.bytes.is_empty()
    }

    /// Its output as far as it may be sent.
    pub(super) fn take_output(&mut self) -> Option<Vec<u8>> {
        let Some(withheld) = self.withheld.as_mut() else {
            return (!self.output.bytes.is_empty()).then(|| std::mem::take(&mut self.output.bytes));
        };
        let taken = withheld.take(&mut self.output.bytes);
        if self.output.bytes.is_empty() && self.outstanding == 0 {
            self.withheld = None;
        }
        taken
    }

    /// All of it may be delivered.
    fn deliver_all(&mut self, shared: &mut Shared) {
        if self.withheld.take().is_some() {
            self.has_output(shared);
        }
    }
}

impl RedisRelay {
    pub(super) fn confirm_ordered(&mut self, order: ConfirmOrder) {
        match order {
            ConfirmOrder::Begin => self.shared.confirming.on = true,
            ConfirmOrder::End => {
                self.shared.confirming.on = false;
                self.deliver_withheld();
            }
            ConfirmOrder::Confirmed { ticket } => self.end_ticket(ticket, |client, shared| {
                if let Some(withheld) = client.withheld.as_mut() {
                    withheld.confirm(ticket);
                    client.has_output(shared);
                }
            }),
            ConfirmOrder::Unknown { ticket } => self.end_ticket(ticket, |client, shared| {
                if client.withheld.is_some() {
                    shared.asks.push(Ask::CloseClient(client.key));
                }
            }),
        }
        self.settle();
    }

    fn end_ticket(&mut self, ticket: u64, act: impl Fn(&mut Client, &mut Shared)) {
        let outstanding = self.shared.confirming.outstanding.take_if(|(asked, _)| *asked == ticket);
        for key in outstanding.into_iter().flat_map(|(_, clients)| clients) {
            if let Some(client) = self.clients.get_mut(key) {
                act(client, &mut self.shared);
            }
        }
    }

    /// Both sides are equal, or the shadow is not in step any more: nothing waits for it.
    pub(super) fn deliver_withheld(&mut self) {
        self.shared.confirming.outstanding = None;
        self.shared.confirming.waiting.clear();
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key) {
                client.deliver_all(&mut self.shared);
            }
        }
    }

    /// Asks for the confirmation of whatever was answered meanwhile.
    pub(super) fn ask_for_confirmation(&mut self) {
        let confirming = &mut self.shared.confirming;
        if confirming.outstanding.is_some() || confirming.waiting.is_empty() {
            return;
        }
        confirming.last_ticket += 1;
        let (ticket, clients) = (confirming.last_ticket, std::mem::take(&mut confirming.waiting));
        for key in &clients {
            if let Some(client) = self.clients.get_mut(*key)
                && let Some(withheld) = client.withheld.as_mut()
            {
                withheld.listed = false;
                withheld.marks.push_back((ticket, client.output.bytes.len()));
            }
        }
        confirming.outstanding = Some((ticket, clients));
        confirming.to_ask = Some(ticket);
    }

    /// A connection to the authority is gone, and with it perhaps what it had acknowledged: that is not passed on.
    pub(super) fn close_withheld_of(&mut self, upstream: UpstreamKey) {
        for (key, client) in self.clients.iter() {
            let uses = client.path == Path::Shared(upstream) || client.pinned == Some(upstream);
            if uses && client.withheld.is_some() {
                self.shared.asks.push(Ask::CloseClient(key));
            }
        }
    }
}
