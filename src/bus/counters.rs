//! What a core counts: plain cells on its own core, merged on the control thread.

use base::model::Side;
use base::stdx::histogram::Histogram;

/// False in a build with the feature `without-telemetry`, which exists to measure what the rest of this module costs.
pub const ON: bool = !cfg!(feature = "without-telemetry");

/// What one side has answered, as seen by a client or by the shadow's queue.
#[derive(Debug, Clone, Default)]
pub struct SideCounters {
    pub requests: u64,
    /// Of those, error replies.
    pub errors: u64,
    /// From writing a request to a connection until the reply's last byte arrives; for the authority a sample, one request at a time on each
    /// connection.
    pub latency_us: Histogram,
}

impl SideCounters {
    pub fn answered(&mut self, is_error: bool) {
        self.answered_many(1, u64::from(is_error));
    }

    pub fn answered_many(&mut self, replies: u64, errors: u64) {
        if !ON {
            return;
        }
        self.requests += replies;
        self.errors += errors;
    }

    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.latency_us.add(&other.latency_us);
    }
}

/// Measures one of the requests under way on a connection that answers in order, then the next that is sent: no clock is kept for
/// every request.
#[derive(Debug, Default)]
pub struct Probe {
    answered: u64,
    /// Which reply ends the measurement, and when it began.
    waiting: Option<(u64, u64)>,
}

impl Probe {
    /// A request was sent; `outstanding` are now unanswered, it among them.
    pub fn sent(&mut self, outstanding: usize, now_us: u64) {
        if ON && self.waiting.is_none() {
            self.waiting = Some((self.answered + outstanding as u64, now_us));
        }
    }

    /// The oldest was answered; its latency if it was the one that is measured.
    pub fn answered(&mut self, now_us: u64) -> Option<u64> {
        self.answered += 1;
        let (until, since) = self.waiting?;
        if self.answered < until {
            return None;
        }
        self.waiting = None;
        Some(now_us.saturating_sub(since))
    }

    /// The oldest `count` were answered; the latency of the one that is measured if it is among them.
    pub fn answered_many(&mut self, count: u64, now_us: u64) -> Option<u64> {
        self.answered += count.saturating_sub(1);
        if count == 0 { None } else { self.answered(now_us) }
    }

    /// No outstanding request will be answered.
    pub fn lost(&mut self) {
        self.waiting = None;
    }
}

/// Counters of one core for all its interlays, since start. Lives on one core; a copy crosses in a report.
#[derive(Debug, Clone, Default)]
pub struct CoreCounters {
    pub connections_accepted: u64,
    pub connections_open: u64,
    pub connections_refused: u64,
    pub commands: u64,
    pub commands_read: u64,
    pub commands_write: u64,
    pub commands_lane: u64,
    pub commands_pinned: u64,
    /// Replies of the authority that begin with '-'.
    pub replies_error: u64,
    /// Replies in which Crossfade itself refused a command.
    pub replies_refused: u64,
    pub protocol_errors: u64,
    pub upstream_connections: u64,
    pub upstream_connects: u64,
    pub upstream_losses: u64,
    pub bytes_from_clients: u64,
    pub bytes_to_clients: u64,
    pub source: SideCounters,
    pub target: SideCounters,
    /// Commands by name, only those seen; bounded by the command table plus "other".
    pub commands_by_name: Vec<(&'static str, u64)>,
    /// Sessions that have had each class of session state since the start ("listen", "temp table", …).
    pub sessions_by_state: Vec<(&'static str, u64)>,
}

impl CoreCounters {
    pub fn side_mut(&mut self, side: Side) -> &mut SideCounters {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    /// Adds the counts of another relay or core.
    pub fn add(&mut self, other: &Self) {
        self.connections_accepted += other.connections_accepted;
        self.connections_open += other.connections_open;
        self.connections_refused += other.connections_refused;
        self.commands += other.commands;
        self.commands_read += other.commands_read;
        self.commands_write += other.commands_write;
        self.commands_lane += other.commands_lane;
        self.commands_pinned += other.commands_pinned;
        self.replies_error += other.replies_error;
        self.replies_refused += other.replies_refused;
        self.protocol_errors += other.protocol_errors;
        self.upstream_connections += other.upstream_connections;
        self.upstream_connects += other.upstream_connects;
        self.upstream_losses += other.upstream_losses;
        self.bytes_from_clients += other.bytes_from_clients;
        self.bytes_to_clients += other.bytes_to_clients;
        self.source.add(&other.source);
        self.target.add(&other.target);
        add_named(&mut self.commands_by_name, &other.commands_by_name);
        add_named(&mut self.sessions_by_state, &other.sessions_by_state);
    }
}

fn add_named(totals: &mut Vec<(&'static str, u64)>, counts: &[(&'static str, u64)]) {
    for &(name, count) in counts {
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += count,
            None => totals.push((name, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_at_a_time_is_measured() {
        let mut probe = Probe::default();
        probe.sent(1, 100);
        probe.sent(2, 150); // not measured: another request is being measured
        assert_eq!(probe.answered(180), Some(80));
        assert_eq!(probe.answered(190), None);
        probe.sent(1, 200);
        assert_eq!(probe.answered(260), Some(60));
        probe.sent(3, 300);
        assert_eq!((probe.answered(310), probe.answered(320), probe.answered(330)), (None, None, Some(30)));
        probe.sent(1, 400);
        probe.lost();
        probe.sent(1, 500);
        assert_eq!(probe.answered(501), Some(1));
    }
}
