//! What is sent to the authority: commands with the reads around them, and copies. Position order is execution order (I2, I3).

use std::rc::Rc;

use super::authority_queue::{Awaiting, ComparedRead, Copied, CopyFor, WriteEntry};
use super::caller::Caller;
use super::keys::KeyRef;
use super::request::{LaneBatch, LaneItem};
use super::state::Lane;
use base::model::CoreId;
use bus::PassKind;
use wire::resp::Args;
use wire::resp::command::{Class, Command, CompareRule, EffectKind, KeySpec};
use wire::resp::copy::{DataType, typed_reads};
use wire::resp::effect::{self, EffectPlan, Post, Shape};
use wire::resp::encode::{self, push_request};

/// The result of a command cannot be derived from its reply: what it writes is copied some time later.
const COPIED: EffectPlan = EffectPlan { shape: Shape::Copied, post: Post::Copy, depends_on_old_value: false };

/// What the command does is not known. Should it succeed, its keys become dirty.
const IN_DOUBT: EffectPlan = EffectPlan { shape: Shape::InDoubt, post: Post::Nothing, depends_on_old_value: false };

/// The keys of the command cannot be told. Should it succeed, every key is in doubt: a full pass begins.
const ALL_IN_DOUBT: EffectPlan = EffectPlan { post: Post::Nothing, ..COPIED };

/// A client's command on its way into the lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub to: Caller,
    pub database: u32,
    pub resp: u8,
    pub frame: &'a [u8],
}

impl Lane {
    pub(super) fn run_batch(&mut self, core: CoreId, batch: LaneBatch) {
        let to = Caller { core, client: batch.client };
        let Some(batch) = self.keep_behind(to, batch) else { return };
        let LaneBatch { client, database, resp, items, frames } = batch;
        let mut rest = frames.as_slice();
        let mut items = items.into_iter();
        while let Some(item) = items.next() {
            let (frame, behind) = rest.split_at(item.frame_len());
            rest = behind;
            self.run_item(item, Incoming { to, database, resp, frame });
            if self.watches.verifying.contains_key(&to) {
                let (items, frames) = (items.collect(), rest.to_vec());
                self.keep_behind(to, LaneBatch { client, database, resp, items, frames });
                return;
            }
        }
    }

    fn run_item(&mut self, item: LaneItem, incoming: Incoming<'_>) {
        if !self.links.authority().connected {
            let side = self.links.authority;
            let name = &self.plan.endpoint(side).name;
            let text =
                format!("LOADING Crossfade cannot reach {side} '{name}', which is the authority; nothing was sent");
            return self.answer_in_order(incoming.to, encode::error(&text));
        }
        match item {
            LaneItem::Command { command, .. } => self.emit_command(command, incoming),
            LaneItem::ComparedRead { command, .. } => self.emit_compared_read(command, incoming),
            LaneItem::MirroredRead { .. } => self.emit_mirrored_read(incoming),
            LaneItem::Transaction { commands, .. } => self.emit_transaction(commands, incoming),
            LaneItem::Watch { .. } => self.watch(incoming),
            LaneItem::Unwatch => {
                self.watches.forget(incoming.to);
                self.answer_in_order(incoming.to, b"+OK\r\n".to_vec());
            }
            LaneItem::Blocking { command, .. } => self.block(command, incoming),
        }
    }

    fn emit_command(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        match command.class {
            Class::Write => self.emit_write(command, incoming),
            Class::Library if changes_library(incoming.frame) => {
                let plan = EffectPlan { shape: Shape::Overwrite, post: Post::Nothing, depends_on_old_value: false };
                self.send_write(command, plan, Rc::from([]), incoming);
            }
            Class::Read
            | Class::Library
            | Class::Server
            | Class::ServerChange
            | Class::Session(_)
            | Class::Connection(_)
            | Class::Unknown => self.emit_read(incoming),
        }
    }

    fn emit_read(&mut self, incoming: Incoming<'_>) {
        self.prepare(incoming.database, incoming.resp);
        self.links.authority_mut().output.extend_from_slice(incoming.frame);
        self.await_answer(Awaiting::Read { to: incoming.to });
    }

    /// What a client waits for: the next position.
    pub(super) fn await_answer(&mut self, awaiting: Awaiting) {
        self.due.push(awaiting);
        self.due.measure(self.now.mono_us);
        self.report.counts.position += 1;
    }

