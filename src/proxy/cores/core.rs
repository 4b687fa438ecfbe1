//! One core: its interlays, its mailboxes, and the pump that turns what a relay or lane asks into work for tasks.
//!
//! Everything here lives on one core thread. No borrow of [`Core`] is held across an await.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane_link::LaneIo;
use super::pipe::{Sending, SocketIo};
use super::tally;
use super::tls::{Tls, TlsKit};
use super::{connect, lane_link, listener, sys, upstream};
use crate::contract::{Ask, Failure, Interrupt, Relay, RelaySetup, SessionList, SharedPolicies, UpstreamKey};
use crate::redis::lane::Lane;
use crate::redis::lane::request::{LaneBatch, LaneReply};
use base::model::{CoreId, InterlayName, InterlaySpec, PlanMode, Side, limits};
use base::stdx::clock::Now;
use base::stdx::slab::SlabMap;
use bus::counters::CoreCounters;
use bus::{
    CompanionEvent, CompanionOrder, Directive, HoldEvent, HoldOrder, Mailbox, Published, Report, companion_core,
};
use policy::ViewContext;

/// What a core's thread is started with.
pub struct CoreSetup {
    pub id: CoreId,
    pub cores: u16,
    /// Different for every process; part of the names of its connections.
    pub token: u64,
    pub seed: [u8; 32],
    pub interlays: Vec<(InterlayStart, TcpListener)>,
    pub tls: TlsKit,
    pub directives: Mailbox<Directive>,
    pub reports: Mailbox<Report>,
    pub handovers: Vec<Mailbox<CoreMessage>>,
}

