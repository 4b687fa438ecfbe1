//! Numbers events and hands them to the journal, to subscribers and to the log. Lives on the control thread.
//!
//! Lasting events are in the journal before they are announced; passing ones (progress, gates) are only in memory. Both
//! draw numbers from one durable reservation, so a number is never given twice, and `Last-Event-ID` works across restarts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::mpsc;

use super::clock::now;
use crate::events::Event;
use crate::store::{JournalEntry, Store, StoreError};
use base::model::{InterlayName, MigrationId, limits};

/// What an event is about.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub migration: Option<MigrationId>,
    pub interlay: Option<InterlayName>,
}

#[derive(Debug)]
pub struct EventHub {
    store: Rc<dyn Store>,
    next: Cell<u64>,
    reserved_until: Cell<u64>,
    ring: RefCell<VecDeque<JournalEntry>>,
    subscribers: RefCell<Vec<mpsc::Sender<JournalEntry>>>,
}

impl EventHub {
    /// # Errors
    /// [`StoreError`] when no numbers can be reserved.
    pub async fn new(store: Rc<dyn Store>) -> Result<Self, StoreError> {
        let first = store.reserve_numbers(limits::EVENT_NUMBER_RESERVE).await?;
        Ok(Self {
            store,
            next: Cell::new(first),
            reserved_until: Cell::new(first + limits::EVENT_NUMBER_RESERVE),
            ring: RefCell::new(VecDeque::new()),
            subscribers: RefCell::new(Vec::new()),
        })
    }

    /// An event with its number, not yet announced: the caller persists it first.
    pub async fn draft(&self, event: impl Into<Event>, about: &About) -> JournalEntry {
        let event = event.into();
        let number = self.next_number().await;
        JournalEntry {
            number,
            at: now(),
            kind: event.kind().to_owned(),
            migration: about.migration.clone(),
            interlay: about.interlay.clone(),
            text: event.to_string(),
        }
    }

    async fn next_number(&self) -> u64 {
        if self.next.get() >= self.reserved_until.get() {
            match self.store.reserve_numbers(limits::EVENT_NUMBER_RESERVE).await {
                // Another event may have reserved in the meantime: numbers only grow.
                Ok(first) => {
                    self.next.set(first.max(self.next.get()));
                    self.reserved_until.set(first + limits::EVENT_NUMBER_RESERVE);
                }
                // The store will refuse the next lasting change too, loudly; numbers stay unique within this process.
                Err(error) => tracing::error!(%error, "no event numbers could be reserved"),
            }
        }
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    /// Tells every subscriber and the log. What must last is in the journal by now.
    pub fn announce(&self, event: JournalEntry) {
        let migration = event.migration.as_ref().map(MigrationId::as_str).unwrap_or_default();
        tracing::info!(number = event.number, kind = %event.kind, migration, "{}", event.text);
        self.deliver(event);
    }

    fn deliver(&self, event: JournalEntry) {
        let mut ring = self.ring.borrow_mut();
        if ring.len() == limits::EVENT_RING_LEN {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // A subscriber that does not keep up is cut off; it resumes with the number of the last event it saw.
        self.subscribers.borrow_mut().retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
    }

    /// Journals, then announces. A journal that cannot be written is reported and does not stop the announcement.
    pub async fn lasting(&self, event: impl Into<Event>, about: &About) {
        let event = self.draft(event, about).await;
        if let Err(error) = self.store.append(std::slice::from_ref(&event)).await {
            tracing::error!(%error, kind = %event.kind, "the journal could not be written");
        }
        self.announce(event);
    }

    /// Announces without a trace on disk and below the log's usual level.
    pub async fn passing(&self, event: impl Into<Event>, about: &About) {
        let event = self.draft(event, about).await;
        tracing::debug!(number = event.number, kind = %event.kind, "{}", event.text);
        self.deliver(event);
    }

    /// Everything after event `after` that is still known (`None`: only what comes), and then each new event.
    ///
    /// # Errors
    /// [`StoreError`] when the journal cannot be read.
    pub async fn subscribe(
        &self,
        after: Option<u64>,
    ) -> Result<(Vec<JournalEntry>, mpsc::Receiver<JournalEntry>), StoreError> {
        let (sender, receiver) = mpsc::channel(limits::EVENT_SUBSCRIBER_LEN);
        let Some(after) = after else {
            self.subscribers.borrow_mut().push(sender);
            return Ok((Vec::new(), receiver));
        };
        let past = self.past(after).await?;
        // Nothing was awaited since the ring was read, so no event falls between what is past and what comes.
        self.subscribers.borrow_mut().push(sender);
        Ok((past, receiver))
    }

    /// Events after number `after`: from the journal what the ring no longer holds, then the ring.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn past(&self, after: u64) -> Result<Vec<JournalEntry>, StoreError> {
        let journal = self.journal_until_ring(after).await?;
        Ok(self.with_ring(journal, after))
    }

    async fn journal_until_ring(&self, after: u64) -> Result<Vec<JournalEntry>, StoreError> {
        let mut events: Vec<JournalEntry> = Vec::new();
        let mut from = after;
        while from.saturating_add(1) < self.ring_from() {
            let page = self.store.journal_after(from).await?;
            let Some(last) = page.last() else { break };
            from = last.number;
            events.extend(page);
        }
        Ok(events)
    }

    /// A change gets its number when it becomes durable and is announced when every core has it: others may overtake it.
    fn ring_from(&self) -> u64 {
        self.ring.borrow().iter().map(|event| event.number).min().unwrap_or(u64::MAX)
    }

    fn with_ring(&self, mut events: Vec<JournalEntry>, after: u64) -> Vec<JournalEntry> {
        let ring = self.ring.borrow();
        // Who has seen that event has seen what was announced before it, and not what was overtaken by it.
        if let Some(seen) = ring.iter().position(|event| event.number == after) {
            return ring.iter().skip(seen + 1).cloned().collect();
        }
        let ring_from = self.ring_from();
        events.retain(|event| event.number < ring_from);
        events.extend(ring.iter().filter(|event| event.number > after).cloned());
        events.sort_by_key(|event| event.number);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::at_once;
    use super::*;
    use crate::events::{ProcessEvent, Stop};
    use crate::store::RedbStore;

    #[test]
    fn an_event_that_was_overtaken_is_given_to_who_resumes() {
        let folder = std::env::temp_dir().join(format!("crossfade-event-hub-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store: Rc<dyn Store> = Rc::new(RedbStore::open(&folder).unwrap());
        let hub = at_once(EventHub::new(store)).unwrap();
        let draft = || at_once(hub.draft(ProcessEvent::Stopped(Stop::InOrder), &About::default()));
        let (slow, quick) = (draft(), draft());
        let (slow_number, quick_number) = (slow.number, quick.number);
        hub.announce(quick);
        hub.announce(slow);
        let resumed =
            |after| -> Vec<u64> { at_once(hub.past(after)).unwrap().into_iter().map(|event| event.number).collect() };
        assert_eq!(resumed(quick_number), [slow_number], "it was announced after the one that was seen");
        assert!(resumed(slow_number).is_empty(), "both were seen");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