    /// Repeated on the shadow for its own sake (it warms up, it is loaded); the shadow's answer is not looked at.
    fn emit_mirrored_read(&mut self, incoming: Incoming<'_>) {
        self.prepare(incoming.database, incoming.resp);
        self.links.authority_mut().output.extend_from_slice(incoming.frame);
        let (to, frame, database) = (incoming.to, incoming.frame.into(), incoming.database);
        self.await_answer(Awaiting::MirroredRead { to, frame, database });
    }

    fn emit_compared_read(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        let keys = keys_of(command, incoming).unwrap_or_default();
        let known = !keys.is_empty() && keys.iter().all(|key| self.is_known(key) && !self.keys.is_dirty(key.id));
        let volatile = keys.iter().filter(|key| self.keys.volatile.contains(key.id)).count();
        if !known || command.compare == CompareRule::Never || (volatile > 0 && keys.len() > 1) {
            self.report.counts.reads_not_comparable += 1;
            return self.emit_read(incoming);
        }
        self.prepare(incoming.database, incoming.resp);
        if volatile > 0 {
            push_request(&mut self.links.authority_mut().output, &[b"PEXPIRETIME", &keys[0].name]);
            self.due.push(Awaiting::Deadline);
        }
        self.links.authority_mut().output.extend_from_slice(incoming.frame);
        let read = ComparedRead {
            frame: incoming.frame.into(),
            command,
            keys,
            from: incoming.to,
            resp: incoming.resp,
            at_us: self.now.mono_us,
            pass: self.jobs.pass.number,
        };
        self.await_answer(Awaiting::ComparedRead { read, checked: volatile > 0 });
    }

    // ---- writes ---------------------------------------------------------------------------------------------------------

    fn emit_write(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        if !command.arity_fits(Args::new(incoming.frame).count()) && command.effect != EffectKind::Refuse {
            return self.emit_misfit(command, incoming);
        }
        let plan = match effect::plan(command, incoming.frame) {
            Ok(plan) => plan,
            Err(why) => {
                let text = format!(
                    "ERR Crossfade does not support {} while two servers are kept in step: {why}",
                    command.name.to_ascii_uppercase()
                );
                return self.answer_in_order(incoming.to, encode::error(&text));
            }
        };
        if plan.shape == Shape::Flush {
            self.watches.break_all();
            return self.send_write(command, plan, Rc::from([]), incoming);
        }
        let Some(keys) = keys_of(command, incoming) else {
            // The count of keys makes no sense: the server answers with an error. Should it not, every key is in doubt.
            return self.send_write(command, ALL_IN_DOUBT, Rc::from([]), incoming);
        };
        let plan = self.adapt_plan(plan, &keys);
        self.send_write(command, plan, keys, incoming);
    }

    /// A write with more or fewer arguments than the table's row allows: the server answers with an error of its own. Should it not, because
    /// it is newer than the table, what it did is not known.
    fn emit_misfit(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        match keys_of(command, incoming) {
            Some(keys) if !keys.is_empty() => self.send_write(command, IN_DOUBT, keys, incoming),
            Some(_) | None => self.send_write(command, ALL_IN_DOUBT, Rc::from([]), incoming),
        }
    }

    /// Between several keys a deadline cannot be checked for each at one moment: the result is copied.
    pub(super) fn adapt_plan(&self, plan: EffectPlan, keys: &[KeyRef]) -> EffectPlan {
        let volatile =
            keys.len() > 1 && plan.depends_on_old_value && keys.iter().any(|key| self.keys.volatile.contains(key.id));
        if volatile { COPIED } else { plan }
    }

    /// One write: copies of keys not yet known clean, a look at a volatile key's deadline, the command, the reads behind it.
    pub(super) fn send_write(
        &mut self,
        command: &'static Command,
        plan: EffectPlan,
        keys: Rc<[KeyRef]>,
        incoming: Incoming<'_>,
    ) {
        self.prepare(incoming.database, incoming.resp);
        if command.is_script() {
            self.watches.script_sent(self.now.mono_us);
            self.keys.log.script_sent(self.now.wall_ms as u64);
        }
        self.note_writes(&keys);
        if !matches!(plan.shape, Shape::Overwrite | Shape::InDoubt | Shape::Copied) {
            self.copy_on_first_write(&keys);
        }
        let checked = plan.depends_on_old_value && keys.len() == 1 && self.keys.volatile.contains(keys[0].id);
        if checked {
            push_request(&mut self.links.authority_mut().output, &[b"PEXPIRETIME", &keys[0].name]);
            self.due.push(Awaiting::Deadline);
        }
        self.links.authority_mut().output.extend_from_slice(incoming.frame);
        let entry = WriteEntry {
            to: incoming.to,
            command,
            frame: incoming.frame.into(),
            keys: Rc::clone(&keys),
            plan,
            checked,
            database: incoming.database,
            waiter: None,
        };
        self.await_answer(Awaiting::Write(Box::new(entry)));
        self.emit_post(plan.post, &keys);
        self.keys.write_down(&keys, self.due.end());
    }

