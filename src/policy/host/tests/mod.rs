//! Shared parts of the host's tests.

mod cached;
mod calls;
mod conformance;
mod deadline;
mod loading;

use super::{Answer, Fault, FaultKind, Host, HostOptions, Instance, Module, RecordAnswer, Refused, abi};
use abi::host::{Pair, Record, ReplyParts, Request, Window};
use abi::{Authority, Class, Encoding, Phase, Protocol, Purpose, RecordType, ReplyKind, RequestAction, Side};

/// Nanoseconds since the first call.
fn clock() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn options() -> HostOptions {
    HostOptions { instances_max: 64, cache_dir: None, clock }
}

fn host() -> Host {
    Host::new(options()).expect("a host")
}

/// The exports of every guest in these tests.
const GUEST: &str = r#"
    (func (export "cf_abi_v1"))
    (memory (export "memory") 2)
    (func (export "cf_buffer") (result i32) (i32.const 0))
    (func (export "cf_buffer_len") (result i32) (i32.const 65536))
"#;

/// A guest with these imports, the common exports, and `rest`.
fn guest(imports: &str, rest: &str) -> String {
    format!("(module {imports} {GUEST} {rest})")
}

/// A guest whose request hook has this body.
fn request_guest(imports: &str, body: &str) -> String {
    guest(imports, &format!("(func (export \"cf_on_request\") (param i32) (result i64) {body})"))
}

fn load(host: &Host, name: &str, wat: &str) -> Module {
    host.load(name, wat.as_bytes()).unwrap_or_else(|refused| panic!("{refused:?}"))
}

fn begin(host: &Host, wat: &str) -> Instance {
    let module = load(host, "guest", wat);
    module.instantiate("{}", 1).unwrap_or_else(|refused| panic!("{refused:?}"))
}

type NoKeys = std::iter::Empty<&'static [u8]>;

fn request_view() -> Request<'static, NoKeys> {
    Request {
        protocol: Protocol::Redis,
        class: Class::Read,
        phase: Phase::Compare,
        authority: Authority::Source,
        flags: 0,
        client: 0,
        sample: 0,
        database: b"0",
        command: b"",
        keys: std::iter::empty(),
        size: 0,
        frame: b"",
    }
}

fn reply(bytes: &[u8]) -> ReplyParts<'_> {
    ReplyParts { kind: ReplyKind::Value, length: bytes.len() as u64, latency_us: 0, bytes }
}

fn pair_view<'a>(source: &'a [u8], target: &'a [u8]) -> Pair<'a, NoKeys> {
    Pair { request: request_view(), source: reply(source), target: reply(target), digests: None, raced: false }
}

fn window_view() -> Window<'static> {
    Window {
        phase: Phase::Compare,
        authority: Authority::Source,
        flags: 0,
        at_ms: 0,
        length_ms: 1000,
        phase_seconds: 0,
        source: Side::default(),
        target: Side::default(),
        shadow_lag_us: 0,
        queue_depth: 0,
        dirty: 0,
        in_flight: 0,
        compared: 0,
        divergences_new: 0,
        divergences_total: 0,
        read_share: 0,
        write_share: 0,
        migration: b"",
    }
}

fn record_view(value: &[u8], encoding: Encoding) -> Record<'_> {
    Record {
        protocol: Protocol::Redis,
        record_type: RecordType::Text,
        encoding,
        purpose: Purpose::Backfill,
        ttl_ms: None,
        database: b"0",
        namespace: b"",
        key: b"key",
        value_length: value.len() as u64,
        value,
    }
}

fn request(instance: &mut Instance) -> Result<Answer<RequestAction>, Fault> {
    instance.on_request(&request_view(), 0)
}

/// The rule that a module breaks when it is loaded and instantiated.
fn refusal(host: &Host, wat: &[u8], config: &str) -> Refused {
    match host.load("guest", wat).and_then(|module| module.instantiate(config, 1)) {
        Ok(_) => panic!("it was not refused"),
        Err(refused) => refused,
    }
}
