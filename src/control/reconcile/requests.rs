//! What other code can ask of the control loop: one bounded queue of requests, one answer for each. [`Handle`] crosses threads.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::error::ControlError;
use super::views::{
    AnalysisView, DivergencesView, EndpointView, FilterView, InterlayView, LoadFilter, MetricsView, MigrationView,
    PauseView, PoliciesView, ReadyView, ReportView, ResumeView, SessionsView, StatusView,
};
use crate::store::JournalEntry;
use crate::workflow::{Command, NewMigration};
use base::model::{EndpointName, FilterName, InterlayName, MigrationId, PolicySettings, limits};

/// What is asked for when creating; absent ends come from the interlay.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub id: MigrationId,
    pub interlay: InterlayName,
    pub source: Option<EndpointName>,
    pub target: Option<EndpointName>,
    pub decisions: base::model::Decisions,
    pub policies: PolicySettings,
}

impl CreateRequest {
    pub(super) fn complete(self, source: EndpointName, target: EndpointName) -> NewMigration {
        let Self { id, interlay, decisions, policies, .. } = self;
        NewMigration { id, interlay, source, target, decisions, policies }
    }
}

type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// Past events, and those to come.
pub type Subscription = (Vec<JournalEntry>, mpsc::Receiver<JournalEntry>);

#[derive(Debug)]
pub(super) enum Request {
    Status(Reply<StatusView>),
    Ready(Reply<ReadyView>),
    Metrics(Reply<MetricsView>),
    Endpoints(Reply<Vec<EndpointView>>),
    Endpoint(EndpointName, Reply<EndpointView>),
    CheckEndpoint(EndpointName, Reply<EndpointView>),
    Interlays(Reply<Vec<InterlayView>>),
    Interlay(InterlayName, Reply<InterlayView>),
    Pause { interlay: InterlayName, deadline: Duration, hold: Duration, reply: Reply<PauseView> },
    Resume(InterlayName, Reply<ResumeView>),
    Sessions(InterlayName, Reply<SessionsView>),
    Analysis { interlay: InterlayName, target: Option<EndpointName>, limit: usize, reply: Reply<Box<AnalysisView>> },
    Filters(Reply<Vec<FilterView>>),
    Filter(FilterName, Reply<FilterView>),
    LoadFilter(Box<LoadFilter>, Reply<FilterView>),
    UnloadFilter(FilterName, Reply<FilterView>),
    Policies(InterlayName, Reply<PoliciesView>),
    Migrations(Reply<Vec<MigrationView>>),
    Migration(MigrationId, Reply<Box<MigrationView>>),
    Create(Box<CreateRequest>, Reply<Box<MigrationView>>),
    Command(MigrationId, Box<Command>, Reply<Box<MigrationView>>),
    Report(MigrationId, Reply<Box<ReportView>>),
    Divergences(MigrationId, Reply<DivergencesView>),
    Subscribe(Option<u64>, Reply<Subscription>),
}

/// Clones share the queue.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) sender: mpsc::Sender<Request>,
}

