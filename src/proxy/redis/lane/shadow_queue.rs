//! Requests sent to the shadow (or queued for it) and not yet answered, in lane order. Lives on the lane's core.

use std::collections::VecDeque;
use std::rc::Rc;

use super::authority_queue::{ComparedRead, Copied, Place};
use super::keys::KeyRef;
use super::link::Link;
use base::model::limits;
use wire::resp::effect::{Effects, Expect};

/// One request sent to (or queued for) the shadow and not yet answered.
#[derive(Debug)]
pub struct Sent {
    pub purpose: Purpose,
    pub at_us: u64,
    /// The reply of the authority it follows from, or one behind that.
    pub follows: u64,
}

/// What the reply to a request on the shadow is for.
#[derive(Debug)]
pub enum Purpose {
    /// SELECT, HELLO.
    Prepared,
    /// A part of an effect on these keys; with `token` its success heals them.
    Effect {
        keys: Rc<[KeyRef]>,
        expect: Expect,
        token: Option<u64>,
    },
    CopyPart(Box<CopyPart>),
    Compare(Box<Compared>),
    /// A read whose answer is not looked at.
    Mirrored,
    Probe {
        ticket: u64,
        place: Place,
    },
    /// The deadline of a key whose deadline at the authority was this.
    Deadline(Box<DeadlineRead>),
}

/// A key whose deadlines on both sides are looked at.
#[derive(Debug)]
pub struct DeadlineRead {
    pub key: KeyRef,
    pub ticket: u64,
    /// At the authority.
    pub at: i64,
}

/// A compared read with the authority's answer.
#[derive(Debug)]
pub struct Compared {
    pub read: ComparedRead,
    pub reply: Box<[u8]>,
    pub latency_us: u64,
}

/// What a copy holds.
#[derive(Debug, Clone, Copy)]
pub struct CopyContent {
    pub bytes: u64,
    /// The key does not exist on the authority.
    pub absent: bool,
    /// First byte of the dump; none for a typed copy.
    pub dump_type: Option<u8>,
}

impl CopyContent {
    pub const ABSENT: Self = Self { bytes: 0, absent: true, dump_type: None };

    #[must_use]
    pub fn typed(bytes: usize) -> Self {
        Self { bytes: bytes as u64, absent: false, dump_type: None }
    }

    #[must_use]
    pub fn dump(payload: &[u8]) -> Self {
        Self { bytes: payload.len() as u64, absent: false, dump_type: payload.first().copied() }
    }
}

/// One request of a copy.
#[derive(Debug)]
pub struct CopyPart {
    pub copied: Copied,
    pub expect: Expect,
    pub place: Place,
    pub content: CopyContent,
}

/// What an effect does to a key that is dirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It builds on the old value: useless while the shadow's is wrong.
    Effect,
    /// It replaces the value whole, and so heals it.
    Overwrite,
}

/// The queue.
#[derive(Debug, Default)]
pub struct ShadowQueue {
    sent: VecDeque<Sent>,
    /// The authority's reply that is being looked at, or was last.
    pub reply: u64,
    /// The queue was full: effects become dirty keys until it is half empty.
    pub overflowed: bool,
    /// The shadow refused what every effect depends on (SELECT): nothing more is sent to it until it is connected anew.
    pub refused: bool,
}

impl ShadowQueue {
    #[inline]
    pub fn push(&mut self, purpose: Purpose, now_us: u64) {
        self.sent.push_back(Sent { purpose, at_us: now_us, follows: self.reply });
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Sent> {
        self.sent.pop_front()
    }

    pub fn take_all(&mut self) -> VecDeque<Sent> {
        std::mem::take(&mut self.sent)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// From which reply of the authority the oldest request comes.
    #[must_use]
    pub fn oldest_follows(&self) -> Option<u64> {
        self.sent.front().map(|sent| sent.follows)
    }

    /// How long the oldest request has been on its way.
    #[must_use]
    pub fn lag_us(&self, now_us: u64) -> u64 {
        self.sent.front().map_or(0, |sent| now_us.saturating_sub(sent.at_us))
    }

    /// I9: the queue is bounded; what does not fit becomes dirty keys, until half of it is gone.
    pub fn takes(&mut self, shadow: &Link) -> bool {
        let queued = shadow.output.len();
        if self.overflowed {
            self.overflowed = queued > limits::SHADOW_QUEUE_BYTES_MAX / 2;
        } else if queued > limits::SHADOW_QUEUE_BYTES_MAX {
            tracing::warn!("the shadow's queue is full; effects become dirty keys until it has drained");
            self.overflowed = true;
        }
        shadow.connected && !self.overflowed && !self.refused
    }

    /// Queues effects of which each request's success is part of healing the keys, if there is a token.
    pub fn push_effects(
        &mut self,
        shadow: &mut Link,
        database: u32,
        effects: Effects,
        keys: &Rc<[KeyRef]>,
        token: Option<u64>,
        now_us: u64,
    ) {
        self.select(shadow, database, now_us);
        shadow.output.extend_from_slice(&effects.bytes);
        for expect in effects.expects {
            self.push(Purpose::Effect { keys: Rc::clone(keys), expect, token }, now_us);
        }
    }

    /// Queues a whole value.
    pub fn push_copy(
        &mut self,
        shadow: &mut Link,
        copied: &Copied,
        effects: Effects,
        content: CopyContent,
        now_us: u64,
    ) {
        self.select(shadow, copied.key.database, now_us);
        shadow.output.extend_from_slice(&effects.bytes);
        let count = effects.expects.len();
        for (at, expect) in effects.expects.into_iter().enumerate() {
            let part = CopyPart { copied: copied.clone(), expect, place: Place::of(at, count), content };
            self.push(Purpose::CopyPart(Box::new(part)), now_us);
        }
    }

    /// Brings the shadow's connection into this database.
    #[inline]
    pub fn select(&mut self, shadow: &mut Link, database: u32, now_us: u64) {
        for _ in 0..shadow.select(database) {
            self.push(Purpose::Prepared, now_us);
        }
    }
}
