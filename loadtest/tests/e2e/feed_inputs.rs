//! What applications do that an effect derived from a reply cannot follow: each works through a migration by the replication feed, there, back and
//! there again, as it works on one server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossfade_loadtest::rig::{MIGRATION, REPLICATION, Rig, STEP};
use crossfade_loadtest::server::{Kind, RealServer, connect, run, try_run};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;

/// Runs a body for each pair of servers there is.
fn with_each(options: &[&str], body: impl Fn(&Rig)) {
    let mut pairs = vec![(Kind::Redis, Kind::Redis)];
    match Kind::Valkey.binary() {
        Ok(_) => pairs.extend([(Kind::Redis, Kind::Valkey), (Kind::Valkey, Kind::Redis)]),
        Err(why) => eprintln!("*** SKIPPED with Valkey: {why}"),
    }
    for (source, target) in pairs {
        eprintln!("{source:?} to {target:?}");
        // A snapshot begins at once instead of after five seconds.
        let options: Vec<&str> = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let rig = Rig::of(RealServer::start_with(source, &options), RealServer::start_with(target, &options));
        body(&Rig { feed: REPLICATION, ..rig });
    }
}

/// To the target, back, and to the target again; `between` is called on each side.
fn there_back_and_there(rig: &Rig, between: impl Fn(&str)) {
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    between("target");
    rig.rollback();
    between("source");
    rig.approve("migrate");
    rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], STEP);
    rig.authority("target");
    between("target");
}

