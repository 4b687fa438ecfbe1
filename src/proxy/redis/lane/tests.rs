//! A lane between two scripted servers: what each is sent, in which order, and what a client is told and when.

mod blocked;
mod blocks;
mod coalesced;
mod intents;
mod pieces;
mod policies;
mod watched;

use std::sync::Arc;

use super::Lane;
use super::request::{LaneBatch, LaneItem};
use base::model::{
    Authority, CompareReads, CoreId, Endpoint, EndpointName, Generation, InterlayName, PlanMode, ProtocolKind,
    RoutePlan, Side,
};
use base::stdx::clock::Now;
use bus::{LaneEvent, LaneOrder, PassKind};
use policy::SharedPolicies;
use wire::resp::Args;
use wire::resp::command::{Command, lookup};
use wire::resp::encode::request;
use wire::resp::frame::reply_len;

const WALL_MS: i64 = 1_700_000_000_000;

fn endpoint(name: &str, port: u16) -> Endpoint {
    let name = EndpointName::new(name).expect("a good name");
    Endpoint::from_url(name, ProtocolKind::Redis, &format!("redis://127.0.0.1:{port}")).expect("a good url")
}

pub(super) fn plan(authority: Authority) -> Arc<RoutePlan> {
    Arc::new(RoutePlan {
        interlay: InterlayName::new("orders").expect("a good name"),
        generation: Generation(1),
        authority,
        source: endpoint("old", 1),
        target: Some(endpoint("new", 2)),
        mode: PlanMode::Dual,
        compare: CompareReads { sample_per_ten_thousand: 0 },
        ttl_grace_ms: 1000,
    })
}

/// What the relay has looked up already.
fn command_of(frame: &[u8]) -> &'static Command {
    lookup(Args::new(frame).next().expect("a name"))
}

fn commands_of(mut frames: &[u8]) -> Box<[&'static Command]> {
    let mut commands = Vec::new();
    while let Some(len) = reply_len(frames) {
        commands.push(command_of(frames));
        frames = &frames[len..];
    }
    commands.into()
}

struct Stage {
    lane: Lane,
    policies: SharedPolicies,
    now: Now,
}

impl Stage {
    /// Both sides connected, first pass begun and not done.
    fn in_first_pass() -> Self {
        let now = Now { wall_ms: WALL_MS, mono_us: 0 };
        let policies = SharedPolicies::default();
        let mut lane = Lane::new(&plan(Authority::initial()), SharedPolicies::clone(&policies), now);
        lane.open();
        lane.connected(Side::Source, b"s1", now);
        lane.connected(Side::Target, b"t1", now);
        let mut stage = Self { lane, policies, now };
        stage.events();
        stage
    }

    /// Everything copied.
    fn in_step() -> Self {
        let mut stage = Self::in_first_pass();
        stage.order(LaneOrder::PassDone { pass: 1 });
        stage.events();
        stage
    }

    fn later(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.wall_ms += (us / 1000) as i64;
        self.lane.tick(self.now);
    }

    fn says(&mut self, client: u64, line: &str) {
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        self.item(client, LaneItem::Command { command: command_of(&frame), len: frame.len() }, frame);
    }

    fn item(&mut self, client: u64, item: LaneItem, frames: Vec<u8>) {
        let batch = LaneBatch { client, database: 0, resp: 2, items: vec![item], frames };
        self.lane.submit(CoreId(0), batch, self.now);
    }

    fn order(&mut self, order: LaneOrder) {
        self.lane.order(order, self.now);
    }

    fn hears(&mut self, side: Side) -> Vec<String> {
        let bytes = self.lane.take_output(side, Vec::new()).unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut lines = Vec::new();
        while let Some(len) = reply_len(rest) {
            let words: Vec<_> = Args::new(&rest[..len]).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            lines.push(words.join(" "));
            rest = &rest[len..];
        }
        lines
    }

    fn answers(&mut self, side: Side, bytes: &[u8]) {
        self.lane.input(side, bytes, self.now).expect("RESP");
    }

