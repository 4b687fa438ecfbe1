//! Everything outside of Crossfade's control and movers: servers, cores, clients and faults, moved by the events of the network.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::mpsc;

use crate::ablations::Ablation;
use crate::checks::{Allowance, Reign, difference};
use crate::clients::Client;
use crate::core::{Core, Told};
use crate::history::History;
use crate::limits;
use crate::model::commands::execute;
use crate::model::data::{Data, Entry, Expiry, Run};
use crate::model::log::Executed;
use crate::model::server::Server;
use crate::model::value::Value;
use crate::net::{End, Event, LinkId, Party, SharedNet, Timer};
use crate::random::Random;
use crate::trace::trace;
use base::model::{Authority, Epoch};

pub type SharedWorld = Rc<RefCell<World>>;

/// Who is the authority, as the durable record says.
#[derive(Debug)]
pub struct Record {
    pub authority: Authority,
    pub reigns: Vec<Reign>,
}

/// What the process last said of its shadow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    /// Of the feed that they are about; those of the one before a flip say nothing.
    pub epoch: Option<Epoch>,
    pub way_back: bool,
    pub in_step: bool,
    pub doubts: u64,
}

/// See the head of this file.
pub struct World {
    pub net: SharedNet,
    pub servers: [Server; 2],
    /// It was killed and is not back yet.
    down: [bool; 2],
    /// Empty while there is no process.
    pub cores: Vec<Core>,
    pub clients: Vec<Client>,
    pub history: History,
    pub record: Record,
    /// What the servers held when the run began.
    pub begin: Data,
    pub facts: Facts,
    pub ablation: Ablation,
    random: Random,
    pub active_until_us: u64,
    pub violations: Vec<String>,
    /// When clients were held, from and to.
    pub holds: Vec<(u64, u64)>,
    /// For the mover and control of the present process.
    pub told: Option<mpsc::UnboundedSender<Told>>,
    /// Naive dual write: the connection to the other server, by that to the authority.
    mirrors: BTreeMap<LinkId, LinkId>,
}

