//! The mirror policy of this core and what it decides of each command while two servers are kept in step, by a lane or by a follower.

use super::client::Client;
use super::path::Step;
use super::shared::Shared;
use crate::redis::lane::caller::Caller;
use crate::redis::lane::facts::{Asked, with_facts};
use base::model::PlanMode;
use policy::{Mirroring, RequestDecision};
use wire::resp::command::{Class, Command, CompareRule};
use wire::resp::encode;

impl Shared {
    /// Whether a filter decides of each command what becomes of it.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        self.plan.mode != PlanMode::PassThrough && self.policies.borrow().request.is_some()
    }

    /// Whether the commands of a run must be looked at one by one: they may be refused, or copied for a comparison.
    #[must_use]
    pub fn examines_runs(&self) -> bool {
        self.plan.mode == PlanMode::Followed && (self.samples_reads() || self.has_policy())
    }
}

impl Client {
    /// Asks the policy once for each command: one that has to wait keeps its answer.
    pub(super) fn dispatch_decided(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        let decision = self.decide(shared, command, frame);
        let step = match &decision {
            RequestDecision::Refuse(text) => self.refuse_by_policy(shared, text),
            RequestDecision::Send(mirroring) => self.dispatch_by_class(shared, command, frame, *mirroring),
        };
        self.keep_decision(step, decision);
        step
    }

    pub(super) fn keep_decision(&mut self, step: Step, decision: RequestDecision) {
        if matches!(step, Step::Wait(_)) {
            self.input.decided = Some(decision);
        }
    }

    /// For a command in a run: whether the policy lets it through. A read that is compared is copied. A refusal is kept for the dispatch.
    pub(super) fn passes(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> bool {
        match self.decide(shared, command, frame) {
            RequestDecision::Send(mirroring) => {
                self.sample_read(shared, command, frame, mirroring);
                true
            }
            refusal @ RequestDecision::Refuse(_) => {
                self.input.decided = Some(refusal);
                false
            }
        }
    }

    pub(super) fn decide(&mut self, shared: &Shared, command: &'static Command, frame: &[u8]) -> RequestDecision {
        if shared.plan.mode == PlanMode::PassThrough {
            return RequestDecision::Send(Mirroring::Forward);
        }
        if let Some(decided) = self.input.decided.take() {
            return decided;
        }
        let mut policies = shared.policies.borrow_mut();
        if policies.generation == 0 {
            // Control has not sent its first set of policies yet: the plan decides.
            return RequestDecision::Send(Mirroring::Compare);
        }
        let Some(seat) = policies.request.as_mut() else { return RequestDecision::Send(Mirroring::Forward) };
        let asked = Asked {
            command,
            frame,
            from: Caller { core: shared.identity.core, client: self.key.to_u64() },
            database: self.session.database,
            in_transaction: self.transaction.is_some(),
        };
        // Most commands are known: what only a call would need is not made for them.
        if let Some(number) = asked.number()
            && let Some(known) = seat.recall(number, asked.database, asked.keys(), shared.now.wall_ms)
        {
            return known;
        }
        with_facts(&asked, |facts| seat.decide(facts, shared.now.wall_ms))
    }

    /// Copies a read that is on its way, if it is one of the share that is compared. Only of clients whose rights are those of Crossfade's
    /// own log-in: a comparison reads under that one.
    pub(super) fn sample_read(&self, shared: &mut Shared, command: &Command, frame: &[u8], mirroring: Mirroring) {
        let compared = command.class == Class::Read
            && command.compare != CompareRule::Never
            && !command.blocking
            && mirroring == Mirroring::Compare;
        if compared && self.transaction.is_none() && self.session.is_default_user() && shared.is_sampled() {
            shared.kept.reads.add(self.session.database, frame);
        }
    }

    pub(super) fn refuse_by_policy(&mut self, shared: &mut Shared, text: &str) -> Step {
        self.refuse_with(shared, &as_error(text))
    }
}

/// A policy's text as Redis writes an error.
pub(super) fn as_error(text: &str) -> Vec<u8> {
    encode::error(&format!("ERR {text}"))
}
