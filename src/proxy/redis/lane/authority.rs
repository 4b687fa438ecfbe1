//! What the authority's replies mean: effects and copies for the shadow, answers for clients.
//!
//! I8: a client is answered only after the effect of its write is in the shadow's queue (or its keys are dirty).

use std::rc::Rc;

use super::keys::KeyRef;
use super::pair::{Compared, ComparedRead};
use super::shadow::{Because, Purpose};
use super::{Caller, Lane};
use base::model::limits;
use bus::counters::Probe;
use bus::{LaneEvent, PassKind};
use wire::resp::Args;
use wire::resp::command::{self, Command, CompareRule};
use wire::resp::copy::{self, DataType};
use wire::resp::effect::{self, EffectPlan, Effects, Expect, Outcome, Post, Shape, integer, is_error, is_nil};
use wire::resp::encode::{number, push_request};

/// One reply the authority still owes, or an answer that waits its turn among them.
#[derive(Debug)]
pub(super) enum Awaiting {
    /// MULTI, the QUEUED of a block, a PEXPIREAT of our own.
    Swallow,
    /// SELECT, HELLO: every command behind it depends on it.
    Prepared,
    /// No reply: an answer of the lane's own.
    Local {
        to: Caller,
        bytes: Vec<u8>,
    },
    Read {
        to: Caller,
    },
    ComparedRead {
        to: Caller,
        frame: Box<[u8]>,
        command: &'static Command,
        keys: Rc<[KeyRef]>,
        checked: bool,
        resp: u8,
        at_us: u64,
        pass: u64,
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
    DumpCopy {
        key: KeyRef,
        purpose: CopyFor,
        token: u64,
    },
    TypedCopy {
        key: KeyRef,
        purpose: CopyFor,
        token: u64,
        kind: DataType,
    },
    /// The volatile pass: only the deadline of this key.
    RefreshDeadline {
        key: KeyRef,
        ticket: u64,
    },
    Exec(Box<super::transaction::Block>),
    Probe {
        ticket: u64,
    },
}

/// Why a key is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyFor {
    Ticket(u64),
    FirstWrite,
    Repair,
    /// Behind a copy-class command; with `last` the client can be answered.
    Command {
        last: bool,
    },
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct WriteEntry {
    pub to: Caller,
    pub frame: Box<[u8]>,
    pub keys: Rc<[KeyRef]>,
    pub plan: EffectPlan,
    /// A PEXPIRETIME of its key went in front of it.
    pub checked: bool,
    pub database: u32,
    /// It is a try of a blocked client.
    pub waiter: Option<u64>,
}

/// A command that was answered and whose reads behind it are still to come.
#[derive(Debug)]
pub(super) enum Finishing {
    Write {
        entry: Box<WriteEntry>,
        reply: Vec<u8>,
    },
    /// A MULTI block whose keys are being copied.
    Block {
        to: Caller,
        reply: Vec<u8>,
        keys: Rc<[KeyRef]>,
    },
}

/// A read of both sides at one position.
#[derive(Debug)]
pub(super) struct Probing {
    pub database: u32,
    pub commands: Vec<Box<[u8]>>,
    pub authority: Vec<Box<[u8]>>,
    pub shadow: Vec<Box<[u8]>>,
    /// Keys of each command, and whether one of them was uncopied when the shadow's read was queued.
    pub keys: Vec<(Vec<KeyRef>, bool)>,
}

impl Lane {
    pub(super) fn authority_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        self.deliver_local();
        let awaiting = self.awaiting.pop_front().ok_or("the authority answered nothing that was asked")?;
        self.count_reply(&awaiting, reply);
        match awaiting {
            Awaiting::Local { .. } => {
                return Err("an answer of the lane's own stood where the authority's was due".to_owned());
            }
            Awaiting::Swallow => {}
            Awaiting::Prepared if is_error(reply) => {
                // What follows would run in the wrong database: the connection is given up before any of it is believed.
                return Err(format!(
                    "the authority refused a change of database or protocol: {}",
                    String::from_utf8_lossy(reply).trim()
                ));
            }
            Awaiting::Prepared => {}
            Awaiting::Read { to } => self.deliver(to, reply),
            Awaiting::ComparedRead { to, frame, command, keys, checked, resp, at_us, pass } => {
                let read = ComparedRead { frame, command, keys, from: to, resp, at_us, pass };
                self.compared_read_answered(read, checked, reply);
                self.deliver(to, reply);
            }
            Awaiting::MirroredRead { to, frame, database } => {
                self.enqueue_read(database, &frame, Purpose::Mirrored);
                self.deliver(to, reply);
            }
            Awaiting::Deadline | Awaiting::CopyDeadline => self.read_deadline = integer(reply),
            Awaiting::Write(entry) => self.write_answered(entry, reply),
            Awaiting::PostDeadline => self.finish_write(integer(reply), None),
            Awaiting::PostFirstEntry => self.finish_write(None, Some(reply)),
            Awaiting::DumpCopy { key, purpose, token } => self.dump_arrived(&key, purpose, token, reply),
            Awaiting::TypedCopy { key, purpose, token, kind } => self.typed_arrived(&key, purpose, token, kind, reply),
            Awaiting::RefreshDeadline { key, ticket } => self.deadline_arrived(&key, ticket, reply),
            Awaiting::Exec(block) => self.exec_answered(*block, reply),
            Awaiting::Probe { ticket } => self.probe_answered(ticket, reply),
        }
        self.deliver_local();
        Ok(())
    }

