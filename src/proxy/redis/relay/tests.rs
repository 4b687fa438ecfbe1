//! Scripted dialogues with a relay: what a client and a server send, and what each must get. No sockets, no time.

mod connections;
mod histories;
mod hold;
mod moves;
mod policies;
mod reads;
mod runs;
mod withheld;

use std::sync::Arc;

use super::RedisRelay;
use crate::contract::{
    Arrival, Ask, ClientKey, Failure, Relay, RelaySetup, SharedPolicies, ToCompanion, ToRelay, UpstreamKey,
};
use crate::redis::lane::request::{LaneBatch, LaneItem, LaneMessage, LaneReply};
use base::model::{
    Authority, CompareReads, CoreId, Endpoint, EndpointName, Generation, InterlayName, InterlayProtocol, InterlaySpec,
    PlanMode, ProtocolKind, RoutePlan, Sharing, Side,
};
use base::stdx::clock::Now;
use wire::resp::encode::request;

fn endpoint(name: &str, port: u16) -> Endpoint {
    let name = EndpointName::new(name).expect("a good name");
    Endpoint::from_url(name, ProtocolKind::Redis, &format!("redis://127.0.0.1:{port}")).expect("a good url")
}

fn plan(generation: u64, authority: Authority, mode: PlanMode) -> Arc<RoutePlan> {
    plan_comparing(generation, authority, mode, 0)
}

fn plan_comparing(generation: u64, authority: Authority, mode: PlanMode, share: u16) -> Arc<RoutePlan> {
    Arc::new(RoutePlan {
        interlay: InterlayName::new("orders").expect("a good name"),
        generation: Generation(generation),
        authority,
        source: endpoint("old", 1),
        target: Some(endpoint("new", 2)),
        mode,
        compare: CompareReads { sample_per_ten_thousand: share },
        ttl_grace_ms: 1000,
    })
}

/// A relay with its sockets replaced by this.
struct Stage {
    relay: RedisRelay,
    policies: SharedPolicies,
    /// Connections asked for, in order.
    upstreams: Vec<UpstreamKey>,
    unblocks: usize,
    lists: usize,
    /// What was loaded on connections of the relay's own.
    loaded: Vec<String>,
    /// The flags of connections in the server's list, or its refusal to list them.
    lists_as: Result<&'static str, &'static str>,
    closed_clients: Vec<ClientKey>,
    /// Connections wait in `unconnected` until the test makes them.
    slow: bool,
    unconnected: Vec<(UpstreamKey, Side)>,
    now: Now,
}

impl Stage {
    fn new(mode: PlanMode) -> Self {
        let plan = plan(1, Authority::initial(), mode);
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let spec = InterlaySpec {
            name: plan.interlay.clone(),
            protocol: InterlayProtocol::Redis(Sharing::Auto),
            listen,
            tls: None,
        };
        let (core, policies) = (CoreId(0), SharedPolicies::default());
        let shared = SharedPolicies::clone(&policies);
        let setup = RelaySetup { spec, plan, core, cores: 1, token: 1, seed: [0; 32], policies: shared };
        let relay = RedisRelay::new(setup);
        let (upstreams, closed_clients, unconnected) = (Vec::new(), Vec::new(), Vec::new());
        let now = Now::default();
        let (unblocks, lists, lists_as) = (0, 0, Ok("b"));
        let (loaded, slow) = (Vec::new(), false);
        Self { relay, policies, upstreams, unblocks, lists, loaded, lists_as, closed_clients, slow, unconnected, now }
    }

    fn client(&mut self) -> ClientKey {
        self.relay.client_opened(Arrival { peer: None, now: self.now }).expect("room for a client")
    }

