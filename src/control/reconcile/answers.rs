//! Answers the requests that come through the [`super::Handle`]: one local task each, so that a slow one delays no other.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::error::ControlError;
use super::requests::Request;
use super::state::Control;
use super::views::MigrationView;
use base::model::MigrationId;

impl Control {
    /// Takes requests until every handle is gone.
    pub(super) async fn serve(self: Rc<Self>, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            let control = Rc::clone(&self);
            tokio::task::spawn_local(async move { control.answer(request).await });
        }
    }

    /// What was asked for is done even if the answer is no longer waited for.
    #[expect(clippy::too_many_lines, reason = "one arm for each request, and nothing else")]
    async fn answer(self: Rc<Self>, request: Request) {
        match request {
            Request::Status(reply) => drop(reply.send(Ok(self.status_view()))),
            Request::Ready(reply) => drop(reply.send(Ok(self.ready_view()))),
            Request::Metrics(reply) => drop(reply.send(Ok(self.metrics_view()))),
            Request::Endpoints(reply) => {
                let views = self.config.endpoints.iter().map(|endpoint| self.endpoint_view(endpoint)).collect();
                drop(reply.send(Ok(views)));
            }
            Request::Endpoint(name, reply) => {
                drop(reply.send(self.endpoint(&name).map(|endpoint| self.endpoint_view(&endpoint))));
            }
            Request::CheckEndpoint(name, reply) => {
                let result = match self.endpoint(&name) {
                    Ok(endpoint) => match self.look_at(&endpoint).await {
                        Ok(_) => Ok(self.endpoint_view(&endpoint)),
                        Err(error) => Err(ControlError::Upstream(error.to_string())),
                    },
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Interlays(reply) => drop(reply.send(Ok(self.interlays_view()))),
            Request::Interlay(name, reply) => {
                drop(reply.send(self.interlay(&name).map(|interlay| self.interlay_view(&interlay))));
            }
            Request::Pause { interlay, deadline, hold, reply } => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.pause(&interlay, deadline, hold).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Resume(interlay, reply) => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.resume(&interlay).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Sessions(interlay, reply) => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.sessions(&interlay).await,
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Analysis { interlay, target, limit, reply } => {
                let result = match self.interlay(&interlay) {
                    Ok(interlay) => self.analysis(&interlay, target, limit).await.map(Box::new),
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Filters(reply) => drop(reply.send(Ok(self.filters_view()))),
            Request::Filter(name, reply) => drop(reply.send(self.filter(&name))),
            Request::LoadFilter(load, reply) => drop(reply.send(self.load_filter(*load).await)),
            Request::UnloadFilter(name, reply) => drop(reply.send(self.unload_filter(&name).await)),
            Request::Policies(interlay, reply) => {
                let result = self.interlay(&interlay).and_then(|interlay| self.policies_view(&interlay));
                drop(reply.send(result));
            }
            Request::Migrations(reply) => drop(reply.send(Ok(self.migrations_view()))),
            Request::Migration(id, reply) => drop(reply.send(self.view(&id))),
            Request::Create(request, reply) => {
                let id = request.id.clone();
                let result = match self.create(*request).await {
                    Ok(interlay) => {
                        self.settle_policies(&interlay, "a migration was created").await;
                        self.view(&id)
                    }
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Command(id, command, reply) => {
                let result = self.command(&id, *command).await.and_then(|()| self.view(&id));
                drop(reply.send(result));
            }
            Request::Report(id, reply) => drop(reply.send(self.report(&id).await.map(Box::new))),
            Request::Divergences(id, reply) => drop(reply.send(self.divergences_view(&id))),
            Request::Subscribe(after, reply) => {
                drop(reply.send(self.events.subscribe(after).await.map_err(ControlError::from)));
            }
        }
    }

    fn view(&self, id: &MigrationId) -> Result<Box<MigrationView>, ControlError> {
        Ok(Box::new(self.migration_view(&*self.migration(id)?)))
    }
}
