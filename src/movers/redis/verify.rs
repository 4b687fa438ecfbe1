//! Compares keys of both sides under load, exactly: the same reads run at one position of the writes on both sides.
//!
//! Lives on the movers' thread. Shares nothing with the effects and copies of a feed but the RESP codec (invariant I10), so that one
//! mistake cannot hide in both. It repairs nothing and decides nothing: it names keys.

mod large;
mod pieces;

use std::collections::VecDeque;
use std::hash::Hasher;
use std::rc::Rc;
use std::sync::Arc;

use super::clock::now_ms;
use super::content::{Content, Kind};
use super::feed::exclusions::Exclusions;
use super::names::{Batch, NameScan};
use super::probes::{Closeness, PendingProbe, Probed, Prober};
use crate::contract::VerifySpec;
use crate::error::JobError;
use crate::progress::{Meter, Progress};
use base::model::{Endpoint, limits};
use wire::resp::value::{Value, encode_request, encode_request_into};

/// One key proven different at one position (or by a whole-server digest).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    pub database: u32,
    pub key: Vec<u8>,
    /// "value", "type", "ttl", "missing", "extra" (on the shadow, or on the second server of a digest).
    pub class: &'static str,
    /// Short, human: what the authority (or the first server) holds; begins with the endpoint's name.
    pub source: String,
    /// The same of the shadow (or the second server).
    pub target: String,
}

#[derive(Debug, Clone, Default)]
pub struct Compared {
    pub keys: u64,
    pub divergent: Vec<Divergence>,
    /// Keys that could not be compared (probe failed); counted, never assumed equal.
    pub inconclusive: u64,
    /// Keys that differed at one position and were equal at a later one: they were about to be copied again.
    pub settled_later: u64,
}

/// Which two servers are compared, and how.
#[derive(Debug, Clone)]
pub struct SidesSpec {
    pub authority: Endpoint,
    pub shadow: Endpoint,
    pub compare: VerifySpec,
    /// Keys that are not moved, and so not compared.
    pub excluded: Rc<Exclusions>,
}

/// Compares keys of both sides under load, exactly: each pair is read at one position. Scans both sides for names.
///
/// # Errors
/// [`JobError`].
pub(super) async fn verify(spec: SidesSpec, prober: Prober, progress: Arc<Progress>) -> Result<Compared, JobError> {
    let job = run(spec, prober, Arc::clone(&progress));
    progress.or_cancelled(job).await
}

async fn run(spec: SidesSpec, prober: Prober, progress: Arc<Progress>) -> Result<Compared, JobError> {
    let mut authority = NameScan::begin(&spec.authority, limits::COPY_BATCH_KEYS).await?;
    let mut shadow = NameScan::begin(&spec.shadow, limits::COPY_BATCH_KEYS).await?;
    progress.begin(authority.total * u64::from(spec.compare.sample_per_ten_thousand.min(10_000)) / 10_000);
    let salt = now_ms();
    let mut run = Run {
        spec,
        prober,
        progress,
        salt,
        outstanding: VecDeque::new(),
        compared: Compared::default(),
        meter: Meter::start(),
        suspects: Vec::new(),
        failures: 0,
    };
    while let Some(batch) = authority.next_batch().await? {
        run.look_at(batch, &mut authority).await?;
    }
    // What both have was named above; left are keys only the shadow has.
    while let Some(batch) = shadow.next_batch().await? {
        let batch = only_absent(batch, &mut authority).await?;
        run.look_at(batch, &mut shadow).await?;
    }
    while run.settle_oldest().await? {}
    run.confirm().await?;
    run.progress.finish();
    Ok(run.compared)
}

async fn only_absent(batch: Batch, authority: &mut NameScan) -> Result<Batch, JobError> {
    let mut requests = Vec::new();
    for key in &batch.keys {
        encode_request_into(&mut requests, &[b"EXISTS", key]);
    }
    let replies = authority.ask(batch.database, &requests, batch.keys.len()).await?;
    let absent = batch.keys.into_iter().zip(replies).filter(|(_, exists)| exists.integer() != Some(1));
    Ok(Batch { database: batch.database, keys: absent.map(|(key, _)| key).collect() })
}

#[derive(Debug)]
struct Item {
    key: Box<[u8]>,
    kind: Kind,
    bytes: u64,
    tries: u8,
    /// Times it looked different.
    suspicions: u8,
}

struct Outstanding {
    probe: PendingProbe,
    database: u32,
    items: Vec<Item>,
}

