//! Pause and resume against fake cores: what is asked of them, in which order, and what is answered when they do not drain.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, yield_now};

use super::pause_state::PauseState;
use super::state::Control;
use super::*;
use crate::config::Config;
use base::model::{CoreId, InterlayName, SessionInfo, SessionState};
use bus::{Directive, HoldEvent, HoldOrder, Report, Switchboard};

const CORES: u16 = 2;
const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

/// What the fake cores were asked, by core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Shut(u16),
    Close(u16),
    Sessions(u16),
    Open(u16),
    Drain(u16),
}

struct Rig {
    running: Running,
    handle: Handle,
    log: RefCell<Vec<Asked>>,
    /// What core 1 answers to an order to close.
    core_1: Cell<Option<HoldEvent>>,
    dir: std::path::PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn shop() -> InterlayName {
    InterlayName::new("shop").unwrap()
}

fn session(id: u32, state: SessionState) -> SessionInfo {
    SessionInfo {
        id,
        user: "app".to_owned(),
        database: "db".to_owned(),
        application: "psql".to_owned(),
        peer: None,
        state,
        age_us: 3_200_000,
        keeps: vec!["listen"],
    }
}

impl Rig {
    async fn start(test: &str) -> Rc<Self> {
        let dir = std::env::temp_dir().join(format!("crossfade-pause-{}-{test}", std::process::id()));
        let text = format!(
            "[data]\ndir = {:?}\n[endpoints.pg]\nkind = \"postgres\"\nurl = \"postgres://127.0.0.1:9/db\"\n\
             [endpoints.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n\
             [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"cache\"\n\
             [interlays.shop]\nkind = \"postgres\"\nlisten = \"127.0.0.1:2\"\nsource = \"pg\"\nauth = {{ mode = \"relay\" }}\n",
            dir.display().to_string()
        );
        let config = Config::parse(Path::new("test.toml"), &text).unwrap();
        fake::share_compiled_filters(&dir);
        let bus = Switchboard::new(CORES).unwrap();
        let (running, handle) = start(Intent::load(config).await.unwrap(), bus, "fake".to_owned()).await.unwrap();
        let core_1 = Cell::new(Some(HoldEvent::Drained));
        let rig = Rc::new(Self { running, handle, log: RefCell::default(), core_1, dir });
        let cores = Rc::downgrade(&rig);
        tokio::task::spawn_local(async move {
            while let Some(rig) = cores.upgrade() {
                (0..CORES).for_each(|core| rig.core_once(core));
                drop(rig);
                yield_now().await;
            }
        });
        rig
    }

    fn control(&self) -> &Rc<Control> {
        &self.running.control
    }

    fn state(&self) -> PauseState {
        self.control().interlay(&shop()).unwrap().pause.state()
    }

    fn kinds(&self) -> Vec<String> {
        let journal = fake::at_once(self.control().store.journal_after(0)).unwrap();
        // The filters of the other interlay are put in place meanwhile.
        journal.into_iter().map(|event| event.kind).filter(|kind| kind != "policies_changed").collect()
    }

