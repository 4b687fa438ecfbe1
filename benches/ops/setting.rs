//! What the operations on relay and lane have in common: an interlay with two servers, its clients' requests, and a server that has an
//! answer to each of them.

use std::sync::Arc;

use base::model::{
    Authority, CompareReads, Endpoint, EndpointName, Generation, InterlayName, PlanMode, ProtocolKind, RoutePlan,
};
use base::stdx::clock::Now;
use wire::resp::Args;
use wire::resp::encode::{push_bulk, push_request};
use wire::resp::frame::reply_len;

pub const CLIENTS: usize = 50;
/// The most bytes of one read of a socket.
pub const PIECE_BYTES: usize = 64 * 1024;
pub const VALUE: &[u8] = &[b'v'; 64];

/// How two buffers are compared: completely while setting up, later only by length.
pub type Same = fn(&[u8], &[u8]) -> bool;

pub const SAME_BYTES: Same = |one, other| one == other;
pub const SAME_LENGTH: Same = |one, other| one.len() == other.len();

pub fn begin() -> Now {
    Now { wall_ms: 1_700_000_000_000, mono_us: 1_000_000 }
}

/// A moment later: time passes while a round is under way elsewhere.
pub fn later(now: Now) -> Now {
    Now { mono_us: now.mono_us + 100, ..now }
}

pub fn plan(mode: PlanMode) -> Arc<RoutePlan> {
    let endpoint = |name: &str, port: u16| {
        let name = EndpointName::new(name).expect("a name");
        Endpoint::from_url(name, ProtocolKind::Redis, &format!("redis://127.0.0.1:{port}")).expect("a url")
    };
    Arc::new(RoutePlan {
        interlay: InterlayName::new("orders").expect("a name"),
        generation: Generation(1),
        authority: Authority::initial(),
        source: endpoint("old", 1),
        target: Some(endpoint("new", 2)),
        mode,
        compare: CompareReads { sample_per_ten_thousand: 0 },
        ttl_grace_ms: 1000,
    })
}

/// The requests of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Set,
}

/// The requests of one client, one after the other; no two clients use a key in common.
pub fn requests(verb: Verb, client: usize, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for nth in 0..depth {
        let key = format!("key:{client:06}{nth:06}");
        match verb {
            Verb::Get => push_request(&mut out, &[b"GET", key.as_bytes()]),
            Verb::Set => push_request(&mut out, &[b"SET", key.as_bytes(), VALUE]),
        }
    }
    out
}

/// What a server answers to `requests`, log-ins included.
pub fn answers(requests: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames(requests) {
        let words: Vec<&[u8]> = Args::new(frame).collect();
        match words.as_slice() {
            [b"GET", _] => push_bulk(&mut out, VALUE),
            [b"CLIENT", b"ID"] => out.extend_from_slice(b":7\r\n"),
            [b"CLIENT", b"LIST"] => push_bulk(&mut out, b""),
            [b"INFO", ..] => push_bulk(&mut out, b"run_id:0123456789abcdef\r\n"),
            _ => out.extend_from_slice(b"+OK\r\n"),
        }
    }
    out
}

/// Whole frames; a request has the grammar of a reply.
pub fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(len) = reply_len(bytes) {
        let (frame, rest) = bytes.split_at(len);
        frames.push(frame);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "frames are whole");
    frames
}
