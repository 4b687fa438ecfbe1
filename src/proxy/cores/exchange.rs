//! What passes between the relay of an interlay, its companion, their sockets and the other cores. No task is started here.
//!
//! Lives on one core. Called by `pump` until nothing moves any more.

use super::core::{Core, CoreMessage};
use super::socket::Sending;
use crate::contract::{ToCompanion, ToRelay};
use base::model::CoreId;
use base::stdx::clock::Now;
use bus::{Report, companion_core};

impl Core {
    /// A message of another core; the place of the interlay it was for.
    pub fn receive(&mut self, message: CoreMessage, now: Now) -> usize {
        match message {
            CoreMessage::ToCompanion { interlay, from, message } => {
                self.hand_to_companion(interlay, from, message, now);
                interlay
            }
            CoreMessage::ToRelay { interlay, message } => {
                self.interlays[interlay].relay.companion_message(message);
                interlay
            }
            CoreMessage::Interrupt { interlay, interrupt } => {
                self.interlays[interlay].relay.interrupt(&interrupt);
                interlay
            }
        }
    }

    /// Messages of the relay to the companion, messages and events of the companion, until both are quiet.
    pub fn exchange_with_companion(&mut self, index: usize) {
        loop {
            let messages = self.interlays[index].relay.take_messages();
            if !messages.is_empty() {
                let owner = companion_core(&self.interlays[index].name);
                let (id, now) = (self.id, self.now());
                for message in messages {
                    if owner == id {
                        self.hand_to_companion(index, id, message, now);
                    } else {
                        self.send(owner, CoreMessage::ToCompanion { interlay: index, from: id, message });
                    }
                }
            }
            let Some(companion) = self.interlays[index].companion.as_mut() else { return };
            let (answers, events) = (companion.take_messages(), companion.take_events());
            if answers.is_empty() && events.is_empty() {
                return;
            }
            for (to, message) in answers {
                self.hand_to_relay(index, to, message);
            }
            for event in events {
                self.report_event(index, event);
            }
        }
    }

    fn hand_to_companion(&mut self, index: usize, from: CoreId, message: ToCompanion, now: Now) {
        match self.interlays[index].companion.as_mut() {
            Some(companion) => companion.message(from, message, now),
            None => {
                tracing::error!(interlay = %self.interlays[index].name, "a message for a companion that is not on this core is dropped")
            }
        }
    }

    fn hand_to_relay(&mut self, index: usize, to: CoreId, message: ToRelay) {
        if to == self.id {
            self.interlays[index].relay.companion_message(message);
        } else {
            self.send(to, CoreMessage::ToRelay { interlay: index, message });
        }
    }

    /// Sends clients their replies at once, servers their requests when all clients that are ready have been read or when there are many.
    /// True when there was anything: taking it may have let other clients go on.
    pub fn send_what_is_ready(&mut self, index: usize) -> bool {
        let interlay = &mut self.interlays[index];
        let relay = &mut interlay.relay;
        let mut any = false;
        loop {
            let ready = relay.take_ready_clients();
            if ready.is_empty() {
                break;
            }
            any = true;
            for key in ready {
                let Some(io) = interlay.clients.get(key) else { continue };
                let sending = io.send(|recycled| relay.take_client_output(key, recycled));
                if sending == Sending::Full || (sending == Sending::All && relay.client_written(key)) {
                    io.writable.ring(); // the writer task waits for room, and closes
                }
            }
        }
        for key in relay.take_ready_upstreams() {
            any = true;
            let Some(io) = interlay.upstreams.get(key) else { continue };
            if relay.upstream_is_urgent(key)
                && io.send(|recycled| relay.take_upstream_output(key, recycled)) == Sending::All
            {
                continue;
            }
            io.writable.ring();
        }
        if let Some(companion) = interlay.companion.as_ref() {
            for (key, link) in interlay.links.iter() {
                if companion.link_has_output(*key) {
                    link.ring();
                }
            }
        }
        any
    }

    /// Tells control what an interlay has to tell: plans that are in force, what its policies note, how a hold goes on.
    pub fn report_what_is_new(&mut self, index: usize) {
        let core = self.id;
        if let Some(generation) = self.interlays[index].relay.take_acked_plan() {
            self.interlays[index].barrier_deadline_us = None;
            let interlay = self.interlays[index].name.clone();
            self.report(Report::PlanAcked { core, interlay, generation });
        }
        self.report_policy_notes(index);
        for (ticket, event) in self.interlays[index].relay.take_hold_events() {
            let interlay = self.interlays[index].name.clone();
            self.report(Report::Hold { core, interlay, ticket, event });
        }
        if let Some(ticket) = self.interlays[index].relay.take_confirm_ticket() {
            let interlay = self.interlays[index].name.clone();
            self.report(Report::Confirm { core, interlay, ticket });
        }
    }
}
