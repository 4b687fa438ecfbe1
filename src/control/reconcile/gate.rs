//! Pause and resume: closes the gate of an interlay on every core, waits until nothing is outstanding, and opens it again. Control thread.
//!
//! A pause either holds or did not happen: when the deadline passes the gate is opened everywhere and the sessions that held it up are
//! named. A pause that nobody ends opens by itself.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::events::About;
use super::handle::ControlError;
use super::state::{Control, Interlay, now};
use super::views::{PauseView, ResumeView, SessionsView};
use base::model::{CoreId, ProtocolKind, SessionInfo, SessionState, Timestamp, limits};
use bus::{Directive, HoldEvent, HoldOrder, Mailbox};

/// Sessions named in a sentence; the answer lists all of them.
const NAMED_IN_TEXT: usize = 3;

/// The gate of one interlay, as control knows it. Lives on the control thread.
#[derive(Debug, Default)]
pub struct Gate {
    pub state: Cell<GateState>,
    answers: RefCell<Answers>,
    lists: RefCell<BTreeMap<u64, Lists>>,
    /// Rung at each answer of a core, and at each change of `state`.
    changed: Notify,
    pub pauses: Cell<u64>,
    pub failures: Cell<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub enum GateState {
    #[default]
    Open,
    /// Closed to new work; what is outstanding finishes.
    Closing,
    Paused(Paused),
    Opening,
}

/// A pause that holds.
#[derive(Debug, Clone, Copy)]
pub struct Paused {
    pub ticket: u64,
    pub since: Timestamp,
    /// When it opens by itself.
    pub until: Timestamp,
    pub drained_in_us: u64,
    /// When the gate began to close.
    began: Instant,
}

/// What the cores answered to the order with this ticket.
#[derive(Debug, Default)]
struct Answers {
    ticket: u64,
    cores: BTreeSet<CoreId>,
    unsupported: bool,
    held: u64,
    longest_hold_us: u64,
}

/// Lists of sessions that have come for one ticket.
#[derive(Debug, Default)]
struct Lists {
    cores: BTreeSet<CoreId>,
    total: u64,
    busy: u64,
    sessions: Vec<SessionInfo>,
}

/// Why the wait for a drained gate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Drained,
    Expired,
    Unsupported,
    Stopping,
}

impl Gate {
    pub(super) fn on_event(&self, core: CoreId, ticket: u64, event: HoldEvent) {
        let mut answers = self.answers.borrow_mut();
        // An answer to an older order says nothing about the present one.
        if answers.ticket != ticket {
            return;
        }
        answers.cores.insert(core);
        match event {
            HoldEvent::Drained => {}
            HoldEvent::Released { held, longest_hold_us } => {
                answers.held += held;
                answers.longest_hold_us = answers.longest_hold_us.max(longest_hold_us);
            }
            HoldEvent::Unsupported => answers.unsupported = true,
        }
        self.changed.notify_waiters();
    }

    pub(super) fn on_sessions(&self, core: CoreId, ticket: u64, total: u64, busy: u64, sessions: Vec<SessionInfo>) {
        let mut lists = self.lists.borrow_mut();
        let Some(list) = lists.get_mut(&ticket) else { return };
        if list.cores.insert(core) {
            list.total += total;
            list.busy += busy;
            list.sessions.extend(sessions);
            self.changed.notify_waiters();
        }
    }

    fn set(&self, state: GateState) {
        self.state.set(state);
        self.changed.notify_waiters();
    }

    /// Waits until `done` gives something, or the deadline.
    async fn until<T>(&self, deadline: Instant, done: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = done() {
                return Some(value);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return done();
            }
        }
    }
}

impl Interlay {
    fn about(&self) -> About {
        About { migration: None, interlay: Some(self.config.spec.name.clone()) }
    }

    /// # Errors
    /// [`ControlError::NotCarried`] for kinds without a gate.
    fn has_gate(&self, what: &str) -> Result<(), ControlError> {
        match self.config.spec.kind() {
            ProtocolKind::Postgres => Ok(()),
            ProtocolKind::Redis => Err(ControlError::NotCarried(format!(
                "interlay {} is of kind redis, which has no {what}: its changes of authority hold writes by a fence of their own",
                self.config.spec.name
            ))),
        }
    }
}

