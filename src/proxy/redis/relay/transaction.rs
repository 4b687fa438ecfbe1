//! MULTI, EXEC, DISCARD, WATCH: on a pinned connection while one server is in play, queued here while two are kept in step.

use super::dispatch::{Step, refused_in_dual};
use super::types::{Awaited, Path, Transaction, Wait};
use super::{ClientKey, RedisRelay};
use crate::redis::lane::request::LaneItem;
use base::model::limits;
use policy::RequestDecision;
use wire::resp::command::{Class, Command, Session};
use wire::resp::{Args, encode};

const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

impl RedisRelay {
    pub(super) fn multi(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        if self.is_dual() {
            let step = self.answer(key, b"+OK\r\n");
            if step == Step::Done {
                self.open_transaction(key, false);
            }
            return step;
        }
        if let Err(step) = self.pin(key) {
            return step;
        }
        let step = self.send_pinned(key, frame);
        if step == Step::Done {
            self.open_transaction(key, true);
        }
        step
    }

    fn open_transaction(&mut self, key: ClientKey, on_server: bool) {
        if let Some(client) = self.clients.get_mut(key) {
            client.transaction = Some(Transaction { on_server, ..Transaction::default() });
        }
    }

    /// Any command while a MULTI block is open.
    pub(super) fn dispatch_in_transaction(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        let on_server =
            self.clients.get(key).and_then(|client| client.transaction.as_ref()).is_some_and(|tx| tx.on_server);
        if on_server {
            return self.transaction_on_server(key, command, frame);
        }
        let count = Args::new(frame).count();
        match command.class {
            Class::Session(Session::Exec) => self.exec_here(key),
            Class::Session(Session::Discard) => self.discard_here(key),
            Class::Session(Session::Multi) => self.answer(key, b"-ERR MULTI calls can not be nested\r\n"),
            Class::Session(Session::Watch) => self.answer(key, b"-ERR WATCH inside MULTI is not allowed\r\n"),
            Class::Session(Session::Quit) => self.quit(key),
            Class::Session(Session::Reset) => self.reset(key),
            Class::Session(Session::Unwatch) => self.queue_here(key, frame),
            _ if !command.arity_fits(count) => {
                let step = self.wrong_arity(key, command.name);
                self.abort_transaction(key, step)
            }
            _ => match refused_in_dual(command, frame) {
                Some(why) => {
                    let step = self.refuse(key, command, why);
                    self.abort_transaction(key, step)
                }
                None => {
                    let decision = self.decide(key, command, frame);
                    let step = match &decision {
                        RequestDecision::Refuse(text) => {
                            let step = self.refuse_by_policy(key, text);
                            self.abort_transaction(key, step)
                        }
                        RequestDecision::Send(_) => self.queue_here(key, frame),
                    };
                    self.keep_decision(key, step, decision);
                    step
                }
            },
        }
    }

    fn abort_transaction(&mut self, key: ClientKey, step: Step) -> Step {
        if step == Step::Done
            && let Some(tx) = self.clients.get_mut(key).and_then(|client| client.transaction.as_mut())
        {
            tx.aborted = true;
        }
        step
    }

    fn queue_here(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let Some(tx) = client.transaction.as_mut() else { return Step::Close };
        if tx.frames.len() + frame.len() > limits::TRANSACTION_BYTES_MAX {
            tx.aborted = true;
            let text =
                format!("ERR Crossfade queues at most {} bytes in one MULTI block", limits::TRANSACTION_BYTES_MAX);
            return self.answer(key, &encode::error(&text));
        }
        tx.frames.extend_from_slice(frame);
        tx.count += 1;
        self.answer(key, b"+QUEUED\r\n")
    }

