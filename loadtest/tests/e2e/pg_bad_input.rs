//! Hostile, broken and merely odd bytes on a PostgreSQL interlay: they get an error of the protocol or a close, and no other client is affected.

use std::io::ErrorKind;
use std::time::Duration;

use crossfade_loadtest::pg_rig::{Auth, Options, PgRig, without_proxy};
use crossfade_loadtest::pg_wire::{GSS_ENC_REQUEST, SSL_REQUEST, VERSION_3_0, Wire, query, startup, typed, untyped};
use crossfade_loadtest::postgres::{Settings, TRUSTED_USER, Version, versions};
use crossfade_loadtest::wait::until;

const PATIENCE: Duration = Duration::from_secs(60);
/// Far less than what a believed length field of 1 GB would take.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
const GIGABYTE: u32 = 1 << 30;

fn trusting(version: Version) -> PgRig {
    PgRig::with(version, &Options::auth(Auth::Trust))
}

/// Resident memory of the proxy, KiB.
fn resident_kib(rig: &PgRig) -> u64 {
    let Some(pid) = rig.proxy().and_then(crossfade_loadtest::crossfade::Crossfade::pid) else { return 0 };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the proxy runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

/// A well-behaved client, connected all the time.
struct Bystander {
    wire: Wire,
    port: u16,
    resident_kib: u64,
}

impl Bystander {
    fn of(rig: &PgRig) -> Self {
        let port = rig.through().port;
        let wire = Wire::log_in_trusted(port, TRUSTED_USER, "app").expect("logs in");
        Self { wire, port, resident_kib: resident_kib(rig) }
    }

    /// Checks that this client is still served, and a new one too, and that the proxy has not grown.
    fn is_served(&mut self, rig: &PgRig, after: &str) {
        self.wire.send(&query("SELECT 'fine'")).unwrap();
        let answer =
            self.wire.until(b'Z').unwrap_or_else(|error| panic!("after {after}: {error}\n{}", rig.proxy_says()));
        assert!(answer.iter().any(|message| message.kind == b'D' && message.body.ends_with(b"fine")), "{answer:?}");
        let new = Wire::log_in_trusted(self.port, TRUSTED_USER, "app");
        assert!(new.is_ok(), "after {after}: {new:?}\n{}", rig.proxy_says());
        let grown = resident_kib(rig).saturating_sub(self.resident_kib);
        assert!(grown < GROWTH_KIB_MAX, "after {after} the proxy is {grown} KiB larger");
    }
}

/// The bytes, then an end of the connection; the errors that came before it as `SQLSTATE text`.
fn told(port: u16, bytes: &[u8]) -> Vec<String> {
    let mut wire = Wire::connect(port);
    // The other side may close before all is written.
    let _ = wire.send(bytes);
    let mut errors = Vec::new();
    loop {
        match wire.message() {
            Ok(message) if message.kind == b'E' => {
                let field = |code| message.field(code).unwrap_or_default();
                errors.push(format!("{} {}", field(b'C'), field(b'M')));
            }
            Ok(_) => {}
            Err(error) => {
                let waited = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!waited, "not closed after {:?}: {errors:?}", &bytes[..bytes.len().min(40)]);
                return errors;
            }
        }
    }
}

#[test]
fn encryption_requests_are_answered_and_the_connection_goes_on() {
    for version in versions() {
        let rig = trusting(version);
        let port = rig.through().port;
        let user = startup(VERSION_3_0, &[("user", TRUSTED_USER), ("database", "app")]);
        // Some servers do speak GSSAPI; the proxy does not.
        let requests: &[&[u32]] = if without_proxy() {
            &[&[SSL_REQUEST]]
        } else {
            &[&[SSL_REQUEST], &[GSS_ENC_REQUEST], &[GSS_ENC_REQUEST, SSL_REQUEST]]
        };
        for codes in requests {
            let mut wire = Wire::connect(port);
            for code in *codes {
                wire.send(&untyped(*code, &[])).unwrap();
                assert_eq!(wire.byte().unwrap(), b'N', "{code}");
            }
            wire.send(&user).unwrap();
            let greeting = wire.until(b'Z').unwrap();
            assert!(greeting.iter().any(|message| message.kind == b'K'), "a cancel key: {greeting:?}");
        }
    }
}

