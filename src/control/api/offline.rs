//! Commands that need no running proxy, with results in the API's own types: `check`, `filter test`, `filter bench`.

use std::path::Path as FilePath;

use super::{convert, types};
use crate::reconcile::views::{self, InterlayName};
use crate::reconcile::{self, CheckedFilter, Preflight};

/// An interlay and its compatibility findings, or why there are none.
pub type Pair = (String, Result<Vec<types::Finding>, String>);

/// What `crossfade check` found, in the API's own types.
#[must_use]
pub fn preflight(found: &Preflight) -> (Vec<types::Endpoint>, Vec<Pair>, Vec<types::CheckedFilter>) {
    let endpoint = |(endpoint, facts): &(_, Result<_, String>)| preflight_endpoint(endpoint, facts);
    let pair = |(name, findings): &(InterlayName, Result<Vec<_>, String>)| {
        let findings = findings.as_ref().map_err(Clone::clone);
        (name.to_string(), findings.map(|all| all.iter().map(|one| convert::finding(one, false)).collect()))
    };
    let filter = |(name, file, found): &CheckedFilter| types::CheckedFilter {
        name: name.to_string(),
        file: file.clone(),
        cases: found.as_ref().map_or(0, |cases| u64::try_from(*cases).unwrap_or(u64::MAX)),
        problem: found.as_ref().err().cloned(),
    };
    let filters = found.filters.iter().map(filter).collect();
    (found.endpoints.iter().map(endpoint).collect(), found.pairs.iter().map(pair).collect(), filters)
}

/// Runs the recorded cases of a filter file; without `cases`, those in the file beside it.
///
/// # Errors
/// A sentence, when the module is refused or there are no cases.
pub fn filter_test(file: &FilePath, cases: Option<&FilePath>) -> Result<types::FilterTest, String> {
    reconcile::test_file(file, cases).map(|found| convert::filter_test(&found))
}

/// Measures the hooks of a filter file.
///
/// # Errors
/// A sentence, when the module or its configuration is refused.
pub fn filter_bench(file: &FilePath, config: &str) -> Result<types::FilterBench, String> {
    reconcile::bench_file(file, config).map(|found| convert::filter_bench(&found))
}

fn preflight_endpoint(endpoint: &views::Endpoint, facts: &Result<views::ServerFacts, String>) -> types::Endpoint {
    let (database, dbname) = views::databases(endpoint);
    types::Endpoint {
        name: endpoint.name.to_string(),
        kind: endpoint.kind().as_str().to_owned(),
        address: endpoint.address.to_string(),
        database,
        dbname,
        user: endpoint.credentials.as_ref().and_then(|login| login.user.clone()),
        health: if facts.is_ok() { "up" } else { "down" }.to_owned(),
        checked_at: None,
        problem: facts.as_ref().err().cloned(),
        facts: facts.as_ref().ok().and_then(convert::redis),
        postgres: facts.as_ref().ok().and_then(convert::postgres),
    }
}
