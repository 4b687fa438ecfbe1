//! One random history through a migration by the replication feed: clients with random commands, writers that count, a shadow that is late at times,
//! flips both ways every few seconds, and (with `kills`) lost connections, a killed proxy and a killed shadow. At the end both servers must hold
//! the same, and what was acknowledged is there.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::crossfade::Crossfade;
use crate::history::commands::LIBRARY;
use crate::history::load::{Load, Mix};
use crate::history::{Random, settle_deadlines};
use crate::rig::{MIGRATION, REPLICATION, Rig, STEP, Writers, losses};
use crate::server::{Kind, RealServer, end_clients, run, try_connect, try_run};
use crate::slow::SlowProxy;
use crate::wait::until;

/// A history to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub target: Kind,
    pub duration: Duration,
    /// Connections, the proxy and the shadow are killed.
    pub kills: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Figures {
    pub commands: u64,
    pub judged: u64,
    pub written: usize,
    pub keys: usize,
    pub flips: usize,
    pub connections_ended: usize,
    pub proxy_kills: usize,
    pub shadow_kills: usize,
    /// Times the shadow was filled from a snapshot.
    pub full_copies: usize,
    pub reads_compared: u64,
    pub divergences_found: u64,
    pub doubted: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commands, {} replies checked, {} acknowledged tokens, {} keys equal, {} flips, killed: {} connections, the proxy {} times, \
             the shadow {} times; {} full copies, {} reads compared, {} divergences, {} keys doubted",
            self.commands,
            self.judged,
            self.written,
            self.keys,
            self.flips,
            self.connections_ended,
            self.proxy_kills,
            self.shadow_kills,
            self.full_copies,
            self.reads_compared,
            self.divergences_found,
            self.doubted,
        )
    }
}

/// Runs a history.
///
/// # Errors
/// What was wrong, what had been done until then, and what Crossfade said.
pub fn history(plan: Plan) -> Result<Figures, String> {
    let mut stage = Stage::build(plan);
    let outcome = catch_unwind(AssertUnwindSafe(|| stage.play()));
    outcome.map_err(|panic| format!("seed {}: {}\n{}", plan.seed, what(&*panic), stage.story()))
}

/// The text of a panic.
#[must_use]
pub fn what(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "?".to_owned())
}

/// The ways in which a full copy is told in the journal.
#[must_use]
pub fn full_copies(events: &str) -> usize {
    events.lines().filter(|line| line.contains("copies every key")).count()
}

/// A server that remembers enough of its stream to be followed on; `durable`: and comes back with what it had.
#[must_use]
pub fn server(kind: Kind, durable: bool) -> RealServer {
    let durable = if durable { "yes" } else { "no" };
    let options = ["--appendonly", durable, "--appendfsync", "always", "--repl-backlog-size", "64mb"];
    RealServer::start_with(kind, &options)
}

/// Crossfade's connections as a server sees them.
fn own_connections(server: &RealServer) -> String {
    let list = try_connect(server.port).and_then(|mut connection| try_run::<String>(&mut connection, "CLIENT LIST"));
    let list = list.unwrap_or_else(|error| error.to_string());
    let own = list.lines().filter(|line| !line.contains("name=crossfade/core"));
    format!("connections of {}:\n{}\n", server.port, own.collect::<Vec<_>>().join("\n"))
}

struct Stage {
    plan: Plan,
    rig: Rig,
    /// In front of the source and of the target.
    slow: [SlowProxy; 2],
    reference: RealServer,
    random: Random,
    began: Instant,
    told: Vec<String>,
    figures: Figures,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Flip,
    Delay(u64),
    EndFollower,
    EndApplier,
    EndStandby,
    KillProxy,
    KillShadow,
}

const CALM: &[Act] = &[Act::Flip, Act::Flip, Act::Delay(0), Act::Delay(60), Act::Delay(700)];
const KILLS: &[Act] = &[
    Act::Flip,
    Act::Flip,
    Act::Flip,
    Act::Delay(0),
    Act::Delay(60),
    Act::Delay(700),
    Act::EndFollower,
    Act::EndApplier,
    Act::EndStandby,
    Act::KillProxy,
    Act::KillProxy,
    Act::KillShadow,
];

