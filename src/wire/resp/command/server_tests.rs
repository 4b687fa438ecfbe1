//! The command table against real servers: arity, write flag and key positions as `COMMAND` gives them, keys as `COMMAND GETKEYS` finds them.
//!
//! Needs `redis-server` on the path and `.tools/valkey-server` or `CROSSFADE_VALKEY_SERVER` (`scripts/install-test-servers.sh`); a server
//! that is not installed is left out, and its test prints SKIPPED.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::encode::request;
use super::super::value::{Value, decode};
use super::tests::KEYS;
use super::{Class, Command, EffectKind, KeySpec, TABLE, lookup};

const PATIENCE: Duration = Duration::from_secs(15);

/// Writes in the table although `COMMAND` does not flag them: PFCOUNT rewrites a cached cardinality, scripts write what they like.
const WRITES_WITHOUT_FLAG: &[&str] = &["pfcount", "eval", "evalsha", "fcall"];

/// No writes in the table although a subcommand is flagged: CLUSTER FLUSHSLOT works in cluster mode only, which is not supported.
const FLAGGED_WITHOUT_WRITES: &[&str] = &["cluster"];

/// `COMMAND` calls their keys movable because of BY and GET, which are patterns and no names.
const MOVABLE_BY_PATTERN: &[&str] = &["sort_ro"];

/// A server on a unix socket in a directory of its own; both end with it.
pub(crate) struct Server {
    child: Child,
    directory: PathBuf,
    stream: UnixStream,
    arrived: Vec<u8>,
}

impl Server {
    /// `None` when its binary is not installed.
    fn start(name: &str, binary: OsString) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("crossfade-commands-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = std::process::Command::new(&binary);
        command.args(["--port", "0", "--unixsocket", "s", "--save", "", "--appendonly", "no"]);
        let spawned = command.current_dir(&directory).stdout(Stdio::null()).spawn();
        let Ok(child) = spawned.inspect_err(|error| {
            eprintln!("SKIPPED for {name}: {}: {error}: run scripts/install-test-servers.sh", binary.display());
        }) else {
            let _ = std::fs::remove_dir_all(&directory);
            return None;
        };
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(directory.join("s")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{name} did not come up: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { child, directory, stream, arrived: Vec::new() })
    }

    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> Value {
        let reply = self.ask_raw(&request(words));
        decode(&reply, 1 << 24).unwrap().expect("a whole reply").0
    }

