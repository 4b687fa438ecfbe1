//! Scripted dialogues with a PostgreSQL relay: what a client and a server send, and what each must get. No sockets, no time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PostgresRelay;
use crate::contract::{Arrival, Ask, ClientKey, Failure, Interrupt, Relay, RelaySetup, SharedPolicies, UpstreamKey};
use base::model::{
    AllowReplication, AuthMode, Authority, CompareReads, CoreId, Endpoint, EndpointName, Generation, InterlayName,
    InterlayProtocol, InterlaySpec, PlanMode, PostgresSpec, ProtocolKind, RoutePlan, SessionState, StoredSecret,
};
use base::stdx::clock::Now;
use bus::{HoldEvent, HoldOrder};
use wire::postgres::encode::{self, More};
use wire::postgres::scram::{ScramClient, ScramServer, TlsEnds, verifier_from_password};
use wire::postgres::startup::build_startup;
use wire::postgres::{HEAD_BYTES, Head, client_head, server_head};

const SALT: [u8; 16] = [7; 16];
const REAL_BACKEND: (u32, &[u8]) = (4711, &[1, 2, 3, 4]);

fn plan() -> Arc<RoutePlan> {
    let url = "postgres://keeper:kept@127.0.0.1:5432/postgres?sslmode=disable";
    let source = Endpoint::from_url(EndpointName::new("old").unwrap(), ProtocolKind::Postgres, url).unwrap();
    Arc::new(RoutePlan {
        interlay: InterlayName::new("app").unwrap(),
        generation: Generation(1),
        authority: Authority::initial(),
        source,
        target: None,
        mode: PlanMode::PassThrough,
        compare: CompareReads { sample_per_ten_thousand: 0 },
        ttl_grace_ms: 0,
    })
}

/// A relay with its sockets replaced by this.
struct Stage {
    relay: PostgresRelay,
    /// Server connections asked for, in order.
    servers: Vec<UpstreamKey>,
    closed_clients: Vec<ClientKey>,
    closed_servers: Vec<UpstreamKey>,
    handed: Vec<(CoreId, Interrupt)>,
    now: Now,
}

