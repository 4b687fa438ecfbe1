//! What control tells a core to do. Lives on one core; called for each directive as it comes.

use super::core::{Core, Interlay, SharedCore};
use super::pump::pump;
use crate::contract::SessionList;
use base::model::InterlayName;
use bus::{ConfirmOrder, Directive, HoldEvent, HoldOrder, Report};

pub fn obey(core: &SharedCore, directive: Directive) {
    let now = core.borrow().now();
    let touched = match directive {
        Directive::Publish(published) => core.borrow_mut().publish(published, now),
        Directive::Companion { interlay, order } => core.borrow_mut().order(interlay, order, now),
        Directive::Hold { interlay, order } => core.borrow_mut().hold(interlay, order),
        Directive::Confirm { interlay, order } => core.borrow_mut().confirm(&interlay, order),
        Directive::Policies { interlay, policies } => {
            core.borrow_mut().adopt_policies(interlay, *policies);
            None
        }
        Directive::Sessions { interlay, ticket } => {
            core.borrow_mut().report_sessions(interlay, ticket);
            None
        }
        Directive::Sample => {
            core.borrow_mut().report_samples();
            None
        }
        Directive::Drain { deadline_ms } => {
            core.borrow_mut().drain(deadline_ms, now);
            let count = core.borrow().interlays.len();
            (0..count).for_each(|index| pump(core, index));
            None
        }
    };
    if let Some(index) = touched {
        pump(core, index);
    }
}

impl Core {
    /// Passes a hold order on, or answers that this kind of interlay cannot hold; the place of the interlay.
    fn hold(&mut self, name: InterlayName, order: HoldOrder) -> Option<usize> {
        let (core, now) = (self.id, self.now());
        let index = self.find(&name)?;
        if self.interlays[index].relay.hold(order, now).is_err() {
            let (ticket, event) = (order.ticket(), HoldEvent::Unsupported);
            self.report(Report::Hold { core, interlay: name, ticket, event });
        }
        Some(index)
    }

    fn confirm(&mut self, name: &InterlayName, order: ConfirmOrder) -> Option<usize> {
        let now = self.now();
        let index = self.find(name)?;
        self.interlays[index].relay.confirm(order, now);
        Some(index)
    }

    fn report_sessions(&mut self, interlay: InterlayName, ticket: u64) {
        let (core, now) = (self.id, self.now());
        let Some(index) = self.find(&interlay) else { return };
        let SessionList { total, busy, sessions } = self.interlays[index].relay.sessions(now);
        self.report(Report::Sessions { core, interlay, ticket, total, busy, sessions });
    }

    fn report_samples(&mut self) {
        let core = self.id;
        let of = |interlay: &Interlay| (interlay.name.clone(), interlay.counters());
        let interlays = self.interlays.iter().map(of).collect();
        self.report(Report::Counters { core, interlays });
        for index in 0..self.interlays.len() {
            self.report_policies(index);
            let interlay = &mut self.interlays[index];
            let (name, samples) = (interlay.name.clone(), interlay.relay.take_statements());
            if !samples.is_empty() {
                self.report(Report::Statements { interlay: name, samples });
            }
            let interlay = &mut self.interlays[index];
            let (name, reads) = (interlay.name.clone(), interlay.relay.take_reads());
            if !reads.is_empty() {
                self.report(Report::Reads { interlay: name, reads });
            }
        }
    }
}