    /// The reply to one request, as it came.
    pub(crate) fn ask_raw(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.write_all(request).unwrap();
        loop {
            if let Some((_, length)) = decode(&self.arrived, 1 << 24).unwrap() {
                return self.arrived.drain(..length).collect();
            }
            let mut chunk = [0; 64 * 1024];
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the server closed the connection");
            self.arrived.extend_from_slice(&chunk[..count]);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The servers at hand, by name.
pub(crate) fn servers() -> Vec<(&'static str, Server)> {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/valkey-server");
    let valkey = std::env::var_os("CROSSFADE_VALKEY_SERVER").unwrap_or_else(|| tools.into());
    [("redis", "redis-server".into()), ("valkey", valkey)]
        .into_iter()
        .filter_map(|(name, binary)| Server::start(name, binary).map(|server| (name, server)))
        .collect()
}

/// What a server says of one command, its subcommands included.
#[derive(Debug, PartialEq)]
struct Said {
    arity: i64,
    is_write: bool,
    /// First key, last key, step; all 0 where there is none.
    keys: (i64, i64, i64),
    /// Keys whose positions depend on the arguments.
    has_movable_keys: bool,
}

fn said(entry: &Value) -> (String, Said) {
    let items = entry.items().expect("an entry of COMMAND");
    let text = |value: &Value| String::from_utf8_lossy(value.bytes().expect("a text")).into_owned();
    let flags: Vec<String> = items[2].items().expect("flags").iter().map(text).collect();
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    let number = |at: usize| items[at].integer().expect("a number");
    let mut said = Said {
        arity: number(1),
        is_write: has("write"),
        keys: (number(3), number(4), number(5)),
        has_movable_keys: has("movablekeys"),
    };
    for subcommand in items[9].items().expect("subcommands") {
        let (_, sub) = self::said(subcommand);
        said.is_write |= sub.is_write;
        said.has_movable_keys |= sub.has_movable_keys;
        if sub.keys.0 > 0 {
            said.keys = sub.keys;
        }
    }
    (text(&items[0]), said)
}

fn all_commands(server: &mut Server) -> BTreeMap<String, Said> {
    server.ask(&[b"COMMAND"]).items().expect("the commands").iter().map(said).collect()
}

/// What is wrong with a row, each with its fix.
fn faults(row: &Command, said: &Said) -> Vec<String> {
    let mut faults = Vec::new();
    let arity = i64::from(row.arity);
    let accepts_as_much = if arity < 0 { said.arity.abs() >= -arity } else { said.arity == arity };
    if !accepts_as_much {
        faults.push(format!("arity {arity} is stricter than the server's {}: write the looser one", said.arity));
    }
    let may_write = match row.class {
        Class::Write | Class::ServerChange | Class::Library | Class::Connection(_) => true,
        Class::Read | Class::Server | Class::Session(_) | Class::Unknown => false,
    };
    if said.is_write && !may_write && !FLAGGED_WITHOUT_WRITES.contains(&row.name) {
        faults.push("it is a write: use write(...) with its effect".to_owned());
    }
    if row.class == Class::Write && !said.is_write && !WRITES_WITHOUT_FLAG.contains(&row.name) {
        faults.push("it is no write: use read(...), or list it in WRITES_WITHOUT_FLAG with the reason".to_owned());
    }
    let has_keys = matches!(row.class, Class::Read | Class::Write) && row.effect != EffectKind::Refuse;
    let (keys, movable) = positions(row.keys);
    let movable = movable || MOVABLE_BY_PATTERN.contains(&row.name);
    if (has_keys || row.keys != KeySpec::None) && (said.keys, said.has_movable_keys) != (keys, movable) {
        let is = |movable| if movable { " and movable" } else { "" };
        faults.push(format!(
            "its keys are at {keys:?}{} (first, last, step), the server's at {:?}{}: write the server's",
            is(movable),
            said.keys,
            is(said.has_movable_keys)
        ));
    }
    faults
}

/// First key, last key and step as `COMMAND` gives them, and whether there are others.
fn positions(keys: KeySpec) -> ((i64, i64, i64), bool) {
    match keys {
        KeySpec::None => ((0, 0, 0), false),
        KeySpec::Range(first, last, step) => ((first.into(), last.into(), step.into()), false),
        KeySpec::Counted(_) | KeySpec::Streams => ((0, 0, 0), true),
        KeySpec::StoreCounted | KeySpec::Sort | KeySpec::GeoRadius => ((1, 1, 1), true),
    }
}

#[test]
fn every_row_is_what_the_servers_say() {
    let mut servers = servers();
    let known: Vec<_> = servers.iter_mut().map(|(name, server)| (*name, all_commands(server))).collect();
    let mut found = Vec::new();
    for row in TABLE {
        let entries: Vec<_> = known.iter().filter_map(|(server, all)| Some((server, all.get(row.name)?))).collect();
        for (server, said) in &entries {
            found.extend(faults(row, said).into_iter().map(|fault| format!("{}: {server}: {fault}", row.name)));
        }
        if known.len() < 2 {
            continue;
        }
        if entries.is_empty() {
            found.push(format!("{}: no server knows it: correct its name or remove the row", row.name));
        } else if entries.iter().all(|(_, said)| said.arity != row.arity.into()) {
            let arities: Vec<i64> = entries.iter().map(|(_, said)| said.arity).collect();
            found.push(format!("{}: arity {} is no server's: write one of {arities:?}", row.name, row.arity));
        }
    }
    for (server, all) in &known {
        let others: Vec<&str> =
            all.keys().map(String::as_str).filter(|name| lookup(name.as_bytes()).class == Class::Unknown).collect();
        eprintln!("{server}: {} commands, not in the table: {}", all.len(), others.join(", "));
    }
    assert!(found.is_empty(), "rows of TABLE in src/wire/resp/command.rs:\n  {}", found.join("\n  "));
}

#[test]
fn the_servers_find_the_same_keys() {
    for (name, mut server) in servers() {
        let known = all_commands(&mut server);
        for (line, _) in KEYS {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let row = lookup(words[0]);
            if !known.contains_key(row.name) {
                continue;
            }
            let answer = server.ask(&[&[b"COMMAND".as_slice(), b"GETKEYS"], words.as_slice()].concat());
            let mut theirs: Vec<&[u8]> = answer
                .items()
                .unwrap_or_else(|| panic!("{name}: {line}: {}", answer.brief()))
                .iter()
                .filter_map(Value::bytes)
                .collect();
            let frame = request(&words);
            let mut ours =
                row.keys_of(&frame).unwrap_or_else(|| panic!("{line}: no keys found: check its KeySpec in TABLE")).0;
            theirs.sort_unstable();
            ours.sort_unstable();
            assert_eq!(ours, theirs, "{line}: {name} finds other keys: correct the KeySpec of {}", row.name);
        }
    }
}
