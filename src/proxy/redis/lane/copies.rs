//! Whole values on their way from the authority to the shadow: by their dump where the shadow takes it, by typed reads where not.

use std::rc::Rc;

use super::authority_queue::{Awaiting, Copied, CopyFor};
use super::jobs::Grace;
use super::keys::KeyRef;
use super::shadow::Queued;
use super::shadow_queue::{Because, CopyContent, DeadlineRead, Purpose};
use super::state::Lane;
use base::model::limits;
use wire::resp::copy::{self, DataType};
use wire::resp::effect::{Effects, Expect, bulk, integer, is_nil};
use wire::resp::encode::{number, push_request, request};

impl Lane {
    /// The authority answered the DUMP of a key.
    pub(super) fn dump_arrived(&mut self, copied: &Copied, reply: &[u8]) {
        let key = &copied.key;
        let deadline = self.due.read_deadline.unwrap_or(-1);
        self.keys.volatile.learn(key.id, deadline > 0);
        match bulk(reply) {
            None if is_nil(reply) => {
                self.keys.set_altered(key, false);
                self.delete_on_shadow(copied, deadline);
            }
            None => self.copy_failed(copied),
            Some(payload) if self.judges_records() => self.judge_dump(copied, deadline, payload),
            Some(payload) => {
                let refused = payload.first().is_some_and(|form| self.links.shadow().refuses_type(*form));
                let too_long = payload.len() > limits::DUMP_BYTES_MAX;
                if too_long || refused || !copy::is_portable(payload) {
                    let kind = copy::data_type(payload).unwrap_or(DataType::Other(0));
                    if payload.len() > limits::PIECES_FROM_BYTES {
                        self.keys.set_by_type(key.id, kind);
                    }
                    return self.copy_by_type(copied, kind);
                }
                self.copy_dump(copied, payload, deadline);
            }
        }
    }

