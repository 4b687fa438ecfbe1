//! The mirror policy of this core and what it decides of each command while two servers are kept in step.

use super::dispatch::Step;
use super::{ClientKey, RedisRelay};
use crate::redis::lane::Caller;
use crate::redis::lane::facts::{Asked, with_facts};
use policy::{Mirroring, RequestDecision};
use wire::resp::command::Command;
use wire::resp::encode;

impl RedisRelay {
    /// Asks once for each command: one that has to wait keeps its answer.
    pub(super) fn dispatch_decided(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        let decision = self.decide(key, command, frame);
        let step = match &decision {
            RequestDecision::Refuse(text) => self.refuse_by_policy(key, text),
            RequestDecision::Send(mirroring) => self.dispatch_by_class(key, command, frame, *mirroring),
        };
        self.keep_decision(key, step, decision);
        step
    }

    pub(super) fn keep_decision(&mut self, key: ClientKey, step: Step, decision: RequestDecision) {
        if let (Step::Wait(_), Some(client)) = (step, self.clients.get_mut(key)) {
            client.decided = Some(decision);
        }
    }

    pub(super) fn decide(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> RequestDecision {
        const NOBODY: RequestDecision = RequestDecision::Send(Mirroring::Forward);
        let Some(client) = self.clients.get_mut(key) else { return NOBODY };
        if let Some(decided) = client.decided.take() {
            return decided;
        }
        let mut policies = self.policies.borrow_mut();
        if policies.generation == 0 {
            // Control has not said yet who decides: the plan does.
            return RequestDecision::Send(Mirroring::Compare);
        }
        let Some(seat) = policies.request.as_mut() else { return NOBODY };
        let asked = Asked {
            command,
            frame,
            from: Caller { core: self.core, client: key.to_u64() },
            database: client.database,
            in_transaction: client.transaction.is_some(),
        };
        // Most commands are known: what only a call would need is not made for them.
        if let Some(number) = asked.number()
            && let Some(known) = seat.recall(number, asked.database, asked.keys(), self.now.wall_ms)
        {
            return known;
        }
        with_facts(&asked, |facts| seat.decide(facts, self.now.wall_ms))
    }

    pub(super) fn refuse_by_policy(&mut self, key: ClientKey, text: &str) -> Step {
        let step = self.answer(key, &as_error(text));
        self.counters.replies_refused += u64::from(step == Step::Done);
        step
    }
}

/// A policy's text as Redis writes an error.
pub(super) fn as_error(text: &str) -> Vec<u8> {
    encode::error(&format!("ERR {text}"))
}
