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
use wire::resp::command::Command;
use wire::resp::effect::{self, EffectPlan, Effects, Expect, Outcome, Post, Shape, integer, is_error, is_nil};
use wire::resp::encode::number;

/// A write that the authority has executed, alone or in a MULTI block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executed<'a> {
    pub command: &'static Command,
    pub plan: EffectPlan,
    pub frame: &'a [u8],
    pub keys: &'a Rc<[KeyRef]>,
    pub database: u32,
    pub reply: &'a [u8],
    /// Read behind it, where its plan says so.
    pub deadline: Option<i64>,
    pub first_entry: Option<&'a [u8]>,
    /// It was a try for a blocked client, which means nothing where it found nothing.
    pub tried: bool,
}

impl Lane {
    pub(super) fn authority_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        let awaiting = self.due.pop().ok_or("the authority answered nothing that was asked")?;
        self.shadow.reply = self.due.taken();
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
            Awaiting::Watched { to, id, asked } => self.watched_read(to, id, asked, reply),
            Awaiting::Verified { to, id, asked, place } => self.verified_read(to, id, asked, place, reply),
            Awaiting::Piece { id, token } => self.piece_arrived(id, token, reply),
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
            | Awaiting::Watched { .. }
            | Awaiting::Verified { .. }
            | Awaiting::Piece { .. }
            | Awaiting::RefreshDeadline { .. }
            | Awaiting::Probe { .. } => {}
        }
    }

    // ---- writes ---------------------------------------------------------------------------------------------------------

    fn write_answered(&mut self, entry: Box<WriteEntry>, reply: &[u8]) {
        self.report.counts.effects += u64::from(!is_error(reply));
        if matches!(entry.plan.post, Post::Nothing | Post::Copy) || entry.keys.is_empty() {
            let deadline_before = if entry.checked { self.due.read_deadline } else { None };
            self.conclude_write(&entry, reply, None, None, deadline_before);
        } else {
            self.due.finishing = Some(Finishing { entry, reply: reply.to_vec() });
        }
    }

    /// The read behind a write has come.
    fn finish_write(&mut self, deadline: Option<i64>, first_entry: Option<&[u8]>) {
        if let Some(Finishing { entry, reply }) = self.due.finishing.take() {
            if let (Some(deadline), Some(key)) = (deadline, entry.keys.first()) {
                self.keys.volatile.learn(key.id, deadline > 0);
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
        let WriteEntry { command, plan, frame, keys, database, .. } = entry;
        let (command, plan, database) = (*command, *plan, *database);
        let tried = entry.waiter.is_some();
        self.apply(&Executed { command, plan, frame, keys, database, reply, deadline, first_entry, tried }, effects);
        if !self.judges_records() {
            self.soonest_copied_in_doubt(&entry.keys);
        }
        self.wake_by_write(entry, reply);
        self.answer_write(entry, reply);
    }

    /// What an executed write means for the shadow, behind effects that check or repair what it builds on.
    pub(super) fn apply(&mut self, executed: &Executed<'_>, mut effects: Effects) {
        let Executed { command, plan, keys, reply, deadline, .. } = *executed;
        if command.is_script() && !reply.starts_with(b"-NOSCRIPT") {
            self.script_ran(command, executed.frame);
        }
        if self.judges_records() && !keys.is_empty() {
            // Whatever was written, the policy sees it before the shadow does.
            let changed_nothing = is_error(reply) || (executed.tried && is_nil(reply));
            if !changed_nothing {
                self.mark_all_dirty(keys);
            }
            return;
        }
        if plan.post == Post::Copy {
            return self.mark_for_copy(executed);
        }
        let grace_ms = self.plan.ttl_grace_ms as i64;
        let first_entry = executed.first_entry;
        let outcome = Outcome { frame: executed.frame, reply, deadline, first_entry, grace_ms };
        let derived = effect::derive(plan.shape, &outcome, &mut effects);
        if let (Ok(()), true, Some(-2), Some(key)) = (derived, effects.is_empty(), deadline, keys.first()) {
            // The command changed nothing, because the key has expired on the authority: on the shadow it may still live for G.
            effects.push(&[b"DEL", &key.name], Expect::NoError);
        }
        match derived {
            Ok(()) if plan.shape == Shape::Flush && !is_error(reply) => self.flushed(executed, effects),
            Ok(()) if plan.shape == Shape::Copied && keys.is_empty() && !is_error(reply) => {
                self.begin_pass(PassKind::Full, "a write succeeded whose keys could not be told");
            }
            Ok(()) => {
                self.send_effects(executed, effects);
                if plan.shape == Shape::ReadGroup {
                    self.note_consumer(executed);
                }
            }
            Err(()) => self.mark_all_dirty(keys),
        }
    }

    /// A write whose result can only be copied. The copy is made some time later, once for many; until then the keys are dirty (I5).
    fn mark_for_copy(&mut self, executed: &Executed<'_>) {
        let Executed { command, keys, reply, .. } = *executed;
        // A script may fail behind its first writes; one that is not known has not begun.
        if is_error(reply) && (!command.is_script() || reply.starts_with(b"-NOSCRIPT")) {
            return;
        }
        for key in command.written(keys) {
            self.note_clean(key.id);
            self.keys.mark_for_copy(key, self.now.mono_us);
        }
        if command.name == "xgroup" {
            self.consumers.forget();
        }
    }

    /// One that runs for the first time has not been seen to keep to the keys it declares.
    fn script_ran(&mut self, command: &Command, frame: &[u8]) {
        let is_new = self.report.scripts.ran(command, frame) == 1;
        let known = self.report.scripts.known() as u64;
        let counts = &mut self.report.counts;
        counts.scripts_run += 1;
        counts.scripts_known = known;
        counts.scripts_ran_at_ms = self.now.wall_ms as u64;
        if is_new {
            counts.scripts_unproven_at_ms = self.now.wall_ms as u64;
        }
    }

    /// See [`super::consumers`].
    fn note_consumer(&mut self, executed: &Executed<'_>) {
        let Some((group, consumer)) = effect::consumer_of(executed.frame) else { return };
        if is_error(executed.reply) {
            return;
        }
        for key in executed.keys.iter() {
            if self.consumers.note(key, group, consumer) && is_nil(executed.reply) {
                self.keys.mark_for_copy(key, self.now.mono_us);
            }
        }
    }

    fn send_effects(&mut self, executed: &Executed<'_>, effects: Effects) {
        let Executed { plan, keys, reply, .. } = *executed;
        let overwrites =
            plan.shape == Shape::Overwrite || matches!(plan.shape, Shape::SetOutcome { keep_ttl: false, .. });
        if overwrites && !is_error(reply) && !effects.is_empty() {
            for key in keys.iter() {
                self.note_clean(key.id);
                if plan.post != Post::Deadline {
                    self.keys.volatile.set(key.id, false);
                }
            }
        }
        if keys.len() > 1 && keys.iter().any(|key| self.keys.volatile.contains(key.id)) && !overwrites {
            // A deadline may have moved from one of them to another.
            for key in keys.iter() {
                self.keys.volatile.set(key.id, true);
            }
        }
        let because = if overwrites { Because::Overwrite } else { Because::Effect };
        self.enqueue(executed.database, effects, keys, because);
    }

    /// TTL rule: what the authority's key was in front of the write, the shadow's must have been too.
    pub(super) fn check_deadline(&mut self, key: &KeyRef, before: Option<i64>, effects: &mut Effects) {
        match before {
            Some(-2) => {
                // Expired (or gone) on the authority: on the shadow it may still live for G.
                effects.push(&[b"DEL", &key.name], Expect::NoError);
                self.keys.volatile.set(key.id, false);
            }
            Some(-1) => self.keys.volatile.set(key.id, false),
            Some(at) if at - self.now.wall_ms > limits::DEADLINE_DOUBT_MS => {
                let expected = number(at + self.plan.ttl_grace_ms as i64);
                let reply = [b":", expected.as_slice(), b"\r\n"].concat();
                effects.push(&[b"PEXPIRETIME", &key.name], Expect::Same(reply.into()));
            }
            Some(_) | None => self.mark_dirty(key),
        }
    }

    /// A key was copied right in front of this write and its deadline was about to pass: which of the two came first is not known.
    pub(super) fn soonest_copied_in_doubt(&mut self, keys: &[KeyRef]) {
        if self.due.soonest_copied.take().is_some_and(|at| at - self.now.wall_ms <= limits::DEADLINE_DOUBT_MS) {
            self.mark_all_dirty(keys);
        }
    }

    fn flushed(&mut self, entry: &Executed<'_>, effects: Effects) {
        let all = Args::new(entry.frame).next().is_some_and(|name| name.eq_ignore_ascii_case(b"FLUSHALL"));
        self.keys.forget_dirty(if all { None } else { Some(entry.database) });
        if self.enqueue(entry.database, effects, &Rc::from([]), Because::Effect) == Queued::No {
            self.begin_pass(PassKind::Full, "a FLUSH could not be sent to the shadow");
        }
    }

    // ---- loss -------------------------------------------------------------------------------------------------------------

    /// The outcome of everything outstanding is unknown: keys become dirty, clients' connections end.
    pub(super) fn authority_lost(&mut self) {
        if let Some(Finishing { entry, .. }) = self.due.finishing.take() {
            self.mark_all_dirty(&entry.keys);
            self.out.close(entry.to);
        }
        for awaiting in self.due.take_all(&mut self.out) {
            self.lost_awaiting(awaiting);
        }
        self.verification_lost();
        self.pieces_lost();
        self.jobs.pieces.clear();
        self.jobs.repairs_in_flight = 0;
        self.keys.volatile.reads_lost();
    }

    fn lost_awaiting(&mut self, awaiting: Awaiting) {
        match awaiting {
            Awaiting::Swallow
            | Awaiting::Prepared
            | Awaiting::Deadline
            | Awaiting::CopyDeadline
            | Awaiting::PostDeadline
            | Awaiting::PostFirstEntry
            | Awaiting::Watched { .. }
            | Awaiting::Verified { .. }
            | Awaiting::Piece { .. } => {}
            Awaiting::Read { to } | Awaiting::MirroredRead { to, .. } => self.out.close(to),
            Awaiting::ComparedRead { read, .. } => self.out.close(read.from),
            Awaiting::Write(entry) => {
                if entry.command.is_script() {
                    self.script_ran(entry.command, &entry.frame);
                }
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
                for part in block.parts.iter().filter(|part| part.command.is_script()) {
                    self.script_ran(part.command, &part.frame);
                }
                self.mark_all_dirty(&block.keys);
                self.out.close(block.to);
            }
            Awaiting::Probe { ticket } => self.fail_probe(ticket, "the authority's connection was lost"),
        }
    }
}
