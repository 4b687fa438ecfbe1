//! What arrives from servers, and what happens to clients when a connection to a server goes away.

use super::client::Client;
use super::cursors;
use super::shared::Shared;
use super::state::RedisRelay;
use super::upstream::{Awaited, LoggingIn};
use crate::contract::{Ask, ClientKey, Failure, UpstreamKey};
use wire::resp::login::{LogIn, LoggedIn, connection_name};
use wire::resp::{ReplyStep, encode};

impl RedisRelay {
    /// The socket is open: log in.
    pub(super) fn log_in(&mut self, key: UpstreamKey) {
        let shared = &mut self.shared;
        let our_name = connection_name("core", shared.plan.interlay.as_str(), shared.identity.token);
        let Some(upstream) = shared.upstreams.get_mut(key) else {
            shared.asks.push(Ask::CloseUpstream(key));
            return;
        };
        // Its client's identity is its own.
        let owner = upstream.owner.and_then(|owner| self.clients.get(owner)).filter(|owner| owner.own);
        let name = owner.map_or(our_name, |owner| String::from_utf8_lossy(&owner.session.name).into_owned());
        let pool = &upstream.key;
        let log_in = LogIn {
            credentials: pool.credentials.as_deref().cloned(),
            database: pool.database,
            resp: pool.resp,
            learn_anonymous: pool.credentials.is_none() && !upstream.retired,
            name,
        };
        let (output, dialogue) = log_in.begin();
        upstream.heard_us = shared.now.mono_us;
        upstream.log_in = Some(LoggingIn { log_in, dialogue, output });
        shared.upstreams.ready.push(key);
    }

    /// Bytes arrived from a server. `Err`: they are not RESP; the caller closes and calls `lose_upstream`.
    ///
    /// # Errors
    /// Says what was wrong.
    pub(super) fn server_bytes(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<(), String> {
        let logging_in = self.shared.upstreams.get_mut(key).and_then(|upstream| upstream.log_in.as_mut());
        let outcome = match logging_in {
            Some(LoggingIn { log_in, dialogue, .. }) => {
                match dialogue.feed(bytes)?.map(|replies| log_in.outcome(&replies)) {
                    None => Ok(()),
                    Some(Ok(logged_in)) => {
                        self.upstream_connected(key, logged_in);
                        Ok(())
                    }
                    Some(Err(refusal)) => {
                        self.lose_upstream(key, &Failure::Refused(refusal));
                        Ok(())
                    }
                }
            }
            None => self.reply_bytes(key, bytes),
        };
        self.settle();
        outcome
    }

    /// Logged in and ready.
    fn upstream_connected(&mut self, key: UpstreamKey, logged_in: LoggedIn) {
        let shared = &mut self.shared;
        shared.counters.upstream_connects += 1;
        let Some(upstream) = shared.upstreams.get_mut(key) else { return };
        // A connection of the plan before says nothing about the server that is authoritative now.
        let current = !upstream.retired && upstream.key.side == shared.plan.authority.side;
        upstream.connected = true;
        // Its log-in was one exchange.
        upstream.took(shared.now.mono_us.saturating_sub(upstream.heard_us));
        upstream.heard_us = shared.now.mono_us;
        upstream.log_in = None;
        upstream.server_client_id = logged_in.client_id;
        shared.resume.append(&mut upstream.stalled);
        if current && logged_in.anonymous_allowed.is_some() {
            shared.strangers.allowed = logged_in.anonymous_allowed;
            shared.stranger_checked(key);
        }
        shared.upstreams.has_output(key);
    }

    fn reply_bytes(&mut self, key: UpstreamKey, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let Some(upstream) = self.shared.upstreams.get_mut(key) else { return Ok(()) };
            let owner = upstream.owner.and_then(|owner| self.clients.get_mut(owner));
            let mut subscribed_in_resp2 = false;
            if let Some(owner) = owner {
                if owner.pushes.raw {
                    owner.tell(&mut self.shared, bytes);
                    return Ok(());
                }
                subscribed_in_resp2 = owner.is_subscribed_in_resp2();
            }
            let run = if subscribed_in_resp2 { 0 } else { self.forward_replies(key, bytes)? };
            if run > 0 {
                bytes = &bytes[run..];
                continue;
            }
            let Some(upstream) = self.shared.upstreams.get_mut(key) else { return Ok(()) };
            let (consumed, complete) = match upstream.feed.feed(bytes) {
                ReplyStep::Complete { consumed, first } => (consumed, Some(first)),
                ReplyStep::Partial => (bytes.len(), None),
                ReplyStep::Invalid(why) => return Err(why),
            };
            let (piece, rest) = bytes.split_at(consumed);
            bytes = rest;
            let first = complete.unwrap_or_else(|| upstream.feed.first());
            if first == b'>' || (first == b'*' && subscribed_in_resp2) {
                upstream.gathered.extend_from_slice(piece);
                if complete.is_some() {
                    let frame = std::mem::take(&mut upstream.gathered);
                    if !self.pushed(key, &frame) {
                        self.reply_ends(key, &frame, first)?;
                    }
                }
                continue;
            }
            match complete {
                Some(first) => self.reply_ends(key, piece, first)?,
                None => self.reply_goes_on(key, piece)?,
            }
        }
        Ok(())
    }

