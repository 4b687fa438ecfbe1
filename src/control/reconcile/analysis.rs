//! The analysis of an interlay: what passed it, what its sessions keep, and what would stop it from moving to a target. Control thread.

use std::collections::BTreeMap;

use super::clock::now;
use super::error::ControlError;
use super::state::{Control, Interlay};
use super::statements::{FingerprintView, KindView, Totals};
use base::model::{EndpointName, Timestamp};
use movers::{Ability, Finding, SessionStateMeaning, WriteProbe};

/// A class of session state that sessions have had since the process started.
#[derive(Debug, Clone)]
pub struct SessionStateView {
    pub state: &'static str,
    pub sessions: u64,
    /// `None`: not known.
    pub movable: Option<bool>,
    pub meaning: &'static str,
}

#[derive(Debug, Clone)]
pub struct AnalysisView {
    pub interlay: String,
    pub at: Timestamp,
    pub all: Totals,
    pub samples: u64,
    /// Over all interlays.
    pub samples_dropped: u64,
    /// Largest first.
    pub kinds: Vec<KindView>,
    /// Largest first; at most as many as asked for.
    pub fingerprints: Vec<FingerprintView>,
    /// All that are known by name.
    pub fingerprints_known: u64,
    pub others: Totals,
    pub others_fingerprints: u64,
    pub session_states: Vec<SessionStateView>,
    pub target: Option<String>,
    /// `None` without a target; `Err`: why the servers were not compared.
    pub findings: Option<Result<Vec<Finding>, String>>,
}

impl Control {
    /// # Errors
    /// [`ControlError::Unsupported`] where statements are not sampled, [`ControlError::NotFound`] and [`ControlError::Invalid`] for a wrong target.
    pub async fn analysis(
        &self,
        interlay: &Interlay,
        target: Option<EndpointName>,
        limit: usize,
    ) -> Result<AnalysisView, ControlError> {
        interlay.supports(Ability::AnalyzeStatements)?;
        let findings = match target.or_else(|| interlay.config.target.clone()) {
            None => None,
            Some(target) => Some((target.to_string(), self.findings(interlay, &target).await?)),
        };
        let (target, findings) = findings.unzip();
        let statements = self.analyst.view(interlay.name(), limit);
        let session_states = self.session_states(interlay);
        Ok(AnalysisView {
            interlay: interlay.name().to_string(),
            at: now(),
            all: statements.all,
            samples: statements.samples,
            samples_dropped: statements.samples_dropped,
            kinds: statements.kinds,
            fingerprints: statements.fingerprints,
            fingerprints_known: statements.fingerprints_known,
            others: statements.others,
            others_fingerprints: statements.others_fingerprints,
            session_states,
            target,
            findings,
        })
    }

    async fn findings(
        &self,
        interlay: &Interlay,
        target: &EndpointName,
    ) -> Result<Result<Vec<Finding>, String>, ControlError> {
        let target = self.endpoint(target)?;
        let source = {
            let plan = interlay.plan();
            plan.endpoint(plan.authority.side).clone()
        };
        if target.kind() != source.kind() {
            return Err(ControlError::Invalid(format!(
                "{} is of kind {} and {} of kind {}: name a target of the same kind",
                source.name,
                source.kind().as_str(),
                target.name,
                target.kind().as_str()
            )));
        }
        if target.name == source.name {
            return Err(ControlError::Invalid(format!("{} is the source itself: name another target", target.name)));
        }
        let found = self.movers.compatibility(&source, &target, WriteProbe::Forbidden).await;
        Ok(found.map_err(|error| error.to_string()))
    }

    fn session_states(&self, interlay: &Interlay) -> Vec<SessionStateView> {
        let cores = self.cores.borrow();
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (_, counters) in cores.counters.values().flatten().filter(|(name, _)| name == interlay.name()) {
            for (state, sessions) in &counters.sessions_by_state {
                *counts.entry(state).or_default() += sessions;
            }
        }
        let view = |(state, sessions)| {
            let SessionStateMeaning { movable, meaning } = movers::session_state(interlay.config.spec.kind(), state);
            SessionStateView { state, sessions, movable, meaning }
        };
        counts.into_iter().filter(|(_, sessions)| *sessions > 0).map(view).collect()
    }
}
