//! Moves PostgreSQL servers: in this version it holds, drains and releases the clients of one interlay, on every core.
//!
//! Lives on the movers' thread.

use std::time::Duration;

use tokio::time::Instant;

use crate::contract::{Ability, Drained, HoldError, Released};
use crate::error::{JobError, Unsupported};
use crate::holds::Holds;
use crate::news::News;
use base::model::InterlayName;
use bus::{Directive, Mailbox};

/// The mover of one PostgreSQL interlay.
#[derive(Debug)]
pub struct PostgresMover {
    interlay: InterlayName,
    holds: Holds,
}

/// What can be done to a PostgreSQL interlay.
///
/// # Errors
/// [`Unsupported`].
pub fn supports(interlay: &InterlayName, ability: Ability) -> Result<(), Unsupported> {
    match ability {
        Ability::Pause | Ability::Resume | Ability::ListSessions | Ability::AnalyzeStatements => Ok(()),
        Ability::Migrate => Err(Unsupported(format!(
            "interlay {interlay} is of kind postgres: this version can proxy, pause, resume and analyze it; migrations are not supported yet"
        ))),
        Ability::Policies => Err(Unsupported(format!(
            "interlay {interlay} is of kind postgres: policies decide within a migration, and PostgreSQL has none yet"
        ))),
    }
}

impl PostgresMover {
    pub fn new(interlay: InterlayName, cores: Vec<Mailbox<Directive>>) -> Self {
        Self { holds: Holds::new(interlay.clone(), cores), interlay }
    }

    pub fn no_migrations(&self) -> JobError {
        match supports(&self.interlay, Ability::Migrate) {
            Err(why) => JobError::Unsupported(why),
            Ok(()) => JobError::NotInStep(self.interlay.clone()),
        }
    }

    pub fn on_news(&self, news: News) {
        match news {
            News::Hold { core, ticket, event } => self.holds.on_answer(core, ticket, event),
            // A PostgreSQL interlay has no companion, samples no reads and withholds nothing.
            News::Companion(_) | News::Reads(_) | News::Confirm { .. } => {}
        }
    }

    pub async fn hold(&self, budget: Duration) -> Result<Drained, HoldError> {
        self.holds.hold(Instant::now() + budget).await?;
        Ok(Drained { facts: None })
    }

    pub async fn release(&self) -> Released {
        self.holds.release().await
    }
}
