//! MULTI, EXEC, DISCARD, WATCH: on a pinned connection, or queued here in dual operation and where the block began under another plan.

use std::borrow::Cow;

use super::client::{BlockPlace, Client, Transaction};
use super::dispatch::refused_in_block;
use super::path::{Path, Step, Wait};
use super::session::{InBlock, ReplyMode};
use super::session_commands::with_session_id;
use super::shared::Shared;
use super::upstream::Awaited;
use crate::redis::lane::request::LaneItem;
use base::model::limits;
use policy::RequestDecision;
use wire::resp::command::{self, Class, Command, Session};
use wire::resp::{Args, effect, encode};

const MONITORS: &str = "the block's replies could not be told from what it shows";
const REPLIES: &str = "it decides whether the block is answered at all: send it outside the MULTI block";
const TRACKS: &str = "it turns on pushes inside a MULTI block: send it outside";

/// Why a command of the session cannot stand in a block that a server runs.
fn refused_on_server(what: Session, frame: &[u8]) -> Option<&'static str> {
    match what {
        Session::Monitor => Some(MONITORS),
        Session::Client => {
            let word = Args::new(frame).nth(1).unwrap_or_default();
            if word.eq_ignore_ascii_case(b"REPLY") {
                Some(REPLIES)
            } else {
                word.eq_ignore_ascii_case(b"TRACKING").then_some(TRACKS)
            }
        }
        _ => None,
    }
}

