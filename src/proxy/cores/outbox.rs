//! Values on their way into bounded mailboxes of other threads. What a full mailbox gives back is kept and tried again, in order.
//!
//! Lives on one core. Not a queue of its own: it grows only while a reader is behind, by what its writers may have outstanding.

use std::collections::VecDeque;

use bus::Mailbox;

/// See the head of this file.
#[derive(Debug)]
pub struct Outbox<T> {
    mailboxes: Vec<Mailbox<T>>,
    /// With the position of the mailbox each is for.
    kept: VecDeque<(usize, T)>,
}

impl<T> Outbox<T> {
    #[must_use]
    pub fn new(mailboxes: Vec<Mailbox<T>>) -> Self {
        Self { mailboxes, kept: VecDeque::new() }
    }

    /// Sends `value` behind everything sent before.
    pub fn send(&mut self, to: usize, value: T) {
        if self.kept.is_empty() {
            if let Err(value) = self.mailboxes[to].push(value) {
                self.kept.push_back((to, value));
            }
        } else {
            self.kept.push_back((to, value));
            self.retry();
        }
    }

    /// Tries again what was given back.
    pub fn retry(&mut self) {
        while let Some((to, value)) = self.kept.pop_front() {
            if let Err(value) = self.mailboxes[to].push(value) {
                self.kept.push_front((to, value));
                return;
            }
        }
    }

    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_mailbox_gives_back_is_sent_later_and_in_order() {
        let mailboxes = vec![Mailbox::new(2).unwrap(), Mailbox::new(2).unwrap()];
        let mut outbox = Outbox::new(mailboxes.clone());
        for value in 1..=4 {
            outbox.send(0, value);
        }
        outbox.send(1, 10);
        assert_eq!(outbox.kept(), 3, "3 and 4 do not fit, and 10 stays behind them");
        assert_eq!((mailboxes[0].pop(), mailboxes[1].pop()), (Some(1), None));
        outbox.retry();
        assert_eq!(outbox.kept(), 2);
        assert_eq!((mailboxes[0].pop(), mailboxes[0].pop()), (Some(2), Some(3)));
        outbox.send(0, 5);
        assert_eq!(outbox.kept(), 0, "a send tries again what was kept");
        assert_eq!((mailboxes[0].pop(), mailboxes[0].pop(), mailboxes[0].pop()), (Some(4), Some(5), None));
        assert_eq!(mailboxes[1].pop(), Some(10));
    }
}
