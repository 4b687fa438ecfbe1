//! Values too long to pass whole.

use super::*;
use base::model::limits;

impl Stage {
    /// `name` is dirty and known to be long.
    fn with_long_key(name: &str, kind: wire::resp::copy::DataType) -> Self {
        let mut stage = Self::in_step();
        stage.lane.keys.set_by_type(super::super::keys::KeyRef::new(0, name.as_bytes()).id, kind);
        stage.order(LaneOrder::Repair { database: 0, keys: vec![name.as_bytes().into()] });
        stage
    }
}

/// A scan's reply with elements of this length in all, more to come.
fn scanned(cursor: &str, items: &[&str]) -> Vec<u8> {
    let words: Vec<&[u8]> = items.iter().map(|item| item.as_bytes()).collect();
    [format!("*2\r\n${}\r\n{cursor}\r\n", cursor.len()).into_bytes(), request(&words)].concat()
}

#[test]
fn a_dump_that_is_too_long_is_not_kept_nor_asked_for_again() {
    let mut stage = Stage::in_step();
    stage.says(1, "EVAL x 1 l");
    stage.answers(Side::Source, b":1\r\n");
    stage.later(limits::COPY_QUIET_US);
    assert_eq!(stage.hears(Side::Source), ["EVAL x 1 l", "PEXPIRETIME l", "DUMP l"]);
    stage.answers(Side::Source, b":-1\r\n");
    let (len, part) = (2 * limits::DUMP_BYTES_MAX, vec![18; 1024 * 1024]);
    stage.answers(Side::Source, format!("${len}\r\n").as_bytes());
    for _ in 0..len / part.len() {
        stage.answers(Side::Source, &part);
        assert!(stage.lane.links.of(Side::Source).gathered.capacity() <= 2 * limits::DUMP_BYTES_MAX);
    }
    assert!(stage.lane.links.of(Side::Source).gathered.len() < 100);
    stage.says(2, "PING");
    stage.answers(Side::Source, b"\r\n");
    assert_eq!(stage.hears(Side::Source), ["PING", "PEXPIRETIME l", "LRANGE l 0 15"], "at once");
    stage.answers(Side::Source, b"+PONG\r\n:-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(stage.hears(Side::Target), ["DEL l", "RPUSH l a b", "PERSIST l"]);
    assert_eq!(stage.dirty(), 1);
    stage.answers(Side::Target, b":1\r\n:2\r\n:0\r\n");
    assert_eq!(stage.dirty(), 0);
    stage.says(1, "EVAL x 1 l");
    stage.answers(Side::Source, b":1\r\n");
    stage.later(limits::COPY_QUIET_US);
    assert_eq!(stage.hears(Side::Source), ["EVAL x 1 l", "PEXPIRETIME l", "LRANGE l 0 15"]);
}

#[test]
fn a_long_dump_that_the_shadow_refuses_is_read_in_pieces() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Repair { database: 0, keys: vec![b"s".as_slice().into()] });
    stage.hears(Side::Source);
    let payload = [b"\x14".as_slice(), &vec![1; 2 * limits::PIECES_FROM_BYTES], b"\x0a\0", &[0; 8]].concat();
    let reply = [format!(":-1\r\n${}\r\n", payload.len()).as_bytes(), &payload, b"\r\n"].concat();
    stage.answers(Side::Source, &reply);
    stage.hears(Side::Target);
    stage.answers(Side::Target, b"-ERR Bad data format\r\n");
    stage.later(1_000_000);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME s", "SSCAN s 0 COUNT 16"]);
}

#[test]
fn writes_of_elements_are_repeated_while_a_value_is_read() {
    let mut stage = Stage::with_long_key("h", wire::resp::copy::DataType::Hash);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME h", "HSCAN h 0 COUNT 16"]);
    stage.says(1, "HINCRBY h f 1");
    stage.says(1, "EXPIRE h 100");
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &scanned("7", &["a", "1"]));
    stage.answers(Side::Source, format!(":-1\r\n:5\r\n:1\r\n:{}\r\n", WALL_MS + 100_000).as_bytes());
    assert_eq!(stage.hears(Side::Target), ["DEL h", "HSET h a 1", "HINCRBY h f 1"]);
    stage.answers(Side::Target, b":0\r\n:1\r\n:1\r\n");
    assert_eq!(stage.dirty(), 1, "another answer than the authority's is no surprise");
    stage.later(100_000);
    let sent = stage.hears(Side::Source);
    assert_eq!(sent[sent.len() - 2..], ["PEXPIRETIME h", "HSCAN h 7 COUNT 64"]);
    stage.answers(Side::Source, format!(":{}\r\n", WALL_MS + 100_000).as_bytes());
    stage.answers(Side::Source, &scanned("0", &["f", "5"]));
    assert_eq!(stage.hears(Side::Target), ["HSET h f 5".to_owned(), format!("PEXPIREAT h {}", WALL_MS + 101_000)]);
    stage.answers(Side::Target, b":0\r\n:1\r\n");
    assert_eq!(stage.dirty(), 0);
    stage.says(1, "HSET h g 1");
    stage.answers(Side::Source, format!(":{}\r\n:1\r\n", WALL_MS + 100_000).as_bytes());
    assert_eq!(stage.hears(Side::Target), ["PEXPIRETIME h", "HSET h g 1"], "as any key");
}

