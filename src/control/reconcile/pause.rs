//! Pause and resume of an interlay by an operator: holds its clients, waits until nothing is outstanding, and releases them. Control thread.
//!
//! A pause either holds or did not happen: when the deadline passes every client is released and the sessions in the way are named. A
//! pause that is not ended by a resume ends automatically.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::now;
use super::error::ControlError;
use super::pause_state::{PauseState, Paused};
use super::state::{Control, Interlay};
use super::views::{PauseView, ResumeView};
use crate::events::{InterlayEvent, PauseEnd};
use base::model::{CoreId, SessionInfo, SessionState, Timestamp};
use movers::{Ability, HoldError};

/// Sessions named in a sentence; the answer lists all of them.
const NAMED_IN_TEXT: usize = 3;

impl Control {
    /// Holds every client at its next unit of work, and returns when nothing is outstanding at the server any more.
    ///
    /// # Errors
    /// [`ControlError::HeldUp`] naming the sessions in the way: clients go on. [`ControlError::Conflict`] when it is paused
    /// already, [`ControlError::Unsupported`] for an interlay that cannot be paused.
    pub async fn pause(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        deadline: Duration,
        hold: Duration,
    ) -> Result<PauseView, ControlError> {
        interlay.supports(Ability::Pause)?;
        may_pause(interlay)?;
        if self.stopping.get() {
            return Err(ControlError::Unavailable("the proxy is stopping".to_owned()));
        }
        interlay.pause.set(PauseState::Pausing);
        let _change = interlay.change.lock().await;
        let began = Instant::now();
        let drained = tokio::select! {
            drained = self.movers.hold(interlay.name(), deadline) => drained,
            () = self.stops(interlay) => {
                self.let_go(interlay).await;
                return Err(ControlError::Unavailable("the proxy is stopping: nothing is paused".to_owned()));
            }
        };
        match drained {
            Ok(_) => Ok(self.paused(interlay, began, hold).await),
            Err(error) => Err(self.not_paused(interlay, deadline, error).await),
        }
    }

    /// Returns when the process begins to stop.
    async fn stops(&self, interlay: &Interlay) {
        loop {
            let changed = interlay.pause.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stopping.get() {
                return;
            }
            changed.await;
        }
    }

    /// The pause holds: says so, and makes sure that it will not last for ever.
    async fn paused(self: &Rc<Self>, interlay: &Rc<Interlay>, began: Instant, hold: Duration) -> PauseView {
        let since = now();
        let drained_in_us = micros(began.elapsed());
        let until = Timestamp(since.0.saturating_add(millis(hold)));
        let number = interlay.pause.held.get() + 1;
        interlay.pause.held.set(number);
        interlay.pause.set(PauseState::Paused(Paused { number, since, until, drained_in_us, began }));
        let (control, watched) = (Rc::clone(self), Rc::clone(interlay));
        tokio::task::spawn_local(async move {
            if watched.pause.outlasts(number, hold).await {
                tracing::warn!(interlay = %watched.name(), "the pause was not resumed in its time and ends automatically");
                control.end_pause(&watched, PauseEnd::TimeRanOut).await;
            }
        });
        self.events.lasting(InterlayEvent::Paused { drained_in_us, hold }, &interlay.about()).await;
        PauseView { interlay: interlay.name().to_string(), drained_in_us, paused_at: since, resumes_at: until }
    }

    /// Not everything was drained: the sessions in the way are looked for while clients are held, then all are released.
    async fn not_paused(&self, interlay: &Interlay, deadline: Duration, error: HoldError) -> ControlError {
        match error {
            HoldError::Expired { silent, .. } => {
                let mut seen = self.list_sessions(interlay).await;
                let (held, longest_hold_us) = self.let_go(interlay).await;
                seen.sessions.retain(is_busy);
                let refusal = refusal(deadline, &silent, seen.cores_missing, &seen.sessions);
                interlay.pause.failed.set(interlay.pause.failed.get() + 1);
                let failed = InterlayEvent::PauseFailed { refusal: refusal.clone(), held, longest_hold_us };
                self.events.lasting(failed, &interlay.about()).await;
                ControlError::HeldUp { text: refusal, sessions: seen.sessions }
            }
            HoldError::Unsupported(why) => {
                self.let_go(interlay).await;
                why.into()
            }
            HoldError::Failed(error) => {
                self.let_go(interlay).await;
                ControlError::Unavailable(format!("nothing is paused: {error}"))
            }
        }
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] when there is none; nothing changed.
    pub async fn resume(&self, interlay: &Interlay) -> Result<ResumeView, ControlError> {
        interlay.supports(Ability::Resume)?;
        if let Some(view) = self.end_pause(interlay, PauseEnd::Resumed).await {
            return Ok(view);
        }
        let name = interlay.name();
        Err(ControlError::Conflict(match interlay.pause.state() {
            PauseState::Running | PauseState::Paused(_) => format!("interlay {name} is not paused: nothing to resume"),
            PauseState::Pausing => format!(
                "interlay {name} is being paused at this moment: its clients go on when that fails; resume it when it holds"
            ),
            PauseState::Resuming => format!("interlay {name} is being resumed already"),
        }))
    }

