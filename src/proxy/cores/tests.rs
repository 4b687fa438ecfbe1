//! What a core decides without a socket: where messages go, what waits for a full mailbox, when a plan is forced, when a core is over.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::core::{Core, CoreMessage, Interlay};
use super::directives::obey;
use super::links::Links;
use super::outbox::Outbox;
use super::tls::TlsKit;
use crate::contract::{
    Arrival, Ask, ClientKey, Companion, CompanionAsk, Failure, LinkKey, Relay, SharedPolicies, ToCompanion, ToRelay,
    UpstreamKey,
};
use crate::protocols::samples;
use base::model::{
    Authority, CompareReads, CoreId, Generation, InterlayName, PlanMode, RoutePlan, SampledRead, limits,
};
use base::stdx::clock::Now;
use base::stdx::slab::SlabMap;
use bus::counters::CoreCounters;
use bus::{CompanionEvent, CompanionOrder, Directive, Mailbox, Published, Report};
use policy::ViewContext;

/// What a fake relay is to do, and what it was told.
#[derive(Debug, Default)]
struct RelayState {
    messages: Vec<ToCompanion>,
    answers: Vec<u64>,
    acked: Option<Generation>,
    pending: bool,
    nudges: u32,
    broken: u32,
    drained: bool,
    draining: bool,
    reads: Vec<SampledRead>,
}

struct FakeRelay {
    plan: Arc<RoutePlan>,
    state: Rc<RefCell<RelayState>>,
}

impl Relay for FakeRelay {
    fn client_opened(&mut self, _: Arrival) -> Result<ClientKey, Vec<u8>> {
        Err(Vec::new())
    }
    fn client_input(&mut self, _: ClientKey, _: &[u8], _: Now) {}
    fn client_closed(&mut self, _: ClientKey) {}
    fn may_read_client(&self, _: ClientKey) -> bool {
        false
    }
    fn take_client_output(&mut self, _: ClientKey, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }
    fn client_written(&mut self, _: ClientKey) -> bool {
        false
    }
    fn upstream_opened(&mut self, _: UpstreamKey, _: Now) {}
    fn upstream_ready(&self, _: UpstreamKey) -> bool {
        false
    }
    fn upstream_failed(&mut self, _: UpstreamKey, _: &Failure) {}
    fn upstream_input(&mut self, _: UpstreamKey, _: &[u8], _: Now) -> Result<(), String> {
        Ok(())
    }
    fn take_upstream_output(&mut self, _: UpstreamKey, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }
    fn upstream_is_urgent(&self, _: UpstreamKey) -> bool {
        false
    }
    fn take_asks(&mut self) -> Vec<Ask> {
        Vec::new()
    }
    fn take_ready_clients(&mut self) -> Vec<ClientKey> {
        Vec::new()
    }
    fn take_ready_upstreams(&mut self) -> Vec<UpstreamKey> {
        Vec::new()
    }
    fn plan(&self) -> &Arc<RoutePlan> {
        &self.plan
    }
    fn publish(&mut self, plan: Arc<RoutePlan>) {
        self.plan = plan;
        self.state.borrow_mut().pending = true;
    }
    fn take_acked_plan(&mut self) -> Option<Generation> {
        self.state.borrow_mut().acked.take()
    }
    fn barrier_pending(&self) -> bool {
        self.state.borrow().pending
    }
    fn nudge_barrier(&mut self) {
        self.state.borrow_mut().nudges += 1;
    }
    fn break_barrier(&mut self) {
        self.state.borrow_mut().broken += 1;
    }
    fn drain(&mut self) {
        self.state.borrow_mut().draining = true;
    }
    fn is_drained(&self) -> bool {
        let state = self.state.borrow();
        state.draining && state.drained
    }
    fn take_messages(&mut self) -> Vec<ToCompanion> {
        std::mem::take(&mut self.state.borrow_mut().messages)
    }
    fn companion_message(&mut self, message: ToRelay) {
        self.state.borrow_mut().answers.push(samples::answered(&message));
    }
    fn take_reads(&mut self) -> Vec<SampledRead> {
        std::mem::take(&mut self.state.borrow_mut().reads)
    }
    fn counters(&self) -> CoreCounters {
        CoreCounters::default()
    }
}

/// A companion that answers every message to the core it came from.
#[derive(Debug, Default)]
struct CompanionState {
    got: Vec<(u16, u64)>,
    plans: Vec<u64>,
    idle: bool,
}

struct FakeCompanion {
    state: Rc<RefCell<CompanionState>>,
    answers: Vec<(CoreId, ToRelay)>,
}

