//! What a model server holds, and the run of one command on it: deadlines, effects for replicas, which keys were touched.

use std::collections::BTreeMap;

use super::value::Value;
use wire::resp::value::Value as Reply;

pub type Key = Vec<u8>;
/// A command, word by word.
pub type Words = Vec<Vec<u8>>;

/// A value with its deadline, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub value: Value,
    pub deadline_ms: Option<i64>,
}

/// All databases of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Data(pub BTreeMap<u32, BTreeMap<Key, Entry>>);

impl Data {
    pub fn get(&self, database: u32, key: &[u8]) -> Option<&Entry> {
        self.0.get(&database)?.get(key)
    }

    pub fn insert(&mut self, database: u32, key: Key, entry: Entry) {
        self.0.entry(database).or_default().insert(key, entry);
    }

    pub fn remove(&mut self, database: u32, key: &[u8]) -> Option<Entry> {
        let keys = self.0.get_mut(&database)?;
        let removed = keys.remove(key);
        if keys.is_empty() {
            self.0.remove(&database);
        }
        removed
    }

    /// Keys whose time is over.
    pub fn overdue(&self, now_ms: i64) -> Vec<(u32, Key)> {
        let keys =
            self.0.iter().flat_map(|(database, keys)| keys.iter().map(move |(key, entry)| (database, key, entry)));
        keys.filter(|(.., entry)| entry.deadline_ms.is_some_and(|at| at <= now_ms))
            .map(|(database, key, _)| (*database, key.clone()))
            .collect()
    }
}

/// Whether keys disappear when their time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// As on a primary: a key that is looked up behind its deadline is deleted first.
    Lazy,
    /// A key stays until it is removed.
    Never,
}

/// What a command did, for replicas.
#[derive(Debug)]
pub enum Effect {
    None,
    /// The command itself.
    Same,
    Others(Vec<Words>),
}

/// The run of commands on some data.
#[derive(Debug)]
pub struct Run<'a> {
    pub data: &'a mut Data,
    pub database: u32,
    pub now_ms: i64,
    pub expiry: Expiry,
    /// What replicas are told, each with its database.
    pub effects: Vec<(u32, Words)>,
    pub touched: Vec<(u32, Key)>,
    pub expired: Vec<(u32, Key)>,
}

pub fn words(words: &[&[u8]]) -> Words {
    words.iter().map(|word| word.to_vec()).collect()
}

pub fn error(text: &str) -> Reply {
    Reply::Error(text.as_bytes().to_vec())
}

pub fn ok() -> Reply {
    Reply::Simple(b"OK".to_vec())
}

pub fn wrong_type() -> (Reply, Effect) {
    (error("WRONGTYPE Operation against a key holding the wrong kind of value"), Effect::None)
}

pub fn count(number: usize) -> Reply {
    Reply::Integer(number as i64)
}

pub fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl<'a> Run<'a> {
    pub fn new(data: &'a mut Data, database: u32, now_ms: i64, expiry: Expiry) -> Self {
        let (effects, touched, expired) = (Vec::new(), Vec::new(), Vec::new());
        Self { data, database, now_ms, expiry, effects, touched, expired }
    }

    /// Deletes the key if its time is over.
    fn look_up(&mut self, key: &[u8]) {
        let over = |entry: &Entry| entry.deadline_ms.is_some_and(|at| at <= self.now_ms);
        if self.expiry == Expiry::Lazy && self.data.get(self.database, key).is_some_and(over) {
            self.expire(self.database, key);
        }
    }

    /// Deletes a key whose time is over.
    pub fn expire(&mut self, database: u32, key: &[u8]) {
        self.data.remove(database, key);
        self.effects.push((database, words(&[b"DEL", key])));
        self.touched.push((database, key.to_vec()));
        self.expired.push((database, key.to_vec()));
    }

    pub fn entry(&mut self, key: &[u8]) -> Option<&Entry> {
        self.look_up(key);
        self.data.get(self.database, key)
    }

    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.entry(key).is_some()
    }

    /// The entry of a key that is about to be changed.
    pub fn entry_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.look_up(key);
        self.touched.push((self.database, key.to_vec()));
        self.data.0.get_mut(&self.database)?.get_mut(key)
    }

    pub fn set(&mut self, key: &[u8], value: Value, deadline_ms: Option<i64>) {
        self.touched.push((self.database, key.to_vec()));
        self.data.insert(self.database, key.to_vec(), Entry { value, deadline_ms });
    }

    pub fn delete(&mut self, key: &[u8]) -> bool {
        self.look_up(key);
        self.touched.push((self.database, key.to_vec()));
        self.data.remove(self.database, key).is_some()
    }

    /// The value of a key that is about to be changed, made by `new` where there is none.
    pub fn value_mut(&mut self, key: &[u8], new: impl FnOnce() -> Value) -> &mut Value {
        if !self.exists(key) {
            self.set(key, new(), None);
        }
        self.touched.push((self.database, key.to_vec()));
        let keys = self.data.0.get_mut(&self.database).expect("it holds the key");
        &mut keys.get_mut(key).expect("it was set").value
    }

    /// Removes a collection that has become empty.
    pub fn tidy(&mut self, key: &[u8]) {
        if self.data.get(self.database, key).is_some_and(|entry| entry.value.is_empty_collection()) {
            self.data.remove(self.database, key);
        }
    }
}
