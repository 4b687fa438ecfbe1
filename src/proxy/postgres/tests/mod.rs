//! Scripted dialogues with a PostgreSQL relay: what a client and a server send, and what each must get. No sockets, no time.

mod arbitrary_bytes;
mod endings;
mod holds;
mod logins;
mod samples;

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
struct Dialogue {
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

impl Dialogue {
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

    fn hold(&mut self, order: HoldOrder) -> Vec<(u64, HoldEvent)> {
        Relay::hold(&mut self.relay, order, self.now).expect("a hold");
        self.perform();
        self.relay.take_hold_events()
    }

    fn state_of(&self, client: ClientKey) -> SessionState {
        self.relay.sessions.get(client).expect("a session").state()
    }
}

fn trusting() -> Dialogue {
    Dialogue::new(AuthMode::Trust, &[])
}

fn message(frame: &(char, Vec<u8>)) -> String {
    frame.1.split(|&b| b == 0).map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>().join(" ")
}
