//! Effects against real servers: what a write makes of a key on one server, its effect makes of the same key on another.
//!
//! Needs the servers of `command/server_tests.rs`; a pair of which one is not installed is left out.

use super::super::args::Args;
use super::super::command::lookup;
use super::super::command::server_tests::{Server, servers};
use super::super::encode::request;
use super::super::frame::reply_len;
use super::{Effects, Expect, Outcome, Post, derive, plan};

/// One write on the authority and its effects on the shadow, each of which must answer as expected.
fn repeat(authority: &mut Server, shadow: &mut Server, line: &str) {
    let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    let plan = plan(lookup(Args::new(&frame).next().unwrap()), &frame).expect(line);
    assert_eq!(plan.post, Post::Nothing, "{line}");
    let reply = authority.ask_raw(&frame);
    let mut effects = Effects::default();
    let outcome = Outcome { frame: &frame, reply: &reply, deadline: None, first_entry: None, grace_ms: 0 };
    derive(plan.shape, &outcome, &mut effects).expect(line);
    let mut rest = effects.bytes.as_slice();
    for expect in effects.expects {
        let (effect, behind) = rest.split_at(reply_len(rest).unwrap());
        rest = behind;
        let answer = shadow.ask_raw(effect);
        let good = match &expect {
            Expect::NoError => !super::is_error(&answer),
            Expect::Same(same) => **same == *answer,
        };
        assert!(good, "{line}: the shadow answered {:?}", String::from_utf8_lossy(&answer));
    }
}

const WRITES: &[&str] = &[
    "INCRBYFLOAT f 0.1",
    "INCRBYFLOAT f 0.2",
    "INCRBYFLOAT f 1e17",
    "HINCRBYFLOAT h a 0.1",
    "HINCRBYFLOAT h a 0.7",
    "ZADD z 1 a 2 b 3 c",
    "ZINCRBY z 0.1 a",
    "ZINCRBY z 0.2 a",
    "ZINCRBY z 1e-300 new",
    "ZINCRBY z inf top",
    "ZINCRBY z nan a",
    "ZADD z INCR 0.3 b",
    "ZADD z GT INCR -5 b",
    "ZADD z XX CH INCR 1 nobody",
    "ZADD z NX INCR 1 somebody",
    "ZADD z LT CH 0.25 c",
    "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
    "XREADGROUP GROUP g d COUNT 1 NOACK STREAMS s >",
    "XREADGROUP GROUP g c COUNT 5 STREAMS s 0",
    "XREADGROUP GROUP g c COUNT 5 STREAMS s >",
    "XREADGROUP GROUP none c STREAMS s >",
];

const READS: &[&str] = &[
    "GET f",
    "HGETALL h",
    "ZRANGE z 0 -1",
    "ZRANGEBYSCORE z -inf (1.300000001",
    "ZCOUNT z 0.30000000000000004 0.30000000000000004",
    "ZCOUNT z 1.3000000000000000444 1.3000000000000000445",
    "XPENDING s g",
    "XLEN s",
    "EVAL return(redis.call('xinfo','groups',KEYS[1])[1]) 1 s",
];

/// In both protocols, and from each server to each.
#[test]
fn a_write_and_its_effect_make_the_same_of_a_key() {
    for resp in ["2", "3"] {
        for (from, mut authority) in servers() {
            for (to, mut shadow) in servers() {
                authority.ask(&[b"FLUSHALL"]);
                authority.ask(&[b"HELLO", resp.as_bytes()]);
                for server in [&mut authority, &mut shadow] {
                    for id in [b"1-1".as_slice(), b"2-1", b"3-1"] {
                        server.ask(&[b"XADD", b"s", id, b"f", b"v"]);
                    }
                    server.ask(&[b"XGROUP", b"CREATE", b"s", b"g", b"0"]);
                }
                for line in WRITES {
                    repeat(&mut authority, &mut shadow, line);
                }
                authority.ask(&[b"HELLO", b"2"]);
                for line in READS {
                    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                    let (left, right) = (authority.ask(&words), shadow.ask(&words));
                    assert_eq!(left, right, "{line}: {from} to {to}, RESP{resp}");
                }
            }
        }
    }
}