    /// What clients got: (client, bytes), or (client, "closed").
    fn told(&mut self) -> Vec<(u64, String)> {
        let text = |reply: &super::request::LaneReply| {
            if reply.close { "closed".to_owned() } else { String::from_utf8_lossy(&reply.bytes).into_owned() }
        };
        self.lane.take_replies().iter().map(|(_, reply)| (reply.client, text(reply))).collect()
    }

    fn events(&mut self) -> Vec<LaneEvent> {
        self.lane.take_events().into_iter().filter(|event| !matches!(event, LaneEvent::Status(_))).collect()
    }

    /// What the lane said of a probe that was answered.
    fn doubts(&mut self) -> Option<Vec<bool>> {
        self.events().into_iter().find_map(|event| match event {
            LaneEvent::Probed { doubtful, .. } => Some(doubtful),
            _ => None,
        })
    }

    fn dirty(&self) -> u64 {
        self.lane.status().dirty
    }

    fn has_begun_full_pass(&mut self) -> bool {
        self.events().iter().any(|event| matches!(event, LaneEvent::PassStarted { kind: PassKind::Full, .. }))
    }

    fn is_fenced(&mut self) -> bool {
        self.events().iter().any(|event| matches!(event, LaneEvent::Fenced { .. }))
    }
}

/// A DUMP payload of version 10 with this type byte; the checksum is not looked at by the lane.
fn dump(kind: u8) -> Vec<u8> {
    let mut payload = vec![kind, 1, b'v', 10, 0];
    payload.extend_from_slice(&[0; 8]);
    [format!("${}\r\n", payload.len()).into_bytes(), payload, b"\r\n".to_vec()].concat()
}

#[test]
fn the_shadow_gets_effects_not_commands() {
    let mut stage = Stage::in_step();
    stage.says(1, "SPOP s");
    stage.says(1, "INCRBYFLOAT f 0.1");
    assert_eq!(stage.hears(Side::Source), ["SPOP s", "INCRBYFLOAT f 0.1"]);
    assert!(stage.told().is_empty(), "I8: no answer before the effect is queued");
    stage.answers(Side::Source, b"$1\r\nm\r\n$3\r\n0.1\r\n");
    assert_eq!(stage.hears(Side::Target), ["SREM s m", "SET f 0.1 KEEPTTL"]);
    assert_eq!(stage.told(), [(1, "$1\r\nm\r\n$3\r\n0.1\r\n".to_owned())]);
}

#[test]
fn a_key_not_yet_copied_is_copied_before_its_first_write() {
    let mut stage = Stage::in_first_pass();
    stage.says(1, "RPUSH l a");
    stage.says(1, "RPUSH l b");
    let sent = stage.hears(Side::Source);
    assert_eq!(sent, ["PEXPIRETIME l", "DUMP l", "PEXPIRETIME l", "RPUSH l a", "PEXPIRETIME l", "RPUSH l b"]);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(18));
    stage.answers(Side::Source, b":-1\r\n:2\r\n:-1\r\n:3\r\n");
    let shadow = stage.hears(Side::Target);
    assert!(shadow[0].starts_with("RESTORE l 0 ") && shadow[0].ends_with("REPLACE ABSTTL"), "{shadow:?}");
    assert_eq!(shadow[1..], ["RPUSH l a", "RPUSH l b"], "I2, I3: the copy at its position, the effects behind it");
}

#[test]
fn a_key_overwritten_whole_needs_no_copy() {
    let mut stage = Stage::in_first_pass();
    stage.says(1, "SET k v");
    assert_eq!(stage.hears(Side::Source), ["SET k v"]);
    stage.answers(Side::Source, b"+OK\r\n");
    stage.says(1, "APPEND k w");
    assert_eq!(stage.hears(Side::Source), ["APPEND k w"], "known clean from then on");
}

