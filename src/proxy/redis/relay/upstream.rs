//! The other half of the relay: what arrives from servers, and what happens when they go away.

use std::rc::Rc;

use super::types::{Awaited, LoggingIn, Path, PoolKey, Upstream, Wait};
use super::{ClientKey, RedisRelay, UpstreamKey};
use crate::contract::{Ask, Failure};
use base::model::{Credentials, Side};
use wire::resp::login::{LogIn, LoggedIn, connection_name};
use wire::resp::{ReplyStep, encode};

impl RedisRelay {
    /// The connection shared by all with this key, made if there is none.
    pub(super) fn shared_upstream(&mut self, pool: PoolKey) -> UpstreamKey {
        if let Some((_, key)) = self.shared.iter().find(|(key, _)| *key == pool) {
            return *key;
        }
        let side = pool.side;
        let key = self.upstreams.insert(Upstream::new(pool.clone(), None));
        self.shared.push((pool, key));
        self.asks.push(Ask::Connect { upstream: key, side });
        key
    }

    /// Ends a blocking command as if its time-out had passed, on a connection made for that and closed behind the answer.
    pub(super) fn unblock(&mut self, side: Side, server_client_id: u64, credentials: Option<Rc<Credentials>>) {
        let own = self.plan.endpoint(side).credentials.clone().map(Rc::new);
        let pool = PoolKey { side, credentials: own.or(credentials), database: 0, resp: 2 };
        let mut upstream = Upstream::new(pool, None);
        let id = server_client_id.to_string();
        encode::push_request(&mut upstream.output, &[b"CLIENT", b"UNBLOCK", id.as_bytes(), b"TIMEOUT"]);
        upstream.awaited.push_back(Awaited::Swallow);
        upstream.retired = true;
        let upstream = self.upstreams.insert(upstream);
        self.asks.push(Ask::Connect { upstream, side });
    }

    /// The socket is open: log in.
    pub(super) fn log_in(&mut self, key: UpstreamKey) {
        let name = connection_name("core", self.plan.interlay.as_str(), self.token);
        let Some(upstream) = self.upstreams.get_mut(key) else {
            self.asks.push(Ask::CloseUpstream(key));
            return;
        };
        let pool = &upstream.key;
        let log_in = LogIn {
            credentials: pool.credentials.as_deref().cloned(),
            database: pool.database,
            resp: pool.resp,
            learn_anonymous: pool.credentials.is_none() && !upstream.retired,
            name,
        };
        let (output, dialogue) = log_in.begin();
        upstream.log_in = Some(LoggingIn { log_in, dialogue, output });
        self.ready_upstreams.push(key);
    }

    fn log_in_bytes(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let Some(upstream) = self.upstreams.get_mut(key) else { return Ok(()) };
        let Some(LoggingIn { log_in, dialogue, .. }) = upstream.log_in.as_mut() else { return Ok(()) };
        let Some(replies) = dialogue.feed(bytes)? else { return Ok(()) };
        match log_in.outcome(&replies) {
            Ok(logged_in) => self.upstream_connected(key, logged_in),
            Err(refusal) => self.lose_upstream(key, &Failure::Refused(refusal)),
        }
        Ok(())
    }

    /// Logged in and ready.
    pub(super) fn upstream_connected(&mut self, key: UpstreamKey, logged_in: LoggedIn) {
        self.counters.upstream_connects += 1;
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        // A connection of the plan before says nothing about the server that is authoritative now.
        if logged_in.anonymous_allowed.is_some() && !upstream.retired && upstream.key.side == self.plan.authority.side {
            self.anonymous_allowed = logged_in.anonymous_allowed;
        }
        upstream.connected = true;
        upstream.log_in = None;
        upstream.server_client_id = logged_in.client_id;
        self.resume.append(&mut upstream.stalled);
        self.upstream_has_output(key);
        self.settle();
    }