/// One interlay as a core begins it.
#[derive(Clone)]
pub struct InterlayStart {
    pub spec: InterlaySpec,
    /// What is in force from the start.
    pub first: Published,
    /// How it presents itself to clients that want TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// From one core to another.
#[derive(Debug)]
pub enum CoreMessage {
    /// Commands for the lane of an interlay.
    Lane { interlay: usize, from: CoreId, batch: LaneBatch },
    /// The lane's answers.
    Reply { interlay: usize, reply: LaneReply },
    /// For a session of that core.
    Interrupt { interlay: usize, interrupt: Interrupt },
}

/// One interlay on this core.
pub struct Interlay {
    pub name: InterlayName,
    pub relay: Box<dyn Relay>,
    pub policies: SharedPolicies,
    /// What the views of policies say under the present plan; handed on unread.
    pub view: ViewContext,
    /// Only on the lane's core, only in dual operation.
    pub lane: Option<Lane>,
    pub lane_io: Option<Rc<LaneIo>>,
    pub clients: SlabMap<Rc<SocketIo>>,
    pub upstreams: SlabMap<Rc<SocketIo>>,
    /// What lanes that are over have counted.
    pub past_lanes: CoreCounters,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// When the plan being adopted must be through.
    barrier_deadline: Option<Instant>,
}

/// The state of one core.
pub struct Core {
    pub id: CoreId,
    pub token: u64,
    pub start: Instant,
    pub interlays: Vec<Interlay>,
    tls: TlsKit,
    handovers: Vec<Mailbox<CoreMessage>>,
    /// Messages another core's full mailbox gave back; bounded by what clients may have outstanding.
    undelivered: VecDeque<(CoreId, CoreMessage)>,
    reports: Mailbox<Report>,
    /// Reports the control thread's full mailbox gave back.
    unreported: VecDeque<Report>,
    drain_deadline: Option<Instant>,
}

/// A core as its tasks share it.
pub type SharedCore = Rc<RefCell<Core>>;

/// The life of a core.
pub async fn run(setup: CoreSetup) {
    let CoreSetup { id, cores, token, seed, interlays, tls, directives, reports, handovers } = setup;
    let own_handover = handovers[usize::from(id.0)].clone();
    let mut sockets = Vec::new();
    let mut built = Vec::new();
    for (start, socket) in interlays {
        sockets.push(socket);
        let InterlayStart { spec, first: Published { plan, view }, tls } = start;
        let policies = SharedPolicies::default();
        built.push(Interlay {
            name: spec.name.clone(),
            policies: Rc::clone(&policies),
            relay: crate::relay(RelaySetup { spec, plan, core: id, cores, token, seed, policies }),
            view,
            tls,
            past_lanes: CoreCounters::default(),
            lane: None,
            lane_io: None,
            clients: SlabMap::default(),
            upstreams: SlabMap::default(),
            barrier_deadline: None,
        });
    }
    let core = Rc::new(RefCell::new(Core {
        id,
        token,
        start: Instant::now(),
        interlays: built,
        tls,
        handovers,
        undelivered: VecDeque::new(),
        reports,
        unreported: VecDeque::new(),
        drain_deadline: None,
    }));
    for (index, socket) in sockets.into_iter().enumerate() {
        adopt_lane(&core, index);
        if let Some(lane) = core.borrow_mut().interlays[index].lane.as_mut() {
            lane.open(); // every core starts with this plan: nobody writes past the lane
        }
        monoio::spawn(listener::accept(Rc::clone(&core), index, socket));
    }
    monoio::spawn(handovers_loop(Rc::clone(&core), own_handover));
    monoio::spawn(directives_loop(Rc::clone(&core), directives));
    tick_loop(&core).await;
    core.borrow_mut().report(Report::Drained { core: id });
}

async fn handovers_loop(core: SharedCore, mailbox: Mailbox<CoreMessage>) {
    let waker = match connect::MailboxWaker::new(mailbox.wake_fd()) {
        Ok(waker) => waker,
        Err(error) => return core.borrow_mut().fail(&format!("cannot watch the hand-over mailbox: {error}")),
    };
    loop {
        waker.readable().await;
        mailbox.arm();
        let mut touched = Vec::new();
        while let Some(message) = mailbox.pop() {
            let mut borrowed = core.borrow_mut();
            let now = borrowed.now();
            let index = match message {
                CoreMessage::Lane { interlay, from, batch } => {
                    borrowed.submit(interlay, from, batch, now);
                    interlay
                }
                CoreMessage::Reply { interlay, reply } => {
                    borrowed.interlays[interlay].relay.lane_reply(reply);
                    interlay
                }
                CoreMessage::Interrupt { interlay, interrupt } => {
                    borrowed.interlays[interlay].relay.interrupt(&interrupt);
                    interlay
                }
            };
            if !touched.contains(&index) {
                touched.push(index);
            }
        }
        for index in touched {
            pump(&core, index);
        }
    }
}

async fn directives_loop(core: SharedCore, mailbox: Mailbox<Directive>) {
    let waker = match connect::MailboxWaker::new(mailbox.wake_fd()) {
        Ok(waker) => waker,
        Err(error) => return core.borrow_mut().fail(&format!("cannot watch the directive mailbox: {error}")),
    };
    loop {
        waker.readable().await;
        mailbox.arm();
        while let Some(directive) = mailbox.pop() {
            obey(&core, directive);
        }
    }
}

fn obey(core: &SharedCore, directive: Directive) {
    match directive {
        Directive::Publish(published) => publish(core, published),
        Directive::Companion { interlay, order: CompanionOrder::Lane(order) } => {
            let index = {
                let mut borrowed = core.borrow_mut();
                let now = borrowed.now();
                let Some(index) = borrowed.find(&interlay) else { return };
                match borrowed.interlays[index].lane.as_mut() {
                    Some(lane) => lane.order(order, now),
                    None => {
                        if let Some(event) = Lane::refuse_order(&order) {
                            borrowed.report(Report::Companion { interlay, event: CompanionEvent::Lane(event) });
                        }
                    }
                }
                index
            };
            pump(core, index);
        }
        Directive::Hold { interlay, order } => hold(core, interlay, order),
        Directive::Policies { interlay, policies } => core.borrow_mut().adopt_policies(interlay, *policies),
        Directive::Sessions { interlay, ticket } => {
            let mut borrowed = core.borrow_mut();
            let (id, now) = (borrowed.id, borrowed.now());
            let Some(index) = borrowed.find(&interlay) else { return };
            let SessionList { total, busy, sessions } = borrowed.interlays[index].relay.sessions(now);
            borrowed.report(Report::Sessions { core: id, interlay, ticket, total, busy, sessions });
        }
        Directive::Sample => {
            let mut borrowed = core.borrow_mut();
            let id = borrowed.id;
            let of = |interlay: &Interlay| (interlay.name.clone(), interlay.counters());
            let interlays = borrowed.interlays.iter().map(of).collect();
            borrowed.report(Report::Counters { core: id, interlays });
            for index in 0..borrowed.interlays.len() {
                borrowed.report_policies(index);
                let interlay = &mut borrowed.interlays[index];
                let (name, samples) = (interlay.name.clone(), interlay.relay.take_statements());
                if !samples.is_empty() {
                    borrowed.report(Report::Statements { interlay: name, samples });
                }
            }
        }
        Directive::Drain { deadline_ms } => {
            let count = {
                let mut borrowed = core.borrow_mut();
                borrowed.drain_deadline = Some(Instant::now() + Duration::from_millis(deadline_ms));
                for interlay in &mut borrowed.interlays {
                    interlay.relay.drain();
                }
                borrowed.interlays.len()
            };
            for index in 0..count {
                pump(core, index);
            }
        }
    }
}

fn hold(core: &SharedCore, name: InterlayName, order: HoldOrder) {
    let index = {
        let mut borrowed = core.borrow_mut();
        let (id, now) = (borrowed.id, borrowed.now());
        let Some(index) = borrowed.find(&name) else { return };
        if borrowed.interlays[index].relay.hold(order, now).is_none() {
            let (ticket, event) = (order.ticket(), HoldEvent::Unsupported);
            borrowed.report(Report::Hold { core: id, interlay: name, ticket, event });
        }
        index
    };
    pump(core, index);
}

fn publish(core: &SharedCore, Published { plan, view }: Published) {
    let index = {
        let mut borrowed = core.borrow_mut();
        let now = borrowed.now();
        let Some(index) = borrowed.find(&plan.interlay) else { return };
        let interlay = &mut borrowed.interlays[index];
        let flips = interlay.relay.plan().authority.side != plan.authority.side;
        // First the policies: publishing lets waiting commands go on.
        interlay.view = view;
        interlay.policies.borrow_mut().enter(view);
        interlay.relay.publish(Arc::clone(&plan));
        let patience = if flips { limits::FLIP_BARRIER_TIMEOUT } else { limits::BARRIER_TIMEOUT };
        interlay.barrier_deadline = Some(Instant::now() + patience);
        if let Some(lane) = interlay.lane.as_mut()
            && plan.mode == PlanMode::Dual
            && !lane.is_retired()
        {
            lane.publish(&plan, now);
        }
        index
    };
    adopt_lane(core, index);
    pump(core, index);
}

/// Starts or ends the lane of an interlay on the core that owns it.
fn adopt_lane(core: &SharedCore, index: usize) {
    let mut borrowed = core.borrow_mut();
    let (id, now) = (borrowed.id, borrowed.now());
    let interlay = &mut borrowed.interlays[index];
    if companion_core(&interlay.name) != id {
        return;
    }
    let plan = Arc::clone(interlay.relay.plan());
    let serving = interlay.lane_io.is_some() && !interlay.lane.as_ref().is_some_and(Lane::is_retired);
    match (plan.mode, serving) {
        (PlanMode::Dual, false) => {
            if let Some(old) = interlay.lane_io.take() {
                old.close(); // a retired lane that was still finishing
            }
            let io = Rc::new(LaneIo::default());
            interlay.lane = Some(Lane::new(&plan, Rc::clone(&interlay.policies), now));
            interlay.lane_io = Some(Rc::clone(&io));
            for side in [Side::Source, Side::Target] {
                monoio::spawn(lane_link::keep_connected(Rc::clone(core), index, side, Rc::clone(&io)));
            }
        }
        (PlanMode::PassThrough, true) => {
            // What clients still have in the lane is answered first; `pump` ends the lane when it is idle.
            if let Some(lane) = interlay.lane.as_mut() {
                lane.retire();
            }
        }
        (PlanMode::Dual, true) | (PlanMode::PassThrough, false) => {}
    }
}

/// Housekeeping; returns when the core is drained.
async fn tick_loop(core: &SharedCore) {
    loop {
        let busy = {
            let borrowed = core.borrow();
            borrowed.drain_deadline.is_some()
                || borrowed.interlays.iter().any(|i| i.lane.is_some() || i.relay.barrier_pending())
        };
        monoio::time::sleep(Duration::from_millis(if busy { 2 } else { 50 })).await;
        let count = core.borrow().interlays.len();
        for index in 0..count {
            tick(core, index);
            pump(core, index);
        }
        let mut borrowed = core.borrow_mut();
        borrowed.retry_undelivered();
        if borrowed.is_over() {
            return;
        }
    }
}

fn tick(core: &SharedCore, index: usize) {
    let mut borrowed = core.borrow_mut();
    let now = borrowed.now();
    let interlay = &mut borrowed.interlays[index];
    if let Some(lane) = interlay.lane.as_mut() {
        lane.tick(now);
    }
    interlay.relay.tick(now);
    if interlay.relay.barrier_pending() {
        interlay.relay.nudge_barrier();
        if interlay.barrier_deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            interlay.barrier_deadline = None;
            tracing::warn!(interlay = %interlay.name, "commands of the previous plan did not end in time; closing their connections");
            interlay.relay.break_barrier();
        }
    }
}

