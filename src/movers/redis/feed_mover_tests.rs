//! The mover of a feed between real servers, without cores: there and back, and what a crash in between leaves.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::feed_mover::FeedMover;
use super::tests::Server;
use super::verify::{SidesSpec, verify};
use crate::contract::{Conflicts, MoverEvent, Route, ShadowFacts, VerifySpec};
use base::model::{Epoch, FeedKind, InterlayName, Side};
use follow::redis::client::RedisClient;

const PATIENCE: Duration = Duration::from_secs(20);
const GRACE_MS: u64 = 1000;

struct Rig {
    source: Server,
    target: Server,
    mover: FeedMover,
    events: mpsc::Receiver<(InterlayName, MoverEvent)>,
}

fn orders() -> InterlayName {
    InterlayName::new("orders").expect("a name")
}

fn mover() -> (FeedMover, mpsc::Receiver<(InterlayName, MoverEvent)>) {
    let (told, events) = mpsc::channel(4096);
    (FeedMover::new(orders(), Vec::new(), told), events)
}

impl Rig {
    fn start(test: &str) -> Self {
        let extra = ["--repl-diskless-sync-delay", "0"];
        let server =
            |side: &str| Server::start_binary(Path::new("redis-server"), &format!("mover-{test}-{side}"), &extra);
        let (mover, events) = mover();
        Self { source: server("old"), target: server("new"), mover, events }
    }

    fn route(&self, side: Side, epoch: u64) -> Route {
        let (source, target) = (self.source.endpoint("old"), self.target.endpoint("new"));
        let (authority, shadow) = match side {
            Side::Source => (source, target),
            Side::Target => (target, source),
        };
        Route {
            authority,
            shadow,
            side,
            epoch: Epoch(epoch),
            feed: FeedKind::Replication,
            ttl_grace_ms: GRACE_MS,
            confirm_writes: false,
            conflicts: Conflicts::default(),
            source_p99_ms: 0,
        }
    }

    /// The process ends and another begins.
    fn restart(&mut self) {
        let (mover, events) = mover();
        (self.mover, self.events) = (mover, events);
    }