struct Run {
    spec: SidesSpec,
    prober: Prober,
    progress: Arc<Progress>,
    salt: u64,
    outstanding: VecDeque<Outstanding>,
    compared: Compared,
    meter: Meter,
    /// Keys that looked different, to be read again at the end: (database, key). Bounded by [`limits::VERIFY_DIVERGENCES_MAX`].
    suspects: Vec<(u32, Item)>,
    /// Probes that failed in a row.
    failures: u32,
}

impl Run {
    /// Learns the types of a batch's keys from the server that named them and puts them into probes.
    async fn look_at(&mut self, mut batch: Batch, scan: &mut NameScan) -> Result<(), JobError> {
        batch.keys.retain(|key| self.sampled(key) && !self.spec.excluded.covers(batch.database, key));
        let mut requests = Vec::new();
        for key in &batch.keys {
            encode_request_into(&mut requests, &[b"TYPE", key]);
            encode_request_into(&mut requests, &[b"MEMORY", b"USAGE", key]);
        }
        let replies = scan.ask(batch.database, &requests, batch.keys.len() * 2).await?;
        let items = batch.keys.into_iter().zip(replies.chunks(2)).map(|(key, facts)| Item {
            key,
            kind: Kind::from_type(&facts[0]),
            bytes: facts[1].integer().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            tries: 0,
            suspicions: 0,
        });
        let (large, items): (Vec<_>, Vec<_>) = items.partition(|item| item.bytes > limits::VERIFY_PIECES_FROM_BYTES);
        for item in large {
            self.look_at_large(batch.database, item, scan).await?;
        }
        let mut probe: Vec<Item> = Vec::new();
        let mut bytes = 0;
        for item in items {
            if !probe.is_empty()
                && (probe.len() >= self.prober.keys_at_once() || bytes + item.bytes > limits::VERIFY_PROBE_BYTES_MAX)
            {
                self.send(batch.database, std::mem::take(&mut probe)).await?;
                bytes = 0;
            }
            bytes += item.bytes;
            probe.push(item);
        }
        if probe.is_empty() { Ok(()) } else { self.send(batch.database, probe).await }
    }