impl Control {
    /// Holds every client at its next unit of work, and returns when nothing is outstanding at the server any more.
    ///
    /// # Errors
    /// [`ControlError::HeldUp`] naming the sessions in the way: the gate is open again. [`ControlError::Conflict`] when it is paused
    /// already, [`ControlError::NotCarried`] for an interlay without a gate.
    pub async fn pause(
        self: &Rc<Self>,
        interlay: &Rc<Interlay>,
        deadline: Duration,
        hold: Duration,
    ) -> Result<PauseView, ControlError> {
        interlay.has_gate("gate to close")?;
        let name = &interlay.config.spec.name;
        let gate = &interlay.gate;
        match gate.state.get() {
            GateState::Open => {}
            GateState::Paused(_) => {
                return Err(ControlError::Conflict(format!(
                    "interlay {name} is paused already: `crossfade interlay resume {name}` ends it"
                )));
            }
            GateState::Closing | GateState::Opening => {
                return Err(ControlError::Conflict(format!(
                    "interlay {name} is being paused or resumed by somebody else at this moment: try again"
                )));
            }
        }
        if self.stopping.get() {
            return Err(ControlError::Unavailable("the proxy is stopping".to_owned()));
        }
        gate.set(GateState::Closing);
        let _change = interlay.change.lock().await;
        let began = Instant::now();
        let ticket = self.next_ticket();
        // First whoever is inside comes to an end, then nobody is let in any more: see the orders.
        let mut drain = self.drain_gate(interlay, HoldOrder::Begin { ticket }, began + deadline).await;
        if drain == Drain::Drained {
            drain = self.drain_gate(interlay, HoldOrder::Shut { ticket: self.next_ticket() }, began + deadline).await;
        }
        match drain {
            Drain::Drained => Ok(self.hold(interlay, ticket, began, hold)),
            Drain::Expired => {
                let silent = self.silent(&gate.answers.borrow().cores);
                let sessions = self.collect(interlay).await;
                let opened = self.open(interlay).await;
                Err(self.held_up(interlay, deadline, silent, sessions, opened))
            }
            Drain::Unsupported => {
                self.open(interlay).await;
                Err(ControlError::NotCarried(format!("interlay {name} has no gate on its cores: nothing was paused")))
            }
            Drain::Stopping => {
                self.open(interlay).await;
                Err(ControlError::Unavailable("the proxy is stopping: nothing is paused".to_owned()))
            }
        }
    }

    /// Gives every core the order and waits for all to have drained.
    async fn drain_gate(&self, interlay: &Interlay, order: HoldOrder, deadline: Instant) -> Drain {
        let (HoldOrder::Begin { ticket } | HoldOrder::Shut { ticket } | HoldOrder::Release { ticket }) = order;
        let (gate, cores) = (&interlay.gate, self.bus.cores.len());
        *gate.answers.borrow_mut() = Answers { ticket, ..Answers::default() };
        self.order_gate(interlay, order, deadline).await;
        let drain = gate.until(deadline, || {
            let answers = gate.answers.borrow();
            match () {
                () if answers.unsupported => Some(Drain::Unsupported),
                () if self.stopping.get() => Some(Drain::Stopping),
                () if answers.cores.len() >= cores => Some(Drain::Drained),
                () => None,
            }
        });
        drain.await.unwrap_or(Drain::Expired)
    }

