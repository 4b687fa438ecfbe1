//! Tables for the terminal: filters and policies.

use super::table::{table, yes};
use control::api::types::{
    CheckedFilter, Filter, FilterBench, FilterTest, InterlayPolicies, Policies, Policy, PolicyStats,
};

pub fn filters(filters: &[Filter]) -> String {
    let row = |filter: &Filter| {
        let uses: Vec<_> = filter.uses.iter().map(|one| format!("{}/{}", one.interlay, one.slot)).collect();
        [
            filter.name.clone(),
            filter.origin.clone(),
            filter.generation.to_string(),
            filter.hooks.join(", "),
            filter.cases.map_or_else(|| "none".to_owned(), |cases| cases.to_string()),
            filter.size_bytes.to_string(),
            if uses.is_empty() { "-".to_owned() } else { uses.join(", ") },
        ]
    };
    table(["filter", "origin", "generation", "hooks", "cases", "bytes", "used by"], filters.iter().map(row))
}

pub fn filter(filter: &Filter) -> String {
    let mut parts = vec![filters(std::slice::from_ref(filter))];
    if !filter.file.is_empty() {
        parts.push(format!("from {}", filter.file));
    }
    parts.push(format!("digest {}", filter.digest));
    parts.extend(filter.warnings.iter().map(|warning| format!("warning: {warning}")));
    for one in &filter.uses {
        parts.push(format!("{}, {}: {}", one.interlay, one.slot, policy(&one.policy)));
        parts.extend(one.absent.as_ref().map(|why| format!("  not in use: {why}")));
    }
    let used: Vec<_> =
        filter.uses.iter().filter_map(|one| Some((one.interlay.as_str(), one.stats.as_ref()?))).collect();
    if !used.is_empty() {
        parts.push(stats(&used));
    }
    parts.join("\n")
}

pub fn unloaded(filter: &Filter) -> String {
    let uses: Vec<_> = filter.uses.iter().map(|one| format!("{} of interlay {}", one.slot, one.interlay)).collect();
    if uses.is_empty() {
        return format!("{} is unloaded; it was not in use", filter.name);
    }
    let records = filter.uses.iter().any(|one| one.slot == "records");
    let becomes = if records { "no record is copied" } else { "the built-in default decides" };
    format!(
        "{} is unloaded; it was in use as {}; {becomes} there until a filter is loaded or chosen",
        filter.name,
        uses.join(", ")
    )
}

/// One line: the filter, its mode, what happens when it faults, its configuration.
pub fn policy(policy: &Policy) -> String {
    let mut words = vec![policy.filter.clone()];
    words.extend(policy.mode.clone());
    words.extend(policy.on_fault.clone());
    words.extend(policy.config.as_ref().map(ToString::to_string));
    words.join(" ")
}

/// The policies a migration has of its own.
pub fn policies(policies: &Policies) -> String {
    let row = |(slot, chosen): (&String, &Policy)| [slot.clone(), policy(chosen)];
    table(["policy", "of this migration"], policies.iter().map(row))
}

pub fn interlay_policies(found: &InterlayPolicies) -> String {
    let row = |slot: &control::api::types::PolicySlot| {
        let by = match &slot.migration {
            Some(id) => format!("migration {id}"),
            None => slot.chosen_by.clone(),
        };
        let generation = slot.filter_generation.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let dash = || "-".to_owned();
        [
            slot.slot.clone(),
            slot.policy.filter.clone(),
            generation,
            slot.policy.mode.clone().unwrap_or_else(dash),
            slot.policy.on_fault.clone().unwrap_or_else(dash),
            slot.policy.config.as_ref().map_or_else(dash, ToString::to_string),
            by,
            slot.absent.clone().unwrap_or_default(),
        ]
    };
    let heads = ["slot", "filter", "generation", "mode", "on fault", "config", "chosen by", "not in use because"];
    let cores: Vec<_> = found.unadopted_cores.iter().map(ToString::to_string).collect();
    let adopted = if found.adopted { String::new() } else { format!(" (not on core {})", cores.join(", ")) };
    let all: Vec<_> = found.stats.iter().map(|one| (found.interlay.as_str(), one)).collect();
    let mut parts = vec![
        format!(
            "{}: set {} is in force on every core: {}{adopted}",
            found.interlay,
            found.generation,
            yes(found.adopted)
        ),
        table(heads, found.slots.iter().map(row)),
    ];
    if !all.is_empty() {
        parts.push(stats(&all));
    }
    parts.join("\n")
}

fn stats(all: &[(&str, &PolicyStats)]) -> String {
    let row = |(interlay, one): &(&str, &PolicyStats)| {
        let words = |all: &std::collections::BTreeMap<String, u64>| {
            let all: Vec<_> = all.iter().map(|(word, count)| format!("{word} {count}")).collect();
            all.join(", ")
        };
        let faults = &one.faults;
        [
            format!("{interlay}/{}", one.slot),
            one.filter.clone(),
            one.calls.to_string(),
            one.memo_hits.to_string(),
            format!("{}/{} ns", one.call_ns_p50, one.call_ns_p99),
            (faults.trap + faults.deadline + faults.bad_verdict).to_string(),
            words(&one.verdicts),
            one.restrained.to_string(),
            words(&one.counters),
        ]
    };
    let heads =
        ["slot", "filter", "calls", "from memo", "p50/p99", "faults", "verdicts", "not carried out", "own counters"];
    table(heads, all.iter().map(row))
}

pub fn filter_test(found: &FilterTest) -> String {
    let passed = found.passed.iter().map(|case| [case.clone(), "passed".to_owned(), String::new()]);
    let failed = found.failed.iter().map(|one| [one.case.clone(), "FAILED".to_owned(), one.why.clone()]);
    let cases = table(["case", "", "why"], passed.chain(failed));
    format!(
        "{}: {} bytes, hooks: {}\n{cases}\n{} passed, {} failed",
        found.file,
        found.size_bytes,
        found.hooks.join(", "),
        found.passed.len(),
        found.failed.len()
    )
}

pub fn filter_bench(found: &FilterBench) -> String {
    let row = |row: &control::api::types::FilterBenchRow| {
        [
            row.hook.clone(),
            row.view.clone(),
            row.view_bytes.to_string(),
            row.ns_min.to_string(),
            row.ns_median.to_string(),
            row.ns_p99.to_string(),
            row.calls.to_string(),
        ]
    };
    let heads = ["hook", "view", "view bytes", "ns min", "ns median", "ns p99", "calls"];
    format!("{}\n{}", found.file, table(heads, found.rows.iter().map(row)))
}

pub fn checked_filters(filters: &[CheckedFilter]) -> String {
    let row = |filter: &CheckedFilter| {
        let found = match (&filter.problem, filter.cases) {
            (Some(problem), _) => problem.clone(),
            (None, 0) => "loads; it has no recorded cases".to_owned(),
            (None, cases) => format!("loads; {cases} cases passed"),
        };
        [filter.name.clone(), filter.file.clone(), found]
    };
    table(["filter", "file", "found"], filters.iter().map(row))
}
