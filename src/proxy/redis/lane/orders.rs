//! What control and its jobs ask of the lane: copies of named keys, probes, repairs; and the repairs the lane makes by itself.

use super::authority_queue::Place;
use super::authority_queue::{Awaiting, CopyFor};
use super::jobs::{Probing, Ticket};
use super::keys::KeyRef;
use super::shadow_queue::Purpose;
use super::state::Lane;
use base::model::limits;
use base::stdx::clock::Now;
use bus::{LaneEvent, LaneOrder, PassKind};
use wire::resp::Args;
use wire::resp::command;
use wire::resp::encode::push_request;

impl Lane {
    /// An order of control or of one of its jobs.
    pub fn order(&mut self, order: LaneOrder, now: Now) {
        self.now = now;
        match order {
            LaneOrder::Copy { .. } | LaneOrder::Probe { .. } if !self.both_connected() => self.park(order),
            // Control has been told that nothing is dirty or in flight; it stays so until it has decided.
            LaneOrder::Copy { .. } | LaneOrder::Probe { .. } | LaneOrder::Repair { .. } if self.held.is_reported() => {
                self.park(order);
            }
            LaneOrder::Copy { ticket, pass, database, keys } => self.copy_order(ticket, pass, database, &keys),
            LaneOrder::Probe { ticket, database, commands, heal } => self.probe_order(ticket, database, commands, heal),
            LaneOrder::Open => self.open(),
            LaneOrder::Close => self.ending.closable = true,
            LaneOrder::PassDone { pass } => {
                if pass == self.jobs.pass.number && !self.jobs.pass.done {
                    self.jobs.pass.done = true;
                    self.keys.end_pass(self.due.end());
                }
            }
            LaneOrder::Repair { database, keys } => {
                for name in &keys {
                    self.mark_dirty(&KeyRef::new(database, name));
                }
            }
            LaneOrder::Fence { ticket, budget_us } => self.begin_fence(ticket, budget_us),
            LaneOrder::Release { ticket } => self.release(ticket),
        }
        self.after_step();
    }

    /// Keeps an order until it can be carried out; more than a job has outstanding are refused at once.
    fn park(&mut self, order: LaneOrder) {
        if self.jobs.waiting.len() < limits::LANE_ORDERS_PARKED_MAX {
            self.jobs.waiting.push_back(order);
        } else if let Some(refused) = order.refused("too many orders wait for the lane") {
            self.out.tell(refused);
        }
    }

    pub(super) fn run_parked(&mut self) {
        if self.both_connected() {
            for order in std::mem::take(&mut self.jobs.waiting) {
                self.order(order, self.now);
            }
        }
    }

