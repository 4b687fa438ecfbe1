//! Clients: what they send to a small set of hot keys, and what they make of the answers.

use std::collections::VecDeque;

use crate::history::{History, Operation};
use crate::limits;
use crate::model::commands::UNDECLARED;
use crate::model::data::Words;
use crate::net::{End, LinkId, Net, Party, Timer};
use crate::random::Random;
use wire::resp::encode::push_request;
use wire::resp::frame::reply_len;
use wire::resp::value::{Value as Reply, decode_whole};

/// What the next reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Of this operation.
    Operation(usize),
    /// What is read is set again only if nobody else has set it meanwhile.
    WatchedRead(usize),
    /// Without its database it begins nothing.
    Select,
    /// Of MULTI, WATCH, or that a command was queued.
    Nothing,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Client {
    id: usize,
    link: Option<LinkId>,
    connected: bool,
    database: u32,
    input: Vec<u8>,
    awaited: VecDeque<Awaited>,
    random: Random,
    tokens: u64,
    /// It begins nothing any more.
    pub stopped: bool,
}

fn say(text: &str) -> Words {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

impl Client {
    pub fn new(id: usize, seed: u64) -> Self {
        let random = Random::new(seed, &format!("client {id}"));
        // One of them lives in another database.
        let database = u32::from(id == limits::CLIENTS - 1);
        let (input, awaited) = (Vec::new(), VecDeque::new());
        Self { id, link: None, connected: false, database, input, awaited, random, tokens: 0, stopped: false }
    }

    pub fn is_idle(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Its next act.
    pub fn act(&mut self, history: &mut History, net: &mut Net) {
        if self.link.is_none() {
            self.link = Some(net.connect(Party::Client(self.id), Party::Listener(self.id % limits::CORES)));
            return;
        }
        if self.stopped || !self.connected {
            return;
        }
        if self.random.once_in(limits::CLIENT_LEAVES_ONCE_IN) {
            self.leave(net);
            return;
        }
        if self.awaited.is_empty() || self.random.once_in(3) {
            let mut out = Vec::new();
            for _ in 0..self.random.between((1, limits::PIPELINE_MAX)) {
                self.begin(history, net.now_us, &mut out);
            }
            self.send(net, out);
        }
        let think_us = self.random.between(limits::THINK_US);
        net.after(think_us, Timer::Client(self.id));
    }

    fn send(&self, net: &mut Net, bytes: Vec<u8>) {
        if let Some(link) = self.link {
            net.send(link, End::Near, bytes);
        }
    }

    pub fn answered(&mut self, taken: bool, net: &mut Net) {
        if !taken {
            self.gone(net);
            return;
        }
        self.connected = true;
        if self.database != 0 {
            let mut out = Vec::new();
            push(&mut out, &say(&format!("SELECT {}", self.database)));
            self.awaited.push_back(Awaited::Select);
            self.send(net, out);
        }
        net.after(limits::THINK_US.0, Timer::Client(self.id));
    }

    fn leave(&mut self, net: &mut Net) {
        if let Some(link) = self.link {
            net.close(link, End::Near);
        }
        self.gone(net);
    }

    /// The connection is lost; so are all answers that were due.
    pub fn gone(&mut self, net: &mut Net) {
        (self.link, self.connected) = (None, false);
        self.awaited.clear();
        self.input.clear();
        let pause_us = self.random.between(limits::RECONNECT_US);
        net.after(pause_us, Timer::Client(self.id));
    }

    /// `Err`: what no client may be told.
    pub fn bytes(&mut self, bytes: &[u8], history: &mut History, net: &mut Net) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        while let Some(len) = reply_len(&self.input) {
            let reply = decode_whole(&self.input[..len]).map_err(|why| format!("client {}: {why:?}", self.id))?;
            self.input.drain(..len);
            let Some(awaited) = self.awaited.pop_front() else {
                return Err(format!("client {} is told {} and asked nothing", self.id, reply.brief()));
            };
            self.reply(awaited, reply, history, net)?;
        }
        Ok(())
    }

    fn reply(&mut self, awaited: Awaited, reply: Reply, history: &mut History, net: &mut Net) -> Result<(), String> {
        let error = reply.error();
        if let Some(text) = &error
            && text.starts_with("UNBLOCKED")
        {
            return Err(format!("client {} is told of an end of waiting that it did not ask for", self.id));
        }
        if awaited == Awaited::Select && error.is_some() {
            self.leave(net);
            return Ok(());
        }
        let (Awaited::Operation(at) | Awaited::WatchedRead(at)) = awaited else { return Ok(()) };
        history.0[at].answered_us = Some(net.now_us);
        let value = reply.clone();
        if error.is_none() || error.is_some_and(|text| text.starts_with("WRONGTYPE")) {
            history.0[at].returned = Some((net.now_us, reply));
        }
        if matches!(awaited, Awaited::WatchedRead(_)) {
            let key = history.0[at].commands[0][1].clone();
            let token = self.token();
            let set = vec![b"SET".to_vec(), key.clone(), token.into_bytes()];
            let mut out = Vec::new();
            self.begin_transaction(history, net.now_us, vec![set], Some((key, value)), &mut out);
            self.send(net, out);
        }
        Ok(())
    }

    /// A text that nobody else writes.
    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("{}.{}", self.id, self.tokens)
    }

    fn note(&mut self, history: &mut History, operation: Operation) -> usize {
        history.0.push(operation);
        history.0.len() - 1
    }

    fn operation(&self, commands: Vec<Words>, in_transaction: bool, called_us: u64) -> Operation {
        let (client, database) = (self.id, self.database);
        Operation {
            client,
            database,
            commands,
            in_transaction,
            called_us,
            returned: None,
            answered_us: None,
            watched: None,
        }
    }

    fn begin(&mut self, history: &mut History, now_us: u64, out: &mut Vec<u8>) {
        // What comes next depends on these replies.
        if self.awaited.iter().any(|awaited| matches!(awaited, Awaited::WatchedRead(_) | Awaited::Select)) {
            return;
        }
        match self.random.below(20) {
            0 => {
                let commands = self.several();
                self.begin_transaction(history, now_us, commands, None, out);
            }
            1 => {
                let key = "watched";
                push(out, &say(&format!("WATCH {key}")));
                self.awaited.push_back(Awaited::Nothing);
                let operation = self.operation(vec![say(&format!("GET {key}"))], false, now_us);
                push(out, &operation.commands[0]);
                let at = self.note(history, operation);
                self.awaited.push_back(Awaited::WatchedRead(at));
            }
            _ => {
                let words = self.command();
                push(out, &words);
                let operation = self.operation(vec![words], false, now_us);
                let at = self.note(history, operation);
                self.awaited.push_back(Awaited::Operation(at));
            }
        }
    }

    fn begin_transaction(
        &mut self,
        history: &mut History,
        now_us: u64,
        commands: Vec<Words>,
        watched: Option<(Vec<u8>, Reply)>,
        out: &mut Vec<u8>,
    ) {
        push(out, &say("MULTI"));
        self.awaited.push_back(Awaited::Nothing);
        for words in &commands {
            push(out, words);
            self.awaited.push_back(Awaited::Nothing);
        }
        push(out, &say("EXEC"));
        let operation = Operation { watched, ..self.operation(commands, true, now_us) };
        let at = self.note(history, operation);
        self.awaited.push_back(Awaited::Operation(at));
    }

    fn several(&mut self) -> Vec<Words> {
        let (item, key) = (self.token(), self.random.below(2));
        vec![say(&format!("INCR counter{key}")), say(&format!("RPUSH list{key} {item}")), say("GET counter0")]
    }

    fn command(&mut self) -> Words {
        let (token, key) = (self.token(), self.random.below(3));
        let deadline_ms = self.random.between(limits::DEADLINE_MS);
        let small = self.random.below(4);
        let text = match self.random.below(44) {
            0..=3 => format!("GET text{key}"),
            4..=5 => format!("SET text{key} {token}"),
            6..=8 => format!("SET text{key} {token} PX {deadline_ms}"),
            9 => format!("SET text{key} {token} KEEPTTL"),
            10 => format!("APPEND text{key} +{token}"),
            11..=12 => format!("PEXPIRE text{key} {deadline_ms}"),
            13..=14 => format!("PERSIST text{key}"),
            15 => format!("DEL text{key} counter{small}"),
            16 => format!("GETDEL text{key}"),
            17..=18 => format!("INCR counter{key}"),
            19 => format!("INCRBY counter{key} {small}"),
            20..=21 => format!("RPUSH list{key} {token}"),
            22 => format!("LPOP list{key}"),
            23 => format!("LRANGE list{key} 0 -1"),
            24 => format!("HSET hash f{small} {token}"),
            25 => format!("HINCRBY hash n{small} 1"),
            26 => "HGETALL hash".to_owned(),
            27 => format!("HDEL hash f{small}"),
            28 => format!("SADD set m{small}"),
            29 => "SPOP set".to_owned(),
            30 => "SMEMBERS set".to_owned(),
            31 => format!("ZINCRBY ranks {small} m{key}"),
            32 => "ZRANGE ranks 0 -1 WITHSCORES".to_owned(),
            33 => format!("SET fresh{} {token} PX {deadline_ms}", self.random.below(200)),
            34 | 40..=41 => format!("PEXPIRE list{key} {deadline_ms}"),
            35 | 42..=43 => format!("PERSIST list{key}"),
            36 => format!("RPUSH queue {token}"),
            37 => format!("BLPOP queue 0.{}", 1 + small),
            38 => format!("EXISTS list{key}"),
            _ => return script(key, &token),
        };
        say(&text)
    }
}

fn script(key: u64, token: &str) -> Words {
    let mut words = vec![b"EVAL".to_vec(), UNDECLARED.to_vec(), b"1".to_vec()];
    words.extend([format!("counter{key}"), format!("list{key}"), token.to_owned()].map(String::into_bytes));
    words
}

fn push(out: &mut Vec<u8>, words: &Words) {
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    push_request(out, &words);
}