    /// The gate is closed and drained: says so, and makes sure that it will not stay so for ever.
    fn hold(self: &Rc<Self>, interlay: &Rc<Interlay>, ticket: u64, began: Instant, hold: Duration) -> PauseView {
        let since = now();
        let drained_in_us = micros(began.elapsed());
        let until = Timestamp(since.0.saturating_add(millis(hold)));
        interlay.gate.pauses.set(interlay.gate.pauses.get() + 1);
        interlay.gate.set(GateState::Paused(Paused { ticket, since, until, drained_in_us, began }));
        let text = format!("paused; drained in {drained_in_us} us; resumes by itself after {}", seconds(hold));
        self.events.lasting("interlay_paused", &interlay.about(), text, since);
        let (control, interlay) = (Rc::clone(self), Rc::clone(interlay));
        let view = PauseView {
            interlay: interlay.config.spec.name.to_string(),
            drained_in_us,
            paused_at: since,
            resumes_at: until,
        };
        tokio::task::spawn_local(async move {
            let ended = interlay.gate.until(Instant::now() + hold, || {
                let same = matches!(interlay.gate.state.get(), GateState::Paused(paused) if paused.ticket == ticket);
                (!same).then_some(())
            });
            if ended.await.is_none() {
                tracing::warn!(interlay = %interlay.config.spec.name, "nobody resumed: the pause ends by itself");
                control.end_pause(&interlay, "its time ran out").await;
            }
        });
        view
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] when there is none; nothing changed.
    pub async fn resume(&self, interlay: &Interlay) -> Result<ResumeView, ControlError> {
        interlay.has_gate("gate to open")?;
        let name = &interlay.config.spec.name;
        match self.end_pause(interlay, "resumed").await {
            Some(view) => Ok(view),
            None => Err(ControlError::Conflict(match interlay.gate.state.get() {
                GateState::Open | GateState::Paused(_) => format!("interlay {name} is not paused: nothing to resume"),
                GateState::Closing => format!(
                    "interlay {name} is being paused at this moment: it is open again when that fails, resume it when it holds"
                ),
                GateState::Opening => format!("interlay {name} is being resumed already"),
            })),
        }
    }

    /// `None` when there was no pause to end.
    async fn end_pause(&self, interlay: &Interlay, why: &str) -> Option<ResumeView> {
        let GateState::Paused(paused) = interlay.gate.state.get() else { return None };
        interlay.gate.set(GateState::Opening);
        let _change = interlay.change.lock().await;
        let opened = self.open(interlay).await;
        let view = ResumeView {
            interlay: interlay.config.spec.name.to_string(),
            held_clients: opened.held,
            longest_hold_us: opened.longest_hold_us,
            paused_for_us: micros(paused.began.elapsed()),
        };
        let text = format!(
            "{why}: paused for {} us, {} clients had been held, the longest for {} us",
            view.paused_for_us, view.held_clients, view.longest_hold_us
        );
        self.events.lasting("interlay_resumed", &interlay.about(), text, now());
        Some(view)
    }

    /// Opens the gate on every core. The caller holds the `change` lock.
    async fn open(&self, interlay: &Interlay) -> Opened {
        let ticket = self.next_ticket();
        *interlay.gate.answers.borrow_mut() = Answers { ticket, ..Answers::default() };
        let deadline = Instant::now() + limits::GATE_OPEN_TIMEOUT;
        self.order_gate(interlay, HoldOrder::Release { ticket }, deadline).await;
        let (gate, cores) = (&interlay.gate, self.bus.cores.len());
        let all = gate.until(deadline, || (gate.answers.borrow().cores.len() >= cores).then_some(()));
        if all.await.is_none() {
            // The order is in their mailboxes: they open as soon as they look.
            let silent = self.silent(&gate.answers.borrow().cores);
            tracing::error!(interlay = %interlay.config.spec.name, "core {silent} did not answer the order to open its gate in time");
        }
        gate.set(GateState::Open);
        let answers = gate.answers.borrow();
        Opened { held: answers.held, longest_hold_us: answers.longest_hold_us }
    }

    /// The process stops: a pause under way is given up. Gates stay as they are: whoever is held is told of the stop by its core, and
    /// what it wanted never reaches the server.
    pub(super) fn abandon_pauses(&self) {
        self.stopping.set(true);
        for interlay in self.interlays.values() {
            interlay.gate.changed.notify_waiters();
        }
    }

    /// The sessions of an interlay now.
    ///
    /// # Errors
    /// [`ControlError::NotCarried`] for kinds without sessions.
    pub async fn sessions(&self, interlay: &Interlay) -> Result<SessionsView, ControlError> {
        interlay.has_gate("list of sessions")?;
        Ok(self.collect(interlay).await)
    }

