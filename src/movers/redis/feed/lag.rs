//! Whether the shadow may be so late that it has lost keys of its own which live on at the authority. Pure.

use std::time::Duration;

use super::batch::{Batch, keys_with_databases};
use super::dialect::needs_presence;
use tokio::time::Instant;
use wire::resp::args::Args;
use wire::resp::command;

/// See the head of this file.
#[derive(Debug)]
pub struct Lag {
    /// Whatever the time: until what had arrived at first is applied; how far that is, once something has.
    pub catching_up: bool,
    first_arrived: Option<u64>,
    /// Whatever the time: until the shadow's deadlines are later than the authority's.
    pub until_exact: bool,
    /// How long the shadow took for the last batch.
    round_trip: Duration,
    /// Since when the oldest command of the batch has waited that went in while the shadow did not seem late.
    trusted_since: Option<Instant>,
}

impl Lag {
    #[must_use]
    pub fn new() -> Self {
        let (round_trip, trusted_since) = (Duration::ZERO, None);
        Self { catching_up: true, first_arrived: None, until_exact: true, round_trip, trusted_since }
    }

    /// Offsets that have arrived and that the shadow has.
    pub fn note(&mut self, received: u64, applied: u64) {
        let goal = *self.first_arrived.get_or_insert(received);
        self.catching_up &= applied < goal;
    }

    /// `since`: when what comes next arrived. The shadow will have it about a round trip from now.
    pub fn is_doubtful(&mut self, since: Option<Instant>, now: Instant, grace_ms: i64) -> bool {
        let waited = since.map_or(Duration::ZERO, |since| now - since);
        let doubtful = self.catching_up || self.until_exact || waited + self.round_trip >= bearable(grace_ms);
        if !doubtful && let Some(since) = since {
            self.trusted_since.get_or_insert(since);
        }
        doubtful
    }

    /// The shadow has the batch, which was sent when it `began`. Whether it took longer than it seemed it would.
    pub fn was_late(&mut self, began: Instant, now: Instant, grace_ms: i64) -> bool {
        self.round_trip = now - began;
        self.trusted_since.take().is_some_and(|since| now - since >= bearable(grace_ms))
    }
}

/// The longest that the shadow may be behind without having lost a key early: half of what its deadlines are later, as clocks differ.
fn bearable(grace_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(grace_ms / 2).unwrap_or(0))
}

/// A shadow that is late may have lost a key of its own that lives on at the authority: a command that builds on what the key holds would then
/// make another one of it.
pub fn watch_presence(frame: &[u8], database: u32, batch: &mut Batch) {
    if !builds_on_keys(frame) {
        return;
    }
    let name = Args::new(frame).next().unwrap_or_default();
    let all = keys_with_databases(frame, database);
    for key in command::lookup(name).keys_of(frame).unwrap_or_default().0 {
        if !key.starts_with(crate::RESERVED_PREFIX) {
            batch.watch(database, key, &all);
        }
    }
}

/// Whether what a command makes depends on what its keys hold.
#[must_use]
pub fn builds_on_keys(frame: &[u8]) -> bool {
    let name = Args::new(frame).next().unwrap_or_default();
    needs_presence(name) || keeps_deadline(name, frame)
}

/// SET overwrites, but for the deadline if it is told to keep that.
fn keeps_deadline(name: &[u8], frame: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"SET") && Args::new(frame).skip(3).any(|option| option.eq_ignore_ascii_case(b"KEEPTTL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_MS: i64 = 1000;

    /// One that has caught up and whose deadlines are exact.
    fn calm() -> Lag {
        Lag { catching_up: false, until_exact: false, ..Lag::new() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_has_waited_long_is_doubtful_and_so_is_what_will_have() {
        let now = Instant::now();
        for (waited, round_trip, doubtful) in
            [(0, 0, false), (499, 0, false), (500, 0, true), (200, 299, false), (200, 300, true)]
        {
            let mut lag = calm();
            lag.was_late(now, now + ms(round_trip), GRACE_MS);
            let now = now + ms(waited);
            assert_eq!(
                lag.is_doubtful(Some(now - ms(waited)), now, GRACE_MS),
                doubtful,
                "{waited} and {round_trip} ms"
            );
        }
    }

    #[test]
    fn what_was_trusted_and_took_long_after_all_was_late() {
        let arrived = Instant::now();
        for (answered, late) in [(499, false), (500, true)] {
            let mut lag = calm();
            let sent = arrived + ms(100);
            assert!(!lag.is_doubtful(Some(arrived), sent, GRACE_MS));
            assert!(!lag.is_doubtful(Some(sent), sent, GRACE_MS), "the oldest counts");
            assert_eq!(lag.was_late(sent, arrived + ms(answered), GRACE_MS), late, "after {answered} ms");
            assert!(!lag.was_late(sent, sent, GRACE_MS), "each batch counts once");
        }
    }

    #[test]
    fn what_had_arrived_at_first_is_doubtful_until_it_is_applied() {
        let (mut lag, now) = (Lag { until_exact: false, ..Lag::new() }, Instant::now());
        lag.note(100, 50);
        assert!(lag.is_doubtful(None, now, GRACE_MS));
        lag.note(200, 100);
        assert!(!lag.is_doubtful(None, now, GRACE_MS));
    }
}
