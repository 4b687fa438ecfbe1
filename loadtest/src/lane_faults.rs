//! Kills of the proxy beside a lane, at instants chosen by a seed, while writers count: what is copied again afterwards, and what is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::crossfade::Crossfade;
use crate::feed_faults::{assert_continued, journal};
use crate::feed_history::{full_copies, server};
use crate::history::Random;
use crate::rig::{MIGRATION, Rig, STEP, Writers, fill};
use crate::server::{Kind, RealServer, run, try_connect};
use crate::slow::SlowProxy;
use crate::wait::until;

/// Keys that the first copy moves in these tests, and how many of them a pass after a kill may copy: those in doubt, and those that the writers write
/// while it runs.
const KEYS: usize = 3000;
const COPIED_AGAIN_MAX: usize = 400;

/// Longer than any test waits for what is lost then.
const LOST: Duration = Duration::from_secs(600);

/// A rig whose target is kept in step by the lane, with something in the source.
#[must_use]
pub fn kept_by_lane(source: RealServer, target: RealServer) -> Rig {
    let rig = Rig::of(source, target);
    begin(&rig);
    rig
}

fn begin(rig: &Rig) {
    fill(&mut rig.source.connection(), KEYS / 10);
    rig.create();
}

/// How often values were asked for, of both servers since they were started.
#[must_use]
pub fn dumps(rig: &Rig) -> usize {
    let of = |server: &RealServer| {
        let stats: String = run(&mut server.connection(), "INFO commandstats");
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_dump:calls=")).map(str::to_owned);
        calls.and_then(|calls| calls.split(',').next()?.parse::<usize>().ok()).unwrap_or(0)
    };
    of(&rig.source) + of(&rig.target)
}

/// Kills the proxy, starts it again and waits until it has gone on. How many values it copied.
fn kill(rig: &mut Rig, writers: &Writers) -> usize {
    let before = dumps(rig);
    rig.proxy.kill();
    rig.proxy.up();
    writers.progress(50);
    gone_on(rig);
    dumps(rig) - before
}

/// Writers write all the time, so something is in flight all the time; the pass is over and nothing is dirty.
pub fn gone_on(rig: &Rig) {
    rig.proxy.wait(MIGRATION, "the pass behind a start", STEP, |now| {
        now["uncopied"] == false && now["lane"]["shadow_connected"] == true && now["lane"]["pass"].as_u64() > Some(0)
    });
}

/// Kills while both are kept in step, in changes of authority both ways, and right behind them. How many values were copied after each kill.
///
/// # Panics
/// When something acknowledged is lost, the servers differ, or everything is copied again.
#[must_use]
pub fn kills_of_the_proxy(seed: u64, rounds: usize) -> Vec<usize> {
    let mut random = Random(seed);
    let mut rig = kept_by_lane(server(Kind::Redis, false), server(Kind::Redis, false));
    rig.advance_to("compare");
    rig.drained();
    let writers = Writers::start(rig.proxy.port, 3);
    let mut copied = Vec::new();
    for _ in 0..rounds {
        writers.progress(1 + random.below(500));
        copied.push(kill(&mut rig, &writers));
    }
    for _ in 0..rounds {
        let before = rig.proxy.show(MIGRATION);
        let side = if before["authority"] == "target" { "source" } else { "target" };
        rig.make_a_flip_due(&before);
        // On its way.
        let span = random.pick(&[300, 3000]);
        writers.progress(1 + random.below(span));
        copied.push(kill(&mut rig, &writers));
        rig.authority(side);
        // Behind it.
        copied.push(kill(&mut rig, &writers));
    }
    let journal = assert_continued(&rig, writers);
    assert!(copied.iter().all(|copied| *copied <= COPIED_AGAIN_MAX), "{copied:?} of {KEYS} keys: {journal}");
    copied
}

/// Writes each key once, so that nothing but the lane itself can bring one to the shadow that it has missed.
#[derive(Debug)]
struct OneWriteEach {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl OneWriteEach {
    fn start(port: u16, count: usize) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..count)
            .map(|worker| {
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                std::thread::spawn(move || write_each_once(worker, port, &stop, &acknowledged))
            })
            .collect();
        Self { stop, acknowledged, threads }
    }

    fn progress(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        until("acknowledged writes", Duration::from_secs(60), || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).flat_map(|thread| thread.join().expect("a writer")).collect()
    }
}

fn write_each_once(worker: usize, port: u16, stop: &AtomicBool, acknowledged: &AtomicUsize) -> Vec<String> {
    let (mut keys, mut connection) = (Vec::new(), None);
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some(open) = &mut connection else {
            connection = try_connect(port).ok();
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let key = format!("once:{worker}:{number}");
        match redis::cmd("SET").arg(&key).arg(number).exec(open) {
            Ok(()) => {
                keys.push(key);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => connection = None,
        }
    }
    keys
}

/// Kills the proxy while the shadow is late, so often. Of each kill how many keys were in doubt, as the journal says.
///
/// # Panics
/// When a key that was acknowledged is missing on either side, or a comparison had to find one.
#[must_use]
pub fn kills_with_a_late_shadow(seed: u64, kills: usize, delay: Duration) -> Vec<usize> {
    let mut random = Random(seed);
    let (source, target) = (server(Kind::Redis, false), server(Kind::Redis, false));
    let slow = SlowProxy::start(target.port);
    let proxy = Crossfade::start(&source.url(), Some(&format!("redis://127.0.0.1:{}/0", slow.port)));
    let mut rig = Rig::behind(proxy, source, target);
    begin(&rig);
    rig.advance_to("compare");
    rig.drained();
    slow.delay(delay);
    let mut keys = Vec::new();
    for _ in 0..kills {
        let writers = OneWriteEach::start(rig.proxy.port, 2);
        writers.progress(200 + random.below(1000) as usize);
        // Nothing reaches the shadow any more, so that what it has not confirmed it does not have.
        slow.delay(LOST);
        writers.progress(100);
        rig.proxy.kill();
        slow.lose();
        keys.extend(writers.finish());
        slow.delay(delay);
        rig.proxy.up();
        gone_on(&rig);
        rig.drained();
        // At once, before a comparison could find and repair what is missing.
        rig.assert_equal();
    }
    let mut shadow = rig.target.connection();
    let missing = |key: &&String| !redis::cmd("EXISTS").arg(key).query::<bool>(&mut shadow).expect("EXISTS");
    assert_eq!(keys.iter().filter(missing).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(rig.proxy.show(MIGRATION)["divergences_found"], 0);
    let journal = journal(&rig);
    assert_eq!(full_copies(&journal), 1, "only the first copy is of every key: {journal}");
    doubts(&journal)
}

/// The numbers of keys in doubt that a journal tells.
#[must_use]
pub fn doubts(journal: &str) -> Vec<usize> {
    let number = |line: &str| line.split(" keys in doubt").next()?.rsplit(' ').next()?.parse().ok();
    journal.lines().filter(|line| line.contains(" keys in doubt")).filter_map(number).collect()
}
