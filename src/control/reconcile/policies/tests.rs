//! Filters against fake cores that hold real instances: what is put in place, what stays when something fails, what goes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::LocalSet;

use super::*;
use crate::config::Config;
use crate::reconcile::fake::at_once;
use crate::reconcile::state::Control;
use crate::reconcile::{ControlError, CreateRequest, Handle, Intent, Running, start};
use crate::workflow::{Command, PolicyWord};
use base::model::{Decisions, InterlayName, OnFault, PolicyMode};
use bus::{Directive, Published, Report, Switchboard};
use policy::{CorePolicies, RequestDecision, RequestFacts};

const CORES: u16 = 2;

/// What the fake cores saw, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Sample,
    Set { core: u16, generation: u64 },
}

struct Rig {
    running: Running,
    handle: Handle,
    log: RefCell<Vec<Seen>>,
    /// What each core decides with.
    held: RefCell<Vec<CorePolicies>>,
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("crossfade-policies-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(dir: &Path, policies: &str) -> Config {
    crate::reconcile::fake::share_compiled_filters(&dir.join("data"));
    let text = format!(
        "[data]\ndir = {:?}\n[cores]\ncount = {CORES}\n[endpoints.old]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"\n\
         [endpoints.new]\nkind = \"redis\"\nurl = \"redis://127.0.0.2:9\"\n\
         [interlays.orders]\nkind = \"redis\"\nlisten = \"127.0.0.1:1\"\nsource = \"old\"\ntarget = \"new\"\n\
         [interlays.orders.policies]\n{policies}",
        dir.join("data").display().to_string()
    );
    Config::parse(Path::new("test.toml"), &text).unwrap()
}

fn orders() -> InterlayName {
    InterlayName::new("orders").unwrap()
}

fn filter(name: &str) -> FilterName {
    FilterName::new(name).unwrap()
}

/// A guest whose answer to every command, or record, is this expression.
fn guest(hook: &str, body: &str) -> Vec<u8> {
    format!(
        "(module (memory (export \"memory\") 1) (global (export \"cf_abi_v1\") i32 (i32.const 1))
           (func (export \"cf_buffer\") (result i32) i32.const 0) (func (export \"cf_buffer_len\") (result i32) i32.const 4096)
           (func (export \"cf_on_{hook}\") (param i32) (result i64) {body}))"
    )
    .into_bytes()
}

const FORWARDS: &str = "i64.const 0x10";
const MIRRORS: &str = "i64.const 0x11";
const NONSENSE: &str = "i64.const 0";
const TRAPS: &str = "unreachable";

fn load(name: &str, module: Vec<u8>, cases: Option<&str>) -> LoadFilter {
    LoadFilter { name: filter(name), module, cases: cases.map(str::to_owned), file: format!("{name}.wat") }
}

fn setting(name: &str) -> PolicySetting {
    PolicySetting { mode: PolicyMode::Block, ..PolicySetting::of(filter(name)) }
}

fn choose(slot: PolicySlot, setting: PolicySetting) -> Command {
    Command::SetPolicy { slot, choice: Some(PolicyChoice::Filter(setting)) }
}

fn id() -> MigrationId {
    MigrationId::new("m").unwrap()
}

impl Rig {
    async fn start(dir: &Scratch, policies: &str) -> Rc<Self> {
        let bus = Switchboard::new(CORES).unwrap();
        let mut intent = Intent::load(config(&dir.0, policies)).await.unwrap();
        intent.send_filters(&bus).unwrap();
        let (running, handle) = start(intent, bus, "fake".to_owned()).await.unwrap();
        let held = (0..CORES).map(|_| CorePolicies::default()).collect();
        let rig = Rc::new(Self { running, handle, log: RefCell::default(), held: RefCell::new(held) });
        let cores = Rc::downgrade(&rig);
        tokio::task::spawn_local(async move {
            while let Some(rig) = cores.upgrade() {
                rig.cores_once();
                drop(rig);
                tokio::task::yield_now().await;
            }
        });
        rig
    }

    fn control(&self) -> &Rc<Control> {
        &self.running.control
    }

    fn interlay(&self) -> &Rc<crate::reconcile::state::Interlay> {
        &self.control().interlays[&orders()]
    }

    fn say(&self, report: Report) {
        self.control().bus.reports.push(report).unwrap();
    }

    fn cores_once(&self) {
        for number in 0..CORES {
            let (core, index) = (CoreId(number), usize::from(number));
            while let Some(directive) = self.control().bus.cores[index].pop() {
                match directive {
                    Directive::Publish(Published { plan, .. }) => {
                        let (interlay, generation) = (plan.interlay.clone(), plan.generation);
                        self.say(Report::PlanAcked { core, interlay, generation });
                    }
                    Directive::Policies { interlay, policies } => {
                        let generation = policies.generation;
                        self.log.borrow_mut().push(Seen::Set { core: number, generation });
                        let before = std::mem::replace(&mut self.held.borrow_mut()[index], *policies).stats();
                        self.say(Report::PoliciesAdopted { core, interlay, generation, before });
                    }
                    Directive::Sample => {
                        self.log.borrow_mut().push(Seen::Sample);
                        let held = self.held.borrow();
                        let (generation, seats) = (held[index].generation, held[index].stats());
                        self.say(Report::Policies { core, interlay: orders(), generation, seats });
                    }
                    Directive::Drain { .. } => self.say(Report::Drained { core }),
                    Directive::Companion { .. }
                    | Directive::Hold { .. }
                    | Directive::Confirm { .. }
                    | Directive::Sessions { .. } => {}
                }
            }
        }
    }

    /// One command on a core, and what its filter had to tell about it.
    fn ask(&self, core: u16, command: &str) -> Option<RequestDecision> {
        let mut held = self.held.borrow_mut();
        let held = &mut held[usize::from(core)];
        let facts = RequestFacts {
            number: Some(u32::from(command.as_bytes()[0])),
            protocol: abi::Protocol::Redis,
            class: abi::Class::Write,
            flags: 0,
            client: 1,
            database_number: 0,
            database: b"0",
            command: command.as_bytes(),
            keys: std::iter::empty(),
            frame: command.as_bytes(),
        };
        let decision = held.request.as_mut().map(|seat| seat.decide(facts, 0));
        if held.has_notes() {
            let (generation, notes) = (held.generation, held.take_notes());
            self.say(Report::PolicyNotes { core: CoreId(core), interlay: orders(), generation, notes });
        }
        decision
    }

    /// Lets everybody go on until this is so.
    async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let all = async {
            while !so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), all).await.is_ok(), "never: {what}");
    }

    fn events(&self, kind: &str) -> Vec<String> {
        let all = at_once(self.control().events.past(0)).unwrap();
        all.into_iter().filter(|event| event.kind == kind).map(|event| event.text).collect()
    }

    async fn create(&self) {
        let request = CreateRequest {
            id: id(),
            interlay: orders(),
            source: None,
            target: None,
            decisions: Decisions::default(),
            policies: PolicySettings::default(),
        };
        self.handle.create(request).await.unwrap();
    }

    async fn slot(&self, slot: PolicySlot) -> SlotView {
        let view = self.handle.policies(orders()).await.unwrap();
        view.slots.into_iter().find(|one| one.slot == slot).unwrap()
    }
}

fn run(test: impl AsyncFnOnce(&Scratch)) {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test(&scratch));
}

#[test]
fn the_shipped_filters_are_in_force_where_they_belong_before_anything_is_asked() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.until("announced", |rig| rig.events("policies_changed").len() == 1).await;
        let first: Vec<_> = (0..CORES).map(|core| Seen::Set { core, generation: 1 }).collect();
        assert_eq!(rig.log.borrow()[..2], first, "the sets are there before any other order");
        {
            let held = rig.held.borrow();
            assert!(held[0].request.is_some() && held[0].pair.is_some() && held[0].record.is_none());
            assert!(held[1].request.is_some() && held[1].pair.is_none(), "only the lane's core compares");
            assert!(rig.interlay().policies.window.borrow().is_some());
        }
        let view = rig.handle.policies(orders()).await.unwrap();
        assert_eq!((view.generation, view.unadopted_cores.len(), view.slots.len()), (1, 0, 4));
        assert!(view.slots.iter().all(|slot| slot.chosen_by == "shipped" && slot.absent.is_none()));
        assert!(rig.events("policies_changed")[0].contains("mirror: builtin:mirror-reads generation 1 (observe)"));
        let filters = rig.handle.filters().await.unwrap();
        assert!(filters.iter().all(|filter| filter.origin == "builtin" && filter.cases.is_some_and(|cases| cases > 0)));
    });
}