impl Stage {
    fn build(plan: Plan) -> Self {
        let (source, target) = (server(Kind::Redis, plan.kills), server(plan.target, plan.kills));
        let slow = [SlowProxy::start(source.port), SlowProxy::start(target.port)];
        let url = |slow: &SlowProxy| format!("redis://127.0.0.1:{}/0", slow.port);
        let proxy = Crossfade::start(&url(&slow[0]), Some(&url(&slow[1])));
        let rig = Rig { feed: REPLICATION, ..Rig::behind(proxy, source, target) };
        let reference = RealServer::start(Kind::Redis);
        let (random, began) = (Random(plan.seed), Instant::now());
        Self { plan, rig, slow, reference, random, began, told: Vec::new(), figures: Figures::default() }
    }

    fn tell(&mut self, text: String) {
        self.told.push(format!("+{:.2} s {text}", self.began.elapsed().as_secs_f64()));
    }

    /// What was done, and what Crossfade said of it.
    fn story(&mut self) -> String {
        let now = self.rig.proxy.cli(&["--output", "json", "migration", "show", MIGRATION]).stdout;
        let connections: String = [&self.rig.source, &self.rig.target].map(own_connections).concat();
        let (events, log) = (self.events(), self.rig.proxy.log_tail(60));
        let told = self.told.join("\n");
        format!("what was done:\n{told}\nnow: {now}\n{connections}events:\n{events}\nlog:\n{log}")
    }

    fn events(&self) -> String {
        self.rig.proxy.cli(&["migration", "events", MIGRATION]).stdout
    }

    fn play(&mut self) -> Figures {
        for server in [&self.rig.source, &self.reference] {
            let mut direct = server.connection();
            redis::cmd("FUNCTION").arg("LOAD").arg(LIBRARY).exec(&mut direct).expect("FUNCTION LOAD");
        }
        Mix::FEED.fill(&mut self.random, 3000, &mut self.rig.source.connection());
        let Plan { seed, kills, duration, .. } = self.plan;
        let load = Load::start(Mix::FEED, self.rig.proxy.port, self.reference.port, seed, kills);
        let writers = Writers::start(self.rig.proxy.port, 3);
        self.rig.create();
        self.rig.advance_to("analyze");
        self.waive_functions();
        self.rig.make_a_flip_due(&self.rig.proxy.show(MIGRATION));
        self.rig.authority("target");
        self.tell("the target is the authority".to_owned());
        let end = Instant::now() + duration;
        while Instant::now() < end && !load.has_failed() {
            load.progress(200 + self.random.below(1500));
            let act = self.random.pick(if kills { KILLS } else { CALM });
            self.act(act, &load);
        }
        self.delay(0);
        load.progress(500);
        let (commands, judged) = load.finish();
        let known = writers.finish();
        (self.figures.commands, self.figures.judged) = (commands, judged);
        self.figures.written = known.iter().map(|writer| writer.tokens.len()).sum();
        assert!(judged > commands / 10, "{judged} replies checked of {commands}");
        let now = self.rig.drained();
        self.check(&now, &known);
        std::mem::take(&mut self.figures)
    }

    /// Functions come with the snapshot, but are missed before it.
    fn waive_functions(&self) {
        let by = ["--by", "tester", "--reason", "the feed brings them"];
        let waive = [&["migration", "waive", MIGRATION, "--finding", "functions-missing-on-target"], &by[..]].concat();
        until("the phase compare", STEP, || {
            let entered = self.rig.proxy.cli(&["migration", "advance", MIGRATION, "--to", "compare"]);
            if entered.code == 0 {
                return Ok(());
            }
            let waived = self.rig.proxy.cli(&waive);
            Err(format!("{}{}", entered.stderr, waived.stderr))
        });
    }

