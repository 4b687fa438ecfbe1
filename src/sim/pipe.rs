//! What has arrived at the near end of a link that a task reads.

use std::collections::VecDeque;
use std::task::Waker;

/// What has arrived and was not read.
#[derive(Debug, Default)]
pub struct Pipe {
    pub inbox: VecDeque<u8>,
    /// Whether the other end has taken the connection.
    pub taken: Option<bool>,
    pub ended: bool,
    pub reader: Option<Waker>,
}

impl Pipe {
    pub fn answered(&mut self, taken: bool) {
        self.taken = Some(taken);
        self.wake();
    }

    pub fn arrived(&mut self, bytes: &[u8]) {
        self.inbox.extend(bytes);
        self.wake();
    }

    pub fn end(&mut self) {
        self.ended = true;
        self.taken.get_or_insert(false);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
