//! The flip and the rollout against fake cores: in which order things become durable, known and released.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, yield_now};

use super::clock::now;
use super::fake::at_once;
use super::observed::{FlipOutcome, Observed, Pass};
use super::state::{Control, Migration};
use super::*;
use crate::config::Config;
use crate::store::{Change, Conflict, StoreError};
use crate::workflow::{
    Command, Evidence, Fact, MigrationRecord, Phase, PolicyWord, Verification, Workload, transition,
};
use base::model::{
    CoreId, Decisions, FeedChoice, FeedKind, FilterName, InterlayName, Ledger, MigrationId, PlanMode, PolicyChoice,
    PolicyMode, PolicySetting, PolicySlot, Side,
};
use bus::{
    CompanionEvent, CompanionOrder, Directive, LaneEvent, LaneOrder, LaneStatus, Published, Report, Switchboard,
};
use movers::{Check, Feeds, PassKind};

const CORES: u16 = 2;

/// What the fake cores saw, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Plan { core: u16, authority: Side, durable: Side },
    Fence,
    Release,
}

struct Rig {
    running: Running,
    handle: Handle,
    dir: PathBuf,
    log: RefCell<Vec<Seen>>,
    /// Core 1 keeps its acks to itself.
    mute: Cell<bool>,
    kept: RefCell<Vec<Report>>,
    fence_expires: Cell<bool>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn config(dir: &std::path::Path) -> Config {
    fake::share_compiled_filters(dir);
    // Nothing listens on the discard port of this address: jobs that look at a server fail at once.
    let text = format!(
        "[data]\ndir = {:?}\n[endpoints.old]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n\
         [endpoints.new]\nkind = \"redis\"\nurl = \"redis://127.0.0.2:9\"\n\
         [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"old\"\ntarget = \"new\"\n",
        dir.display().to_string()
    );
    Config::parse(std::path::Path::new("test.toml"), &text).unwrap()
}

fn scratch() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = std::env::temp_dir().join(format!(
        "crossfade-control-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn name() -> InterlayName {
    InterlayName::new("orders").unwrap()
}

fn id() -> MigrationId {
    MigrationId::new("m").unwrap()
}

impl Rig {
    async fn start_in(dir: PathBuf) -> Rc<Self> {
        let intent = Intent::load(config(&dir)).await.unwrap();
        let (running, handle) = start(intent, Switchboard::new(CORES).unwrap(), "fake".to_owned()).await.unwrap();
        let rig = Rc::new(Self {
            running,
            handle,
            dir,
            log: RefCell::default(),
            mute: Cell::new(false),
            kept: RefCell::default(),
            fence_expires: Cell::new(false),
        });
        let cores = Rc::downgrade(&rig);
        tokio::task::spawn_local(async move {
            while let Some(rig) = cores.upgrade() {
                rig.cores_once();
                drop(rig);
                yield_now().await;
            }
        });
        rig
    }

    fn control(&self) -> &Rc<Control> {
        &self.running.control
    }

    fn say(&self, report: Report) {
        self.control().bus.reports.push(report).unwrap();
    }

    fn cores_once(&self) {
        for core in 0..CORES {
            while let Some(directive) = self.control().bus.cores[usize::from(core)].pop() {
                match directive {
                    Directive::Publish(Published { plan, .. }) => {
                        let stored = at_once(self.control().store.migrations()).unwrap();
                        let durable = stored.first().map_or(Side::Source, |record| record.authority.side);
                        self.log.borrow_mut().push(Seen::Plan { core, authority: plan.authority.side, durable });
                        let (core, interlay) = (CoreId(core), plan.interlay.clone());
                        let ack = Report::PlanAcked { core, interlay, generation: plan.generation };
                        if core.0 == 1 && self.mute.get() {
                            self.kept.borrow_mut().push(ack);
                        } else {
                            self.say(ack);
                        }
                    }
                    Directive::Companion { order: CompanionOrder::Lane(order), .. } => self.lane(order),
                    Directive::Policies { interlay, policies } => {
                        let (generation, before) = (policies.generation, Vec::new());
                        self.say(Report::PoliciesAdopted { core: CoreId(core), interlay, generation, before });
                    }
                    Directive::Sample
                    | Directive::Hold { .. }
                    | Directive::Sessions { .. }
                    | Directive::Confirm { .. } => {}
                    Directive::Drain { .. } => self.say(Report::Drained { core: CoreId(core) }),
                }
            }
        }
    }

    fn lane(&self, order: LaneOrder) {
        let event = match order {
            LaneOrder::Fence { ticket, .. } => {
                self.log.borrow_mut().push(Seen::Fence);
                if self.fence_expires.get() {
                    LaneEvent::FenceExpired { ticket, reason: "7 in flight".to_owned() }
                } else {
                    LaneEvent::Fenced { ticket }
                }
            }
            LaneOrder::Release { ticket } => {
                self.log.borrow_mut().push(Seen::Release);
                LaneEvent::Released { ticket, pause_us: 1234, held: 1 }
            }
            LaneOrder::Open
            | LaneOrder::Close
            | LaneOrder::Copy { .. }
            | LaneOrder::PassDone { .. }
            | LaneOrder::Probe { .. }
            | LaneOrder::Repair { .. } => {
                return;
            }
        };
        self.lane_says(event);
    }

    fn lane_says(&self, event: LaneEvent) {
        self.say(Report::Companion { interlay: name(), event: CompanionEvent::Lane(event) });
    }

    /// A migration that is only recorded; the tick checks and flips nothing on its own.
    async fn created(&self, feed: FeedChoice) -> Rc<Migration> {
        let mut decisions = Decisions { manual_approval: false, feed, ..Decisions::default() };
        // A busy machine may take long to answer a hold; budgets have tests of their own.
        decisions.thresholds.fence_budget_ms = base::model::limits::FENCE_BUDGET_MAX_MS;
        let request = CreateRequest {
            id: id(),
            interlay: name(),
            source: None,
            target: None,
            decisions,
            policies: Default::default(),
        };
        self.handle.create(request).await.unwrap();
        let migration = self.control().migration(&id()).unwrap();
        {
            let mut seen = migration.seen.borrow_mut();
            seen.holds.attempts.running = true;
            seen.servers.checking = true;
            seen.findings.comparing = true;
            seen.verification.running = Some(Arc::default());
        }
        migration
    }

    /// Changes the record in the store and here, past the workflow.
    async fn put(&self, migration: &Migration, change: impl FnOnce(&mut MigrationRecord)) {
        let decided_on = migration.record.borrow().clone();
        let mut record = decided_on.clone();
        change(&mut record);
        let change = Change { decided_on: Some(&decided_on), record: &record, journal: &[] };
        self.control().store.commit(change).await.unwrap();
        migration.record.replace(record);
    }

    /// A migration in phase migrate, with everything measured that a flip needs.
    async fn at_the_flip(&self) -> Rc<Migration> {
        let migration = self.created(FeedChoice::Lane).await;
        let at = now();
        let step = |record: &mut MigrationRecord| {
            record.phase = Phase::Migrate;
            record.phase_since = at;
            record.dual_since = Some(at);
            record.feed = Some(FeedKind::Lane);
            record.status = base::model::MigrationStatus::Running;
        };
        self.put(&migration, step).await;
        self.control().movers.keep_in_step(&name(), migration.route()).await.unwrap();
        self.measure(&migration).await;
        migration
    }

    /// As the lane and a verification would leave it when nothing stands in the way of a flip.
    async fn measure(&self, migration: &Migration) {
        let at = now();
        let epoch = migration.record.borrow().authority.epoch;
        let status = LaneStatus {
            reads_compared: 5000,
            authority_connected: true,
            shadow_connected: true,
            ..LaneStatus::default()
        };
        self.lane_says(LaneEvent::Status(status));
        while migration.seen.borrow().shadow.facts.is_none() {
            yield_now().await;
        }
        let mut seen = migration.seen.borrow_mut();
        let progress = Arc::default();
        seen.shadow.pass = Some(Pass {
            number: 1,
            kind: PassKind::Full,
            epoch,
            began_at: base::model::Timestamp(1),
            done: true,
            progress,
        });
        let (divergent, inconclusive) = (0, 0);
        seen.verification.newest =
            Some(Verification { started_at: at, finished_at: at, epoch, keys: 9, divergent, inconclusive });
        seen.verification.clean_since = Some(at);
        seen.policy.word = PolicyWord::GoesOn;
        seen.servers.source = Check::Passed(String::new());
        (seen.findings.found, seen.findings.at) = (Ok(Vec::new()), Some(at));
    }

    fn stored_side(&self) -> Side {
        at_once(self.control().store.migrations()).unwrap()[0].authority.side
    }
}

fn run(test: impl AsyncFnOnce(Rc<Rig>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move {
        test(Rig::start_in(scratch()).await).await;
    });
}

#[test]
fn a_flip_is_durable_before_any_core_knows_and_known_to_all_before_it_is_released() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.log.borrow_mut().clear();
        assert_eq!(rig.control().flip(&migration).await, FlipOutcome::Done);
        let plan = |core| Seen::Plan { core, authority: Side::Target, durable: Side::Target };
        assert_eq!(*rig.log.borrow(), vec![Seen::Fence, plan(0), plan(1), Seen::Release]);
        let record = migration.record.borrow().clone();
        assert_eq!((record.authority.epoch.0, record.flips[0].pause_us), (2, Some(1234)));
        let stored = rig.control().store.migrations().await.unwrap();
        assert_eq!(stored, vec![record]);
        let journal = rig.control().store.journal_after(0).await.unwrap();
        assert!(journal.iter().any(|event| event.kind == "authority_changed"));
    });
}

