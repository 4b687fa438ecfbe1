//! Deadlines, and their clock, which sleeps when there are no calls.

use std::time::{Duration, Instant};

use super::*;
use base::model::limits;

const LOOP: &str = "(loop $again (br $again)) (i64.const 0x10)";

/// Waits for something that happens without further action; only a failing test reaches the time limit.
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(30), "did not happen within 30 s: {what}");
        std::thread::yield_now();
    }
}

fn looping() -> Request<'static, NoKeys> {
    Request { flags: abi::flags::REQUEST_UNORDERED, ..request_view() }
}

const LOOPS_ON_FLAG: &str =
    "(if (i32.and (i32.load (i32.const 12)) (i32.const 4)) (then (loop $again (br $again)))) (i64.const 0x10)";

#[test]
fn a_loop_is_stopped_even_if_the_clock_was_asleep() {
    let host = Host::with_clock(options(), limits::POLICY_TICK, Duration::from_millis(5)).expect("a host");
    let module = load(&host, "guest", &request_guest("", LOOPS_ON_FLAG));
    for _ in 0..20 {
        let mut instance = module.instantiate("{}", 1).expect("an instance");
        until("the clock falls asleep", || host.clock_is_asleep());
        let begun = Instant::now();
        let fault = instance.on_request(&looping(), 0).expect_err("it loops");
        assert_eq!(fault.kind, FaultKind::Deadline);
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    }
}

#[test]
fn the_first_call_of_an_instance_wakes_the_clock_and_idleness_puts_it_to_sleep_again() {
    let host = Host::with_clock(options(), limits::POLICY_TICK, Duration::from_millis(1)).expect("a host");
    until("the clock falls asleep", || host.clock_is_asleep());
    let mut instance = begin(&host, &request_guest("", "(i64.const 0x10)"));
    for _ in 0..3 {
        until("the clock falls asleep", || host.clock_is_asleep());
        request(&mut instance).expect("an answer");
        // It may be asleep again already; the tests with loops show that it had been awake.
        until("the clock falls asleep again", || host.clock_is_asleep());
    }
}

#[test]
fn the_clock_stays_awake_while_a_call_is_in_overtime() {
    let host = Host::with_clock(options(), limits::POLICY_TICK, Duration::from_millis(1)).expect("a host");
    let waker = host.waker();
    until("the clock falls asleep", || host.clock_is_asleep());
    waker.overtime_begins();
    until("the clock wakes", || !host.clock_is_asleep());
    // Several idle times without a call.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(150) {
        assert!(!host.clock_is_asleep(), "after {:?}", begun.elapsed());
        std::thread::yield_now();
    }
    waker.overtime_ends();
    until("the clock falls asleep again", || host.clock_is_asleep());
}

#[test]
fn a_loop_while_loading_is_stopped_even_with_a_short_idle_time() {
    let host = Host::with_clock(options(), limits::POLICY_TICK, Duration::from_millis(1)).expect("a host");
    let hook = "(func (export \"cf_on_request\") (param i32) (result i64) (i64.const 0x10))";
    let wat = guest("", &format!("{hook} (func $start (loop $again (br $again))) (start $start)"));
    for _ in 0..3 {
        until("the clock falls asleep", || host.clock_is_asleep());
        let begun = Instant::now();
        assert_eq!(refusal(&host, wat.as_bytes(), "{}").rule, "start");
        assert!(begun.elapsed() >= Duration::from_millis(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn calls_that_take_long_together_are_not_mistaken_for_one() {
    let host = host();
    let mut instance = begin(&host, &request_guest("", "(i64.const 0x10)"));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(20) {
        request(&mut instance).expect("an answer");
    }
    assert_eq!(instance.stats().faults.total(), 0);
}

#[test]
fn many_threads_at_once_all_have_their_deadline() {
    let host = Host::with_clock(options(), limits::POLICY_TICK, Duration::from_millis(1)).expect("a host");
    let module = load(&host, "guest", &request_guest("", LOOPS_ON_FLAG));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let mut instance = module.instantiate("{}", 1).expect("an instance");
                    request(&mut instance).expect("an answer");
                    let fault = instance.on_request(&looping(), 0).expect_err("it loops");
                    assert_eq!(fault.kind, FaultKind::Deadline);
                }
            });
        }
    });
}

#[test]
fn a_spent_instance_is_not_called() {
    let host = host();
    let imports = r#"(import "crossfade" "counter_add" (func $count (param i32 i32 i64) (result i32)))
        (import "crossfade" "now_ms" (func $now (result i64)))"#;
    let rest = r#"(data (i32.const 70000) "runs")
        (func (export "cf_on_request") (param i32) (result i64)
            (drop (call $count (i32.const 70000) (i32.const 4) (i64.const 1)))
            (if (i64.ne (call $now) (i64.const 0)) (then unreachable))
            (i64.const 0x10))"#;
    let mut instance = begin(&host, &guest(imports, rest));
    request(&mut instance).expect("an answer");
    assert_eq!(instance.on_request(&request_view(), 1).expect_err("it traps").kind, FaultKind::Trap);
    assert!(instance.is_spent());
    for _ in 0..3 {
        let fault = request(&mut instance).expect_err("it is spent");
        assert_eq!(fault.kind, FaultKind::Trap);
        assert!(fault.text.contains("not called again"), "{}", fault.text);
    }
    let stats = instance.stats();
    assert_eq!((stats.calls, stats.faults.trap, stats.counters), (2, 1, vec![("runs".to_owned(), 2)]));
}

#[test]
fn the_clock_ends_with_the_last_user_of_its_host() {
    let host = host();
    let module = load(&host, "guest", &request_guest("", LOOP));
    drop(host);
    let mut instance = module.instantiate("{}", 1).expect("a module outlives its host");
    drop(module);
    assert_eq!(request(&mut instance).expect_err("it loops").kind, FaultKind::Deadline);
    let clock = instance.clock_alive();
    assert!(clock.upgrade().is_some());
    drop(instance);
    until("the clock ends", || clock.upgrade().is_none());
}

/// Runs for as many turns as the view's client number says.
const TURNS: &str = "(local $left i64) (local.set $left (i64.load (i32.const 16)))
    (loop $again (local.set $left (i64.sub (local.get $left) (i64.const 1))) (br_if $again (i64.gt_s (local.get $left) (i64.const 0))))
    (i64.const 0x10)";

#[test]
fn a_call_that_waits_for_a_processor_is_not_a_loop() {
    let host = host();
    let module = load(&host, "guest", &request_guest("", TURNS));
    let mut instance = module.instantiate("{}", 1).expect("an instance");
    // About a third of its allowed time, when it has a processor to itself.
    let view = Request { client: 300_000, ..request_view() };
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Four times as many threads as processors, so that each waits much longer than a deadline for its next turn.
        let busy = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) * 4;
        for _ in 0..busy {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        let mut faults = Vec::new();
        while begun.elapsed() < Duration::from_millis(500) {
            let call = Instant::now();
            faults.extend(instance.on_request(&view, 0).err());
            longest = longest.max(call.elapsed());
        }
        let looped =
            module.instantiate("{}", 1).expect("an instance").on_request(&Request { client: 1 << 40, ..view }, 0);
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(faults, [], "the longest call took {longest:?}");
        assert_eq!(looped.expect_err("it loops").kind, FaultKind::Deadline);
    });
}
