//! The companion of a Redis interlay: begins a lane when a plan starts dual operation and ends it after a plan that ends it.
//!
//! Lives on one core (`bus::companion_core`) as long as the interlay does. What a lane does is in `lane`; here is only when there is one.

use std::sync::Arc;

use super::lane::Lane;
use super::lane::caller::Caller;
use super::lane::intents::{Found, IntentLog};
use super::lane::request::{LaneMessage, LaneReply};
use crate::contract::{Companion, CompanionAsk, KeptMemory, LinkKey, RelaySetup, SharedPolicies, ToCompanion, ToRelay};
use base::model::{CoreId, PlanMode, RoutePlan, Side};
use base::stdx::clock::Now;
use bus::counters::CoreCounters;
use bus::{CompanionEvent, CompanionOrder};

const NOT_DUAL: &str = "this interlay is not in dual operation";

/// See the head of this file.
#[derive(Debug)]
pub struct RedisCompanion {
    policies: SharedPolicies,
    /// Where a lane writes down what must be known after a kill of the process.
    kept: Box<dyn KeptMemory>,
    /// Part of the names of this process' connections.
    token: u64,
    running: Option<Running>,
    next_link: LinkKey,
    /// What lanes that have ended have counted.
    past: CoreCounters,
    asks: Vec<CompanionAsk>,
    messages: Vec<(CoreId, ToRelay)>,
    events: Vec<CompanionEvent>,
}

/// A lane and the keys of its two connections.
#[derive(Debug)]
struct Running {
    lane: Lane,
    source: LinkKey,
    target: LinkKey,
}

impl Running {
    fn side(&self, link: LinkKey) -> Option<Side> {
        if link == self.source {
            Some(Side::Source)
        } else if link == self.target {
            Some(Side::Target)
        } else {
            None
        }
    }
}

impl RedisCompanion {
    #[must_use]
    pub fn new(setup: RelaySetup, kept: Box<dyn KeptMemory>) -> Self {
        let mut companion = Self {
            policies: setup.policies,
            kept,
            token: setup.token,
            running: None,
            next_link: 0,
            past: CoreCounters::default(),
            asks: Vec::new(),
            messages: Vec::new(),
            events: Vec::new(),
        };
        if setup.plan.mode == PlanMode::Dual {
            let found = IntentLog::take_up(&mut *companion.kept, &setup.plan);
            companion.begin(&setup.plan, found, Now::default());
            // Every core starts with this plan, so no write goes past the lane.
            if let Some(running) = companion.running.as_mut() {
                running.lane.open();
            }
            companion.collect();
        } else {
            companion.kept.discard();
        }
        companion
    }

    /// What an earlier lane has left says nothing of one that begins while the process runs.
    fn begin_anew(&mut self, plan: &Arc<RoutePlan>, now: Now) {
        let found = match IntentLog::begin(&mut *self.kept, plan) {
            Ok(log) => Found::Nothing { log, why: "dual operation begins".to_owned() },
            Err(error) => {
                let why = format!(
                    "dual operation begins; there is no intent log, so a kill of the process costs another copy of every key: {error}"
                );
                Found::Nothing { log: IntentLog::none(plan), why }
            }
        };
        self.begin(plan, found, now);
    }

    fn begin(&mut self, plan: &Arc<RoutePlan>, found: Found, now: Now) {
        let (source, target) = (self.next_link, self.next_link + 1);
        self.next_link += 2;
        self.asks.push(CompanionAsk::Connect { link: source, side: Side::Source });
        self.asks.push(CompanionAsk::Connect { link: target, side: Side::Target });
        let mut lane = Lane::new(plan, SharedPolicies::clone(&self.policies), now);
        lane.keep_intents(found);
        self.running = Some(Running { lane, source, target });
    }

    /// Ends the lane, whatever it still has under way: clients that wait for it are told that the outcome is unknown.
    fn end(&mut self, now: Now) {
        let Some(mut running) = self.running.take() else { return };
        for side in [Side::Source, Side::Target] {
            running.lane.lost(side, "the lane has ended", now);
        }
        self.messages.extend(running.lane.take_replies().into_iter().map(|(core, reply)| (core, ToRelay::Lane(reply))));
        count(&running.lane, &mut self.past);
        self.asks.extend([running.source, running.target].map(CompanionAsk::Close));
    }