#[test]
fn invalid_startup_packets() {
    for version in versions() {
        let rig = trusting(version);
        let mut bystander = Bystander::of(&rig);
        let port = bystander.port;
        let unfinished = untyped(VERSION_3_0, b"user\0trusted\0");
        let cases: [(&str, Vec<u8>); 10] = [
            ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
            ("Redis", b"*1\r\n$4\r\nPING\r\n".to_vec()),
            ("zeroes", vec![0; 64]),
            ("ones", vec![0xff; 64]),
            ("a length of 1 GB", [&GIGABYTE.to_be_bytes()[..], &VERSION_3_0.to_be_bytes(), b"user\0"].concat()),
            ("a length of 2 GB", [&[0x80, 0, 0, 0][..], &VERSION_3_0.to_be_bytes()].concat()),
            ("a length below the header", [&4u32.to_be_bytes()[..], &VERSION_3_0.to_be_bytes()].concat()),
            ("no terminator", unfinished),
            ("an unknown request code", untyped(80_877_199, &[])),
            ("no user", startup(VERSION_3_0, &[("database", "app")])),
        ];
        for (name, bytes) in &cases {
            let errors = told(port, bytes);
            assert!(errors.len() <= 1, "{name}: {errors:?}");
            if *name == "no user" {
                assert_eq!(errors, ["28000 no PostgreSQL user name specified in startup packet"]);
            }
            bystander.is_served(&rig, name);
        }
        for (major, minor) in [(1, 0), (2, 0), (4, 0)] {
            let mut wire = Wire::connect(port);
            wire.send(&startup(major << 16 | minor, &[("user", TRUSTED_USER)])).unwrap();
            // Clients older than 3.0 get the error in their own, unframed format.
            let rest = wire.rest().unwrap_or_else(|| panic!("version {major}.{minor} is not ended"));
            let text = String::from_utf8_lossy(&rest).into_owned();
            assert!(
                text.contains(&format!("unsupported frontend protocol {major}.{minor}")),
                "{major}.{minor}: {text:?}"
            );
        }
        bystander.is_served(&rig, "unknown versions");
    }
}

#[test]
fn a_newer_minor_version_and_unknown_options_are_negotiated() {
    for version in versions() {
        let rig = trusting(version);
        let mut wire = Wire::connect(rig.through().port);
        let parameters = [("user", TRUSTED_USER), ("database", "app"), ("_pq_.no_such_option", "1")];
        wire.send(&startup(0x0003_0063, &parameters)).unwrap();
        let greeting = wire.until(b'Z').unwrap_or_else(|error| panic!("{error}\n{}", rig.proxy_says()));
        let negotiated = greeting.iter().find(|message| message.kind == b'v').expect("NegotiateProtocolVersion");
        assert!(String::from_utf8_lossy(&negotiated.body).contains("_pq_.no_such_option"), "{negotiated:?}");
        wire.send(&query("SELECT 1")).unwrap();
        wire.until(b'Z').unwrap();
    }
}

#[test]
fn half_a_startup_packet_affects_no_other_client() {
    let rig = trusting(Version::V15);
    let mut bystander = Bystander::of(&rig);
    let whole = startup(VERSION_3_0, &[("user", TRUSTED_USER), ("database", "app")]);
    let mut hanging = Vec::new();
    for n in 0..60 {
        let mut wire = Wire::connect(bystander.port);
        wire.send(&whole[..n % whole.len()]).unwrap();
        hanging.push(wire);
        if n % 20 == 0 {
            bystander.is_served(&rig, "half a startup packet");
        }
    }
    // Clients that disconnect after a part.
    for n in 0..whole.len() {
        let mut wire = Wire::connect(bystander.port);
        wire.send(&whole[..n]).unwrap();
    }
    bystander.is_served(&rig, "half-open connections");
    // The rest may come late.
    let last = hanging.pop().expect("some");
    drop(hanging);
    let mut wire = last;
    wire.send(&whole[59 % whole.len()..]).unwrap();
    assert!(wire.until(b'Z').is_ok(), "{}", rig.proxy_says());
}

