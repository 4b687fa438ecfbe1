//! What becomes of keys that the target held before the first copy, on real servers.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::applier::Feed;
use super::conflicts::{begun_key, kept_key};
use super::shadow::position_key;
use super::spec::{FeedError, FeedEvent, FeedSpec};
use super::tests::{PATIENCE, Pair, say, with_each};
use crate::contract::Conflicts;
use crate::redis::names::NameScan;
use base::model::{ConflictPolicy, KeyPattern, limits};
use follow::redis::client::RedisClient;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const NAME: &str = "orders:1";

fn conflicts(policy: ConflictPolicy, exclude: &[&str]) -> Conflicts {
    let exclude: Vec<KeyPattern> = exclude.iter().map(|text| KeyPattern::new(text).expect("a pattern")).collect();
    Conflicts { policy, exclude: Arc::from(exclude), settled: false }
}

/// A feed at work and what it has told.
struct Running {
    feed: Feed,
    task: JoinHandle<()>,
    failed: Rc<std::cell::RefCell<Vec<FeedError>>>,
}

impl Running {
    fn start(spec: FeedSpec) -> Self {
        let feed = Feed::new(spec);
        let (events, mut heard) = mpsc::channel(64);
        let failed = Rc::new(std::cell::RefCell::new(Vec::new()));
        let (own, told) = (feed.clone(), Rc::clone(&failed));
        tokio::task::spawn_local(async move {
            while let Some(event) = heard.recv().await {
                if let FeedEvent::Failed(error) = event {
                    eprintln!("feed: {error}");
                    told.borrow_mut().push(error);
                }
            }
        });
        let task = tokio::task::spawn_local(async move { own.run_forever(None, &events).await });
        Self { feed, task, failed }
    }