    /// The dump of a key was so long that only its beginning was kept. It is not asked for again.
    pub(super) fn long_dump_arrived(&mut self, head: &[u8]) {
        let due = self.due.pop();
        self.shadow.reply = self.due.taken();
        let copied = match due {
            Some(Awaiting::DumpCopy(copied)) => copied,
            // Its value is not known: it counts as another one.
            Some(Awaiting::Verified { to, id, asked, place }) => {
                self.verified_read(to, id, asked, place, head);
                return self.due.deliver_local(&mut self.out);
            }
            _ => return self.due.deliver_local(&mut self.out),
        };
        self.keys.volatile.learn(copied.key.id, self.due.read_deadline.is_none_or(|at| at > 0));
        let body = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |end| end + 1);
        let kind = copy::data_type(&head[body..]).unwrap_or(DataType::Other(0));
        if !self.judges_records() {
            self.keys.set_by_type(copied.key.id, kind);
        }
        if copy::typed_reads(kind, &copied.key.name).is_none() {
            self.keys.pace(copied.key.id, limits::DUMP_BYTES_MAX as u64, self.now.mono_us);
        }
        self.copy_by_type(&copied, kind);
        self.due.deliver_local(&mut self.out);
    }

    /// Gives the shadow the dump as it takes it, with its grace.
    pub(super) fn copy_dump(&mut self, copied: &Copied, payload: &[u8], deadline: i64) {
        let mut lowered = payload.to_vec();
        copy::lower_version(&mut lowered);
        let at = number(self.shadow_deadline(deadline).max(0));
        let expect = Expect::Same(b"+OK\r\n".as_slice().into());
        let mut effects = Effects::default();
        effects.push(&[b"RESTORE", &copied.key.name, &at, &lowered, b"REPLACE", b"ABSTTL"], expect);
        self.copy_ready(copied, deadline, effects, CopyContent::dump(payload));
    }

    /// The shadow loses this key if it has it.
    pub(super) fn delete_on_shadow(&mut self, copied: &Copied, deadline: i64) {
        let mut effects = Effects::default();
        effects.push(&[b"DEL", &copied.key.name], Expect::NoError);
        self.copy_ready(copied, deadline, effects, CopyContent::ABSENT);
    }

    /// The TTL rule: a volatile key of the shadow lives the grace longer. What is no deadline stays what it is.
    pub(super) fn shadow_deadline(&self, deadline: i64) -> i64 {
        if deadline > 0 { deadline + self.plan.ttl_grace_ms as i64 } else { deadline }
    }

    /// This value's dump cannot be given to the shadow: it is read by its type, at a later position, and is dirty until then.
    pub(super) fn copy_by_type(&mut self, copied: &Copied, kind: DataType) {
        if copy::typed_reads(kind, &copied.key.name).is_none() {
            tracing::warn!(?kind, "a value's type can be copied neither by its dump nor by reads; its key stays dirty");
            return self.copy_failed(copied);
        }
        self.keys.copy_missed(&copied.key, copied.token, Some(kind), 0);
        match copied.purpose {
            CopyFor::Ticket(ticket) => self.end_of_ticketed(ticket, |ticket| ticket.copied += 1),
            CopyFor::Repair => self.jobs.repair_over(),
            CopyFor::FirstWrite => {}
        }
    }

    /// The authority answered the read of a key by its type.
    pub(super) fn typed_arrived(&mut self, copied: &Copied, kind: DataType, reply: &[u8]) {
        let deadline = self.due.read_deadline.unwrap_or(-1);
        self.keys.volatile.learn(copied.key.id, deadline > 0);
        if self.judges_records() {
            self.judge_typed(copied, kind, deadline, reply);
        } else {
            self.copy_typed(copied, kind, deadline, reply);
        }
    }

    /// Writes on the shadow what a typed read has shown.
    pub(super) fn copy_typed(&mut self, copied: &Copied, kind: DataType, deadline: i64, reply: &[u8]) {
        let mut effects = Effects::default();
        match copy::typed_writes(kind, &copied.key.name, reply, self.shadow_deadline(deadline), &mut effects) {
            Ok(()) => self.copy_ready(copied, deadline, effects, CopyContent::typed(reply.len())),
            // It changed its type since, or is gone: look again from the start.
            Err(()) => self.copy_from_the_start(copied),
        }
    }

    fn copy_ready(&mut self, copied: &Copied, deadline: i64, effects: Effects, content: CopyContent) {
        if deadline > 0 && copied.purpose == CopyFor::FirstWrite {
            self.due.soonest_copied = Some(self.due.soonest_copied.map_or(deadline, |soonest| soonest.min(deadline)));
        }
        if self.enqueue_copy(copied, effects, content) == Queued::No {
            self.copy_failed(copied);
        }
    }

    pub(super) fn copy_from_the_start(&mut self, copied: &Copied) {
        self.keys.forget_type(copied.key.id);
        self.copy_failed(copied);
    }

    pub(super) fn copy_failed(&mut self, copied: &Copied) {
        self.keys.copy_missed(&copied.key, copied.token, None, self.now.mono_us + limits::REPAIR_RETRY_US);
        match copied.purpose {
            CopyFor::Ticket(ticket) => self.end_of_ticketed(ticket, |ticket| ticket.failed += 1),
            CopyFor::Repair => self.jobs.repair_over(),
            CopyFor::FirstWrite => {}
        }
    }

    /// The volatile pass found this key's deadline. A key that was not written since the flip carries the grace of its time as a
    /// shadow: it is given back here, so that deadlines do not drift with every flip.
    pub(super) fn deadline_arrived(&mut self, key: &KeyRef, ticket: u64, reply: &[u8]) {
        self.keys.volatile.learn(key.id, integer(reply).is_none_or(|at| at > 0));
        match integer(reply) {
            Some(-2) => {
                let mut effects = Effects::default();
                effects.push(&[b"DEL", &key.name], Expect::NoError);
                self.enqueue(key.database, effects, &Rc::from([key.clone()]), Because::Effect);
            }
            Some(at) if at > 0 => match self.jobs.pass.grace {
                Grace::Returned if self.keys.is_touched(key.id) => self.write_deadline(key, at),
                Grace::Returned => self.give_grace_back(key, at),
                Grace::AsShadowSays => return self.ask_shadow_for_deadline(key, ticket, at),
            },
            Some(_) => {}
            None => self.mark_dirty(key),
        }
        self.end_of_ticketed(ticket, |ticket| ticket.copied += 1);
    }

    /// A deadline that the authority had as a shadow becomes what the client asked for; the shadow's becomes later by the grace.
    fn give_grace_back(&mut self, key: &KeyRef, at: i64) {
        let exact = at - self.plan.ttl_grace_ms as i64;
        self.prepare(key.database, 2);
        push_request(&mut self.links.authority_mut().output, &[b"PEXPIREAT", &key.name, &number(exact)]);
        self.due.push(Awaiting::Swallow);
        self.write_deadline(key, exact);
    }

    fn write_deadline(&mut self, key: &KeyRef, at: i64) {
        let mut effects = Effects::default();
        let set = Expect::Same(b":1\r\n".as_slice().into());
        effects.push(&[b"PEXPIREAT", &key.name, &number(self.shadow_deadline(at))], set);
        self.enqueue(key.database, effects, &Rc::from([key.clone()]), Because::Effect);
    }

    /// A predecessor may have corrected this key's deadlines already; the shadow's tells.
    fn ask_shadow_for_deadline(&mut self, key: &KeyRef, ticket: u64, at: i64) {
        let read = DeadlineRead { key: key.clone(), ticket, at };
        let frame = request(&[b"PEXPIRETIME", &key.name]);
        if !self.enqueue_read(key.database, &frame, Purpose::Deadline(Box::new(read))) {
            self.copy_failed(&Copied { key: key.clone(), purpose: CopyFor::Ticket(ticket), token: 0 });
        }
    }

    /// What has been written meanwhile had its deadline written too. A shadow that is early by the grace has not been corrected since the flip, and
    /// neither has the authority.
    pub(super) fn shadow_deadline_arrived(&mut self, read: &DeadlineRead, reply: &[u8]) {
        let DeadlineRead { key, ticket, at } = read;
        let grace = self.plan.ttl_grace_ms as i64;
        let untouched = !self.keys.is_touched(key.id) && !self.keys.is_dirty(key.id);
        match integer(reply) {
            Some(shadow) if untouched && shadow == at - grace => self.give_grace_back(key, *at),
            Some(shadow) if untouched && shadow != at + grace => self.mark_dirty(key),
            Some(_) => {}
            None => self.mark_dirty(key),
        }
        self.end_of_ticketed(*ticket, |ticket| ticket.copied += 1);
    }
}
