//! Replies that the authority still owes, in the order in which they will come, and what each is for. Lives on the lane's core.

use std::collections::VecDeque;
use std::rc::Rc;

use super::caller::Caller;
use super::keys::{KeyId, KeyRef};
use super::outgoing::Outgoing;
use super::watches::Asked;
use bus::counters::Probe;
use wire::resp::command::Command;
use wire::resp::copy::DataType;
use wire::resp::effect::{EffectPlan, Post};

/// One reply the authority still owes.
#[derive(Debug)]
pub enum Awaiting {
    /// MULTI, the QUEUED of a block, a PEXPIREAT of our own.
    Swallow,
    /// SELECT, HELLO: every command behind it depends on it.
    Prepared,
    Read {
        to: Caller,
    },
    ComparedRead {
        read: ComparedRead,
        /// A PEXPIRETIME of its key went in front of it.
        checked: bool,
    },
    MirroredRead {
        to: Caller,
        frame: Box<[u8]>,
        database: u32,
    },
    /// PEXPIRETIME in front of a write or a compared read.
    Deadline,
    Write(Box<WriteEntry>),
    PostDeadline,
    PostFirstEntry,
    /// PEXPIRETIME of a copy.
    CopyDeadline,
    DumpCopy(Copied),
    TypedCopy(Copied, DataType),
    /// What a key was when a client began to watch it.
    Watched {
        to: Caller,
        id: KeyId,
        asked: Asked,
    },
    /// What it is when the client's block is to be run.
    Verified {
        to: Caller,
        id: KeyId,
        asked: Asked,
        place: Place,
    },
    /// A part of a large value.
    Piece {
        id: KeyId,
        token: u64,
    },
    /// The volatile pass: only the deadline of this key.
    RefreshDeadline {
        key: KeyRef,
        ticket: u64,
    },
    Exec(Box<Block>),
    Probe {
        ticket: u64,
    },
}

/// One key that is being copied.
#[derive(Debug, Clone)]
pub struct Copied {
    pub key: KeyRef,
    pub purpose: CopyFor,
    /// By this number the key knows the copy that will heal it.
    pub token: u64,
}

/// Why a key is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFor {
    Ticket(u64),
    FirstWrite,
    Repair,
}

/// Where a request stands among those that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    NotLast,
    Last,
}

impl Place {
    #[must_use]
    pub fn of(at: usize, count: usize) -> Self {
        if at + 1 == count { Self::Last } else { Self::NotLast }
    }
}

/// A read that is repeated on the shadow and compared.
#[derive(Debug)]
pub struct ComparedRead {
    pub frame: Box<[u8]>,
    pub command: &'static Command,
    pub keys: Rc<[KeyRef]>,
    pub from: Caller,
    /// Protocol version of the authority's answer; the shadow's is always 2.
    pub resp: u8,
    pub at_us: u64,
    /// What was known of the keys was known in this pass.
    pub pass: u64,
}

/// A write on its way.
#[derive(Debug)]
pub struct WriteEntry {
    pub to: Caller,
    pub command: &'static Command,
    pub frame: Box<[u8]>,
    pub keys: Rc<[KeyRef]>,
    pub plan: EffectPlan,
    /// A PEXPIRETIME of its key went in front of it.
    pub checked: bool,
    pub database: u32,
    /// It is a try of this blocked client.
    pub waiter: Option<u64>,
}

/// A MULTI block on its way.
#[derive(Debug)]
pub struct Block {
    pub to: Caller,
    pub keys: Rc<[KeyRef]>,
    pub database: u32,
    /// Keys whose deadline is read inside the block, in front of its commands.
    pub checked: Vec<KeyRef>,
    pub parts: Vec<BlockPart>,
}

impl Block {
    /// Replies inside that of EXEC, those to the lane's own reads included.
    #[must_use]
    pub fn replies(&self) -> usize {
        let own_reads = self.parts.iter().filter(|part| part.has_own_read()).count();
        self.checked.len() + self.parts.len() + own_reads
    }
}

/// One queued command.
#[derive(Debug)]
pub struct BlockPart {
    pub command: &'static Command,
    /// `None`: it has no effect.
    pub plan: Option<EffectPlan>,
    pub keys: Rc<[KeyRef]>,
    /// What the effect is made of; the client's request or one that does the same without blocking.
    pub frame: Box<[u8]>,
}

impl BlockPart {
    /// Whether a read of the lane's own stands behind it in the block.
    #[must_use]
    pub fn has_own_read(&self) -> bool {
        let reads = self.plan.is_some_and(|plan| matches!(plan.post, Post::Deadline | Post::FirstEntry));
        reads && !self.keys.is_empty()
    }
}

/// A write that was answered and whose read behind it is still to come.
#[derive(Debug)]
pub struct Finishing {
    pub entry: Box<WriteEntry>,
    pub reply: Vec<u8>,
}

/// An answer of the lane's own that waits for its place among the authority's.
#[derive(Debug)]
struct Local {
    /// It follows when this many replies have been taken off the queue.
    behind: u64,
    to: Caller,
    bytes: Vec<u8>,
}

