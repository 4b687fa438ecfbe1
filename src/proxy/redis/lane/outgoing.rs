//! What the lane has to say: replies to clients and events for control, until they are taken. Lives on the lane's core.

use super::caller::Caller;
use super::request::LaneReply;
use base::model::CoreId;
use bus::LaneEvent;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub replies: Vec<(CoreId, LaneReply)>,
    pub events: Vec<LaneEvent>,
}

impl Outgoing {
    /// An answer to a client, merged with the one before if that is the same client's.
    #[inline]
    pub fn deliver(&mut self, to: Caller, bytes: &[u8]) {
        match self.replies.last_mut() {
            Some((core, reply)) if *core == to.core && reply.client == to.client && !reply.close => {
                reply.bytes.extend_from_slice(bytes);
                reply.count += 1;
            }
            _ => {
                let reply = LaneReply { client: to.client, count: 1, bytes: bytes.to_vec(), close: false };
                self.replies.push((to.core, reply));
            }
        }
    }

    /// The outcome of a client's command is unknown: its connection ends.
    pub fn close(&mut self, to: Caller) {
        let reply = LaneReply { client: to.client, count: 1, bytes: Vec::new(), close: true };
        self.replies.push((to.core, reply));
    }

    pub fn tell(&mut self, event: LaneEvent) {
        self.events.push(event);
    }
}
