//! One core: a relay of the product with links for sockets. What `proxy::cores` does with monoio is done here on events, in the same order:
//! input, then asks and output until there is no more, then what control is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits;
use crate::net::{End, LinkId, Net, Party};
use base::model::{
    CoreId, InterlayName, InterlayProtocol, InterlaySpec, RoutePlan, SampledRead, Sharing, Side,
    limits as product_limits,
};
use base::stdx::clock::Now;
use base::stdx::slab::SlabKey;
use bus::{Directive, HoldEvent, Mailbox};
use proxy::contract::{Arrival, Ask, ClientKey, Failure, Relay, RelaySetup, SharedPolicies};
use proxy::redis::relay::RedisRelay;

/// What a core tells control and, through it, the mover.
#[derive(Debug)]
pub enum Told {
    Acked { core: usize },
    Hold { core: CoreId, ticket: u64, event: HoldEvent },
    Reads(Vec<SampledRead>),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Core {
    id: usize,
    relay: RedisRelay,
    pub mailbox: Mailbox<Directive>,
    /// Of each client, by link, and back.
    clients: BTreeMap<LinkId, ClientKey>,
    links: BTreeMap<u64, LinkId>,
    upstreams: BTreeMap<u64, LinkId>,
    barrier_deadline_us: Option<u64>,
    pub told: Vec<Told>,
}

fn now(net: &Net) -> Now {
    Now { wall_ms: limits::EPOCH_MS + (net.now_us / 1000) as i64, mono_us: net.now_us }
}

impl Core {
    pub fn new(id: usize, plan: &Arc<RoutePlan>, token: u64) -> Self {
        let spec = InterlaySpec {
            name: plan.interlay.clone(),
            protocol: InterlayProtocol::Redis(Sharing::Auto),
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
        };
        let core = CoreId(id as u16);
        let (cores, policies) = (limits::CORES as u16, SharedPolicies::default());
        let setup = RelaySetup { spec, plan: Arc::clone(plan), core, cores, token, seed: [0; 32], policies };
        Self {
            id,
            relay: RedisRelay::new(setup),
            mailbox: Mailbox::new(product_limits::DIRECTIVE_QUEUE_LEN).expect("an eventfd"),
            clients: BTreeMap::new(),
            links: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            barrier_deadline_us: None,
            told: Vec::new(),
        }
    }

    // ---- clients ------------------------------------------------------------------------------------------------------

    /// Whether the client is let in.
    pub fn arrives(&mut self, link: LinkId, net: &mut Net) -> bool {
        let Ok(key) = self.relay.client_opened(Arrival { peer: None, now: now(net) }) else { return false };
        self.clients.insert(link, key);
        self.links.insert(key.to_u64(), link);
        self.pump(net);
        true
    }

    pub fn client_bytes(&mut self, link: LinkId, bytes: &[u8], net: &mut Net) {
        let Some(key) = self.clients.get(&link) else { return };
        self.relay.client_input(*key, bytes, now(net));
        self.pump(net);
    }

    pub fn client_closed(&mut self, link: LinkId, net: &mut Net) {
        let Some(key) = self.clients.remove(&link) else { return };
        self.links.remove(&key.to_u64());
        self.relay.client_closed(key);
        self.pump(net);
    }

    // ---- servers ------------------------------------------------------------------------------------------------------

    pub fn upstream_answered(&mut self, key: u64, taken: bool, net: &mut Net) {
        let upstream = SlabKey::from_u64(key);
        if taken {
            self.relay.upstream_opened(upstream, now(net));
        } else {
            self.upstreams.remove(&key);
            self.relay.upstream_failed(upstream, &Failure::Unreachable("nobody listens".to_owned()));
        }
        self.pump(net);
    }

    pub fn upstream_bytes(&mut self, key: u64, bytes: &[u8], net: &mut Net) {
        let read = self.relay.upstream_input(SlabKey::from_u64(key), bytes, now(net));
        assert_eq!(read, Ok(()), "a model server speaks RESP");
        self.pump(net);
    }

    pub fn upstream_closed(&mut self, key: u64, net: &mut Net) {
        self.upstreams.remove(&key);
        let upstream = SlabKey::from_u64(key);
        let failure = if self.relay.upstream_ready(upstream) {
            Failure::Lost("reset".to_owned())
        } else {
            Failure::Unreachable("reset before it was ready".to_owned())
        };
        self.relay.upstream_failed(upstream, &failure);
        self.pump(net);
    }

