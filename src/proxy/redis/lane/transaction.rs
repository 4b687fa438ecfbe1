//! MULTI blocks and WATCH, run on positions so that they keep their meaning.

use std::rc::Rc;

use super::authority_queue::{Awaiting, Block, BlockPart, Finishing};
use super::commands::Incoming;
use super::keys::KeyRef;
use super::shadow_queue::Because;
use super::state::Lane;
use super::waiters::Arrival;
use wire::resp::Args;
use wire::resp::command::{Class, Command, EffectKind};
use wire::resp::effect::{self, EffectPlan, Effects, Outcome, Post, Shape, elements, is_error};
use wire::resp::encode::{self, push_request};
use wire::resp::frame::reply_len;

impl Lane {
    pub(super) fn watch(&mut self, incoming: Incoming<'_>) {
        for name in Args::new(incoming.frame).skip(1) {
            self.watches.add(incoming.to, KeyRef::new(incoming.database, name).id);
        }
        self.answer_in_order(incoming.to, b"+OK\r\n".to_vec());
    }

    /// A whole block; `incoming.frame` holds one frame for each of the commands.
    pub(super) fn emit_transaction(&mut self, commands: &[&'static Command], incoming: Incoming<'_>) {
        if self.watches.forget(incoming.to) {
            let nil: &[u8] = if incoming.resp == 3 { b"_\r\n" } else { b"*-1\r\n" };
            return self.answer_in_order(incoming.to, nil.to_vec());
        }
        let block = match self.plan_block(commands, incoming) {
            Ok(block) => block,
            Err(text) => return self.answer_in_order(incoming.to, encode::error(&text)),
        };
        self.prepare(incoming.database, incoming.resp);
        self.note_writes(&block.keys);
        self.copy_on_first_write(&block.keys);
        let output = &mut self.links.authority_mut().output;
        push_request(output, &[b"MULTI"]);
        output.extend_from_slice(incoming.frame);
        push_request(output, &[b"EXEC"]);
        self.due.swallow(commands.len() + 1);
        let (keys, copied) = (Rc::clone(&block.keys), block.copied);
        self.await_answer(Awaiting::Exec(Box::new(block)));
        if copied {
            self.emit_copies(&keys);
        }
    }

    /// Effects are taken from the single replies where every command allows it; otherwise all its keys are copied behind the block.
    fn plan_block(&self, commands: &[&'static Command], incoming: Incoming<'_>) -> Result<Block, String> {
        let mut keys: Vec<KeyRef> = Vec::new();
        let mut parts = Vec::with_capacity(commands.len());
        let mut copied = false;
        let mut rest = incoming.frame;
        for &command in commands {
            let (frame, behind) = rest.split_at(reply_len(rest).unwrap_or(rest.len()));
            rest = behind;
            if command.class != Class::Write {
                parts.push(BlockPart { command, shape: None, frame: frame.into() });
                continue;
            }
            let plan = plan_part(command, frame)?;
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
            parts.push(BlockPart { command, shape: Some(plan.shape), frame: frame.into() });
        }
        copied |= keys
            .iter()
            .any(|key| self.keys.is_volatile(key.id) || (!self.is_known(key) && !self.keys.is_dirty(key.id)));
        Ok(Block { to: incoming.to, keys: keys.into(), database: incoming.database, parts, copied })
    }

    pub(super) fn exec_answered(&mut self, block: Block, reply: &[u8]) {
        let in_doubt = self.due.soonest_copied.take();
        if block.copied && !block.keys.is_empty() {
            self.due.finishing = Some(Finishing::Block { to: block.to, reply: reply.to_vec(), keys: block.keys });
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
        if !is_error(reply) {
            self.wake(&block.keys, Arrival::Any);
        }
        self.out.deliver(block.to, reply);
    }

    fn block_effects(&mut self, block: &Block, replies: &[&[u8]]) {
        for (part, reply) in block.parts.iter().zip(replies) {
            let Some(shape) = part.shape else { continue };
            let mut effects = Effects::default();
            let grace_ms = self.plan.ttl_grace_ms as i64;
            let outcome = Outcome { frame: &part.frame, reply, deadline: None, first_entry: None, grace_ms };
            let names = part.command.keys_of(&part.frame).unwrap_or_default();
            let keys: Rc<[KeyRef]> = names.0.iter().map(|name| KeyRef::new(block.database, name)).collect();
            match effect::derive(shape, &outcome, &mut effects) {
                Ok(()) => {
                    let because = if shape == Shape::Overwrite { Because::Overwrite } else { Because::Effect };
                    self.enqueue(block.database, effects, &keys, because);
                }
                Err(()) => self.mark_all_dirty(&keys),
            }
        }
    }
}

fn plan_part(command: &Command, frame: &[u8]) -> Result<EffectPlan, String> {
    let refuse = |why: &str| {
        format!("ERR Crossfade does not support {} in a MULTI block: {why}", command.name.to_ascii_uppercase())
    };
    if command.effect == EffectKind::Flush {
        return Err(refuse("it would have to empty two servers at one position"));
    }
    effect::plan(command, frame).map_err(refuse)
}
