//! Sends orders to the lane of one interlay and awaits the answers: each order has a ticket, and an answer wakes who holds its ticket.
//!
//! Lives on the movers' thread. Not the lane: it knows nothing of keys or effects. Every wait is bounded; an answer that comes
//! after its waiter gave up is dropped.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::contract::Copied;
use crate::error::{JobError, OrderFault};
use base::model::{InterlayName, limits};
use bus::{CompanionOrder, Directive, LaneEvent, LaneOrder, Mailbox};

/// Tickets are unique in the process, so that a late answer to one client can never be taken for an answer to another.
static NEXT_TICKET: AtomicU64 = AtomicU64::new(1);

/// Raw RESP2 reply frames of both sides, in request order.
#[derive(Debug)]
pub struct Probed {
    pub authority: Vec<Box<[u8]>>,
    pub shadow: Vec<Box<[u8]>>,
    /// Per command: the lane knew that its keys were dirty or uncopied on the shadow.
    pub doubtful: Vec<bool>,
}

#[derive(Debug)]
enum Answer {
    Copied(Copied),
    Probed(Probed),
    ProbeFailed(String),
    Fenced,
    FenceExpired(String),
    Released { pause_us: u64, held: u64 },
}

#[derive(Debug)]
struct Inner {
    interlay: InterlayName,
    mailbox: Mailbox<Directive>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Answer>>>,
}

/// Clones share the tickets. One per interlay.
#[derive(Debug, Clone)]
pub struct LaneClient {
    inner: Rc<Inner>,
}

/// An order under way. Dropping it forgets the ticket.
#[derive(Debug)]
struct Pending {
    ticket: u64,
    what: &'static str,
    receiver: oneshot::Receiver<Answer>,
    inner: Rc<Inner>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.inner.waiting.borrow_mut().remove(&self.ticket);
    }
}

/// A copy order under way.
#[derive(Debug)]
pub(super) struct PendingCopy(Pending);

impl PendingCopy {
    pub(super) async fn wait(self) -> Result<Copied, JobError> {
        let interlay = self.0.inner.interlay.clone();
        match self.0.wait(limits::LANE_ANSWER_TIMEOUT).await? {
            Answer::Copied(copied) => Ok(copied),
            other @ (Answer::Probed(_)
            | Answer::ProbeFailed(_)
            | Answer::Fenced
            | Answer::FenceExpired(_)
            | Answer::Released { .. }) => Err(mismatch(&interlay, "copy", &other)),
        }
    }
}

/// A probe under way.
#[derive(Debug)]
pub(super) struct PendingProbe(Pending);

impl PendingProbe {
    pub(super) async fn wait(self) -> Result<Probed, JobError> {
        let interlay = self.0.inner.interlay.clone();
        match self.0.wait(limits::LANE_ANSWER_TIMEOUT).await? {
            Answer::Probed(probed) => Ok(probed),
            Answer::ProbeFailed(reason) => {
                Err(JobError::Order { interlay, order: "probe", cause: OrderFault::Failed(reason) })
            }
            other @ (Answer::Copied(_) | Answer::Fenced | Answer::FenceExpired(_) | Answer::Released { .. }) => {
                Err(mismatch(&interlay, "probe", &other))
            }
        }
    }
}

fn mismatch(interlay: &InterlayName, order: &'static str, answer: &Answer) -> JobError {
    JobError::Order { interlay: interlay.clone(), order, cause: OrderFault::Mismatched(format!("{answer:?}")) }
}

impl Pending {
    async fn wait(mut self, patience: Duration) -> Result<Answer, JobError> {
        let cause = match timeout(patience, &mut self.receiver).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => OrderFault::Abandoned,
            Err(_) => OrderFault::NoAnswer(patience),
        };
        Err(JobError::Order { interlay: self.inner.interlay.clone(), order: self.what, cause })
    }
}

impl LaneClient {
    #[must_use]
    pub fn new(interlay: InterlayName, mailbox: Mailbox<Directive>) -> Self {
        Self { inner: Rc::new(Inner { interlay, mailbox, waiting: RefCell::new(HashMap::new()) }) }
    }