/// Work that goes on in threads of its own until it is stopped.
struct Work {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Work {
    fn start(count: u64, body: impl Fn(u64, &AtomicBool, &AtomicU64) + Send + Sync + 'static) -> Self {
        let (stop, done, body) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(body));
        let threads = (0..count)
            .map(|worker| {
                let (stop, done, body) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&body));
                std::thread::spawn(move || body(worker, &stop, &done))
            })
            .collect();
        Self { stop, done, threads }
    }

    fn progress(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        until("more work to be done", STEP, || {
            let now = self.done.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a worker"));
        self.done.load(Ordering::Relaxed)
    }
}

fn goes_on(stop: &AtomicBool) -> bool {
    !stop.load(Ordering::Relaxed)
}

/// The feed alone has kept both sides equal: nothing was ever found to differ.
fn assert_nothing_was_repaired(rig: &Rig) {
    let now = rig.proxy.show(MIGRATION);
    assert_eq!(now["divergences_found"], 0, "{}", rig.proxy.cli(&["migration", "divergences", MIGRATION]).stdout);
    assert_eq!(now["feed"], "replication", "{now}");
}

/// Input 3 and 4: everything is done by scripts, which name no key.
#[test]
fn a_queue_that_works_by_scripts_loses_no_job() {
    with_each(&[], |rig| {
        let port = rig.proxy.port;
        let work = Work::start(2, move |worker, stop, done| {
            let mut connection = connect(port);
            for number in (0..).take_while(|_| goes_on(stop)) {
                let add = "redis.call('RPUSH', 'jobs:'..ARGV[1], ARGV[2]); redis.call('HSET', 'job:'..ARGV[1]..':'..ARGV[2], 'state', 'new')";
                let take = "local j = redis.call('LPOP', 'jobs:'..ARGV[1]); if j then redis.call('HSET', 'job:'..ARGV[1]..':'..j, 'state', 'done'); redis.call('INCR', 'finished:'..ARGV[1]) end return j";
                redis::cmd("EVAL")
                    .arg(add)
                    .arg(0)
                    .arg(worker)
                    .arg(number)
                    .exec(&mut connection)
                    .expect("a job is added");
                let taken: Option<i64> =
                    redis::cmd("EVAL").arg(take).arg(0).arg(worker).query(&mut connection).expect("a job is taken");
                assert_eq!(taken, Some(number), "in order, each once");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        there_back_and_there(rig, |_| work.progress(50));
        let finished = work.finish();
        rig.drained();
        rig.assert_equal();
        let mut target = rig.target.connection();
        let counted: [u64; 2] = [run(&mut target, "GET finished:0"), run(&mut target, "GET finished:1")];
        assert_eq!(counted.iter().sum::<u64>(), finished);
        assert_nothing_was_repaired(rig);
        rig.commit();
    });
}

/// Input 2: clients that wait on one key wait on through every change, and are served in the order in which they came.
#[test]
fn blocked_clients_are_served_in_order_on_either_side() {
    with_each(&[], |rig| {
        let port = rig.proxy.port;
        let waiters = |kind: &'static str| -> Vec<JoinHandle<(String, String)>> {
            let mut connection = connect(port);
            (0..4)
                .map(|nth| {
                    let waiter = std::thread::spawn(move || {
                        redis::cmd("BRPOP").arg(kind).arg(0).query(&mut connect(port)).expect("an element")
                    });
                    until("a blocked client", STEP, || {
                        let info: String = run(&mut connection, "INFO clients");
                        let wanted = format!("blocked_clients:{}", nth + 1);
                        if info.contains(&wanted) { Ok(()) } else { Err(info) }
                    });
                    waiter
                })
                .collect()
        };
        let first = waiters("queue");
        rig.create();
        rig.advance_to("migrate");
        rig.authority("target");
        let mut connection = rig.proxy.connection();
        until("the waiting clients at the target", STEP, || {
            let info: String = run(&mut rig.target.connection(), "INFO clients");
            if info.contains("blocked_clients:4") { Ok(()) } else { Err(info) }
        });
        for n in 0..4 {
            run::<i64>(&mut connection, &format!("LPUSH queue {n}"));
        }
        let served: Vec<String> = first.into_iter().map(|waiter| waiter.join().expect("a waiter").1).collect();
        assert_eq!(served, ["0", "1", "2", "3"]);
        let second = waiters("other");
        rig.rollback();
        until("the waiting clients at the source", STEP, || {
            let info: String = run(&mut rig.source.connection(), "INFO clients");
            if info.contains("blocked_clients:4") { Ok(()) } else { Err(info) }
        });
        for n in 0..4 {
            run::<i64>(&mut connection, &format!("LPUSH other {n}"));
        }
        let served: Vec<String> = second.into_iter().map(|waiter| waiter.join().expect("a waiter").1).collect();
        assert_eq!(served, ["0", "1", "2", "3"]);
        rig.drained();
        rig.assert_equal();
        assert_nothing_was_repaired(rig);
    });
}

/// Input 8: a user who may only read reads on.
#[test]
fn a_user_who_may_only_read_reads_on() {
    with_each(&[], |rig| {
        for server in [&rig.source, &rig.target] {
            let mut connection = server.connection();
            run::<()>(&mut connection, "ACL SETUSER reader on >secret ~* +@read +@connection");
            run::<()>(&mut connection, "SET k v");
        }
        run::<()>(&mut rig.target.connection(), "FLUSHALL");
        let port = rig.proxy.port;
        let work = Work::start(1, move |_, stop, done| {
            let mut connection = connect(port);
            run::<()>(&mut connection, "AUTH reader secret");
            while goes_on(stop) {
                assert_eq!(run::<String>(&mut connection, "GET k"), "v");
                let refused = try_run::<()>(&mut connection, "SET k w").expect_err("it may only read");
                assert!(refused.to_string().to_uppercase().contains("NOPERM"), "{refused}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        there_back_and_there(rig, |_| work.progress(20));
        work.finish();
        rig.commit();
    });
}

/// Input 7: lives of hash fields, where both servers know them.
#[test]
fn hash_fields_expire_on_the_target_too() {
    if let Err(why) = Kind::Valkey.binary() {
        skip!("{why}");
    }
    let rig = Rig { feed: REPLICATION, ..Rig::of(RealServer::start(Kind::Valkey), RealServer::start(Kind::Valkey)) };
    let mut connection = rig.proxy.connection();
    run::<()>(&mut connection, "HSET before f v g w");
    run::<()>(&mut connection, "HEXPIRE before 5000 FIELDS 1 f");
    rig.create();
    rig.advance_to("compare");
    run::<()>(&mut connection, "HSETEX after EX 5000 FIELDS 1 f v");
    redis::cmd("EVAL")
        .arg("redis.call('HSET', 'scripted', 'f', 'v'); redis.call('HEXPIRE', 'scripted', 5000, 'FIELDS', 1, 'f')")
        .arg(0)
        .exec(&mut connection)
        .expect("a script");
    run::<()>(&mut connection, "HSETEX short PX 100 FIELDS 1 f v");
    rig.drained();
    let mut target = rig.target.connection();
    for key in ["before", "after", "scripted"] {
        let left: Vec<i64> = run(&mut target, &format!("HTTL {key} FIELDS 1 f"));
        assert!((4000..=5010).contains(&left[0]), "{key}: {left:?}");
    }
    until("the short-lived field to be gone", STEP, || match run::<i64>(&mut target, "EXISTS short") {
        0 => Ok(()),
        _ => Err("it is there".to_owned()),
    });
    assert_nothing_was_repaired(&rig);
}

/// Input 11: pending entries of messages that were trimmed away survive both directions.
#[test]
fn pending_entries_of_trimmed_messages_survive() {
    with_each(&[], |rig| {
        let mut connection = rig.proxy.connection();
        for n in 1..=10 {
            run::<()>(&mut connection, &format!("XADD stream {n}-1 f v"));
        }
        run::<()>(&mut connection, "XGROUP CREATE stream group 0");
        run::<()>(&mut connection, "XREADGROUP GROUP group me COUNT 7 STREAMS stream >");
        run::<()>(&mut connection, "XTRIM stream MAXLEN 2");
        there_back_and_there(rig, |_| {
            let pending: (i64, String, String, Vec<(String, String)>) =
                run(&mut connect(rig.proxy.port), "XPENDING stream group");
            assert_eq!(pending.0, 7);
        });
        rig.drained();
        rig.assert_equal();
        rig.commit();
    });
}

/// Input 12: a watched key that expires, or that a script writes without naming it, aborts the block.
#[test]
fn a_watched_key_aborts_whoever_changes_it() {
    with_each(&[], |rig| {
        let mut connection = rig.proxy.connection();
        run::<()>(&mut connection, "SET watched 1");
        let mut other = rig.proxy.connection();
        there_back_and_there(rig, |side| {
            let mut connection = connect(rig.proxy.port);
            run::<()>(&mut connection, "WATCH watched");
            redis::cmd("EVAL")
                .arg("redis.call('INCR', 'watched')")
                .arg(0)
                .exec(&mut connect(rig.proxy.port))
                .expect("EVAL");
            run::<()>(&mut connection, "MULTI");
            run::<()>(&mut connection, "SET watched stale");
            let outcome: Option<Vec<String>> = run(&mut connection, "EXEC");
            assert_eq!(outcome, None, "on the {side}");
        });
        // A WATCH that is in force when the authority changes aborts too.
        run::<()>(&mut other, "WATCH watched");
        rig.rollback();
        run::<()>(&mut other, "MULTI");
        run::<()>(&mut other, "SET watched stale");
        assert_eq!(run::<Option<Vec<String>>>(&mut other, "EXEC"), None);
        rig.drained();
        rig.assert_equal();
    });
}

/// Input 13: a source that evicts all the time is followed; the target holds what the source holds.
#[test]
fn a_source_that_evicts_is_followed() {
    with_each(&["--maxmemory-policy", "allkeys-lru"], |rig| {
        let mut source = rig.source.connection();
        run::<()>(&mut rig.target.connection(), "CONFIG SET maxmemory-policy noeviction");
        let used: String = run(&mut source, "INFO memory");
        let used =
            used.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse::<u64>().ok()).expect("memory");
        run::<()>(&mut source, &format!("CONFIG SET maxmemory {}", used + 30_000_000));
        let port = rig.proxy.port;
        let work = Work::start(1, move |_, stop, done| {
            let mut connection = connect(port);
            for number in (0u64..).take_while(|_| goes_on(stop)) {
                let value = "x".repeat(40_000);
                redis::cmd("SET").arg(format!("cached:{number}")).arg(&value).exec(&mut connection).expect("SET");
                done.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        work.progress(1500);
        rig.create();
        rig.advance_to("test");
        work.progress(200);
        assert_nothing_was_repaired(rig);
        rig.approve("migrate");
        rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], STEP);
        // From here on the source evicts what the target keeps: a finding says so.
        rig.authority("target");
        work.finish();
        let evicted: String = run(&mut source, "INFO stats");
        assert!(!evicted.contains("evicted_keys:0\r"), "{evicted}");
    });
}

/// Input 15: keys that are changed at the very moment they expire, and no help from a comparison.
#[test]
fn keys_changed_as_they_expire_are_alike_on_both_sides() {
    with_each(&[], |rig| {
        let port = rig.proxy.port;
        let work = Work::start(24, move |worker, stop, done| {
            let mut connection = connect(port);
            let mut random = worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut below = |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            while goes_on(stop) {
                let key = below(40);
                let line = match below(6) {
                    0 => format!("SET n:{key} 1 PX {}", 20 + below(280)),
                    1 => format!("PERSIST n:{key}"),
                    2 => format!("INCR n:{key}"),
                    3 => format!("APPEND n:{key} 1"),
                    4 => format!("GETEX n:{key} PX {}", 20 + below(280)),
                    _ => format!("PEXPIRE n:{key} {}", 20 + below(280)),
                };
                // A number may have grown too long to be counted.
                let _ = try_run::<redis::Value>(&mut connection, &line);
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        there_back_and_there(rig, |_| work.progress(3000));
        work.finish();
        rig.drained();
        until("short lives to end", STEP, || {
            let mut target = rig.target.connection();
            for key in 0..40 {
                if run::<i64>(&mut target, &format!("PTTL n:{key}")) >= 0 {
                    return Err(format!("n:{key} lives"));
                }
            }
            Ok(())
        });
        rig.drained();
        rig.assert_equal();
        assert_nothing_was_repaired(rig);
    });
}

/// Input 10: a script that was loaded before the migration is called by its digest after it.
#[test]
fn a_loaded_script_is_there_on_either_side() {
    with_each(&[], |rig| {
        let mut connection = rig.proxy.connection();
        let digest: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg("return redis.call('INCR', 'calls')")
            .query(&mut connection)
            .expect("SCRIPT LOAD");
        there_back_and_there(rig, |side| {
            let called: Result<i64, _> = redis::cmd("EVALSHA").arg(&digest).arg(0).query(&mut connect(rig.proxy.port));
            assert!(called.is_ok(), "on the {side}: {called:?}");
        });
        assert_eq!(run::<i64>(&mut connection, "GET calls"), 3);
        rig.drained();
        rig.assert_equal();
    });
}

/// Input 14: a SCAN that is under way when the authority changes ends with an error that says so; never with keys missing.
#[test]
fn a_scan_that_a_change_of_authority_interrupts_says_so() {
    with_each(&[], |rig| {
        let mut source = rig.source.connection();
        for n in 0..500 {
            run::<()>(&mut source, &format!("SET key:{n} v"));
            run::<()>(&mut source, &format!("HSET hash field:{n} {}", "x".repeat(70)));
        }
        let mut connection = rig.proxy.connection();
        let begin = |connection: &mut redis::Connection| -> [String; 2] {
            let (keys, _): (String, Vec<String>) = run(connection, "SCAN 0 COUNT 10");
            let (fields, _): (String, Vec<String>) = run(connection, "HSCAN hash 0 COUNT 10");
            [keys, fields]
        };
        let before = std::cell::RefCell::new(begin(&mut connection));
        there_back_and_there(rig, |side| {
            let mut connection = connect(rig.proxy.port);
            let [keys, fields] = before.borrow().clone();
            for line in [format!("SCAN {keys}"), format!("HSCAN hash {fields}")] {
                let refused = try_run::<(String, Vec<String>)>(&mut connection, &line).expect_err("it began elsewhere");
                assert!(refused.to_string().contains("begin again"), "on the {side}: {refused}");
            }
            // From the beginning it sees everything.
            let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
            loop {
                let (next, keys): (String, Vec<String>) = run(&mut connection, &format!("SCAN {cursor} COUNT 50"));
                seen.extend(keys.into_iter().filter(|key| key.starts_with("key:")));
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
            assert_eq!(seen.len(), 500, "on the {side}");
            before.replace(begin(&mut connection));
        });
    });
}

/// What is changed on the source after `analyze` keeps the authority there until the target has it too; a finding alone would come too late.
#[test]
fn a_user_made_while_two_servers_are_in_step_keeps_the_flip_waiting_until_the_target_has_it() {
    let options = ["--appendonly", "no", "--repl-diskless-sync-delay", "0"];
    let rig = Rig::of(RealServer::start_with(Kind::Redis, &options), RealServer::start_with(Kind::Redis, &options));
    let rig = Rig { feed: REPLICATION, ..rig };
    rig.create();
    rig.advance_to("compare");
    let set = "ACL SETUSER app on >secret ~* +@all";
    run::<()>(&mut connect(rig.proxy.port), set);
    for (step, approved) in [("test", false), ("migrate", true)] {
        if approved {
            rig.approve("migrate");
        }
        rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", step], STEP);
    }
    let compatibility = || {
        let now = rig.proxy.show(MIGRATION);
        let gates = now["gates"].as_array().cloned().unwrap_or_default();
        gates.into_iter().find(|gate| gate["name"] == "compatibility").unwrap_or_default()
    };
    until("the gate names the user's finding", STEP, || {
        let gate = compatibility();
        let named = gate["measured"].as_str().is_some_and(|measured| measured.contains("acl-users-missing-on-target"));
        if named && gate["met"] == false { Ok(()) } else { Err(gate.to_string()) }
    });
    assert_eq!(rig.proxy.show(MIGRATION)["authority"], "source");
    run::<()>(&mut rig.target.connection(), set);
    rig.authority("target");
    let mut app = connect(rig.proxy.port);
    run::<()>(&mut app, "AUTH app secret");
    run::<()>(&mut app, "SET a 1");
}
