//! `GET /api/v1/events`: server-sent events, numbered, resumable with `Last-Event-ID`.

use std::convert::Infallible;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use super::super::body::{Answer, migration_id};
use super::super::problem::Failure;
use super::super::{convert, types};
use crate::reconcile::{Handle, JournalEntry};

/// Which events.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Events of this migration only.
    migration: Option<String>,
    /// As the header `Last-Event-ID`, for callers that cannot set one. 0 = from the beginning.
    after: Option<u64>,
    /// End after the known events.
    #[serde(default)]
    past_only: bool,
}

#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    summary = "Server-sent events; data is a JSON `Event`",
    params(EventsQuery, ("last-event-id" = Option<u64>, Header, description = "as `after`")),
    responses((status = 200, description = "one `Event` after another", content_type = "text/event-stream", body = String), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn events(
    State(handle): State<Handle>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let Query(query) = query.map_err(|rejection| Failure::invalid(rejection.body_text()))?;
    let last = match headers.get("last-event-id") {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).ok_or_else(|| {
            Failure::invalid("Last-Event-ID is not a number: send the number of the last event received")
        })?),
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

/// Events as they happen; ends when the loop ends, or when this subscriber was too slow.
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