    // ---- control ------------------------------------------------------------------------------------------------------

    pub fn take_directives(&mut self, net: &mut Net) {
        while let Some(directive) = self.mailbox.pop() {
            match directive {
                Directive::Publish(published) => {
                    let flips = self.relay.plan().authority.side != published.plan.authority.side;
                    self.relay.publish(published.plan);
                    let patience =
                        if flips { product_limits::FLIP_BARRIER_TIMEOUT } else { product_limits::BARRIER_TIMEOUT };
                    self.barrier_deadline_us = Some(net.now_us + patience.as_micros() as u64);
                }
                Directive::Hold { order, .. } => self.relay.hold(order, now(net)).expect("a Redis interlay can hold"),
                other => panic!("not used here: {other:?}"),
            }
            self.pump(net);
        }
    }

    /// When the next one is due.
    pub fn tick(&mut self, net: &mut Net) -> u64 {
        self.relay.tick(now(net));
        if self.relay.barrier_pending() {
            self.relay.nudge_barrier();
            if self.barrier_deadline_us.is_some_and(|deadline| net.now_us >= deadline) {
                self.barrier_deadline_us = None;
                self.relay.break_barrier();
            }
        }
        self.pump(net);
        if self.relay.barrier_pending() { limits::BUSY_TICK_US } else { limits::IDLE_TICK_US }
    }

    pub fn sample(&mut self) {
        let reads = self.relay.take_reads();
        if !reads.is_empty() {
            self.told.push(Told::Reads(reads));
        }
    }

    // ---- what the relay asks --------------------------------------------------------------------------------------------

    fn pump(&mut self, net: &mut Net) {
        loop {
            let moved = self.send(net);
            let asks = self.relay.take_asks();
            if asks.is_empty() && !moved {
                break;
            }
            asks.into_iter().for_each(|ask| self.perform(ask, net));
        }
        if self.relay.take_acked_plan().is_some() {
            self.barrier_deadline_us = None;
            self.told.push(Told::Acked { core: self.id });
        }
        let core = CoreId(self.id as u16);
        let events = self.relay.take_hold_events();
        self.told.extend(events.into_iter().map(|(ticket, event)| Told::Hold { core, ticket, event }));
    }

    fn send(&mut self, net: &mut Net) -> bool {
        let (clients, upstreams) = (self.relay.take_ready_clients(), self.relay.take_ready_upstreams());
        let any = !clients.is_empty() || !upstreams.is_empty();
        for key in clients {
            let Some(&link) = self.links.get(&key.to_u64()) else { continue };
            while let Some(bytes) = self.relay.take_client_output(key, Vec::new()) {
                net.send(link, End::Far, bytes);
            }
            if self.relay.client_written(key) {
                self.close_client(key, net);
            }
        }
        for key in upstreams {
            let Some(&link) = self.upstreams.get(&key.to_u64()) else { continue };
            while let Some(bytes) = self.relay.take_upstream_output(key, Vec::new()) {
                net.send(link, End::Near, bytes);
            }
        }
        any
    }

    fn close_client(&mut self, key: ClientKey, net: &mut Net) {
        let Some(link) = self.links.remove(&key.to_u64()) else { return };
        self.clients.remove(&link);
        net.close(link, End::Far);
        self.relay.client_closed(key);
    }

    fn perform(&mut self, ask: Ask, net: &mut Net) {
        match ask {
            Ask::Connect { upstream, side } => {
                let key = upstream.to_u64();
                let link = net.connect(Party::Upstream { core: self.id, key }, Party::Server(server_of(side)));
                self.upstreams.insert(key, link);
            }
            Ask::CloseUpstream(key) => {
                if let Some(link) = self.upstreams.remove(&key.to_u64()) {
                    net.close(link, End::Near);
                }
            }
            Ask::CloseClient(key) => self.close_client(key, net),
            // Everything is read as soon as it arrives.
            Ask::ReadClient(_) | Ask::ReadUpstream(_) => {}
            Ask::SecureUpstream { .. } | Ask::SecureClient { .. } | Ask::Hand { .. } => {
                panic!("not used here: {ask:?}")
            }
        }
    }
}

/// The index of the server on one side.
pub fn server_of(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Target => 1,
    }
}

pub fn interlay() -> InterlayName {
    InterlayName::new("orders").expect("a name")
}