#[test]
fn a_filter_is_loaded_and_replaced_under_traffic_and_a_failed_load_leaves_the_old_one_running() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        let view = rig.handle.load_filter(load("mine", guest("request", FORWARDS), None)).await.unwrap();
        assert!((view.generation, view.uses.len()) == (1, 0) && view.warnings[0].contains("no recorded cases"));
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("mine"))).await.unwrap();
        let forwards = rig.ask(1, "SET");
        let case = |verdict: &str| {
            format!(
                "{{\"case\": \"a write\", \"hook\": \"request\", \"view\": {{}}, \"expect\": {{\"verdict\": \"{verdict}\"}}}}"
            )
        };
        let before = rig.handle.filter(filter("mine")).await.unwrap();
        let sets = rig.log.borrow().iter().filter(|seen| matches!(seen, Seen::Set { .. })).count();
        let cases = [
            (load("mine", b"\0asm garbage".to_vec(), None), "generation 1 of mine stays in use"),
            (
                load("mine", guest("request", MIRRORS), Some(&case("forward"))),
                "fails 1 of its 1 cases; the first is \"a write\"",
            ),
            (load("mine", guest("request", MIRRORS), Some("{\"case\": 7}")), "the cases of filter mine"),
            (load("mine", guest("record", MIRRORS), None), "does not export cf_on_request"),
            (load("builtin:mine", guest("request", MIRRORS), None), "is shipped with Crossfade and stays"),
        ];
        for (bad, words) in cases {
            let error = rig.handle.load_filter(bad).await.expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
        let after = rig.handle.filter(filter("mine")).await.unwrap();
        assert_eq!((after.generation, after.digest.clone()), (1, before.digest.clone()));
        assert_eq!(at_once(rig.control().store.filters()).unwrap()[0].digest, before.digest);
        assert_eq!(rig.log.borrow().iter().filter(|seen| matches!(seen, Seen::Set { .. })).count(), sets);
        assert_eq!(rig.ask(1, "SET"), forwards, "still the old one");
        let good = load("mine", guest("request", MIRRORS), Some(&case("mirror")));
        let view = rig.handle.load_filter(good).await.unwrap();
        assert_eq!((view.generation, view.cases, view.warnings.len()), (2, Some(1), 0));
        assert_ne!(rig.ask(1, "SET"), forwards, "the new one, when the answer is there");
        assert_ne!(rig.ask(0, "SET"), forwards);
    });
}

