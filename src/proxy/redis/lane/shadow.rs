//! What is queued for the shadow (effects, copies and reads, in lane order), and what its replies say about the keys.

use std::rc::Rc;

use super::authority_queue::{Copied, CopyFor, Place};
use super::keys::KeyRef;
use super::shadow_queue::{Because, Compared, CopyContent, CopyPart, DeadlineRead, Purpose};
use super::state::Lane;
use base::model::limits;
use bus::{LaneEvent, PassKind};
use wire::resp::copy::data_type;
use wire::resp::effect::{Effects, Expect, is_error};

/// The effects stand in the queue, or their keys are dirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    /// The shadow takes nothing now.
    No,
}

impl Lane {
    /// Queues effects on `keys`. Where that cannot be done the keys become dirty.
    pub(super) fn enqueue(&mut self, database: u32, effects: Effects, keys: &Rc<[KeyRef]>, because: Because) -> Queued {
        if effects.is_empty() {
            return Queued::Yes;
        }
        if !self.shadow_takes() {
            self.mark_all_dirty(keys);
            return Queued::No;
        }
        if because == Because::Effect && self.is_read_in_pieces(keys) {
            return self.enqueue_meanwhile(database, &effects, keys);
        }
        if because == Because::Effect && keys.iter().any(|key| self.keys.is_unhealed(key.id)) {
            // One of several keys is wrong on the shadow, so the result would be wrong on all: all are copied again.
            self.mark_all_dirty(keys);
            return Queued::Yes;
        }
        let token = (because == Because::Overwrite && keys.iter().any(|key| self.keys.is_dirty(key.id)))
            .then(|| self.keys.token());
        if let Some(token) = token {
            for key in keys.iter() {
                self.keys.overwritten(key.id, token);
            }
        }
        self.shadow.push_effects(self.links.shadow_mut(), database, effects, keys, token, self.now.mono_us);
        Queued::Yes
    }

    /// Queues a whole value.
    pub(super) fn enqueue_copy(&mut self, copied: &Copied, effects: Effects, content: CopyContent) -> Queued {
        if !self.shadow_takes() {
            return Queued::No;
        }
        self.shadow.push_copy(self.links.shadow_mut(), copied, effects, content, self.now.mono_us);
        self.keys.copy_queued(copied.key.id, copied.token);
        if copied.purpose == CopyFor::Repair {
            self.keys.pace(copied.key.id, content.bytes, self.now.mono_us);
        }
        Queued::Yes
    }

    /// Queues a read. False where the shadow does not take it.
    pub(super) fn enqueue_read(&mut self, database: u32, frame: &[u8], purpose: Purpose) -> bool {
        let taken = self.repeat(database, frame);
        if taken {
            self.shadow.push(purpose, self.now.mono_us);
        }
        taken
    }

    /// Queues the read that is compared. False where the shadow does not take it.
    pub(super) fn enqueue_compared(&mut self, compared: Box<Compared>) -> bool {
        let taken = self.repeat(compared.read.keys[0].database, &compared.read.frame);
        if taken {
            self.shadow.push(Purpose::Compare(compared), self.now.mono_us);
        }
        taken
    }

    fn repeat(&mut self, database: u32, frame: &[u8]) -> bool {
        let takes = self.shadow_takes();
        if takes {
            let link = self.links.shadow_mut();
            self.shadow.select(link, database, self.now.mono_us);
            link.output.extend_from_slice(frame);
        }
        takes
    }

    pub(super) fn shadow_takes(&mut self) -> bool {
        self.shadow.takes(self.links.shadow())
    }

    // ---- replies --------------------------------------------------------------------------------------------------------