impl Handle {
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.sender.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                ControlError::Unavailable("the control thread has too many requests waiting: try again".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => ControlError::Unavailable("the proxy is stopping".to_owned()),
        })?;
        match timeout(limits::ADMIN_REQUEST_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ControlError::Unavailable("the proxy is stopping".to_owned())),
            Err(_) => Err(ControlError::Unavailable(format!(
                "no answer within {} s; the request is still being processed: look at the migration before trying again",
                limits::ADMIN_REQUEST_TIMEOUT.as_secs()
            ))),
        }
    }

    /// # Errors
    /// [`ControlError`], as all of these.
    pub async fn status(&self) -> Result<StatusView, ControlError> {
        self.ask(Request::Status).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn ready(&self) -> Result<ReadyView, ControlError> {
        self.ask(Request::Ready).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn metrics(&self) -> Result<MetricsView, ControlError> {
        self.ask(Request::Metrics).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn endpoints(&self) -> Result<Vec<EndpointView>, ControlError> {
        self.ask(Request::Endpoints).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn endpoint(&self, name: EndpointName) -> Result<EndpointView, ControlError> {
        self.ask(|reply| Request::Endpoint(name, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn check_endpoint(&self, name: EndpointName) -> Result<EndpointView, ControlError> {
        self.ask(|reply| Request::CheckEndpoint(name, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn interlays(&self) -> Result<Vec<InterlayView>, ControlError> {
        self.ask(Request::Interlays).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn interlay(&self, name: InterlayName) -> Result<InterlayView, ControlError> {
        self.ask(|reply| Request::Interlay(name, reply)).await
    }

    /// Returns when clients are held and nothing is outstanding; `deadline` must be at most [`limits::PAUSE_DEADLINE_MAX`].
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::HeldUp`] with the sessions that were in the way.
    pub async fn pause(
        &self,
        interlay: InterlayName,
        deadline: Duration,
        hold: Duration,
    ) -> Result<PauseView, ControlError> {
        self.ask(|reply| Request::Pause { interlay, deadline, hold, reply }).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn resume(&self, interlay: InterlayName) -> Result<ResumeView, ControlError> {
        self.ask(|reply| Request::Resume(interlay, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn sessions(&self, interlay: InterlayName) -> Result<SessionsView, ControlError> {
        self.ask(|reply| Request::Sessions(interlay, reply)).await
    }

    /// What passed an interlay, and what would keep it from moving to `target` (default: the configured one).
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn analysis(
        &self,
        interlay: InterlayName,
        target: Option<EndpointName>,
        limit: usize,
    ) -> Result<AnalysisView, ControlError> {
        self.ask(|reply| Request::Analysis { interlay, target, limit, reply }).await.map(|view| *view)
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn filters(&self) -> Result<Vec<FilterView>, ControlError> {
        self.ask(Request::Filters).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn filter(&self, name: FilterName) -> Result<FilterView, ControlError> {
        self.ask(|reply| Request::Filter(name, reply)).await
    }

    /// Returns when every core that uses the name has the new filter.
    ///
    /// # Errors
    /// [`ControlError`]; what was loaded before stays in use.
    pub async fn load_filter(&self, load: LoadFilter) -> Result<FilterView, ControlError> {
        self.ask(|reply| Request::LoadFilter(Box::new(load), reply)).await
    }

    /// Answers with what it was.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn unload_filter(&self, name: FilterName) -> Result<FilterView, ControlError> {
        self.ask(|reply| Request::UnloadFilter(name, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn policies(&self, interlay: InterlayName) -> Result<PoliciesView, ControlError> {
        self.ask(|reply| Request::Policies(interlay, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn migrations(&self) -> Result<Vec<MigrationView>, ControlError> {
        self.ask(Request::Migrations).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn migration(&self, id: MigrationId) -> Result<MigrationView, ControlError> {
        self.ask(|reply| Request::Migration(id, reply)).await.map(|view| *view)
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn create(&self, request: CreateRequest) -> Result<MigrationView, ControlError> {
        self.ask(|reply| Request::Create(Box::new(request), reply)).await.map(|view| *view)
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn command(&self, id: MigrationId, command: Command) -> Result<MigrationView, ControlError> {
        self.ask(|reply| Request::Command(id, Box::new(command), reply)).await.map(|view| *view)
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn report(&self, id: MigrationId) -> Result<ReportView, ControlError> {
        self.ask(|reply| Request::Report(id, reply)).await.map(|view| *view)
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn divergences(&self, id: MigrationId) -> Result<DivergencesView, ControlError> {
        self.ask(|reply| Request::Divergences(id, reply)).await
    }

    /// # Errors
    /// [`ControlError`].
    pub async fn subscribe(&self, after: Option<u64>) -> Result<Subscription, ControlError> {
        self.ask(|reply| Request::Subscribe(after, reply)).await
    }
}
