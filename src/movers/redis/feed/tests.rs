//! A feed between real servers: Redis on the path, and Valkey where `scripts/install-test-servers.sh` has put it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet};
use tokio::time::timeout;

use super::applier::Feed;
use super::batch::Doubt;
use super::compare::FeedReader;
use super::spec::{FeedEvent, FeedSpec};
use super::work::Compared;
use crate::contract::Conflicts;
use crate::digest_server;
use crate::redis::tests::Server;
use follow::redis::client::RedisClient;
use follow::redis::spill::SpillSpec;
use wire::resp::encode::request;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Source and shadow by their names.
pub(super) struct Pair {
    pub name: &'static str,
    pub source: Server,
    pub shadow: Server,
}

fn valkey() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/valkey-server");
    if !path.exists() {
        eprintln!("*** SKIPPED with Valkey: {} is not there (scripts/install-test-servers.sh)", path.display());
    }
    path.exists().then_some(path)
}

fn pairs(test: &str) -> Vec<Pair> {
    let redis = PathBuf::from("redis-server");
    let mut wanted = vec![("redis to redis", redis.clone(), redis.clone())];
    if let Some(valkey) = valkey() {
        wanted.push(("redis to valkey", redis.clone(), valkey.clone()));
        wanted.push(("valkey to redis", valkey.clone(), redis));
        wanted.push(("valkey to valkey", valkey.clone(), valkey));
    }
    let start = |(nth, (name, source, shadow)): (usize, (&'static str, PathBuf, PathBuf))| {
        let extra = ["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64mb"];
        Pair {
            name,
            source: Server::start_binary(&source, &format!("{test}-{nth}-old"), &extra),
            shadow: Server::start_binary(&shadow, &format!("{test}-{nth}-new"), &extra),
        }
    };
    wanted.into_iter().enumerate().map(start).collect()
}

impl Pair {
    pub fn spec(&self) -> FeedSpec {
        let spill = SpillSpec { memory_bytes_max: 1 << 20, bytes_max: 1 << 30, folder: std::env::temp_dir() };
        let (authority, shadow) = (self.source.endpoint("old"), self.shadow.endpoint("new"));
        let conflicts = Conflicts::default();
        FeedSpec {
            name: "orders".to_owned(),
            authority,
            shadow,
            grace_ms: 0,
            spill,
            guarded: false,
            conflicts,
            source_p99_ms: 0,
            inherited: Rc::default(),
        }
    }

    pub fn feed(&self) -> Feed {
        Feed::new(self.spec())
    }

    pub async fn source(&self) -> RedisClient {
        RedisClient::connect(&self.source.endpoint("old")).await.expect("the source answers")
    }

    pub async fn shadow(&self) -> RedisClient {
        RedisClient::connect(&self.shadow.endpoint("new")).await.expect("the shadow answers")
    }

    /// Waits until the shadow has all that the source has now, with its deadlines.
    pub async fn in_step(&self, feed: &Feed) {
        let exact = async {
            while !feed.status().deadlines_exact {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, exact).await.unwrap_or_else(|_| panic!("{}: {:?}", self.name, feed.status()));
        self.up_to_now(feed).await;
    }

    pub async fn up_to_now(&self, feed: &Feed) {
        let mut client = self.source().await;
        let role = client.must(&[b"ROLE"]).await.expect("ROLE");
        let offset = role.items().and_then(|items| items[1].integer()).expect("an offset") as u64;
        timeout(PATIENCE, feed.applied(offset)).await.unwrap_or_else(|_| {
            panic!("{}: not in step at {offset}: {:?}, {:?}", self.name, feed.status(), feed.doubts())
        });
    }

    pub async fn assert_equal(&self) {
        let source = digest_server(&self.source.endpoint("old")).await.expect("the source is read");
        let shadow = digest_server(&self.shadow.endpoint("new")).await.expect("the shadow is read");
        assert_eq!(source, shadow, "{}", self.name);
    }
}

pub(super) fn run(feed: &Feed) -> JoinHandle<()> {
    let feed = feed.clone();
    let (events, mut heard) = tokio::sync::mpsc::channel(64);
    tokio::task::spawn_local(async move {
        while let Some(event) = heard.recv().await {
            if let FeedEvent::Failed(error) = event {
                eprintln!("feed: {error}");
            }
        }
    });
    tokio::task::spawn_local(async move { feed.run_forever(None, &events).await })
}

pub(super) fn with_each(test: &str, body: impl AsyncFn(&Pair)) {
    for pair in pairs(test) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, body(&pair));
    }
}

