//! Drop-in: real clients cannot tell the proxy from the server.

use std::process::{Command, Stdio};
use std::time::Duration;

use crossfade_loadtest::certificates::Certificates;
use crossfade_loadtest::crossfade::{Crossfade, INTERLAY};
use crossfade_loadtest::process::{TempDir, die_with_parent};
use crossfade_loadtest::server::{Kind, RealServer, repository, run};
use crossfade_loadtest::skip;

fn in_front() -> (Crossfade, RealServer) {
    let server = RealServer::start(Kind::Redis);
    (Crossfade::start(&server.url(), None), server)
}

fn benchmark(extra: &[&str]) {
    let (proxy, _server) = in_front();
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &proxy.port.to_string(), "-q", "-n", "4000", "-c", "50"]).args(extra);
    die_with_parent(&mut command);
    let output = command.stdin(Stdio::null()).output().expect("redis-benchmark: run scripts/install-test-servers.sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{}", proxy.log_tail(10));
    let complaint = text.split(['\n', '\r']).find(|line| line.contains("Error") || line.contains("ERR"));
    assert_eq!(complaint, None);
    // The whole default suite: PING_INLINE to MSET.
    let results = text.split(['\n', '\r']).filter(|line| line.contains("requests per second")).count();
    assert!(results >= 18, "{results} results: {text}");
}

#[test]
fn redis_benchmark_whole_suite() {
    benchmark(&[]);
}

#[test]
fn redis_benchmark_whole_suite_pipelined() {
    benchmark(&["-P", "16"]);
}

#[test]
fn redis_benchmark_whole_suite_resp3() {
    benchmark(&["-3"]);
}

fn redis_cli(port: u16, args: &[&str], input: Option<&str>) -> String {
    use std::io::Write;
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(args);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    die_with_parent(&mut command);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("redis-cli");
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).expect("redis-cli reads");
    }
    String::from_utf8_lossy(&child.wait_with_output().expect("redis-cli ends").stdout).trim_end().to_owned()
}

#[test]
fn redis_cli_says_the_same_through_the_proxy_as_directly() {
    let (proxy, server) = in_front();
    let lines: &[&[&str]] = &[
        &["SET", "k", "v"],
        &["GET", "k"],
        &["GET", "nothing"],
        &["INCR", "k"],
        &["LPUSH", "l", "a", "b"],
        &["LRANGE", "l", "0", "-1"],
        &["HSET", "h", "f", "v"],
        &["HGETALL", "h"],
        &["-3", "HGETALL", "h"],
        &["-n", "3", "SET", "k", "in-3"],
        &["-n", "3", "GET", "k"],
        &["TYPE", "l"],
        &["NOSUCH", "command"],
        &["SET", "k"],
        &["EVAL", "return {1, 'two', KEYS[1]}", "1", "k"],
        &["DBSIZE"],
        &["OBJECT", "ENCODING", "l"],
        &["--no-raw", "ZRANGE", "none", "0", "-1"],
    ];
    let fresh = || {
        redis_cli(server.port, &["FLUSHALL"], None);
        redis_cli(server.port, &["SET", "k", "7"], None);
        redis_cli(server.port, &["RPUSH", "l", "x"], None);
        redis_cli(server.port, &["HSET", "h", "f", "w"], None);
    };
    for line in lines {
        let [through, direct] = [proxy.port, server.port].map(|port| {
            fresh();
            redis_cli(port, line, None)
        });
        assert_eq!(through, direct, "{line:?}");
    }
    // As a person would use redis-cli: one connection, a transaction, another database.
    let session = "SET a 1\nMULTI\nINCR a\nGET a\nEXEC\nSELECT 2\nSET b 2\nDBSIZE\nCLIENT SETNAME me\nCLIENT GETNAME\n";
    let [through, direct] = [proxy.port, server.port].map(|port| {
        redis_cli(server.port, &["FLUSHALL"], None);
        redis_cli(port, &[], Some(session))
    });
    assert_eq!(through, direct);
}

