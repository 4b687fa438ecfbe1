//! The lane of one interlay: its parts, how it begins and ends, and what it does after every step.
//!
//! Lives on one core, kept by `redis::companion`.

use std::sync::Arc;

use super::authority_queue::AuthorityQueue;
use super::caller::Caller;
use super::consumers::Consumers;
use super::holding::Holding;
use super::intents::{Confirmed, Found, IntentLog, Left};
use super::jobs::{Grace, Jobs, Opening, Pass};
use super::keys::{KeyId, KeyRef, KeyStates};
use super::link::Links;
use super::outgoing::Outgoing;
use super::request::{LaneBatch, LaneReply};
use super::scripts::Scripts;
use super::shadow_queue::ShadowQueue;
use super::waiters::Waiters;
use super::watches::Watches;
use base::model::{CoreId, RoutePlan, Side, limits};
use base::stdx::clock::Now;
use bus::counters::SideCounters;
use bus::{LaneEvent, LaneStatus, PassKind};
use policy::SharedPolicies;

/// The records policy that copies pass now.
#[derive(Debug)]
pub(super) struct RecordsPolicy {
    /// The same exactly where filter, module and configuration are; `None`: there is none.
    pub identity: Option<u64>,
    /// When the next record without a verdict is reported.
    pub next_report_us: u64,
}

/// What control is told of the lane's sets and queues.
#[derive(Debug, Default)]
pub(super) struct StatusReport {
    /// Counted since the lane began; what changes from moment to moment is filled in when it is sent.
    pub counts: LaneStatus,
    pub scripts: Scripts,
    last_us: u64,
    last: LaneStatus,
    /// It was told that the intent log is full, and not yet that it is complete again.
    told_full: bool,
    /// When that may be told again.
    next_full_us: u64,
}

/// How far the lane's end has come.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The plan has ended dual operation.
    pub retired: bool,
    /// No core has a command for this lane under way.
    pub closable: bool,
}

/// One lane.
#[derive(Debug)]
pub struct Lane {
    pub(super) plan: Arc<RoutePlan>,
    pub(super) policies: SharedPolicies,
    pub(super) records: RecordsPolicy,
    pub(super) links: Links,
    pub(super) due: AuthorityQueue,
    pub(super) shadow: ShadowQueue,
    pub(super) keys: KeyStates,
    pub(super) jobs: Jobs,
    pub(super) held: Holding,
    pub(super) watches: Watches,
    pub(super) waiters: Waiters,
    pub(super) consumers: Consumers,
    pub(super) out: Outgoing,
    pub(super) report: StatusReport,
    pub(super) ending: Ending,
    pub(super) now: Now,
}

impl Lane {
    /// Nothing is known of the shadow, and until [`bus::LaneOrder::Open`] other cores may still write past the lane: no pass runs before.
    #[must_use]
    pub fn new(plan: &Arc<RoutePlan>, policies: SharedPolicies, now: Now) -> Self {
        let identity = policies.borrow().record.as_ref().map(|seat| seat.identity);
        Self {
            plan: Arc::clone(plan),
            policies,
            records: RecordsPolicy { identity, next_report_us: 0 },
            links: Links::new(plan.authority.side),
            due: AuthorityQueue::default(),
            shadow: ShadowQueue::default(),
            keys: KeyStates::new(IntentLog::none(plan)),
            jobs: Jobs::default(),
            held: Holding::default(),
            watches: Watches::default(),
            waiters: Waiters::default(),
            consumers: Consumers::default(),
            out: Outgoing::default(),
            report: StatusReport::default(),
            ending: Ending::default(),
            now,
        }
    }

    /// What must be known after a kill of the process is written down here from now on, and what a predecessor has left is gone on with.
    pub fn keep_intents(&mut self, found: Found) {
        match found {
            Found::Nothing { log, why } => {
                self.keys.log = log;
                self.jobs.opening.why = why;
            }
            Found::Left(left) => self.take_up(*left),
        }
        if self.records.identity.is_some() {
            self.keys.log.records_policy();
        }
    }

    fn take_up(&mut self, left: Left) {
        let Left { log, records, header, flipped } = left;
        self.keys.take_up(log, &records);
        for (side, process) in [Side::Source, Side::Target].into_iter().zip(header.processes) {
            self.links.of_mut(side).run_id = process;
        }
        self.report.counts.scripts_unproven_at_ms = header.scripts_at_ms;
        self.report.counts.scripts_ran_at_ms = header.scripts_at_ms;
        // Each key is named once more: which of them are volatile is not written down.
        let why = format!("the process was started anew: {} keys in doubt are copied again", self.keys.dirty_count());
        let grace = if flipped { Grace::Returned } else { Grace::AsShadowSays };
        self.jobs.opening = Opening { kind: PassKind::Volatile, grace, why };
    }

