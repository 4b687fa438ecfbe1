//! What a core hands to the lane and what comes back. Crosses between cores in batches.

use wire::resp::command::Command;

/// From a relay to the lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneMessage {
    Commands(LaneBatch),
    /// The client has given up its WATCH. No reply.
    Forget {
        client: u64,
    },
    /// The client is gone: drop its watches and waits. No reply.
    Gone {
        client: u64,
    },
}

/// One client's consecutive commands for the lane, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneBatch {
    /// The client, as a key of its core's relay.
    pub client: u64,
    pub database: u32,
    /// Protocol version the client expects replies in: 2 or 3.
    pub resp: u8,
    pub items: Vec<LaneItem>,
    /// The frames of all items, one behind the other.
    pub frames: Vec<u8>,
}

impl LaneBatch {
    /// Leaves out what would keep something for the client behind its reply: blocking requests and watches.
    pub fn drop_waits(&mut self) {
        let mut at = 0;
        let (items, frames) = (std::mem::take(&mut self.items), std::mem::take(&mut self.frames));
        for item in items {
            let frame = &frames[at..at + item.frame_len()];
            at += frame.len();
            match item {
                LaneItem::Blocking { .. } | LaneItem::Watch { .. } => {}
                LaneItem::Command { .. }
                | LaneItem::ComparedRead { .. }
                | LaneItem::MirroredRead { .. }
                | LaneItem::Transaction { .. }
                | LaneItem::Unwatch => {
                    self.frames.extend_from_slice(frame);
                    self.items.push(item);
                }
            }
        }
    }
}

/// One unit of work with exactly one reply. The relay has looked its command up already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneItem {
    /// One request frame of this many bytes.
    Command {
        command: &'static Command,
        len: usize,
    },
    /// A read to be repeated on the shadow at the same position and compared.
    ComparedRead {
        command: &'static Command,
        len: usize,
    },
    /// A read to be repeated on the shadow, whatever it answers.
    MirroredRead {
        len: usize,
    },
    /// The queued requests of a MULTI block; answered as EXEC is.
    Transaction {
        commands: Box<[&'static Command]>,
        len: usize,
    },
    /// A WATCH request frame.
    Watch {
        len: usize,
    },
    Unwatch,
    /// A blocking request frame; answered when data came or the time-out passed.
    Blocking {
        command: &'static Command,
        len: usize,
    },
}

impl LaneItem {
    /// How many bytes of the batch's frames are its.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        match self {
            Self::Command { len, .. }
            | Self::ComparedRead { len, .. }
            | Self::MirroredRead { len }
            | Self::Transaction { len, .. }
            | Self::Watch { len }
            | Self::Blocking { len, .. } => *len,
            Self::Unwatch => 0,
        }
    }
}

/// Replies for one client, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReply {
    pub client: u64,
    /// Number of items answered by `bytes`.
    pub count: u32,
    pub bytes: Vec<u8>,
    /// The outcome of a sent command is unknown (the authority's connection was lost): close the client's connection, as the
    /// server's own death would.
    pub close: bool,
}