/// Performs what the relay and the lane of one interlay ask, until they ask no more.
pub fn pump(core: &SharedCore, index: usize) {
    loop {
        let (asks, moved) = {
            let mut borrowed = core.borrow_mut();
            borrowed.exchange_with_lane(index);
            let moved = borrowed.send_what_is_ready(index);
            (borrowed.interlays[index].relay.take_asks(), moved)
        };
        if asks.is_empty() && !moved {
            break;
        }
        for ask in asks {
            perform(core, index, ask);
        }
    }
    let mut borrowed = core.borrow_mut();
    let id = borrowed.id;
    if let Some(generation) = borrowed.interlays[index].relay.take_acked_plan() {
        borrowed.interlays[index].barrier_deadline = None;
        let interlay = borrowed.interlays[index].name.clone();
        borrowed.report(Report::PlanAcked { core: id, interlay, generation });
    }
    borrowed.report_policy_notes(index);
    for (ticket, event) in borrowed.interlays[index].relay.take_hold_events() {
        let interlay = borrowed.interlays[index].name.clone();
        borrowed.report(Report::Hold { core: id, interlay, ticket, event });
    }
    let interlay = &mut borrowed.interlays[index];
    if interlay.lane.as_ref().is_some_and(Lane::is_retired_and_idle) {
        if let Some(over) = interlay.lane.take() {
            interlay.past_lanes = tally::lane_counters(interlay.past_lanes.clone(), &over);
        }
        if let Some(io) = interlay.lane_io.take() {
            io.close();
        }
    }
}

