//! The process itself: health, readiness, metrics, overall status.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::super::body::{Answer, json, json_with};
use super::super::{convert, metrics, types};
use crate::reconcile::Handle;

#[utoipa::path(
    get,
    path = "/healthz",
    tag = "process",
    summary = "The control thread answers",
    responses((status = 200, description = "`ok`", content_type = "text/plain", body = String), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn healthz() -> &'static str {
    "ok\n"
}

#[utoipa::path(
    get,
    path = "/readyz",
    tag = "process",
    summary = "Whether clients are served, by which driver, and notes such as pauses",
    responses((status = 200, description = "done", body = types::Ready), (status = 503, description = "not ready", body = types::Ready), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn readyz(State(handle): State<Handle>) -> Answer {
    let view = handle.ready().await?;
    let status = if view.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_with(
        status,
        &types::Ready { ready: view.ready, driver: view.driver, problems: view.problems, notes: view.notes },
    )
}

#[utoipa::path(
    get,
    path = "/metrics",
    tag = "process",
    summary = "Metrics for Prometheus: docs/METRICS.md",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn metrics_page(State(handle): State<Handle>) -> Answer {
    let text = metrics::render(&handle.metrics().await?);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

#[utoipa::path(
    get,
    path = "/api/v1/status",
    tag = "process",
    summary = "The status of everything",
    responses((status = 200, description = "done", body = types::Status), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn status(State(handle): State<Handle>) -> Answer {
    json(&convert::status(&handle.status().await?))
}