#[test]
fn a_reply_that_does_not_fit_makes_the_key_dirty_and_a_copy_heals_it() {
    let mut stage = Stage::in_step();
    stage.says(1, "INCR c");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":5\r\n");
    assert_eq!(stage.hears(Side::Target), ["INCR c"]);
    stage.answers(Side::Target, b":4\r\n");
    assert_eq!(stage.dirty(), 1);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME c", "DUMP c"], "copied again at once");
    stage.says(1, "INCR c");
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n:6\r\n");
    let shadow = stage.hears(Side::Target);
    assert!(shadow[0].starts_with("RESTORE c") && shadow[1] == "INCR c", "{shadow:?}");
    stage.answers(Side::Target, b"+OK\r\n:6\r\n");
    assert_eq!(stage.dirty(), 0);
}

/// A server that is newer than the command table may accept what does not fit its row.
#[test]
fn a_write_that_does_not_fit_the_table_puts_its_keys_in_doubt_unless_it_failed() {
    let mut stage = Stage::in_step();
    stage.says(1, "GETSET k v more");
    assert_eq!(stage.hears(Side::Source), ["GETSET k v more"]);
    stage.answers(Side::Source, b"-ERR wrong number of arguments\r\n");
    assert_eq!(stage.told(), [(1, "-ERR wrong number of arguments\r\n".to_owned())], "the server's own error");
    assert_eq!(stage.dirty(), 0);
    stage.says(1, "GETSET k v more");
    stage.says(1, "APPEND k w");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b"$-1\r\n:2\r\n");
    assert_eq!(stage.told(), [(1, "$-1\r\n:2\r\n".to_owned())]);
    assert_eq!(stage.dirty(), 1);
    assert!(stage.hears(Side::Target).is_empty(), "what builds on k would be wrong there");
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "DUMP k"]);
}

#[test]
fn a_write_that_does_not_fit_the_table_and_names_no_keys_puts_all_in_doubt() {
    for line in ["INCR", "BITOP AND", "EVAL x"] {
        let mut stage = Stage::in_step();
        stage.says(1, line);
        stage.answers(Side::Source, b"-ERR wrong number of arguments\r\n");
        assert!(!stage.has_begun_full_pass(), "{line}: nothing happened");
        stage.says(1, line);
        stage.answers(Side::Source, b":1\r\n");
        assert!(stage.has_begun_full_pass(), "{line}: it did something");
        stage.says(1, line);
        stage.lane.lost(Side::Source, "reset", stage.now);
        assert!(stage.has_begun_full_pass(), "{line}: whether it did something is not known");
    }
    let mut stage = Stage::in_step();
    stage.says(1, "MOVE k 1 more");
    assert!(stage.hears(Side::Source).is_empty(), "refused in whatever form");
    assert!(stage.told()[0].1.starts_with("-ERR Crossfade does not support MOVE"));
}

#[test]
fn deadlines_are_absolute_and_later_on_the_shadow() {
    let mut stage = Stage::in_step();
    stage.says(1, "SET k v EX 10");
    assert_eq!(stage.hears(Side::Source), ["SET k v EX 10", "PEXPIRETIME k"]);
    stage.answers(Side::Source, b"+OK\r\n");
    assert!(stage.told().is_empty());
    let deadline = WALL_MS + 10_000;
    stage.answers(Side::Source, format!(":{deadline}\r\n").as_bytes());
    assert_eq!(stage.hears(Side::Target), [format!("SET k v PXAT {}", deadline + 1000)]);
    assert_eq!(stage.told(), [(1, "+OK\r\n".to_owned())]);
    stage.says(1, "APPEND k w");
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "APPEND k w"], "a volatile key is looked at first");
    stage.answers(Side::Source, format!(":{deadline}\r\n:2\r\n").as_bytes());
    assert_eq!(stage.hears(Side::Target), ["PEXPIRETIME k", "APPEND k w"]);
    stage.answers(Side::Target, b"+OK\r\n:-2\r\n:2\r\n");
    assert_eq!(stage.dirty(), 1, "the shadow had lost it already");
}

