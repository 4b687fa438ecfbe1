//! Migrations: the record, and the verbs of an operator. A verb answers when the change is durable, published and adopted by every core.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;

use super::super::body::{Answer, Body, body, json, json_with, migration_id};
use super::super::problem::Failure;
use super::super::{convert, types};
use crate::reconcile::Handle;
use crate::reconcile::views::{ApprovalScope, AutoThrough, Command, DecisionError, Phase};

#[utoipa::path(
    get,
    path = "/api/v1/migrations",
    tag = "migrations",
    summary = "Every migration",
    responses((status = 200, description = "done", body = Vec<types::Migration>), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn list(State(handle): State<Handle>) -> Answer {
    json(&handle.migrations().await?.iter().map(convert::migration).collect::<Vec<_>>())
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations",
    tag = "migrations",
    summary = "Creates a migration; absent decisions take their defaults",
    request_body = types::CreateMigration,
    responses((status = 201, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn create(State(handle): State<Handle>, given: Body) -> Answer {
    let request = convert::create(body(given)?)?;
    json_with(StatusCode::CREATED, &convert::migration(&handle.create(request).await?))
}

#[utoipa::path(
    get,
    path = "/api/v1/migrations/{id}",
    tag = "migrations",
    summary = "One migration, with the gates of its next step",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn show(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    json(&convert::migration(&handle.migration(migration_id(&id)?).await?))
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/run",
    tag = "migrations",
    summary = "Starts or resumes a run; with `auto` it advances automatically",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::RunBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn run(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
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

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/advance",
    tag = "migrations",
    summary = "Advances to the next phase; 409 with the unmet gates",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::AdvanceBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn advance(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
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

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/approve",
    tag = "migrations",
    summary = "Gives the approval that is due, or the one named",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::ApproveBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn approve(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ApproveBody = body(given)?;
    let scope = given.scope.map(|text| ApprovalScope::parse(&text)).transpose();
    let scope = scope.map_err(|error| Failure::invalid(error.to_string()))?;
    command(&handle, &id, Command::Approve { scope, by: given.by, reason: given.reason }).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/waive",
    tag = "migrations",
    summary = "Accepts one critical compatibility finding by name",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::WaiveBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn waive(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::WaiveBody = body(given)?;
    command(&handle, &id, Command::Waive { finding: given.finding, by: given.by, reason: given.reason }).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/pause",
    tag = "migrations",
    summary = "Pauses the run; both sides stay in step",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn pause(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    command(&handle, &id, Command::Pause).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/resume",
    tag = "migrations",
    summary = "Resumes a paused run",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn resume(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    command(&handle, &id, Command::Resume).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/rollback",
    tag = "migrations",
    summary = "Rolls back to the source; possible at any time in compare, test and migrate",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::ReasonBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn rollback(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ReasonBody = body(given)?;
    command(&handle, &id, Command::Rollback { reason: given.reason }).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/commit",
    tag = "migrations",
    summary = "Ends the migration on the target; with `force` and a reason, despite unmet gates",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::CommitBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn commit(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::CommitBody = body(given)?;
    let force = given.force.then_some(given.reason);
    command(&handle, &id, Command::Commit { force }).await
}

#[utoipa::path(
    post,
    path = "/api/v1/migrations/{id}/abandon",
    tag = "migrations",
    summary = "Ends the migration on the source",
    params(("id" = String, Path, description = "id of the migration")),
    request_body = types::ReasonBody,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn abandon(State(handle): State<Handle>, Path(id): Path<String>, given: Body) -> Answer {
    let given: types::ReasonBody = body(given)?;
    command(&handle, &id, Command::Abandon { reason: given.reason }).await
}

#[utoipa::path(
    patch,
    path = "/api/v1/migrations/{id}/traffic",
    tag = "migrations",
    summary = "Not supported: blue_green and big_bang move all at once",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 501, description = "done"), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn traffic(Path(id): Path<String>) -> Failure {
    Failure::not_supported(format!(
        "migration {id}: shares of traffic are not supported yet; strategies blue_green and big_bang move all at once"
    ))
}

#[utoipa::path(
    get,
    path = "/api/v1/migrations/{id}/report",
    tag = "migrations",
    summary = "The evidence report; plain Markdown with `Accept: text/markdown`",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 200, description = "done", body = types::Report), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn report_of(State(handle): State<Handle>, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let report = convert::report(&handle.report(migration_id(&id)?).await?);
    let wants = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if wants.contains("text/markdown") {
        return Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], report.markdown).into_response());
    }
    json(&report)
}

#[utoipa::path(
    get,
    path = "/api/v1/migrations/{id}/divergences",
    tag = "migrations",
    summary = "Keys proven different: counts, and up to 1000 entries",
    params(("id" = String, Path, description = "id of the migration")),
    responses((status = 200, description = "done", body = types::Divergences), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn divergences(State(handle): State<Handle>, Path(id): Path<String>) -> Answer {
    json(&convert::divergences(&handle.divergences(migration_id(&id)?).await?))
}

async fn command(handle: &Handle, id: &str, command: Command) -> Answer {
    json(&convert::migration(&handle.command(migration_id(id)?, command).await?))
}