    fn sampled(&self, key: &[u8]) -> bool {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.salt);
        hasher.write(key);
        hasher.finish() % 10_000 < u64::from(self.spec.compare.sample_per_ten_thousand)
    }

    async fn send(&mut self, database: u32, items: Vec<Item>) -> Result<(), JobError> {
        self.progress.checkpoint().await?;
        while self.outstanding.len() >= limits::VERIFY_PROBES_IN_FLIGHT {
            self.settle_oldest().await?;
        }
        let mut commands: Vec<Box<[u8]>> = Vec::with_capacity(items.len() * 3);
        for item in &items {
            commands.push(encode_request(&[b"TYPE", &item.key]).into());
            commands.push(encode_request(&[b"PEXPIRETIME", &item.key]).into());
            commands.extend(item.kind.reads(&item.key).into_iter().map(Vec::into_boxed_slice));
        }
        let closeness =
            if items.iter().any(|item| item.suspicions > 0) { Closeness::Exact } else { Closeness::Passing };
        let probe = self.prober.begin(database, commands, closeness).await?;
        self.outstanding.push_back(Outstanding { probe, database, items });
        Ok(())
    }

    /// Waits for the oldest probe and judges its keys; false when there is none.
    async fn settle_oldest(&mut self) -> Result<bool, JobError> {
        let Some(Outstanding { probe, database, items }) = self.outstanding.pop_front() else { return Ok(false) };
        let again = match probe.wait().await {
            Ok(probed) => {
                self.failures = 0;
                self.judge_all(database, items, &probed)
            }
            Err(error) => {
                self.failed(error).await?;
                items
            }
        };
        let (again, given_up): (Vec<_>, Vec<_>) =
            again.into_iter().partition(|item| item.tries < limits::VERIFY_TYPE_RETRIES);
        self.compared.inconclusive += given_up.len() as u64;
        self.meter.add(&self.progress, given_up.len() as u64, 0);
        if !again.is_empty() {
            let again = again.into_iter().map(|item| Item { tries: item.tries + 1, ..item }).collect();
            // Not recursive: `send` settles others only while the queue is full, and this probe has just left it.
            Box::pin(self.send(database, again)).await?;
        }
        Ok(true)
    }

    /// After a failed probe: waits longer each time; gives the error back when it has been too often, or is of another kind.
    async fn failed(&mut self, error: JobError) -> Result<(), JobError> {
        self.failures += 1;
        if !matches!(error, JobError::Order { .. }) || self.failures > limits::JOB_RECONNECTS_MAX {
            return Err(error);
        }
        tokio::time::sleep(limits::JOB_RECONNECT_PAUSE_MIN * self.failures).await;
        Ok(())
    }

    /// Reads suspects again, with a pause in between, until each has been found equal, divergent or inconclusive.
    async fn confirm(&mut self) -> Result<(), JobError> {
        while !self.suspects.is_empty() {
            tokio::time::sleep(limits::VERIFY_CONFIRM_PAUSE).await;
            for (database, item) in std::mem::take(&mut self.suspects) {
                self.send(database, vec![Item { tries: 0, ..item }]).await?;
            }
            while self.settle_oldest().await? {}
        }
        Ok(())
    }

    /// Gives back the keys to be read again at once.
    fn judge_all(&mut self, database: u32, items: Vec<Item>, probed: &Probed) -> Vec<Item> {
        let (authority, shadow) = (&probed.authority, &probed.shadow);
        let tolerance_ms = self.spec.compare.ttl_tolerance_ms;
        let now = now_ms();
        let (mut at, mut again) = (0, Vec::new());
        for item in items {
            let end = at + 2 + item.kind.reads_len();
            let verdict = match (authority.get(at..end), shadow.get(at..end)) {
                (Some(a), Some(s)) => {
                    judge(item.kind, &Seen::read(item.kind, a), &Seen::read(item.kind, s), now, tolerance_ms)
                }
                _ => Verdict::Inconclusive,
            };
            let doubtful = probed.doubtful.get(at..end).is_some_and(|doubts| doubts.contains(&true));
            at = end;
            match verdict {
                Verdict::Again(kind) => again.push(Item { kind, ..item }),
                // Not of one moment, or known to be wrong and about to be copied again: look again, more closely.
                Verdict::Different { .. } if doubtful && item.suspicions >= limits::VERIFY_CONFIRMATIONS => {
                    self.count(database, item, Verdict::Inconclusive);
                }
                Verdict::Different { .. } if doubtful && self.suspects.len() < limits::VERIFY_DIVERGENCES_MAX => {
                    self.suspects.push((database, Item { suspicions: item.suspicions + 1, ..item }));
                }
                verdict => self.count(database, item, verdict),
            }
        }
        self.progress.stretch();
        again
    }

    /// A key is through: what is known of it will not be known better.
    fn count(&mut self, database: u32, item: Item, verdict: Verdict) {
        self.compared.keys += 1;
        self.meter.add(&self.progress, 1, 0);
        match verdict {
            Verdict::Equal => self.compared.settled_later += u64::from(item.suspicions > 0),
            Verdict::Again(_) | Verdict::Inconclusive => self.compared.inconclusive += 1,
            Verdict::Different { class, authority, shadow } => {
                if self.compared.divergent.len() < limits::VERIFY_DIVERGENCES_MAX {
                    let (source, target) = (&self.spec.authority.name, &self.spec.shadow.name);
                    self.compared.divergent.push(Divergence {
                        database,
                        key: item.key.into_vec(),
                        class,
                        source: format!("{source}: {authority}"),
                        target: format!("{target}: {shadow}"),
                    });
                }
            }
        }
    }
}

/// What one side held at the probe's position.
#[derive(Debug)]
pub(super) struct Seen {
    kind: Kind,
    /// Absolute, milliseconds since the Unix epoch; `None` = does not expire.
    deadline_ms: Option<u64>,
    content: Result<Option<Content>, String>,
}

impl Seen {
    /// `replies`: TYPE, PEXPIRETIME, then the reads of `asked`.
    pub(super) fn read(asked: Kind, replies: &[Value]) -> Self {
        Self::read_with(asked, replies, |content| Content::read(asked, content))
    }

    /// The same, of what is read in another way.
    fn read_with(
        asked: Kind,
        replies: &[Value],
        read: impl FnOnce(&[Value]) -> Result<Option<Content>, String>,
    ) -> Self {
        let [kind, deadline, content @ ..] = replies else {
            return Self { kind: Kind::Other, deadline_ms: None, content: Err("no replies".to_owned()) };
        };
        let mut seen = Self {
            kind: if kind.error().is_some() { Kind::Other } else { Kind::from_type(kind) },
            deadline_ms: deadline.integer().and_then(|ms| u64::try_from(ms).ok()),
            content: Err("not read".to_owned()),
        };
        if seen.kind == asked && asked.reads_len() > 0 {
            seen.content = read(content);
        }
        // -2: expired between TYPE and PEXPIRETIME.
        if deadline.integer() == Some(-2) || seen.content == Ok(None) {
            seen.kind = Kind::Absent;
        }
        seen
    }