#[test]
fn a_key_that_expired_on_the_authority_is_removed_from_the_shadow_first() {
    let mut stage = Stage::in_step();
    stage.says(1, "PEXPIRE s 30");
    stage.answers(Side::Source, format!(":1\r\n:{}\r\n", WALL_MS + 30).as_bytes());
    stage.hears(Side::Target);
    stage.says(1, "SADD s new");
    stage.answers(Side::Source, b":-2\r\n:1\r\n");
    assert_eq!(stage.hears(Side::Target), ["DEL s", "SADD s new"]);
}

/// What follows is sent as to a key without a deadline: `SET k w KEEPTTL` would give the authority's persistent key the old deadline.
#[test]
fn a_key_found_expired_by_a_command_that_changes_nothing_is_removed_from_the_shadow() {
    for (line, nothing) in [
        ("PERSIST k", ":0\r\n"),
        ("PEXPIRE k 100", ":0\r\n"),
        ("GETEX k PERSIST", "$-1\r\n"),
        ("SET k v XX PX 9", "$-1\r\n"),
    ] {
        let mut stage = Stage::in_step();
        stage.says(1, "SET k v PX 1000");
        stage.answers(Side::Source, format!("+OK\r\n:{}\r\n", WALL_MS + 1000).as_bytes());
        stage.hears(Side::Source);
        assert_eq!(stage.hears(Side::Target), [format!("SET k v PXAT {}", WALL_MS + 2000)]);
        stage.answers(Side::Target, b"+OK\r\n");
        stage.later(1_100_000);
        stage.says(1, line);
        assert_eq!(stage.hears(Side::Source), [line, "PEXPIRETIME k"]);
        stage.answers(Side::Source, format!("{nothing}:-2\r\n").as_bytes());
        assert_eq!(stage.hears(Side::Target), ["DEL k"], "{line}");
    }
}

#[test]
fn a_deadline_about_to_pass_is_doubt() {
    let mut stage = Stage::in_step();
    stage.says(1, "PEXPIRE s 30");
    stage.answers(Side::Source, format!(":1\r\n:{}\r\n", WALL_MS + 30).as_bytes());
    stage.says(1, "SADD s new");
    stage.answers(Side::Source, format!(":{}\r\n:1\r\n", WALL_MS + 30).as_bytes());
    assert_eq!(stage.dirty(), 1);
}

#[test]
fn nothing_flips_before_all_is_drained() {
    let mut stage = Stage::in_step();
    stage.says(1, "SET k v");
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    stage.says(2, "SET k held");
    assert_eq!(stage.hears(Side::Source), ["SET k v"], "new writes are held");
    assert!(!stage.is_fenced(), "the authority has not answered");
    stage.answers(Side::Source, b"+OK\r\n");
    assert!(!stage.is_fenced(), "the shadow has not answered");
    stage.hears(Side::Target);
    stage.answers(Side::Target, b"+OK\r\n");
    assert!(stage.is_fenced());
    stage.lane.publish(&plan(Authority::initial().flipped()), stage.now);
    stage.order(LaneOrder::Release { ticket: 2 });
    assert_eq!(stage.hears(Side::Target), ["SET k held"], "the new authority");
    let pass = stage.events().into_iter().find_map(|event| match event {
        LaneEvent::PassStarted { kind, .. } => Some(kind),
        _ => None,
    });
    assert_eq!(pass, Some(PassKind::Volatile), "deadlines are the wrong way round now");
    stage.answers(Side::Target, b"+OK\r\n");
    assert_eq!(stage.hears(Side::Source), ["SET k held"], "and the old one is the shadow");
}

/// A comparison that is being stopped may still have a probe under way when the fence is reported.
#[test]
fn what_jobs_ask_behind_a_reported_fence_waits_for_its_release() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    assert!(stage.is_fenced());
    stage.order(LaneOrder::Probe {
        ticket: 9,
        database: 0,
        commands: vec![request(&[b"TYPE", b"k"]).into()],
        heal: false,
    });
    stage.order(LaneOrder::Repair { database: 0, keys: vec![b"k".to_vec().into()] });
    assert!(stage.hears(Side::Source).is_empty(), "nothing is in flight behind a fence");
    stage.lane.publish(&plan(Authority::initial().flipped()), stage.now);
    stage.order(LaneOrder::Release { ticket: 2 });
    assert_eq!(stage.hears(Side::Target)[0], "TYPE k", "the new authority is asked");
    assert_eq!(stage.dirty(), 1);
}

