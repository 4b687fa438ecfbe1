//! The shadow's queue: effects, copies and reads in lane order, and what their replies say about the keys.

use std::rc::Rc;

use super::Lane;
use super::authority::CopyFor;
use super::keys::KeyRef;
use super::pair::Compared;
use base::model::limits;
use bus::{LaneEvent, PassKind};
use wire::resp::copy::data_type;
use wire::resp::effect::{Effects, Expect, is_error};
use wire::resp::encode::push_request;

/// One request sent to (or queued for) the shadow and not yet answered.
#[derive(Debug)]
pub(super) struct Sent {
    pub purpose: Purpose,
    pub at_us: u64,
}

/// What the reply to a request on the shadow is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// SELECT.
    Swallow,
    /// A part of an effect on these keys; with `token` its success heals them.
    Effect {
        keys: Rc<[KeyRef]>,
        expect: Expect,
        token: Option<u64>,
    },
    /// Describes a copy; in the queue it is [`Purpose::CopyPart`].
    Copy {
        bytes: u64,
        absent: bool,
        dump_type: Option<u8>,
    },
    CopyPart(Box<CopyPart>),
    Compare(Box<Compared>),
    /// A read whose answer nobody looks at.
    Mirrored,
    Probe {
        ticket: u64,
        last: bool,
    },
}

/// One request of a copy.
#[derive(Debug)]
pub(super) struct CopyPart {
    key: KeyRef,
    purpose: CopyFor,
    token: u64,
    expect: Expect,
    last: bool,
    bytes: u64,
    absent: bool,
    /// First byte of the dump; none for a typed copy.
    dump_type: Option<u8>,
}

/// What an effect does to a key that is dirty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// It builds on the old value: useless while the shadow's is wrong.
    Effect,
    /// It replaces the value whole, and so heals it.
    Overwrite,
}

impl Lane {
    /// Queues effects on `keys`. Where that cannot be done the keys become dirty; false then.
    pub(super) fn enqueue(&mut self, database: u32, effects: Effects, keys: &Rc<[KeyRef]>, because: Because) -> bool {
        if effects.is_empty() {
            return true;
        }
        if !self.shadow_takes() {
            self.mark_all_dirty(keys);
            return false;
        }
        if because == Because::Effect && keys.iter().any(|key| self.keys.is_unhealed(key.id)) {
            // One of several keys is wrong on the shadow, so the result would be wrong on all: all are copied again.
            self.mark_all_dirty(keys);
            return true;
        }
        let token = (because == Because::Overwrite && keys.iter().any(|key| self.keys.is_dirty(key.id)))
            .then(|| self.keys.token());
        if let Some(token) = token {
            for key in keys.iter() {
                self.keys.start_healing(key.id, token);
            }
        }
        self.select(database);
        self.shadow_link_output().extend_from_slice(&effects.bytes);
        for expect in effects.expects {
            self.push_sent(Purpose::Effect { keys: Rc::clone(keys), expect, token });
        }
        true
    }

    /// Queues a whole value. False where the shadow does not take it.
    pub(super) fn enqueue_copy(
        &mut self,
        key: &KeyRef,
        purpose: CopyFor,
        token: u64,
        effects: Effects,
        what: Purpose,
    ) -> bool {
        let Purpose::Copy { bytes, absent, dump_type } = what else { return false };
        if !self.shadow_takes() {
            return false;
        }
        self.select(key.database);
        self.shadow_link_output().extend_from_slice(&effects.bytes);
        let count = effects.expects.len();
        for (at, expect) in effects.expects.into_iter().enumerate() {
            let last = at + 1 == count;
            let part = CopyPart { key: key.clone(), purpose, token, expect, last, bytes, absent, dump_type };
            self.push_sent(Purpose::CopyPart(Box::new(part)));
        }
        true
    }

    /// Queues a read. False where the shadow does not take it.
    pub(super) fn enqueue_read(&mut self, database: u32, frame: &[u8], purpose: Purpose) -> bool {
        let taken = self.repeat(database, frame);
        if taken {
            self.push_sent(purpose);
        }
        taken
    }

