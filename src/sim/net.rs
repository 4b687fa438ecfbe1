//! The network in virtual time: links with a seeded latency that keep the order of each direction, cuts, and the queue of everything that is
//! to happen, by time and then by the order in which it was asked for.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits;
use crate::pipe::Pipe;
use crate::random::Random;

pub type LinkId = u64;
/// A network as everything in a run shares it.
pub type SharedNet = Rc<RefCell<Net>>;

/// The end that connected, and the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Near,
    Far,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Near => Self::Far,
            Self::Far => Self::Near,
        }
    }
}

/// Who is at one end of a link.
#[derive(Debug, Clone)]
pub enum Party {
    /// A model server; its number for the connection is that of the link.
    Server(usize),
    /// The upstream connection of a core with this key.
    Upstream {
        core: usize,
        key: u64,
    },
    /// A core, as clients see it.
    Listener(usize),
    Client(usize),
    /// Ablation: the near end of a connection on which a core's bytes are sent a second time.
    Mirror,
    /// The feed, the standby, and whatever else the mover has connected.
    Stream(Rc<RefCell<Pipe>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    Server(usize),
    Core(usize),
    Client(usize),
    Fault,
    Sample,
    ServerBack(usize),
    LagOver(usize),
}

#[derive(Debug)]
pub enum Event {
    /// Somebody wants to connect.
    Arrives(LinkId),
    /// The other end has taken the connection, or there was nobody.
    Answered {
        link: LinkId,
        taken: bool,
    },
    Bytes {
        link: LinkId,
        to: End,
        bytes: Vec<u8>,
    },
    Closed {
        link: LinkId,
        to: End,
    },
    Timer(Timer),
}

#[derive(Debug)]
struct Queued {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

#[derive(Debug)]
pub struct Link {
    pub near: Party,
    pub far: Party,
    latency_us: u64,
    /// When the last of each direction arrives: towards the near end, towards the far end.
    last_us: [u64; 2],
    /// Whether each end still has it open.
    open: [bool; 2],
    /// What is under way towards the far end is lost.
    lost: bool,
    cut: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Net {
    pub now_us: u64,
    begin: Instant,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    pub links: BTreeMap<LinkId, Link>,
    next_link: LinkId,
    random: Random,
    /// By server: added to what the mover's connections carry.
    pub lag_us: [u64; 2],
    /// Rung when something is asked for.
    pub changed: Rc<Notify>,
    /// Of all that was delivered: two runs of one seed have the same.
    pub fingerprint: u64,
}

impl Net {
    pub fn new(random: Random) -> Self {
        Self {
            now_us: 0,
            begin: Instant::now(),
            queue: BinaryHeap::new(),
            number: 0,
            links: BTreeMap::new(),
            next_link: 1,
            random,
            lag_us: [0; 2],
            changed: Rc::default(),
            fingerprint: 0,
        }
    }

    /// The runtime's clock, which goes by milliseconds, may be ahead: for what comes from its tasks and not from an event.
    pub fn catch_up(&mut self) {
        self.now_us = self.now_us.max(self.elapsed_us());
    }

    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn instant(&self, us: u64) -> Instant {
        self.begin + Duration::from_micros(us)
    }

    pub fn at(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        let (number, at_us) = (self.number, at_us.max(self.now_us));
        self.queue.push(Reverse(Queued { at_us, number, event }));
        self.changed.notify_one();
    }

    pub fn after(&mut self, us: u64, timer: Timer) {
        self.at(self.now_us + us, Event::Timer(timer));
    }

    pub fn due_us(&self) -> Option<u64> {
        self.queue.peek().map(|queued| queued.0.at_us)
    }

    /// The next thing that happens, with whom it happens to; what concerns an end that is closed does not.
    pub fn pop(&mut self) -> Option<(Event, Option<Party>)> {
        let Reverse(Queued { at_us, event, .. }) = self.queue.pop()?;
        self.now_us = self.now_us.max(at_us);
        let happens = match &event {
            Event::Arrives(link) | Event::Answered { link, .. } => self.links.contains_key(link),
            Event::Bytes { link, to, .. } => self.is_open(*link, *to) && !(*to == End::Far && self.links[link].lost),
            Event::Closed { link, to } => self.is_open(*link, *to),
            Event::Timer(_) => true,
        };
        if !happens {
            return self.pop_nothing();
        }
        self.mark(&event);
        let party = match &event {
            Event::Bytes { link, to, .. } | Event::Closed { link, to } => self.party(*link, *to),
            Event::Arrives(link) => self.party(*link, End::Far),
            Event::Answered { link, .. } => self.party(*link, End::Near),
            Event::Timer(_) => None,
        };
        if let Event::Closed { link, to } = event {
            self.end(link, to);
        }
        Some((event, party))
    }

