//! What the clients of one relay share: the plan, the connections to servers, the lists of what the caller must do. Lives on one core.
//!
//! Knows no client: what is done to clients is in `client` and the files that say `impl Client`.

use std::rc::Rc;
use std::sync::Arc;

use super::hold::Hold;
use super::reads::SampledReads;
use super::scripts::Scripts;
use super::session::Session;
use super::upstream::{Awaited, PoolKey, Upstream, Upstreams};
use super::withheld::Confirming;
use crate::contract::{Ask, ClientKey, RelaySetup, SharedPolicies, ToCompanion, UpstreamKey};
use crate::redis::lane::request::LaneMessage;
use base::model::{CompareReads, CoreId, InterlayProtocol, PlanMode, RoutePlan, Sharing, Side, limits};
use base::stdx::clock::Now;
use base::stdx::spares::Spares;
use bus::counters::{self, CoreCounters};
use wire::resp::command::{self, Class, Command};
use wire::resp::encode;

/// What is kept of what clients have sent.
#[derive(Debug, Default)]
pub struct Kept {
    /// For a comparison, until control collects them.
    pub reads: SampledReads,
    /// For a new authority.
    pub scripts: Scripts,
    /// The connection on which the shadow is given some.
    pub preloading: Option<UpstreamKey>,
}

/// Which relay this is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub core: CoreId,
    /// Part of the names of this process' connections.
    pub token: u64,
    /// Whether its clients share connections.
    pub sharing: Sharing,
}

/// What is known of clients without a log-in.
#[derive(Debug, Default)]
pub struct Strangers {
    /// Whether the authority lets a connection without log-in run commands; learnt when one connects.
    pub allowed: Option<bool>,
    /// When a connection that had just been made was seen to be allowed, or not.
    pub checked_us: Option<u64>,
    /// A connection that is made to see it.
    pub checking: Option<UpstreamKey>,
    /// Clients that wait for it.
    pub waiting: Vec<ClientKey>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Shared {
    pub plan: Arc<RoutePlan>,
    pub upstreams: Upstreams,
    pub asks: Vec<Ask>,
    /// Commands for the lane.
    pub to_lane: Vec<ToCompanion>,
    pub ready_clients: Vec<ClientKey>,
    /// Clients whose reason to wait may be over.
    pub resume: Vec<ClientKey>,
    pub hold: Hold,
    pub confirming: Confirming,
    pub policies: SharedPolicies,
    pub kept: Kept,
    pub strangers: Strangers,
    pub identity: Identity,
    /// When the bytes being looked at came.
    pub now: Now,
    pub counters: CoreCounters,
    by_name: Vec<u64>,
    pub spares: Spares,
}

impl Shared {
    #[must_use]
    pub fn new(setup: &RelaySetup) -> Self {
        let sharing = match setup.spec.protocol {
            InterlayProtocol::Redis(sharing) => sharing,
            InterlayProtocol::Postgres(_) => Sharing::Never,
        };
        Self {
            plan: Arc::clone(&setup.plan),
            upstreams: Upstreams::default(),
            asks: Vec::new(),
            to_lane: Vec::new(),
            ready_clients: Vec::new(),
            resume: Vec::new(),
            hold: Hold::default(),
            confirming: Confirming::default(),
            policies: SharedPolicies::clone(&setup.policies),
            kept: Kept::default(),
            strangers: Strangers::default(),
            identity: Identity { core: setup.core, token: setup.token, sharing },
            now: Now::default(),
            counters: CoreCounters::default(),
            by_name: vec![0; command::TABLE.len() + 1],
            spares: Spares::new(limits::SPARE_BUFFERS_MAX, limits::SPARE_BUFFER_BYTES_MAX),
        }
    }

    #[must_use]
    pub fn is_dual(&self) -> bool {
        self.plan.mode == PlanMode::Dual
    }

    // ---- connections ------------------------------------------------------------------------------------------------

    /// Whether the target is authoritative.
    #[must_use]
    pub fn is_on_target(&self) -> bool {
        self.plan.authority.side == Side::Target
    }

    /// Loads the scripts that clients have loaded on the present authority; the connection for it.
    pub fn load_scripts(&mut self) -> Option<UpstreamKey> {
        let (requests, count) = self.kept.scripts.loads();
        self.load_on(self.plan.authority.side, requests, count)
    }

    /// SCRIPT, EVAL or EVAL_RO of a client has been sent.
    pub fn note_script(&mut self, frame: &[u8]) {
        self.kept.scripts.note(frame);
        self.preload_scripts();
    }

