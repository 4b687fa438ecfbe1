//! One run: a world and the lives of a process in it, from a seed to what was found.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::task::LocalSet;
use tokio::time::{Duration, sleep, sleep_until, timeout};

use crate::ablations::Ablation;
use crate::checks;
use crate::control::Process;
use crate::limits;
use crate::net::{Net, SharedNet};
use crate::random::Random;
use crate::stream::use_network;
use crate::waiting;
use crate::world::{SharedWorld, World};

/// What a run was like.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<String>,
    pub flips: usize,
    pub operations: usize,
    pub acknowledged: usize,
    /// Lives of the process.
    pub lives: u64,
    /// Two runs of one seed have the same.
    pub fingerprint: u64,
}

/// Plays a seed.
pub fn run(seed: u64, ablation: Ablation) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = LocalSet::new().block_on(&runtime, play(seed, ablation));
    movers::testing::follow_virtual_time(None);
    outcome
}

async fn play(seed: u64, ablation: Ablation) -> Outcome {
    movers::testing::follow_virtual_time(Some((tokio::time::Instant::now(), limits::EPOCH_MS as u64)));
    let net: SharedNet = Rc::new(RefCell::new(Net::new(Random::new(seed, "net"))));
    use_network(&net);
    let world: SharedWorld = Rc::new(RefCell::new(World::new(seed, Rc::clone(&net), ablation)));
    let moving = tokio::task::spawn_local(move_events(Rc::clone(&net), Rc::clone(&world)));
    let lives = live(&world, Random::new(seed, "control"), ablation).await;
    moving.abort();
    let mut world = world.borrow_mut();
    if let Err(what) = judge(&world) {
        world.violation(what);
    }
    Outcome {
        violations: std::mem::take(&mut world.violations),
        flips: world.record.reigns.len() - 1,
        operations: world.history.0.len(),
        acknowledged: world.history.acknowledged(),
        lives,
        fingerprint: net.borrow().fingerprint,
    }
}

/// Lets everything happen at its time.
async fn move_events(net: SharedNet, world: SharedWorld) {
    let changed = Rc::clone(&net.borrow().changed);
    loop {
        let (due_us, elapsed_us) = (net.borrow().due_us(), net.borrow().elapsed_us());
        match due_us {
            Some(due_us) if due_us <= elapsed_us => {
                let event = net.borrow_mut().pop();
                if let Some((event, party)) = event {
                    world.borrow_mut().happen(event, party);
                }
                tokio::task::yield_now().await;
            }
            Some(due_us) => {
                let at = net.borrow().instant(due_us);
                tokio::select! {
                    biased;
                    () = changed.notified() => {}
                    () = sleep_until(at) => {}
                }
            }
            None => changed.notified().await,
        }
    }
}

/// The process lives, dies and lives again, until everything rests.
async fn live(world: &SharedWorld, mut random: Random, ablation: Ablation) -> u64 {
    let mut life = 0;
    loop {
        life += 1;
        let mut process = Process::begin(world, random.clone(), life);
        random.next();
        let until = Duration::from_micros(random.between(limits::ACTIVE_US));
        // One run in two has a process that lives for ever.
        let dies = ablation != Ablation::NaiveDualWrite && random.once_in(2);
        let finished = if dies {
            timeout(until, process.flip_until_rest()).await.is_ok()
        } else {
            process.flip_until_rest().await;
            true
        };
        if finished {
            rest(world).await;
            drop(process);
            world.borrow_mut().end_process();
            return life;
        }
        drop(process);
        world.borrow_mut().end_process();
        sleep(Duration::from_micros(random.between(limits::RESTART_US))).await;
    }
}

/// Nothing is written any more: both servers must become equal.
async fn rest(world: &SharedWorld) {
    let begin = tokio::time::Instant::now();
    loop {
        sleep(Duration::from_micros(limits::REST_LOOK_US)).await;
        let (idle, facts, difference) = {
            let world = world.borrow();
            let idle = world.clients.iter().all(|client| client.is_idle());
            (idle, world.facts, world.difference())
        };
        let in_step = (facts.in_step && facts.doubts == 0) || world.borrow().ablation == Ablation::NaiveDualWrite;
        if idle && in_step && difference.is_none() {
            return;
        }
        if begin.elapsed() > Duration::from_micros(limits::REST_US_MAX) {
            let what = format!("no rest: clients idle: {idle}, {facts:?}, {difference:?}");
            world.borrow_mut().violation(what);
            return;
        }
    }
}

fn judge(world: &World) -> Result<(), String> {
    let logs = [world.servers[0].log.as_slice(), world.servers[1].log.as_slice()];
    let all = checks::joined(logs, &world.record.reigns);
    let matched = checks::matched(&world.history, &all)?;
    checks::reigns_in_order(&all, &matched)?;
    waiting::in_order(&world.history, &all, &matched, &world.holds)?;
    let expected = checks::played(&world.begin, &all, &matched)?;
    let authority = &world.servers[world.authority()];
    let allowance = checks::Allowance { later_ms: limits::OUTLIVE_MS_MAX, now_ms: authority.now_ms() };
    match checks::difference(&expected, &authority.data, allowance) {
        Some(difference) => Err(format!("the authority does not hold what it was told: {difference}")),
        None => Ok(()),
    }
}
