//! EXEC behind WATCH: whether watched keys are what they were, where the lane cannot know it from the commands it has sent.
//!
//! Deadlines pass, and scripts write more than they declare. So the keys are read when they begin to be watched, and again in front of the block;
//! when they differ, it is not run. Between those reads and the block the lane's own connection watches them, which the server takes back with
//! any EXEC: then they are read once more. Meanwhile the client's further commands wait.

use super::authority_queue::{Awaiting, Place};
use super::caller::Caller;
use super::commands::Incoming;
use super::keys::{KeyId, KeyRef};
use super::request::LaneBatch;
use super::state::Lane;
use super::watches::{Asked, Verdict, Verifying};
use base::model::limits;
use wire::resp::Args;
use wire::resp::command::Command;
use wire::resp::encode::push_request;

impl Lane {
    pub(super) fn watch(&mut self, incoming: Incoming<'_>) {
        let values = self.watches.values_needed(self.now.mono_us);
        let resp = incoming.resp;
        for name in Args::new(incoming.frame).skip(1) {
            let key = KeyRef::new(incoming.database, name);
            if !self.watches.add(incoming.to, &key) {
                continue;
            }
            self.prepare(key.database, resp);
            let (to, id) = (incoming.to, key.id);
            push_request(&mut self.links.authority_mut().output, &[b"PEXPIRETIME", &key.name]);
            self.due.push(Awaiting::Watched { to, id, asked: Asked::Deadline });
            if values && self.keys.by_type(id).is_none() {
                push_request(&mut self.links.authority_mut().output, &[b"DUMP", &key.name]);
                self.due.push(Awaiting::Watched { to, id, asked: Asked::Value });
            }
        }
        self.answer_in_order(incoming.to, b"+OK\r\n".to_vec());
    }

    pub(super) fn watched_read(&mut self, to: Caller, id: KeyId, asked: Asked, reply: &[u8]) {
        self.watches.saw(to, id, asked.aspect(reply));
    }

    /// A whole block; `incoming.frame` holds one frame for each of the commands.
    pub(super) fn emit_transaction(&mut self, commands: Box<[&'static Command]>, incoming: Incoming<'_>) {
        match self.watches.verdict(incoming.to) {
            Verdict::Run => {
                self.watches.forget(incoming.to);
                self.run_block(&commands, incoming, false);
            }
            Verdict::Refuse => self.refuse_block(incoming.to, incoming.resp),
            Verdict::Verify(keys) => {
                let Incoming { to, database, resp, frame } = incoming;
                let (frames, behind) = (frame.to_vec(), std::collections::VecDeque::new());
                let verifying = Verifying { commands, frames, database, resp, guard: 0, same: true, tries: 0, behind };
                self.verify(to, verifying, &keys);
            }
        }
    }

    fn refuse_block(&mut self, to: Caller, resp: u8) {
        self.watches.forget(to);
        let nil: &[u8] = if resp == 3 { b"_\r\n" } else { b"*-1\r\n" };
        self.answer_in_order(to, nil.to_vec());
    }

    /// Reads the keys, behind a WATCH of the lane's own connection.
    fn verify(&mut self, to: Caller, mut verifying: Verifying, keys: &[(KeyRef, bool)]) {
        let resp = verifying.resp;
        for (key, _) in keys {
            self.prepare(key.database, resp);
            push_request(&mut self.links.authority_mut().output, &[b"WATCH", &key.name]);
            self.due.swallow(1);
        }
        self.watches.guard.is_set = true;
        verifying.guard = self.watches.guard.number;
        verifying.same = true;
        verifying.tries += 1;
        self.watches.verifying.insert(to, verifying);
        for (at, (key, with_value)) in keys.iter().enumerate() {
            self.prepare(key.database, resp);
            let (id, place) = (key.id, Place::of(at, keys.len()));
            let output = &mut self.links.authority_mut().output;
            if *with_value {
                push_request(output, &[b"DUMP", &key.name]);
                self.due.push(Awaiting::Verified { to, id, asked: Asked::Value, place: Place::NotLast });
            }
            push_request(output, &[b"PEXPIRETIME", &key.name]);
            self.due.push(Awaiting::Verified { to, id, asked: Asked::Deadline, place });
        }
    }

    pub(super) fn verified_read(&mut self, to: Caller, id: KeyId, asked: Asked, place: Place, reply: &[u8]) {
        let same = self.watches.is_as_seen(to, id, asked.aspect(reply));
        if let Some(verifying) = self.watches.verifying.get_mut(&to) {
            verifying.same &= same;
        }
        if place == Place::Last {
            self.conclude_verification(to);
        }
    }

    fn conclude_verification(&mut self, to: Caller) {
        let Some(mut verifying) = self.watches.verifying.remove(&to) else { return };
        let guarded = verifying.guard == self.watches.guard.number;
        let may_run = verifying.same && self.watches.holds(to);
        if may_run && !guarded && verifying.tries < limits::WATCH_READS_MAX {
            match self.watches.verdict(to) {
                Verdict::Verify(keys) => return self.verify(to, verifying, &keys),
                Verdict::Run | Verdict::Refuse => {}
            }
        }
        let behind = std::mem::take(&mut verifying.behind);
        if may_run && guarded {
            self.watches.forget(to);
            let Verifying { commands, frames, database, resp, .. } = verifying;
            self.run_block(&commands, Incoming { to, database, resp, frame: &frames }, true);
        } else {
            self.refuse_block(to, verifying.resp);
        }
        for batch in behind {
            self.run_batch(to.core, batch);
        }
    }

    /// Keeps what a client has sent behind a block that is being verified. `None`: nothing is.
    pub(super) fn keep_behind(&mut self, to: Caller, batch: LaneBatch) -> Option<LaneBatch> {
        match self.watches.verifying.get_mut(&to) {
            Some(verifying) => {
                verifying.behind.push_back(batch);
                None
            }
            None => Some(batch),
        }
    }

    /// The connection is gone, and with it what was asked and watched there.
    pub(super) fn verification_lost(&mut self) {
        self.watches.guard.end();
        for (to, _) in std::mem::take(&mut self.watches.verifying) {
            self.watches.forget(to);
            self.out.close(to);
        }
    }
}
