//! Migrations driven by hand with the command line, under load, verified by a digest independent of the product.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;

use crossfade_loadtest::process::die_with_parent;
use crossfade_loadtest::rig::{MIGRATION, Rig, STEP, Writers, fill, losses};
use crossfade_loadtest::server::{Kind, run, try_run};
use crossfade_loadtest::skip;
use crossfade_loadtest::wait::until;

/// redis-benchmark in rounds until stopped; any error is returned.
struct Benchmark {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<u32, String>>>,
}

impl Benchmark {
    fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                let mut command = Command::new("redis-benchmark");
                command.args(["-p", &port.to_string(), "-t", "set,get,incr,lpush,rpush,sadd,hset,zadd,mset"]);
                command.args(["-r", "100000", "-n", "3000", "-c", "20", "-P", "4", "-q"]);
                die_with_parent(&mut command);
                let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
                let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                if !output.status.success() || text.contains("Error") || text.contains("ERR ") {
                    return Err(text.into_owned());
                }
                rounds += 1;
            }
            Ok(rounds)
        });
        Self { stop, thread: Some(thread) }
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.thread.take().expect("running").join().expect("no panic").expect("no client error");
        assert!(rounds > 0);
    }
}

impl Drop for Benchmark {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn a_migration_under_load(target: Kind) {
    let rig = Rig::start(target);
    fill(&mut rig.source.connection(), 1500);
    let load = Benchmark::start(rig.proxy.port);
    let writers = Writers::start(rig.proxy.port, 2);
    rig.create();
    rig.advance_to("migrate");
    let now = rig.authority("target");
    assert_eq!(now["flips"].as_array().map(Vec::len), Some(1), "{now}");
    writers.progress(500);
    load.finish();
    let known = writers.finish();
    assert_eq!(known.iter().map(|writer| &writer.messages).find(|messages| !messages.is_empty()), None);
    rig.drained();
    let keys = rig.assert_equal();
    let sizes: [usize; 2] = [run(&mut rig.source.connection(), "DBSIZE"), run(&mut rig.target.connection(), "DBSIZE")];
    assert_eq!(sizes, [keys, keys]);
    let now = rig.commit();
    assert_eq!((&now["status"], &now["authority"]), (&"completed".into(), &"target".into()), "{now}");
    assert_eq!(losses(&mut rig.proxy.connection(), &known), Vec::<String>::new());
    // After commit the old server is out of the path.
    run::<String>(&mut rig.proxy.connection(), "SET after-commit 1");
    assert_eq!(run::<usize>(&mut rig.target.connection(), "EXISTS after-commit"), 1);
    assert_eq!(run::<usize>(&mut rig.source.connection(), "EXISTS after-commit"), 0);
}

#[test]
fn redis_to_redis_under_load_by_hand() {
    a_migration_under_load(Kind::Redis);
}

#[test]
fn redis_to_valkey_under_load_by_hand() {
    if let Err(why) = Kind::Valkey.binary() {
        skip!("{why}");
    }
    a_migration_under_load(Kind::Valkey);
}

#[test]
fn rollback_after_the_flip_keeps_writes_made_after_the_flip() {
    let rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 200);
    let writers = Writers::start(rig.proxy.port, 2);
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    writers.progress(500);
    let mut connection = rig.proxy.connection();
    for command in
        ["SET after-flip kept", "DEL string:1", "RPUSH list:2 late", "PERSIST volatile:3", "ZINCRBY zset:4 5 a"]
    {
        run::<redis::Value>(&mut connection, command);
    }
    let now = rig.rollback();
    assert_eq!(now["flips"].as_array().map(Vec::len), Some(2), "{now}");
    writers.progress(200);
    let known = writers.finish();
    rig.drained();
    rig.assert_equal();
    let mut source = rig.source.connection();
    assert_eq!(run::<String>(&mut source, "GET after-flip"), "kept");
    assert_eq!(run::<usize>(&mut source, "EXISTS string:1"), 0);
    assert_eq!(run::<i64>(&mut source, "PTTL volatile:3"), -1);
    assert_eq!(losses(&mut source, &known), Vec::<String>::new());
    assert!(known.iter().all(|writer| writer.messages.is_empty()), "{known:?}");
    // A retry from here is quick, and ends on the target.
    rig.advance_to_again();
    rig.authority("target");
}

/// From `rollback` straight to `migrate`, as the phase table allows.
trait Again {
    fn advance_to_again(&self);
}

