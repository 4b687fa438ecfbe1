//! Clients' reads, repeated on both servers of a feed and compared. Lives on the movers' thread.
//!
//! The cores hand over the requests of some reads; here each is asked again on both servers at one position of the stream, with Crossfade's own
//! log-in. What its keys see written meanwhile is asked again at an exact position.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::{Notify, mpsc};

use super::feed::applier::Feed;
use super::feed::batch::Doubt;
use super::feed::compare::FeedReader;
use crate::contract::{MoverEvent, ReadsCompared, Route};
use base::model::{InterlayName, SampledRead, Side, Sighting, limits};
use wire::resp::args::Args;
use wire::resp::command::{self, CompareRule};
use wire::resp::compare::{Comparison, compare};
use wire::resp::value::Value;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: RefCell<VecDeque<SampledRead>>,
    counts: Rc<Cell<ReadsCompared>>,
    arrived: Notify,
}

/// Where reads are compared, and who is told.
#[derive(Debug)]
pub(super) struct Place {
    pub interlay: InterlayName,
    pub events: mpsc::Sender<(InterlayName, MoverEvent)>,
    pub route: Route,
    pub feed: Feed,
    pub reader: Rc<FeedReader>,
}

impl Reads {
    pub(super) fn take(&self, reads: Vec<SampledRead>) {
        let mut waiting = self.waiting.borrow_mut();
        for read in reads {
            if waiting.len() >= limits::FEED_READS_WAITING_MAX {
                waiting.pop_front();
            }
            waiting.push_back(read);
        }
        self.arrived.notify_one();
    }

    pub(super) fn counts(&self) -> Rc<Cell<ReadsCompared>> {
        Rc::clone(&self.counts)
    }

    fn count(&self, change: impl FnOnce(&mut ReadsCompared)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Compares what comes, until it is dropped.
    pub(super) async fn compare_forever(&self, place: &Place) {
        loop {
            let some = self.next();
            let Some(first) = some.first() else {
                self.arrived.notified().await;
                continue;
            };
            if !place.feed.status().deadlines_exact {
                // Nothing can be said yet: what is not on the shadow is no difference.
                self.count(|counts| counts.not_comparable += some.len() as u64);
                continue;
            }
            let database = first.database;
            let exclusions = place.feed.exclusions();
            let all = some.len();
            let some: Vec<_> = some.into_iter().filter(|read| !exclusions.touches(database, &read.frame)).collect();
            self.count(|counts| counts.not_comparable += (all - some.len()) as u64);
            if !some.is_empty() {
                self.compare(database, some, place).await;
            }
        }
    }

    /// A few of one database.
    fn next(&self) -> Vec<SampledRead> {
        let mut waiting = self.waiting.borrow_mut();
        let Some(database) = waiting.front().map(|read| read.database) else { return Vec::new() };
        let same = waiting.iter().take(limits::FEED_READS_AT_ONCE).take_while(|read| read.database == database).count();
        waiting.drain(..same).collect()
    }

    async fn compare(&self, database: u32, reads: Vec<SampledRead>, place: &Place) {
        let frames: Vec<Box<[u8]>> = reads.into_iter().map(|read| read.frame).collect();
        let Ok(seen) = place.reader.in_passing(database, &frames).await else {
            self.count(|counts| counts.inconclusive += frames.len() as u64);
            return;
        };
        let answers = seen.authority.into_iter().zip(seen.shadow).zip(seen.doubtful);
        let mut again = Vec::new();
        for (frame, (answers, doubtful)) in frames.into_iter().zip(answers) {
            if doubtful || judge(&frame, &answers.0, &answers.1, place) == Comparison::Divergent {
                again.push(frame);
            } else {
                self.conclude(database, &frame, &answers, place).await;
            }
        }
        if !again.is_empty() {
            self.compare_exactly(database, again, place).await;
        }
    }

    /// Once more where nothing can come in between: a difference that is real is there too.
    async fn compare_exactly(&self, database: u32, frames: Vec<Box<[u8]>>, place: &Place) {
        let Ok(seen) = place.reader.exactly(database, frames.clone()).await else {
            self.count(|counts| counts.inconclusive += frames.len() as u64);
            return;
        };
        let answers = seen.authority.into_iter().zip(seen.shadow).zip(seen.doubtful);
        for (frame, (answers, doubtful)) in frames.into_iter().zip(answers) {
            if doubtful {
                self.count(|counts| counts.inconclusive += 1);
            } else {
                self.conclude(database, &frame, &answers, place).await;
            }
        }
    }

    async fn conclude(&self, database: u32, frame: &[u8], (authority, shadow): &(Value, Value), place: &Place) {
        let comparison = judge(frame, authority, shadow, place);
        self.count(|counts| {
            counts.compared += 1;
            counts.equivalent += u64::from(comparison == Comparison::Equivalent);
            counts.divergent += u64::from(comparison == Comparison::Divergent);
        });
        if comparison != Comparison::Divergent {
            return;
        }
        let name = Args::new(frame).next().unwrap_or_default();
        let keys = command::lookup(name).keys_of(frame).unwrap_or_default().0;
        let doubt =
            |key: &&[u8]| Doubt { database, key: Some(key.to_vec()), why: "a read found it different".to_owned() };
        place.feed.doubt(keys.iter().map(doubt));
        let said = |value: &Value| format!("{} answered {}", String::from_utf8_lossy(name).to_uppercase(), kind(value));
        let (source, target) = match place.route.side {
            Side::Source => (said(authority), said(shadow)),
            Side::Target => (said(shadow), said(authority)),
        };
        let key = keys.first().map(|key| key.to_vec()).unwrap_or_default();
        let class = class(authority, shadow).to_owned();
        let seen = MoverEvent::Divergence(Sighting { database, key, class, source, target });
        // Control is gone only when the process ends.
        let _ = place.events.send((place.interlay.clone(), seen)).await;
    }
}

fn judge(frame: &[u8], authority: &Value, shadow: &Value, place: &Place) -> Comparison {
    let name = Args::new(frame).next().unwrap_or_default();
    let rule = command::lookup(name).compare;
    if rule == CompareRule::Never {
        return Comparison::Equivalent;
    }
    let encoded = |value: &Value| {
        let mut bytes = Vec::new();
        value.encode_into(&mut bytes);
        bytes
    };
    let grace_ms = i64::try_from(place.route.ttl_grace_ms).unwrap_or(i64::MAX);
    compare(rule, &encoded(authority), &encoded(shadow), grace_ms)
}

fn class(authority: &Value, shadow: &Value) -> &'static str {
    match (authority, shadow) {
        (Value::Error(_), Value::Error(_)) => "error_class",
        (Value::Error(_), _) | (_, Value::Error(_)) => "error",
        (Value::Null, _) => "extra",
        (_, Value::Null) => "missing",
        _ => "value",
    }
}

/// What a reply is, without its contents.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Error(_) => "an error".to_owned(),
        Value::Array(items) | Value::Set(items) | Value::Map(items) | Value::Push(items) => {
            format!("{} elements", items.len())
        }
        other => format!("{} bytes", other.bytes().map_or(0, <[u8]>::len)),
    }
}