    /// Control calls this with every lane event of the interlay; answers to tickets wake their waiters.
    pub fn on_event(&self, event: &LaneEvent) {
        let (ticket, answer) = match event {
            LaneEvent::Copied { ticket, copied, absent, clean, failed, bytes } => {
                let copied = Copied { copied: *copied, absent: *absent, clean: *clean, failed: *failed, bytes: *bytes };
                (*ticket, Answer::Copied(copied))
            }
            LaneEvent::Probed { ticket, authority, shadow, doubtful } => {
                if !self.inner.waiting.borrow().contains_key(ticket) {
                    return;
                }
                let probed =
                    Probed { authority: authority.clone(), shadow: shadow.clone(), doubtful: doubtful.clone() };
                (*ticket, Answer::Probed(probed))
            }
            LaneEvent::ProbeFailed { ticket, reason } => (*ticket, Answer::ProbeFailed(reason.clone())),
            LaneEvent::Fenced { ticket } => (*ticket, Answer::Fenced),
            LaneEvent::FenceExpired { ticket, reason } => (*ticket, Answer::FenceExpired(reason.clone())),
            LaneEvent::Released { ticket, pause_us, held } => {
                (*ticket, Answer::Released { pause_us: *pause_us, held: *held })
            }
            LaneEvent::PassStarted { .. }
            | LaneEvent::Status(_)
            | LaneEvent::ReadDivergence { .. }
            | LaneEvent::RecordNotCopied { .. }
            | LaneEvent::SideLost { .. }
            | LaneEvent::SideBack { .. }
            | LaneEvent::IntentLog { .. } => return,
        };
        if let Some(sender) = self.inner.waiting.borrow_mut().remove(&ticket) {
            // A waiter that just gave up is no error.
            let _ = sender.send(answer);
        }
    }

    /// # Errors
    /// [`JobError::Order`] when the order could not be queued; of the answer, when none came in time.
    pub(super) async fn begin_copy(
        &self,
        pass: u64,
        database: u32,
        keys: Vec<Box<[u8]>>,
    ) -> Result<PendingCopy, JobError> {
        let pending = self.ticket("copy");
        self.queue("copy", LaneOrder::Copy { ticket: pending.ticket, pass, database, keys }).await?;
        Ok(PendingCopy(pending))
    }

    /// Every core has acked the plan that began dual operation: the first pass may begin.
    ///
    /// # Errors
    /// As [`Self::begin_copy`].
    pub fn open(&self) -> Result<(), JobError> {
        self.try_queue(LaneOrder::Open).map_err(|_| self.full("order to open"))
    }

    /// Every core has acked the plan that ended dual operation: the lane may end.
    ///
    /// # Errors
    /// As [`Self::begin_copy`].
    pub fn close(&self) -> Result<(), JobError> {
        self.try_queue(LaneOrder::Close).map_err(|_| self.full("order to close"))
    }

    /// # Errors
    /// As [`Self::begin_copy`].
    pub fn pass_done(&self, pass: u64) -> Result<(), JobError> {
        self.try_queue(LaneOrder::PassDone { pass }).map_err(|_| self.full("end of a pass"))
    }

    /// # Errors
    /// As [`Self::begin_copy`]; of the answer also when a connection was lost between the two reads.
    pub(super) async fn begin_probe(
        &self,
        database: u32,
        commands: Vec<Box<[u8]>>,
        heal: bool,
    ) -> Result<PendingProbe, JobError> {
        let pending = self.ticket("probe");
        self.queue("probe", LaneOrder::Probe { ticket: pending.ticket, database, commands, heal }).await?;
        Ok(PendingProbe(pending))
    }

    /// # Errors
    /// As [`Self::begin_copy`].
    pub fn repair(&self, database: u32, keys: Vec<Box<[u8]>>) -> Result<(), JobError> {
        self.try_queue(LaneOrder::Repair { database, keys }).map_err(|_| self.full("repair"))
    }

    /// Holds writes and drains. `Ok(Ok(()))`: fenced; `Ok(Err(reason))`: budget exceeded, nothing changed.
    ///
    /// # Errors
    /// As [`Self::begin_copy`].
    pub async fn fence(&self, budget: Duration) -> Result<Result<(), String>, JobError> {
        let pending = self.ticket("fence");
        let budget_us = u64::try_from(budget.as_micros()).unwrap_or(u64::MAX);
        self.queue("fence", LaneOrder::Fence { ticket: pending.ticket, budget_us }).await?;
        match pending.wait(budget + limits::LANE_QUEUE_TIMEOUT).await? {
            Answer::Fenced => Ok(Ok(())),
            Answer::FenceExpired(reason) => Ok(Err(reason)),
            other @ (Answer::Copied(_) | Answer::Probed(_) | Answer::ProbeFailed(_) | Answer::Released { .. }) => {
                Err(mismatch(&self.inner.interlay, "fence", &other))
            }
        }
    }