    fn describe(&self, other: &Self) -> String {
        let ttl = self.deadline_ms.map_or(String::new(), |ms| format!(", expires at {ms} ms"));
        match (&self.kind, &self.content) {
            (Kind::Absent, _) => "absent".to_owned(),
            (_, Ok(Some(content))) => {
                format!("{}{ttl}", content.describe(other.content.as_ref().ok().and_then(Option::as_ref)))
            }
            (kind, _) => format!("{}{ttl}", kind.as_str()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Equal,
    /// The key's type is another than asked for; read it again as this.
    Again(Kind),
    Inconclusive,
    Different {
        class: &'static str,
        authority: String,
        shadow: String,
    },
}

/// The rule of equality. `now_ms` is when the answer came: a side whose deadline is near it may have lost the key first.
pub(super) fn judge(asked: Kind, authority: &Seen, shadow: &Seen, now_ms: u64, tolerance_ms: u64) -> Verdict {
    let different =
        |class| Verdict::Different { class, authority: authority.describe(shadow), shadow: shadow.describe(authority) };
    let expiring = |seen: &Seen| seen.deadline_ms.is_some_and(|deadline| deadline <= now_ms + tolerance_ms);
    match (authority.kind, shadow.kind) {
        (Kind::Absent, Kind::Absent) => Verdict::Equal,
        (Kind::Absent, _) if expiring(shadow) => Verdict::Equal,
        (Kind::Absent, _) => different("extra"),
        (_, Kind::Absent) if expiring(authority) => Verdict::Equal,
        (_, Kind::Absent) => different("missing"),
        (Kind::Other, _) | (_, Kind::Other) => Verdict::Inconclusive,
        (a, s) if a != s => different("type"),
        (a, _) if a != asked => Verdict::Again(a),
        _ => match (&authority.content, &shadow.content) {
            (Ok(a), Ok(s)) if a != s => different("value"),
            (Ok(_), Ok(_)) => match (authority.deadline_ms, shadow.deadline_ms) {
                (None, None) => Verdict::Equal,
                (Some(a), Some(s)) if a.abs_diff(s) <= tolerance_ms => Verdict::Equal,
                _ => different("ttl"),
            },
            (Err(_), _) | (_, Err(_)) => Verdict::Inconclusive,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn seen(kind: &str, deadline: i64, value: Option<&str>) -> Seen {
        let value = value.map_or(Value::Null, |text| Value::Bulk(text.as_bytes().to_vec()));
        Seen::read(Kind::String, &[Value::Simple(kind.into()), Value::Integer(deadline), value])
    }

    fn class(authority: &Seen, shadow: &Seen) -> &'static str {
        match judge(Kind::String, authority, shadow, NOW, 2000) {
            Verdict::Equal => "equal",
            Verdict::Again(_) => "again",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Different { class, .. } => class,
        }
    }

    #[test]
    fn the_rule_of_equality() {
        let soon = NOW as i64 + 1500;
        let late = NOW as i64 + 60_000;
        let error =
            Seen::read(Kind::String, &[Value::Simple("string".into()), Value::Integer(-1), Value::Error("ERR".into())]);
        let table = [
            ("equal", seen("string", -1, Some("a")), seen("string", -1, Some("a"))),
            ("value", seen("string", -1, Some("a")), seen("string", -1, Some("b"))),
            ("ttl", seen("string", -1, Some("a")), seen("string", late, Some("a"))),
            ("ttl", seen("string", late, Some("a")), seen("string", late + 2001, Some("a"))),
            ("equal", seen("string", late, Some("a")), seen("string", late + 1000, Some("a"))),
            ("equal", seen("none", -2, None), seen("none", -2, None)),
            ("equal", seen("none", -2, None), seen("string", soon, Some("a"))),
            ("extra", seen("none", -2, None), seen("string", late, Some("a"))),
            ("missing", seen("string", -1, Some("a")), seen("none", -2, None)),
            ("equal", seen("string", soon, Some("a")), seen("none", -2, None)),
            ("type", seen("list", -1, None), seen("hash", -1, None)),
            ("again", seen("list", -1, None), seen("list", -1, None)),
            // Expired between the commands of one probe.
            ("equal", seen("string", NOW as i64 - 1, None), seen("string", NOW as i64 + 999, Some("a"))),
            ("inconclusive", seen("string", -1, Some("a")), error),
        ];
        for (expected, authority, shadow) in &table {
            assert_eq!(class(authority, shadow), *expected, "{authority:?} {shadow:?}");
        }
    }
}
