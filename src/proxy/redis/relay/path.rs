//! Where a client's commands are, what makes it wait, and what became of one request. Plain values of one core.

use crate::contract::UpstreamKey;

/// Why a client's input is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Nothing,
    /// It changes path when its outstanding replies are in.
    OwnReplies,
    /// It must take its replies first.
    Output,
    /// Too many commands outstanding.
    Outstanding,
    /// Its upstream connection has too much unsent.
    Upstream(UpstreamKey),
    /// All clients are held.
    Release,
}

/// Where a client's outstanding commands are. A client has outstanding commands on one path at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Shared(UpstreamKey),
    Pinned,
    Lane,
    /// Nothing outstanding, or answered by the relay itself.
    Here,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is on its way, or answered.
    Done,
    /// The client must wait; look at the same request again later.
    Wait(Wait),
    /// The client is to be closed; look at nothing more.
    Close,
}
