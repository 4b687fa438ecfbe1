//! What is sent to the authority: commands with the reads around them, copies, probes. Position order is execution order.

use std::rc::Rc;

use super::authority::{Awaiting, CopyFor, Probing, WriteEntry};
use super::keys::KeyRef;
use super::request::{LaneBatch, LaneItem};
use super::{Caller, Lane, Link, Ticket};
use base::model::{CoreId, limits};
use bus::{LaneEvent, PassKind};
use wire::resp::Args;
use wire::resp::command::{self, Class, Command, CompareRule, EffectKind, KeySpec};
use wire::resp::copy::{DataType, typed_reads};
use wire::resp::effect::{self, EffectPlan, Post, Shape};
use wire::resp::encode::{self, push_request};

/// A client's command on its way into the lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub to: Caller,
    pub database: u32,
    pub resp: u8,
    pub frame: &'a [u8],
}

impl Lane {
    pub(super) fn run_batch(&mut self, core: CoreId, batch: &LaneBatch) {
        let to = Caller { core, client: batch.client };
        let mut rest = batch.frames.as_slice();
        for item in &batch.items {
            let len = match *item {
                LaneItem::Command { len }
                | LaneItem::ComparedRead { len }
                | LaneItem::MirroredRead { len }
                | LaneItem::Transaction { len, .. }
                | LaneItem::Watch { len }
                | LaneItem::Blocking { len } => len,
                LaneItem::Unwatch | LaneItem::Forget => 0,
            };
            let (frame, behind) = rest.split_at(len);
            rest = behind;
            self.run_item(*item, Incoming { to, database: batch.database, resp: batch.resp, frame });
        }
    }

    fn run_item(&mut self, item: LaneItem, incoming: Incoming<'_>) {
        if item == LaneItem::Forget {
            self.forget_client(incoming.to);
            return;
        }
        if !self.link_ref(self.authority).connected {
            let side = self.authority;
            let name = &self.plan.endpoint(side).name;
            let text =
                format!("LOADING Crossfade cannot reach {side} '{name}', which is the authority; nothing was sent");
            return self.answer_in_order(incoming.to, encode::error(&text));
        }
        match item {
            LaneItem::Command { .. } => self.emit_command(incoming),
            LaneItem::ComparedRead { .. } => self.emit_compared_read(incoming),
            LaneItem::MirroredRead { .. } => self.emit_mirrored_read(incoming),
            LaneItem::Transaction { count, .. } => self.emit_transaction(incoming, count),
            LaneItem::Watch { .. } => self.watch(incoming),
            LaneItem::Unwatch => {
                self.watches.forget(incoming.to);
                self.answer_in_order(incoming.to, b"+OK\r\n".to_vec());
            }
            LaneItem::Blocking { .. } => self.block(incoming),
            LaneItem::Forget => {}
        }
    }

    /// An answer of the lane's own, behind everything this client already has in the lane.
    pub(super) fn answer_in_order(&mut self, to: Caller, bytes: Vec<u8>) {
        if self.awaiting.is_empty() && self.finishing.is_none() {
            self.deliver(to, &bytes);
        } else {
            self.awaiting.push_back(Awaiting::Local { to, bytes });
        }
    }

    fn emit_command(&mut self, incoming: Incoming<'_>) {
        let Some(name) = Args::new(incoming.frame).next() else { return };
        let command = command::lookup(name);
        match command.class {
            Class::Write => self.emit_write(command, incoming),
            Class::Library if changes_library(incoming.frame) => {
                let plan = EffectPlan { shape: Shape::Overwrite, post: Post::Nothing, depends_on_old_value: false };
                self.send_write(plan, Rc::from([]), incoming);
            }
            Class::Read
            | Class::Library
            | Class::Server
            | Class::ServerChange
            | Class::Session(_)
            | Class::Refused(_)
            | Class::Unknown => self.emit_read(incoming),
        }
    }