fn frames(mut bytes: &[u8]) -> Vec<(char, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Head::Frame { tag, body_len } = server_head(bytes) {
        frames.push((char::from(tag), bytes[HEAD_BYTES..HEAD_BYTES + body_len].to_vec()));
        bytes = &bytes[HEAD_BYTES + body_len..];
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    frames
}

fn tags(bytes: &[u8]) -> String {
    frames(bytes).into_iter().map(|(tag, _)| tag).collect()
}

fn client_tags(mut bytes: &[u8]) -> String {
    let mut tags = String::new();
    while let Head::Frame { tag, body_len } = client_head(bytes) {
        tags.push(char::from(tag));
        bytes = &bytes[HEAD_BYTES + body_len..];
    }
    tags
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::query(&mut out, sql);
    out
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn done(tag: &str, status: u8) -> Vec<u8> {
    let mut out = frame(b'C', format!("{tag}\0").as_bytes());
    encode::ready_for_query(&mut out, status);
    out
}

impl Stage {
    fn new(auth: AuthMode, users: &[(&str, StoredSecret)]) -> Self {
        let users: BTreeMap<_, _> = users.iter().map(|(user, secret)| ((*user).to_owned(), secret.clone())).collect();
        let postgres =
            PostgresSpec { auth, users: Arc::new(users), auth_query: None, replication: AllowReplication::No };
        Self::with(postgres)
    }

    fn with(postgres: PostgresSpec) -> Self {
        let plan = plan();
        let spec = InterlaySpec {
            name: plan.interlay.clone(),
            protocol: InterlayProtocol::Postgres(postgres.clone()),
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
        };
        let (core, policies) = (CoreId(1), SharedPolicies::default());
        let relay =
            PostgresRelay::new(RelaySetup { spec, plan, core, cores: 2, token: 1, seed: [9; 32], policies }, postgres);
        Self {
            relay,
            servers: Vec::new(),
            closed_clients: Vec::new(),
            closed_servers: Vec::new(),
            handed: Vec::new(),
            now: Now { wall_ms: 0, mono_us: 1000 },
        }
    }

    fn client(&mut self) -> ClientKey {
        self.relay.client_opened(Arrival { peer: None, now: self.now }).expect("room for a client")
    }

    fn perform(&mut self) {
        for ask in self.relay.take_asks() {
            match ask {
                Ask::Connect { upstream, .. } => {
                    self.servers.push(upstream);
                    self.relay.upstream_opened(upstream, self.now);
                }
                Ask::CloseClient(key) => self.closed_clients.push(key),
                Ask::CloseUpstream(key) => self.closed_servers.push(key),
                Ask::Hand { to, interrupt } => self.handed.push((to, interrupt)),
                Ask::SecureClient { .. } | Ask::SecureUpstream { .. } | Ask::ReadClient(_) | Ask::ReadUpstream(_) => {}
            }
        }
    }

    fn says(&mut self, client: ClientKey, bytes: &[u8]) {
        self.relay.client_input(client, bytes, self.now);
        self.perform();
    }

    fn gets(&mut self, client: ClientKey) -> Vec<u8> {
        self.relay.take_client_output(client, Vec::new()).unwrap_or_default()
    }

    fn hears(&mut self, nth: usize) -> Vec<u8> {
        let key = self.servers[nth];
        let heard = self.relay.take_upstream_output(key, Vec::new()).unwrap_or_default();
        self.perform();
        heard
    }

    fn answers(&mut self, nth: usize, bytes: &[u8]) {
        self.relay.upstream_input(self.servers[nth], bytes, self.now).expect("PostgreSQL's protocol");
        self.perform();
    }

    /// The n-th server lets its client in.
    fn lets_in(&mut self, nth: usize) {
        let mut out = Vec::new();
        encode::authentication_ok(&mut out);
        encode::parameter_status(&mut out, b"server_version", b"15.1");
        encode::backend_key_data(&mut out, REAL_BACKEND.0, REAL_BACKEND.1);
        encode::ready_for_query(&mut out, b'I');
        self.answers(nth, &out);
    }

    /// A client that is in and has heard its greeting.
    fn ready_client(&mut self) -> (ClientKey, usize) {
        let client = self.client();
        self.says(client, &build_startup(0, &[("user", "app"), ("database", "db"), ("application_name", "test")]));
        let nth = self.servers.len() - 1;
        self.hears(nth);
        self.lets_in(nth);
        assert_eq!(tags(&self.gets(client)), "RSKZ");
        (client, nth)
    }

    fn gate(&mut self, order: HoldOrder) -> Vec<(u64, HoldEvent)> {
        Relay::hold(&mut self.relay, order, self.now).expect("a hold");
        self.perform();
        self.relay.take_hold_events()
    }

    fn state_of(&self, client: ClientKey) -> SessionState {
        self.relay.sessions.get(client).expect("a session").state()
    }
}

fn trusting() -> Stage {
    Stage::new(AuthMode::Trust, &[])
}

fn message(frame: &(char, Vec<u8>)) -> String {
    frame.1.split(|&b| b == 0).map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_session_is_logged_in_with_a_key_of_its_own_and_then_bytes_pass_as_they_are() {
    let mut stage = trusting();
    let client = stage.client();
    let startup = build_startup(0, &[("user", "app"), ("options", "-c x.y=1")]);
    stage.says(client, &startup);
    assert_eq!(stage.hears(0), startup, "the server gets the client's own packet");
    stage.lets_in(0);
    let greeting = frames(&stage.gets(client));
    let key = &greeting.iter().find(|(tag, _)| *tag == 'K').expect("a key").1;
    assert_ne!(key[..4], REAL_BACKEND.0.to_be_bytes(), "the backend's own id stays here");
    assert_eq!(u32::from_be_bytes(key[..4].try_into().unwrap()) % 2, 1, "it names core 1 of 2");
    assert_eq!(key.len(), 8);
    let select = query("SELECT 1");
    stage.says(client, &select);
    assert_eq!(stage.hears(0), select);
    let mut answer = frame(b'D', &[0; 600]);
    answer.extend_from_slice(&done("SELECT 1", b'I'));
    for byte in &answer {
        stage.answers(0, &[*byte]);
    }
    assert_eq!(stage.gets(client), answer);
}

#[test]
fn protocol_3_2_is_spoken_with_the_client_and_3_0_with_the_server() {
    let mut stage = trusting();
    let client = stage.client();
    stage.says(client, &build_startup(9999, &[("user", "app"), ("_pq_.x", "1")]));
    let negotiated = frames(&stage.gets(client));
    assert_eq!(negotiated.len(), 1);
    assert_eq!(negotiated[0].0, 'v');
    assert!(message(&negotiated[0]).contains("_pq_.x"), "{negotiated:?}");
    let startup = stage.hears(0);
    assert_eq!(startup[4..8], [0, 3, 0, 0]);
    assert!(!startup.windows(4).any(|part| part == b"_pq_"));
    stage.lets_in(0);
    let greeting = frames(&stage.gets(client));
    assert_eq!(greeting.iter().find(|(tag, _)| *tag == 'K').expect("a key").1.len(), 4 + 32);
}

/// A client proves itself by SCRAM; the server holds the same verifier and no password is known in between.
#[test]
fn a_proof_for_crossfade_logs_in_to_the_server() {
    let verifier = verifier_from_password(b"pencil", &SALT, 4096);
    let mut stage = Stage::new(AuthMode::Scram, &[("app", StoredSecret::Scram(verifier.clone()))]);
    let client = stage.client();
    stage.says(client, &build_startup(0, &[("user", "app")]));
    assert_eq!(tags(&stage.gets(client)), "R");
    let mut scram = ScramClient::with_password(b"pencil", [1; 18]);
    let mut out = Vec::new();
    encode::sasl_initial_response(&mut out, "SCRAM-SHA-256", &scram.client_first());
    stage.says(client, &out);
    let first = frames(&stage.gets(client));
    let mut out = Vec::new();
    encode::sasl_response(&mut out, &scram.client_final(&first[0].1[4..]).unwrap());
    stage.says(client, &out);
    let last = frames(&stage.gets(client));
    scram.check_server_final(&last[0].1[4..]).expect("Crossfade knows the verifier");
    assert_eq!(last.len(), 1, "whether it is let in is the server's word");
    // And now the server.
    stage.hears(0);
    let mut server = ScramServer::new(verifier, [2; 18], TlsEnds::Nowhere);
    let mut out = Vec::new();
    encode::authentication_sasl(&mut out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
    stage.answers(0, &out);
    let initial = stage.hears(0);
    let (_, data) = wire::postgres::auth::sasl_initial(&initial[HEAD_BYTES..]).unwrap();
    let mut out = Vec::new();
    encode::authentication_sasl_continue(&mut out, &server.first(data.unwrap()).unwrap());
    stage.answers(0, &out);
    let proof = stage.hears(0);
    let (signature, _) = server.last(&proof[HEAD_BYTES..]).expect("the key is as good as the password");
    let mut out = Vec::new();
    encode::authentication_sasl_final(&mut out, &signature);
    stage.answers(0, &out);
    stage.lets_in(0);
    assert_eq!(tags(&stage.gets(client)), "RSKZ");
}

#[test]
fn a_server_that_does_not_prove_itself_is_not_believed() {
    let password = StoredSecret::Plain(base::model::Secret::new(b"pencil"));
    let mut stage = Stage::new(AuthMode::Trust, &[("app", password)]);
    let client = stage.client();
    stage.says(client, &build_startup(0, &[("user", "app")]));
    stage.hears(0);
    let mut out = Vec::new();
    encode::authentication_sasl(&mut out, &["SCRAM-SHA-256"]);
    stage.answers(0, &out);
    stage.lets_in(0);
    let told = frames(&stage.gets(client));
    assert!(message(&told[0]).contains("without proving"), "{told:?}");
    assert_eq!(stage.closed_servers.len(), 1);
}

#[test]
fn a_wrong_password_and_an_unknown_user_hear_the_same() {
    let verifier = verifier_from_password(b"pencil", &SALT, 4096);
    let mut stage = Stage::new(AuthMode::Scram, &[("app", StoredSecret::Scram(verifier))]);
    let mut heard = Vec::new();
    for user in ["app", "nobody"] {
        let client = stage.client();
        stage.says(client, &build_startup(0, &[("user", user)]));
        let mut scram = ScramClient::with_password(b"wrong", [1; 18]);
        let asked = tags(&stage.gets(client));
        let mut out = Vec::new();
        encode::sasl_initial_response(&mut out, "SCRAM-SHA-256", &scram.client_first());
        stage.says(client, &out);
        let first = frames(&stage.gets(client));
        let mut out = Vec::new();
        encode::sasl_response(&mut out, &scram.client_final(&first[0].1[4..]).unwrap());
        stage.says(client, &out);
        let told = frames(&stage.gets(client));
        assert!(stage.relay.client_written(client), "closed once that is sent");
        heard.push((asked, message(&told[0]).replace(user, "U")));
    }
    assert_eq!(heard[0], heard[1]);
    assert!(heard[0].1.contains("28P01") && heard[0].1.contains("password authentication failed for user \"U\""));
    assert!(stage.servers.is_empty(), "the server hears nothing of it");
}

#[test]
fn a_closed_gate_holds_the_idle_and_lets_transactions_end() {
    let mut stage = trusting();
    let (idle, idle_server) = stage.ready_client();
    let (open, open_server) = stage.ready_client();
    stage.says(open, &query("BEGIN"));
    stage.hears(open_server);
    stage.answers(open_server, &done("BEGIN", b'T'));
    assert_eq!(stage.gate(HoldOrder::Begin { ticket: 7 }), [], "a transaction is open");
    stage.now.mono_us += 500;
    stage.says(idle, &query("SELECT 1"));
    assert_eq!((stage.hears(idle_server), stage.relay.may_read_client(idle)), (Vec::new(), false));
    assert_eq!(stage.state_of(idle), SessionState::Held);
    let list = stage.relay.sessions(stage.now);
    assert_eq!((list.total, list.busy, list.sessions[0].state), (2, 1, SessionState::IdleInTransaction));
    assert_eq!(list.sessions[0].application, "test");
    for (sql, tag, status) in [("INSERT", "INSERT 0 1", b'T'), ("COMMIT", "COMMIT", b'I')] {
        stage.says(open, &query(sql));
        assert_eq!(client_tags(&stage.hears(open_server)), "Q", "{sql} goes on");
        stage.answers(open_server, &done(tag, status));
    }
    assert_eq!(stage.relay.take_hold_events(), [(7, HoldEvent::Drained)]);
    stage.says(open, &query("BEGIN"));
    assert_eq!(stage.hears(open_server), Vec::<u8>::new(), "the next unit waits");
    stage.now.mono_us += 1500;
    let opened = stage.gate(HoldOrder::Release { ticket: 8 });
    assert_eq!(opened, [(8, HoldEvent::Released { held: 2, longest_hold_us: 1500 })]);
    assert_eq!(client_tags(&stage.hears(idle_server)), "Q");
    assert_eq!(client_tags(&stage.hears(open_server)), "Q");
    assert_eq!(stage.relay.shared.hold.units, 2);
}

#[test]
fn an_order_to_open_that_comes_late_does_not_end_a_newer_pause() {
    let mut stage = trusting();
    let (client, _) = stage.ready_client();
    stage.gate(HoldOrder::Begin { ticket: 5 });
    assert_eq!(stage.gate(HoldOrder::Release { ticket: 4 }), []);
    stage.says(client, &query("SELECT 1"));
    assert_eq!(stage.state_of(client), SessionState::Held);
    assert!(matches!(stage.gate(HoldOrder::Release { ticket: 6 })[..], [(6, HoldEvent::Released { held: 1, .. })]));
}

#[test]
fn a_pipeline_is_cut_at_its_syncs_when_the_gate_is_closed() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    let mut batch = Vec::new();
    encode::query_with_parameter(&mut batch, "SELECT $1", b"x");
    stage.says(client, &batch);
    assert_eq!(client_tags(&stage.hears(server)), "PBES");
    assert_eq!(stage.gate(HoldOrder::Begin { ticket: 1 }), []);
    stage.says(client, &batch);
    assert_eq!(stage.hears(server), Vec::<u8>::new(), "what would follow depends on the answer");
    let mut answer = frame(b'1', b"");
    answer.extend_from_slice(&frame(b'2', b""));
    answer.extend_from_slice(&done("SELECT 1", b'I'));
    stage.answers(server, &answer);
    assert_eq!(stage.relay.take_hold_events(), [(1, HoldEvent::Drained)]);
    assert_eq!((stage.hears(server), stage.state_of(client)), (Vec::new(), SessionState::Held));
    stage.gate(HoldOrder::Release { ticket: 2 });
    assert_eq!(client_tags(&stage.hears(server)), "PBES");
    // The same inside a transaction: what follows is let through once the answer says so.
    stage.answers(server, &answer[..answer.len() - 1]);
    stage.gate(HoldOrder::Begin { ticket: 3 });
    stage.says(client, &batch);
    assert_eq!(stage.hears(server), Vec::<u8>::new());
    stage.answers(server, b"T");
    assert_eq!(client_tags(&stage.hears(server)), "PBES");
}

#[test]
fn a_log_in_waits_at_a_closed_gate_too() {
    let mut stage = trusting();
    assert_eq!(stage.gate(HoldOrder::Shut { ticket: 1 }), [(1, HoldEvent::Drained)]);
    let client = stage.client();
    stage.says(client, &build_startup(0, &[("user", "app")]));
    assert!(stage.servers.is_empty());
    stage.gate(HoldOrder::Release { ticket: 2 });
    assert_eq!(stage.servers.len(), 1);
    assert_eq!(stage.gate(HoldOrder::Begin { ticket: 3 }), [(3, HoldEvent::Drained)], "a log-in is no unit of work");
    assert_eq!(stage.gate(HoldOrder::Shut { ticket: 4 }), [], "and is under way on the server");
    stage.lets_in(0);
    assert_eq!(stage.relay.take_hold_events(), [(4, HoldEvent::Drained)]);
    stage.gate(HoldOrder::Release { ticket: 5 });
    stage.gate(HoldOrder::Begin { ticket: 6 });
    // While others are only coming to an end it is let in: whoever waits for it may have a transaction open elsewhere.
    let client = stage.client();
    stage.says(client, &build_startup(0, &[("user", "app")]));
    assert_eq!(stage.servers.len(), 2);
    assert_eq!(stage.gate(HoldOrder::Shut { ticket: 7 }), []);
    stage.lets_in(1);
    assert_eq!(stage.relay.take_hold_events(), [(7, HoldEvent::Drained)]);
    stage.gets(client);
    stage.says(client, &query("SELECT 1"));
    assert_eq!(stage.state_of(client), SessionState::Held);
}

#[test]
fn a_statement_whose_client_is_gone_still_holds_the_gate() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    stage.says(client, &query("UPDATE accounts SET balance = 0"));
    stage.relay.client_closed(client);
    stage.perform();
    assert!(stage.closed_servers.is_empty(), "it still runs there");
    assert_eq!(stage.gate(HoldOrder::Begin { ticket: 1 }), []);
    assert!(stage.relay.sessions(stage.now).sessions[0].application.contains("client gone"));
    stage.answers(server, &done("UPDATE 9", b'I'));
    assert_eq!(stage.relay.take_hold_events(), [(1, HoldEvent::Drained)]);
    assert_eq!((stage.closed_servers.len(), stage.relay.sessions.len()), (1, 0));
}

#[test]
fn every_way_out_gives_the_gate_its_count_back() {
    type Way = (&'static str, fn(&mut Stage, ClientKey, usize));
    let ways: [Way; 9] = [
        ("client closes inside a transaction", |stage, client, server| {
            stage.answers(server, &done("BEGIN", b'T'));
            stage.relay.client_closed(client);
        }),
        ("client closes while a statement runs", |stage, client, server| {
            stage.relay.client_closed(client);
            stage.answers(server, &done("BEGIN", b'T'));
        }),
        ("server is lost", |stage, client, server| {
            let key = stage.servers[server];
            stage.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
            stage.relay.client_closed(client);
        }),
        ("server is lost after its client", |stage, client, server| {
            stage.relay.client_closed(client);
            let key = stage.servers[server];
            stage.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
        }),
        ("client breaks the protocol while a statement runs", |stage, client, server| {
            stage.says(client, b"\xff\xff\xff\xff\xff");
            assert_eq!((stage.gets(client), stage.relay.may_read_client(client)), (Vec::new(), false));
            stage.answers(server, &done("BEGIN", b'T'));
            assert_eq!(tags(&stage.gets(client)), "CZE", "first its answer, then why");
            stage.relay.client_closed(client);
        }),
        ("client closes before its COPY begins", |stage, client, server| {
            stage.answers(server, &done("BEGIN", b'T'));
            stage.says(client, &query("COPY t FROM STDIN"));
            stage.relay.client_closed(client);
            assert_eq!(stage.relay.sessions.len(), 1, "it may be something else");
            stage.answers(server, &frame(b'G', &[0, 0, 0]));
        }),
        ("client closes when its COPY has ended", |stage, client, server| {
            stage.answers(server, &done("BEGIN", b'I'));
            stage.says(client, &query("COPY t FROM STDIN"));
            stage.answers(server, &frame(b'G', &[0, 0, 0]));
            stage.says(client, &frame(b'c', b""));
            stage.relay.client_closed(client);
            assert_eq!(stage.relay.shared.hold.units, 1, "it is being committed");
            stage.answers(server, &done("COPY 0", b'I'));
        }),
        ("client closes inside a frame behind a statement that runs", |stage, client, server| {
            stage.says(client, &query(&"x".repeat(20_000))[..9000]);
            stage.relay.client_closed(client);
            assert_eq!(stage.relay.shared.hold.units, 1, "BEGIN runs");
            stage.answers(server, &done("BEGIN", b'T'));
        }),
        ("session ends well", |stage, client, server| {
            stage.answers(server, &done("COMMIT", b'I'));
            stage.says(client, &frame(b'X', b""));
            let key = stage.servers[server];
            stage.relay.upstream_failed(key, &Failure::Lost("closed, as it was asked to".to_owned()));
            assert_eq!(tags(&stage.gets(client)), "CZ", "no word more");
            stage.relay.client_closed(client);
        }),
    ];
    for (way, end) in ways {
        let mut stage = trusting();
        let (client, server) = stage.ready_client();
        stage.says(client, &query("BEGIN"));
        assert_eq!(stage.relay.shared.hold.units, 1, "{way}");
        end(&mut stage, client, server);
        stage.perform();
        assert_eq!(stage.relay.shared.hold.units, 0, "{way}");
        assert_eq!((stage.relay.sessions.len(), stage.relay.shared.servers.len()), (0, 0), "{way}");
        assert!(stage.relay.by_id.is_empty(), "{way}");
        assert!(stage.closed_servers.contains(&stage.servers[server]), "{way}");
    }
}

#[test]
fn a_cancel_reaches_the_backend_only_with_the_right_key_and_while_something_runs() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    let (id, secret) = stage.relay.sessions.get(client).map(|one| (one.id, one.secret.clone())).unwrap();
    let mut right = Vec::new();
    encode::cancel_request(&mut right, id, &secret);
    let ask = |stage: &mut Stage, bytes: &[u8]| {
        let asker = stage.client();
        stage.says(asker, bytes);
        asker
    };
    let asker = ask(&mut stage, &right);
    assert!(stage.relay.client_written(asker) && stage.servers.len() == 1, "nothing runs");
    stage.says(client, &query("SELECT pg_sleep(60)"));
    stage.hears(server);
    let mut wrong = Vec::new();
    encode::cancel_request(&mut wrong, id, &[0; 4]);
    let asker = ask(&mut stage, &wrong);
    assert!(stage.relay.client_written(asker) && stage.servers.len() == 1, "the wrong key");
    let asker = ask(&mut stage, &right);
    let mut real = Vec::new();
    encode::cancel_request(&mut real, REAL_BACKEND.0, REAL_BACKEND.1);
    assert_eq!(stage.hears(1), real);
    assert!(!stage.relay.client_written(asker), "it waits until the server has heard");
    let key = stage.servers[1];
    stage.relay.upstream_failed(key, &Failure::Lost("closed, as it does".to_owned()));
    assert!(stage.relay.client_written(asker));
    // Of a session of core 0, which sits elsewhere.
    let mut elsewhere = Vec::new();
    encode::cancel_request(&mut elsewhere, 6, &[0; 4]);
    ask(&mut stage, &elsewhere);
    assert_eq!(stage.handed.iter().map(|(to, one)| (to.0, one.session)).collect::<Vec<_>>(), [(0, 6)]);
}

#[test]
fn a_lost_server_is_told_of_with_what_is_known() {
    let mut stage = trusting();
    let (idle, idle_server) = stage.ready_client();
    let (running, running_server) = stage.ready_client();
    let (ended, ended_server) = stage.ready_client();
    stage.says(running, &query("COMMIT"));
    let mut fatal = Vec::new();
    encode::error_response(&mut fatal, "FATAL", "57P01", "terminating connection", More::NONE);
    stage.answers(ended_server, &fatal);
    for nth in [idle_server, running_server, ended_server] {
        let key = stage.servers[nth];
        stage.relay.upstream_failed(key, &Failure::Lost("reset".to_owned()));
    }
    let told =
        |stage: &mut Stage, client| frames(&stage.gets(client)).iter().map(message).collect::<Vec<_>>().join("; ");
    assert!(told(&mut stage, idle).contains("08006"));
    assert!(told(&mut stage, running).contains("08007"), "its outcome is unknown");
    let last = told(&mut stage, ended);
    assert!(last.contains("57P01") && !last.contains("0800"), "{last}");
    let client = stage.client();
    stage.says(client, &build_startup(0, &[("user", "app")]));
    let key = stage.servers[3];
    stage.relay.upstream_failed(key, &Failure::Unreachable("refused".to_owned()));
    assert!(told(&mut stage, client).contains("57P03"));
}

#[test]
fn a_drain_tells_the_idle_at_once_and_the_busy_when_they_are_done() {
    let mut stage = trusting();
    let (idle, _) = stage.ready_client();
    let (busy, server) = stage.ready_client();
    stage.says(busy, &query("SELECT 1"));
    stage.relay.drain();
    assert!(message(&frames(&stage.gets(idle))[0]).contains("57P01"));
    assert!(stage.gets(busy).is_empty());
    stage.answers(server, &done("SELECT 1", b'I'));
    assert_eq!(tags(&stage.gets(busy)), "CZE");
    assert!(stage.relay.client_opened(Arrival { peer: None, now: stage.now }).is_err());
    stage.relay.client_closed(idle);
    stage.relay.client_closed(busy);
    assert!(stage.relay.is_drained());
}

#[test]
fn who_does_not_log_in_in_time_is_shown_out() {
    let mut stage = trusting();
    let (ready, _) = stage.ready_client();
    let silent = stage.client();
    stage.says(silent, &[0, 0]);
    stage.now.mono_us += 61_000_000;
    stage.relay.tick(stage.now);
    assert!(message(&frames(&stage.gets(silent))[0]).contains("log-in not finished"));
    assert!(stage.relay.may_read_client(ready));
}

#[test]
fn statements_are_counted_by_what_they_are_and_sampled() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    stage.says(client, &query("LISTEN jobs"));
    stage.now.mono_us += 250;
    stage.answers(server, &done("LISTEN", b'I'));
    let mut batch = Vec::new();
    encode::query_with_parameter(&mut batch, "INSERT INTO t VALUES ($1)", b"x");
    for _ in 0..3 {
        stage.says(client, &batch);
        stage.answers(server, &[frame(b'1', b""), frame(b'2', b""), done("INSERT 0 1", b'I')].concat());
    }
    let counters = stage.relay.counters();
    assert_eq!((counters.commands, counters.commands_write), (4, 3));
    assert!(counters.commands_by_name.contains(&("insert", 3)));
    assert_eq!(counters.sessions_by_state, [("listen", 1)]);
    let samples = stage.relay.take_statements();
    assert_eq!(samples.len(), 4);
    assert_eq!((&*samples[0].text, samples[0].latency_us), ("LISTEN jobs", 250));
    assert_eq!(&*samples[3].text, "INSERT INTO t VALUES ($1)");
    let registry = &stage.relay.sessions.get(client).unwrap().ready().unwrap().statements.registry;
    assert_eq!(registry.channels(), ["jobs"]);
}

#[test]
fn every_statement_of_a_pipeline_is_sampled_with_its_own_end() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    let all = ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"];
    stage.says(client, &all.map(query).concat());
    for (at, status) in [b'T', b'T', b'I'].into_iter().enumerate() {
        stage.now.mono_us += 100;
        stage.answers(server, &done(all[at], status));
    }
    let samples = stage.relay.take_statements();
    let seen: Vec<_> = samples.iter().map(|sample| (&*sample.text, sample.latency_us)).collect();
    assert_eq!(seen, [(all[0], 100), (all[1], 200), (all[2], 300)]);
}