    /// Takes what the lane has to say, and ends one that has nothing left to do.
    fn collect(&mut self) {
        let Some(running) = self.running.as_mut() else { return };
        let lane = &mut running.lane;
        self.messages.extend(lane.take_replies().into_iter().map(|(core, reply)| (core, ToRelay::Lane(reply))));
        self.events.extend(lane.take_events().into_iter().map(CompanionEvent::Lane));
        if lane.is_retired_and_idle() {
            count(lane, &mut self.past);
            self.asks.extend([running.source, running.target].map(CompanionAsk::Close));
            self.running = None;
        }
    }

    /// The lane, and the side of this connection of it.
    fn lane_of(&mut self, link: LinkKey) -> Option<(&mut Lane, Side)> {
        let running = self.running.as_mut()?;
        let side = running.side(link)?;
        Some((&mut running.lane, side))
    }
}

impl Companion for RedisCompanion {
    /// A plan that ends dual operation retires the lane: what clients still have in it is answered first, see
    /// [`Lane::is_retired_and_idle`].
    fn publish(&mut self, plan: &Arc<RoutePlan>, now: Now) {
        let serving = self.running.as_mut().filter(|running| !running.lane.is_retired());
        match (plan.mode, serving) {
            (PlanMode::Dual, Some(running)) => running.lane.publish(plan, now),
            (PlanMode::Dual, None) => {
                self.end(now); // a retired one that was still finishing
                self.begin_anew(plan, now);
            }
            (PlanMode::PassThrough | PlanMode::Followed, Some(running)) => {
                running.lane.retire();
                self.kept.discard();
            }
            (PlanMode::PassThrough | PlanMode::Followed, None) => {}
        }
        self.collect();
    }

    fn policies_changed(&mut self, now: Now) {
        if let Some(running) = self.running.as_mut() {
            running.lane.policies_changed(now);
        }
        self.collect();
    }

    fn order(&mut self, order: CompanionOrder, now: Now) {
        match (order, self.running.as_mut()) {
            (CompanionOrder::Lane(order), Some(running)) => running.lane.order(order, now),
            (order, None) => self.events.extend(order.refused(NOT_DUAL)),
        }
        self.collect();
    }

    fn message(&mut self, from: CoreId, message: ToCompanion, now: Now) {
        let ToCompanion::Lane(message) = message;
        match (message, self.running.as_mut()) {
            (LaneMessage::Commands(batch), Some(running)) => running.lane.submit(from, batch, now),
            (LaneMessage::Forget { client }, Some(running)) => running.lane.forget(Caller { core: from, client }, now),
            (LaneMessage::Gone { client }, Some(running)) => {
                running.lane.client_gone(Caller { core: from, client }, now);
            }
            (LaneMessage::Commands(batch), None) => {
                // The plan that ends dual operation overtook the batch: the client's connection ends, as its outcome is not known.
                let reply = LaneReply { client: batch.client, count: 0, bytes: Vec::new(), close: true };
                self.messages.push((from, ToRelay::Lane(reply)));
            }
            (LaneMessage::Forget { .. } | LaneMessage::Gone { .. }, None) => {}
        }
        self.collect();
    }

    fn tick(&mut self, now: Now) {
        if let Some(running) = self.running.as_mut() {
            running.lane.tick(now);
        }
        self.collect();
    }

    fn link_opened(&mut self, link: LinkKey, _now: Now) {
        let token = self.token;
        if let Some((lane, side)) = self.lane_of(link) {
            lane.opened(side, token);
        }
    }

