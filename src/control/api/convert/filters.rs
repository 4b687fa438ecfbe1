//! Converts filters and policies between the control loop's views and the API's own types.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::api::problem::Failure;
use crate::api::types as api;
use crate::reconcile::views::{
    BenchView, CasesView, DecisionError, FilterName, FilterUseView, FilterView, LoadFilter, OnFault, PoliciesView,
    PolicyChoice, PolicyMode, PolicySetting, PolicySettings, PolicySlot, SeatStats, SlotView, limits,
};

fn word(error: DecisionError) -> Failure {
    Failure::invalid(error.to_string())
}

pub fn filter_name(text: &str) -> Result<FilterName, Failure> {
    FilterName::new(text).map_err(word)
}

pub fn policy_slot(text: &str) -> Result<PolicySlot, Failure> {
    PolicySlot::parse(text).map_err(word)
}

pub fn load_filter(name: &str, from: api::LoadFilter) -> Result<LoadFilter, Failure> {
    let name = filter_name(name)?;
    let module = STANDARD
        .decode(from.module_base64.trim())
        .map_err(|error| Failure::invalid(format!("module_base64 is not base64: {error}")))?;
    for (what, bytes, max) in [
        ("the module", module.len(), limits::FILTER_MODULE_BYTES_MAX),
        ("cases", from.cases.as_ref().map_or(0, String::len), limits::FILTER_CASES_BYTES_MAX),
        ("file", from.file.as_ref().map_or(0, String::len), limits::REASON_BYTES_MAX),
    ] {
        if bytes > max {
            return Err(Failure::invalid(format!("{what} has {bytes} bytes; at most {max} are accepted")));
        }
    }
    let file = from.file.unwrap_or_else(|| "the API".to_owned());
    Ok(LoadFilter { name, module, cases: from.cases, file })
}

/// The requested policy, with the defaults filled in.
pub fn policy_choice(from: api::Policy) -> Result<PolicyChoice, Failure> {
    if from.filter == PolicyChoice::NOBODY {
        if from.mode.is_some() || from.on_fault.is_some() || from.config.is_some() {
            return Err(Failure::invalid("mode, on_fault and config have no meaning where the filter is \"none\""));
        }
        return Ok(PolicyChoice::Nobody);
    }
    let name = filter_name(&from.filter).map_err(|failure| {
        if from.filter.contains('/') {
            Failure::invalid(format!(
                "{:?} is a path: load the file first, `crossfade filter load NAME FILE`, and give its name here",
                from.filter.chars().take(80).collect::<String>()
            ))
        } else {
            failure
        }
    })?;
    let mut setting = PolicySetting::of(name);
    if let Some(mode) = &from.mode {
        setting.mode = PolicyMode::parse(mode).map_err(word)?;
    }
    if let Some(on_fault) = &from.on_fault {
        setting.on_fault = OnFault::parse(on_fault).map_err(word)?;
    }
    match from.config {
        None => {}
        Some(config @ Value::Object(_)) => setting.config = config.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            return Err(Failure::invalid("config must be a JSON object"));
        }
    }
    Ok(PolicyChoice::Filter(setting))
}

pub fn policies_given(from: std::collections::BTreeMap<String, api::PolicyGiven>) -> Result<PolicySettings, Failure> {
    let mut settings = PolicySettings::default();
    for (slot, given) in from {
        let policy = match given {
            api::PolicyGiven::Name(filter) => api::Policy { filter, ..api::Policy::default() },
            api::PolicyGiven::Whole(policy) => policy,
        };
        settings.set(policy_slot(&slot)?, Some(policy_choice(policy)?));
    }
    Ok(settings)
}

fn setting(from: &PolicySetting) -> api::Policy {
    api::Policy {
        filter: from.filter.to_string(),
        mode: Some(from.mode.to_string()),
        on_fault: Some(from.on_fault.to_string()),
        config: serde_json::from_str(&from.config).ok(),
    }
}

fn nobody() -> api::Policy {
    api::Policy { filter: PolicyChoice::NOBODY.to_owned(), ..api::Policy::default() }
}

pub fn policies(from: &PolicySettings) -> api::Policies {
    let chosen = |slot: &PolicySlot| {
        let policy = match from.get(*slot)? {
            PolicyChoice::Nobody => nobody(),
            PolicyChoice::Filter(chosen) => setting(chosen),
        };
        Some((slot.to_string(), policy))
    };
    PolicySlot::ALL.iter().filter_map(chosen).collect()
}