    /// Begins the first pass; later calls do nothing.
    pub fn open(&mut self) {
        if self.jobs.pass.number == 0 {
            let Opening { kind, grace, ref mut why } = self.jobs.opening;
            let why = std::mem::take(why);
            self.start_pass(kind, grace, &why);
        }
    }

    /// Commands of one client.
    pub fn submit(&mut self, core: CoreId, batch: LaneBatch, now: Now) {
        self.now = now;
        if self.held.holds() {
            self.held.push(core, batch);
            return;
        }
        self.run_batch(core, batch);
        self.after_step();
    }

    /// A client is gone: what waits or watches for it ends, also what has not begun.
    pub fn client_gone(&mut self, client: Caller, now: Now) {
        self.held.forget(client);
        self.watches.client_gone(client);
        self.forget(client, now);
    }

    /// A client has given up its WATCH.
    pub fn forget(&mut self, client: Caller, now: Now) {
        self.now = now;
        self.watches.forget(client);
        self.waiters.forget(client);
        self.after_step();
    }

    /// Time passes: fences expire, waiters time out, repairs become due, status is reported.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.expire_waiters();
        self.after_step();
    }

    /// Other filters decide from now on. What was copied under another records policy is copied again.
    pub fn policies_changed(&mut self, now: Now) {
        self.now = now;
        self.adopt_records_policy();
        self.after_step();
    }

    /// A new plan for a lane that goes on. A change of authority takes effect at the release of the fence.
    pub fn publish(&mut self, plan: &Arc<RoutePlan>, now: Now) {
        self.now = now;
        if plan.authority.side == self.links.authority {
            self.plan = Arc::clone(plan);
            self.held.next_plan = None;
        } else {
            assert!(self.held.fence.is_some(), "I6: authority changes only behind a fence");
            self.held.next_plan = Some(Arc::clone(plan));
        }
    }

    // ---- out ----------------------------------------------------------------------------------------------------------

    #[must_use]
    pub fn has_output(&self, side: Side) -> bool {
        self.links.of(side).has_output()
    }

    /// Moves a connection's unsent bytes out; `recycled` becomes its next buffer.
    pub fn take_output(&mut self, side: Side, recycled: Vec<u8>) -> Option<Vec<u8>> {
        self.links.of_mut(side).take_output(recycled)
    }

    pub fn take_replies(&mut self) -> Vec<(CoreId, LaneReply)> {
        std::mem::take(&mut self.out.replies)
    }

    pub fn take_events(&mut self) -> Vec<LaneEvent> {
        std::mem::take(&mut self.out.events)
    }

    /// What both sides have answered in this lane: source, target.
    #[must_use]
    pub fn side_counters(&self) -> (&SideCounters, &SideCounters) {
        (&self.links.of(Side::Source).counters, &self.links.of(Side::Target).counters)
    }

    // ---- end ------------------------------------------------------------------------------------------------------------

    /// Dual operation is over: no more repairs; blocked clients are sent back to their cores.
    pub fn retire(&mut self) {
        self.ending.retired = true;
        self.keys.log.every_key_is_uncopied(false);
        self.dismiss_waiters();
    }

    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.ending.retired
    }

    #[must_use]
    pub fn is_retired_and_idle(&self) -> bool {
        self.ending.retired && self.ending.closable && self.is_idle() && self.out.replies.is_empty()
    }

    /// Nothing a client waits for is outstanding, and the shadow has all effects it can be given.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.held.is_empty() && (self.shadow.is_empty() || !self.links.shadow().connected)
    }

    // ---- shared by the parts ----------------------------------------------------------------------------------------------

    /// Whatever happened, some of this may now be possible.
    pub(super) fn after_step(&mut self) {
        let confirmed = Confirmed { taken: self.due.taken(), waiting: self.shadow.oldest_follows() };
        self.keys.settle(confirmed, self.due.end());
        self.tell_of_intents();
        if self.keys.dirty_count() > limits::DIRTY_KEYS_MAX {
            self.begin_pass(PassKind::Full, "too many dirty keys to keep by name");
        }
        self.repair_some();
        self.ask_for_pieces();
        // Control must have seen what is true behind a fence before it decides on it: the status goes first.
        self.report_status();
        self.advance_fence();
    }

    pub(super) fn both_connected(&self) -> bool {
        self.links.authority().connected && self.links.shadow().connected && !self.shadow.refused
    }

    /// Everything is uncopied again. Before the first pass has begun there is nothing to do: it will be a full one.
    pub(super) fn begin_pass(&mut self, kind: PassKind, reason: &str) {
        if self.jobs.pass.number > 0 {
            self.start_pass(kind, Grace::Returned, reason);
        }
    }

    fn start_pass(&mut self, kind: PassKind, grace: Grace, reason: &str) {
        let number = self.jobs.pass.number + 1;
        self.jobs.pass = Pass { number, kind, grace, done: false };
        self.keys.begin_pass(kind == PassKind::Full, self.records.identity.is_some());
        self.consumers.forget();
        self.out.tell(LaneEvent::PassStarted { pass: number, kind, reason: reason.to_owned() });
    }

    /// Adopts another records policy. Not behind a fence, where nothing may be copied: its end asks again. Not in a lane that is
    /// retired, whose copies under way would not pass the policy any more: without a verdict they are not made.
    pub(super) fn adopt_records_policy(&mut self) {
        if self.ending.retired || self.held.fence.is_some() {
            return;
        }
        let identity = self.policies.borrow().record.as_ref().map(|seat| seat.identity);
        let changed = std::mem::replace(&mut self.records.identity, identity) != identity;
        if changed && identity.is_some() {
            self.keys.log.records_policy();
        }
        // Copies towards the source pass no policy.
        if changed && self.links.authority == Side::Source {
            self.begin_pass(PassKind::Full, "the records policy is another one");
        }
    }

    /// An answer of the lane's own, behind everything this client already has in the lane.
    pub(super) fn answer_in_order(&mut self, to: Caller, bytes: Vec<u8>) {
        self.due.answer(to, bytes, &mut self.out);
    }

    pub(super) fn mark_dirty(&mut self, key: &KeyRef) {
        self.keys.mark_dirty(key);
    }

    pub(super) fn mark_all_dirty(&mut self, keys: &[KeyRef]) {
        for key in keys {
            self.mark_dirty(key);
        }
    }

    /// This key's shadow is right, or will be by what is queued. When the pass is over all are known.
    pub(super) fn note_clean(&mut self, id: KeyId) {
        if !self.jobs.pass.done {
            self.keys.set_clean(id);
        }
    }

    /// The copy of this key has been emitted, or the pass is over.
    pub(super) fn is_known(&self, key: &KeyRef) -> bool {
        self.jobs.pass.done || self.keys.is_clean(key.id)
    }

    /// Says when the intent log has become full, and when it is complete again.
    fn tell_of_intents(&mut self) {
        let (log, report, now_us) = (&self.keys.log, &mut self.report, self.now.mono_us);
        let turned =
            if report.told_full { log.is_whole() } else { log.is_overflowed() && now_us >= report.next_full_us };
        if turned {
            report.told_full = !report.told_full;
            report.next_full_us = now_us + limits::INTENT_LOG_TOLD_US;
            self.out.tell(LaneEvent::IntentLog { full: report.told_full });
        }
    }

    // ---- status -----------------------------------------------------------------------------------------------------------

    pub(super) fn status(&self) -> LaneStatus {
        let shadow = self.links.shadow();
        LaneStatus {
            at_ms: self.now.wall_ms as u64,
            pass: self.jobs.pass.number,
            uncopied: !self.jobs.pass.done,
            dirty: self.keys.dirty_count() as u64,
            in_flight: (self.shadow.len() + self.due.len()) as u64,
            shadow_queue_bytes: shadow.output.len() as u64,
            shadow_lag_us: self.shadow.lag_us(self.now.mono_us),
            dirtied: self.keys.dirtied,
            altered: self.keys.altered_count() as u64,
            authority_connected: self.links.authority().connected,
            shadow_connected: shadow.connected && !self.shadow.refused,
            ..self.report.counts
        }
    }

    /// At the set interval, and soon when dirty or uncopied become or stop being empty; at once behind a fence.
    fn report_status(&mut self) {
        let last = &self.report.last;
        let turned = last.uncopied == self.jobs.pass.done || (last.dirty == 0) != (self.keys.dirty_count() == 0);
        let now = self.now.mono_us;
        let may_turn = self.held.fence.is_some() || now >= self.report.last_us + limits::LANE_STATUS_TURN_US;
        if now < self.report.last_us + limits::LANE_STATUS_US && !(turned && may_turn) {
            return;
        }
        self.report.last_us = now;
        self.report.last = self.status();
        self.out.tell(LaneEvent::Status(self.report.last));
    }
}
