//! The client sessions of an interlay, asked of every core. Lives on the control thread.

use tokio::time::Instant;

use super::error::ControlError;
use super::pause::is_busy;
use super::state::{Control, Interlay};
use super::views::SessionsView;
use base::model::limits;
use bus::Directive;
use movers::Ability;

impl Control {
    /// The sessions of an interlay now.
    ///
    /// # Errors
    /// [`ControlError::Unsupported`] for databases without sessions.
    pub async fn sessions(&self, interlay: &Interlay) -> Result<SessionsView, ControlError> {
        interlay.supports(Ability::ListSessions)?;
        Ok(self.list_sessions(interlay).await)
    }

    pub(super) async fn list_sessions(&self, interlay: &Interlay) -> SessionsView {
        let ticket = interlay.sessions.begin();
        for mailbox in &self.bus.cores {
            let interlay = interlay.name().clone();
            // A core too busy to take this is missing from the list, which says so.
            let _ = mailbox.push(Directive::Sessions { interlay, ticket });
        }
        let cores = self.bus.cores.len();
        let mut list = interlay.sessions.finish(ticket, cores, Instant::now() + limits::SESSIONS_TIMEOUT).await;
        // Those in the way first, the oldest first among them.
        list.sessions.sort_by_key(|session| (!is_busy(session), std::cmp::Reverse(session.age_us)));
        SessionsView {
            interlay: interlay.name().to_string(),
            total: list.total,
            busy: list.busy,
            cores_missing: u64::try_from(cores.saturating_sub(list.cores.len())).unwrap_or(u64::MAX),
            sessions: list.sessions,
        }
    }
}
