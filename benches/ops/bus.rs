//! The mailbox between two threads, on one: the cost of a message for a reader that is awake, and for one that asks to be woken for each.

use std::hint::black_box;

use ::bus::Mailbox;

use super::harness::{Operation, Round};

const MESSAGES: u64 = 256;

pub const OPERATIONS: &[Operation] = &[
    Operation { name: "bus/mailbox_push_pop", per_round: MESSAGES, set_up: awake, uncounted: None },
    Operation { name: "bus/mailbox_push_pop_armed", per_round: MESSAGES, set_up: armed, uncounted: None },
];

fn mailbox() -> Mailbox<u64> {
    Mailbox::new(64).expect("an eventfd")
}

fn awake() -> Round {
    let mailbox = mailbox();
    Box::new(move || {
        for message in 0..MESSAGES {
            push_pop(&mailbox, message);
        }
    })
}

/// Two system calls in each: the reader empties its eventfd, the writer writes it.
fn armed() -> Round {
    let mailbox = mailbox();
    Box::new(move || {
        for message in 0..MESSAGES {
            mailbox.arm();
            push_pop(&mailbox, message);
        }
    })
}

fn push_pop(mailbox: &Mailbox<u64>, message: u64) {
    mailbox.push(black_box(message)).expect("room for one");
    assert_eq!(mailbox.pop(), Some(message));
}