    /// A batch of keys named by the backfill.
    fn copy_order(&mut self, ticket: u64, pass: u64, database: u32, names: &[Box<[u8]>]) {
        let count = names.len() as u64;
        if pass != self.jobs.pass.number || self.jobs.pass.done {
            self.out.tell(Ticket { clean: count, ..Ticket::default() }.event(ticket));
            return;
        }
        let mut state = Ticket { left: count, ..Ticket::default() };
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
            if self.jobs.pass.kind == PassKind::Full && self.keys.by_type(key.id).is_some() {
                self.mark_dirty(&key);
                state.left -= 1;
                state.clean += 1;
                continue;
            }
            match self.jobs.pass.kind {
                PassKind::Full => self.emit_copy(&key, CopyFor::Ticket(ticket), None),
                PassKind::Volatile => {
                    self.keys.volatile.expect(key.id);
                    push_request(&mut self.links.authority_mut().output, &[b"PEXPIRETIME", &key.name]);
                    self.due.push(Awaiting::RefreshDeadline { key, ticket });
                }
            }
        }
        self.jobs.tickets.insert(ticket, state);
        self.close_ticket(ticket);
    }

    pub(super) fn end_of_ticketed(&mut self, number: u64, count: impl FnOnce(&mut Ticket)) {
        if let Some(ticket) = self.jobs.tickets.get_mut(&number) {
            count(ticket);
            ticket.left = ticket.left.saturating_sub(1);
            self.close_ticket(number);
        }
    }

    fn close_ticket(&mut self, number: u64) {
        if self.jobs.tickets.get(&number).is_some_and(|ticket| ticket.left == 0)
            && let Some(ticket) = self.jobs.tickets.remove(&number)
        {
            self.report.counts.copied_keys += ticket.copied;
            self.report.counts.copied_bytes += ticket.bytes;
            self.out.tell(ticket.event(number));
        }
    }

    /// Keys whose shadow is in doubt are copied again, a few at a time.
    pub(super) fn repair_some(&mut self) {
        if !self.both_connected() || self.shadow.overflowed || self.ending.retired || self.waits_for_records_policy() {
            return;
        }
        while self.jobs.repairs_in_flight < limits::REPAIRS_IN_FLIGHT {
            let Some((key, typed)) = self.keys.next_repair(self.now.mono_us) else { return };
            self.jobs.repairs_in_flight += 1;
            match self.pieces_of(key.id) {
                Some(pieces) => self.begin_pieces(key, pieces),
                None => {
                    self.prepare(key.database, 2);
                    self.emit_copy(&key, CopyFor::Repair, typed);
                }
            }
        }
    }

    // ---- probes ---------------------------------------------------------------------------------------------------------

    fn probe_order(&mut self, ticket: u64, database: u32, commands: Vec<Box<[u8]>>, heal: bool) {
        if commands.is_empty() {
            let (authority, shadow, doubtful) = (Vec::new(), Vec::new(), Vec::new());
            self.out.tell(LaneEvent::Probed { ticket, authority, shadow, doubtful });
            return;
        }
        self.prepare(database, 2);
        if heal {
            self.copy_what_is_dirty(database, &commands);
        }
        for frame in &commands {
            self.links.authority_mut().output.extend_from_slice(frame);
            self.due.push(Awaiting::Probe { ticket });
        }
        let (authority, shadow, keys) = (Vec::new(), Vec::new(), Vec::new());
        self.jobs.probes.insert(ticket, Probing { database, commands, authority, shadow, keys, refusals: 0 });
    }

    /// Copies right in front of a probe, on the same connection: the probe's reads see the value that is copied. Values that are read in pieces, or
    /// that a policy judges first, would come too late for it.
    fn copy_what_is_dirty(&mut self, database: u32, commands: &[Box<[u8]>]) {
        if self.judges_records() {
            return;
        }
        let keys: Vec<KeyRef> = commands.iter().flat_map(|frame| keys_of_read(database, frame)).collect();
        for (at, key) in keys.iter().enumerate() {
            let repeated = keys[..at].iter().any(|other| other.id == key.id);
            if !repeated && self.keys.is_dirty(key.id) && self.pieces_of(key.id).is_none() {
                let typed = self.keys.typed_copy_of(key.id);
                self.jobs.repairs_in_flight += 1;
                self.emit_copy(key, CopyFor::Repair, typed);
            }
        }
    }

    /// The authority answered one command of a probe; after the last the shadow is asked.
    pub(super) fn probe_answered(&mut self, ticket: u64, reply: &[u8]) {
        let Some(probing) = self.jobs.probes.get_mut(&ticket) else { return };
        probing.authority.push(reply.into());
        if probing.authority.len() < probing.commands.len() {
            return;
        }
        let (database, commands) = (probing.database, std::mem::take(&mut probing.commands));
        let keys = commands.iter().map(|frame| self.keys_of_probe(database, frame)).collect();
        if let Some(probing) = self.jobs.probes.get_mut(&ticket) {
            probing.keys = keys;
            probing.refusals = self.jobs.refusals;
        }
        for (at, frame) in commands.iter().enumerate() {
            let place = Place::of(at, commands.len());
            if !self.enqueue_read(database, frame, Purpose::Probe { ticket, place }) {
                self.fail_probe(ticket, "the shadow cannot be asked now");
                return;
            }
        }
    }

    fn keys_of_probe(&self, database: u32, frame: &[u8]) -> (Vec<KeyRef>, bool) {
        let keys = keys_of_read(database, frame);
        let doubtful =
            |key: &KeyRef| !self.is_known(key) || self.keys.is_altered(key.id) || self.keys.is_unhealed(key.id);
        let any = keys.iter().any(doubtful);
        (keys, any)
    }

    /// The shadow answered one command of a probe.
    pub(super) fn probe_repeated(&mut self, ticket: u64, place: Place, reply: &[u8]) {
        if let Some(probing) = self.jobs.probes.get_mut(&ticket) {
            probing.shadow.push(reply.into());
        }
        if place == Place::Last
            && let Some(probing) = self.jobs.probes.remove(&ticket)
        {
            // What became dirty since was written behind the read, unless the shadow did not take what stood in front of it.
            let refused = self.jobs.refusals != probing.refusals;
            let dirty = |keys: &[KeyRef]| refused && keys.iter().any(|key| self.keys.is_dirty(key.id));
            let doubtful = probing.keys.iter().map(|(keys, doubtful)| *doubtful || dirty(keys)).collect();
            let (authority, shadow) = (probing.authority, probing.shadow);
            self.out.tell(LaneEvent::Probed { ticket, authority, shadow, doubtful });
        }
    }

    pub(super) fn fail_probe(&mut self, ticket: u64, reason: &str) {
        if self.jobs.probes.remove(&ticket).is_some() {
            self.out.tell(LaneEvent::ProbeFailed { ticket, reason: reason.to_owned() });
        }
    }
}

fn keys_of_read(database: u32, frame: &[u8]) -> Vec<KeyRef> {
    let command = Args::new(frame).next().map_or(&command::UNKNOWN, command::lookup);
    command.keys_of(frame).unwrap_or_default().0.iter().map(|name| KeyRef::new(database, name)).collect()
}
