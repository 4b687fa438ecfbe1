//! Many requests or replies taken in one go are what they are one by one: the same bytes whole and byte by byte.

use proptest::prelude::*;

use super::{Stage, lines, plan_comparing};
use crate::contract::{ClientKey, Relay};
use base::model::{Authority, PlanMode};
use base::stdx::clock::Now;
use policy::testing::{Seats, host, shipped};
use wire::resp::encode::request;

const PUSH: &[u8] = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n";

/// What a server answers; every answer but the short ones names what was asked.
fn reply_to(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[0].to_ascii_uppercase().as_str() {
        "GET" => format!("${}\r\n{}\r\n", words[1].len(), words[1]).into_bytes(),
        "HGETALL" => format!("*2\r\n$1\r\nf\r\n${}\r\n{}\r\n", words[1].len(), words[1]).into_bytes(),
        "PING" => b"+PONG\r\n".to_vec(),
        "SET" | "SELECT" => b"+OK\r\n".to_vec(),
        _ => format!("-ERR unknown command '{}'\r\n", words[0]).into_bytes(),
    }
}

fn fed(bytes: &[u8], piece: usize, mut take: impl FnMut(&[u8])) {
    bytes.chunks(piece.max(1)).for_each(&mut take);
}

/// What a run is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    NotAtAll,
    /// All reads are copied for a comparison.
    ForReads,
    /// A policy refuses HGETALL.
    ForRefusals,
}

/// What each client gets, what was counted, and the reads that were copied.
type Transcript = (Vec<Vec<u8>>, u64, u64, Vec<String>);

fn stage(looked: Looked) -> Stage {
    let (mode, share) = match looked {
        Looked::NotAtAll => (PlanMode::PassThrough, 0),
        Looked::ForReads => (PlanMode::Followed, 10_000),
        Looked::ForRefusals => (PlanMode::Followed, 0),
    };
    let mut stage = Stage::new(mode);
    stage.relay.publish(plan_comparing(2, Authority::initial(), mode, share));
    if looked == Looked::ForRefusals {
        let request = Some(shipped(&host(), "deny_dangerous", r#"{"commands": ["HGETALL"]}"#));
        Seats { request, ..Seats::default() }.fill(&stage.policies);
    }
    stage
}

/// What happens when all bytes move in pieces of this size.
fn transcript(says: &[(usize, Vec<u8>)], piece: usize, pushes: bool, looked: Looked) -> Transcript {
    let mut stage = stage(looked);
    let clients: Vec<ClientKey> = (0..3).map(|_| stage.client()).collect();
    let mut heard = vec![Vec::new(); clients.len()];
    for (who, bytes) in says {
        fed(bytes, piece, |part| {
            stage.relay.client_input(clients[*who], part, Now::default());
            stage.perform();
        });
    }
    loop {
        let mut quiet = true;
        for nth in 0..stage.upstreams.len() {
            let lines = stage.hears(nth);
            quiet &= lines.is_empty();
            let mut replies = Vec::new();
            for (at, line) in lines.iter().enumerate() {
                if pushes && at % 3 == 1 {
                    replies.extend_from_slice(PUSH);
                }
                replies.extend_from_slice(&reply_to(line));
            }
            fed(&replies, piece, |part| {
                stage.relay.upstream_input(stage.upstreams[nth], part, Now::default()).expect("RESP");
                stage.perform();
            });
        }
        for (own, key) in heard.iter_mut().zip(&clients) {
            while let Some(bytes) = stage.relay.take_client_output(*key, Vec::new()) {
                own.extend_from_slice(&bytes);
                quiet = false;
            }
            stage.relay.client_written(*key);
        }
        stage.perform();
        if quiet {
            break;
        }
    }
    let counters = stage.relay.counters();
    // Clients that wait for a change of session go on in another order.
    let mut reads: Vec<String> = stage.relay.take_reads().iter().flat_map(|read| lines(&read.frame)).collect();
    reads.sort();
    (heard, counters.commands, counters.source.requests, reads)
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => (0..50u8).prop_map(|n| format!("GET key:{n}")),
        3 => (0..50u8).prop_map(|n| format!("SET key:{n} value")),
        1 => (0..50u8).prop_map(|n| format!("HGETALL key:{n}")),
        1 => Just("NOSUCH command".to_owned()),
        1 => (0..2u8).prop_map(|n| format!("SELECT {n}")),
        1 => prop_oneof![Just("SKIP"), Just("OFF"), Just("ON")].prop_map(|mode| format!("CLIENT REPLY {mode}")),
    ];
    let framed = line.prop_map(|line| request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()));
    prop_oneof![14 => framed, 1 => Just(b"PING\r\n".to_vec()), 1 => Just(b"\r\n".to_vec())]
}

fn batches() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let batch = prop::collection::vec(command(), 1..30).prop_map(|commands| commands.concat());
    prop::collection::vec((0..3usize, batch), 1..8)
}

fn same_in_any_pieces(
    says: &[(usize, Vec<u8>)],
    piece: usize,
    pushes: bool,
    looked: Looked,
) -> Result<(), TestCaseError> {
    let one_by_one = transcript(says, 1, pushes, looked);
    prop_assert_eq!(&transcript(says, usize::MAX, pushes, looked), &one_by_one);
    prop_assert_eq!(&transcript(says, piece, pushes, looked), &one_by_one);
    Ok(())
}

proptest! {
    #[test]
    fn taken_whole_or_byte_by_byte(says in batches(), piece in 2..200usize, pushes: bool) {
        for looked in [Looked::NotAtAll, Looked::ForReads] {
            same_in_any_pieces(&says, piece, pushes, looked)?;
        }
    }
}

proptest! {
    // Each one compiles a filter.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn refused_in_the_middle_or_alone(says in batches(), piece in 2..200usize, pushes: bool) {
        same_in_any_pieces(&says, piece, pushes, Looked::ForRefusals)?;
    }
}