    fn count_reply(&mut self, awaiting: &Awaiting, reply: &[u8]) {
        let side = self.authority;
        if let Some(latency_us) = self.probe.answered(self.now.mono_us) {
            self.counters_of(side).latency_us.record(latency_us, 1);
        }
        if matches!(
            awaiting,
            Awaiting::Read { .. }
                | Awaiting::ComparedRead { .. }
                | Awaiting::MirroredRead { .. }
                | Awaiting::Write(_)
                | Awaiting::Exec(_)
        ) {
            self.counters_of(side).answered(is_error(reply));
        }
    }

    /// Answers of our own that have come to the front.
    fn deliver_local(&mut self) {
        while self.finishing.is_none() && matches!(self.awaiting.front(), Some(Awaiting::Local { .. })) {
            if let Some(Awaiting::Local { to, bytes }) = self.awaiting.pop_front() {
                self.probe.answered(self.now.mono_us);
                self.deliver(to, &bytes);
            }
        }
    }

    // ---- writes ---------------------------------------------------------------------------------------------------------

    fn write_answered(&mut self, entry: Box<WriteEntry>, reply: &[u8]) {
        self.counts.effects += u64::from(!is_error(reply));
        if entry.plan.post == Post::Nothing || entry.keys.is_empty() {
            let deadline_before = if entry.checked { self.read_deadline } else { None };
            self.conclude_write(&entry, reply, None, None, deadline_before);
        } else {
            self.finishing = Some(Finishing::Write { entry, reply: reply.to_vec() });
        }
    }

    /// The read behind a write has come.
    fn finish_write(&mut self, deadline: Option<i64>, first_entry: Option<&[u8]>) {
        if let Some(Finishing::Write { entry, reply }) = self.finishing.take() {
            if let (Some(deadline), Some(key)) = (deadline, entry.keys.first()) {
                self.keys.learn_deadline(key.id, deadline > 0);
            }
            let before = if entry.checked { self.read_deadline } else { None };
            self.conclude_write(&entry, &reply, deadline, first_entry, before);
        }
    }

    /// Effects first, then the client's answer.
    fn conclude_write(
        &mut self,
        entry: &WriteEntry,
        reply: &[u8],
        deadline: Option<i64>,
        first_entry: Option<&[u8]>,
        deadline_before: Option<i64>,
    ) {
        let mut effects = Effects::default();
        if entry.checked && !is_error(reply) {
            self.check_deadline(&entry.keys[0], deadline_before, &mut effects);
        }
        let outcome =
            Outcome { frame: &entry.frame, reply, deadline, first_entry, grace_ms: self.plan.ttl_grace_ms as i64 };
        if self.judges_records() && !entry.keys.is_empty() {
            // Whatever was written, the policy sees it before the shadow does.
            let changed_nothing = is_error(reply) || (entry.waiter.is_some() && is_nil(reply));
            if !changed_nothing {
                self.mark_all_dirty(&entry.keys);
            }
            self.wake_waiters(&entry.keys, reply);
            return self.answer_write(entry, reply);
        }
        match effect::derive(entry.plan.shape, &outcome, &mut effects) {
            Ok(()) if entry.plan.shape == Shape::Flush && !is_error(reply) => self.flushed(entry, effects),
            Ok(()) if entry.plan.shape == Shape::Copied && entry.keys.is_empty() && !is_error(reply) => {
                self.begin_pass(PassKind::Full, "a write with keys nobody could name succeeded");
            }
            Ok(()) => self.send_effects(entry, effects, reply),
            Err(()) => self.mark_all_dirty(&entry.keys),
        }
        self.soonest_copied_in_doubt(&entry.keys);
        self.wake_waiters(&entry.keys, reply);
        self.answer_write(entry, reply);
    }