    fn link_is_ready(&self, link: LinkKey) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.side(link).is_some_and(|side| running.lane.is_connected(side)))
    }

    fn link_input(&mut self, link: LinkKey, bytes: &[u8], now: Now) -> Result<(), String> {
        let (lane, side) = self.lane_of(link).ok_or("the lane has ended")?;
        let outcome = lane.input(side, bytes, now);
        self.collect();
        outcome
    }

    fn link_lost(&mut self, link: LinkKey, why: &str, now: Now) {
        if let Some((lane, side)) = self.lane_of(link) {
            lane.lost(side, why, now);
        }
        self.collect();
    }

    fn link_has_output(&self, link: LinkKey) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.side(link).is_some_and(|side| running.lane.has_output(side)))
    }

    fn take_link_output(&mut self, link: LinkKey, recycled: Vec<u8>) -> Option<Vec<u8>> {
        let (lane, side) = self.lane_of(link)?;
        lane.take_output(side, recycled)
    }

    fn take_asks(&mut self) -> Vec<CompanionAsk> {
        std::mem::take(&mut self.asks)
    }

    fn take_messages(&mut self) -> Vec<(CoreId, ToRelay)> {
        std::mem::take(&mut self.messages)
    }

    fn take_events(&mut self) -> Vec<CompanionEvent> {
        std::mem::take(&mut self.events)
    }

    fn is_active(&self) -> bool {
        self.running.is_some()
    }

    fn is_idle(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.lane.is_idle())
    }

    fn add_counters(&self, counters: &mut CoreCounters) {
        counters.add(&self.past);
        if let Some(running) = &self.running {
            count(&running.lane, counters);
        }
    }
}

/// Adds what both sides have answered in this lane.
fn count(lane: &Lane, counters: &mut CoreCounters) {
    let (source, target) = lane.side_counters();
    counters.source.add(source);
    counters.target.add(target);
}

#[cfg(test)]
mod tests {
    use super::super::lane::intents::testing::Heap;
    use super::super::lane::request::{LaneBatch, LaneItem};
    use super::*;
    use base::model::{
        Authority, CompareReads, Endpoint, EndpointName, Generation, InterlayName, InterlayProtocol, InterlaySpec,
        ProtocolKind, Sharing,
    };
    use bus::{LaneEvent, LaneOrder};
    use wire::resp::command::lookup;

    fn plan(generation: u64, mode: PlanMode) -> Arc<RoutePlan> {
        let end = |name: &str| {
            let name = EndpointName::new(name).unwrap();
            Endpoint::from_url(name, ProtocolKind::Redis, "redis://127.0.0.1:1").unwrap()
        };
        Arc::new(RoutePlan {
            interlay: InterlayName::new("orders").unwrap(),
            generation: Generation(generation),
            authority: Authority::initial(),
            source: end("old"),
            target: Some(end("new")),
            mode,
            compare: CompareReads { sample_per_ten_thousand: 0 },
            ttl_grace_ms: 1000,
        })
    }

    fn companion(mode: PlanMode) -> RedisCompanion {
        companion_with(mode, Heap::default())
    }

    fn companion_with(mode: PlanMode, kept: Heap) -> RedisCompanion {
        let plan = plan(1, mode);
        let listen = ([127, 0, 0, 1], 0).into();
        let spec = InterlaySpec {
            name: plan.interlay.clone(),
            protocol: InterlayProtocol::Redis(Sharing::Auto),
            listen,
            tls: None,
        };
        let policies = SharedPolicies::default();
        let setup = RelaySetup { spec, plan, core: CoreId(0), cores: 2, token: 1, seed: [0; 32], policies };
        RedisCompanion::new(setup, Box::new(kept))
    }

    fn set(client: u64) -> ToCompanion {
        let frames = wire::resp::encode::request(&[b"SET", b"k", b"v"]);
        let items = vec![LaneItem::Command { command: lookup(b"SET"), len: frames.len() }];
        ToCompanion::Lane(LaneMessage::Commands(LaneBatch { client, database: 0, resp: 2, items, frames }))
    }

    fn connects(links: [LinkKey; 2]) -> Vec<CompanionAsk> {
        let [source, target] = links;
        vec![
            CompanionAsk::Connect { link: source, side: Side::Source },
            CompanionAsk::Connect { link: target, side: Side::Target },
        ]
    }