#[test]
fn a_server_replaced_behind_a_fence_is_filled_anew_after_the_flip() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    assert!(stage.is_fenced());
    stage.lane.lost(Side::Target, "reset", stage.now);
    stage.lane.connected(Side::Target, b"t2", stage.now);
    stage.lane.publish(&plan(Authority::initial().flipped()), stage.now);
    stage.order(LaneOrder::Release { ticket: 2 });
    let passes: Vec<_> = stage
        .events()
        .into_iter()
        .filter_map(|event| match event {
            LaneEvent::PassStarted { kind, .. } => Some(kind),
            _ => None,
        })
        .collect();
    assert_eq!(passes, [PassKind::Full, PassKind::Full], "deadlines alone would not do");
}

#[test]
fn a_client_that_went_behind_a_fence_takes_nothing_afterwards() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 500_000 });
    let blocking = request(&[b"BLPOP", b"l", b"0"]);
    stage.says(1, "SET k v");
    stage.item(1, LaneItem::Blocking { command: command_of(&blocking), len: blocking.len() }, blocking);
    stage.lane.client_gone(super::caller::Caller { core: CoreId(0), client: 1 }, stage.now);
    stage.order(LaneOrder::Release { ticket: 2 });
    assert_eq!(stage.hears(Side::Source), ["SET k v"], "what was sent is run; nobody waits for the list");
}

#[test]
#[should_panic(expected = "I6")]
fn authority_does_not_change_without_a_fence() {
    let mut stage = Stage::in_step();
    stage.lane.publish(&plan(Authority::initial().flipped()), stage.now);
}

#[test]
fn a_fence_over_its_budget_lets_go_and_says_what_was_left() {
    let mut stage = Stage::in_step();
    stage.says(1, "SET k v");
    stage.order(LaneOrder::Fence { ticket: 1, budget_us: 1000 });
    stage.says(1, "SET k w");
    stage.hears(Side::Source);
    stage.later(2000);
    let expired = stage
        .events()
        .into_iter()
        .any(|event| matches!(event, LaneEvent::FenceExpired { reason, .. } if reason.contains("in flight: 1")));
    assert!(expired);
    assert_eq!(stage.hears(Side::Source), ["SET k w"], "under the same authority");
}

#[test]
fn a_lost_shadow_delays_no_client_and_is_brought_back_in_step() {
    let mut stage = Stage::in_step();
    stage.says(1, "INCR c");
    stage.answers(Side::Source, b":1\r\n");
    stage.lane.lost(Side::Target, "reset", stage.now);
    stage.says(1, "INCR d");
    stage.answers(Side::Source, b":1\r\n");
    assert_eq!(stage.told().len(), 1, "both answered (merged)");
    assert_eq!(stage.dirty(), 2);
    stage.hears(Side::Source);
    stage.lane.connected(Side::Target, b"t1", stage.now);
    let mut copies = stage.hears(Side::Source);
    copies.retain(|line| line.starts_with("DUMP"));
    copies.sort();
    assert_eq!(copies, ["DUMP c", "DUMP d"]);
    stage.lane.lost(Side::Target, "reset", stage.now);
    stage.events();
    stage.lane.connected(Side::Target, b"t2", stage.now);
    let full =
        stage.events().into_iter().any(|event| matches!(event, LaneEvent::PassStarted { kind: PassKind::Full, .. }));
    assert!(full, "another process may hold anything");
}

#[test]
fn a_lost_authority_ends_clients_and_doubts_their_keys() {
    let mut stage = Stage::in_step();
    stage.says(1, "INCR c");
    stage.says(2, "SET k v EX 9");
    stage.answers(Side::Source, b":1\r\n+OK\r\n");
    stage.told();
    stage.lane.lost(Side::Source, "reset", stage.now);
    assert_eq!(stage.told(), [(2, "closed".to_owned())], "SET was done, but its deadline was not read");
    assert_eq!(stage.dirty(), 1);
    stage.says(3, "INCR c");
    let told = stage.told();
    assert!(told[0].1.starts_with("-LOADING Crossfade cannot reach source 'old'"), "{told:?}");
}

