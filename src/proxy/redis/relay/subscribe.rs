//! SUBSCRIBE and MONITOR: a client that gets whatever its pinned connection sends, and is moved when the authority changes.

use std::collections::BTreeSet;

use super::client::Client;
use super::path::{Step, Wait};
use super::policy::as_error;
use super::shared::Shared;
use super::upstream::Upstream;
use crate::contract::Ask;
use policy::RequestDecision;
use wire::resp::command::{Class, Command, Session};
use wire::resp::{Args, ReplyStep, effect, encode};

impl Client {
    /// From here on the pinned connection's bytes go to the client as they come.
    pub(super) fn open_pushes(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if let Err(step) = self.pin(shared) {
            return step;
        }
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        self.pushes.open = true;
        self.send_subscribed(shared, frame)
    }

    /// Any command of a client whose pushes are open. Its answers stand among the pushes, so none is awaited.
    pub(super) fn dispatch_subscribed(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        let dual = shared.is_dual();
        match command.class {
            Class::Session(Session::Quit) => {
                self.closing = true;
                self.tell(shared, b"+OK\r\n");
                Step::Done
            }
            Class::Session(Session::Reset) => self.reset(shared),
            Class::Session(Session::Subscribe) => self.send_subscribed(shared, frame),
            Class::Write | Class::Library | Class::Unknown | Class::ServerChange if dual => {
                let text = format!(
                    "ERR Crossfade does not support {} on a subscribed connection while two servers are kept in step; use another connection",
                    command.name.to_ascii_uppercase()
                );
                self.tell(shared, &encode::error(&text));
                Step::Done
            }
            Class::Session(_) if command.name != "client" => {
                let text = format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                    command.name
                );
                self.tell(shared, &encode::error(&text));
                Step::Done
            }
            Class::Session(_) => self.send_subscribed(shared, frame),
            _ => match self.decide(shared, command, frame) {
                RequestDecision::Send(_) => self.send_subscribed(shared, frame),
                RequestDecision::Refuse(text) => {
                    self.tell(shared, &as_error(&text));
                    Step::Done
                }
            },
        }
    }

    fn send_subscribed(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(key) = self.pinned else { return Step::Close };
        note_subscription(&mut self.pushes.subscriptions, frame);
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        if upstream.is_full() {
            upstream.stalled.push(self.key);
            return Step::Wait(Wait::Upstream(key));
        }
        upstream.output.extend_from_slice(frame);
        shared.upstreams.has_output(key);
        Step::Done
    }

    /// The authority changed: the same subscriptions are made on the new one, and the client notices nothing. A message published
    /// between the two is lost, as Redis' own at-most-once delivery allows.
    pub(super) fn resubscribe(&mut self, shared: &mut Shared) {
        if self.pushes.subscriptions.is_empty() {
            // MONITOR, or nothing left to listen to: the stream ends with the server it showed.
            shared.asks.push(Ask::CloseClient(self.key));
            return;
        }
        let mut upstream = Upstream::new(shared.pool_key(&self.session), Some(self.key));
        for (subscribe, channel) in &self.pushes.subscriptions {
            encode::push_request(&mut upstream.output, &[subscribe.as_bytes(), channel]);
        }
        self.pushes.resubscribing = self.pushes.subscriptions.len();
        if let Some(old) = self.pinned.replace(shared.connect(upstream)) {
            shared.close_upstream(old);
        }
    }

    /// Bytes of the pinned connection while the pushes are open; returns how many were taken. Confirmations of subscriptions that are
    /// made again are dropped, everything else is handed on.
    pub(super) fn pushed(&mut self, shared: &mut Shared, bytes: &[u8]) -> Result<usize, String> {
        if self.pushes.resubscribing == 0 {
            self.tell(shared, bytes);
            return Ok(bytes.len());
        }
        let upstream = self.pinned.and_then(|key| shared.upstreams.get_mut(key));
        let Some(upstream) = upstream else { return Ok(bytes.len()) };
        let consumed = match upstream.feed.feed(bytes) {
            ReplyStep::Complete { consumed, .. } => consumed,
            ReplyStep::Partial => {
                upstream.gathered.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            ReplyStep::Invalid(why) => return Err(why),
        };
        upstream.gathered.extend_from_slice(&bytes[..consumed]);
        let frame = std::mem::take(&mut upstream.gathered);
        let word = effect::elements(&frame).and_then(|parts| effect::bulk(parts.first()?).map(<[u8]>::to_vec));
        if word.is_some_and(|word| word.ends_with(b"subscribe")) {
            self.pushes.resubscribing -= 1;
        } else {
            self.tell(shared, &frame);
        }
        Ok(consumed)
    }
}

/// Keeps the set of subscriptions, so that it can be made again on another server.
fn note_subscription(set: &mut BTreeSet<(&'static str, Vec<u8>)>, frame: &[u8]) {
    let mut args = Args::new(frame);
    let Some(name) = args.next() else { return };
    let channels: Vec<&[u8]> = args.collect();
    let lower = name.to_ascii_lowercase();
    for (subscribe, unsubscribe) in
        [("subscribe", "unsubscribe"), ("psubscribe", "punsubscribe"), ("ssubscribe", "sunsubscribe")]
    {
        if lower == subscribe.as_bytes() {
            set.extend(channels.iter().map(|channel| (subscribe, channel.to_vec())));
        } else if lower == unsubscribe.as_bytes() {
            set.retain(|(kind, channel)| {
                *kind != subscribe || !(channels.is_empty() || channels.contains(&channel.as_slice()))
            });
        }
    }
}
