//! Holding sessions: whether a session may begin a unit of work now, and the count of those that are inside one.
//!
//! A hold, its counts and the sessions it concerns all live on one core. There is no race between a session that begins and a hold: a
//! session that may begin is counted before anything else is looked at.

use crate::contract::ClientKey;
use bus::HoldEvent;

/// What a session has under way on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    No,
    /// A log-in: its secret is being looked up, or its server connection is being made.
    LogIn,
    /// A unit of work, or a transaction.
    Unit,
}

/// Which sessions a hold concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Sessions that are ready. Log-ins go on.
    Units,
    /// Log-ins too.
    UnitsAndLogIns,
}

/// A hold that has begun and is not released.
#[derive(Debug)]
struct Begun {
    /// Of the latest order.
    ticket: u64,
    scope: Scope,
    /// [`HoldEvent::Drained`] has been reported for this ticket.
    reported: bool,
}

/// One relay's hold, and what it counts while there is none.
#[derive(Debug, Default)]
pub struct Hold {
    begun: Option<Begun>,
    /// Sessions inside a unit of work or in a transaction.
    pub units: u64,
    /// Sessions that are logging in to their server.
    log_ins: u64,
    /// Sessions that wait for the release, in the order in which they began to wait.
    held: Vec<ClientKey>,
    events: Vec<(u64, HoldEvent)>,
}

impl Hold {
    /// Whether sessions may not begin a unit of work.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.begun.is_some()
    }

    /// Whether log-ins wait too.
    pub fn holds_log_ins(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.scope == Scope::UnitsAndLogIns)
    }

    /// [`bus::HoldOrder::Begin`].
    pub fn begin(&mut self, ticket: u64) {
        let scope = self.begun.as_ref().map_or(Scope::Units, |begun| begun.scope);
        self.begun = Some(Begun { ticket, scope, reported: false });
        self.report_drained();
    }

    /// [`bus::HoldOrder::Shut`].
    pub fn shut(&mut self, ticket: u64) {
        self.begun = Some(Begun { ticket, scope: Scope::UnitsAndLogIns, reported: false });
        self.report_drained();
    }

    /// [`bus::HoldOrder::Release`]: the sessions that go on now. `None` for an order that arrives after a newer hold began, which it does
    /// not end.
    pub fn release(&mut self, ticket: u64) -> Option<Vec<ClientKey>> {
        if self.begun.as_ref().is_some_and(|begun| begun.ticket > ticket) {
            return None;
        }
        self.begun = None;
        Some(std::mem::take(&mut self.held))
    }

    /// The sessions that [`Self::release`] named go on.
    pub fn report_released(&mut self, ticket: u64, held: u64, longest_hold_us: u64) {
        self.events.push((ticket, HoldEvent::Released { held, longest_hold_us }));
    }

    /// Reports, once per ticket, that the last unit of work is over (and the last log-in, where log-ins are held).
    fn report_drained(&mut self) {
        if let Some(begun) = &mut self.begun
            && self.units == 0
            && (self.log_ins == 0 || begun.scope == Scope::Units)
            && !std::mem::replace(&mut begun.reported, true)
        {
            self.events.push((begun.ticket, HoldEvent::Drained));
        }
    }

    /// A session that was busy in one way is busy in another now.
    fn recount(&mut self, before: Busy, after: Busy) {
        match before {
            Busy::No => {}
            Busy::LogIn => self.log_ins -= 1,
            Busy::Unit => self.units -= 1,
        }
        match after {
            Busy::No => {}
            Busy::LogIn => self.log_ins += 1,
            Busy::Unit => self.units += 1,
        }
        self.report_drained();
    }

    /// Answers to orders, each with its ticket.
    pub fn take_events(&mut self) -> Vec<(u64, HoldEvent)> {
        std::mem::take(&mut self.events)
    }
}

/// One session's part in a hold.
#[derive(Debug)]
pub struct SessionHold {
    /// What the session is counted as.
    busy: Busy,
    /// Waits for the release, since this time of the monotonic clock.
    held_since_us: Option<u64>,
    /// Its next frames wait for outstanding answers, which tell whether those frames would begin a unit of work.
    waits_for_answers: bool,
}

impl Default for SessionHold {
    fn default() -> Self {
        Self { busy: Busy::No, held_since_us: None, waits_for_answers: false }
    }
}

impl SessionHold {
    pub fn busy(&self) -> Busy {
        self.busy
    }

    pub fn set_busy(&mut self, busy: Busy, hold: &mut Hold) {
        let before = std::mem::replace(&mut self.busy, busy);
        hold.recount(before, busy);
    }

    /// Since when the session has waited for the release; `None`: it is not held.
    pub fn held_since_us(&self) -> Option<u64> {
        self.held_since_us
    }

    /// The session waits for the release.
    pub fn wait_for_release(&mut self, own: ClientKey, now_us: u64, hold: &mut Hold) {
        if self.held_since_us.is_none() {
            self.held_since_us = Some(now_us);
            hold.held.push(own);
        }
    }

    /// The hold is over; since when the session had waited, if it had.
    pub fn released(&mut self) -> Option<u64> {
        self.held_since_us.take()
    }

    pub fn wait_for_answers(&mut self) {
        self.waits_for_answers = true;
    }

    pub fn waits_for_answers(&self) -> bool {
        self.waits_for_answers
    }

    /// Ends the wait for answers; whether there was one.
    pub fn answers_came(&mut self) -> bool {
        std::mem::take(&mut self.waits_for_answers)
    }
}