    /// A client sends a line of words per command, as one batch.
    fn says(&mut self, client: ClientKey, lines: &[&str]) {
        let bytes: Vec<u8> =
            lines.iter().flat_map(|line| request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())).collect();
        self.relay.client_input(client, &bytes, self.now);
        self.perform();
    }

    fn perform(&mut self) {
        for ask in self.relay.take_asks() {
            match ask {
                Ask::Connect { upstream, side } if self.slow => self.unconnected.push((upstream, side)),
                Ask::Connect { upstream, .. } => self.connect(upstream),
                Ask::CloseClient(key) => self.closed_clients.push(key),
                _ => {}
            }
        }
    }

    /// Opens and logs in; a connection made only to speak of others is counted and answered, not kept.
    fn connect(&mut self, upstream: UpstreamKey) {
        self.relay.upstream_opened(upstream, self.now);
        let log_in = self.relay.take_upstream_output(upstream, Vec::new()).unwrap_or_default();
        assert!(!self.relay.upstream_ready(upstream));
        let id = 71 + self.upstreams.len();
        for line in lines(&log_in) {
            let reply = if line == "CLIENT ID" { format!(":{id}\r\n") } else { "+OK\r\n".to_owned() };
            self.relay.upstream_input(upstream, reply.as_bytes(), self.now).expect("RESP");
        }
        assert!(self.relay.upstream_ready(upstream));
        let retired = self.relay.shared.upstreams.get(upstream).is_some_and(|own| own.retired);
        if retired {
            let order = self.relay.take_upstream_output(upstream, Vec::new()).unwrap_or_default();
            for line in lines(&order) {
                let answer = if let Some(numbers) = line.strip_prefix("CLIENT LIST ID ") {
                    self.lists += 1;
                    self.list_of(numbers)
                } else if line.starts_with("SCRIPT LOAD ") {
                    self.loaded.push(line);
                    "$3\r\nsha\r\n".to_owned()
                } else {
                    assert!(line.starts_with("CLIENT UNBLOCK 7") && line.ends_with(" ERROR"), "{line}");
                    self.unblocks += 1;
                    ":1\r\n".to_owned()
                };
                self.relay.upstream_input(upstream, answer.as_bytes(), self.now).expect("RESP");
            }
            assert!(self.relay.shared.upstreams.get(upstream).is_none(), "closed behind the answer");
        } else {
            self.upstreams.push(upstream);
        }
    }

    /// What a server says of connections with these numbers.
    fn list_of(&self, numbers: &str) -> String {
        match self.lists_as {
            Err(error) => error.to_owned(),
            Ok(flags) => {
                let line = |number| format!("id={number} addr=127.0.0.1:1 flags={flags} cmd=blpop\n");
                let list: String = numbers.split(' ').map(line).collect();
                format!("${}\r\n{list}\r\n", list.len())
            }
        }
    }

    /// What the n-th server connection has been sent, as lines.
    fn hears(&mut self, nth: usize) -> Vec<String> {
        let Some(&key) = self.upstreams.get(nth) else { return Vec::new() };
        let bytes = self.relay.take_upstream_output(key, Vec::new()).unwrap_or_default();
        self.perform();
        lines(&bytes)
    }

    fn answers(&mut self, nth: usize, bytes: &str) {
        self.relay.upstream_input(self.upstreams[nth], bytes.as_bytes(), self.now).expect("RESP");
        self.perform();
    }

    fn gets(&mut self, client: ClientKey) -> String {
        String::from_utf8(self.relay.take_client_output(client, Vec::new()).unwrap_or_default()).expect("text")
    }

    fn lane(&mut self) -> Vec<LaneBatch> {
        let commands = |message| match message {
            ToCompanion::Lane(LaneMessage::Commands(batch)) => Some(batch),
            ToCompanion::Lane(LaneMessage::Forget { .. } | LaneMessage::Gone { .. }) => None,
        };
        self.relay.take_messages().into_iter().filter_map(commands).collect()
    }

    fn lane_answers(&mut self, client: ClientKey, count: u32, bytes: &str) {
        let reply = LaneReply { client: client.to_u64(), count, bytes: bytes.into(), close: false };
        self.relay.companion_message(ToRelay::Lane(reply));
        self.perform();
    }

    fn publish(&mut self, generation: u64, authority: Authority, mode: PlanMode) {
        self.relay.publish(plan(generation, authority, mode));
        self.perform();
    }
}