fn tells_identity(frame: &[u8]) -> bool {
    let word = Args::new(frame).nth(1).unwrap_or_default();
    [b"ID".as_slice(), b"INFO"].iter().any(|identity| word.eq_ignore_ascii_case(identity))
}

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
            return self.exec_queued_on_pinned(shared, block);
        }
        if !block.session.commands.is_empty() {
            // It was queued before there was a lane, which knows no sessions.
            self.end_watch(shared);
            return self.answer(shared, EXECABORT);
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
    fn exec_queued_on_pinned(&mut self, shared: &mut Shared, block: Transaction) -> Step {
        if let Err(step) = self.pin(shared) {
            return step;
        }
        let muted = self.session.mute_this();
        let Some(key) = self.pinned else { return Step::Close };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        encode::push_request(&mut upstream.output, &[b"MULTI"]);
        upstream.output.extend_from_slice(&block.frames);
        encode::push_request(&mut upstream.output, &[b"EXEC"]);
        upstream.awaited.extend(std::iter::repeat_n(Awaited::Swallow, block.commands.len() + 1));
        let awaited = if !block.session.commands.is_empty() {
            Awaited::Exec(self.key, Box::new(InBlock { muted, ..block.session }))
        } else if muted {
            Awaited::Mute(self.key)
        } else {
            Awaited::Forward(self.key)
        };
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
            Class::Session(
                what @ (Session::Select
                | Session::Hello
                | Session::Auth
                | Session::Subscribe
                | Session::Monitor
                | Session::Client),
            ) => match refused_on_server(what, frame) {
                None => {
                    // It is told the number of this connection, which it then has to keep.
                    self.own |= what == Session::Client && tells_identity(frame);
                    self.send_pinned(shared, frame)
                }
                Some(why) => {
                    let step = self.refuse(shared, command, why);
                    return self.abort_transaction(step);
                }
            },
            Class::Session(Session::Exec) if self.transaction.as_ref().is_some_and(|block| block.aborted) => {
                return self.abort_on_server(shared);
            }
            Class::Session(Session::Exec) => self.exec_on_server(shared, frame),
            Class::Session(Session::Multi | Session::Discard | Session::Watch | Session::Unwatch) => {
                self.send_pinned(shared, frame)
            }
            Class::Read
            | Class::Write
            | Class::Server
            | Class::ServerChange
            | Class::Library
            | Class::Connection(_)
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
        } else if matches!(command.class, Class::Session(Session::Multi | Session::Watch)) {
            // An error, and the block goes on.
        } else if let Some(block) = self.transaction.as_mut() {
            if matches!(
                command.class,
                Class::Session(Session::Select | Session::Hello | Session::Auth | Session::Subscribe | Session::Client)
            ) {
                block.session.commands.push((block.count, frame.to_vec()));
            }
            block.count += 1;
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

    fn exec_on_server(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let changes = self.transaction.as_ref().is_some_and(|block| !block.session.commands.is_empty());
        if !changes {
            return self.send_pinned(shared, frame);
        }
        // Which database, user or protocol what follows is for, the reply tells.
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        let muted = self.session.reply_mode != ReplyMode::On;
        let step = self.send_pinned(shared, frame);
        if step == Step::Done
            && let Some(block) = self.transaction.as_mut()
        {
            let in_block = InBlock { muted, ..std::mem::take(&mut block.session) };
            self.awaits_exec(shared, in_block);
        }
        step
    }

    /// The reply to what was sent last, EXEC, tells what has become of the session.
    fn awaits_exec(&mut self, shared: &mut Shared, in_block: InBlock) {
        let last = self.pinned.and_then(|key| shared.upstreams.get_mut(key)).and_then(|own| own.awaited.back_mut());
        if let Some(last) = last {
            *last = Awaited::Exec(self.key, Box::new(in_block));
        }
    }

    /// The reply to EXEC of a block with commands that change the session.
    pub(super) fn executed(&mut self, shared: &mut Shared, in_block: &InBlock, reply: &[u8]) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let told = self.adopt_block(in_block, reply);
        self.own_connection_follows(shared);
        if let Some(own) = self.pinned.and_then(|key| shared.upstreams.get_mut(key)) {
            own.marked = true;
        }
        if !in_block.muted {
            self.tell(shared, told.as_deref().unwrap_or(reply));
        }
        self.reply_arrived(shared);
    }

    /// Takes over what the block has changed; the reply as the client is to see it, `None`: as it is.
    fn adopt_block(&mut self, in_block: &InBlock, reply: &[u8]) -> Option<Vec<u8>> {
        let elements: Vec<&[u8]> = effect::elements(reply)?;
        let mut told: Vec<Cow<'_, [u8]>> = elements.into_iter().map(Cow::Borrowed).collect();
        for (at, frame) in &in_block.commands {
            let Some(element) = told.get_mut(*at).filter(|element| !matches!(element.first(), Some(b'-' | b'!')))
            else {
                continue;
            };
            let args: Vec<&[u8]> = Args::new(frame).collect();
            let change = match command::lookup(args[0]).class {
                Class::Session(Session::Select) => self.session.after_select(&args),
                Class::Session(Session::Auth) => self.session.after_auth(&args),
                Class::Session(Session::Hello) => {
                    let change = self.session.after_hello(&args);
                    if !self.own {
                        *element = Cow::Owned(with_session_id(element, self.session.id));
                    }
                    change
                }
                Class::Session(Session::Subscribe) => {
                    self.pushes.note(element);
                    continue;
                }
                _ => {
                    if let [_, word, name] = args[..]
                        && word.eq_ignore_ascii_case(b"SETNAME")
                    {
                        self.session.name = name.to_vec();
                    } else if let Some(own) = self.own_answer(&args) {
                        *element = Cow::Owned(own);
                    }
                    continue;
                }
            };
            if let Ok(change) = change {
                self.session.adopt(change);
            }
        }
        let mut whole = format!("*{}\r\n", told.len()).into_bytes();
        told.iter().for_each(|element| whole.extend_from_slice(element));
        Some(whole)
    }

    /// EXEC of a block in which a command was refused: its connection ends, and with it the block and what was watched.
    fn abort_on_server(&mut self, shared: &mut Shared) -> Step {
        let step = self.answer(shared, EXECABORT);
        if step == Step::Done {
            self.transaction = None;
            self.watch.active = false;
            if self.pushes.is_open() {
                self.discard_on_server(shared);
            } else if let Some(pinned) = self.pinned.take() {
                shared.leave_pinned(pinned);
            }
        }
        step
    }

    /// Gives up the block on the server, and what was watched, and keeps the connection.
    pub(super) fn discard_on_server(&mut self, shared: &mut Shared) {
        let Some(key) = self.pinned else { return };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return };
        encode::push_request(&mut upstream.output, &[b"DISCARD"]);
        upstream.awaited.push_back(Awaited::Swallow);
        shared.upstreams.has_output(key);
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