#[test]
fn samples_weigh_what_passed_however_much_it_was() {
    let mut stage = trusting();
    let (client, server) = stage.ready_client();
    for (statements, most) in [(10, 10), (10_000, base::model::limits::STATEMENT_SAMPLES_MAX), (3, 3)] {
        for _ in 0..statements {
            stage.says(client, &query("SELECT 1"));
            stage.answers(server, &done("SELECT 1", b'I'));
            stage.gets(client);
            stage.hears(server);
        }
        // The density of the burst is given up step by step.
        let samples = (0..12).map(|_| stage.relay.take_statements()).find(|samples| !samples.is_empty());
        let samples = samples.unwrap_or_default();
        let weight: u64 = samples.iter().map(|sample| u64::from(sample.weight)).sum();
        assert!(samples.len() <= most && (statements == 3 || weight == statements), "{weight} of {statements}");
    }
}

proptest::proptest! {
    #[test]
    fn the_same_bytes_pass_wherever_they_are_cut(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let mut stage = trusting();
        let (client, server) = stage.ready_client();
        let mut sent = query("SELECT 'a long enough text to be cut somewhere'");
        encode::query_with_parameter(&mut sent, "SELECT $1", &[b'x'; 300]);
        sent.extend_from_slice(&frame(b'F', &[0; 20]));
        let (mut heard, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let next = (at + cut).min(sent.len());
            stage.says(client, &sent[at..next]);
            heard.extend(stage.hears(server));
            at = next;
            if at == sent.len() { break; }
        }
        proptest::prop_assert_eq!(heard, sent);
    }

    #[test]
    fn no_bytes_of_anybody_make_the_relay_panic(
        chunks: Vec<(bool, Vec<u8>)>, opening: bool, cuts: Vec<u8>,
    ) {
        let mut stage = trusting();
        let client = if opening { stage.client() } else { stage.ready_client().0 };
        for (from_client, chunk) in &chunks {
            if *from_client || stage.servers.is_empty() {
                stage.says(client, chunk);
            } else if let Some(&key) = stage.servers.first()
                && stage.relay.upstream_input(key, chunk, stage.now).is_err()
            {
                stage.relay.upstream_failed(key, &Failure::Lost("nonsense".to_owned()));
            }
            stage.perform();
        }
        if cuts.len() % 2 == 0 { stage.gate(HoldOrder::Begin { ticket: 1 }); }
        stage.relay.client_closed(client);
        stage.perform();
        stage.gate(HoldOrder::Release { ticket: 2 });
        proptest::prop_assert!(stage.relay.shared.hold.units <= 1);
    }
}