    /// The reads behind a command, in the same pipeline, so that they see exactly its outcome.
    fn emit_post(&mut self, post: Post, keys: &[KeyRef]) {
        match (post, keys.first()) {
            // What is copied is marked when the reply is in.
            (Post::Nothing | Post::Copy, _) | (_, None) => {}
            (Post::Deadline, Some(key)) => {
                self.keys.volatile.expect(key.id);
                push_request(&mut self.links.authority_mut().output, &[b"PEXPIRETIME", &key.name]);
                self.due.push(Awaiting::PostDeadline);
            }
            (Post::FirstEntry, Some(key)) => {
                let read: [&[u8]; 6] = [b"XRANGE", &key.name, b"-", b"+", b"COUNT", b"1"];
                push_request(&mut self.links.authority_mut().output, &read);
                self.due.push(Awaiting::PostFirstEntry);
            }
        }
    }

    /// I5: a key that was never copied is copied before the first write that touches it.
    pub(super) fn copy_on_first_write(&mut self, keys: &[KeyRef]) {
        for key in keys {
            if !self.is_known(key) && !self.keys.is_dirty(key.id) {
                self.note_clean(key.id);
                if self.keys.by_type(key.id).is_some() {
                    // Not at one position: it is dirty until it is copied in pieces.
                    self.mark_dirty(key);
                } else {
                    self.emit_copy(key, CopyFor::FirstWrite, None);
                }
            }
        }
    }

    /// Watches break and the volatile pass leaves these keys' deadlines alone.
    pub(super) fn note_writes(&mut self, keys: &[KeyRef]) {
        for key in keys {
            self.watches.break_key(key.id);
            if self.jobs.pass.kind == PassKind::Volatile && !self.jobs.pass.done {
                self.keys.touch(key.id);
            }
        }
    }

    // ---- copies ---------------------------------------------------------------------------------------------------------

    /// The whole value of a key at this position. The caller has selected the key's database.
    pub(super) fn emit_copy(&mut self, key: &KeyRef, purpose: CopyFor, typed: Option<DataType>) {
        let token = self.keys.token();
        self.keys.copy_asked(key.id, token);
        self.keys.volatile.expect(key.id);
        let output = &mut self.links.authority_mut().output;
        push_request(output, &[b"PEXPIRETIME", &key.name]);
        self.due.push(Awaiting::CopyDeadline);
        let copied = Copied { key: key.clone(), purpose, token };
        match typed.and_then(|kind| typed_reads(kind, &key.name).map(|reads| (kind, reads))) {
            Some((kind, reads)) => {
                for read in reads {
                    output.extend_from_slice(&read);
                }
                self.due.push(Awaiting::TypedCopy(copied, kind));
            }
            None => {
                push_request(output, &[b"DUMP", &key.name]);
                self.due.push(Awaiting::DumpCopy(copied));
            }
        }
    }

    // ---- connection state -----------------------------------------------------------------------------------------------

    /// Brings the authority's connection into this database and protocol version.
    pub(super) fn prepare(&mut self, database: u32, resp: u8) {
        let link = self.links.authority_mut();
        let requests = link.select(database) + link.speak(resp);
        self.due.prepared(requests);
    }
}

/// The keys of a command; `None` when they cannot be told.
fn keys_of(command: &Command, incoming: Incoming<'_>) -> Option<Rc<[KeyRef]>> {
    let key = |name: &[u8]| KeyRef::new(incoming.database, name);
    match command.keys {
        // Nearly all commands: no list is made for one.
        KeySpec::Range(1, 1, 1) => Args::new(incoming.frame).nth(1).map(|name| Rc::from([key(name)])),
        _ => command.keys_of(incoming.frame).map(|names| names.0.iter().map(|name| key(name)).collect()),
    }
}

/// SCRIPT LOAD and FLUSH, FUNCTION LOAD, DELETE, FLUSH and RESTORE change both sides; the rest only ask.
fn changes_library(frame: &[u8]) -> bool {
    Args::new(frame).nth(1).is_some_and(|word| {
        [b"LOAD".as_slice(), b"FLUSH", b"DELETE", b"RESTORE"].iter().any(|change| word.eq_ignore_ascii_case(change))
    })
}
