//! Values too long to pass whole: read in pieces between the commands of clients, so that no client waits for more than one piece.
//!
//! Their keys are dirty all the time (I5). Writes meanwhile are taken into account as `wire::resp::copy::pieces` says, or end the copy, which then
//! begins again after a time that grows with its length. Behind a fence nothing is written, and the pieces follow each other at once.

use std::rc::Rc;

use super::authority_queue::{Awaiting, Copied, CopyFor};
use super::keys::{KeyId, KeyRef};
use super::piece_copies::PieceCopy;
use super::shadow::Queued;
use super::shadow_queue::CopyContent;
use super::state::Lane;
use base::model::limits;
use wire::resp::copy::pieces::{Meanwhile, Pieces, Progress};
use wire::resp::effect::{Effects, Expect};
use wire::resp::encode::{number, push_request};
use wire::resp::frame::reply_len;

impl Lane {
    /// How this key is to be read, if in pieces. A records policy sees values whole.
    pub(super) fn pieces_of(&self, id: KeyId) -> Option<Pieces> {
        if self.judges_records() { None } else { self.keys.by_type(id).and_then(Pieces::begin) }
    }

    /// Begins a repair. A copy of this key that was ended, and whose last piece is on its way, makes it wait as long as that one was.
    pub(super) fn begin_pieces(&mut self, key: KeyRef, pieces: Pieces) {
        if let Some(ended) = self.jobs.pieces.get(&key.id) {
            let is_long = ended.bytes >= limits::COPY_PACED_BYTES;
            self.end_pieces(key.id);
            if is_long && !self.keys.is_draining() {
                self.jobs.repair_over();
                return self.keys.mark_dirty(&key);
            }
        }
        let token = self.keys.token();
        self.keys.copy_reading(key.id, token);
        let mut effects = Effects::default();
        effects.push(&[b"DEL", &key.name], Expect::NoError);
        let (now, keys) = (self.now.mono_us, Rc::from([key.clone()]));
        self.shadow.push_effects(self.links.shadow_mut(), key.database, effects, &keys, None, now);
        let copy = PieceCopy { key: key.clone(), token, pieces, bytes: 0, next_us: Some(now) };
        self.jobs.pieces.insert(key.id, copy);
    }

    /// Asks for the pieces whose time has come.
    pub(super) fn ask_for_pieces(&mut self) {
        if self.jobs.pieces.is_empty() || !self.both_connected() {
            return;
        }
        let (now, draining) = (self.now.mono_us, self.keys.is_draining());
        let is_due = |copy: &PieceCopy| copy.next_us.is_some_and(|at| draining || at <= now);
        let due: Vec<KeyId> = self.jobs.pieces.iter().filter(|(_, copy)| is_due(copy)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(copy) = self.jobs.pieces.get_mut(&id) else { continue };
            if !self.keys.is_reading(id, copy.token) {
                self.end_pieces(id);
                continue;
            }
            copy.next_us = None;
            let (key, token) = (copy.key.clone(), copy.token);
            let read = copy.pieces.read(&key.name);
            self.prepare(key.database, 2);
            self.keys.volatile.expect(id);
            let output = &mut self.links.authority_mut().output;
            push_request(output, &[b"PEXPIRETIME", &key.name]);
            output.extend_from_slice(&read);
            self.due.push(Awaiting::CopyDeadline);
            self.due.push(Awaiting::Piece { id, token });
        }
    }

    /// It was ended by a write, or is no longer wanted.
    fn end_pieces(&mut self, id: KeyId) {
        if let Some(copy) = self.jobs.pieces.remove(&id) {
            self.keys.pace(id, copy.bytes, self.now.mono_us);
            self.jobs.repair_over();
        }
    }

    pub(super) fn piece_arrived(&mut self, id: KeyId, token: u64, reply: &[u8]) {
        let deadline = self.due.read_deadline.unwrap_or(-1);
        self.keys.volatile.learn(id, deadline > 0);
        let Some(copy) = self.jobs.pieces.get_mut(&id).filter(|copy| copy.token == token) else { return };
        if !self.keys.is_reading(id, token) {
            return self.end_pieces(id);
        }
        copy.bytes += reply.len() as u64;
        let (key, bytes, now) = (copy.key.clone(), copy.bytes, self.now.mono_us);
        let mut effects = Effects::default();
        let written = copy.pieces.write(&key.name, reply, &mut effects);
        copy.next_us = Some(now + reply.len() as u64 * 1_000_000 / limits::COPIES_BYTES_PER_SECOND);
        let Ok(progress) = written else {
            self.keys.forget_type(id);
            return self.miss_pieces(&key, token);
        };
        if !self.shadow_takes() {
            return self.miss_pieces(&key, token);
        }
        let keys = Rc::from([key.clone()]);
        self.shadow.push_effects(self.links.shadow_mut(), key.database, effects, &keys, None, now);
        if progress == Progress::More {
            return;
        }
        let mut end = Effects::default();
        match self.shadow_deadline(deadline) {
            -2 => end.push(&[b"DEL", &key.name], Expect::NoError),
            at if at > 0 => {
                let set = Expect::Same(b":1\r\n".as_slice().into());
                end.push(&[b"PEXPIREAT", &key.name, &number(at)], set);
            }
            _ => end.push(&[b"PERSIST", &key.name], Expect::NoError),
        }
        self.jobs.pieces.remove(&id);
        let copied = Copied { key: key.clone(), purpose: CopyFor::Repair, token };
        if self.enqueue_copy(&copied, end, CopyContent::typed(bytes as usize)) == Queued::No {
            self.copy_failed(&copied);
        }
    }

    fn miss_pieces(&mut self, key: &KeyRef, token: u64) {
        self.keys.copy_missed(key, token, None, self.now.mono_us + limits::REPAIR_RETRY_US);
        self.end_pieces(key.id);
    }

    /// What has been written on the shadow, or read from the authority, is not to be relied on.
    pub(super) fn pieces_lost(&mut self) {
        for copy in self.jobs.pieces.values() {
            self.keys.copy_missed(&copy.key, copy.token, None, self.now.mono_us + limits::REPAIR_RETRY_US);
        }
    }

    /// Whether this is one key, and is being read in pieces.
    pub(super) fn is_read_in_pieces(&self, keys: &[KeyRef]) -> bool {
        let [key] = keys else { return false };
        let copy = self.jobs.pieces.get(&key.id);
        copy.is_some_and(|copy| self.keys.is_reading(key.id, copy.token))
    }

    /// Effects on a key that is being read in pieces.
    pub(super) fn enqueue_meanwhile(&mut self, database: u32, effects: &Effects, keys: &Rc<[KeyRef]>) -> Queued {
        let Some(copy) = keys.first().and_then(|key| self.jobs.pieces.get_mut(&key.id)) else { return Queued::Yes };
        let mut repeated = Effects::default();
        let mut rest = effects.bytes.as_slice();
        while let Some(len) = reply_len(rest) {
            let (frame, behind) = rest.split_at(len);
            rest = behind;
            match copy.pieces.meanwhile(frame) {
                // What it answers depends on how far the copy is.
                Meanwhile::Repeat => repeated.push_frame(frame, Expect::NoError),
                Meanwhile::Later => {}
                Meanwhile::Again => {
                    self.mark_all_dirty(keys);
                    return Queued::Yes;
                }
            }
        }
        if !repeated.is_empty() {
            self.shadow.push_effects(self.links.shadow_mut(), database, repeated, keys, None, self.now.mono_us);
        }
        Queued::Yes
    }
}
