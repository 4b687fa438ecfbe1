//! One client, one upstream connection: what transactions, WATCH, blocking commands, SUBSCRIBE, MONITOR and large requests need.

use super::blocked::{Blocked, BlockedState};
use super::client::Client;
use super::path::{Path, Step, Wait};
use super::session::ReplyMode;
use super::shared::Shared;
use super::upstream::{Awaited, PoolKey, Upstream};
use crate::contract::UpstreamKey;
use crate::redis::lane::request::LaneItem;
use wire::resp::command::{Class, Command};
use wire::resp::encode;
use wire::resp::frame::RequestProgress;

impl Client {
    /// Whether something on its pinned connection would be lost on another.
    #[must_use]
    pub(super) fn keeps_its_connection(&self) -> bool {
        self.own || (self.pinned.is_some() && (self.watch.active || self.pushes.is_open()))
    }

    /// Gives the client a connection of its own; `Err` with what the client must do first.
    pub(super) fn pin(&mut self, shared: &mut Shared) -> Result<(), Step> {
        let own = self.pinned.filter(|pinned| shared.upstreams.get(*pinned).is_some_and(|own| self.fits(own)));
        if own.is_some() && self.path == Path::Pinned {
            return Ok(());
        }
        if self.outstanding > 0 {
            return Err(Step::Wait(Wait::OwnReplies));
        }
        match own {
            // What it watches is known there.
            Some(_) => self.path = Path::Pinned,
            None => {
                if let Some(old) = self.pinned.take() {
                    // It does not serve the session as it is now. What was watched there can be watched no longer.
                    shared.leave_pinned(old);
                    self.watch.lost |= std::mem::take(&mut self.watch.active);
                }
                self.take_connection(shared);
            }
        }
        Ok(())
    }

    /// A connection of its own under the present plan. Nothing of the client is outstanding.
    fn take_connection(&mut self, shared: &mut Shared) -> UpstreamKey {
        let pool = shared.pool_key(&self.session);
        let idle = shared.upstreams.idle_pinned.iter().position(|(key, _)| *key == pool);
        let key = match idle {
            Some(at) => shared.upstreams.idle_pinned.swap_remove(at).1,
            None => shared.connect(Upstream::new(pool, Some(self.key))),
        };
        if let Some(upstream) = shared.upstreams.get_mut(key) {
            upstream.owner = Some(self.key);
        }
        self.pinned = Some(key);
        self.path = Path::Pinned;
        key
    }

    /// From here on it shares no connection, and the server knows it by its name; `Err` with what the client must do first.
    pub(super) fn become_own(&mut self, shared: &mut Shared) -> Result<(), Step> {
        if self.own {
            return Ok(());
        }
        self.pin(shared)?;
        self.own = true;
        if let Some(upstream) = self.pinned.and_then(|key| shared.upstreams.get_mut(key)) {
            encode::push_request(&mut upstream.output, &[b"CLIENT", b"SETNAME", &self.session.name]);
            upstream.awaited.push_back(Awaited::Swallow);
        }
        Ok(())
    }

    /// On a connection of its own, given back when nothing is left on it.
    pub(super) fn send_alone(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        match self.pin(shared) {
            Err(step) => step,
            Ok(()) => self.send_pinned(shared, frame),
        }
    }

    /// What ends a script that holds up the server, on a connection that needs nothing else: a busy server refuses SELECT.
    pub(super) fn send_beside(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        if self.keeps_its_connection() {
            return self.send_alone(shared, frame);
        }
        if self.outstanding > 0 {
            return Step::Wait(Wait::OwnReplies);
        }
        if let Some(old) = self.pinned.take() {
            shared.leave_pinned(old);
        }
        let pool = PoolKey { database: 0, ..shared.pool_key(&self.session) };
        self.pinned = Some(shared.connect(Upstream::new(pool, Some(self.key))));
        self.send_pinned(shared, frame)
    }

    pub(super) fn send_pinned(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(upstream) = self.pinned else { return Step::Close };
        shared.counters.commands_pinned += 1;
        self.path = Path::Pinned;
        self.send_upstream(shared, upstream, frame)
    }

