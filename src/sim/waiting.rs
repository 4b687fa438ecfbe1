//! Who began to wait first is served first: blocking pops on one list, also when they are moved to another authority by a flip.

use crate::history::{History, Operation, line};
use crate::limits;
use crate::model::log::Executed;
use wire::resp::value::Value as Reply;

/// A blocking pop that got something.
#[derive(Debug, Clone, Copy)]
struct Served<'h> {
    operation: &'h Operation,
    /// Nothing of its client was outstanding any more.
    since_us: u64,
    at_us: u64,
}

/// `holds`: when clients were held, and when they were released; what arrives meanwhile does not wait at a server yet.
pub fn in_order(
    history: &History,
    all: &[(usize, &Executed)],
    matched: &[Option<&Operation>],
    holds: &[(u64, u64)],
) -> Result<(), String> {
    let all_served = served(history, all, matched);
    for late in &all_served {
        let waits_us = late.since_us + limits::BLOCKED_BY_US;
        if holds.iter().any(|(begin, end)| *begin <= waits_us && late.since_us <= *end) {
            continue;
        }
        let passed = |early: &&Served<'_>| {
            early.operation.database == late.operation.database
                && early.at_us > waits_us
                && early.since_us > waits_us
                && early.at_us < late.at_us
        };
        if let Some(early) = all_served.iter().find(passed) {
            let [first, second] = [late, early].map(|one| {
                let Operation { client, commands, .. } = one.operation;
                let (since_us, at_us) = (one.since_us, one.at_us);
                format!(
                    "client {client} waited with {} from {since_us} us on and was served at {at_us} us",
                    line(&commands[0])
                )
            });
            return Err(format!("served out of order: {first}; {second}"));
        }
    }
    Ok(())
}

fn served<'h>(history: &'h History, all: &[(usize, &Executed)], matched: &[Option<&'h Operation>]) -> Vec<Served<'h>> {
    let mut free_us = [0; limits::CLIENTS];
    let mut since = std::collections::BTreeMap::new();
    for operation in &history.0 {
        let free_us = &mut free_us[operation.client];
        since.insert(std::ptr::from_ref(operation), operation.called_us.max(*free_us));
        if let Some(answered_us) = operation.answered_us {
            *free_us = (*free_us).max(answered_us);
        }
    }
    let pops = all.iter().zip(matched).filter_map(|((_, executed), operation)| {
        let operation = (*operation)?;
        // Which command of those that were never answered it was is not known.
        operation.returned.as_ref()?;
        let is_pop = crate::model::blocking::is_blocking(&operation.commands[0][0]) && executed.reply != Reply::Null;
        let since_us = since[&std::ptr::from_ref(operation)];
        is_pop.then_some(Served { operation, since_us, at_us: executed.at_us })
    });
    pops.collect()
}
