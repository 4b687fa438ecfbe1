//! One mover per kind of database behind one set of plain functions. Lives on the movers' thread; pure where it says so.
//!
//! A third database is a folder of its own, one variant here and in [`ServerFacts`], and the arms the compiler then asks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::contract::{
    Ability, Drained, Feeds, Finding, HoldError, MoverEvent, OwnGate, Released, Route, ShadowFacts, Verified,
    VerifySpec, WriteProbe,
};
use crate::error::{JobError, ServerFault, Unsupported};
use crate::news::News;
use crate::postgres::facts::PostgresFacts;
use crate::postgres::mover::PostgresMover;
use crate::progress::Progress;
use crate::redis::facts::EndpointFacts;
use crate::redis::mover::RedisMover;
use base::model::{Endpoint, InterlayName, ProtocolKind, Sighting};
use bus::{Directive, Mailbox};

/// What one look at a server found, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFacts {
    Redis(Box<EndpointFacts>),
    Postgres(Box<PostgresFacts>),
}

impl ServerFacts {
    /// What a target already holds, in the unit the conflict policy counts.
    ///
    /// # Errors
    /// [`Unsupported`], where nothing is copied in this version.
    pub fn keys(&self) -> Result<u64, Unsupported> {
        match self {
            Self::Redis(facts) => Ok(facts.databases.iter().map(|(_, keys, _)| keys).sum()),
            Self::Postgres(_) => Err(Unsupported("the contents of a PostgreSQL server are not counted".to_owned())),
        }
    }

    /// "redis 7.0.15 answers in 80 us".
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Redis(facts) => format!("{} {} answers in {} us", facts.server, facts.version, facts.ping_us),
            Self::Postgres(facts) => format!("PostgreSQL {} answers in {} us", facts.version, facts.ping_us),
        }
    }
}

/// One look at a server of any kind.
///
/// # Errors
/// [`JobError`] naming the endpoint and what to do.
pub async fn look(endpoint: &Endpoint) -> Result<ServerFacts, JobError> {
    match endpoint.kind() {
        ProtocolKind::Redis => Ok(ServerFacts::Redis(Box::new(crate::redis::facts::check_endpoint(endpoint).await?))),
        ProtocolKind::Postgres => Ok(ServerFacts::Postgres(Box::new(crate::postgres::facts::check(endpoint).await?))),
    }
}

/// Compares two servers of one kind: what could keep traffic from moving from one to the other and back.
///
/// # Errors
/// As [`look`]; also when the kinds differ.
pub async fn compatibility(source: &Endpoint, target: &Endpoint, writes: WriteProbe) -> Result<Vec<Finding>, JobError> {
    match (source.kind(), target.kind()) {
        (ProtocolKind::Redis, ProtocolKind::Redis) => {
            crate::redis::findings::compatibility(source, target, writes).await
        }
        (ProtocolKind::Postgres, ProtocolKind::Postgres) => {
            crate::postgres::findings::compatibility(source, target).await
        }
        (from @ (ProtocolKind::Redis | ProtocolKind::Postgres), to) => {
            let why = format!(
                "is of kind {} and endpoint {} of kind {}: nothing moves between them",
                from.as_str(),
                target.name,
                to.as_str()
            );
            Err(JobError::server(format!("endpoint {}", source.name), ServerFault::Kind(why)))
        }
    }
}

/// By what two servers of one kind can be kept in step.
///
/// # Errors
/// As [`look`]; [`JobError::Unsupported`] where nothing is kept in step in this version.
pub async fn feeds(source: &Endpoint, target: &Endpoint) -> Result<Feeds, JobError> {
    match source.kind() {
        ProtocolKind::Redis => crate::redis::feeds::feeds(source, target).await,
        ProtocolKind::Postgres => Err(JobError::Unsupported(Unsupported(
            "PostgreSQL servers are not kept in step in this version".to_owned(),
        ))),
    }
}

/// Whether a server can hold and give back what it should, tried on reserved names.
///
/// # Errors
/// As [`look`]; [`JobError::Unsupported`] where nothing is tried in this version.
pub async fn exercise(endpoint: &Endpoint) -> Result<Vec<(String, Result<(), String>)>, JobError> {
    match endpoint.kind() {
        ProtocolKind::Redis => crate::redis::smoke::smoke(endpoint).await,
        ProtocolKind::Postgres => Err(JobError::Unsupported(Unsupported(
            "smoke checks on PostgreSQL servers are not supported in this version".to_owned(),
        ))),
    }
}