    fn exec_here(&mut self, key: ClientKey) -> Step {
        let dual = self.is_dual();
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if client.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let Some(tx) = client.transaction.take() else { return Step::Close };
        if tx.aborted {
            self.end_watch(key);
            return self.answer(key, EXECABORT);
        }
        if client.watch_lost {
            client.watch_lost = false;
            let nil: &[u8] = if client.resp == 3 { b"_\r\n" } else { b"*-1\r\n" };
            self.end_watch(key);
            return self.answer(key, nil);
        }
        if !dual {
            return self.exec_queued_on_pinned(key, &tx);
        }
        let step = self.send_lane(key, LaneItem::Transaction { count: tx.count, len: tx.frames.len() }, &tx.frames);
        match (step, self.clients.get_mut(key)) {
            (Step::Done, Some(client)) => client.watching = false, // the lane drops the watches itself
            (Step::Wait(_), Some(client)) => client.transaction = Some(tx),
            (Step::Done | Step::Wait(_) | Step::Close, _) => {}
        }
        step
    }

    /// Dual operation ended while the block was being queued: run it whole on one connection.
    fn exec_queued_on_pinned(&mut self, key: ClientKey, tx: &Transaction) -> Step {
        if let Err(step) = self.pin(key) {
            return step;
        }
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        let Some(upstream_key) = client.pinned else { return Step::Close };
        let Some(upstream) = self.upstreams.get_mut(upstream_key) else { return Step::Close };
        encode::push_request(&mut upstream.output, &[b"MULTI"]);
        upstream.output.extend_from_slice(&tx.frames);
        encode::push_request(&mut upstream.output, &[b"EXEC"]);
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Swallow, tx.count + 1));
        upstream.awaited.push_back(if client.mute_this() { Awaited::Mute(key) } else { Awaited::Forward(key) });
        client.outstanding += 1;
        self.upstream_has_output(upstream_key);
        Step::Done
    }

    fn discard_here(&mut self, key: ClientKey) -> Step {
        let step = self.answer(key, b"+OK\r\n");
        if step == Step::Done {
            if let Some(client) = self.clients.get_mut(key) {
                client.transaction = None;
                client.watch_lost = false;
            }
            self.end_watch(key);
        }
        step
    }

    fn end_watch(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && std::mem::take(&mut client.watching)
        {
            self.push_forget(key);
        }
    }

    fn transaction_on_server(&mut self, key: ClientKey, command: &'static Command, frame: &[u8]) -> Step {
        let step = match command.class {
            Class::Session(Session::Quit) => return self.quit(key),
            Class::Session(Session::Reset) => return self.reset(key),
            // They would take the block to another database, protocol or connection.
            Class::Session(
                Session::Select
                | Session::Hello
                | Session::Auth
                | Session::Subscribe
                | Session::Monitor
                | Session::Client,
            ) => {
                return self.refuse(key, command, "it changes the session inside a MULTI block");
            }
            _ => self.send_pinned(key, frame),
        };
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        if step != Step::Done {
            return step;
        }
        match command.class {
            Class::Session(Session::Exec | Session::Discard) => {
                client.transaction = None;
                client.watching = false;
            }
            _ => {
                if let Some(tx) = client.transaction.as_mut() {
                    tx.too_large |= tx.frames.len() + frame.len() > limits::TRANSACTION_BYTES_MAX;
                    if !tx.too_large {
                        tx.frames.extend_from_slice(frame);
                        tx.count += 1;
                    }
                }
            }
        }
        step
    }

    pub(super) fn watch(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let step = if self.is_dual() {
            self.send_lane(key, LaneItem::Watch { len: frame.len() }, frame)
        } else {
            match self.pin(key) {
                Err(step) => step,
                Ok(()) => self.send_pinned(key, frame),
            }
        };
        if step == Step::Done
            && let Some(client) = self.clients.get_mut(key)
        {
            client.watching = true;
        }
        step
    }

    pub(super) fn unwatch(&mut self, key: ClientKey, frame: &[u8]) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Close };
        client.watch_lost = false;
        if !client.watching {
            return self.answer(key, b"+OK\r\n");
        }
        let step = if client.path == Path::Lane || self.is_dual() {
            self.send_lane(key, LaneItem::Unwatch, b"")
        } else {
            self.send_pinned(key, frame)
        };
        if step == Step::Done
            && let Some(client) = self.clients.get_mut(key)
        {
            client.watching = false;
        }
        step
    }
}
