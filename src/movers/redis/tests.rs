//! Jobs against real servers on unix sockets, with a stand-in for the lane that copies and probes directly.
//!
//! Needs `redis-server` on the path (`scripts/install-test-servers.sh`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backfill::{BackfillSpec, backfill};
use super::facts::check_endpoint;
use super::findings::compatibility;
use super::lane_client::LaneClient;
use super::probes::Prober;
use super::smoke::smoke;
use super::verify::{SidesSpec, verify};
use crate::contract::{PassKind, VerifySpec, WriteProbe};
use crate::{JobError, Progress, compare_servers, digest_server};
use base::model::{Address, ClientTls, Credentials, Endpoint, EndpointName, EndpointProtocol, InterlayName, Secret};
use bus::{CompanionOrder, Directive, LaneEvent, LaneOrder, Mailbox};
use follow::redis::client::RedisClient;
use wire::resp::value::{Value, decode, encode_request};

pub(super) struct Server {
    command: Command,
    child: Child,
    directory: PathBuf,
}

impl Server {
    fn start(name: &str, extra: &[&str]) -> Self {
        Self::start_binary(Path::new("redis-server"), name, extra)
    }

    pub fn start_binary(binary: &Path, name: &str, extra: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("crossfade-jobs-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(binary);
        command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no", "--dir"]);
        command.arg(&directory).args(extra).current_dir(&directory).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server: run scripts/install-test-servers.sh");
        let server = Self { command, child, directory };
        server.wait_until_up();
        server
    }

    /// It dies and comes back with nothing.
    pub fn restart_empty(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
        self.child = self.command.spawn().unwrap();
        self.wait_until_up();
    }

    /// `STOP`: it stands still until `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success(), "kill -s {name}");
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("redis.sock")
    }

