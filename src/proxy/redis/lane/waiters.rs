//! Clients that a blocking command keeps waiting in the lane, by key and by order of arrival. Lives on the lane's core.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::caller::Caller;
use super::keys::{KeyId, KeyRef};
use wire::resp::command::Command;

/// How the reply of the non-blocking form becomes the reply of the blocking one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    AsIs,
    /// LMPOP's [key, [element]] as BLPOP's [key, element].
    Popped,
    /// ZMPOP's [key, [[member, score]]] as BZPOPMIN's [key, member, score].
    PoppedScored,
}

/// A blocked client.
#[derive(Debug)]
pub struct Waiter {
    pub to: Caller,
    pub database: u32,
    pub resp: u8,
    /// The non-blocking form of its command.
    pub command: &'static Command,
    pub frame: Rc<[u8]>,
    pub keys: Rc<[KeyRef]>,
    pub form: Form,
    /// `None`: for ever.
    pub deadline_us: Option<u64>,
    /// A try is outstanding.
    pub trying: bool,
}

/// All blocked clients, by number of arrival.
#[derive(Debug, Default)]
pub struct Waiters {
    next: u64,
    all: BTreeMap<u64, Waiter>,
    by_key: HashMap<KeyId, VecDeque<u64>>,
    /// When all of them try again.
    pub retry_us: u64,
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

    /// From now on a write on one of these keys wakes it. The order of arrival is the order of service.
    pub fn wait_for(&mut self, number: u64, keys: &[KeyRef]) {
        for key in keys {
            let queue = self.by_key.entry(key.id).or_default();
            if !queue.contains(&number) {
                let at = queue.iter().position(|other| *other > number).unwrap_or(queue.len());
                queue.insert(at, number);
            }
        }
    }

    #[inline]
    #[must_use]
    pub fn wait_for_any(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// The first that waits for this key and is not trying already.
    #[must_use]
    pub fn first_for(&self, key: KeyId) -> Option<u64> {
        let idle = |number: &u64| self.all.get(number).is_some_and(|waiter| !waiter.trying);
        self.by_key.get(&key)?.iter().copied().find(idle)
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