#[test]
fn other_writes_begin_the_copy_again_after_a_time() {
    let mut stage = Stage::with_long_key("l", wire::resp::copy::DataType::List);
    stage.hears(Side::Source);
    let long = "x".repeat(limits::COPY_PACED_BYTES as usize);
    let items: Vec<&[u8]> = std::iter::repeat_n(long.as_bytes(), 16).collect();
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &request(&items));
    stage.says(1, "RPUSH l more");
    stage.says(1, "RPOP l");
    stage.answers(Side::Source, b":17\r\n$1\r\nx\r\n");
    let shadow = stage.hears(Side::Target);
    assert_eq!(shadow.len(), 2, "DEL and one RPUSH");
    assert_eq!(stage.hears(Side::Source), ["RPUSH l more", "RPOP l"], "not at once");
    stage.later(1_000_000);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME l", "LRANGE l 0 15"]);
    assert_eq!(stage.hears(Side::Target), ["DEL l"]);
    assert_eq!(stage.dirty(), 1);
}

/// A queue: what is taken off the front moves what is still to be read.
#[test]
fn a_list_whose_front_is_written_is_read_on_at_the_right_place() {
    let mut stage = Stage::with_long_key("l", wire::resp::copy::DataType::List);
    stage.hears(Side::Source);
    let items: Vec<&[u8]> = std::iter::repeat_n(b"x".as_slice(), 16).collect();
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &request(&items));
    stage.says(1, "LPOP l");
    stage.later(1000);
    let sent = stage.hears(Side::Source);
    assert_eq!(
        sent,
        ["LPOP l", "PEXPIRETIME l", "LRANGE l 16 79"],
        "asked for behind the LPOP, whose answer is not in"
    );
    stage.answers(Side::Source, b"$1\r\nx\r\n:-1\r\n*1\r\n$1\r\nz\r\n");
    stage.later(1000);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME l", "LRANGE l 0 78"], "with an overlap from now on");
    let items: Vec<&[u8]> = std::iter::repeat_n(b"x".as_slice(), 15).chain([b"y".as_slice(), b"z"]).collect();
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &request(&items));
    let shadow = stage.hears(Side::Target);
    assert_eq!(shadow[2..], ["LPOP l", "RPUSH l y z", "PERSIST l"], "{shadow:?}");
}

#[test]
fn a_fence_reads_pieces_one_behind_the_other() {
    let mut stage = Stage::with_long_key("s", wire::resp::copy::DataType::Set);
    stage.hears(Side::Source);
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    for cursor in ["3", "5", "0"] {
        stage.answers(Side::Source, b":-1\r\n");
        stage.answers(Side::Source, &scanned(cursor, &["m"]));
        stage.hears(Side::Source);
    }
    stage.answers(Side::Target, b":1\r\n:1\r\n:0\r\n:0\r\n:0\r\n");
    assert!(stage.is_fenced());
    assert_eq!(stage.lane.jobs.repairs_in_flight, 0);
}

#[test]
fn a_lost_connection_ends_copies_in_pieces() {
    for side in [Side::Source, Side::Target] {
        let mut stage = Stage::with_long_key("s", wire::resp::copy::DataType::Set);
        stage.hears(Side::Source);
        stage.lane.lost(side, "reset", stage.now);
        stage.lane.connected(side, if side == Side::Source { b"s1" } else { b"t1" }, stage.now);
        if side == Side::Target {
            stage.answers(Side::Source, b":-1\r\n");
            stage.answers(Side::Source, &scanned("0", &["m"]));
        }
        stage.hears(Side::Target);
        stage.later(2 * limits::REPAIR_RETRY_US);
        assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME s", "SSCAN s 0 COUNT 16"], "{side}");
        assert_eq!(stage.hears(Side::Target), ["DEL s"], "{side}");
        assert_eq!(stage.lane.jobs.repairs_in_flight, 1, "{side}");
    }
}

#[test]
fn runs_of_scripts_are_reported() {
    let mut stage = Stage::in_step();
    assert_eq!(stage.lane.status().scripts_unproven_at_ms, 0);
    stage.says(1, "EVALSHA x 1 k");
    stage.answers(Side::Source, b"-NOSCRIPT no\r\n");
    assert_eq!(stage.lane.status().scripts_unproven_at_ms, 0, "it has not run");
    stage.later(7000);
    stage.says(1, "EVAL x 1 k");
    stage.answers(Side::Source, b":1\r\n");
    let status = stage.lane.status();
    assert_eq!((status.scripts_run, status.scripts_known, status.scripts_unproven_at_ms), (1, 1, WALL_MS as u64 + 7));
    stage.later(7000);
    stage.says(1, "EVAL x 1 k");
    stage.answers(Side::Source, b":1\r\n");
    assert_eq!(stage.lane.status().scripts_unproven_at_ms, WALL_MS as u64 + 7, "a comparison may have seen it");
    stage.runs_block(1, &["FCALL f 1 k"]);
    stage.lane.lost(Side::Source, "reset", stage.now);
    assert_eq!(stage.lane.status().scripts_unproven_at_ms, WALL_MS as u64 + 14, "it may have run");
}
