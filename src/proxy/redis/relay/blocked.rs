//! A blocking command that is outstanding: what is kept of it, so that it can be sent again under another plan with the time it has left.

use std::collections::BTreeSet;

use wire::resp::{Args, command, encode};

/// Where a blocking command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockedState {
    /// Sent: to the authority, or into the lane. The server may not have looked at it yet, and may find at once what it is to wait for.
    Sent,
    /// The server has said that it is blocked: it runs nothing until another client writes.
    Confirmed,
    /// Its end was asked for. If it is given up without a result, it is sent again.
    Ending,
    /// Given up by the old authority; it is sent to the new one in its turn.
    Moving,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Blocked {
    /// As the client sent it.
    pub frame: Vec<u8>,
    /// Its reply is to be dropped.
    pub muted: bool,
    /// When it was sent for the first time.
    pub since_us: u64,
    /// Its number among the relay's commands on pinned connections: who blocked first is served first, also after a move.
    pub number: u64,
    pub state: BlockedState,
}

impl Blocked {
    /// What it waits for.
    #[must_use]
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let name = Args::new(&self.frame).next().unwrap_or_default();
        let keys = command::lookup(name).keys_of(&self.frame).unwrap_or_default().0;
        keys.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// The command with the time it has left.
    #[must_use]
    pub fn frame_at(&self, now_us: u64) -> Vec<u8> {
        let args: Vec<&[u8]> = Args::new(&self.frame).collect();
        let waited_ms = now_us.saturating_sub(self.since_us) as f64 / 1000.0;
        match timeout(&args).and_then(|(at, unit)| Some((at, unit.left(args[at], waited_ms)?))) {
            Some((at, left)) => {
                let mut args = args;
                args[at] = &left;
                encode::request(&args)
            }
            // It waits for ever, or the server is the one to say what is wrong with it.
            None => self.frame.clone(),
        }
    }
}

/// The numbers of the connections that are blocked, out of a server's CLIENT LIST.
#[must_use]
pub fn blocked_in(list: &[u8]) -> BTreeSet<u64> {
    let number_if_blocked = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let value = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
        value("flags=")?.contains('b').then(|| value("id=")?.parse().ok()).flatten()
    };
    list.split(|&byte| byte == b'\n').filter_map(number_if_blocked).collect()
}

/// How a command counts its time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// With decimals.
    Seconds,
    /// Whole ones.
    Milliseconds,
}

impl Unit {
    /// What is left of a time-out. Never nothing, which would mean for ever. `None` when that is what it means, or it is no time-out.
    fn left(self, given: &[u8], waited_ms: f64) -> Option<Vec<u8>> {
        let given: f64 = std::str::from_utf8(given).ok()?.parse().ok()?;
        if !given.is_finite() || given <= 0.0 {
            return None;
        }
        let given_ms = match self {
            Self::Seconds => given * 1000.0,
            Self::Milliseconds => given,
        };
        let left_ms = (given_ms - waited_ms).ceil().max(1.0) as u64;
        Some(match self {
            Self::Seconds => format!("{}.{:03}", left_ms / 1000, left_ms % 1000).into_bytes(),
            Self::Milliseconds => left_ms.to_string().into_bytes(),
        })
    }
}

/// Which argument is the time-out.
fn timeout(args: &[&[u8]]) -> Option<(usize, Unit)> {
    let name = args.first()?.to_ascii_lowercase();
    let (at, unit) = match name.as_slice() {
        b"blpop" | b"brpop" | b"blmove" | b"brpoplpush" | b"bzpopmin" | b"bzpopmax" => (args.len() - 1, Unit::Seconds),
        b"blmpop" | b"bzmpop" => (1, Unit::Seconds),
        b"wait" => (2, Unit::Milliseconds),
        b"waitaof" => (3, Unit::Milliseconds),
        b"xread" | b"xreadgroup" => (block_option(args)?, Unit::Milliseconds),
        _ => return None,
    };
    (at > 0 && at < args.len()).then_some((at, unit))
}

