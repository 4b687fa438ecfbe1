//! What must be true of every run, whatever happened in it.
//!
//! *Linearizability.* The commands that the cores had executed by the server that was the authority, epoch after epoch, are one history. Every
//! acknowledged operation of a client must be in it exactly once, between its call and its return, and playing the history again on an empty model must
//! give every reply anew. A write that was lost, doubled or put out of order by the feed or a flip makes some later reply, or the end, differ.
//!
//! *Deadlines* are not played again by the clock: whether a key was there is taken from the server, and must agree with its deadline.
//!
//! *Equality*: at each flip, and when everything rests, both servers hold the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{History, Operation, line};
use crate::limits;
use crate::model::commands::execute;
use crate::model::data::{Data, Entry, Expiry, Key, Run, Words};
use crate::model::log::{Executed, Step};
use wire::resp::value::Value as Reply;

/// The server was the authority from this place of its log on.
#[derive(Debug, Clone, Copy)]
pub struct Reign {
    pub server: usize,
    pub log_begin: usize,
}

/// Keys of Crossfade itself.
const RESERVED: &[u8] = b"__crossfade:";
const READS: &[&[u8]] = &[b"GET", b"EXISTS", b"LRANGE", b"HGETALL", b"SMEMBERS", b"ZRANGE", b"STRLEN", b"LLEN"];
/// Clocks differ, and a key may be looked up a moment after it was seen.
const TOLERANCE_MS: i64 = 2 * limits::SKEW_MS.1 as i64 + 5;

/// The executed commands of all reigns, one behind the other; each with the number of its reign.
pub fn joined<'a>(logs: [&'a [Executed]; 2], reigns: &[Reign]) -> Vec<(usize, &'a Executed)> {
    let mut all = Vec::new();
    for (at, reign) in reigns.iter().enumerate() {
        let next = reigns[at + 1..].iter().find(|next| next.server == reign.server);
        let end = next.map_or(logs[reign.server].len(), |next| next.log_begin);
        all.extend(logs[reign.server][reign.log_begin..end].iter().map(|executed| (at, executed)));
    }
    all
}

/// What tells one command from another: a blocking pop is sent again with the time it has left.
fn essence(words: &Words) -> Words {
    let mut words = words.clone();
    if crate::model::blocking::is_blocking(&words[0]) {
        words.pop();
    }
    words
}

type Essence = (u32, bool, Vec<Words>);

fn of_operation(operation: &Operation) -> Essence {
    (operation.database, operation.in_transaction, operation.commands.iter().map(essence).collect())
}

fn of_executed(executed: &Executed) -> Essence {
    let commands = executed.steps.iter().map(|step| essence(&step.words)).collect();
    (executed.database, executed.in_transaction, commands)
}

fn is_read(step: &Step) -> bool {
    READS.iter().any(|name| step.words[0].eq_ignore_ascii_case(name))
}

/// A transaction that was not executed, by the server or, because of a flip, by the relay.
fn is_aborted(operation: &Operation) -> bool {
    operation.in_transaction && matches!(operation.returned, Some((_, Reply::Null)))
}

fn describe(operation: &Operation) -> String {
    let commands: Vec<_> = operation.commands.iter().map(line).collect();
    let returned = match &operation.returned {
        Some((at, reply)) => format!("{} at {at} us", text(reply)),
        None => "nothing".to_owned(),
    };
    let Operation { client, database, called_us, .. } = operation;
    format!(
        "client {client} in database {database}, {}, called at {called_us} us, told {returned}",
        commands.join("; ")
    )
}