    /// Queues the read that [`Purpose::Compare`] keeps. False where the shadow does not take it.
    pub(super) fn enqueue_compared(&mut self, compared: Box<Compared>) -> bool {
        let taken = self.repeat(compared.read.keys[0].database, &compared.read.frame);
        if taken {
            self.push_sent(Purpose::Compare(compared));
        }
        taken
    }

    fn repeat(&mut self, database: u32, frame: &[u8]) -> bool {
        let takes = self.shadow_takes();
        if takes {
            self.select(database);
            self.shadow_link_output().extend_from_slice(frame);
        }
        takes
    }

    fn push_sent(&mut self, purpose: Purpose) {
        self.sent.push_back(Sent { purpose, at_us: self.now.mono_us });
    }

    fn shadow_link_output(&mut self) -> &mut Vec<u8> {
        &mut self.link(self.authority.other()).output
    }

    fn select(&mut self, database: u32) {
        let link = self.link(self.authority.other());
        if link.database != database {
            link.database = database;
            push_request(&mut link.output, &[b"SELECT", database.to_string().as_bytes()]);
            self.push_sent(Purpose::Swallow);
        }
    }

    /// I9: the queue is bounded; what does not fit becomes dirty keys, until half of it is gone.
    fn shadow_takes(&mut self) -> bool {
        let link = self.link_ref(self.authority.other());
        let (connected, queued) = (link.connected, link.output.len());
        if self.overflowed {
            self.overflowed = queued > limits::SHADOW_QUEUE_BYTES_MAX / 2;
        } else if queued > limits::SHADOW_QUEUE_BYTES_MAX {
            tracing::warn!("the shadow's queue is full; effects become dirty keys until it has drained");
            self.overflowed = true;
        }
        connected && !self.overflowed && !self.shadow_refused
    }

    // ---- replies --------------------------------------------------------------------------------------------------------

