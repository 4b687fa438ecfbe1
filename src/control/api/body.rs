//! Request and response bodies: JSON with limits, and names from paths.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Failure;
use crate::reconcile::views::{EndpointName, InterlayName, MigrationId, NameError, limits};

/// The result of a handler.
pub type Answer = Result<Response, Failure>;
/// A request body as received.
pub type Body = Result<Bytes, BytesRejection>;

pub fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

pub fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding", error.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Reads a JSON body; an empty one counts as `{}`, for types in which every field has a default.
pub fn body<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    body_up_to(body, limits::ADMIN_BODY_BYTES_MAX)
}

/// As [`body`], for a route with a limit of its own.
pub fn body_up_to<T: DeserializeOwned>(body: Body, bytes_max: usize) -> Result<T, Failure> {
    let bytes = body.map_err(|rejection| {
        let status = rejection.status();
        let text = if status == StatusCode::PAYLOAD_TOO_LARGE {
            format!("the body is larger than the limit of {bytes_max} bytes")
        } else {
            rejection.body_text()
        };
        Failure::new(status, "invalid-body", text)
    })?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "invalid-body",
            format!("the body does not have the expected form: {error}"),
        )
    })
}

pub fn migration_id(text: &str) -> Result<MigrationId, Failure> {
    MigrationId::new(text).map_err(|error: NameError| Failure::invalid(error.to_string()))
}

pub fn endpoint_name(text: &str) -> Result<EndpointName, Failure> {
    EndpointName::new(text).map_err(|error| Failure::invalid(error.to_string()))
}

pub fn interlay_name(text: &str) -> Result<InterlayName, Failure> {
    InterlayName::new(text).map_err(|error| Failure::invalid(error.to_string()))
}

/// A duration in milliseconds, from 1 to `max`.
pub fn duration(name: &str, given: Option<u64>, default: Duration, max: Duration) -> Result<Duration, Failure> {
    let duration = given.map_or(default, Duration::from_millis);
    if duration.is_zero() || duration > max {
        return Err(Failure::invalid(format!("{name} must be from 1 to {}", max.as_millis())));
    }
    Ok(duration)
}