#[test]
fn the_fifth_fault_unloads_a_filter_until_it_is_loaded_or_chosen_again() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("mine", guest("request", NONSENSE), None)).await.unwrap();
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("mine"))).await.unwrap();
        let generation = rig.handle.policies(orders()).await.unwrap().generation;
        for command in ["SET", "SET", "SET", "SET"] {
            rig.ask(0, command);
        }
        rig.until("four faults", |rig| rig.events("policy_fault").len() == 4).await;
        assert!(rig.slot(PolicySlot::Mirror).await.absent.is_none(), "four are borne");
        assert_eq!(rig.handle.policies(orders()).await.unwrap().generation, generation);
        rig.ask(1, "SET");
        rig.until("unloaded", |rig| rig.held.borrow().iter().all(|held| held.request.is_none())).await;
        let told = rig.events("policy_unloaded");
        assert!(told.len() == 1 && told[0].contains("mine was unloaded after 5 faults"), "{told:?}");
        assert!(told[0].contains("bad_verdict"), "{told:?}");
        assert!(rig.slot(PolicySlot::Mirror).await.absent.is_some());
        assert!(rig.slot(PolicySlot::Compare).await.absent.is_none(), "only in this place");
        assert!(rig.handle.ready().await.unwrap().notes[0].contains("mine was unloaded"));
        // Counted over the sets there have been.
        let stats = rig.handle.policies(orders()).await.unwrap().stats;
        let mine = stats.iter().find(|one| one.filter == filter("mine")).unwrap();
        assert_eq!((mine.faults.bad_verdict, mine.calls, mine.memory_bytes), (5, 5, 0));
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("mine"))).await.unwrap();
        assert!(rig.ask(0, "SET").is_some(), "chosen again, it is back");
        for _ in 0..5 {
            rig.ask(0, "SET");
        }
        rig.until("unloaded again", |rig| rig.events("policy_unloaded").len() == 2).await;
        rig.handle.load_filter(load("mine", guest("request", FORWARDS), None)).await.unwrap();
        assert!(rig.ask(0, "SET").is_some(), "loaded again, it is back");
    });
}

