//! The admin HTTP API: routes, bodies in, types and problem documents out. Control thread.
//!
//! The only place that names axum. Decides nothing: every answer comes from the control loop through its handle.

mod convert;
mod filters;
mod metrics;
mod page;
mod problem;
mod report;
pub mod types;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::Path as FilePath;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::reconcile::views::{
    ApprovalScope, AutoThrough, Command, DecisionError, EndpointName, InterlayName, MigrationId, NameError, Phase,
    limits,
};
use crate::reconcile::{self, CheckedFilter, Handle, JournalEntry, Preflight};
use problem::Failure;

type Answer = Result<Response, Failure>;
type Body = Result<Bytes, BytesRejection>;

/// Serves until the listener fails.
///
/// # Errors
/// The operating system's.
pub async fn serve(listener: TcpListener, handle: Handle) -> std::io::Result<()> {
    axum::serve(listener, router(handle)).await
}

fn router(handle: Handle) -> Router {
    let migrations = "/api/v1/migrations";
    Router::new()
        .route("/", get(page::index))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/api/v1/status", get(status))
        .route("/api/v1/endpoints", get(endpoints))
        .route("/api/v1/endpoints/{name}", get(endpoint))
        .route("/api/v1/endpoints/{name}/check", post(check_endpoint))
        .route("/api/v1/interlays", get(interlays))
        .route("/api/v1/interlays/{name}", get(interlay))
        .route("/api/v1/interlays/{name}/drain", post(drain))
        .route("/api/v1/interlays/{name}/pause", post(pause_interlay))
        .route("/api/v1/interlays/{name}/resume", post(resume_interlay))
        .route("/api/v1/interlays/{name}/sessions", get(sessions))
        .route("/api/v1/interlays/{name}/analysis", get(analysis))
        .route(migrations, get(list).post(create))
        .route(&format!("{migrations}/{{id}}"), get(show))
        .route(&format!("{migrations}/{{id}}/run"), post(run))
        .route(&format!("{migrations}/{{id}}/advance"), post(advance))
        .route(&format!("{migrations}/{{id}}/approve"), post(approve))
        .route(&format!("{migrations}/{{id}}/waive"), post(waive))
        .route(&format!("{migrations}/{{id}}/pause"), post(pause))
        .route(&format!("{migrations}/{{id}}/resume"), post(resume))
        .route(&format!("{migrations}/{{id}}/rollback"), post(rollback))
        .route(&format!("{migrations}/{{id}}/commit"), post(commit))
        .route(&format!("{migrations}/{{id}}/abandon"), post(abandon))
        .route(&format!("{migrations}/{{id}}/traffic"), patch(traffic))
        .route(&format!("{migrations}/{{id}}/report"), get(report_of))
        .route(&format!("{migrations}/{{id}}/divergences"), get(divergences))
        .route("/api/v1/events", get(events))
        .merge(filters::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX))
        .with_state(handle)
}

fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding", error.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Reads a JSON body; an empty one stands for `{}` where every field has a default.
fn body<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    body_up_to(body, limits::ADMIN_BODY_BYTES_MAX)
}

/// As [`body`], where the route has a limit of its own.
fn body_up_to<T: DeserializeOwned>(body: Body, bytes_max: usize) -> Result<T, Failure> {
    let bytes = body.map_err(|rejection| {
        let status = rejection.status();
        let text = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the body is larger than {bytes_max} bytes")
        } else {
            rejection.body_text()
        };
        Failure::new(status, "invalid-body", text)
    })?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(StatusCode::BAD_REQUEST, "invalid-body", format!("the body is not what is expected here: {error}"))
    })
}

fn migration_id(text: &str) -> Result<MigrationId, Failure> {
    MigrationId::new(text).map_err(|error: NameError| Failure::invalid(error.to_string()))
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::not_found(format!("there is no path {}; docs/API.md lists those there are", uri.path()))
}

async fn wrong_method(uri: Uri) -> Failure {
    let text = format!("{} does not take this method; docs/API.md lists paths and methods", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", text)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(handle): State<Handle>) -> Answer {
    let view = handle.ready().await?;
    let status = if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_with(
        status,
        &types::Ready { ready: view.ready, driver: view.driver, problems: view.problems, notes: view.notes },
    )
}

async fn metrics_page(State(handle): State<Handle>) -> Answer {
    let text = metrics::render(&handle.metrics().await?);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn status(State(handle): State<Handle>) -> Answer {
    json(&convert::status(&handle.status().await?))
}

async fn endpoints(State(handle): State<Handle>) -> Answer {
    json(&handle.endpoints().await?.iter().map(convert::endpoint).collect::<Vec<_>>())
}

fn endpoint_name(text: &str) -> Result<EndpointName, Failure> {
    EndpointName::new(text).map_err(|error| Failure::invalid(error.to_string()))
}

async fn endpoint(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::endpoint(&handle.endpoint(endpoint_name(&name)?).await?))
}

async fn check_endpoint(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::endpoint(&handle.check_endpoint(endpoint_name(&name)?).await?))
}