#[test]
fn redis_py_features_work() {
    let library = repository().join(".tools/py");
    if !library.join("redis").is_dir() {
        skip!("redis-py is not in .tools/py: run scripts/install-test-servers.sh");
    }
    let (proxy, _server) = in_front();
    let script = repository().join("loadtest/tests/clients/redis_py.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(proxy.port.to_string()).env("PYTHONPATH", library);
    die_with_parent(&mut command);
    let output = command.stdin(Stdio::null()).output().expect("python3");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all passed"), "{text}\n{}", proxy.log_tail(10));
}

#[test]
fn the_rust_client_pipelines_transacts_and_subscribes() {
    let (proxy, _server) = in_front();
    let mut connection = proxy.connection();
    let (a, b): (i64, String) =
        redis::pipe().cmd("INCR").arg("n").cmd("SET").arg("k").arg("v").query(&mut connection).unwrap();
    assert_eq!((a, b.as_str()), (1, "OK"));
    let (sum,): (i64,) = redis::transaction(&mut connection, &["n"], |connection, pipe| {
        let n: i64 = redis::cmd("GET").arg("n").query(connection)?;
        pipe.cmd("SET").arg("n").arg(n + 41).ignore().cmd("GET").arg("n").query(connection)
    })
    .unwrap();
    assert_eq!(sum, 42);

    let mut listening = proxy.connection();
    listening.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut subscription = listening.as_pubsub();
    subscription.subscribe("news").unwrap();
    subscription.psubscribe("n*").unwrap();
    let heard: i64 = redis::cmd("PUBLISH").arg("news").arg("hello").query(&mut connection).unwrap();
    assert_eq!(heard, 2);
    for _ in 0..2 {
        let message = subscription.get_message().unwrap();
        assert_eq!((message.get_channel_name(), message.get_payload::<String>().unwrap().as_str()), ("news", "hello"));
    }
}

#[test]
fn a_blocked_client_is_woken_by_another() {
    let (proxy, _server) = in_front();
    let port = proxy.port;
    let blocked = std::thread::spawn(move || {
        let mut connection = crossfade_loadtest::server::connect(port);
        redis::cmd("BLPOP").arg("jobs").arg(20).query::<(String, String)>(&mut connection)
    });
    let mut connection = proxy.connection();
    // The push may come before the other client blocks: both orders are right.
    let _: i64 = run(&mut connection, "RPUSH jobs one");
    assert_eq!(blocked.join().unwrap().unwrap(), ("jobs".to_owned(), "one".to_owned()));
    let nothing: Option<(String, String)> = redis::cmd("BLPOP").arg("jobs").arg("0.05").query(&mut connection).unwrap();
    assert_eq!(nothing, None);
}

#[test]
fn two_thousand_idle_connections_stay_open() {
    const COUNT: usize = 2_000;
    let limit = raise_open_files();
    if limit < 3 * COUNT as u64 {
        skip!("only {limit} open files are allowed here, {} needed", 3 * COUNT);
    }
    let (proxy, _server) = in_front();
    let mut idle: Vec<redis::Connection> = (0..COUNT).map(|_| proxy.connection()).collect();
    for (n, connection) in idle.iter_mut().enumerate() {
        assert_eq!(run::<String>(connection, &format!("SET idle:{n} {n}")), "OK");
    }
    // Other clients are served meanwhile, and every idle connection still works.
    assert_eq!(run::<usize>(&mut proxy.connection(), "DBSIZE"), COUNT);
    for (n, connection) in idle.iter_mut().enumerate() {
        assert_eq!(run::<usize>(connection, &format!("GET idle:{n}")), n);
    }
}

/// Lifts the soft limit of open files to the hard one, for this process and its children.
fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one rlimit that lives across them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
    }
    limit.rlim_cur
}

#[test]
fn sigterm_drains_and_ends_with_success() {
    let (mut proxy, _server) = in_front();
    let mut connection = proxy.connection();
    assert_eq!(run::<String>(&mut connection, "SET k v"), "OK");
    let status = proxy.terminate();
    assert!(status.success(), "{status}");
}

