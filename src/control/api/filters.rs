//! Routes of filters and policies.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::get;

use super::{Answer, Body, body_up_to, convert, interlay_name, json, migration_id, types};
use crate::reconcile::Handle;
use crate::reconcile::views::{Command, limits};

pub fn routes() -> Router<Handle> {
    let one = get(show).put(load).delete(unload).layer(DefaultBodyLimit::max(limits::FILTER_BODY_BYTES_MAX));
    Router::new()
        .route("/api/v1/filters", get(list))
        .route("/api/v1/filters/{name}", one)
        .route("/api/v1/interlays/{name}/policies", get(policies))
        .route("/api/v1/migrations/{id}/policies/{slot}", axum::routing::put(set).delete(inherit))
}

async fn list(State(handle): State<Handle>) -> Answer {
    json(&handle.filters().await?.iter().map(convert::filter).collect::<Vec<_>>())
}

async fn show(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::filter(&handle.filter(convert::filter_name(&name)?).await?))
}

async fn load(State(handle): State<Handle>, Path(name): Path<String>, given: Body) -> Answer {
    let load = convert::load_filter(&name, body_up_to(given, limits::FILTER_BODY_BYTES_MAX)?)?;
    json(&convert::filter(&handle.load_filter(load).await?))
}

async fn unload(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::filter(&handle.unload_filter(convert::filter_name(&name)?).await?))
}

async fn policies(State(handle): State<Handle>, Path(name): Path<String>) -> Answer {
    json(&convert::interlay_policies(&handle.policies(interlay_name(&name)?).await?))
}

async fn set(State(handle): State<Handle>, Path((id, slot)): Path<(String, String)>, given: Body) -> Answer {
    let policy: types::Policy = super::body(given)?;
    choose(&handle, &id, &slot, Some(policy)).await
}

async fn inherit(State(handle): State<Handle>, Path((id, slot)): Path<(String, String)>) -> Answer {
    choose(&handle, &id, &slot, None).await
}

async fn choose(handle: &Handle, id: &str, slot: &str, policy: Option<types::Policy>) -> Answer {
    let choice = policy.map(convert::policy_choice).transpose()?;
    let command = Command::SetPolicy { slot: convert::policy_slot(slot)?, choice };
    json(&convert::migration(&handle.command(migration_id(id)?, command).await?))
}
