//! Clients that a blocking command keeps waiting in the lane, by key and by order of arrival. Lives on the lane's core.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::caller::Caller;
use super::keys::{KeyId, KeyRef};
use wire::resp::command::{Command, EffectKind};

/// How the reply of the non-blocking form becomes the reply of the blocking one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    AsIs,
    /// LMPOP's [key, [element]] as BLPOP's [key, element].
    Popped,
    /// ZMPOP's [key, [[member, score]]] as BZPOPMIN's [key, member, score].
    PoppedScored,
}

/// What a write may bring, and what a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arrival {
    Nothing,
    List,
    SortedSet,
    Stream,
    Any,
}

impl Arrival {
    /// What the non-blocking form of a blocking command takes.
    #[must_use]
    pub fn of_waiting(command: &Command) -> Self {
        match command.name {
            "lmpop" | "lmove" => Self::List,
            "zmpop" => Self::SortedSet,
            "xreadgroup" => Self::Stream,
            _ => Self::Any,
        }
    }

    /// What a command that succeeded may have brought for its keys.
    #[must_use]
    pub fn by(command: &Command) -> Self {
        match command.name {
            "lpush" | "rpush" | "lpushx" | "rpushx" | "linsert" | "lmove" | "rpoplpush" => Self::List,
            "zadd" | "zincrby" | "zdiffstore" | "zrangestore" | "geoadd" => Self::SortedSet,
            "xadd" => Self::Stream,
            "rename" | "renamenx" => Self::Any,
            // They bring nothing, but a group that is gone ends the wait for it with an error.
            "del" | "unlink" | "set" | "getset" | "getdel" | "mset" => Self::Stream,
            _ if command.effect == EffectKind::Copied => Self::Any,
            _ => Self::Nothing,
        }
    }

    fn is_for(self, waiting: Self) -> bool {
        self == Self::Any || waiting == Self::Any || self == waiting
    }
}

/// A blocked client.
#[derive(Debug)]
pub struct Waiter {
    pub to: Caller,
    pub database: u32,
    pub resp: u8,
    /// The non-blocking form of its command.
    pub command: &'static Command,
    pub takes: Arrival,
    pub frame: Rc<[u8]>,
    pub keys: Rc<[KeyRef]>,
    pub form: Form,
    /// `None`: for ever.
    pub deadline_us: Option<u64>,
    /// A try is outstanding.
    pub trying: bool,
    /// It has found nothing at least once, or stood behind others.
    pub has_waited: bool,
}

/// All blocked clients, by number of arrival.
#[derive(Debug, Default)]
pub struct Waiters {
    next: u64,
    all: BTreeMap<u64, Waiter>,
    by_key: HashMap<KeyId, VecDeque<u64>>,
    /// When those at the front look again for what the lane does not see.
    pub poll_us: u64,
    /// The next one to look, so that all have their turn where there are too many for one time.
    poll_from: u64,
}

impl Waiters {
    pub fn add(&mut self, waiter: Waiter) -> u64 {
        let number = self.next;
        self.next += 1;
        self.all.insert(number, waiter);
        number
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Waiter> {
        self.all.get_mut(&number)
    }

    pub fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.all.remove(&number)?;
        for key in waiter.keys.iter() {
            if let Some(queue) = self.by_key.get_mut(&key.id) {
                queue.retain(|other| *other != number);
                if queue.is_empty() {
                    self.by_key.remove(&key.id);
                }
            }
        }
        Some(waiter)
    }

    /// From now on it is woken by what arrives for its keys. The order of arrival is the order of service.
    pub fn wait(&mut self, number: u64) {
        let Some(waiter) = self.all.get_mut(&number) else { return };
        waiter.has_waited = true;
        for key in waiter.keys.iter() {
            let queue = self.by_key.entry(key.id).or_default();
            if !queue.contains(&number) {
                let at = queue.iter().position(|other| *other > number).unwrap_or(queue.len());
                queue.insert(at, number);
            }
        }
    }

    /// Whether others wait already for the same at every one of its keys. Who reads a stream takes nothing away from the others.
    #[must_use]
    pub fn is_behind_others(&self, number: u64) -> bool {
        let Some(waiter) = self.all.get(&number) else { return false };
        let takes = |other: &u64| self.all.get(other).is_some_and(|other| !other.trying && other.takes == waiter.takes);
        waiter.takes != Arrival::Stream
            && !waiter.keys.is_empty()
            && waiter.keys.iter().all(|key| self.by_key.get(&key.id).is_some_and(|queue| queue.iter().any(takes)))
    }

    #[inline]
    #[must_use]
    pub fn wait_for_any(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Who is to try when something arrived for this key: the first of those that would take it from each other, and all that read a stream.
    #[must_use]
    pub fn woken_by(&self, key: KeyId, arrival: Arrival) -> Vec<u64> {
        let (mut woken, mut list, mut sorted_set) = (Vec::new(), false, false);
        for number in self.by_key.get(&key).into_iter().flatten() {
            let Some(waiter) = self.all.get(number).filter(|waiter| !waiter.trying) else { continue };
            if !arrival.is_for(waiter.takes) {
                continue;
            }
            match waiter.takes {
                Arrival::List if list => continue,
                Arrival::SortedSet if sorted_set => continue,
                Arrival::List => list = true,
                Arrival::SortedSet => sorted_set = true,
                Arrival::Stream | Arrival::Any | Arrival::Nothing => {}
            }
            woken.push(*number);
            if (list && arrival == Arrival::List) || (sorted_set && arrival == Arrival::SortedSet) {
                break;
            }
        }
        woken
    }

    /// At most this many of those that are first in line for one of their keys and not trying, in turn.
    pub fn next_to_poll(&mut self, most: usize) -> Vec<u64> {
        let mut taken = HashSet::new();
        let mut first_in_line = |waiter: &Waiter| {
            let mut first = waiter.takes == Arrival::Stream;
            for key in waiter.keys.iter() {
                first |= taken.insert((key.id, waiter.takes));
            }
            first
        };
        let idle = self.all.iter().filter(|(_, waiter)| !waiter.trying);
        let mut front: Vec<u64> = idle.filter(|(_, waiter)| first_in_line(waiter)).map(|(number, _)| *number).collect();
        let turn = front.partition_point(|number| *number < self.poll_from);
        front.rotate_left(turn);
        front.truncate(most);
        self.poll_from = front.last().map_or(0, |last| last + 1);
        front
    }

    /// Those that are not trying and meet a condition.
    pub fn idle(&self, condition: impl Fn(&Waiter) -> bool) -> Vec<u64> {
        let fits = |waiter: &Waiter| !waiter.trying && condition(waiter);
        self.all.iter().filter(|(_, waiter)| fits(waiter)).map(|(number, _)| *number).collect()
    }

    /// Drops a client's waits.
    pub fn forget(&mut self, to: Caller) {
        let of = self.all.iter().filter(|(_, waiter)| waiter.to == to);
        let gone: Vec<u64> = of.map(|(number, _)| *number).collect();
        for number in gone {
            self.remove(number);
        }
    }
}