#[test]
fn a_rollback_filter_that_is_not_there_keeps_its_gate_unmet() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("guard", guest("window", NONSENSE), None)).await.unwrap();
        rig.handle.command(id(), choose(PolicySlot::Rollback, setting("guard"))).await.unwrap();
        rig.handle.unload_filter(filter("guard")).await.unwrap();
        let migration = rig.control().live(&orders()).unwrap();
        let said = |rig: &Rig| {
            let evidence = rig.control().evidence(&migration);
            matches!(evidence.rollback_policy, PolicyWord::Unknown(why) if why.contains("guard is not in force"))
        };
        rig.until("the gate says what is missing", said).await;
    });
}

#[test]
fn what_a_filter_that_is_replaced_has_done_unloads_nothing() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("mine", guest("request", NONSENSE), None)).await.unwrap();
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("mine"))).await.unwrap();
        let old = rig.handle.policies(orders()).await.unwrap().generation - 1;
        let fault = || policy::PolicyNote {
            slot: PolicySlot::Mirror,
            kind: policy::NoteKind::Fault { kind: policy::FaultKind::Trap, text: "late".to_owned(), spent: true },
        };
        let notes = (0..9).map(|_| fault()).collect();
        rig.say(Report::PolicyNotes { core: CoreId(0), interlay: orders(), generation: old, notes });
        rig.until("heard", |rig| rig.control().bus.reports.is_empty()).await;
        rig.handle.policies(orders()).await.unwrap();
        assert!(rig.slot(PolicySlot::Mirror).await.absent.is_none() && rig.events("policy_fault").is_empty());
    });
}

#[test]
fn a_spent_instance_is_replaced_at_the_next_tick_and_not_before() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("mine", guest("request", TRAPS), None)).await.unwrap();
        let closed = PolicySetting { on_fault: OnFault::FailClosed, ..setting("mine") };
        rig.handle.command(id(), choose(PolicySlot::Mirror, closed)).await.unwrap();
        let generation = rig.handle.policies(orders()).await.unwrap().generation;
        rig.log.borrow_mut().clear();
        for _ in 0..20 {
            assert!(matches!(rig.ask(1, "SET"), Some(RequestDecision::Refuse(text)) if text.contains("mine failed")));
        }
        let fresh = Seen::Set { core: 1, generation };
        rig.until("replaced", |rig| rig.log.borrow().contains(&fresh)).await;
        let log = rig.log.borrow().clone();
        assert_eq!(log.iter().find(|seen| **seen == Seen::Sample || **seen == fresh), Some(&Seen::Sample), "{log:?}");
        assert!(!log.contains(&Seen::Set { core: 0, generation }), "core 0 has not faulted");
        let told = rig.events("policy_fault");
        assert!(told.len() == 1 && told[0].contains("on core 1: trap"), "one fault for one instance: {told:?}");
        rig.ask(1, "SET");
        rig.until("a fresh instance", |rig| rig.events("policy_fault").len() == 2).await;
    });
}

