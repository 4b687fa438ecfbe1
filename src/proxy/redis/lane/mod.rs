//! Dual operation of one interlay, without I/O: one ordered stream of writes on the authority, and their effects on the shadow.
//!
//! Lives on one core, kept by `redis::companion`. Commands, orders and bytes of two connections go in; bytes for the two connections, replies
//! and events come out. Time is an argument. The invariants I1 to I9 are those of the design; where one is kept is said there.
//!
//! * [`emit`]: what is sent to the authority for each command, copy and probe: position order is execution order (I2, I3).
//! * [`authority`]: what its replies mean: effects, copies, answers to clients (I4, I8).
//! * [`shadow`]: the queue of effects and what its replies say about the keys (I5, I9).
//! * [`fence`]: draining and the exchange of roles (I6).

mod authority;
mod blocking;
mod emit;
pub mod facts;
mod fence;
mod introduction;
mod keys;
mod pair;
mod records;
pub mod request;
mod shadow;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use authority::{Awaiting, Finishing};
use base::model::{CoreId, RoutePlan, Side, limits};
pub use base::stdx::clock::Now;
use blocking::Waiters;
use bus::counters::{Probe, SideCounters};
use bus::{LaneEvent, LaneOrder, LaneStatus, PassKind};
use fence::Fence;
use introduction::Introduction;
use keys::KeyStates;
use policy::SharedPolicies;
use request::{LaneBatch, LaneItem, LaneReply};
use shadow::Sent;
use transaction::Watches;
use wire::resp::{ReplyFeed, ReplyStep};

/// A sent buffer larger than this is not used again.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;
const FIRST_PASS: &str = "dual operation begins";

/// Who waits for an answer: a client of a core's relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    pub core: CoreId,
    pub client: u64,
}

impl Caller {
    /// The client as policies know it: one number while the connection lasts, no other client's.
    #[must_use]
    pub fn number(self) -> u64 {
        // The upper bits of a relay's key count the times its place was used.
        self.client ^ (u64::from(self.core.0) << 48)
    }
}

/// One of the two connections.
#[derive(Debug, Default)]
struct Link {
    connected: bool,
    /// While it is being made ready.
    introduction: Option<Introduction>,
    /// CLIENT ID of the last connection that was ready.
    predecessor: u64,
    run_id: Vec<u8>,
    output: Vec<u8>,
    /// An empty buffer for what comes after.
    spare: Vec<u8>,
    /// Logical database the connection is in after all that was sent.
    database: u32,
    /// Protocol version the connection speaks after all that was sent; the shadow's is always 2.
    resp: u8,
    feed: ReplyFeed,
    gathered: Vec<u8>,
    /// Forms of dump this server has refused as a shadow, by their first byte.
    refused_types: u32,
}

/// A copy order not yet answered.
#[derive(Debug, Default)]
struct Ticket {
    left: u64,
    copied: u64,
    absent: u64,
    clean: u64,
    failed: u64,
    bytes: u64,
}

/// A pass over all keys.
#[derive(Debug)]
struct Pass {
    number: u64,
    kind: PassKind,
    done: bool,
}

