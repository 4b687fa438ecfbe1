//! Looks at every server and filter of a configuration, and at every pair that would be migrated, without starting anything.

use super::policies::{CheckedFilter, check_files};
use crate::config::Config;
use base::model::{Endpoint, InterlayName};
use movers::{Finding, ServerFacts, WriteProbe};

/// What was found.
#[derive(Debug)]
pub struct Preflight {
    pub endpoints: Vec<(Endpoint, Result<ServerFacts, String>)>,
    /// Per interlay with a target: the findings, or why there are none.
    pub pairs: Vec<(InterlayName, Result<Vec<Finding>, String>)>,
    pub filters: Vec<CheckedFilter>,
}

/// Probes; changes nothing on any server but what a compatibility probe of reserved keys leaves behind and removes.
///
/// # Errors
/// A sentence, when a shipped filter does not take what it is configured with.
pub async fn preflight(config: &Config) -> Result<Preflight, String> {
    let filters = check_files(config)?;
    let mut endpoints = Vec::new();
    for endpoint in &config.endpoints {
        let facts = movers::look(endpoint).await.map_err(|error| error.to_string());
        endpoints.push((endpoint.clone(), facts));
    }
    let mut pairs = Vec::new();
    for interlay in &config.interlays {
        let target = interlay.target.as_ref().and_then(|target| config.endpoint(target));
        let (Some(source), Some(target)) = (config.endpoint(&interlay.source), target) else { continue };
        let findings = movers::compatibility(source, target, WriteProbe::Allowed).await;
        pairs.push((interlay.spec.name.clone(), findings.map_err(|error| error.to_string())));
    }
    Ok(Preflight { endpoints, pairs, filters })
}
