//! The state of one core: its interlays, its mailboxes, and what is decided about them without a socket.
//!
//! Everything here lives on one core thread. No borrow of [`Core`] is held across an await. What moves between relay, companion and
//! sockets is in `exchange`, the tasks are started by `pump` and `run`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::links::Links;
use super::outbox::Outbox;
use super::socket::SocketIo;
use super::syscalls;
use super::tls::TlsKit;
use crate::contract::{Companion, Interrupt, Relay, SharedPolicies, ToCompanion, ToRelay};
use base::model::{CoreId, InterlayName, limits};
use base::stdx::clock::Now;
use base::stdx::slab::SlabMap;
use bus::counters::CoreCounters;
use bus::{CompanionEvent, CompanionOrder, Published, Report};
use policy::ViewContext;

/// From one core to another.
#[derive(Debug)]
pub enum CoreMessage {
    /// From a relay of core `from`.
    ToCompanion { interlay: usize, from: CoreId, message: ToCompanion },
    /// From the companion, for the relay of the core that gets this.
    ToRelay { interlay: usize, message: ToRelay },
    /// For a session of the core that gets this.
    Interrupt { interlay: usize, interrupt: Interrupt },
}

/// One interlay on this core.
pub struct Interlay {
    pub name: InterlayName,
    pub relay: Box<dyn Relay>,
    pub policies: SharedPolicies,
    /// What the views of policies say under the present plan; handed on unread.
    pub view: ViewContext,
    /// On one core only, for protocols that have one.
    pub companion: Option<Box<dyn Companion>>,
    pub links: Links,
    pub clients: SlabMap<Rc<SocketIo>>,
    pub upstreams: SlabMap<Rc<SocketIo>>,
    /// How it presents itself to clients that want TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// When the plan that is being adopted must be in force, by the core's clock.
    pub barrier_deadline_us: Option<u64>,
}

impl Interlay {
    pub fn counters(&self) -> CoreCounters {
        let mut counters = self.relay.counters();
        if let Some(companion) = &self.companion {
            companion.add_counters(&mut counters);
        }
        counters
    }

    fn is_idle(&self) -> bool {
        self.relay.is_drained() && self.companion.as_ref().is_none_or(|companion| companion.is_idle())
    }
}

/// The state of one core.
pub struct Core {
    pub id: CoreId,
    pub start: Instant,
    pub interlays: Vec<Interlay>,
    pub tls: TlsKit,
    /// To the other cores.
    pub handovers: Outbox<CoreMessage>,
    /// To the control thread.
    pub reports: Outbox<Report>,
    /// When a core that is being drained ends at the latest, by its clock.
    pub drain_deadline_us: Option<u64>,
}

/// A core as its tasks share it.
pub type SharedCore = Rc<RefCell<Core>>;

impl Core {
    pub fn now(&self) -> Now {
        syscalls::now(self.start)
    }

    pub fn find(&self, name: &InterlayName) -> Option<usize> {
        self.interlays.iter().position(|interlay| interlay.name == *name)
    }

    pub fn report(&mut self, report: Report) {
        self.reports.send(0, report);
    }

    pub fn fail(&mut self, reason: &str) {
        let report = Report::CoreFailed { core: self.id, reason: reason.to_owned() };
        self.report(report);
    }

    pub fn send(&mut self, to: CoreId, message: CoreMessage) {
        self.handovers.send(usize::from(to.0), message);
    }

    /// Gives relay and companion of an interlay their next plan; its place among the interlays.
    pub fn publish(&mut self, Published { plan, view }: Published, now: Now) -> Option<usize> {
        let index = self.find(&plan.interlay)?;
        let interlay = &mut self.interlays[index];
        let flips = interlay.relay.plan().authority.side != plan.authority.side;
        // First the policies: publishing lets waiting commands go on.
        interlay.view = view;
        interlay.policies.borrow_mut().enter(view);
        interlay.relay.publish(Arc::clone(&plan));
        let patience = if flips { limits::FLIP_BARRIER_TIMEOUT } else { limits::BARRIER_TIMEOUT };
        interlay.barrier_deadline_us = Some(now.mono_us + patience.as_micros() as u64);
        if let Some(companion) = interlay.companion.as_mut() {
            companion.publish(&plan, now);
        }
        Some(index)
    }

    /// Hands an order to the companion of an interlay; the place of the interlay.
    pub fn order(&mut self, name: InterlayName, order: CompanionOrder, now: Now) -> Option<usize> {
        let index = self.find(&name)?;
        match self.interlays[index].companion.as_mut() {
            Some(companion) => companion.order(order, now),
            None => {
                if let Some(event) = order.refused("this interlay has nothing beside its relay on this core") {
                    self.report(Report::Companion { interlay: name, event });
                }
            }
        }
        Some(index)
    }

    pub fn report_event(&mut self, index: usize, event: CompanionEvent) {
        let interlay = self.interlays[index].name.clone();
        self.report(Report::Companion { interlay, event });
    }

    /// Time passes for one interlay; a plan that is not in force in time is forced.
    pub fn tick(&mut self, index: usize, now: Now) {
        let interlay = &mut self.interlays[index];
        if let Some(companion) = interlay.companion.as_mut() {
            companion.tick(now);
        }
        interlay.relay.tick(now);
        if !interlay.relay.barrier_pending() {
            return;
        }
        interlay.relay.nudge_barrier();
        if interlay.barrier_deadline_us.is_some_and(|deadline| now.mono_us >= deadline) {
            interlay.barrier_deadline_us = None;
            tracing::warn!(interlay = %interlay.name, "commands of the previous plan did not end in time; closing their connections");
            interlay.relay.break_barrier();
        }
    }

    /// Whether something here must be looked at every few milliseconds.
    pub fn is_busy(&self) -> bool {
        let busy = |interlay: &Interlay| {
            interlay.relay.barrier_pending()
                || interlay.companion.as_ref().is_some_and(|companion| companion.is_active())
        };
        self.drain_deadline_us.is_some() || self.interlays.iter().any(busy)
    }

    /// No new clients; those that are there finish what they have outstanding, for at most this long.
    pub fn drain(&mut self, deadline_ms: u64, now: Now) {
        self.drain_deadline_us = Some(now.mono_us.saturating_add(deadline_ms.saturating_mul(1000)));
        for interlay in &mut self.interlays {
            interlay.relay.drain();
        }
    }

    /// Whether the core has drained, or is out of time.
    pub fn is_over(&self, now: Now) -> bool {
        let Some(deadline_us) = self.drain_deadline_us else { return false };
        now.mono_us >= deadline_us || self.interlays.iter().all(Interlay::is_idle)
    }
}