#[test]
fn invalid_frames_after_the_log_in() {
    for version in versions() {
        let rig = trusting(version);
        let mut bystander = Bystander::of(&rig);
        let port = bystander.port;
        let whole = query("SELECT 1");
        let cases: [(&str, Vec<u8>); 6] = [
            ("an unknown type", typed(b'!', b"what")),
            ("a length of 1 GB", [&b"Q"[..], &GIGABYTE.to_be_bytes(), &[b'x'; 100_000]].concat()),
            ("a negative length", [&b"Q"[..], &[0xff; 4]].concat()),
            ("a length below the header", [&b"Q"[..], &3u32.to_be_bytes()].concat()),
            ("a startup packet", startup(VERSION_3_0, &[("user", TRUSTED_USER)])),
            ("a query that does not end", typed(b'Q', b"SELECT 1")),
        ];
        for (name, bytes) in &cases {
            let mut wire = Wire::log_in_trusted(port, TRUSTED_USER, "app").unwrap();
            let _ = wire.send(bytes);
            // An error, a close, or both; a reply for what the server itself treats as a broken query.
            let mut end = Vec::new();
            let outcome = loop {
                match wire.message() {
                    Ok(message) => end.push(message.kind),
                    Err(error) => break error.kind(),
                }
                if end.ends_with(b"Z") {
                    break ErrorKind::Other;
                }
            };
            let waited = matches!(outcome, ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waited, "{name}: neither an answer nor an end: {}", rig.proxy_says());
            bystander.is_served(&rig, name);
        }
        // A frame announced with 900 MB, of which a little comes: not held in memory.
        let mut wire = Wire::log_in_trusted(port, TRUSTED_USER, "app").unwrap();
        wire.send(&[&b"Q"[..], &900_000_000u32.to_be_bytes(), &vec![b'x'; 2_000_000]].concat()).unwrap();
        bystander.is_served(&rig, "a frame of 900 MB");
        drop(wire);
        // Frames cut anywhere, then a disconnect: the server's session must end too, checked below.
        for n in 1..whole.len() {
            let mut wire = Wire::log_in_trusted(port, TRUSTED_USER, "app").unwrap();
            wire.send(&whole[..n]).unwrap();
        }
        bystander.is_served(&rig, "cut frames");
        let watch = rig.server.superuser("postgres");
        until("abandoned sessions to end on the server", PATIENCE, || {
            let count = watch.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'trusted'");
            // The bystander's own.
            if count == "1" { Ok(()) } else { Err(format!("{count} sessions")) }
        });
    }
}