async fn interlays(State(handle): State<Handle>) -> Answer {
    json(&handle.interlays().await?.iter().map(convert::interlay).collect::<Vec<_>>())
}

fn interlay_name(text: &str) -> Result<InterlayName, Failure> {
    InterlayName::new(text).map_err(|error| Failure::invalid(error.to_string()))
}

async fn interlay(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::interlay(&handle.interlay(interlay_name(&name)?).await?))
}

/// A span of time in milliseconds, from 1 to `max`.
fn span(name: &str, given: Option<u64>, default: Duration, max: Duration) -> Result<Duration, Failure> {
    let span = given.map_or(default, Duration::from_millis);
    if span.is_zero() || span > max {
        return Err(Failure::invalid(format!("{name} must be from 1 to {}", max.as_millis())));
    }
    Ok(span)
}

async fn pause_interlay(State(handle): State<Handle>, Path(name): Path<String>, given: Body) -> Answer {
    let given: types::PauseBody = body(given)?;
    let (deadline, hold) = (limits::PAUSE_DEADLINE_DEFAULT, limits::PAUSE_HOLD_DEFAULT);
    let deadline = span("deadline_ms", given.deadline_ms, deadline, limits::PAUSE_DEADLINE_MAX)?;
    let hold = span("hold_ms", given.hold_ms, hold, limits::PAUSE_HOLD_MAX)?;
    json(&convert::paused(&handle.pause(interlay_name(&name)?, deadline, hold).await?))
}

async fn resume_interlay(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::resumed(&handle.resume(interlay_name(&name)?).await?))
}

async fn sessions(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::sessions(&handle.sessions(interlay_name(&name)?).await?))
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AnalysisQuery {
    /// Default: the configured target, if there is one.
    target: Option<String>,
    limit: Option<usize>,
}

async fn analysis(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    query: Result<Query<AnalysisQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(limits::ANALYSIS_LIMIT_DEFAULT);
    if limit == 0 || limit > limits::FINGERPRINTS_MAX {
        return Err(Failure::invalid(format!("limit must be from 1 to {}", limits::FINGERPRINTS_MAX)));
    }
    let target = query.target.as_deref().map(endpoint_name).transpose()?;
    json(&convert::analysis(&handle.analysis(interlay_name(&name)?, target, limit).await?))
}

async fn drain(Path(name): Path<String>) -> Failure {
    Failure::not_carried(format!(
        "draining interlay {name} alone is not carried yet: stop the process with SIGTERM to drain all of them"
    ))
}

async fn traffic(Path(id): Path<String>) -> Failure {
    Failure::not_carried(format!(
        "migration {id}: shares of traffic are not carried yet; strategies blue_green and big_bang move all at once"
    ))
}

async fn list(State(handle): State<Handle>) -> Answer {
    json(&handle.migrations().await?.iter().map(convert::migration).collect::<Vec<_>>())
}

async fn create(State(handle): State<Handle>, given: Body) -> Answer {
    let request = convert::create(body(given)?)?;
    json_with(StatusCode::CREATED, &convert::migration(&handle.create(request).await?))
}

async fn show(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    json(&convert::migration(&handle.migration(migration_id(&id)?).await?))
}

async fn command(handle: &Handle, id: &str, command: Command) -> Answer {
    json(&convert::migration(&handle.command(migration_id(id)?, command).await?))
}

async fn run(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::RunBody = body(given)?;
    let auto = match (given.auto, given.through.as_deref()) {
        (false, None) => AutoThrough::Nothing,
        (true, None) => AutoThrough::Flip,
        (_, Some(through)) => {
            AutoThrough::parse(through).map_err(|error: DecisionError| Failure::invalid(error.to_string()))?
        }
    };
    command(&handle, &id, Command::Run { auto }).await
}

async fn advance(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::AdvanceBody = body(given)?;
    let read = |text: String| {
        Phase::parse(&text).ok_or_else(|| {
            let names: Vec<_> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
            Failure::invalid(format!("there is no phase {text:?}: use one of {}", names.join(", ")))
        })
    };
    let to = given.to.map(read).transpose()?;
    command(&handle, &id, Command::Advance { to }).await
}

async fn approve(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ApproveBody = body(given)?;
    let scope = given.scope.map(|text| ApprovalScope::parse(&text)).transpose();
    let scope = scope.map_err(|error| Failure::invalid(error.to_string()))?;
    command(&handle, &id, Command::Approve { scope, by: given.by, reason: given.reason }).await
}

async fn waive(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::WaiveBody = body(given)?;
    command(&handle, &id, Command::Waive { finding: given.finding, by: given.by, reason: given.reason }).await
}

async fn pause(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    command(&handle, &id, Command::Pause).await
}

async fn resume(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    command(&handle, &id, Command::Resume).await
}