/// What a server answers a blocking command that CLIENT UNBLOCK … ERROR ended.
const UNBLOCKED: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

fn lines(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(len) = wire::resp::frame::reply_len(bytes) {
        let words: Vec<_> =
            wire::resp::Args::new(&bytes[..len]).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        lines.push(words.join(" "));
        bytes = &bytes[len..];
    }
    lines
}

#[test]
fn two_clients_share_a_connection_and_get_their_own_replies() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["GET a", "GET b"]);
    stage.says(b, &["GET c"]);
    assert_eq!(stage.hears(0), ["GET a", "GET b", "GET c"]);
    assert_eq!(stage.upstreams.len(), 1);
    stage.answers(0, "$1\r\n1\r\n$1\r");
    assert_eq!(stage.gets(a), "$1\r\n1\r\n$1\r");
    stage.answers(0, "\n2\r\n:3\r\n");
    assert_eq!((stage.gets(a).as_str(), stage.gets(b).as_str()), ("\n2\r\n", ":3\r\n"));
}

#[test]
fn a_change_of_database_waits_for_its_reply_and_takes_another_connection() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["SET k 0", "SELECT 1", "SET k 1"]);
    assert_eq!(stage.hears(0), ["SET k 0"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.hears(1), ["SELECT 1"], "only after its own reply is in");
    stage.answers(1, "+OK\r\n");
    assert_eq!(stage.hears(1), ["SET k 1"]);
    stage.answers(1, "+OK\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n+OK\r\n+OK\r\n");
}

#[test]
fn a_refused_select_changes_nothing() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["SELECT 99", "GET k"]);
    let upstream = stage.upstreams[0];
    stage.relay.upstream_failed(upstream, &Failure::Refused(b"-ERR DB index is out of range\r\n".to_vec()));
    stage.perform();
    assert_eq!(stage.hears(1), ["GET k"], "on database 0");
    assert_eq!(stage.gets(client), "-ERR DB index is out of range\r\n");
}

#[test]
fn a_transaction_has_a_connection_of_its_own_until_exec() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["MULTI", "INCR k"]);
    stage.says(b, &["GET k"]);
    assert_eq!(stage.hears(0), ["MULTI", "INCR k"]);
    assert_eq!(stage.hears(1), ["GET k"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    stage.says(a, &["EXEC"]);
    stage.answers(0, "*1\r\n:1\r\n");
    assert_eq!(stage.gets(a), "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    stage.says(b, &["WATCH k"]);
    assert_eq!(stage.hears(0), ["EXEC"], "the connection is clean");
    stage.answers(1, ":1\r\n");
    assert_eq!(stage.hears(0), ["WATCH k"], "and serves the next that needs one");
}

#[test]
fn a_lost_connection_ends_the_clients_whose_outcome_is_unknown_and_only_those() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["SET k 1"]);
    stage.hears(0);
    let upstream = stage.upstreams[0];
    stage.relay.upstream_failed(upstream, &Failure::Lost("reset".to_owned()));
    stage.perform();
    assert_eq!(stage.closed_clients, [a]);
    stage.says(b, &["GET k"]);
    assert_eq!(stage.hears(1), ["GET k"]);
}

#[test]
fn an_unreachable_server_is_named_and_the_client_stays() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["GET k"]);
    let upstream = stage.upstreams[0];
    stage.relay.upstream_failed(upstream, &Failure::Unreachable("refused".to_owned()));
    stage.perform();
    let reply = stage.gets(client);
    assert!(reply.starts_with("-LOADING Crossfade cannot reach source 'old': refused"), "{reply}");
    assert!(stage.closed_clients.is_empty());
}