    pub(super) fn shadow_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        let sent = self.sent.pop_front().ok_or("the shadow answered nothing that was asked")?;
        let latency_us = self.now.mono_us.saturating_sub(sent.at_us);
        let counters = self.counters_of(self.authority.other());
        counters.answered(is_error(reply));
        counters.latency_us.record(latency_us, 1);
        match sent.purpose {
            Purpose::Copy { .. } => {}
            Purpose::Swallow => {
                if is_error(reply) {
                    self.refuse_shadow(reply);
                }
            }
            Purpose::Effect { keys, expect, token } => {
                if !meets(&expect, reply) {
                    tracing::debug!(reply = %String::from_utf8_lossy(reply).trim(), "the shadow's reply to an effect is not the expected one");
                    self.mark_all_dirty(&keys);
                    if keys.is_empty() {
                        self.begin_pass(PassKind::Full, "the shadow refused a FLUSH or a change of scripts");
                    }
                } else if let Some(token) = token {
                    for key in keys.iter() {
                        self.keys.healed(key.id, token);
                    }
                }
            }
            Purpose::CopyPart(part) => self.copy_part_answered(&part, reply),
            Purpose::Compare(compared) => self.compared(&compared, reply, latency_us),
            Purpose::Mirrored => {}
            Purpose::Probe { ticket, last } => self.probe_done(ticket, last, reply),
        }
        Ok(())
    }

    /// A database the shadow does not have: what was queued behind the SELECT ran in another one, so nothing there is trusted any
    /// more, and nothing more is sent until the operator has mended it and the connection is made anew.
    fn refuse_shadow(&mut self, reply: &[u8]) {
        if self.shadow_refused {
            return;
        }
        self.shadow_refused = true;
        let side = self.authority.other();
        let reason = format!("it refused to change database or protocol: {}", String::from_utf8_lossy(reply).trim());
        self.events.push(LaneEvent::SideLost { side, reason });
        self.begin_pass(PassKind::Full, "the shadow has fewer databases than the authority");
    }

    fn copy_part_answered(&mut self, part: &CopyPart, reply: &[u8]) {
        let good = meets(&part.expect, reply);
        if !good {
            self.copy_refused(part, reply);
        }
        if !part.last {
            return;
        }
        if good {
            self.keys.healed(part.key.id, part.token);
        }
        match part.purpose {
            CopyFor::Ticket(ticket) => {
                let (bytes, absent) = (part.bytes, part.absent);
                self.end_of_ticketed(ticket, |ticket| {
                    ticket.absent += u64::from(absent);
                    ticket.copied += u64::from(!absent);
                    ticket.bytes += bytes;
                });
            }
            CopyFor::Repair => self.repairs_in_flight = self.repairs_in_flight.saturating_sub(1),
            CopyFor::FirstWrite | CopyFor::Command { .. } => {}
        }
    }

    /// A dump whose form the shadow does not know is copied by type from now on, and so is every dump of that form.
    fn copy_refused(&mut self, part: &CopyPart, reply: &[u8]) {
        tracing::debug!(reply = %String::from_utf8_lossy(reply).trim(), "the shadow refused a copy");
        let unknown_form = [b"Bad data".as_slice(), b"DUMP payload"]
            .iter()
            .any(|text| reply.windows(text.len()).any(|window| window == *text));
        match part.dump_type {
            Some(form) if unknown_form => {
                self.link(self.authority.other()).refused_types |= 1 << u32::from(form.min(31));
                self.keys.mark_dirty(&part.key, data_type(&[form]), 0);
            }
            _ => self.keys.mark_dirty(&part.key, None, self.now.mono_us + limits::REPAIR_RETRY_US),
        }
    }

    fn probe_done(&mut self, ticket: u64, last: bool, reply: &[u8]) {
        if let Some(probing) = self.probes.get_mut(&ticket) {
            probing.shadow.push(reply.into());
        }
        if last && let Some(probing) = self.probes.remove(&ticket) {
            // A key that was dirty when its read was queued is dirty still, or was healed by a copy queued in front of the read.
            let dirty = |keys: &[KeyRef]| keys.iter().any(|key| self.keys.is_dirty(key.id));
            let doubtful = probing.keys.iter().map(|(keys, uncopied)| *uncopied || dirty(keys)).collect();
            let (authority, shadow) = (probing.authority, probing.shadow);
            self.events.push(LaneEvent::Probed { ticket, authority, shadow, doubtful });
        }
    }

    /// The outcome of everything sent to the shadow is unknown.
    pub(super) fn shadow_lost(&mut self) {
        for sent in std::mem::take(&mut self.sent) {
            match sent.purpose {
                Purpose::Swallow | Purpose::Copy { .. } => {}
                Purpose::Effect { keys, .. } => {
                    if keys.is_empty() {
                        self.begin_pass(
                            PassKind::Full,
                            "the outcome of a FLUSH or script change on the shadow is unknown",
                        );
                    }
                    self.mark_all_dirty(&keys);
                }
                Purpose::CopyPart(part) => {
                    if part.last {
                        self.copy_failed(&part.key, part.purpose);
                    } else {
                        self.mark_dirty(&part.key);
                    }
                }
                Purpose::Mirrored => {}
                Purpose::Compare(_) => self.counts.reads_not_comparable += 1,
                Purpose::Probe { ticket, .. } => {
                    if self.probes.remove(&ticket).is_some() {
                        let reason = "the shadow's connection was lost".to_owned();
                        self.events.push(LaneEvent::ProbeFailed { ticket, reason });
                    }
                }
            }
        }
        self.link(self.authority.other()).output.clear();
    }

    /// Whether this shadow has refused a dump of this form before.
    pub(super) fn is_refused_type(&self, payload: &[u8]) -> bool {
        self.link_ref(self.authority.other()).refused_types & (1 << u32::from(payload[0].min(31))) != 0
    }
}

fn meets(expect: &Expect, reply: &[u8]) -> bool {
    match expect {
        Expect::NoError => !is_error(reply),
        Expect::Same(same) => **same == *reply,
    }
}
