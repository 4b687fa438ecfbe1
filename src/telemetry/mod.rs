//! What a core counts: plain cells on its own core, merged on the control thread.

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
    /// Replies beginning with '-' that the authority gave.
    pub replies_error: u64,
    /// Replies Crossfade itself made to refuse a command.
    pub replies_refused: u64,
    pub protocol_errors: u64,
    pub upstream_connections: u64,
    pub upstream_connects: u64,
    pub upstream_losses: u64,
    pub bytes_from_clients: u64,
    pub bytes_to_clients: u64,
    /// Commands by name, only those seen; bounded by the command table plus "other".
    pub commands_by_name: Vec<(&'static str, u64)>,
    /// Sessions that have had each class of session state since the start ("listen", "temp table", …).
    pub sessions_by_state: Vec<(&'static str, u64)>,
}

impl CoreCounters {
    /// Adds another relay's or core's counts.
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
