//! The relay of a Redis interlay on one core: its clients, what they share, and the plan that is being adopted.
//!
//! Here is what concerns all clients: who is let in, whose wait is over. What the cores call is in `calls`.

use std::collections::VecDeque;

use super::barrier::Barrier;
use super::client::Client;
use super::path::{Path, Wait};
use super::shared::Shared;
use crate::contract::{Ask, ClientKey, RelaySetup};
use crate::redis::lane::request::LaneReply;
use base::model::{RequireTls, ServerTls, Sharing, limits};
use base::stdx::slab::Slab;
use bus::counters;

/// The first byte of a TLS handshake record; no request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// No server gives so high a CLIENT ID to a connection: what is done to a client by this number is done to no connection of another.
const SESSION_ID_FIRST: u64 = 1 << 40;
/// CLIENT IDs of one core are this far apart, so that they are unique over all cores.
const SESSION_ID_STEP: u64 = 64;

/// One interlay on one core.
#[derive(Debug)]
pub struct RedisRelay {
    pub(super) clients: Slab<Client>,
    pub(super) shared: Shared,
    /// A published plan that is not acked yet.
    pub(super) barrier: Option<Barrier>,
    /// Clients whose blocking commands are on their way to the authority of a new plan, in the order in which they blocked.
    pub(super) moving: VecDeque<ClientKey>,
    next_session_id: u64,
    /// What clients are offered; Redis has no negotiation, so the first byte tells.
    tls: Option<ServerTls>,
    /// No new clients, and those without outstanding commands are closed.
    pub(super) draining: bool,
}

impl RedisRelay {
    #[must_use]
    pub fn new(setup: RelaySetup) -> Self {
        Self {
            clients: Slab::default(),
            shared: Shared::new(&setup),
            barrier: None,
            moving: VecDeque::new(),
            next_session_id: SESSION_ID_FIRST + u64::from(setup.core.0) + 1,
            tls: setup.spec.tls,
            draining: false,
        }
    }

    // ---- clients ------------------------------------------------------------------------------------------------------

    /// A client connected; `None` when there are too many.
    pub(super) fn let_in(&mut self) -> Option<ClientKey> {
        if self.clients.len() >= limits::CLIENTS_MAX || self.draining {
            self.shared.counters.connections_refused += 1;
            return None;
        }
        self.shared.counters.connections_accepted += 1;
        let id = self.next_session_id;
        self.next_session_id += SESSION_ID_STEP;
        let key = self.clients.insert(Client::new(ClientKey::from_u64(0), id));
        if let Some(client) = self.clients.get_mut(key) {
            client.key = key;
            client.own = self.shared.identity.sharing == Sharing::Never;
        }
        Some(key)
    }

    /// Bytes arrived from a client.
    pub(super) fn client_bytes(&mut self, key: ClientKey, bytes: &[u8]) {
        let shared = &mut self.shared;
        shared.counters.bytes_from_clients += if counters::ON { bytes.len() as u64 } else { 0 };
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(tls) = &self.tls
            && !client.input.encryption_settled
            && begins_encryption(client, shared, tls, bytes)
        {
            return;
        }
        if client.input.bytes.is_empty() && client.wait == Wait::Nothing {
            let used = client.process(shared, bytes);
            client.input.bytes.extend_from_slice(&bytes[used..]);
        } else {
            client.input.bytes.extend_from_slice(bytes);
            process_buffered(client, shared);
        }
        self.settle();
    }

    /// The client sends no more. What it has sent is executed and answered before its connection is closed, as a server does that finds its last
    /// commands and the end together; one that waits for what others do, blocked or subscribed, is closed at once. True: now.
    pub(super) fn input_ended(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        if client.blocked.is_some() || client.pushes.is_open() {
            return true;
        }
        client.input.ended = true;
        client.has_output(&mut self.shared);
        false
    }

    /// The client's connection is gone. What it had outstanding still runs; the replies go nowhere.
    pub(super) fn let_out(&mut self, key: ClientKey) {
        let Some(client) = self.clients.remove(key) else { return };
        if let Some(place) = client.input.held {
            self.shared.hold.forget(place);
        }
        if client.watch.active || client.path == Path::Lane {
            self.shared.leave_lane(key);
        }
        if let Some(upstream) = client.pinned {
            self.shared.leave_pinned(upstream);
        }
        self.settle();
    }

    /// Everything that was taken has been sent; true when the connection should now be closed.
    pub(super) fn output_sent(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        if client.wait == Wait::Output && client.output.bytes.len() <= limits::CLIENT_OUTPUT_SOFT_BYTES {
            self.shared.resume.push(key);
        }
        let ends = client.closing || (client.input.ended && client.wait == Wait::Nothing);
        let done = ends && client.outstanding == 0 && client.output.bytes.is_empty();
        self.settle();
        done
    }

    pub(super) fn lane_answered(&mut self, reply: &LaneReply) {
        let key = ClientKey::from_u64(reply.client);
        let Some(client) = self.clients.get_mut(key) else { return };
        if reply.close {
            client.outstanding = client.outstanding.saturating_sub(reply.count);
            self.shared.asks.push(Ask::CloseClient(key));
        } else {
            client.lane_answered(&mut self.shared, reply.count, &reply.bytes);
        }
        self.settle();
    }

    /// Lets every client whose wait is over go on, until none moves; then looks whether a plan can be acked, and a hold has drained.
    pub(super) fn settle(&mut self) {
        while let Some(key) = self.shared.resume.pop() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.wait == Wait::Nothing {
                continue;
            }
            client.wait = Wait::Nothing;
            process_buffered(client, &mut self.shared);
            if client.input.ended {
                client.has_output(&mut self.shared);
            }
            if client.may_be_read() {
                self.shared.asks.push(Ask::ReadClient(key));
            }
        }
        self.send_moving();
        if let Some(barrier) = self.barrier.as_mut() {
            // While clients are held, what is moved is moved by orders, behind the ack.
            let moving = !self.moving.is_empty() && !self.shared.hold.is_on();
            barrier.check(&self.clients, &self.shared, moving);
        }
        self.check_hold();
        self.ask_for_confirmation();
    }

    /// No new clients; those with nothing outstanding are closed now, the others as soon as their replies are sent.
    pub(super) fn begin_drain(&mut self) {
        self.draining = true;
        for key in self.clients.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.closing = true;
            if (client.outstanding == 0 && client.withheld.is_none()) || client.pushes.is_open() {
                self.shared.asks.push(Ask::CloseClient(key));
            }
        }
    }
}

fn process_buffered(client: &mut Client, shared: &mut Shared) {
    let mut input = std::mem::take(&mut client.input.bytes);
    let used = client.process(shared, &input);
    input.drain(..used);
    client.input.bytes = input;
}

/// The first bytes of a client of an interlay that has TLS: true when they are not to be read as requests.
fn begins_encryption(client: &mut Client, shared: &mut Shared, tls: &ServerTls, bytes: &[u8]) -> bool {
    client.input.encryption_settled = true;
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        shared.asks.push(Ask::SecureClient { client: client.key, prologue: b"", begun: bytes.to_vec() });
        return true;
    }
    if tls.require == RequireTls::No {
        return false;
    }
    shared.counters.replies_refused += 1;
    client.closing = true;
    client.tell(shared, b"-ERR Crossfade accepts no connection without TLS here: connect with --tls or rediss://\r\n");
    true
}