/// The cores pass everything through while something else keeps the shadow in step; the mover is told which it is.
#[test]
fn what_the_cores_and_the_mover_are_told_follows_from_the_feed() {
    for (choice, mode, feed) in [
        (FeedChoice::Lane, PlanMode::Dual, FeedKind::Lane),
        (FeedChoice::Replication, PlanMode::Followed, FeedKind::Replication),
        (FeedChoice::Auto, PlanMode::Followed, FeedKind::Replication),
    ] {
        run(async |rig| {
            let migration = rig.created(choice).await;
            rig.put(&migration, |record| record.phase = Phase::Analyze).await;
            {
                let seen = &mut migration.seen.borrow_mut();
                seen.findings.found = Ok(Vec::new());
                let usable = vec![FeedKind::Replication, FeedKind::Lane];
                seen.findings.feeds = Ok(Feeds { usable, refused: Vec::new() });
                seen.policy.word = PolicyWord::GoesOn;
            }
            let workload = Ok(Workload { commands: 1_000_000, seconds: 1_000 });
            let evidence = Evidence { target_keys: Ok(0), workload, ..rig.control().evidence(&migration) };
            let record = migration.record.borrow().clone();
            let done = transition(&record, Command::Advance { to: None }, &evidence, now()).unwrap();
            let interlay = rig.control().interlay(&name()).unwrap();
            let change = interlay.change.lock().await;
            rig.control().apply(&migration, done).await.unwrap();
            drop(change);
            let plan = interlay.plan();
            assert_eq!((plan.mode, plan.compare.sample_per_ten_thousand), (mode, 10_000), "{choice}");
            assert_eq!(migration.route().feed, feed);
            assert!(rig.handle.interlay(name()).await.unwrap().dual);
            let journal = rig.control().store.journal_after(0).await.unwrap();
            let told = journal.iter().find(|event| event.kind == "feed_chosen").expect("it is in the journal");
            assert!(told.text.starts_with(&format!("{feed} keeps both sides in step")), "{}", told.text);
        });
    }
}

