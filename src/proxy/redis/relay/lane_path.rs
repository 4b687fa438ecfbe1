//! A client's commands on their way into the lane: whether they may enter it, and in which order.

use super::client::Client;
use super::path::{Path, Step, Wait};
use super::shared::Shared;
use crate::contract::ToCompanion;
use crate::redis::lane::request::{LaneBatch, LaneItem, LaneMessage};
use base::model::limits;

const NOPERM: &[u8] = b"-NOPERM Crossfade supports writes of the default user only while two servers are kept in step: an ACL user's rights cannot be checked in the lane yet\r\n";

impl Client {
    /// Into the lane, behind whatever this client already has there.
    pub(super) fn send_lane(&mut self, shared: &mut Shared, item: LaneItem, frames: &[u8]) -> Step {
        if let Err(step) = self.may_enter_lane(shared) {
            return step;
        }
        let muted = self.session.mute_this();
        self.lane.note(self.outstanding, muted);
        self.enter_lane(shared, item, frames);
        Step::Done
    }

    /// Whether one more command may enter the lane now; `Err` with what became of the command instead.
    pub(super) fn may_enter_lane(&mut self, shared: &mut Shared) -> Result<(), Step> {
        if self.outstanding == 0 {
            self.lane.bytes = 0;
        } else if self.path != Path::Lane || self.lane.bytes > limits::UPSTREAM_OUTPUT_SOFT_BYTES {
            return Err(Step::Wait(Wait::OwnReplies));
        }
        self.check_login(shared)
    }

    /// Hands one item over; the caller has asked [`Client::may_enter_lane`] and noted whether the reply is to be dropped.
    pub(super) fn enter_lane(&mut self, shared: &mut Shared, item: LaneItem, frames: &[u8]) {
        self.path = Path::Lane;
        self.lane.bytes += frames.len();
        self.outstanding += 1;
        shared.counters.commands_lane += 1;
        let (client, database, resp) = (self.key.to_u64(), self.session.database, self.session.resp);
        match shared.to_lane.last_mut() {
            Some(ToCompanion::Lane(LaneMessage::Commands(last)))
                if last.client == client && last.database == database && last.resp == resp =>
            {
                last.items.push(item);
                last.frames.extend_from_slice(frames);
            }
            _ => {
                let batch = LaneBatch { client, database, resp, items: vec![item], frames: frames.to_vec() };
                shared.to_lane.push(ToCompanion::Lane(LaneMessage::Commands(batch)));
            }
        }
    }

    /// The lane runs under Crossfade's own log-in, so whether a client may enter it is decided here: the server has accepted the
    /// client's log-in as the default user, or lets everyone in.
    fn check_login(&mut self, shared: &mut Shared) -> Result<(), Step> {
        if let Some(login) = self.session.credentials.as_deref() {
            return match login.user.as_deref() {
                None | Some("default") => Ok(()),
                Some(_) => Err(self.answer(shared, NOPERM)),
            };
        }
        if shared.plan.endpoint(shared.plan.authority.side).credentials.is_none() {
            return Ok(()); // Crossfade itself got in without a log-in.
        }
        match shared.strangers.allowed {
            Some(true) => Ok(()),
            Some(false) => Err(self.answer(shared, b"-NOAUTH Authentication required.\r\n")),
            None => {
                let pool = shared.pool_key(&self.session);
                let key = shared.shared_upstream(pool);
                if let Some(upstream) = shared.upstreams.get_mut(key) {
                    upstream.stalled.push(self.key);
                }
                Err(Step::Wait(Wait::Upstream(key)))
            }
        }
    }
}