    fn emit_read(&mut self, incoming: Incoming<'_>) {
        self.prepare(incoming.database, incoming.resp);
        self.authority_link().output.extend_from_slice(incoming.frame);
        self.await_answer(Awaiting::Read { to: incoming.to });
    }

    /// What a client waits for: the next position.
    pub(super) fn await_answer(&mut self, awaiting: Awaiting) {
        self.awaiting.push_back(awaiting);
        self.probe.sent(self.awaiting.len(), self.now.mono_us);
        self.counts.position += 1;
    }

    /// Repeated on the shadow for its own sake (it warms up, it is loaded); the shadow's answer is not looked at.
    fn emit_mirrored_read(&mut self, incoming: Incoming<'_>) {
        self.prepare(incoming.database, incoming.resp);
        self.authority_link().output.extend_from_slice(incoming.frame);
        let (to, frame, database) = (incoming.to, incoming.frame.into(), incoming.database);
        self.await_answer(Awaiting::MirroredRead { to, frame, database });
    }

    fn emit_write(&mut self, command: &'static Command, incoming: Incoming<'_>) {
        if !command.arity_fits(Args::new(incoming.frame).count()) {
            return self.emit_read(incoming); // the server's own error, and no effect
        }
        let plan = match effect::plan(command, incoming.frame) {
            Ok(plan) => plan,
            Err(why) => {
                let text = format!(
                    "ERR Crossfade does not carry {} while two servers are kept in step: {why}",
                    command.name.to_ascii_uppercase()
                );
                return self.answer_in_order(incoming.to, encode::error(&text));
            }
        };
        if plan.shape == Shape::Flush {
            self.watches.break_all();
            return self.send_write(plan, Rc::from([]), incoming);
        }
        let Some(keys) = keys_of(command, incoming) else {
            // The count of keys makes no sense: the server answers with an error. Should it not, every key is in doubt.
            let doubt = EffectPlan { shape: Shape::Copied, post: Post::Nothing, depends_on_old_value: false };
            return self.send_write(doubt, Rc::from([]), incoming);
        };
        let plan = self.adapt_plan(plan, &keys);
        self.send_write(plan, keys, incoming);
    }

    /// Between several keys a deadline cannot be checked for each at one moment: the result is copied.
    fn adapt_plan(&self, plan: EffectPlan, keys: &[KeyRef]) -> EffectPlan {
        let volatile =
            keys.len() > 1 && plan.depends_on_old_value && keys.iter().any(|key| self.keys.is_volatile(key.id));
        if volatile { EffectPlan { shape: Shape::Copied, post: Post::Copy, depends_on_old_value: false } } else { plan }
    }

    /// One write: copies of keys not yet known clean, a look at a volatile key's deadline, the command, the reads behind it.
    pub(super) fn send_write(&mut self, plan: EffectPlan, keys: Rc<[KeyRef]>, incoming: Incoming<'_>) {
        self.prepare(incoming.database, incoming.resp);
        self.note_writes(&keys);
        if plan.shape != Shape::Overwrite {
            self.copy_on_first_write(&keys);
        }
        let check = plan.depends_on_old_value && keys.len() == 1 && self.keys.is_volatile(keys[0].id);
        if check {
            push_request(&mut self.authority_link().output, &[b"PEXPIRETIME", &keys[0].name]);
            self.awaiting.push_back(Awaiting::Deadline);
        }
        self.authority_link().output.extend_from_slice(incoming.frame);
        let entry = WriteEntry {
            to: incoming.to,
            frame: incoming.frame.into(),
            keys: Rc::clone(&keys),
            plan,
            checked: check,
            database: incoming.database,
            waiter: None,
        };
        self.await_answer(Awaiting::Write(Box::new(entry)));
        self.emit_post(plan.post, &keys);
    }