    #[test]
    fn a_lane_begins_and_ends_with_the_plans() {
        let mut companion = companion(PlanMode::PassThrough);
        assert!(companion.take_asks().is_empty() && !companion.is_active() && companion.is_idle());
        companion.publish(&plan(2, PlanMode::Dual), Now::default());
        assert_eq!(companion.take_asks(), connects([0, 1]));
        assert!(companion.is_active());
        companion.publish(&plan(3, PlanMode::Dual), Now::default());
        assert_eq!(companion.take_asks(), [], "the same lane goes on");
        companion.publish(&plan(4, PlanMode::PassThrough), Now::default());
        assert!(companion.take_asks().is_empty() && companion.is_active(), "a command may be on its way to it");
        companion.order(CompanionOrder::Lane(LaneOrder::Close), Now::default());
        assert_eq!(companion.take_asks(), [CompanionAsk::Close(0), CompanionAsk::Close(1)]);
        assert!(!companion.is_active());
    }

    /// Or a later migration would go on with what an earlier one has left.
    #[test]
    fn what_a_lane_has_written_down_ends_with_it() {
        let heap = Heap::default();
        let left = || heap.left.borrow().is_some();
        let mut first = companion_with(PlanMode::PassThrough, heap.clone());
        assert!(!left());
        first.publish(&plan(2, PlanMode::Dual), Now::default());
        assert!(left());
        first.publish(&plan(3, PlanMode::PassThrough), Now::default());
        assert!(!left(), "dual operation has ended");
        first.publish(&plan(4, PlanMode::Dual), Now::default());
        drop(first);
        drop(companion_with(PlanMode::Dual, heap.clone()));
        assert!(left(), "the process was killed");
        drop(companion_with(PlanMode::Followed, heap.clone()));
        assert!(!left(), "the next one has nothing that is kept in step by a lane");
    }

    #[test]
    fn a_lane_that_is_still_finishing_makes_way_for_the_next() {
        let mut companion = companion(PlanMode::Dual);
        assert_eq!(companion.take_asks(), connects([0, 1]));
        companion.publish(&plan(2, PlanMode::PassThrough), Now::default());
        companion.publish(&plan(3, PlanMode::Dual), Now::default());
        let asks = companion.take_asks();
        assert_eq!(asks[..2], [CompanionAsk::Close(0), CompanionAsk::Close(1)]);
        assert_eq!(asks[2..], connects([2, 3]));
        assert!(companion.link_input(0, b"+OK\r\n", Now::default()).is_err(), "a connection of the lane before");
        assert!(!companion.link_is_ready(0) && !companion.link_has_output(0));
    }

    #[test]
    fn a_command_behind_the_end_of_dual_operation_closes_its_client() {
        let mut companion = companion(PlanMode::PassThrough);
        companion.message(CoreId(1), set(7), Now::default());
        let messages = companion.take_messages();
        let [(CoreId(1), ToRelay::Lane(reply))] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((reply.client, reply.close), (7, true));
    }

    #[test]
    fn an_order_without_a_lane_is_refused() {
        let mut companion = companion(PlanMode::PassThrough);
        companion.order(CompanionOrder::Lane(LaneOrder::Fence { ticket: 5, budget_us: 1 }), Now::default());
        let events = companion.take_events();
        let [CompanionEvent::Lane(LaneEvent::FenceExpired { ticket: 5, reason })] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(reason, NOT_DUAL);
        companion.order(CompanionOrder::Lane(LaneOrder::Open), Now::default());
        assert!(companion.take_events().is_empty());
    }

    #[test]
    fn clients_of_a_lane_that_is_replaced_are_closed() {
        let mut companion = companion(PlanMode::Dual);
        // Held until the authority's connection has been tried for the first time.
        companion.message(CoreId(1), set(9), Now::default());
        assert!(companion.take_messages().is_empty() && !companion.is_idle());
        companion.publish(&plan(2, PlanMode::PassThrough), Now::default());
        companion.publish(&plan(3, PlanMode::Dual), Now::default());
        let messages = companion.take_messages();
        let [(CoreId(1), ToRelay::Lane(reply))] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!(reply.client, 9);
    }
}
