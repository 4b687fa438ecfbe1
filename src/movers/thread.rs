//! The movers' thread: every mover and every long job runs here, so that none of them delays the API.
//!
//! One OS thread with a current-thread runtime of its own. Control asks through [`Movers`] and hears by a bounded channel of
//! [`MoverEvent`]s. What a core's companion or hold reports reaches a mover in the order in which the core sent it. The control thread
//! stays the only writer of records.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::contract::{
    Drained, Feeds, Finding, HoldError, MoverEvent, Released, Route, Verified, VerifySpec, WriteProbe,
};
use crate::error::JobError;
use crate::mover::{Mover, MoverSpec, ServerFacts, compatibility, exercise, feeds, look};
use crate::news::News;
use crate::progress::Progress;
use base::model::{Endpoint, InterlayName, Sighting, limits};
use bus::{Directive, Mailbox};

/// All movers of the process, by interlay. Lives on the movers' thread.
#[derive(Debug)]
struct Floor {
    movers: BTreeMap<InterlayName, Rc<Mover>>,
}

impl Floor {
    fn mover(&self, interlay: &InterlayName) -> Result<Rc<Mover>, JobError> {
        self.movers.get(interlay).cloned().ok_or(JobError::Stopped)
    }
}

type Work = Box<dyn FnOnce(&Rc<Floor>) + Send>;

/// How control asks. Clones share the thread, which ends when the last of them is gone.
#[derive(Debug, Clone)]
pub struct Movers {
    work: mpsc::Sender<Work>,
    news: mpsc::Sender<(InterlayName, News)>,
}

/// What movers tell by themselves, with the interlay it is about. `None` from it: the thread has ended.
pub type MoverEvents = mpsc::Receiver<(InterlayName, MoverEvent)>;

impl Movers {
    /// Starts the thread with one mover per interlay. `cores` are the mailboxes of all cores, in their order.
    ///
    /// # Errors
    /// A sentence, when the operating system gives no thread or no runtime.
    pub fn start(interlays: Vec<MoverSpec>, cores: Vec<Mailbox<Directive>>) -> Result<(Self, MoverEvents), String> {
        let (work, work_receiver) = mpsc::channel(limits::MOVER_WORK_LEN);
        let (news, news_receiver) = mpsc::channel(limits::MOVER_NEWS_LEN);
        let (events, event_receiver) = mpsc::channel(limits::MOVER_EVENTS_LEN);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("the runtime of the movers' thread cannot be made: {error}"))?;
        let (ready, is_ready) = std::sync::mpsc::channel();
        let body = move || {
            let mover = |spec: MoverSpec| {
                let interlay = spec.interlay.clone();
                Ok::<_, String>((interlay, Rc::new(Mover::new(spec, &cores, &events)?)))
            };
            let movers = interlays.into_iter().map(mover).collect::<Result<BTreeMap<_, _>, _>>();
            match movers {
                Ok(movers) => {
                    // `start` waits for this.
                    let _ = ready.send(Ok(()));
                    let serving = serve(Rc::new(Floor { movers }), work_receiver, news_receiver);
                    LocalSet::new().block_on(&runtime, serving);
                    // Until here, although not every kind of mover tells events: that there is no sender means that the thread has ended.
                    drop(events);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let spawned = std::thread::Builder::new().name("movers".to_owned()).spawn(body);
        spawned.map_err(|error| format!("the movers' thread cannot be started: {error}"))?;
        is_ready.recv().map_err(|_| "the movers' thread failed as it started".to_owned())??;
        Ok((Self { work, news }, event_receiver))
    }

    /// Runs a job on the thread and waits for its result. The job is dropped when its result is no longer waited for.
    async fn run<T: Send + 'static, F>(&self, job: impl FnOnce(Rc<Floor>) -> F + Send + 'static) -> Result<T, JobError>
    where
        F: Future<Output = T> + 'static,
    {
        let (mut reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |floor| {
            let job = job(Rc::clone(floor));
            tokio::task::spawn_local(async move {
                let result = tokio::select! {
                    // First, so that a job that was given up does not go on: a hold must not outlive the release that follows.
                    biased;
                    () = reply.closed() => return,
                    result = job => result,
                };
                // That the result is no longer waited for is no error.
                let _ = reply.send(result);
            });
        });
        self.work.send(work).await.map_err(|_| JobError::Stopped)?;
        answer.await.map_err(|_| JobError::Stopped)
    }

    /// One look at a server.
    ///
    /// # Errors
    /// [`JobError`] naming the endpoint and what to do.
    pub async fn look(&self, endpoint: &Endpoint) -> Result<ServerFacts, JobError> {
        let endpoint = endpoint.clone();
        self.run(|_| async move { look(&endpoint).await }).await?
    }

    /// What could keep traffic from moving between two servers.
    ///
    /// # Errors
    /// As [`Self::look`]; also when the kinds differ.
    pub async fn compatibility(
        &self,
        source: &Endpoint,
        target: &Endpoint,
        writes: WriteProbe,
    ) -> Result<Vec<Finding>, JobError> {
        let (source, target) = (source.clone(), target.clone());
        self.run(move |_| async move { compatibility(&source, &target, writes).await }).await?
    }

    /// By what two servers can be kept in step.
    ///
    /// # Errors
    /// As [`Self::look`]; [`JobError::Unsupported`].
    pub async fn feeds(&self, source: &Endpoint, target: &Endpoint) -> Result<Feeds, JobError> {
        let (source, target) = (source.clone(), target.clone());
        self.run(|_| async move { feeds(&source, &target).await }).await?
    }

    /// Whether a server can hold and give back what it should: one line per check with its outcome.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn exercise(&self, endpoint: &Endpoint) -> Result<Vec<CheckLine>, JobError> {
        let endpoint = endpoint.clone();
        self.run(|_| async move { exercise(&endpoint).await }).await?
    }

