//! MULTI blocks and WATCH, run on positions so that they keep their meaning.

use std::rc::Rc;

use super::authority_queue::{Awaiting, Block, BlockPart};
use super::blocking::unblocked;
use super::commands::Incoming;
use super::keys::KeyRef;
use super::replies::Executed;
use super::shadow_queue::Because;
use super::state::Lane;
use wire::resp::Args;
use wire::resp::command::{Class, Command, EffectKind};
use wire::resp::effect::{self, EffectPlan, Effects, Post, elements, integer, is_error, is_nil};
use wire::resp::encode::{self, push_request};
use wire::resp::frame::reply_len;

impl Lane {
    /// `guarded`: what the client watches is watched by the lane's own connection.
    pub(super) fn run_block(&mut self, commands: &[&'static Command], incoming: Incoming<'_>, guarded: bool) {
        let block = match self.plan_block(commands, incoming) {
            Ok(block) => block,
            Err(text) => return self.answer_in_order(incoming.to, encode::error(&text)),
        };
        self.prepare(incoming.database, incoming.resp);
        self.note_writes(&block.keys);
        self.copy_on_first_write(&block.keys);
        if self.watches.guard.is_set {
            if !guarded {
                // Or this block would not be run because of what another client watches.
                push_request(&mut self.links.authority_mut().output, &[b"UNWATCH"]);
                self.due.swallow(1);
            }
            self.watches.guard.end();
        }
        if commands.iter().any(|command| command.is_script()) {
            self.watches.script_sent(self.now.mono_us);
            self.keys.log.script_sent(self.now.wall_ms as u64);
        }
        let block = self.send_block(block, incoming.frame);
        self.due.swallow(block.replies() + 1);
        let keys = Rc::clone(&block.keys);
        self.await_answer(Awaiting::Exec(Box::new(block)));
        if !keys.is_empty() {
            self.keys.write_down(&keys, self.due.end());
        }
    }

    /// The block with the lane's own reads inside it: there time stands still and nothing comes between, so that each effect is exact.
    fn send_block(&mut self, mut block: Block, mut frames: &[u8]) -> Block {
        // What a copy in front of the block will say of a deadline is not known yet either.
        block.checked.retain(|key| self.keys.volatile.contains(key.id));
        let output = &mut self.links.authority_mut().output;
        push_request(output, &[b"MULTI"]);
        for key in &block.checked {
            push_request(output, &[b"PEXPIRETIME", &key.name]);
        }
        for part in &block.parts {
            let (frame, behind) = frames.split_at(reply_len(frames).unwrap_or(frames.len()));
            frames = behind;
            output.extend_from_slice(frame);
            match (part.plan.map(|plan| plan.post), part.keys.first()) {
                (Some(Post::Deadline), Some(key)) => {
                    self.keys.volatile.expect(key.id);
                    push_request(output, &[b"PEXPIRETIME", &key.name]);
                }
                (Some(Post::FirstEntry), Some(key)) => {
                    push_request(output, &[b"XRANGE", &key.name, b"-", b"+", b"COUNT", b"1"]);
                }
                (Some(Post::Nothing | Post::Copy) | None, _) | (_, None) => {}
            }
        }
        push_request(output, &[b"EXEC"]);
        block
    }

    fn plan_block(&self, commands: &[&'static Command], incoming: Incoming<'_>) -> Result<Block, String> {
        let (mut keys, mut checked): (Vec<KeyRef>, Vec<KeyRef>) = (Vec::new(), Vec::new());
        let add = |to: &mut Vec<KeyRef>, key: &KeyRef| {
            if !to.iter().any(|known| known.id == key.id) {
                to.push(key.clone());
            }
        };
        let mut parts = Vec::with_capacity(commands.len());
        let mut rest = incoming.frame;
        for &command in commands {
            let (frame, behind) = rest.split_at(reply_len(rest).unwrap_or(rest.len()));
            rest = behind;
            if command.class != Class::Write {
                parts.push(BlockPart { command, plan: None, keys: Rc::from([]), frame: frame.into() });
                continue;
            }
            let plan = plan_part(command, frame)?;
            let names = command
                .keys_of(frame)
                .ok_or_else(|| format!("ERR Crossfade cannot tell the keys of {} in a MULTI block", command.name))?;
            let own: Rc<[KeyRef]> = names.0.iter().map(|name| KeyRef::new(incoming.database, name)).collect();
            let plan = self.adapt_plan(plan, &own);
            for key in own.iter() {
                add(&mut keys, key);
            }
            if let ([key], true) = (&*own, plan.depends_on_old_value) {
                add(&mut checked, key);
            }
            let frame = if command.blocking { without_blocking(frame) } else { frame.into() };
            parts.push(BlockPart { command, plan: Some(plan), keys: own, frame });
        }
        Ok(Block { to: incoming.to, keys: keys.into(), database: incoming.database, checked, parts })
    }

    pub(super) fn exec_answered(&mut self, block: Block, reply: &[u8]) {
        let replies = if is_error(reply) { None } else { elements(reply) };
        match replies.filter(|replies| replies.len() == block.replies()) {
            Some(replies) => {
                let own = self.block_effects(&block, &replies);
                self.soonest_copied_in_doubt(&block.keys);
                self.out.deliver(block.to, own.as_deref().unwrap_or(reply));
            }
            None => {
                for part in block.parts.iter().filter(|part| part.has_own_read()) {
                    if part.plan.is_some_and(|plan| plan.post == Post::Deadline) {
                        self.keys.volatile.learn(part.keys[0].id, true);
                    }
                }
                if !is_error(reply) && !is_nil(reply) {
                    self.mark_all_dirty(&block.keys);
                }
                self.soonest_copied_in_doubt(&block.keys);
                self.out.deliver(block.to, reply);
            }
        }
    }

    /// The effects of each command, from its own reply. What the client gets, if that is not the whole reply.
    fn block_effects(&mut self, block: &Block, replies: &[&[u8]]) -> Option<Vec<u8>> {
        let (checks, mut rest) = replies.split_at(block.checked.len());
        if !self.judges_records() {
            for (key, reply) in block.checked.iter().zip(checks) {
                let mut effects = Effects::default();
                self.check_deadline(key, integer(reply), &mut effects);
                self.enqueue(key.database, effects, &Rc::from([key.clone()]), Because::Effect);
            }
        }
        let mut own = format!("*{}\r\n", block.parts.len()).into_bytes();
        for part in &block.parts {
            let (reply, behind) = rest.split_first()?;
            rest = behind;
            own.extend_from_slice(reply);
            let mut read = None;
            if part.has_own_read() {
                let (first, behind) = rest.split_first()?;
                (read, rest) = (Some(*first), behind);
            }
            self.part_effects(block, part, reply, read);
        }
        (replies.len() > block.parts.len()).then_some(own)
    }

    fn part_effects(&mut self, block: &Block, part: &BlockPart, reply: &[u8], read: Option<&[u8]>) {
        let Some(plan) = part.plan else { return };
        let deadline = if plan.post == Post::Deadline { read.and_then(integer) } else { None };
        if let (Post::Deadline, Some(key)) = (plan.post, part.keys.first()) {
            self.keys.volatile.learn(key.id, deadline.is_none_or(|at| at > 0));
        }
        let executed = Executed {
            command: part.command,
            plan,
            frame: &part.frame,
            keys: &part.keys,
            database: block.database,
            reply,
            deadline,
            first_entry: if plan.post == Post::FirstEntry { read } else { None },
            tried: false,
        };
        self.report.counts.effects += u64::from(!is_error(reply));
        self.apply(&executed, Effects::default());
        self.wake_by_command(part.command, &part.keys, reply);
    }
}

/// In a block a blocking command does not block; outside it, on the shadow, it might.
fn without_blocking(frame: &[u8]) -> Box<[u8]> {
    let args: Vec<&[u8]> = Args::new(frame).collect();
    unblocked(&args).map_or_else(|_| frame.into(), |(frame, ..)| frame.into())
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
