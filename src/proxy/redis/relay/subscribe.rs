//! SUBSCRIBE and MONITOR: a client to whom its pinned connection sends what nobody asked for, and which is moved when the authority changes.
//!
//! What a subscribed client sends goes on that same connection and is answered in its turn. In RESP2 the server takes little else than further
//! subscriptions, and its messages are arrays like replies: they are told apart by their first word and by what the connection is subscribed
//! to (Redis `pubsub.c`). In RESP3 they are pushes, and every command is taken.

use super::client::Client;
use super::path::{Path, Step, Wait};
use super::policy::as_error;
use super::pushes::{Confirmations, Push, push_of};
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::{Awaited, Upstream};
use crate::contract::{Ask, UpstreamKey};
use policy::RequestDecision;
use wire::resp::command::{Class, Command, Session};
use wire::resp::encode;

impl Client {
    /// Whether a server takes little else of it than further subscriptions.
    #[must_use]
    pub fn is_subscribed_in_resp2(&self) -> bool {
        self.session.resp == 2 && (!self.pushes.subscriptions.is_empty() || self.pushes.confirming > 0)
    }

    /// From here on the pinned connection's bytes go to the client as they come.
    pub(super) fn monitor(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if let Err(step) = self.pin(shared) {
            return step;
        }
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        self.pushes.raw = true;
        self.send_raw(shared, frame)
    }

    /// Any command of a client that monitors. Its answers stand among what it is shown.
    pub(super) fn dispatch_monitoring(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        let refusal = match command.class {
            Class::Session(Session::Quit) => {
                self.closing = true;
                self.tell(shared, b"+OK\r\n");
                return Step::Done;
            }
            Class::Session(Session::Reset) => return self.reset(shared),
            Class::Write | Class::Library | Class::Unknown | Class::ServerChange if shared.is_dual() => {
                let name = command.name.to_ascii_uppercase();
                format!(
                    "ERR Crossfade does not support {name} on a monitoring connection while two servers are kept in step; use another connection"
                )
            }
            Class::Session(_) if command.name != "client" => {
                format!(
                    "ERR Crossfade does not support {} on a monitoring connection",
                    command.name.to_ascii_uppercase()
                )
            }
            Class::Session(_) => return self.send_raw(shared, frame),
            _ => match self.decide(shared, command, frame) {
                RequestDecision::Send(_) => return self.send_raw(shared, frame),
                RequestDecision::Refuse(text) => {
                    self.tell(shared, &as_error(&text));
                    return Step::Done;
                }
            },
        };
        self.tell(shared, &encode::error(&refusal));
        Step::Done
    }

    /// Sends what no reply is awaited of.
    fn send_raw(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(key) = self.pinned else { return Step::Close };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        if upstream.is_full() {
            upstream.stalled.push(self.key);
            return Step::Wait(Wait::Upstream(key));
        }
        upstream.output.extend_from_slice(frame);
        shared.upstreams.has_output(key);
        Step::Done
    }

    /// SUBSCRIBE, UNSUBSCRIBE and their like.
    pub(super) fn subscribe(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        if let Err(step) = self.pin(shared) {
            return step;
        }
        let Some(key) = self.pinned else { return Step::Close };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        if upstream.is_full() {
            upstream.stalled.push(self.key);
            return Step::Wait(Wait::Upstream(key));
        }
        upstream.output.extend_from_slice(frame);
        let confirmations = Confirmations::of(command.name, frame);
        upstream.awaited.push_back(Awaited::Confirmations(self.key, Box::new(confirmations)));
        self.outstanding += 1;
        self.pushes.confirming += 1;
        self.path = Path::Pinned;
        shared.counters.commands_pinned += 1;
        shared.upstreams.has_output(key);
        Step::Done
    }

    /// Any other command of a client that is subscribed in RESP2: the server says which it does not take.
    pub(super) fn dispatch_subscribed(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        match command.class {
            Class::Session(Session::Subscribe) => return self.subscribe(shared, command, frame),
            // Whether it is subscribed is not known yet.
            _ if self.pushes.confirming > 0 => return Step::Wait(Wait::OwnReplies),
            Class::Session(Session::Quit) => return self.quit(shared),
            Class::Session(Session::Reset) => return self.reset(shared),
            _ => {}
        }
        if let Err(step) = self.pin(shared) {
            return step;
        }
        if matches!(command.class, Class::Session(_)) {
            return self.send_pinned(shared, frame);
        }
        let decision = self.decide(shared, command, frame);
        let step = match &decision {
            RequestDecision::Send(_) => self.send_pinned(shared, frame),
            RequestDecision::Refuse(text) => self.refuse_by_policy(shared, text),
        };
        self.keep_decision(step, decision);
        step
    }