    /// Both sides are to be kept in step: every core has acked the plan that says so. Harmless when repeated.
    ///
    /// # Errors
    /// [`JobError::Order`].
    pub async fn keep_in_step(&self, interlay: &InterlayName, route: Route) -> Result<(), JobError> {
        let interlay = interlay.clone();
        self.run(move |floor| async move { floor.mover(&interlay)?.keep_in_step(route) }).await?
    }

    /// The authority stands alone from now on: every core has acked the plan that says so. Harmless when repeated.
    ///
    /// # Errors
    /// [`JobError::Order`].
    pub async fn leave_alone(&self, interlay: &InterlayName) -> Result<(), JobError> {
        let interlay = interlay.clone();
        self.run(|floor| async move { floor.mover(&interlay)?.leave_alone() }).await?
    }

    /// Compares both sides at one position of the writes.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn verify(
        &self,
        interlay: &InterlayName,
        spec: VerifySpec,
        progress: Arc<Progress>,
    ) -> Result<Verified, JobError> {
        let interlay = interlay.clone();
        self.run(move |floor| async move { floor.mover(&interlay)?.verify(spec, progress).await }).await?
    }

    /// Has these copied again.
    ///
    /// # Errors
    /// [`JobError::Order`].
    pub async fn repair(&self, interlay: &InterlayName, differing: Vec<Sighting>) -> Result<(), JobError> {
        let interlay = interlay.clone();
        self.run(move |floor| async move { floor.mover(&interlay)?.repair(&differing) }).await?
    }

    /// Lets no client begin anything new, and waits at most `budget` until nothing that was begun is outstanding.
    ///
    /// # Errors
    /// [`HoldError`]; clients that are still held must be released.
    pub async fn hold(&self, interlay: &InterlayName, budget: Duration) -> Result<Drained, HoldError> {
        let interlay = interlay.clone();
        let held =
            self.run(move |floor| async move { floor.mover(&interlay).map_err(HoldError::Failed)?.hold(budget).await });
        held.await.map_err(HoldError::Failed)?
    }

    /// The roles are exchanged: every core has acked the plan that says so. Clients are held meanwhile.
    ///
    /// # Errors
    /// [`JobError::Order`].
    pub async fn exchange(&self, interlay: &InterlayName, route: Route) -> Result<(), JobError> {
        let interlay = interlay.clone();
        self.run(move |floor| async move { floor.mover(&interlay)?.exchange(route).await }).await?
    }

    /// Lets every client go on. Harmless when no client is held.
    ///
    /// # Errors
    /// [`JobError::Order`]: whether clients are still held is not known.
    pub async fn release(&self, interlay: &InterlayName) -> Result<Released, JobError> {
        let interlay = interlay.clone();
        self.run(|floor| async move { floor.mover(&interlay)?.release().await }).await?
    }

    /// Hands on what a core reported to the mover of an interlay. Waits while the queue is full: nothing is dropped.
    pub async fn deliver(&self, interlay: InterlayName, news: News) {
        // That the thread has ended is noticed where its events are read.
        let _ = self.news.send((interlay, news)).await;
    }

    /// Tests only: runs this on the movers' thread, which does nothing else until it returns.
    ///
    /// # Errors
    /// [`JobError::Stopped`].
    #[cfg(feature = "testing")]
    pub async fn occupy(&self, blocking: impl FnOnce() + Send + 'static) -> Result<(), JobError> {
        self.run(move |_| async move { blocking() }).await
    }
}