    fn send_effects(&mut self, entry: &WriteEntry, effects: Effects, reply: &[u8]) {
        let overwrites = entry.plan.shape == Shape::Overwrite
            || matches!(entry.plan.shape, Shape::SetOutcome { keep_ttl: false, .. });
        if overwrites && !is_error(reply) && !effects.is_empty() {
            for key in entry.keys.iter() {
                self.note_clean(key.id);
                if entry.plan.post != Post::Deadline {
                    self.keys.set_volatile(key.id, false);
                }
            }
        }
        if entry.keys.len() > 1 && entry.keys.iter().any(|key| self.keys.is_volatile(key.id)) && !overwrites {
            // A deadline may have moved from one of them to another.
            for key in entry.keys.iter() {
                self.keys.set_volatile(key.id, true);
            }
        }
        let because = if overwrites { Because::Overwrite } else { Because::Effect };
        self.enqueue(entry.database, effects, &entry.keys, because);
    }

    /// TTL rule: what the authority's key was in front of the write, the shadow's must have been too.
    fn check_deadline(&mut self, key: &KeyRef, before: Option<i64>, effects: &mut Effects) {
        match before {
            Some(-2) => {
                // Expired (or gone) on the authority: on the shadow it may still live for G.
                effects.push(&[b"DEL", &key.name], Expect::NoError);
                self.keys.set_volatile(key.id, false);
            }
            Some(-1) => self.keys.set_volatile(key.id, false),
            Some(at) if at - self.now.wall_ms > limits::DEADLINE_DOUBT_MS => {
                let expected = number(at + self.plan.ttl_grace_ms as i64);
                let reply = [b":", expected.as_slice(), b"\r\n"].concat();
                effects.push(&[b"PEXPIRETIME", &key.name], Expect::Same(reply.into()));
            }
            Some(_) | None => self.mark_dirty(key),
        }
    }

    /// A key was copied right in front of this write and its deadline was about to pass: which of the two came first is not known.
    fn soonest_copied_in_doubt(&mut self, keys: &[KeyRef]) {
        if self.soonest_copied.take().is_some_and(|at| at - self.now.wall_ms <= limits::DEADLINE_DOUBT_MS) {
            self.mark_all_dirty(keys);
        }
    }

    fn flushed(&mut self, entry: &WriteEntry, effects: Effects) {
        let all = Args::new(&entry.frame).next().is_some_and(|name| name.eq_ignore_ascii_case(b"FLUSHALL"));
        self.keys.forget_dirty(if all { None } else { Some(entry.database) });
        if !self.enqueue(entry.database, effects, &Rc::from([]), Because::Effect) {
            self.begin_pass(PassKind::Full, "a FLUSH could not be sent to the shadow");
        }
    }

    // ---- copies ---------------------------------------------------------------------------------------------------------