pub fn text(reply: &Reply) -> String {
    match reply.items() {
        Some(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        None => match reply {
            Reply::Integer(number) => number.to_string(),
            Reply::Null => "nothing".to_owned(),
            other => String::from_utf8_lossy(other.bytes().unwrap_or_default()).into_owned(),
        },
    }
}

/// Which operation each executed command was; `None` for reads whose client was told nothing.
pub fn matched<'h>(history: &'h History, all: &[(usize, &Executed)]) -> Result<Vec<Option<&'h Operation>>, String> {
    let mut open: BTreeMap<Essence, BTreeSet<(u64, usize)>> = BTreeMap::new();
    for (at, operation) in history.0.iter().enumerate() {
        let until = operation.returned.as_ref().map_or(u64::MAX, |(us, _)| *us);
        open.entry(of_operation(operation)).or_default().insert((until, at));
    }
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for (_, executed) in all {
        if executed.in_transaction && executed.steps.is_empty() {
            found.push(None);
            continue;
        }
        let fits = |(until, at): &&(u64, usize)| {
            let operation = &history.0[*at];
            let same = operation.returned.as_ref().is_none_or(|(_, reply)| *reply == executed.reply);
            same && operation.called_us <= executed.at_us && executed.at_us <= *until
        };
        let candidates = open.get(&of_executed(executed));
        let first = candidates.and_then(|some| some.iter().find(fits).copied());
        if let (Some(some), Some(one)) = (open.get_mut(&of_executed(executed)), &first) {
            some.remove(one);
        }
        let Some((_, at)) = first else {
            let commands: Vec<_> = executed.steps.iter().map(|step| line(&step.words)).collect();
            let (reply, at) = (text(&executed.reply), executed.at_us);
            let same = |operation: &&Operation| of_operation(operation).2 == of_executed(executed).2;
            let asked: Vec<_> = history.0.iter().filter(same).map(describe).collect();
            let (commands, asked) = (commands.join("; "), asked.join(" | "));
            return Err(format!(
                "executed and not asked for: {commands} in database {} at {at} us, giving {reply}; asked for: {asked}",
                executed.database
            ));
        };
        done.insert(at);
        found.push(Some(&history.0[at]));
    }
    let lost = history
        .0
        .iter()
        .enumerate()
        .find(|(at, operation)| operation.returned.is_some() && !is_aborted(operation) && !done.contains(at));
    match lost {
        Some((_, operation)) => Err(format!("acknowledged, and executed by no authority: {}", describe(operation))),
        None => Ok(found),
    }
}

/// Nothing that was acknowledged in one reign was executed behind what was acknowledged in a later one.
pub fn reigns_in_order(all: &[(usize, &Executed)], matched: &[Option<&Operation>]) -> Result<(), String> {
    let mut last = (0, 0);
    for ((reign, executed), operation) in all.iter().zip(matched) {
        if operation.is_none_or(|operation| operation.returned.is_none()) {
            continue;
        }
        if executed.at_us < last.1 {
            return Err(format!(
                "reign {reign} began at {} us with an acknowledged command, before the last of reign {} at {} us",
                executed.at_us, last.0, last.1
            ));
        }
        last = (*reign, executed.at_us);
    }
    Ok(())
}

/// Plays a history on the data it began with; what both servers should hold at its end.
pub fn played(begin: &Data, all: &[(usize, &Executed)], matched: &[Option<&Operation>]) -> Result<Data, String> {
    let mut data = begin.clone();
    for ((reign, executed), operation) in all.iter().zip(matched) {
        let told = operation.is_some_and(|operation| operation.returned.is_some());
        if !told && executed.steps.iter().all(is_read) {
            continue;
        }
        let at = |what: String| {
            let what_for = operation.map_or_else(|| "nobody".to_owned(), describe);
            format!("{what}, at {} us in reign {reign}, for {what_for}", executed.at_us)
        };
        if let Some((key, value)) = operation.and_then(|operation| operation.watched.as_ref()) {
            let words: Words = vec![b"GET".to_vec(), key.clone()];
            let holds = run(&mut data, executed, &words);
            if holds != *value {
                let was = text(value);
                return Err(at(format!("a watched key held {} and not {was}, and EXEC was executed", text(&holds))));
            }
        }
        let mut replies = Vec::new();
        for step in &executed.steps {
            agree(&mut data, executed, step).map_err(&at)?;
            replies.push(run(&mut data, executed, &step.words));
        }
        let reply = if executed.in_transaction { Reply::Array(replies) } else { replies.remove(0) };
        if reply != executed.reply {
            return Err(at(format!("the reply was {}, and should be {}", text(&executed.reply), text(&reply))));
        }
    }
    Ok(data)
}