impl Companion for FakeCompanion {
    fn publish(&mut self, plan: &Arc<RoutePlan>, _: Now) {
        self.state.borrow_mut().plans.push(plan.generation.0);
    }
    fn policies_changed(&mut self, _: Now) {}
    fn order(&mut self, _: CompanionOrder, _: Now) {}
    fn message(&mut self, from: CoreId, message: ToCompanion, _: Now) {
        let client = samples::client(&message);
        self.state.borrow_mut().got.push((from.0, client));
        self.answers.push((from, samples::to_relay(client)));
    }
    fn tick(&mut self, _: Now) {}
    fn link_opened(&mut self, _: LinkKey, _: Now) {}
    fn link_is_ready(&self, _: LinkKey) -> bool {
        false
    }
    fn link_input(&mut self, _: LinkKey, _: &[u8], _: Now) -> Result<(), String> {
        Ok(())
    }
    fn link_lost(&mut self, _: LinkKey, _: &str, _: Now) {}
    fn link_has_output(&self, _: LinkKey) -> bool {
        false
    }
    fn take_link_output(&mut self, _: LinkKey, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }
    fn take_asks(&mut self) -> Vec<CompanionAsk> {
        Vec::new()
    }
    fn take_messages(&mut self) -> Vec<(CoreId, ToRelay)> {
        std::mem::take(&mut self.answers)
    }
    fn take_events(&mut self) -> Vec<CompanionEvent> {
        Vec::new()
    }
    fn is_active(&self) -> bool {
        !self.state.borrow().idle
    }
    fn is_idle(&self) -> bool {
        self.state.borrow().idle
    }
    fn add_counters(&self, _: &mut CoreCounters) {}
}

/// One core of two, with one interlay; the first core keeps the companion.
struct Rig {
    core: Core,
    relay: Rc<RefCell<RelayState>>,
    companion: Rc<RefCell<CompanionState>>,
    handovers: Vec<Mailbox<CoreMessage>>,
    reports: Mailbox<Report>,
}

fn rig(id: u16) -> Rig {
    let handovers = vec![Mailbox::new(2).unwrap(), Mailbox::new(2).unwrap()];
    let reports = Mailbox::new(16).unwrap();
    let (relay, companion) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
    let fake = FakeCompanion { state: Rc::clone(&companion), answers: Vec::new() };
    let interlay = Interlay {
        name: InterlayName::new("orders").unwrap(),
        relay: Box::new(FakeRelay { plan: plan(1, Authority::initial()), state: Rc::clone(&relay) }),
        policies: SharedPolicies::default(),
        view: ViewContext::default(),
        companion: (id == 0).then_some(Box::new(fake)),
        links: Links::default(),
        clients: SlabMap::default(),
        upstreams: SlabMap::default(),
        tls: None,
        barrier_deadline_us: None,
    };
    let core = Core {
        id: CoreId(id),
        start: Instant::now(),
        interlays: vec![interlay],
        tls: TlsKit::default(),
        handovers: Outbox::new(handovers.clone()),
        reports: Outbox::new(vec![reports.clone()]),
        drain_deadline_us: None,
    };
    Rig { core, relay, companion, handovers, reports }
}

fn plan(generation: u64, authority: Authority) -> Arc<RoutePlan> {
    Arc::new(RoutePlan {
        interlay: InterlayName::new("orders").unwrap(),
        generation: Generation(generation),
        authority,
        source: samples::endpoint("old"),
        target: Some(samples::endpoint("new")),
        mode: PlanMode::Dual,
        compare: CompareReads { sample_per_ten_thousand: 0 },
        ttl_grace_ms: 1000,
    })
}

fn published(generation: u64, authority: Authority) -> Published {
    Published { plan: plan(generation, authority), view: ViewContext::default() }
}

fn at(mono_us: u64) -> Now {
    Now { wall_ms: 0, mono_us }
}

#[test]
fn on_its_own_core_a_companion_is_asked_and_answers_at_once() {
    let mut rig = rig(0);
    rig.relay.borrow_mut().messages = vec![samples::to_companion(1), samples::to_companion(2)];
    rig.core.exchange_with_companion(0);
    assert_eq!(rig.companion.borrow().got, [(0, 1), (0, 2)]);
    assert_eq!(rig.relay.borrow().answers, [1, 2]);
    assert!(rig.handovers.iter().all(Mailbox::is_empty));
}

#[test]
fn on_another_core_messages_travel_in_order_and_answers_come_back() {
    let (mut other, mut keeper) = (rig(1), rig(0));
    other.relay.borrow_mut().messages = (1..=4).map(samples::to_companion).collect();
    other.core.exchange_with_companion(0);
    assert!(other.handovers[1].is_empty(), "nothing to itself");
    assert_eq!(other.core.handovers.kept(), 2, "the keeper's mailbox takes two at a time");
    let mut arrived = VecDeque::new();
    while let Some(message) = other.handovers[0].pop() {
        arrived.push_back(message);
        other.core.handovers.retry();
    }
    for message in arrived {
        assert_eq!(keeper.core.receive(message, at(0)), 0);
    }
    assert_eq!(keeper.companion.borrow().got, [(1, 1), (1, 2), (1, 3), (1, 4)]);
    keeper.core.exchange_with_companion(0);
    assert!(keeper.relay.borrow().answers.is_empty(), "they are not this core's");
    while let Some(message) = keeper.handovers[1].pop() {
        other.core.receive(message, at(0));
        keeper.core.handovers.retry();
    }
    assert_eq!(other.relay.borrow().answers, [1, 2, 3, 4]);
}

