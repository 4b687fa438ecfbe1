//! Pass-through: clients' bytes into the relay of an interlay and their replies out of it, as the data plane moves them.

use ::policy::SharedPolicies;
use base::model::{CoreId, InterlayProtocol, InterlaySpec, PlanMode, Sharing};
use base::stdx::clock::Now;
use proxy::contract::{Arrival, Ask, ClientKey, Relay, RelaySetup, UpstreamKey};

use super::harness::{Operation, Round};
use super::setting::{self, CLIENTS, PIECE_BYTES, SAME_BYTES, SAME_LENGTH, Same, Verb};

pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "relay/get_p1",
        per_round: CLIENTS as u64,
        set_up: || Stage::set_up(Verb::Get, 1),
        uncounted: None,
    },
    Operation {
        name: "relay/get_p16",
        per_round: CLIENTS as u64 * 16,
        set_up: || Stage::set_up(Verb::Get, 16),
        uncounted: None,
    },
    Operation {
        name: "relay/set_p16",
        per_round: CLIENTS as u64 * 16,
        set_up: || Stage::set_up(Verb::Set, 16),
        uncounted: None,
    },
];

struct Client {
    key: ClientKey,
    requests: Vec<u8>,
    replies: Vec<u8>,
    /// Its next output buffer.
    spare: Vec<u8>,
}

/// A relay, its clients, and the one connection they share.
struct Stage {
    relay: Box<dyn Relay>,
    clients: Vec<Client>,
    upstream: UpstreamKey,
    /// The requests of all clients.
    requests: Vec<u8>,
    replies: Vec<u8>,
    spare: Vec<u8>,
    now: Now,
}

impl Stage {
    fn set_up(verb: Verb, depth: usize) -> Round {
        let mut stage = Self::new(verb, depth);
        stage.round(SAME_BYTES);
        Box::new(move || stage.round(SAME_LENGTH))
    }

    fn new(verb: Verb, depth: usize) -> Self {
        let now = setting::begin();
        let mut relay = made();
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|nth| {
                let key = relay.client_opened(Arrival { peer: None, now }).expect("room for a client");
                let requests = setting::requests(verb, nth, depth);
                Client { key, replies: setting::answers(&requests), requests, spare: Vec::new() }
            })
            .collect();
        let upstream = connect(&mut *relay, clients[0].key, now);
        let requests: Vec<u8> = clients.iter().flat_map(|client| client.requests.iter().copied()).collect();
        let replies = setting::answers(&requests);
        Self { relay, clients, upstream, requests, replies, spare: Vec::new(), now }
    }

    fn round(&mut self, same: Same) {
        self.now = setting::later(self.now);
        for client in &self.clients {
            self.relay.client_input(client.key, &client.requests, self.now);
            quiet(&mut *self.relay);
        }
        let recycled = std::mem::take(&mut self.spare);
        let mut sent = self.relay.take_upstream_output(self.upstream, recycled).expect("requests for the server");
        assert!(same(&sent, &self.requests), "what the server is sent");
        sent.clear();
        self.spare = sent;
        for piece in self.replies.chunks(PIECE_BYTES) {
            self.relay.upstream_input(self.upstream, piece, self.now).expect("RESP");
            quiet(&mut *self.relay);
        }
        for client in &mut self.clients {
            let recycled = std::mem::take(&mut client.spare);
            let mut got = self.relay.take_client_output(client.key, recycled).expect("replies for the client");
            assert!(same(&got, &client.replies), "what the client gets");
            got.clear();
            client.spare = got;
            assert!(!self.relay.client_written(client.key), "it stays");
            quiet(&mut *self.relay);
        }
    }
}

fn made() -> Box<dyn Relay> {
    let plan = setting::plan(PlanMode::PassThrough);
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let spec = InterlaySpec {
        name: plan.interlay.clone(),
        protocol: InterlayProtocol::Redis(Sharing::Auto),
        listen,
        tls: None,
    };
    let (core, policies) = (CoreId(0), SharedPolicies::default());
    proxy::protocols::relay(RelaySetup { spec, plan, core, cores: 1, token: 1, seed: [0; 32], policies })
}

/// The first command makes the relay ask for a connection, which is then opened and logged in.
fn connect(relay: &mut dyn Relay, client: ClientKey, now: Now) -> UpstreamKey {
    let request = setting::requests(Verb::Get, 0, 1);
    relay.client_input(client, &request, now);
    let asks = relay.take_asks();
    let [Ask::Connect { upstream, .. }] = asks.as_slice() else { panic!("a connection is asked for: {asks:?}") };
    let upstream = *upstream;
    relay.upstream_opened(upstream, now);
    let log_in = relay.take_upstream_output(upstream, Vec::new()).expect("a log-in");
    relay.upstream_input(upstream, &setting::answers(&log_in), now).expect("RESP");
    assert!(relay.upstream_ready(upstream));
    let sent = relay.take_upstream_output(upstream, Vec::new()).expect("the request");
    relay.upstream_input(upstream, &setting::answers(&sent), now).expect("RESP");
    let got = relay.take_client_output(client, Vec::new()).expect("the reply");
    assert_eq!(got, setting::answers(&request));
    // The client waited while there was no connection, and may be read again.
    drop(relay.take_asks());
    upstream
}

/// What the data plane checks after each call; in a round there is nothing to do but to send.
fn quiet(relay: &mut dyn Relay) {
    let asks = relay.take_asks();
    assert!(asks.is_empty(), "{asks:?}");
    drop((relay.take_ready_clients(), relay.take_ready_upstreams()));
}
