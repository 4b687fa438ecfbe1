//! Interlays: the authoritative side, pauses, sessions, analysis.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};

use super::super::body::{Answer, Body, body, duration, endpoint_name, interlay_name, json};
use super::super::problem::Failure;
use super::super::{convert, types};
use crate::reconcile::Handle;
use crate::reconcile::views::limits;

#[utoipa::path(
    get,
    path = "/api/v1/interlays",
    tag = "interlays",
    summary = "Every interlay: authoritative side, mode, plan, cores that have not adopted the plan",
    responses((status = 200, description = "done", body = Vec<types::Interlay>), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn interlays(State(handle): State<Handle>) -> Answer {
    json(&handle.interlays().await?.iter().map(convert::interlay).collect::<Vec<_>>())
}

#[utoipa::path(
    get,
    path = "/api/v1/interlays/{name}",
    tag = "interlays",
    summary = "One interlay",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Interlay), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn interlay(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::interlay(&handle.interlay(interlay_name(&name)?).await?))
}

#[utoipa::path(
    post,
    path = "/api/v1/interlays/{name}/pause",
    tag = "interlays",
    summary = "Holds every client at its next unit of work and drains (PostgreSQL)",
    params(("name" = String, Path, description = "its name")),
    request_body = types::PauseBody,
    responses((status = 200, description = "done", body = types::Paused), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn pause_interlay(State(handle): State<Handle>, Path(name): Path<String>, given: Body) -> Answer {
    let given: types::PauseBody = body(given)?;
    let (deadline, hold) = (limits::PAUSE_DEADLINE_DEFAULT, limits::PAUSE_HOLD_DEFAULT);
    let deadline = duration("deadline_ms", given.deadline_ms, deadline, limits::PAUSE_DEADLINE_MAX)?;
    let hold = duration("hold_ms", given.hold_ms, hold, limits::PAUSE_HOLD_MAX)?;
    json(&convert::paused(&handle.pause(interlay_name(&name)?, deadline, hold).await?))
}

#[utoipa::path(
    post,
    path = "/api/v1/interlays/{name}/resume",
    tag = "interlays",
    summary = "Releases the clients that a pause holds",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Resumed), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn resume_interlay(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::resumed(&handle.resume(interlay_name(&name)?).await?))
}

#[utoipa::path(
    get,
    path = "/api/v1/interlays/{name}/sessions",
    tag = "interlays",
    summary = "The connected clients (PostgreSQL)",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Sessions), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn sessions(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::sessions(&handle.sessions(interlay_name(&name)?).await?))
}

/// What is analysed and how much of it is returned.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AnalysisQuery {
    /// An endpoint; default: the configured target, if there is one.
    target: Option<String>,
    /// How many fingerprints; 1 to 1000, default 50.
    limit: Option<usize>,
}

#[utoipa::path(
    get,
    path = "/api/v1/interlays/{name}/analysis",
    tag = "interlays",
    summary = "The statements that applications run, and findings against a target (PostgreSQL)",
    params(("name" = String, Path, description = "its name"), AnalysisQuery),
    responses((status = 200, description = "done", body = types::Analysis), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn analysis(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    query: Result<Query<AnalysisQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(limits::ANALYSIS_LIMIT_DEFAULT);
    if limit == 0 || limit > limits::FINGERPRINTS_MAX {
        return Err(Failure::invalid(format!("limit must be from 1 to {}", limits::FINGERPRINTS_MAX)));
    }
    let target = query.target.as_deref().map(endpoint_name).transpose()?;
    json(&convert::analysis(&handle.analysis(interlay_name(&name)?, target, limit).await?))
}

#[utoipa::path(
    post,
    path = "/api/v1/interlays/{name}/drain",
    tag = "interlays",
    summary = "Not supported: stop the process with SIGTERM instead",
    params(("name" = String, Path, description = "its name")),
    responses((status = 501, description = "done"), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn drain(Path(name): Path<String>) -> Failure {
    Failure::not_supported(format!(
        "draining interlay {name} alone is not supported yet: stop the process with SIGTERM to drain all of them"
    ))
}