    async fn failure(&self) -> FeedError {
        let waiting = async {
            loop {
                if let Some(error) = self.failed.borrow().first().cloned() {
                    return error;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("a failure")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pair {
    fn with(&self, conflicts: Conflicts) -> FeedSpec {
        FeedSpec { name: NAME.to_owned(), conflicts, ..self.spec() }
    }
}

async fn values(client: &mut RedisClient, keys: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for key in keys {
        let value = client.must(&[b"GET", key.as_bytes()]).await.expect("GET");
        found.push(value.bytes().map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    found
}

/// Until a key that is written now has arrived at the shadow.
async fn arrived(pair: &Pair, running: &Running) {
    pair.up_to_now(&running.feed).await;
    timeout(PATIENCE, running.feed.undoubted()).await.expect("nothing in doubt");
    pair.up_to_now(&running.feed).await;
}

#[test]
fn fail_and_exclude_write_nothing_where_the_target_holds_another_key() {
    with_each("conflict-fail", async |pair| {
        say(&mut pair.source().await, &["SET a source", "SET session:1 source"]).await;
        let mut shadow = pair.shadow().await;
        say(&mut shadow, &["SET other target", "SET session:1 target"]).await;
        for (policy, patterns) in [(ConflictPolicy::Fail, &[][..]), (ConflictPolicy::Exclude, &["session:*"])] {
            let running = Running::start(pair.with(conflicts(policy, patterns)));
            let error = running.failure().await;
            let text = error.to_string();
            assert!(matches!(error, FeedError::Conflict { .. }) && text.contains("other in database 0"), "{text}");
            drop(running);
            assert_eq!(values(&mut shadow, &["a", "other", "session:1"]).await, ["-", "target", "target"], "{policy}");
        }
        // Without what is in the way it begins by itself.
        say(&mut shadow, &["DEL other"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Exclude, &["session:*"])));
        pair.in_step(&running.feed).await;
        assert_eq!(values(&mut shadow, &["a", "session:1"]).await, ["source", "target"]);
        assert_eq!(running.feed.status().excluded.keys, 1);
    });
}

/// A first copy that was cut short has left keys of its own: they are no conflict, and nothing of the target's is lost by them.
#[test]
fn a_first_copy_that_was_cut_short_is_made_again() {
    with_each("conflict-cut", async |pair| {
        say(&mut pair.source().await, &["SET a source", "SET b source"]).await;
        let mut shadow = pair.shadow().await;
        let begun = begun_key(NAME);
        for (policy, patterns) in
            [(ConflictPolicy::Fail, &[][..]), (ConflictPolicy::Exclude, &["own:*"]), (ConflictPolicy::Skip, &[])]
        {
            say(&mut shadow, &["FLUSHALL", "SET gone half-copied", "SET own:1 target"]).await;
            if policy == ConflictPolicy::Skip {
                let kept = kept_key("orders");
                shadow.must(&[b"SADD", &kept, b"0:own:1"]).await.expect("SADD");
            }
            shadow.must(&[b"SET", &begun, b"1"]).await.expect("SET");
            let running = Running::start(pair.with(conflicts(policy, patterns)));
            pair.in_step(&running.feed).await;
            let own = if policy == ConflictPolicy::Fail { "-" } else { "target" };
            assert_eq!(values(&mut shadow, &["a", "gone", "own:1"]).await, ["source", "-", own], "{policy}");
            let marks = shadow.must(&[b"EXISTS", &begun, &position_key(NAME)]).await.expect("EXISTS");
            assert_eq!(marks.integer(), Some(1), "the position took the place of the mark");
        }
    });
}

/// What the target held stays as it was, whatever the source does to keys of those names; all else is an exact copy.
#[test]
fn skip_keeps_what_the_target_held() {
    with_each("conflict-skip", async |pair| {
        let mut source = pair.source().await;
        say(&mut source, &["SET kept source", "SET a source", "SADD s 1 2", "SADD keptset 1"]).await;
        let mut shadow = pair.shadow().await;
        say(&mut shadow, &["SET kept target PX 5000000", "SET own target", "SADD keptset 9"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Skip, &[])));
        pair.in_step(&running.feed).await;
        let all = ["kept", "own", "a", "b"];
        assert_eq!(values(&mut shadow, &all).await, ["target", "target", "source", "-"]);
        say(&mut source, &["SET kept later", "SET own later", "SET b later", "DEL keptset", "PEXPIRE kept 90"]).await;
        // With a key that is moved: that one is copied.
        say(&mut source, &["SADD keptset 1 2 3", "SUNIONSTORE s s keptset", "MSET own again a again"]).await;
        arrived(pair, &running).await;
        assert_eq!(values(&mut shadow, &all).await, ["target", "target", "again", "later"]);
        let left = shadow.must(&[b"PTTL", b"kept"]).await.expect("PTTL").integer();
        assert!(left.is_some_and(|ms| ms > 4_000_000), "{left:?}");
        assert_eq!(shadow.must(&[b"SCARD", b"s"]).await.expect("SCARD").integer(), Some(3));
        let excluded = running.feed.status().excluded;
        assert_eq!((excluded.kept, excluded.keys, excluded.mixed), (3, 2, 2), "{excluded:?}");
        assert!(excluded.commands >= 5, "{excluded:?}");
        // After a crash the same keys are kept.
        drop(running);
        say(&mut source, &["SET own crashed", "SET c crashed"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Skip, &[])));
        pair.in_step(&running.feed).await;
        assert_eq!(values(&mut shadow, &["own", "c"]).await, ["target", "crashed"]);
        assert_eq!(running.feed.status().full_syncs, 0);
    });
}

/// A later snapshot, and FLUSHALL, remove everything but what is excluded.
#[test]
fn what_is_excluded_outlasts_a_flush_and_a_later_snapshot() {
    with_each("conflict-flush", async |pair| {
        let mut source = pair.source().await;
        let mut shadow = pair.shadow().await;
        for (policy, patterns) in [(ConflictPolicy::Skip, &[][..]), (ConflictPolicy::Exclude, &["own:*", "x[12]"])] {
            say(&mut source, &["FLUSHALL", "SET a source", "SELECT 3", "SET c source", "SELECT 0"]).await;
            say(&mut shadow, &["FLUSHALL", "SET own:1 target", "SELECT 3", "SET own:3 target", "SELECT 0"]).await;
            let running = Running::start(pair.with(conflicts(policy, patterns)));
            pair.in_step(&running.feed).await;
            say(&mut source, &["FLUSHDB", "SET b later"]).await;
            arrived(pair, &running).await;
            assert_eq!(values(&mut shadow, &["a", "b", "own:1"]).await, ["-", "later", "target"], "{policy}");
            say(&mut shadow, &["SELECT 3"]).await;
            assert_eq!(values(&mut shadow, &["c", "own:3"]).await, ["source", "target"], "{policy}");
            say(&mut source, &["FLUSHALL", "SET d later"]).await;
            arrived(pair, &running).await;
            assert_eq!(values(&mut shadow, &["c", "own:3"]).await, ["-", "target"], "{policy}");
            say(&mut shadow, &["SELECT 0"]).await;
            assert_eq!(values(&mut shadow, &["b", "d", "own:1"]).await, ["-", "later", "target"], "{policy}");
            drop(running);
            // A stream that is lost: the shadow is filled anew.
            say(&mut source, &["DEL d", "SET e later"]).await;
            shadow.must(&[b"DEL", &position_key(NAME)]).await.expect("DEL");
            shadow.must(&[b"SET", &begun_key(NAME), b"1"]).await.expect("SET");
            let running = Running::start(pair.with(conflicts(policy, patterns)));
            pair.in_step(&running.feed).await;
            assert_eq!(values(&mut shadow, &["d", "e", "own:1"]).await, ["-", "later", "target"], "{policy}");
        }
    });
}

#[test]
fn skip_refuses_more_keys_than_it_can_keep() {
    with_each("conflict-many", async |pair| {
        let mut shadow = pair.shadow().await;
        let fill = format!("for i = 1, {} do redis.call('SET', i, 1) end", limits::FEED_KEPT_KEYS_MAX + 1);
        shadow.must(&[b"EVAL", fill.as_bytes(), b"0"]).await.expect("EVAL");
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Skip, &[])));
        let text = running.failure().await.to_string();
        assert!(text.contains("nothing was written") && text.contains("exclude"), "{text}");
        let scan = NameScan::begin(&pair.shadow.endpoint("new"), 512).await.expect("a scan");
        assert_eq!(scan.total, limits::FEED_KEPT_KEYS_MAX as u64 + 1);
    });
}

/// Two processes on one shadow, or one that keeps in step what the other takes for the authority: the later one does not begin, names the other, and
/// begins when that is gone.
#[test]
fn a_feed_does_not_begin_beside_one_of_a_living_process() {
    for of_the_shadow in [true, false] {
        with_each("rival", async |pair| {
            let mut shadow = pair.shadow().await;
            say(&mut shadow, &["SET untouched v"]).await;
            let connect = async || if of_the_shadow { pair.shadow().await } else { pair.source().await };
            let (mut rival, mut watch) = (connect().await, connect().await);
            say(&mut rival, &["CLIENT SETNAME crossfade-feed-other:1@process-b"]).await;
            say(&mut watch, &["CLIENT SETNAME crossfade-watch@process-b"]).await;
            let living = tokio::task::spawn_local(async move {
                let _rival = rival;
                while watch.call(&[b"PING"]).await.is_ok() {
                    tokio::time::sleep(limits::FEED_RIVAL_LOOK).await;
                }
            });
            let running = Running::start(pair.with(conflicts(ConflictPolicy::Replace, &[])));
            let text = running.failure().await.to_string();
            assert!(text.contains("another Crossfade, connected from") && text.contains("feed other:1"), "{text}");
            assert_eq!(values(&mut shadow, &["untouched"]).await, ["v"], "nothing was written");
            living.abort();
            pair.in_step(&running.feed).await;
        });
    }
}

/// What a host that vanished has left is ended.
#[test]
fn what_a_process_that_is_gone_has_left_is_ended() {
    with_each("rival-gone", async |pair| {
        let mut zombie = pair.shadow().await;
        say(&mut zombie, &["CLIENT SETNAME crossfade-feed-orders:1@process-b"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Replace, &[])));
        pair.in_step(&running.feed).await;
        assert!(zombie.call(&[b"SET", b"late", b"v"]).await.is_err(), "{}: it is dead", pair.name);
    });
}

