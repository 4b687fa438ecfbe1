//! Following real servers: Redis on the path, and Valkey where `scripts/install-test-servers.sh` has put it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::timeout;

use super::client::RedisClient;
use super::follower::{FollowSpec, Following, Resumed, full_sync, prime, resume};
use super::position::Position;
use super::spill::SpillSpec;
use super::stream::{Item, StreamReader};
use base::model::{Address, ClientTls, Credentials, Endpoint, EndpointName, EndpointProtocol, Secret};
use wire::rdb::{Item as Snapshot, Sizes};
use wire::resp::args::Args;
use wire::resp::encode::request;

const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    child: Child,
    folder: PathBuf,
}

/// The binaries at hand, by the version they announce.
fn binaries() -> Vec<PathBuf> {
    let valkey = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/valkey-server");
    let mut found = vec![PathBuf::from("redis-server")];
    if valkey.exists() {
        found.push(valkey);
    } else {
        eprintln!("*** SKIPPED for Valkey: {} is not there (scripts/install-test-servers.sh)", valkey.display());
    }
    found
}

impl Server {
    fn start(binary: &Path, name: &str, extra: &[&str]) -> Self {
        let family = binary.file_name().and_then(|name| name.to_str()).unwrap_or("server");
        let folder = std::env::temp_dir().join(format!("crossfade-follow-{}-{name}-{family}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut command = Command::new(binary);
        command.args(["--port", "0", "--unixsocket", "s", "--save", "", "--appendonly", "no"]).args(extra);
        command.current_dir(&folder).stdout(Stdio::null());
        let child = command.spawn().expect("redis-server: run scripts/install-test-servers.sh");
        let server = Self { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(server.socket()).is_err() {
            assert!(Instant::now() < deadline, "the server did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("s")
    }

    fn spec(&self) -> FollowSpec {
        let endpoint = Endpoint {
            name: EndpointName::new("old").expect("a name"),
            protocol: EndpointProtocol::Redis { database: 0 },
            address: Address::Unix(self.socket()),
            credentials: None,
            tls: ClientTls::disabled(),
        };
        let spill = SpillSpec { memory_bytes_max: 64 * 1024, bytes_max: 1 << 30, folder: self.folder.clone() };
        FollowSpec { endpoint, version: "9.1.2".to_owned(), spill, sizes: Sizes::default() }
    }

    async fn client(&self) -> RedisClient {
        RedisClient::connect(&self.spec().endpoint).await.expect("the server answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a test against every server at hand.
fn with_each(name: &str, extra: &[&str], test: impl AsyncFn(&Server)) {
    for binary in binaries() {
        let server = Server::start(&binary, name, extra);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            timeout(PATIENCE, test(&server)).await.unwrap_or_else(|_| panic!("{} took too long", binary.display()));
        });
    }
}

async fn set(client: &mut RedisClient, keys: std::ops::Range<u32>) {
    let requests: Vec<u8> = keys
        .clone()
        .flat_map(|n| request(&[b"SET", format!("key:{n}").as_bytes(), n.to_string().as_bytes()]))
        .collect();
    client.pipeline(&requests, keys.len()).await.expect("the writes are taken");
}

/// Reads the stream until it has been given the key `end`; what was set, by database and key.
async fn read_until(
    following: &mut Following,
    reader: &mut StreamReader,
    end: &[u8],
) -> BTreeMap<(u32, Vec<u8>), Vec<u8>> {
    let mut seen = BTreeMap::new();
    loop {
        while let Some(item) = reader.next_item().expect("a stream") {
            let Item::Command { frame, database, .. } = item else { continue };
            let args: Vec<_> = Args::new(frame).collect();
            if args[0].eq_ignore_ascii_case(b"SET") {
                seen.insert((database, args[1].to_vec()), args[2].to_vec());
                if args[1] == end {
                    return seen;
                }
            }
        }
        following.feed(reader).await.expect("the stream goes on");
    }
}

#[test]
fn a_snapshot_and_the_stream_behind_it_hold_every_write_once() {
    for (name, diskless) in [("full", "yes"), ("full-file", "no")] {
        let extra = ["--repl-diskless-sync-delay", "0", "--repl-diskless-sync", diskless];
        with_each(name, &extra, async |server| {
            let sync = every_write_is_seen_once(server, &server.spec()).await;
            assert!(sync.waiting_bytes_max() > 64 * 1024, "the spill was used");
        });
    }
}

/// The stream then follows the snapshot on its connection, in either form of it.
#[test]
fn without_connections_for_a_snapshot_alone_one_connection_carries_both() {
    for (name, diskless) in [("single", "yes"), ("single-file", "no")] {
        let extra = ["--repl-diskless-sync-delay", "0", "--repl-diskless-sync", diskless];
        with_each(name, &extra, async |server| {
            let mut client = server.client().await;
            let rules =
                "ACL SETUSER follower on >secret ~* &* +@all -replconf +replconf|capa +replconf|version +replconf|ack";
            client.must(&rules.split(' ').map(str::as_bytes).collect::<Vec<_>>()).await.expect("a user");
            let mut spec = server.spec();
            let (user, password) = (Some("follower".to_owned()), Secret::new(b"secret"));
            spec.endpoint.credentials = Some(Credentials { user, password });
            let sync = full_sync(&spec).await.expect("a full synchronisation begins");
            assert!(sync.burdens_source(), "that is said");
            drop(sync);
            every_write_is_seen_once(server, &spec).await;
        });
    }
}

async fn every_write_is_seen_once(server: &Server, spec: &FollowSpec) -> Following {
    let mut client = server.client().await;
    set(&mut client, 0..5_000).await;
    client.must(&[b"SELECT", b"3"]).await.expect("SELECT");
    set(&mut client, 5_000..6_000).await;
    let mut sync = full_sync(spec).await.expect("a full synchronisation begins");
    // While the snapshot is taken in; more than the spill keeps in memory.
    set(&mut client, 6_000..12_000).await;
    client.must(&[b"SET", b"end", b""]).await.expect("SET");
    let mut seen = BTreeMap::new();
    let mut database = 0;
    while sync.history.more().await.expect("the snapshot arrives") {
        while let Some(item) = sync.history.item().expect("the snapshot is read") {
            match item {
                Snapshot::SelectDb(number) => database = number as u32,
                Snapshot::Record { head, .. } => {
                    assert_eq!(seen.insert((database, head.key.to_vec()), ()), None, "each key once");
                }
                _ => {}
            }
        }
    }
    let at = sync.history.at();
    let mut following = sync.into_following();
    let mut reader = StreamReader::new(at);
    let later = read_until(&mut following, &mut reader, b"end").await;
    for n in 0..12_000 {
        let key = (if n < 5_000 { 0 } else { 3 }, format!("key:{n}").into_bytes());
        assert!(seen.contains_key(&key) != later.contains_key(&key), "key:{n} is in one of them");
    }
    following
}

#[test]
fn a_stream_is_continued_where_it_was_left() {
    with_each("resume", &[], async |server| {
        let mut client = server.client().await;
        let mut following = prime(&server.spec()).await.expect("the stream is there without a snapshot");
        client.must(&[b"SELECT", b"5"]).await.expect("SELECT");
        set(&mut client, 0..100).await;
        let begin = Position { stream: following.stream(), offset: following.at(), database: 0 };
        let mut reader = StreamReader::new(begin);
        let first = read_until(&mut following, &mut reader, b"key:99").await;
        let left = reader.position();
        drop(following);
        set(&mut client, 100..200).await;
        let Resumed::Following(mut following) = resume(&server.spec(), &left).await.expect("it answers") else {
            panic!("the stream is still there");
        };
        let mut reader = StreamReader::new(left);
        let second = read_until(&mut following, &mut reader, b"key:199").await;
        assert_eq!((first.len(), second.len()), (100, 100));
        assert!(first.keys().chain(second.keys()).all(|(database, _)| *database == 5), "the database is remembered");
    });
}

#[test]
fn a_stream_that_is_no_longer_there_is_not_continued() {
    with_each("gone", &["--repl-backlog-size", "16kb"], async |server| {
        let following = prime(&server.spec()).await.expect("the stream");
        let begin = Position { stream: following.stream(), offset: following.at(), database: 0 };
        drop(following);
        let mut client = server.client().await;
        for round in 0..10 {
            set(&mut client, round * 5_000..(round + 1) * 5_000).await;
        }
        assert!(matches!(resume(&server.spec(), &begin).await.expect("it answers"), Resumed::Gone));
    });
}

#[test]
fn what_is_acknowledged_is_what_the_source_knows() {
    with_each("ack", &[], async |server| {
        let mut client = server.client().await;
        let mut following = prime(&server.spec()).await.expect("the stream");
        let begin = Position { stream: following.stream(), offset: following.at(), database: 0 };
        set(&mut client, 0..1).await;
        let mut reader = StreamReader::new(begin);
        read_until(&mut following, &mut reader, b"key:0").await;
        let none = client.must(&[b"WAIT", b"1", b"100"]).await.expect("WAIT");
        assert_eq!(none.integer(), Some(0), "received is not acknowledged");
        following.acknowledge_now(reader.position().offset);
        let one = client.must(&[b"WAIT", b"1", b"20000"]).await.expect("WAIT");
        assert_eq!(one.integer(), Some(1));
    });
}

#[test]
fn a_lost_source_is_told_after_what_had_arrived() {
    with_each("lost", &[], async |server| {
        let mut client = server.client().await;
        let mut following = prime(&server.spec()).await.expect("the stream");
        let begin = Position { stream: following.stream(), offset: following.at(), database: 0 };
        set(&mut client, 0..10).await;
        let mut reader = StreamReader::new(begin);
        read_until(&mut following, &mut reader, b"key:9").await;
        let _ = client.call(&[b"CLIENT", b"KILL", b"TYPE", b"replica"]).await;
        let error = loop {
            if let Err(error) = following.feed(&mut reader).await {
                break error;
            }
        };
        assert!(error.to_string().contains("endpoint old"), "{error}");
    });
}