#[test]
fn commands_wait_for_the_first_connection() {
    let now = Now { wall_ms: WALL_MS, mono_us: 0 };
    let policies = SharedPolicies::default();
    let lane = Lane::new(&plan(Authority::initial()), SharedPolicies::clone(&policies), now);
    let mut stage = Stage { lane, policies, now };
    stage.says(1, "SET k v");
    assert!(stage.told().is_empty());
    stage.lane.connected(Side::Source, b"s1", now);
    assert_eq!(stage.hears(Side::Source), ["SET k v"]);
}

#[test]
fn a_watch_breaks_when_a_write_is_sent() {
    let mut stage = Stage::in_step();
    let watch = request(&[b"WATCH", b"k"]);
    let block = request(&[b"SET", b"k", b"mine"]);
    stage.item(1, LaneItem::Watch { len: watch.len() }, watch.clone());
    stage.says(2, "SET k theirs");
    stage.item(1, LaneItem::Transaction { commands: commands_of(&block), len: block.len() }, block.clone());
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "SET k theirs"], "the block is not run");
    stage.answers(Side::Source, b":-1\r\n+OK\r\n");
    assert_eq!(stage.told(), [(1, "+OK\r\n".to_owned()), (2, "+OK\r\n".to_owned()), (1, "*-1\r\n".to_owned())]);
    stage.item(1, LaneItem::Watch { len: watch.len() }, watch);
    stage.answers(Side::Source, b":-1\r\n");
    stage.item(1, LaneItem::Transaction { commands: commands_of(&block), len: block.len() }, block);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "MULTI", "SET k mine", "EXEC"]);
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    assert_eq!(stage.told(), [(1, "+OK\r\n*1\r\n+OK\r\n".to_owned())]);
}

#[test]
fn a_blocked_client_is_served_by_the_next_push() {
    let mut stage = Stage::in_step();
    let blocking = request(&[b"BLPOP", b"l", b"0"]);
    stage.item(1, LaneItem::Blocking { command: command_of(&blocking), len: blocking.len() }, blocking);
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"]);
    stage.answers(Side::Source, b"*-1\r\n");
    assert!(stage.told().is_empty());
    stage.says(2, "RPUSH l v");
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":1\r\n");
    assert_eq!(stage.hears(Side::Source), ["LMPOP 1 l LEFT"]);
    stage.answers(Side::Source, b"*2\r\n$1\r\nl\r\n*1\r\n$1\r\nv\r\n");
    assert_eq!(stage.told().last(), Some(&(1, "*2\r\n$1\r\nl\r\n$1\r\nv\r\n".to_owned())));
    assert_eq!(stage.hears(Side::Target), ["RPUSH l v", "LMPOP 1 l LEFT"]);
}

#[test]
fn a_dump_the_shadow_refuses_is_copied_by_type() {
    let mut stage = Stage::in_first_pass();
    stage.order(LaneOrder::Copy { ticket: 7, pass: 1, database: 0, keys: vec![b"s".as_slice().into()] });
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(20));
    assert!(stage.hears(Side::Target)[0].starts_with("RESTORE s"));
    stage.answers(Side::Target, b"-ERR Bad data format\r\n");
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME s", "SMEMBERS s"]);
    stage.answers(Side::Source, b":-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(stage.hears(Side::Target), ["DEL s", "SADD s a b"]);
    stage.answers(Side::Target, b":0\r\n:2\r\n");
    assert_eq!(stage.dirty(), 0);
    let copied =
        stage.events().into_iter().any(|event| matches!(event, LaneEvent::Copied { ticket: 7, copied: 1, .. }));
    assert!(copied);
}

