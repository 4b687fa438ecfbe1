//! A client's bytes, taken by the state its session is in. Without I/O; lives on one core.

use super::session::{Progress, Session};
use super::shared::Shared;

impl Session {
    /// Bytes arrived from the client.
    pub fn input(&mut self, bytes: &[u8], shared: &mut Shared) {
        if self.is_deaf() {
            return;
        }
        if self.client.input.is_empty() && matches!(self.progress, Progress::Ready(_)) {
            let used = self.forward_client(bytes, shared);
            if !self.is_deaf() {
                self.client.input.extend_from_slice(&bytes[used..]);
            }
        } else {
            self.client.input.extend_from_slice(bytes);
            self.advance(shared);
        }
    }

    /// Takes from what has arrived until nothing more can be taken.
    pub fn advance(&mut self, shared: &mut Shared) {
        loop {
            if self.client.input.is_empty() || self.is_closing() {
                return;
            }
            let before = std::mem::discriminant(&self.progress);
            let mut input = std::mem::take(&mut self.client.input);
            let used = match self.progress {
                Progress::Opening(_) => self.open(&input, shared),
                Progress::Proving(_) => self.prove(&input, shared),
                Progress::Answering => self.relay_answer(&input, shared),
                Progress::Ready(_) => self.forward_client(&input, shared),
                Progress::Securing(_)
                | Progress::LookingUp
                | Progress::Held(_)
                | Progress::Connecting
                | Progress::Cancelling
                | Progress::Closing => 0,
            };
            if self.is_deaf() {
                return;
            }
            input.drain(..used);
            self.client.input = input;
            if used == 0 && std::mem::discriminant(&self.progress) == before {
                return;
            }
        }
    }
}