    /// Waits for facts; gives the reasons of the passes that began meanwhile.
    async fn until(&mut self, what: &str, done: impl Fn(&ShadowFacts) -> bool) -> Vec<String> {
        let mut passes = Vec::new();
        let waiting = async {
            loop {
                match self.events.recv().await.expect("the mover lives").1 {
                    MoverEvent::Facts(fresh) if done(&fresh.facts) => return,
                    MoverEvent::PassStarted(pass) => passes.push(pass.reason),
                    MoverEvent::SideLost { side, reason } => eprintln!("{side} lost: {reason}"),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
        passes
    }

    async fn ready(&mut self) -> Vec<String> {
        self.until("ready for a flip", |facts| {
            let behind = facts.behind;
            facts.way_back && facts.shadow_connected && !behind.uncopied && behind.dirty == 0 && behind.in_flight == 0
        })
        .await
    }

    /// As control does, with clients held in between.
    async fn flip(&mut self, to: Side, epoch: u64) {
        self.mover.hold(Duration::from_secs(2)).await.expect("drained");
        self.mover.exchange(self.route(to, epoch)).await.expect("exchanged");
        self.mover.release().await.expect("released");
    }

    async fn assert_equal(&self, side: Side) {
        let (route, prober) = self.mover.prober().expect("in step");
        assert_eq!(route.side, side);
        let compare = VerifySpec { ttl_tolerance_ms: 2 * GRACE_MS, sample_per_ten_thousand: 10_000 };
        let spec = SidesSpec { authority: route.authority, shadow: route.shadow, compare, excluded: Rc::default() };
        let found = verify(spec, prober, std::sync::Arc::default()).await.expect("compared");
        assert_eq!((found.divergent, found.inconclusive), (Vec::new(), 0));
    }
}

async fn client(server: &Server) -> RedisClient {
    RedisClient::connect(&server.endpoint("any")).await.expect("it answers")
}

async fn say(server: &Server, lines: &[&str]) {
    let mut client = client(server).await;
    for line in lines {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        client.must(&words).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

async fn text(server: &Server, line: &str) -> String {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    client(server).await.call(&words).await.expect(line).brief()
}

fn with(test: &str, body: impl AsyncFnOnce(&mut Rig)) {
    let mut rig = Rig::start(test);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, body(&mut rig));
}

#[test]
fn the_roles_change_there_and_back_without_a_copy() {
    with("there-and-back", async |rig| {
        say(&rig.source, &["SET a 1", "RPUSH l 1 2 3", "SET volatile v PXAT 99999999999999", "HSET h f v"]).await;
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        let passes = rig.ready().await;
        assert_eq!(passes.len(), 1, "{passes:?}");
        say(&rig.source, &["INCR a", "EVAL redis.call('SET','undeclared','v') 0"]).await;
        rig.flip(Side::Target, 2).await;
        assert_eq!(text(&rig.target, "GET a").await, "\"2\"");
        assert_eq!(text(&rig.target, "GET undeclared").await, "\"v\"");
        say(&rig.target, &["INCR a", "LPOP l", "SET new v"]).await;
        let passes = rig.ready().await;
        assert!(passes.iter().all(|why| why.contains("nothing is copied")), "{passes:?}");
        rig.assert_equal(Side::Target).await;
        assert_eq!(text(&rig.source, "GET a").await, "\"3\"");
        // What a client asked for, and no grace.
        assert_eq!(text(&rig.target, "PEXPIRETIME volatile").await, "99999999999999");
        rig.flip(Side::Source, 3).await;
        say(&rig.source, &["INCR a"]).await;
        let passes = rig.ready().await;
        assert!(passes.iter().all(|why| why.contains("nothing is copied")), "{passes:?}");
        rig.assert_equal(Side::Source).await;
        assert_eq!(text(&rig.target, "GET a").await, "\"4\"");
        for server in [&rig.source, &rig.target] {
            assert_eq!(text(server, "EXISTS __crossfade:mark __crossfade:position:orders:1").await, "0");
        }
        assert_eq!(text(&rig.source, "DBSIZE").await, "6", "clients see no key of ours");
    });
}

/// What was left at the old authority is for a crash. Without it, and without anything that the new authority keeps of its stream, the way back that
/// was followed is enough.
#[test]
fn the_way_back_that_was_followed_is_taken_up() {
    with("way-back", async |rig| {
        say(&rig.source, &["SET a 1"]).await;
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        rig.ready().await;
        rig.mover.hold(Duration::from_secs(2)).await.expect("drained");
        say(&rig.source, &["DEL __crossfade:position:orders:2"]).await;
        rig.mover.exchange(rig.route(Side::Target, 2)).await.expect("exchanged");
        rig.mover.release().await.expect("released");
        say(&rig.target, &["INCR a"]).await;
        let passes = rig.ready().await;
        assert!(passes.iter().all(|why| why.contains("nothing is copied")), "{passes:?}");
        assert_eq!(text(&rig.source, "GET a").await, "\"2\"");
    });
}

#[test]
fn a_hold_that_is_released_leaves_no_trace() {
    with("rehearsal", async |rig| {
        say(&rig.source, &["SET a 1"]).await;
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        rig.ready().await;
        rig.mover.hold(Duration::from_secs(2)).await.expect("drained");
        assert_eq!(text(&rig.source, "DBSIZE").await, "2", "the position of the way back");
        rig.mover.release().await.expect("released");
        assert_eq!(text(&rig.source, "DBSIZE").await, "1");
        rig.ready().await;
        rig.assert_equal(Side::Source).await;
    });
}

/// The record was durable, and then the process died: what it had not told the mover, the next one finds on the servers.
#[test]
fn a_crash_within_a_flip_costs_no_copy_on_either_side_of_the_record() {
    with("crash", async |rig| {
        say(&rig.source, &["SET a 1", "RPUSH l 1"]).await;
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        rig.ready().await;
        say(&rig.source, &["INCR a"]).await;
        rig.mover.hold(Duration::from_secs(2)).await.expect("drained");
        rig.restart();
        // Not durable: the source goes on.
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        say(&rig.source, &["INCR a", "RPUSH l 2"]).await;
        let passes = rig.ready().await;
        assert!(passes.iter().all(|why| why.contains("nothing is copied")), "{passes:?}");
        rig.mover.hold(Duration::from_secs(2)).await.expect("drained");
        rig.restart();
        // Durable: the target is the authority.
        say(&rig.target, &["INCR a", "RPUSH l 3"]).await;
        rig.mover.keep_in_step(rig.route(Side::Target, 2));
        let passes = rig.ready().await;
        assert!(passes.iter().all(|why| why.contains("nothing is copied")), "{passes:?}");
        rig.assert_equal(Side::Target).await;
        assert_eq!(text(&rig.source, "GET a").await, "\"4\"");
        assert_eq!(text(&rig.source, "LLEN l").await, "3");
    });
}

#[test]
fn an_authority_that_comes_back_empty_does_not_empty_the_shadow() {
    with("empty", async |rig| {
        let fill: Vec<String> = (0..100).map(|n| format!("SET key:{n} v")).collect();
        say(&rig.source, &fill.iter().map(String::as_str).collect::<Vec<_>>()).await;
        rig.mover.keep_in_step(rig.route(Side::Source, 1));
        rig.ready().await;
        // As after a restart without its data: another stream, and nothing in it.
        rig.source.restart_empty();
        let lost = async {
            loop {
                if let MoverEvent::SideLost { reason, .. } = rig.events.recv().await.expect("the mover lives").1
                    && reason.contains("lost data")
                {
                    return reason;
                }
            }
        };
        let reason = timeout(PATIENCE, lost).await.expect("it is told");
        assert!(reason.contains("holds 100") && reason.contains("FLUSHALL"), "{reason}");
        assert_eq!(text(&rig.target, "EXISTS key:7").await, "1");
    });
}
