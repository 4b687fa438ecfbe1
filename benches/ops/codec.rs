//! Finding frames and commands: the work for each byte or command that passes.

use std::hint::black_box;

use wire::postgres::frame::{HEAD_BYTES, Head, server_head};
use wire::resp::command::{self, Class};
use wire::resp::encode::{push_bulk, push_header, push_request};
use wire::resp::frame::scan_request;
use wire::resp::{ReplyFeed, ReplyStep, RequestProgress, RequestScan};

use super::harness::{Operation, Round};

/// In a round, where one of them is short.
const FRAMES: usize = 256;
/// Of an MGET, and of its reply.
const MEMBERS: usize = 100;
const LARGE_FRAMES: usize = 16;
const ROWS: usize = 100;

pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "codec/scan_request_get64",
        per_round: FRAMES as u64,
        set_up: || scans(FRAMES, &[b"GET", &[b'k'; 64]]),
        uncounted: None,
    },
    Operation {
        name: "codec/scan_request_mget100",
        per_round: LARGE_FRAMES as u64,
        set_up: scans_of_mget,
        uncounted: None,
    },
    Operation {
        name: "codec/reply_feed_bulk64",
        per_round: FRAMES as u64,
        set_up: || feeds(FRAMES, &bulks(1)),
        uncounted: None,
    },
    Operation {
        name: "codec/reply_feed_array100",
        per_round: LARGE_FRAMES as u64,
        set_up: feeds_of_array,
        uncounted: None,
    },
    Operation { name: "codec/lookup", per_round: NAMES.len() as u64 * 16, set_up: lookups, uncounted: None },
    Operation {
        name: "codec/postgres_server_head",
        per_round: ROWS as u64 + 3,
        set_up: postgres_heads,
        uncounted: None,
    },
];

fn scans_of_mget() -> Round {
    let keys: Vec<String> = (0..MEMBERS).map(|nth| format!("key:{nth:012}")).collect();
    let words: Vec<&[u8]> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).map(str::as_bytes).collect();
    scans(LARGE_FRAMES, &words)
}

/// A buffer of equal requests, scanned as the relay scans it.
fn scans(count: usize, words: &[&[u8]]) -> Round {
    let mut bytes = Vec::new();
    (0..count).for_each(|_| push_request(&mut bytes, words));
    Box::new(move || {
        let bytes = black_box(bytes.as_slice());
        let (mut progress, mut used, mut found) = (RequestProgress::default(), 0, 0);
        while used < bytes.len() {
            match scan_request(&mut progress, &bytes[used..]) {
                RequestScan::Frame { len, inline: false } => used += len,
                other => panic!("{other:?}"),
            }
            found += 1;
        }
        assert_eq!(found, count);
    })
}

fn bulks(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..count).for_each(|_| push_bulk(&mut bytes, &[b'v'; 64]));
    bytes
}

fn feeds_of_array() -> Round {
    let mut reply = Vec::new();
    push_header(&mut reply, b'*', MEMBERS);
    reply.extend_from_slice(&bulks(MEMBERS));
    feeds(LARGE_FRAMES, &reply)
}

/// A buffer of equal replies, fed as the relay feeds it.
fn feeds(count: usize, reply: &[u8]) -> Round {
    let bytes = reply.repeat(count);
    let mut feed = ReplyFeed::default();
    Box::new(move || {
        let (mut rest, mut found) = (black_box(bytes.as_slice()), 0);
        while !rest.is_empty() {
            match feed.feed(rest) {
                ReplyStep::Complete { consumed, .. } => rest = &rest[consumed..],
                other => panic!("{other:?}"),
            }
            found += 1;
        }
        assert_eq!(found, count);
    })
}

/// As clients write them; the last is not a command.
const NAMES: &[&[u8]] = &[
    b"GET",
    b"set",
    b"MGET",
    b"incrby",
    b"HGETALL",
    b"hset",
    b"ZRANGEBYSCORE",
    b"lpush",
    b"EXPIRE",
    b"Ping",
    b"XREADGROUP",
    b"sismember",
    b"DEL",
    b"GEORADIUSBYMEMBER",
    b"BLPOP",
    b"JSON.SET",
];

fn lookups() -> Round {
    let known = NAMES.iter().filter(|name| command::lookup(name).class != Class::Unknown).count();
    assert_eq!(known, NAMES.len() - 1);
    Box::new(|| {
        for _ in 0..16 {
            for name in NAMES {
                black_box(command::position(command::lookup(black_box(name))));
            }
        }
    })
}

/// The reply to a query of a hundred rows: where each frame begins; bodies are not read.
fn postgres_heads() -> Round {
    let mut bytes = Vec::new();
    let mut push = |tag: u8, body: &[u8]| {
        bytes.push(tag);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
    };
    push(b'T', &[0; 28]);
    (0..ROWS).for_each(|_| push(b'D', &[0; 70]));
    push(b'C', b"SELECT 100\0");
    push(b'Z', b"I");
    Box::new(move || {
        let (mut rest, mut found) = (black_box(bytes.as_slice()), 0);
        while !rest.is_empty() {
            match server_head(rest) {
                Head::Frame { body_len, .. } => rest = &rest[HEAD_BYTES + body_len..],
                other => panic!("{other:?}"),
            }
            found += 1;
        }
        assert_eq!(found, ROWS + 3);
    })
}