pub fn filter(from: &FilterView) -> api::Filter {
    api::Filter {
        name: from.name.clone(),
        origin: from.origin.to_owned(),
        file: from.file.clone(),
        digest: from.digest.clone(),
        size_bytes: number(from.size_bytes),
        hooks: from.hooks.iter().map(|hook| (*hook).to_owned()).collect(),
        generation: from.generation,
        loaded_at: from.loaded_at.0,
        cases: from.cases.map(number),
        warnings: from.warnings.clone(),
        uses: from.uses.iter().map(filter_use).collect(),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn filter_use(from: &FilterUseView) -> api::FilterUse {
    api::FilterUse {
        interlay: from.interlay.clone(),
        slot: from.slot.to_string(),
        policy: setting(&from.setting),
        absent: from.absent.clone(),
        stats: from.stats.as_ref().map(stats),
    }
}

fn stats(from: &SeatStats) -> api::PolicyStats {
    api::PolicyStats {
        slot: from.slot.to_string(),
        filter: from.filter.to_string(),
        calls: from.calls,
        memo_hits: from.memo_hits,
        call_ns_p50: from.call_ns.percentile(50),
        call_ns_p99: from.call_ns.percentile(99),
        faults: api::PolicyFaults {
            trap: from.faults.trap,
            deadline: from.faults.deadline,
            bad_verdict: from.faults.bad_verdict,
        },
        absent: from.absent,
        verdicts: from.verdicts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
        restrained: from.restrained,
        memory_bytes: from.memory_bytes,
        counters: from.counters.iter().cloned().collect(),
        dropped: from.dropped,
    }
}

pub fn interlay_policies(from: &PoliciesView) -> api::InterlayPolicies {
    let slot = |from: &SlotView| api::PolicySlot {
        slot: from.slot.to_string(),
        chosen_by: from.chosen_by.to_owned(),
        migration: from.migration.clone(),
        policy: from.setting.as_ref().map_or_else(nobody, setting),
        filter_generation: from.filter_generation,
        absent: from.absent.clone(),
    };
    api::InterlayPolicies {
        interlay: from.interlay.clone(),
        generation: from.generation,
        adopted: from.unadopted_cores.is_empty(),
        unadopted_cores: from.unadopted_cores.clone(),
        slots: from.slots.iter().map(slot).collect(),
        stats: from.stats.iter().map(stats).collect(),
    }
}

pub fn filter_test(from: &CasesView) -> api::FilterTest {
    let failed = |(case, why): &(String, String)| api::FailedCase { case: case.clone(), why: why.clone() };
    api::FilterTest {
        file: from.file.clone(),
        digest: from.digest.clone(),
        size_bytes: number(from.size_bytes),
        hooks: from.hooks.iter().map(|hook| (*hook).to_owned()).collect(),
        passed: from.passed.clone(),
        failed: from.failed.iter().map(failed).collect(),
    }
}

pub fn filter_bench(from: &BenchView) -> api::FilterBench {
    let rows = from.rows.iter().map(|row| api::FilterBenchRow {
        hook: row.hook.word().to_owned(),
        view: row.view.clone(),
        view_bytes: number(row.view_bytes),
        ns_min: row.ns_min,
        ns_median: row.ns_median,
        ns_p99: row.ns_p99,
        calls: row.calls,
    });
    api::FilterBench { file: from.file.clone(), rows: rows.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<PolicySettings, String> {
        let given = serde_json::from_str(text).map_err(|error| error.to_string())?;
        policies_given(given).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_policy_comes_back_as_it_was_given() {
        let text = r#"{"mirror": {"filter": "mine", "mode": "block", "on_fault": "FailClosed", "config": {"n": [1, 2.5]}},
                       "compare": "none", "rollback": "builtin:rollback-threshold"}"#;
        let settings = given(text).unwrap();
        let shown = serde_json::to_value(policies(&settings)).unwrap();
        let whole = serde_json::json!({
            "mirror": {"filter": "mine", "mode": "block", "on_fault": "fail_closed", "config": {"n": [1, 2.5]}},
            "compare": {"filter": "none"},
            "rollback": {"filter": "builtin:rollback-threshold", "mode": "observe", "on_fault": "fail_open", "config": {}},
        });
        assert_eq!(shown, whole);
        assert_eq!(given(&shown.to_string()).unwrap(), settings, "a shown policy can be sent back");
    }

    #[test]
    fn errors_in_a_policy_are_named() {
        for (text, words) in [
            (r#"{"miror": "none"}"#, "mirror, compare, rollback, records"),
            (r#"{"mirror": "filters/dist/x.wasm"}"#, "is a path: load the file first"),
            (r#"{"mirror": "other:x"}"#, "not a valid name"),
            (r#"{"mirror": {"filter": "a", "mode": "x"}}"#, "observe, warn, block"),
            (r#"{"mirror": {"filter": "a", "config": 7}}"#, "config must be a JSON object"),
            (r#"{"mirror": {"filter": "none", "mode": "warn"}}"#, "no meaning"),
        ] {
            let error = given(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_module_that_is_not_base64_or_too_large_is_refused() {
        let body = |module: &str| api::LoadFilter { module_base64: module.to_owned(), cases: None, file: None };
        let refuse = |name: &str, body| format!("{:?}", load_filter(name, body).expect_err("must be refused"));
        assert!(refuse("mine", body("?")).contains("not base64"));
        assert!(refuse("../x", body("AA==")).contains("not a valid name"));
        let large = STANDARD.encode(vec![0; limits::FILTER_MODULE_BYTES_MAX + 1]);
        assert!(refuse("mine", body(&large)).contains("at most 1048576"));
        assert_eq!(load_filter("mine", body("AGFzbQ==")).unwrap().module, b"\0asm");
    }
}
