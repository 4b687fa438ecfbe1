//! Tells the cores of one interlay when the shadow has what their clients are to be told (`write_consistency both`). Lives on the movers' thread.
//!
//! A core asks under a ticket when replies to writes are in. Where the authority's stream ends is read after that, so whatever was answered is in front of
//! it; when the shadow has everything up to there, the ticket is confirmed. While the shadow is filled anew nothing is withheld: clients would wait
//! for as long as that takes.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::clients::Clients;
use super::feed::applier::Feed;
use crate::contract::Route;
use base::model::{CoreId, InterlayName, limits};
use bus::{ConfirmOrder, Directive, Mailbox};

/// How often a full mailbox is tried again.
const MAILBOX_RETRY: Duration = Duration::from_millis(1);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Confirmations {
    interlay: InterlayName,
    cores: Vec<Mailbox<Directive>>,
    /// One for each core at most.
    asked: RefCell<Vec<(CoreId, u64)>>,
    /// Rung at each question.
    rung: Notify,
    /// Of the authority, kept open.
    clients: Clients,
}

impl Confirmations {
    pub(super) fn new(interlay: InterlayName, cores: Vec<Mailbox<Directive>>) -> Self {
        Self { interlay, cores, asked: RefCell::default(), rung: Notify::new(), clients: Clients::default() }
    }

    /// A core wants to know.
    pub(super) fn ask(&self, core: CoreId, ticket: u64) {
        let mut asked = self.asked.borrow_mut();
        asked.retain(|(other, _)| *other != core);
        asked.push((core, ticket));
        self.rung.notify_one();
    }

    /// Serves one direction until it is dropped.
    pub(super) async fn answer_forever(&self, route: &Route, feed: &Feed) {
        self.clients.authority.lock().await.take(); // it may be to the other server
        loop {
            // At first it is not known yet whether the shadow has to be filled.
            feed.until(|status| status.history_done || status.full_syncs > 0).await;
            if !feed.status().history_done {
                self.tell_all(ConfirmOrder::End).await;
                self.caught_up(route, feed).await;
            }
            self.tell_all(ConfirmOrder::Begin).await;
            let syncs = feed.status().full_syncs;
            self.answer(route, feed, syncs).await;
            while feed.status().full_syncs == syncs {
                tokio::select! {
                    () = self.rung.notified() => self.answer(route, feed, syncs).await,
                    () = feed.until(|status| status.full_syncs != syncs) => {}
                }
            }
        }
    }

    /// The shadow is filled and has what had come by then.
    async fn caught_up(&self, route: &Route, feed: &Feed) {
        loop {
            feed.until(|status| status.history_done).await;
            let syncs = feed.status().full_syncs;
            let deadline = Instant::now() + limits::JOB_REPLY_TIMEOUT;
            if let Ok(Some(end)) = self.clients.stream_of_authority(route, deadline).await {
                feed.until(|status| {
                    status.full_syncs != syncs || status.applied.is_some_and(|at| at.offset >= end.offset)
                })
                .await;
                if feed.status().full_syncs == syncs {
                    return;
                }
            } else {
                sleep(limits::JOB_RECONNECT_PAUSE_MIN).await;
            }
        }
    }

    async fn answer(&self, route: &Route, feed: &Feed, syncs: u64) {
        let asked = self.asked.borrow().clone();
        if asked.is_empty() {
            return;
        }
        let has_all = self.has_all(route, feed, syncs).await;
        for (core, ticket) in asked {
            let order = if has_all { ConfirmOrder::Confirmed { ticket } } else { ConfirmOrder::Unknown { ticket } };
            self.tell(core, order).await;
            // Not before: who serves the next direction finds what was not answered in this one.
            self.asked.borrow_mut().retain(|other| *other != (core, ticket));
        }
    }

    /// Waits until the shadow has everything up to the present end of the authority's stream; false when that cannot be known.
    async fn has_all(&self, route: &Route, feed: &Feed, syncs: u64) -> bool {
        let deadline = Instant::now() + limits::JOB_REPLY_TIMEOUT;
        let Ok(Some(end)) = self.clients.stream_of_authority(route, deadline).await else { return false };
        feed.until(|status| {
            let there = status.connected && status.applied.is_some_and(|at| at.offset >= end.offset);
            there || status.full_syncs != syncs
        })
        .await;
        let now = feed.status();
        // Another stream: the authority has restarted, and may have lost what it had acknowledged.
        now.full_syncs == syncs && now.applied.is_some_and(|at| at.stream == end.stream)
    }

    async fn tell_all(&self, order: ConfirmOrder) {
        for core in 0..self.cores.len() {
            self.tell(CoreId(u16::try_from(core).unwrap_or(u16::MAX)), order).await;
        }
    }

    /// A mailbox that is full is waited for: its core withholds replies until it is told.
    async fn tell(&self, core: CoreId, order: ConfirmOrder) {
        let Some(mailbox) = self.cores.get(usize::from(core.0)) else { return };
        let mut directive = Directive::Confirm { interlay: self.interlay.clone(), order };
        while let Err(back) = mailbox.push(directive) {
            directive = back;
            sleep(MAILBOX_RETRY).await;
        }
    }
}
