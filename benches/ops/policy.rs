//! The shipped mirror policy: its remembered answer to a GET, and a call into its module.

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use ::policy::abi::host::Request;
use ::policy::abi::{Authority, Class, Phase, Protocol, RequestAction};
use ::policy::{
    CorePolicies, Host, HostOptions, Instance, Mirroring, RequestDecision, RequestSeat, SeatSetup, builtin,
};
use base::model::{CoreId, FilterName, PolicySetting};
use proxy::redis::lane::caller::Caller;
use proxy::redis::lane::facts::{Asked, with_facts};
use wire::resp::command;
use wire::resp::encode::request;

use super::harness::{Operation, Round};

const CALLS: u64 = 256;
const NOW_MS: i64 = 1_700_000_000_000;
const FILTER: &str = "mirror-reads";
const KEY: &[u8] = b"key:000000000001";

pub const OPERATIONS: &[Operation] = &[
    Operation { name: "policy/remembered", per_round: CALLS, set_up: remembered, uncounted: None },
    Operation { name: "policy/call_mirror", per_round: CALLS, set_up: call_mirror, uncounted: None },
];

fn monotonic_ns() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The instance keeps the engine alive. Without deadlines: instructions are counted at a fiftieth of the speed.
fn instance() -> Instance {
    let options = HostOptions { instances_max: 1, cache_dir: None, clock: monotonic_ns };
    let shipped = builtin::shipped().iter().find(|shipped| shipped.name == FILTER).expect("it is shipped");
    Host::without_deadlines(options)
        .and_then(|host| host.load(shipped.name, shipped.wasm))
        .and_then(|module| module.instantiate("{}", 1))
        .unwrap_or_else(|refused| panic!("{}", refused.text))
}

fn remembered() -> Round {
    let filter = FilterName::new(&format!("builtin:{FILTER}")).expect("a name");
    let setup = SeatSetup { setting: PolicySetting::of(filter), instance: instance(), seed: 7, identity: 1 };
    let mut policies = CorePolicies { request: Some(RequestSeat::new(setup)), ..CorePolicies::default() };
    let frame = request(&[b"GET", KEY]);
    decide(&mut policies, &frame);
    decide(&mut policies, &frame);
    let stats = policies.stats();
    assert_eq!((stats[0].calls, stats[0].memo_hits), (1, 1), "the second is remembered");
    Box::new(move || (0..CALLS).for_each(|_| decide(&mut policies, black_box(&frame))))
}

/// As the relay asks for each command in dual operation: the facts of the frame, the memo, the decision.
fn decide(policies: &mut CorePolicies, frame: &[u8]) {
    let from = Caller { core: CoreId(0), client: 1 };
    let asked = Asked { command: command::lookup(b"GET"), frame, from, database: 0, in_transaction: false };
    let seat = policies.request.as_mut().expect("it was put there");
    let decision = with_facts(&asked, |facts| seat.decide(facts, NOW_MS));
    assert_eq!(decision, RequestDecision::Send(Mirroring::Compare));
}

fn call_mirror() -> Round {
    let mut instance = instance();
    let frame = request(&[b"GET", KEY]);
    Box::new(move || {
        let frame = black_box(frame.as_slice());
        let view = Request {
            protocol: Protocol::Redis,
            class: Class::Read,
            phase: Phase::Compare,
            authority: Authority::Source,
            flags: 0,
            client: 1,
            sample: 1 << 31,
            database: b"0",
            command: b"GET",
            keys: std::iter::once(KEY),
            size: frame.len() as u64,
            frame,
        };
        for _ in 0..CALLS {
            let answer = instance.on_request(black_box(&view), NOW_MS).unwrap_or_else(|fault| panic!("{}", fault.text));
            assert_eq!(answer.action, RequestAction::MirrorCompare);
        }
    })
}
