//! What the control thread does in the product, as far as a flip and the life of a process need it: plans, acknowledgements, the record, and the
//! order hold → drain → decide again → persist → publish → acks → exchange → release (`control::reconcile::flip`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

use crate::ablations::Ablation;
use crate::core::{Core, Told, interlay};
use crate::limits;
use crate::random::Random;
use crate::trace::trace;
use crate::world::{Facts, SharedWorld};
use base::model::{
    Authority, CompareReads, Endpoint, EndpointName, Epoch, FeedKind, Generation, PlanMode, ProtocolKind, RoutePlan,
    Side, limits as product_limits,
};
use bus::{Directive, Mailbox, Published};
use movers::testing::RedisMover;
use movers::{HeldClients, HoldError, MoverEvent, News, Route, ShadowFacts};

fn endpoint(side: Side) -> Endpoint {
    let (name, port) = if side == Side::Source { ("old", 1) } else { ("new", 2) };
    let name = EndpointName::new(name).expect("a name");
    Endpoint::from_url(name, ProtocolKind::Redis, &format!("redis://10.0.0.1:{port}")).expect("a url")
}

fn plan(generation: u64, authority: Authority) -> Arc<RoutePlan> {
    Arc::new(RoutePlan {
        interlay: interlay(),
        generation: Generation(generation),
        authority,
        source: endpoint(Side::Source),
        target: Some(endpoint(Side::Target)),
        mode: PlanMode::Followed,
        compare: CompareReads { sample_per_ten_thousand: limits::COMPARED_SHARE },
        ttl_grace_ms: limits::GRACE_MS,
    })
}

/// Acknowledgements of the present plan.
#[derive(Debug, Default)]
struct Acks {
    missing: RefCell<BTreeSet<usize>>,
    changed: Notify,
}