/// A policy that only the lane asks is not chosen for a migration that has no lane: it would be in force and never asked.
#[test]
fn a_policy_that_the_feed_would_pass_by_is_refused() {
    let tolerant = || {
        let shipped = PolicySetting::of(FilterName::new("builtin:compare-semantic").unwrap());
        let setting = PolicySetting { mode: PolicyMode::Block, ..shipped };
        Command::SetPolicy { slot: PolicySlot::Compare, choice: Some(PolicyChoice::Filter(setting)) }
    };
    run(async |rig| {
        let migration = rig.created(FeedChoice::Replication).await;
        let begin = |record: &mut MigrationRecord| {
            record.phase = Phase::Compare;
            record.dual_since = Some(now());
            record.feed = Some(FeedKind::Replication);
        };
        rig.put(&migration, begin).await;
        let error = rig.handle.command(id(), tolerant()).await.expect_err("refused");
        assert!(error.to_string().contains("which only the lane asks it"), "{error}");
        // As a restart with another configuration finds it.
        assert!(rig.handle.ready().await.unwrap().notes.is_empty());
        let Command::SetPolicy { slot, choice } = tolerant() else { panic!("it sets a policy") };
        rig.put(&migration, |record| record.policies.set(slot, choice)).await;
        let notes = rig.handle.ready().await.unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("it is not asked in migration m")), "{notes:?}");
        let nobody = Command::SetPolicy { slot: PolicySlot::Compare, choice: Some(PolicyChoice::Nobody) };
        rig.handle.command(id(), nobody).await.unwrap();
    });
}

