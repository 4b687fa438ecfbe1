//! Two replies to one read at one position: what the comparison policy says, and the built-in comparison where it says nothing.

use std::borrow::Cow;

use super::authority_queue::ComparedRead;
use super::facts::{Asked, reply_kind, with_facts};
use super::shadow_queue::Compared;
use super::state::Lane;
use base::model::limits;
use bus::LaneEvent;
use policy::{Opinion, abi};
use wire::resp::command::{Command, CompareRule};
use wire::resp::compare::{Comparison, compare};
use wire::resp::effect::integer;
use wire::resp::resp2::to_resp2;

impl Lane {
    /// The authority answered a read that is to be compared: the shadow is asked, unless the two may differ rightly.
    pub(super) fn compared_read_answered(&mut self, read: ComparedRead, checked: bool, reply: &[u8]) {
        let before = if checked { self.due.read_deadline } else { Some(-1) };
        let alive = match before {
            Some(-1) => true,
            Some(at) => at - self.now.wall_ms > limits::DEADLINE_DOUBT_MS,
            None => false,
        };
        let known = read.pass == self.jobs.pass.number
            && read.keys.iter().all(|key| !self.keys.is_dirty(key.id) && !self.keys.is_altered(key.id));
        if !alive
            || !known
            || reply.len() > limits::COMPARED_REPLY_BYTES_MAX
            || read.command.compare == CompareRule::Never
        {
            self.report.counts.reads_not_comparable += 1;
            return;
        }
        let latency_us = self.now.mono_us.saturating_sub(read.at_us);
        if !self.enqueue_compared(Box::new(Compared { read, reply: reply.into(), latency_us })) {
            self.report.counts.reads_not_comparable += 1;
        }
    }

    /// The shadow answered it too.
    pub(super) fn compared(&mut self, compared: &Compared, shadow: &[u8], latency_us: u64) {
        let keys = &compared.read.keys;
        let another_pass = compared.read.pass != self.jobs.pass.number;
        if another_pass || keys.iter().any(|key| self.keys.is_dirty(key.id) || self.keys.is_altered(key.id)) {
            self.report.counts.reads_not_comparable += 1;
            return;
        }
        let class = match self.opinion(compared, shadow, latency_us) {
            Opinion::Ignore => {
                self.report.counts.reads_not_comparable += 1;
                return;
            }
            Opinion::Equal => None,
            Opinion::Equivalent => {
                self.report.counts.reads_equivalent += 1;
                None
            }
            Opinion::Divergent(class) => Some(class),
            Opinion::Builtin => self.built_in(compared, shadow),
        };
        self.report.counts.reads_compared += 1;
        let Some(class) = class else { return };
        self.report.counts.read_divergences += 1;
        self.mark_all_dirty(keys);
        let key = &keys[0];
        self.out.tell(LaneEvent::ReadDivergence {
            database: key.database,
            key: (&*key.name).into(),
            class,
            authority: summary(compared.read.command, &compared.reply),
            shadow: summary(compared.read.command, shadow),
        });
    }

    /// What the policy says; nothing where there is none.
    fn opinion(&mut self, compared: &Compared, shadow: &[u8], latency_us: u64) -> Opinion {
        let mut policies = self.policies.borrow_mut();
        let Some(seat) = policies.pair.as_mut() else { return Opinion::Builtin };
        let ComparedRead { frame, command, keys, from, resp, .. } = &compared.read;
        let asked = Asked { command, frame, from: *from, database: keys[0].database, in_transaction: false };
        // Both in one protocol, so that no policy has to know how they differ.
        let (authority, shadow) = match resp {
            3 => (to_resp2(&compared.reply), to_resp2(shadow).map_or(Cow::Borrowed(shadow), Cow::Owned)),
            _ => (None, Cow::Borrowed(shadow)),
        };
        let authority = authority.as_deref().unwrap_or(&compared.reply);
        let shown = without_grace(command.compare, &shadow, self.plan.ttl_grace_ms as i64);
        let shown = shown.as_deref().unwrap_or(&shadow);
        let reply = |bytes, latency_us| {
            let (kind, length) = (reply_kind(bytes), bytes.len() as u64);
            abi::host::ReplyParts { kind, length, latency_us: u32::try_from(latency_us).unwrap_or(u32::MAX), bytes }
        };
        let (authority, shadow) = (reply(authority, compared.latency_us), reply(shown, latency_us));
        with_facts(&asked, |facts| seat.judge(facts, authority, shadow, self.now.wall_ms))
    }

