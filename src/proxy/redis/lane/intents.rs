//! The intent log of a lane: the keys whose shadow may not be right, by name, in memory that outlives the process.
//!
//! Lives on the lane's core. A key is written down before a write of it is sent, and when it becomes dirty. Its record counts until the shadow has
//! confirmed everything that followed from the write and the key is not dirty, so the records that count name every key that is in flight or
//! dirty (I5). The process that comes after a kill copies those again and no others.
//!
//! While keys are uncopied nothing is written: the next process has to copy every key anyway. When the ring is full, everything counts as in doubt
//! until what was in flight then is confirmed and every dirty key is written down again.

use super::intent_header::{Coverage, Header};
use super::intent_ring::{Front, Record, Ring};
use super::key::KeyRef;
use crate::contract::{KeptMemory, KeptWords};
use base::model::{Authority, RoutePlan, Side};

/// What a lane finds when it begins.
#[derive(Debug)]
pub enum Found {
    /// Every key is to be copied, and why.
    Nothing {
        log: IntentLog,
        why: String,
    },
    Left(Box<Left>),
}

/// What a predecessor has left that can be relied on.
#[derive(Debug)]
pub struct Left {
    pub log: IntentLog,
    pub records: Vec<Record>,
    pub header: Header,
    /// The authority has changed since, and nothing else has.
    pub flipped: bool,
}

/// Up to which reply of the authority everything that follows from it is on the shadow, or its keys are dirty.
#[derive(Debug, Clone, Copy)]
pub struct Confirmed {
    pub taken: u64,
    /// The reply from which the oldest request comes that the shadow has not answered; `None`: it has answered all.
    pub waiting: Option<u64>,
}

impl Confirmed {
    #[must_use]
    pub fn covers(self, reply: u64) -> bool {
        reply <= self.taken && self.waiting.is_none_or(|waiting| reply < waiting)
    }
}

/// What is written down now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing: keys are uncopied, or there is no memory.
    Off,
    /// The ring was full.
    Full,
    /// Everything, but what was in flight when that began is not in it: complete when it is confirmed up to here.
    Filling {
        from: u64,
    },
    Whole,
}

/// See the head of this file.
#[derive(Debug)]
pub struct IntentLog {
    ring: Option<Ring>,
    header: Header,
    state: State,
}

impl IntentLog {
    /// Nothing is written down.
    #[must_use]
    pub fn none(plan: &RoutePlan) -> Self {
        Self { ring: None, header: Header::new(plan, 0), state: State::Off }
    }

    /// Of a lane whose every key is uncopied. What was left is gone. `Err`: nothing can be written down.
    ///
    /// # Errors
    /// Why there is no memory.
    pub fn begin(kept: &mut dyn KeptMemory, plan: &RoutePlan) -> Result<Self, String> {
        let words = kept.fresh()?;
        let header = Header::new(plan, kept.boot());
        let ring = Ring::new(words);
        header.begin(ring.words());
        Ok(Self { ring: Some(ring), header, state: State::Off })
    }

    /// Reads what was left under this plan; where that cannot be relied on, begins anew.
    #[must_use]
    pub fn take_up(kept: &mut dyn KeptMemory, plan: &RoutePlan) -> Found {
        let why = match kept.left().and_then(|words| left(words, &Header::new(plan, kept.boot()))) {
            Ok(left) => return Found::Left(Box::new(left)),
            Err(why) => why,
        };
        match Self::begin(kept, plan) {
            Ok(log) => Found::Nothing { log, why: format!("the intent log is of no use: {why}") },
            Err(error) => {
                let why = format!("the intent log is of no use: {why}; and a new one cannot be made: {error}");
                Found::Nothing { log: Self::none(plan), why }
            }
        }
    }

    // ---- records --------------------------------------------------------------------------------------------------------

    /// Writes down a key; `at`: the reply of the authority behind which this is over. Its position, if it was written.
    #[inline]
    pub fn write(&mut self, key: &KeyRef, at: u64) -> Option<u64> {
        self.push(|ring| ring.push(key, at))
    }

    /// Writes down a write whose keys are not known.
    pub fn write_every_key(&mut self, at: u64) {
        self.push(|ring| ring.push_every_key(at));
    }

    #[inline]
    fn push(&mut self, push: impl FnOnce(&mut Ring) -> Option<u64>) -> Option<u64> {
        let (State::Filling { .. } | State::Whole, Some(ring)) = (self.state, self.ring.as_mut()) else {
            return None;
        };
        let position = push(ring);
        if position.is_none() {
            self.overflow();
        }
        position
    }

    #[must_use]
    pub fn front(&self) -> Option<Front> {
        self.ring.as_ref().and_then(|ring| ring.front())
    }

    #[must_use]
    pub fn records(&self) -> u64 {
        self.ring.as_ref().map_or(0, |ring| ring.records())
    }

    pub fn pop(&mut self) {
        if let Some(ring) = self.ring.as_mut() {
            ring.pop();
        }
    }

    /// The oldest record is still needed: it becomes the newest. Its position.
    pub fn keep_front(&mut self) -> Option<u64> {
        self.push(Ring::pop_to_the_end)
    }

    // ---- states ---------------------------------------------------------------------------------------------------------

    /// Keys are uncopied from now on.
    pub fn every_key_is_uncopied(&mut self, records_policy: bool) {
        self.header.records_policy = records_policy;
        self.state = State::Off;
        self.cover(Coverage::NotCopied);
        self.clear();
    }

