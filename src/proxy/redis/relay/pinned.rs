//! One client, one upstream connection: transactions, WATCH, blocking commands, SUBSCRIBE, MONITOR, large requests.

use super::dispatch::Step;
use super::policy::as_error;
use super::types::{Awaited, Path, Upstream, Wait};
use super::{ClientKey, RedisRelay, UpstreamKey};
use crate::contract::Ask;
use crate::redis::lane::request::LaneItem;
use base::model::limits;
use policy::RequestDecision;
use wire::resp::command::{Class, Command};
use wire::resp::{Args, ReplyStep, effect, encode};

impl RedisRelay {
    /// Gives the client a connection of its own; `Err` with what the client must do first.
    pub(super) fn pin(&mut self, key: ClientKey) -> Result<(), Step> {
        let Some(client) = self.clients.get(key) else { return Err(Step::Close) };
        if client.pinned.is_some_and(|pinned| self.upstreams.get(pinned).is_some()) && client.path == Path::Pinned {
            return Ok(());
        }
        if client.outstanding > 0 {
            return Err(Step::Wait(Wait::OwnReplies));
        }
        let pool = self.pool_key(client);
        let idle = self.idle_pinned.iter().position(|(key, _)| *key == pool);
        let upstream = match idle {
            Some(at) => self.idle_pinned.swap_remove(at).1,
            None => {
                let side = pool.side;
                let upstream = self.upstreams.insert(Upstream::new(pool, Some(key)));
                self.asks.push(Ask::Connect { upstream, side });
                upstream
            }
        };
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.owner = Some(key);
        }
        if let Some(client) = self.clients.get_mut(key) {
            client.pinned = Some(upstream);
            client.path = Path::Pinned;
        }
        Ok(())
    }

    pub(super) fn send_pinned(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(upstream) = self.clients.get(key).and_then(|client| client.pinned) else { return Step::Close };
        self.counters.commands_pinned += 1;
        self.send_upstream(key, upstream, frame)
    }

    /// Hands a pinned connection back when nothing of the client's state is left on it.
    pub(super) fn unpin_if_clean(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let busy = client.transaction.is_some()
            || client.watching
            || client.raw
            || client.streaming.is_some()
            || client.blocked.is_some()
            || client.outstanding > 0;
        if busy {
            return;
        }
        let Some(upstream_key) = client.pinned.take() else { return };
        client.path = Path::Here;
        let Some(upstream) = self.upstreams.get_mut(upstream_key) else { return };
        if upstream.retired || !upstream.connected || self.idle_pinned.len() >= limits::IDLE_PINNED_MAX {
            self.close_upstream(upstream_key);
        } else {
            upstream.owner = None;
            self.idle_pinned.push((upstream.key.clone(), upstream_key));
        }
    }

    // ---- blocking commands --------------------------------------------------------------------------------------------

    /// In dual operation a blocking write is run by the lane, which keeps it blocked through a flip. Reads block on a pinned connection.
    pub(super) fn blocking(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        if self.is_dual() && command.class == Class::Write {
            if self.clients.get(key).is_some_and(|client| client.outstanding > 0) {
                return Step::Wait(Wait::OwnReplies);
            }
            let step = self.send_lane(key, LaneItem::Blocking { len: frame.len() }, frame);
            if step == Step::Done
                && let Some(client) = self.clients.get_mut(key)
            {
                client.blocked = Some(frame.to_vec());
            }
            return step;
        }
        if let Err(step) = self.pin(key) {
            return step;
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        // One blocking command at a time, so that it alone can be sent again when the plan changes.
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let Some(upstream_key) = client.pinned else { return Step::Close };
        let Some(upstream) = self.upstreams.get_mut(upstream_key) else { return Step::Close };
        self.counters.commands_pinned += 1;
        client.blocked = Some(frame.to_vec());
        client.outstanding += 1;
        upstream.output.extend_from_slice(frame);
        upstream.awaited.push_back(Awaited::Blocking(key));
        self.upstream_has_output(upstream_key);
        Step::Done
    }

    /// A blocking command was answered; `reply` is whole.
    pub(super) fn blocking_answered(&mut self, key: ClientKey, reply: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.outstanding = client.outstanding.saturating_sub(1);
        let frame = client.blocked.take();
        let again = std::mem::take(&mut client.unblocking) && wire::resp::effect::is_nil(reply);
        if let (true, Some(frame)) = (again, frame) {
            // Ended by us for a change of plan: it goes on waiting under the new plan, in front of what else was read.
            let rest = std::mem::replace(&mut client.input, frame);
            client.input.extend_from_slice(&rest);
            client.progress = Default::default();
            client.wait = Wait::OwnReplies;
            self.resume.push(key);
            self.unpin_if_clean(key);
            return;
        }
        if !client.mute_this() {
            client.output.extend_from_slice(reply);
        }
        self.client_has_output(key);
        self.reply_arrived(key);
    }

    // ---- SUBSCRIBE and MONITOR ------------------------------------------------------------------------------------------

    /// From here on the pinned connection's bytes go to the client as they come.
    pub(super) fn enter_raw(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        if let Err(step) = self.pin(key) {
            return step;
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        client.raw = true;
        self.raw_send(key, frame)
    }

    pub(super) fn dispatch_raw(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        use wire::resp::command::Session;
        match command.class {
            Class::Session(Session::Quit) => {
                if let Some(client) = self.clients.get_mut(key) {
                    client.output.extend_from_slice(b"+OK\r\n");
                    client.closing = true;
                    self.client_has_output(key);
                }
                Step::Done
            }
            Class::Session(Session::Reset) => self.reset(key),
            Class::Session(Session::Subscribe) => self.raw_send(key, frame),
            Class::Write | Class::Library | Class::Unknown | Class::ServerChange if self.is_dual() => {
                let text = format!(
                    "ERR Crossfade does not carry {} on a subscribed connection while two servers are kept in step; use another connection",
                    command.name.to_ascii_uppercase()
                );
                if let Some(client) = self.clients.get_mut(key) {
                    client.output.extend_from_slice(&encode::error(&text));
                    self.client_has_output(key);
                }
                Step::Done
            }
            Class::Session(_) if command.name != "client" => {
                self.refuse_raw(key, command);
                Step::Done
            }
            Class::Session(_) => self.raw_send(key, frame),
            _ if self.is_dual() => match self.decide(key, command, frame) {
                RequestDecision::Send(_) => self.raw_send(key, frame),
                RequestDecision::Refuse(text) => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.output.extend_from_slice(&as_error(&text));
                        self.client_has_output(key);
                    }
                    Step::Done
                }
            },
            _ => self.raw_send(key, frame),
        }
    }

    /// The authority changed: the same subscriptions are made on the new one, and the client notices nothing. A message published
    /// between the two is lost, as Redis' own at-most-once delivery allows.
    pub(super) fn resubscribe(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        if client.subscriptions.is_empty() {
            // MONITOR, or nothing left to listen to: the stream ends with the server it showed.
            self.asks.push(Ask::CloseClient(key));
            return;
        }
        let (pool, old) = (self.pool_key(client), client.pinned);
        let side = pool.side;
        let mut upstream = Upstream::new(pool, Some(key));
        for (subscribe, channel) in &client.subscriptions {
            encode::push_request(&mut upstream.output, &[subscribe.as_bytes(), channel]);
        }
        let count = client.subscriptions.len();
        let upstream = self.upstreams.insert(upstream);
        self.asks.push(Ask::Connect { upstream, side });
        if let Some(client) = self.clients.get_mut(key) {
            client.pinned = Some(upstream);
            client.resubscribing = count;
        }
        if let Some(old) = old {
            self.close_upstream(old);
        }
    }

    /// Bytes for a subscribed client while its subscriptions are being made again: confirmations are dropped, messages handed on.
    pub(super) fn resubscribing_bytes(
        &mut self,
        upstream: UpstreamKey,
        key: ClientKey,
        bytes: &[u8],
    ) -> Result<usize, String> {
        let (Some(upstream), Some(client)) = (self.upstreams.get_mut(upstream), self.clients.get_mut(key)) else {
            return Ok(bytes.len());
        };
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
            client.resubscribing -= 1;
        } else {
            client.output.extend_from_slice(&frame);
            self.client_has_output(key);
        }
        Ok(consumed)
    }

    fn refuse_raw(&mut self, key: ClientKey, command: &Command) {
        let text = format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.name
        );
        if let Some(client) = self.clients.get_mut(key) {
            client.output.extend_from_slice(&encode::error(&text));
            self.client_has_output(key);
        }
    }

    fn raw_send(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        let Some(upstream_key) = client.pinned else { return Step::Close };
        note_subscription(&mut client.subscriptions, frame);
        let Some(upstream) = self.upstreams.get_mut(upstream_key) else { return Step::Close };
        if upstream.output.len() > limits::UPSTREAM_OUTPUT_SOFT_BYTES {
            upstream.stalled.push(key);
            return Step::Wait(Wait::Upstream(upstream_key));
        }
        upstream.output.extend_from_slice(frame);
        self.upstream_has_output(upstream_key);
        Step::Done
    }
}

/// Keeps the set of subscriptions, so that it can be made again on another server.
fn note_subscription(set: &mut std::collections::BTreeSet<(&'static str, Vec<u8>)>, frame: &[u8]) {
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