/// One life of the process. Dropping it ends all of it.
pub struct Process {
    world: SharedWorld,
    mover: Rc<RefCell<Rc<RedisMover>>>,
    events: mpsc::Sender<(base::model::InterlayName, MoverEvent)>,
    mailboxes: Vec<Mailbox<Directive>>,
    acks: Rc<Acks>,
    generation: u64,
    random: Random,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Process {
    /// As at a start: the record is read, cores and mover go by it.
    pub fn begin(world: &SharedWorld, random: Random, life: u64) -> Self {
        let authority = world.borrow().record.authority;
        let first = plan(1, authority);
        let cores: Vec<Core> = (0..limits::CORES).map(|id| Core::new(id, &first, life)).collect();
        let mailboxes: Vec<_> = cores.iter().map(|core| core.mailbox.clone()).collect();
        let (told, heard) = mpsc::unbounded_channel();
        world.borrow_mut().begin_process(cores, told);
        let (events, happened) = mpsc::channel(product_limits::FEED_EVENTS_LEN);
        let mut process = Self {
            mover: Rc::new(RefCell::new(mover(&mailboxes, None, &events))),
            world: Rc::clone(world),
            events,
            mailboxes,
            acks: Rc::default(),
            generation: 1,
            random,
            tasks: Vec::new(),
        };
        if process.ablation() != Ablation::NaiveDualWrite {
            process.mover.replace(mover(&process.mailboxes, Some(process.route()), &process.events));
        }
        process.mover.borrow().start();
        process.listen(heard, happened);
        process
    }

    fn ablation(&self) -> Ablation {
        self.world.borrow().ablation
    }

    fn route(&self) -> Route {
        let authority = self.world.borrow().record.authority;
        let ttl_grace_ms = if self.ablation() == Ablation::NoGrace { 0 } else { limits::GRACE_MS };
        Route {
            authority: endpoint(authority.side),
            shadow: endpoint(authority.side.other()),
            side: authority.side,
            epoch: authority.epoch,
            feed: FeedKind::Replication,
            ttl_grace_ms,
            conflicts: movers::Conflicts::default(),
            confirm_writes: false,
            source_p99_ms: 0,
        }
    }

    fn listen(
        &mut self,
        mut heard: mpsc::UnboundedReceiver<Told>,
        mut happened: mpsc::Receiver<(base::model::InterlayName, MoverEvent)>,
    ) {
        let acks = Rc::clone(&self.acks);
        let (news, mut read) = mpsc::unbounded_channel();
        self.tasks.push(tokio::task::spawn_local(async move {
            while let Some(told) = heard.recv().await {
                match told {
                    Told::Acked { core } => {
                        acks.missing.borrow_mut().remove(&core);
                        acks.changed.notify_waiters();
                    }
                    Told::Hold { core, ticket, event } => drop(news.send(News::Hold { core, ticket, event })),
                    Told::Reads(reads) => drop(news.send(News::Reads(reads))),
                }
            }
        }));
        let mover = Rc::clone(&self.mover);
        self.tasks.push(tokio::task::spawn_local(async move {
            while let Some(news) = read.recv().await {
                let mover = Rc::clone(&mover.borrow());
                mover.on_news(news).await;
            }
        }));
        let world = Rc::clone(&self.world);
        self.tasks.push(tokio::task::spawn_local(async move {
            while let Some((_, event)) = happened.recv().await {
                tell(&world, &event);
                match event {
                    MoverEvent::PassStarted(pass) => world.borrow_mut().facts.epoch = Some(pass.epoch),
                    MoverEvent::Facts(fresh) => {
                        let mut world = world.borrow_mut();
                        if world.facts.epoch == Some(world.record.authority.epoch) {
                            world.facts = facts(&fresh.facts, world.facts.epoch);
                        }
                    }
                    MoverEvent::Divergence(sighting)
                        if world.borrow().is_in_grace(sighting.database, &sighting.key) => {}
                    MoverEvent::Divergence(sighting) => {
                        let key = String::from_utf8_lossy(&sighting.key).into_owned();
                        let (source, target) = (sighting.source, sighting.target);
                        let what = format!("a comparison reports {key}: source {source}, target {target}");
                        world.borrow_mut().violation(what);
                    }
                    _ => {}
                }
            }
        }));
    }

    // ---- the flip -----------------------------------------------------------------------------------------------------

    fn may_flip(&self) -> bool {
        let facts = self.world.borrow().facts;
        facts.way_back && facts.in_step && facts.doubts == 0
    }

    /// Changes the authority if everything is ready for it.
    async fn flip(&mut self) {
        let ablation = self.ablation();
        if !self.may_flip() || ablation == Ablation::NaiveDualWrite {
            return;
        }
        self.world.borrow_mut().begin_hold();
        self.try_flip(ablation).await;
        self.world.borrow_mut().end_hold();
    }

    async fn try_flip(&mut self, ablation: Ablation) {
        if ablation != Ablation::FlipWithoutDrain && !self.hold_and_drain().await {
            return;
        }
        // The record on the disk; a process that dies here does not know which it is.
        sleep(Duration::from_micros(self.random.between(limits::RECORD_US))).await;
        self.world.borrow_mut().promote();
        self.publish().await;
        let mover = Rc::clone(&self.mover.borrow());
        if ablation == Ablation::ReverseLate {
            self.turn_round_late(mover).await;
            return;
        }
        // Control logs an error and goes on.
        let _ = mover.exchange(self.route()).await;
        let _ = mover.release().await;
    }

    async fn hold_and_drain(&self) -> bool {
        let mover = Rc::clone(&self.mover.borrow());
        match mover.hold(product_limits::FENCE_BUDGET_DEFAULT).await {
            Ok(drained) => {
                let epoch = self.world.borrow().facts.epoch;
                let known = drained.facts.map(|fresh| facts(&fresh.facts, epoch));
                self.world.borrow_mut().facts = known.unwrap_or_default();
                if self.may_flip() {
                    self.look_at_both();
                    return true;
                }
            }
            Err(HoldError::Expired { clients: HeldClients::Released, .. }) => return false,
            Err(HoldError::Expired { .. } | HoldError::Failed(_) | HoldError::Unsupported(_)) => {}
        }
        let _ = mover.release().await;
        false
    }

    /// I6: clients are held and nothing is outstanding, so both servers hold the same.
    fn look_at_both(&self) {
        let difference = self.world.borrow().difference();
        if let Some(difference) = difference {
            self.world.borrow_mut().violation(format!("at a flip the shadow differs: {difference}"));
        }
    }

    /// Gives every core the plan that follows from the record, and waits for all of them.
    async fn publish(&mut self) {
        self.generation += 1;
        let authority = self.world.borrow().record.authority;
        let published = Published { plan: plan(self.generation, authority), view: Default::default() };
        self.acks.missing.borrow_mut().extend(0..limits::CORES);
        for mailbox in &self.mailboxes {
            mailbox.push(Directive::Publish(published.clone())).expect("room for a directive");
        }
        loop {
            let changed = self.acks.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.acks.missing.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Ablation: what was followed is left, clients go on, and only then is the other direction begun.
    async fn turn_round_late(&self, old: Rc<RedisMover>) {
        let _ = old.release().await;
        let new = mover(&self.mailboxes, None, &self.events);
        drop(self.mover.replace(Rc::clone(&new)));
        drop(old);
        sleep(Duration::from_micros(limits::REVERSE_LATE_US)).await;
        let route = self.route();
        self.world.borrow_mut().forget_the_way_back(route.epoch);
        let _ = new.keep_in_step(route);
    }

    /// Waits for a time in which flips are tried.
    pub async fn flip_until_rest(&mut self) {
        while self.world.borrow().is_active() {
            sleep(Duration::from_micros(self.random.between(limits::FLIP_EVERY_US))).await;
            if self.world.borrow().is_active() {
                self.flip().await;
            }
        }
    }
}

fn mover(
    mailboxes: &[Mailbox<Directive>],
    route: Option<Route>,
    events: &mpsc::Sender<(base::model::InterlayName, MoverEvent)>,
) -> Rc<RedisMover> {
    Rc::new(RedisMover::new(interlay(), mailboxes, route, events.clone()).expect("a mover"))
}

fn tell(world: &SharedWorld, event: &MoverEvent) {
    let now_us = world.borrow().net.borrow().now_us;
    match event {
        MoverEvent::Facts(_) => {}
        MoverEvent::PassStarted(pass) => {
            trace(now_us, || format!("pass {} of epoch {}: {}", pass.number, pass.epoch.0, pass.reason))
        }
        other => trace(now_us, || format!("{other:?}")),
    }
}

fn facts(facts: &ShadowFacts, epoch: Option<Epoch>) -> Facts {
    Facts { epoch, way_back: facts.way_back, in_step: !facts.behind.uncopied, doubts: facts.behind.dirty }
}