/// The name of a check, and how it went.
pub type CheckLine = (String, Result<(), String>);

async fn serve(floor: Rc<Floor>, mut work: mpsc::Receiver<Work>, mut news: mpsc::Receiver<(InterlayName, News)>) {
    floor.movers.values().for_each(|mover| mover.start());
    let heard = Rc::clone(&floor);
    let hearing = tokio::task::spawn_local(async move {
        while let Some((interlay, news)) = news.recv().await {
            if let Ok(mover) = heard.mover(&interlay) {
                mover.on_news(news).await;
            }
        }
    });
    while let Some(work) = work.recv().await {
        work(&floor);
    }
    hearing.abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::{EndpointName, Epoch, FeedKind, ProtocolKind, Side};
    use bus::{CompanionEvent, CompanionOrder, LaneEvent, LaneOrder, LaneStatus};

    fn orders() -> InterlayName {
        InterlayName::new("orders").unwrap()
    }

    /// Nothing listens there.
    fn endpoint(name: &str) -> Endpoint {
        Endpoint::from_url(EndpointName::new(name).unwrap(), ProtocolKind::Redis, "redis://127.0.0.1:9").unwrap()
    }

    fn route() -> Route {
        Route {
            authority: endpoint("old"),
            shadow: endpoint("new"),
            side: Side::Source,
            epoch: Epoch(3),
            feed: FeedKind::Lane,
            ttl_grace_ms: 1000,
            confirm_writes: false,
            conflicts: crate::contract::Conflicts::default(),
            source_p99_ms: 0,
        }
    }

    fn started(kind: ProtocolKind, route: Option<Route>) -> (Movers, MoverEvents, Mailbox<Directive>) {
        let core = Mailbox::new(64).unwrap();
        let (movers, events) =
            Movers::start(vec![MoverSpec { interlay: orders(), kind, route }], vec![core.clone()]).unwrap();
        (movers, events, core)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(30), test).await.expect("within half a minute");
        });
    }

    fn lane(event: LaneEvent) -> News {
        News::Companion(CompanionEvent::Lane(event))
    }

    async fn order(core: &Mailbox<Directive>) -> LaneOrder {
        loop {
            match core.pop() {
                Some(Directive::Companion { order: CompanionOrder::Lane(order), .. }) => return order,
                Some(other) => panic!("{other:?}"),
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// What a core said before it had drained is in the facts that a hold gives, whatever control has heard of it yet.
    #[test]
    fn a_hold_gives_the_facts_of_the_moment_it_was_drained() {
        run(async {
            let (movers, mut events, core) = started(ProtocolKind::Redis, Some(route()));
            let status =
                LaneStatus { dirty: 2, authority_connected: true, shadow_connected: true, ..LaneStatus::default() };
            movers.deliver(orders(), lane(LaneEvent::Status(status))).await;
            let interlay = orders();
            let hold = movers.hold(&interlay, Duration::from_secs(5));
            let fence = async {
                let LaneOrder::Fence { ticket, .. } = order(&core).await else { panic!("not a fence") };
                let lost = LaneEvent::SideLost { side: Side::Target, reason: "reset".to_owned() };
                movers.deliver(orders(), lane(lost)).await;
                movers.deliver(orders(), lane(LaneEvent::Fenced { ticket })).await;
            };
            let (drained, ()) = tokio::join!(hold, fence);
            let facts = drained.unwrap().facts.expect("a status had come").facts;
            assert_eq!((facts.authority_connected, facts.shadow_connected, facts.behind.dirty), (true, false, 2));
            let first = events.recv().await.unwrap().1;
            assert!(matches!(first, MoverEvent::Facts(fresh) if fresh.facts.shadow_connected), "{first:?}");
        });
    }

    /// A pass belongs to the route it began under, and ends with it.
    #[test]
    fn passes_carry_the_epoch_of_their_route_and_end_with_it() {
        run(async {
            let (movers, mut events, core) = started(ProtocolKind::Redis, None);
            movers.keep_in_step(&orders(), route()).await.unwrap();
            assert!(matches!(order(&core).await, LaneOrder::Open));
            let wanted = LaneEvent::PassStarted { pass: 1, kind: bus::PassKind::Full, reason: "first".to_owned() };
            movers.deliver(orders(), lane(wanted)).await;
            let (interlay, event) = events.recv().await.unwrap();
            let MoverEvent::PassStarted(pass) = event else { panic!("{event:?}") };
            assert_eq!((interlay, pass.number, pass.epoch), (orders(), 1, Epoch(3)));
            movers.leave_alone(&orders()).await.unwrap();
            assert!(matches!(order(&core).await, LaneOrder::Close) && pass.progress.is_cancelled());
            let spec = VerifySpec { ttl_tolerance_ms: 0, sample_per_ten_thousand: 10_000 };
            let refused = movers.verify(&orders(), spec, Arc::default()).await;
            assert_eq!(refused, Err(JobError::NotInStep(orders())));
        });
    }

    #[test]
    fn what_a_mover_cannot_do_is_typed_and_has_a_reason() {
        run(async {
            let (movers, mut events, _core) = started(ProtocolKind::Postgres, None);
            let refused = [
                movers.keep_in_step(&orders(), route()).await,
                movers.exchange(&orders(), route()).await,
                movers.repair(&orders(), Vec::new()).await,
            ];
            for refusal in refused {
                assert!(
                    matches!(&refusal, Err(JobError::Unsupported(why)) if why.0.contains("not supported yet")),
                    "{refusal:?}"
                );
            }
            assert_eq!(movers.leave_alone(&orders()).await, Ok(()));
            let nothing_yet = events.try_recv();
            assert!(
                matches!(nothing_yet, Err(mpsc::error::TryRecvError::Empty)),
                "the thread is alive: {nothing_yet:?}"
            );
            drop(movers);
            assert!(events.recv().await.is_none(), "the thread has ended");
        });
    }

    /// And the thread ends with the last handle.
    #[test]
    fn a_job_is_dropped_when_its_result_is_no_longer_waited_for() {
        struct Told(Option<oneshot::Sender<()>>);
        impl Drop for Told {
            fn drop(&mut self) {
                if let Some(sender) = self.0.take() {
                    sender.send(()).unwrap();
                }
            }
        }
        run(async {
            let (movers, mut events, _core) = started(ProtocolKind::Redis, None);
            let (told, dropped) = oneshot::channel();
            let (begins, has_begun) = oneshot::channel();
            let asked = movers.run(move |_| async move {
                let _told = Told(Some(told));
                begins.send(()).unwrap();
                std::future::pending::<()>().await;
            });
            tokio::select! {
                _ = asked => unreachable!("it never ends"),
                begun = has_begun => begun.unwrap(),
            }
            dropped.await.unwrap();
            drop(movers);
            assert!(events.recv().await.is_none(), "the thread has ended");
        });
    }
}
