//! Copies keys that may differ once more, exactly: the value that is written is the authority's at the position the shadow has.
//!
//! A value is read between two offsets of the authority's stream (*window*). When the shadow has everything up to the second, and nothing
//! that came since the window was opened has touched the key, the value is what the key holds at the shadow's position too, and is
//! written. Otherwise the key is read again. Lives on the movers' thread.

use std::collections::HashSet;

use super::batch::Doubt;
use crate::error::JobError;
use base::model::limits;
use follow::redis::client::RedisClient;
use wire::resp::command;
use wire::resp::encode::push_request;
use wire::resp::value::Value;

/// What the stream has touched while a window was open.
#[derive(Debug, Default)]
pub struct Touched {
    is_open: bool,
    keys: HashSet<(u32, Vec<u8>)>,
    /// Something touched keys that it does not name, or more keys than are kept.
    all: bool,
}

impl Touched {
    pub fn open(&mut self) {
        *self = Self { is_open: true, ..Self::default() };
    }

    pub fn close(&mut self) {
        *self = Self::default();
    }

    /// A command of the stream.
    pub fn note(&mut self, frame: &[u8], database: u32) {
        if !self.is_open || self.all {
            return;
        }
        let name = wire::resp::args::Args::new(frame).next().unwrap_or_default();
        let keys = command::lookup(name).keys_of(frame).unwrap_or_default().0;
        self.all =
            keys.is_empty() || self.keys.len() + keys.len() > limits::FEED_TOUCHED_KEYS_MAX || moves_databases(name);
        self.keys.extend(keys.into_iter().map(|key| (database, key.to_vec())));
    }

    #[must_use]
    pub fn contains(&self, database: u32, key: &[u8]) -> bool {
        self.all || self.keys.contains(&(database, key.to_vec()))
    }
}

/// Its keys are in two databases.
fn moves_databases(name: &[u8]) -> bool {
    [b"MOVE".as_slice(), b"COPY"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// A key as the authority held it within a window.
#[derive(Debug)]
pub struct Reading {
    pub doubt: Doubt,
    pub key: Vec<u8>,
    /// Milliseconds since the Unix epoch; -1: none.
    pub deadline_ms: i64,
    /// As DUMP gives it; `None`: there is no such key.
    pub payload: Option<Vec<u8>>,
}

/// What one window has read.
#[derive(Debug)]
pub struct Window {
    /// The authority's offset behind the reads.
    pub until: u64,
    pub values: Vec<Reading>,
}

/// Reads keys of the authority, each with its deadline at one moment. The window must be open.
///
/// # Errors
/// [`JobError`].
pub async fn read(client: &mut RedisClient, doubts: Vec<Doubt>) -> Result<Window, JobError> {
    let mut requests = Vec::new();
    let mut count = 0;
    for doubt in &doubts {
        let key = doubt.key.as_deref().unwrap_or_default();
        for words in [&[b"SELECT", doubt.database.to_string().as_bytes()][..], &[b"MULTI"]] {
            push_request(&mut requests, words);
        }
        for words in [&[b"PEXPIRETIME", key][..], &[b"DUMP", key], &[b"EXEC"]] {
            push_request(&mut requests, words);
        }
        count += 5;
    }
    push_request(&mut requests, &[b"ROLE"]);
    let mut replies = client.pipeline(&requests, count + 1).await?;
    let until = replies.pop().as_ref().and_then(|role| role.items()?.get(1)?.integer());
    let until = until.and_then(|offset| u64::try_from(offset).ok());
    let until = until.ok_or_else(|| JobError::answer(client.who(), "ROLE gives no offset: is it a primary?"))?;
    let values =
        doubts.into_iter().zip(replies.chunks(5)).map(|(doubt, replies)| value(client.who(), doubt, &replies[4]));
    Ok(Window { until, values: values.collect::<Result<_, _>>()? })
}

fn value(who: &str, doubt: Doubt, exec: &Value) -> Result<Reading, JobError> {
    let read = match exec.items() {
        Some([deadline, Value::Null]) => deadline.integer().map(|at| (at, None)),
        Some([deadline, Value::Bulk(payload)]) => deadline.integer().map(|at| (at, Some(payload.clone()))),
        _ => None,
    };
    let Some((deadline_ms, payload)) = read else {
        return Err(JobError::answer(who, format!("a key cannot be read: {}", exec.brief())));
    };
    let key = doubt.key.clone().unwrap_or_default();
    Ok(Reading { doubt, key, deadline_ms, payload })
}
