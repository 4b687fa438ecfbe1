//! Compares one large value piece by piece, each at a position of its own. Lives on the movers' thread.

use super::pieces::{Pieces, count_request};
use super::{Item, Probed, Run, Seen, Verdict, judge};
use crate::error::JobError;
use crate::redis::clock::now_ms;
use crate::redis::content::Kind;
use crate::redis::names::NameScan;
use crate::redis::probes::Closeness;
use base::model::limits;
use wire::resp::value::{Value, encode_request};

impl Run {
    /// `scan` is of the side that named the key.
    pub(super) async fn look_at_large(
        &mut self,
        database: u32,
        item: Item,
        scan: &mut NameScan,
    ) -> Result<(), JobError> {
        let mut kind = item.kind;
        for _ in 0..=limits::VERIFY_TYPE_RETRIES {
            match self.walk(database, &item, kind, scan).await? {
                Verdict::Again(now) => kind = now,
                verdict => {
                    self.count(database, item, verdict);
                    return Ok(());
                }
            }
        }
        self.count(database, item, Verdict::Inconclusive);
        Ok(())
    }

    async fn walk(&mut self, database: u32, item: &Item, kind: Kind, scan: &mut NameScan) -> Result<Verdict, JobError> {
        let Some(count) = count_request(kind, &item.key) else { return Ok(Verdict::Inconclusive) };
        let count = scan.ask(database, &count, 1).await?;
        let count = count.first().and_then(Value::integer).and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        let process = scan.process().to_owned();
        let mut pieces = Pieces::of(&item.key, kind, item.bytes, count);
        let mut closeness = Closeness::Passing;
        while !pieces.is_done() {
            if let Some(request) = pieces.names_request() {
                let names = scan.ask(database, &request, 1).await?;
                let named = names.first().is_some_and(|names| pieces.take_names(names).is_ok());
                // A cursor is good for as long as the process that gave it lives.
                if !named || scan.process() != process {
                    return Ok(Verdict::Again(kind));
                }
            }
            let (verdict, replies) = self.compare_piece(database, item, kind, &pieces, &mut closeness).await?;
            if verdict != Verdict::Equal {
                return Ok(verdict);
            }
            let gone = Kind::from_type(&replies[0]) == Kind::Absent;
            if gone || pieces.go_on(&replies[2..]).is_err() {
                return Ok(if gone { Verdict::Equal } else { Verdict::Inconclusive });
            }
        }
        Ok(Verdict::Equal)
    }

    /// With the authority's replies. What differs in passing is looked at exactly, and from then on every piece of this value.
    async fn compare_piece(
        &mut self,
        database: u32,
        item: &Item,
        kind: Kind,
        pieces: &Pieces<'_>,
        closeness: &mut Closeness,
    ) -> Result<(Verdict, Vec<Value>), JobError> {
        let mut reads = vec![encode_request(&[b"TYPE", &item.key]), encode_request(&[b"PEXPIRETIME", &item.key])];
        reads.extend(pieces.reads());
        let reads: Vec<Box<[u8]>> = reads.into_iter().map(Vec::into_boxed_slice).collect();
        for _ in 0..=limits::VERIFY_CONFIRMATIONS {
            let looked = *closeness;
            let Probed { authority, shadow, doubtful } = self.probe_until_answered(database, &reads, looked).await?;
            let read = |replies: &[Value]| Seen::read_with(kind, replies, |content| pieces.content(content));
            let tolerance_ms = self.spec.compare.ttl_tolerance_ms;
            let verdict = match (authority.len() == reads.len(), shadow.len() == reads.len()) {
                (true, true) => judge(kind, &read(&authority), &read(&shadow), now_ms(), tolerance_ms),
                _ => return Ok((Verdict::Inconclusive, authority)),
            };
            if !matches!(verdict, Verdict::Different { .. }) || !doubtful.contains(&true) {
                return Ok((verdict, authority));
            }
            *closeness = Closeness::Exact;
            if looked == Closeness::Exact {
                tokio::time::sleep(limits::VERIFY_CONFIRM_PAUSE).await;
            }
        }
        Ok((Verdict::Inconclusive, Vec::new()))
    }

    async fn probe_until_answered(
        &mut self,
        database: u32,
        reads: &[Box<[u8]>],
        closeness: Closeness,
    ) -> Result<Probed, JobError> {
        loop {
            self.progress.checkpoint().await?;
            let probe = self.prober.begin(database, reads.to_vec(), closeness).await?;
            match probe.wait().await {
                Ok(probed) => {
                    self.failures = 0;
                    return Ok(probed);
                }
                Err(error) => self.failed(error).await?,
            }
        }
    }
}
