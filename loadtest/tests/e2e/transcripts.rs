//! The same dialogues directly with a server and through Crossfade give the same bytes: with connections that are shared and with one for each client, and
//! while a replication feed keeps two servers in step.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crossfade_loadtest::crossfade::{Crossfade, INTERLAY};
use crossfade_loadtest::process::TempDir;
use crossfade_loadtest::rig::{MIGRATION, REPLICATION, Rig};
use crossfade_loadtest::server::{Kind, RealServer, run, try_connect, try_run};
use crossfade_loadtest::wait::until;

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing more may come.
const QUIET: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Step {
    /// Commands of one client, by its number.
    Say(u8, &'static [&'static str]),
    Raw(u8, &'static [u8]),
    /// So many replies and pushes, and no more.
    Get(u8, usize),
    /// Whatever comes until the server closes.
    End(u8),
    /// The client sends no more.
    Shut(u8),
    Close(u8),
    /// For what has no reply: the server has seen it when it says so of its clients.
    Until(&'static str),
    /// The server answers BUSY: a script has run for longer than it should.
    Busy,
}

use Step::{Busy, Close, End, Get, Raw, Say, Shut, Until};

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

/// How long the reply or push is that these bytes begin with; `None`: it is not whole.
fn reply_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    let elements = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let len = usize::try_from(number()?).map_or(line, |len| line + len + 2);
            return (bytes.len() >= len).then_some(len);
        }
        b'*' | b'~' | b'>' => number()?,
        b'%' => number()? * 2,
        _ => 0,
    };
    (0..elements).try_fold(line, |at, _| Some(at + reply_len(bytes.get(at..)?.get(..)?)?))
}

struct Dialogue<'a> {
    port: u16,
    server: &'a RealServer,
    streams: Vec<(u8, TcpStream, Vec<u8>)>,
}

impl Dialogue<'_> {
    fn stream(&mut self, client: u8) -> &mut (u8, TcpStream, Vec<u8>) {
        let at = self.streams.iter().position(|(known, ..)| *known == client).unwrap_or_else(|| {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
            stream.set_nodelay(true).expect("a socket");
            self.streams.push((client, stream, Vec::new()));
            self.streams.len() - 1
        });
        &mut self.streams[at]
    }

    /// What came, as text.
    fn step(&mut self, step: &Step) -> String {
        match step {
            Say(client, lines) => {
                let words = |line: &&str| request(&line.split(' ').collect::<Vec<_>>());
                let bytes: Vec<u8> = lines.iter().flat_map(words).collect();
                // It may have been closed already: what comes of it tells.
                let _ = self.stream(*client).1.write_all(&bytes);
                String::new()
            }
            Raw(client, bytes) => {
                let _ = self.stream(*client).1.write_all(bytes);
                String::new()
            }
            Get(client, count) => self.replies(*client, *count),
            End(client) => {
                let (_, stream, mut all) = self.take(*client);
                let mut stream = stream;
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                let ended = stream.read_to_end(&mut all).is_ok();
                format!("{}{}", text(&all), if ended { "<end>" } else { "<goes on>" })
            }
            Shut(client) => {
                self.stream(*client).1.shutdown(Shutdown::Write).expect("a socket");
                String::new()
            }
            Close(client) => {
                drop(self.take(*client));
                String::new()
            }
            Busy => {
                let asked = || try_run::<Option<String>>(&mut try_connect(self.server.port)?, "GET x");
                until("BUSY", PATIENCE, || match asked() {
                    Err(error) if error.to_string().to_lowercase().contains("busy") => Ok(()),
                    other => Err(format!("{other:?}")),
                });
                String::new()
            }
            Until(words) => {
                let mut client = self.server.connection();
                until(words, PATIENCE, || {
                    let list: String = run(&mut client, "CLIENT LIST");
                    let negated = words.strip_prefix("no ");
                    let found = list.contains(negated.unwrap_or(words));
                    if found == negated.is_none() { Ok(()) } else { Err(list) }
                });
                String::new()
            }
        }
    }

    fn take(&mut self, client: u8) -> (u8, TcpStream, Vec<u8>) {
        self.stream(client);
        let at = self.streams.iter().position(|(known, ..)| *known == client).expect("it is there");
        self.streams.swap_remove(at)
    }

    fn replies(&mut self, client: u8, count: usize) -> String {
        let (_, stream, pending) = self.stream(client);
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (mut at, mut got) = (0, 0);
        let mut chunk = [0; 64 * 1024];
        let mut why = "";
        while got < count && why.is_empty() {
            if let Some(len) = reply_len(&pending[at..]) {
                (at, got) = (at + len, got + 1);
                continue;
            }
            match stream.read(&mut chunk) {
                Ok(0) => why = "<end>",
                Ok(read) => pending.extend_from_slice(&chunk[..read]),
                Err(_) => why = "<nothing comes>",
            }
        }
        if why.is_empty() {
            stream.set_read_timeout(Some(QUIET)).expect("a socket");
            if let Ok(more @ 1..) = stream.read(&mut chunk) {
                pending.extend_from_slice(&chunk[..more]);
                at = pending.len();
            }
        }
        let seen = text(&pending[..at]);
        pending.drain(..at);
        format!("{seen}{why}")
    }
}