    fn dump_arrived(&mut self, key: &KeyRef, purpose: CopyFor, token: u64, reply: &[u8]) {
        let deadline = self.read_deadline.unwrap_or(-1);
        self.keys.learn_deadline(key.id, deadline > 0);
        let mut effects = Effects::default();
        let (mut bytes, mut dump_type) = (0, None);
        match effect::bulk(reply) {
            None if is_nil(reply) => {
                self.keys.set_altered(key, false);
                effects.push(&[b"DEL", &key.name], Expect::NoError);
            }
            None => return self.copy_failed(key, purpose),
            Some(payload) if self.judges_records() => return self.judge_dump(key, purpose, token, deadline, payload),
            Some(payload) if !copy::is_portable(payload) || self.is_refused_type(payload) => {
                let kind = copy::data_type(payload).unwrap_or(DataType::Other(0));
                return self.copy_by_type(key, purpose, kind);
            }
            Some(payload) => {
                bytes = payload.len() as u64;
                dump_type = payload.first().copied();
                self.restore(key, payload, deadline, &mut effects);
            }
        }
        let absent = is_nil(reply);
        self.copy_ready(key, purpose, token, deadline, effects, Purpose::Copy { bytes, absent, dump_type });
    }

    /// The dump as the shadow takes it, with its grace.
    pub(super) fn restore(&self, key: &KeyRef, payload: &[u8], deadline: i64, effects: &mut Effects) {
        let mut payload = payload.to_vec();
        copy::lower_version(&mut payload);
        let at = number(self.shadow_deadline(deadline).max(0));
        let expect = Expect::Same(b"+OK\r\n".as_slice().into());
        effects.push(&[b"RESTORE", &key.name, &at, &payload, b"REPLACE", b"ABSTTL"], expect);
    }

    /// The TTL rule: a volatile key of the shadow lives the grace longer. What is no deadline stays what it is.
    pub(super) fn shadow_deadline(&self, deadline: i64) -> i64 {
        if deadline > 0 { deadline + self.plan.ttl_grace_ms as i64 } else { deadline }
    }

    /// This value's dump cannot be given to the shadow: it is read by its type, at a later position, and is dirty until then.
    pub(super) fn copy_by_type(&mut self, key: &KeyRef, purpose: CopyFor, kind: DataType) {
        if copy::typed_reads(kind, &key.name).is_none() {
            tracing::warn!(?kind, "a value's type can be copied neither by its dump nor by reads; its key stays dirty");
            return self.copy_failed(key, purpose);
        }
        self.keys.mark_dirty(key, Some(kind), 0);
        match purpose {
            CopyFor::Ticket(ticket) => self.end_of_ticketed(ticket, |ticket| ticket.copied += 1),
            CopyFor::Repair => self.repairs_in_flight = self.repairs_in_flight.saturating_sub(1),
            CopyFor::FirstWrite => {}
            CopyFor::Command { last } => self.command_copied(last),
        }
    }

    fn typed_arrived(&mut self, key: &KeyRef, purpose: CopyFor, token: u64, kind: DataType, reply: &[u8]) {
        let deadline = self.read_deadline.unwrap_or(-1);
        self.keys.learn_deadline(key.id, deadline > 0);
        let shadow_deadline = self.shadow_deadline(deadline);
        if self.judges_records() {
            return self.judge_typed(key, purpose, token, kind, deadline, reply);
        }
        let mut effects = Effects::default();
        match copy::typed_writes(kind, &key.name, reply, shadow_deadline, &mut effects) {
            Ok(()) => {
                let purpose_of = Purpose::Copy { bytes: reply.len() as u64, absent: false, dump_type: None };
                self.copy_ready(key, purpose, token, deadline, effects, purpose_of);
            }
            // It changed its type since, or is gone: look again from the start.
            Err(()) => self.copy_from_the_start(key, purpose),
        }
    }

    pub(super) fn copy_ready(
        &mut self,
        key: &KeyRef,
        purpose: CopyFor,
        token: u64,
        deadline: i64,
        effects: Effects,
        what: Purpose,
    ) {
        if deadline > 0 && purpose == CopyFor::FirstWrite {
            self.soonest_copied = Some(self.soonest_copied.map_or(deadline, |soonest| soonest.min(deadline)));
        }
        if !self.enqueue_copy(key, purpose, token, effects, what) {
            return self.copy_failed(key, purpose);
        }
        if let CopyFor::Command { last } = purpose {
            self.command_copied(last);
        }
    }

    pub(super) fn copy_from_the_start(&mut self, key: &KeyRef, purpose: CopyFor) {
        self.keys.forget_type(key.id);
        self.copy_failed(key, purpose);
    }