fn run(data: &mut Data, executed: &Executed, words: &Words) -> Reply {
    let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    execute(&mut Run::new(data, executed.database, executed.now_ms, Expiry::Never), &args)
}

/// A key that the server did not have must be one whose time was over; one that it had must not be long over.
fn agree(data: &mut Data, executed: &Executed, step: &Step) -> Result<(), String> {
    for seen in &step.seen {
        let key = String::from_utf8_lossy(&seen.key).into_owned();
        match (data.get(seen.database, &seen.key), seen.existed) {
            (None, false) => {}
            (None, true) => return Err(format!("{key} was there and should not be ({})", line(&step.words))),
            (Some(entry), existed) => {
                let over_ms = entry.deadline_ms.map_or(i64::MIN, |deadline| executed.now_ms - deadline);
                if existed && over_ms > limits::OUTLIVE_MS_MAX {
                    return Err(format!("{key} was still there {over_ms} ms behind its deadline"));
                }
                if !existed && over_ms < -TOLERANCE_MS {
                    let deadline =
                        entry.deadline_ms.map_or("it has no deadline".to_owned(), |_| format!("{} ms early", -over_ms));
                    return Err(format!("{key} was gone and should be there ({}): {deadline}", line(&step.words)));
                }
                if !existed {
                    data.remove(seen.database, &seen.key);
                }
            }
        }
    }
    Ok(())
}

/// What a server may hold differently.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// A deadline may be later by so much, and no earlier.
    pub later_ms: i64,
    /// A key whose deadline, with that, has come may be there or not.
    pub now_ms: i64,
}

/// How `other` differs from what it should hold; `None`: it does not.
pub fn difference(expected: &Data, other: &Data, allowance: Allowance) -> Option<String> {
    let keys = |data: &Data| -> BTreeSet<(u32, Key)> {
        let all = data.0.iter().flat_map(|(database, keys)| keys.keys().map(|key| (*database, key.clone())));
        all.filter(|(_, key)| !key.starts_with(RESERVED)).collect()
    };
    let all: BTreeSet<_> = keys(expected).union(&keys(other)).cloned().collect();
    all.into_iter().find_map(|(database, key)| {
        let why = differs(expected.get(database, &key), other.get(database, &key), allowance)?;
        Some(format!("{} in database {database}: {why}", String::from_utf8_lossy(&key)))
    })
}

fn differs(
    expected: Option<&Entry>,
    other: Option<&Entry>,
    Allowance { later_ms, now_ms }: Allowance,
) -> Option<String> {
    let over = |entry: &Entry, more_ms: i64| entry.deadline_ms.is_some_and(|at| at <= now_ms + more_ms + TOLERANCE_MS);
    match (expected, other) {
        (None, None) => None,
        // Behind a flip the authority's deadlines are later by the grace than what clients asked for, until they are corrected: such a key may be
        // gone from the shadow, which has what they asked for.
        (Some(entry), None) => (!over(entry, later_ms)).then(|| format!("missing, where {entry:?} should be")),
        (None, Some(entry)) => (!over(entry, later_ms)).then(|| format!("there, and should not be: {entry:?}")),
        (Some(expected), Some(other)) if over(expected, 0) && over(other, later_ms) => None,
        (Some(expected), Some(other)) => {
            let deadline = match (expected.deadline_ms, other.deadline_ms) {
                (None, None) => true,
                (Some(expected), Some(other)) => {
                    (expected - TOLERANCE_MS..=expected + later_ms + TOLERANCE_MS).contains(&other)
                }
                _ => false,
            };
            (!deadline || expected.value != other.value).then(|| format!("{other:?} where {expected:?} should be"))
        }
    }
}