#[test]
fn a_plan_goes_to_relay_and_companion_and_its_ack_is_reported_once() {
    let mut rig = rig(0);
    assert_eq!(rig.core.publish(published(2, Authority::initial()), at(0)), Some(0));
    assert_eq!(rig.companion.borrow().plans, [2]);
    rig.core.report_what_is_new(0);
    assert!(rig.reports.is_empty(), "commands of the plan before are outstanding");
    rig.relay.borrow_mut().acked = Some(Generation(2));
    rig.core.report_what_is_new(0);
    rig.core.report_what_is_new(0);
    let report = rig.reports.pop();
    assert!(matches!(report, Some(Report::PlanAcked { generation: Generation(2), .. })), "{report:?}");
    assert!(rig.reports.is_empty());
    assert_eq!(rig.core.interlays[0].barrier_deadline_us, None);
}

#[test]
fn commands_that_hold_a_plan_up_too_long_are_ended_once() {
    for (authority, patience) in [
        (Authority::initial(), limits::BARRIER_TIMEOUT),
        (Authority::initial().flipped(), limits::FLIP_BARRIER_TIMEOUT),
    ] {
        let mut rig = rig(0);
        let begin = 5_000;
        rig.core.publish(published(2, authority), at(begin));
        let deadline = begin + patience.as_micros() as u64;
        rig.core.tick(0, at(deadline - 1));
        assert_eq!((rig.relay.borrow().nudges, rig.relay.borrow().broken), (1, 0));
        rig.core.tick(0, at(deadline));
        rig.core.tick(0, at(deadline + 1));
        assert_eq!((rig.relay.borrow().nudges, rig.relay.borrow().broken), (3, 1));
        rig.relay.borrow_mut().pending = false;
        rig.core.tick(0, at(deadline + 2));
        assert_eq!(rig.relay.borrow().nudges, 3, "nothing holds it up any more");
    }
}

#[test]
fn a_core_is_over_when_relay_and_companion_are_idle_or_time_is_up() {
    let mut rig = rig(0);
    assert!(!rig.core.is_over(at(u64::MAX)), "it was not asked to drain");
    rig.core.drain(10, at(0));
    assert!(rig.core.is_busy());
    rig.relay.borrow_mut().drained = true;
    assert!(!rig.core.is_over(at(9_999)), "a client waits for the companion");
    assert!(rig.core.is_over(at(10_000)));
    rig.companion.borrow_mut().idle = true;
    assert!(rig.core.is_over(at(1)));
}

#[test]
fn a_core_with_a_companion_at_work_is_looked_at_often() {
    let rig = rig(0);
    assert!(rig.core.is_busy());
    rig.companion.borrow_mut().idle = true;
    assert!(!rig.core.is_busy());
    rig.relay.borrow_mut().pending = true;
    assert!(rig.core.is_busy());
}

#[test]
fn an_order_for_a_companion_that_is_not_here_is_answered() {
    let mut rig = rig(1);
    let name = InterlayName::new("orders").unwrap();
    let order = samples::order_with_answer();
    assert_eq!(rig.core.order(name, order, at(0)), Some(0));
    assert!(matches!(rig.reports.pop(), Some(Report::Companion { .. })));
    let unknown = InterlayName::new("none").unwrap();
    assert_eq!(rig.core.order(unknown, samples::order_with_answer(), at(0)), None);
    assert!(rig.reports.is_empty());
}

#[test]
fn reads_are_reported_with_the_counters_when_there_are_any() {
    let rig = rig(1);
    rig.relay.borrow_mut().reads = vec![SampledRead { database: 3, frame: (*b"*1\r\n$4\r\nPING\r\n").into() }];
    let core = Rc::new(RefCell::new(rig.core));
    obey(&core, Directive::Sample);
    assert!(matches!(rig.reports.pop(), Some(Report::Counters { .. })));
    let report = rig.reports.pop();
    assert!(matches!(&report, Some(Report::Reads { reads, .. }) if reads[0].database == 3), "{report:?}");
    obey(&core, Directive::Sample);
    assert!(matches!(rig.reports.pop(), Some(Report::Counters { .. })));
    assert!(rig.reports.is_empty(), "they were taken");
}