/// Numbers of connections are not compared. Bytes that are no text are shown by number, so that they are.
fn text(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string().replace("\\r\\n", "\r\n");
    let Some((before, rest)) = text.split_once("id\r\n:") else { return text };
    let number = rest.find('\r').unwrap_or(rest.len());
    format!("{before}id\r\n:N{}", &rest[number..])
}

fn transcript(port: u16, server: &RealServer, steps: &[Step]) -> Vec<String> {
    let mut clean = server.connection();
    for line in ["FLUSHALL", "SCRIPT FLUSH", "CONFIG SET busy-reply-threshold 200"] {
        run::<()>(&mut clean, line);
    }
    let mut dialogue = Dialogue { port, server, streams: Vec::new() };
    steps.iter().map(|step| dialogue.step(step)).collect()
}

const LOOP: &[u8] = b"*3\r\n$4\r\nEVAL\r\n$35\r\nlocal i=0 while true do i=i+1 end  \r\n$1\r\n0\r\n";

/// Each with what it is about.
fn dialogues() -> Vec<(&'static str, Vec<Step>)> {
    let mut all = vec![
        (
            "a block takes the session along",
            vec![Say(0, &["MULTI", "SELECT 5", "SET k v", "EXEC", "GET k", "SELECT 0", "GET k"]), Get(0, 7)],
        ),
        (
            "a block names its client",
            vec![Say(0, &["MULTI", "CLIENT SETNAME x", "CLIENT GETNAME", "EXEC", "CLIENT GETNAME"]), Get(0, 5)],
        ),
        ("a block changes the protocol", vec![Say(0, &["MULTI", "HELLO 3", "GET x", "EXEC", "GET x"]), Get(0, 5)]),
        (
            "a block subscribes",
            vec![Say(0, &["MULTI", "SUBSCRIBE c", "PING", "EXEC"]), Get(0, 4), Say(0, &["PING", "GET x"]), Get(0, 2)],
        ),
        ("a block with a refused log-in", vec![Say(0, &["MULTI", "AUTH x", "EXEC", "GET x"]), Get(0, 4)]),
        ("a block with an error", vec![Say(0, &["MULTI", "SET", "SELECT x", "EXEC", "GET x"]), Get(0, 5)]),
        ("a nested block", vec![Say(0, &["MULTI", "MULTI", "SELECT 1", "SET k v", "EXEC", "GET k"]), Get(0, 6)]),
        ("unsubscribe from nothing", vec![Say(0, &["UNSUBSCRIBE", "SET a 1", "MULTI", "SET b 1", "EXEC"]), Get(0, 5)]),
        (
            "subscribe and go on",
            vec![
                Say(0, &["SUBSCRIBE c d", "UNSUBSCRIBE", "SET a 1", "MULTI", "SET b 1", "EXEC", "SELECT 3", "GET a"]),
                Get(0, 10),
            ],
        ),
        (
            "what RESP2 takes from a subscriber",
            vec![
                Say(0, &["SUBSCRIBE c"]),
                Get(0, 1),
                Say(
                    0,
                    &[
                        "PING",
                        "PING x",
                        "GET a",
                        "SELECT 1",
                        "MULTI",
                        "CLIENT ID",
                        "PSUBSCRIBE p*",
                        "UNSUBSCRIBE c",
                        "GET a",
                    ],
                ),
                Get(0, 9),
                Say(0, &["RESET", "GET a"]),
                Get(0, 2),
            ],
        ),
        (
            "RESP3 takes everything from a subscriber",
            vec![
                Say(
                    0,
                    &[
                        "HELLO 3",
                        "SUBSCRIBE c",
                        "SET a 1",
                        "MULTI",
                        "INCR a",
                        "EXEC",
                        "SELECT 2",
                        "GET a",
                        "PUBLISH c x",
                        "CLIENT SETNAME z",
                        "CLIENT GETNAME",
                    ],
                ),
                Get(0, 12),
                Say(0, &["UNSUBSCRIBE", "GET a"]),
                Get(0, 2),
            ],
        ),
        (
            "one client publishes, another hears",
            vec![
                Say(0, &["SUBSCRIBE c"]),
                Get(0, 1),
                Say(1, &["PUBLISH c one", "PUBLISH c two", "PUBLISH d x"]),
                Get(1, 3),
                Get(0, 2),
            ],
        ),
        ("a browser", vec![Raw(0, b"POST / HTTP/1.1\r\nSET a b\r\n\r\n"), End(0), Say(1, &["GET a"]), Get(1, 1)]),
        ("a browser that asks", vec![Raw(0, b"Host: x\r\nSET a b\r\n\r\n"), End(0), Say(1, &["GET a"]), Get(1, 1)]),
        ("a half-closed client gets its replies", vec![Say(0, &["INCR a"; 200]), Shut(0), End(0)]),
        (
            "and what half a frame began is forgotten",
            vec![
                Say(0, &["MULTI", "INCR a", "EXEC"]),
                Raw(0, b"*1\r\n$4\r\nPI"),
                Shut(0),
                End(0),
                Say(1, &["GET a"]),
                Get(1, 1),
            ],
        ),
        (
            "an element does not go to a client that has gone",
            vec![
                Say(0, &["BLPOP q 0", "PING"]),
                Until("cmd=blpop"),
                Close(0),
                Until("no cmd=blpop"),
                Say(1, &["RPUSH q job", "LRANGE q 0 -1"]),
                Get(1, 2),
            ],
        ),
        (
            "reads go on while writes are paused",
            vec![
                Say(0, &["CLIENT PAUSE 3000 WRITE"]),
                Get(0, 1),
                Say(0, &["SET a 1"]),
                Until("cmd=set"),
                Say(1, &["GET a"]),
                Get(1, 1),
                Say(1, &["CLIENT UNPAUSE"]),
                Get(1, 1),
                Get(0, 1),
            ],
        ),
        (
            "a script that runs for ever is killed by another client",
            vec![
                Say(0, &["SET a 1"]),
                Get(0, 1),
                Raw(0, LOOP),
                Busy,
                Say(1, &["GET a"]),
                Get(1, 1),
                Say(2, &["SCRIPT KILL"]),
                Get(2, 1),
                Get(0, 1),
            ],
        ),
        (
            "and by one that has chosen a database",
            vec![
                Say(0, &["SET a 1"]),
                Get(0, 1),
                Say(2, &["SELECT 9"]),
                Get(2, 1),
                Raw(0, LOOP),
                Busy,
                Say(2, &["SCRIPT KILL"]),
                Get(2, 1),
                Get(0, 1),
                Say(2, &["SET a 2", "FUNCTION STATS", "SELECT 0", "GET a"]),
                Get(2, 4),
            ],
        ),
        (
            "what is no request",
            vec![
                Raw(0, b"*1\r\nfoo\r\n"),
                End(0),
                Raw(1, b"*2\r\n$3\r\nGET\r\n:1\r\n"),
                End(1),
                Raw(2, b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n"),
                End(2),
                Raw(3, b"*1\r\n\xe9x\r\n"),
                End(3),
            ],
        ),
        (
            "a client's caching",
            vec![
                Say(0, &["HELLO 3", "CLIENT TRACKING ON", "GET a"]),
                Get(0, 3),
                Say(1, &["SET a 1"]),
                Get(1, 1),
                Get(0, 1),
                Say(0, &["CLIENT TRACKINGINFO", "CLIENT TRACKING OFF", "GET a"]),
                Get(0, 3),
            ],
        ),
        (
            "replies that are not wanted",
            vec![
                Say(0, &["CLIENT REPLY OFF", "SET a 1", "CLIENT REPLY SKIP", "SET b 1", "CLIENT REPLY ON", "GET a"]),
                Get(0, 2),
            ],
        ),
        (
            "the end and what follows it",
            vec![Say(0, &["SET a 1", "QUIT", "SET b 1"]), End(0), Say(1, &["GET b"]), Get(1, 1)],
        ),
        ("a reset in a block", vec![Say(0, &["SELECT 3", "MULTI", "RESET", "PING", "GET a"]), Get(0, 5)]),
        ("waits for no replica", vec![Say(0, &["SET a 1", "WAIT 0 10", "CLIENT NO-EVICT ON"]), Get(0, 3)]),
    ];
    for between in
        ["CLIENT GETNAME", "SELECT 0", "SELECT 3", "GETT x", "SET", "CLIENT NOPE", "HELLO 2", "PING", "EXEC", "DISCARD"]
    {
        let between: &'static [&'static str] = Vec::leak(vec![between]);
        all.push((
            "a watch and what comes behind it",
            vec![
                Say(0, &["WATCH k"]),
                Get(0, 1),
                Say(0, between),
                Get(0, 1),
                Say(1, &["SET k other"]),
                Get(1, 1),
                Say(0, &["MULTI", "SET z 1", "EXEC"]),
                Get(0, 3),
            ],
        ));
    }
    all
}

