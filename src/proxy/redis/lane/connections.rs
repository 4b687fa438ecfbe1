//! The lane's two connections come, go, and bring replies.

use super::introduction::Introduction;
use super::link::Process;
use super::state::Lane;
use base::model::{Side, limits};
use base::stdx::clock::Now;
use bus::{LaneEvent, PassKind};
use wire::resp::ReplyStep;

impl Lane {
    /// A socket to one side is open. `token`: of this process, part of the names of its connections.
    pub fn opened(&mut self, side: Side, token: u64) {
        let predecessor = self.links.of(side).predecessor;
        let endpoint = self.plan.endpoint(side);
        let introduction = Introduction::begin(endpoint, self.plan.interlay.as_str(), token, predecessor);
        self.links.of_mut(side).introduction = Some(introduction);
    }

    /// Whether a connection is in use: its introduction is over and it has not broken since.
    #[must_use]
    pub fn is_connected(&self, side: Side) -> bool {
        self.links.of(side).connected
    }

    /// A connection is up: logged in, in database 0, speaking RESP2, its predecessor dead.
    pub(super) fn connected(&mut self, side: Side, run_id: &[u8], now: Now) {
        self.now = now;
        let process = self.links.of_mut(side).connect(run_id);
        self.out.tell(LaneEvent::SideBack { side });
        if process == Process::Another {
            // What it holds is not what its predecessor held.
            self.begin_pass(PassKind::Full, &format!("the {side} is another server process than before"));
        }
        self.keys.log.connected(side, run_id);
        if side == self.links.authority {
            self.end_start();
        } else {
            self.shadow.overflowed = false;
            self.shadow.refused = false;
        }
        self.run_parked();
        self.retry_waiters();
        self.after_step();
    }

    /// A connection broke, or could not be made.
    pub fn lost(&mut self, side: Side, why: &str, now: Now) {
        self.now = now;
        let link = self.links.of_mut(side);
        let was_connected = std::mem::take(&mut link.connected);
        link.introduction = None;
        if was_connected {
            self.out.tell(LaneEvent::SideLost { side, reason: why.to_owned() });
            if side == self.links.authority {
                self.authority_lost();
            } else {
                self.shadow_lost();
            }
        }
        if side == self.links.authority {
            self.end_start();
        }
        self.expire_fence_if_lost(side, why);
        self.after_step();
    }

    /// The authority's connection has been tried: commands need not wait for that any more.
    fn end_start(&mut self) {
        if std::mem::take(&mut self.held.starting) && self.held.fence.is_none() {
            self.run_held();
        }
    }

    /// Bytes arrived. `Err`: they are not RESP; the caller closes the connection and calls `lost`.
    ///
    /// # Errors
    /// Says what was wrong.
    pub fn input(&mut self, side: Side, mut bytes: &[u8], now: Now) -> Result<(), String> {
        self.now = now;
        if self.links.of(side).introduction.is_some() {
            return self.introduce(side, bytes, now);
        }
        while !bytes.is_empty() {
            let link = self.links.of_mut(side);
            let (consumed, first) = match link.feed.feed(bytes) {
                ReplyStep::Complete { consumed, first } => (consumed, first),
                ReplyStep::Partial => {
                    if !link.discarding {
                        link.gathered.extend_from_slice(bytes);
                    }
                    let too_long = link.gathered.len() > limits::DUMP_BYTES_MAX;
                    if too_long && side == self.links.authority && self.due.is_dump_next() {
                        self.links.of_mut(side).discard();
                    }
                    break;
                }
                ReplyStep::Invalid(why) => return Err(why),
            };
            let (piece, rest) = bytes.split_at(consumed);
            bytes = rest;
            if first == b'>' {
                link.gathered.clear(); // a push is no reply
            } else if std::mem::take(&mut link.discarding) {
                let head = std::mem::take(&mut link.gathered);
                self.long_dump_arrived(&head);
            } else if link.gathered.is_empty() {
                self.reply(side, piece)?;
            } else {
                let mut whole = std::mem::take(&mut link.gathered);
                whole.extend_from_slice(piece);
                self.reply(side, &whole)?;
            }
        }
        self.after_step();
        Ok(())
    }

    fn introduce(&mut self, side: Side, bytes: &[u8], now: Now) -> Result<(), String> {
        let link = self.links.of_mut(side);
        let Some(introduction) = link.introduction.as_mut() else { return Ok(()) };
        if let Some(run_id) = introduction.input(bytes)? {
            // Not before: until the old connection is known to be dead, the next introduction must kill it.
            link.predecessor = introduction.client_id();
            self.connected(side, &run_id, now);
        }
        Ok(())
    }

    fn reply(&mut self, side: Side, reply: &[u8]) -> Result<(), String> {
        if side == self.links.authority { self.authority_reply(reply) } else { self.shadow_reply(reply) }
    }
}