/// One lane.
#[derive(Debug)]
pub struct Lane {
    plan: Arc<RoutePlan>,
    /// Published, to be adopted at the release of the fence.
    next_plan: Option<Arc<RoutePlan>>,
    policies: SharedPolicies,
    /// Which records policy the present pass copies under.
    records_identity: Option<u64>,
    /// When the next record without a verdict is told of.
    record_told_us: u64,
    source_counters: SideCounters,
    target_counters: SideCounters,
    /// Of the authority's replies; the shadow's requests each know when they were queued.
    probe: Probe,
    /// Whose replies clients see.
    authority: Side,
    source: Link,
    target: Link,
    awaiting: VecDeque<Awaiting>,
    /// The write whose reads behind it are still to come.
    finishing: Option<Finishing>,
    /// Deadline read by the last PEXPIRETIME of a copy or of a check before a write.
    read_deadline: Option<i64>,
    /// Soonest deadline among the keys copied for the next write.
    soonest_copied: Option<i64>,
    sent: VecDeque<Sent>,
    /// The queue was full: effects become dirty keys until it is half empty.
    overflowed: bool,
    keys: KeyStates,
    repairs_in_flight: usize,
    pass: Pass,
    tickets: HashMap<u64, Ticket>,
    probes: HashMap<u64, authority::Probing>,
    /// Copy and probe orders that came while a side was away.
    waiting_orders: VecDeque<LaneOrder>,
    fence: Option<Fence>,
    held: VecDeque<(CoreId, LaneBatch)>,
    held_commands: u64,
    watches: Watches,
    waiters: Waiters,
    replies: Vec<(CoreId, LaneReply)>,
    events: Vec<LaneEvent>,
    counts: LaneStatus,
    next_status_us: u64,
    last_status: LaneStatus,
    retired: bool,
    /// No core has a command for this lane under way.
    closable: bool,
    /// The shadow refused what every effect depends on (SELECT): nothing more is sent to it until it is connected anew.
    shadow_refused: bool,
    /// The authority's connection has not been tried yet: commands wait for the outcome.
    starting: bool,
    now: Now,
}

impl Lane {
    /// Nothing is known of the shadow, and until [`LaneOrder::Open`] other cores may still write past the lane: no pass runs before.
    #[must_use]
    pub fn new(plan: &Arc<RoutePlan>, policies: SharedPolicies, now: Now) -> Self {
        let records_identity = policies.borrow().record.as_ref().map(|seat| seat.identity);
        Self {
            plan: Arc::clone(plan),
            records_identity,
            policies,
            record_told_us: 0,
            source_counters: SideCounters::default(),
            target_counters: SideCounters::default(),
            probe: Probe::default(),
            next_plan: None,
            authority: plan.authority.side,
            source: Link::default(),
            target: Link::default(),
            awaiting: VecDeque::new(),
            finishing: None,
            read_deadline: None,
            soonest_copied: None,
            sent: VecDeque::new(),
            overflowed: false,
            keys: KeyStates::default(),
            repairs_in_flight: 0,
            pass: Pass { number: 0, kind: PassKind::Full, done: false },
            tickets: HashMap::new(),
            probes: HashMap::new(),
            waiting_orders: VecDeque::new(),
            fence: None,
            held: VecDeque::new(),
            held_commands: 0,
            watches: Watches::default(),
            waiters: Waiters::default(),
            replies: Vec::new(),
            events: Vec::new(),
            counts: LaneStatus::default(),
            next_status_us: 0,
            last_status: LaneStatus::default(),
            retired: false,
            closable: false,
            shadow_refused: false,
            starting: true,
            now,
        }
    }

    /// Begins the first, full pass; later calls do nothing.
    pub fn open(&mut self) {
        if self.pass.number == 0 {
            self.begin_pass(PassKind::Full, FIRST_PASS);
        }
    }

    /// Other filters decide from now on. What was copied under another records policy is copied again.
    pub fn policies_changed(&mut self, now: Now) {
        self.now = now;
        self.adopt_records_policy();
        self.after_step();
    }

    /// Not behind a fence, where nothing may be copied: its end asks again. Not in a lane that is retired, whose copies under way
    /// would pass nobody any more: without a verdict they are not made.
    fn adopt_records_policy(&mut self) {
        if self.retired || self.fence.is_some() {
            return;
        }
        let identity = self.policies.borrow().record.as_ref().map(|seat| seat.identity);
        let changed = std::mem::replace(&mut self.records_identity, identity) != identity;
        // Towards the source nothing passes it.
        if changed && self.authority == Side::Source {
            self.begin_pass(PassKind::Full, "the records policy is another one");
        }
    }

    fn counters_of(&mut self, side: Side) -> &mut SideCounters {
        match side {
            Side::Source => &mut self.source_counters,
            Side::Target => &mut self.target_counters,
        }
    }