    fn party(&self, link: LinkId, end: End) -> Option<Party> {
        let link = self.links.get(&link)?;
        Some(match end {
            End::Near => link.near.clone(),
            End::Far => link.far.clone(),
        })
    }

    /// Only what is due at the same time may follow at once.
    fn pop_nothing(&mut self) -> Option<(Event, Option<Party>)> {
        (self.due_us()? <= self.now_us).then(|| self.pop())?
    }

    fn mark(&mut self, event: &Event) {
        let (kind, size) = match event {
            Event::Arrives(link) => (1, *link),
            Event::Answered { link, .. } => (2, *link),
            Event::Bytes { link, bytes, .. } => (3, link * 1000 + bytes.len() as u64),
            Event::Closed { link, .. } => (4, *link),
            Event::Timer(_) => (5, 0),
        };
        let mixed = self.fingerprint.rotate_left(5) ^ self.now_us ^ (size << 8) ^ kind;
        self.fingerprint = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn is_open(&self, link: LinkId, end: End) -> bool {
        self.links.get(&link).is_some_and(|link| link.open[end as usize])
    }

    pub fn connect(&mut self, near: Party, far: Party) -> LinkId {
        let id = self.next_link;
        self.next_link += 1;
        let latency_us = self.random.between(limits::LATENCY_US);
        let link = Link { near, far, latency_us, last_us: [0; 2], open: [true; 2], lost: false, cut: false };
        self.links.insert(id, link);
        self.at(self.now_us + latency_us, Event::Arrives(id));
        id
    }

    /// When what is sent now arrives: behind all that was sent before.
    fn arrival_us(&mut self, id: LinkId, to: End) -> Option<u64> {
        let jitter_us = self.random.below(limits::LATENCY_US.0);
        let link = self.links.get_mut(&id)?;
        let lag_us = match (&link.near, &link.far) {
            (Party::Stream(_), Party::Server(server)) => self.lag_us[*server],
            _ => 0,
        };
        let at = (self.now_us + link.latency_us + jitter_us + lag_us).max(link.last_us[to as usize]);
        link.last_us[to as usize] = at;
        Some(at)
    }

    pub fn answer(&mut self, id: LinkId, taken: bool) {
        if let Some(at) = self.arrival_us(id, End::Near) {
            self.at(at, Event::Answered { link: id, taken });
        }
        if !taken {
            self.end(id, End::Far);
        }
    }

    pub fn send(&mut self, id: LinkId, from: End, bytes: Vec<u8>) {
        let to = from.other();
        if bytes.is_empty() || !self.is_open(id, from) || self.links[&id].cut {
            return;
        }
        if let Some(at) = self.arrival_us(id, to) {
            self.at(at, Event::Bytes { link: id, to, bytes });
        }
    }

    /// One end closes: the other learns of it behind what was sent before.
    pub fn close(&mut self, id: LinkId, from: End) {
        if !self.is_open(id, from) {
            return;
        }
        let cut = self.links[&id].cut;
        if !cut && let Some(at) = self.arrival_us(id, from.other()) {
            self.at(at, Event::Closed { link: id, to: from.other() });
        }
        self.end(id, from);
    }

    /// The connection breaks: each end learns of it by itself, and what was on its way to the far end may be lost or not.
    pub fn cut(&mut self, id: LinkId) {
        let lost = self.random.once_in(2);
        let delays = [(); 2].map(|()| self.random.between(limits::CUT_NOTICED_US));
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        (link.cut, link.lost) = (true, lost);
        let behind = link.last_us;
        for (end, delay) in [End::Near, End::Far].into_iter().zip(delays) {
            let at = self.now_us.max(behind[end as usize]) + delay;
            self.at(at, Event::Closed { link: id, to: end });
        }
    }

    /// What the mover has under way to a server never arrives.
    pub fn lose_streams_to(&mut self, server: usize) {
        let concerned = |link: &&mut Link| matches!((&link.near, &link.far), (Party::Stream(_), Party::Server(own)) if *own == server);
        self.links.values_mut().filter(concerned).for_each(|link| link.lost = true);
    }

    fn end(&mut self, id: LinkId, end: End) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open[end as usize] = false;
        if link.open == [false; 2] {
            self.links.remove(&id);
        }
    }

    /// Links with a party that is chosen, at either end that is open.
    pub fn ends_of(&self, chosen: impl Fn(&Party) -> bool) -> Vec<(LinkId, End)> {
        let mut found = Vec::new();
        for (id, link) in &self.links {
            for (end, party) in [(End::Near, &link.near), (End::Far, &link.far)] {
                if link.open[end as usize] && chosen(party) {
                    found.push((*id, end));
                }
            }
        }
        found
    }
}