    /// Ends a fence; returns (pause in microseconds, commands held).
    ///
    /// # Errors
    /// As [`Self::begin_copy`].
    pub async fn release(&self) -> Result<(u64, u64), JobError> {
        let pending = self.ticket("release");
        self.queue("release", LaneOrder::Release { ticket: pending.ticket }).await?;
        match pending.wait(limits::LANE_ANSWER_TIMEOUT).await? {
            Answer::Released { pause_us, held } => Ok((pause_us, held)),
            other @ (Answer::Copied(_)
            | Answer::Probed(_)
            | Answer::ProbeFailed(_)
            | Answer::Fenced
            | Answer::FenceExpired(_)) => Err(mismatch(&self.inner.interlay, "release", &other)),
        }
    }

    fn ticket(&self, what: &'static str) -> Pending {
        let ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.inner.waiting.borrow_mut().insert(ticket, sender);
        Pending { ticket, what, receiver, inner: Rc::clone(&self.inner) }
    }

    /// Queues an order, waiting a bounded time for room.
    async fn queue(&self, what: &'static str, mut order: LaneOrder) -> Result<(), JobError> {
        let deadline = Instant::now() + limits::LANE_QUEUE_TIMEOUT;
        loop {
            match self.try_queue(order) {
                Ok(()) => return Ok(()),
                Err(back) if Instant::now() < deadline => {
                    order = *back;
                    sleep(Duration::from_millis(1)).await;
                }
                Err(_) => return Err(self.full(what)),
            }
        }
    }

    fn try_queue(&self, order: LaneOrder) -> Result<(), Box<LaneOrder>> {
        let interlay = self.inner.interlay.clone();
        let order = CompanionOrder::Lane(order);
        self.inner.mailbox.push(Directive::Companion { interlay, order }).map_err(|back| match back {
            Directive::Companion { order: CompanionOrder::Lane(order), .. } => Box::new(order),
            Directive::Publish(_)
            | Directive::Hold { .. }
            | Directive::Confirm { .. }
            | Directive::Policies { .. }
            | Directive::Sessions { .. }
            | Directive::Sample
            | Directive::Drain { .. } => {
                unreachable!("the mailbox gives back what was pushed")
            }
        })
    }

    fn full(&self, order: &'static str) -> JobError {
        JobError::Order { interlay: self.inner.interlay.clone(), order, cause: OrderFault::Full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn client(capacity: usize) -> (LaneClient, Mailbox<Directive>) {
        let mailbox = Mailbox::new(capacity).unwrap();
        (LaneClient::new(InterlayName::new("orders").unwrap(), mailbox.clone()), mailbox)
    }

    fn ticket_of(directive: Option<Directive>) -> u64 {
        match directive {
            Some(Directive::Companion { order: CompanionOrder::Lane(LaneOrder::Copy { ticket, .. }), .. }) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_find_their_waiters_in_any_order() {
        runtime().block_on(async {
            let (client, mailbox) = client(8);
            let first = client.begin_copy(1, 0, vec![]).await.unwrap();
            let second = client.begin_copy(1, 0, vec![]).await.unwrap();
            let tickets = [ticket_of(mailbox.pop()), ticket_of(mailbox.pop())];
            for (ticket, copied) in [(tickets[1], 2), (tickets[0], 1), (u64::MAX, 9)] {
                client.on_event(&LaneEvent::Copied { ticket, copied, absent: 0, clean: 0, failed: 0, bytes: 0 });
            }
            assert_eq!(first.wait().await.unwrap().copied, 1);
            assert_eq!(second.wait().await.unwrap().copied, 2);
            assert!(client.inner.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn a_full_mailbox_is_waited_for_and_a_dropped_order_forgets_its_ticket() {
        runtime().block_on(async {
            let (client, mailbox) = client(1);
            let first = client.begin_copy(1, 0, vec![]).await.unwrap();
            assert!(matches!(client.pass_done(1), Err(JobError::Order { cause: OrderFault::Full, .. })));
            let (second, ()) = tokio::join!(client.begin_copy(1, 0, vec![]), async {
                tokio::task::yield_now().await;
                let _ = mailbox.pop();
            });
            drop((first, second.unwrap()));
            assert!(client.inner.waiting.borrow().is_empty());
        });
    }
}