    /// The most common case in one go: replies, the last perhaps in part, that all go to the client at the front as they are. Returns
    /// how many bytes they were; 0 says nothing about the reply at the front, which is then looked at alone.
    fn forward_replies(&mut self, key: UpstreamKey, bytes: &[u8]) -> Result<usize, String> {
        let shared = &mut self.shared;
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Ok(0) };
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
        upstream.heard_us = shared.now.mono_us;
        let latency_us = upstream.probe.answered_many(whole as u64, shared.now.mono_us);
        if let Some(latency_us) = latency_us {
            upstream.took(latency_us);
        }
        let (over, side) = (upstream.is_over(), upstream.key.side);
        if whole > 0 {
            shared.counters.replies_error += errors;
            let counters = shared.counters.side_mut(side);
            counters.answered_many(whole as u64, errors);
            if let Some(latency_us) = latency_us {
                counters.latency_us.record(latency_us, 1);
            }
            if over {
                shared.close_upstream(key);
            }
        }
        if let Some(client) = self.clients.get_mut(client_key) {
            if client.output.bytes.capacity() == 0 {
                client.output.bytes = shared.spares.take();
            }
            client.outstanding -= whole as u32;
            client.tell(shared, &bytes[..used]);
            if whole > 0 {
                client.reply_arrived(shared);
            }
        }
        invalid.map_or(Ok(used), Err)
    }

    /// A part of a reply that goes on.
    fn reply_goes_on(&mut self, key: UpstreamKey, piece: &[u8]) -> Result<(), String> {
        let Some(upstream) = self.shared.upstreams.get_mut(key) else { return Ok(()) };
        match upstream.awaited.front() {
            None => return Err("a reply to nothing".to_owned()),
            Some(&Awaited::Forward(client)) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.tell(&mut self.shared, piece);
                }
            }
            Some(Awaited::Mute(_) | Awaited::Swallow) => {}
            Some(
                Awaited::Scan(_)
                | Awaited::Session(..)
                | Awaited::Blocking(_)
                | Awaited::BlockedList
                | Awaited::Confirmations(..)
                | Awaited::Exec(..)
                | Awaited::Tracking(..),
            ) => upstream.gathered.extend_from_slice(piece),
        }
        Ok(())
    }

    /// The last part of a reply.
    fn reply_ends(&mut self, key: UpstreamKey, piece: &[u8], first: u8) -> Result<(), String> {
        let Some(upstream) = self.shared.upstreams.get_mut(key) else { return Ok(()) };
        let (mut gathered, side) = (std::mem::take(&mut upstream.gathered), upstream.key.side);
        match upstream.awaited.front() {
            None => return Err("a reply to nothing".to_owned()),
            Some(
                Awaited::Forward(_)
                | Awaited::Mute(_)
                | Awaited::Scan(_)
                | Awaited::Confirmations(..)
                | Awaited::Exec(..)
                | Awaited::Tracking(..),
            ) => self.shared.count_reply(key, first),
            Some(Awaited::Swallow | Awaited::Session(..) | Awaited::Blocking(_) | Awaited::BlockedList) => {}
        }
        match self.shared.take_awaited(key) {
            Some(Awaited::Forward(client)) => self.with_client(client, |client, shared| {
                client.outstanding -= 1;
                client.tell(shared, piece);
                client.reply_arrived(shared);
            }),
            Some(Awaited::Mute(client)) => self.with_client(client, |client, shared| {
                client.outstanding -= 1;
                client.reply_arrived(shared);
            }),
            Some(Awaited::Scan(client)) => {
                gathered.extend_from_slice(piece);
                let marked = cursors::reply(&gathered).unwrap_or(gathered);
                self.with_client(client, |client, shared| {
                    client.outstanding -= 1;
                    client.tell(shared, &marked);
                    client.reply_arrived(shared);
                });
            }
            Some(Awaited::Session(client, change)) => {
                gathered.extend_from_slice(piece);
                self.with_client(client, |client, shared| client.session_changed(shared, *change, &gathered));
            }
            Some(Awaited::Blocking(client)) => {
                gathered.extend_from_slice(piece);
                self.with_client(client, |client, shared| client.blocking_answered(shared, &gathered));
            }
            // No confirmation but the error that stands for all of them.
            Some(Awaited::Confirmations(client, _)) => {
                gathered.extend_from_slice(piece);
                self.with_client(client, |client, shared| {
                    client.tell(shared, &gathered);
                    client.confirmed(shared);
                });
            }
            Some(Awaited::Tracking(client, tracking)) => {
                gathered.extend_from_slice(piece);
                self.with_client(client, |client, shared| client.tracked(shared, tracking, &gathered));
            }
            Some(Awaited::Exec(client, in_block)) => {
                gathered.extend_from_slice(piece);
                self.with_client(client, |client, shared| client.executed(shared, &in_block, &gathered));
            }
            Some(Awaited::BlockedList) => {
                gathered.extend_from_slice(piece);
                self.blocked_listed(side, &gathered);
            }
            Some(Awaited::Swallow) | None => {}
        }
        Ok(())
    }

    fn with_client(&mut self, key: ClientKey, act: impl FnOnce(&mut Client, &mut Shared)) {
        if let Some(client) = self.clients.get_mut(key) {
            act(client, &mut self.shared);
        }
    }

    // ---- loss ---------------------------------------------------------------------------------------------------------

    /// A connection could not be made, or it broke. Every client with a command outstanding on it is answered or closed.
    pub(super) fn lose_upstream(&mut self, key: UpstreamKey, failure: &Failure) {
        let Some(upstream) = self.shared.upstreams.remove(key) else { return };
        self.shared.counters.upstream_losses += 1;
        if self.shared.strangers.checking == Some(key) {
            self.shared.stranger_checked(key);
        }
        self.shared.preloading_ends(key);
        self.shared.asks.push(Ask::CloseUpstream(key));
        let side = upstream.key.side;
        self.close_withheld_of(key);
        let reply = match failure {
            Failure::Refused(reply) => Some(reply.clone()),
            Failure::Unreachable(why) => {
                // LOADING is what client libraries know as "try again later".
                let name = &self.shared.plan.endpoint(side).name;
                Some(encode::error(&format!("LOADING Crossfade cannot reach {side} '{name}': {why}; nothing was sent")))
            }
            Failure::Lost(_) => None,
        };
        for client in upstream.stalled {
            match failure {
                // It waited for its log-in to be checked. With the server away it is closed, as the server itself would.
                Failure::Unreachable(_) | Failure::Refused(_) => self.shared.asks.push(Ask::CloseClient(client)),
                Failure::Lost(_) => self.shared.resume.push(client),
            }
        }
        for client in upstream.awaited.iter().filter_map(Awaited::client) {
            match &reply {
                Some(reply) => self.with_client(client, |client, shared| client.fail_one(shared, reply)),
                // As when the server itself dies: the outcome is unknown, so the connection ends.
                None => self.shared.asks.push(Ask::CloseClient(client)),
            }
        }
        if let Some(owner) = upstream.owner.and_then(|owner| self.clients.get_mut(owner)) {
            if owner.pinned == Some(key) {
                owner.pinned = None;
            }
            // State (a subscription, a WATCH, an open block) is lost with the connection; a client with a connection of its own ends with it.
            if owner.has_state_on_server() || (owner.own && matches!(failure, Failure::Lost(_))) {
                self.shared.asks.push(Ask::CloseClient(owner.key));
            }
        }
        self.settle();
    }
}