#[test]
fn unloading_gives_every_place_back_and_says_which() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("mine", guest("request", FORWARDS), None)).await.unwrap();
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("mine"))).await.unwrap();
        rig.handle.unload_filter(filter("mine")).await.unwrap();
        assert!(rig.ask(0, "SET").is_none() && at_once(rig.control().store.filters()).unwrap().is_empty());
        assert!(rig.events("filter_unloaded")[0].contains("mirror of interlay orders"));
        let absent = rig.slot(PolicySlot::Mirror).await.absent;
        assert_eq!(absent.as_deref(), Some("filter mine is not loaded"));
        let error = rig.handle.unload_filter(filter("mine")).await.expect_err("gone");
        assert!(matches!(&error, ControlError::NotFound(text) if text.contains("builtin:mirror-reads")), "{error}");
        let error = rig.handle.unload_filter(filter("builtin:mirror-reads")).await.expect_err("shipped");
        assert!(matches!(error, ControlError::Invalid(_)));
        rig.handle.load_filter(load("mine", guest("request", FORWARDS), None)).await.unwrap();
        assert!(rig.ask(0, "SET").is_some(), "who chose it has it again");
    });
}

#[test]
fn a_records_filter_that_is_gone_lets_no_record_through() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        rig.handle.load_filter(load("redact", guest("record", "i64.const 0x40"), None)).await.unwrap();
        rig.handle.command(id(), choose(PolicySlot::Records, setting("redact"))).await.unwrap();
        let look = |rig: &Rig| {
            let record = abi::host::Record {
                protocol: abi::Protocol::Redis,
                record_type: abi::RecordType::Text,
                encoding: abi::Encoding::Raw,
                purpose: abi::Purpose::Backfill,
                ttl_ms: None,
                value_length: 1,
                database: b"0",
                namespace: b"",
                key: b"k",
                value: b"v",
            };
            rig.held.borrow_mut()[0].record.as_mut().expect("a seat").look(&record, 0)
        };
        assert!(look(&rig).is_some());
        rig.handle.unload_filter(filter("redact")).await.unwrap();
        assert!(look(&rig).is_none() && look(&rig).is_none());
        rig.handle
            .command(id(), Command::SetPolicy { slot: PolicySlot::Records, choice: Some(PolicyChoice::Nobody) })
            .await
            .unwrap();
        assert!(rig.held.borrow()[0].record.is_none(), "nobody, on purpose");
    });
}

#[test]
fn a_policy_that_cannot_be_is_refused_in_the_filters_words_and_changes_nothing() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        rig.create().await;
        let bad = PolicySetting { config: "{\"sample_percent\": 200}".to_owned(), ..setting("builtin:mirror-reads") };
        let cases = [
            (PolicySlot::Mirror, bad, "sample_percent"),
            (PolicySlot::Compare, setting("builtin:mirror-reads"), "does not export cf_on_pair"),
            (PolicySlot::Mirror, setting("nobody-knows"), "there is no filter nobody-knows; loaded are: builtin:"),
        ];
        for (slot, setting, words) in cases {
            let error = rig.handle.command(id(), choose(slot, setting.clone())).await.expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
            let mut policies = PolicySettings::default();
            policies.set(slot, Some(PolicyChoice::Filter(setting)));
            assert!(rig.control().try_policies(&policies).await.is_err());
        }
        assert_eq!(rig.handle.migration(id()).await.unwrap().record.policies, PolicySettings::default());
        assert_eq!(rig.handle.policies(orders()).await.unwrap().generation, 1);
    });
}

#[test]
fn the_choices_of_a_migration_end_with_it() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "mirror = \"none\"\n").await;
        assert_eq!(rig.slot(PolicySlot::Mirror).await.chosen_by, "interlay");
        rig.create().await;
        rig.handle.command(id(), choose(PolicySlot::Mirror, setting("builtin:mirror-reads"))).await.unwrap();
        let slot = rig.slot(PolicySlot::Mirror).await;
        assert_eq!((slot.chosen_by, slot.migration.as_deref()), ("migration", Some("m")));
        assert!(rig.ask(0, "SET").is_some());
        rig.handle.command(id(), Command::Abandon { reason: "enough".to_owned() }).await.unwrap();
        let slot = rig.slot(PolicySlot::Mirror).await;
        assert_eq!((slot.chosen_by, slot.setting), ("interlay", None));
        assert!(rig.ask(0, "SET").is_none());
    });
}

