//! Knows where one session stands between units of work, from the tags that pass in both directions. Lives on one core, in its
//! session; sees no bytes beside the tag and, of a ReadyForQuery, the status.
//!
//! A *unit* is what ends with one ReadyForQuery: a Query, a FunctionCall, or extended-query frames up to their Sync. The tracker keeps
//! the frames the server has still to answer with a ReadyForQuery in a queue, with the number of extended frames before each of them;
//! every such frame has exactly one answer that completes it, so the tracker always knows which frame the server is at. It needs that
//! for the two cases in which a frame gets no answer of its own:
//!
//! * after an error in an extended frame the server skips to the next Sync, Query frames included (protocol-flow, "Extended Query";
//!   `ignore_till_sync` in postgres.c);
//! * while it reads a COPY from the client it swallows Sync and Flush (protocol-flow, "COPY Operations"; `CopyGetData` in
//!   copyfromparse.c), because libpq sends them with the COPY itself.
//!
//! One thing cannot be known: when a COPY fails before the server has read the Sync that came with it, that Sync is answered after
//! all. It is taken for swallowed; its ReadyForQuery is then accepted when it comes.

use std::collections::VecDeque;

use base::model::session::SessionState;

/// Whether rows travel outside of frames of their own query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    None,
    /// From the client.
    In,
    /// To the client.
    Out,
    /// A replication stream.
    Both,
}

/// What a server's frame ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    None,
    /// A ReadyForQuery. `status` is b'I', b'T' or b'E'; `failed`: an ErrorResponse came since the one before.
    UnitDone {
        status: u8,
        failed: bool,
    },
}

/// A frame of the client that ends a unit, or may end a COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Sync,
    Query,
    FunctionCall,
    /// CopyDone or CopyFail: without an answer of its own, and nothing at all when the server is not in COPY.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    /// Extended frames sent after the item before this one and not yet answered.
    extended: u32,
    end: End,
}