/// What the server ignores or parses itself must reach it: byte by byte, all at once, out of place.
#[test]
fn odd_but_right_conversations_get_the_servers_answers() {
    let copy_in = query("CREATE TEMP TABLE t (n int); COPY t FROM STDIN");
    let parse = typed(b'P', b"\0SELECT $1::int\0\0\0");
    let bind = typed(b'B', &[&b"\0\0\0\0\0\x01"[..], &[0, 0, 0, 1], b"7", &[0, 0]].concat());
    let execute = typed(b'E', &[0, 0, 0, 0, 0]);
    let (sync, flush) = (typed(b'S', &[]), typed(b'H', &[]));
    let cases: Vec<(&str, Vec<u8>, usize)> = vec![
        ("an empty query", query(""), 1),
        ("copy data outside of a copy", [typed(b'd', b"1\n"), typed(b'c', &[]), query("SELECT 1")].concat(), 1),
        ("two queries at once", [query("SELECT 1"), query("SELECT 2")].concat(), 2),
        ("a pipeline", [&parse[..], &bind, &execute, &sync, &parse, &flush, &bind, &execute, &sync].concat(), 2),
        ("an error and what follows", [&typed(b'P', b"\0SELEKT\0\0\0")[..], &bind, &execute, &sync, &sync].concat(), 2),
        (
            "a whole copy in one write",
            [
                &copy_in[..],
                &typed(b'd', b"1\n2\n"),
                &typed(b'd', b"3\n"),
                &typed(b'c', &[]),
                &query("SELECT n + 0 FROM t ORDER BY n"),
            ]
            .concat(),
            2,
        ),
        (
            "a copy that fails",
            [&copy_in[..], &typed(b'd', b"x\n"), &typed(b'f', b"no\0"), &query("SELECT 1")].concat(),
            2,
        ),
        ("syncs only", [&sync[..], &sync, &sync].concat(), 3),
        ("flushes before a sync", [&flush[..], &flush, &sync].concat(), 1),
        ("a close of nothing", [&typed(b'C', b"Snothing\0")[..], &sync].concat(), 1),
        ("a function call", [&typed(b'F', &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0])[..], &query("SELECT 1")].concat(), 2),
    ];
    for version in versions() {
        let rig = trusting(version);
        for (name, bytes, ends) in &cases {
            let converse = |port: u16, piece: usize| {
                let mut wire = Wire::log_in_trusted(port, TRUSTED_USER, "app").unwrap();
                bytes.chunks(piece).for_each(|part| wire.send(part).unwrap());
                let mut all = Vec::new();
                for _ in 0..*ends {
                    let more = wire.until(b'Z').unwrap_or_else(|error| panic!("{name}: {error}\n{}", rig.proxy_says()));
                    all.extend(more);
                }
                all
            };
            let direct = converse(rig.direct().port, usize::MAX);
            for piece in [usize::MAX, 1, 3, 7] {
                assert_eq!(converse(rig.through().port, piece), direct, "{name}, {piece} bytes at a time");
            }
        }
    }
}

#[test]
fn replication_is_refused_with_a_sentence() {
    if without_proxy() {
        crossfade_loadtest::skip!("PG_DIRECT: the server allows it");
    }
    let rig = PgRig::start(Version::V15);
    let login = rig.through().user("postgres", "secret");
    for value in ["database", "true"] {
        let ran = login.psql(&["-c", "IDENTIFY_SYSTEM", &format!("replication={value} dbname=app")]);
        assert!(ran.code == 2 && ran.stderr.contains("replication"), "{ran:?}");
    }
    assert_eq!(rig.through().sql("SELECT 1"), "1");
}

/// Each of both processes needs a descriptor for each, and the proxy two.
fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a structure that lives across both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    limit.rlim_cur
}

#[test]
fn two_thousand_idle_connections() {
    const CONNECTIONS: usize = 2_000;
    let descriptors = raise_descriptor_limit();
    if descriptors < 3 * CONNECTIONS as u64 {
        crossfade_loadtest::skip!("only {descriptors} descriptors: ulimit -n {}", 3 * CONNECTIONS);
    }
    let server = Settings { more: vec!["max_connections=2100".to_owned()], ..Settings::default() };
    let rig = PgRig::with(Version::V15, &Options { server, ..Options::auth(Auth::Trust) });
    let (port, before) = (rig.through().port, resident_kib(&rig));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let open = |_| Wire::log_in_trusted(port, TRUSTED_USER, "app").expect("logs in");
                (0..CONNECTIONS / 8).map(open).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut all: Vec<Wire> = threads.into_iter().flat_map(|thread| thread.join().expect("all connect")).collect();
    let each = (resident_kib(&rig).saturating_sub(before)) as f64 / CONNECTIONS as f64;
    eprintln!("{CONNECTIONS} idle connections: {each:.1} KiB of the proxy each");
    assert!(each < 200.0, "{each} KiB for an idle connection");
    for wire in all.iter_mut().step_by(37) {
        wire.send(&query("SELECT 'awake'")).unwrap();
        assert!(wire.until(b'Z').unwrap().iter().any(|message| message.body.ends_with(b"awake")));
    }
    drop(all);
    let watch = rig.server.superuser("postgres");
    until("all sessions to end on the server", PATIENCE, || {
        let count = watch.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'trusted'");
        if count == "0" { Ok(()) } else { Err(format!("{count} sessions")) }
    });
    assert!(Wire::log_in_trusted(port, TRUSTED_USER, "app").is_ok());
}