    /// The authority changed: the same subscriptions are made on the new one, and the client notices nothing. A message published
    /// between the two is lost, as Redis' own at-most-once delivery allows.
    pub(super) fn resubscribe(&mut self, shared: &mut Shared) {
        let mut upstream = Upstream::new(shared.pool_key(&self.session), Some(self.key));
        for (subscribe, channel) in &self.pushes.subscriptions {
            encode::push_request(&mut upstream.output, &[subscribe.as_bytes(), channel]);
        }
        self.pushes.resubscribing = self.pushes.subscriptions.len();
        if let Some(tracking) = &self.pushes.tracking {
            upstream.output.extend_from_slice(tracking);
            upstream.awaited.push_back(Awaited::Swallow);
        }
        if let Some(old) = self.pinned.take() {
            let awaited = shared.upstreams.get_mut(old).map(|old| std::mem::take(&mut old.awaited)).unwrap_or_default();
            let (unconfirmed, others): (Vec<_>, Vec<_>) =
                awaited.into_iter().partition(|awaited| matches!(awaited, Awaited::Confirmations(..)));
            let of_client = others.iter().any(|awaited| awaited.client().is_some());
            if of_client && (self.session.resp == 2 || !unconfirmed.is_empty()) {
                // What of it will be a reply, and which comes first, cannot be told any more.
                shared.asks.push(Ask::CloseClient(self.key));
            }
            for awaited in unconfirmed {
                if let Awaited::Confirmations(_, confirmations) = &awaited {
                    upstream.output.extend_from_slice(&confirmations.request());
                }
                upstream.awaited.push_back(awaited);
            }
            if let Some(old) = shared.upstreams.get_mut(old) {
                old.awaited.extend(others);
            }
            shared.leave_pinned(old);
        }
        self.pinned = Some(shared.connect(upstream));
        self.forget_what_is_cached(shared);
    }

    /// What it has read from the old authority the new one does not watch for it: it is told that everything may have changed, as after FLUSHALL
    /// (Redis `tracking.c`). Where another client hears of it, that one's number is another now: both begin anew.
    fn forget_what_is_cached(&mut self, shared: &mut Shared) {
        if self.pushes.tracking.is_none() {
            return;
        }
        if self.session.resp == 3 {
            self.tell(shared, b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        } else {
            shared.asks.push(Ask::CloseClient(self.key));
        }
    }
}

impl RedisRelay {
    /// An array or push on the connection of a client that may be subscribed. False: it is a reply.
    pub(super) fn pushed(&mut self, key: UpstreamKey, frame: &[u8]) -> bool {
        let Some(upstream) = self.shared.upstreams.get_mut(key) else { return true };
        let owner = upstream.owner.and_then(|owner| self.clients.get_mut(owner));
        // Nobody's: its client has gone, or has made its subscriptions elsewhere.
        let Some(client) = owner else { return frame.starts_with(b">") };
        let Some((push, channel)) = push_of(frame) else { return false };
        let confirms = matches!(upstream.awaited.front(), Some(Awaited::Confirmations(..)));
        if !frame.starts_with(b">") && client.pushes.subscriptions.is_empty() && !confirms {
            return false; // nothing that could be pushed: it only looks like it
        }
        match (&push, channel) {
            (Push::Subscribed(kind), Some(channel)) => drop(client.pushes.subscriptions.insert((*kind, channel))),
            (Push::Unsubscribed(kind), Some(channel)) => drop(client.pushes.subscriptions.remove(&(*kind, channel))),
            _ => {}
        }
        let shared = &mut self.shared;
        if matches!(push, Push::Subscribed(_)) && client.pushes.resubscribing > 0 {
            client.pushes.resubscribing -= 1;
            return true;
        }
        client.tell(shared, frame);
        if push != Push::Other
            && let Some(Awaited::Confirmations(_, confirmations)) = upstream_front(shared, key)
            && confirmations.confirmed(&client.pushes.subscriptions)
        {
            shared.take_awaited(key);
            client.confirmed(shared);
        }
        true
    }
}

fn upstream_front(shared: &mut Shared, key: UpstreamKey) -> Option<&mut Awaited> {
    shared.upstreams.get_mut(key)?.awaited.front_mut()
}

impl Client {
    /// One of its subscribing commands is through.
    pub(super) fn confirmed(&mut self, shared: &mut Shared) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.pushes.confirming = self.pushes.confirming.saturating_sub(1);
        self.reply_arrived(shared);
    }
}