/// It died between the record of a flip and the exchange: what it had sent to what is the authority now must not come after clients' writes.
#[test]
fn the_other_direction_of_a_process_that_is_gone_is_ended_too() {
    with_each("rival-turned", async |pair| {
        let mut zombie = pair.source().await;
        say(&mut zombie, &["CLIENT SETNAME crossfade-feed-orders:0@process-b"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Replace, &[])));
        pair.in_step(&running.feed).await;
        assert!(zombie.call(&[b"SET", b"late", b"v"]).await.is_err(), "{}: it is dead", pair.name);
    });
}

/// A hash whose fields expire, on a shadow that knows no such thing: its fields are there, and it is named.
#[test]
fn what_the_shadow_cannot_hold_is_counted_and_named() {
    with_each("losses", async |pair| {
        if pair.name != "valkey to redis" {
            return;
        }
        let mut source = pair.source().await;
        say(&mut source, &["HSET fields f v g w", "SET a 1"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Replace, &[])));
        pair.in_step(&running.feed).await;
        // Not before: Valkey gives no snapshot of such a value to a replica of that version.
        say(&mut source, &["HEXPIRE fields 5000 FIELDS 1 f"]).await;
        let told = async {
            while running.feed.status().losses == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("a loss");
        assert_eq!(running.feed.status().losses, 1);
        let losses = running.feed.losses();
        assert!(losses[0].key.as_deref() == Some(b"fields") && losses[0].why.contains("hash fields"), "{losses:?}");
        let length = pair.shadow().await.must(&[b"HLEN", b"fields"]).await.expect("HLEN");
        assert_eq!(length.integer(), Some(2));
    });
}

/// The same where the source held it before the first copy: its server gives the snapshot in its own form only.
#[test]
fn a_snapshot_with_what_the_shadow_cannot_hold_is_taken() {
    with_each("own-form", async |pair| {
        if pair.name != "valkey to redis" {
            return;
        }
        let mut source = pair.source().await;
        let others = [
            "SADD words a b",
            "ZADD scores 1 a 2 b",
            "RPUSH list a b",
            "XADD stream 1-1 f v",
            "XADD stream 2-1 f v",
            "XGROUP CREATE stream group 0",
            "XREADGROUP GROUP group one COUNT 1 STREAMS stream >",
            "SET text v EX 5000",
            "HSET plain f v",
        ];
        say(&mut source, &others).await;
        say(&mut source, &["HSET fields f v g w", "HEXPIRE fields 5000 FIELDS 1 f"]).await;
        let running = Running::start(pair.with(conflicts(ConflictPolicy::Replace, &[])));
        pair.in_step(&running.feed).await;
        assert_eq!(running.feed.status().losses, 1);
        let differing = crate::compare_servers(&pair.source.endpoint("old"), &pair.shadow.endpoint("new"), 2000).await;
        let keys: Vec<_> = differing.expect("a comparison").into_iter().map(|one| (one.key, one.class)).collect();
        assert_eq!(keys, [], "the fields' deadlines alone are lost");
    });
}