#[test]
fn nothing_is_released_while_a_core_has_not_acked() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.log.borrow_mut().clear();
        rig.mute.set(true);
        let (control, flipping) = (Rc::clone(rig.control()), Rc::clone(&migration));
        let flip = tokio::task::spawn_local(async move { control.flip(&flipping).await });
        while rig.kept.borrow().is_empty() {
            yield_now().await;
        }
        for _ in 0..500 {
            yield_now().await;
        }
        assert!(!flip.is_finished() && !rig.log.borrow().contains(&Seen::Release));
        rig.mute.set(false);
        for ack in rig.kept.take() {
            rig.say(ack);
        }
        assert_eq!(flip.await.unwrap(), FlipOutcome::Done);
        assert_eq!(rig.log.borrow().last(), Some(&Seen::Release));
    });
}

#[test]
fn an_expired_fence_changes_nothing() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.log.borrow_mut().clear();
        rig.fence_expires.set(true);
        let outcome = rig.control().flip(&migration).await;
        assert!(matches!(outcome, FlipOutcome::Postponed(reason) if reason.contains("7 in flight")));
        assert_eq!(*rig.log.borrow(), vec![Seen::Fence]);
        assert_eq!((rig.stored_side(), migration.record.borrow().authority.side), (Side::Source, Side::Source));
    });
}

#[test]
fn a_record_that_cannot_be_written_releases_the_old_authority() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.log.borrow_mut().clear();
        *rig.control().store_failed.borrow_mut() = Some("no space left on device".to_owned());
        let outcome = rig.control().flip(&migration).await;
        assert!(matches!(outcome, FlipOutcome::Postponed(reason) if reason.contains("no space left")));
        assert_eq!(*rig.log.borrow(), vec![Seen::Fence, Seen::Release], "no plan was published");
        assert_eq!((rig.stored_side(), migration.record.borrow().authority.side), (Side::Source, Side::Source));
        assert!(!rig.handle.ready().await.unwrap().ready);
    });
}

#[test]
fn a_side_lost_while_clients_are_held_stops_the_flip() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.log.borrow_mut().clear();
        let lost = LaneEvent::SideLost { side: Side::Target, reason: "reset".to_owned() };
        rig.lane_says(lost);
        // The report is read while the hold is awaited.
        let outcome = rig.control().flip(&migration).await;
        assert!(matches!(outcome, FlipOutcome::Postponed(reason) if reason.contains("shadow lost")));
        assert_eq!(*rig.log.borrow(), vec![Seen::Fence, Seen::Release]);
        assert_eq!(rig.stored_side(), Side::Source);
    });
}

