//! Errors as RFC 9457 problem documents: what was wrong, what to do, and the unmet gates if those are the reason.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::convert::gates::gate;
use super::convert::sessions::listed;
use super::types::{Gate, Problem, Session};
use crate::reconcile::ControlError;
use crate::reconcile::views::Refusal;

/// A request that failed or was refused.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    gates: Vec<Gate>,
    sessions: Vec<Session>,
}

impl Failure {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), gates: Vec::new(), sessions: Vec::new() }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub fn not_supported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not-supported", detail)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let detail = error.to_string();
        match error {
            ControlError::NotFound(_) => Self::not_found(detail),
            ControlError::Refused(Refusal::UnmetGates { gates, .. }) => Self {
                gates: gates.iter().map(gate).collect(),
                ..Self::new(StatusCode::CONFLICT, "unmet-gates", detail)
            },
            ControlError::Refused(Refusal::WrongPhase(_)) => Self::new(StatusCode::CONFLICT, "wrong-phase", detail),
            ControlError::Refused(Refusal::Invalid(_)) | ControlError::Invalid(_) => Self::invalid(detail),
            ControlError::HeldUp { sessions, .. } => {
                Self { sessions: listed(&sessions), ..Self::new(StatusCode::CONFLICT, "pause-held-up", detail) }
            }
            ControlError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            ControlError::Unsupported(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not-supported", detail),
            ControlError::FilterRefused(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "filter-refused", detail),
            ControlError::Upstream(_) => Self::new(StatusCode::BAD_GATEWAY, "endpoint-failed", detail),
            ControlError::Store(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store-failed", detail),
            ControlError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("urn:crossfade:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            gates: self.gates,
            sessions: self.sessions,
        };
        // The document consists of strings and numbers: encoding cannot fail.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}