    pub fn endpoint(&self, name: &str) -> Endpoint {
        endpoint(name, &self.socket())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn endpoint(name: &str, socket: &Path) -> Endpoint {
    Endpoint {
        name: EndpointName::new(name).unwrap(),
        protocol: EndpointProtocol::Redis { database: 0 },
        address: Address::Unix(socket.to_owned()),
        credentials: None,
        tls: ClientTls::disabled(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute") })
}

/// Redis commands as one would type them; words only.
async fn run(client: &mut RedisClient, lines: &[&str]) {
    for line in lines {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        client.must(&words).await.unwrap();
    }
}

const EVERY_TYPE: &[&str] = &[
    "SET string value",
    "SET string:ttl value PX 500000",
    "RPUSH list a b c",
    "SADD set a b c",
    "SADD intset 1 2 3",
    "HSET hash f v g w",
    "ZADD zset 3.14 a -1 b inf c",
    "XADD stream 1-1 f v",
    "XADD stream 2-1 f w",
    "XGROUP CREATE stream readers 0",
    "XREADGROUP GROUP readers me COUNT 1 STREAMS stream >",
    "SELECT 3",
    "SET elsewhere 1",
    "SELECT 0",
];

/// Answers orders as a lane would, without being one: no clients, so any moment is a position.
struct StandIn {
    mailbox: Mailbox<Directive>,
    client: LaneClient,
    authority: RedisClient,
    shadow: RedisClient,
    passes_done: Vec<u64>,
    named: HashSet<(u32, Vec<u8>)>,
    /// What it says of every probed key: dirty or not.
    in_doubt: bool,
}

impl StandIn {
    async fn new(authority: &Endpoint, shadow: &Endpoint) -> Self {
        let mailbox = Mailbox::new(1024).unwrap();
        Self {
            client: LaneClient::new(InterlayName::new("orders").unwrap(), mailbox.clone()),
            mailbox,
            authority: RedisClient::connect(authority).await.unwrap(),
            shadow: RedisClient::connect(shadow).await.unwrap(),
            passes_done: vec![],
            named: HashSet::new(),
            in_doubt: false,
        }
    }

    /// Serves orders until `job` ends.
    async fn serve<T>(&mut self, job: impl Future<Output = T>) -> T {
        tokio::pin!(job);
        loop {
            tokio::select! {
                result = &mut job => {
                    self.step().await;
                    return result;
                }
                () = tokio::time::sleep(Duration::from_millis(1)) => self.step().await,
            }
        }
    }

    async fn step(&mut self) {
        while let Some(Directive::Companion { order: CompanionOrder::Lane(order), .. }) = self.mailbox.pop() {
            match order {
                LaneOrder::Copy { ticket, database, keys, .. } => {
                    let event = self.copy(ticket, database, keys).await;
                    self.client.on_event(&event);
                }
                LaneOrder::Probe { ticket, database, commands, .. } => {
                    let requests: Vec<u8> = commands.concat();
                    let (mut authority, mut shadow) = (vec![], vec![]);
                    for (client, out) in [(&mut self.authority, &mut authority), (&mut self.shadow, &mut shadow)] {
                        client.select(database).await.unwrap();
                        let replies = client.pipeline(&requests, commands.len()).await.unwrap();
                        out.extend(replies.iter().map(|reply| frame(reply).into_boxed_slice()));
                    }
                    let doubtful = vec![self.in_doubt; authority.len()];
                    self.client.on_event(&LaneEvent::Probed { ticket, authority, shadow, doubtful });
                }
                LaneOrder::PassDone { pass } => self.passes_done.push(pass),
                LaneOrder::Open
                | LaneOrder::Close
                | LaneOrder::Repair { .. }
                | LaneOrder::Fence { .. }
                | LaneOrder::Release { .. } => {
                    unreachable!()
                }
            }
        }
    }

    async fn copy(&mut self, ticket: u64, database: u32, keys: Vec<Box<[u8]>>) -> LaneEvent {
        self.authority.select(database).await.unwrap();
        self.shadow.select(database).await.unwrap();
        let (mut copied, mut absent, mut bytes) = (0, 0, 0);
        for key in keys {
            self.named.insert((database, key.to_vec()));
            let deadline = self.authority.call(&[b"PEXPIRETIME", &key]).await.unwrap().integer().unwrap().max(0);
            match self.authority.call(&[b"DUMP", &key]).await.unwrap() {
                Value::Bulk(payload) => {
                    let deadline = deadline.to_string();
                    let args: [&[u8]; 6] = [b"RESTORE", &key, deadline.as_bytes(), &payload, b"REPLACE", b"ABSTTL"];
                    self.shadow.must(&args).await.unwrap();
                    copied += 1;
                    bytes += payload.len() as u64;
                }
                _ => {
                    self.shadow.must(&[b"DEL", &key]).await.unwrap();
                    absent += 1;
                }
            }
        }
        LaneEvent::Copied { ticket, copied, absent, clean: 0, failed: 0, bytes }
    }
}

/// RESP2, the types RESP2 has.
fn frame(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => b"$-1\r\n".to_vec(),
        Value::Integer(n) => format!(":{n}\r\n").into_bytes(),
        Value::Simple(text) => [b"+", text.as_slice(), b"\r\n"].concat(),
        Value::Error(text) => [b"-", text.as_slice(), b"\r\n"].concat(),
        other => match (other.items(), other.bytes()) {
            (Some(items), _) => {
                let body: Vec<Vec<u8>> = items.iter().map(frame).collect();
                [format!("*{}\r\n", items.len()).into_bytes(), body.concat()].concat()
            }
            (None, Some(bytes)) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
            (None, None) => unreachable!(),
        },
    }
}

fn backfill_spec(authority: &Endpoint, shadow: &Endpoint) -> BackfillSpec {
    BackfillSpec { authority: authority.clone(), shadow: shadow.clone(), pass: 7, kind: PassKind::Full }
}

#[test]
fn backfill_names_every_key_of_both_sides_and_the_digests_agree() {
    let (a, b) = (Server::start("fill-a", &[]), Server::start("fill-b", &[]));
    let (source, target) = (a.endpoint("source"), b.endpoint("target"));
    block_on(async {
        let mut lane = StandIn::new(&source, &target).await;
        let mut requests = vec![];
        for n in 0..3000 {
            requests.extend(encode_request(&[b"SET", format!("key:{n}").as_bytes(), b"v"]));
        }
        lane.authority.pipeline(&requests, 3000).await.unwrap();
        run(&mut lane.authority, EVERY_TYPE).await;
        run(&mut lane.authority, &["SET __crossfade:reserved 1"]).await;
        run(&mut lane.shadow, &["SET only-on-target x", "SET string stale"]).await;
        assert!(!compare_servers(&source, &target, 2000).await.unwrap().is_empty());

        let progress = Arc::new(Progress::default());
        let job = backfill(backfill_spec(&source, &target), lane.client.clone(), Arc::clone(&progress));
        let copied = lane.serve(job).await.unwrap();
        assert_eq!(lane.passes_done, [7]);
        assert_eq!(copied.absent, 1, "the key only the target had");
        assert_eq!(lane.named.len(), 3000 + 9 + 1);
        assert_eq!((progress.done(), progress.total()), (copied.keys(), copied.keys()));

        assert_eq!(compare_servers(&source, &target, 2000).await.unwrap(), vec![]);
        let (first, second) = (digest_server(&source).await.unwrap(), digest_server(&target).await.unwrap());
        assert_eq!(first, second);
        assert_eq!((first.keys, first.volatile), (3009, 1));
        assert_eq!(first.types.iter().map(|count| count.keys).sum::<u64>(), 3009);
    });
}

#[test]
fn verification_and_digest_name_exactly_what_was_corrupted() {
    let (a, b) = (Server::start("verify-a", &[]), Server::start("verify-b", &[]));
    let (source, target) = (a.endpoint("source"), b.endpoint("target"));
    block_on(async {
        let mut lane = StandIn::new(&source, &target).await;
        run(&mut lane.authority, EVERY_TYPE).await;
        let job = backfill(backfill_spec(&source, &target), lane.client.clone(), Arc::default());
        lane.serve(job).await.unwrap();
        let spec = SidesSpec {
            authority: source.clone(),
            shadow: target.clone(),
            compare: VerifySpec { ttl_tolerance_ms: 2000, sample_per_ten_thousand: 10_000 },
            excluded: Rc::default(),
        };
        let clean = lane.serve(verify(spec.clone(), Prober::Lane(lane.client.clone()), Arc::default())).await.unwrap();
        assert_eq!((clean.keys, clean.inconclusive, clean.divergent), (9, 0, vec![]));

        let corruptions: &[(&str, &str, &str)] = &[
            ("SET string other", "string", "value"),
            ("PERSIST string:ttl", "string:ttl", "ttl"),
            ("LSET list 1 x", "list", "value"),
            ("SREM set b", "set", "value"),
            ("DEL intset", "intset", "missing"),
            ("HSET hash g x", "hash", "value"),
            ("ZADD zset 3.15 a", "zset", "value"),
            ("XACK stream readers 1-1", "stream", "value"),
            ("SET surplus x", "surplus", "extra"),
        ];
        for (command, ..) in corruptions {
            run(&mut lane.shadow, &["SELECT 0", command]).await;
        }
        let mut expected: Vec<_> = corruptions.iter().map(|(_, key, class)| ((*key).to_owned(), *class)).collect();
        expected.sort();
        let verified =
            lane.serve(verify(spec.clone(), Prober::Lane(lane.client.clone()), Arc::default())).await.unwrap();
        let compared = compare_servers(&source, &target, 2000).await.unwrap();
        for found in [verified.divergent, compared] {
            let mut named: Vec<_> = found.iter().map(|d| (d.key.escape_ascii().to_string(), d.class)).collect();
            named.sort();
            assert_eq!(named, expected, "{found:?}");
            assert!(found[0].source.starts_with("source: ") && found[0].target.starts_with("target: "));
        }

        // A key that differs while the lane knows it to be dirty is looked at again.
        lane.in_doubt = true;
        let job = backfill(backfill_spec(&source, &target), lane.client.clone(), Arc::default());
        lane.serve(job).await.unwrap();
        run(&mut lane.shadow, &["SELECT 0", "SET string other"]).await;
        let mut fixer = RedisClient::connect(&target).await.unwrap();
        let progress = Arc::new(Progress::default());
        let fixed = async {
            // Every key but the suspect is settled.
            while progress.done() < 8 {
                tokio::task::yield_now().await;
            }
            run(&mut fixer, &["SET string value"]).await;
            std::future::pending::<()>().await;
        };
        let job = verify(spec, Prober::Lane(lane.client.clone()), Arc::clone(&progress));
        let verified = lane.serve(async {
            tokio::select! { result = job => result, () = fixed => unreachable!() }
        });
        let verified = verified.await.unwrap();
        assert_eq!((verified.settled_later, verified.divergent, verified.keys), (1, vec![], 9));
    });
}

#[test]
fn a_scan_goes_on_when_its_connection_is_killed_and_starts_over_when_the_server_was() {
    let a = Server::start("scan-a", &[]);
    let source = a.endpoint("source");
    block_on(async {
        let mut client = RedisClient::connect(&source).await.unwrap();
        let mut requests = vec![];
        for n in 0..2000 {
            requests.extend(encode_request(&[b"SET", format!("key:{n}").as_bytes(), b"v"]));
        }
        client.pipeline(&requests, 2000).await.unwrap();
        let mut scan = super::names::NameScan::begin(&source, 100).await.unwrap();
        let mut seen = HashSet::new();
        while let Some(batch) = scan.next_batch().await.unwrap() {
            seen.extend(batch.keys);
            run(&mut client, &["CLIENT KILL TYPE normal SKIPME yes"]).await;
        }
        assert_eq!(seen.len(), 2000);
    });
}

#[test]
fn a_job_whose_lane_does_not_answer_ends_when_it_is_cancelled() {
    let (a, b) = (Server::start("cancel-a", &[]), Server::start("cancel-b", &[]));
    let (source, target) = (a.endpoint("source"), b.endpoint("target"));
    block_on(async {
        let mut client = RedisClient::connect(&source).await.unwrap();
        run(&mut client, &["SET k v"]).await;
        let mailbox = Mailbox::new(8).unwrap();
        let lane = LaneClient::new(InterlayName::new("orders").unwrap(), mailbox.clone());
        let progress = Arc::new(Progress::default());
        let job = backfill(backfill_spec(&source, &target), lane, Arc::clone(&progress));
        let (outcome, ()) = tokio::join!(job, async {
            // The order is out: the job now waits for an answer that will not come.
            while mailbox.is_empty() {
                tokio::task::yield_now().await;
            }
            progress.cancel();
        });
        assert_eq!(outcome, Err(JobError::Cancelled));
    });
}

#[test]
fn a_server_is_described_and_smoke_tested_without_a_trace() {
    let (a, b) = (Server::start("check-a", &[]), Server::start("check-b", &["--maxmemory", "1mb"]));
    let (source, target) = (a.endpoint("source"), b.endpoint("target"));
    block_on(async {
        let facts = check_endpoint(&source).await.unwrap();
        assert_eq!((facts.server.as_str(), facts.role.as_str()), ("redis", "master"));
        assert!(facts.commands.contains(&"xautoclaim".to_owned()) && facts.clock_skew_ms.abs() < 1000, "{facts:?}");
        let names: Vec<String> =
            compatibility(&source, &target, WriteProbe::Allowed).await.unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["target-memory-too-small", "restore-refused-by-target", "target-refuses-writes"]);
        let same = compatibility(&source, &source, WriteProbe::Allowed).await.unwrap();
        assert!(same.iter().any(|finding| finding.name == "same-server"));
        for (name, outcome) in smoke(&source).await.unwrap() {
            assert_eq!(outcome, Ok(()), "{name}");
        }
        assert_eq!(check_endpoint(&source).await.unwrap().databases, vec![]);
        assert_eq!(check_endpoint(&target).await.unwrap().databases, vec![]);
    });
}

#[test]
fn an_unreachable_or_locked_server_is_named_and_the_password_is_not() {
    let locked = Server::start("locked", &["--requirepass", "hunter2"]);
    block_on(async {
        let open = locked.endpoint("prod");
        let wrong = Endpoint {
            credentials: Some(Credentials { user: None, password: Secret::new(b"hunter3") }),
            ..open.clone()
        };
        let gone = endpoint("prod", Path::new("/nonexistent/redis.sock"));
        for (endpoint, expected) in [(&open, "url"), (&wrong, "login refused"), (&gone, "cannot connect")] {
            let error = check_endpoint(endpoint).await.unwrap_err().to_string();
            assert!(error.contains("prod") && error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        let right = Endpoint {
            credentials: Some(Credentials { user: None, password: Secret::new(b"hunter2") }),
            ..open.clone()
        };
        assert!(check_endpoint(&right).await.is_ok());
        assert_eq!(decode(b"", 1), Ok(None));
    });
}
