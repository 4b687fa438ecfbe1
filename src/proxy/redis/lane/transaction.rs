//! MULTI blocks and WATCH, run on positions so that they keep their meaning.

use std::collections::HashMap;
use std::rc::Rc;

use super::authority::{Awaiting, CopyFor, Finishing};
use super::emit::Incoming;
use super::keys::{KeyId, KeyRef};
use super::shadow::Because;
use super::{Caller, Lane};
use wire::resp::Args;
use wire::resp::command::{self, Class, Command};
use wire::resp::effect::{self, EffectPlan, Effects, Outcome, Post, Shape, elements, is_error};
use wire::resp::encode::{self, push_request};
use wire::resp::frame::reply_len;

/// A MULTI block on its way.
#[derive(Debug)]
pub(super) struct Block {
    pub to: Caller,
    pub keys: Rc<[KeyRef]>,
    database: u32,
    /// Shape and frame of each queued command; `None`: its effect is not derived from its reply.
    parts: Vec<(Option<Shape>, Box<[u8]>)>,
    /// The keys are copied behind the block instead.
    copied: bool,
}

/// What clients watch. A watch breaks when a write on the key is *sent*, so no reply has to be waited for.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_key: HashMap<KeyId, Vec<Caller>>,
    /// Whether each watching client's watch is broken.
    broken: HashMap<Caller, bool>,
}

impl Watches {
    fn add(&mut self, to: Caller, key: KeyId) {
        self.broken.entry(to).or_insert(false);
        let watchers = self.by_key.entry(key).or_default();
        if !watchers.contains(&to) {
            watchers.push(to);
        }
    }

    pub fn break_key(&mut self, key: KeyId) {
        if self.by_key.is_empty() {
            return;
        }
        for to in self.by_key.get(&key).into_iter().flatten() {
            self.broken.insert(*to, true);
        }
    }

    pub fn break_all(&mut self) {
        self.broken.values_mut().for_each(|broken| *broken = true);
    }

    /// Ends a client's watches; true when one was broken.
    pub fn forget(&mut self, to: Caller) -> bool {
        let Some(broken) = self.broken.remove(&to) else { return false };
        self.by_key.retain(|_, watchers| {
            watchers.retain(|watcher| *watcher != to);
            !watchers.is_empty()
        });
        broken
    }
}

impl Lane {
    pub(super) fn watch(&mut self, incoming: Incoming<'_>) {
        for name in Args::new(incoming.frame).skip(1) {
            self.watches.add(incoming.to, KeyRef::new(incoming.database, name).id);
        }
        self.answer_in_order(incoming.to, b"+OK\r\n".to_vec());
    }

    pub(super) fn emit_transaction(&mut self, incoming: Incoming<'_>, count: usize) {
        if self.watches.forget(incoming.to) {
            let nil: &[u8] = if incoming.resp == 3 { b"_\r\n" } else { b"*-1\r\n" };
            return self.answer_in_order(incoming.to, nil.to_vec());
        }
        let block = match self.plan_block(incoming) {
            Ok(block) => block,
            Err(text) => return self.answer_in_order(incoming.to, encode::error(&text)),
        };
        self.prepare(incoming.database, incoming.resp);
        self.note_writes(&block.keys);
        self.copy_on_first_write(&block.keys);
        let output = &mut self.authority_link().output;
        push_request(output, &[b"MULTI"]);
        output.extend_from_slice(incoming.frame);
        push_request(output, &[b"EXEC"]);
        self.awaiting.extend(std::iter::repeat_n((), count + 1).map(|()| Awaiting::Swallow));
        let (keys, copied) = (Rc::clone(&block.keys), block.copied);
        self.await_answer(Awaiting::Exec(Box::new(block)));
        if copied {
            for (at, key) in keys.iter().enumerate() {
                let last = at + 1 == keys.len();
                self.emit_copy(key, CopyFor::Command { last }, None);
            }
        }
    }

    /// Effects are taken from the single replies where every command allows it; otherwise all its keys are copied behind the block.
    fn plan_block(&self, incoming: Incoming<'_>) -> Result<Block, String> {
        let mut keys: Vec<KeyRef> = Vec::new();
        let mut parts = Vec::new();
        let mut copied = false;
        let mut rest = incoming.frame;
        while let Some(len) = reply_len(rest) {
            let (frame, behind) = rest.split_at(len);
            rest = behind;
            let command = Args::new(frame).next().map_or(&command::UNKNOWN, command::lookup);
            if command.class != Class::Write {
                parts.push((None, frame.into()));
                continue;
            }
            let plan = self.plan_part(command, frame)?;
            copied |= plan.post != Post::Nothing || !matches!(plan.shape, Shape::Verbatim | Shape::Overwrite);
            let names = command
                .keys_of(frame)
                .ok_or_else(|| format!("ERR Crossfade cannot tell the keys of {} in a MULTI block", command.name))?;
            for name in names.0 {
                let key = KeyRef::new(incoming.database, name);
                if !keys.iter().any(|known| known.id == key.id) {
                    keys.push(key);
                }
            }
            parts.push((Some(plan.shape), frame.into()));
        }
        copied |= keys
            .iter()
            .any(|key| self.keys.is_volatile(key.id) || (!self.is_known(key) && !self.keys.is_dirty(key.id)));
        Ok(Block { to: incoming.to, keys: keys.into(), database: incoming.database, parts, copied })
    }

    fn plan_part(&self, command: &Command, frame: &[u8]) -> Result<EffectPlan, String> {
        let refuse = |why: &str| {
            format!("ERR Crossfade does not carry {} in a MULTI block: {why}", command.name.to_ascii_uppercase())
        };
        if Self::flushes(command) {
            return Err(refuse("it would have to empty two servers at one position"));
        }
        effect::plan(command, frame).map_err(refuse)
    }

    pub(super) fn exec_answered(&mut self, block: Block, reply: &[u8]) {
        let in_doubt = self.soonest_copied.take();
        if block.copied && !block.keys.is_empty() {
            self.finishing = Some(Finishing::Block { to: block.to, reply: reply.to_vec(), keys: block.keys });
            return;
        }
        if self.judges_records() {
            self.mark_all_dirty(&block.keys);
        } else if !is_error(reply) {
            match elements(reply) {
                Some(replies) if replies.len() == block.parts.len() => self.block_effects(&block, &replies),
                _ => self.mark_all_dirty(&block.keys),
            }
        }
        if in_doubt.is_some() {
            self.mark_all_dirty(&block.keys);
        }
        self.wake_waiters(&block.keys, reply);
        self.deliver(block.to, reply);
    }

    fn block_effects(&mut self, block: &Block, replies: &[&[u8]]) {
        for ((shape, frame), reply) in block.parts.iter().zip(replies) {
            let Some(shape) = shape else { continue };
            let mut effects = Effects::default();
            let outcome =
                Outcome { frame, reply, deadline: None, first_entry: None, grace_ms: self.plan.ttl_grace_ms as i64 };
            let names =
                Args::new(frame).next().map_or(&command::UNKNOWN, command::lookup).keys_of(frame).unwrap_or_default();
            let keys: Rc<[KeyRef]> = names.0.iter().map(|name| KeyRef::new(block.database, name)).collect();
            match effect::derive(*shape, &outcome, &mut effects) {
                Ok(()) => {
                    let because = if *shape == Shape::Overwrite { Because::Overwrite } else { Because::Effect };
                    self.enqueue(block.database, effects, &keys, because);
                }
                Err(()) => self.mark_all_dirty(&keys),
            }
        }
    }
}