#[test]
fn what_was_loaded_is_there_after_a_restart_and_what_does_not_load_any_more_is_told() {
    run(async |scratch| {
        {
            let rig = Rig::start(scratch, "").await;
            rig.create().await;
            rig.handle.load_filter(load("mine", guest("request", FORWARDS), None)).await.unwrap();
            rig.handle.load_filter(load("worn", guest("request", FORWARDS), None)).await.unwrap();
            rig.handle.command(id(), choose(PolicySlot::Mirror, setting("worn"))).await.unwrap();
            let mut worn = at_once(rig.control().store.filters())
                .unwrap()
                .into_iter()
                .find(|one| one.name == filter("worn"))
                .unwrap();
            worn.module = b"worn out".to_vec();
            at_once(rig.control().store.save_filter(&worn, &[])).unwrap();
            // A copy of the file of a running process is what a kill -9 leaves behind.
            std::fs::create_dir_all(scratch.0.join("copy/data")).unwrap();
            std::fs::copy(scratch.0.join("data/crossfade.redb"), scratch.0.join("copy/data/crossfade.redb")).unwrap();
        }
        let rig = Rig::start(&Scratch(scratch.0.join("copy")), "").await;
        assert_eq!(rig.handle.filter(filter("mine")).await.unwrap().origin, "stored");
        let told = rig.events("filter_failed");
        assert!(told.len() == 1 && told[0].contains("filter worn"), "{told:?}");
        assert!(rig.slot(PolicySlot::Mirror).await.absent.is_some());
        rig.until("sent", |rig| rig.held.borrow()[0].generation == 1).await;
        assert!(rig.ask(0, "SET").is_none());
    });
}

#[test]
fn a_configured_filter_that_does_not_load_refuses_the_start() {
    let scratch = Scratch::new();
    let write = |name: &str, bytes: &[u8]| {
        let path = scratch.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let good = write("good.wat", &guest("request", FORWARDS));
    write(
        "failing.cases.jsonl",
        b"{\"case\": \"a write\", \"hook\": \"request\", \"view\": {}, \"expect\": {\"verdict\": \"refuse\"}}",
    );
    let cases = [
        (format!("mirror = {:?}\n", write("broken.wat", b"(module")), "broken"),
        (format!("mirror = {:?}\n", write("failing.wat", &guest("request", FORWARDS))), "fails 1 of its 1 cases"),
        (format!("compare = {good:?}\n"), "does not export cf_on_pair"),
        ("mirror = \"builtin:nothing\"\n".to_owned(), "is not shipped; there are: builtin:"),
        (
            "mirror = { filter = \"builtin:mirror-reads\", config = { sample_percent = 200 } }\n".to_owned(),
            "sample_percent",
        ),
    ];
    for (policies, words) in cases {
        let error = at_once(Intent::load(config(&scratch.0, &policies))).expect_err(words);
        assert!(error.starts_with("test.toml:17: interlays.orders.policies.") && error.contains(words), "{error}");
    }
    let intent =
        at_once(Intent::load(config(&scratch.0, &format!("mirror = {good:?}\nrecords = \"later\"\n")))).unwrap();
    drop(intent);
    let checked = check_files(&config(&scratch.0, &format!("mirror = {good:?}\n"))).unwrap();
    assert_eq!((checked[0].0.as_str(), &checked[0].2), ("good", &Ok(0)));
}

#[test]
fn more_loads_than_may_wait_are_refused() {
    run(async |scratch| {
        let rig = Rig::start(scratch, "").await;
        let loads = (0..4).map(|number| {
            let handle = rig.handle.clone();
            let one = load(&format!("mine{number}"), guest("request", FORWARDS), None);
            tokio::task::spawn_local(async move { handle.load_filter(one).await })
        });
        let loads: Vec<_> = loads.collect();
        let (mut done, mut busy) = (0, 0);
        for load in loads {
            match load.await.unwrap() {
                Ok(_) => done += 1,
                Err(ControlError::Unavailable(_)) => busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((done, busy), (2, 2));
        rig.handle.load_filter(load("mine9", guest("request", FORWARDS), None)).await.unwrap();
    });
}