fn compare(port: u16, server: &RealServer, how: &str) {
    let different: Vec<String> = dialogues()
        .iter()
        .filter_map(|(what, steps)| {
            let direct = transcript(server.port, server, steps);
            let through = transcript(port, server, steps);
            (direct != through)
                .then(|| format!("{what} {:?}:\n direct  {direct:?}\n through {through:?}", steps.first()))
        })
        .collect();
    assert!(different.is_empty(), "{how}:\n{}", different.join("\n"));
}

fn server() -> RealServer {
    RealServer::start_with(Kind::Redis, &["--appendonly", "no", "--repl-diskless-sync-delay", "0"])
}

#[test]
fn clients_cannot_tell_whether_they_share_connections() {
    for sharing in ["auto", "never"] {
        let server = server();
        let line = format!("sharing = \"{sharing}\"\n[cores]\ncount = 1\n");
        let proxy = Crossfade::start_with(TempDir::make("proxy"), &server.url(), None, &line);
        compare(proxy.port, &server, sharing);
    }
}

#[test]
fn clients_cannot_tell_that_a_feed_follows() {
    let rig = Rig { feed: REPLICATION, ..Rig::of(server(), server()) };
    let who = ["migration", "create", "--id", MIGRATION, "--interlay", INTERLAY, "--feed", REPLICATION];
    rig.proxy.must(&[&who[..], &["--analyze-min-commands", "0", "--analyze-min-seconds", "0"]].concat());
    rig.advance_to("compare");
    rig.drained();
    compare(rig.proxy.port, &rig.source, "beside a feed");
}

