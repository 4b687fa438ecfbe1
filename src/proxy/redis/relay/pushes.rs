//! What a connection sends that nobody asked for: subscriptions and their confirmations, messages, invalidations. Pure.

use std::collections::{BTreeSet, VecDeque};

use wire::resp::{Args, effect, encode};

/// What a client hears of besides its replies.
#[derive(Debug, Default)]
pub struct PushStream {
    /// MONITOR: whatever its connection sends goes to the client as it comes, and no reply is awaited.
    pub raw: bool,
    /// What it is subscribed to, as the server has confirmed: (command that subscribes, channel or pattern).
    pub subscriptions: BTreeSet<(&'static str, Vec<u8>)>,
    /// Commands of its own that are not confirmed whole.
    pub confirming: u32,
    /// CLIENT TRACKING ON, as it was sent: its connection tells when what it has read changes.
    pub tracking: Option<Vec<u8>>,
    /// Confirmations of subscriptions made again on another server, still to be kept from the client.
    pub resubscribing: usize,
}

impl PushStream {
    /// Whether its pinned connection may send something that is no reply, or is about to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.raw || !self.subscriptions.is_empty() || self.confirming > 0 || self.tracking.is_some()
    }
}

impl PushStream {
    /// A confirmation that stood in the reply to EXEC.
    pub(super) fn note(&mut self, frame: &[u8]) {
        match push_of(frame) {
            Some((Push::Subscribed(kind), Some(channel))) => drop(self.subscriptions.insert((kind, channel))),
            Some((Push::Unsubscribed(kind), Some(channel))) => drop(self.subscriptions.remove(&(kind, channel))),
            _ => {}
        }
    }
}

/// (command, what it does to a subscription)
const KINDS: [(&str, &str); 3] =
    [("subscribe", "unsubscribe"), ("psubscribe", "punsubscribe"), ("ssubscribe", "sunsubscribe")];
const MESSAGES: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];

/// A command that subscribes or unsubscribes: what of it the server has still to confirm.
#[derive(Debug, Clone)]
pub struct Confirmations {
    /// Lower case.
    command: &'static str,
    /// One confirmation each. Empty: unsubscribes from all of its kind, with one confirmation each, or one in all if there are none.
    channels: VecDeque<Vec<u8>>,
    all: bool,
}

impl Confirmations {
    pub(super) fn of(command: &'static str, frame: &[u8]) -> Self {
        let channels: VecDeque<Vec<u8>> = Args::new(frame).skip(1).map(<[u8]>::to_vec).collect();
        Self { command, all: channels.is_empty(), channels }
    }

    /// One more is confirmed; whether that was the last.
    pub(super) fn confirmed(&mut self, subscriptions: &BTreeSet<(&'static str, Vec<u8>)>) -> bool {
        if self.all {
            let subscribe = KINDS.iter().find(|(_, un)| *un == self.command).map(|(subscribe, _)| *subscribe);
            return !subscriptions.iter().any(|(kind, _)| Some(*kind) == subscribe);
        }
        self.channels.pop_front();
        self.channels.is_empty()
    }

    /// What is to be sent again for the rest.
    pub(super) fn request(&self) -> Vec<u8> {
        let words: Vec<&[u8]> =
            [self.command.as_bytes()].into_iter().chain(self.channels.iter().map(Vec::as_slice)).collect();
        encode::request(&words)
    }
}

/// Something that came on a subscribed connection and is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Push {
    Subscribed(&'static str),
    Unsubscribed(&'static str),
    /// A message, an invalidation.
    Other,
}

/// What an array or push is; `None`: an array that is a reply.
pub(super) fn push_of(frame: &[u8]) -> Option<(Push, Option<Vec<u8>>)> {
    let is_push = frame.starts_with(b">");
    let parts = effect::elements(frame)?;
    let word = parts.first().and_then(|first| effect::bulk(first));
    let Some(word) = word else { return is_push.then_some((Push::Other, None)) };
    let channel = parts.get(1).and_then(|channel| effect::bulk(channel)).map(<[u8]>::to_vec);
    for (subscribe, unsubscribe) in KINDS {
        if word == subscribe.as_bytes() {
            return Some((Push::Subscribed(subscribe), channel));
        }
        if word == unsubscribe.as_bytes() {
            return Some((Push::Unsubscribed(subscribe), channel));
        }
    }
    (is_push || MESSAGES.contains(&word)).then_some((Push::Other, None))
}