    /// It could not be made, or it broke. Every command outstanding on it gets its due.
    pub(super) fn lose_upstream(&mut self, key: UpstreamKey, failure: &Failure) {
        let Some(upstream) = self.upstreams.remove(key) else { return };
        self.counters.upstream_losses += 1;
        self.shared.retain(|(_, shared)| *shared != key);
        self.idle_pinned.retain(|(_, idle)| *idle != key);
        self.asks.push(Ask::CloseUpstream(key));
        let side = upstream.key.side;
        let reply = match failure {
            Failure::Refused(reply) => Some(reply.clone()),
            Failure::Unreachable(why) => {
                // LOADING is what client libraries know as "try again later".
                let name = &self.plan.endpoint(side).name;
                Some(encode::error(&format!("LOADING Crossfade cannot reach {side} '{name}': {why}; nothing was sent")))
            }
            Failure::Lost(_) => None,
        };
        for client in upstream.stalled {
            match failure {
                // It waited to be let in; with the server away it is turned away like at the server's own door.
                Failure::Unreachable(_) | Failure::Refused(_) => self.asks.push(Ask::CloseClient(client)),
                Failure::Lost(_) => self.resume.push(client),
            }
        }
        for awaited in upstream.awaited {
            let (Awaited::Forward(client)
            | Awaited::Mute(client)
            | Awaited::Session(client, _)
            | Awaited::Blocking(client)) = awaited
            else {
                continue;
            };
            match &reply {
                Some(reply) => self.fail_one(client, reply),
                // As when the server itself dies: the outcome is unknown, so the connection ends.
                None => self.asks.push(Ask::CloseClient(client)),
            }
        }
        if let Some(owner) = upstream.owner
            && let Some(client) = self.clients.get_mut(owner)
        {
            if client.pinned == Some(key) {
                client.pinned = None;
            }
            // State (a subscription, a WATCH, an open block) is lost with the connection.
            let stateful = client.raw
                || client.watching
                || client.streaming.is_some()
                || client.transaction.as_ref().is_some_and(|tx| tx.on_server);
            if stateful {
                self.asks.push(Ask::CloseClient(owner));
            }
        }
        self.settle();
    }

    fn fail_one(&mut self, key: ClientKey, reply: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.outstanding = client.outstanding.saturating_sub(1);
        client.blocked = None;
        client.output.extend_from_slice(reply);
        self.counters.replies_refused += 1;
        self.client_has_output(key);
        self.reply_arrived(key);
    }

    /// Forgets a connection and asks for its end. Nothing of it is outstanding, or nobody cares.
    pub(super) fn close_upstream(&mut self, key: UpstreamKey) {
        if self.upstreams.remove(key).is_some() {
            self.shared.retain(|(_, shared)| *shared != key);
            self.idle_pinned.retain(|(_, idle)| *idle != key);
            self.asks.push(Ask::CloseUpstream(key));
        }
    }

    /// Moves a connection's unsent requests out; `recycled` becomes its next buffer.
    pub(super) fn upstream_output(&mut self, key: UpstreamKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.spares.give(recycled);
        let upstream = self.upstreams.get_mut(key)?;
        if let Some(logging_in) = upstream.log_in.as_mut() {
            let output = std::mem::take(&mut logging_in.output);
            return (!output.is_empty()).then_some(output);
        }
        if !upstream.connected {
            return None;
        }
        upstream.output_ready = false;
        upstream.hurried = false;
        if upstream.output.is_empty() {
            return None;
        }
        let output = std::mem::replace(&mut upstream.output, self.spares.take());
        self.resume.append(&mut upstream.stalled);
        self.settle();
        Some(output)
    }

    /// Bytes arrived from a server. `Err`: they are not RESP; the caller closes and calls `lose_upstream`.
    ///
    /// # Errors
    /// Says what was wrong.
    pub(super) fn server_bytes(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let logging_in = self.upstreams.get(key).is_some_and(|upstream| upstream.log_in.is_some());
        let outcome = if logging_in { self.log_in_bytes(key, bytes) } else { self.upstream_bytes(key, bytes) };
        self.settle();
        outcome
    }

