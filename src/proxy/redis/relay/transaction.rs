//! MULTI, EXEC, DISCARD, WATCH: on a pinned connection, or queued here in dual operation and where the block began under another plan.

use super::client::{BlockPlace, Client, Transaction};
use super::dispatch::{CHANGES_SESSION, refused_in_block};
use super::path::{Path, Step, Wait};
use super::shared::Shared;
use super::upstream::Awaited;
use crate::redis::lane::request::LaneItem;
use base::model::limits;
use policy::RequestDecision;
use wire::resp::command::{Class, Command, Session};
use wire::resp::{Args, encode};

const EXECABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

impl Client {
    pub(super) fn multi(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        // The connection may change, and with it what is known of a WATCH.
        if !shared.is_dual()
            && !self.watch.lost
            && let Err(step) = self.pin(shared)
        {
            return step;
        }
        // The server knows nothing of a WATCH that was lost, and would run the block.
        let (step, place) = if shared.is_dual() || self.watch.lost {
            (self.answer(shared, b"+OK\r\n"), BlockPlace::Here)
        } else {
            (self.send_pinned(shared, frame), BlockPlace::OnServer)
        };
        if step == Step::Done {
            self.transaction = Some(Transaction::new(place));
        }
        step
    }

    /// Any command while a MULTI block is open.
    pub(super) fn dispatch_in_transaction(
        &mut self,
        shared: &mut Shared,
        command: &'static Command,
        frame: &[u8],
    ) -> Step {
        if self.transaction.as_ref().is_some_and(|block| block.place != BlockPlace::Here) {
            return self.transaction_on_server(shared, command, frame);
        }
        match command.class {
            Class::Session(Session::Exec) => self.exec_here(shared),
            Class::Session(Session::Discard) => self.discard_here(shared),
            Class::Session(Session::Multi) => self.answer(shared, b"-ERR MULTI calls can not be nested\r\n"),
            Class::Session(Session::Watch) => self.answer(shared, b"-ERR WATCH inside MULTI is not allowed\r\n"),
            Class::Session(Session::Quit) => self.quit(shared),
            Class::Session(Session::Reset) => self.reset(shared),
            Class::Session(Session::Unwatch) => self.queue_here(shared, command, frame),
            _ if !command.arity_fits(Args::new(frame).count()) => {
                let step = self.wrong_arity(shared, command.name);
                self.abort_transaction(step)
            }
            _ => match refused_in_block(shared, command, frame) {
                Some(why) => {
                    let step = self.refuse(shared, command, why);
                    self.abort_transaction(step)
                }
                None => self.queue_decided(shared, command, frame),
            },
        }
    }

    fn queue_decided(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        let decision = self.decide(shared, command, frame);
        let step = match &decision {
            RequestDecision::Refuse(text) => {
                let step = self.refuse_by_policy(shared, text);
                self.abort_transaction(step)
            }
            RequestDecision::Send(_) => self.queue_here(shared, command, frame),
        };
        self.keep_decision(step, decision);
        step
    }

    fn abort_transaction(&mut self, step: Step) -> Step {
        if step == Step::Done
            && let Some(block) = self.transaction.as_mut()
        {
            block.aborted = true;
        }
        step
    }

    fn queue_here(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let Some(block) = self.transaction.as_mut() else { return Step::Close };
        if !block.has_room(frame) {
            block.aborted = true;
            let text =
                format!("ERR Crossfade queues at most {} bytes in one MULTI block", limits::TRANSACTION_BYTES_MAX);
            return self.answer(shared, &encode::error(&text));
        }
        block.push(command, frame);
        self.answer(shared, b"+QUEUED\r\n")
    }

    fn exec_here(&mut self, shared: &mut Shared) -> Step {
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let Some(block) = self.transaction.take() else { return Step::Close };
        if block.aborted {
            self.end_watch(shared);
            return self.answer(shared, EXECABORT);
        }
        if std::mem::take(&mut self.watch.lost) {
            self.end_watch(shared);
            return self.answer(shared, self.session.nil_array());
        }
        if !shared.is_dual() {
            return self.exec_queued_on_pinned(shared, &block);
        }
        match self.may_enter_lane(shared) {
            Ok(()) => {
                let muted = self.session.mute_this();
                self.lane.note(self.outstanding, muted);
                let item = LaneItem::Transaction { commands: block.commands.into(), len: block.frames.len() };
                self.enter_lane(shared, item, &block.frames);
                self.watch.active = false; // the lane drops the watches itself
                Step::Done
            }
            Err(step) => {
                match step {
                    Step::Wait(_) => self.transaction = Some(block),
                    // It was refused.
                    Step::Done => self.end_watch(shared),
                    Step::Close => {}
                }
                step
            }
        }
    }