impl World {
    pub fn new(seed: u64, net: SharedNet, ablation: Ablation) -> Self {
        let mut random = Random::new(seed, "world");
        let mut server = |name: &'static str| {
            let kept = *random.pick(&limits::KEPT_BYTES);
            Server::new(name, Random::new(seed, name), kept, random.between(limits::SKEW_MS) as i64)
        };
        let mut servers = [server("source"), server("target")];
        let begin = first_data();
        servers[0].data = begin.clone();
        for server in &mut servers {
            server.position_apart = ablation == Ablation::PositionApart;
        }
        let record = Record { authority: Authority::initial(), reigns: vec![Reign { server: 0, log_begin: 0 }] };
        let mut world = Self {
            net,
            servers,
            down: [false; 2],
            cores: Vec::new(),
            clients: (0..limits::CLIENTS).map(|id| Client::new(id, seed)).collect(),
            history: History::default(),
            record,
            begin,
            facts: Facts::default(),
            ablation,
            active_until_us: random.between(limits::ACTIVE_US),
            random,
            violations: Vec::new(),
            holds: Vec::new(),
            told: None,
            mirrors: BTreeMap::new(),
        };
        if ablation == Ablation::NaiveDualWrite {
            world.servers[1].data = world.begin.clone();
        }
        world.begin_timers();
        world
    }

    fn begin_timers(&mut self) {
        let mut net = self.net.borrow_mut();
        for server in 0..2 {
            net.after(limits::SERVER_TICK_US, Timer::Server(server));
        }
        for client in 0..limits::CLIENTS {
            net.after(limits::IDLE_TICK_US, Timer::Client(client));
        }
        net.after(limits::SAMPLE_EVERY_US, Timer::Sample);
        net.after(self.random.between(limits::FAULT_EVERY_US), Timer::Fault);
    }

    pub fn violation(&mut self, what: String) {
        if self.violations.len() < limits::VIOLATIONS_MAX {
            let at_us = self.net.borrow().now_us;
            self.violations.push(format!("{at_us} us: {what}"));
        }
    }

    pub fn is_active(&self) -> bool {
        self.net.borrow().now_us < self.active_until_us
    }

    /// The index of the authority's server.
    pub fn authority(&self) -> usize {
        crate::core::server_of(self.record.authority.side)
    }

    /// How the shadow differs from the authority.
    pub fn difference(&self) -> Option<String> {
        let authority = &self.servers[self.authority()];
        let allowance = Allowance { later_ms: limits::GRACE_MS as i64, now_ms: authority.now_ms() };
        difference(&authority.data, &self.servers[1 - self.authority()].data, allowance)
    }

    /// Whether a key's time is over by what clients asked for: behind a flip the authority's deadlines are later by the grace until they are corrected, and
    /// what the shadow has lost before is not.
    pub fn is_in_grace(&self, database: u32, key: &[u8]) -> bool {
        let authority = &self.servers[self.authority()];
        let begins_ms = authority.now_ms() + limits::GRACE_MS as i64 + 2 * limits::SKEW_MS.1 as i64;
        authority.data.get(database, key).is_none_or(|entry| entry.deadline_ms.is_some_and(|at| at <= begins_ms))
    }

    pub fn begin_hold(&mut self) {
        self.holds.push((self.net.borrow().now_us, u64::MAX));
    }

    pub fn end_hold(&mut self) {
        if let Some(hold) = self.holds.last_mut() {
            hold.1 = self.net.borrow().now_us;
        }
    }

    // ---- the process ------------------------------------------------------------------------------------------------

    pub fn begin_process(&mut self, cores: Vec<Core>, told: mpsc::UnboundedSender<Told>) {
        (self.cores, self.told) = (cores, Some(told));
        trace(self.net.borrow().now_us, || "a process begins".to_owned());
        self.facts = Facts::default();
        for core in 0..limits::CORES {
            self.net.borrow_mut().after(limits::BUSY_TICK_US, Timer::Core(core));
        }
    }

    /// All of the process' connections are closed by its operating system.
    pub fn end_process(&mut self) {
        self.cores.clear();
        self.told = None;
        let of_process =
            |party: &Party| matches!(party, Party::Upstream { .. } | Party::Listener(_) | Party::Stream(_));
        let ends = self.net.borrow().ends_of(of_process);
        let authority = self.authority();
        let mut net = self.net.borrow_mut();
        // Not simulated, because the product does not withstand it yet: a process dies between the record of a flip and the exchange, and what its feed
        // had sent to the new authority arrives there after the next process has let clients go on (seed 167 before this was left out). Nobody ends
        // the connections of an earlier epoch's feed at the authority.
        net.lose_streams_to(authority);
        ends.into_iter().for_each(|(link, end)| net.close(link, end));
    }

    /// The record of another authority is durable.
    pub fn promote(&mut self) {
        self.record.authority = self.record.authority.flipped();
        let server = self.authority();
        trace(self.net.borrow().now_us, || format!("the record: {:?}", self.record.authority));
        self.record.reigns.push(Reign { server, log_begin: self.servers[server].log.len() });
        self.facts = Facts::default();
        // The way back is where a late feed meets deadlines that are not later by the grace yet.
        if self.random.once_in(2) {
            self.slow(1 - server);
        }
    }

    /// Ablation: the other direction is to begin at what is the end of the stream now.
    pub fn forget_the_way_back(&mut self, epoch: Epoch) {
        let stream = &self.servers[self.authority()].replication;
        let position = format!("{} {} 0", stream.id, stream.offset());
        let key = format!("__crossfade:position:{}:{}", crate::core::interlay(), epoch.0);
        let entry = Entry { value: Value::String(position.into_bytes()), deadline_ms: None };
        let shadow = 1 - self.authority();
        self.servers[shadow].data.insert(0, key.into_bytes(), entry);
    }

    // ---- events -----------------------------------------------------------------------------------------------------

    /// `party`: whom it happens to.
    pub fn happen(&mut self, event: Event, party: Option<Party>) {
        match (event, party) {
            (Event::Timer(timer), _) => self.timer(timer),
            (Event::Arrives(link), Some(party)) => self.arrives(link, &party),
            (Event::Answered { link, taken }, Some(party)) => self.answered(link, party, taken),
            (Event::Bytes { link, bytes, .. }, Some(party)) => self.bytes(link, party, &bytes),
            (Event::Closed { link, .. }, Some(party)) => self.closed(link, party),
            (event, None) => panic!("it concerns nobody: {event:?}"),
        }
        self.after_event();
    }

    /// An end learns that the connection is over.
    fn closed(&mut self, link: LinkId, party: Party) {
        let net = Rc::clone(&self.net);
        let net = &mut *net.borrow_mut();
        match party {
            Party::Server(server) => self.servers[server].close(link),
            Party::Upstream { core, key } => {
                if let Some(core) = self.cores.get_mut(core) {
                    core.upstream_closed(key, net);
                }
            }
            Party::Listener(core) => {
                if let Some(core) = self.cores.get_mut(core) {
                    core.client_closed(link, net);
                }
            }
            Party::Client(client) => self.clients[client].gone(net),
            Party::Stream(pipe) => pipe.borrow_mut().end(),
            Party::Mirror => {}
        }
    }

    /// What servers and cores have to say goes out.
    fn after_event(&mut self) {
        let net = Rc::clone(&self.net);
        let net = &mut *net.borrow_mut();
        for core in &mut self.cores {
            core.take_directives(net);
            if let Some(told) = &self.told {
                core.told.drain(..).for_each(|one| drop(told.send(one)));
            }
        }
        for server in &mut self.servers {
            for (link, bytes) in std::mem::take(&mut server.sent) {
                net.send(link, End::Far, bytes);
            }
            for link in std::mem::take(&mut server.closed) {
                net.close(link, End::Far);
            }
        }
    }

    fn arrives(&mut self, link: LinkId, far: &Party) {
        let taken = match far {
            Party::Server(server) if self.down[*server] => false,
            Party::Server(server) => {
                self.servers[*server].open(link);
                true
            }
            Party::Listener(core) => {
                let net = Rc::clone(&self.net);
                self.cores.get_mut(*core).is_some_and(|core| core.arrives(link, &mut net.borrow_mut()))
            }
            other => panic!("nobody connects to {other:?}"),
        };
        self.net.borrow_mut().answer(link, taken);
    }

    fn answered(&mut self, link: LinkId, near: Party, taken: bool) {
        if !taken {
            self.net.borrow_mut().close(link, End::Near);
        }
        let net = Rc::clone(&self.net);
        let net = &mut *net.borrow_mut();
        match near {
            Party::Upstream { core, key } => {
                if let Some(core) = self.cores.get_mut(core) {
                    core.upstream_answered(key, taken, net);
                }
                if taken && self.ablation == Ablation::NaiveDualWrite {
                    self.mirrors.insert(link, net.connect(Party::Mirror, Party::Server(1)));
                }
            }
            Party::Client(client) => self.clients[client].answered(taken, net),
            Party::Stream(pipe) => pipe.borrow_mut().answered(taken),
            Party::Mirror => {}
            Party::Server(_) | Party::Listener(_) => panic!("it does not connect"),
        }
    }

    fn bytes(&mut self, link: LinkId, party: Party, bytes: &[u8]) {
        let net = Rc::clone(&self.net);
        let net = &mut *net.borrow_mut();
        let told = match party {
            Party::Server(server) => {
                if let Some(mirror) = self.mirrors.get(&link) {
                    net.send(*mirror, End::Near, bytes.to_vec());
                }
                self.servers[server].input(link, bytes, net.now_us);
                Ok(())
            }
            Party::Upstream { core, key } => self.cores.get_mut(core).map_or(Ok(()), |core| {
                core.upstream_bytes(key, bytes, net);
                Ok(())
            }),
            Party::Listener(core) => self.cores.get_mut(core).map_or(Ok(()), |core| {
                core.client_bytes(link, bytes, net);
                Ok(())
            }),
            Party::Client(client) => self.clients[client].bytes(bytes, &mut self.history, net),
            Party::Stream(pipe) => {
                pipe.borrow_mut().arrived(bytes);
                Ok(())
            }
            Party::Mirror => Ok(()),
        };
        if let Err(what) = told
            && self.violations.len() < limits::VIOLATIONS_MAX
        {
            self.violations.push(what);
        }
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Server(server) => {
                let now_us = self.net.borrow().now_us;
                if !self.down[server] {
                    self.servers[server].tick(now_us);
                    self.look_at_expired(server);
                }
                self.net.borrow_mut().after(limits::SERVER_TICK_US, timer);
            }
            Timer::Core(core) => {
                let net = Rc::clone(&self.net);
                let net = &mut *net.borrow_mut();
                if let Some(core) = self.cores.get_mut(core) {
                    let next_us = core.tick(net);
                    net.after(next_us, timer);
                }
            }
            Timer::Client(client) => {
                let active = self.is_active();
                let net = Rc::clone(&self.net);
                self.clients[client].stopped = !active;
                self.clients[client].act(&mut self.history, &mut net.borrow_mut());
            }
            Timer::Sample => {
                self.cores.iter_mut().for_each(Core::sample);
                self.net.borrow_mut().after(limits::SAMPLE_EVERY_US, timer);
            }
            Timer::Fault => {
                if self.is_active() {
                    self.fault();
                    let pause_us = self.random.between(limits::FAULT_EVERY_US);
                    self.net.borrow_mut().after(pause_us, timer);
                }
            }
            Timer::ServerBack(server) => self.down[server] = false,
            Timer::LagOver(server) => self.net.borrow_mut().lag_us[server] = 0,
        }
    }

    // ---- faults -----------------------------------------------------------------------------------------------------

    fn fault(&mut self) {
        let server = self.random.below(2) as usize;
        match self.random.below(10) {
            0 => self.kill(server),
            1..=3 => self.cut(|party| matches!(party, Party::Stream(_))),
            4 => self.cut(|party| matches!(party, Party::Upstream { .. })),
            5 => self.cut(|party| matches!(party, Party::Client(_))),
            _ => self.slow(server),
        }
    }

    /// What the mover exchanges with a server is late for a while.
    fn slow(&mut self, server: usize) {
        let lag_us = self.random.between(limits::LAG_US);
        let lasts_us = self.random.between(limits::LAG_LASTS_US);
        let mut net = self.net.borrow_mut();
        net.lag_us[server] = lag_us;
        trace(net.now_us, || format!("server {server} is slow to reach: {lag_us} us for {lasts_us} us"));
        net.after(lasts_us, Timer::LagOver(server));
    }

    fn cut(&mut self, chosen: impl Fn(&Party) -> bool) {
        let links = self.net.borrow().ends_of(chosen);
        if !links.is_empty() {
            let (link, end) = *self.random.pick(&links);
            trace(self.net.borrow().now_us, || format!("link {link} is cut, {end:?}"));
            self.net.borrow_mut().cut(link);
        }
    }

    /// kill -9 of a server that has every write on its disk.
    fn kill(&mut self, server: usize) {
        if self.ablation == Ablation::NaiveDualWrite || std::mem::replace(&mut self.down[server], true) {
            return;
        }
        let ends = self.net.borrow().ends_of(|party| matches!(party, Party::Server(own) if *own == server));
        trace(self.net.borrow().now_us, || format!("server {server} is killed"));
        self.servers[server].restart();
        let mut net = self.net.borrow_mut();
        ends.into_iter().for_each(|(link, end)| net.close(link, end));
        net.after(self.random.between(limits::RESTART_US), Timer::ServerBack(server));
    }

    // ---- I7 -----------------------------------------------------------------------------------------------------------

    /// The shadow has lost keys to their deadlines: none of them may live on at the authority, as far as the shadow could know.
    fn look_at_expired(&mut self, server: usize) {
        let expired = std::mem::take(&mut self.servers[server].expired);
        let authority = self.authority();
        if server == authority || !self.facts.in_step {
            return;
        }
        let Some(applied) = self.applied() else { return };
        for (at_us, database, key) in expired {
            let known_us = at_us.saturating_sub(limits::GRACE_MS * 1000);
            let source = &self.servers[authority];
            let lives = source.data.get(database, &key).is_some_and(|entry| {
                entry.deadline_ms.is_none_or(|deadline| deadline > source.now_ms() + limits::SKEW_MS.1 as i64)
            });
            if lives && applied >= source.replication.offset_at(known_us) && !self.is_new(database, &key, known_us) {
                self.violation(format!("the shadow has lost {} first", String::from_utf8_lossy(&key)));
            }
        }
    }

    /// Whether the key was made at the authority after a time: it is another one.
    fn is_new(&self, database: u32, key: &[u8], since_us: u64) -> bool {
        let log = &self.servers[self.authority()].log;
        let recent = log.iter().rev().take_while(|executed| executed.at_us >= since_us);
        let made = |executed: &Executed| {
            let mut seen = executed.steps.iter().flat_map(|step| &step.seen);
            seen.any(|seen| seen.database == database && seen.key == key && !seen.existed)
        };
        recent.into_iter().any(made)
    }

    /// Up to where the shadow has the present stream of the authority.
    fn applied(&self) -> Option<u64> {
        let shadow = &self.servers[1 - self.authority()].data;
        let stream = &self.servers[self.authority()].replication.id;
        let position = |(key, entry): (&Vec<u8>, &Entry)| {
            let Value::String(text) = &entry.value else { return None };
            let position = key.starts_with(b"__crossfade:position:").then_some(text)?;
            let words: Vec<&str> = std::str::from_utf8(position).ok()?.split(' ').take(3).collect();
            let position: follow::redis::position::Position = words.join(" ").parse().ok()?;
            (position.stream.as_str() == stream).then_some(position.offset)
        };
        shadow.0.get(&0)?.iter().filter_map(position).max()
    }
}

/// What there is before Crossfade comes.
fn first_data() -> Data {
    let mut data = Data::default();
    for database in 0..2 {
        let mut run = Run::new(&mut data, database, limits::EPOCH_MS, Expiry::Never);
        for line in
            ["SET text0 first", "SET counter0 10", "RPUSH list0 a", "HSET hash f0 a", "SADD set m0", "ZADD ranks 1 m0"]
        {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            execute(&mut run, &words);
        }
        for number in 0..20 {
            let key = format!("old{number}");
            let deadline_ms = (200 * (number + 1)).to_string();
            execute(&mut run, &[b"SET", key.as_bytes(), b"value", b"PX", deadline_ms.as_bytes()]);
        }
    }
    data
}