    fn built_in(&mut self, compared: &Compared, shadow: &[u8]) -> Option<String> {
        let rule = compared.read.command.compare;
        match compare(rule, &compared.reply, shadow, self.plan.ttl_grace_ms as i64) {
            Comparison::Equal => None,
            Comparison::Equivalent => {
                self.report.counts.reads_equivalent += 1;
                None
            }
            Comparison::Divergent => Some(difference(rule, &compared.reply, shadow).to_owned()),
        }
    }
}

/// The class of a difference the built-in comparison found.
fn difference(rule: CompareRule, authority: &[u8], shadow: &[u8]) -> &'static str {
    use abi::ReplyKind::{Error, Nothing};
    match (reply_kind(authority), reply_kind(shadow)) {
        (Error, Error) => "error_class",
        (Error, _) | (_, Error) => "error",
        (Nothing, _) => "extra",
        (_, Nothing) => "missing",
        _ => match rule {
            CompareRule::RemainingMs
            | CompareRule::RemainingSeconds
            | CompareRule::DeadlineMs
            | CompareRule::DeadlineSeconds => "ttl",
            CompareRule::Unordered | CompareRule::UnorderedPairs => "members",
            CompareRule::Never | CompareRule::Exact | CompareRule::Scores => "value",
        },
    }
}

/// What a reply is, without its contents.
fn summary(command: &Command, reply: &[u8]) -> String {
    let name = command.name.to_ascii_uppercase();
    match integer(reply) {
        Some(number) => format!("{name} answered {number}"),
        None => format!("{name} answered {}, {} bytes", reply_kind(reply).word(), reply.len()),
    }
}

/// A remaining time of the shadow without the grace that only the shadow's keys have: policies compare what was meant.
/// `None`: the reply is nothing of the kind.
fn without_grace(rule: CompareRule, shadow: &[u8], grace_ms: i64) -> Option<Vec<u8>> {
    let unit = match rule {
        CompareRule::RemainingMs | CompareRule::DeadlineMs => 1,
        CompareRule::RemainingSeconds | CompareRule::DeadlineSeconds => 1000,
        CompareRule::Never
        | CompareRule::Exact
        | CompareRule::Scores
        | CompareRule::Unordered
        | CompareRule::UnorderedPairs => return None,
    };
    let left = integer(shadow).filter(|left| *left >= 0)?;
    Some(format!(":{}\r\n", (left - grace_ms / unit).max(0)).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_taken_off_remaining_times_only() {
        let text = |rule, reply: &str| {
            without_grace(rule, reply.as_bytes(), 1500).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        assert_eq!(text(CompareRule::RemainingMs, ":5000\r\n").as_deref(), Some(":3500\r\n"));
        assert_eq!(text(CompareRule::RemainingSeconds, ":5\r\n").as_deref(), Some(":4\r\n"));
        assert_eq!(text(CompareRule::RemainingMs, ":20\r\n").as_deref(), Some(":0\r\n"));
        assert_eq!(text(CompareRule::RemainingMs, ":-1\r\n"), None);
        assert_eq!(text(CompareRule::Exact, ":5000\r\n"), None);
    }

    #[test]
    fn differences_have_a_class() {
        let class = |rule, a: &str, b: &str| difference(rule, a.as_bytes(), b.as_bytes());
        assert_eq!(class(CompareRule::Exact, "$1\r\na\r\n", "$-1\r\n"), "missing");
        assert_eq!(class(CompareRule::Exact, "$-1\r\n", "$1\r\na\r\n"), "extra");
        assert_eq!(class(CompareRule::Exact, "$1\r\nb\r\n", "$1\r\na\r\n"), "value");
        assert_eq!(class(CompareRule::RemainingMs, ":5\r\n", ":-1\r\n"), "ttl");
        assert_eq!(class(CompareRule::Unordered, "*0\r\n", "*1\r\n:1\r\n"), "members");
        assert_eq!(class(CompareRule::Exact, "-ERR a\r\n", ":1\r\n"), "error");
    }
}