    /// The plan changed while the block was being queued: run it whole on one connection.
    fn exec_queued_on_pinned(&mut self, shared: &mut Shared, block: &Transaction) -> Step {
        if let Err(step) = self.pin(shared) {
            return step;
        }
        let Some(key) = self.pinned else { return Step::Close };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        encode::push_request(&mut upstream.output, &[b"MULTI"]);
        upstream.output.extend_from_slice(&block.frames);
        encode::push_request(&mut upstream.output, &[b"EXEC"]);
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Swallow, block.commands.len() + 1));
        let awaited = if self.session.mute_this() { Awaited::Mute(self.key) } else { Awaited::Forward(self.key) };
        upstream.awaited.push_back(awaited);
        self.outstanding += 1;
        shared.upstreams.has_output(key);
        Step::Done
    }

    fn discard_here(&mut self, shared: &mut Shared) -> Step {
        let step = self.answer(shared, b"+OK\r\n");
        if step == Step::Done {
            self.transaction = None;
            self.watch.lost = false;
            self.end_watch(shared);
        }
        step
    }

    fn end_watch(&mut self, shared: &mut Shared) {
        if !std::mem::take(&mut self.watch.active) {
            return;
        }
        match self.pinned.take() {
            Some(pinned) => shared.leave_pinned(pinned),
            None => shared.forget_in_lane(self.key),
        }
    }

    fn transaction_on_server(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        let step = match command.class {
            Class::Session(Session::Quit) => return self.quit(shared),
            Class::Session(Session::Reset) => return self.reset(shared),
            // They would take the block to another database, protocol or connection.
            Class::Session(
                Session::Select
                | Session::Hello
                | Session::Auth
                | Session::Subscribe
                | Session::Monitor
                | Session::Client,
            ) => {
                return self.refuse(shared, command, CHANGES_SESSION);
            }
            Class::Session(Session::Exec) if self.transaction.as_ref().is_some_and(|block| block.aborted) => {
                return self.abort_on_server(shared);
            }
            Class::Session(Session::Multi | Session::Exec | Session::Discard | Session::Watch | Session::Unwatch) => {
                self.send_pinned(shared, frame)
            }
            Class::Read
            | Class::Write
            | Class::Server
            | Class::ServerChange
            | Class::Library
            | Class::Refused(_)
            | Class::Unknown => match self.send_decided(shared, command, frame) {
                Ok(step) => step,
                Err(step) => return step,
            },
        };
        if step != Step::Done {
            return step;
        }
        if matches!(command.class, Class::Session(Session::Exec | Session::Discard)) {
            self.transaction = None;
            self.watch.active = false;
        } else if let Some(block) = self.transaction.as_mut() {
            if block.has_room(frame) && block.place == BlockPlace::OnServer {
                block.push(command, frame);
            } else {
                block.place = BlockPlace::OnServerOnly;
            }
        }
        step
    }

    /// A command for the block on the server. `Err`: the policy refuses it, so the server does not get it, and the block must not be run.
    fn send_decided(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Result<Step, Step> {
        let decision = self.decide(shared, command, frame);
        let sent = match &decision {
            RequestDecision::Send(_) => Ok(self.send_pinned(shared, frame)),
            RequestDecision::Refuse(text) => {
                let step = self.refuse_by_policy(shared, text);
                Err(self.abort_transaction(step))
            }
        };
        let (Ok(step) | Err(step)) = sent;
        self.keep_decision(step, decision);
        sent
    }

    /// EXEC of a block in which a command was refused: its connection ends, and with it the block and what was watched.
    fn abort_on_server(&mut self, shared: &mut Shared) -> Step {
        let step = self.answer(shared, EXECABORT);
        if step == Step::Done {
            self.transaction = None;
            self.watch.active = false;
            if let Some(pinned) = self.pinned.take() {
                shared.leave_pinned(pinned);
            }
        }
        step
    }

    pub(super) fn watch(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let step = if shared.is_dual() {
            self.send_lane(shared, LaneItem::Watch { len: frame.len() }, frame)
        } else {
            match self.pin(shared) {
                Err(step) => step,
                Ok(()) => self.send_pinned(shared, frame),
            }
        };
        self.watch.active |= step == Step::Done;
        step
    }

    pub(super) fn unwatch(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        self.watch.lost = false;
        if !self.watch.active {
            return self.answer(shared, b"+OK\r\n");
        }
        let step = if self.path == Path::Lane || shared.is_dual() {
            self.send_lane(shared, LaneItem::Unwatch, b"")
        } else {
            match self.pin(shared) {
                Err(step) => step,
                Ok(()) => self.send_pinned(shared, frame),
            }
        };
        self.watch.active &= step != Step::Done;
        step
    }
}
