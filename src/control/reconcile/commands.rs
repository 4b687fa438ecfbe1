//! Commands of operators, and of runs that drive themselves. Lives on the control thread.

use std::rc::Rc;

use super::clock::now;
use super::error::ControlError;
use super::feeds::passed_by;
use super::state::{Control, Interlay};
use crate::workflow::{Command, MigrationRecord, transition};
use base::model::{FeedKind, MigrationId, PolicyChoice, PolicySlot};

impl Control {
    /// One command of an operator, or of a run that advances automatically: decided, durable, published, acked, announced.
    ///
    /// # Errors
    /// [`ControlError`]; nothing changed.
    pub async fn command(self: &Rc<Self>, id: &MigrationId, command: Command) -> Result<(), ControlError> {
        self.command_if(id, command, |_| true).await
    }

    /// As [`Self::command`], unless the record is not what the command was decided for.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn command_if(
        self: &Rc<Self>,
        id: &MigrationId,
        command: Command,
        still: impl Fn(&MigrationRecord) -> bool,
    ) -> Result<(), ControlError> {
        let migration = self.migration(id)?;
        let interlay = self.interlay(&migration.interlay())?;
        if matches!(command, Command::Advance { .. }) && migration.record.borrow().dual_since.is_none() {
            // The conflict policy must judge what the target holds now, not what it held a moment ago.
            self.count_target(&migration).await;
        }
        let chosen = if let Command::SetPolicy { slot, .. } = &command { Some(*slot) } else { None };
        if let Command::SetPolicy { slot, choice: Some(PolicyChoice::Filter(setting)) } = &command {
            self.try_policy(*slot, setting).await?;
        }
        {
            let _change = interlay.change.lock().await;
            let evidence = self.evidence(&migration);
            let record = migration.record.borrow().clone();
            if !still(&record) {
                return Ok(());
            }
            if let Command::SetPolicy { slot, choice } = &command {
                passes_the_feed(&record, &interlay, *slot, choice.clone())?;
            }
            let done = transition(&record, command, &evidence, now())?;
            self.apply(&migration, done).await?;
        }
        match chosen {
            Some(slot) => self.policy_chosen(&interlay, slot).await,
            // The choices of a migration end with it.
            None => self.settle_policies(&interlay, "a migration ended").await,
        }
        Ok(())
    }
}

/// Refuses a policy that would be in force and never asked: what is in use now does not ask it, and is not changed any more.
fn passes_the_feed(
    record: &MigrationRecord,
    interlay: &Interlay,
    slot: PolicySlot,
    choice: Option<PolicyChoice>,
) -> Result<(), ControlError> {
    let own = &interlay.config.policies.settings;
    let mut changed = record.clone();
    changed.policies.set(slot, choice);
    match passed_by(&changed, own) {
        None => Ok(()),
        // Not of this change's making.
        Some(_) if passed_by(record, own).is_some() => Ok(()),
        Some(why) => Err(ControlError::Conflict(format!(
            "{why}, and migration {} is kept in step by another feed: choose the policy before both sides are kept in step, or \
             create the migration with feed {}",
            record.id,
            FeedKind::Lane
        ))),
    }
}