#[test]
fn half_a_frame_waits_and_garbage_is_answered_as_redis_does() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let (a, b) = (stage.client(), stage.client());
    stage.relay.client_input(a, b"*2\r\n$3\r\nGE", Now::default());
    assert_eq!(stage.upstreams.len(), 0);
    stage.relay.client_input(b, b"*1\r\n:1\r\n", Now::default());
    assert_eq!(stage.gets(b), "-ERR Protocol error: expected '$', got ':'\r\n");
    assert!(stage.relay.client_written(b), "closed once that is sent");
    stage.relay.client_input(a, b"T\r\n$1\r\nk\r\n", Now::default());
    stage.perform();
    assert_eq!(stage.hears(0), ["GET k"]);
}

#[test]
fn a_client_that_sends_no_more_gets_what_it_has_asked_for() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    // EXEC waits here for the replies before it: what was sent last may not be lost either.
    stage.says(client, &["MULTI", "SELECT 1", "EXEC", "PING"]);
    assert!(!stage.relay.client_ended(client));
    assert!(!stage.relay.client_written(client), "replies are outstanding");
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    assert!(!stage.relay.client_written(client));
    stage.answers(0, "*1\r\n+OK\r\n+PONG\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n+PONG\r\n");
    assert!(stage.relay.client_written(client), "closed once that is sent");
    assert!(!stage.relay.may_read_client(client));

    let idle = stage.client();
    assert!(!stage.relay.client_ended(idle));
    assert!(stage.relay.client_written(idle), "closed at once");
    let [blocked, subscribed] = [(); 2].map(|()| stage.client());
    stage.says(blocked, &["BLPOP l 0", "PING"]);
    stage.says(subscribed, &["SUBSCRIBE c"]);
    assert!(stage.relay.may_read_client(blocked), "that it goes away is noticed");
    assert!(stage.relay.client_ended(blocked) && stage.relay.client_ended(subscribed), "nothing that ends by itself");
}

#[test]
fn a_stranger_that_waits_for_a_check_goes_on_under_another_plan() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let [first, second] = [(); 2].map(|()| stage.client());
    stage.says(first, &["GET k"]);
    stage.answers(0, "$-1\r\n");
    stage.relay.shared.strangers.checked_us = None;
    // Its connection is not made before the plan changes.
    stage.relay.client_input(second, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", Now::default());
    assert!(stage.relay.shared.strangers.checking.is_some(), "it waits for a fresh connection");
    stage.relay.take_asks();
    stage.publish(2, Authority::initial().flipped(), PlanMode::PassThrough);
    assert_eq!(stage.relay.shared.strangers.waiting.len(), 0);
    let pools = &stage.relay.shared.upstreams.shared;
    assert!(pools.iter().any(|(pool, _)| pool.side == Side::Target), "it is on its way to the new authority");
}

#[test]
fn the_shadow_is_given_scripts_before_a_flip_needs_them() {
    let mut stage = Stage::new(PlanMode::Followed);
    stage.slow = true;
    let client = stage.client();
    stage.says(client, &["EVAL one 0", "EVAL two 0", "EVAL one 0"]);
    for expected in [&["SCRIPT LOAD one"][..], &["SCRIPT LOAD one", "SCRIPT LOAD two"]] {
        let at = stage.unconnected.iter().position(|(_, side)| *side == Side::Target).expect("one to the shadow");
        let (preload, _) = stage.unconnected.remove(at);
        assert!(stage.unconnected.iter().all(|(_, side)| *side == Side::Source), "one at a time");
        stage.connect(preload);
        stage.perform();
        assert_eq!(stage.loaded, expected);
    }
    stage.says(client, &["EVAL three 0"]);
    let (preload, side) = stage.unconnected.pop().expect("one more");
    assert_eq!(side, Side::Target);
    // The shadow is away: the flip loads what is missing, and clients lose nothing.
    stage.relay.upstream_failed(preload, &Failure::Unreachable("no route".to_owned()));
    stage.perform();
    assert!(stage.relay.shared.kept.preloading.is_none() && stage.closed_clients.is_empty());
    stage.loaded.clear();
    stage.slow = false;
    stage.publish(2, Authority::initial().flipped(), PlanMode::Followed);
    assert_eq!(stage.loaded, ["SCRIPT LOAD one", "SCRIPT LOAD two", "SCRIPT LOAD three"]);
}