    /// In dual operation a blocking write is run by the lane, which keeps it blocked through a flip. Otherwise the command blocks on a
    /// pinned connection.
    pub(super) fn blocking(&mut self, shared: &mut Shared, command: &'static Command, frame: &[u8]) -> Step {
        // One blocking command at a time, so that it alone can be sent again when the plan changes.
        if shared.is_dual() && command.class == Class::Write {
            if self.outstanding > 0 {
                return Step::Wait(Wait::OwnReplies);
            }
            if let Err(step) = self.may_enter_lane(shared) {
                return step;
            }
            self.enter_lane(shared, LaneItem::Blocking { command, len: frame.len() }, frame);
        } else {
            if let Err(step) = self.pin(shared) {
                return step;
            }
            if self.outstanding > 0 {
                return Step::Wait(Wait::OwnReplies);
            }
            return self.block_on_pinned(shared, frame);
        }
        self.now_blocked(shared, frame);
        Step::Done
    }

    /// Sends what blocks on the pinned connection; nothing is outstanding.
    pub(super) fn block_on_pinned(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(key) = self.pinned else { return Step::Close };
        let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
        upstream.output.extend_from_slice(frame);
        upstream.awaited.push_back(Awaited::Blocking(self.key));
        self.path = Path::Pinned;
        self.outstanding += 1;
        shared.counters.commands_pinned += 1;
        shared.upstreams.has_output(key);
        self.now_blocked(shared, frame);
        Step::Done
    }

    fn now_blocked(&mut self, shared: &Shared, frame: &[u8]) {
        self.blocked = Some(Blocked {
            frame: frame.to_vec(),
            muted: self.session.mute_this(),
            since_us: shared.now.mono_us,
            number: shared.counters.commands_pinned,
            state: BlockedState::Sent,
        });
    }

    // ---- under another plan -------------------------------------------------------------------------------------------

    /// The connection of the old plan is done with a blocking command that had no result: it goes on waiting under the new plan, before
    /// anything else the client has sent, and even though clients are held. Whoever writes next must find it waiting.
    pub(super) fn block_again(&mut self, shared: &mut Shared, blocked: Blocked) {
        if let Some(old) = self.pinned.take() {
            shared.close_upstream(old);
        }
        self.path = Path::Here;
        self.outstanding = 0;
        if self.pushes.is_open() {
            self.resubscribe(shared);
        }
        if shared.is_dual() {
            return self.dispatch_again(shared, blocked.frame_at(shared.now.mono_us), blocked.muted);
        }
        self.path = Path::Pinned;
        if self.pinned.is_none() {
            self.take_connection(shared);
        }
        if let Some(upstream) = self.pinned.and_then(|key| shared.upstreams.get_mut(key)) {
            // Its bytes follow in its turn; what becomes of the connection until then concerns it already.
            upstream.awaited.push_back(Awaited::Blocking(self.key));
        }
        self.outstanding = 1;
        self.blocked = Some(Blocked { state: BlockedState::Moving, ..blocked });
    }

    /// When its blocking command began to wait.
    pub(super) fn blocked_since_us(&self) -> Option<u64> {
        self.blocked.as_ref().map(|blocked| blocked.since_us)
    }

    /// In its turn: sends a blocking command on the connection that was made for it. False while it must wait.
    pub(super) fn send_again(&mut self, shared: &mut Shared) -> bool {
        let Some(blocked) = self.blocked.as_mut() else { return true };
        match blocked.state {
            BlockedState::Sent | BlockedState::Confirmed => true,
            BlockedState::Ending => false,
            BlockedState::Moving => {
                let Some(key) = self.pinned else { return true };
                let Some(upstream) = shared.upstreams.get_mut(key) else { return true };
                if !upstream.connected {
                    return false;
                }
                upstream.output.extend_from_slice(&blocked.frame_at(shared.now.mono_us));
                blocked.state = BlockedState::Sent;
                shared.counters.commands_pinned += 1;
                shared.upstreams.has_output(key);
                true
            }
        }
    }

    /// Puts a request in front of what else was read, to be dispatched like one that arrives.
    pub(super) fn dispatch_again(&mut self, shared: &mut Shared, frame: Vec<u8>, muted: bool) {
        let rest = std::mem::replace(&mut self.input.bytes, frame);
        self.input.bytes.extend_from_slice(&rest);
        self.input.progress = RequestProgress::default();
        if muted && self.session.reply_mode == ReplyMode::On {
            self.session.reply_mode = ReplyMode::SkipNext;
        }
        self.wait = Wait::OwnReplies;
        shared.resume.push(self.key);
        self.unpin_if_clean(shared);
    }
}