    /// What both sides have answered in this lane: source, target.
    #[must_use]
    pub fn side_counters(&self) -> (&SideCounters, &SideCounters) {
        (&self.source_counters, &self.target_counters)
    }

    fn link(&mut self, side: Side) -> &mut Link {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    fn link_ref(&self, side: Side) -> &Link {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    fn both_connected(&self) -> bool {
        self.source.connected && self.target.connected && !self.shadow_refused
    }

    fn begin_pass(&mut self, kind: PassKind, reason: &str) {
        if self.pass.number == 0 && reason != FIRST_PASS {
            return; // the first pass is still to come and will be a full one
        }
        self.pass = Pass { number: self.pass.number + 1, kind, done: false };
        self.keys.begin_pass(kind == PassKind::Full);
        self.events.push(LaneEvent::PassStarted { pass: self.pass.number, kind, reason: reason.to_owned() });
    }

    // ---- in -----------------------------------------------------------------------------------------------------------

    /// Commands of one client.
    pub fn submit(&mut self, core: CoreId, batch: LaneBatch, now: Now) {
        self.now = now;
        if (self.fence.is_some() || self.starting) && !batch.items.contains(&LaneItem::Forget) {
            self.held_commands += batch.items.len() as u64;
            self.held.push_back((core, batch));
            return;
        }
        self.run_batch(core, &batch);
        self.after_step();
    }

    /// An order of control or of one of its jobs.
    pub fn order(&mut self, order: LaneOrder, now: Now) {
        self.now = now;
        match order {
            LaneOrder::Copy { .. } | LaneOrder::Probe { .. } if !self.both_connected() => {
                self.waiting_orders.push_back(order);
            }
            LaneOrder::Copy { ticket, pass, database, keys } => self.copy_order(ticket, pass, database, &keys),
            LaneOrder::Probe { ticket, database, commands } => self.probe_order(ticket, database, commands),
            LaneOrder::Open => self.open(),
            LaneOrder::Close => self.closable = true,
            LaneOrder::PassDone { pass } => {
                if pass == self.pass.number && !self.pass.done {
                    self.pass.done = true;
                    self.keys.end_pass();
                }
            }
            LaneOrder::Repair { database, keys } => {
                for name in &keys {
                    self.mark_dirty(&keys::KeyRef::new(database, name));
                }
            }
            LaneOrder::Fence { ticket, budget_us } => self.begin_fence(ticket, budget_us),
            LaneOrder::Release { ticket } => self.release(ticket),
        }
        self.after_step();
    }

    /// A new plan for a lane that goes on. A change of authority takes effect at the release of the fence.
    pub fn publish(&mut self, plan: &Arc<RoutePlan>, now: Now) {
        self.now = now;
        if plan.authority.side == self.authority {
            self.plan = Arc::clone(plan);
            self.next_plan = None;
        } else {
            assert!(self.fence.is_some(), "I6: authority changes only behind a fence");
            self.next_plan = Some(Arc::clone(plan));
        }
    }

    /// A connection is up: logged in, in database 0, speaking RESP2, its predecessor dead.
    pub(crate) fn connected(&mut self, side: Side, run_id: &[u8], now: Now) {
        self.now = now;
        let shadow = side != self.authority;
        let link = self.link(side);
        let (refused_types, predecessor) = (link.refused_types, link.predecessor);
        let changed = !link.run_id.is_empty() && link.run_id != run_id;
        *link =
            Link { connected: true, run_id: run_id.to_vec(), resp: 2, refused_types, predecessor, ..Link::default() };
        self.events.push(LaneEvent::SideBack { side });
        if changed {
            // Another process: what it holds is not what its predecessor held.
            self.begin_pass(PassKind::Full, &format!("the {side} is another server process than before"));
        }
        if shadow {
            self.overflowed = false;
            self.shadow_refused = false;
        }
        if side == self.authority {
            self.end_start();
        }
        if self.both_connected() {
            for order in std::mem::take(&mut self.waiting_orders) {
                self.order(order, now);
            }
        }
        self.retry_all_waiters();
        self.after_step();
    }

    /// A socket to one side is open. `token`: of this process, part of the names of its connections.
    pub fn opened(&mut self, side: Side, token: u64) {
        let predecessor = self.link_ref(side).predecessor;
        let endpoint = self.plan.endpoint(side);
        let introduction = Introduction::begin(endpoint, self.plan.interlay.as_str(), token, predecessor);
        self.link(side).introduction = Some(introduction);
    }

    /// Whether a connection is in use: its introduction is over and it has not broken since.
    #[must_use]
    pub fn is_connected(&self, side: Side) -> bool {
        self.link_ref(side).connected
    }

    fn introduce(&mut self, side: Side, bytes: &[u8], now: Now) -> Result<(), String> {
        let link = self.link(side);
        let Some(introduction) = link.introduction.as_mut() else { return Ok(()) };
        if let Some(run_id) = introduction.input(bytes)? {
            // Not before: until the old one is known to be dead it must be killed by whoever comes next.
            link.predecessor = introduction.client_id();
            self.connected(side, &run_id, now);
        }
        Ok(())
    }

    /// A connection broke, or could not be made.
    pub fn lost(&mut self, side: Side, why: &str, now: Now) {
        self.now = now;
        let link = self.link(side);
        let was_connected = std::mem::take(&mut link.connected);
        link.introduction = None;
        if was_connected {
            self.events.push(LaneEvent::SideLost { side, reason: why.to_owned() });
            if side == self.authority {
                self.authority_lost();
            } else {
                self.shadow_lost();
            }
        }
        if side == self.authority {
            self.end_start();
        }
        self.expire_fence_if_lost(side, why);
        self.after_step();
    }

    fn end_start(&mut self) {
        if std::mem::take(&mut self.starting) && self.fence.is_none() {
            self.run_held();
        }
    }

    /// Bytes arrived. `Err`: they are not RESP; the caller closes the connection and calls `lost`.
    ///
    /// # Errors
    /// Says what was wrong.
    pub fn input(&mut self, side: Side, mut bytes: &[u8], now: Now) -> Result<(), String> {
        self.now = now;
        if self.link(side).introduction.is_some() {
            return self.introduce(side, bytes, now);
        }
        while !bytes.is_empty() {
            let link = self.link(side);
            let first;
            let consumed = match link.feed.feed(bytes) {
                ReplyStep::Complete { consumed, first: kind } => {
                    first = kind;
                    consumed
                }
                ReplyStep::Partial => {
                    link.gathered.extend_from_slice(bytes);
                    break;
                }
                ReplyStep::Invalid(why) => return Err(why),
            };
            let (piece, rest) = bytes.split_at(consumed);
            bytes = rest;
            if first == b'>' {
                link.gathered.clear();
                continue;
            }
            if link.gathered.is_empty() {
                self.reply(side, piece)?;
            } else {
                let mut whole = std::mem::take(&mut link.gathered);
                whole.extend_from_slice(piece);
                self.reply(side, &whole)?;
            }
        }
        self.after_step();
        Ok(())
    }

    fn reply(&mut self, side: Side, reply: &[u8]) -> Result<(), String> {
        if side == self.authority { self.authority_reply(reply) } else { self.shadow_reply(reply) }
    }

    /// Time passes: fences expire, waiters time out, repairs become due, status is reported.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.expire_waiters();
        self.after_step();
    }

    /// Whatever happened, some of this may now be possible.
    fn after_step(&mut self) {
        if self.keys.dirty_count() > limits::DIRTY_KEYS_MAX {
            self.begin_pass(PassKind::Full, "too many dirty keys to keep by name");
        }
        self.repair_some();
        // Who decides on a fence must have seen what is true behind it: the status goes first.
        self.report_status();
        self.advance_fence();
    }

    // ---- out ----------------------------------------------------------------------------------------------------------

    #[must_use]
    pub fn has_output(&self, side: Side) -> bool {
        let link = self.link_ref(side);
        match &link.introduction {
            Some(introduction) => !introduction.output.is_empty(),
            None => link.connected && !link.output.is_empty(),
        }
    }

    /// Moves a connection's unsent bytes out; `recycled` becomes its next buffer.
    pub fn take_output(&mut self, side: Side, recycled: Vec<u8>) -> Option<Vec<u8>> {
        let link = self.link(side);
        if recycled.capacity() > link.spare.capacity() && recycled.capacity() <= SPARE_BYTES_MAX {
            link.spare = recycled;
        }
        if !self.has_output(side) {
            return None;
        }
        let link = self.link(side);
        let spare = std::mem::take(&mut link.spare);
        let output = link.introduction.as_mut().map_or(&mut link.output, |introduction| &mut introduction.output);
        Some(std::mem::replace(output, spare))
    }

    pub fn take_replies(&mut self) -> Vec<(CoreId, LaneReply)> {
        std::mem::take(&mut self.replies)
    }

    pub fn take_events(&mut self) -> Vec<LaneEvent> {
        std::mem::take(&mut self.events)
    }

    /// An answer to a client, merged with the one before if that is the same client's.
    fn deliver(&mut self, to: Caller, bytes: &[u8]) {
        match self.replies.last_mut() {
            Some((core, reply)) if *core == to.core && reply.client == to.client && !reply.close => {
                reply.bytes.extend_from_slice(bytes);
                reply.count += 1;
            }
            _ => {
                let reply = LaneReply { client: to.client, count: 1, bytes: bytes.to_vec(), close: false };
                self.replies.push((to.core, reply));
            }
        }
    }

    /// The outcome of a client's command is unknown: its connection ends.
    fn deliver_close(&mut self, to: Caller) {
        let reply = LaneReply { client: to.client, count: 1, bytes: Vec::new(), close: true };
        self.replies.push((to.core, reply));
    }

    // ---- status ---------------------------------------------------------------------------------------------------------

    fn status(&self) -> LaneStatus {
        let shadow = self.link_ref(self.authority.other());
        LaneStatus {
            at_ms: self.now.wall_ms as u64,
            pass: self.pass.number,
            uncopied: !self.pass.done,
            dirty: self.keys.dirty_count() as u64,
            in_flight: (self.sent.len() + self.awaiting.len()) as u64,
            shadow_queue_bytes: shadow.output.len() as u64,
            shadow_lag_us: self.sent.front().map_or(0, |sent| self.now.mono_us.saturating_sub(sent.at_us)),
            dirtied: self.keys.dirtied,
            altered: self.keys.altered_count() as u64,
            authority_connected: self.link_ref(self.authority).connected,
            shadow_connected: shadow.connected && !self.shadow_refused,
            ..self.counts
        }
    }

    /// At the set interval, and at once when dirty or uncopied become or stop being empty.
    fn report_status(&mut self) {
        let turned = self.last_status.uncopied == self.pass.done
            || (self.last_status.dirty == 0) != (self.keys.dirty_count() == 0);
        if self.now.mono_us < self.next_status_us && !turned {
            return;
        }
        self.next_status_us = self.now.mono_us + limits::LANE_STATUS_US;
        self.last_status = self.status();
        self.events.push(LaneEvent::Status(self.last_status));
    }

    // ---- end ------------------------------------------------------------------------------------------------------------

    /// Dual operation is over: no more repairs; blocked clients are sent back to their cores.
    pub fn retire(&mut self) {
        self.retired = true;
        self.dismiss_waiters();
    }

    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    #[must_use]
    pub fn is_retired_and_idle(&self) -> bool {
        self.retired && self.closable && self.is_idle() && self.replies.is_empty()
    }

    /// Nothing a client waits for is outstanding, and the shadow has all effects it can be given.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.awaiting.is_empty()
            && self.held.is_empty()
            && (self.sent.is_empty() || !self.link_ref(self.authority.other()).connected)
    }
}