    pub(super) fn copy_failed(&mut self, key: &KeyRef, purpose: CopyFor) {
        self.keys.mark_dirty(key, None, self.now.mono_us + limits::REPAIR_RETRY_US);
        match purpose {
            CopyFor::Ticket(ticket) => self.end_of_ticketed(ticket, |ticket| ticket.failed += 1),
            CopyFor::Repair => self.repairs_in_flight = self.repairs_in_flight.saturating_sub(1),
            CopyFor::FirstWrite => {}
            CopyFor::Command { last } => self.command_copied(last),
        }
    }

    /// The last copy behind a copy-class command is queued: now the client is answered.
    fn command_copied(&mut self, last: bool) {
        if !last {
            return;
        }
        match self.finishing.take() {
            Some(Finishing::Write { entry, reply }) => {
                self.wake_waiters(&entry.keys, &reply);
                self.answer_write(&entry, &reply);
            }
            Some(Finishing::Block { to, reply, keys }) => {
                self.wake_waiters(&keys, &reply);
                self.deliver(to, &reply);
            }
            None => {}
        }
    }

    /// The volatile pass found this key's deadline. A key nobody wrote since the flip carries the grace of its time as a shadow:
    /// it is given back here, so that deadlines do not drift with every flip.
    fn deadline_arrived(&mut self, key: &KeyRef, ticket: u64, reply: &[u8]) {
        let grace = self.plan.ttl_grace_ms as i64;
        let mut effects = Effects::default();
        self.keys.learn_deadline(key.id, integer(reply).is_none_or(|at| at > 0));
        match integer(reply) {
            Some(-2) => {
                effects.push(&[b"DEL", &key.name], Expect::NoError);
                self.enqueue(key.database, effects, &Rc::from([key.clone()]), Because::Effect);
            }
            Some(at) if at > 0 => {
                let exact = if self.keys.is_touched(key.id) { at } else { at - grace };
                if exact != at {
                    self.prepare(key.database, 2);
                    push_request(&mut self.authority_link().output, &[b"PEXPIREAT", &key.name, &number(exact)]);
                    self.awaiting.push_back(Awaiting::Swallow);
                }
                let expect = Expect::Same(b":1\r\n".as_slice().into());
                effects.push(&[b"PEXPIREAT", &key.name, &number(exact + grace)], expect);
                self.enqueue(key.database, effects, &Rc::from([key.clone()]), Because::Effect);
            }
            Some(_) => {}
            None => self.mark_dirty(key),
        }
        self.end_of_ticketed(ticket, |ticket| ticket.copied += 1);
    }

    pub(super) fn end_of_ticketed(&mut self, number: u64, count: impl FnOnce(&mut super::Ticket)) {
        if let Some(ticket) = self.tickets.get_mut(&number) {
            count(ticket);
            ticket.left = ticket.left.saturating_sub(1);
            self.close_ticket(number);
        }
    }

    pub(super) fn close_ticket(&mut self, number: u64) {
        if self.tickets.get(&number).is_some_and(|ticket| ticket.left == 0)
            && let Some(t) = self.tickets.remove(&number)
        {
            self.counts.copied_keys += t.copied;
            self.counts.copied_bytes += t.bytes;
            self.events.push(LaneEvent::Copied {
                ticket: number,
                copied: t.copied,
                absent: t.absent,
                clean: t.clean,
                failed: t.failed,
                bytes: t.bytes,
            });
        }
    }

    // ---- reads on both sides --------------------------------------------------------------------------------------------

    fn compared_read_answered(&mut self, read: ComparedRead, checked: bool, reply: &[u8]) {
        let before = if checked { self.read_deadline } else { Some(-1) };
        let alive = match before {
            Some(-1) => true,
            Some(at) => at - self.now.wall_ms > limits::DEADLINE_DOUBT_MS,
            None => false,
        };
        let known = read.pass == self.pass.number
            && read.keys.iter().all(|key| !self.keys.is_dirty(key.id) && !self.keys.is_altered(key.id));
        if !alive
            || !known
            || reply.len() > limits::COMPARED_REPLY_BYTES_MAX
            || read.command.compare == CompareRule::Never
        {
            self.counts.reads_not_comparable += 1;
            return;
        }
        let latency_us = self.now.mono_us.saturating_sub(read.at_us);
        if !self.enqueue_compared(Box::new(Compared { read, reply: reply.into(), latency_us })) {
            self.counts.reads_not_comparable += 1;
        }
    }