impl Again for Rig {
    fn advance_to_again(&self) {
        let writers = Writers::start(self.proxy.port, 1);
        // Gates of a retry may ask for an approval of this run first.
        until("the retry", STEP, || {
            let args = ["migration", "approve", MIGRATION, "--scope", "migrate", "--by", "tester", "--reason", "again"];
            let _ = self.proxy.cli(&args);
            let ran = self.proxy.cli(&["migration", "advance", MIGRATION, "--to", "migrate"]);
            if ran.code == 0 { Ok(()) } else { Err(format!("{} {}", ran.stdout, ran.stderr)) }
        });
        drop(writers.finish());
    }
}

#[test]
fn a_key_corrupted_on_the_target_is_named_by_verification() {
    let rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 100);
    let writers = Writers::start(rig.proxy.port, 1);
    rig.create();
    rig.advance_to("compare");
    rig.in_step();
    // On purpose, without the proxy's knowledge.
    let mut target = rig.target.connection();
    run::<redis::Value>(&mut target, "HSET hash:7 f corrupted");
    run::<redis::Value>(&mut target, "DEL intset:9");
    until("verification to name both keys", Duration::from_secs(60), || {
        let ran = rig.proxy.must(&["--output", "json", "migration", "divergences", MIGRATION]);
        let named = ["hash:7", "intset:9"].iter().all(|key| ran.stdout.contains(key));
        if named { Ok(()) } else { Err(ran.stdout) }
    });
    drop(writers.finish());
    // The lane copies what was named again, so that both sides agree in the end.
    until("the repair", Duration::from_secs(30), || {
        let value: Option<String> = try_run(&mut target, "HGET hash:7 f").map_err(|error| error.to_string())?;
        let there: usize = try_run(&mut target, "EXISTS intset:9").map_err(|error| error.to_string())?;
        if value.as_deref() == Some("7") && there == 1 { Ok(()) } else { Err(format!("{value:?} {there}")) }
    });
}

/// A subscriber and a client blocked in BLPOP, both older than the migration, through dual operation, a flip and a rollback.
#[test]
fn subscribers_and_blocked_clients_live_through_flips() {
    let rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 50);
    let mut subscriber = rig.proxy.connection();
    subscriber.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
    let mut subscription = subscriber.as_pubsub();
    subscription.subscribe("news").expect("subscribed");
    let mut blocked = rig.proxy.connection();
    blocked.set_read_timeout(None).expect("no time-out");
    let popped = std::thread::spawn(move || {
        redis::cmd("BLPOP").arg("queue").arg(0).query::<(String, String)>(&mut blocked).expect("not disturbed")
    });
    let writers = Writers::start(rig.proxy.port, 2);
    let mut hears = |when: &str| {
        let mut publisher = rig.proxy.connection();
        until(&format!("a message {when}"), STEP, || {
            let _: i64 = run(&mut publisher, &format!("PUBLISH news {when}"));
            match subscription.get_message() {
                Ok(message) if message.get_payload::<String>().is_ok_and(|text| text == when) => Ok(()),
                Ok(_) => Err("an older message".to_owned()),
                Err(error) if error.is_timeout() => Err("nothing yet".to_owned()),
                Err(error) => panic!("the subscriber was disturbed {when}: {error}"),
            }
        });
    };
    hears("before");
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    hears("on-the-target");
    rig.rollback();
    hears("on-the-source");
    assert!(!popped.is_finished());
    let pushed: i64 = run(&mut rig.proxy.connection(), "RPUSH queue work");
    assert_eq!(pushed, 1);
    assert_eq!(popped.join().expect("no panic"), ("queue".to_owned(), "work".to_owned()));
    let known = writers.finish();
    rig.drained();
    rig.assert_equal();
    assert_eq!(losses(&mut rig.source.connection(), &known), Vec::<String>::new());
}

/// Values far larger than any buffer go through the lane whole, and to both sides.
#[test]
fn a_large_value_is_kept_in_step() {
    let rig = Rig::start(Kind::Redis);
    fill(&mut rig.source.connection(), 50);
    let large = vec![b'x'; 100 * 1024 * 1024];
    let _: () = redis::cmd("SET").arg("old").arg(&large).query(&mut rig.source.connection()).expect("set");
    let writers = Writers::start(rig.proxy.port, 2);
    rig.create();
    rig.advance_to("compare");
    let mut client = rig.proxy.connection();
    let _: () = redis::cmd("SET").arg("new").arg(&large).query(&mut client).expect("set");
    let length: usize = redis::cmd("APPEND").arg("old").arg("y").query(&mut client).expect("appended");
    assert_eq!(length, large.len() + 1);
    let _ = writers.finish();
    rig.drained();
    rig.assert_equal();
}
