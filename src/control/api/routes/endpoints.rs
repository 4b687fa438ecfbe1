//! Endpoints: the servers of the configuration, with the facts of the last check.

use axum::extract::{Path, State};

use super::super::body::{Answer, endpoint_name, json};
use super::super::{convert, types};
use crate::reconcile::Handle;

#[utoipa::path(
    get,
    path = "/api/v1/endpoints",
    tag = "endpoints",
    summary = "Every endpoint with the facts of the last check; never a password",
    responses((status = 200, description = "done", body = Vec<types::Endpoint>), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn endpoints(State(handle): State<Handle>) -> Answer {
    json(&handle.endpoints().await?.iter().map(convert::endpoint).collect::<Vec<_>>())
}

#[utoipa::path(
    get,
    path = "/api/v1/endpoints/{name}",
    tag = "endpoints",
    summary = "One endpoint",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Endpoint), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn endpoint(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::endpoint(&handle.endpoint(endpoint_name(&name)?).await?))
}

#[utoipa::path(
    post,
    path = "/api/v1/endpoints/{name}/check",
    tag = "endpoints",
    summary = "Checks the server now",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Endpoint), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn check_endpoint(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::endpoint(&handle.check_endpoint(endpoint_name(&name)?).await?))
}
