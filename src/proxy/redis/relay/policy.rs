//! The mirror policy of this core and what it decides of each command while two servers are kept in step.

use super::client::Client;
use super::path::Step;
use super::shared::Shared;
use crate::redis::lane::caller::Caller;
use crate::redis::lane::facts::{Asked, with_facts};
use policy::{Mirroring, RequestDecision};
use wire::resp::command::Command;
use wire::resp::encode;

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

    pub(super) fn decide(&mut self, shared: &Shared, command: &'static Command, frame: &[u8]) -> RequestDecision {
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
            from: Caller { core: shared.core, client: self.key.to_u64() },
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

    pub(super) fn refuse_by_policy(&mut self, shared: &mut Shared, text: &str) -> Step {
        self.refuse_with(shared, &as_error(text))
    }
}

/// A policy's text as Redis writes an error.
pub(super) fn as_error(text: &str) -> Vec<u8> {
    encode::error(&format!("ERR {text}"))
}
