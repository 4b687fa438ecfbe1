//! One client, one upstream connection: what transactions, WATCH, blocking reads, SUBSCRIBE, MONITOR and large requests need.

use super::client::{Blocked, Client};
use super::path::{Path, Step, Wait};
use super::shared::Shared;
use super::upstream::{Awaited, Upstream};
use crate::redis::lane::request::LaneItem;
use wire::resp::command::{Class, Command};

impl Client {
    /// Gives the client a connection of its own; `Err` with what the client must do first.
    pub(super) fn pin(&mut self, shared: &mut Shared) -> Result<(), Step> {
        let has_one = self.pinned.is_some_and(|pinned| shared.upstreams.get(pinned).is_some());
        if has_one && self.path == Path::Pinned {
            return Ok(());
        }
        if self.outstanding > 0 {
            return Err(Step::Wait(Wait::OwnReplies));
        }
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
        Ok(())
    }

    pub(super) fn send_pinned(&mut self, shared: &mut Shared, frame: &[u8]) -> Step {
        let Some(upstream) = self.pinned else { return Step::Close };
        shared.counters.commands_pinned += 1;
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
            let Some(key) = self.pinned else { return Step::Close };
            let Some(upstream) = shared.upstreams.get_mut(key) else { return Step::Close };
            upstream.output.extend_from_slice(frame);
            upstream.awaited.push_back(Awaited::Blocking(self.key));
            self.outstanding += 1;
            shared.counters.commands_pinned += 1;
            shared.upstreams.has_output(key);
        }
        self.blocked = Some(Blocked { frame: frame.to_vec(), muted: self.session.mute_this(), unblocking: false });
        Step::Done
    }
}