#[test]
fn clients_with_tls_and_without_it_on_one_interlay() {
    let server = RealServer::start(Kind::Redis);
    let directory = TempDir::make("proxy-tls");
    let made = Certificates::make(directory.path());
    let tls = format!(
        "[interlays.{INTERLAY}.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        made.proxy.display(),
        made.proxy_key.display()
    );
    let proxy = Crossfade::start_with(directory, &server.url(), None, &tls);
    let port = proxy.port.to_string();
    let ca = made.ca.display().to_string();
    let redis_cli = |more: &[&str]| {
        let args = [&["-h", "127.0.0.1", "-p", &port], more].concat();
        let output = Command::new("redis-cli").args(args).output().expect("redis-cli runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    };
    let value = "x".repeat(300_000);
    assert_eq!(redis_cli(&["--tls", "--cacert", &ca, "SET", "secret", "kept"]), "OK");
    assert_eq!(redis_cli(&["GET", "secret"]), "kept", "without TLS, as require is false");
    assert!(redis_cli(&["--tls", "--cacert", "/etc/ssl/certs/ca-certificates.crt", "PING"]).contains("verify failed"));
    let mut connection = proxy.connection();
    redis::cmd("SET").arg("large").arg(&value).exec(&mut connection).unwrap();
    assert_eq!(redis_cli(&["--tls", "--cacert", &ca, "GET", "large"]), value);
    assert_eq!(bytes_after_close(proxy.port, &made), 0, "the connection is closed");
    assert_eq!(redis_cli(&["GET", "secret"]), "kept", "and no other client is affected");
    let load =
        ["-q", "-n", "2000", "-t", "get,set", "-P", "16", "--tls", "--cacert", &ca, "-h", "127.0.0.1", "-p", &port];
    let output = Command::new("redis-benchmark").args(load).output().expect("redis-benchmark runs");
    assert!(output.status.success(), "{output:?}");
}

/// A client that closes its TLS session and keeps sending; returns how many bytes it receives after that.
fn bytes_after_close(port: u16, made: &Certificates) -> usize {
    use std::io::{Read, Write};
    let config = std::sync::Arc::new(crossfade_loadtest::pg_rust::trusting(Some(&made.ca)));
    let mut tls = rustls::ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tls.complete_io(&mut socket).expect("the handshake");
    tls.send_close_notify();
    let mut last = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut last).unwrap();
    }
    last.extend_from_slice(b"and one thing more");
    socket.write_all(&last).unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    while let Ok(1..) = tls.read_tls(&mut rest.as_slice()).map(|taken| rest.drain(..taken).count()) {}
    tls.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
}

/// 32 MB of replies exceed all buffers in between, so the proxy has to keep what the socket does not take, and continue from there.
#[test]
fn a_client_that_reads_late_gets_every_reply_in_order() {
    use std::io::{BufRead, BufReader, Read, Write};
    const VALUES: usize = 8;
    const REPLIES: usize = 512;
    const BYTES: usize = 64 * 1024;
    let (proxy, server) = in_front();
    for value in 0..VALUES {
        let bytes = vec![b'a' + value as u8; BYTES];
        let _: () = redis::cmd("SET").arg(value).arg(bytes).query(&mut server.connection()).expect("set");
    }
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", proxy.port)).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    for reply in 0..REPLIES {
        write!(stream, "*2\r\n$3\r\nGET\r\n$1\r\n{}\r\n", reply % VALUES).expect("small requests are taken");
    }
    // Other clients are served meanwhile.
    let length: usize = redis::cmd("STRLEN").arg(0).query(&mut proxy.connection()).expect("served");
    assert_eq!(length, BYTES);
    let mut reader = BufReader::new(stream);
    for reply in 0..REPLIES {
        let mut head = String::new();
        reader.read_line(&mut head).expect("a reply");
        assert_eq!(head, format!("${BYTES}\r\n"), "reply {reply}");
        let mut body = vec![0; BYTES + 2];
        reader.read_exact(&mut body).expect("all of it");
        assert!(body[..BYTES].iter().all(|byte| *byte == b'a' + (reply % VALUES) as u8), "reply {reply}");
    }
}