    fn upstream_bytes(&mut self, key: UpstreamKey, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let Some(upstream) = self.upstreams.get_mut(key) else { return Ok(()) };
            if let Some(owner) = upstream.owner
                && let Some(client) = self.clients.get(owner)
                && client.raw
            {
                if client.resubscribing > 0 {
                    let used = self.resubscribing_bytes(key, owner, bytes)?;
                    bytes = &bytes[used..];
                    continue;
                }
                self.raw_bytes(owner, bytes);
                return Ok(());
            }
            let run = self.forward_replies(key, bytes)?;
            if run > 0 {
                bytes = &bytes[run..];
                continue;
            }
            let Some(upstream) = self.upstreams.get_mut(key) else { return Ok(()) };
            let (consumed, complete) = match upstream.feed.feed(bytes) {
                ReplyStep::Complete { consumed, first } => (consumed, Some(first)),
                ReplyStep::Partial => (bytes.len(), None),
                ReplyStep::Invalid(why) => return Err(why),
            };
            let (piece, rest) = bytes.split_at(consumed);
            bytes = rest;
            let first = complete.unwrap_or(upstream.feed.first());
            self.reply_piece(key, piece, first, complete.is_some())?;
        }
        Ok(())
    }

    /// The commonest case in one go: replies, the last perhaps in part, that all go to the client at the front as they are. Returns
    /// how many bytes they were; 0 says nothing, whatever is first then takes the long way.
    fn forward_replies(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<usize, String> {
        let Some(upstream) = self.upstreams.get_mut(key) else { return Ok(0) };
        let Some(&Awaited::Forward(client_key)) = upstream.awaited.front() else { return Ok(0) };
        let (mut used, mut whole, mut errors, mut invalid) = (0, 0, 0, None);
        while used < bytes.len()
            && matches!(upstream.awaited.get(whole), Some(Awaited::Forward(to)) if *to == client_key)
        {
            // A push is no reply.
            if upstream.feed.first() == b'>' || (upstream.feed.first() == 0 && bytes[used] == b'>') {
                break;
            }
            match upstream.feed.feed(&bytes[used..]) {
                ReplyStep::Complete { consumed, first } => {
                    used += consumed;
                    whole += 1;
                    errors += u64::from(first == b'-');
                }
                ReplyStep::Partial => used = bytes.len(),
                ReplyStep::Invalid(why) => {
                    invalid = Some(why);
                    break;
                }
            }
        }
        if used == 0 {
            return invalid.map_or(Ok(0), Err);
        }
        upstream.awaited.drain(..whole);
        let latency_us = upstream.probe.answered_many(whole as u64, self.now.mono_us);
        let over = upstream.retired && upstream.awaited.is_empty() && upstream.owner.is_none();
        let side = upstream.key.side;
        if let Some(client) = self.clients.get_mut(client_key) {
            if client.output.capacity() == 0 {
                client.output = self.spares.take();
            }
            client.output.extend_from_slice(&bytes[..used]);
            client.outstanding -= whole as u32;
            self.client_has_output(client_key);
        }
        if whole > 0 {
            self.counters.replies_error += errors;
            let counters = self.counters.side_mut(side);
            counters.answered_many(whole as u64, errors);
            if let Some(latency_us) = latency_us {
                counters.latency_us.record(latency_us, 1);
            }
            if over {
                self.close_upstream(key);
            }
            self.reply_arrived(client_key);
        }
        invalid.map_or(Ok(used), Err)
    }

    /// A part of one reply, perhaps its last.
    fn reply_piece(&mut self, key: UpstreamKey, piece: &[u8], first: u8, last: bool) -> Result<(), String> {
        let Some(upstream) = self.upstreams.get_mut(key) else { return Ok(()) };
        if first == b'>' {
            // A push nobody asked for on a connection that is not subscribed: not a reply.
            return Ok(());
        }
        match upstream.awaited.front() {
            None => return Err("a reply to nothing".to_owned()),
            Some(&Awaited::Forward(client_key)) => {
                if let Some(client) = self.clients.get_mut(client_key) {
                    if client.output.capacity() == 0 {
                        client.output = self.spares.take();
                    }
                    client.output.extend_from_slice(piece);
                    if last {
                        client.outstanding -= 1;
                    }
                    self.client_has_output(client_key);
                }
                if last {
                    self.count_reply(key, first);
                    self.pop_awaited(key);
                    self.reply_arrived(client_key);
                }
            }
            Some(&Awaited::Mute(client_key)) => {
                if last {
                    self.count_reply(key, first);
                    self.pop_awaited(key);
                    if let Some(client) = self.clients.get_mut(client_key) {
                        client.outstanding -= 1;
                    }
                    self.reply_arrived(client_key);
                }
            }
            Some(Awaited::Swallow) => {
                if last {
                    self.pop_awaited(key);
                }
            }
            Some(Awaited::Session(..) | Awaited::Blocking(_)) => {
                upstream.gathered.extend_from_slice(piece);
                if last {
                    let reply = std::mem::take(&mut upstream.gathered);
                    match self.pop_awaited(key) {
                        Some(Awaited::Session(client, change)) => self.session_changed(client, *change, &reply),
                        Some(Awaited::Blocking(client)) => self.blocking_answered(client, &reply),
                        Some(Awaited::Forward(_) | Awaited::Mute(_) | Awaited::Swallow) | None => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn count_reply(&mut self, key: UpstreamKey, first: u8) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        let is_error = first == b'-';
        self.counters.replies_error += u64::from(is_error);
        self.counters.side_mut(upstream.key.side).answered(is_error);
    }

    /// Takes the oldest awaited reply off; a retired connection without any is closed.
    fn pop_awaited(&mut self, key: UpstreamKey) -> Option<Awaited> {
        let upstream = self.upstreams.get_mut(key)?;
        let awaited = upstream.awaited.pop_front();
        if let Some(latency_us) = upstream.probe.answered(self.now.mono_us) {
            self.counters.side_mut(upstream.key.side).latency_us.record(latency_us, 1);
        }
        if upstream.retired && upstream.awaited.is_empty() && upstream.owner.is_none() {
            self.close_upstream(key);
        }
        awaited
    }

    fn raw_bytes(&mut self, key: ClientKey, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(key) {
            client.output.extend_from_slice(bytes);
            self.client_has_output(key);
        }
    }

    /// Wakes whoever waits for this connection although it is gone.
    pub(super) fn wake_waiters_of(&mut self, upstream: UpstreamKey) {
        for (key, client) in self.clients.iter() {
            if client.wait == Wait::Upstream(upstream)
                || client.path == Path::Shared(upstream) && client.outstanding == 0
            {
                self.resume.push(key);
            }
        }
    }
}