    /// The reads behind a command, in the same pipeline, so that they see exactly its outcome.
    pub(super) fn emit_post(&mut self, post: Post, keys: &[KeyRef]) {
        match (post, keys.first()) {
            (Post::Nothing, _) | (_, None) => {}
            (Post::Deadline, Some(key)) => {
                self.keys.expect_deadline(key.id);
                push_request(&mut self.authority_link().output, &[b"PEXPIRETIME", &key.name]);
                self.awaiting.push_back(Awaiting::PostDeadline);
            }
            (Post::FirstEntry, Some(key)) => {
                push_request(&mut self.authority_link().output, &[b"XRANGE", &key.name, b"-", b"+", b"COUNT", b"1"]);
                self.awaiting.push_back(Awaiting::PostFirstEntry);
            }
            (Post::Copy, Some(_)) => {
                for (at, key) in keys.iter().enumerate() {
                    let last = at + 1 == keys.len();
                    self.emit_copy(key, CopyFor::Command { last }, None);
                }
            }
        }
    }

    /// I5: a key that was never copied is copied before the first write that touches it.
    pub(super) fn copy_on_first_write(&mut self, keys: &[KeyRef]) {
        for key in keys {
            if !self.is_known(key) && !self.keys.is_dirty(key.id) {
                self.note_clean(key.id);
                self.emit_copy(key, CopyFor::FirstWrite, None);
            }
        }
    }

    /// This key's shadow is right, or will be by what is queued. When the pass is over all are known.
    pub(super) fn note_clean(&mut self, id: super::keys::KeyId) {
        if !self.pass.done {
            self.keys.set_clean(id);
        }
    }

    /// The copy of this key has been emitted, or the pass is over.
    pub(super) fn is_known(&self, key: &KeyRef) -> bool {
        self.pass.done || self.keys.is_clean(key.id)
    }

    /// Watches break and the volatile pass leaves these keys' deadlines alone.
    pub(super) fn note_writes(&mut self, keys: &[KeyRef]) {
        for key in keys {
            self.watches.break_key(key.id);
            if self.pass.kind == PassKind::Volatile && !self.pass.done {
                self.keys.touch(key.id);
            }
        }
    }

    // ---- copies -------------------------------------------------------------------------------------------------------

    /// The whole value of a key at this position. The caller has selected the key's database.
    pub(super) fn emit_copy(&mut self, key: &KeyRef, purpose: CopyFor, typed: Option<DataType>) {
        let token = self.keys.token();
        self.keys.start_healing(key.id, token);
        self.keys.expect_deadline(key.id);
        push_request(&mut self.authority_link().output, &[b"PEXPIRETIME", &key.name]);
        self.awaiting.push_back(Awaiting::CopyDeadline);
        match typed.and_then(|kind| typed_reads(kind, &key.name).map(|reads| (kind, reads))) {
            Some((kind, reads)) => {
                for read in reads {
                    self.authority_link().output.extend_from_slice(&read);
                }
                self.awaiting.push_back(Awaiting::TypedCopy { key: key.clone(), purpose, token, kind });
            }
            None => {
                push_request(&mut self.authority_link().output, &[b"DUMP", &key.name]);
                self.awaiting.push_back(Awaiting::DumpCopy { key: key.clone(), purpose, token });
            }
        }
    }

    /// A batch of keys named by the backfill.
    pub(super) fn copy_order(&mut self, ticket: u64, pass: u64, database: u32, names: &[Box<[u8]>]) {
        let mut state = Ticket { left: names.len() as u64, ..Ticket::default() };
        if pass != self.pass.number || self.pass.done {
            let clean = names.len() as u64;
            self.events.push(LaneEvent::Copied { ticket, copied: 0, absent: 0, clean, failed: 0, bytes: 0 });
            return;
        }
        self.prepare(database, 2);
        for name in names {
            let key = KeyRef::new(database, name);
            if self.keys.is_clean(key.id) || self.keys.is_dirty(key.id) {
                // Copied already, or waiting to be copied again.
                state.left -= 1;
                state.clean += 1;
                continue;
            }
            self.keys.set_clean(key.id);
            match self.pass.kind {
                PassKind::Full => self.emit_copy(&key, CopyFor::Ticket(ticket), None),
                PassKind::Volatile => {
                    self.keys.expect_deadline(key.id);
                    push_request(&mut self.authority_link().output, &[b"PEXPIRETIME", &key.name]);
                    self.awaiting.push_back(Awaiting::RefreshDeadline { key, ticket });
                }
            }
        }
        self.tickets.insert(ticket, state);
        self.close_ticket(ticket);
    }

