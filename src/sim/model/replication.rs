//! The replication stream of a model server: the bytes, how far back they are kept, and the replicas that read them.

use super::data::{Data, Words};
use super::value::{RDB_VERSION, push_length, push_text};
use crate::random::Random;
use wire::resp::encode::push_request;

/// What a connection that has sent PSYNC is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The snapshot begins at this time.
    Snapshot {
        due_us: u64,
    },
    /// It has the snapshot; the stream behind it begins at its first acknowledgement.
    Acknowledging {
        from: u64,
    },
    Online,
}

#[derive(Debug)]
struct Replica {
    connection: u64,
    snapshot_only: bool,
    state: State,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Replication {
    pub id: String,
    /// Offset in front of the first byte that is kept.
    begin: u64,
    bytes: Vec<u8>,
    /// From the first replica on.
    pub active: bool,
    /// The most bytes that are kept for a replica that comes back.
    kept_max: usize,
    database: Option<u32>,
    replicas: Vec<Replica>,
    /// The offset behind each change, with its time.
    pub ends: Vec<(u64, u64)>,
    /// Longest wait before a snapshot begins.
    snapshot_delay_us: (u64, u64),
    random: Random,
}

/// A server's name for one stream.
fn new_id(random: &mut Random) -> String {
    (0..40).map(|_| char::from(b"0123456789abcdef"[random.below(16) as usize])).collect()
}

impl Replication {
    pub fn new(mut random: Random, kept_max: usize, snapshot_delay_us: (u64, u64)) -> Self {
        let id = new_id(&mut random);
        let (bytes, replicas, ends) = (Vec::new(), Vec::new(), Vec::new());
        let (begin, active, database) = (0, false, None);
        Self { id, begin, bytes, active, kept_max, database, replicas, ends, snapshot_delay_us, random }
    }

    /// The process has begun anew: another stream, which nobody follows yet.
    pub fn restart(&mut self) {
        let kept_max = self.kept_max;
        *self = Self::new(self.random.clone(), kept_max, self.snapshot_delay_us);
    }

    pub fn offset(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Where the stream ended at a time.
    pub fn offset_at(&self, us: u64) -> u64 {
        let at = self.ends.partition_point(|(time, _)| *time <= us);
        if at == 0 { 0 } else { self.ends[at - 1].1 }
    }

    /// Takes commands into the stream; what each replica is sent.
    pub fn feed(&mut self, commands: &[(u32, Words)], as_transaction: bool, now_us: u64) -> Vec<(u64, Vec<u8>)> {
        if !self.active || commands.is_empty() {
            return Vec::new();
        }
        let mut new = Vec::new();
        let single = |name: &[u8]| vec![name.to_vec()];
        let first = commands[0].0;
        if as_transaction {
            self.push(&mut new, first, &single(b"MULTI"));
        }
        for (database, words) in commands {
            self.push(&mut new, *database, words);
        }
        if as_transaction {
            let last = self.database.unwrap_or(first);
            self.push(&mut new, last, &single(b"EXEC"));
        }
        self.append(new, now_us)
    }

    /// The keep-alive that a server sends its replicas.
    pub fn ping(&mut self, now_us: u64) -> Vec<(u64, Vec<u8>)> {
        if self.replicas.is_empty() {
            return Vec::new();
        }
        let mut new = Vec::new();
        push_request(&mut new, &[b"PING"]);
        self.append(new, now_us)
    }

    fn push(&mut self, out: &mut Vec<u8>, database: u32, words: &Words) {
        if self.database != Some(database) {
            self.database = Some(database);
            push_request(out, &[b"SELECT", database.to_string().as_bytes()]);
        }
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        push_request(out, &words);
    }

    fn append(&mut self, new: Vec<u8>, now_us: u64) -> Vec<(u64, Vec<u8>)> {
        self.bytes.extend_from_slice(&new);
        if self.bytes.len() > 2 * self.kept_max {
            let dropped = self.bytes.len() - self.kept_max;
            self.bytes.drain(..dropped);
            self.begin += dropped as u64;
        }
        self.ends.push((now_us, self.offset()));
        let online = self.replicas.iter().filter(|replica| replica.state == State::Online);
        online.map(|replica| (replica.connection, new.clone())).collect()
    }

    /// PSYNC: what the connection is sent at once; nothing when it is to get a snapshot.
    pub fn attach(
        &mut self,
        connection: u64,
        snapshot_only: bool,
        id: &[u8],
        from: Option<u64>,
        now_us: u64,
    ) -> Vec<u8> {
        self.detach(connection);
        if let Some(from) = from
            && self.active
            && id == self.id.as_bytes()
            && (self.begin..=self.offset()).contains(&from)
        {
            self.replicas.push(Replica { connection, snapshot_only, state: State::Online });
            return self.since(format!("+CONTINUE {}\r\n", self.id), from);
        }
        self.active = true;
        let due_us = now_us + self.random.between(self.snapshot_delay_us);
        self.replicas.push(Replica { connection, snapshot_only, state: State::Snapshot { due_us } });
        Vec::new()
    }

    fn since(&self, line: String, from: u64) -> Vec<u8> {
        let mut out = line.into_bytes();
        out.extend_from_slice(&self.bytes[(from - self.begin) as usize..]);
        out
    }

    pub fn detach(&mut self, connection: u64) {
        self.replicas.retain(|replica| replica.connection != connection);
    }

    /// REPLCONF ACK: the stream begins behind a snapshot.
    pub fn acknowledged(&mut self, connection: u64) -> Vec<u8> {
        let replica = self.replicas.iter_mut().find(|replica| replica.connection == connection);
        let Some(replica) = replica else { return Vec::new() };
        let State::Acknowledging { from } = replica.state else { return Vec::new() };
        if replica.snapshot_only || from < self.begin {
            return Vec::new();
        }
        replica.state = State::Online;
        self.since(String::new(), from)
    }

    /// Snapshots that begin now, for their connections.
    pub fn begin_snapshots(&mut self, data: &Data, now_us: u64) -> Vec<(u64, Vec<u8>)> {
        let offset = self.offset();
        let mut out = Vec::new();
        for replica in &mut self.replicas {
            let State::Snapshot { due_us } = replica.state else { continue };
            if due_us > now_us {
                continue;
            }
            replica.state = State::Acknowledging { from: offset };
            let mark = [b'e'; 40];
            let mut bytes = format!("+FULLRESYNC {} {offset}\r\n$EOF:", self.id).into_bytes();
            bytes.extend_from_slice(&mark);
            bytes.extend_from_slice(b"\r\n");
            bytes.extend(snapshot(data));
            bytes.extend_from_slice(&mark);
            out.push((replica.connection, bytes));
            // Whoever follows from here does not know the database.
            self.database = None;
        }
        out
    }
}

/// An RDB file without a checksum.
fn snapshot(data: &Data) -> Vec<u8> {
    const END: u8 = 0xff;
    const SELECT: u8 = 0xfe;
    const DEADLINE_MS: u8 = 0xfc;
    let mut out = format!("REDIS{RDB_VERSION:04}").into_bytes();
    for (database, keys) in &data.0 {
        out.push(SELECT);
        push_length(&mut out, *database as usize);
        for (key, entry) in keys {
            if let Some(at) = entry.deadline_ms {
                out.push(DEADLINE_MS);
                out.extend_from_slice(&at.to_le_bytes());
            }
            let (type_byte, body) = entry.value.encode();
            out.push(type_byte);
            push_text(&mut out, key);
            out.extend(body);
        }
    }
    out.push(END);
    out.extend_from_slice(&[0; 8]);
    out
}
