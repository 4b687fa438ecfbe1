//! Numbered events: what happened, for whoever watches. Lives on the control thread.
//!
//! Lasting events are in the journal before they are announced; passing ones (progress, gates) are only in memory. Both
//! draw numbers from one durable reservation, so a number is never given twice, and `Last-Event-ID` works across restarts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::mpsc;

use crate::store::{JournalEntry, Store, StoreError};
use base::model::{InterlayName, MigrationId, Timestamp, limits};

pub type Event = JournalEntry;

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub migration: Option<MigrationId>,
    pub interlay: Option<InterlayName>,
}

#[derive(Debug)]
pub struct EventHub {
    store: Rc<Store>,
    next: Cell<u64>,
    reserved_until: Cell<u64>,
    ring: RefCell<VecDeque<Event>>,
    subscribers: RefCell<Vec<mpsc::Sender<Event>>>,
}

impl EventHub {
    /// # Errors
    /// [`StoreError`] when no numbers can be reserved.
    pub fn new(store: Rc<Store>) -> Result<Self, StoreError> {
        let first = store.reserve_numbers(limits::EVENT_NUMBER_RESERVE)?;
        Ok(Self {
            store,
            next: Cell::new(first),
            reserved_until: Cell::new(first + limits::EVENT_NUMBER_RESERVE),
            ring: RefCell::new(VecDeque::new()),
            subscribers: RefCell::new(Vec::new()),
        })
    }

    /// An event with its number, not yet announced: the caller persists it first.
    pub fn draft(&self, kind: &str, about: &About, text: impl Into<String>, now: Timestamp) -> Event {
        if self.next.get() >= self.reserved_until.get() {
            match self.store.reserve_numbers(limits::EVENT_NUMBER_RESERVE) {
                Ok(first) => {
                    self.next.set(first);
                    self.reserved_until.set(first + limits::EVENT_NUMBER_RESERVE);
                }
                // The store will refuse the next lasting change too, loudly; numbers stay unique within this process.
                Err(error) => tracing::error!(%error, "no event numbers could be reserved"),
            }
        }
        let number = self.next.get();
        self.next.set(number + 1);
        Event {
            number,
            at: now,
            kind: kind.to_owned(),
            migration: about.migration.clone(),
            interlay: about.interlay.clone(),
            text: text.into(),
        }
    }

    /// Tells every subscriber and the log. What must last is in the journal by now.
    pub fn announce(&self, event: Event) {
        let migration = event.migration.as_ref().map(MigrationId::as_str).unwrap_or_default();
        tracing::info!(number = event.number, kind = %event.kind, migration, "{}", event.text);
        self.deliver(event);
    }

    fn deliver(&self, event: Event) {
        let mut ring = self.ring.borrow_mut();
        if ring.len() == limits::EVENT_RING_LEN {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // A subscriber that does not keep up is cut off; it resumes with the number of the last event it saw.
        self.subscribers.borrow_mut().retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }

    /// Journals, then announces. A journal that cannot be written is reported and does not stop the announcement.
    pub fn lasting(&self, kind: &str, about: &About, text: impl Into<String>, now: Timestamp) {
        let event = self.draft(kind, about, text, now);
        if let Err(error) = self.store.append(std::slice::from_ref(&event)) {
            tracing::error!(%error, kind, "the journal could not be written");
        }
        self.announce(event);
    }

    /// Announces without a trace on disk and below the log's usual level.
    pub fn passing(&self, kind: &str, about: &About, text: impl Into<String>, now: Timestamp) {
        let event = self.draft(kind, about, text, now);
        tracing::debug!(number = event.number, kind, "{}", event.text);
        self.deliver(event);
    }

    /// Everything after event `after` that is still known (`None`: only what comes), and then each new event.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    pub fn subscribe(&self, after: Option<u64>) -> Result<(Vec<Event>, mpsc::Receiver<Event>), StoreError> {
        let past = match after {
            Some(after) => self.past(after)?,
            None => Vec::new(),
        };
        let (sender, receiver) = mpsc::channel(limits::EVENT_SUBSCRIBER_LEN);
        self.subscribers.borrow_mut().push(sender);
        Ok((past, receiver))
    }

    /// Events after number `after`: from the journal what the ring no longer holds, then the ring.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn past(&self, after: u64) -> Result<Vec<Event>, StoreError> {
        let ring = self.ring.borrow();
        // A change gets its number when it becomes durable and is announced when every core has it: others may overtake it.
        let ring_from = ring.iter().map(|event| event.number).min().unwrap_or(u64::MAX);
        let mut events: Vec<Event> = Vec::new();
        let mut from = after;
        while from.saturating_add(1) < ring_from {
            let page = self.store.journal_after(from)?;
            let Some(last) = page.last() else { break };
            from = last.number;
            events.extend(page.into_iter().filter(|event| event.number < ring_from));
        }
        events.extend(ring.iter().filter(|event| event.number > after).cloned());
        events.sort_by_key(|event| event.number);
        Ok(events)
    }
}