    fn probe_answered(&mut self, ticket: u64, reply: &[u8]) {
        let Some(probing) = self.probes.get_mut(&ticket) else { return };
        probing.authority.push(reply.into());
        if probing.authority.len() < probing.commands.len() {
            return;
        }
        let (database, commands) = (probing.database, std::mem::take(&mut probing.commands));
        let keys = commands.iter().map(|frame| self.keys_of_probe(database, frame)).collect();
        if let Some(probing) = self.probes.get_mut(&ticket) {
            probing.keys = keys;
        }
        for (at, frame) in commands.iter().enumerate() {
            let last = at + 1 == commands.len();
            if !self.enqueue_read(database, frame, Purpose::Probe { ticket, last }) {
                self.probes.remove(&ticket);
                self.events
                    .push(LaneEvent::ProbeFailed { ticket, reason: "the shadow cannot be asked now".to_owned() });
                return;
            }
        }
    }

    fn keys_of_probe(&self, database: u32, frame: &[u8]) -> (Vec<KeyRef>, bool) {
        let command = Args::new(frame).next().map_or(&command::UNKNOWN, command::lookup);
        let names = command.keys_of(frame).unwrap_or_default();
        let keys: Vec<KeyRef> = names.0.iter().map(|name| KeyRef::new(database, name)).collect();
        let uncopied = keys.iter().any(|key| !self.is_known(key) || self.keys.is_altered(key.id));
        (keys, uncopied)
    }

    // ---- loss -------------------------------------------------------------------------------------------------------------

    /// The outcome of everything outstanding is unknown: keys become dirty, clients' connections end.
    pub(super) fn authority_lost(&mut self) {
        match self.finishing.take() {
            Some(Finishing::Write { entry, .. }) => {
                self.mark_all_dirty(&entry.keys);
                self.deliver_close(entry.to);
            }
            Some(Finishing::Block { to, keys, .. }) => {
                self.mark_all_dirty(&keys);
                self.deliver_close(to);
            }
            None => {}
        }
        for awaiting in std::mem::take(&mut self.awaiting) {
            self.lost_awaiting(awaiting);
        }
        self.probe = Probe::default();
        self.repairs_in_flight = 0;
        self.keys.deadlines_lost();
        self.read_deadline = None;
        self.soonest_copied = None;
    }

    fn lost_awaiting(&mut self, awaiting: Awaiting) {
        match awaiting {
            Awaiting::Swallow
            | Awaiting::Prepared
            | Awaiting::Deadline
            | Awaiting::CopyDeadline
            | Awaiting::PostDeadline
            | Awaiting::PostFirstEntry => {}
            Awaiting::Local { to, bytes } => self.deliver(to, &bytes),
            Awaiting::Read { to } | Awaiting::ComparedRead { to, .. } | Awaiting::MirroredRead { to, .. } => {
                self.deliver_close(to);
            }
            Awaiting::Write(entry) => {
                self.mark_all_dirty(&entry.keys);
                if entry.plan.shape == Shape::Flush {
                    self.begin_pass(PassKind::Full, "the outcome of a FLUSH is unknown");
                }
                self.deliver_close(entry.to);
            }
            Awaiting::DumpCopy { key, purpose, .. } | Awaiting::TypedCopy { key, purpose, .. } => {
                self.copy_failed(&key, purpose);
            }
            Awaiting::RefreshDeadline { key, ticket } => self.copy_failed(&key, CopyFor::Ticket(ticket)),
            Awaiting::Exec(block) => {
                self.mark_all_dirty(&block.keys);
                self.deliver_close(block.to);
            }
            Awaiting::Probe { ticket } => {
                if self.probes.remove(&ticket).is_some() {
                    let reason = "the authority's connection was lost".to_owned();
                    self.events.push(LaneEvent::ProbeFailed { ticket, reason });
                }
            }
        }
    }

    pub(super) fn mark_dirty(&mut self, key: &KeyRef) {
        self.keys.mark_dirty(key, None, 0);
    }

    pub(super) fn mark_all_dirty(&mut self, keys: &[KeyRef]) {
        for key in keys {
            self.mark_dirty(key);
        }
    }
}