    async fn collect(&self, interlay: &Interlay) -> SessionsView {
        let (gate, ticket) = (&interlay.gate, self.next_ticket());
        gate.lists.borrow_mut().insert(ticket, Lists::default());
        for mailbox in &self.bus.cores {
            let interlay = interlay.config.spec.name.clone();
            // A core too busy to take this is missing from the list, which says so.
            let _ = mailbox.push(Directive::Sessions { interlay, ticket });
        }
        let cores = self.bus.cores.len();
        let all = gate.until(Instant::now() + limits::SESSIONS_TIMEOUT, || {
            gate.lists.borrow().get(&ticket).is_none_or(|list| list.cores.len() >= cores).then_some(())
        });
        all.await;
        let mut list = gate.lists.borrow_mut().remove(&ticket).unwrap_or_default();
        // Those in the way first, the oldest first among them.
        list.sessions.sort_by_key(|session| (!holds_up(session), std::cmp::Reverse(session.age_us)));
        SessionsView {
            interlay: interlay.config.spec.name.to_string(),
            total: list.total,
            busy: list.busy,
            cores_missing: u64::try_from(cores.saturating_sub(list.cores.len())).unwrap_or(u64::MAX),
            sessions: list.sessions,
        }
    }

    /// A mailbox that is full is waited for, until the deadline: its core has not looked for minutes, and is missing from the answers.
    /// An order to open is still handed over then, or that core's clients would be held for ever.
    async fn order_gate(&self, interlay: &Interlay, order: HoldOrder, deadline: Instant) {
        for mailbox in &self.bus.cores {
            let mut directive = Directive::Hold { interlay: interlay.config.spec.name.clone(), order };
            while let Err(back) = mailbox.push(directive) {
                directive = back;
                if Instant::now() >= deadline {
                    if matches!(order, HoldOrder::Release { .. }) {
                        tokio::task::spawn_local(hand_over_late(mailbox.clone(), directive));
                    }
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn next_ticket(&self) -> u64 {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        ticket
    }

    /// The cores that are not in `heard`, as "0, 3".
    fn silent(&self, heard: &BTreeSet<CoreId>) -> String {
        let all = (0..u16::try_from(self.bus.cores.len()).unwrap_or(u16::MAX)).map(CoreId);
        all.filter(|core| !heard.contains(core)).map(|core| core.0.to_string()).collect::<Vec<_>>().join(", ")
    }

    fn held_up(
        &self,
        interlay: &Interlay,
        deadline: Duration,
        silent: String,
        mut seen: SessionsView,
        opened: Opened,
    ) -> ControlError {
        seen.sessions.retain(holds_up);
        let text = refusal(deadline, &silent, seen.cores_missing, &seen.sessions);
        interlay.gate.failures.set(interlay.gate.failures.get() + 1);
        let event =
            format!("{text} ({} clients had been held, the longest for {} us)", opened.held, opened.longest_hold_us);
        self.events.lasting("pause_failed", &interlay.about(), event, now());
        ControlError::HeldUp { text, sessions: seen.sessions }
    }
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    held: u64,
    longest_hold_us: u64,
}

/// The core may have been told of a newer pause meanwhile; it knows by the ticket.
async fn hand_over_late(mailbox: Mailbox<Directive>, mut directive: Directive) {
    while let Err(back) = mailbox.push(directive) {
        directive = back;
        tokio::time::sleep(limits::CONTROL_TICK).await;
    }
}

/// Whether a session keeps a closed gate from being drained.
fn holds_up(session: &SessionInfo) -> bool {
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

fn refusal(deadline: Duration, silent: &str, cores_missing: u64, sessions: &[SessionInfo]) -> String {
    let after = seconds(deadline);
    if sessions.is_empty() && cores_missing > 0 {
        return format!(
            "core {silent} did not drain within {after}, and {cores_missing} cores did not name their sessions: look at the log; the gates are ordered to open"
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
