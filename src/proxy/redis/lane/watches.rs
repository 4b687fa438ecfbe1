//! What clients watch, and what was seen of it. Lives on the lane's core.
//!
//! A watch breaks when a write on the key is *sent*, so no reply has to be waited for. What the lane does not see (a deadline that passes, a script
//! that writes what it has not declared) is looked for when the block is to be run, see `verification`.

use std::collections::{HashMap, VecDeque};

use super::caller::Caller;
use super::keys::{KeyId, KeyRef};
use super::request::LaneBatch;
use base::model::limits;
use wire::resp::command::Command;
use wire::resp::effect::{integer, is_nil};

/// What is read of a watched key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    Deadline(Option<i64>),
    /// A hash of its dump.
    Value(u128),
}

/// Which reply about a watched key is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Deadline,
    Value,
}

impl Asked {
    #[must_use]
    pub fn aspect(self, reply: &[u8]) -> Aspect {
        match self {
            Self::Deadline => Aspect::Deadline(integer(reply)),
            // Both protocols write a dump alike, but not its absence.
            Self::Value if is_nil(reply) => Aspect::Value(0),
            Self::Value => Aspect::Value(xxhash_rust::xxh3::xxh3_128(reply)),
        }
    }
}

/// A key as it was when it began to be watched.
#[derive(Debug, Clone)]
pub struct WatchedKey {
    pub key: KeyRef,
    /// Scripts sent before.
    scripts: u64,
    deadline: Option<i64>,
    value: Option<u128>,
}

#[derive(Debug, Default)]
struct Watch {
    broken: bool,
    keys: Vec<WatchedKey>,
}

/// Whether the block of a client may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Run,
    Refuse,
    /// If these keys are as they were; `true` where the value must be read too.
    Verify(Vec<(KeyRef, bool)>),
}

/// A block whose watched keys are being read again.
#[derive(Debug)]
pub struct Verifying {
    pub commands: Box<[&'static Command]>,
    pub frames: Vec<u8>,
    pub database: u32,
    pub resp: u8,
    /// Of the WATCH on the lane's own connection that stands in front of the reads.
    pub guard: u64,
    pub same: bool,
    pub tries: u32,
    /// What the client has sent behind the block.
    pub behind: VecDeque<LaneBatch>,
}

/// The keys that the lane's own connection watches, for blocks that are about to be run. Any EXEC and UNWATCH there ends it.
#[derive(Debug, Default)]
pub struct Guard {
    pub is_set: bool,
    pub number: u64,
}

impl Guard {
    pub fn end(&mut self) {
        self.is_set = false;
        self.number += 1;
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Watches {
    by_key: HashMap<KeyId, Vec<Caller>>,
    of: HashMap<Caller, Watch>,
    scripts: u64,
    last_script_us: Option<u64>,
    pub guard: Guard,
    pub verifying: HashMap<Caller, Verifying>,
}

impl Watches {
    /// Begins to watch a key. True when the client has not watched it before.
    pub fn add(&mut self, to: Caller, key: &KeyRef) -> bool {
        let watchers = self.by_key.entry(key.id).or_default();
        let is_new = !watchers.contains(&to);
        if is_new {
            watchers.push(to);
            let watched = WatchedKey { key: key.clone(), scripts: self.scripts, deadline: None, value: None };
            self.of.entry(to).or_default().keys.push(watched);
        }
        is_new
    }

    /// What a watched key was when that began.
    pub fn saw(&mut self, to: Caller, id: KeyId, aspect: Aspect) {
        let Some(watched) = self.of.get_mut(&to).and_then(|watch| watch.keys.iter_mut().find(|key| key.key.id == id))
        else {
            return;
        };
        match aspect {
            Aspect::Deadline(deadline) => watched.deadline = deadline,
            Aspect::Value(value) => watched.value = Some(value),
        }
    }

    /// Whether a watched key is what it was.
    #[must_use]
    pub fn is_as_seen(&self, to: Caller, id: KeyId, aspect: Aspect) -> bool {
        let watched = self.of.get(&to).and_then(|watch| watch.keys.iter().find(|key| key.key.id == id));
        watched.is_some_and(|watched| match aspect {
            Aspect::Deadline(deadline) => deadline.is_some() && watched.deadline == deadline,
            Aspect::Value(value) => watched.value == Some(value),
        })
    }

    /// A script is being sent: it may write what it has not declared.
    pub fn script_sent(&mut self, now_us: u64) {
        self.scripts += 1;
        self.last_script_us = Some(now_us);
    }

    /// Whether scripts have been run lately, so that only the value of a key shows that none wrote it.
    #[must_use]
    pub fn values_needed(&self, now_us: u64) -> bool {
        self.last_script_us.is_some_and(|at| now_us.saturating_sub(at) < limits::SCRIPTS_REMEMBERED_US)
    }

    #[must_use]
    pub fn verdict(&self, to: Caller) -> Verdict {
        let Some(watch) = self.of.get(&to) else { return Verdict::Run };
        let mut doubtful = Vec::new();
        for watched in &watch.keys {
            let scripts_ran = watched.scripts != self.scripts;
            if watch.broken || (scripts_ran && watched.value.is_none()) {
                return Verdict::Refuse;
            }
            if scripts_ran || watched.deadline.is_none_or(|at| at > 0) {
                doubtful.push((watched.key.clone(), scripts_ran));
            }
        }
        match (watch.broken, doubtful.is_empty()) {
            (true, _) => Verdict::Refuse,
            (false, true) => Verdict::Run,
            (false, false) => Verdict::Verify(doubtful),
        }
    }

    /// Whether nothing the lane has seen has touched what this client watches; false when it no longer does.
    #[must_use]
    pub fn holds(&self, to: Caller) -> bool {
        self.of.get(&to).is_some_and(|watch| !watch.broken)
    }

    #[inline]
    pub fn break_key(&mut self, key: KeyId) {
        if self.by_key.is_empty() {
            return;
        }
        for to in self.by_key.get(&key).into_iter().flatten() {
            if let Some(watch) = self.of.get_mut(to) {
                watch.broken = true;
            }
        }
    }

    pub fn break_all(&mut self) {
        self.of.values_mut().for_each(|watch| watch.broken = true);
    }

    /// Ends a client's watches.
    pub fn forget(&mut self, to: Caller) {
        if self.of.remove(&to).is_some() {
            self.by_key.retain(|_, watchers| {
                watchers.retain(|watcher| *watcher != to);
                !watchers.is_empty()
            });
        }
    }

    /// A client is gone: what would wait, or watch, for it is not begun.
    pub fn client_gone(&mut self, to: Caller) {
        if let Some(verifying) = self.verifying.get_mut(&to) {
            verifying.behind.iter_mut().for_each(LaneBatch::drop_waits);
        }
    }
}
