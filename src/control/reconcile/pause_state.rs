//! Where an operator's pause of an interlay stands, and the lists of sessions that are being gathered. Lives on the control thread.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use base::model::{CoreId, SessionInfo, Timestamp};

/// Whether clients of an interlay are held by an operator's pause.
#[derive(Debug, Clone, Copy, Default)]
pub enum PauseState {
    #[default]
    Running,
    /// No client begins anything new; what is outstanding finishes.
    Pausing,
    Paused(Paused),
    Resuming,
}

/// A pause that holds.
#[derive(Debug, Clone, Copy)]
pub struct Paused {
    /// Tells one pause from the next.
    pub number: u64,
    pub since: Timestamp,
    /// When it ends automatically.
    pub until: Timestamp,
    pub drained_in_us: u64,
    pub began: Instant,
}

/// The pause of one interlay, as control knows it.
#[derive(Debug, Default)]
pub struct Pause {
    state: Cell<PauseState>,
    /// Rung at each change of `state`, and when the process stops.
    pub changed: Notify,
    /// Pauses that held, and pauses that did not, since the process started.
    pub held: Cell<u64>,
    pub failed: Cell<u64>,
}

impl Pause {
    pub fn state(&self) -> PauseState {
        self.state.get()
    }

    pub fn set(&self, state: PauseState) {
        self.state.set(state);
        self.changed.notify_waiters();
    }

    /// Waits until this pause is over, or until its time runs out; whether the time ran out.
    pub async fn outlasts(&self, number: u64, hold: Duration) -> bool {
        let over = || !matches!(self.state.get(), PauseState::Paused(paused) if paused.number == number);
        !until(&self.changed, Instant::now() + hold, over).await
    }
}

/// Lists of sessions that have come for one ticket.
#[derive(Debug, Default)]
pub struct SessionList {
    pub cores: BTreeSet<CoreId>,
    pub total: u64,
    pub busy: u64,
    pub sessions: Vec<SessionInfo>,
}

/// Lists of sessions under way, by ticket.
#[derive(Debug, Default)]
pub struct SessionLists {
    lists: RefCell<BTreeMap<u64, SessionList>>,
    changed: Notify,
    tickets: Cell<u64>,
}

impl SessionLists {
    /// A ticket that answers are gathered under.
    pub fn begin(&self) -> u64 {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        self.lists.borrow_mut().insert(ticket, SessionList::default());
        ticket
    }

    pub fn on_sessions(&self, core: CoreId, ticket: u64, total: u64, busy: u64, sessions: Vec<SessionInfo>) {
        let mut lists = self.lists.borrow_mut();
        let Some(list) = lists.get_mut(&ticket) else { return };
        if list.cores.insert(core) {
            list.total += total;
            list.busy += busy;
            list.sessions.extend(sessions);
            self.changed.notify_waiters();
        }
    }

    /// Waits for the lists of so many cores, until the deadline, and takes what has come.
    pub async fn finish(&self, ticket: u64, cores: usize, deadline: Instant) -> SessionList {
        let all = || self.lists.borrow().get(&ticket).is_none_or(|list| list.cores.len() >= cores);
        // Cores that are missing are counted in the answer.
        let _ = until(&self.changed, deadline, all).await;
        self.lists.borrow_mut().remove(&ticket).unwrap_or_default()
    }
}

/// Waits until this is so; false when the deadline came first.
async fn until(changed: &Notify, deadline: Instant, so: impl Fn() -> bool) -> bool {
    loop {
        let rung = changed.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        if so() {
            return true;
        }
        if timeout_at(deadline, rung).await.is_err() {
            return so();
        }
    }
}