/// The queue.
#[derive(Debug, Default)]
pub struct AuthorityQueue {
    awaiting: VecDeque<Awaiting>,
    /// Replies taken off so far.
    taken: u64,
    local: VecDeque<Local>,
    /// The write whose reads behind it are still to come.
    pub finishing: Option<Finishing>,
    /// Of replies that clients wait for.
    pub probe: Probe,
    /// Deadline read by the last PEXPIRETIME of a copy or of a check before a write.
    pub read_deadline: Option<i64>,
    /// Soonest deadline among the keys copied for the next write.
    pub soonest_copied: Option<i64>,
}

impl AuthorityQueue {
    #[inline]
    pub fn push(&mut self, awaiting: Awaiting) {
        self.awaiting.push_back(awaiting);
    }

    /// `count` replies that nothing follows from.
    pub fn swallow(&mut self, count: usize) {
        self.awaiting.extend(std::iter::repeat_n((), count).map(|()| Awaiting::Swallow));
    }

    /// `count` answers to SELECT or HELLO.
    #[inline]
    pub fn prepared(&mut self, count: usize) {
        self.awaiting.extend(std::iter::repeat_n((), count).map(|()| Awaiting::Prepared));
    }

    /// The last reply pushed is one that a client waits for.
    #[inline]
    pub fn measure(&mut self, now_us: u64) {
        self.probe.sent(self.awaiting.len(), now_us);
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Awaiting> {
        let awaiting = self.awaiting.pop_front()?;
        self.taken += 1;
        Some(awaiting)
    }

    /// The next reply is the dump of a key.
    #[must_use]
    pub fn is_dump_next(&self) -> bool {
        matches!(
            self.awaiting.front(),
            Some(
                Awaiting::DumpCopy(_)
                    | Awaiting::Watched { asked: Asked::Value, .. }
                    | Awaiting::Verified { asked: Asked::Value, .. }
            )
        )
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.awaiting.len()
    }

    /// Replies taken off so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of the last reply that is owed now.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.taken + self.awaiting.len() as u64
    }

    /// No reply is owed, and no answer waits behind one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.awaiting.is_empty() && self.finishing.is_none() && self.local.is_empty()
    }

    /// An answer of the lane's own, behind everything that is owed now.
    pub fn answer(&mut self, to: Caller, bytes: Vec<u8>, out: &mut Outgoing) {
        if self.is_empty() {
            out.deliver(to, &bytes);
        } else {
            let behind = self.end();
            self.local.push_back(Local { behind, to, bytes });
        }
    }

    /// Delivers answers of the lane's own whose place has come.
    #[inline]
    pub fn deliver_local(&mut self, out: &mut Outgoing) {
        if self.finishing.is_some() {
            return;
        }
        while let Some(local) = self.local.pop_front_if(|local| local.behind <= self.taken) {
            out.deliver(local.to, &local.bytes);
        }
    }

    /// Takes everything, for a connection that is lost. No write waits for those replies any more. Answers of the lane's own are delivered: they were never the server's.
    pub fn take_all(&mut self, out: &mut Outgoing) -> VecDeque<Awaiting> {
        for local in std::mem::take(&mut self.local) {
            out.deliver(local.to, &local.bytes);
        }
        self.taken = self.end();
        self.probe = Probe::default();
        self.read_deadline = None;
        self.soonest_copied = None;
        std::mem::take(&mut self.awaiting)
    }

    /// The last write pushed is a try of this blocked client.
    pub fn last_write_is_try_of(&mut self, waiter: u64) {
        let last = self.awaiting.iter_mut().rev().find_map(|awaiting| match awaiting {
            Awaiting::Write(entry) => Some(entry),
            _ => None,
        });
        if let Some(entry) = last {
            entry.waiter = Some(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::CoreId;

    #[test]
    fn answers_of_the_lanes_own_keep_their_place() {
        let (mut queue, mut out) = (AuthorityQueue::default(), Outgoing::default());
        let to = |client| Caller { core: CoreId(0), client };
        queue.answer(to(1), b"a".to_vec(), &mut out);
        assert_eq!(out.replies.len(), 1, "nothing is owed: at once");
        queue.push(Awaiting::Read { to: to(2) });
        queue.answer(to(3), b"b".to_vec(), &mut out);
        queue.push(Awaiting::Read { to: to(4) });
        queue.answer(to(5), b"c".to_vec(), &mut out);
        assert!(matches!(queue.pop(), Some(Awaiting::Read { to }) if to.client == 2));
        queue.deliver_local(&mut out);
        assert_eq!(out.replies.last().map(|(_, reply)| reply.client), Some(3));
        assert!(!queue.is_empty());
        assert!(queue.pop().is_some());
        queue.deliver_local(&mut out);
        assert_eq!(out.replies.last().map(|(_, reply)| reply.client), Some(5));
        assert!(queue.is_empty());
    }
}