fn perform(core: &SharedCore, index: usize, ask: Ask) {
    match ask {
        Ask::Connect { upstream, side } => {
            monoio::spawn(upstream::run(Rc::clone(core), index, upstream, side));
        }
        Ask::SecureUpstream { upstream, side } => secure_upstream(core, index, upstream, side),
        Ask::SecureClient { client, prologue, begun } => {
            let borrowed = core.borrow();
            let interlay = &borrowed.interlays[index];
            let Some(io) = interlay.clients.get(client) else { return };
            match interlay.tls.as_ref().map(|config| Tls::accept(config, prologue)) {
                Some(Ok(tls)) => io.secure(tls, begun),
                Some(Err(_)) | None => io.close(),
            }
        }
        Ask::CloseUpstream(key) => {
            let io = core.borrow_mut().interlays[index].upstreams.remove(key);
            if let Some(io) = io {
                io.close();
            }
        }
        Ask::CloseClient(key) => {
            let io = core.borrow().interlays[index].clients.get(key).cloned();
            if let Some(io) = io {
                io.close();
            }
        }
        Ask::ReadClient(key) => {
            if let Some(io) = core.borrow().interlays[index].clients.get(key) {
                io.readable.ring();
            }
        }
        Ask::ReadUpstream(key) => {
            if let Some(io) = core.borrow().interlays[index].upstreams.get(key) {
                io.readable.ring();
            }
        }
        Ask::Hand { to, interrupt } => {
            core.borrow_mut().send(to, CoreMessage::Interrupt { interlay: index, interrupt });
        }
    }
}

fn secure_upstream(core: &SharedCore, index: usize, key: UpstreamKey, side: Side) {
    let mut borrowed = core.borrow_mut();
    let Some(io) = borrowed.interlays[index].upstreams.get(key).cloned() else { return };
    let relay = &borrowed.interlays[index].relay;
    match borrowed.tls.connect(relay.plan().endpoint(side)) {
        Ok(tls) => io.secure(tls, Vec::new()),
        Err(why) => {
            borrowed.interlays[index].relay.upstream_failed(key, &Failure::Unreachable(why));
            io.close();
        }
    }
}

impl Core {
    pub fn now(&self) -> Now {
        sys::now(self.start)
    }

    pub fn find(&self, name: &InterlayName) -> Option<usize> {
        self.interlays.iter().position(|interlay| interlay.name == *name)
    }