    fn core_once(&self, number: u16) {
        let (bus, core) = (&self.control().bus, CoreId(number));
        let mut log = self.log.borrow_mut();
        while let Some(directive) = bus.cores[usize::from(number)].pop() {
            let report = match directive {
                Directive::Policies { interlay, policies } => {
                    let (generation, before) = (policies.generation, Vec::new());
                    Some(Report::PoliciesAdopted { core, interlay, generation, before })
                }
                Directive::Hold { interlay, order: HoldOrder::Shut { ticket } } => {
                    log.push(Asked::Shut(number));
                    Some(Report::Hold { core, interlay, ticket, event: HoldEvent::Drained })
                }
                Directive::Hold { interlay, order: HoldOrder::Begin { ticket } } => {
                    log.push(Asked::Close(number));
                    let event = if number == 1 { self.core_1.get() } else { Some(HoldEvent::Drained) };
                    event.map(|event| Report::Hold { core, interlay, ticket, event })
                }
                Directive::Hold { interlay, order: HoldOrder::Release { ticket } } => {
                    log.push(Asked::Open(number));
                    let event = HoldEvent::Released { held: 2, longest_hold_us: 100 + u64::from(number) };
                    Some(Report::Hold { core, interlay, ticket, event })
                }
                Directive::Sessions { interlay, ticket } => {
                    log.push(Asked::Sessions(number));
                    let id = u32::from(number) * 2 + 10;
                    let (total, busy) = (2, 1);
                    let state = if number == 1 { SessionState::IdleInTransaction } else { SessionState::Held };
                    let sessions = vec![session(id, state), session(id + 1, SessionState::Idle)];
                    Some(Report::Sessions { core, interlay, ticket, total, busy, sessions })
                }
                Directive::Drain { .. } => {
                    log.push(Asked::Drain(number));
                    Some(Report::Drained { core })
                }
                Directive::Hold { order: HoldOrder::Move { .. }, .. } => unreachable!("only at a change of authority"),
                Directive::Publish(_) | Directive::Companion { .. } | Directive::Confirm { .. } | Directive::Sample => {
                    None
                }
            };
            if let Some(report) = report {
                bus.reports.push(report).unwrap();
            }
        }
    }
}

fn run(test: &str, body: impl AsyncFnOnce(Rc<Rig>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async move { body(Rig::start(test).await).await });
}

#[test]
fn a_pause_holds_when_every_core_has_drained_and_ends_once() {
    run("holds", async |rig| {
        let paused = rig.handle.pause(shop(), LONG, LONG).await.unwrap();
        assert_eq!(*rig.log.borrow(), [Asked::Close(0), Asked::Close(1), Asked::Shut(0), Asked::Shut(1)]);
        assert_eq!(paused.resumes_at.0 - paused.paused_at.0, 20_000);
        assert!(matches!(rig.state(), PauseState::Paused(_)));
        let ready = rig.handle.ready().await.unwrap();
        assert!(ready.ready && ready.notes[0].contains("interlay shop is paused"), "{ready:?}");
        let again = rig.handle.pause(shop(), LONG, LONG).await.expect_err("paused already");
        assert!(matches!(&again, ControlError::Conflict(text) if text.contains("paused already")), "{again}");
        let resumed = rig.handle.resume(shop()).await.unwrap();
        assert_eq!((resumed.held_clients, resumed.longest_hold_us), (4, 101));
        assert!(matches!(rig.state(), PauseState::Running));
        let again = rig.handle.resume(shop()).await.expect_err("not paused");
        assert!(matches!(&again, ControlError::Conflict(text) if text.contains("nothing to resume")), "{again}");
        assert_eq!(rig.kinds(), ["started", "interlay_paused", "interlay_resumed"]);
        let view = rig.handle.interlay(shop()).await.unwrap();
        assert_eq!((view.pauses, view.pause_failures), (1, 0));
    });
}

#[test]
fn a_pause_that_is_held_up_opens_again_and_names_who() {
    run("held-up", async |rig| {
        rig.core_1.set(None);
        let error = rig.handle.pause(shop(), SOON, LONG).await.expect_err("core 1 does not drain");
        let ControlError::HeldUp { text, sessions } = error else { panic!("{error}") };
        assert_eq!(
            text,
            "1 session held the pause up beyond 0.1 s: id 12 user app on db (psql) idle in transaction for 3.2 s; traffic continues"
        );
        assert_eq!(sessions.iter().map(|session| session.id).collect::<Vec<_>>(), [12]);
        let expected =
            [Asked::Close(0), Asked::Close(1), Asked::Sessions(0), Asked::Sessions(1), Asked::Open(0), Asked::Open(1)];
        assert_eq!(*rig.log.borrow(), expected);
        assert!(matches!(rig.state(), PauseState::Running));
        assert_eq!(rig.kinds(), ["started", "pause_failed"]);
        rig.core_1.set(Some(HoldEvent::Drained));
        rig.handle.pause(shop(), LONG, LONG).await.expect("the next one holds");
    });
}

#[test]
fn an_answer_to_an_older_order_does_not_count() {
    run("older", async |rig| {
        rig.core_1.set(None);
        rig.handle.pause(shop(), SOON, LONG).await.expect_err("core 1 does not drain");
        // The late answer to the first order arrives while the second is waited for.
        let (handle, control) = (rig.handle.clone(), Rc::clone(rig.control()));
        let second = tokio::task::spawn_local(async move { handle.pause(shop(), 2 * SOON, LONG).await });
        while !matches!(rig.state(), PauseState::Pausing) {
            yield_now().await;
        }
        let (core, interlay, event) = (CoreId(1), shop(), HoldEvent::Drained);
        control.bus.reports.push(Report::Hold { core, interlay, ticket: 1, event }).unwrap();
        assert!(matches!(second.await.unwrap(), Err(ControlError::HeldUp { .. })));
    });
}

#[test]
fn a_pause_without_a_resume_ends_by_itself() {
    run("by-itself", async |rig| {
        rig.handle.pause(shop(), LONG, SOON).await.unwrap();
        while !matches!(rig.state(), PauseState::Running) {
            yield_now().await;
        }
        assert_eq!(rig.kinds(), ["started", "interlay_paused", "interlay_resumed"]);
        let journal = rig.control().store.journal_after(0).await.unwrap();
        let last = journal.iter().rfind(|event| event.kind == "interlay_resumed").unwrap();
        assert!(last.text.contains("its time ran out"), "{}", last.text);
        // The timer of the first pause must not end the second.
        rig.handle.pause(shop(), LONG, LONG).await.unwrap();
        tokio::time::sleep(2 * SOON).await;
        assert!(matches!(rig.state(), PauseState::Paused(_)));
    });
}

#[test]
fn an_interlay_without_a_gate_says_so() {
    run("without", async |rig| {
        let orders = InterlayName::new("orders").unwrap();
        let error = rig.handle.pause(orders.clone(), LONG, LONG).await.expect_err("redis");
        assert!(matches!(&error, ControlError::Unsupported(text) if text.contains("no pause")), "{error}");
        assert!(matches!(rig.handle.resume(orders.clone()).await, Err(ControlError::Unsupported(_))));
        assert!(matches!(rig.handle.sessions(orders.clone()).await, Err(ControlError::Unsupported(_))));
        assert!(matches!(rig.handle.analysis(orders, None, 9).await, Err(ControlError::Unsupported(_))));
        rig.core_1.set(Some(HoldEvent::Unsupported));
        assert!(matches!(rig.handle.pause(shop(), LONG, LONG).await, Err(ControlError::Unsupported(_))));
        assert!(matches!(rig.state(), PauseState::Running));
        let decisions = base::model::Decisions::default();
        let id = base::model::MigrationId::new("m").unwrap();
        let request =
            CreateRequest { id, interlay: shop(), source: None, target: None, decisions, policies: Default::default() };
        let error = rig.handle.create(request).await.expect_err("not supported");
        assert!(matches!(&error, ControlError::Unsupported(text) if text.contains("not supported yet")), "{error}");
    });
}

#[test]
fn sessions_of_every_core_are_listed_those_at_work_first() {
    run("sessions", async |rig| {
        let view = rig.handle.sessions(shop()).await.unwrap();
        assert_eq!((view.total, view.busy, view.cores_missing), (4, 2, 0));
        assert_eq!((view.sessions.len(), view.sessions[0].id), (4, 12));
    });
}

#[test]
fn a_stop_drains_what_is_paused_without_letting_anything_through() {
    run("stop", async |rig| {
        rig.handle.pause(shop(), LONG, LONG).await.unwrap();
        rig.log.borrow_mut().clear();
        assert!(rig.running.drain().await);
        let log = rig.log.borrow().clone();
        assert_eq!(log, [Asked::Drain(0), Asked::Drain(1)]);
        assert!(rig.handle.pause(shop(), LONG, LONG).await.is_err());
    });
}