#[test]
fn after_a_flip_nothing_measured_before_it_counts() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        rig.control().flip(&migration).await;
        let refusal = rig.handle.command(id(), Command::Commit { force: None }).await.expect_err("too early");
        let text = refusal.to_string();
        assert!(text.contains("nothing_uncopied") && text.contains("verification"), "{text}");
        rig.measure(&migration).await;
        rig.handle.command(id(), Command::Commit { force: None }).await.unwrap();
        let view = rig.handle.interlay(name()).await.unwrap();
        assert_eq!((view.authority, view.dual, view.authority_endpoint.as_str()), (Side::Target, false, "new"));
    });
}

#[test]
fn a_restart_continues_from_the_durable_record() {
    let dir = scratch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // As a kill -9 between the durable record and its publication leaves it.
    LocalSet::new().block_on(&runtime, async {
        let rig = Rig::start_in(dir.clone()).await;
        let migration = rig.at_the_flip().await;
        let evidence = rig.control().evidence(&migration);
        let done = transition(&migration.record.borrow(), Command::Flip, &evidence, now()).unwrap();
        let decided_on = migration.record.borrow().clone();
        let _told = rig.control().persist(Some(&decided_on), &done.record, done.events).await.unwrap();
        std::fs::create_dir_all(dir.join("copy")).unwrap();
        std::fs::copy(dir.join("crossfade.redb"), dir.join("copy/crossfade.redb")).unwrap();
        let intent = Intent::load(config(&dir.join("copy"))).await.unwrap();
        let plan = &intent.plans[0].1.plan;
        assert_eq!((plan.authority.side, plan.authority.epoch.0, plan.mode), (Side::Target, 2, PlanMode::Dual));
    });
}

#[test]
fn a_migration_is_created_once_and_an_interlay_has_one_at_a_time() {
    run(async |rig| {
        let request = |id: &str| CreateRequest {
            id: MigrationId::new(id).unwrap(),
            interlay: name(),
            source: None,
            target: None,
            decisions: base::model::Decisions::default(),
            policies: base::model::PolicySettings::default(),
        };
        rig.handle.create(request("m")).await.unwrap();
        for (again, words) in [("m", "already"), ("n", "interlay orders is in migration m")] {
            let error = rig.handle.create(request(again)).await.expect_err(words);
            assert!(matches!(&error, ControlError::Conflict(text) if text.contains(words)), "{error}");
        }
        let abandon = Command::Abandon { reason: "changed our mind".to_owned() };
        rig.handle.command(id(), abandon).await.unwrap();
        let mut canary = request("n");
        canary.decisions.strategy = base::model::Strategy::Canary;
        assert!(matches!(rig.handle.create(canary).await, Err(ControlError::Unsupported(_))));
        let view = rig.handle.create(request("n")).await.unwrap();
        assert_eq!(view.record.authority.epoch.0, 2, "no epoch is used twice on an interlay");
    });
}

#[test]
fn an_unmet_gate_refuses_and_changes_nothing() {
    run(async |rig| {
        let decisions = base::model::Decisions::default();
        let request = CreateRequest {
            id: id(),
            interlay: name(),
            source: None,
            target: None,
            decisions,
            policies: Default::default(),
        };
        rig.handle.create(request).await.unwrap();
        let before = rig.control().store.migrations().await.unwrap();
        let error = rig.handle.command(id(), Command::Advance { to: None }).await.expect_err("nothing answers");
        assert!(error.to_string().contains("target_exercised"), "{error}");
        assert_eq!(rig.control().store.migrations().await.unwrap(), before);
    });
}

#[test]
fn events_are_numbered_and_can_be_resumed() {
    run(async |rig| {
        let (past, mut live) = rig.handle.subscribe(Some(0)).await.unwrap();
        assert_eq!(past.first().map(|event| event.kind.as_str()), Some("started"));
        let migration = rig.at_the_flip().await;
        rig.control().remember(&migration, Fact::Rehearsed { pause_us: 7 }).await;
        let mut created = live.recv().await.unwrap();
        while created.kind != "migration_created" {
            created = live.recv().await.unwrap();
        }
        let (resumed, _) = rig.handle.subscribe(Some(created.number)).await.unwrap();
        assert!(resumed.iter().all(|event| event.number > created.number));
        assert!(resumed.iter().any(|event| event.kind == "rehearsed"));
    });
}

