//! Dual operation: commands into a lane, its requests to both servers, their replies back in.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use ::bus::{LaneEvent, LaneOrder};
use ::policy::SharedPolicies;
use base::model::{CoreId, PlanMode, Side, limits};
use base::stdx::clock::Now;
use proxy::contract::{KeptMemory, KeptWords};
use proxy::redis::lane::Lane;
use proxy::redis::lane::intents::{Found, IntentLog};
use proxy::redis::lane::request::{LaneBatch, LaneItem};
use wire::resp::command::lookup;

use super::harness::{Operation, Round};
use super::setting::{self, CLIENTS, PIECE_BYTES, SAME_BYTES, SAME_LENGTH, Same, Verb};

const DEPTH: usize = 16;
const COMMANDS: usize = CLIENTS * DEPTH;

pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "lane/set_dual_p16",
        per_round: COMMANDS as u64,
        set_up: || Stage::set_up(Verb::Set),
        uncounted: None,
    },
    Operation {
        name: "lane/compared_get_p16",
        per_round: COMMANDS as u64,
        set_up: || Stage::set_up(Verb::Get),
        uncounted: None,
    },
];

/// Memory for the intent log, of the product's size.
#[derive(Debug)]
struct Heap;

impl KeptMemory for Heap {
    fn left(&mut self) -> Result<KeptWords, String> {
        Err("there is none".to_owned())
    }

    fn fresh(&mut self) -> Result<KeptWords, String> {
        let words = limits::INTENT_HEADER_WORDS + limits::INTENT_LOG_WORDS;
        Ok(Rc::new(std::iter::repeat_with(|| AtomicU64::new(0)).take(words).collect::<Vec<_>>()))
    }

    fn discard(&mut self) {}

    fn boot(&self) -> u128 {
        1
    }
}

/// One side's connection.
struct Link {
    side: Side,
    spare: Vec<u8>,
}

/// A lane with both servers in step. Both are sent the same: what a SET does is the SET itself, and a compared read is repeated.
struct Stage {
    lane: Lane,
    links: [Link; 2],
    batches: Vec<LaneBatch>,
    requests: Vec<u8>,
    replies: Vec<u8>,
    now: Now,
}

impl Stage {
    fn set_up(verb: Verb) -> Round {
        let mut stage = Self::new(verb);
        stage.round(SAME_BYTES);
        stage.is_in_step(verb);
        Box::new(move || stage.round(SAME_LENGTH))
    }

    fn new(verb: Verb) -> Self {
        let now = setting::begin();
        let plan = setting::plan(PlanMode::Dual);
        let mut lane = Lane::new(&plan, SharedPolicies::default(), now);
        let log = IntentLog::begin(&mut Heap, &plan).expect("memory");
        lane.keep_intents(Found::Nothing { log, why: "it begins".to_owned() });
        lane.open();
        for side in [Side::Source, Side::Target] {
            lane.opened(side, 1);
            while let Some(questions) = lane.take_output(side, Vec::new()) {
                lane.input(side, &setting::answers(&questions), now).expect("RESP");
            }
            assert!(lane.is_connected(side));
        }
        lane.order(LaneOrder::PassDone { pass: 1 }, now);
        drop(lane.take_events());
        let batches: Vec<LaneBatch> = (0..CLIENTS).map(|client| batch(verb, client)).collect();
        let requests: Vec<u8> = batches.iter().flat_map(|batch| batch.frames.iter().copied()).collect();
        let replies = setting::answers(&requests);
        let links = [Side::Source, Side::Target].map(|side| Link { side, spare: Vec::new() });
        Self { lane, links, batches, requests, replies, now }
    }

    fn round(&mut self, same: Same) {
        self.now = setting::later(self.now);
        let mut answered = 0;
        for batch in &self.batches {
            // The lane takes ownership, as of a batch made by a relay.
            self.lane.submit(CoreId(0), batch.clone(), self.now);
            answered += told(&mut self.lane);
        }
        for Link { side, spare } in &mut self.links {
            let recycled = std::mem::take(spare);
            let mut sent = self.lane.take_output(*side, recycled).expect("requests for the server");
            assert!(same(&sent, &self.requests), "what the {side} is sent");
            sent.clear();
            *spare = sent;
            for piece in self.replies.chunks(PIECE_BYTES) {
                self.lane.input(*side, piece, self.now).expect("RESP");
                answered += told(&mut self.lane);
            }
        }
        assert_eq!(answered, self.replies.len(), "what the clients get");
    }

    /// After one round: every command has had its effect, and nothing is dirty.
    fn is_in_step(&mut self, verb: Verb) {
        self.now.mono_us += 1_000_000;
        self.lane.tick(self.now);
        let events = self.lane.take_events();
        let status = events.iter().rev().find_map(|event| match event {
            LaneEvent::Status(status) => Some(status),
            _ => None,
        });
        let status = status.expect("a status each second");
        let (effects, compared) = match verb {
            Verb::Set => (COMMANDS as u64, 0),
            Verb::Get => (0, COMMANDS as u64),
        };
        assert_eq!((status.effects, status.reads_compared, status.read_divergences), (effects, compared, 0));
        assert_eq!((status.dirty, status.in_flight, status.uncopied), (0, 0, false));
    }
}

fn batch(verb: Verb, client: usize) -> LaneBatch {
    let frames = setting::requests(verb, client, DEPTH);
    let item = |frame: &&[u8]| match verb {
        Verb::Get => LaneItem::ComparedRead { command: lookup(b"GET"), len: frame.len() },
        Verb::Set => LaneItem::Command { command: lookup(b"SET"), len: frame.len() },
    };
    let items = setting::frames(&frames).iter().map(item).collect();
    LaneBatch { client: client as u64, database: 0, resp: 2, items, frames }
}

/// Takes what the lane has to tell after a call, as the data plane does; the bytes of replies to clients.
fn told(lane: &mut Lane) -> usize {
    drop(lane.take_events());
    lane.take_replies().iter().map(|(_, reply)| reply.bytes.len()).sum()
}