#[test]
fn both_sides_of_a_probe_are_read_at_one_position() {
    let mut stage = Stage::in_step();
    stage.says(1, "SET k 1");
    stage.order(LaneOrder::Probe {
        ticket: 3,
        database: 0,
        commands: vec![request(&[b"GET", b"k"]).into()],
        heal: false,
    });
    stage.says(1, "SET k 2");
    assert_eq!(stage.hears(Side::Source), ["SET k 1", "GET k", "SET k 2"]);
    stage.answers(Side::Source, b"+OK\r\n$1\r\n1\r\n+OK\r\n");
    assert_eq!(stage.hears(Side::Target), ["SET k 1", "GET k", "SET k 2"]);
}

#[test]
fn a_probe_says_which_keys_the_lane_knows_to_be_wrong() {
    let mut stage = Stage::in_step();
    stage.says(1, "INCR c");
    stage.answers(Side::Source, b":5\r\n");
    stage.hears(Side::Source);
    let reads: Vec<Box<[u8]>> = vec![request(&[b"GET", b"c"]).into(), request(&[b"GET", b"d"]).into()];
    stage.order(LaneOrder::Probe { ticket: 3, database: 0, commands: reads, heal: false });
    stage.answers(Side::Source, b"$1\r\n5\r\n$1\r\n1\r\n");
    stage.answers(Side::Target, b":4\r\n$1\r\n4\r\n$1\r\n2\r\n");
    assert_eq!(stage.doubts(), Some(vec![true, false]), "c is dirty and will be copied; that d is wrong was not known");
}

/// A key that scripts write all the time is dirty whenever one looks.
#[test]
fn a_probe_that_heals_is_sure_of_a_key_that_is_written_on() {
    for heal in [false, true] {
        let mut stage = Stage::in_step();
        stage.says(1, "EVAL x 1 k");
        stage.answers(Side::Source, b":1\r\n");
        stage.hears(Side::Source);
        let commands = vec![request(&[b"TYPE", b"k"]).into(), request(&[b"GET", b"k"]).into()];
        stage.order(LaneOrder::Probe { ticket: 3, database: 0, commands, heal });
        stage.says(1, "EVAL x 1 k");
        if heal {
            assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "DUMP k", "TYPE k", "GET k", "EVAL x 1 k"]);
            stage.answers(Side::Source, b":-1\r\n");
            stage.answers(Side::Source, &dump(0));
        } else {
            assert_eq!(stage.hears(Side::Source), ["TYPE k", "GET k", "EVAL x 1 k"]);
        }
        stage.answers(Side::Source, b"+string\r\n$1\r\n1\r\n:1\r\n");
        let asked = stage.hears(Side::Target);
        assert_eq!(asked.len(), if heal { 3 } else { 2 }, "{asked:?}");
        if heal {
            stage.answers(Side::Target, b"+OK\r\n");
        }
        stage.answers(Side::Target, b"+string\r\n$1\r\n1\r\n");
        assert_eq!(stage.doubts(), Some(vec![!heal, !heal]));
        assert_eq!(stage.dirty(), 1, "by the script behind the probe");
    }
}

/// Whatever a copy in front of it was to make right is not right.
#[test]
fn a_probe_doubts_a_key_whose_copy_the_shadow_refused() {
    let mut stage = Stage::in_step();
    stage.says(1, "EVAL x 1 k");
    stage.answers(Side::Source, b":1\r\n");
    stage.hears(Side::Source);
    let commands = vec![request(&[b"GET", b"k"]).into()];
    stage.order(LaneOrder::Probe { ticket: 3, database: 0, commands, heal: true });
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b"$1\r\n1\r\n");
    stage.answers(Side::Target, b"-OOM command not allowed\r\n$1\r\n0\r\n");
    assert_eq!(stage.doubts(), Some(vec![true]));
}

#[test]
fn a_pass_that_is_over_copies_nothing() {
    let mut stage = Stage::in_step();
    stage.order(LaneOrder::Copy { ticket: 9, pass: 1, database: 0, keys: vec![b"a".as_slice().into()] });
    assert!(stage.hears(Side::Source).is_empty());
    assert!(stage.events().iter().any(|event| matches!(event, LaneEvent::Copied { ticket: 9, clean: 1, .. })));
}