    /// Keys whose shadow is in doubt are copied again, a few at a time.
    pub(super) fn repair_some(&mut self) {
        if !self.both_connected() || self.overflowed || self.retired || self.waits_for_records_policy() {
            return;
        }
        while self.repairs_in_flight < limits::REPAIRS_IN_FLIGHT {
            let Some((key, typed)) = self.keys.next_repair(self.now.mono_us) else { return };
            self.repairs_in_flight += 1;
            self.prepare(key.database, 2);
            self.emit_copy(&key, CopyFor::Repair, typed);
        }
    }

    // ---- reads at one position on both sides ------------------------------------------------------------------------------

    fn emit_compared_read(&mut self, incoming: Incoming<'_>) {
        let Some(command) = Args::new(incoming.frame).next().map(command::lookup) else { return };
        let keys = keys_of(command, incoming).unwrap_or_default();
        let known = !keys.is_empty() && keys.iter().all(|key| self.is_known(key) && !self.keys.is_dirty(key.id));
        let volatile = keys.iter().filter(|key| self.keys.is_volatile(key.id)).count();
        if !known || command.compare == CompareRule::Never || (volatile > 0 && keys.len() > 1) {
            self.counts.reads_not_comparable += 1;
            return self.emit_read(incoming);
        }
        self.prepare(incoming.database, incoming.resp);
        if volatile > 0 {
            push_request(&mut self.authority_link().output, &[b"PEXPIRETIME", &keys[0].name]);
            self.awaiting.push_back(Awaiting::Deadline);
        }
        self.authority_link().output.extend_from_slice(incoming.frame);
        self.await_answer(Awaiting::ComparedRead {
            to: incoming.to,
            frame: incoming.frame.into(),
            command,
            keys,
            checked: volatile > 0,
            resp: incoming.resp,
            at_us: self.now.mono_us,
            pass: self.pass.number,
        });
    }

    pub(super) fn probe_order(&mut self, ticket: u64, database: u32, commands: Vec<Box<[u8]>>) {
        if commands.is_empty() {
            self.events.push(LaneEvent::Probed {
                ticket,
                authority: Vec::new(),
                shadow: Vec::new(),
                doubtful: Vec::new(),
            });
            return;
        }
        self.prepare(database, 2);
        for frame in &commands {
            self.authority_link().output.extend_from_slice(frame);
            self.awaiting.push_back(Awaiting::Probe { ticket });
        }
        let probing = Probing { database, commands, authority: Vec::new(), shadow: Vec::new(), keys: Vec::new() };
        self.probes.insert(ticket, probing);
    }

    // ---- connection state -------------------------------------------------------------------------------------------------

    pub(super) fn authority_link(&mut self) -> &mut Link {
        self.link(self.authority)
    }

    /// Brings the authority's connection into this database and protocol version.
    pub(super) fn prepare(&mut self, database: u32, resp: u8) {
        let link = self.authority_link();
        let mut extra = 0;
        if link.database != database {
            link.database = database;
            push_request(&mut link.output, &[b"SELECT", database.to_string().as_bytes()]);
            extra += 1;
        }
        if link.resp != resp {
            link.resp = resp;
            push_request(&mut link.output, &[b"HELLO", resp.to_string().as_bytes()]);
            extra += 1;
        }
        self.awaiting.extend(std::iter::repeat_n((), extra).map(|()| Awaiting::Prepared));
    }

    /// Whether the effect of a command is to empty databases.
    pub(super) fn flushes(command: &Command) -> bool {
        command.effect == EffectKind::Flush
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