#[test]
fn every_core_is_drained_before_the_end() {
    run(async |rig| assert!(rig.running.drain().await));
}

/// Another process has written the record meanwhile: what was decided here is refused, nothing moves and nothing more is changed.
#[test]
fn a_flip_decided_on_an_older_record_is_refused_and_the_old_authority_is_released() {
    run(async |rig| {
        let migration = rig.at_the_flip().await;
        let stored = migration.record.borrow().clone();
        let mut other = stored.clone();
        other.authority.epoch = other.authority.epoch.next();
        let change = Change { decided_on: Some(&stored), record: &other, journal: &[] };
        rig.control().store.commit(change).await.unwrap();
        rig.log.borrow_mut().clear();
        let outcome = rig.control().flip(&migration).await;
        let words = "decided on epoch 1, but epoch 2 is stored";
        assert!(matches!(&outcome, FlipOutcome::Postponed(reason) if reason.contains(words)), "{outcome:?}");
        assert_eq!(*rig.log.borrow(), vec![Seen::Fence, Seen::Release], "no plan was published");
        assert_eq!(rig.control().store.migrations().await.unwrap(), vec![other]);
        let again =
            rig.control().store.commit(Change { decided_on: Some(&stored), record: &stored, journal: &[] }).await;
        assert!(matches!(again, Err(StoreError::Conflict(Conflict { .. }))), "{again:?}");
        assert!(!rig.handle.ready().await.unwrap().ready);
    });
}

/// The movers' thread does nothing but this job until it is told to; the API's thread answers meanwhile.
#[test]
fn a_job_that_occupies_its_thread_does_not_delay_the_api() {
    run(async |rig| {
        let movers = rig.control().movers.clone();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let job = tokio::task::spawn_local(async move {
            let blocking = move || {
                begun.send(()).unwrap();
                ended.recv().unwrap();
            };
            movers.occupy(blocking).await
        });
        begins.await.unwrap();
        for _ in 0..100 {
            assert_eq!(rig.handle.status().await.unwrap().cores, usize::from(CORES));
            assert_eq!(rig.handle.migrations().await.unwrap().len(), 0);
        }
        assert!(!job.is_finished(), "the job is still there");
        end.send(()).unwrap();
        job.await.unwrap().unwrap();
    });
}

/// What a kind of database itself asks for is unknown, and so unmet, while there are no facts.
#[test]
fn no_mover_meets_its_own_gates_without_facts() {
    for kind in [base::model::ProtocolKind::Redis, base::model::ProtocolKind::Postgres] {
        for gate in movers::own_gates(kind, Err("no facts")) {
            assert!(matches!(gate.check, Check::Unknown(_)), "{gate:?}");
        }
    }
}

/// A shadow that hangs must not make clients wait three times a second.
#[test]
fn a_hold_that_fails_is_tried_less_and_less_often() {
    let postponed = FlipOutcome::Postponed("7 in flight".to_owned());
    let refused = FlipOutcome::Refused("a gate is not met".to_owned());
    let holds = &mut Observed::new(Ledger::default()).holds;
    let mut wait = |outcome: &FlipOutcome, expected_ms: u64| {
        let earliest = Instant::now() + Duration::from_millis(expected_ms);
        holds.attempts.running = true;
        holds.ended(outcome);
        assert!(!holds.attempts.running && holds.attempts.not_before >= earliest, "{outcome:?} {expected_ms} ms");
        u64::try_from(holds.pause.as_millis()).unwrap()
    };
    let mut waits = 333;
    for next in [666, 1332, 2664, 5328, 10_000, 10_000] {
        assert_eq!(wait(&postponed, waits), next);
        waits = next;
    }
    assert_eq!(wait(&refused, 333), 10_000, "no client was held by what was refused");
    assert_eq!(wait(&FlipOutcome::Done, 333), 333, "one that worked begins anew");
    assert_eq!(wait(&postponed, 333), 666);
    holds.begin_anew();
    assert!(holds.attempts.may_begin(), "the way back does not wait for what failed on the way there");
}
