//! The gate: whether a session may begin a unit of work, and the list of those that are inside one.
//!
//! All on one core, so there is no race to win: a session that passed is counted before anything else is looked at.

use super::PostgresRelay;
use super::types::{Busy, Session, Stage};
use crate::contract::{Ask, ClientKey, SessionList};
use base::model::{SessionInfo, limits};
use base::stdx::clock::Now;
use bus::{HoldEvent, HoldOrder};

/// One core's gate.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Ticket of the order that closed it.
    closed: Option<u64>,
    /// Log-ins are held too.
    shut: bool,
    /// The order has been answered.
    answered: bool,
    /// Sessions inside a unit of work or in a transaction.
    pub units: u64,
    /// Sessions being let in on the server.
    pub log_ins: u64,
    held: Vec<ClientKey>,
    events: Vec<(u64, HoldEvent)>,
}

impl Gate {
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Says so when the last unit of work is over, and behind a shut door also the last log-in.
    pub fn check(&mut self) {
        if let Some(ticket) = self.closed
            && self.units == 0
            && (self.log_ins == 0 || !self.shut)
            && !std::mem::replace(&mut self.answered, true)
        {
            self.events.push((ticket, HoldEvent::Drained));
        }
    }

    /// A session that was busy in one way is so in another.
    pub fn recount(&mut self, before: Busy, after: Busy) {
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
        self.check();
    }

    pub fn take_events(&mut self) -> Vec<(u64, HoldEvent)> {
        std::mem::take(&mut self.events)
    }
}

impl PostgresRelay {
    pub(super) fn obey_gate(&mut self, order: HoldOrder) {
        match order {
            HoldOrder::Begin { ticket } | HoldOrder::Shut { ticket } => {
                self.gate.shut |= matches!(order, HoldOrder::Shut { .. });
                self.gate.closed = Some(ticket);
                self.gate.answered = false;
                self.gate.check();
            }
            // Handed over late, after a newer pause began: it is not that one's end.
            HoldOrder::Release { ticket } if self.gate.closed.is_some_and(|closing| closing > ticket) => {}
            HoldOrder::Release { ticket } => self.open_gate(ticket),
        }
    }

    fn open_gate(&mut self, ticket: u64) {
        self.gate.closed = None;
        self.gate.shut = false;
        let now_us = self.now.mono_us;
        let (mut held, mut longest_hold_us) = (0, 0);
        for key in std::mem::take(&mut self.gate.held) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let Some(since) = session.held_since_us.take() else { continue };
            held += 1;
            longest_hold_us = longest_hold_us.max(now_us.saturating_sub(since));
            match (session.stage, session.proof.is_some()) {
                (Stage::AtGate, true) => self.connect_now(key),
                (Stage::AtGate, false) => self.look_up(key),
                _ => self.advance(key),
            }
            self.asks.push(Ask::ReadClient(key));
        }
        for key in self.sessions.keys() {
            if self.sessions.get_mut(key).is_some_and(|session| std::mem::take(&mut session.at_boundary)) {
                self.advance(key);
                self.asks.push(Ask::ReadClient(key));
            }
        }
        self.gate.events.push((ticket, HoldEvent::Released { held, longest_hold_us }));
    }

    /// The session waits until the gate opens.
    pub(super) fn hold(&mut self, key: ClientKey) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.held_since_us.is_none() {
            session.held_since_us = Some(self.now.mono_us);
            self.gate.held.push(key);
        }
    }

    /// A unit of work begins.
    pub(super) fn unit_begins(&mut self, key: ClientKey) {
        let now_us = self.now.mono_us;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.units += 1;
        session.since_us = now_us;
        self.set_busy(key, Busy::Unit);
    }

    pub(super) fn set_busy(&mut self, key: ClientKey, busy: Busy) {
        if let Some(session) = self.sessions.get_mut(key) {
            let before = std::mem::replace(&mut session.busy, busy);
            self.gate.recount(before, busy);
        }
    }

    /// Nothing is outstanding and no transaction is open.
    pub(super) fn unit_over(&mut self, key: ClientKey) {
        let now_us = self.now.mono_us;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.busy != Busy::No {
            session.since_us = now_us;
            self.set_busy(key, Busy::No);
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.client_gone {
            self.end_session(key);
        } else if self.draining {
            self.say_shutdown(key);
        }
    }

    pub(super) fn list_sessions(&self, now: Now) -> SessionList {
        let mut all: Vec<&Session> = self.sessions.iter().map(|(_, session)| session).collect();
        all.sort_by_key(|session| (session.busy != Busy::Unit, session.busy != Busy::LogIn, session.since_us));
        let total = all.len() as u64;
        let busy = all.iter().filter(|session| session.busy != Busy::No).count() as u64;
        all.truncate(limits::SESSIONS_LISTED_MAX);
        let sessions = all.into_iter().map(|session| Self::info(session, now)).collect();
        SessionList { total, busy, sessions }
    }

    fn info(session: &Session, now: Now) -> SessionInfo {
        let startup = session.startup.as_ref();
        let text =
            |text: Option<&str>| text.unwrap_or_default().chars().take(limits::NAME_BYTES_MAX).collect::<String>();
        let since_us = session.held_since_us.unwrap_or(session.since_us);
        let mut application = text(startup.map(|startup| startup.application_name()));
        if session.client_gone {
            application.push_str(" (client gone)");
        }
        SessionInfo {
            id: session.id,
            user: text(startup.map(|startup| startup.user())),
            database: text(startup.map(|startup| startup.database())),
            application,
            peer: session.peer,
            state: session.state(),
            age_us: now.mono_us.saturating_sub(since_us),
            keeps: session.keeps_seen.names().collect(),
        }
    }
}
