//! The admin HTTP API: routes, bodies in, types and problem documents out. Control thread.
//!
//! The only place that uses axum. Makes no decisions: every answer comes from the control loop through its handle.

mod body;
mod convert;
mod metrics;
mod offline;
mod page;
mod problem;
mod report;
mod routes;
pub mod types;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

pub use offline::{Pair, filter_bench, filter_test, preflight};
use problem::Failure;

use crate::reconcile::Handle;
use crate::reconcile::views::limits;

/// Serves until the listener fails.
///
/// # Errors
/// The operating system's.
pub async fn serve(listener: TcpListener, handle: Handle) -> std::io::Result<()> {
    axum::serve(listener, router(handle)).await
}

/// The OpenAPI document, as `/api/v1/openapi.json` serves it.
#[must_use]
pub fn openapi() -> String {
    // The document consists of derived types: encoding cannot fail.
    routes::documented().into_openapi().to_pretty_json().unwrap_or_default()
}

fn router(handle: Handle) -> Router {
    let document: Arc<str> = openapi().into();
    let serve_document = move || {
        let document = document.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], document).into_response() }
    };
    let (documented, _) = routes::documented().split_for_parts();
    documented
        .route("/", get(page::index))
        .route("/api/v1/openapi.json", get(serve_document))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES_MAX))
        .with_state(handle)
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::not_found(format!("there is no path {}; /api/v1/openapi.json lists the valid ones", uri.path()))
}

async fn wrong_method(uri: Uri) -> Failure {
    let text = format!("{} does not take this method; /api/v1/openapi.json lists paths and methods", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", text)
}