async fn rollback(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ReasonBody = body(given)?;
    command(&handle, &id, Command::Rollback { reason: given.reason }).await
}

async fn commit(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::CommitBody = body(given)?;
    let force = given.force.then_some(given.reason);
    command(&handle, &id, Command::Commit { force }).await
}

async fn abandon(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ReasonBody = body(given)?;
    command(&handle, &id, Command::Abandon { reason: given.reason }).await
}

async fn report_of(State(handle): State<Handle>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let report = convert::report(&handle.report(migration_id(&id)?).await?);
    let wants = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if wants.contains("text/markdown") {
        return Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], report.markdown).into_response());
    }
    json(&report)
}

async fn divergences(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    json(&convert::divergences(&handle.divergences(migration_id(&id)?).await?))
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    migration: Option<String>,
    /// As the header `Last-Event-ID`, for callers that cannot set one. 0 = from the beginning.
    after: Option<u64>,
    /// End after what is known already.
    #[serde(default)]
    past_only: bool,
}

async fn events(
    State(handle): State<Handle>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let last = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
                .ok_or_else(|| Failure::invalid("Last-Event-ID is not the number of an event"))?,
        ),
    };
    let only = query.migration.as_deref().map(migration_id).transpose()?;
    let (past, receiver) = handle.subscribe(last.or(query.after)).await?;
    let receiver = if query.past_only { None } else { Some(receiver) };
    let events = stream::iter(past).chain(coming(receiver));
    let events = events.filter_map(move |event| {
        let wanted = only.is_none() || event.migration == only;
        std::future::ready(wanted.then(|| sse(&event)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Events as they come; ends when the loop ends, or when this subscriber was too slow.
fn coming(receiver: Option<mpsc::Receiver<JournalEntry>>) -> impl Stream<Item = JournalEntry> {
    stream::unfold(receiver, |receiver| async move {
        let mut receiver = receiver?;
        let event = receiver.recv().await?;
        Some((event, Some(receiver)))
    })
}

fn sse(event: &JournalEntry) -> Result<SseEvent, Infallible> {
    let data = serde_json::to_string(&convert::event(event)).unwrap_or_default();
    Ok(SseEvent::default().id(event.number.to_string()).event(event.kind.clone()).data(data))
}

/// An interlay and its compatibility findings, or why there are none.
pub type Pair = (String, Result<Vec<types::Finding>, String>);

/// What `crossfade check` found, in the API's own types.
#[must_use]
pub fn preflight(found: &Preflight) -> (Vec<types::Endpoint>, Vec<Pair>, Vec<types::CheckedFilter>) {
    let endpoint = |(endpoint, facts): &(_, Result<_, String>)| preflight_endpoint(endpoint, facts);
    let pair = |(name, findings): &(InterlayName, Result<Vec<_>, String>)| {
        let findings = findings.as_ref().map_err(Clone::clone);
        (name.to_string(), findings.map(|all| all.iter().map(|one| convert::finding(one, false)).collect()))
    };
    let filter = |(name, file, found): &CheckedFilter| types::CheckedFilter {
        name: name.to_string(),
        file: file.clone(),
        cases: found.as_ref().map_or(0, |cases| u64::try_from(*cases).unwrap_or(u64::MAX)),
        problem: found.as_ref().err().cloned(),
    };
    let filters = found.filters.iter().map(filter).collect();
    (found.endpoints.iter().map(endpoint).collect(), found.pairs.iter().map(pair).collect(), filters)
}

/// Runs the recorded cases of a file, those beside it when none are named.
///
/// # Errors
/// A sentence, when the module is refused or there are no cases.
pub fn filter_test(file: &FilePath, cases: Option<&FilePath>) -> Result<types::FilterTest, String> {
    reconcile::test_file(file, cases).map(|found| convert::filter_test(&found))
}

/// Measures the hooks of a file.
///
/// # Errors
/// A sentence, when the module or its configuration is refused.
pub fn filter_bench(file: &FilePath, config: &str) -> Result<types::FilterBench, String> {
    reconcile::bench_file(file, config).map(|found| convert::filter_bench(&found))
}

fn preflight_endpoint(
    endpoint: &crate::reconcile::views::Endpoint,
    facts: &Result<crate::reconcile::views::ServerFacts, String>,
) -> types::Endpoint {
    let (database, dbname) = crate::reconcile::views::databases(endpoint);
    types::Endpoint {
        name: endpoint.name.to_string(),
        kind: endpoint.kind().as_str().to_owned(),
        address: endpoint.address.to_string(),
        database,
        dbname,
        user: endpoint.credentials.as_ref().and_then(|login| login.user.clone()),
        health: if facts.is_ok() { "up" } else { "down" }.to_owned(),
        checked_at: None,
        problem: facts.as_ref().err().cloned(),
        facts: facts.as_ref().ok().and_then(convert::redis),
        postgres: facts.as_ref().ok().and_then(convert::postgres),
    }
}