    /// Every key has been copied. `end`: behind this reply of the authority nothing is over that was sent until now.
    pub fn every_key_is_copied(&mut self, end: u64) {
        if self.ring.is_some() && self.state == State::Off {
            self.state = State::Filling { from: end };
        }
    }

    /// Begins to write again if the ring was full.
    pub fn begin_again(&mut self, end: u64) {
        if self.state == State::Full {
            self.clear();
            self.state = State::Filling { from: end };
        }
    }

    /// Whether only the dirty keys are missing.
    #[must_use]
    pub fn lacks_only_dirty(&self, confirmed: Confirmed) -> bool {
        matches!(self.state, State::Filling { from } if confirmed.covers(from))
    }

    /// The dirty keys have been written down.
    pub fn complete(&mut self) {
        if let State::Filling { .. } = self.state {
            self.state = State::Whole;
            self.cover(Coverage::Whole);
        }
    }

    /// Whether it was full and is not complete again.
    #[must_use]
    pub fn is_overflowed(&self) -> bool {
        self.header.coverage == Coverage::Overflowed
    }

    /// Whether the records name every key that is in flight or dirty.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    fn overflow(&mut self) {
        self.state = State::Full;
        self.cover(Coverage::Overflowed);
    }

    fn clear(&mut self) {
        if let Some(ring) = self.ring.as_mut() {
            ring.clear();
        }
    }

    // ---- what the header says -------------------------------------------------------------------------------------------

    /// Both sides are equal, and no write is let through before [`IntentLog::released`].
    pub fn drained(&mut self) {
        if self.state == State::Whole {
            self.cover(Coverage::Drained);
        }
    }

    /// Writes go on, under this authority.
    pub fn released(&mut self, authority: Authority) {
        self.header.authority = authority;
        let coverage = if self.state == State::Whole { Coverage::Whole } else { self.header.coverage };
        self.cover(coverage);
    }

    /// A connection was made to this server process.
    pub fn connected(&mut self, side: Side, process: &[u8]) {
        let known = match side {
            Side::Source => &mut self.header.processes[0],
            Side::Target => &mut self.header.processes[1],
        };
        process.clone_into(known);
        self.cover(self.header.coverage);
    }

    /// A script is about to be sent, which may write to keys that it does not declare.
    pub fn script_sent(&mut self, now_ms: u64) {
        if self.header.scripts_at_ms == 0 {
            self.header.scripts_at_ms = now_ms;
            self.cover(self.header.coverage);
        }
    }

    /// There is a records policy from now on.
    pub fn records_policy(&mut self) {
        self.header.records_policy = true;
        self.cover(self.header.coverage);
    }

    fn cover(&mut self, coverage: Coverage) {
        self.header.coverage = coverage;
        if let Some(ring) = &self.ring {
            self.header.write(ring.words());
        }
    }
}

/// What was left, if it speaks of what is expected and covers every key.
fn left(words: KeptWords, expected: &Header) -> Result<Left, String> {
    let header = Header::read((*words).as_ref())?;
    if header.boot != expected.boot || expected.boot == 0 {
        return Err("the host was started anew, and nothing ensures that all of it reached the disk".to_owned());
    }
    if header.servers_named != expected.servers_named {
        return Err("it speaks of other servers".to_owned());
    }
    let flipped = match header.coverage {
        Coverage::NotCopied => return Err("the copy of every key was not complete".to_owned()),
        Coverage::Overflowed => return Err("more keys were in doubt than fit".to_owned()),
        Coverage::Whole => false,
        Coverage::Drained => header.authority.flipped() == expected.authority,
    };
    if !flipped && header.authority != expected.authority {
        let (was, is) = (header.authority, expected.authority);
        return Err(format!(
            "it is of epoch {} ({}), and this is epoch {} ({})",
            was.epoch.0, was.side, is.epoch.0, is.side
        ));
    }
    if header.records_policy {
        return Err("a records policy was in force, which sees every value anew".to_owned());
    }
    if header.processes.iter().any(Vec::is_empty) {
        return Err("it does not know both server processes".to_owned());
    }
    let (ring, records) = Ring::read(words)?;
    if records.iter().any(|record| record.key.is_none()) {
        return Err("a write was under way whose keys are not known".to_owned());
    }
    let mut log = IntentLog { ring: Some(ring), header: header.clone(), state: State::Whole };
    log.released(expected.authority);
    Ok(Left { log, records, header, flipped })
}

/// Memory that outlives a lane, for tests: as small as they want it.
#[cfg(test)]
pub mod testing {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::intent_ring::words_of_the_heap;
    use crate::contract::{KeptMemory, KeptWords};

    /// See the head of this module. Clones share what is left.
    #[derive(Clone)]
    pub struct Heap {
        pub left: Rc<RefCell<Option<KeptWords>>>,
        pub capacity: usize,
        pub boot: u128,
    }

    impl std::fmt::Debug for Heap {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Heap").field("boot", &self.boot).finish_non_exhaustive()
        }
    }

    impl Default for Heap {
        fn default() -> Self {
            Self { left: Rc::default(), capacity: 4096, boot: 1 }
        }
    }

    impl KeptMemory for Heap {
        fn left(&mut self) -> Result<KeptWords, String> {
            self.left.borrow().as_ref().map(Rc::clone).ok_or_else(|| "there is none".to_owned())
        }

        fn fresh(&mut self) -> Result<KeptWords, String> {
            let words = words_of_the_heap(self.capacity);
            self.left.replace(Some(Rc::clone(&words)));
            Ok(words)
        }

        fn discard(&mut self) {
            self.left.replace(None);
        }

        fn boot(&self) -> u128 {
            self.boot
        }
    }
}