#[test]
fn a_browser_is_closed_before_anything_of_its_body_runs() {
    for begin in ["POST / HTTP/1.1", "GET / HTTP/1.1\r\nHost: example.com", "post", "HOST: x"] {
        let mut stage = Stage::new(PlanMode::PassThrough);
        let [browser, other] = [(); 2].map(|()| stage.client());
        stage.says(other, &["GET k"]);
        stage.hears(0);
        let sent = format!("{begin}\r\nSET a b\r\n\r\n");
        stage.relay.client_input(browser, sent.as_bytes(), Now::default());
        stage.perform();
        let heard = stage.hears(0);
        assert!(heard.iter().all(|command| command.starts_with("GET /")), "{begin}: {heard:?}");
        stage.answers(0, "$-1\r\n");
        assert_eq!(stage.gets(other), "$-1\r\n");
        if !heard.is_empty() {
            stage.answers(0, "-ERR wrong number of arguments for 'get' command\r\n");
            assert!(stage.gets(browser).starts_with("-ERR wrong number"), "what it asked for before is answered");
        }
        assert!(stage.relay.client_written(browser), "{begin}");
        assert_eq!((stage.gets(browser).as_str(), stage.hears(0).len()), ("", 0));
    }
}

#[test]
fn client_reply_off_drops_replies_and_keeps_order() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["CLIENT REPLY OFF", "SET k 1", "CLIENT REPLY ON", "GET k"]);
    stage.answers(0, "+OK\r\n");
    stage.answers(0, "$1\r\n1\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n$1\r\n1\r\n");
}

#[test]
fn a_change_of_database_is_made_although_its_reply_is_not_wanted() {
    for asked in [["CLIENT REPLY SKIP", "SELECT 1", "SET k 1"].as_slice(), &["CLIENT REPLY OFF", "SELECT 1", "SET k 1"]]
    {
        let mut stage = Stage::new(PlanMode::PassThrough);
        let client = stage.client();
        stage.says(client, asked);
        assert_eq!(stage.hears(0), ["SELECT 1"]);
        stage.answers(0, "+OK\r\n");
        assert_eq!(stage.hears(0), ["SET k 1"], "on the connection to database 1");
        assert_eq!(stage.gets(client), "", "and nothing is said of it");
        assert_eq!(stage.upstreams.len(), 1);
    }
}

#[test]
fn in_dual_operation_writes_and_what_follows_them_go_through_the_lane() {
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    stage.says(client, &["GET a", "SET a 1", "GET a"]);
    assert_eq!(stage.hears(0), ["GET a"]);
    assert!(stage.lane().is_empty(), "one path at a time");
    stage.answers(0, "$-1\r\n");
    let batches = stage.lane();
    assert_eq!(batches.len(), 1);
    assert_eq!(lines(&batches[0].frames), ["SET a 1", "GET a"], "the read behind the write too");
    stage.lane_answers(client, 2, "+OK\r\n$1\r\n1\r\n");
    assert_eq!(stage.gets(client), "$-1\r\n+OK\r\n$1\r\n1\r\n");
    stage.says(client, &["GET a"]);
    assert_eq!(stage.hears(0), ["GET a"], "alone it is local again");
}

