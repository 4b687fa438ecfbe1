//! Holds the clients of one interlay on every core: hands out the orders and gathers the answers. Lives on the movers' thread.
//!
//! A hold either stands on every core or the caller releases it: clients are never held by halves for long.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::contract::{HeldClients, HoldError, Released};
use crate::error::Unsupported;
use base::model::{CoreId, InterlayName, limits};
use bus::{Directive, HoldEvent, HoldOrder, Mailbox};

/// How often a full mailbox is tried again.
const MAILBOX_RETRY: Duration = Duration::from_millis(1);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Holds {
    interlay: InterlayName,
    cores: Vec<Mailbox<Directive>>,
    answers: RefCell<Answers>,
    /// Rung at each answer of a core.
    changed: Notify,
    tickets: Cell<u64>,
}

/// What the cores answered to the order with this ticket.
#[derive(Debug, Default)]
struct Answers {
    ticket: u64,
    cores: BTreeSet<CoreId>,
    unsupported: bool,
    held: u64,
    longest_hold_us: u64,
    /// Per core, when the next blocking command that is to be moved began to wait.
    next: BTreeMap<CoreId, u64>,
}

impl Holds {
    pub(crate) fn new(interlay: InterlayName, cores: Vec<Mailbox<Directive>>) -> Self {
        Self { interlay, cores, answers: RefCell::default(), changed: Notify::new(), tickets: Cell::new(0) }
    }

    /// First what was begun comes to an end; then clients that log in are held as well: see the orders.
    ///
    /// # Errors
    /// [`HoldError`]; clients may be held.
    pub(crate) async fn hold(&self, deadline: Instant) -> Result<(), HoldError> {
        self.drain(HoldOrder::Begin { ticket: self.next_ticket() }, deadline).await?;
        self.drain(HoldOrder::Shut { ticket: self.next_ticket() }, deadline).await
    }

    /// After a change of authority: has the commands of blocked clients sent to the new one in the order in which they began to wait, whatever cores their
    /// clients are on. What is not through at the deadline goes on at the release, in the order of each core.
    pub(crate) async fn move_blocked(&self, deadline: Instant) {
        let mut turn: Vec<CoreId> = self.all_cores().collect();
        let mut next: BTreeMap<CoreId, u64> = BTreeMap::new();
        // At first each only says what it has.
        let mut until_us = 0;
        while !turn.is_empty() {
            let order = HoldOrder::Move { ticket: self.next_ticket(), until_us };
            *self.answers.borrow_mut() = Answers { ticket: order.ticket(), ..Answers::default() };
            for core in &turn {
                self.push(*core, order, deadline).await;
            }
            let answered =
                self.until(deadline, || (self.answers.borrow().cores.len() >= turn.len()).then_some(())).await;
            if answered.is_none() || self.answers.borrow().unsupported {
                return;
            }
            next.retain(|core, _| !turn.contains(core));
            next.append(&mut self.answers.borrow_mut().next);
            let Some((&core, _)) = next.iter().min_by_key(|(_, since_us)| **since_us) else { return };
            // As many as are before the first of the other cores.
            until_us = next
                .iter()
                .filter(|(other, _)| **other != core)
                .map(|(_, since_us)| *since_us)
                .min()
                .unwrap_or(u64::MAX);
            turn = vec![core];
        }
    }

    /// Harmless when nothing is held.
    pub(crate) async fn release(&self) -> Released {
        let order = HoldOrder::Release { ticket: self.next_ticket() };
        let deadline = Instant::now() + limits::GATE_OPEN_TIMEOUT;
        self.order(order, deadline).await;
        let everybody = || (self.answers.borrow().cores.len() >= self.cores.len()).then_some(());
        // A core that does not answer in time has the order in its mailbox: it releases as soon as it looks.
        self.until(deadline, everybody).await;
        let silent = self.silent();
        let answers = self.answers.borrow();
        Released { held: answers.held, longest_hold_us: answers.longest_hold_us, silent }
    }

    pub(crate) fn on_answer(&self, core: CoreId, ticket: u64, event: HoldEvent) {
        let mut answers = self.answers.borrow_mut();
        // An answer to an older order says nothing about the present one.
        if answers.ticket != ticket {
            return;
        }
        answers.cores.insert(core);
        match event {
            HoldEvent::Drained | HoldEvent::Moved { next_us: None } => {}
            HoldEvent::Moved { next_us: Some(next_us) } => {
                answers.next.insert(core, next_us);
            }
            HoldEvent::Released { held, longest_hold_us } => {
                answers.held += held;
                answers.longest_hold_us = answers.longest_hold_us.max(longest_hold_us);
            }
            HoldEvent::Unsupported => answers.unsupported = true,
        }
        self.changed.notify_waiters();
    }

    /// Gives every core the order and waits for all to have drained.
    async fn drain(&self, order: HoldOrder, deadline: Instant) -> Result<(), HoldError> {
        self.order(order, deadline).await;
        let drained = self.until(deadline, || {
            let answers = self.answers.borrow();
            let all = answers.cores.len() >= self.cores.len();
            (answers.unsupported || all).then_some(answers.unsupported)
        });
        match drained.await {
            Some(unsupported) if unsupported => Err(HoldError::Unsupported(Unsupported(format!(
                "interlay {}: its cores cannot hold clients, so nothing was held",
                self.interlay
            )))),
            Some(_) => Ok(()),
            None => {
                let silent = self.silent();
                let names: Vec<_> = silent.iter().map(|core| core.0.to_string()).collect();
                let reason = format!("core {} did not drain in time", names.join(", "));
                Err(HoldError::Expired { reason, clients: HeldClients::StillHeld, silent })
            }
        }
    }

    /// A mailbox that is full is waited for, until the deadline: its core has not looked for minutes, and is missing from the answers.
    /// A release is still handed over then, or that core's clients would be held for ever.
    async fn order(&self, order: HoldOrder, deadline: Instant) {
        *self.answers.borrow_mut() = Answers { ticket: order.ticket(), ..Answers::default() };
        for core in self.all_cores() {
            self.push(core, order, deadline).await;
        }
    }

    async fn push(&self, core: CoreId, order: HoldOrder, deadline: Instant) {
        let Some(mailbox) = self.cores.get(usize::from(core.0)) else { return };
        let mut directive = Directive::Hold { interlay: self.interlay.clone(), order };
        while let Err(back) = mailbox.push(directive) {
            directive = back;
            if Instant::now() >= deadline {
                if matches!(order, HoldOrder::Release { .. }) {
                    tokio::task::spawn_local(hand_over_late(mailbox.clone(), directive));
                }
                return;
            }
            sleep(MAILBOX_RETRY).await;
        }
    }

    fn all_cores(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..u16::try_from(self.cores.len()).unwrap_or(u16::MAX)).map(CoreId)
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

    /// The cores that have not answered the present order.
    fn silent(&self) -> Vec<CoreId> {
        let answers = self.answers.borrow();
        self.all_cores().filter(|core| !answers.cores.contains(core)).collect()
    }

    fn next_ticket(&self) -> u64 {
        let ticket = self.tickets.get() + 1;
        self.tickets.set(ticket);
        ticket
    }
}

/// The core may have been told of a newer hold meanwhile; it knows by the ticket.
async fn hand_over_late(mailbox: Mailbox<Directive>, mut directive: Directive) {
    while let Err(back) = mailbox.push(directive) {
        directive = back;
        sleep(limits::CONTROL_TICK).await;
    }
}
