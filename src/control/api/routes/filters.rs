//! Filters, and the policies that use them.

use axum::extract::{Path, State};

use super::super::body::{Answer, Body, body, body_up_to, interlay_name, json, migration_id};
use super::super::{convert, types};
use crate::reconcile::Handle;
use crate::reconcile::views::{Command, limits};

#[utoipa::path(
    get,
    path = "/api/v1/filters",
    tag = "filters",
    summary = "Every loaded filter, the slots it is in, and its statistics there",
    responses((status = 200, description = "done", body = Vec<types::Filter>), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn filters(State(handle): State<Handle>) -> Answer {
    json(&handle.filters().await?.iter().map(convert::filter).collect::<Vec<_>>())
}

#[utoipa::path(
    get,
    path = "/api/v1/filters/{name}",
    tag = "filters",
    summary = "One filter",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Filter), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn filter(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::filter(&handle.filter(convert::filter_name(&name)?).await?))
}

#[utoipa::path(
    put,
    path = "/api/v1/filters/{name}",
    tag = "filters",
    summary = "Loads or replaces a filter; answers when every core that uses it has adopted it",
    params(("name" = String, Path, description = "its name")),
    request_body = types::LoadFilter,
    responses((status = 200, description = "done", body = types::Filter), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn load(State(handle): State<Handle>, Path(name): Path<String>, given: Body) -> Answer {
    let load = convert::load_filter(&name, body_up_to(given, limits::FILTER_BODY_BYTES_MAX)?)?;
    json(&convert::filter(&handle.load_filter(load).await?))
}

#[utoipa::path(
    delete,
    path = "/api/v1/filters/{name}",
    tag = "filters",
    summary = "Unloads a filter; answers with the filter as it was",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::Filter), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn unload(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::filter(&handle.unload_filter(convert::filter_name(&name)?).await?))
}

#[utoipa::path(
    get,
    path = "/api/v1/interlays/{name}/policies",
    tag = "filters",
    summary = "The filter in each slot of an interlay, and its statistics (Redis)",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, description = "done", body = types::InterlayPolicies), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn policies(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::interlay_policies(&handle.policies(interlay_name(&name)?).await?))
}

#[utoipa::path(
    put,
    path = "/api/v1/migrations/{id}/policies/{slot}",
    tag = "filters",
    summary = "Chooses a policy for one slot of a migration, in any phase; it is tested first",
    params(("id" = String, Path, description = "id of the migration"), ("slot" = String, Path, description = "mirror, compare, rollback or records")),
    request_body = types::Policy,
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn set(State(handle): State<Handle>, Path((id, slot)): Path<(String, String)>, given: Body) -> Answer {
    let policy: types::Policy = body(given)?;
    choose(&handle, &id, &slot, Some(policy)).await
}

#[utoipa::path(
    delete,
    path = "/api/v1/migrations/{id}/policies/{slot}",
    tag = "filters",
    summary = "Removes the migration's own policy for a slot; the interlay's applies again",
    params(("id" = String, Path, description = "id of the migration"), ("slot" = String, Path, description = "mirror, compare, rollback or records")),
    responses((status = 200, description = "done", body = types::Migration), (status = "default", description = "a problem document (RFC 9457)", body = types::Problem, content_type = "application/problem+json")),
)]
pub async fn inherit(State(handle): State<Handle>, Path((id, slot)): Path<(String, String)>) -> Answer {
    choose(&handle, &id, &slot, None).await
}

async fn choose(handle: &Handle, id: &str, slot: &str, policy: Option<types::Policy>) -> Answer {
    let choice = policy.map(convert::policy_choice).transpose()?;
    let command = Command::SetPolicy { slot: convert::policy_slot(slot)?, choice };
    json(&convert::migration(&handle.command(migration_id(id)?, command).await?))
}