/// The argument of BLOCK. A group or consumer may have that name, so options are skipped with what belongs to them.
fn block_option(args: &[&[u8]]) -> Option<usize> {
    let mut at = 1;
    loop {
        match args.get(at)?.to_ascii_lowercase().as_slice() {
            b"block" => return Some(at + 1),
            b"group" => at += 3,
            b"count" | b"claim" => at += 2,
            b"noack" => at += 1,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str, waited_us: u64) -> String {
        let frame = encode::request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let blocked = Blocked { frame, muted: false, since_us: 7, number: 0, state: BlockedState::Moving };
        let frame = blocked.frame_at(7 + waited_us);
        Args::new(&frame).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn connections_that_a_server_lists_as_blocked() {
        // Redis 7.0.15 and Valkey 9.1, shortened.
        let list = b"id=3 addr=/tmp/s.sock:0 fd=7 name= age=0 flags=bU db=0 cmd=blpop\n\
                     id=4 addr=127.0.0.1:5 fd=8 name=b age=0 flags=N db=0 cmd=client|list\n\
                     id=15 flags=b capa= db=0 cmd=xread\nid=x flags=b\n\xff\n\n";
        assert_eq!(blocked_in(list), BTreeSet::from([3, 15]));
        assert_eq!(blocked_in(b""), BTreeSet::new());
    }

    #[test]
    fn what_is_left_of_a_time_out() {
        for (line, waited_us, left) in [
            ("BLPOP a b 2", 500_000, "BLPOP a b 1.500"),
            ("brpop a 0.5", 499_999, "brpop a 0.001"),
            ("BRPOP a 0.5", 60_000_000, "BRPOP a 0.001"),
            ("BLMOVE a b LEFT RIGHT 1", 999, "BLMOVE a b LEFT RIGHT 1.000"),
            ("BLMOVE a b LEFT RIGHT 1", 1000, "BLMOVE a b LEFT RIGHT 0.999"),
            ("BRPOPLPUSH a b 100", 1_000_000, "BRPOPLPUSH a b 99.000"),
            ("BZPOPMIN 1 2", 1_000_000, "BZPOPMIN 1 1.000"),
            ("BZPOPMAX 1 0.25", 100_000, "BZPOPMAX 1 0.150"),
            ("BLMPOP 3 1 a LEFT", 1_000_000, "BLMPOP 2.000 1 a LEFT"),
            ("BZMPOP 3 1 a MIN COUNT 2", 9_000_000, "BZMPOP 0.001 1 a MIN COUNT 2"),
            ("XREAD COUNT 1 BLOCK 1500 STREAMS s $", 1_000_000, "XREAD COUNT 1 BLOCK 500 STREAMS s $"),
            ("XREAD block 5 STREAMS s $", 4_999, "XREAD block 1 STREAMS s $"),
            ("XREAD BLOCK 5 STREAMS s $", 5_000_000, "XREAD BLOCK 1 STREAMS s $"),
            (
                "XREADGROUP GROUP block 5 NOACK BLOCK 9 STREAMS s >",
                2000,
                "XREADGROUP GROUP block 5 NOACK BLOCK 7 STREAMS s >",
            ),
        ] {
            assert_eq!(after(line, waited_us), left);
        }
        for line in [
            "BLPOP a 0",
            "BLPOP a 0.0",
            "BLMPOP 0 1 a LEFT",
            "XREAD BLOCK 0 STREAMS s $",
            "XREAD STREAMS block 5 0 0",
            "BLPOP a x",
            "BLPOP a -1",
            "BLPOP a inf",
            "BLPOP",
            "XREAD BLOCK",
            "WAITAOF 1 1 0",
        ] {
            assert_eq!(after(line, 3_000_000), line, "nothing to count down");
        }
    }
}