/// One session's place. Constant work per frame, beside a COPY's begin and an error, which look at the frames they skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    queue: VecDeque<Item>,
    /// Items a ReadyForQuery answers.
    ends: usize,
    /// Extended frames sent after the last item and not yet answered.
    extended: u32,
    /// Extended frames were sent since the last item: an implicit transaction may be open until the next Sync.
    open: bool,
    /// The server skips what the client sends, to the next Sync, which the client has not sent yet.
    skipping: bool,
    status: u8,
    copy: Copy,
    /// The client has still to send CopyDone or CopyFail.
    feeding: bool,
    failed: bool,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracker {
    /// A session that has just been told its first ReadyForQuery.
    #[must_use]
    pub fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            ends: 0,
            extended: 0,
            open: false,
            skipping: false,
            status: b'I',
            copy: Copy::None,
            feeding: false,
            failed: false,
        }
    }

    /// Nothing is outstanding, no extended batch is open, no transaction, no COPY: another server could take over here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.status == b'I' && !self.is_busy() && self.copy == Copy::None
    }

    /// Whether the server owes an answer or the client a Sync.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.open || self.skipping
    }

    /// Frames are open that only the client's next ones complete: a batch without its Sync, a COPY without its end.
    #[must_use]
    pub fn is_mid_batch(&self) -> bool {
        self.open || self.skipping || self.feeding
    }

    /// Whether the server reads rows that the client has still to send or end.
    #[must_use]
    pub fn is_feeding(&self) -> bool {
        self.feeding
    }

    /// ReadyForQuery frames still to come for what was sent.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.ends
    }

    /// Whether a client's frame with this tag would begin a unit, so that a hold must be looked at before it is forwarded. Terminate does
    /// not, nor do Flush and stray COPY frames, which a server ignores outside of a unit.
    #[must_use]
    pub fn begins_unit(&self, tag: u8) -> bool {
        self.is_idle() && !matches!(tag, b'X' | b'H' | b'd' | b'c' | b'f')
    }

    /// The status in the last ReadyForQuery: b'I', b'T' or b'E'.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The COPY under way.
    #[must_use]
    pub fn copy(&self) -> Copy {
        self.copy
    }

    /// For a list of sessions. A failed transaction that runs a statement (ROLLBACK, likely) is active in transaction.
    #[must_use]
    pub fn state(&self) -> SessionState {
        match (self.copy, self.is_busy(), self.status) {
            (Copy::In, ..) => SessionState::CopyIn,
            (Copy::Out | Copy::Both, ..) => SessionState::CopyOut,
            (Copy::None, true, b'I') => SessionState::Active,
            (Copy::None, true, _) => SessionState::ActiveInTransaction,
            (Copy::None, false, b'I') => SessionState::Idle,
            (Copy::None, false, b'E') => SessionState::FailedTransaction,
            (Copy::None, false, _) => SessionState::IdleInTransaction,
        }
    }

    /// A client's frame is forwarded to the server. An unknown tag counts for nothing.
    pub fn client_frame(&mut self, tag: u8) {
        match tag {
            b'P' | b'B' | b'D' | b'E' | b'C' if !self.skipping => {
                self.extended = self.extended.saturating_add(1);
                self.open = true;
            }
            b'S' if self.feeding => {}
            b'S' => {
                self.skipping = false;
                self.push(End::Sync);
            }
            b'Q' if !self.skipping => self.push(End::Query),
            b'F' if !self.skipping => self.push(End::FunctionCall),
            b'c' | b'f' if self.feeding => self.feeding = false,
            // Perhaps the end of a COPY the server has not begun yet.
            b'c' | b'f' if !self.skipping && self.copy != Copy::Both && self.is_busy() => {
                let open = self.open;
                self.push(End::Copy);
                self.open = open;
            }
            _ => {}
        }
    }

    fn push(&mut self, end: End) {
        self.ends += usize::from(end != End::Copy);
        self.queue.push_back(Item { extended: std::mem::take(&mut self.extended), end });
        self.open = false;
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.ends -= usize::from(item.end != End::Copy);
        Some(item)
    }

    /// A server's frame passed; `status` is the body's first byte of a ReadyForQuery and not looked at otherwise.
    pub fn server_frame(&mut self, tag: u8, status: u8) -> Boundary {
        match tag {
            b'Z' => return self.ready(status),
            b'1' | b'2' | b'3' | b'T' | b'n' | b'I' | b's' => self.answered(),
            b'C' => {
                self.copy_over();
                self.answered();
            }
            b'G' => self.copy_in(),
            b'H' => self.copy = Copy::Out,
            b'W' => self.copy = Copy::Both,
            b'c' if self.copy == Copy::Out => self.copy = Copy::None,
            b'E' => self.error(),
            _ => {}
        }
        Boundary::None
    }

    fn copy_over(&mut self) {
        self.copy = Copy::None;
        self.feeding = false;
    }

    fn ready(&mut self, status: u8) -> Boundary {
        self.copy_over();
        self.drop_copy_ends();
        if self.pop().is_none() {
            // No frame is known that it answers: it is the answer to a Sync taken for swallowed, or an error between units.
            self.skipping = false;
            self.open = self.extended > 0;
        }
        self.drop_copy_ends();
        self.status = status;
        Boundary::UnitDone { status, failed: std::mem::take(&mut self.failed) }
    }

    /// Takes COPY ends the server ignored off the front.
    fn drop_copy_ends(&mut self) {
        while self.queue.front().is_some_and(|item| item.end == End::Copy && item.extended == 0) {
            self.pop();
        }
    }

    /// The extended frames the server is at.
    fn current(&mut self) -> &mut u32 {
        match self.queue.front_mut() {
            Some(item) => &mut item.extended,
            None => &mut self.extended,
        }
    }

    /// One extended frame is complete, unless the answer is part of a Query's.
    fn answered(&mut self) {
        let extended = self.current();
        *extended = extended.saturating_sub(1);
        if *extended == 0 {
            self.drop_copy_ends();
        }
    }

    /// The server begins to read rows: Syncs up to the end of the COPY, sent already or not, are swallowed.
    fn copy_in(&mut self) {
        self.copy = Copy::In;
        self.feeding = true;
        // A Query that copies stays at the front; of extended frames, the Execute is among those before the front item.
        let of_query = self.queue.front().is_some_and(|item| item.extended == 0 && item.end == End::Query);
        let query = if of_query { self.pop() } else { None };
        let mut carried = 0u32;
        while self.feeding {
            match self.queue.front() {
                Some(Item { extended, end: end @ (End::Sync | End::Copy) }) => {
                    carried = carried.saturating_add(*extended);
                    self.feeding = *end != End::Copy;
                    self.pop();
                }
                Some(_) | None => break,
            }
        }
        match self.queue.front_mut() {
            Some(item) => item.extended = item.extended.saturating_add(carried),
            None => {
                self.extended = self.extended.saturating_add(carried);
                self.open |= carried > 0;
            }
        }
        if let Some(query) = query {
            self.ends += 1;
            self.queue.push_front(query);
        }
    }

    fn error(&mut self) {
        self.failed = true;
        self.copy_over();
        self.drop_copy_ends();
        if *self.current() == 0 {
            // In a Query, a FunctionCall or a Sync, which is still answered; or between units, and nothing is owed.
            return;
        }
        while let Some(item) = self.queue.front_mut() {
            if item.end == End::Sync {
                item.extended = 0;
                return;
            }
            self.pop();
        }
        self.extended = 0;
        self.open = false;
        self.skipping = true;
    }
}