/// A client that connects after a log-in has become necessary is no longer let in on a connection that was made before.
#[test]
fn a_stranger_is_let_in_only_while_the_server_lets_it_in() {
    let server = server();
    // On one core: another learns of it a moment later.
    let proxy = Crossfade::start_with(TempDir::make("proxy"), &server.url(), None, "[cores]\ncount = 1\n");
    let set = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(&request(&["SET", "a", "1"])).expect("sent");
        let mut reply = [0; 64];
        let read = stream.read(&mut reply).expect("a reply");
        String::from_utf8_lossy(&reply[..read]).into_owned()
    };
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port)).expect("connected");
    let mut known = connect();
    assert_eq!(set(&mut known), "+OK\r\n");
    let mut owner = proxy.connection();
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "x"]).exec(&mut owner).expect("through Crossfade");
    assert_eq!(set(&mut connect()), "-NOAUTH Authentication required.\r\n");
    assert_eq!(set(&mut known), "+OK\r\n", "as on the server, it was let in before");
    redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec(&mut owner).expect("through Crossfade");
    assert_eq!(set(&mut connect()), "+OK\r\n");
}

/// As directly: it does not go on under another number.
#[test]
fn a_client_with_a_number_ends_with_its_connection() {
    for sharing in ["auto", "never"] {
        let server = server();
        let line = format!("sharing = \"{sharing}\"\n[cores]\ncount = 1\n");
        let proxy = Crossfade::start_with(TempDir::make("proxy"), &server.url(), None, &line);
        let mut client = try_connect(proxy.port).expect("a client");
        let id: u64 = run(&mut client, "CLIENT ID");
        let killed: u64 = run(&mut server.connection(), &format!("CLIENT KILL ID {id}"));
        assert_eq!(killed, 1, "{sharing}");
        try_run::<String>(&mut client, "PING").expect_err("it is closed");
    }
}