/// The lane runs under Crossfade's own log-in; what an ACL user may read, its own connection finds out.
#[test]
fn reads_of_an_acl_user_never_enter_the_lane() {
    let mut stage = Stage::new(PlanMode::Dual);
    stage.relay.publish(plan_comparing(2, Authority::initial(), PlanMode::Dual, 10_000));
    stage.perform();
    let client = stage.client();
    stage.says(client, &["AUTH reader secret"]);
    assert_eq!(stage.hears(0), ["AUTH reader secret"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.gets(client), "+OK\r\n");
    stage.says(client, &["GET a", "GET b", "SET a 1", "GET c"]);
    let own = stage.upstreams.len() - 1;
    assert_eq!(stage.hears(own), ["GET a", "GET b"]);
    stage.answers(own, "$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(stage.hears(own), ["GET c"]);
    assert!(stage.lane().is_empty());
    let got = stage.gets(client);
    assert!(got.starts_with("$1\r\n1\r\n$1\r\n2\r\n-NOPERM Crossfade"), "{got}");
}

#[test]
fn a_block_is_queued_here_and_enters_the_lane_whole() {
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    stage.says(client, &["MULTI", "INCR a", "GET", "EXEC"]);
    let reply = stage.gets(client);
    assert!(reply.starts_with("+OK\r\n+QUEUED\r\n-ERR wrong number") && reply.ends_with("errors.\r\n"), "{reply}");
    assert!(stage.lane().is_empty());
    stage.says(client, &["MULTI", "INCR a", "INCR b", "EXEC"]);
    let batches = stage.lane();
    assert!(matches!(&batches[0].items[..], [LaneItem::Transaction { commands, .. }] if commands.len() == 2));
    assert_eq!(lines(&batches[0].frames), ["INCR a", "INCR b"]);
}

#[test]
fn what_cannot_be_kept_in_step_is_refused_by_name() {
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    for (line, word) in [("SWAPDB 0 1", "support SWAPDB"), ("JSON.SET k . 1", "know JSON.SET")] {
        stage.says(client, &[line]);
        let reply = stage.gets(client);
        assert!(reply.starts_with(&format!("-ERR Crossfade does not {word}")), "{reply}");
    }
    assert!(stage.lane().is_empty());
}

#[test]
fn a_plan_is_acked_only_when_the_old_plans_commands_are_answered() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let (a, b) = (stage.client(), stage.client());
    stage.says(a, &["SET k 1"]);
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    assert_eq!(stage.relay.take_acked_plan(), None, "SET k 1 may still run outside the lane");
    stage.says(b, &["SET k 2"]);
    assert_eq!(stage.lane().len(), 1, "the new plan holds for new commands at once");
    stage.says(a, &["SET k 3"]);
    assert!(stage.lane().is_empty(), "but not in front of the client's own older one");
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.relay.take_acked_plan(), Some(Generation(2)));
    assert_eq!(stage.lane().len(), 1);
}

#[test]
fn a_second_plan_does_not_ack_for_the_first() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["SET k 1"]);
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    stage.publish(3, Authority::initial(), PlanMode::Dual);
    assert_eq!(stage.relay.take_acked_plan(), None, "SET k 1 is still outstanding");
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.relay.take_acked_plan(), Some(Generation(3)));
}

#[test]
fn an_open_block_moves_from_the_server_into_the_queue() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["MULTI", "INCR k"]);
    stage.answers(0, "+OK\r\n+QUEUED\r\n");
    stage.hears(0);
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    assert_eq!(stage.hears(0), ["DISCARD"]);
    stage.answers(0, "+OK\r\n");
    assert_eq!(stage.relay.take_acked_plan(), Some(Generation(2)));
    stage.says(client, &["INCR k", "EXEC"]);
    assert_eq!(lines(&stage.lane()[0].frames), ["INCR k", "INCR k"]);
}