    /// `None` when there was no pause to end.
    async fn end_pause(&self, interlay: &Interlay, why: PauseEnd) -> Option<ResumeView> {
        let PauseState::Paused(paused) = interlay.pause.state() else { return None };
        interlay.pause.set(PauseState::Resuming);
        let _change = interlay.change.lock().await;
        let (held, longest_hold_us) = self.let_go(interlay).await;
        let paused_for_us = micros(paused.began.elapsed());
        let resumed = InterlayEvent::Resumed { why, paused_for_us, held, longest_hold_us };
        self.events.lasting(resumed, &interlay.about()).await;
        Some(ResumeView { interlay: interlay.name().to_string(), held_clients: held, longest_hold_us, paused_for_us })
    }

    /// Releases every client; how many had been held, and the longest for how long. The caller holds the `change` lock.
    async fn let_go(&self, interlay: &Interlay) -> (u64, u64) {
        let released = self.release(interlay).await.unwrap_or_default();
        interlay.pause.set(PauseState::Running);
        (released.held, released.longest_hold_us)
    }

    /// The process stops: a pause under way is given up. One that holds stays: each core tells its held clients of the stop, and what
    /// they wanted never reaches the server.
    pub(super) fn abandon_pauses(&self) {
        self.stopping.set(true);
        for interlay in self.interlays.values() {
            interlay.pause.changed.notify_waiters();
        }
    }
}

fn may_pause(interlay: &Interlay) -> Result<(), ControlError> {
    let name = interlay.name();
    match interlay.pause.state() {
        PauseState::Running => Ok(()),
        PauseState::Paused(_) => Err(ControlError::Conflict(format!(
            "interlay {name} is paused already: `crossfade interlay resume {name}` ends it"
        ))),
        PauseState::Pausing | PauseState::Resuming => Err(ControlError::Conflict(format!(
            "interlay {name} is being paused or resumed by another request at this moment: try again"
        ))),
    }
}

/// Whether a session keeps its interlay from being drained.
pub(super) fn is_busy(session: &SessionInfo) -> bool {
    match session.state {
        SessionState::LoggingIn | SessionState::Connecting | SessionState::Idle | SessionState::Held => false,
        SessionState::Active
        | SessionState::ActiveInTransaction
        | SessionState::IdleInTransaction
        | SessionState::FailedTransaction
        | SessionState::CopyIn
        | SessionState::CopyOut => true,
    }
}

fn refusal(deadline: Duration, silent: &[CoreId], cores_missing: u64, sessions: &[SessionInfo]) -> String {
    let after = seconds(deadline);
    let silent: Vec<_> = silent.iter().map(|core| core.0.to_string()).collect();
    let silent = silent.join(", ");
    if sessions.is_empty() && cores_missing > 0 {
        return format!(
            "core {silent} did not drain within {after}; cores that did not name their sessions: {cores_missing}: look at the log; every core is ordered to release its clients"
        );
    }
    if sessions.is_empty() {
        return format!(
            "core {silent} did not drain within {after}, and no session could be named any more: it had just finished, try again; traffic continues"
        );
    }
    let named: Vec<_> = sessions.iter().take(NAMED_IN_TEXT).map(describe).collect();
    let more = sessions.len().saturating_sub(NAMED_IN_TEXT);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let count = match sessions.len() {
        1 => "1 session".to_owned(),
        count => format!("{count} sessions"),
    };
    format!("{count} held the pause up beyond {after}: {}{more}; traffic continues", named.join(", "))
}

fn describe(session: &SessionInfo) -> String {
    let application =
        if session.application.is_empty() { String::new() } else { format!(" ({})", session.application) };
    format!(
        "id {} user {} on {}{application} {} for {}",
        session.id,
        session.user,
        session.database,
        session.state.as_str(),
        seconds(Duration::from_micros(session.age_us))
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
