//! What the authority's replies mean: effects for the shadow, answers for clients. Copies are in `copies`.
//!
//! I4, I8: a client is answered only after the effect of its write is in the shadow's queue (or its keys are dirty).

use std::rc::Rc;

use super::authority_queue::{Awaiting, Copied, CopyFor, Finishing, WriteEntry};
use super::keys::KeyRef;
use super::shadow::Queued;
use super::shadow_queue::{Because, Purpose};
use super::state::Lane;
use base::model::limits;
use bus::PassKind;
use wire::resp::Args;
use wire::resp::effect::{self, Effects, Expect, Outcome, Post, Shape, integer, is_error, is_nil};
use wire::resp::encode::number;

impl Lane {
    pub(super) fn authority_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        let awaiting = self.due.pop().ok_or("the authority answered nothing that was asked")?;
        self.count_reply(&awaiting, reply);
        match awaiting {
            Awaiting::Swallow => {}
            Awaiting::Prepared if is_error(reply) => {
                // What follows would run in the wrong database: the connection is given up before any of it is believed.
                return Err(format!(
                    "the authority refused a change of database or protocol: {}",
                    String::from_utf8_lossy(reply).trim()
                ));
            }
            Awaiting::Prepared => {}
            Awaiting::Read { to } => self.out.deliver(to, reply),
            Awaiting::ComparedRead { read, checked } => {
                let to = read.from;
                self.compared_read_answered(read, checked, reply);
                self.out.deliver(to, reply);
            }
            Awaiting::MirroredRead { to, frame, database } => {
                self.enqueue_read(database, &frame, Purpose::Mirrored);
                self.out.deliver(to, reply);
            }
            Awaiting::Deadline | Awaiting::CopyDeadline => self.due.read_deadline = integer(reply),
            Awaiting::Write(entry) => self.write_answered(entry, reply),
            Awaiting::PostDeadline => self.finish_write(integer(reply), None),
            Awaiting::PostFirstEntry => self.finish_write(None, Some(reply)),
            Awaiting::DumpCopy(copied) => self.dump_arrived(&copied, reply),
            Awaiting::TypedCopy(copied, kind) => self.typed_arrived(&copied, kind, reply),
            Awaiting::RefreshDeadline { key, ticket } => self.deadline_arrived(&key, ticket, reply),
            Awaiting::Exec(block) => self.exec_answered(*block, reply),
            Awaiting::Probe { ticket } => self.probe_answered(ticket, reply),
        }
        self.due.deliver_local(&mut self.out);
        Ok(())
    }

    fn count_reply(&mut self, awaiting: &Awaiting, reply: &[u8]) {
        let counters = &mut self.links.authority_mut().counters;
        if let Some(latency_us) = self.due.probe.answered(self.now.mono_us) {
            counters.latency_us.record(latency_us, 1);
        }
        match awaiting {
            Awaiting::Read { .. }
            | Awaiting::ComparedRead { .. }
            | Awaiting::MirroredRead { .. }
            | Awaiting::Write(_)
            | Awaiting::Exec(_) => counters.answered(is_error(reply)),
            Awaiting::Swallow
            | Awaiting::Prepared
            | Awaiting::Deadline
            | Awaiting::PostDeadline
            | Awaiting::PostFirstEntry
            | Awaiting::CopyDeadline
            | Awaiting::DumpCopy(_)
            | Awaiting::TypedCopy(..)
            | Awaiting::RefreshDeadline { .. }
            | Awaiting::Probe { .. } => {}
        }
    }

    // ---- writes ---------------------------------------------------------------------------------------------------------

    fn write_answered(&mut self, entry: Box<WriteEntry>, reply: &[u8]) {
        self.report.counts.effects += u64::from(!is_error(reply));
        if entry.plan.post == Post::Nothing || entry.keys.is_empty() {
            let deadline_before = if entry.checked { self.due.read_deadline } else { None };
            self.conclude_write(&entry, reply, None, None, deadline_before);
        } else {
            self.due.finishing = Some(Finishing::Write { entry, reply: reply.to_vec() });
        }
    }

    /// The read behind a write has come.
    fn finish_write(&mut self, deadline: Option<i64>, first_entry: Option<&[u8]>) {
        if let Some(Finishing::Write { entry, reply }) = self.due.finishing.take() {
            if let (Some(deadline), Some(key)) = (deadline, entry.keys.first()) {
                self.keys.learn_deadline(key.id, deadline > 0);
            }
            let before = if entry.checked { self.due.read_deadline } else { None };
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
            self.wake_by_write(entry, reply);
            return self.answer_write(entry, reply);
        }
        let derived = effect::derive(entry.plan.shape, &outcome, &mut effects);
        if let (Ok(()), true, Some(-2), Some(key)) = (derived, effects.is_empty(), deadline, entry.keys.first()) {
            // The command changed nothing, because the key has expired on the authority: on the shadow it may still live for G.
            effects.push(&[b"DEL", &key.name], Expect::NoError);
        }
        match derived {
            Ok(()) if entry.plan.shape == Shape::Flush && !is_error(reply) => self.flushed(entry, effects),
            Ok(()) if entry.plan.shape == Shape::Copied && entry.keys.is_empty() && !is_error(reply) => {
                self.begin_pass(PassKind::Full, "a write succeeded whose keys could not be told");
            }
            Ok(()) => self.send_effects(entry, effects, reply),
            Err(()) => self.mark_all_dirty(&entry.keys),
        }
        self.soonest_copied_in_doubt(&entry.keys);
        self.wake_by_write(entry, reply);
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
        if self.due.soonest_copied.take().is_some_and(|at| at - self.now.wall_ms <= limits::DEADLINE_DOUBT_MS) {
            self.mark_all_dirty(keys);
        }
    }

    fn flushed(&mut self, entry: &WriteEntry, effects: Effects) {
        let all = Args::new(&entry.frame).next().is_some_and(|name| name.eq_ignore_ascii_case(b"FLUSHALL"));
        self.keys.forget_dirty(if all { None } else { Some(entry.database) });
        if self.enqueue(entry.database, effects, &Rc::from([]), Because::Effect) == Queued::No {
            self.begin_pass(PassKind::Full, "a FLUSH could not be sent to the shadow");
        }
    }

    // ---- loss -------------------------------------------------------------------------------------------------------------

    /// The outcome of everything outstanding is unknown: keys become dirty, clients' connections end.
    pub(super) fn authority_lost(&mut self) {
        match self.due.finishing.take() {
            Some(Finishing::Write { entry, .. }) => {
                self.mark_all_dirty(&entry.keys);
                self.out.close(entry.to);
            }
            Some(Finishing::Block { to, keys, .. }) => {
                self.mark_all_dirty(&keys);
                self.out.close(to);
            }
            None => {}
        }
        for awaiting in self.due.take_all(&mut self.out) {
            self.lost_awaiting(awaiting);
        }
        self.jobs.repairs_in_flight = 0;
        self.keys.deadlines_lost();
    }

    fn lost_awaiting(&mut self, awaiting: Awaiting) {
        match awaiting {
            Awaiting::Swallow
            | Awaiting::Prepared
            | Awaiting::Deadline
            | Awaiting::CopyDeadline
            | Awaiting::PostDeadline
            | Awaiting::PostFirstEntry => {}
            Awaiting::Read { to } | Awaiting::MirroredRead { to, .. } => self.out.close(to),
            Awaiting::ComparedRead { read, .. } => self.out.close(read.from),
            Awaiting::Write(entry) => {
                self.mark_all_dirty(&entry.keys);
                if entry.plan.shape == Shape::Flush {
                    self.begin_pass(PassKind::Full, "the outcome of a FLUSH is unknown");
                } else if entry.plan.shape == Shape::Copied && entry.keys.is_empty() {
                    self.begin_pass(PassKind::Full, "the outcome of a write is unknown whose keys could not be told");
                }
                self.out.close(entry.to);
            }
            Awaiting::DumpCopy(copied) | Awaiting::TypedCopy(copied, _) => self.copy_failed(&copied),
            Awaiting::RefreshDeadline { key, ticket } => {
                self.copy_failed(&Copied { key, purpose: CopyFor::Ticket(ticket), token: 0 });
            }
            Awaiting::Exec(block) => {
                self.mark_all_dirty(&block.keys);
                self.out.close(block.to);
            }
            Awaiting::Probe { ticket } => self.fail_probe(ticket, "the authority's connection was lost"),
        }
    }
}