#[test]
fn a_blocked_client_goes_on_waiting_in_the_lane() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["BLPOP l 0"]);
    assert_eq!(stage.hears(0), ["BLPOP l 0"]);
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    assert_eq!(stage.unblocks, 1);
    assert_eq!(stage.relay.take_acked_plan(), None);
    stage.answers(0, UNBLOCKED);
    assert_eq!(stage.relay.take_acked_plan(), Some(Generation(2)));
    let batches = stage.lane();
    assert!(matches!(batches[0].items[..], [LaneItem::Blocking { .. }]));
    assert_eq!(stage.gets(client), "", "the client has seen nothing of it");
    stage.says(client, &["PING"]);
    stage.lane_answers(client, 1, "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
    assert_eq!(stage.gets(client), "*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
    assert_eq!(stage.hears(1), ["PING"], "what it sent while blocked comes after");
}

#[test]
fn a_watch_does_not_survive_a_change_of_plan() {
    let mut stage = Stage::new(PlanMode::PassThrough);
    let client = stage.client();
    stage.says(client, &["WATCH k"]);
    stage.answers(0, "+OK\r\n");
    stage.publish(2, Authority::initial(), PlanMode::Dual);
    stage.says(client, &["MULTI", "SET k 1", "EXEC"]);
    assert!(stage.lane().is_empty());
    assert!(stage.gets(client).ends_with("+QUEUED\r\n*-1\r\n"), "EXEC aborts, as after a touched key");
}

#[test]
fn after_a_flip_reads_go_to_the_other_side() {
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    stage.says(client, &["GET k"]);
    stage.answers(0, "$1\r\n1\r\n");
    stage.relay.publish(plan(2, Authority::initial().flipped(), PlanMode::Dual));
    stage.relay.client_input(client, &request(&[b"GET", b"k"]), Now::default());
    let sides: Vec<_> = stage
        .relay
        .take_asks()
        .into_iter()
        .filter_map(|ask| match ask {
            Ask::Connect { side, .. } => Some(side),
            _ => None,
        })
        .collect();
    assert_eq!(sides, [Side::Target]);
}

#[test]
fn a_subscriber_is_moved_to_the_other_side_and_notices_nothing() {
    let mut stage = Stage::new(PlanMode::Dual);
    let client = stage.client();
    stage.says(client, &["SUBSCRIBE a b", "UNSUBSCRIBE a", "PSUBSCRIBE p*"]);
    assert_eq!(stage.hears(0).len(), 3);
    let of = |word: &str, channel: &str, count: u8| {
        format!("*3\r\n${}\r\n{word}\r\n${}\r\n{channel}\r\n:{count}\r\n", word.len(), channel.len())
    };
    stage.answers(0, &[of("subscribe", "a", 1), of("subscribe", "b", 2)].concat());
    assert!(stage.gets(client).contains("subscribe"));
    stage.publish(2, Authority::initial().flipped(), PlanMode::Dual);
    let again = ["subscribe a", "subscribe b", "unsubscribe a", "psubscribe p*"];
    assert_eq!(stage.hears(1), again, "what is subscribed to, and then what was not confirmed");
    let confirmed = of("subscribe", "a", 1);
    let (begin, end) = confirmed.split_at(20);
    stage.answers(1, begin);
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1\r\nx\r\n";
    stage.answers(1, &format!("{end}{}{message}", of("subscribe", "b", 2)));
    assert_eq!(stage.gets(client), message, "messages, no confirmations of what was confirmed before");
    let rest = [of("unsubscribe", "a", 1), of("psubscribe", "p*", 2)].concat();
    stage.answers(1, &rest);
    assert_eq!(stage.gets(client), rest);
    assert!(stage.closed_clients.is_empty());
}

proptest::proptest! {
    #[test]
    fn no_bytes_of_a_client_make_the_relay_panic(chunks: Vec<Vec<u8>>) {
        for mode in [PlanMode::PassThrough, PlanMode::Dual] {
            let mut stage = Stage::new(mode);
            let client = stage.client();
            for chunk in &chunks {
                stage.relay.client_input(client, chunk, Now::default());
                stage.perform();
            }
            stage.relay.client_closed(client);
        }
    }
}