    fn check(&mut self, now: &Json, known: &[crate::rig::Known]) {
        settle_deadlines(&self.rig);
        self.figures.keys = self.rig.assert_equal();
        let functions = |server: &RealServer| run::<redis::Value>(&mut server.connection(), "FUNCTION LIST WITHCODE");
        let sorted = |value: redis::Value| {
            let redis::Value::Array(libraries) = value else { panic!("FUNCTION LIST gave {value:?}") };
            let mut texts: Vec<String> = libraries.iter().map(|library| format!("{library:?}")).collect();
            texts.sort();
            texts
        };
        let [source, target] = [&self.rig.source, &self.rig.target].map(|server| sorted(functions(server)));
        assert_eq!(source.len(), target.len(), "functions: {source:?} and {target:?}");
        let authority = if now["authority"] == "target" { &self.rig.target } else { &self.rig.source };
        assert_eq!(losses(&mut authority.connection(), known), Vec::<String>::new());
        let events = self.events();
        self.figures.flips = now["flips"].as_array().map_or(0, Vec::len);
        self.figures.full_copies = full_copies(&events);
        self.figures.reads_compared = now["lane"]["reads_compared"].as_u64().unwrap_or(0);
        self.figures.divergences_found = now["divergences_found"].as_u64().unwrap_or(0);
        self.figures.doubted = now["lane"]["dirtied"].as_u64().unwrap_or(0);
        assert_eq!(now["feed"], "replication", "{now}");
        if self.figures.shadow_kills == 0 {
            let named = self.rig.proxy.cli(&["migration", "divergences", MIGRATION]).stdout;
            assert_eq!(now["divergences_found"], 0, "{named}");
            assert_eq!(now["lane"]["read_divergences"], 0, "{named}");
            assert_eq!(self.figures.full_copies, 1, "nothing is copied again");
        }
    }

    // ---- what happens to it -------------------------------------------------------------------------------------------

    fn shadow_is_source(&self) -> bool {
        self.rig.proxy.show(MIGRATION)["authority"] == "target"
    }

    /// Of the way to the shadow; the other has none.
    fn delay(&self, delay_ms: u64) {
        let shadow = usize::from(!self.shadow_is_source());
        self.slow[1 - shadow].delay(Duration::ZERO);
        self.slow[shadow].delay(Duration::from_millis(delay_ms));
    }

    fn act(&mut self, act: Act, load: &Load) {
        self.tell(format!("{act:?}"));
        let shadow_is_source = self.shadow_is_source();
        let (authority, shadow) = match shadow_is_source {
            true => (self.rig.target.port, self.rig.source.port),
            false => (self.rig.source.port, self.rig.target.port),
        };
        match act {
            Act::Flip => self.flip(load),
            Act::Delay(ms) => self.delay(ms),
            Act::EndFollower => self.end_followers(authority),
            Act::EndStandby => self.end_followers(shadow),
            Act::EndApplier => self.figures.connections_ended += end_clients(shadow, "crossfade-feed-"),
            Act::KillProxy => self.kill_proxy(),
            Act::KillShadow => {
                let server = if shadow_is_source { &mut self.rig.source } else { &mut self.rig.target };
                server.down();
                load.progress(200);
                server.up();
                self.figures.shadow_kills += 1;
            }
        }
    }

    fn end_followers(&mut self, port: u16) {
        let ended: usize = run(&mut crate::server::connect(port), "CLIENT KILL TYPE replica");
        self.figures.connections_ended += ended;
    }

    fn kill_proxy(&mut self) {
        self.rig.proxy.kill();
        self.rig.proxy.up();
        self.figures.proxy_kills += 1;
    }

    /// A client that still waited there would take what the feed writes. Before writes are released, it is being moved.
    fn nobody_waits_on_the_shadow(&self) {
        let shadow = if self.shadow_is_source() { &self.rig.source } else { &self.rig.target };
        until("clients that wait to be moved", STEP, || {
            let list: String = run(&mut shadow.connection(), "CLIENT LIST");
            let waiting: Vec<&str> = list.lines().filter(|line| line.contains(" flags=b")).collect();
            if waiting.is_empty() { Ok(()) } else { Err(waiting.join("\n")) }
        });
    }

    /// With a delay that a flip can bear, and perhaps a kill on its way.
    fn flip(&mut self, load: &Load) {
        let delay = self.random.pick(&[0, 0, 60]);
        self.delay(delay);
        let before = self.rig.proxy.show(MIGRATION);
        let side = if before["authority"] == "target" { "source" } else { "target" };
        self.rig.make_a_flip_due(&before);
        if self.plan.kills && self.random.below(3) == 0 {
            let more = 1 + self.random.below(100);
            load.progress(more);
            self.tell(format!("killed on its way to the {side}"));
            self.kill_proxy();
        }
        self.rig.proxy.wait(MIGRATION, &format!("authority {side}"), STEP, |now| now["authority"] == side);
        self.tell(format!("authority {side}"));
        self.delay(0);
        self.nobody_waits_on_the_shadow();
    }
}
