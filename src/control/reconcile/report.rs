//! The evidence report of a migration: everything an auditor gets. Lives on the control thread.

use super::clock::now;
use super::error::ControlError;
use super::state::Control;
use super::views::ReportView;
use crate::store::JournalEntry;
use base::model::MigrationId;

impl Control {
    pub(super) async fn report(&self, id: &MigrationId) -> Result<ReportView, ControlError> {
        let migration = self.migration(id)?;
        for endpoint in [&migration.source, &migration.target] {
            // A server that is gone stands in the report as it was.
            if let Ok(facts) = self.movers.look(endpoint).await {
                self.facts.borrow_mut().insert(endpoint.name.clone(), Ok((facts, now())));
            }
        }
        let journal = self.journal_of(id).await?;
        let seen = migration.seen.borrow();
        Ok(ReportView {
            migration: self.migration_view(&migration),
            version: env!("CARGO_PKG_VERSION"),
            written_at: now(),
            source: self.endpoint_view(&migration.source),
            target: self.endpoint_view(&migration.target),
            keys_verified: seen.verification.keys,
            verifications: seen.verification.count,
            bytes_copied: seen.shadow.bytes_copied,
            shadow: seen.shadow.facts.map(|fresh| fresh.facts).or(seen.shadow.last),
            journal,
        })
    }

    /// The whole journal of one migration, page by page.
    async fn journal_of(&self, id: &MigrationId) -> Result<Vec<JournalEntry>, ControlError> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.store.journal_after(after).await?;
            let Some(last) = page.last() else { return Ok(events) };
            after = last.number;
            events.extend(page.into_iter().filter(|event| event.migration.as_ref() == Some(id)));
        }
    }
}
