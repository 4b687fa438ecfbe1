//! Random histories of clients, holds and flips against a scripted server. What must hold in each: nothing that a client begins in a hold
//! reaches a server before the release; when a hold counts as drained, nothing is unsent or unanswered but what is blocked; and every
//! client gets one reply to each of its commands.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use bus::{HoldEvent, HoldOrder};

#[derive(Debug, Clone)]
enum Act {
    /// `#` in the line becomes the number of the command.
    Says(usize, &'static str),
    Leaves(usize),
    /// A server connection takes what was sent to it.
    Hears(usize),
    /// It answers the oldest command it has not answered.
    Answers(usize),
    Begins,
    Flips,
    Releases,
}

fn act() -> impl Strategy<Value = Act> {
    const LINES: &[&str] = &[
        "GET #",
        "SET # v",
        "WATCH #",
        "UNWATCH",
        "MULTI",
        "EXEC",
        "DISCARD",
        "SELECT 1",
        "SELECT 0",
        "CLIENT ID",
        "BLPOP # 0",
    ];
    prop_oneof![
        12 => (0..3usize, prop::sample::select(LINES)).prop_map(|(who, line)| Act::Says(who, line)),
        1 => (0..3usize).prop_map(Act::Leaves),
        6 => (0..8usize).prop_map(Act::Hears),
        6 => (0..8usize).prop_map(Act::Answers),
        2 => Just(Act::Begins),
        1 => Just(Act::Flips),
        1 => Just(Act::Releases),
    ]
}

/// One server connection as the server sees it.
#[derive(Debug, Default)]
struct Connection {
    unanswered: VecDeque<String>,
    in_block: bool,
}

impl Connection {
    fn is_blocked(&self) -> bool {
        !self.in_block && self.unanswered.front().is_some_and(|line| line.starts_with("BLPOP"))
    }

    fn answer(&mut self) -> Option<&'static str> {
        let line = self.unanswered.pop_front()?;
        let was_in_block = self.in_block;
        Some(match line.split(' ').next().unwrap_or_default() {
            "MULTI" => {
                self.in_block = true;
                "+OK\r\n"
            }
            "EXEC" | "DISCARD" if !was_in_block => "-ERR without MULTI\r\n",
            "EXEC" => {
                self.in_block = false;
                "*0\r\n"
            }
            "DISCARD" => {
                self.in_block = false;
                "+OK\r\n"
            }
            _ if was_in_block => "+QUEUED\r\n",
            "GET" => "$-1\r\n",
            "BLPOP" => "*-1\r\n",
            _ => "+OK\r\n",
        })
    }
}

/// A hold that is on.
#[derive(Debug)]
struct InHold {
    /// Commands from this number on must not be heard.
    first: usize,
    drained: bool,
}

struct History {
    stage: Stage,
    clients: Vec<Option<ClientKey>>,
    said: Vec<usize>,
    got: Vec<Vec<u8>>,
    connections: Vec<Connection>,
    commands: usize,
    plans: u64,
    hold: Option<InHold>,
}

impl History {
    fn new() -> Self {
        let mut stage = Stage::new(PlanMode::Followed);
        let clients: Vec<_> = (0..3).map(|_| Some(stage.client())).collect();
        let (said, got) = (vec![0; clients.len()], vec![Vec::new(); clients.len()]);
        Self { stage, clients, said, got, connections: Vec::new(), commands: 0, plans: 1, hold: None }
    }

    fn perform(&mut self, act: &Act) {
        match *act {
            Act::Says(who, line) => self.say(who, line),
            Act::Leaves(who) => {
                if let Some(client) = self.clients[who].take() {
                    self.stage.relay.client_closed(client);
                }
            }
            Act::Hears(nth) => self.hear(nth),
            Act::Answers(nth) => self.answer(nth),
            Act::Begins if self.hold.is_none() => {
                self.stage.relay.hold(HoldOrder::Begin { ticket: 1 }, self.stage.now).expect("no lane");
                self.hold = Some(InHold { first: self.commands, drained: false });
            }
            Act::Flips if self.hold.as_ref().is_some_and(|hold| hold.drained) => self.flip(),
            Act::Releases => self.release(),
            Act::Begins | Act::Flips => {}
        }
        self.stage.perform();
        self.stage.relay.tick(self.stage.now);
        self.stage.perform();
        self.look_at_reports();
    }