    pub(super) fn shadow_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        let sent = self.shadow.pop().ok_or("the shadow answered nothing that was asked")?;
        let latency_us = self.now.mono_us.saturating_sub(sent.at_us);
        let counters = &mut self.links.shadow_mut().counters;
        counters.answered(is_error(reply));
        counters.latency_us.record(latency_us, 1);
        match sent.purpose {
            Purpose::Prepared => {
                if is_error(reply) {
                    self.refuse_shadow(reply);
                }
            }
            Purpose::Effect { keys, expect, token } => self.effect_answered(&keys, &expect, token, reply),
            Purpose::CopyPart(part) => self.copy_part_answered(&part, reply),
            Purpose::Compare(compared) => self.compared(&compared, reply, latency_us),
            Purpose::Mirrored => {}
            Purpose::Probe { ticket, place } => self.probe_repeated(ticket, place, reply),
            Purpose::Deadline(read) => self.shadow_deadline_arrived(&read, reply),
        }
        Ok(())
    }

    fn effect_answered(&mut self, keys: &[KeyRef], expect: &Expect, token: Option<u64>, reply: &[u8]) {
        if !meets(expect, reply) {
            tracing::debug!(reply = %String::from_utf8_lossy(reply).trim(), "the shadow's reply to an effect is not the expected one");
            self.jobs.refusals += 1;
            self.mark_all_dirty(keys);
            if keys.is_empty() {
                self.begin_pass(PassKind::Full, "the shadow refused a FLUSH or a change of scripts");
            }
        } else if let Some(token) = token {
            for key in keys {
                self.keys.healed(key.id, token);
            }
        }
    }

    /// A database the shadow does not have: what was queued behind the SELECT ran in another one, so nothing there is trusted any
    /// more, and nothing more is sent until the operator has corrected its configuration and it is connected anew.
    fn refuse_shadow(&mut self, reply: &[u8]) {
        if self.shadow.refused {
            return;
        }
        self.shadow.refused = true;
        let side = self.links.authority.other();
        let reason = format!("it refused to change database or protocol: {}", String::from_utf8_lossy(reply).trim());
        self.out.tell(LaneEvent::SideLost { side, reason });
        self.begin_pass(PassKind::Full, "the shadow has fewer databases than the authority");
    }

    fn copy_part_answered(&mut self, part: &CopyPart, reply: &[u8]) {
        let good = meets(&part.expect, reply);
        if !good {
            self.copy_refused(part, reply);
        }
        if part.place == Place::NotLast {
            return;
        }
        let Copied { key, purpose, token } = &part.copied;
        if good {
            self.keys.healed(key.id, *token);
        }
        match *purpose {
            CopyFor::Ticket(ticket) => {
                let CopyContent { bytes, absent, .. } = part.content;
                self.end_of_ticketed(ticket, |ticket| {
                    ticket.absent += u64::from(absent);
                    ticket.copied += u64::from(!absent);
                    ticket.bytes += bytes;
                });
            }
            CopyFor::Repair => self.jobs.repair_over(),
            CopyFor::FirstWrite => {}
        }
    }

    /// A dump whose form the shadow does not know is copied by type from now on, and so is every dump of that form.
    fn copy_refused(&mut self, part: &CopyPart, reply: &[u8]) {
        self.jobs.refusals += 1;
        tracing::debug!(reply = %String::from_utf8_lossy(reply).trim(), "the shadow refused a copy");
        let unknown_form = [b"Bad data".as_slice(), b"DUMP payload"]
            .iter()
            .any(|text| reply.windows(text.len()).any(|window| window == *text));
        let key = &part.copied.key;
        match part.content.dump_type {
            Some(form) if unknown_form => {
                self.links.shadow_mut().refuse_type(form);
                if part.content.bytes > limits::PIECES_FROM_BYTES as u64
                    && let Some(kind) = data_type(&[form])
                {
                    self.keys.set_by_type(key.id, kind);
                }
                self.keys.copy_missed(key, part.copied.token, data_type(&[form]), 0);
            }
            Some(_) | None => {
                let again_us = self.now.mono_us + limits::REPAIR_RETRY_US;
                self.keys.copy_missed(key, part.copied.token, None, again_us);
            }
        }
    }

    /// The outcome of everything sent to the shadow is unknown.
    pub(super) fn shadow_lost(&mut self) {
        for sent in self.shadow.take_all() {
            match sent.purpose {
                Purpose::Prepared | Purpose::Mirrored => {}
                Purpose::Effect { keys, .. } => {
                    if keys.is_empty() {
                        self.begin_pass(
                            PassKind::Full,
                            "the outcome of a FLUSH or script change on the shadow is unknown",
                        );
                    }
                    self.mark_all_dirty(&keys);
                }
                Purpose::CopyPart(part) => match part.place {
                    Place::Last => self.copy_failed(&part.copied),
                    Place::NotLast => self.mark_dirty(&part.copied.key),
                },
                Purpose::Compare(_) => self.report.counts.reads_not_comparable += 1,
                Purpose::Probe { ticket, .. } => self.fail_probe(ticket, "the shadow's connection was lost"),
                Purpose::Deadline(read) => {
                    let DeadlineRead { key, ticket, .. } = *read;
                    self.copy_failed(&Copied { key, purpose: CopyFor::Ticket(ticket), token: 0 });
                }
            }
        }
        self.pieces_lost();
        self.links.shadow_mut().output.clear();
    }
}

fn meets(expect: &Expect, reply: &[u8]) -> bool {
    match expect {
        Expect::NoError => !is_error(reply),
        Expect::Same(same) => **same == *reply,
    }
}
