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

use crate::contract::{Drained, Finding, HoldError, MoverEvent, Released, Route, Verified, VerifySpec, WriteProbe};
use crate::error::JobError;
use crate::mover::{Mover, MoverSpec, ServerFacts, compatibility, exercise, look};
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
        let body = move || {
            let floor = async move {
                let mover = |spec: MoverSpec| {
                    let interlay = spec.interlay.clone();
                    Ok::<_, String>((interlay, Rc::new(Mover::new(spec, &cores, &events)?)))
                };
                let movers = interlays.into_iter().map(mover).collect::<Result<_, _>>();
                // The senders of events live in the movers from here on.
                drop(events);
                match movers {
                    Ok(movers) => serve(Rc::new(Floor { movers }), work_receiver, news_receiver).await,
                    Err(error) => eprintln!("crossfade: {error}"),
                }
            };
            LocalSet::new().block_on(&runtime, floor);
        };
        let spawned = std::thread::Builder::new().name("movers".to_owned()).spawn(body);
        spawned.map_err(|error| format!("the movers' thread cannot be started: {error}"))?;
        Ok((Self { work, news }, event_receiver))
    }

    /// Runs a job on the thread and waits for its result. The job is dropped when whoever asked for it is gone.
    async fn run<T: Send + 'static, F>(&self, job: impl FnOnce(Rc<Floor>) -> F + Send + 'static) -> Result<T, JobError>
    where
        F: Future<Output = T> + 'static,
    {
        let (mut reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |floor| {
            let job = job(Rc::clone(floor));
            tokio::task::spawn_local(async move {
                let result = tokio::select! {
                    result = job => result,
                    () = reply.closed() => return,
                };
                // Whoever asked may have gone in the meantime.
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
    /// [`HoldError`]; whoever is still held must be released.
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
        self.run(move |floor| async move { floor.mover(&interlay)?.exchange(route) }).await?
    }

    /// Lets every client go on. Harmless when nobody is held.
    ///
    /// # Errors
    /// [`JobError::Order`]: whether clients are still held is not known.
    pub async fn release(&self, interlay: &InterlayName) -> Result<Released, JobError> {
        let interlay = interlay.clone();
        self.run(|floor| async move { floor.mover(&interlay)?.release().await }).await?
    }

    /// Hands on what a core reported to the mover of an interlay. Waits while the queue is full: nothing is dropped.
    pub async fn deliver(&self, interlay: InterlayName, news: News) {
        // A thread that has ended is noticed by whoever reads its events.
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