    fn say(&mut self, who: usize, line: &str) {
        let Some(client) = self.clients[who] else { return };
        let line = line.replace('#', &self.commands.to_string());
        self.commands += 1;
        self.said[who] += 1;
        self.stage.says(client, &[&line]);
    }

    fn hear(&mut self, nth: usize) {
        let heard = self.stage.hears(nth);
        self.connections.resize_with(self.stage.upstreams.len().max(self.connections.len()), Connection::default);
        if let Some(hold) = &self.hold {
            for line in &heard {
                let number = line.split(' ').nth(1).and_then(|word| word.parse::<usize>().ok());
                let late = !line.starts_with("SELECT") && number.is_some_and(|number| number >= hold.first);
                assert!(!late, "it passed the hold: {line}");
                let moved = line.starts_with("BLPOP") || line == "DISCARD";
                assert!(!hold.drained || moved, "sent after the hold had drained: {line}");
            }
        }
        if let Some(connection) = self.connections.get_mut(nth) {
            connection.unanswered.extend(heard);
        }
    }

    fn is_there(&self, nth: usize) -> bool {
        self.stage.upstreams.get(nth).is_some_and(|key| self.stage.relay.shared.upstreams.get(*key).is_some())
    }

    fn answer(&mut self, nth: usize) {
        let there = self.is_there(nth);
        let Some(connection) = self.connections.get_mut(nth).filter(|connection| there && !connection.is_blocked())
        else {
            return;
        };
        if let Some(answer) = connection.answer() {
            self.stage.answers(nth, answer);
        }
    }

    /// The blocked are ended when their server is asked to end them.
    fn flip(&mut self) {
        self.plans += 1;
        let authority = self.stage.relay.plan().authority.flipped();
        self.stage.publish(self.plans, authority, PlanMode::Followed);
        for nth in 0..self.connections.len() {
            if self.is_there(nth) && self.connections[nth].is_blocked() {
                self.connections[nth].unanswered.pop_front();
                self.stage.answers(nth, UNBLOCKED);
            }
        }
        for nth in 0..self.stage.upstreams.len() {
            self.hear(nth);
            self.answer(nth);
        }
        assert_eq!(self.stage.relay.take_acked_plan(), Some(Generation(self.plans)), "nothing of the old plan is left");
    }

    fn release(&mut self) {
        self.stage.relay.hold(HoldOrder::Release { ticket: 1 }, self.stage.now).expect("no lane");
        self.hold = None;
        self.stage.perform();
    }

    fn look_at_reports(&mut self) {
        for (_, event) in self.stage.relay.take_hold_events() {
            if event != HoldEvent::Drained {
                continue;
            }
            self.hold.as_mut().expect("a hold").drained = true;
            for nth in 0..self.stage.upstreams.len() {
                self.hear(nth); // finds nothing
                let connection = &self.connections[nth];
                let idle = connection.unanswered.is_empty() || connection.is_blocked();
                // On a connection that the relay has closed too: its server may not know yet.
                assert!(idle, "drained, and not answered: {:?}", connection.unanswered);
            }
        }
    }

    /// Everything ends: each client has a reply to each of its commands.
    fn finish(mut self) {
        self.release();
        for _ in 0..2 * self.commands + 10 {
            for nth in 0..self.stage.upstreams.len() {
                self.hear(nth);
                if self.is_there(nth)
                    && let Some(answer) = self.connections[nth].answer()
                {
                    self.stage.answers(nth, answer);
                }
            }
            for (client, got) in self.clients.iter().zip(&mut self.got) {
                let Some(client) = client else { continue };
                got.extend(self.stage.relay.take_client_output(*client, Vec::new()).unwrap_or_default());
                self.stage.relay.client_written(*client);
            }
            self.stage.perform();
        }
        assert_eq!(self.stage.closed_clients, []);
        for who in 0..self.clients.len() {
            if self.clients[who].is_some() {
                assert_eq!(replies(&self.got[who]), self.said[who], "{}", String::from_utf8_lossy(&self.got[who]));
            }
        }
    }
}

fn replies(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(len) = wire::resp::frame::reply_len(bytes) {
        bytes = &bytes[len..];
        count += 1;
    }
    count
}

proptest! {
    #[test]
    fn a_hold_is_kept_and_what_it_calls_drained_is(acts in prop::collection::vec(act(), 1..80)) {
        let mut history = History::new();
        for act in &acts {
            history.perform(act);
        }
        history.finish();
    }
}