    /// Gives the shadow the scripts it has not been given, on one connection at a time. Nothing depends on it: should it fail, the flip takes longer.
    pub fn preload_scripts(&mut self) {
        if self.plan.mode == PlanMode::PassThrough || self.kept.preloading.is_some() {
            return;
        }
        let (requests, count) = self.kept.scripts.take_unsent();
        self.kept.preloading = self.load_on(self.plan.authority.side.other(), requests, count);
    }

    /// A connection of the relay's own is gone: when scripts went over it, others may follow.
    pub fn preloading_ends(&mut self, key: UpstreamKey) {
        if self.kept.preloading == Some(key) {
            self.kept.preloading = None;
            self.preload_scripts();
        }
    }

    fn load_on(&mut self, side: Side, requests: Vec<u8>, count: usize) -> Option<UpstreamKey> {
        if count == 0 {
            return None;
        }
        let credentials = self.plan.endpoint(side).credentials.clone().map(Rc::new);
        let mut upstream = Upstream::new(PoolKey { side, credentials, database: 0, resp: 2 }, None);
        upstream.output = requests;
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Swallow, count));
        Some(self.connect_once(upstream))
    }

    /// Which connections serve this session now.
    #[must_use]
    pub fn pool_key(&self, session: &Session) -> PoolKey {
        PoolKey {
            side: self.plan.authority.side,
            credentials: session.credentials.clone(),
            database: session.database,
            resp: session.resp,
        }
    }

    /// The connection shared by all with this key, made if there is none.
    pub fn shared_upstream(&mut self, pool: PoolKey) -> UpstreamKey {
        let known = self.upstreams.shared.iter().position(|(key, _)| *key == pool);
        if let Some(at) = known {
            let key = self.upstreams.shared[at].1;
            if !self.is_silent(key) || !self.upstreams.may_replace() {
                return key;
            }
            // What waits there for a script or a pause goes on waiting; whoever comes now need not.
            self.upstreams.shared.swap_remove(at);
            self.upstreams.replaced.push(key);
            if let Some(upstream) = self.upstreams.get_mut(key) {
                upstream.retired = true;
            }
        }
        let key = self.connect(Upstream::new(pool.clone(), None));
        self.upstreams.shared.push((pool, key));
        key
    }

    /// Whether the server has said nothing on this connection for much longer than it usually takes, though replies are awaited.
    #[must_use]
    pub fn is_silent(&self, key: UpstreamKey) -> bool {
        self.upstreams.get(key).is_some_and(|upstream| upstream.is_silent(self.now.mono_us))
    }

    /// Asks for this connection.
    pub fn connect(&mut self, upstream: Upstream) -> UpstreamKey {
        let side = upstream.key.side;
        let upstream = self.upstreams.all.insert(upstream);
        self.asks.push(Ask::Connect { upstream, side });
        upstream
    }

    /// Forgets a connection and asks for its end. Nothing of it is outstanding, or its client needs no answer.
    pub fn close_upstream(&mut self, key: UpstreamKey) {
        if self.strangers.checking == Some(key) {
            // Under another plan: whoever waits asks anew.
            self.strangers.checking = None;
            self.resume.append(&mut self.strangers.waiting);
        }
        if self.upstreams.remove(key).is_some() {
            self.asks.push(Ask::CloseUpstream(key));
        }
        self.preloading_ends(key);
    }

    /// The client of this pinned connection is gone. Whatever state the connection has must not leak to another client. Commands that it
    /// was sent still run, as on a shared connection, so it is kept until they are answered: a server that finds the connection closed has
    /// not necessarily run them yet, and until then they are outstanding. A blocked one ends with its connection.
    pub fn leave_pinned(&mut self, key: UpstreamKey) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        if upstream.key.resp == 3 {
            // Answered by pushes, which nobody counts any more.
            upstream.awaited.retain(|awaited| !matches!(awaited, Awaited::Confirmations(..)));
        }
        if upstream.awaited.iter().any(|awaited| !matches!(awaited, Awaited::Blocking(_))) {
            upstream.owner = None;
            upstream.retired = true;
        } else {
            self.close_upstream(key);
        }
    }

    /// The servers' numbers of these connections, by the log-in under which they can be spoken of. Those without a number are left out.
    pub fn numbers<'a>(&self, connections: impl Iterator<Item = &'a Upstream>) -> Vec<(PoolKey, Vec<u64>)> {
        let mut by_pool: Vec<(PoolKey, Vec<u64>)> = Vec::new();
        for Upstream { key, server_client_id, .. } in connections.filter(|upstream| upstream.server_client_id != 0) {
            let own = self.plan.endpoint(key.side).credentials.clone().map(Rc::new);
            let pool = PoolKey { side: key.side, credentials: own.or(key.credentials.clone()), database: 0, resp: 2 };
            match by_pool.iter_mut().find(|(known, _)| *known == pool) {
                Some((_, numbers)) => numbers.push(*server_client_id),
                None => by_pool.push((pool, vec![*server_client_id])),
            }
        }
        by_pool
    }

    /// Ends blocking commands by the numbers of their connections. They end with an error, which tells them from those whose time is over.
    pub fn unblock(&mut self, pool: PoolKey, numbers: &[u64]) -> UpstreamKey {
        let mut upstream = Upstream::new(pool, None);
        for number in numbers {
            let number = number.to_string();
            encode::push_request(&mut upstream.output, &[b"CLIENT", b"UNBLOCK", number.as_bytes(), b"ERROR"]);
            upstream.awaited.push_back(Awaited::Swallow);
        }
        self.connect_once(upstream)
    }

    /// Asks which of these connections are blocked.
    pub fn list_blocked(&mut self, pool: PoolKey, numbers: &[u64]) -> UpstreamKey {
        let mut upstream = Upstream::new(pool, None);
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let mut args: Vec<&[u8]> = vec![b"CLIENT", b"LIST", b"ID"];
        args.extend(numbers.iter().map(String::as_bytes));
        encode::push_request(&mut upstream.output, &args);
        upstream.awaited.push_back(Awaited::BlockedList);
        self.connect_once(upstream)
    }

    /// A connection for what the relay itself has to say, closed behind the last answer.
    fn connect_once(&mut self, mut upstream: Upstream) -> UpstreamKey {
        upstream.retired = true;
        self.connect(upstream)
    }

    /// Takes the oldest awaited reply off; a connection of an old plan without any is closed.
    pub fn take_awaited(&mut self, key: UpstreamKey) -> Option<Awaited> {
        let upstream = self.upstreams.get_mut(key)?;
        let awaited = upstream.awaited.pop_front();
        upstream.heard_us = self.now.mono_us;
        if let Some(latency_us) = upstream.probe.answered(self.now.mono_us) {
            upstream.took(latency_us);
            self.counters.side_mut(upstream.key.side).latency_us.record(latency_us, 1);
        }
        if upstream.is_over() {
            self.close_upstream(key);
        }
        awaited
    }

    /// The client is gone: whatever waits or watches for it in the lane is to end.
    pub fn leave_lane(&mut self, client: ClientKey) {
        self.to_lane.push(ToCompanion::Lane(LaneMessage::Gone { client: client.to_u64() }));
    }

    /// The lane is to forget what this client watches.
    pub fn forget_in_lane(&mut self, client: ClientKey) {
        self.to_lane.push(ToCompanion::Lane(LaneMessage::Forget { client: client.to_u64() }));
    }

    // ---- what is counted --------------------------------------------------------------------------------------------

    pub fn count(&mut self, command: &'static Command) {
        if !counters::ON {
            return;
        }
        self.counters.commands += 1;
        match command.class {
            Class::Read => self.counters.commands_read += 1,
            Class::Write => self.counters.commands_write += 1,
            Class::Server
            | Class::ServerChange
            | Class::Library
            | Class::Session(_)
            | Class::Connection(_)
            | Class::Unknown => {}
        }
        self.by_name[command::position(command)] += 1;
    }

    /// Whether what a server may hold is sent apart from what it answers: a client behind it would wait for another's.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.now.mono_us < self.upstreams.paused_until_us
    }

    /// A reply of the authority that began with this byte.
    pub fn count_reply(&mut self, key: UpstreamKey, first: u8) {
        let Some(upstream) = self.upstreams.get(key) else { return };
        let is_error = first == b'-';
        self.counters.replies_error += u64::from(is_error);
        self.counters.side_mut(upstream.key.side).answered(is_error);
    }

    /// Whether this read is one of the share that is compared. Deterministic in the count of commands, so that a run can be repeated.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        let CompareReads { sample_per_ten_thousand: share } = self.plan.compare;
        let share = u64::from(share);
        share > 0 && (self.counters.commands * share) % 10_000 < share
    }

    /// Whether a read may be copied for a comparison now.
    #[must_use]
    pub fn samples_reads(&self) -> bool {
        self.plan.mode == PlanMode::Followed
            && self.plan.compare.sample_per_ten_thousand > 0
            && self.kept.reads.has_room()
    }

    /// The counters, with the commands by name.
    #[must_use]
    pub fn counters(&self) -> CoreCounters {
        let mut counters = self.counters.clone();
        counters.upstream_connections = self.upstreams.all.len() as u64;
        counters.commands_by_name = self
            .by_name
            .iter()
            .enumerate()
            .filter(|&(_, &count)| count > 0)
            .map(|(at, &count)| (command::TABLE.get(at).map_or("other", |row| row.name), count))
            .collect();
        counters
    }
}