/// Sends lines of words; errors are the script's own fault.
pub(super) async fn say(client: &mut RedisClient, lines: &[&str]) {
    for line in lines {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        client.must(&words).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

/// Every type, several encodings of each, deadlines, databases, functions.
async fn dataset(client: &mut RedisClient) {
    let long = "x".repeat(5000);
    say(
        client,
        &[
            "SET s 1",
            "SET t text",
            &format!("SET long {long}"),
            "SET later v PXAT 99999999999999",
            "RPUSH l a b c",
            &format!("RPUSH ll {long} {long} {long}"),
            "SADD ints 1 2 3",
            "SADD words a b c",
            "HSET h f v g w",
            &format!("HSET hh f {long}"),
            "ZADD z 1.5 a 2 b -inf c",
            "PFADD p a b c",
            "XADD x 1-1 f v",
            "XADD x 2-1 f v",
            "XGROUP CREATE x g 0",
            "XREADGROUP GROUP g me COUNT 1 STREAMS x >",
            "XDEL x 2-1",
            "SETBIT bits 100 1",
            "GEOADD geo 13.3 38.1 here",
            "SELECT 7",
            "SET s 7",
            "SELECT 0",
        ],
    )
    .await;
    let many: Vec<u8> = (0..2000)
        .flat_map(|n| {
            [
                request(&[b"SADD", b"bigset", format!("m{n}").as_bytes()]),
                request(&[b"ZADD", b"bigz", n.to_string().as_bytes(), format!("m{n}").as_bytes()]),
                request(&[b"HSET", b"bigh", format!("f{n}").as_bytes(), b"v"]),
            ]
        })
        .flatten()
        .collect();
    client.pipeline(&many, 6000).await.expect("the writes are taken");
}

#[test]
fn history_and_stream_make_the_shadow_equal() {
    with_each("equal", async |pair| {
        let mut client = pair.source().await;
        dataset(&mut client).await;
        let mut shadow = pair.shadow().await;
        say(&mut shadow, &["SET only-here v"]).await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        say(
            &mut client,
            &[
                "INCR s",
                "APPEND t more",
                "SPOP words",
                "LPOP l",
                "RPUSH l d",
                "HINCRBYFLOAT h n 0.1",
                "ZINCRBY z 1 a",
                "EXPIRE s 1000",
                "PERSIST later",
                "GETEX t EX 500",
                "SELECT 3",
                "SET other-database 1",
                "MOVE other-database 4",
                "SELECT 0",
                "COPY h hc",
                "RENAME l l2",
                "EVAL redis.call('SET','undeclared','v') 0",
                "SETEX e 100 v",
                "XADD x MAXLEN 1 3-1 f v",
                "XACK x g 1-1",
                "SORT ints STORE sorted",
                "DEL long",
                "UNLINK hh",
                "BITOP NOT nb bits",
                "SWAPDB 0 7",
                "SET after-swap 1",
                "SWAPDB 7 2",
            ],
        )
        .await;
        let block = [
            request(&[b"MULTI"]),
            request(&[b"INCR", b"m"]),
            request(&[b"SELECT", b"9"]),
            request(&[b"SET", b"k", b"v"]),
            request(&[b"EXEC"]),
        ];
        client.pipeline(&block.concat(), 5).await.expect("a transaction");
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        // On a busy machine the shadow may be late, and then keys are looked at that it may have lost.
        timeout(PATIENCE, feed.undoubted()).await.expect("nothing stays in doubt");
        assert_eq!(feed.status().full_syncs, 1);
        let none = shadow.must(&[b"EXISTS", b"only-here"]).await.expect("EXISTS");
        assert_eq!(none.integer(), Some(0), "what only the shadow had is gone");
        running.abort();
    });
}

/// The position is applied with its batch: whatever the moment at which a feed dies, the next applies each command once.
#[test]
fn a_feed_that_dies_at_any_moment_is_continued_without_a_copy() {
    with_each("dies", async |pair| {
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        running.abort();
        let writing = {
            let mut client = pair.source().await;
            tokio::task::spawn_local(async move {
                for round in 0..200u32 {
                    let commands: Vec<u8> = (0..100u32)
                        .flat_map(|n| match n % 4 {
                            0 => request(&[b"INCR", b"counter"]),
                            1 => request(&[b"RPUSH", b"list", round.to_string().as_bytes()]),
                            2 => request(&[b"APPEND", format!("text:{n}").as_bytes(), b"x"]),
                            _ => request(&[b"EVAL", b"redis.call('INCR','a'); redis.call('RPUSH','b',1)", b"0"]),
                        })
                        .collect();
                    client.pipeline(&commands, 100).await.expect("the writes are taken");
                }
            })
        };
        let mut lives = 0;
        while !writing.is_finished() {
            let feed = pair.feed();
            let running = run(&feed);
            // At another point of its work each time.
            let moment = Duration::from_micros(1000 + 700 * (lives % 13));
            tokio::time::sleep(moment).await;
            running.abort();
            let _ = running.await;
            assert_eq!(feed.status().full_syncs, 0, "{}: nothing is copied again", pair.name);
            lives += 1;
        }
        writing.await.expect("it was written");
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        assert_eq!((feed.status().full_syncs, feed.doubts()), (0, Vec::new()));
        assert!(lives > 2, "{lives} lives");
        running.abort();
    });
}

#[test]
fn lost_connections_and_a_lost_backlog_are_survived() {
    with_each("lost", async |pair| {
        let mut client = pair.source().await;
        say(&mut client, &["CONFIG SET repl-backlog-size 16384", "SET gone v"]).await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let mut shadow = pair.shadow().await;
        for round in 0..5 {
            say(&mut client, &[&format!("SET round {round}"), "INCR c"]).await;
            let _ = client.call(&[b"CLIENT", b"KILL", b"TYPE", b"replica"]).await;
            let _ = shadow.call(&[b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes"]).await;
            say(&mut client, &["INCR c"]).await;
            pair.in_step(&feed).await;
        }
        assert_eq!(feed.status().full_syncs, 1, "{}: each was continued", pair.name);
        pair.assert_equal().await;
        running.abort();
        let _ = running.await;
        say(&mut client, &["DEL gone"]).await;
        for _ in 0..50 {
            say(&mut client, &[&format!("SET filler {}", "x".repeat(4000))]).await;
        }
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        assert_eq!(feed.status().full_syncs, 1, "{}: the backlog no longer had it", pair.name);
        running.abort();
    });
}

#[test]
fn a_feed_ends_the_connections_of_its_predecessor_before_it_reads_the_position() {
    with_each("zombie", async |pair| {
        let mut zombie = pair.shadow().await;
        let mut other = pair.shadow().await;
        say(&mut zombie, &["CLIENT SETNAME crossfade-feed-orders"]).await;
        say(&mut other, &["CLIENT SETNAME crossfade-feed-orders-2"]).await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        assert!(zombie.call(&[b"SET", b"late", b"v"]).await.is_err(), "{}: it is dead", pair.name);
        say(&mut other, &["PING"]).await;
        running.abort();
    });
}

/// As when the shadow refused a command, or a stranger wrote there.
#[test]
fn a_doubtful_key_is_copied_again_at_the_position_of_the_shadow() {
    with_each("doubt", async |pair| {
        let mut client = pair.source().await;
        say(
            &mut client,
            &["SET steady 1", "SET hot 1", "RPUSH list a b", "SET gone 1", "PEXPIREAT steady 99999999999999"],
        )
        .await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let mut shadow = pair.shadow().await;
        // A hash cannot be incremented, a missing key cannot be persisted.
        say(&mut shadow, &["DEL hot list gone steady", "HSET hot f v", "HSET list f v"]).await;
        say(&mut client, &["PERSIST steady", "INCR hot", "RPUSH list c", "PEXPIREAT gone 99999999999999"]).await;
        pair.in_step(&feed).await;
        let writing = {
            let mut client = pair.source().await;
            tokio::task::spawn_local(async move {
                let block: Vec<u8> = (0..100).flat_map(|_| request(&[b"INCR", b"hot"])).collect();
                for _ in 0..300 {
                    client.pipeline(&block, 100).await.expect("the writes are taken");
                }
            })
        };
        // Again and again, while it is written all the time.
        while !writing.is_finished() {
            feed.doubt([Doubt { database: 0, key: Some(b"hot".to_vec()), why: "the test says so".to_owned() }]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        writing.await.expect("it was written");
        let repaired = async {
            while !feed.doubts().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, repaired).await.unwrap_or_else(|_| panic!("{}: {:?}", pair.name, feed.doubts()));
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        running.abort();
    });
}

/// A shadow far away answers each look after its way there and back: one look for each comparison would take a minute where a second is there.
#[test]
fn comparisons_that_wait_together_are_made_at_one_position() {
    with_each("together", async |pair| {
        let mut client = pair.source().await;
        say(&mut client, &["SET k 1", "SELECT 3", "SET k 3"]).await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let mut shadow = pair.shadow().await;
        say(&mut shadow, &["CONFIG RESETSTAT"]).await;
        let reader = Rc::new(FeedReader::new(feed.clone()));
        let compare = |nth| {
            let reader = Rc::clone(&reader);
            let database = if nth < 40 { 0 } else { 3 };
            let reads = vec![Box::from(request(&[b"GET", b"k"]))];
            tokio::task::spawn_local(async move { reader.exactly(database, reads).await })
        };
        let all: Vec<_> = (0..60).map(compare).collect();
        for (nth, compared) in all.into_iter().enumerate() {
            let compared = compared.await.expect("it does not panic");
            let Compared { authority, shadow, doubtful } = compared.expect("it is compared");
            let expected: &[u8] = if nth < 40 { b"1" } else { b"3" };
            let answers = (authority[0].bytes(), shadow[0].bytes(), doubtful);
            assert_eq!(answers, (Some(expected), Some(expected), vec![false]), "{}: {nth}", pair.name);
        }
        let stats = shadow.must(&[b"INFO", b"commandstats"]).await.expect("INFO");
        let stats = String::from_utf8_lossy(stats.bytes().unwrap_or_default()).into_owned();
        // SELECT there and back, for each database once.
        assert!(stats.contains("cmdstat_select:calls=4,"), "{}: {stats}", pair.name);
        running.abort();
    });
}

/// What comes into doubt on the way to the position of a comparison is not copied again before it is read there.
#[test]
fn a_difference_that_is_known_only_at_the_position_is_no_finding() {
    with_each("on-the-way", async |pair| {
        let mut client = pair.source().await;
        let keys: Vec<String> = (0..300).map(|n| format!("k:{n}")).collect();
        for key in &keys {
            say(&mut client, &[&format!("SET {key} 1")]).await;
        }
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let mut shadow = pair.shadow().await;
        for key in &keys {
            // A hash cannot be incremented.
            say(&mut shadow, &[&format!("DEL {key}"), &format!("HSET {key} f v")]).await;
        }
        pair.up_to_now(&feed).await;
        let reader = FeedReader::new(feed.clone());
        let mut found = 0;
        for key in &keys {
            let reads = vec![Box::from(request(&[b"GET", key.as_bytes()]))];
            let words: [&[u8]; 2] = [b"INCR", key.as_bytes()];
            let (compared, written) = tokio::join!(reader.exactly(0, reads), client.must(&words));
            written.expect("INCR");
            let Compared { authority, shadow, doubtful } = compared.expect("it is compared");
            // Before the INCR nobody knew.
            let is_behind = authority[0].bytes() == Some(b"2");
            found += u32::from(is_behind && doubtful[0]);
            assert!(
                !is_behind || authority == shadow || doubtful[0],
                "{}: {key}: {authority:?}, {shadow:?}",
                pair.name
            );
        }
        assert!(found > 0, "{}: no comparison met a command on its way", pair.name);
        running.abort();
    });
}

/// A key in doubt that is renamed before it is copied again takes what is wrong along.
#[test]
fn what_is_made_of_a_key_in_doubt_is_in_doubt() {
    with_each("spread", async |pair| {
        let mut client = pair.source().await;
        say(&mut client, &["RPUSH a 1", "RPUSH c 1", "SELECT 3", "SET other v", "SELECT 0"]).await;
        let feed = pair.feed();
        let running = run(&feed);
        pair.in_step(&feed).await;
        let mut shadow = pair.shadow().await;
        // Nothing can be pushed to a hash.
        say(&mut shadow, &["DEL a", "HSET a f v"]).await;
        let block: Vec<u8> =
            ["MULTI", "RPUSH a 2", "RENAME a b", "COPY b d", "COPY d e", "MOVE b 3", "RENAME c f", "EXEC"]
                .iter()
                .flat_map(|line| request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()))
                .collect();
        client.pipeline(&block, 8).await.expect("a transaction");
        pair.up_to_now(&feed).await;
        timeout(PATIENCE, feed.undoubted()).await.expect("everything is copied again");
        pair.in_step(&feed).await;
        pair.assert_equal().await;
        running.abort();
    });
}

/// Renamed to a name that the correction of deadlines has passed already, or moved to a database that it has.
#[test]
fn what_is_renamed_while_deadlines_are_corrected_takes_none_of_the_first_copy_along() {
    const KEYS: u32 = 3000;
    with_each("carried", async |pair| {
        let mut client = pair.source().await;
        let fill = "for i = 1, ARGV[1] do redis.call('SET', 'a:'..i, 'v', 'PX', 600000 + i) end";
        client.must(&[b"EVAL", fill.as_bytes(), b"0", KEYS.to_string().as_bytes()]).await.expect("EVAL");
        let feed = pair.feed();
        let running = run(&feed);
        let (mut number, mut swaps) = (0, 0);
        while !feed.status().deadlines_exact {
            number = number % KEYS + 1;
            let line = match number % 4 {
                3 if number % 400 == 3 && swaps < 4 => {
                    swaps += 1;
                    "SWAPDB 0 2".to_owned()
                }
                0 => format!("MOVE a:{number} 1"),
                1 => format!("RENAMENX a:{number} b:{number}"),
                _ => format!("COPY a:{number} c:{number}"),
            };
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            // Not there any more: it has been moved before.
            let _ = client.call(&words).await.expect("a reply");
        }
        pair.in_step(&feed).await;
        timeout(PATIENCE, feed.undoubted()).await.expect("everything is copied again");
        let scans = "local found = {} for _, key in ipairs(redis.call('KEYS', '*')) do local at = redis.call('PEXPIRETIME', key) \
                     if at > 0 then found[#found + 1] = key..' '..at end end table.sort(found) return found";
        for database in [b"0", b"1", b"2"] {
            let mut all = Vec::new();
            for mut server in [pair.source().await, pair.shadow().await] {
                server.must(&[b"SELECT", database]).await.expect("SELECT");
                all.push(server.must(&[b"EVAL", scans.as_bytes(), b"0"]).await.expect("EVAL"));
            }
            assert_eq!(all[0], all[1], "{}: database {}", pair.name, database[0] - b'0');
        }
        running.abort();
    });
}