    pub fn report(&mut self, report: Report) {
        self.unreported.push_back(report);
        while let Some(report) = self.unreported.pop_front() {
            if let Err(report) = self.reports.push(report) {
                self.unreported.push_front(report);
                break;
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        let report = Report::CoreFailed { core: self.id, reason: reason.to_owned() };
        self.report(report);
    }

    fn submit(&mut self, index: usize, from: CoreId, batch: LaneBatch, now: Now) {
        match self.interlays[index].lane.as_mut() {
            Some(lane) => lane.submit(from, batch, now),
            None => {
                // The plan that ends dual operation overtook the batch: the client's connection ends, as its outcome is not known.
                let reply = LaneReply { client: batch.client, count: 0, bytes: Vec::new(), close: true };
                self.deliver_reply(index, from, reply);
            }
        }
    }

    fn deliver_reply(&mut self, index: usize, to: CoreId, reply: LaneReply) {
        if to == self.id {
            self.interlays[index].relay.lane_reply(reply);
        } else {
            self.send(to, CoreMessage::Reply { interlay: index, reply });
        }
    }

    fn send(&mut self, to: CoreId, message: CoreMessage) {
        if !self.undelivered.is_empty() {
            self.undelivered.push_back((to, message));
        } else if let Err(message) = self.handovers[usize::from(to.0)].push(message) {
            self.undelivered.push_back((to, message));
        }
    }

    fn retry_undelivered(&mut self) {
        while let Some((to, message)) = self.undelivered.pop_front() {
            if let Err(message) = self.handovers[usize::from(to.0)].push(message) {
                self.undelivered.push_front((to, message));
                break;
            }
        }
        while let Some(report) = self.unreported.pop_front() {
            if let Err(report) = self.reports.push(report) {
                self.unreported.push_front(report);
                break;
            }
        }
    }

    /// Commands to the lane, replies and events from it, until both are quiet.
    fn exchange_with_lane(&mut self, index: usize) {
        loop {
            let batches = self.interlays[index].relay.take_lane_batches();
            if !batches.is_empty() {
                let owner = companion_core(&self.interlays[index].name);
                let (id, now) = (self.id, self.now());
                for batch in batches {
                    if owner == id {
                        self.submit(index, id, batch, now);
                    } else {
                        self.send(owner, CoreMessage::Lane { interlay: index, from: id, batch });
                    }
                }
            }
            let Some(lane) = self.interlays[index].lane.as_mut() else { break };
            let (replies, events) = (lane.take_replies(), lane.take_events());
            if replies.is_empty() && events.is_empty() {
                break;
            }
            for (to, reply) in replies {
                self.deliver_reply(index, to, reply);
            }
            for event in events {
                let interlay = self.interlays[index].name.clone();
                self.report(Report::Companion { interlay, event: CompanionEvent::Lane(event) });
            }
        }
    }

    /// Clients are sent what they are owed at once; servers when all who are ready now have been heard, or when there is much.
    /// Whether there was anything: taking it may have let others go on.
    fn send_what_is_ready(&mut self, index: usize) -> bool {
        let interlay = &mut self.interlays[index];
        let relay = &mut interlay.relay;
        let mut any = false;
        loop {
            let ready = relay.take_ready_clients();
            if ready.is_empty() {
                break;
            }
            any = true;
            for key in ready {
                let Some(io) = interlay.clients.get(key) else { continue };
                let sending = io.send(|recycled| relay.take_client_output(key, recycled));
                if sending == Sending::Full || (sending == Sending::All && relay.client_written(key)) {
                    io.writable.ring(); // waiting for room, and good-byes, are the task's
                }
            }
        }
        for key in relay.take_ready_upstreams() {
            any = true;
            let Some(io) = interlay.upstreams.get(key) else { continue };
            if relay.upstream_is_urgent(key)
                && io.send(|recycled| relay.take_upstream_output(key, recycled)) == Sending::All
            {
                continue;
            }
            io.writable.ring();
        }
        if let (Some(lane), Some(io)) = (interlay.lane.as_ref(), interlay.lane_io.as_ref()) {
            for side in [Side::Source, Side::Target] {
                if lane.has_output(side) {
                    io.ring(side);
                }
            }
        }
        any
    }

    fn is_over(&mut self) -> bool {
        let Some(deadline) = self.drain_deadline else { return false };
        let lanes_idle = self.interlays.iter().all(|interlay| interlay.lane.as_ref().is_none_or(Lane::is_idle));
        let drained = self.interlays.iter().all(|interlay| interlay.relay.is_drained()) && lanes_idle;
        drained || Instant::now() >= deadline
    }
}