/// Whether this can be done to an interlay of this kind. Pure.
///
/// # Errors
/// [`Unsupported`] with the reason.
pub fn supports(kind: ProtocolKind, interlay: &InterlayName, ability: Ability) -> Result<(), Unsupported> {
    match kind {
        ProtocolKind::Redis => crate::redis::mover::supports(interlay, ability),
        ProtocolKind::Postgres => crate::postgres::mover::supports(interlay, ability),
    }
}

/// What this kind of database itself wants to be true before the authority changes. `Err`: why there are no facts. Pure.
#[must_use]
pub fn own_gates(kind: ProtocolKind, facts: Result<&ShadowFacts, &str>) -> Vec<OwnGate> {
    match kind {
        ProtocolKind::Redis => crate::redis::mover::own_gates(facts),
        // No change of authority is supported, so there is none to guard.
        ProtocolKind::Postgres => Vec::new(),
    }
}

/// What a class of session state means when the session is to go on at another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStateMeaning {
    /// `None`: not known to this version.
    pub movable: Option<bool>,
    pub meaning: &'static str,
}

/// The meaning of a class of session state that the data plane counts. Pure.
#[must_use]
pub fn session_state(kind: ProtocolKind, state: &str) -> SessionStateMeaning {
    let found = match kind {
        ProtocolKind::Redis => None,
        ProtocolKind::Postgres => crate::postgres::sessions::meaning(state),
    };
    let (movable, meaning) = found.map_or(
        (None, "not known to this version: find out what the session keeps before moving it"),
        |(movable, meaning)| (Some(movable), meaning),
    );
    SessionStateMeaning { movable, meaning }
}

/// Which interlay a mover is for, and how its servers stand when the process starts (`None`: the authority is alone).
#[derive(Debug, Clone)]
pub struct MoverSpec {
    pub interlay: InterlayName,
    pub kind: ProtocolKind,
    pub route: Option<Route>,
}

/// The mover of one interlay.
#[derive(Debug)]
pub(crate) enum Mover {
    Redis(RedisMover),
    Postgres(PostgresMover),
}

impl Mover {
    pub(crate) fn new(
        spec: MoverSpec,
        cores: &[Mailbox<Directive>],
        events: &mpsc::Sender<(InterlayName, MoverEvent)>,
    ) -> Result<Self, String> {
        match spec.kind {
            ProtocolKind::Redis => Ok(Self::Redis(RedisMover::new(spec.interlay, cores, spec.route, events.clone())?)),
            ProtocolKind::Postgres => Ok(Self::Postgres(PostgresMover::new(spec.interlay, cores.to_vec()))),
        }
    }

    /// The thread runs.
    pub(crate) fn start(&self) {
        match self {
            Self::Redis(mover) => mover.start(),
            Self::Postgres(_) => {}
        }
    }

    pub(crate) async fn on_news(&self, news: News) {
        match self {
            Self::Redis(mover) => mover.on_news(news).await,
            Self::Postgres(mover) => mover.on_news(news),
        }
    }

    pub(crate) fn keep_in_step(&self, route: Route) -> Result<(), JobError> {
        match self {
            Self::Redis(mover) => mover.keep_in_step(route),
            Self::Postgres(mover) => Err(mover.no_migrations()),
        }
    }

    pub(crate) fn leave_alone(&self) -> Result<(), JobError> {
        match self {
            Self::Redis(mover) => mover.leave_alone(),
            // It is never in step.
            Self::Postgres(_) => Ok(()),
        }
    }

    pub(crate) async fn verify(&self, spec: VerifySpec, progress: Arc<Progress>) -> Result<Verified, JobError> {
        match self {
            Self::Redis(mover) => mover.verify(spec, progress).await,
            Self::Postgres(mover) => Err(mover.no_migrations()),
        }
    }

    pub(crate) fn repair(&self, differing: &[Sighting]) -> Result<(), JobError> {
        match self {
            Self::Redis(mover) => mover.repair(differing),
            Self::Postgres(mover) => Err(mover.no_migrations()),
        }
    }

    pub(crate) async fn hold(&self, budget: Duration) -> Result<Drained, HoldError> {
        match self {
            Self::Redis(mover) => mover.hold(budget).await,
            Self::Postgres(mover) => mover.hold(budget).await,
        }
    }

    pub(crate) async fn exchange(&self, route: Route) -> Result<(), JobError> {
        match self {
            Self::Redis(mover) => mover.exchange(route).await,
            Self::Postgres(mover) => Err(mover.no_migrations()),
        }
    }

    pub(crate) async fn release(&self) -> Result<Released, JobError> {
        match self {
            Self::Redis(mover) => mover.release().await,
            Self::Postgres(mover) => Ok(mover.release().await),
        }
    }
}
